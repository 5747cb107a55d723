//! Do failover rules act when, and only when, they should?

use automaton::{Action, Core, Event, Persisted, Settings, StateName, Supervision, Verb};
use proptest::prelude::*;
use rules::{Origin, Rule, RuleSet};
use std::collections::BTreeMap;

struct Node {
    core: Core,
    now: u64,
    log: Vec<String>,
    resources: BTreeMap<String, String>,
    persisted: Persisted,
    /// Scripts are answered.
    answers: bool,
    open: Vec<u64>,
}

fn supervision(text: &str, checkers: &[(&str, &str)]) -> Supervision {
    let mut set = RuleSet::default();
    let own = rules::parse(text).unwrap_or_default();
    set.rules.extend(own.into_iter().map(|p| Rule {
        label: p.label,
        condition: p.condition,
        action: p.action,
        origin: Origin::Module,
    }));
    let checkers: BTreeMap<String, String> =
        checkers.iter().map(|(name, class)| ((*name).to_owned(), (*class).to_owned())).collect();
    let known: Vec<String> = checkers.keys().cloned().collect();
    let published = set.remote_names(&known);
    Supervision { rules: set, checkers, published }
}

impl Node {
    fn new(supervision: Supervision) -> Self {
        let settings = Settings {
            node: "node1".into(),
            peer: "node2".into(),
            has_scripts: true,
            heartbeat_timeout_ms: 2_000,
            supervision,
            ..Settings::default()
        };
        Self {
            core: Core::new(settings, Persisted::default(), 1),
            now: 1_000,
            log: Vec::new(),
            resources: BTreeMap::new(),
            persisted: Persisted::default(),
            answers: true,
            open: Vec::new(),
        }
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            for action in self.core.handle(self.now, 1_000_000 + self.now, events.remove(0)) {
                match action {
                    Action::Script { id, name, .. } => {
                        self.log.push(name);
                        if self.answers {
                            events.push(Event::ScriptDone { id, exit: Some(0) });
                        } else {
                            self.open.push(id);
                        }
                    }
                    Action::Vip { id, .. } => events.push(Event::VipDone { id }),
                    Action::Bye => events.push(Event::ByeDone),
                    Action::Log { message, .. } => self.log.push(message),
                    Action::StateChanged { state, .. } => self.log.push(state.to_string()),
                    Action::Resource { name, value } => {
                        self.resources.insert(name, value);
                    }
                    Action::Persist { core } => self.persisted = core,
                    _ => {}
                }
            }
        }
    }

    /// Lets time pass, with every tick that the core asks for.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some((at, _)) = self.core.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = at;
            self.feed(Event::Tick);
        }
        self.now = end;
    }

    fn set(&mut self, name: &str, value: &str) {
        self.feed(Event::Resource { name: name.into(), value: value.into(), origin: "x".into() });
    }

    fn command(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: None, origin: "root".into() });
    }

    fn start(&mut self) {
        self.command(Verb::Start);
        self.feed(Event::PeerDown);
    }

    fn state(&self) -> String {
        self.core.state().to_string()
    }

    fn said(&self, what: &str) -> usize {
        self.log.iter().filter(|l| *l == what).count()
    }
}

#[test]
fn c4_a_restart_rule_restarts_at_once_and_the_fourth_time_stops() {
    let mut n = Node::new(supervision("t_web: if (tcp.web == down) then restart();", &[("tcp.web", "prim")]));
    n.start();
    assert_eq!(n.state(), "ALONE Ready");
    assert_eq!(n.resources["tcp.web"], "init");
    n.set("tcp.web", "up");
    for round in 1..=3 {
        n.set("tcp.web", "down");
        assert_eq!(n.said("Action restart from failover rule t_web"), round);
        assert_eq!(n.said("start_prim"), round + 1);
        assert_eq!(n.resources["tcp.web"], "init", "its checker begins anew");
        assert_eq!(n.state(), "ALONE Ready");
        n.set("tcp.web", "up");
    }
    n.set("tcp.web", "down");
    assert_eq!(n.state(), "STOP NotReady");
    assert_eq!(n.said("Action stop called by maxloop"), 1);
    assert!(!n.persisted.wanted);
}

#[test]
fn c15_a_command_between_the_faults_resets_the_count() {
    let mut n = Node::new(supervision("t_web: if (tcp.web == down) then restart();", &[("tcp.web", "prim")]));
    n.start();
    for _ in 0..6 {
        n.set("tcp.web", "down");
        n.command(Verb::Restart);
        n.set("tcp.web", "up");
    }
    assert_eq!(n.state(), "ALONE Ready");
}

#[test]
fn c5_an_external_fault_makes_wait_and_its_end_wakes_up() {
    let mut n = Node::new(supervision("t_dns: if (tcp.dns == down) then wait();", &[("tcp.dns", "pre")]));
    n.command(Verb::Start);
    n.feed(Event::PeerDown);
    assert_eq!(n.state(), "WAIT Transient", "the checker has not reported yet");
    assert_eq!(n.core.waits_for(), ["tcp.dns"]);
    n.set("tcp.dns", "down");
    assert_eq!(n.state(), "WAIT NotReady");
    assert_eq!(n.core.rule(), Some("t_dns"));
    assert_eq!(n.said("start_prim"), 0);
    n.set("tcp.dns", "up");
    assert_eq!(n.state(), "ALONE Ready");
    assert_eq!(n.said("Action wakeup from failover rule Implicit_wakeup"), 1);
    n.set("tcp.dns", "down");
    assert_eq!(n.state(), "WAIT NotReady");
    assert_eq!(n.said("Action wait from failover rule t_dns"), 2);
    assert_eq!(n.said("stop_prim"), 1, "the forced scripts come at a stop only");
    n.set("tcp.dns", "up");
    assert_eq!(n.state(), "ALONE Ready");
    assert_eq!(n.persisted.loop_count, 1, "only the wait that stopped something is counted");
}

#[test]
fn c14_a_checker_that_never_reports_keeps_the_start_waiting_and_only_if_a_wait_rule_needs_it() {
    let rule = "c_x: if (custom.x == down) then wait();";
    let mut n = Node::new(supervision(rule, &[("custom.x", "pre")]));
    n.start();
    n.pass(3_600_000);
    assert_eq!(n.state(), "WAIT Transient");
    assert_eq!(n.said("Waiting for the first report of custom.x"), 1);
    let mut n = Node::new(supervision("c_x: if (custom.x == down) then restart();", &[("custom.x", "pre")]));
    n.start();
    assert_eq!(n.state(), "ALONE Ready");
    // A wait rule about what runs only beside the application is not waited for.
    let mut n = Node::new(supervision(rule, &[("custom.x", "prim")]));
    n.start();
    assert_eq!(n.state(), "ALONE Ready");
    // What no checker sets may come from a script.
    let mut n = Node::new(supervision(rule, &[]));
    n.start();
    assert_eq!(n.state(), "WAIT Transient");
    n.set("custom.x", "up");
    assert_eq!(n.state(), "ALONE Ready");
}

#[test]
fn c13_switched_off_checkers_change_nothing() {
    let rules = "t_web: if (tcp.web == down) then restart(); c_x: if (custom.x == down) then wait();";
    let mut n = Node::new(supervision(rules, &[("tcp.web", "prim"), ("custom.x", "pre")]));
    n.feed(Event::SetCheckers { on: false, origin: "root".into() });
    n.start();
    assert_eq!(n.state(), "ALONE Ready", "nothing is waited for");
    for name in ["tcp.web", "custom.x", "intf.10.0.0.0", "ip.10.0.0.5"] {
        n.set(name, "down");
        assert_eq!(n.state(), "ALONE Ready", "{name}");
    }
    assert!(n.persisted.checkers_off);
    n.command(Verb::StopStart);
    n.feed(Event::PeerDown);
    assert_eq!(n.state(), "ALONE Ready");
    n.set("intf.10.0.0.0", "down");
    n.feed(Event::SetCheckers { on: true, origin: "root".into() });
    assert_eq!(n.state(), "WAIT NotReady", "what is looked at all the time is known at once");
    assert_eq!(n.resources["intf.10.0.0.0"], "down");
}

#[test]
fn the_last_words_of_a_stopped_checker_are_not_heard() {
    let mut n = Node::new(supervision("t_web: if (tcp.web == down) then restart();", &[("tcp.web", "prim")]));
    n.start();
    n.answers = false;
    n.command(Verb::Restart);
    n.set("tcp.web", "down");
    n.answers = true;
    let open: Vec<u64> = n.open.drain(..).collect();
    for id in open {
        n.feed(Event::ScriptDone { id, exit: Some(0) });
    }
    assert_eq!(n.state(), "ALONE Ready");
    assert_eq!(n.said("Action restart from failover rule t_web"), 0);
}

#[test]
fn a_rule_that_its_action_does_not_mend_acts_again_after_the_period() {
    let mut n = Node::new(supervision("c: if (custom.x == down) then restart();", &[]));
    n.start();
    n.set("custom.x", "down");
    assert_eq!(n.said("Action restart from failover rule c"), 1);
    n.pass(4_999);
    assert_eq!(n.said("Action restart from failover rule c"), 1);
    n.pass(1);
    assert_eq!(n.said("Action restart from failover rule c"), 2);
    n.pass(3_600_000);
    assert_eq!(n.state(), "STOP NotReady", "maxloop ends it");
    assert_eq!(n.said("Action restart from failover rule c"), 4);
}

#[test]
fn handle_time_is_waited_for_when_the_file_sets_it() {
    let mut with = supervision("c: if (custom.x == down) then restart();", &[]);
    with.rules.handle_ms = 15_000;
    let mut n = Node::new(with);
    n.start();
    n.set("custom.x", "down");
    n.pass(14_999);
    assert_eq!(n.said("start_prim"), 1);
    n.set("custom.x", "up");
    n.pass(20_000);
    n.set("custom.x", "down");
    n.pass(15_000);
    assert_eq!(n.said("start_prim"), 2);
}

#[test]
fn the_rule_with_the_highest_priority_acts() {
    let text = "r: if (custom.x == down) then restart(); s: if (custom.x == down) then stopstart(); w: if (custom.x == down) then wait();";
    let mut n = Node::new(supervision(text, &[]));
    n.set("custom.x", "up");
    n.start();
    n.set("custom.x", "down");
    assert_eq!(n.said("Action wait from failover rule w"), 1);
    assert_eq!(n.said("Action restart from failover rule r") + n.said("Action stopstart from failover rule s"), 0);
    let mut n = Node::new(supervision(&format!("{text} e: if (custom.x == down) then stop();"), &[]));
    n.set("custom.x", "up");
    n.start();
    n.set("custom.x", "down");
    assert_eq!(n.state(), "STOP NotReady");
    assert_eq!(n.said("Action stop from failover rule e"), 1);
    assert_eq!(n.persisted.loop_count, 0);
    assert!(!n.persisted.wanted);
}

#[test]
fn an_assignment_is_made_once_and_two_that_oppose_each_other_do_not_spin() {
    let text = "a: if (custom.x == up) then custom.y = down; b: if (custom.y == down) then custom.z = up;\
         c: if (custom.p == up) then custom.p = down; d: if (custom.p == down) then custom.p = up;";
    let mut n = Node::new(supervision(text, &[]));
    n.start();
    n.set("custom.x", "up");
    assert_eq!(n.resources["custom.y"], "down");
    assert_eq!(n.resources["custom.z"], "up");
    n.set("custom.p", "up");
    n.pass(20_000);
    let flips = n.log.iter().filter(|l| l.contains("Resource custom.p set")).count();
    assert!((2..=12).contains(&flips), "{flips}");
}

#[test]
fn a_rule_hears_the_peer_and_knows_when_it_does_not() {
    let text = "r: if (remote.tcp.web == down && tcp.web == up) then custom.seen = down;\
         u: if (remote.tcp.web == unknown) then custom.silent = up;";
    let same = supervision(text, &[("tcp.web", "both")]);
    let mut peer = Node::new(same.clone());
    peer.start();
    let mut n = Node::new(same);
    n.start();
    assert_eq!(n.resources["custom.silent"], "up");
    assert!(!n.resources.contains_key("custom.seen"));
    n.set("tcp.web", "up");
    peer.set("tcp.web", "down");
    n.feed(Event::PeerState { state: peer.core.published(), bye: false });
    assert_eq!(n.resources["custom.seen"], "down");
    let rules = n.core.rules();
    let rule = |label: &str| rules.iter().find(|r| r.label == label).unwrap();
    assert_eq!(rule("r").truth, Some(true));
    assert_eq!(rule("u").truth, Some(false));
    assert_eq!(rule("module_failure").truth, Some(false));
    assert_eq!(rule("rfs_notuptodate_server").origin, None);
}

#[test]
fn what_is_published_fits_a_heartbeat() {
    let names: Vec<String> = (0..64).map(|i| format!("custom.a_rather_long_name_of_a_checker_{i}")).collect();
    let checkers: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "pre")).collect();
    let n = Node::new(supervision("r: if (remote.custom.? == down) then stop();", &checkers));
    let mut state = n.core.published();
    assert_eq!(state.resources.as_ref().map(String::len), Some(9 + 64));
    // Everything else at its longest.
    state.lineage = lineage::Lineage(
        (0..8).map(|i| lineage::Epoch { id: lineage::EpochId(u128::MAX - i), start: u64::MAX }).collect(),
    );
    (state.incarnation, state.position, state.partner) = (u64::MAX >> 11, u64::MAX, u64::MAX >> 11);
    state.standing = lineage::Standing::Inconsistent;
    (state.was_primary, state.alone_from_prim, state.leaving, state.handover) = (true, true, true, true);
    (state.swap_order, state.swap_refused) = (u64::MAX >> 11, u64::MAX >> 11);
    (state.swap_wanted, state.outdate_wanted, state.outdate_done, state.degraded) = (true, true, true, true);
    let length = serde_json::to_string(&state).unwrap().len();
    assert!(length <= 1100, "{length} bytes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is reported and whenever: the core comes to rest, its deadlines lie ahead, and a core read back from JSON goes on alike.
    #[test]
    fn any_reports(steps in prop::collection::vec((0..8_usize, 0..4_usize, 0..8_000_u64, 0..12_u8), 0..60)) {
        let text = "t_a: if (tcp.a == down) then restart(); c_b: if (custom.b == down) then wait(); s: if (custom.c == down) then stop();\
            ss: if (custom.d != up && !(tcp.a == up)) then stopstart(); y: if (custom.c == up) then custom.d = up;\
            z: if (remote.custom.b == down || cluster() == down) then swap();";
        let mut n = Node::new(supervision(text, &[("tcp.a", "prim"), ("custom.b", "pre")]));
        n.start();
        for (name, value, wait, other) in steps {
            match other {
                0 => n.start(),
                1 => n.feed(Event::SetCheckers { on: wait % 2 == 0, origin: "root".into() }),
                2 => n.feed(Event::ResetLoop),
                3 => n.command(Verb::Stop),
                _ => {
                    let names = ["tcp.a", "custom.b", "custom.c", "custom.d", "intf.n", "ip.v", "module.m", "ping.p"];
                    n.set(names[name], ["up", "down", "init", "strange"][value]);
                }
            }
            n.pass(wait);
            if let Some((at, _)) = n.core.poll_timeout() {
                prop_assert!(at > n.now);
            }
            let again: Core = serde_json::from_str(&serde_json::to_string(&n.core).unwrap()).unwrap();
            prop_assert_eq!(&again, &n.core);
            if n.core.state().name == StateName::Stop && !n.core.is_busy() {
                prop_assert!(n.core.rules().iter().all(|r| !r.acting));
            }
        }
    }
}
