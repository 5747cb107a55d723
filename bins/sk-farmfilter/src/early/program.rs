//! Which packets are certainly another node's? Pure: the program that drops them before anybody else sees them.
//!
//! It knows less than the rules and only says no: a packet that it drops, the rules would drop as well; one that it does
//! not understand (tagged, a fragment, with options, for an address or a port of no rule) it leaves to them. So what the
//! rules say about leases, connections and messages holds with it and without it.

use crate::mark::SEED;
use crate::plan::Placed;
use crate::spec::{Any, Group, Key, Mode, Proto, Rule, rules_of};
use net::ebpf::Condition::{Equal, Greater, NotEqual};
use net::ebpf::Operation::{Add, And, Move, Or, ShiftLeft, ShiftRight, Subtract, Xor};
use net::ebpf::Register::{self, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};
use net::ebpf::Width::{Byte, Double, Half, Word};
use net::ebpf::{Assembler, Instruction, LOOK_UP, Label};
use net::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use net::jhash::INITIAL;
use net::tcx::{DROP, NEXT};
use std::net::IpAddr;
use std::os::fd::RawFd;

/// What the program reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// A byte for each bucket of each group, one group after the other: not zero where neither the bucket nor a connection
    /// in it is this node's.
    pub foreign: RawFd,
    /// Of each group: packets and bytes that were dropped.
    pub dropped: RawFd,
}

/// Beyond this a program would cost more than the rules that it spares.
const RULES: usize = 256;

// In the descriptor of a packet.
const LENGTH: i16 = 0;
const IS_TAGGED: i16 = 20;
const DATA: i16 = 76;
const DATA_END: i16 = 80;
// In a frame.
const ETHERNET: u32 = 14;
const ETHERNET_TYPE: i16 = 12;
const V4_VERSION: i16 = 14;
const V4_IDENTIFICATION: i16 = 18;
const V4_FRAGMENT: i16 = 20;
const V4_PROTOCOL: i16 = 23;
const V4_SOURCE: i16 = 26;
const V4_DESTINATION: i16 = 30;
const V4_PORTS: i16 = 34;
const V6_PROTOCOL: i16 = 20;
const V6_SOURCE: i16 = 22;
const V6_DESTINATION: i16 = 38;
const V6_PORTS: i16 = 54;
/// Both ports.
const PORTS: u32 = 4;

/// How the bucket of a packet is computed.
type Way = (bool, Key);

/// The program for one interface with these addresses. `None`: there is nothing that it could drop.
pub fn program(addresses: &[&Placed], groups: &[Group], maps: Maps) -> Option<Vec<Instruction>> {
    let mut writer = Writer::new(maps);
    let known: Vec<(IpAddr, Vec<(usize, &Rule)>)> = addresses
        .iter()
        .filter(|placed| placed.mode == Mode::VmacInvisible)
        .map(|placed| (placed.address, rules_of(groups, placed.address).collect::<Vec<_>>()))
        .filter(|(_, rules)| !rules.is_empty())
        .collect();
    let total: usize = known.iter().map(|(_, rules)| rules.len()).sum();
    if known.is_empty() || total > RULES {
        return None;
    }
    let [v4, v6] = [false, true].map(|v6| known.iter().filter(|(ip, _)| ip.is_ipv6() == v6).collect::<Vec<_>>());
    writer.begin(!v4.is_empty(), !v6.is_empty());
    for (is_v6, known) in [(false, v4), (true, v6)] {
        if !known.is_empty() {
            writer.header(is_v6);
            for (address, rules) in known {
                writer.address(*address, rules);
            }
            writer.a.jump(writer.pass);
        }
    }
    writer.ways();
    writer.verdict();
    writer.a.finish()
}

/// `R6` is the descriptor of the packet and `R2` its frame; `R7` the first bucket of the group, once a rule was found.
struct Writer {
    a: Assembler,
    maps: Maps,
    pass: Label,
    judge: Label,
    families: [Label; 2],
    ways: Vec<(Way, Label)>,
}

impl Writer {
    fn new(maps: Maps) -> Self {
        let mut a = Assembler::new();
        let (pass, judge, families) = (a.label(), a.label(), [a.label(), a.label()]);
        Self { a, maps, pass, judge, families, ways: Vec::new() }
    }

    /// Whose protocol is it?
    fn begin(&mut self, v4: bool, v6: bool) {
        let a = &mut self.a;
        a.double(Move, R6, R1);
        a.load(Word, R0, R6, IS_TAGGED);
        a.jump_if(NotEqual, R0, 0, self.pass);
        a.load(Word, R2, R6, DATA);
        a.load(Word, R3, R6, DATA_END);
        a.double(Move, R0, R2);
        a.double(Add, R0, ETHERNET);
        a.jump_if_double(Greater, R0, R3, self.pass);
        a.load(Half, R0, R2, ETHERNET_TYPE);
        let [to_v4, to_v6] = self.families;
        for (known, kind, label) in [(v4, ETHERTYPE_IPV4, to_v4), (v6, ETHERTYPE_IPV6, to_v6)] {
            if known {
                a.jump_if(Equal, R0, u32::from(kind.to_be()), label);
            }
        }
        a.put(self.pass);
        a.word(Move, R0, NEXT.cast_unsigned());
        a.exit();
    }

    /// `R5` becomes the protocol, `R9` the port asked for.
    fn header(&mut self, v6: bool) {
        let [to_v4, to_v6] = self.families;
        let a = &mut self.a;
        a.put(if v6 { to_v6 } else { to_v4 });
        let (ports, protocol) = if v6 { (V6_PORTS, V6_PROTOCOL) } else { (V4_PORTS, V4_PROTOCOL) };
        a.double(Move, R0, R2);
        a.double(Add, R0, u32::from(ports.cast_unsigned()) + PORTS);
        a.jump_if_double(Greater, R0, R3, self.pass);
        if !v6 {
            // No options: the ports are where they are looked for.
            a.load(Byte, R0, R2, V4_VERSION);
            a.jump_if(NotEqual, R0, 0x45, self.pass);
            // Neither a first part of more nor a later one.
            a.load(Half, R0, R2, V4_FRAGMENT);
            a.word(And, R0, u32::from(0x3fff_u16.to_be()));
            a.jump_if(NotEqual, R0, 0, self.pass);
            a.load(Word, R4, R2, V4_DESTINATION);
        }
        a.load(Byte, R5, R2, protocol);
        a.load(Half, R9, R2, ports + 2);
    }

    /// If the packet is for the address, the first rule that it matches decides.
    fn address(&mut self, address: IpAddr, rules: &[(usize, &Rule)]) {
        let other = self.a.label();
        match address {
            IpAddr::V4(v4) => self.a.jump_if(NotEqual, R4, u32::from_ne_bytes(v4.octets()), other),
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                let (words, _) = octets.as_chunks::<4>();
                for (offset, word) in (V6_DESTINATION..).step_by(4).zip(words) {
                    self.a.load(Word, R4, R2, offset);
                    self.a.jump_if(NotEqual, R4, u32::from_ne_bytes(*word), other);
                }
            }
        }
        for (group, rule) in rules {
            let next = self.a.label();
            let protocol = if rule.proto == Proto::Tcp { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP };
            self.a.jump_if(NotEqual, R5, protocol.cast_unsigned(), next);
            if let Any::One(port) = rule.port {
                self.a.jump_if(NotEqual, R9, u32::from(port.to_be()), next);
            }
            self.a.word(Move, R7, (*group as u32) << 8);
            let way = self.way((address.is_ipv6(), rule.filter));
            self.a.jump(way);
            self.a.put(next);
        }
        self.a.jump(self.pass);
        self.a.put(other);
    }

    fn way(&mut self, way: Way) -> Label {
        if let Some((_, label)) = self.ways.iter().find(|(known, _)| *known == way) {
            return *label;
        }
        let label = self.a.label();
        self.ways.push((way, label));
        label
    }

    /// The kernel's `jhash` of what each way looks at, as [`net::jhash::jhash`] computes it: `R0`, `R1` and `R3` are its
    /// three words, `R0` is the result.
    fn ways(&mut self) {
        for ((v6, key), label) in std::mem::take(&mut self.ways) {
            let length = match (v6, key) {
                (_, Key::Ipid) => 2,
                (false, Key::Addr) => 4,
                (false, Key::Port) => 8,
                (true, Key::Addr) => 16,
                (true, Key::Port) => 20,
            };
            let a = &mut self.a;
            a.put(label);
            for register in [R0, R1, R3] {
                a.word(Move, register, INITIAL.wrapping_add(length).wrapping_add(SEED));
            }
            if v6 {
                for (offset, register) in (V6_SOURCE..).step_by(4).zip([R0, R1, R3]) {
                    a.load(Word, R4, R2, offset);
                    a.word(Add, register, R4);
                }
                self.mix();
            }
            // What is left of the key is read byte by byte by the kernel, the lowest first.
            let rest: &[(_, i16, Register)] = match (v6, key) {
                (_, Key::Ipid) => &[(Half, V4_IDENTIFICATION, R0)],
                (false, Key::Addr) => &[(Word, V4_SOURCE, R0)],
                (false, Key::Port) => &[(Word, V4_SOURCE, R0), (Half, V4_PORTS, R1)],
                (true, Key::Addr) => &[(Word, V6_SOURCE + 12, R0)],
                (true, Key::Port) => &[(Word, V6_SOURCE + 12, R0), (Half, V6_PORTS, R1)],
            };
            for (width, offset, register) in rest {
                self.a.load(*width, R4, R2, *offset);
                self.a.little_endian(R4, if *width == Half { 16 } else { 32 });
                self.a.word(Add, *register, R4);
            }
            self.last();
            self.a.jump(self.judge);
        }
    }

    /// `R4` becomes `of`, rotated to the left.
    fn rotated(&mut self, of: Register, bits: u32) {
        self.a.word(Move, R4, of);
        self.a.word(ShiftLeft, R4, bits);
        self.a.word(Move, R5, of);
        self.a.word(ShiftRight, R5, 32 - bits);
        self.a.word(Or, R4, R5);
    }

    /// `__jhash_mix` of `include/linux/jhash.h`.
    fn mix(&mut self) {
        let (a, b, c) = (R0, R1, R3);
        for (to, from, bits, sum) in
            [(a, c, 4, b), (b, a, 6, c), (c, b, 8, a), (a, c, 16, b), (b, a, 19, c), (c, b, 4, a)]
        {
            self.rotated(from, bits);
            self.a.word(Subtract, to, from);
            self.a.word(Xor, to, R4);
            self.a.word(Add, from, sum);
        }
    }

    /// `__jhash_final` of `include/linux/jhash.h`; the result is put into `R0`.
    fn last(&mut self) {
        let (a, b, c) = (R0, R1, R3);
        for (to, with, bits) in [(c, b, 14), (a, c, 11), (b, a, 25), (c, b, 16), (a, c, 4), (b, a, 14), (c, b, 24)] {
            self.rotated(with, bits);
            self.a.word(Xor, to, with);
            self.a.word(Subtract, to, R4);
        }
        self.a.word(Move, R0, c);
    }

    /// `R0` is a hash, of which the highest eight bits are the bucket: the kernel scales it.
    fn verdict(&mut self) {
        let (a, pass) = (&mut self.a, self.pass);
        let end = a.label();
        a.put(self.judge);
        a.word(ShiftRight, R0, 24);
        a.map_value(R1, self.maps.foreign);
        a.double(Add, R1, R7);
        a.double(Add, R1, R0);
        a.load(Byte, R0, R1, 0);
        a.jump_if(Equal, R0, 0, pass);
        a.word(ShiftRight, R7, 8);
        a.store(Word, R10, -4, R7);
        a.double(Move, R2, R10);
        a.double(Add, R2, (-4_i32).cast_unsigned());
        a.map(R1, self.maps.dropped);
        a.call(LOOK_UP);
        a.jump_if_double(Equal, R0, 0, end);
        a.load(Double, R1, R0, 0);
        a.double(Add, R1, 1);
        a.store(Double, R0, 0, R1);
        // Counted like the rules do: without the header of the frame, which is there again at this place.
        a.load(Word, R8, R6, LENGTH);
        a.double(Subtract, R8, ETHERNET);
        a.load(Double, R1, R0, 8);
        a.double(Add, R1, R8);
        a.store(Double, R0, 8, R1);
        a.put(end);
        a.word(Move, R0, DROP.cast_unsigned());
        a.exit();
    }
}
