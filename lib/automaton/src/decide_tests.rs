//! Tables and laws of the decisions.

use super::*;
use crate::state::{Readiness, State, test_settings};
use lineage::{Epoch, EpochId, Lineage};
use proptest::prelude::*;

fn node(name: StateName, standing: Standing, epochs: &[u128]) -> Published {
    Published {
        state: State::new(name, Readiness::Ready),
        incarnation: 1,
        standing,
        lineage: Lineage(epochs.iter().map(|id| Epoch { id: EpochId(*id), start: 0 }).collect()),
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
        partner: 0,
        store_revision: 0,
        lease_stamp: 0,
        lease_echo: 0,
        lease_to: 0,
        degraded: false,
        full_wanted: false,
        resources: None,
    }
}

const ALONE: Decision = Decision::Alone { force: true };

#[test]
fn start_table() {
    use Intent::{Prim, PrimForce, Second, Start};
    use Standing::{Alone, Blank, Inconsistent, Outdated, Paired};
    use StateName::{Stop, Wait};
    let settings = test_settings("node1", "node2");
    let blocked = Decision::NotReady;
    let follow = |outdate| Decision::Second { full: false, outdate };
    // intent, own standing and epochs, peer (None: absent), decision
    type Row<'a> = (Intent, Standing, &'a [u128], Option<(StateName, Standing, &'a [u128])>, Decision);
    let table: &[Row<'_>] = &[
        (Start, Alone, &[2, 1], None, Decision::Alone { force: false }),
        (Start, Paired, &[1], None, blocked(Why::NotUpToDate)),
        (Start, Outdated, &[1], None, blocked(Why::NotUpToDate)),
        (Start, Blank, &[], None, blocked(Why::NotUpToDate)),
        (Start, Inconsistent, &[1], None, blocked(Why::Inconsistent)),
        (Start, Alone, &[1], Some((Stop, Paired, &[1])), Decision::Alone { force: false }),
        (Start, Paired, &[1], Some((Stop, Paired, &[1])), blocked(Why::NotUpToDate)),
        (Start, Blank, &[], Some((Wait, Blank, &[])), blocked(Why::NoData)),
        (Start, Paired, &[1], Some((Wait, Paired, &[1])), ALONE),
        (Start, Alone, &[2, 1], Some((Wait, Paired, &[1])), ALONE),
        (Start, Paired, &[2, 1], Some((Wait, Inconsistent, &[1])), ALONE),
        (Start, Paired, &[2, 1], Some((Wait, Inconsistent, &[])), ALONE),
        // Its disk is new: the old one may have gone on alone.
        (Start, Paired, &[2, 1], Some((Wait, Blank, &[])), blocked(Why::NotUpToDate)),
        (Start, Alone, &[2, 1], Some((Wait, Blank, &[])), ALONE),
        (Start, Paired, &[1], Some((Wait, Alone, &[2, 1])), Decision::Await),
        (Start, Outdated, &[1], Some((Wait, Paired, &[1])), Decision::Await),
        (Start, Paired, &[1], Some((Wait, Outdated, &[1])), ALONE),
        // Both were lost in an isolation: the choice is that of its end.
        (Start, Alone, &[3, 1], Some((Wait, Alone, &[2, 1])), ALONE),
        (Start, Alone, &[3], Some((Wait, Alone, &[2])), blocked(Why::Diverged)),
        // The loser had begun to follow when both were lost.
        (Start, Alone, &[3, 1], Some((Wait, Outdated, &[2, 1])), ALONE),
        (Start, Outdated, &[2, 1], Some((Wait, Alone, &[3, 1])), Decision::Await),
        (Start, Inconsistent, &[2, 1], Some((Wait, Alone, &[3, 1])), Decision::Await),
        (Start, Alone, &[3, 1], Some((Wait, Paired, &[2, 1])), ALONE),
        (Start, Outdated, &[3, 1], Some((Wait, Outdated, &[2, 1])), blocked(Why::Diverged)),
        (Start, Inconsistent, &[2, 1], Some((Wait, Paired, &[1])), blocked(Why::Inconsistent)),
        (Start, Paired, &[1], Some((StateName::Second, Paired, &[1])), Decision::Await),
        (Start, Paired, &[1], Some((StateName::Prim, Paired, &[1])), follow(false)),
        (Start, Paired, &[1], Some((StateName::Alone, Alone, &[2, 1])), follow(true)),
        (Start, Alone, &[3, 1], Some((StateName::Alone, Alone, &[2, 1])), follow(true)),
        (Start, Inconsistent, &[1], Some((StateName::Alone, Alone, &[2, 1])), follow(false)),
        // A primary that was frozen while this node took over: it hears of that now, and gives way.
        (Start, Alone, &[2, 1], Some((StateName::Prim, Paired, &[1])), Decision::Await),
        (Start, Alone, &[2, 1], Some((StateName::Alone, Paired, &[1])), Decision::Await),
        (Second { full: false }, Alone, &[2, 1], Some((StateName::Prim, Paired, &[1])), Decision::Await),
        (Start, Paired, &[2, 1], Some((StateName::Prim, Paired, &[1])), follow(true)),
        (Start, Alone, &[2, 1], Some((StateName::Alone, Alone, &[1])), follow(true)),
        (Prim, Blank, &[], None, ALONE),
        (Prim, Outdated, &[1], None, ALONE),
        (Prim, Inconsistent, &[1], None, Decision::Refuse(Why::Inconsistent)),
        (PrimForce, Inconsistent, &[1], None, ALONE),
        (Prim, Alone, &[2, 1], Some((StateName::Alone, Alone, &[1])), Decision::Refuse(Why::PeerIsPrimary)),
        (PrimForce, Alone, &[2, 1], Some((StateName::Prim, Alone, &[1])), Decision::Refuse(Why::PeerIsPrimary)),
        (Second { full: false }, Paired, &[1], None, Decision::Refuse(Why::PeerIsNotPrimary)),
        (Second { full: false }, Paired, &[1], Some((Wait, Paired, &[1])), Decision::Refuse(Why::PeerIsNotPrimary)),
        (
            Second { full: true },
            Paired,
            &[1],
            Some((StateName::Prim, Paired, &[1])),
            Decision::Second { full: true, outdate: false },
        ),
    ];
    for (row, (intent, standing, epochs, peer, want)) in table.iter().enumerate() {
        let me = node(Wait, *standing, epochs);
        let peer = peer.map(|(name, standing, epochs)| node(name, standing, epochs));
        let view = peer.as_ref().map_or(Peer::Absent, Peer::Present);
        assert_eq!(start(*intent, &me, view, &settings), *want, "row {row}: {:?}", table[row]);
        assert_eq!(start(*intent, &me, Peer::Unknown, &settings), Decision::Await, "row {row}");
    }
}

#[test]
fn a_degraded_primary_is_not_followed() {
    let mut peer = node(StateName::Alone, Standing::Alone, &[2, 1]);
    peer.degraded = true;
    let me = node(StateName::Wait, Standing::Paired, &[1]);
    let decision = start(Intent::Start, &me, Peer::Present(&peer), &test_settings("node1", "node2"));
    assert_eq!(decision, Decision::NotReady(Why::Degraded));
}

#[test]
fn equals_are_told_apart_by_their_last_role_then_position_then_configuration_then_name() {
    let settings = test_settings("node2", "node1");
    let paired = || node(StateName::Wait, Standing::Paired, &[1]);
    let (mut me, mut peer) = (paired(), paired());
    assert_eq!(choose(&me, &peer, &settings), Choice::Peer);
    let preferred = Settings { default_primary: DefaultPrimary::Node("node2".into()), ..settings.clone() };
    assert_eq!(choose(&me, &peer, &preferred), Choice::Me);
    peer.position = 7;
    assert_eq!(choose(&me, &peer, &preferred), Choice::Peer);
    me.was_primary = true;
    assert_eq!(choose(&me, &peer, &preferred), Choice::Me);
}

fn published() -> impl Strategy<Value = Published> {
    let standing = prop_oneof![
        Just(Standing::Blank),
        Just(Standing::Inconsistent),
        Just(Standing::Outdated),
        Just(Standing::Paired),
        Just(Standing::Alone)
    ];
    let name = prop_oneof![Just(StateName::Wait), Just(StateName::Alone), Just(StateName::Prim)];
    let epochs = prop_oneof![
        Just(vec![]),
        Just(vec![1]),
        Just(vec![2, 1]),
        Just(vec![3, 1]),
        Just(vec![3, 2, 1]),
        Just(vec![9])
    ];
    (standing, name, epochs, 0..3_u64, any::<bool>(), any::<bool>()).prop_map(
        |(standing, name, epochs, position, was_primary, alone_from_prim)| Published {
            position,
            was_primary,
            alone_from_prim,
            ..node(name, standing, &epochs)
        },
    )
}

fn preference() -> impl Strategy<Value = DefaultPrimary> {
    prop_oneof![
        Just(DefaultPrimary::Alone),
        Just(DefaultPrimary::LastPrimary),
        Just(DefaultPrimary::Node("node1".into())),
        Just(DefaultPrimary::Node("node2".into()))
    ]
}

proptest! {
    /// Two nodes that know the same never both win, and never each wait for the other.
    #[test]
    fn the_choice_is_symmetric(a in published(), b in published(), default in preference(), replicated: bool) {
        let one = Settings { default_primary: default.clone(), replicated, ..test_settings("node1", "node2") };
        let two = Settings { default_primary: default, replicated, ..test_settings("node2", "node1") };
        match (choose(&a, &b, &one), choose(&b, &a, &two)) {
            (Choice::Me, Choice::Peer) | (Choice::Peer, Choice::Me) | (Choice::Nobody(_), Choice::Nobody(_)) => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }

    /// R4: who wins without being asked to is up to date, and not behind.
    #[test]
    fn only_the_up_to_date_win(a in published(), b in published()) {
        let settings = test_settings("node1", "node2");
        if choose(&a, &b, &settings) == Choice::Me {
            prop_assert!(a.standing.is_up_to_date());
            // Nobody has anything newer: except after an isolation, whose end may choose among owners only.
            let relation = a.lineage.compare(&b.lineage);
            prop_assert!(matches!(relation, Relation::Same | Relation::Newer) || (relation == Relation::Diverged && a.standing == Standing::Alone));
        }
    }

    /// After a split brain exactly one stays.
    #[test]
    fn exactly_one_stays(a in published(), b in published(), replicated: bool) {
        let one = Settings { replicated, ..test_settings("node1", "node2") };
        let two = Settings { replicated, ..test_settings("node2", "node1") };
        prop_assert_ne!(stays_after_split(&a, &b, &one), stays_after_split(&b, &a, &two));
    }
}
