//! Which transition the present facts demand, asked whenever nothing is under way.

use super::run::{JobKind, StopRequest, Then};
use super::{Core, Reach, Weakness};
use crate::action::ReplicaOrder;
use crate::decide::{self, Decision, Intent, Why};
use crate::event::{ReplicaPeer, ReplicaRole, Verb};
use crate::plan::{Request, Step, build};
use crate::state::{DefaultPrimary, Published, Readiness, State, StateName};
use lineage::{Relation, Standing};

const WAIT_READY: State = State::new(StateName::Wait, Readiness::Transient);
const WAIT_BLOCKED: State = State::new(StateName::Wait, Readiness::NotReady);

impl Core {
    /// Starts what the facts demand. Returns whether anything changed.
    pub(super) fn evaluate(&mut self) -> bool {
        let before = (self.state, self.rule.clone(), self.handover);
        match self.state.name {
            StateName::Stop => {}
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
        if !self.interfaces_down.is_empty() {
            return self.block("interface_failure", &[]);
        }
        match self.vip_retry {
            Some(at) if at > self.now => return self.block("ip_failure", &[]),
            _ => self.vip_retry = None,
        }
        if self.failover_hold {
            let partner =
                self.peer().is_some_and(|p| p.state.name.serves() || (p.state.name == StateName::Wait && !p.leaving));
            if !partner {
                return self.block("failover-off", &[]);
            }
            self.failover_hold = false;
        }
        let mut intent = self.intent;
        let reckless = self.weak(Weakness::StartsPaired) && self.standing() == Standing::Paired;
        if reckless && self.reach == Reach::Down {
            intent = Intent::PrimForce;
        }
        match decide::start(intent, &self.published(), self.peer_view(), &self.settings) {
            Decision::Await => {
                self.wake();
                self.set_state(WAIT_READY, None);
            }
            Decision::Alone { force } => {
                self.wake();
                self.intent = Intent::Start;
                let request =
                    Request { from: StateName::Wait, to: StateName::Alone, action: "start", force, full: false };
                let steps = build(&request, &self.settings);
                self.start_job(JobKind::Move, steps);
            }
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
            Decision::NotReady(why) => self.block(rule(why), words(why)),
            Decision::Refuse(why) => self.give_up(intent, why),
        }
    }

    fn block(&mut self, rule: &str, words: &[&str]) {
        let complaint = format!("{rule} {words:?}");
        if self.last_complaint.as_deref() != Some(&complaint) {
            self.last_complaint = Some(complaint);
            if rule != "failover-off" {
                self.log('C', "heart", format!("Action wait from failover rule {rule}"));
            }
            for line in words {
                self.log('C', "heart", *line);
            }
        }
        self.set_state(WAIT_BLOCKED, Some(rule));
    }

    fn wake(&mut self) {
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
        if !self.interfaces_down.is_empty() {
            return self.rule_action(Verb::Wait, "interface_failure");
        }
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
        let gone = self.peer_gone();
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
            let wanted = self.peer().is_some_and(|p| p.swap_wanted);
            if (wanted || self.auto_swap) && self.can_swap() {
                if !wanted {
                    self.log('E', "heart", "Transition SWAP from defaultprim");
                }
                self.begin_swap();
            }
        } else if reason.is_some() && self.serves_paired() {
            self.start_job(JobKind::Move, vec![Step::Replicate { order: ReplicaOrder::ExcludePeer }]);
        } else if self.peer_joined() {
            self.auto_swap = match &self.settings.default_primary {
                DefaultPrimary::Node(name) => *name == self.settings.peer,
                DefaultPrimary::LastPrimary => self.peer_was_primary,
                DefaultPrimary::Alone => false,
            };
            self.move_to(StateName::Prim, "start");
        }
    }

    fn split_brain(&mut self) {
        let Some(peer) = self.peer().cloned() else { return };
        if decide::stays_after_split(&self.published(), &peer, &self.settings) {
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
    fn peer_joined(&self) -> bool {
        let in_sync = !self.settings.replicated || (self.stream() == ReplicaPeer::InSync && self.serves_paired());
        !self.degraded && in_sync && self.peer().is_some_and(ready_second)
    }

    /// The primary may hand its role over.
    pub(super) fn can_swap(&self) -> bool {
        self.state == State::new(StateName::Prim, Readiness::Ready) && self.peer_joined() && !self.outdate_wanted
    }

    pub(super) fn begin_swap(&mut self) {
        self.auto_swap = false;
        self.log('E', "heart", "Begin of Swap");
        self.move_to(StateName::Second, "swap");
    }

    fn second(&mut self) {
        if !self.interfaces_down.is_empty() {
            return self.rule_action(Verb::Wait, "interface_failure");
        }
        let standing = self.standing();
        let usable = !self.settings.replicated
            || (standing == Standing::Paired && (self.synced || self.weak(Weakness::TakesOverUnsynced)));
        let pause = StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true };
        if let Some(why) = self.peer_gone() {
            self.swap_wanted = false;
            if !usable {
                return self.request_stop(pause);
            }
            if !self.failover() {
                self.log('C', "heart", "Failover-off configured");
                self.log('C', "heart", "Action stopstart called by failover-off");
                self.log('C', "heart", "Transition STOPSTART from failover-off");
                self.failover_hold = true;
                return self.request_stop(pause);
            }
            return self.take_over(why);
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
                let order = ReplicaOrder::Secondary { full: false };
                return self.start_job(JobKind::Move, vec![Step::Replicate { order }]);
            }
        }
        if peer.state.name == StateName::Second {
            if peer.handover && usable && !self.handover {
                self.swap_wanted = false;
                self.log('E', "heart", "Begin of Swap");
                return self.move_to(StateName::Prim, "swap");
            }
            // The peer cannot take what was handed over, and says so: nobody else can serve.
            if self.handover && usable && self.settings.replicated && !peer.standing.is_up_to_date() {
                return self.take_over("swap refused");
            }
        }
        if let Some(at) = self.swap_deadline
            && at <= self.now
        {
            self.swap_deadline = None;
            self.swap_wanted = false;
            self.log('C', "heart", "The other node has not answered to the swap in time");
        }
        self.settle_readiness(&peer);
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

    /// An action of a rule: counted like every automatic action.
    pub(super) fn rule_action(&mut self, verb: Verb, rule: &str) {
        let word = if verb == Verb::Wait { "wait" } else { "stopstart" };
        self.log('C', "heart", format!("Action {word} from failover rule {rule}"));
        if verb == Verb::Wait {
            // Said already: the state WAIT that follows repeats nothing.
            self.last_complaint = Some(format!("{rule} {:?}", [] as [&str; 0]));
        }
        self.automatic(verb);
    }

    pub(super) fn forget_peer(&mut self) {
        self.reach = Reach::Unknown;
        self.peer = None;
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
