//! A secondary that is synchronised at dates (`syncat`), and the callbacks of `<rfs scripts="on">`.

use automaton::{
    Action, Core, Event, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer, ReplicaReport, ReplicaRole,
    Settings, State, StateName, Verb,
};
use lineage::{Epoch, EpochId, Lineage, Standing};
use std::collections::BTreeMap;

/// A core whose orders are carried out at once.
struct Node {
    core: Core,
    persisted: Persisted,
    report: ReplicaReport,
    now: u64,
    log: Vec<String>,
    orders: Vec<ReplicaOrder>,
    calls: Vec<String>,
    /// Exit codes of `_rfs_callback` by its word; None: killed at its timeout.
    exits: BTreeMap<String, Option<i32>>,
    resources: BTreeMap<String, String>,
}

fn lineage(epochs: &[u128]) -> Lineage {
    Lineage(epochs.iter().map(|id| Epoch { id: EpochId(*id), start: 0 }).collect())
}

impl Node {
    fn new(standing: Standing, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            node: "node1".into(),
            peer: "node2".into(),
            replicated: true,
            has_scripts: true,
            ..Settings::default()
        };
        change(&mut settings);
        let report = ReplicaReport {
            role: ReplicaRole::Idle,
            standing,
            lineage: lineage(&[1]),
            peer: ReplicaPeer::Absent,
            frozen: false,
            position: 0,
        };
        Self {
            core: Core::new(settings, Persisted::default(), 1),
            persisted: Persisted::default(),
            report,
            now: 1_000,
            log: Vec::new(),
            orders: Vec::new(),
            calls: Vec::new(),
            exits: BTreeMap::new(),
            resources: BTreeMap::new(),
        }
    }

    /// Started, with a primary that serves alone in a newer epoch.
    fn beside_a_primary(standing: Standing) -> Self {
        let mut node = Self::new(standing, |s| s.sync_at = true);
        node.order(Verb::Start);
        node.hear(StateName::Alone, &[2, 1]);
        node
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            self.now += 1;
            for action in self.core.handle(self.now, 1_700_000_000_000 + self.now, events.remove(0)) {
                match action {
                    Action::Script { id, name, args, timeout_ms } => {
                        let mut exit = Some(0);
                        if name == automaton::CALLBACK {
                            assert_eq!(timeout_ms, Some(self.core.settings().nice_stop_timeout_ms));
                            exit = self.exits.get(&args[0]).copied().unwrap_or(Some(0));
                            self.calls.push(args.join(" "));
                        } else {
                            self.calls.push(name);
                        }
                        events.push(Event::ScriptDone { id, exit });
                    }
                    Action::Vip { id, .. } => events.push(Event::VipDone { id }),
                    Action::Bye => events.push(Event::ByeDone),
                    Action::Children { replicate: true, .. } => {
                        events.push(Event::Replica { report: self.report.clone() });
                    }
                    Action::Replicate { id, order } => {
                        match order {
                            ReplicaOrder::Primary { .. } => {
                                self.report.role = ReplicaRole::Primary;
                                if self.report.standing != Standing::Paired {
                                    self.report.standing = Standing::Alone;
                                }
                            }
                            ReplicaOrder::Secondary { .. } => {
                                self.report.role = ReplicaRole::Secondary;
                                self.report.standing = Standing::Inconsistent;
                                self.report.peer = ReplicaPeer::Syncing;
                            }
                            ReplicaOrder::Outdate => self.report.standing = Standing::Outdated,
                            ReplicaOrder::Retire => {
                                self.report.role = ReplicaRole::Idle;
                                self.report.peer = ReplicaPeer::Absent;
                            }
                            _ => {}
                        }
                        self.orders.push(order);
                        events.push(Event::Replica { report: self.report.clone() });
                        events.push(Event::ReplicaDone { id });
                    }
                    Action::Persist { core } => self.persisted = core,
                    Action::Log { message, .. } => self.log.push(message),
                    Action::Resource { name, value } => {
                        self.resources.insert(name, value);
                    }
                    _ => {}
                }
            }
        }
    }

    fn order(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: None, origin: "root".into() });
    }

    fn due(&mut self, value: &str) {
        self.feed(Event::Resource { name: "rfs.syncat".into(), value: value.into(), origin: "syncat".into() });
    }

    fn hear(&mut self, name: StateName, epochs: &[u128]) {
        let nothing_said = Core::new(Settings::default(), Persisted::default(), 2).published();
        let standing = if name == StateName::Prim { Standing::Paired } else { Standing::Alone };
        let partner = u64::from(name == StateName::Prim);
        let state = State::new(name, Readiness::Ready);
        let state = Published { state, standing, lineage: lineage(epochs), partner, ..nothing_said };
        self.feed(Event::PeerState { state, bye: false });
    }

    /// The resynchronisation ends, and the primary notices.
    fn in_sync(&mut self, epochs: &[u128]) {
        self.report.standing = Standing::Paired;
        self.report.peer = ReplicaPeer::InSync;
        self.report.lineage = lineage(epochs);
        self.feed(Event::Replica { report: self.report.clone() });
    }

    fn state(&self) -> String {
        self.core.state().to_string()
    }

    fn syncat(&self) -> &str {
        &self.resources["rfs.syncat"]
    }
}

#[test]
fn between_two_dates_the_secondary_waits_and_knows_that_its_data_are_old() {
    for standing in [Standing::Paired, Standing::Alone] {
        let node = Node::beside_a_primary(standing);
        assert_eq!((node.state().as_str(), node.core.rule()), ("WAIT NotReady", Some("rfs_syncat_wait")));
        assert_eq!(node.orders, [ReplicaOrder::Outdate], "not durable: it would serve what is old");
        assert_eq!(node.syncat(), "down");
        let said = "Action wait from failover rule rfs_syncat_wait";
        assert_eq!(node.log.iter().filter(|line| *line == said).count(), 1, "{:?}", node.log);
        let words = node.core.explain();
        assert!(words.because.iter().any(|line| line.contains("next date of syncat")), "{words:?}");
        let rule = node.core.rules().into_iter().find(|rule| rule.label == "rfs_syncat_wait").unwrap();
        assert!(rule.acting);
    }
}

#[test]
fn at_the_date_it_synchronises_and_waits_again() {
    let mut node = Node::beside_a_primary(Standing::Outdated);
    for date in 1..=5_u128 {
        let epochs: Vec<u128> = (1..=date + 1).rev().collect();
        node.due("up");
        assert_eq!((node.state().as_str(), node.syncat()), ("SECOND Transient", "up"), "{date}");
        assert_eq!(node.orders.last(), Some(&ReplicaOrder::Secondary { full: false }));
        // Neither a second date nor anything else disturbs what runs.
        node.due("up");
        node.feed(Event::Tick);
        assert_eq!(node.state(), "SECOND Transient");
        node.in_sync(&epochs);
        assert_eq!((node.state().as_str(), node.syncat()), ("SECOND Ready", "up"), "the primary does not know yet");
        node.hear(StateName::Prim, &epochs);
        assert_eq!((node.state().as_str(), node.syncat()), ("WAIT NotReady", "down"), "{date}: {:?}", node.log);
        assert_eq!(node.core.rule(), Some("rfs_syncat_wait"));
        assert_eq!(node.report.standing, Standing::Paired);
        // The primary has gone on.
        let newer: Vec<u128> = (1..=date + 2).rev().collect();
        node.hear(StateName::Alone, &newer);
        assert_eq!((node.state().as_str(), node.report.standing), ("WAIT NotReady", Standing::Outdated));
    }
    // Waiting is no fault.
    assert_eq!(node.persisted.loop_count, 0);
    assert!(!node.core.loop_reached());
}

#[test]
fn a_date_old_secondary_does_not_take_over() {
    let mut node = Node::beside_a_primary(Standing::Paired);
    node.feed(Event::PeerDown);
    assert_eq!((node.state().as_str(), node.core.rule()), ("WAIT NotReady", Some("rfs_notuptodate_server")));
    assert!(node.log.iter().any(|line| line.starts_with("Data may be not uptodate")), "{:?}", node.log);
    // Nor does a date make it serve; the operator may.
    node.due("up");
    assert_eq!((node.state().as_str(), node.syncat()), ("WAIT NotReady", "up"));
    node.order(Verb::Stop);
    node.order(Verb::Prim);
    node.feed(Event::PeerDown);
    assert_eq!((node.state().as_str(), node.syncat()), ("ALONE Ready", "down"));
}

#[test]
fn what_is_being_synchronised_or_needed_goes_on() {
    // The primary dies while the secondary is in sync, before it has gone to wait.
    let mut node = Node::beside_a_primary(Standing::Outdated);
    node.due("up");
    node.in_sync(&[2, 1]);
    let mut named = node.core.peer().cloned().unwrap();
    (named.partner, named.standing, named.state.readiness) = (1, Standing::Paired, Readiness::Transient);
    named.state.name = StateName::Prim;
    node.feed(Event::PeerState { state: named, bye: false });
    assert_eq!(node.state(), "SECOND Ready");
    node.feed(Event::PeerDown);
    assert_eq!((node.state().as_str(), node.syncat()), ("ALONE Ready", "down"));

    // The primary dies in the middle: a mixture serves nobody, and the date is made up for when it is back.
    let mut node = Node::beside_a_primary(Standing::Outdated);
    node.due("up");
    node.feed(Event::PeerDown);
    assert_eq!((node.state().as_str(), node.core.rule()), ("WAIT NotReady", Some("rfs_notuptodate_server")));
    node.hear(StateName::Alone, &[3, 2, 1]);
    assert_eq!(node.state(), "SECOND Transient");

    // It is the node that shall be primary: the swap that follows is not cut off.
    let mut node = Node::new(Standing::Outdated, |s| {
        s.sync_at = true;
        s.default_primary = automaton::DefaultPrimary::Node("node1".into());
    });
    node.order(Verb::Start);
    node.hear(StateName::Alone, &[2, 1]);
    node.due("up");
    node.in_sync(&[2, 1]);
    node.hear(StateName::Prim, &[2, 1]);
    assert_eq!(node.state(), "SECOND Ready");
}

#[test]
fn the_operator_may_call_for_a_synchronisation_and_call_it_off() {
    let mut node = Node::new(Standing::Outdated, |s| s.sync_at = true);
    node.due("up");
    node.order(Verb::Second);
    node.hear(StateName::Alone, &[2, 1]);
    assert_eq!((node.state().as_str(), node.syncat()), ("SECOND Transient", "down"), "a date in STOP is no date");
    node.in_sync(&[2, 1]);
    node.hear(StateName::Prim, &[2, 1]);
    assert_eq!((node.state().as_str(), node.core.rule()), ("WAIT NotReady", Some("rfs_syncat_wait")));
    node.feed(Event::PeerDown);
    node.due("up");
    node.due("down");
    node.hear(StateName::Alone, &[3, 2, 1]);
    assert_eq!(node.state(), "WAIT NotReady");
    // Without the attribute there is neither rule nor resource.
    let mut node = Node::new(Standing::Outdated, |_| {});
    node.order(Verb::Start);
    node.due("up");
    node.hear(StateName::Alone, &[2, 1]);
    assert_eq!(node.state(), "SECOND Transient");
    assert!(!node.resources.contains_key("rfs.syncat"));
    assert!(node.core.rules().iter().all(|rule| rule.label != "rfs_syncat_wait"));
}

#[test]
fn the_callback_may_keep_a_synchronisation_from_starting() {
    for (exit, wanted) in [
        (Some(0), "SECOND Transient"),
        (Some(1), "SECOND Transient"),
        (Some(2), "STOP NotReady"),
        (None, "STOP NotReady"),
    ] {
        let mut node = Node::new(Standing::Outdated, |s| s.rfs_scripts = true);
        node.exits.insert("_rfs_startsynch".into(), exit);
        node.order(Verb::Start);
        node.hear(StateName::Alone, &[2, 1]);
        assert_eq!(node.state(), wanted, "{exit:?}: {:?}", node.log);
        let synchronises = node.orders.contains(&ReplicaOrder::Secondary { full: false });
        assert_eq!(synchronises, wanted == "SECOND Transient", "{exit:?}");
        let called = node.calls.iter().position(|call| call == "_rfs_startsynch").expect("the callback");
        assert!(node.calls.iter().skip(called).any(|call| call == "start_second") == synchronises, "{:?}", node.calls);
        assert_eq!(node.resources.contains_key("rfs.reintegre_failed"), !synchronises, "{exit:?}");
        if let Some(code @ 1..) = exit {
            assert!(node.log.iter().any(|line| line.ends_with(&format!("exited with {code}"))), "{:?}", node.log);
        }
    }
    // Not asked for: not called.
    let mut node = Node::new(Standing::Outdated, |_| {});
    node.order(Verb::Start);
    node.hear(StateName::Alone, &[2, 1]);
    assert!(!node.calls.contains(&"_rfs_startsynch".to_owned()));
}

/// A primary with a ready secondary.
fn primary(exit: Option<i32>) -> Node {
    let mut node = Node::new(Standing::Alone, |s| s.rfs_scripts = true);
    node.exits.insert("_rfs_pritoscd".into(), exit);
    node.order(Verb::Start);
    node.feed(Event::PeerDown);
    assert_eq!(node.state(), "ALONE Ready");
    node.hear(StateName::Second, &[1]);
    node.in_sync(&[1]);
    assert_eq!(node.state(), "PRIM Ready");
    node.calls.clear();
    node.orders.clear();
    node
}

#[test]
fn the_callback_may_keep_a_primary_from_becoming_secondary() {
    let mut node = primary(Some(0));
    node.order(Verb::Swap);
    assert_eq!(node.orders, [ReplicaOrder::Demote]);
    let at = |node: &Node, name: &str| node.calls.iter().position(|call| call == name);
    assert!(at(&node, "stop_prim") < at(&node, "_rfs_pritoscd"), "{:?}", node.calls);
    assert!(at(&node, "_rfs_pritoscd") < at(&node, "start_second"), "{:?}", node.calls);
    for objection in [Some(2), None] {
        let mut node = primary(objection);
        node.order(Verb::Swap);
        assert_eq!(node.state(), "PRIM Ready", "{:?}", node.log);
        assert!(!node.orders.contains(&ReplicaOrder::Demote), "{:?}", node.orders);
        assert!(at(&node, "_rfs_pritoscd") < at(&node, "start_prim"), "{:?}", node.calls);
        assert!(node.log.contains(&"Swap given up: this node stays primary".to_owned()), "{:?}", node.log);
        // The other node asks for the swap: it gets one answer, and the application is not stopped again and again.
        let mut asking = node.core.peer().cloned().unwrap();
        asking.swap_wanted = true;
        node.calls.clear();
        for _ in 0..3 {
            node.feed(Event::PeerState { state: asking.clone(), bye: false });
        }
        assert_eq!(node.calls.iter().filter(|call| *call == "_rfs_pritoscd").count(), 1, "{:?}", node.calls);
        // It asks anew.
        asking.swap_wanted = false;
        node.feed(Event::PeerState { state: asking.clone(), bye: false });
        asking.swap_wanted = true;
        node.feed(Event::PeerState { state: asking, bye: false });
        assert_eq!(node.calls.iter().filter(|call| *call == "_rfs_pritoscd").count(), 2, "{:?}", node.calls);
    }
}
