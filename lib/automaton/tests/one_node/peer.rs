//! Is the right thing done when the peer is lost, comes back, or asks for the role?

use crate::driver::{Runner, settings};
use automaton::{Event, Published, Readiness, ReplicaPeer, ReplicaRole, State, StateName, Verb};
use lineage::Standing;

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

/// After a goodbye the peer's engine may be back, and in sync, before the first heartbeat of its new life.
#[test]
fn a_goodbye_of_the_former_life_does_not_exclude_who_follows_again() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    let gone = r.peer(StateName::Wait, Readiness::Transient, Standing::Paired, &[1]);
    r.feed(Event::PeerState { state: Published { leaving: true, ..gone }, bye: true });
    r.done.clear();
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::InSync);
    assert!(r.done.is_empty(), "{:#?}", r.done);
    r.peer(StateName::Second, Readiness::Ready, Standing::Paired, &[1]);
    assert_eq!(r.state(), "PRIM Ready");
    // A goodbye of this life counts, and so does a stream that ends before any word of it.
    r.done.clear();
    r.peer(StateName::Stop, Readiness::NotReady, Standing::Paired, &[1]);
    r.at("exclude");
    let mut lost = Runner::new(settings(), Standing::Alone, &[1]);
    lost.command(Verb::Start);
    lost.peer(StateName::Stop, Readiness::NotReady, Standing::Paired, &[1]);
    lost.done.clear();
    lost.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::InSync);
    lost.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    lost.at("exclude");
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
fn a_secondary_that_stood_still_does_not_take_over_from_a_primary_that_went_on_alone_and_left() {
    let mut r = Runner::second();
    // Meanwhile the primary excluded this node, served, and begins anew: nothing of that was heard.
    r.peer(StateName::Wait, Readiness::Transient, Standing::Alone, &[2, 1]);
    assert!(!r.done.contains(&"promote".to_owned()));
    assert!(r.state().starts_with("WAIT"), "{}", r.state());
    // Nor when it is not heard any more.
    r.feed(Event::PeerDown);
    assert!(r.state().starts_with("WAIT"), "{}", r.state());
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
fn a_swap_that_cannot_drain_is_tried_once_for_each_order_of_the_peer() {
    let mut r = Runner::prim();
    let mut asking = r.peer(StateName::Second, Readiness::Ready, Standing::Paired, &[1]);
    let tried = |r: &Runner| r.done.iter().filter(|d| *d == "demote").count();
    // Nothing is heard between the first two orders; a release that does not number them is heard to be silent.
    for (turn, order) in [7_u64, 9, 0, 0].into_iter().enumerate() {
        r.fail = Some("demote");
        (asking.swap_wanted, asking.swap_order) = (true, order);
        for _ in 0..3 {
            r.feed(Event::PeerState { state: asking.clone(), bye: false });
            assert_eq!(r.core.published().swap_refused, order);
        }
        assert_eq!((r.state().as_str(), tried(&r)), ("PRIM Ready", turn + 1));
        if order == 0 {
            asking.swap_wanted = false;
            r.feed(Event::PeerState { state: asking.clone(), bye: false });
        }
    }
}

#[test]
fn a_swap_that_the_primary_gave_up_may_be_ordered_again_at_once() {
    let mut r = Runner::second();
    let mut peer = r.peer(StateName::Prim, Readiness::Ready, Standing::Paired, &[1]);
    let mut former = 0;
    for _ in 0..2 {
        r.command(Verb::Swap);
        let said = r.core.published();
        assert!(said.swap_wanted && said.swap_order != former, "{said:?}");
        // What the primary says of the former order is no answer to this one.
        r.feed(Event::PeerState { state: peer.clone(), bye: false });
        assert!(r.core.published().swap_wanted);
        peer.swap_refused = said.swap_order;
        r.feed(Event::PeerState { state: peer.clone(), bye: false });
        assert_eq!((r.core.published().swap_wanted, r.core.poll_timeout()), (false, None));
        former = said.swap_order;
    }
    assert_eq!(r.done.iter().filter(|d| d.contains("gave the swap up and stays primary")).count(), 2, "{:?}", r.done);
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
