//! Which transition the present facts demand, asked whenever nothing is under way.

use super::lease::Refusal;
use super::run::{JobKind, StopRequest, Then};
use super::{Core, Permission, Reach, WAIT_BLOCKED, WAIT_READY, Weakness};
use crate::action::ReplicaOrder;
use crate::arbitration::Ground;
use crate::decide::{self, Decision, Intent, Peer, Why};
use crate::event::{ReplicaPeer, ReplicaRole};
use crate::plan::{Request, STARTS_SYNC, Step, build, callback};
use crate::state::{Arbiter, DefaultPrimary, Mode, Published, Readiness, State, StateName};
use lineage::{Relation, Standing};

impl Core {
    /// Starts what the facts demand. Returns whether anything changed.
    pub(super) fn evaluate(&mut self) -> bool {
        let before = (self.state, self.rule.clone(), self.handover);
        let active = !matches!(self.state.name, StateName::Stop | StateName::Wait);
        if active && self.failover_rules() {
            return true;
        }
        match self.state.name {
            StateName::Stop | StateName::Up => {}
            StateName::Wait => self.in_wait(),
            StateName::Alone | StateName::Prim => self.serving(),
            StateName::Second => self.second(),
        }
        if self.job.is_some() || self.stop_request.is_some() {
            return true;
        }
        (self.state, self.rule.clone(), self.handover) != before || self.next_command()
    }

    fn in_wait(&mut self) {
        if self.settings.replicated && !self.replica_fresh {
            return self.set_state(WAIT_READY, None);
        }
        if self.held_by_rules() {
            return;
        }
        match self.vip_retry {
            Some(at) if at > self.now => return self.block("ip_failure", &[]),
            _ => self.vip_retry = None,
        }
        if self.settings.mode != Mode::Mirror {
            return self.go_up();
        }
        if self.persisted.failover_hold {
            let partner =
                self.peer().is_some_and(|p| p.state.name.serves() || (p.state.name == StateName::Wait && !p.leaving));
            if !partner {
                return self.block("failover-off", &[]);
            }
            self.hold_for_old_primary(false);
        }
        if self.arbitration.hold && !matches!(self.intent, Intent::Prim | Intent::PrimForce) {
            return self.block("splitbrain_failure", &[]);
        }
        let mut intent = self.intent;
        let reckless = self.weak(Weakness::StartsPaired) && self.standing() == Standing::Paired;
        if reckless && self.reach == Reach::Down {
            intent = Intent::PrimForce;
        }
        match decide::start(intent, &self.published(), self.peer_view(), &self.settings) {
            Decision::Await => {
                self.wake();
                // Both changed the data, and the peer was chosen: a store that calls this node the owner will not let it.
                if self.may_own_instead() && self.may_serve(Ground::Own, true) == Permission::Granted {
                    return self.start_alone(true);
                }
                self.set_state(WAIT_READY, None);
            }
            Decision::Alone { force } => {
                let ground = match (intent, self.peer_view()) {
                    (Intent::Prim | Intent::PrimForce, _) => Ground::Forced,
                    (_, Peer::Present(p)) if p.state.name != StateName::Stop => Ground::Chosen,
                    _ => Ground::Lone,
                };
                if !self.granted_in_wait(ground) {
                    return;
                }
                self.wake();
                self.intent = Intent::Start;
                self.start_alone(force);
            }
            Decision::Second { outdate, .. } if self.waits_for_date(outdate) => {}
            Decision::Second { full, outdate } => {
                self.wake();
                self.intent = Intent::Start;
                let request =
                    Request { from: StateName::Wait, to: StateName::Second, action: "start", force: false, full };
                let mut steps = build(&request, &self.settings);
                if outdate {
                    steps.insert(0, Step::Replicate { order: ReplicaOrder::Outdate });
                }
                self.start_job(JobKind::Move, steps);
            }
            Decision::NotReady(Why::NotUpToDate) if self.counts_as_up_to_date() => {
                if !self.granted_in_wait(Ground::Lone) {
                    return;
                }
                self.log('C', "heart", "Action rfs.uptodate=up from failover rule rfs_forceuptodate");
                self.start_alone(true);
            }
            Decision::NotReady(why) => {
                if self.may_know_more(why) {
                    let ground = if self.arbitration.heir { Ground::Heir } else { Ground::Own };
                    match self.may_serve(ground, true) {
                        Permission::Granted => {
                            self.wake();
                            return self.start_alone(true);
                        }
                        Permission::Pending => return self.set_state(WAIT_READY, None),
                        Permission::Refused(Refusal::Denied(said)) => {
                            let mut lines = vec![said.as_str()];
                            lines.extend(words(why));
                            let rule = if self.arbitration.heir { "splitbrain_failure" } else { rule(why) };
                            return self.block(rule, &lines);
                        }
                        Permission::Refused(Refusal::Unreachable(_)) => {
                            return self.block("splitbrain_failure", &[]);
                        }
                    }
                }
                self.block(rule(why), words(why));
            }
            Decision::Refuse(why) => self.give_up(intent, why),
        }
    }

    fn start_alone(&mut self, force: bool) {
        let request = Request { from: StateName::Wait, to: StateName::Alone, action: "start", force, full: false };
        let steps = build(&request, &self.settings);
        self.start_job(JobKind::Move, steps);
    }

    fn may_own_instead(&self) -> bool {
        matches!(self.settings.arbiter, Arbiter::Store { .. })
            && self.intent == Intent::Start
            && self.standing() == Standing::Alone
            && self.peer().is_some_and(|p| {
                p.state.name == StateName::Wait
                    && !p.leaving
                    && p.standing == Standing::Alone
                    && self.own_lineage().compare(&p.lineage) == Relation::Diverged
            })
    }

    /// `failover off` kept this node from taking over: it waits for the old primary, also after a restart of its runner or its host.
    pub(super) fn hold_for_old_primary(&mut self, hold: bool) {
        if self.persisted.failover_hold != hold {
            self.persisted.failover_hold = hold;
            self.persist();
        }
    }

    /// Whether the arbiter lets a waiting node serve; shows why not.
    fn granted_in_wait(&mut self, ground: Ground) -> bool {
        match self.may_serve(ground, true) {
            Permission::Granted => return true,
            Permission::Pending => self.set_state(WAIT_READY, None),
            Permission::Refused(Refusal::Denied(said)) => self.block("splitbrain_failure", &[said.as_str()]),
            Permission::Refused(Refusal::Unreachable(_)) => self.block("splitbrain_failure", &[]),
        }
        false
    }

    /// A node that alone cannot know whether its data are the newest, and whose peer is not there: a store may know.
    fn may_know_more(&self, why: Why) -> bool {
        matches!(self.settings.arbiter, Arbiter::Store { .. })
            && why == Why::NotUpToDate
            && self.standing() == Standing::Paired
            && self.peer().is_none_or(|p| p.state.name == StateName::Stop)
    }

    pub(super) fn block(&mut self, rule: &str, words: &[&str]) {
        let complaint = format!("{rule} {words:?}");
        if self.last_complaint.as_deref() != Some(&complaint) {
            self.last_complaint = Some(complaint);
            if rule != "failover-off" {
                // Waiting for a date is what was asked for.
                let level = if rule == super::scheduled::RULE { 'E' } else { 'C' };
                self.log(level, "heart", format!("Action wait from failover rule {rule}"));
            }
            for line in words {
                self.log('C', "heart", *line);
            }
        }
        self.set_state(WAIT_BLOCKED, Some(rule));
    }

    pub(super) fn wake(&mut self) {
        self.last_complaint = None;
        if self.state == WAIT_BLOCKED {
            self.log('E', "heart", "Action wakeup from failover rule Implicit_wakeup");
        }
    }

    /// The operator's demand cannot be met: back to STOP.
    fn give_up(&mut self, intent: Intent, why: Why) {
        for line in words(why) {
            self.log('C', "heart", *line);
        }
        let (error, hint) = match (intent, why) {
            (_, Why::Inconsistent) => (
                "Requested prim start aborted",
                "the data of this node are a mixture: start the other node, or run primforce to serve them all the same",
            ),
            (Intent::Second { .. }, _) => {
                ("Requested second start aborted: the other node is not primary", "run prim on the other node first")
            }
            _ => (
                "Requested prim start aborted: the other node is primary",
                "run start here to become its secondary, or stop the other node first",
            ),
        };
        self.refuse(error, hint);
        self.intent = Intent::Start;
        self.unwant();
        self.request_stop(StopRequest { action: "stop", then: Then::Nothing, forced: false, pause: false });
    }

    fn serving(&mut self) {
        if self.peer_serves() {
            return self.split_brain();
        }
        if self.last_complaint.as_deref() == Some("split brain") {
            self.last_complaint = None;
        }
        // Whatever it does now: going on alone would make two histories of one.
        if self.overtaken {
            self.log('E', "heart", "Split brain recovery: exiting alone");
            return self.request_stop(StopRequest {
                action: "stopstart",
                then: Then::Start,
                forced: false,
                pause: false,
            });
        }
        if self.exclusion.is_some() {
            return;
        }
        let mut gone = self.peer_gone();
        if let Some(why) = gone {
            match self.may_go_alone(why) {
                Permission::Granted => {}
                // In ALONE it was decided already.
                _ if self.state.name == StateName::Alone && !self.serves_paired() => {}
                Permission::Pending if self.outdated_peer() => gone = None,
                Permission::Pending => return,
                Permission::Refused(_) => return self.pause_for_arbiter(),
            }
        }
        let reason = gone.or_else(|| self.outdated_peer().then_some("no replication"));
        if self.state.name == StateName::Prim {
            let reason = reason.or_else(|| self.degraded.then_some("degraded replication"));
            if let Some(why) = reason {
                self.log('E', "heart", format!("Action alone called by heart: {why}"));
                self.auto_swap = false;
                return self.move_to(StateName::Alone, "start");
            }
            if self.peer_joined() {
                self.partner = self.peer().map_or(0, |p| p.incarnation);
            }
            let asked = self.peer().is_some_and(|p| p.swap_wanted) && self.swap_refused.is_none();
            let wanted = asked || self.transfer_wanted();
            if (wanted || self.auto_swap) && self.can_swap() {
                if !wanted {
                    self.log('E', "heart", "Transition SWAP from defaultprim");
                }
                self.begin_swap();
            }
        } else if reason.is_some() && self.serves_paired() {
            self.start_job(JobKind::Move, vec![Step::Replicate { order: ReplicaOrder::ExcludePeer }]);
        } else if self.peer_joined() && self.may_pair() {
            self.auto_swap = match &self.settings.default_primary {
                DefaultPrimary::Node(name) => *name == self.settings.peer,
                DefaultPrimary::LastPrimary => self.peer_was_primary,
                DefaultPrimary::Alone => false,
            };
            self.full_copy_is_done();
            self.move_to(StateName::Prim, "start");
        }
    }

    fn split_brain(&mut self) {
        let Some(peer) = self.peer().cloned() else { return };
        let mine = self.published();
        // Two nodes do not have the store's lease: the peer that says it serves has lost it, and is about to notice.
        let lawful = matches!(self.settings.arbiter, Arbiter::Store { .. })
            && !self.unlicensed()
            && mine.lineage.compare(&peer.lineage) != Relation::Older;
        if lawful || decide::stays_after_split(&mine, &peer, &self.settings) {
            if self.last_complaint.as_deref() != Some("split brain") {
                self.last_complaint = Some("split brain".to_owned());
                self.log('E', "heart", "Split brain recovery: staying alone");
            }
            if self.state.name == StateName::Prim {
                self.move_to(StateName::Alone, "start");
            }
        } else {
            self.log('E', "heart", "Split brain recovery: exiting alone");
            self.request_stop(StopRequest { action: "stopstart", then: Then::Start, forced: false, pause: false });
        }
    }

    /// A ready secondary, in sync: neither the application nor the data need anything for the change to PRIM.
    pub(super) fn peer_joined(&self) -> bool {
        let in_sync = !self.settings.replicated || (self.stream() == ReplicaPeer::InSync && self.serves_paired());
        !self.degraded && in_sync && self.peer().is_some_and(ready_second)
    }

    /// The primary may hand its role over.
    pub(super) fn can_swap(&self) -> bool {
        self.state == State::new(StateName::Prim, Readiness::Ready) && self.peer_joined() && !self.outdate_wanted
    }

    pub(super) fn begin_swap(&mut self) {
        if !self.handed_over() {
            return;
        }
        self.auto_swap = false;
        self.log('E', "heart", "Begin of Swap");
        self.move_to(StateName::Second, "swap");
    }

    fn second(&mut self) {
        let standing = self.standing();
        let usable = !self.settings.replicated
            || (standing == Standing::Paired && (self.synced || self.weak(Weakness::TakesOverUnsynced)));
        let pause = StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true };
        if let Some(why) = self.peer_gone() {
            self.swap_wanted = false;
            // A node that stood still may not have heard that the primary went on alone before it left.
            if !usable || self.peer_is_newer() {
                return self.request_stop(pause);
            }
            if !self.failover() {
                self.log('C', "heart", "Failover-off configured");
                self.log('C', "heart", "Action stopstart called by failover-off");
                self.log('C', "heart", "Transition STOPSTART from failover-off");
                self.hold_for_old_primary(true);
                return self.request_stop(pause);
            }
            return match self.may_go_alone(why) {
                Permission::Granted => self.take_over(why),
                Permission::Pending => {}
                Permission::Refused(_) => self.pause_for_arbiter(),
            };
        }
        let Some(peer) = self.peer().cloned() else { return };
        if self.settings.replicated && peer.state.name.serves() {
            let ahead = matches!(self.own_lineage().compare(&peer.lineage), Relation::Older | Relation::Diverged);
            if peer.degraded {
                if standing.is_up_to_date() {
                    return self.outdate();
                }
                return self.request_stop(pause);
            }
            let cut = self.stream() != ReplicaPeer::InSync;
            if (ahead && standing.is_up_to_date()) || (peer.outdate_wanted && cut && !self.outdate_done) {
                return self.outdate();
            }
            if self.must_follow && !peer.outdate_wanted {
                let mut steps = callback(STARTS_SYNC, &self.settings);
                steps.push(Step::Replicate { order: ReplicaOrder::Secondary { full: peer.full_wanted } });
                return self.start_job(JobKind::Move, steps);
            }
        }
        if peer.state.name == StateName::Second {
            if peer.handover && usable && !self.handover {
                if self.may_serve(Ground::Heir, false) != Permission::Granted {
                    return;
                }
                self.swap_wanted = false;
                self.log('E', "heart", "Begin of Swap");
                return self.move_to(StateName::Prim, "swap");
            }
            // The peer cannot take what was handed over: it says so, or is another life than the one that was named as partner, and only
            // that one may. Nobody else can serve.
            let stranger = peer.standing == Standing::Paired && peer.incarnation != self.heir;
            if self.handover && usable && self.settings.replicated && (!peer.standing.is_up_to_date() || stranger) {
                return self.take_over("swap refused");
            }
        }
        if self.swap_wanted && peer.swap_refused == self.swap_order {
            self.swap_deadline = None;
            self.swap_wanted = false;
            self.log('C', "heart", "The other node gave the swap up and stays primary: its log says why");
        }
        if let Some(at) = self.swap_deadline
            && at <= self.now
        {
            self.swap_deadline = None;
            self.swap_wanted = false;
            self.log('C', "heart", "The other node has not answered to the swap in time");
        }
        self.settle_readiness(&peer);
        self.end_scheduled_sync();
    }

    /// SECOND is Ready while it follows a primary and could take over.
    fn settle_readiness(&mut self, peer: &Published) {
        let following = !self.settings.replicated
            || self.replica.as_ref().is_some_and(|r| {
                r.role == ReplicaRole::Secondary && r.standing == Standing::Paired && r.peer == ReplicaPeer::InSync
            });
        if self.state.readiness != Readiness::Ready && following && !self.must_follow && peer.state.name.serves() {
            self.set_state(State::new(StateName::Second, Readiness::Ready), None);
        }
    }

    fn take_over(&mut self, why: &str) {
        match self.may_serve(Ground::Heir, true) {
            Permission::Granted => {}
            Permission::Pending => return,
            Permission::Refused(refusal) => {
                if let Refusal::Denied(said) = refusal {
                    self.log('C', "heart", said);
                }
                self.arbitration.heir = true;
                return self.pause_for_arbiter();
            }
        }
        self.handover = false;
        self.swap_deadline = None;
        self.log('E', "heart", format!("Action alone called by heart: {why}"));
        self.move_to(StateName::Alone, "start");
    }

    /// The primary goes on without us: remembered durably before anything else; we follow again when it has.
    fn outdate(&mut self) {
        self.must_follow = true;
        let steps = vec![
            Step::Replicate { order: ReplicaOrder::Outdate },
            Step::State { state: State::new(StateName::Second, Readiness::Transient) },
        ];
        self.start_job(JobKind::Move, steps);
    }

    pub(super) fn forget_peer(&mut self) {
        self.reach = Reach::Unknown;
        self.peer = None;
        self.peer_died = false;
        self.remote.clear();
    }
}

fn ready_second(peer: &Published) -> bool {
    peer.state == State::new(StateName::Second, Readiness::Ready) && !peer.leaving && !peer.handover
}

fn rule(why: Why) -> &'static str {
    match why {
        Why::Degraded => "degraded_server",
        _ => "rfs_notuptodate_server",
    }
}

fn words(why: Why) -> &'static [&'static str] {
    match why {
        Why::NotUpToDate | Why::NoData => &[
            "Data may be not uptodate for replicated directories (wait for the start of the remote server)",
            "If you are sure that this server has valid data, run safekit prim to force start as primary",
        ],
        Why::Inconsistent => &[
            "Data may be inconsistent for replicated directories (stopped during reintegration)",
            "If you are sure that this server has valid data, run safekit primforce to force start as primary",
        ],
        Why::Diverged => &[
            "Replicated directories were changed on both servers separately",
            "On the server whose data must be kept, run safekit stop, then safekit prim; what only the other has is put aside",
        ],
        Why::Degraded => &["Replication failed on the remote server: stop and start it to replicate again"],
        Why::PeerIsPrimary | Why::PeerIsNotPrimary => &[],
    }
}
