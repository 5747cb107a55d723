//! Does the detector say up and down at the right times, whatever comes?

use super::*;
use proptest::prelude::*;

const LINK: LinkSpec = LinkSpec { pulse_ms: 100, timeout_ms: 1000 };
const SLOW: LinkSpec = LinkSpec { pulse_ms: 200, timeout_ms: 3000 };

fn packet(detector: &mut Detector, now: u64, link: usize, life: u64, version: u64) -> Vec<Notice> {
    let mut notices = Vec::new();
    detector.packet(now, link, life, version, &mut notices);
    notices
}

fn tick(detector: &mut Detector, now: u64) -> Vec<Notice> {
    let mut notices = Vec::new();
    detector.tick(now, &mut notices);
    notices
}

/// Ticks every 50 ms from after `from` up to `to`; what was said, and when.
fn run(detector: &mut Detector, from: u64, to: u64) -> Vec<(u64, Notice)> {
    (from / 50 + 1..=to / 50).map(|n| n * 50).flat_map(|t| tick(detector, t).into_iter().map(move |n| (t, n))).collect()
}

#[test]
fn first_packet_up_silence_down_link_by_link() {
    let mut d = Detector::new(0, &[LINK, SLOW]);
    assert_eq!(packet(&mut d, 0, 0, 7, 1), [Notice::LinkUp(0), Notice::PeerUp, Notice::PeerState]);
    assert_eq!(packet(&mut d, 0, 1, 7, 1), [Notice::LinkUp(1)]);
    assert_eq!(
        run(&mut d, 0, 5000),
        [(1000, Notice::LinkDown(0)), (3000, Notice::LinkDown(1)), (3000, Notice::PeerDown)]
    );
    assert_eq!(d.deadline(), None);
    assert_eq!(packet(&mut d, 5000, 1, 7, 1), [Notice::LinkUp(1), Notice::PeerUp, Notice::PeerState]);
    assert!(d.is_peer_up() && d.is_link_up(1) && !d.is_link_up(0));
}

#[test]
fn a_peer_that_never_speaks_is_down_once_after_the_longest_timeout() {
    let mut d = Detector::new(0, &[LINK, SLOW]);
    assert_eq!(run(&mut d, 0, 60_000), [(3000, Notice::PeerDown)]);
}

#[test]
fn only_newer_states_and_other_lives_are_news() {
    let mut d = Detector::new(0, &[LINK, LINK]);
    packet(&mut d, 0, 0, 7, 5);
    assert_eq!(packet(&mut d, 10, 1, 7, 4), [Notice::LinkUp(1)], "late on the slower link");
    assert_eq!(packet(&mut d, 20, 0, 7, 6), [Notice::PeerState]);
    assert_eq!(packet(&mut d, 30, 0, 8, 1), [Notice::PeerState], "restarted");
    assert_eq!(packet(&mut d, 40, 1, 7, 9), [], "the former life does not come back");
    assert_eq!(packet(&mut d, 50, 1, 8, 1), []);
}

#[test]
fn a_restart_within_the_timeout_is_no_failure() {
    let mut d = Detector::new(0, &[LINK]);
    packet(&mut d, 0, 0, 7, 1);
    assert_eq!(run(&mut d, 0, 950), []);
    assert_eq!(packet(&mut d, 990, 0, 8, 1), [Notice::PeerState]);
    assert_eq!(run(&mut d, 990, 1950), []);
}

#[test]
fn an_own_pause_moves_the_deadline_and_packets_after_it_count_in_full() {
    let mut d = Detector::new(0, &[LINK]);
    packet(&mut d, 0, 0, 7, 1);
    assert_eq!(tick(&mut d, 600), [], "paused for 600 ms");
    assert_eq!(tick(&mut d, 1250), [], "again for 650 ms: 400 ms of extension were left");
    assert_eq!(d.deadline(), Some(2000));
    assert_eq!(run(&mut d, 1250, 2500), [(2000, Notice::LinkDown(0)), (2000, Notice::PeerDown)]);
    packet(&mut d, 5000, 0, 7, 1);
    assert_eq!(d.deadline(), Some(6000));
}

proptest! {
    #[test]
    fn a_peer_that_keeps_pulsing_is_never_down(gaps in proptest::collection::vec(1_u64..1000, 1..60)) {
        let mut d = Detector::new(0, &[LINK]);
        packet(&mut d, 0, 0, 1, 1);
        let mut now = 0;
        for gap in gaps {
            prop_assert_eq!(run(&mut d, now, now + gap - 1), vec![]);
            now += gap;
            prop_assert_eq!(packet(&mut d, now, 0, 1, 1), vec![]);
        }
    }

    #[test]
    fn silence_is_noticed_within_twice_the_timeout_however_we_stutter(
        last in 0_u64..5000, steps in proptest::collection::vec(1_u64..900, 30..60)
    ) {
        let mut d = Detector::new(0, &[LINK]);
        packet(&mut d, last, 0, 1, 1);
        let (mut now, mut down_at) = (last, None);
        let mut before = last;
        for step in steps {
            now += step;
            let notices = tick(&mut d, now);
            if notices.contains(&Notice::PeerDown) {
                down_at.get_or_insert((before, now));
            }
            before = now;
        }
        if now >= last + 2 * LINK.timeout_ms {
            let (before, at) = down_at.unwrap();
            prop_assert!(at >= last + LINK.timeout_ms);
            prop_assert!(before < last + 2 * LINK.timeout_ms, "a call at or after twice the timeout must have said it");
        }
    }

    /// Any sequence of packets, ticks and jumps: notices alternate and agree with what is asked; the peer is up exactly
    /// while a link is; a link with a packet younger than its timeout is up.
    #[test]
    fn notices_are_consistent(
        steps in proptest::collection::vec((0_u64..1500, 0_usize..4, 0_u64..4, 0_u64..5), 0..200)
    ) {
        let specs = [LINK, SLOW, LINK];
        let mut d = Detector::new(0, &specs);
        let (mut now, mut links, mut peer) = (0, [false; 3], false);
        let (mut heard, mut downs_before_up, mut current, mut dead) = ([None; 3], 0, None, Vec::new());
        for (step, link, life, version) in steps {
            now += step;
            let mut notices = Vec::new();
            if link < 3 {
                d.packet(now, link, life, version, &mut notices);
                if !dead.contains(&life) {
                    heard[link] = Some(now);
                    if let Some(former) = current.replace(life) && former != life {
                        dead.push(former);
                    }
                }
            }
            d.tick(now, &mut notices);
            for notice in notices {
                match notice {
                    Notice::LinkUp(n) => prop_assert!(!std::mem::replace(&mut links[n], true)),
                    Notice::LinkDown(n) => prop_assert!(std::mem::replace(&mut links[n], false)),
                    Notice::PeerUp => prop_assert!(!std::mem::replace(&mut peer, true)),
                    Notice::PeerDown if peer => peer = false,
                    Notice::PeerDown => {
                        downs_before_up += 1;
                        prop_assert!(heard.iter().all(Option::is_none));
                    }
                    Notice::PeerState => prop_assert!(peer),
                }
            }
            prop_assert_eq!(peer, links.iter().any(|l| *l));
            prop_assert_eq!(peer, d.is_peer_up());
            for n in 0..3 {
                prop_assert_eq!(links[n], d.is_link_up(n));
                if heard[n].is_some_and(|t| now < t + specs[n].timeout_ms) {
                    prop_assert!(links[n]);
                }
                if heard[n].is_none_or(|t| now >= t + 2 * specs[n].timeout_ms) {
                    prop_assert!(!links[n]);
                }
            }
            prop_assert!(downs_before_up <= 1);
            prop_assert!(d.deadline().is_none_or(|t| t > now));
        }
    }
}
