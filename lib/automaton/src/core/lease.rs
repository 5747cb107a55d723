//! How this node gets, keeps, gives and loses the right to serve, where an arbiter decides: see [`crate::arbitration`] for the argument.
//!
//! A *claim* is the way to the right: it is pursued while the rules ask for it, and forgotten when they do not any more. A *tenure* is the right itself:
//! it ends with its lease, whatever else this node is doing, and never comes back by itself.

mod words;

use super::run::{JobKind, StopRequest, Then};
use super::{Core, Weakness};
use crate::action::Action;
use crate::arbitration::{Answer, Bounds, Claimant, Denial, Ground, Observation, Record, Request, may_claim};
use crate::state::{Arbiter, Published, StateName};
use serde::{Deserialize, Serialize};

/// How often a question that was answered with no, or not at all, is asked again.
const RETRY_MS: u64 = 2_000;
/// A request that is not answered by then never will be; the shell gives up earlier.
const ANSWER_MS: u64 = 20_000;
/// Percent of a lease that may pass before it is renewed in the store, and before the peer is asked again.
const RENEW_BELOW: u64 = 60;
const STAMP_PARTS: u64 = 4;

/// Whether the arbiter lets this node serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Granted,
    /// An answer, or the end of a lease, is waited for.
    Pending,
    /// In words.
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refusal {
    Unreachable(String),
    Denied(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Asked {
    id: u64,
    request: Request,
    /// Own clock, before the request left.
    at: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    ground: Ground,
    alone: bool,
    seen: Option<Observation>,
    /// What is under the key is not a record.
    strange: Option<String>,
    refusal: Option<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tenure {
    revision: u64,
    record: Record,
    /// End of the lease, own clock.
    until: u64,
}

/// Everything the core knows about its arbiter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Arbitration {
    asked: Option<Asked>,
    retry_at: Option<u64>,
    unreachable: bool,
    /// `ping`: the answer for the present silence of the peer.
    tested: Option<bool>,
    claim: Option<Claim>,
    /// The rules asked for the claim in this pass.
    pursued: bool,
    tenure: Option<Tenure>,
    /// A swap of roles waits for the record to name the peer.
    transfer: bool,
    turn: u64,
    /// Revision written last in this life.
    written: u64,
    /// Stamps of this life: the first and the last one published.
    stamps: Option<(u64, u64)>,
    /// The peer's newest stamp, whose it is, and when it was heard.
    heard: Option<(u64, u64, u64)>,
    /// When (own clock) the peer, serving, was last heard, and the revision it had written.
    served: Option<(u64, u64)>,
    /// `ping`: in WAIT until the peer is heard.
    pub(super) hold: bool,
    /// In sync until the primary was lost; only the arbiter stood in the way.
    pub(super) heir: bool,
    /// `splitbrain.uptodate`.
    verdict: Option<bool>,
}

impl Core {
    fn lease_ms(&self) -> Option<u64> {
        match self.settings.arbiter {
            Arbiter::Store { lease_ms, .. } => Some(lease_ms),
            _ => None,
        }
    }

    // --- what events teach ---

    /// The lease ends at its time, before anything else is considered.
    pub(super) fn expire_tenure(&mut self) {
        let over = self.arbitration.tenure.as_ref().is_some_and(|t| t.until <= self.now);
        if over && !self.weak(Weakness::OutlivesItsLease) {
            self.lose_tenure("the lease ended: neither the arbiter nor the other node renewed it");
        }
    }

    fn lose_tenure(&mut self, why: &str) {
        self.arbitration.tenure = None;
        self.arbitration.transfer = false;
        self.arbitration.claim = None;
        self.arbitration.verdict = Some(false);
        let role = self.state.name.serves() || matches!(self.job.as_ref().map(|j| j.kind), Some(JobKind::Move));
        if role {
            self.log('C', "heart", format!("This node may not serve any more: {why}"));
            self.pause_for_arbiter();
        }
    }

    /// Back to WAIT, where the rule is shown.
    pub(super) fn pause_for_arbiter(&mut self) {
        self.arbitration.verdict = Some(false);
        self.arbitration.hold |= self.settings.arbiter == Arbiter::Ping;
        self.log('C', "heart", "Action wait from failover rule splitbrain_failure");
        self.last_complaint = Some(complaint());
        self.request_stop(StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true });
    }

    pub(super) fn arbiter_answers(&mut self, id: u64, answer: Answer) {
        let Some(asked) = self.arbitration.asked.take_if(|a| a.id == id) else { return };
        self.arbitration.retry_at = None;
        if let Answer::Unreachable { reason } = answer {
            return self.arbiter_is_silent(&asked, reason);
        }
        if std::mem::take(&mut self.arbitration.unreachable) {
            self.log('I', "heart", "The arbiter answers again");
        }
        match (asked.request, answer) {
            (Request::Test, Answer::Reached) => self.arbitration.tested = Some(true),
            (Request::Swap { record, .. }, Answer::Swapped { revision }) => self.swapped(revision, record, asked.at),
            (Request::Read, Answer::Found { revision, record }) => self.read(revision, record, None),
            (Request::Read, Answer::Strange { revision, reason }) => self.read(revision, None, Some(reason)),
            (Request::Swap { .. }, Answer::Found { revision, record }) => self.not_swapped(revision, record, None),
            (Request::Swap { .. }, Answer::Strange { revision, reason }) => {
                self.not_swapped(revision, None, Some(reason));
            }
            // An answer to another question: as good as none.
            (request, _) => {
                let asked = Asked { request, ..asked };
                self.arbiter_is_silent(&asked, "its answer does not fit the question".to_owned());
            }
        }
    }

    fn arbiter_is_silent(&mut self, asked: &Asked, reason: String) {
        if !std::mem::replace(&mut self.arbitration.unreachable, true) {
            self.log('C', "heart", format!("The arbiter does not answer: {reason}"));
        }
        let lease = self.lease_ms().unwrap_or(u64::MAX);
        self.arbitration.retry_at = Some(self.now.saturating_add(RETRY_MS.min(lease / 8)));
        match &asked.request {
            Request::Test => self.arbitration.tested = Some(false),
            Request::Read | Request::Swap { .. } => {
                if let Some(claim) = self.arbitration.claim.as_mut() {
                    // The swap may have been made all the same: the record is read again.
                    claim.seen = None;
                    claim.refusal = Some(Refusal::Unreachable(reason));
                }
                if std::mem::take(&mut self.arbitration.transfer) {
                    self.auto_swap = false;
                    self.answer_swap_order();
                    self.refuse(
                        "no swap: the arbiter cannot be reached, and it must know who serves",
                        "look at it with: sk-arbiter show",
                    );
                }
            }
        }
    }

    fn read(&mut self, revision: u64, record: Option<Record>, strange: Option<String>) {
        let mut at = self.now;
        if let Some((heard, written)) = self.arbitration.served
            && written == revision
        {
            // The peer had written this record when it was heard: it is at least as old.
            at = at.min(heard);
        }
        if let Some(claim) = self.arbitration.claim.as_mut() {
            claim.seen = Some(Observation { revision, record, at });
            claim.strange = strange;
        }
    }

    fn swapped(&mut self, revision: u64, record: Record, sent: u64) {
        self.arbitration.written = revision;
        let Some(lease) = self.lease_ms() else { return };
        if record.owner != self.settings.node {
            // Handed over: the present lease runs on, and is not renewed.
            if let Some(tenure) = self.arbitration.tenure.as_mut() {
                tenure.revision = revision;
                tenure.record = record;
            }
            return;
        }
        let clock = if self.weak(Weakness::TrustsWallClock) { self.wall_lease_base(sent) } else { sent };
        let until = clock.saturating_add(lease);
        match self.arbitration.tenure.as_mut() {
            Some(tenure) => {
                tenure.revision = revision;
                tenure.record = record;
                tenure.until = tenure.until.max(until);
                self.show_lease();
            }
            // Answered after the claim was forgotten, or too late to be of use.
            None if self.arbitration.claim.is_none() || until <= self.now => {}
            None => {
                self.arbitration.tenure = Some(Tenure { revision, record, until });
                self.show_lease();
            }
        }
    }

    /// The mistake of a lease counted by a clock that people set: the difference of both clocks is taken for nothing.
    fn wall_lease_base(&self, sent: u64) -> u64 {
        let epoch = 1_700_000_000_000;
        self.wall.saturating_sub(epoch).max(sent)
    }

    fn show_lease(&mut self) {
        if let Some(until_ms) = self.arbitration.tenure.as_ref().map(|t| t.until) {
            self.out.push(Action::Lease { until_ms });
        }
    }

    fn not_swapped(&mut self, revision: u64, record: Option<Record>, strange: Option<String>) {
        let ours = record.as_ref().is_some_and(|r| r.by == self.settings.node && r.life == self.incarnation);
        if let Some(tenure) = self.arbitration.tenure.as_mut() {
            if let Some(record) = record.filter(|_| ours) {
                // An earlier swap of ours was made, and its answer lost: it renews nothing, the next one does.
                tenure.revision = revision;
                tenure.record = record;
                self.arbitration.written = revision;
            } else if revision == 0 {
                // The store lost its memory: written anew while the lease lasts.
                tenure.revision = 0;
            } else {
                self.lose_tenure("the arbiter's record was changed by somebody else");
            }
        } else {
            if ours {
                self.arbitration.written = revision;
            }
            self.read(revision, record, strange);
        }
    }

    /// What the peer's message says about leases.
    pub(super) fn hear_leases(&mut self, peer: &Published) {
        self.arbitration.tested = None;
        self.arbitration.hold = false;
        if peer.state.name.serves() {
            self.arbitration.heir = false;
            self.arbitration.served = Some((self.now, peer.store_revision));
            if peer.lease_stamp > 0 {
                self.arbitration.heard = Some((peer.incarnation, peer.lease_stamp, self.now));
            }
        }
        if self.arbitration.verdict == Some(false) && !self.state.name.serves() {
            self.arbitration.verdict = Some(true);
        }
        // A secondary's promise, for a stamp of this very life.
        let Some(lease) = self.lease_ms() else { return };
        let ours = peer.lease_to == self.incarnation
            && self.arbitration.stamps.is_some_and(|(first, last)| peer.lease_echo >= first && peer.lease_echo <= last);
        if peer.state.name == StateName::Second
            && ours
            && let Some(tenure) = self.arbitration.tenure.as_mut()
        {
            let until = peer.lease_echo.saturating_add(lease);
            if until > tenure.until {
                tenure.until = until;
                self.show_lease();
            }
        }
    }

    pub(super) fn lose_leases(&mut self) {
        self.arbitration.tested = None;
    }

    // --- what the rules ask ---

    /// Whether this node may begin to serve. Asked again and again until it is granted or not wanted any more.
    pub(super) fn may_serve(&mut self, ground: Ground, alone: bool) -> Permission {
        if self.lease_ms().is_none() || self.weak(Weakness::ServesUnasked) {
            return Permission::Granted;
        }
        let node = &self.settings.node;
        if self.arbitration.tenure.as_ref().is_some_and(|t| t.record.owner == *node && t.record.alone == alone) {
            self.arbitration.verdict = Some(true);
            return Permission::Granted;
        }
        self.arbitration.pursued = true;
        let claim =
            self.arbitration.claim.get_or_insert(Claim { ground, alone, seen: None, strange: None, refusal: None });
        (claim.ground, claim.alone) = (ground, alone);
        let refusal = claim.refusal.clone();
        if refusal.is_some() {
            self.arbitration.verdict = Some(false);
        }
        refusal.map_or(Permission::Pending, Permission::Refused)
    }

    /// Whether a node that serves, or a secondary, may go on without its peer, which is lost for this reason.
    pub(super) fn may_go_alone(&mut self, why: &str) -> Permission {
        match self.settings.arbiter {
            Arbiter::Ping if why == "no heartbeat" => match self.arbitration.tested {
                Some(true) => {
                    self.arbitration.verdict = Some(true);
                    Permission::Granted
                }
                Some(false) => Permission::Refused(Refusal::Unreachable("no witness answered".to_owned())),
                None => Permission::Pending,
            },
            Arbiter::Store { .. } if self.state.name.serves() && !self.weak(Weakness::ServesUnasked) => {
                match &self.arbitration.tenure {
                    Some(t) if t.record.alone && t.record.owner == self.settings.node => Permission::Granted,
                    _ => Permission::Pending,
                }
            }
            Arbiter::None | Arbiter::Ping | Arbiter::Store { .. } => Permission::Granted,
        }
    }

    /// Whether a primary may name a partner, who may then take over.
    pub(super) fn may_pair(&self) -> bool {
        self.lease_ms().is_none() || self.arbitration.tenure.as_ref().is_some_and(|t| !t.record.alone)
    }

    /// Whether the record names the peer already; begins to see to it otherwise.
    pub(super) fn handed_over(&mut self) -> bool {
        if self.lease_ms().is_none() {
            return true;
        }
        let done = self.arbitration.tenure.as_ref().is_some_and(|t| t.record.owner == self.settings.peer);
        self.arbitration.transfer = !done;
        done
    }

    pub(super) fn transfer_wanted(&self) -> bool {
        self.arbitration.transfer
    }

    /// The role was given away, or is over.
    pub(super) fn end_tenure(&mut self) {
        self.arbitration.tenure = None;
        self.arbitration.transfer = false;
    }

    /// Serves, or tries to, without the right to it: what waits for the disk must not wait for ever.
    pub(super) fn unlicensed(&self) -> bool {
        self.lease_ms().is_some()
            && self.state.name.serves()
            && self.arbitration.tenure.is_none()
            && !self.weak(Weakness::ServesUnasked)
    }

    pub(super) fn forget_arbitration(&mut self) {
        self.arbitration.claim = None;
        self.arbitration.tenure = None;
        self.arbitration.tested = None;
        self.arbitration.hold = false;
        self.arbitration.heir = false;
        self.arbitration.verdict = None;
    }

    // --- what follows without being asked ---

    /// Asks the arbiter what has to be asked now. At most one question is under way.
    pub(super) fn arbitrate(&mut self) {
        let pursued = std::mem::take(&mut self.arbitration.pursued);
        if self.arbitration.transfer && self.job.is_none() && !self.can_swap() {
            self.arbitration.transfer = false;
        }
        // Rules are not asked while a step runs: what they wanted last is kept.
        if !pursued && self.job.is_none() {
            self.arbitration.claim = None;
        }
        let idle = !self.state.name.serves() && self.job.is_none() && self.stop_request.is_none();
        if idle && !pursued && self.arbitration.tenure.is_some() {
            self.end_tenure();
        }
        if let Some(asked) = self.arbitration.asked.take_if(|a| a.at.saturating_add(ANSWER_MS) <= self.now) {
            self.arbiter_is_silent(&asked, "no answer in time".to_owned());
        }
        self.arbitration.retry_at = self.arbitration.retry_at.filter(|at| *at > self.now);
        if self.arbitration.asked.is_some() || self.arbitration.retry_at.is_some() {
            return;
        }
        let request = match self.settings.arbiter {
            Arbiter::None => None,
            Arbiter::Ping => {
                let lost = self.peer_gone() == Some("no heartbeat") && self.arbitration.tested.is_none();
                let concerned = matches!(self.state.name, StateName::Prim | StateName::Second) || self.serves_paired();
                (lost && concerned).then_some(Request::Test)
            }
            Arbiter::Store { lease_ms, .. } => self.renewal(lease_ms).or_else(|| self.next_of_claim(lease_ms)),
        };
        if let Some(request) = request {
            let id = self.id();
            self.arbitration.asked = Some(Asked { id, request: request.clone(), at: self.now });
            self.out.push(Action::Arbitrate { id, request });
        }
    }

    fn record(&mut self, owner: &str, alone: bool, lease_ms: u64) -> Record {
        self.arbitration.turn += 1;
        Record {
            owner: owner.to_owned(),
            epoch: self.own_lineage().head().filter(|_| self.settings.replicated),
            alone,
            by: self.settings.node.clone(),
            life: self.incarnation,
            turn: self.arbitration.turn,
            lease_ms,
        }
    }

    /// The owner's next swap, if one is due.
    fn renewal(&mut self, lease_ms: u64) -> Option<Request> {
        let tenure = self.arbitration.tenure.as_ref()?;
        let handing = self.job.as_ref().is_some_and(|j| matches!(j.kind, JobKind::Move)) && self.state.name.serves();
        if tenure.record.owner != self.settings.node && handing {
            return None;
        }
        let alone = match self.state.name {
            StateName::Alone => !self.peer_joined(),
            StateName::Prim => self.peer_gone().is_some() || self.degraded,
            // On the way to a role: what was claimed, or is claimed now.
            _ => self.arbitration.claim.as_ref().map_or(tenure.record.alone, |c| c.alone),
        };
        let owner = if self.arbitration.transfer && !alone { &self.settings.peer } else { &self.settings.node }.clone();
        let epoch = self.own_lineage().head().filter(|_| self.settings.replicated);
        let different = tenure.record.owner != owner || tenure.record.alone != alone || tenure.record.epoch != epoch;
        let left = tenure.until.saturating_sub(self.now);
        if !different && left.saturating_mul(100) >= lease_ms.saturating_mul(RENEW_BELOW) {
            return None;
        }
        let expect = tenure.revision;
        Some(Request::Swap { expect, record: self.record(&owner, alone, lease_ms) })
    }

    /// The claimant's next question, if it need not wait.
    fn next_of_claim(&mut self, lease_ms: u64) -> Option<Request> {
        if self.arbitration.tenure.is_some() {
            return None;
        }
        let claim = self.arbitration.claim.clone()?;
        let Some(seen) = &claim.seen else { return Some(Request::Read) };
        if let Err(denial) = self.judge(&claim, seen) {
            let refusal = Some(Refusal::Denied(Self::words_of(denial, &claim, seen)));
            self.arbitration.retry_at = Some(self.now.saturating_add(RETRY_MS));
            if let Some(claim) = self.arbitration.claim.as_mut() {
                claim.seen = None;
                claim.refusal = refusal;
            }
            return None;
        }
        if let Some(claim) = self.arbitration.claim.as_mut() {
            claim.refusal = None;
        }
        if self.free_at(seen) > self.now {
            return None;
        }
        let owner = self.settings.node.clone();
        let expect = seen.revision;
        Some(Request::Swap { expect, record: self.record(&owner, claim.alone, lease_ms) })
    }

    fn judge(&self, claim: &Claim, seen: &Observation) -> Result<(), Denial> {
        if claim.strange.is_some() && claim.ground != Ground::Forced {
            return Err(Denial::Elsewhere);
        }
        let lineage = self.own_lineage();
        let claimant = Claimant {
            node: &self.settings.node,
            replicated: self.settings.replicated,
            standing: self.standing(),
            lineage: &lineage,
            served: self.persisted.was_primary,
            ground: if self.weak(Weakness::IgnoresTheRecord) { Ground::Forced } else { claim.ground },
        };
        may_claim(seen.record.as_ref(), &claimant)
    }

    fn words_of(denial: Denial, claim: &Claim, seen: &Observation) -> String {
        if let Some(strange) = &claim.strange {
            return format!("The arbiter's record of this module is unreadable: {strange}");
        }
        let owner = seen.record.as_ref().map_or("", |r| r.owner.as_str());
        match denial {
            Denial::NoRecord => "The arbiter knows nothing of this module".to_owned(),
            Denial::Newer => "The arbiter knows newer data of this node than it has".to_owned(),
            Denial::Elsewhere => format!("The arbiter says that {owner} has the data of this module"),
        }
    }

    fn free_at(&self, seen: &Observation) -> u64 {
        if self.weak(Weakness::TakesOverEarly) {
            return 0;
        }
        let word = self.peer().filter(|p| !p.state.name.serves() && p.store_revision > 0).map(|p| p.store_revision);
        let bounds = Bounds {
            node: &self.settings.node,
            incarnation: self.incarnation,
            granted_at: self.arbitration.heard.map(|(_, _, at)| at),
            word,
        };
        seen.free_at(&bounds, &self.settings.arbiter)
    }

    fn asks_the_peer(&self) -> bool {
        let following = self.peer().is_some_and(|p| p.state.name == StateName::Second);
        self.arbitration.tenure.is_some() && self.state.name.serves() && following
    }

    /// A new stamp, when it is time. Never older than the message that carries it.
    pub(super) fn stamp(&mut self) {
        let Some(lease_ms) = self.lease_ms().filter(|_| self.asks_the_peer()) else { return };
        self.arbitration.stamps = match self.arbitration.stamps {
            Some((first, last)) if self.now < last.saturating_add(lease_ms / STAMP_PARTS) => Some((first, last)),
            Some((first, _)) => Some((first, self.now)),
            None => Some((self.now, self.now)),
        };
    }

    /// What is published of leases.
    pub(super) fn put_leases(&self, state: &mut Published) {
        let owns = self.arbitration.tenure.as_ref().is_some_and(|t| t.record.owner == self.settings.node);
        let leaves = self.job.as_ref().is_some_and(|j| matches!(j.kind, JobKind::Stop(_) | JobKind::Pause));
        let about_to_serve = owns && !self.state.name.serves() && !leaves;
        // Else it would be taken for one that wrote the record and does not serve.
        state.store_revision = if about_to_serve { 0 } else { self.arbitration.written };
        if self.lease_ms().is_none() {
            return;
        }
        if self.asks_the_peer() {
            state.lease_stamp = self.arbitration.stamps.map_or(0, |(_, last)| last);
        }
        let quiet = self.arbitration.tenure.is_none() && self.arbitration.claim.is_none();
        if self.state.name == StateName::Second
            && quiet
            && self.peer_serves()
            && let Some((life, stamp, _)) = self.arbitration.heard
        {
            (state.lease_to, state.lease_echo) = (life, stamp);
        }
    }

    /// Times at which something of this file must be looked at again.
    pub(super) fn arbitration_deadlines(&self) -> [(Option<u64>, &'static str); 6] {
        let tenure = self.arbitration.tenure.as_ref();
        let lease_ms = self.lease_ms().unwrap_or(0);
        let renew =
            tenure.map(|t| t.until.saturating_sub(lease_ms.saturating_mul(RENEW_BELOW) / 100).saturating_add(1));
        let stamp = self
            .arbitration
            .stamps
            .filter(|_| self.asks_the_peer())
            .map(|(_, last)| last.saturating_add(lease_ms / STAMP_PARTS));
        let free = self.arbitration.claim.as_ref().and_then(|c| c.seen.as_ref()).map(|seen| self.free_at(seen));
        [
            (tenure.map(|t| t.until), "end of the lease"),
            (renew, "renewal of the lease"),
            (stamp, "renewal of the lease"),
            (free, "end of the other node's lease"),
            (self.arbitration.retry_at, "another question to the arbiter"),
            (self.arbitration.asked.as_ref().map(|a| a.at.saturating_add(ANSWER_MS)), "answer of the arbiter"),
        ]
    }

    pub(super) fn show_arbitration(&self) -> Option<bool> {
        self.arbitration.verdict.filter(|_| self.settings.arbiter != Arbiter::None)
    }

    /// Until when (own clock, ms) this node may serve; None without a store, or without the right.
    pub fn lease_until(&self) -> Option<u64> {
        self.arbitration.tenure.as_ref().map(|t| t.until)
    }
}

/// What [`Core::block`] would say, so that it is not said twice.
fn complaint() -> String {
    format!("splitbrain_failure {:?}", [] as [&str; 0])
}
