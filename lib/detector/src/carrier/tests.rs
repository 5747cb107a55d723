//! Do two carriers tell each other the truth about every module, whatever is lost, and whoever dies?

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const LIMIT: usize = 1342;
const LINK: LinkSpec = LinkSpec { pulse_ms: 100, timeout_ms: 1000 };

/// One node: its carrier, and what the processes of its modules know.
struct Node {
    carrier: Carrier,
    streams: Vec<StreamId>,
    modules: Vec<Module>,
}

struct Module {
    tag: u64,
    id: Option<MemberId>,
    incarnation: u64,
    version: u32,
    bye: bool,
    body: Vec<u8>,
    /// It renews its lease.
    runs: bool,
    spec: LinkSpec,
    known: Known,
    seen: Vec<Notice>,
    peer: Option<(u64, u32, bool, Vec<u8>)>,
}

struct World {
    now: u64,
    nodes: [Node; 2],
    /// Due time, receiver, link, body.
    flying: VecDeque<(u64, usize, usize, Vec<u8>)>,
    sent: [usize; 2],
    longest: usize,
    /// Whether the packet of this number, from this node, over this link, is lost.
    lost: Box<dyn FnMut(usize, usize) -> bool>,
}

impl World {
    fn new(links: usize, modules: usize) -> Self {
        Self::with(links, &vec![LINK; modules])
    }

    fn with(links: usize, specs: &[LinkSpec]) -> Self {
        let node = |n: u64| {
            let mut carrier = Carrier::new();
            let streams: Vec<_> = (0..links).map(|_| carrier.open()).collect();
            for s in &*streams {
                carrier.set_ready(0, *s, true);
            }
            let modules = specs.iter().zip(1_u64..).map(|(spec, tag)| Module {
                tag: tag * 0x0101_0101_0101,
                id: None,
                incarnation: n << 40 | tag,
                version: 0,
                bye: false,
                body: Vec::new(),
                runs: true,
                spec: *spec,
                known: Known { links: vec![false; links], ..Known::default() },
                seen: Vec::new(),
                peer: None,
            });
            Node { carrier, streams, modules: modules.collect() }
        };
        let nodes = [node(1), node(2)];
        Self { now: 0, nodes, flying: VecDeque::new(), sent: [0; 2], longest: 0, lost: Box::new(|_, _| false) }
    }

    /// Both nodes with everything attached and published.
    fn up(links: usize, modules: usize) -> Self {
        let mut world = Self::new(links, modules);
        for node in 0..2 {
            for module in 0..modules {
                world.attach(node, module);
                world.publish(node, module, b"first");
            }
        }
        world.run(300);
        for node in &world.nodes {
            for module in &node.modules {
                assert_eq!(module.peer.as_ref().unwrap().3, b"first");
                assert!(module.known.links.iter().all(|up| *up));
            }
        }
        world
    }

    fn attach(&mut self, node: usize, module: usize) {
        let Node { carrier, streams, modules } = &mut self.nodes[node];
        let m = &mut modules[module];
        let links = streams.iter().map(|s| (*s, m.spec)).collect();
        let attachment = Attachment { module: m.tag, incarnation: m.incarnation, links, known: m.known.clone() };
        m.id = Some(carrier.attach(self.now, attachment).unwrap());
        if m.version > 0 {
            carrier.publish(self.now, m.id.unwrap(), m.version, m.bye, &m.body);
        }
    }

    fn publish(&mut self, node: usize, module: usize, body: &[u8]) {
        self.say(node, module, body, false);
    }

    fn say(&mut self, node: usize, module: usize, body: &[u8], bye: bool) {
        let Node { carrier, modules, .. } = &mut self.nodes[node];
        let m = &mut modules[module];
        (m.version, m.bye, m.body) = (m.version + 1, bye, body.to_vec());
        carrier.publish(self.now, m.id.unwrap(), m.version, bye, body);
    }

    fn leave(&mut self, node: usize, module: usize, departure: Departure) {
        let Node { carrier, modules, .. } = &mut self.nodes[node];
        carrier.detach(self.now, modules[module].id.take().unwrap(), departure);
    }

    /// The carrier of a node is gone with all that it knew; its successor is told what the modules know.
    fn carrier_dies(&mut self, node: usize) {
        let links = self.nodes[node].streams.len();
        let mut carrier = Carrier::new();
        let streams: Vec<_> = (0..links).map(|_| carrier.open()).collect();
        for s in &*streams {
            carrier.set_ready(self.now, *s, true);
        }
        self.nodes[node].carrier = carrier;
        self.nodes[node].streams = streams;
        for module in 0..self.nodes[node].modules.len() {
            if self.nodes[node].modules[module].id.take().is_some() {
                self.attach(node, module);
            }
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += 1;
        while self.flying.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, to, link, body) = self.flying.pop_front().unwrap();
            let node = &mut self.nodes[to];
            node.carrier.received(self.now, node.streams[link], &body);
        }
        for from in 0..2 {
            let Node { carrier, streams, modules } = &mut self.nodes[from];
            for m in modules.iter().filter(|m| m.runs) {
                if let Some(id) = m.id {
                    carrier.renew(self.now, id, self.now + 200);
                }
            }
            carrier.tick(self.now);
            let mut body = Vec::new();
            while let Some(stream) = carrier.transmit(self.now, LIMIT, &mut body) {
                let link = streams.iter().position(|s| *s == stream).unwrap();
                self.sent[from] += 1;
                self.longest = self.longest.max(body.len());
                let mut tags = Vec::new();
                for record in crate::beat::records(&body) {
                    if let crate::beat::Record::Beats(beats) = record {
                        tags.extend(beats.map(|b| b.module));
                    }
                }
                let count = tags.len();
                tags.sort_unstable();
                tags.dedup();
                assert_eq!(tags.len(), count, "a beat is in a datagram twice");
                if !(self.lost)(from, link) {
                    self.flying.push_back((self.now + 1, 1 - from, link, body.clone()));
                }
            }
            assert!(carrier.deadline().is_none_or(|at| at > self.now), "it would spin");
            while let Some((id, notice)) = carrier.next_notice() {
                let m = modules.iter_mut().find(|m| m.id == Some(id)).unwrap();
                m.seen.push(notice);
                match notice {
                    Notice::LinkUp(n) => assert!(!std::mem::replace(&mut m.known.links[n], true)),
                    Notice::LinkDown(n) => assert!(std::mem::replace(&mut m.known.links[n], false)),
                    Notice::PeerUp => m.known.judged = true,
                    Notice::PeerDown => (m.known.judged, m.known.newest) = (true, None),
                    Notice::PeerState => {
                        let (life, version, bye, body) = carrier.peer_state(id).unwrap();
                        m.known.newest = Some((life, version.into()));
                        m.peer = Some((life, version, bye, body.to_vec()));
                    }
                    Notice::ByeDone | Notice::PeerGone(_) => {}
                }
            }
        }
    }

    fn forget(&mut self) {
        for m in self.nodes.iter_mut().flat_map(|n| &mut n.modules) {
            m.seen.clear();
        }
        self.sent = [0; 2];
    }

    fn seen(&self, node: usize, module: usize) -> &[Notice] {
        &self.nodes[node].modules[module].seen
    }

    /// Everybody knows the other side's present state.
    fn agrees(&self) -> bool {
        (0..2).all(|n| {
            self.nodes[n].modules.iter().zip(&self.nodes[1 - n].modules).all(|(mine, other)| {
                mine.peer == Some((other.incarnation, other.version, other.bye, other.body.clone()))
            })
        })
    }
}

#[test]
fn forty_modules_cost_the_packets_of_one() {
    let count = |modules| {
        let mut world = World::up(2, modules);
        world.run(500);
        world.forget();
        world.run(2_000);
        assert!(world.longest <= LIMIT);
        world.sent
    };
    assert_eq!(count(1), [40, 40], "a pulse a link");
    assert_eq!(count(40), [40, 40]);
    // 256 beats of 29 bytes are six datagrams.
    let many = count(256);
    assert!(many.iter().all(|sent| *sent <= 6 * 40), "{many:?}");
}

#[test]
fn each_module_has_its_own_pulse_and_timeout() {
    let slow = LinkSpec { pulse_ms: 700, timeout_ms: 3000 };
    let mut world = World::with(1, &[LINK, slow]);
    for node in 0..2 {
        for module in 0..2 {
            world.attach(node, module);
            world.publish(node, module, b"s");
        }
    }
    world.run(5000);
    world.forget();
    let cut = world.now;
    world.lost = Box::new(|_, _| true);
    let mut downs = [0; 2];
    while downs.contains(&0) {
        world.step();
        for (module, down) in downs.iter_mut().enumerate() {
            if *down == 0 && world.seen(0, module).contains(&Notice::PeerDown) {
                *down = world.now - cut;
            }
        }
        assert!(world.now < cut + 4000);
    }
    assert!((900..=1000).contains(&downs[0]), "{downs:?}");
    // It travels with the pulses of the fast one.
    assert!((2300..=3000).contains(&downs[1]), "{downs:?}");
}

#[test]
fn a_state_that_is_lost_is_sent_again_soon() {
    let mut world = World::up(1, 3);
    world.publish(0, 1, b"second");
    let mut left = 4_u32;
    world.lost = Box::new(move |from, _| {
        left = left.saturating_sub(u32::from(from == 0));
        from == 0 && left > 0
    });
    world.run(320);
    assert_eq!(world.nodes[1].modules[1].peer.as_ref().unwrap().3, b"second");
}

#[test]
fn a_goodbye_ends_at_its_acknowledgement_or_after_five_times() {
    let mut world = World::up(1, 2);
    world.forget();
    world.say(0, 0, b"last", true);
    world.run(5);
    assert_eq!(world.seen(0, 0), [Notice::ByeDone]);
    assert!(world.nodes[1].modules[0].peer.as_ref().unwrap().2);
    world.lost = Box::new(|_, _| true);
    world.say(0, 1, b"last", true);
    world.run(90);
    assert_eq!(world.seen(0, 1), []);
    world.run(20);
    assert_eq!(world.seen(0, 1), [Notice::ByeDone]);
    // Only the one that said it falls silent.
    world.lost = Box::new(|_, _| false);
    world.publish(0, 1, b"back");
    world.run(3000);
    assert!(world.seen(1, 0).contains(&Notice::PeerDown) && !world.seen(1, 1).contains(&Notice::PeerDown));
    assert!(!world.seen(1, 0).contains(&Notice::PeerGone(Evidence::RunnerDead)), "it had said goodbye");
}

#[test]
fn the_death_of_one_runner_is_known_at_once_for_its_module_only() {
    let mut world = World::up(2, 8);
    world.forget();
    let mut packets = 0;
    // Two of three packets are lost.
    world.lost = Box::new(move |_, _| {
        packets += 1;
        packets % 3 != 0
    });
    world.leave(0, 5, Departure::RunnerDied);
    world.run(150);
    assert_eq!(world.seen(1, 5), [Notice::PeerGone(Evidence::RunnerDead)]);
    world.run(5000);
    for module in (0..8).filter(|m| *m != 5) {
        assert_eq!(world.seen(1, module), []);
    }
    let expected = [Notice::PeerGone(Evidence::RunnerDead), Notice::LinkDown(0), Notice::LinkDown(1), Notice::PeerDown];
    assert_eq!(world.seen(1, 5).len(), 4);
    assert!(expected.iter().all(|n| world.seen(1, 5).contains(n)));
    // The next life is a life.
    world.forget();
    world.nodes[0].modules[5].incarnation = 77;
    world.nodes[0].modules[5].version = 0;
    world.attach(0, 5);
    world.publish(0, 5, b"again");
    world.run(500);
    assert!(world.seen(1, 5).contains(&Notice::PeerUp) && world.agrees());
    world.leave(0, 5, Departure::RunnerDied);
    world.run(500);
    assert!(world.seen(1, 5).contains(&Notice::PeerGone(Evidence::RunnerDead)));
}

#[test]
fn a_process_that_hangs_is_silent_alone() {
    let mut world = World::up(1, 8);
    world.forget();
    world.nodes[0].modules[2].runs = false;
    world.run(1100);
    assert_eq!(world.seen(1, 2), []);
    world.run(250);
    assert_eq!(world.seen(1, 2), [Notice::LinkDown(0), Notice::PeerDown]);
    for module in (0..8).filter(|m| *m != 2) {
        assert_eq!(world.seen(1, module), []);
        assert_eq!(world.seen(0, module), []);
    }
    // What it is made to say meanwhile is no sign of life.
    world.publish(0, 2, b"from the grave");
    world.run(1000);
    assert_eq!(world.seen(1, 2)[2..], []);
    world.nodes[0].modules[2].runs = true;
    world.run(300);
    assert_eq!(world.seen(1, 2)[2..], [Notice::LinkUp(0), Notice::PeerUp, Notice::PeerState]);
    assert!(world.agrees());
}

#[test]
fn nobody_listening_is_told_after_three_questions_on_every_link_and_a_living_peer_contradicts() {
    let mut world = World::up(2, 2);
    world.forget();
    // Forged errors while the peer lives: it answers the questions.
    for gap in [60, 110, 5, 1].repeat(20) {
        let Node { carrier, streams, .. } = &mut world.nodes[0];
        for s in &*streams {
            carrier.unreachable(world.now, *s);
        }
        world.run(gap);
    }
    assert_eq!(world.seen(0, 0), []);
    // The real thing: every packet of node 0 is answered by an error.
    world.lost = Box::new(|_, _| true);
    world.run(100);
    let began = world.now;
    while world.seen(0, 0).is_empty() {
        let before = world.sent[0];
        world.step();
        if world.sent[0] > before {
            let Node { carrier, streams, .. } = &mut world.nodes[0];
            for s in &*streams {
                carrier.unreachable(world.now, *s);
            }
        }
        assert!(world.now < began + 500);
    }
    assert!(world.now >= began + 150, "three questions, not one");
    for module in 0..2 {
        assert_eq!(world.seen(0, module), [Notice::PeerGone(Evidence::PortUnreachable)]);
    }
}

#[test]
fn one_link_that_answers_with_errors_is_no_evidence_while_another_is_silent() {
    let mut world = World::up(2, 1);
    world.forget();
    world.lost = Box::new(|_, _| true);
    for _ in 0..7 {
        let Node { carrier, streams, .. } = &mut world.nodes[0];
        carrier.unreachable(world.now, streams[0]);
        world.run(110);
    }
    assert_eq!(world.seen(0, 0), []);
}

/// 20 % loss in both directions at the default pulse, with a timeout that spans two pulses, on one link: for 20 minutes.
#[test]
fn a_link_that_loses_every_fifth_packet_is_up() {
    let mut world = World::with(1, &[LinkSpec { pulse_ms: 700, timeout_ms: 2000 }]);
    for node in 0..2 {
        world.attach(node, 0);
        world.publish(node, 0, b"here");
    }
    world.run(2000);
    world.forget();
    let mut random = 88_172_645_463_325_252_u64;
    world.lost = Box::new(move |_, _| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % 100 < 20
    });
    world.run(20 * 60_000);
    for node in 0..2 {
        assert_eq!(world.seen(node, 0), []);
        // A pulse each 700 ms, and what was asked and answered.
        assert!(world.sent[node] < 3 * 20 * 60_000 / 700, "{:?}", world.sent);
    }
}

#[test]
fn a_second_process_of_the_same_module_is_refused() {
    let mut world = World::up(1, 1);
    let Node { carrier, streams, modules } = &mut world.nodes[0];
    let known = Known { links: vec![false], ..Known::default() };
    let twin = Attachment { module: modules[0].tag, incarnation: 99, links: vec![(streams[0], LINK)], known };
    assert!(carrier.attach(world.now, twin).is_none());
}

#[derive(Clone, Debug)]
enum Act {
    Publish(usize, usize, usize),
    CarrierDies(usize),
    RunnerDies(usize, usize),
    Restart(usize, usize),
    Hang(usize, usize, bool),
    Garbage(usize, Vec<u8>),
    Cut(usize, bool),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let who = || (0..2_usize, 0..3_usize);
    prop_oneof![
        3 => (who(), 0..1100_usize).prop_map(|((n, m), len)| Act::Publish(n, m, len)),
        1 => (0..2_usize).prop_map(Act::CarrierDies),
        1 => who().prop_map(|(n, m)| Act::RunnerDies(n, m)),
        1 => who().prop_map(|(n, m)| Act::Restart(n, m)),
        1 => (who(), any::<bool>()).prop_map(|((n, m), on)| Act::Hang(n, m, on)),
        1 => (0..2_usize, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(n, b)| Act::Garbage(n, b)),
        1 => (0..2_usize, any::<bool>()).prop_map(|(n, on)| Act::Cut(n, on)),
        4 => (1..700_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Loss of up to three packets in a row, however it falls, and carriers that die: nobody is declared dead.
    #[test]
    fn loss_and_dying_carriers_are_no_failure(
        pattern in prop::collection::vec(0..4_usize, 1..40),
        deaths in prop::collection::vec((0..2_usize, 1..400_u64), 0..6),
        publications in prop::collection::vec((0..2_usize, 0..8_usize, 1..150_u64), 0..12),
    ) {
        let mut world = World::up(1, 8);
        world.forget();
        // From each direction: n packets are lost, the next one passes.
        let (mut at, mut left) = ([0, 7], [pattern[0]; 2]);
        world.lost = Box::new(move |from, _| {
            if left[from] > 0 {
                left[from] -= 1;
                return true;
            }
            at[from] += 1;
            left[from] = pattern[at[from] % pattern.len()];
            false
        });
        for (node, after) in deaths {
            world.run(after);
            world.carrier_dies(node);
        }
        for (n, (node, module, after)) in publications.into_iter().enumerate() {
            world.publish(node, module, format!("state {n}").as_bytes());
            world.run(after);
        }
        world.run(1500);
        // Three of five packets are lost at worst.
        for _ in 0..200 {
            if !world.agrees() {
                world.run(100);
            }
        }
        prop_assert!(world.agrees());
        for node in 0..2 {
            for module in 0..8 {
                let bad = world.seen(node, module).iter().find(|n| !matches!(n, Notice::PeerState));
                prop_assert_eq!(bad, None);
            }
        }
    }

    /// Whatever happens: once it is over, all agree, each module on its own; a death is told at most once a life.
    #[test]
    fn everybody_agrees_once_it_is_over(acts in prop::collection::vec(act(), 0..40)) {
        let mut world = World::up(2, 3);
        let mut lives = 1000;
        let cut = std::rc::Rc::new(std::cell::Cell::new([false; 2]));
        let seen = cut.clone();
        world.lost = Box::new(move |from, _| seen.get()[from]);
        for act in acts {
            match act {
                Act::Publish(n, m, len) if world.nodes[n].modules[m].id.is_some() => world.publish(n, m, &vec![b'x'; len]),
                Act::CarrierDies(n) => world.carrier_dies(n),
                Act::RunnerDies(n, m) if world.nodes[n].modules[m].id.is_some() => world.leave(n, m, Departure::RunnerDied),
                Act::Restart(n, m) => {
                    if world.nodes[n].modules[m].id.is_some() {
                        world.leave(n, m, Departure::Silent);
                    }
                    lives += 1;
                    let module = &mut world.nodes[n].modules[m];
                    (module.incarnation, module.version) = (lives, 0);
                    module.known = Known { links: vec![false; 2], ..Known::default() };
                    module.peer = None;
                    world.attach(n, m);
                    world.publish(n, m, b"new life");
                }
                Act::Hang(n, m, hangs) => world.nodes[n].modules[m].runs = !hangs,
                Act::Garbage(n, bytes) => {
                    let stream = world.nodes[n].streams[0];
                    world.nodes[n].carrier.received(world.now, stream, &bytes);
                }
                Act::Cut(from, on) => {
                    let mut both = cut.get();
                    both[from] = on;
                    cut.set(both);
                }
                Act::Wait(ms) => world.run(ms),
                _ => {}
            }
            world.step();
        }
        cut.set([false; 2]);
        for n in 0..2 {
            for m in 0..3 {
                world.nodes[n].modules[m].runs = true;
                if world.nodes[n].modules[m].id.is_none() {
                    lives += 1;
                    let module = &mut world.nodes[n].modules[m];
                    (module.incarnation, module.version) = (lives, 0);
                    module.known = Known { links: vec![false; 2], ..Known::default() };
                    world.attach(n, m);
                    world.publish(n, m, b"last life");
                }
            }
        }
        world.run(3000);
        prop_assert!(world.agrees());
        for node in &world.nodes {
            prop_assert!(node.modules.iter().all(|m| m.known.links == [true, true]));
        }
    }
}
