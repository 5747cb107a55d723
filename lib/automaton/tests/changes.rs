//! What may change while a module runs, and what reaches its scripts: settings, `update`, services restarted alone, `prim fullsync`.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use automaton::{
    Action, Core, Event, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer, ReplicaReport, ReplicaRole,
    Settings, State, StateName, Verb,
};
use lineage::{Epoch, EpochId, Lineage, Standing};

/// A module without directories and addresses, whose scripts end at once unless held.
struct Node {
    core: Core,
    now: u64,
    scripts: Vec<String>,
    log: Vec<String>,
    orders: Vec<ReplicaOrder>,
    published: Option<Published>,
    hold: bool,
    held: Option<u64>,
}

fn settings() -> Settings {
    Settings { node: "node1".into(), peer: "node2".into(), has_scripts: true, ..Settings::default() }
}

impl Node {
    fn new(settings: Settings) -> Self {
        let core = Core::new(settings, Persisted::default(), 1);
        Self { core, now: 0, scripts: vec![], log: vec![], orders: vec![], published: None, hold: false, held: None }
    }

    /// ALONE, its peer silent.
    fn alone(settings: Settings) -> Self {
        let mut node = Self::new(settings);
        node.command(Verb::Prim, false);
        node.tell(Event::PeerDown);
        assert_eq!(node.core.state(), State::new(StateName::Alone, Readiness::Ready));
        node.scripts.clear();
        node
    }

    fn command(&mut self, verb: Verb, full: bool) {
        self.tell(Event::Command { verb, full, identity: None, origin: "root".into() });
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.now += 1;
            for action in self.core.handle(self.now, self.now, event) {
                match action {
                    Action::Script { id, name, args, .. } => {
                        self.scripts.push(format!("{name} {}", args.join("|")));
                        if self.hold {
                            self.held = Some(id);
                        } else {
                            events.push(Event::ScriptDone { id, exit: Some(0) });
                        }
                    }
                    Action::Replicate { id, order } => {
                        self.orders.push(order);
                        events.push(Event::ReplicaDone { id });
                    }
                    Action::Vip { id, .. } => events.push(Event::VipDone { id }),
                    Action::Bye => events.push(Event::ByeDone),
                    Action::Log { message, .. } => self.log.push(message),
                    Action::Publish { state } => self.published = Some(state),
                    _ => {}
                }
            }
        }
    }

    fn release(&mut self) {
        self.hold = false;
        let id = self.held.take().unwrap();
        self.tell(Event::ScriptDone { id, exit: Some(0) });
    }

    fn restart_services(&mut self, services: &[&str]) {
        let services = services.iter().map(|s| (*s).to_owned()).collect();
        self.tell(Event::RestartServices { services, identity: "errd".into() });
    }

    fn started(&self) -> Vec<&str> {
        self.scripts.iter().filter(|s| s.starts_with("start_prim")).map(String::as_str).collect()
    }
}

#[test]
fn settings_of_a_running_module_change_as_far_as_they_may() {
    let mut node = Node::alone(settings());
    let new = Settings {
        max_loop: 7,
        nice_stop_timeout_ms: 1,
        heartbeat_timeout_ms: 9_000,
        peer: "stranger".into(),
        replicated: true,
        has_vip: true,
        failover: false,
        ..settings()
    };
    node.tell(Event::Settings { settings: Box::new(new.clone()), origin: "root".into() });
    let now = node.core.settings().clone();
    assert_eq!((now.max_loop, now.nice_stop_timeout_ms, now.heartbeat_timeout_ms), (7, 1, 9_000));
    assert_eq!(
        (now.peer.as_str(), now.replicated, now.has_vip, now.failover),
        ("node2", false, false, true),
        "the peer was told otherwise"
    );
    assert_eq!(node.scripts, ["update ALONE|ALONE|update"]);
    assert!(node.log.contains(&"Action config called by root".to_owned()));
    assert_eq!(node.core.state(), State::new(StateName::Alone, Readiness::Ready));

    node.command(Verb::Stop, false);
    node.tell(Event::Settings { settings: Box::new(new.clone()), origin: "root".into() });
    assert_eq!(*node.core.settings(), new, "in STOP everything changes");
}

#[test]
fn update_calls_the_script_of_that_name_where_there_is_something_to_tell() {
    let mut node = Node::alone(settings());
    node.command(Verb::Update, false);
    assert_eq!(node.scripts, ["update ALONE|ALONE|update"]);
    let mut stopped = Node::new(settings());
    stopped.command(Verb::Update, false);
    assert!(stopped.scripts.is_empty());
    assert!(!stopped.core.is_busy());
}

#[test]
fn services_restarted_alone_reach_the_scripts() {
    let mut node = Node::alone(settings());
    node.restart_services(&["a", "b c"]);
    assert_eq!(node.started(), ["start_prim ALONE|ALONE|restart|-Services|a, b c"]);
    assert!(node.scripts.contains(&"stop_prim force|ALONE|ALONE|restart|-Services|a, b c".to_owned()));
    assert_eq!(node.core.persisted().loop_count, 1, "counted by maxloop");
    for _ in 0..3 {
        node.restart_services(&["a"]);
    }
    assert_eq!(node.core.state().name, StateName::Stop, "the limit is the same");
}

#[test]
fn a_restart_of_one_service_does_not_stand_for_another() {
    let mut node = Node::alone(settings());
    node.hold = true;
    node.restart_services(&["a"]);
    node.restart_services(&["a"]);
    node.restart_services(&["b"]);
    node.restart_services(&["c"]);
    node.tell(Event::Command {
        verb: Verb::Restart,
        full: false,
        identity: Some("errd".into()),
        origin: "errd".into(),
    });
    node.release();
    assert_eq!(
        node.started(),
        [
            "start_prim ALONE|ALONE|restart|-Services|a",
            "start_prim ALONE|ALONE|restart|-Services|b, c",
            "start_prim ALONE|ALONE|restart",
        ]
    );
}

#[test]
fn a_restart_of_everything_stands_for_its_services() {
    let mut node = Node::alone(settings());
    node.hold = true;
    node.command(Verb::Restart, false);
    node.restart_services(&["a"]);
    node.release();
    assert_eq!(node.started(), ["start_prim ALONE|ALONE|restart"]);
}

fn lineage() -> Lineage {
    Lineage(vec![Epoch { id: EpochId(1), start: 0 }])
}

fn report(role: ReplicaRole, standing: Standing, peer: ReplicaPeer) -> Event {
    Event::Replica { report: ReplicaReport { role, standing, lineage: lineage(), peer, frozen: false, position: 5 } }
}

/// `prim fullsync` or `primforce` on one node makes the other copy everything, once, also when the primary is stopped and started in between.
#[test]
fn a_full_copy_asked_for_on_the_primary_is_made_by_the_secondary() {
    for (verb, full, standing) in
        [(Verb::Prim, true, Standing::Alone), (Verb::PrimForce, false, Standing::Inconsistent)]
    {
        full_copy_is_made_after(verb, full, standing);
    }
}

fn full_copy_is_made_after(verb: Verb, full: bool, standing: Standing) {
    let replicated = Settings { replicated: true, ..settings() };
    let mut primary = Node::new(replicated.clone());
    primary.command(verb, full);
    primary.tell(report(ReplicaRole::Idle, standing, ReplicaPeer::Absent));
    primary.tell(Event::PeerDown);
    primary.tell(report(ReplicaRole::Primary, Standing::Alone, ReplicaPeer::Absent));
    assert_eq!(primary.core.state().name, StateName::Alone);
    let said = primary.published.clone().unwrap();
    assert!(said.full_wanted);

    let mut secondary = Node::new(Settings { node: "node2".into(), peer: "node1".into(), ..replicated });
    secondary.command(Verb::Start, false);
    secondary.tell(report(ReplicaRole::Idle, Standing::Outdated, ReplicaPeer::Absent));
    secondary.tell(Event::PeerState { state: said, bye: false });
    assert!(secondary.orders.contains(&ReplicaOrder::Secondary { full: true }), "{:?}", secondary.orders);

    let persisted: Persisted = serde_json::from_str(&serde_json::to_string(primary.core.persisted()).unwrap()).unwrap();
    assert!(persisted.full_wanted, "kept across the runner's death");
    let mut said = secondary.published.clone().unwrap();
    said.state = State::new(StateName::Second, Readiness::Transient);
    primary.tell(Event::PeerState { state: said.clone(), bye: false });
    primary.tell(report(ReplicaRole::Primary, Standing::Paired, ReplicaPeer::InSync));
    said.state = State::new(StateName::Second, Readiness::Ready);
    said.standing = Standing::Paired;
    primary.tell(Event::PeerState { state: said, bye: false });
    assert_eq!(primary.core.state().name, StateName::Prim);
    assert!(!primary.published.clone().unwrap().full_wanted && !primary.core.persisted().full_wanted);
}

#[test]
fn every_state_can_be_explained() {
    let mut node = Node::new(settings());
    let mut seen = vec![];
    let mut look = |node: &Node| {
        let words = node.core.explain();
        assert!(!words.because.is_empty() && !words.would_change.is_empty(), "{:?}", node.core.state());
        seen.push((node.core.state().name, words.because.join("; ")));
    };
    look(&node);
    node.command(Verb::Start, false);
    look(&node);
    node.tell(Event::PeerDown);
    look(&node);
    let words: Vec<&str> = seen.iter().map(|(_, w)| w.as_str()).collect();
    assert!(words[0].contains("nobody has started it"), "{words:?}");
    assert!(words[1].contains("nothing was heard of node2 yet"), "{words:?}");
    assert!(words[2].contains("node2 is no secondary: no heartbeat"), "{words:?}");
}

#[test]
fn witnesses_may_come_and_go_while_a_module_runs_and_a_store_may_not() {
    use automaton::Arbiter;
    let store = || Arbiter::Store { lease_ms: 3_000, margin_ms: 1_000 };
    let mut node = Node::alone(settings());
    let mut becomes = |wanted: Arbiter, expected: Arbiter| {
        let settings = Box::new(Settings { arbiter: wanted, ..settings() });
        node.tell(Event::Settings { settings, origin: "root".into() });
        assert_eq!(node.core.settings().arbiter, expected);
        assert_eq!(node.core.state(), State::new(StateName::Alone, Readiness::Ready));
    };
    becomes(Arbiter::Ping, Arbiter::Ping);
    becomes(store(), Arbiter::Ping);
    becomes(Arbiter::None, Arbiter::None);
    becomes(store(), Arbiter::None);
}

#[test]
fn a_script_that_does_not_end_is_named_with_the_time_it_has_run() {
    let mut node = Node::new(settings());
    node.hold = true;
    node.command(Verb::Prim, false);
    node.now += 90_000;
    node.tell(Event::Tick);
    let because = node.core.explain().because.join("\n");
    assert!(because.contains(", which began 90 s before the last input"), "{because}");
}
