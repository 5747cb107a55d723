//! Which packets between two nodes are genuine, and fresh: keyed MAC, sender, receiver, addresses, no replays?
//!
//! Layout, big endian: version u8, path tag u64, incarnation u64, sequence u64, echo u64, wall clock u64 (ms since 1970), body,
//! then a MAC of 16 bytes over everything before it. The tag stands for the names of sender and receiver and both addresses:
//! a packet of one path is none of another.
//!
//! **Replays.** Within one incarnation a window of 64 sequences lets packets overtake each other, each once. An incarnation that
//! was replaced never comes back. A new one must be fresh, which is known in one of two ways: it echoes the receiver's own
//! incarnation, which is random; or its wall clock is within [`CLOCKS_MS`] of the receiver's and not before what the present
//! incarnation showed. A packet that is neither is refused, but its incarnation is echoed once, so that two nodes that hear each
//! other get to know each other whatever their clocks say. So what was recorded earlier is refused, and a peer that cannot hear us (a cable broken in one
//! direction) is believed while the clocks are right.

use std::collections::VecDeque;
use std::net::IpAddr;

/// Largest packet in bytes: fits the smallest usual MTU with tunnels.
pub const PACKET_LIMIT: usize = 1400;
/// Largest body in bytes.
pub const BODY_LIMIT: usize = PACKET_LIMIT - HEAD_LENGTH - MAC_LENGTH;
/// Clocks of two nodes that differ by less than this can tell what is old, in milliseconds.
pub const CLOCKS_MS: u64 = 60_000;

/// Version 1 was a packet of one module.
const VERSION: u8 = 2;
const HEAD_LENGTH: usize = 41;
const MAC_LENGTH: usize = 16;
/// How many replaced incarnations are remembered.
const RETIRED_LIMIT: usize = 256;

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the packet is malformed")]
    Malformed,
    #[error("the packet has version {0}; this node speaks version {VERSION}")]
    Version(u8),
    #[error("the packet was made with another cluster key, or changed on its way")]
    WrongKey,
    #[error("the packet belongs to other nodes or to another link")]
    ForeignPath,
    #[error("the packet was seen before, or its sender was replaced since")]
    Replay,
    #[error("the packet may be old: its sender does not know us yet, and the clocks of the nodes differ")]
    Stale,
}

/// One direction of a path between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction<'a> {
    /// Name and address of the node that sends.
    pub from: (&'a str, IpAddr),
    /// Name and address of the node that receives.
    pub to: (&'a str, IpAddr),
}

impl Direction<'_> {
    fn tag(&self) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        for (name, address) in [self.from, self.to] {
            hasher.update(&(name.len() as u64).to_be_bytes()).update(name.as_bytes());
            hasher.update(address.to_string().as_bytes()).update(&[0]);
        }
        hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

/// The tag of a module in packets.
pub fn module_tag(module: &str) -> u64 {
    u64::from_be_bytes(blake3::hash(module.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default())
}

/// A new incarnation: random, not 0.
pub fn random_incarnation() -> std::io::Result<u64> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    Ok(u64::from_ne_bytes(random).max(1))
}

/// Makes the packets of one direction.
pub struct Sealer {
    key: [u8; 32],
    head: [u8; 17],
    sequence: u64,
}

/// Opens the packets of one direction.
pub struct Opener {
    /// Any of them: the keys of a cluster while they are being renewed.
    keys: Vec<[u8; 32]>,
    tag: [u8; 8],
    own: u64,
    present: Option<Window>,
    /// The incarnation of a packet that may be old: answered, to find out.
    candidate: Option<u64>,
    retired: VecDeque<u64>,
}

/// The sequences of an incarnation that were seen: the newest one, and which of the 64 up to it.
struct Window {
    incarnation: u64,
    newest: u64,
    seen: u64,
    /// The latest wall clock it showed.
    wall: u64,
}

impl Sealer {
    /// `key` is `ClusterKey::path_key`, or the key of one module. `incarnation` is new with each `Sealer`: see [`random_incarnation`].
    /// The peer never takes the same numbers of one incarnation twice.
    pub fn new(key: [u8; 32], direction: &Direction, incarnation: u64) -> Self {
        let mut head = [0; 17];
        let (version, rest) = head.split_at_mut(1);
        version.fill(VERSION);
        let (tag, life) = rest.split_at_mut(8);
        tag.copy_from_slice(&direction.tag());
        life.copy_from_slice(&incarnation.to_be_bytes());
        Self { key, head, sequence: 0 }
    }

    /// The next packets are made with another key.
    pub fn set_key(&mut self, key: [u8; 32]) {
        self.key = key;
    }

    /// Replaces `packet` by the next packet around `body`, which has at most [`BODY_LIMIT`] bytes. `echo`: see [`Opener::echo`].
    pub fn seal(&mut self, echo: u64, wall_ms: u64, body: &[u8], packet: &mut Vec<u8>) {
        // 2^64 packets are never sent.
        self.sequence = self.sequence.wrapping_add(1);
        packet.clear();
        packet.extend_from_slice(&self.head);
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&echo.to_be_bytes());
        packet.extend_from_slice(&wall_ms.to_be_bytes());
        packet.extend_from_slice(body);
        let hash = blake3::keyed_hash(&self.key, packet);
        packet.extend_from_slice(hash.as_bytes().get(..MAC_LENGTH).unwrap_or_default());
    }
}

impl Opener {
    /// `own`: our incarnation on the way back.
    pub fn new(key: [u8; 32], direction: &Direction, own: u64) -> Self {
        Self { keys: vec![key], tag: direction.tag(), own, present: None, candidate: None, retired: VecDeque::new() }
    }

    /// From now on packets are accepted that were made with any of these keys. What was seen stays seen: a sender that changes its
    /// key goes on counting.
    pub fn set_keys(&mut self, keys: &[[u8; 32]]) {
        self.keys = keys.to_vec();
    }

    /// What our next packet must echo: the peer's present incarnation, 0 when it is not known; or once one that is on trial.
    pub fn echo(&mut self) -> u64 {
        self.candidate.take().unwrap_or_else(|| self.present.as_ref().map_or(0, |w| w.incarnation))
    }

    /// Checks a packet and gives its body; nothing of it is believed before its MAC was.
    pub fn open<'a>(&mut self, wall_ms: u64, packet: &'a [u8]) -> Result<&'a [u8], Refused> {
        match packet.first() {
            Some(&VERSION) => {}
            Some(other) => return Err(Refused::Version(*other)),
            None => return Err(Refused::Malformed),
        }
        if packet.len() < HEAD_LENGTH + MAC_LENGTH || packet.len() > PACKET_LIMIT {
            return Err(Refused::Malformed);
        }
        let (signed, mac) = packet.split_at_checked(packet.len() - MAC_LENGTH).ok_or(Refused::Malformed)?;
        let genuine = self.keys.iter().any(|key| {
            let hash = blake3::keyed_hash(key, signed);
            let expected = hash.as_bytes().get(..MAC_LENGTH).unwrap_or_default();
            // The duration does not depend on where the first difference is.
            expected.iter().zip(mac).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
        });
        if !genuine {
            return Err(Refused::WrongKey);
        }
        let (head, body) = signed.split_at_checked(HEAD_LENGTH).ok_or(Refused::Malformed)?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 8).and_then(|b| b.try_into().ok());
            bytes.map(u64::from_be_bytes).ok_or(Refused::Malformed)
        };
        if number(1)? != u64::from_be_bytes(self.tag) {
            return Err(Refused::ForeignPath);
        }
        let (incarnation, sequence, echo, wall) = (number(9)?, number(17)?, number(25)?, number(33)?);
        match &mut self.present {
            Some(window) if window.incarnation == incarnation => {
                window.admit(sequence)?;
                window.wall = window.wall.max(wall);
            }
            _ if self.retired.contains(&incarnation) => return Err(Refused::Replay),
            present => {
                let later = present.as_ref().is_none_or(|w| wall >= w.wall);
                if echo != self.own && !(later && wall.abs_diff(wall_ms) <= CLOCKS_MS) {
                    self.candidate = Some(incarnation);
                    return Err(Refused::Stale);
                }
                let former = present.replace(Window { incarnation, newest: sequence, seen: 1, wall });
                if let Some(former) = former {
                    if self.retired.len() == RETIRED_LIMIT {
                        self.retired.pop_front();
                    }
                    self.retired.push_back(former.incarnation);
                }
            }
        }
        Ok(body)
    }
}

impl Window {
    fn admit(&mut self, sequence: u64) -> Result<(), Refused> {
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = if ahead < 64 { self.seen << ahead | 1 } else { 1 };
            self.newest = sequence;
            return Ok(());
        }
        let behind = self.newest - sequence;
        if behind >= 64 || self.seen & 1 << behind != 0 {
            return Err(Refused::Replay);
        }
        self.seen |= 1 << behind;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000_000;
    const KEY: [u8; 32] = [1; 32];

    fn there() -> Direction<'static> {
        Direction { from: ("node1", IpAddr::from([10, 0, 0, 1])), to: ("node2", IpAddr::from([10, 0, 0, 2])) }
    }

    fn packet(sealer: &mut Sealer, echo: u64, wall: u64, body: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        sealer.seal(echo, wall, body, &mut packet);
        packet
    }

    #[test]
    fn packets_may_overtake_each_other_and_come_once() {
        let (mut sealer, mut opener) = (Sealer::new(KEY, &there(), 5), Opener::new(KEY, &there(), 9));
        assert_eq!(opener.echo(), 0);
        let packets: Vec<_> = (0..100_u8).map(|n| packet(&mut sealer, 0, NOW, &[n])).collect();
        for n in [0, 2, 1, 70, 60] {
            assert_eq!(opener.open(NOW, &packets[n]), Ok([n as u8].as_slice()));
        }
        for n in [0, 1, 2, 60, 70, 6] {
            assert_eq!(opener.open(NOW, &packets[n]), Err(Refused::Replay), "{n}");
        }
        assert_eq!(opener.echo(), 5);
    }

    #[test]
    fn a_key_is_renewed_without_losing_a_packet_or_taking_one_twice() {
        let (mut sealer, mut opener) = (Sealer::new(KEY, &there(), 5), Opener::new(KEY, &there(), 9));
        let old = packet(&mut sealer, 0, NOW, b"old");
        opener.set_keys(&[KEY, [2; 32]]);
        opener.open(NOW, &old).unwrap();
        sealer.set_key([2; 32]);
        let new = packet(&mut sealer, 0, NOW, b"new");
        assert_eq!(opener.open(NOW, &new), Ok(b"new".as_slice()));
        for packet in [&old, &new] {
            assert_eq!(opener.open(NOW, packet), Err(Refused::Replay));
        }
        opener.set_keys(&[[2; 32]]);
        assert_eq!(opener.open(NOW, &old), Err(Refused::WrongKey));
    }

    #[test]
    fn a_replaced_life_does_not_come_back() {
        let mut opener = Opener::new(KEY, &there(), 9);
        let (mut old, mut new) = (Sealer::new(KEY, &there(), 5), Sealer::new(KEY, &there(), 6));
        opener.open(NOW, &packet(&mut old, 0, NOW, b"")).unwrap();
        opener.open(NOW, &packet(&mut new, 0, NOW, b"")).unwrap();
        assert_eq!(opener.open(NOW, &packet(&mut old, 9, NOW, b"")), Err(Refused::Replay));
    }

    #[test]
    fn what_was_recorded_earlier_is_stale_unless_it_answers_us() {
        let mut opener = Opener::new(KEY, &there(), 9);
        let mut sealer = Sealer::new(KEY, &there(), 5);
        for wall in [0, NOW - CLOCKS_MS - 1, NOW + CLOCKS_MS + 1, u64::MAX] {
            assert_eq!(opener.open(NOW, &packet(&mut sealer, 8, wall, b"")), Err(Refused::Stale));
        }
        // A clock that was never set is no obstacle to a peer that hears us, and is asked no more once it is known.
        opener.open(NOW, &packet(&mut sealer, 9, 0, b"")).unwrap();
        opener.open(NOW, &packet(&mut sealer, 0, 0, b"")).unwrap();
        // A life that ended a moment ago does not replace the present one of which we have heard.
        let mut known = Opener::new(KEY, &there(), 9);
        let (mut former, mut present) = (Sealer::new(KEY, &there(), 3), Sealer::new(KEY, &there(), 4));
        let recorded = packet(&mut former, 7, NOW - 10_000, b"");
        known.open(NOW, &packet(&mut present, 0, NOW, b"")).unwrap();
        assert_eq!(known.open(NOW, &recorded), Err(Refused::Stale));
        known.open(NOW, &packet(&mut present, 0, NOW, b"")).unwrap();
        known.open(NOW, &packet(&mut Sealer::new(KEY, &there(), 6), 0, NOW + 50_000, b"")).unwrap();
    }

    #[test]
    fn nodes_with_wrong_clocks_get_to_know_each_other_and_each_others_successors() {
        let back = Direction { from: there().to, to: there().from };
        let side = |out: &Direction<'static>, into: &Direction<'static>, life| {
            (Sealer::new(KEY, out, life), Opener::new(KEY, into, life))
        };
        let (hour, mut a, mut b) = (3_600_000, side(&there(), &back, 5), side(&back, &there(), 6));
        for life in [5, 7, 8] {
            if life > 5 {
                a = side(&there(), &back, life);
            }
            let mut passed = [false; 2];
            for _ in 0..4 {
                let from_a = packet(&mut a.0, a.1.echo(), NOW - hour * life, b"");
                passed[0] = b.1.open(NOW, &from_a).is_ok();
                let from_b = packet(&mut b.0, b.1.echo(), NOW, b"");
                passed[1] = a.1.open(NOW - hour * life, &from_b).is_ok();
            }
            assert_eq!(passed, [true, true], "{life}");
            assert_eq!((a.1.echo(), b.1.echo()), (6, life));
        }
    }

    #[test]
    fn each_foreign_origin_is_named() {
        let far = IpAddr::from([10, 0, 0, 3]);
        for (key, direction, expected) in [
            ([2; 32], there(), Refused::WrongKey),
            (KEY, Direction { from: there().to, to: there().from }, Refused::ForeignPath),
            (KEY, Direction { from: ("node1", far), ..there() }, Refused::ForeignPath),
            (KEY, Direction { from: ("node", there().from.1), ..there() }, Refused::ForeignPath),
            (KEY, Direction { to: ("node3", there().to.1), ..there() }, Refused::ForeignPath),
        ] {
            let packet = packet(&mut Sealer::new(key, &direction, 1), 9, NOW, b"{}");
            assert_eq!(Opener::new(KEY, &there(), 9).open(NOW, &packet), Err(expected));
        }
        let mut opener = Opener::new(KEY, &there(), 9);
        assert_eq!(opener.open(NOW, &[1, 2, 3]), Err(Refused::Version(1)));
        assert_eq!(opener.open(NOW, &[]), Err(Refused::Malformed));
        let packet = packet(&mut Sealer::new(KEY, &there(), 1), 9, NOW, &[0; BODY_LIMIT + 1]);
        assert_eq!(opener.open(NOW, &packet), Err(Refused::Malformed));
    }

    proptest! {
        #[test]
        fn garbage_is_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..1500), version: bool) {
            if let Some(first) = bytes.first_mut().filter(|_| version) {
                *first = VERSION;
            }
            prop_assert!(Opener::new(KEY, &there(), 9).open(NOW, &bytes).is_err());
        }

        #[test]
        fn any_changed_bit_and_any_cut_is_refused(body in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let whole = packet(&mut Sealer::new(KEY, &there(), 5), 9, NOW, &body);
            let mut changed = whole.clone();
            changed[at.index(whole.len())] ^= 1_u8 << bit;
            let mut opener = Opener::new(KEY, &there(), 9);
            prop_assert!(opener.open(NOW, &changed).is_err());
            prop_assert!(opener.open(NOW, &whole[..at.index(whole.len())]).is_err());
            prop_assert_eq!(opener.open(NOW, &whole), Ok(body.as_slice()));
        }

        #[test]
        fn no_packet_passes_twice(order in prop::collection::vec(0_usize..150, 0..300)) {
            let (mut sealer, mut opener) = (Sealer::new(KEY, &there(), 5), Opener::new(KEY, &there(), 9));
            let packets: Vec<_> = (0..150).map(|_| packet(&mut sealer, 9, NOW, b"")).collect();
            let mut passed = std::collections::BTreeSet::new();
            let mut newest = None;
            for n in order {
                let fresh = opener.open(NOW, &packets[n]).is_ok();
                prop_assert!(!fresh || passed.insert(n));
                prop_assert!(fresh || newest.is_some_and(|m| n <= m));
                newest = newest.max(Some(n));
            }
        }
    }
}
