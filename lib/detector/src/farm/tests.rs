//! Does one node do what it should, whatever it is told? (Whole farms: `sim`.)

use super::*;
use proptest::prelude::*;

fn config(me: u8, nodes: usize) -> Config {
    Config {
        me,
        nodes: (1..=nodes).map(|n| format!("node{n}")).collect(),
        lans: 1,
        pulse_ms: 100,
        leader_missed: 20,
        follower_missed: 10,
        groups: vec![Group { name: "FarmProto_0".to_owned(), powers: vec![1; nodes] }],
        rules: 0,
    }
}

fn farm(me: u8, nodes: usize) -> Farm {
    let mut farm = Farm::new(config(me, nodes), 7 + u64::from(me), 0).unwrap();
    farm.set_open(0, true);
    farm
}

/// Polls, and confirms what is ordered.
fn poll(farm: &mut Farm, now: u64) -> Vec<Output> {
    let mut all = farm.poll(now);
    for n in 0.. {
        match all.get(n) {
            Some(Output::Apply { number, .. }) => {
                let number = *number;
                farm.applied(now, number);
                all.extend(farm.poll(now));
            }
            Some(_) => {}
            None => return all,
        }
    }
    all
}

fn sent(outputs: &[Output]) -> Vec<Vec<u8>> {
    outputs
        .iter()
        .filter_map(|o| match o {
            Output::Send { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
        .collect()
}

/// Both talk for `ms`, all arriving.
fn talk(a: &mut Farm, b: &mut Farm, from: u64, ms: u64) -> Vec<Output> {
    let mut said = Vec::new();
    for now in from..from + ms {
        for _ in 0..6 {
            let (x, y) = (poll(a, now), poll(b, now));
            for bytes in sent(&x) {
                b.datagram(now, a.config().me, &bytes);
            }
            for bytes in sent(&y) {
                a.datagram(now, b.config().me, &bytes);
            }
            said.extend(x);
        }
    }
    said
}

#[test]
fn what_cannot_work_is_refused() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut c = config(0, 3);
        change(&mut c);
        Farm::new(c, 1, 0).unwrap_err()
    };
    assert_eq!(refused(&|c| c.nodes.clear()), ConfigError::Nodes(0));
    assert_eq!(refused(&|c| c.nodes = vec![String::new(); 33]), ConfigError::Nodes(33));
    assert_eq!(refused(&|c| c.me = 3), ConfigError::Me(3));
    assert_eq!(refused(&|c| c.groups.clear()), ConfigError::Groups(0));
    assert_eq!(refused(&|c| c.groups[0].powers.clear()), ConfigError::Powers("FarmProto_0".to_owned()));
    assert_eq!(refused(&|c| c.lans = 0), ConfigError::NoLan);
    assert_eq!(refused(&|c| c.follower_missed = 2), ConfigError::Timing);
    assert_eq!(refused(&|c| c.pulse_ms = 0), ConfigError::Timing);
}

#[test]
fn the_lease_ends_before_anybody_may_be_lost() {
    for (pulse, missed) in [(100, 10), (100, 3), (10, 3), (1, 3), (1000, 80)] {
        let c = Config { pulse_ms: pulse, follower_missed: missed, leader_missed: 2 * missed, ..config(0, 2) };
        assert!(c.lease_ms() < c.follower_timeout_ms());
        assert!(c.lease_ms() > c.pulse_ms || pulse == 1);
    }
}

#[test]
fn a_lone_node_listens_before_it_serves_everything() {
    let mut farm = farm(0, 3);
    let mut serves_at = None;
    for now in 0..3_000 {
        if poll(&mut farm, now).iter().any(|o| matches!(o, Output::Lease { .. })) {
            serves_at.get_or_insert(now);
        }
    }
    assert_eq!(serves_at, Some(farm.config().listen_ms() + 125));
    assert_eq!(farm.sets()[0].mine, Buckets::ALL);
}

/// Others may hear it and not be heard: they get the time to yield.
#[test]
fn who_begins_to_serve_without_others_says_so_first() {
    let mut farm = farm(0, 3);
    for now in 0..3_000 {
        poll(&mut farm, now);
    }
    farm.set_open(3_000, false);
    poll(&mut farm, 3_000);
    assert_eq!(farm.sets()[0].mine, Buckets::NONE);
    farm.set_open(4_000, true);
    let (mut said, mut taken_at) = (0, None);
    for now in 4_000..5_000 {
        said += sent(&poll(&mut farm, now)).len();
        if farm.sets()[0].mine == Buckets::ALL {
            taken_at = Some(now);
            break;
        }
    }
    assert_eq!(taken_at, Some(4_125));
    assert!(said >= 2, "said {said} times");
}

#[test]
fn two_nodes_share_and_the_death_of_one_gives_all_to_the_other() {
    let (mut a, mut b) = (farm(0, 2), farm(1, 2));
    talk(&mut a, &mut b, 0, 500);
    assert_eq!(a.view(), b.view());
    assert_eq!((a.sets()[0].mine.len(), b.sets()[0].mine.len()), (128, 128));
    assert!(a.sets()[0].mine.and(b.sets()[0].mine).is_empty());
    let mut taken_at = None;
    for now in 500..2_500 {
        poll(&mut a, now);
        if a.sets()[0].mine == Buckets::ALL {
            taken_at.get_or_insert(now);
        }
    }
    let last_heard = 400..500;
    assert!(last_heard.contains(&(taken_at.unwrap() - a.config().follower_timeout_ms())));
    assert_eq!(a.sets()[0].dead.len(), 128, "unknown connections in its buckets are reset");
}

#[test]
fn who_closes_gives_its_share_away_and_keeps_its_connections() {
    let (mut a, mut b) = (farm(0, 2), farm(1, 2));
    talk(&mut a, &mut b, 0, 500);
    a.leave(500);
    let said = talk(&mut a, &mut b, 500, 50);
    assert!(said.contains(&Output::Left));
    assert_eq!(b.sets()[0].mine, Buckets::ALL);
    assert_eq!(b.sets()[0].dead, Buckets::NONE, "nothing is reset");
    assert_eq!((a.sets()[0].mine.len(), a.sets()[0].legacy.len()), (0, 128));
}

#[test]
fn another_configuration_is_reported_and_not_mixed() {
    let mut a = farm(0, 2);
    let mut b = Farm::new(Config { rules: 1, ..config(1, 2) }, 9, 0).unwrap();
    b.set_open(0, true);
    let said = talk(&mut a, &mut b, 0, 4_000);
    assert!(said.contains(&Output::Notice(Notice::OtherConfiguration(1))));
    assert_eq!(a.view().map(|v| v.members().len()), Some(1));
    let yields = [a.yields(), b.yields()];
    assert_eq!(yields.iter().flatten().count(), 1, "one of them serves, the other does not: {yields:?}");
    assert!(yields.iter().flatten().all(|(_, reason)| *reason == Reason::OtherConfiguration));
}

#[test]
fn a_pause_closes_until_the_others_confirm() {
    let (mut a, mut b) = (farm(0, 2), farm(1, 2));
    talk(&mut a, &mut b, 0, 500);
    // b goes on, a stands still for longer than the timeout.
    (500..3_000).for_each(|now| drop(poll(&mut b, now)));
    assert_eq!(b.sets()[0].mine, Buckets::ALL);
    let lease =
        |outputs: &[Output], now| outputs.iter().any(|o| matches!(o, Output::Lease { until_ms } if *until_ms > now));
    assert!(!lease(&poll(&mut a, 3_000), 3_000));
    let said = talk(&mut a, &mut b, 3_000, 1_000);
    assert!(said.iter().any(|o| matches!(o, Output::View(v) if v.members().len() == 2)));
    assert!(lease(&said, 3_000));
    assert!(a.sets()[0].mine.and(b.sets()[0].mine).is_empty());
}

/// The others may have gone on without this node: a lost datagram more must not make it serve.
#[test]
fn after_a_pause_silence_is_no_consent() {
    let (mut a, mut b) = (farm(0, 2), farm(1, 2));
    talk(&mut a, &mut b, 0, 500);
    let mut opened_at = None;
    for now in 3_000..5_000 {
        let opens = |o: &Output| matches!(o, Output::Lease { until_ms } if *until_ms > now);
        if poll(&mut a, now).iter().any(opens) {
            opened_at.get_or_insert(now);
        }
    }
    assert_eq!(opened_at, Some(3_000 + a.config().follower_timeout_ms()), "with the view without the other one");
}

/// What an invented node 2 says of itself: it serves in a view of generation 10 with these members.
fn stranger(sequence: u32, hears: u32, members: u32) -> Vec<u8> {
    let record = Record {
        node: 2,
        incarnation: 9,
        sequence,
        configuration: config(2, 3).digest(),
        released: true,
        serving: true,
        hears,
        members,
        view: ViewId { generation: 10, hash: 1 },
        heard: vec![0; 3],
        ..Record::default()
    };
    message::datagrams(&[record]).remove(0)
}

/// When a lease was given while `farm` was told these things, from `from` on.
fn opened_at(farm: &mut Farm, from: u64, until: u64, say: impl Fn(u64) -> Option<Vec<u8>>) -> Option<u64> {
    (from..until).find(|now| {
        if let Some(bytes) = say(*now) {
            farm.datagram(*now, 2, &bytes);
        }
        poll(farm, *now).iter().any(|o| matches!(o, Output::Lease { until_ms } if until_ms > now))
    })
}

/// Of each proposal: others that heard an older one would not listen to a later one of a lower number.
#[test]
fn no_generation_is_proposed_twice() {
    let (mut a, mut b) = (farm(0, 2), farm(1, 2));
    talk(&mut a, &mut b, 0, 500);
    let mut said = Vec::new();
    for now in 500..700 {
        // What called for the proposal passes before anybody answers.
        a.set_open(now, now >= 600);
        said.extend(poll(&mut a, now));
    }
    let mut again = Farm::new(config(1, 2), 99, 700).unwrap();
    again.set_open(700, true);
    said.extend(talk(&mut a, &mut again, 700, 100));
    let mut proposed: Vec<ViewId> = sent(&said)
        .iter()
        .filter_map(|bytes| match message::decode(bytes) {
            Some(Message::Part(part)) => Some(part.view),
            _ => None,
        })
        .collect();
    proposed.dedup();
    assert!(proposed.len() >= 2, "{proposed:?}");
    assert!(proposed.windows(2).all(|two| two[0].generation < two[1].generation), "{proposed:?}");
    assert!(a.view().is_some() && a.view() == again.view());
}

/// Nobody here heard of that life before, and it is not the present one.
#[test]
fn what_comes_late_from_a_former_life_is_no_new_life() {
    let mut former = farm(1, 2);
    let late = sent(&poll(&mut former, 0)).remove(0);
    let (mut a, mut b) = (farm(0, 2), Farm::new(config(1, 2), 99, 0).unwrap());
    b.set_open(0, true);
    talk(&mut a, &mut b, 0, 500);
    a.datagram(500, 1, &late);
    let said = talk(&mut a, &mut b, 500, 500);
    assert!(!said.iter().any(|o| matches!(o, Output::View(_))), "{said:?}");
    assert_eq!((a.sets()[0].mine.len(), b.sets()[0].mine.len()), (128, 128));
}

/// A member that is silent to us gave our share away, as somebody says that hears it.
#[test]
fn a_view_that_a_member_went_to_without_this_node_is_yielded_to() {
    let (mut a, mut b) = (farm(0, 3), farm(1, 3));
    talk(&mut a, &mut b, 0, 3_000);
    assert_eq!((a.sets()[0].mine.len(), b.yields()), (128, None));
    b.datagram(3_000, 2, &stranger(1, 0b010, 0b100));
    poll(&mut b, 3_000);
    assert_eq!(b.yields(), None, "it has just been met, and has nothing of ours");
    b.datagram(3_001, 2, &stranger(2, 0b010, 0b101));
    poll(&mut b, 3_001);
    assert_eq!(b.yields(), Some((2, Reason::Overtaken)));
}

/// Who went on because this node yielded may hear it and not be heard.
#[test]
fn who_resumes_says_so_first() {
    let mut farm = farm(0, 3);
    assert!(opened_at(&mut farm, 0, 3_000, |_| None).is_some());
    (3_000..4_000).for_each(|now| {
        farm.datagram(now, 2, &stranger(now as u32, 0, 0b100));
        poll(&mut farm, now);
    });
    assert_eq!(farm.yields(), Some((2, Reason::NotHeard)));
    let last = 3_999;
    assert_eq!(opened_at(&mut farm, 4_000, 7_000, |_| None), Some(last + farm.config().follower_timeout_ms() + 125));
}

/// Nobody waits for a notice that others have given by serving.
#[test]
fn who_joins_one_that_serves_takes_at_once() {
    let (mut a, mut b) = (farm(0, 3), farm(1, 3));
    (0..3_000).for_each(|now| drop(poll(&mut a, now)));
    assert_eq!(a.sets()[0].mine, Buckets::ALL);
    talk(&mut a, &mut b, 3_000, 10);
    assert_eq!((a.sets()[0].mine.len(), b.sets()[0].mine.len()), (128, 128));
}

/// Who serves when two meet goes on, until the ranks decide.
#[test]
fn who_serves_nothing_does_not_begin_beside_one_that_serves() {
    let mut farm = Farm::new(Config { rules: 1, ..config(0, 3) }, 7, 0).unwrap();
    // Later views than the other's: this node is not the one that yields in the end.
    farm.proposed = 20;
    (0..3_000).for_each(|now| drop(poll(&mut farm, now)));
    let say = |now: u64| Some(stranger(now as u32, 0b001, 0b100));
    for now in 3_000..3_500 {
        farm.datagram(now, 2, &say(now).unwrap());
        poll(&mut farm, now);
    }
    farm.set_open(3_500, true);
    let decided = 3_000 + 2 * farm.config().follower_timeout_ms();
    for now in 3_500..decided {
        farm.datagram(now, 2, &say(now).unwrap());
        poll(&mut farm, now);
        assert_eq!(farm.yields(), Some((2, Reason::NoAgreement)), "at {now}");
    }
    assert_eq!(opened_at(&mut farm, decided, decided + 500, say), Some(decided + 125));
    assert_eq!(farm.sets()[0].mine, Buckets::ALL);
}

proptest! {
    #[test]
    fn garbage_changes_nothing(all in proptest::collection::vec((0..4_u8, proptest::collection::vec(any::<u8>(), 0..300)), 0..50)) {
        let mut farm = farm(0, 3);
        for (now, (from, mut bytes)) in all.into_iter().enumerate() {
            if let [version, kind, ..] = bytes.as_mut_slice() {
                (*version, *kind) = (1, 1 + *kind % 2);
            }
            farm.datagram(now as u64, from, &bytes);
            farm.poll(now as u64);
        }
        prop_assert!(farm.view().is_none());
    }

    /// Any clock: no panic, and time goes on.
    #[test]
    fn any_clock_will_do(times in proptest::collection::vec(any::<u64>(), 1..50)) {
        let mut farm = farm(0, 3);
        for now in times {
            // Some thousand years.
            farm.poll(now >> 18);
            prop_assert!(farm.poll_timeout().is_some());
        }
    }
}
