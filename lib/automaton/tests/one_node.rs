//! Does one core do the right thing, in the right order, when steps fail, hang or are interrupted?

use automaton::{
    Action, Core, DefaultPrimary, Event, PeerMode, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer,
    ReplicaReport, ReplicaRole, Settings, State, StateName, Verb,
};
use lineage::{Epoch, EpochId, Lineage, Standing};
use proptest::prelude::*;

fn settings() -> Settings {
    Settings {
        node: "node1".into(),
        peer: "node2".into(),
        replicated: true,
        has_vip: true,
        has_scripts: true,
        failover: true,
        default_primary: DefaultPrimary::Alone,
        max_loop: 3,
        loop_interval_ms: 86_400_000,
        automatic_reboot: false,
        nice_stop_timeout_ms: 300_000,
        force_stop_timeout_ms: 200_000,
        heartbeat_timeout_ms: 2_000,
        stream_grace_ms: 3_000,
    }
}

fn lineage(epochs: &[u128]) -> Lineage {
    Lineage(epochs.iter().map(|id| Epoch { id: EpochId(*id), start: 0 }).collect())
}

/// Drives a core and answers what it asks for, except what is held back.
struct Runner {
    core: Core,
    now: u64,
    /// Name of a script, or `primary`, `vip`…, that is not answered.
    hold: Option<&'static str>,
    held: Option<u64>,
    /// Order that fails.
    fail: Option<&'static str>,
    done: Vec<String>,
    report: ReplicaReport,
    published: Option<Published>,
    persisted: Persisted,
}

impl Runner {
    fn new(settings: Settings, standing: Standing, epochs: &[u128]) -> Self {
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

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            for action in self.core.handle(self.now, 1_000_000 + self.now, event) {
                self.act(action, &mut events);
            }
        }
    }

    fn act(&mut self, action: Action, events: &mut Vec<Event>) {
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
            Action::ErrdClass { .. } | Action::Resource { .. } => {}
        }
    }

    fn answer(&mut self, name: &str, id: u64, events: &mut Vec<Event>, event: Event) {
        self.done.push(name.to_owned());
        if self.hold == Some(name) {
            self.held = Some(id);
        } else {
            events.push(event);
        }
    }

    fn command(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: None, origin: "root".into() });
    }

    fn errd(&mut self, verb: Verb) {
        self.feed(Event::Command { verb, full: false, identity: Some("errd".into()), origin: "errd".into() });
    }

    fn replica(&mut self, role: ReplicaRole, standing: Standing, epochs: &[u128], peer: ReplicaPeer) {
        let frozen = role == ReplicaRole::Primary && standing == Standing::Paired && peer != ReplicaPeer::InSync;
        self.report = ReplicaReport { role, standing, lineage: lineage(epochs), peer, frozen, position: 0 };
        self.feed(Event::Replica { report: self.report.clone() });
    }

    fn peer(&mut self, name: StateName, readiness: Readiness, standing: Standing, epochs: &[u128]) -> Published {
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
            outdate_wanted: false,
            outdate_done: false,
            partner: u64::from(name == StateName::Prim),
            degraded: false,
        };
        self.feed(Event::PeerState { state: state.clone(), bye: false });
        state
    }

    fn prim() -> Self {
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

    fn second() -> Self {
        let mut r = Self::new(settings(), Standing::Paired, &[1]);
        r.command(Verb::Start);
        r.peer(StateName::Prim, Readiness::Ready, Standing::Paired, &[1]);
        r.replica(ReplicaRole::Secondary, Standing::Paired, &[1], ReplicaPeer::InSync);
        assert_eq!(r.state(), "SECOND Ready");
        r.done.clear();
        r
    }

    fn state(&self) -> String {
        self.core.state().to_string()
    }

    fn at(&self, line: &str) -> usize {
        self.done.iter().position(|l| l == line).unwrap_or_else(|| panic!("no {line} in {:#?}", self.done))
    }

    fn script_ends(&mut self, exit: Option<i32>) {
        self.hold = None;
        let Some(id) = self.held.take() else { panic!("nothing is held back") };
        self.feed(Event::ScriptDone { id, exit });
    }
}

#[test]
fn nothing_is_published_before_prestart_ended_and_the_replica_is_known() {
    let mut r = Runner::new(settings(), Standing::Paired, &[1]);
    r.hold = Some("prestart");
    r.command(Verb::Start);
    assert_eq!(r.published, None);
    r.script_ends(Some(0));
    assert_eq!(r.published.map(|p| p.standing), Some(Standing::Paired));
}

#[test]
fn the_address_and_the_directories_are_there_before_the_application() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.command(Verb::Start);
    assert_eq!(r.state(), "WAIT Transient");
    r.feed(Event::PeerDown);
    assert!(r.at("primary") < r.at("vip") && r.at("vip") < r.at("start_prim"));
    assert!(r.persisted.wanted && r.persisted.was_primary);
}

#[test]
fn writers_are_freed_while_a_script_runs() {
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.command(Verb::Restart);
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    r.feed(Event::PeerDown);
    // The stop script may be waiting for its own writes.
    assert!(r.at("exclude") > r.at("stop_prim"));
    assert_eq!(r.state(), "PRIM Transient");
    r.replica(ReplicaRole::Primary, Standing::Alone, &[2, 1], ReplicaPeer::Absent);
    r.script_ends(Some(0));
    assert_eq!(r.state(), "ALONE Ready");
    assert_eq!(r.done.iter().filter(|l| *l == "exclude").count(), 1);
}

#[test]
fn a_stop_script_that_hangs_is_forced_before_the_address_goes() {
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.command(Verb::Stop);
    r.script_ends(None);
    assert!(r.at("Script stop_prim did not end in time and was killed") < r.at("stop_prim!"));
    assert!(r.at("stop_prim!") < r.at("no vip") && r.at("no vip") < r.at("retire"));
    assert_eq!(r.state(), "STOP NotReady");
}

#[test]
fn forcestop_leaves_the_plain_stop_scripts_out() {
    let mut r = Runner::prim();
    r.command(Verb::ForceStop);
    assert_eq!(r.state(), "STOP NotReady");
    assert!(!r.done.contains(&"stop_prim".to_owned()));
    assert!(r.at("stop_prim!") < r.at("retire"));
    // While a plain stop hangs.
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.command(Verb::Stop);
    r.command(Verb::ForceStop);
    r.script_ends(None);
    assert!(!r.done.contains(&"stop_both".to_owned()));
    assert_eq!(r.state(), "STOP NotReady");
}

#[test]
fn a_stop_during_the_start_takes_effect_after_the_running_script() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.hold = Some("start_both");
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    r.command(Verb::Stop);
    assert_eq!(r.state(), "ALONE Transient");
    r.script_ends(Some(0));
    assert_eq!(r.state(), "STOP NotReady");
    assert!(!r.done.contains(&"start_prim".to_owned()));
    assert!(r.at("no vip") < r.at("retire"));
    assert!(!r.persisted.wanted);
}

#[test]
fn the_exit_code_of_a_start_script_drives_nothing() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.hold = Some("start_prim");
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    r.script_ends(Some(7));
    assert_eq!(r.state(), "ALONE Ready");
}

#[test]
fn an_overtaken_primary_never_goes_on_alone_and_frees_its_application() {
    // Frozen for longer than the timeout: the secondary took over, could not hold the address, and waits.
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    r.peer(StateName::Wait, Readiness::Transient, Standing::Alone, &[2, 1]);
    assert!(r.at("stop_prim") < r.at("abandon"));
    r.feed(Event::PeerDown);
    assert!(!r.done.contains(&"exclude".to_owned()), "an epoch of its own would make two histories: {:?}", r.done);
    assert_eq!(r.done.iter().filter(|l| *l == "abandon").count(), 1);
    r.script_ends(Some(0));
    assert!(r.at("abandon") < r.at("retire"));
}

#[test]
fn a_stopping_primary_whose_peer_serves_frees_its_application() {
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    r.peer(StateName::Alone, Readiness::Ready, Standing::Alone, &[2, 1]);
    assert!(r.at("stop_prim") < r.at("abandon"));
    assert!(!r.done.contains(&"exclude".to_owned()));
}

#[test]
fn a_lost_stream_waits_asks_and_only_then_excludes() {
    let mut r = Runner::prim();
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    assert_eq!(r.core.poll_timeout(), Some((4_000, "lost replication stream")));
    r.now = 4_000;
    r.feed(Event::Tick);
    assert!(r.published.as_ref().is_some_and(|p| p.outdate_wanted));
    assert!(!r.done.contains(&"exclude".to_owned()));
    let mut answer = r.peer(StateName::Second, Readiness::Transient, Standing::Outdated, &[1]);
    assert!(!r.done.contains(&"exclude".to_owned()), "a standing is no answer");
    answer.outdate_done = true;
    r.feed(Event::PeerState { state: answer, bye: false });
    assert_eq!(r.state(), "ALONE Ready");
    assert!(r.at("exclude") < r.at("start_sec"));
    assert!(r.published.as_ref().is_some_and(|p| !p.outdate_wanted));
}

#[test]
fn a_stream_that_comes_back_cancels_the_question() {
    let mut r = Runner::prim();
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    r.now = 4_000;
    r.feed(Event::Tick);
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::InSync);
    assert!(r.published.as_ref().is_some_and(|p| !p.outdate_wanted));
    assert_eq!(r.core.poll_timeout(), None);
    assert_eq!(r.state(), "PRIM Ready");
}

#[test]
fn a_secondary_asked_to_outdate_itself_answers_after_it_is_durable_and_does_not_take_over() {
    let mut r = Runner::second();
    r.hold = Some("outdate");
    let mut prim = r.peer(StateName::Prim, Readiness::Ready, Standing::Paired, &[1]);
    prim.outdate_wanted = true;
    r.replica(ReplicaRole::Secondary, Standing::Paired, &[1], ReplicaPeer::Lost);
    r.feed(Event::PeerState { state: prim.clone(), bye: false });
    assert!(r.done.contains(&"outdate".to_owned()));
    assert!(r.published.as_ref().is_some_and(|p| !p.outdate_done));
    r.hold = None;
    let id = r.held.take().unwrap();
    r.feed(Event::ReplicaDone { id });
    assert!(r.published.as_ref().is_some_and(|p| p.outdate_done && p.standing == Standing::Outdated));
    r.feed(Event::PeerDown);
    assert_eq!(r.state(), "WAIT NotReady");
    assert!(!r.done.contains(&"promote".to_owned()));
}

#[test]
fn a_secondary_that_never_was_in_sync_does_not_take_over() {
    let mut r = Runner::new(settings(), Standing::Paired, &[1]);
    r.command(Verb::Start);
    r.peer(StateName::Prim, Readiness::Ready, Standing::Paired, &[1]);
    assert_eq!(r.state(), "SECOND Transient");
    // The primary may have gone on alone before this node was back.
    r.feed(Event::PeerDown);
    assert_eq!(r.state(), "WAIT NotReady");
    assert_eq!(r.core.rule(), Some("rfs_notuptodate_server"));
    assert_eq!(r.core.data_state(), "not uptodate");
}

#[test]
fn a_takeover_is_given_up_when_the_primary_is_back_before_it() {
    let mut r = Runner::second();
    r.hold = Some("stop_second");
    r.feed(Event::PeerDown);
    r.peer(StateName::Prim, Readiness::Ready, Standing::Paired, &[1]);
    r.script_ends(Some(0));
    assert!(!r.done.contains(&"promote".to_owned()));
    assert!(r.at("start_second") > r.at("Takeover given up: the primary is back"));
    assert_eq!(r.state(), "SECOND Ready");
}

#[test]
fn directories_that_cannot_be_served_stop_the_module() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.fail = Some("primary");
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    assert_eq!(r.state(), "STOP NotReady");
    r.at("Replication failed: busy");
    assert!(!r.persisted.wanted, "a new runner must not try again for ever");
    assert!(!r.done.contains(&"start_prim".to_owned()));
}

#[test]
fn directories_that_stay_busy_are_released_by_ending_the_engine() {
    let mut r = Runner::prim();
    r.fail = Some("retire");
    r.command(Verb::Stop);
    assert_eq!(r.state(), "STOP NotReady");
    assert_eq!(r.done.iter().filter(|l| *l == "retire").count(), 2);
    assert!(r.at("stop_prim!") < r.at("engine ended"));
    // The peer must not hear that we left before.
    assert!(r.at("engine ended") < r.at("WAIT Transient"));
}

#[test]
fn a_swap_that_cannot_drain_is_taken_back() {
    let mut r = Runner::prim();
    r.fail = Some("demote");
    r.command(Verb::Swap);
    assert_eq!(r.state(), "PRIM Ready");
    // The engine may have unmounted before it failed: it serves again before the application starts, or the module stops.
    assert!(r.at("Swap given up: this node stays primary") < r.at("primary"));
    assert!(r.at("primary") < r.at("vip"));
    assert!(r.at("vip") < r.at("start_prim"));
}

#[test]
fn a_swap_that_is_done_is_not_waited_for() {
    let mut r = Runner::second();
    r.command(Verb::Swap);
    assert_eq!(r.core.poll_timeout().map(|(_, why)| why), Some("answer to the swap"));
    let mut peer = r.peer(StateName::Prim, Readiness::Transient, Standing::Paired, &[1]);
    (peer.state, peer.handover) = (State::new(StateName::Second, Readiness::Transient), true);
    r.feed(Event::PeerState { state: peer, bye: false });
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::InSync);
    assert_eq!((r.state().as_str(), r.core.poll_timeout()), ("PRIM Ready", None));
}

#[test]
fn the_third_automatic_action_is_the_last_inside_the_interval() {
    let mut r = Runner::prim();
    for _ in 0..3 {
        r.errd(Verb::Restart);
        assert_eq!(r.state(), "PRIM Ready");
    }
    assert!(r.core.loop_reached());
    r.now += 86_400_001;
    r.feed(Event::Tick);
    r.errd(Verb::Restart);
    assert_eq!((r.state().as_str(), r.persisted.loop_count), ("PRIM Ready", 1));
    r.errd(Verb::Restart);
    r.errd(Verb::Restart);
    r.command(Verb::Restart);
    assert_eq!(r.persisted.loop_count, 0, "a command of the operator resets the counter");
    for _ in 0..4 {
        r.errd(Verb::Restart);
    }
    assert_eq!(r.state(), "STOP NotReady");
    r.at("Action stop called by maxloop");
}

#[test]
fn without_an_interval_nothing_is_counted() {
    let mut r = Runner::prim();
    r.core = Core::new(Settings { loop_interval_ms: 0, ..settings() }, Persisted::default(), 1);
    r.report.standing = Standing::Alone;
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    for _ in 0..9 {
        r.errd(Verb::Restart);
    }
    assert_eq!(r.state(), "ALONE Ready");
}

#[test]
fn automatic_stopstart_may_reboot() {
    let mut r = Runner::prim();
    r.core = Core::new(Settings { automatic_reboot: true, ..settings() }, Persisted::default(), 1);
    r.report.standing = Standing::Alone;
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    r.errd(Verb::StopStart);
    assert_eq!(r.state(), "STOP NotReady");
    r.at("reboot");
    assert!(r.persisted.wanted);
}

#[test]
fn a_new_runner_starts_what_was_wanted() {
    let wanted = Persisted { wanted: true, ..Persisted::default() };
    for (boot, persisted, line) in [
        (true, Persisted::default(), "Action start called at boot time"),
        (false, wanted, "Action start called automatically"),
    ] {
        let mut r = Runner::new(settings(), Standing::Alone, &[1]);
        r.core = Core::new(settings(), persisted, 2);
        r.feed(Event::Begin { boot });
        r.at(line);
        assert_eq!(r.state(), "WAIT Transient");
    }
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.feed(Event::Begin { boot: false });
    assert_eq!(r.state(), "STOP NotReady");
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut r = Runner::prim();
    r.command(Verb::Prim);
    r.at("refused: the module is not stopped, it is PRIM Ready");
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.command(Verb::Restart);
    r.at("refused: the module is STOP NotReady");
    let mut r = Runner::second();
    r.peer(StateName::Alone, Readiness::Ready, Standing::Paired, &[1]);
    r.command(Verb::Swap);
    r.at("refused: no swap from SECOND Ready while the other node is ALONE Ready");
}

fn any_event() -> impl Strategy<Value = Event> {
    let verb = prop_oneof![
        Just(Verb::Start),
        Just(Verb::Prim),
        Just(Verb::PrimForce),
        Just(Verb::Second),
        Just(Verb::Stop),
        Just(Verb::ForceStop),
        Just(Verb::Restart),
        Just(Verb::StopStart),
        Just(Verb::Wait),
        Just(Verb::Swap),
        Just(Verb::Shutdown)
    ];
    let standing = || {
        prop_oneof![
            Just(Standing::Blank),
            Just(Standing::Inconsistent),
            Just(Standing::Outdated),
            Just(Standing::Paired),
            Just(Standing::Alone)
        ]
    };
    let epochs =
        || prop_oneof![Just(vec![]), Just(vec![1]), Just(vec![2, 1]), Just(vec![3, 1]), Just((1..17).collect())];
    let stream = prop_oneof![
        Just(ReplicaPeer::Absent),
        Just(ReplicaPeer::Syncing),
        Just(ReplicaPeer::InSync),
        Just(ReplicaPeer::Lost),
        Just(ReplicaPeer::Left)
    ];
    let role = prop_oneof![Just(ReplicaRole::Idle), Just(ReplicaRole::Primary), Just(ReplicaRole::Secondary)];
    let name = prop_oneof![
        Just(StateName::Stop),
        Just(StateName::Wait),
        Just(StateName::Alone),
        Just(StateName::Prim),
        Just(StateName::Second)
    ];
    let ready = prop_oneof![Just(Readiness::NotReady), Just(Readiness::Transient), Just(Readiness::Ready)];
    prop_oneof![
        3 => (verb, any::<bool>(), any::<bool>()).prop_map(|(verb, full, auto)| Event::Command {
            verb, full, identity: auto.then(|| "errd".to_owned()), origin: "root".into()
        }),
        4 => (name, ready, standing(), epochs(), any::<[bool; 7]>()).prop_map(|(name, readiness, standing, epochs, f)| {
            Event::PeerState {
                state: Published {
                    state: State::new(name, readiness), incarnation: 9, standing, lineage: lineage(&epochs), position: 3,
                    was_primary: f[0], alone_from_prim: f[1], leaving: f[2], handover: f[3], swap_wanted: f[4],
                    outdate_wanted: f[5], outdate_done: f[6], partner: u64::from(f[6]) * u64::MAX, degraded: f[0] && f[1] && f[2],
                },
                bye: f[3] && f[4] && f[5],
            }
        }),
        4 => (role, standing(), epochs(), stream).prop_map(|(role, standing, epochs, peer)| Event::Replica {
            report: ReplicaReport { role, standing, lineage: lineage(&epochs), peer, frozen: false, position: 5 }
        }),
        1 => Just(Event::PeerDown),
        1 => Just(Event::PeerUp),
        2 => (0..40_u64, prop::option::of(0..2)).prop_map(|(id, exit)| Event::ScriptDone { id, exit }),
        2 => (0..40_u64).prop_map(|id| Event::ReplicaDone { id }),
        1 => (0..40_u64).prop_map(|id| Event::ReplicaFailed { id, reason: "r".into() }),
        1 => Just(Event::ReplicaFault { reason: "r".into() }),
        1 => (0..40_u64).prop_map(|id| Event::VipFailed { id, reason: "r".into() }),
        1 => any::<bool>().prop_map(|up| Event::Resource {
            name: "intf.1".into(), value: if up { "up" } else { "down" }.into(), origin: "x".into()
        }),
        1 => any::<bool>().prop_map(|on| Event::SetFailover { on, origin: "root".into() }),
        2 => Just(Event::Tick),
    ]
}

/// What the engine last said or did about its standing.
fn standing_after(event: &Event, before: Standing) -> Standing {
    match event {
        Event::Replica { report } => report.standing,
        _ => before,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Whatever arrives, in whatever order: no panic, no takeover of a replica that is not paired, every payload fits, and a
    /// journal read back decides the same.
    #[test]
    fn any_input_is_survived(
        events in prop::collection::vec((any_event(), any::<bool>()), 1..120),
        replicated in prop::bool::weighted(0.8),
    ) {
        let mut core = Core::new(Settings { replicated, ..settings() }, Persisted::default(), 1);
        let mut standing = Standing::Blank;
        let mut open: Vec<Event> = vec![];
        for (step, (mut event, answer)) in events.into_iter().enumerate() {
            // Mostly the steps are answered, so that deep states are reached.
            if answer && !open.is_empty() {
                event = open.remove(0);
            }
            standing = standing_after(&event, standing);
            let line = serde_json::to_string(&event).unwrap();
            let mut twin = core.clone();
            let actions = core.handle(step as u64 * 500, 1_000, event);
            prop_assert_eq!(&twin.handle(step as u64 * 500, 1_000, serde_json::from_str(&line).unwrap()), &actions);
            prop_assert_eq!(&twin, &core);
            prop_assert!(core.poll_timeout().is_none_or(|(at, _)| at > step as u64 * 500), "time passes in between");
            for action in actions {
                let text = serde_json::to_string(&action).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Action>(&text).unwrap(), &action);
                match action {
                    Action::Publish { state } => prop_assert!(serde_json::to_string(&state).unwrap().len() <= 1100),
                    Action::Script { id, .. } => open.push(Event::ScriptDone { id, exit: Some(0) }),
                    Action::Vip { id, .. } => open.push(Event::VipDone { id }),
                    Action::Bye => open.push(Event::ByeDone),
                    Action::Replicate { id, order } => {
                        prop_assert!(replicated);
                        if let ReplicaOrder::Promote { .. } = order {
                            prop_assert!(matches!(standing, Standing::Paired | Standing::Outdated | Standing::Alone));
                        }
                        open.push(Event::ReplicaDone { id });
                    }
                    _ => {}
                }
            }
        }
    }
}
