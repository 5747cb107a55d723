//! When may a node that was equal to its peer a short while ago serve without it (`syncdelta`)?

use automaton::{
    Action, Core, Event, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer, ReplicaReport, ReplicaRole,
    Settings, State, StateName, Verb,
};
use lineage::{Epoch, EpochId, Lineage, Standing};

const MINUTE: u64 = 60_000;
const WALL: u64 = 1_700_000_000_000;

/// A core whose orders are carried out at once.
struct Node {
    core: Core,
    persisted: Persisted,
    report: ReplicaReport,
    now: u64,
    log: Vec<String>,
}

fn lineage(epochs: &[u128]) -> Lineage {
    Lineage(epochs.iter().map(|id| Epoch { id: EpochId(*id), start: 0 }).collect())
}

impl Node {
    fn new(sync_delta_ms: u64, standing: Standing, synced_ms: u64) -> Self {
        let settings = Settings {
            node: "node1".into(),
            peer: "node2".into(),
            replicated: true,
            sync_delta_ms,
            ..Settings::default()
        };
        let persisted = Persisted { was_primary: true, synced_ms, ..Persisted::default() };
        let report = ReplicaReport {
            role: ReplicaRole::Idle,
            standing,
            lineage: lineage(&[1]),
            peer: ReplicaPeer::Absent,
            frozen: false,
            position: 0,
        };
        Self { core: Core::new(settings, persisted.clone(), 1), persisted, report, now: 1_000, log: Vec::new() }
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            for action in self.core.handle(self.now, WALL + self.now, events.remove(0)) {
                match action {
                    Action::Script { id, .. } => events.push(Event::ScriptDone { id, exit: Some(0) }),
                    Action::Vip { id, .. } => events.push(Event::VipDone { id }),
                    Action::Bye => events.push(Event::ByeDone),
                    Action::Children { replicate: true, .. } => {
                        events.push(Event::Replica { report: self.report.clone() });
                    }
                    Action::Replicate { id, order } => {
                        match order {
                            ReplicaOrder::Primary { .. } => {
                                self.report.role = ReplicaRole::Primary;
                                self.report.standing = Standing::Alone;
                            }
                            ReplicaOrder::Secondary { .. } => self.report.role = ReplicaRole::Secondary,
                            ReplicaOrder::Outdate => self.report.standing = Standing::Outdated,
                            _ => {}
                        }
                        events.push(Event::Replica { report: self.report.clone() });
                        events.push(Event::ReplicaDone { id });
                    }
                    Action::Persist { core } => self.persisted = core,
                    Action::Log { message, .. } => self.log.push(message),
                    _ => {}
                }
            }
        }
    }

    fn started_without_peer(mut self) -> Self {
        self.feed(Event::Command { verb: Verb::Start, full: false, identity: None, origin: "root".into() });
        self.feed(Event::PeerDown);
        self
    }

    fn state(&self) -> String {
        self.core.state().to_string()
    }
}

fn peer(name: StateName, readiness: Readiness) -> Published {
    let nothing_said = Core::new(Settings::default(), Persisted::default(), 2).published();
    Published {
        state: State::new(name, readiness),
        standing: Standing::Paired,
        lineage: lineage(&[1]),
        partner: 1,
        ..nothing_said
    }
}

#[test]
fn equal_a_short_while_ago_is_good_enough_only_where_asked_for() {
    let cases = [
        ("off", 0, Standing::Paired, WALL - MINUTE, "WAIT NotReady"),
        ("young", 10 * MINUTE, Standing::Paired, WALL - 5 * MINUTE, "ALONE Ready"),
        ("old", 10 * MINUTE, Standing::Paired, WALL - 11 * MINUTE, "WAIT NotReady"),
        ("never", 10 * MINUTE, Standing::Paired, 0, "WAIT NotReady"),
        ("a clock set back", 10 * MINUTE, Standing::Paired, WALL + 5 * MINUTE, "WAIT NotReady"),
        ("left behind", 10 * MINUTE, Standing::Outdated, WALL - MINUTE, "WAIT NotReady"),
        ("a mixture", 10 * MINUTE, Standing::Inconsistent, WALL - MINUTE, "WAIT NotReady"),
        ("nothing", 10 * MINUTE, Standing::Blank, WALL - MINUTE, "WAIT NotReady"),
    ];
    for (case, delta, standing, synced, wanted) in cases {
        let node = Node::new(delta, standing, synced).started_without_peer();
        assert_eq!(node.state(), wanted, "{case}");
        let forced = node.log.iter().any(|line| line.ends_with("from failover rule rfs_forceuptodate"));
        assert_eq!(forced, wanted == "ALONE Ready", "{case}");
    }
}

#[test]
fn a_peer_that_is_heard_decides_with_us() {
    let mut node = Node::new(10 * MINUTE, Standing::Paired, WALL - MINUTE);
    node.feed(Event::Command { verb: Verb::Start, full: false, identity: None, origin: "root".into() });
    let mut serving = peer(StateName::Alone, Readiness::Ready);
    serving.lineage = lineage(&[2, 1]);
    serving.standing = Standing::Alone;
    node.feed(Event::PeerState { state: serving, bye: false });
    assert_eq!(node.state(), "SECOND Transient");
}

/// A secondary that follows and is in sync.
fn secondary() -> Node {
    let mut node = Node::new(10 * MINUTE, Standing::Paired, 0);
    node.feed(Event::Command { verb: Verb::Start, full: false, identity: None, origin: "root".into() });
    node.feed(Event::PeerState { state: peer(StateName::Prim, Readiness::Ready), bye: false });
    node.report.peer = ReplicaPeer::InSync;
    let report = node.report.clone();
    node.feed(Event::Replica { report });
    assert_eq!(node.state(), "SECOND Ready");
    node
}

#[test]
fn the_date_is_renewed_while_both_are_equal() {
    let mut node = secondary();
    assert_eq!(node.persisted.synced_ms, WALL + 1_000);
    let (due, why) = node.core.poll_timeout().expect("nothing to wake up for");
    assert_eq!((due, why), (21_000, "date of the last synchronisation"));
    node.now = due;
    node.feed(Event::Tick);
    assert_eq!(node.persisted.synced_ms, WALL + 21_000);
    // Not equal any more: the date stays what it was.
    node.report.peer = ReplicaPeer::Absent;
    let report = node.report.clone();
    node.now = 100_000;
    node.feed(Event::Replica { report });
    assert_eq!(node.persisted.synced_ms, WALL + 21_000);
}

#[test]
fn who_leaves_in_order_knows_that_the_peer_goes_on() {
    let mut node = secondary();
    node.feed(Event::Command { verb: Verb::Stop, full: false, identity: None, origin: "root".into() });
    assert_eq!(node.state(), "STOP NotReady");
    assert_eq!(node.persisted.synced_ms, 0);
    node.feed(Event::Command { verb: Verb::Start, full: false, identity: None, origin: "root".into() });
    node.feed(Event::PeerDown);
    assert_eq!(node.state(), "WAIT NotReady");
}
