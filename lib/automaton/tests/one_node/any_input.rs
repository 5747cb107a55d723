//! Is any input survived, and an unknown one understood?

use crate::driver::{lineage, settings};
use automaton::{
    Action, Core, Event, Evidence, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer, ReplicaReport,
    ReplicaRole, Settings, State, StateName, Verb,
};
use lineage::Standing;
use proptest::prelude::*;

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
                    swap_order: u64::from(f[5]), swap_refused: u64::from(f[6]),
                    outdate_wanted: f[5], outdate_done: f[6], partner: u64::from(f[6]) * u64::MAX, store_revision: 0, lease_stamp: 0, lease_echo: 0, lease_to: 0, degraded: f[0] && f[1] && f[2],
                    full_wanted: f[1] && f[3],
                    resources: None,
                },
                bye: f[3] && f[4] && f[5],
            }
        }),
        4 => (role, standing(), epochs(), stream).prop_map(|(role, standing, epochs, peer)| Event::Replica {
            report: ReplicaReport { role, standing, lineage: lineage(&epochs), peer, frozen: false, position: 5 }
        }),
        1 => Just(Event::PeerDown),
        1 => Just(Event::PeerUp),
        1 => Just(Event::PeerGone { evidence: Evidence::RunnerDead }),
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
            let mut twin: Core = serde_json::from_str(&serde_json::to_string(&core).unwrap()).unwrap();
            prop_assert_eq!(&twin, &core);
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

#[test]
fn evidence_of_an_unknown_kind_is_still_evidence() {
    for (text, expected) in [
        (r#"{"event":"peer_gone","evidence":"runner_dead"}"#, Evidence::RunnerDead),
        (r#"{"event":"peer_gone","evidence":"port_unreachable"}"#, Evidence::PortUnreachable),
        (r#"{"event":"peer_gone","evidence":"of_the_future"}"#, Evidence::Unknown),
        (r#"{"event":"peer_gone"}"#, Evidence::Unknown),
    ] {
        assert_eq!(serde_json::from_str::<Event>(text).unwrap(), Event::PeerGone { evidence: expected });
    }
}
