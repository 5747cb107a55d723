//! What may the kernel accept, and until when: release, take, yield, lease?

use super::agree::rank;
use super::message::{Record, ViewId};
use super::view::{Member, View, bit};
use super::{Farm, Notice, Output, Reason, Sets, Wrong};
use share::Buckets;

/// What the kernel was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    told: Vec<Sets>,
    /// What this node shall have in the present view.
    goal: Vec<Sets>,
    /// Number of the last order, and of the last one that the shell confirmed.
    number: u64,
    confirmed: u64,
    ordered: bool,
    stage: Stage,
    pub yields: Option<(u8, Reason)>,
    /// End of the lease as last told; 0: none.
    lease: u64,
    /// No lease before this time.
    pub not_before: u64,
    /// Nothing is taken before this time.
    pub not_taken_before: u64,
    /// Nobody served the present view's buckets before, as far as is known.
    pub begins: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// What was lost is being taken away.
    Releasing,
    /// Nothing beyond the view's share is accepted.
    Released,
    /// What was gained is being added.
    Taking,
    Settled,
}

impl Kernel {
    pub fn new(groups: usize) -> Self {
        Self { told: vec![Sets::default(); groups], ..Self::default() }
    }

    pub fn told(&self) -> &[Sets] {
        &self.told
    }

    pub fn confirm(&mut self, number: u64) {
        self.confirmed = self.confirmed.max(number.min(self.number));
    }

    fn order(&mut self, sets: Vec<Sets>) {
        if self.told != sets {
            self.told = sets;
            self.number += 1;
            self.ordered = true;
        }
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed == self.number
    }

    /// A view is in use: releases what is lost in it. `is_dead`: whether this life of a node is not in it any more.
    pub fn begin(&mut self, view: &View, former: Option<&View>, me: u8, is_dead: impl Fn(u8, u64) -> bool) {
        let mut release = Vec::new();
        self.goal.clear();
        for (group, table) in view.tables().iter().enumerate() {
            let old = self.told.get(group).copied().unwrap_or_default();
            let mine = table.owned(me);
            let kept = old.mine.and(mine);
            let given = old.legacy.or(old.mine).or(table.draining(me));
            let elsewhere = table.draining_elsewhere(me);
            let taken_from_dead: Buckets = mine
                .without(kept)
                .iter()
                .filter(|bucket| {
                    let before = former.and_then(|f| f.member(f.tables().get(group)?.owner(*bucket)?));
                    before.is_some_and(|m| is_dead(m.node, m.incarnation))
                })
                .collect();
            let dead = old.dead.and(kept).without(elsewhere);
            release.push(Sets { mine: kept, legacy: given.without(kept), dead });
            self.goal.push(Sets {
                mine,
                legacy: given.without(mine),
                dead: dead.or(taken_from_dead.without(elsewhere)),
            });
        }
        self.stage = Stage::Releasing;
        self.order(release);
    }

    pub fn drop_all(&mut self) {
        let sets = self.told.iter().map(|old| Sets {
            mine: Buckets::NONE,
            legacy: old.legacy.or(old.mine),
            dead: Buckets::NONE,
        });
        self.goal.clear();
        self.stage = Stage::Idle;
        self.order(sets.collect());
    }

    fn takes(&self) -> bool {
        matches!(self.stage, Stage::Taking | Stage::Settled)
    }

    pub fn has_released(&self) -> bool {
        self.stage == Stage::Released || self.takes()
    }
}

impl Farm {
    pub(super) fn serve(&mut self) {
        let yields = if self.makes(Wrong::NeverYields) { None } else { self.find_reason_to_yield() };
        if let Some((node, Reason::LeftOut)) = yields {
            self.drop_view(node);
        } else if yields != self.kernel.yields {
            let notice = yields.map_or(Notice::Resumes, |(node, reason)| Notice::Yields(node, reason));
            self.outputs.push(Output::Notice(notice));
            self.kernel.yields = yields;
            if yields.is_none() && self.leaves_somebody_out() {
                // Who went on because this node yielded may hear it and not be heard: see `begin_to_serve`.
                self.kernel.not_before = self.kernel.not_before.max(self.now + self.config.notice_ms());
            }
        }
        if self.kernel.stage == Stage::Releasing
            && (self.kernel.is_confirmed() || self.makes(Wrong::ReleasesBeforeKernel))
        {
            self.kernel.stage = Stage::Released;
        }
        if self.kernel.stage == Stage::Released
            && self.now >= self.kernel.not_taken_before
            && (self.all_released() || self.makes(Wrong::TakesBeforeRelease))
        {
            let goal = self.kernel.goal.clone();
            self.kernel.stage = Stage::Taking;
            self.kernel.order(goal);
        }
        if self.kernel.stage == Stage::Taking && self.kernel.is_confirmed() {
            self.kernel.stage = Stage::Settled;
            let generation = self.view.as_ref().map_or(0, View::generation);
            self.outputs.push(Output::Settled { generation });
        }
        if std::mem::take(&mut self.kernel.ordered) {
            let groups = self.kernel.told.clone();
            self.outputs.push(Output::Apply { number: self.kernel.number, groups });
        }
        self.renew();
    }

    /// Whether every other member's kernel is within its share of the present view.
    pub(super) fn all_released(&self) -> bool {
        let Some(view) = &self.view else { return false };
        view.members().iter().filter(|m| m.node != self.config.me).all(|m| {
            let record = self.peer(m.node).and_then(|p| p.record.as_ref());
            record.is_some_and(|r| r.incarnation == m.incarnation && r.view == view.id() && r.released)
        })
    }

    fn find_reason_to_yield(&self) -> Option<(u8, Reason)> {
        let view = self.view.as_ref()?;
        let me = bit(self.config.me);
        self.others().filter(|(_, p)| p.alive).find_map(|(node, peer)| {
            let record = peer.record.as_ref()?;
            if record.view.is_none() || record.view == view.id() {
                return None;
            }
            if view.contains(node, record.incarnation) {
                // In a view of ours: it is on its way to this view or to the next one, or it left us out.
                let left_out = record.members & me == 0 && record.view.generation > view.generation();
                return left_out.then_some((node, Reason::LeftOut));
            }
            if !record.serving {
                return None;
            }
            if self.is_overtaken(view, record) {
                return Some((node, Reason::Overtaken));
            }
            self.reason(peer.mutual, peer.mutual_since, peer.first_contact(), record).map(|reason| (node, reason))
        })
    }

    /// Whether a member of our view agreed to that one's later view, which leaves us out. The member may be silent to us.
    fn is_overtaken(&self, view: &View, record: &Record) -> bool {
        let later = record.view.generation > view.generation() && record.members & bit(self.config.me) == 0;
        later
            && view.members().iter().any(|m| {
                let life = self.peer(m.node).and_then(super::Peer::incarnation);
                record.members & bit(m.node) != 0 && life == Some(m.incarnation)
            })
    }

    /// Why to yield to a node outside our view that serves.
    fn reason(&self, mutual: bool, mutual_since: u64, contact: u64, record: &Record) -> Option<Reason> {
        let below = self.own_rank() < rank(record);
        if !mutual {
            return (self.now >= contact.saturating_add(self.config.grace_ms())).then_some(Reason::NotHeard);
        }
        let patience = mutual_since.saturating_add(self.config.follower_timeout_ms());
        if self.now < patience + self.config.follower_timeout_ms() {
            // Until both are in one view, or the one below has had time to yield; whoever serves now goes on.
            let begins = self.kernel.begins && !self.kernel.takes();
            let waits = (begins || self.kernel.lease <= self.now) && !record.yields;
            let former = self.kernel.yields.map(|(_, reason)| reason);
            if let Some(reason) = former.or(waits.then_some(Reason::NoAgreement)) {
                return Some(reason);
            }
        }
        if !below {
            return None;
        }
        if record.configuration != self.digest {
            Some(Reason::OtherConfiguration)
        } else if record.held & bit(self.config.me) != 0 {
            Some(Reason::Flapping)
        } else {
            (self.now >= patience).then_some(Reason::NoAgreement)
        }
    }

    /// A view of members none of which served before, and that leaves nodes out: they may hear these members and not be
    /// heard by them. They yield when they hear that somebody serves, so that is said first, twice.
    pub(super) fn begin_to_serve(&mut self, view: &View, former: Option<&View>) {
        let served = |m: &Member| {
            let peer = self.peer(m.node).filter(|p| p.incarnation() == Some(m.incarnation));
            peer.is_some_and(|p| {
                p.record.as_ref().is_some_and(|r| if r.view == view.id() { p.served } else { r.serving })
            })
        };
        let served = former.is_some_and(View::serves) || view.members().iter().any(served);
        self.kernel.begins = view.serves() && !served && view.members().len() < self.config.nodes.len();
        if self.kernel.begins {
            self.kernel.not_taken_before = self.now + self.config.notice_ms();
        }
    }

    /// Whether nodes of the farm are not in the view.
    fn leaves_somebody_out(&self) -> bool {
        self.view.as_ref().is_some_and(|v| v.members().len() < self.config.nodes.len())
    }

    /// When something that waits for nothing but time is taken, or opened.
    pub(super) fn waits_until(&self) -> Option<u64> {
        let taken = Some(self.kernel.not_taken_before).filter(|_| self.kernel.stage == Stage::Released);
        let opened = Some(self.kernel.not_before).filter(|_| self.view.is_some());
        [taken, opened].into_iter().flatten().filter(|at| *at > self.now).min()
    }

    /// After a pause, of our own: whoever took over in the meantime must be heard first.
    pub(super) fn doubt(&mut self) {
        let now = self.now;
        self.kernel.not_before = now + self.config.pulse_ms * 3 / 2;
        for peer in &mut self.peers {
            peer.strict_since = Some(now);
        }
    }

    /// How long the kernel may accept, as far as is known.
    fn lawful_lease(&self) -> u64 {
        let Some(view) = &self.view else { return 0 };
        if self.kernel.yields.is_some() || self.gone || self.now < self.kernel.not_before {
            return 0;
        }
        let quiet = self.config.quiet();
        let mut lease = self.config.lease_ms();
        if self.makes(Wrong::LeaseBeyondTakeover) {
            lease *= 4;
        }
        let base = self
            .others()
            .filter(|(_, p)| p.alive)
            .filter_map(|(n, p)| Some((n, p, p.record.as_ref()?)))
            .filter(|(n, _, r)| view.member(*n).is_some() || r.view == ViewId::default())
            .filter(|(_, p, _)| p.strict_since.is_some() || self.now <= p.heard_at.saturating_add(quiet))
            .map(|(_, p, _)| p.acknowledged.unwrap_or(p.first_at))
            .min();
        let base = base.filter(|_| !self.makes(Wrong::LeaseUnacknowledged));
        base.unwrap_or(self.now).saturating_add(lease)
    }

    /// Tells the kernel when that is needed: to shorten a lease at once, to extend it about once a pulse.
    fn renew(&mut self) {
        let lawful = self.lawful_lease();
        let told = self.kernel.lease;
        let runs = told > self.now;
        let shorten = runs && lawful < told;
        // What was closed opens only when nobody is left who holds what is ours.
        let may_open = runs || self.kernel.takes();
        let extend = may_open && lawful > self.now && (!runs || lawful >= told + self.config.pulse_ms / 2);
        if shorten || extend {
            self.kernel.lease = lawful;
            // Nothing is sent back in time: what has passed means now.
            let until = lawful.max(self.now);
            self.outputs.push(Output::Lease { until_ms: until.saturating_sub(self.offset) });
        }
    }

    /// Ends a life in good order: see [`Farm::leave`].
    pub(super) fn end(&mut self) {
        let Some(since) = self.leaving.filter(|_| !self.left_said) else { return };
        let gave_all = match &self.view {
            None => true,
            Some(view) => {
                let closed = view.member(self.config.me).is_none_or(|m| !m.open);
                closed && self.kernel.has_released() && self.all_released()
            }
        };
        if gave_all || self.now >= since.saturating_add(self.config.listen_ms()) {
            self.gone = true;
            self.left_said = true;
            self.urgent = true;
            self.renew();
            self.outputs.push(Output::Left);
        }
    }
}
