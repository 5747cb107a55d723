//! Drives a core and answers what it asks for.

use automaton::{
    Action, Core, Event, PeerMode, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer, ReplicaReport,
    ReplicaRole, Settings, State, StateName, Verb,
};
use lineage::{Epoch, EpochId, Lineage, Standing};

pub fn settings() -> Settings {
    Settings {
        mode: automaton::Mode::Mirror,
        script_control: false,
        node: "node1".into(),
        peer: "node2".into(),
        replicated: true,
        has_vip: true,
        has_scripts: true,
        force_stop_timeout_ms: 200_000,
        heartbeat_timeout_ms: 2_000,
        stream_grace_ms: 3_000,
        ..Settings::default()
    }
}

pub fn lineage(epochs: &[u128]) -> Lineage {
    Lineage(epochs.iter().map(|id| Epoch { id: EpochId(*id), start: 0 }).collect())
}

/// Drives a core and answers what it asks for, except what is held back.
pub struct Runner {
    pub core: Core,
    pub now: u64,
    /// Name of a script, or `primary`, `vip`…, that is not answered.
    pub hold: Option<&'static str>,
    pub held: Option<u64>,
    /// Order that fails.
    pub fail: Option<&'static str>,
    pub done: Vec<String>,
    pub report: ReplicaReport,
    pub published: Option<Published>,
    pub persisted: Persisted,
}

impl Runner {
    pub fn new(settings: Settings, standing: Standing, epochs: &[u128]) -> Self {
        let report = ReplicaReport {
            role: ReplicaRole::Idle,
            standing,
            lineage: lineage(epochs),
            peer: ReplicaPeer::Absent,
            frozen: false,
            position: 0,
        };
        Self {
            core: Core::new(settings, Persisted::default(), 1),
            now: 1_000,
            hold: None,
            held: None,
            fail: None,
            done: Vec::new(),
            report,
            published: None,
            persisted: Persisted::default(),
        }
    }

    pub fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            for action in self.core.handle(self.now, 1_000_000 + self.now, event) {
                self.act(action, &mut events);
            }
        }
    }

    pub fn act(&mut self, action: Action, events: &mut Vec<Event>) {
        match action {
            Action::Script { id, name, args, .. } => {
                let force = args.first().is_some_and(|a| a == "force");
                let line = if force { format!("{name}!") } else { name };
                self.answer(&line, id, events, Event::ScriptDone { id, exit: Some(0) });
            }
            Action::Replicate { id, order } => {
                let name = match &order {
                    ReplicaOrder::Primary { .. } => "primary",
                    ReplicaOrder::Secondary { .. } => "secondary",
                    ReplicaOrder::ExcludePeer => "exclude",
                    ReplicaOrder::Promote { peer: PeerMode::Excluded } => "promote",
                    ReplicaOrder::Promote { peer: PeerMode::Paired } => "promote paired",
                    ReplicaOrder::Demote => "demote",
                    ReplicaOrder::Outdate => "outdate",
                    ReplicaOrder::Abandon => "abandon",
                    ReplicaOrder::Retire => "retire",
                };
                if self.fail == Some(name) {
                    self.done.push(name.to_owned());
                    return events.push(Event::ReplicaFailed { id, reason: "busy".into() });
                }
                self.answer(name, id, events, Event::ReplicaDone { id });
            }
            Action::Vip { id, held } => {
                let name = if held { "vip" } else { "no vip" };
                self.answer(name, id, events, Event::VipDone { id });
            }
            Action::Bye => events.push(Event::ByeDone),
            Action::StateChanged { state, .. } => self.done.push(state.to_string()),
            Action::Log { message, .. } => self.done.push(message),
            Action::Publish { state } => self.published = Some(state),
            Action::Persist { core } => self.persisted = core,
            Action::Children { replicate, heartbeat, .. } => {
                if replicate {
                    events.push(Event::Replica { report: self.report.clone() });
                } else if heartbeat {
                    self.done.push("engine ended".into());
                }
            }
            Action::Refuse { error, .. } => self.done.push(format!("refused: {error}")),
            Action::Reboot => self.done.push("reboot".into()),
            Action::Arbitrate { .. }
            | Action::Lease { .. }
            | Action::ErrdClass { .. }
            | Action::Resource { .. }
            | Action::Farm { .. } => {}
        }
    }

    pub fn answer(&mut self, name: &str, id: u64, events: &mut Vec<Event>, event: Event) {
        self.done.push(name.to_owned());
        if self.hold == Some(name) {
            self.held = Some(id);
        } else {
            events.push(event);
        }
    }

    pub fn command(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: None, origin: "root".into() });
    }

    pub fn errd(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: Some("errd".into()), origin: "errd".into() });
    }

    pub fn replica(&mut self, role: ReplicaRole, standing: Standing, epochs: &[u128], peer: ReplicaPeer) {
        let frozen = role == ReplicaRole::Primary && standing == Standing::Paired && peer != ReplicaPeer::InSync;
        self.report = ReplicaReport { role, standing, lineage: lineage(epochs), peer, frozen, position: 0 };
        self.feed(Event::Replica { report: self.report.clone() });
    }

    pub fn peer(&mut self, name: StateName, readiness: Readiness, standing: Standing, epochs: &[u128]) -> Published {
        let state = Published {
            state: State::new(name, readiness),
            incarnation: 9,
            standing,
            lineage: lineage(epochs),
            position: 0,
            was_primary: false,
            alone_from_prim: false,
            leaving: false,
            handover: false,
            swap_wanted: false,
            swap_order: 0,
            swap_refused: 0,
            outdate_wanted: false,
            outdate_done: false,
            partner: u64::from(name == StateName::Prim),
            store_revision: 0,
            lease_stamp: 0,
            lease_echo: 0,
            lease_to: 0,
            degraded: false,
            full_wanted: false,
            resources: None,
        };
        self.feed(Event::PeerState { state: state.clone(), bye: false });
        state
    }

    pub fn prim() -> Self {
        let mut r = Self::new(settings(), Standing::Alone, &[1]);
        r.command(Verb::Start);
        r.feed(Event::PeerDown);
        assert_eq!(r.state(), "ALONE Ready");
        r.peer(StateName::Second, Readiness::Transient, Standing::Inconsistent, &[]);
        r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::InSync);
        r.peer(StateName::Second, Readiness::Ready, Standing::Paired, &[1]);
        assert_eq!(r.state(), "PRIM Ready");
        r.done.clear();
        r
    }

    pub fn second() -> Self {
        let mut r = Self::new(settings(), Standing::Paired, &[1]);
        r.command(Verb::Start);
        r.peer(StateName::Prim, Readiness::Ready, Standing::Paired, &[1]);
        r.replica(ReplicaRole::Secondary, Standing::Paired, &[1], ReplicaPeer::InSync);
        assert_eq!(r.state(), "SECOND Ready");
        r.done.clear();
        r
    }

    pub fn state(&self) -> String {
        self.core.state().to_string()
    }

    pub fn at(&self, line: &str) -> usize {
        self.done.iter().position(|l| l == line).unwrap_or_else(|| panic!("no {line} in {:#?}", self.done))
    }

    pub fn script_ends(&mut self, exit: Option<i32>) {
        self.hold = None;
        let Some(id) = self.held.take() else { panic!("nothing is held back") };
        self.feed(Event::ScriptDone { id, exit });
    }
}
