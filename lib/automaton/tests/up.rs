//! Does the core of a farm or light module do the right thing, in the right order, without any peer?

use automaton::{
    Action, Core, DefaultPrimary, Event, Mode, Persisted, Readiness, Settings, State, StateName, Traffic, Verb,
};
use proptest::prelude::*;

fn settings(mode: Mode) -> Settings {
    Settings {
        mode,
        node: "node1".into(),
        peer: String::new(),
        replicated: false,
        has_vip: mode == Mode::Farm,
        script_control: false,
        has_scripts: true,
        failover: true,
        default_primary: DefaultPrimary::Alone,
        max_loop: 3,
        loop_interval_ms: 86_400_000,
        automatic_reboot: false,
        nice_stop_timeout_ms: 300_000,
        force_stop_timeout_ms: 200_000,
        heartbeat_timeout_ms: 0,
        stream_grace_ms: 0,
        ..Settings::default()
    }
}

/// Answers what the core asks for, except what is held back or fails.
struct Runner {
    core: Core,
    now: u64,
    hold: Option<&'static str>,
    held: Option<u64>,
    fail: Option<&'static str>,
    done: Vec<String>,
    logged: Vec<String>,
    refused: Vec<String>,
}

impl Runner {
    fn new(settings: Settings, persisted: Persisted) -> Self {
        let core = Core::new(settings, persisted, 1);
        let empty = Vec::new;
        Self { core, now: 1_000, hold: None, held: None, fail: None, done: empty(), logged: empty(), refused: empty() }
    }

    fn started(mode: Mode) -> Self {
        let mut r = Self::new(settings(mode), Persisted::default());
        r.feed(Event::Begin { boot: false });
        r.command(Verb::Start);
        assert_eq!(r.state(), "UP Ready");
        r.done.clear();
        r.logged.clear();
        r
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            for action in self.core.handle(self.now, 1_000_000 + self.now, events.remove(0)) {
                self.act(action, &mut events);
            }
        }
    }

    fn act(&mut self, action: Action, events: &mut Vec<Event>) {
        match action {
            Action::Script { id, name, args, .. } => {
                let force = args.first().is_some_and(|a| a == "force");
                self.finish(
                    &if force { format!("{name}!") } else { name },
                    id,
                    events,
                    Event::ScriptDone { id, exit: Some(0) },
                );
            }
            Action::Vip { id, held } => {
                let name = if held { "+vip" } else { "-vip" };
                if held && self.fail == Some("vip") {
                    return events.push(Event::VipFailed { id, reason: "taken".into() });
                }
                self.finish(name, id, events, Event::VipDone { id });
            }
            Action::Farm { id, traffic } => {
                if self.fail == Some(traffic.as_str()) {
                    return events.push(Event::FarmFailed { id, reason: "no filter".into() });
                }
                self.finish(traffic.as_str(), id, events, Event::FarmDone { id });
            }
            Action::StateChanged { state, .. } => self.done.push(state.to_string()),
            Action::Log { message, .. } => self.logged.push(message),
            Action::Refuse { error, .. } => self.refused.push(error),
            Action::Children { heartbeat, replicate, .. } => assert!(!heartbeat && !replicate, "nobody to speak to"),
            Action::Reboot => self.done.push("reboot".into()),
            Action::Publish { .. }
            | Action::Bye
            | Action::Replicate { .. }
            | Action::Arbitrate { .. }
            | Action::Lease { .. } => panic!("{action:?} without a peer"),
            Action::ErrdClass { .. } | Action::Persist { .. } | Action::Resource { .. } => {}
        }
    }

    fn finish(&mut self, name: &str, id: u64, events: &mut Vec<Event>, answer: Event) {
        self.done.push(name.to_owned());
        if self.hold == Some(name) {
            self.held = Some(id);
        } else {
            events.push(answer);
        }
    }

    fn command(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: None, origin: "root".into() });
    }

    fn automatic(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: Some("errd".into()), origin: "errd".into() });
    }

    fn resource(&mut self, name: &str, value: &str) {
        self.feed(Event::Resource { name: name.into(), value: value.into(), origin: "test".into() });
    }

    fn state(&self) -> String {
        self.core.state().to_string()
    }

    fn has_logged(&self, words: &str) -> bool {
        self.logged.iter().any(|l| l == words)
    }
}

#[test]
fn a_start_and_a_stop_are_as_documented() {
    let mut r = Runner::new(settings(Mode::Farm), Persisted::default());
    r.feed(Event::Begin { boot: false });
    assert_eq!(r.state(), "STOP NotReady");
    r.command(Verb::Start);
    assert!(r.core.persisted().wanted && !r.core.persisted().was_primary);
    let expected = [
        "STOP NotReady",
        "WAIT Transient",
        "transition",
        "prestart",
        "UP Transient",
        "+vip",
        "transition",
        "standby",
        "start_both",
        "open",
        "UP Ready",
    ];
    assert_eq!(r.done, expected);
    r.done.clear();
    r.command(Verb::Stop);
    let expected = [
        "UP Transient",
        "standby",
        "stop_both",
        "-vip",
        "transition",
        "WAIT Transient",
        "stop_both!",
        "poststop",
        "transition",
        "STOP NotReady",
    ];
    assert_eq!(r.done, expected);
    assert!(!r.core.persisted().wanted);
}

#[test]
fn a_light_module_runs_its_scripts_only() {
    let mut r = Runner::started(Mode::Light);
    r.command(Verb::Restart);
    assert_eq!(r.done, ["UP Transient", "stop_both", "stop_both!", "start_both", "UP Ready"]);
    r.done.clear();
    r.command(Verb::StopStart);
    assert_eq!(r.state(), "UP Ready");
    assert!(r.has_logged("Action start called automatically"));
    assert!(!r.done.iter().any(|d| d.contains("vip") || d == "open"));
}

#[test]
fn roles_are_refused() {
    for verb in [Verb::Prim, Verb::PrimForce, Verb::Second, Verb::Swap] {
        let mut r = Runner::new(settings(Mode::Farm), Persisted::default());
        r.feed(Event::Begin { boot: false });
        r.command(verb);
        assert_eq!((r.state().as_str(), r.refused.len()), ("STOP NotReady", 1), "{verb:?}");
        let mut r = Runner::started(Mode::Farm);
        r.command(verb);
        assert_eq!((r.state().as_str(), r.refused.len()), ("UP Ready", 1), "{verb:?}");
        assert!(r.done.is_empty());
    }
}

#[test]
fn a_lost_interface_waits_and_wakes_up() {
    let mut r = Runner::started(Mode::Farm);
    r.resource("intf.10.0.0.0", "down");
    assert_eq!((r.state().as_str(), r.core.rule()), ("WAIT NotReady", Some("interface_failure")));
    assert!(r.has_logged("Action wait from failover rule interface_failure"));
    assert!(r.done.contains(&"-vip".to_owned()) && !r.done.contains(&"stop_both!".to_owned()));
    r.resource("intf.10.0.0.0", "up");
    assert_eq!(r.state(), "UP Ready");
    assert!(r.has_logged("Action wakeup from failover rule Implicit_wakeup"));
}

#[test]
fn a_lost_address_is_a_stopstart() {
    let mut r = Runner::started(Mode::Farm);
    r.resource("ip.10.0.0.50", "down");
    assert!(r.has_logged("Action stopstart from failover rule ip_failure"));
    assert!(r.done.contains(&"STOP NotReady".to_owned()));
    assert_eq!(r.state(), "UP Ready");
}

#[test]
fn automatic_actions_are_counted() {
    let mut r = Runner::started(Mode::Farm);
    for _ in 0..3 {
        r.automatic(Verb::Restart);
        assert_eq!(r.state(), "UP Ready");
    }
    r.automatic(Verb::Restart);
    assert_eq!(r.state(), "STOP NotReady");
    assert!(r.has_logged("Action stop called by maxloop"));
    assert!(!r.core.persisted().wanted);
}

#[test]
fn a_stopstart_may_reboot_the_host() {
    let mut r = Runner::new(Settings { automatic_reboot: true, ..settings(Mode::Light) }, Persisted::default());
    r.feed(Event::Begin { boot: true });
    assert_eq!(r.state(), "UP Ready");
    r.automatic(Verb::StopStart);
    assert_eq!(r.done.last().unwrap(), "reboot");
    assert!(r.core.persisted().wanted, "it starts again with the host");
}

#[test]
fn the_verb_wait_leaves_up_and_comes_back() {
    let mut r = Runner::started(Mode::Farm);
    r.automatic(Verb::Wait);
    assert!(r.done.contains(&"WAIT Transient".to_owned()));
    assert_eq!(r.state(), "UP Ready");
}

#[test]
fn a_taken_address_or_a_filter_that_fails_is_tried_again() {
    for (fail, words) in
        [("vip", "Virtual IP: taken"), ("open", "Load balancing: no filter"), ("standby", "Load balancing: no filter")]
    {
        let mut r = Runner::new(settings(Mode::Farm), Persisted::default());
        r.feed(Event::Begin { boot: false });
        r.fail = Some(fail);
        r.command(Verb::Start);
        assert_eq!((r.state().as_str(), r.core.rule()), ("WAIT NotReady", Some("ip_failure")), "{fail}");
        assert!(r.has_logged(words), "{:?}", r.logged);
        let (at, _) = r.core.poll_timeout().unwrap();
        r.fail = None;
        r.now = at;
        r.feed(Event::Tick);
        assert_eq!(r.state(), "UP Ready", "{fail}");
    }
}

#[test]
fn a_filter_that_fails_in_a_stop_does_not_stop_the_stop() {
    let mut r = Runner::started(Mode::Farm);
    r.fail = Some("standby");
    r.command(Verb::Stop);
    assert_eq!(r.state(), "STOP NotReady");
    assert!(r.done.contains(&"stop_both".to_owned()));
}

#[test]
fn a_forced_stop_waits_for_nobody() {
    let mut r = Runner::started(Mode::Farm);
    r.command(Verb::ForceStop);
    assert_eq!(r.state(), "STOP NotReady");
    assert!(!r.done.iter().any(|d| d == "standby" || d == "stop_both"), "{:?}", r.done);
    let at = |what: &str| r.done.iter().position(|d| d == what).unwrap();
    assert!(at("stop_both!") < at("-vip"));
}

#[test]
fn a_stop_in_the_middle_of_a_start_undoes_it() {
    for hold in ["+vip", "standby", "start_both", "open"] {
        let mut r = Runner::new(settings(Mode::Farm), Persisted::default());
        r.feed(Event::Begin { boot: false });
        r.hold = Some(hold);
        r.command(Verb::Start);
        let id = r.held.unwrap();
        r.hold = None;
        r.command(Verb::Stop);
        assert_ne!(r.state(), "STOP NotReady", "{hold}: a running step is awaited");
        r.feed(match hold {
            "+vip" => Event::VipDone { id },
            "start_both" => Event::ScriptDone { id, exit: Some(0) },
            _ => Event::FarmDone { id },
        });
        assert_eq!(r.state(), "STOP NotReady", "{hold}");
        assert!(r.done.contains(&"-vip".to_owned()), "{hold}: {:?}", r.done);
    }
}

#[test]
fn a_crash_of_the_runner_leads_back_to_up() {
    let mut r = Runner::new(settings(Mode::Farm), Persisted { wanted: true, ..Persisted::default() });
    r.feed(Event::Begin { boot: false });
    assert_eq!(r.state(), "UP Ready");
    assert!(r.done.contains(&"prestart".to_owned()), "what the former life left running is stopped first");
}

#[test]
fn a_journal_without_a_mode_is_one_of_a_mirror() {
    let mut value = serde_json::to_value(settings(Mode::Mirror)).unwrap();
    value.as_object_mut().unwrap().remove("mode");
    value.as_object_mut().unwrap().remove("script_control");
    let read: Settings = serde_json::from_value(value).unwrap();
    assert_eq!(read.mode, Mode::Mirror);
}

fn any_event() -> impl Strategy<Value = Event> {
    let verbs = [
        Verb::Start,
        Verb::Stop,
        Verb::Restart,
        Verb::StopStart,
        Verb::Wait,
        Verb::ForceStop,
        Verb::Shutdown,
        Verb::Prim,
        Verb::Second,
        Verb::Swap,
    ];
    let verb = proptest::sample::select(verbs.to_vec());
    let id = 0..40_u64;
    prop_oneof![
        (verb, any::<bool>()).prop_map(|(verb, automatic)| Event::Command {
            verb,
            full: false,
            identity: automatic.then(|| "errd".to_owned()),
            origin: "root".into(),
        }),
        id.clone().prop_map(|id| Event::ScriptDone { id, exit: Some(1) }),
        id.clone().prop_map(|id| Event::ScriptDone { id, exit: None }),
        id.clone().prop_map(|id| Event::FarmDone { id }),
        id.prop_map(|id| Event::FarmFailed { id, reason: "r".into() }),
        any::<bool>().prop_map(|up| Event::Resource {
            name: "intf.10.0.0.0".into(),
            value: if up { "up" } else { "down" }.into(),
            origin: "intfcheck".into(),
        }),
        Just(Event::Resource { name: "ip.10.0.0.50".into(), value: "down".into(), origin: "ipcheck".into() }),
        Just(Event::Tick),
    ]
}

proptest! {
    /// Whatever comes: traffic is asked for only while addresses are held, UP is said with the application started only, and
    /// once everything is answered and the operator stops the module, it stops.
    #[test]
    fn no_event_leads_astray(events in proptest::collection::vec(any_event(), 0..60), farm in any::<bool>(),
        refusals in proptest::collection::vec(any::<bool>(), 1..8)) {
        let mode = if farm { Mode::Farm } else { Mode::Light };
        let mut core = Core::new(settings(mode), Persisted::default(), 1);
        let mut now = 0;
        let mut refusals = refusals.into_iter().cycle();
        let mut open: Vec<Event> = Vec::new();
        let (mut held, mut started) = (false, false);
        let mut queue: Vec<Event> = vec![Event::Begin { boot: true }];
        queue.extend(events);
        for event in queue.into_iter().chain(std::iter::repeat_n(Event::Tick, 400)) {
            now += 500;
            let last = event == Event::Tick && !open.is_empty();
            let event = if last { open.remove(0) } else { event };
            for action in core.handle(now, now, event) {
                match action {
                    Action::Script { id, name, args, .. } => {
                        started = match name.as_str() {
                            "start_both" => true,
                            "stop_both" if args.first().is_some_and(|a| a == "force") => false,
                            _ => started,
                        };
                        open.push(Event::ScriptDone { id, exit: Some(0) });
                    }
                    Action::Vip { id, held: true } if refusals.next() == Some(true) => {
                        open.push(Event::VipFailed { id, reason: "r".into() });
                    }
                    Action::Vip { id, held: now_held } => {
                        held = now_held;
                        open.push(Event::VipDone { id });
                    }
                    Action::Farm { id, traffic } => {
                        prop_assert!(held, "traffic without addresses");
                        prop_assert!(traffic == Traffic::Standby || started, "open without the application");
                        open.push(Event::FarmDone { id });
                    }
                    Action::StateChanged { state, .. } => {
                        if state == State::new(StateName::Up, Readiness::Ready) {
                            prop_assert!(started);
                        }
                        if state.name == StateName::Stop {
                            prop_assert!(!held, "addresses outlive the module");
                        }
                        prop_assert!(matches!(state.name, StateName::Stop | StateName::Wait | StateName::Up));
                    }
                    Action::Publish { .. } | Action::Bye | Action::Replicate { .. } => prop_assert!(false, "a peer?"),
                    _ => {}
                }
            }
        }
        let mut stop = vec![Event::Command { verb: Verb::Stop, full: false, identity: None, origin: "root".into() }];
        for _ in 0..400 {
            let Some(event) = stop.pop().or_else(|| open.pop()) else { break };
            now += 500;
            for action in core.handle(now, now, event) {
                match action {
                    Action::Script { id, .. } => open.push(Event::ScriptDone { id, exit: Some(0) }),
                    Action::Vip { id, .. } => open.push(Event::VipDone { id }),
                    Action::Farm { id, .. } => open.push(Event::FarmDone { id }),
                    _ => {}
                }
            }
        }
        prop_assert_eq!(core.state().name, StateName::Stop);
    }
}
