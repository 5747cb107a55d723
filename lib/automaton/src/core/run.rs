//! How a transition is carried out: one step after the other, each awaited; and what interrupts it.

use super::{Core, Permission, VIP_RETRY_MS, Weakness};
use crate::action::{Action, PeerMode, ReplicaOrder};
use crate::event::ReplicaPeer;
use crate::plan::{CALLBACK, OBJECTS, Request, STARTS_SYNC, Step, build};
use crate::state::{Readiness, State, StateName};
use lineage::Standing;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::VecDeque;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub kind: JobKind,
    pub steps: VecDeque<Step>,
    pub wait: Option<Wait>,
    /// The directories could not be released once already.
    pub retire_failed: bool,
    /// A restart of these services only; empty: of the whole application.
    #[serde(default)]
    pub services: Vec<String>,
    /// Where it leads from and to; `None` when it changes no state.
    #[serde(default)]
    pub route: Option<(StateName, StateName)>,
    /// Steps that were begun.
    #[serde(default)]
    pub begun: u32,
}

impl Job {
    fn new(from: StateName, kind: JobKind, steps: VecDeque<Step>) -> Self {
        let to = steps.iter().rev().find_map(|step| match step {
            Step::State { state } => Some(state.name),
            _ => None,
        });
        let route = to.map(|to| (from, to));
        Self { kind, steps, wait: None, retire_failed: false, services: Vec::new(), route, begun: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum JobKind {
    /// STOP→WAIT.
    Start,
    /// To STOP, and what follows.
    Stop(Then),
    /// To WAIT because of a rule or the verb `wait`.
    Pause,
    Restart,
    /// Any other change of state or replication.
    Move,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Then {
    Nothing,
    Start,
    Reboot,
}

/// What a running step waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Wait {
    Script {
        id: u64,
        name: String,
        args: Vec<String>,
        force: bool,
        /// When it was called, monotonic ms.
        #[serde(default)]
        since: u64,
    },
    Replica {
        id: u64,
        order: ReplicaOrder,
    },
    Vip {
        id: u64,
        held: bool,
    },
    Farm {
        id: u64,
    },
    Bye,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StopRequest {
    #[serde(deserialize_with = "stop_word")]
    pub action: Word,
    pub then: Then,
    pub forced: bool,
    /// Back in WAIT is enough.
    pub pause: bool,
}

/// The third argument of scripts. An alias: serde would take a plain `&'static str` for borrowed from the input.
type Word = &'static str;

fn stop_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
    let word = String::deserialize(deserializer)?;
    ["stop", "stopstart", "stopwait"]
        .into_iter()
        .find(|known| *known == word)
        .ok_or_else(|| serde::de::Error::custom(format!("{word:?} is no action of a stop")))
}

impl Core {
    pub(super) fn job_wait(&self) -> Option<&Wait> {
        self.job.as_ref().and_then(|j| j.wait.as_ref())
    }

    /// The step that the running job waits for is over.
    pub(super) fn finish(&mut self, is: impl Fn(&Wait) -> bool) {
        if let Some(job) = self.job.as_mut()
            && job.wait.as_ref().is_some_and(is)
        {
            job.wait = None;
        }
    }

    pub(super) fn start_job(&mut self, kind: JobKind, steps: Vec<Step>) {
        self.job = Some(Job::new(self.state.name, kind, steps.into()));
    }

    pub(super) fn move_to(&mut self, to: StateName, action: &str) {
        let steps = build(&Request { from: self.state.name, to, action, force: false, full: false }, &self.settings);
        self.start_job(JobKind::Move, steps);
    }

    /// Does what can be done now. Returns whether anything changed, so that the caller asks again.
    pub(super) fn advance(&mut self) -> bool {
        self.take_stop_request();
        let Some(job) = self.job.as_mut() else { return self.evaluate() };
        if job.wait.is_some() {
            return false;
        }
        if let Some(step) = job.steps.pop_front() {
            job.begun = job.begun.saturating_add(1);
            if let Some((from, to)) = job.route {
                let begun = job.begun;
                self.log('D', "heart", format!("Local internal state {from}_TO_{to}_{begun}"));
            }
            self.run(step);
        } else {
            let kind = job.kind;
            self.job = None;
            self.job_ended(kind);
        }
        true
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Children { heartbeat, errd, replicate } => {
                if !heartbeat {
                    self.publishing = false;
                    self.published = None;
                }
                if !replicate {
                    self.replica_fresh = false;
                    self.engaged = false;
                    self.exclusion = None;
                }
                self.out.push(Action::Children { heartbeat, errd, replicate });
            }
            Step::Script { name, args, force } => {
                let id = self.id();
                let timeout_ms = match (name.starts_with("stop_"), force) {
                    (true, false) => Some(self.settings.nice_stop_timeout_ms),
                    (true, true) => Some(self.settings.force_stop_timeout_ms),
                    _ if name == CALLBACK => Some(self.settings.nice_stop_timeout_ms),
                    _ => None,
                };
                self.out.push(Action::Script { id, name: name.clone(), args: args.clone(), timeout_ms });
                self.wait_for(Wait::Script { id, name, args, force, since: self.now });
            }
            Step::Vip { held } => {
                if held != self.vip_held {
                    let id = self.id();
                    // Held from the order on: a release must follow even if the answer never comes.
                    self.vip_held = true;
                    self.out.push(Action::Vip { id, held });
                    self.wait_for(Wait::Vip { id, held });
                }
            }
            Step::Farm { traffic } => self.ask_for_traffic(traffic),
            Step::Replicate { order } => self.order(order),
            Step::ErrdClass { class, enabled } => {
                self.switch_class(&class, enabled);
                self.out.push(Action::ErrdClass { class, enabled });
            }
            Step::State { state } => self.set_state(state, None),
            Step::Publish => {
                self.publishing = true;
                self.publish();
            }
            Step::Leaving => self.leaving = true,
            Step::Handover => {
                self.handover = true;
                self.heir = self.partner;
                self.end_tenure();
                self.swap_deadline = Some(self.now.saturating_add(self.settings.heartbeat_timeout_ms.max(10_000)));
            }
            Step::Bye => {
                self.out.push(Action::Bye);
                self.wait_for(Wait::Bye);
            }
        }
    }

    pub(super) fn wait_for(&mut self, wait: Wait) {
        if let Some(job) = self.job.as_mut() {
            job.wait = Some(wait);
        }
    }

    fn order(&mut self, order: ReplicaOrder) {
        match &order {
            ReplicaOrder::Promote { peer: PeerMode::Excluded } if self.peer_serves() => {
                // The primary came back while the secondary's application was stopping: taking over now would make two.
                self.log('E', "heart", "Takeover given up: the primary is back");
                let mut steps = build(
                    &Request {
                        from: StateName::Wait,
                        to: StateName::Second,
                        action: "start",
                        force: false,
                        full: false,
                    },
                    &self.settings,
                );
                steps.retain(|s| match s {
                    Step::Script { name, .. } => name == "start_second",
                    Step::ErrdClass { class, .. } => class == "second",
                    _ => false,
                });
                if let Some(job) = self.job.as_mut() {
                    job.steps = steps.into();
                }
                return;
            }
            // Done beside a script already, or the engine is gone.
            ReplicaOrder::ExcludePeer
                if !self.serves_paired() || self.overtaken || self.weak(Weakness::NeverExcludes) =>
            {
                return;
            }
            ReplicaOrder::Retire if !self.engaged || self.degraded => return,
            _ => {}
        }
        match &order {
            ReplicaOrder::Primary { .. } | ReplicaOrder::Secondary { .. } => self.engaged = true,
            _ => {}
        }
        if matches!(order, ReplicaOrder::Secondary { .. }) {
            self.must_follow = false;
        }
        let id = self.id();
        self.out.push(Action::Replicate { id, order: order.clone() });
        self.wait_for(Wait::Replica { id, order });
    }

    pub(super) fn peer_serves(&self) -> bool {
        self.peer().is_some_and(|p| p.state.name.serves())
    }

    /// While a script runs on a primary whose peer is gone, its writes would block: exclude the peer at once.
    pub(super) fn exclude_beside(&mut self) {
        let ordering = matches!(self.job_wait(), Some(Wait::Replica { .. }));
        let lawful = !self.overtaken
            && (self.outdated_peer()
                || self.peer_gone().is_some_and(|why| self.may_go_alone(why) == Permission::Granted));
        if self.job_wait().is_none()
            || ordering
            || self.exclusion.is_some()
            || !self.state.name.serves()
            || !self.serves_paired()
            || !lawful
            || self.weak(Weakness::NeverExcludes)
        {
            return;
        }
        let id = self.id();
        self.exclusion = Some(id);
        self.out.push(Action::Replicate { id, order: ReplicaOrder::ExcludePeer });
    }

    /// While the application of a primary that lost its role is being stopped, what it waits for will never be acknowledged: it gets
    /// errors, since a process that waits for a disk cannot even be killed.
    pub(super) fn abandon_beside(&mut self) {
        let stopping = self.job.as_ref().is_some_and(|j| matches!(j.kind, JobKind::Stop(_) | JobKind::Pause));
        if !stopping {
            self.abandoned = false;
            return;
        }
        let script = matches!(self.job_wait(), Some(Wait::Script { .. }));
        let cut = !matches!(self.stream(), ReplicaPeer::InSync | ReplicaPeer::Syncing);
        let overtaken = self.serves_paired() && (self.overtaken || (cut && self.peer_serves()));
        let lost = self.unlicensed() || (self.state.name.serves() && overtaken);
        if script && lost && !self.abandoned {
            self.abandoned = true;
            let id = self.id();
            self.out.push(Action::Replicate { id, order: ReplicaOrder::Abandon });
        }
    }

    /// The peer promised not to take over (answer to `outdate_wanted`).
    pub(super) fn outdated_peer(&self) -> bool {
        if self.weak(Weakness::ExcludesAtOnce) && self.stream_deadline.is_some() {
            return true;
        }
        self.outdate_wanted && self.peer().is_some_and(|p| p.outdate_done)
    }

    pub(super) fn script_done(&mut self, id: u64, exit: Option<i32>) {
        let Some(Wait::Script { id: waited, name, args, force, .. }) = self.job_wait() else { return };
        if *waited != id {
            return;
        }
        let (name, args, force) = (name.clone(), args.clone(), *force);
        self.finish(|_| true);
        match exit {
            Some(0) => {}
            _ if name == CALLBACK && exit.is_none_or(|code| code == OBJECTS) => self.callback_objects(&args, exit),
            Some(code) => self.log('W', "heart", format!("Script {name} exited with {code}")),
            None => {
                let which = if force { " \"force\"" } else { "" };
                self.log('C', "heart", format!("Script {name}{which} did not end in time and was killed"));
                self.force_after_timeout(&name, args, force);
            }
        }
    }

    /// What it was called for must not happen: the swap is given up, the synchronisation does not begin.
    fn callback_objects(&mut self, args: &[String], exit: Option<i32>) {
        let word = args.first().map_or("", String::as_str);
        let how = match exit {
            Some(code) => format!("exited with {code}"),
            None => "did not end in time and was killed".to_owned(),
        };
        self.log('C', "heart", format!("Script {CALLBACK} {word} {how}"));
        if word == STARTS_SYNC {
            self.log('C', "heart", "The synchronisation does not start");
            self.out.push(Action::Resource { name: "rfs.reintegre_failed".to_owned(), value: "true".to_owned() });
            self.local_fault();
        } else if self.state.name.serves() && !self.is_stopping() {
            self.give_swap_up();
        }
    }

    fn give_swap_up(&mut self) {
        self.log('E', "heart", "Swap given up: this node stays primary");
        self.answer_swap_order();
        self.take_back();
    }

    /// The swap that the peer asks for, if it does, is not made: it is told, and only another order makes another attempt.
    pub(super) fn answer_swap_order(&mut self) {
        self.swap_refused = self.peer().filter(|p| p.swap_wanted).map(|p| p.swap_order);
    }

    /// A stop script that did not end may have left the application running: the forced one must not wait for its turn.
    fn force_after_timeout(&mut self, name: &str, mut args: Vec<String>, force: bool) {
        let Some(job) = self.job.as_mut() else { return };
        if force || !name.starts_with("stop_") {
            return;
        }
        let next = matches!(job.steps.front(), Some(Step::Script { name: n, force: true, .. }) if n == name);
        if !next {
            args.insert(0, "force".to_owned());
            job.steps.push_front(Step::Script { name: name.to_owned(), args, force: true });
        }
    }

    pub(super) fn replica_failed(&mut self, id: u64, reason: &str) {
        if self.exclusion == Some(id) {
            self.exclusion = None;
            self.log('C', "heart", format!("Replication failed: {reason}"));
            self.local_fault();
            return;
        }
        let Some(Wait::Replica { id: waited, order }) = self.job_wait() else { return };
        if *waited != id {
            return;
        }
        let order = order.clone();
        self.finish(|_| true);
        self.log('C', "heart", format!("Replication failed: {reason}"));
        if order == ReplicaOrder::Retire {
            self.retire_failed();
        } else if matches!(order, ReplicaOrder::Demote) && self.state.name.serves() {
            self.give_swap_up();
        } else {
            self.local_fault();
        }
    }

    /// Something still uses the directories: forced stops, once more; then the engine is ended, which releases them by itself.
    fn retire_failed(&mut self) {
        let Some(job) = self.job.as_mut() else { return };
        if std::mem::replace(&mut job.retire_failed, true) {
            job.steps.push_front(Step::Children { heartbeat: true, errd: true, replicate: true });
            job.steps.push_front(Step::Children { heartbeat: true, errd: true, replicate: false });
            return;
        }
        let mut steps = build(
            &Request { from: StateName::Wait, to: StateName::Stop, action: "stop", force: true, full: false },
            &self.settings,
        );
        steps.retain(|s| matches!(s, Step::Script { force: true, .. }));
        steps.push(Step::Replicate { order: ReplicaOrder::Retire });
        for step in steps.into_iter().rev() {
            job.steps.push_front(step);
        }
    }

    /// The application was stopped for a swap that cannot be finished: it is started again here.
    pub(super) fn take_back(&mut self) {
        let mut steps = build(
            &Request { from: StateName::Wait, to: StateName::Prim, action: "start", force: false, full: false },
            &self.settings,
        );
        let name = self.state.name;
        // The engine may have given the directories back before it failed: the application must never meet the plain ones.
        let peer = if self.standing() == Standing::Alone { PeerMode::Excluded } else { PeerMode::Paired };
        steps.retain(|s| match s {
            Step::Vip { .. } => true,
            Step::Script { name, .. } => name == "start_prim",
            Step::ErrdClass { class, .. } => class == "prim",
            _ => false,
        });
        if self.settings.replicated {
            steps.insert(0, Step::Replicate { order: ReplicaOrder::Primary { peer, force: false } });
        }
        steps.push(Step::State { state: State::new(name, Readiness::Ready) });
        self.start_job(JobKind::Move, steps);
    }

    pub(super) fn vip_done(&mut self, id: u64) {
        if let Some(Wait::Vip { id: waited, held }) = self.job_wait()
            && *waited == id
        {
            self.vip_held = *held;
            self.finish(|_| true);
            if !self.vip_held {
                self.forget_addresses();
            }
        }
    }

    pub(super) fn vip_failed(&mut self, id: u64, reason: &str) {
        let Some(Wait::Vip { id: waited, held }) = self.job_wait() else { return };
        if *waited != id {
            return;
        }
        let held = *held;
        self.finish(|_| true);
        self.vip_held = false;
        self.forget_addresses();
        self.log('C', "heart", format!("Virtual IP: {reason}"));
        if held {
            // The application has not been started: back to WAIT, where the reason is shown, and try again later.
            self.log('C', "heart", "Action wait from failover rule ip_failure");
            self.vip_retry = Some(self.now.saturating_add(VIP_RETRY_MS));
            self.request_stop(StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true });
        }
    }

    /// The module cannot go on here: to STOP, and it stays there until the operator starts it.
    pub(super) fn local_fault(&mut self) {
        self.log('C', "heart", "Action stop called by heart : local fault");
        self.unwant();
        self.request_stop(StopRequest { action: "stop", then: Then::Nothing, forced: false, pause: false });
    }

    pub(super) fn unwant(&mut self) {
        if self.persisted.wanted {
            self.persisted.wanted = false;
            self.persist();
        }
    }

    /// A stop is taken after the running step; a full stop overrides a pause, a forced one a plain one.
    pub(super) fn request_stop(&mut self, request: StopRequest) {
        if let Some(job) = self.job.as_mut()
            && let JobKind::Stop(then) = &mut job.kind
        {
            if !request.pause {
                *then = request.then;
            }
            if request.forced {
                job.steps.retain(|s| match s {
                    Step::Script { name, force, .. } => *force || !name.starts_with("stop_"),
                    _ => true,
                });
            }
            return;
        }
        self.stop_request = Some(match self.stop_request {
            Some(old) if !old.pause && request.pause => old,
            Some(old) => StopRequest { forced: old.forced || request.forced, ..request },
            None => request,
        });
    }

    fn take_stop_request(&mut self) {
        let Some(request) = self.stop_request else { return };
        if self.job_wait().is_some() {
            return;
        }
        self.stop_request = None;
        let from = self.state.name;
        let kind = match (request.pause, from) {
            (_, StateName::Stop) if self.job.is_none() => return self.job_ended(JobKind::Stop(request.then)),
            (true, StateName::Wait) if !self.engaged && !self.vip_held => {
                self.job = None;
                return;
            }
            (true, _) => JobKind::Pause,
            (false, _) => JobKind::Stop(request.then),
        };
        let to = if request.pause { StateName::Wait } else { StateName::Stop };
        let plan =
            |from, to| build(&Request { from, to, action: request.action, force: false, full: false }, &self.settings);
        // Interrupted between the states: what was ordered for the next one is undone too.
        let mut steps = VecDeque::from(match (from, to) {
            (StateName::Stop, _) => plan(StateName::Wait, StateName::Stop),
            (StateName::Wait, StateName::Wait) => vec![],
            _ => plan(from, to),
        });
        if from == StateName::Wait {
            steps.push_front(Step::State { state: State::new(StateName::Wait, Readiness::Transient) });
            if self.settings.replicated && self.engaged {
                steps.push_front(Step::Replicate { order: ReplicaOrder::Retire });
            }
        }
        if self.vip_held && !steps.contains(&Step::Vip { held: false }) {
            let at = usize::from(from == StateName::Second);
            steps.insert(at, Step::Vip { held: false });
        }
        if request.forced {
            steps.retain(|s| match s {
                Step::Script { name, force, .. } => *force || !name.starts_with("stop_"),
                // Nobody waits for other nodes to take the clients.
                Step::Farm { .. } => false,
                _ => true,
            });
            if from != StateName::Wait {
                Self::force_first(&mut steps);
            }
        }
        self.swap_deadline = None;
        self.job = Some(Job::new(self.state.name, kind, steps));
    }

    /// Without plain stop scripts the forced ones must run before the address and the directories go.
    fn force_first(steps: &mut VecDeque<Step>) {
        let forced: Vec<Step> =
            steps.iter().filter(|s| matches!(s, Step::Script { force: true, .. })).cloned().collect();
        // After the change of state.
        for step in forced.into_iter().rev() {
            steps.insert(1.min(steps.len()), step);
        }
    }

    fn job_ended(&mut self, kind: JobKind) {
        match kind {
            JobKind::Stop(then) => self.stopped(then),
            JobKind::Pause => self.leaving = false,
            JobKind::Start | JobKind::Restart | JobKind::Move => {}
        }
    }

    fn stopped(&mut self, then: Then) {
        self.leaving = false;
        self.handover = false;
        self.swap_wanted = false;
        self.outdate_done = false;
        self.synced = false;
        self.must_follow = false;
        self.auto_swap = false;
        // The host goes down, or the runner: what held this node back is still so when it comes again.
        if then != Then::Nothing || !self.persisted.wanted {
            self.hold_for_old_primary(false);
        }
        self.degraded = false;
        self.vip_retry = None;
        self.last_complaint = None;
        self.forget_arbitration();
        self.commands.clear();
        // The heartbeats are off: what the peer is now must be learnt anew.
        self.forget_peer();
        match then {
            Then::Nothing => {}
            Then::Start => self.start(crate::decide::Intent::Start, "Action start called automatically"),
            Then::Reboot => {
                self.log('C', "heart", "Reboot of this server: automatic_reboot is on");
                self.out.push(Action::Reboot);
            }
        }
    }
}
