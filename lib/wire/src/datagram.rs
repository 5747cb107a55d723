//! Which heartbeat packets are genuine: keyed MAC, module, sender, link, and no replays?
//!
//! Layout, big endian: version u8, module tag u32, sender length u8 and name, link length u8 and name, incarnation u64,
//! sequence u64, body, then a MAC of 16 bytes over everything before it.
//!
//! A receiver belongs to one link of one peer. It accepts strictly increasing sequences of one incarnation, and never goes
//! back to an incarnation it has seen replaced. It cannot know what was sent before it started itself: a packet recorded
//! in a former life of the receiver passes once, until the first packet of the peer's present life retires it.

use std::collections::VecDeque;

/// Largest packet in bytes: fits the smallest usual MTU with tunnels.
pub const PACKET_LIMIT: usize = 1400;
const VERSION: u8 = 1;
const MAC_LENGTH: usize = 16;
/// How many replaced incarnations are remembered.
const RETIRED_LIMIT: usize = 256;

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    #[error("the packet is malformed")]
    Malformed,
    #[error("the packet has version {0}; this node speaks version {VERSION}")]
    Version(u8),
    #[error("the packet belongs to another module")]
    ForeignModule,
    #[error("the packet was made with another cluster key, or changed on its way")]
    WrongKey,
    #[error("the packet comes from another node or link than expected")]
    ForeignSender,
    #[error("the packet was seen before, or is older than one seen before")]
    Replay,
    #[error("the packet would have more than {PACKET_LIMIT} bytes")]
    TooLong,
}

/// Authenticates what one node sends over one link.
pub struct Sender {
    key: [u8; 32],
    head: Vec<u8>,
    sequence: u64,
}

/// A genuine packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    pub incarnation: u64,
    pub sequence: u64,
    pub body: &'a [u8],
}

/// Checks what one peer sends over one link.
pub struct Receiver {
    /// Any of them: the keys of a cluster while they are being renewed.
    keys: Vec<[u8; 32]>,
    module: [u8; 4],
    sender: String,
    link: String,
    /// Present incarnation and its last sequence.
    last: Option<(u64, u64)>,
    retired: VecDeque<u64>,
}

fn module_tag(module: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = *blake3::hash(module.as_bytes()).as_bytes();
    [a, b, c, d]
}

fn mac(key: &[u8; 32], bytes: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(key, bytes)
}

/// Comparison whose duration does not depend on where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

impl Sender {
    /// `key` from `ClusterKey::datagram_key`. `incarnation` is random and new with each life of the sender.
    pub fn new(key: [u8; 32], module: &str, sender: &str, link: &str, incarnation: u64) -> Result<Self, DatagramError> {
        let mut head = vec![VERSION];
        head.extend_from_slice(&module_tag(module));
        for name in [sender, link] {
            head.push(u8::try_from(name.len()).map_err(|_| DatagramError::TooLong)?);
            head.extend_from_slice(name.as_bytes());
        }
        head.extend_from_slice(&incarnation.to_be_bytes());
        Ok(Self { key, head, sequence: 0 })
    }

    /// The next packets are made with another key.
    pub fn set_key(&mut self, key: [u8; 32]) {
        self.key = key;
    }

    /// Replaces `packet` by the next packet around `body`.
    pub fn seal(&mut self, body: &[u8], packet: &mut Vec<u8>) -> Result<(), DatagramError> {
        if self.head.len() + 8 + body.len() + MAC_LENGTH > PACKET_LIMIT {
            return Err(DatagramError::TooLong);
        }
        self.sequence = self.sequence.checked_add(1).ok_or(DatagramError::TooLong)?;
        packet.clear();
        packet.extend_from_slice(&self.head);
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(body);
        let hash = mac(&self.key, packet);
        packet.extend_from_slice(hash.as_bytes().get(..MAC_LENGTH).unwrap_or_default());
        Ok(())
    }
}

/// Takes bytes off the front of a packet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DatagramError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(DatagramError::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DatagramError> {
        self.take(N)?.try_into().map_err(|_| DatagramError::Malformed)
    }

    fn name(&mut self) -> Result<&'a [u8], DatagramError> {
        let [length] = self.array()?;
        self.take(usize::from(length))
    }
}

impl Receiver {
    /// Expects packets that `sender` sends over `link`.
    pub fn new(key: [u8; 32], module: &str, sender: &str, link: &str) -> Self {
        Self {
            keys: vec![key],
            module: module_tag(module),
            sender: sender.to_owned(),
            link: link.to_owned(),
            last: None,
            retired: VecDeque::new(),
        }
    }

    /// From now on packets are accepted that were made with any of these keys.
    pub fn set_keys(&mut self, keys: &[[u8; 32]]) {
        self.keys = keys.to_vec();
    }

    /// Checks a packet; nothing of it is believed before its MAC was.
    pub fn open<'a>(&mut self, packet: &'a [u8]) -> Result<Received<'a>, DatagramError> {
        if packet.len() > PACKET_LIMIT {
            return Err(DatagramError::TooLong);
        }
        let mut cursor = Cursor(packet);
        match cursor.array()? {
            [VERSION] => {}
            [other] => return Err(DatagramError::Version(other)),
        }
        if cursor.array::<4>()? != self.module {
            return Err(DatagramError::ForeignModule);
        }
        let cut = packet.len().checked_sub(MAC_LENGTH).ok_or(DatagramError::Malformed)?;
        let (signed, tag) = packet.split_at_checked(cut).ok_or(DatagramError::Malformed)?;
        let genuine = |key| same(mac(key, signed).as_bytes().get(..MAC_LENGTH).unwrap_or_default(), tag);
        if !self.keys.iter().any(genuine) {
            return Err(DatagramError::WrongKey);
        }
        let mut cursor = Cursor(signed);
        cursor.take(5)?;
        if cursor.name()? != self.sender.as_bytes() || cursor.name()? != self.link.as_bytes() {
            return Err(DatagramError::ForeignSender);
        }
        let incarnation = u64::from_be_bytes(cursor.array()?);
        let sequence = u64::from_be_bytes(cursor.array()?);
        if let Some((present, seen)) = self.last {
            if present == incarnation {
                if sequence <= seen {
                    return Err(DatagramError::Replay);
                }
            } else if self.retired.contains(&incarnation) {
                return Err(DatagramError::Replay);
            } else {
                if self.retired.len() == RETIRED_LIMIT {
                    self.retired.pop_front();
                }
                self.retired.push_back(present);
            }
        }
        self.last = Some((incarnation, sequence));
        Ok(Received { incarnation, sequence, body: cursor.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Sender, Receiver) {
        (Sender::new([1; 32], "AM", "node1", "default", 5).unwrap(), Receiver::new([1; 32], "AM", "node1", "default"))
    }

    #[test]
    fn a_packet_is_accepted_once_and_in_order() {
        let (mut sender, mut receiver) = pair();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        sender.seal(b"{}", &mut first).unwrap();
        sender.seal(b"{\"a\":1}", &mut second).unwrap();
        assert_eq!(receiver.open(&second).unwrap(), Received { incarnation: 5, sequence: 2, body: b"{\"a\":1}" });
        assert_eq!(receiver.open(&second), Err(DatagramError::Replay));
        assert_eq!(receiver.open(&first), Err(DatagramError::Replay));
    }

    #[test]
    fn a_key_is_renewed_without_losing_a_packet_or_taking_one_twice() {
        let (mut sender, mut receiver) = pair();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        sender.seal(b"old", &mut old).unwrap();
        receiver.set_keys(&[[1; 32], [2; 32]]);
        receiver.open(&old).unwrap();
        sender.set_key([2; 32]);
        sender.seal(b"new", &mut new).unwrap();
        assert_eq!(receiver.open(&new).unwrap().body, b"new");
        assert_eq!(receiver.open(&old), Err(DatagramError::Replay));
        receiver.set_keys(&[[2; 32]]);
        assert_eq!(receiver.open(&old), Err(DatagramError::WrongKey));
    }

    #[test]
    fn a_replaced_incarnation_does_not_come_back() {
        let (mut old, mut receiver) = pair();
        let mut new = Sender::new([1; 32], "AM", "node1", "default", 6).unwrap();
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        old.seal(b"", &mut a).unwrap();
        old.seal(b"", &mut b).unwrap();
        new.seal(b"", &mut c).unwrap();
        receiver.open(&a).unwrap();
        receiver.open(&c).unwrap();
        assert_eq!(receiver.open(&b), Err(DatagramError::Replay));
    }

    #[test]
    fn each_foreign_origin_is_named() {
        let mut packet = Vec::new();
        for (key, module, node, link, expected) in [
            ([2; 32], "AM", "node1", "default", DatagramError::WrongKey),
            ([1; 32], "BM", "node1", "default", DatagramError::ForeignModule),
            ([1; 32], "AM", "node2", "default", DatagramError::ForeignSender),
            ([1; 32], "AM", "node1", "repl", DatagramError::ForeignSender),
        ] {
            Sender::new(key, module, node, link, 1).unwrap().seal(b"{}", &mut packet).unwrap();
            assert_eq!(pair().1.open(&packet), Err(expected));
        }
        let (mut sender, _) = pair();
        assert_eq!(sender.seal(&[0; PACKET_LIMIT], &mut packet), Err(DatagramError::TooLong));
        assert_eq!(pair().1.open(&[9]), Err(DatagramError::Version(9)));
        assert_eq!(pair().1.open(&[]), Err(DatagramError::Malformed));
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(pair().1.open(&bytes).is_err());
        }

        #[test]
        fn any_changed_bit_is_refused(body in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let (mut sender, mut receiver) = pair();
            let mut packet = Vec::new();
            sender.seal(&body, &mut packet).unwrap();
            let mut changed = packet.clone();
            changed[at.index(packet.len())] ^= 1_u8 << bit;
            prop_assert!(receiver.open(&changed).is_err());
            prop_assert_eq!(receiver.open(&packet).unwrap().body, body.as_slice());
        }

        #[test]
        fn truncated_packets_are_refused(keep in 0_usize..60) {
            let (mut sender, mut receiver) = pair();
            let mut packet = Vec::new();
            sender.seal(b"0123456789012345", &mut packet).unwrap();
            packet.truncate(keep.min(packet.len() - 1));
            prop_assert!(receiver.open(&packet).is_err());
        }
    }
}
