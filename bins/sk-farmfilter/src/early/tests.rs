//! Does the kernel, executing the program, say of every packet what the rules would say?

use super::check::{Packet, check};
use super::program::{Maps, program};
use crate::plan::Placed;
use crate::spec::{Any, Group, Key, Mode, Proto, Rule};
use net::Mac;
use net::tcx::{Counters, DROP, NEXT, Program, Table};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 50));
const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 51));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x50));
const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 0x50));
const ALL: [IpAddr; 4] = [V4, OTHER_V4, V6, OTHER_V6];

fn placed(address: IpAddr, mode: Mode) -> Placed {
    Placed { address, interface: "eth0".into(), mode, told_mac: Mac::ZERO, own_ipv4: None }
}

fn group(rules: Vec<Rule>) -> Group {
    Group { name: "g".into(), hosts: Vec::new(), rules }
}

fn rule(address: Any<IpAddr>, port: Any<u16>, proto: Proto, filter: Key) -> Rule {
    Rule { address, port, proto, filter }
}

struct Loaded {
    foreign: Table,
    dropped: Counters,
    program: Program,
}

fn load(addresses: &[Placed], groups: &[Group]) -> Loaded {
    assert!(nix::unistd::geteuid().is_root(), "these tests load programs into the kernel: run them as root");
    let foreign = Table::new("sk_test", groups.len() * share::BUCKETS).unwrap();
    let dropped = Counters::new("sk_test", groups.len()).unwrap();
    let maps = Maps { foreign: foreign.descriptor(), dropped: dropped.descriptor() };
    let code = program(&addresses.iter().collect::<Vec<_>>(), groups, maps).unwrap();
    Loaded { program: Program::load("sk_test", &code).unwrap(), foreign, dropped }
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let address = prop_oneof![2 => Just(Any::All), 1 => proptest::sample::select(&ALL[..]).prop_map(Any::One)];
    let port = prop_oneof![1 => Just(Any::All), 2 => (80_u16..84).prop_map(Any::One)];
    let kind = proptest::sample::select(vec![
        (Proto::Tcp, Key::Addr),
        (Proto::Tcp, Key::Port),
        (Proto::Udp, Key::Addr),
        (Proto::Udp, Key::Port),
        (Proto::Udp, Key::Ipid),
        (Proto::Arp, Key::Addr),
    ]);
    let one = (address, port, kind).prop_map(|(address, port, (proto, filter))| match (address, filter) {
        // There is no identification in IPv6.
        (Any::All | Any::One(IpAddr::V6(_)), Key::Ipid) => rule(Any::One(V4), port, proto, filter),
        _ => rule(address, port, proto, filter),
    });
    proptest::collection::vec(one, 1..5)
}

fn packets() -> impl Strategy<Value = Packet> {
    let proto = proptest::sample::select(vec![Proto::Tcp, Proto::Udp]);
    let numbers = (any::<u128>(), any::<u16>(), 79_u16..85, any::<u16>());
    (proptest::sample::select(&ALL[..]), proto, numbers).prop_map(
        |(destination, proto, (source, source_port, port, identification))| Packet {
            source: if destination.is_ipv4() {
                IpAddr::from((source as u32).to_be_bytes())
            } else {
                IpAddr::from(source.to_be_bytes())
            },
            destination,
            proto,
            source_port,
            port,
            identification,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_is_dropped_is_what_the_rules_would_drop(
        rules in proptest::collection::vec(rules(), 1..4),
        packets in proptest::collection::vec(packets(), 100),
        directed in proptest::bool::weighted(0.3),
        pattern in any::<u32>(),
    ) {
        let groups: Vec<Group> = rules.into_iter().map(group).collect();
        // The last address may be one whose packets are passed on.
        let mode = |address| if directed && address == OTHER_V6 { Mode::VmacDirected } else { Mode::VmacInvisible };
        let addresses: Vec<Placed> = ALL.iter().map(|a| placed(*a, mode(*a))).collect();
        let is_used = groups.iter().flat_map(|g| &g.rules).any(|r| {
            r.proto != Proto::Arp && addresses.iter().any(|a| a.mode == Mode::VmacInvisible && r.address.covers(&a.address))
        });
        prop_assume!(is_used);
        let mut loaded = load(&addresses, &groups);
        let bytes: Vec<u8> = (0..groups.len() * share::BUCKETS)
            .map(|n| u8::from(net::jhash::jhash(&(n as u32).to_be_bytes(), pattern) & 1 == 0))
            .collect();
        loaded.foreign.set(&bytes).unwrap();
        let mut expected = vec![[0_u64; 2]; groups.len()];
        for packet in packets {
            let place = packet.place(&groups).filter(|_| mode(packet.destination) == Mode::VmacInvisible);
            let drop = place.filter(|(group, bucket)| bytes[group * share::BUCKETS + usize::from(*bucket)] != 0);
            let frame = packet.frame(&[7; 20]);
            prop_assert_eq!(loaded.program.judge(&frame).unwrap(), drop.map_or(NEXT, |_| DROP), "{:?}", packet);
            if let Some((group, _)) = drop {
                expected[group][0] += 1;
                expected[group][1] += frame.len() as u64 - 14;
            }
        }
        prop_assert_eq!(loaded.dropped.read().unwrap(), expected);
    }

    /// Whatever comes, the program ends with one of its two words, and what is no packet for an address is left to others.
    #[test]
    fn garbage_is_left_to_the_rules(bytes in proptest::collection::vec(any::<u8>(), 14..200)) {
        let groups = [group(vec![rule(Any::All, Any::All, Proto::Tcp, Key::Addr)])];
        let loaded = load(&[placed(V4, Mode::VmacInvisible), placed(V6, Mode::VmacInvisible)], &groups);
        loaded.foreign.set(&[1; share::BUCKETS]).unwrap();
        prop_assert_eq!(loaded.program.judge(&bytes).unwrap(), NEXT);
    }
}

/// All buckets are another's, and yet the rules must see these.
#[test]
fn what_the_program_does_not_understand_is_left_to_the_rules() {
    let groups = [group(vec![
        rule(Any::All, Any::One(80), Proto::Tcp, Key::Port),
        rule(Any::All, Any::One(80), Proto::Udp, Key::Addr),
    ])];
    let loaded = load(&[placed(V4, Mode::VmacInvisible), placed(V6, Mode::VmacInvisible)], &groups);
    loaded.foreign.set(&[1; share::BUCKETS]).unwrap();
    let packet = |destination: IpAddr, proto| Packet {
        source: if destination.is_ipv4() { "192.0.2.7".parse().unwrap() } else { "2001:db8::7".parse().unwrap() },
        destination,
        proto,
        source_port: 40_000,
        port: 80,
        identification: 1,
    };
    let verdict = |frame: &[u8]| loaded.program.judge(frame).unwrap();
    for destination in [V4, V6] {
        for proto in [Proto::Tcp, Proto::Udp] {
            let frame = packet(destination, proto).frame(&[0; 20]);
            assert_eq!(verdict(&frame), DROP);
            let changed = |at: usize, byte: u8| {
                let mut frame = frame.clone();
                frame[at] = byte;
                verdict(&frame)
            };
            assert_eq!(changed(13, 0x07), NEXT, "another protocol");
            assert_eq!(verdict(&[&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()), NEXT, "tagged");
            assert_eq!(verdict(&Packet { port: 81, ..packet(destination, proto) }.frame(&[0; 20])), NEXT, "no rule");
            let others = Packet {
                destination: if destination == V4 { OTHER_V4 } else { OTHER_V6 },
                ..packet(destination, proto)
            };
            assert_eq!(verdict(&others.frame(&[0; 20])), NEXT, "another address");
            let (ports, protocol) = if destination.is_ipv4() { (34, 23) } else { (54, 20) };
            // The kernel does not try frames without a whole header.
            for end in ports..ports + 4 {
                assert_eq!(verdict(&frame[..end]), NEXT, "{end} bytes");
            }
            assert_eq!(verdict(&frame[..ports + 4]), DROP);
            assert_eq!(changed(protocol, 1), NEXT, "a message");
            if destination.is_ipv4() {
                assert_eq!(changed(14, 0x46), NEXT, "options");
                assert_eq!(changed(20, 0x20), NEXT, "a first part");
                assert_eq!(changed(21, 0x01), NEXT, "a later part");
            } else {
                assert_eq!(changed(protocol, 44), NEXT, "a part");
                assert_eq!(changed(protocol, 0), NEXT, "options");
            }
        }
    }
}

#[test]
fn a_program_that_says_something_else_is_not_used() {
    let rules = |port| [group(vec![rule(Any::All, Any::One(port), Proto::Tcp, Key::Port)])];
    let loaded = load(&[placed(V4, Mode::VmacInvisible)], &rules(80));
    loaded.foreign.set(&[1; share::BUCKETS]).unwrap();
    check(&loaded.program, &[V4], &rules(80), &[1; share::BUCKETS]).unwrap();
    check(&loaded.program, &[V4], &rules(80), &[0; share::BUCKETS]).unwrap_err();
    check(&loaded.program, &[V4], &rules(81), &[1; share::BUCKETS]).unwrap_err();
    let other = [group(vec![rule(Any::All, Any::One(80), Proto::Tcp, Key::Addr)])];
    let halves: Vec<u8> = (0..share::BUCKETS).map(|n| u8::from(n < 128)).collect();
    loaded.foreign.set(&halves).unwrap();
    check(&loaded.program, &[V4], &rules(80), &halves).unwrap();
    check(&loaded.program, &[V4], &other, &halves).unwrap_err();
}

#[test]
fn nothing_to_drop_is_no_program() {
    let maps = Maps { foreign: 0, dropped: 0 };
    let (invisible, directed) = (placed(V4, Mode::VmacInvisible), placed(V4, Mode::VmacDirected));
    let one = group(vec![rule(Any::All, Any::All, Proto::Tcp, Key::Addr)]);
    let arp = group(vec![rule(Any::All, Any::All, Proto::Arp, Key::Addr)]);
    assert!(program(&[&invisible], std::slice::from_ref(&one), maps).is_some());
    assert!(program(&[&directed], std::slice::from_ref(&one), maps).is_none());
    assert!(program(&[&invisible], &[arp], maps).is_none());
    let many = group(vec![rule(Any::All, Any::All, Proto::Tcp, Key::Addr); 257]);
    assert!(program(&[&invisible], &[many], maps).is_none(), "the rules are cheaper");
}
