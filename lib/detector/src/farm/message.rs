//! What do farm nodes say to each other, in bytes? Everything that comes in is bounded and checked here.
//!
//! A datagram is a version byte, a kind byte and a body of at most [`DATAGRAM_LIMIT`] bytes in all, big endian. The shell adds
//! authentication. Kind 1: a count byte and that many records, the sender's own first, then those it passes on. Kind 2: a part of
//! the body of a proposed view.

use share::NODES;

/// Most bytes of a datagram, before the shell's authentication is added.
pub const DATAGRAM_LIMIT: usize = 1200;
const VERSION: u8 = 1;
const RECORDS: u8 = 1;
const PART: u8 = 2;
/// Bytes of a view's body in one part.
pub(super) const PART_BYTES: usize = 1000;
/// Parts of the largest view: 32 groups.
pub(super) const PARTS_LIMIT: usize = 64;
/// Generations beyond this are nonsense; below it, adding one never wraps.
const GENERATION_LIMIT: u64 = 1 << 62;

/// Which view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ViewId {
    /// 0: none.
    pub generation: u64,
    pub hash: u64,
}

impl ViewId {
    pub fn is_none(self) -> bool {
        self.generation == 0
    }
}

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub node: u8,
    /// New with each life of the node's process, and greater than that of the life before, unless its clock was set back.
    pub incarnation: u64,
    /// Grows with each datagram of its own.
    pub sequence: u32,
    pub configuration: u64,
    pub open: bool,
    pub leaving: bool,
    /// The node ends; its kernel accepts nothing any more.
    pub gone: bool,
    /// Its kernel accepts nothing beyond its share in `view`.
    pub released: bool,
    /// Somebody serves in `view`.
    pub serving: bool,
    /// It accepts nothing itself because of a node outside `view`.
    pub yields: bool,
    /// Bit n: heard from node n, by any path, within its timeout.
    pub hears: u32,
    /// Bit n: node n's own datagrams arrive.
    pub direct: u32,
    /// Bit n: node n flaps and is not admitted yet.
    pub held: u32,
    pub view: ViewId,
    /// Bit n: node n is a member of `view`.
    pub members: u32,
    /// Agreed to, not yet in use.
    pub accepted: ViewId,
    /// Per node: low half of the newest sequence heard from it.
    pub heard: Vec<u16>,
}

/// A part of the body of a proposed view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub proposer: u8,
    pub incarnation: u64,
    pub view: ViewId,
    pub index: u8,
    pub count: u8,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Records(Vec<Record>),
    Part(Part),
}

/// Takes numbers off the front.
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn node(&mut self) -> Option<u8> {
        self.u8().filter(|node| usize::from(*node) < NODES)
    }

    fn view(&mut self) -> Option<ViewId> {
        Some(ViewId { generation: self.u64().filter(|g| *g < GENERATION_LIMIT)?, hash: self.u64()? })
    }
}

impl ViewId {
    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.hash.to_be_bytes());
    }
}

impl Record {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.node);
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.configuration.to_be_bytes());
        let flags = [self.open, self.leaving, self.gone, self.released, self.serving, self.yields];
        out.push(flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag)));
        for mask in [self.hears, self.direct, self.held, self.members] {
            out.extend_from_slice(&mask.to_be_bytes());
        }
        self.view.encode(out);
        self.accepted.encode(out);
        out.push(self.heard.len() as u8);
        out.extend(self.heard.iter().flat_map(|sequence| sequence.to_be_bytes()));
    }

    fn decode(c: &mut Cursor) -> Option<Self> {
        let (node, incarnation, sequence, configuration) = (c.node()?, c.u64()?, c.u32()?, c.u64()?);
        let flags = c.u8()?;
        let flag = |n: u8| flags >> n & 1 == 1;
        let (hears, direct, held, members) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
        let (view, accepted) = (c.view()?, c.view()?);
        let count = usize::from(c.u8()?);
        if count > NODES {
            return None;
        }
        let heard = (0..count).map(|_| c.u16()).collect::<Option<_>>()?;
        Some(Self {
            node,
            incarnation,
            sequence,
            configuration,
            open: flag(0),
            leaving: flag(1),
            gone: flag(2),
            released: flag(3),
            serving: flag(4),
            yields: flag(5),
            hears,
            direct,
            held,
            view,
            members,
            accepted,
            heard,
        })
    }
}

/// Datagrams with these records, each beginning with the first one.
pub(super) fn datagrams(records: &[Record]) -> Vec<Vec<u8>> {
    let Some((own, others)) = records.split_first() else { return Vec::new() };
    let begin = || {
        let mut bytes = vec![VERSION, RECORDS, 1];
        own.encode(&mut bytes);
        bytes
    };
    let mut all = vec![begin()];
    for record in others {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        if all.last().is_none_or(|last| last.len() + bytes.len() > DATAGRAM_LIMIT) {
            all.push(begin());
        }
        if let Some(last) = all.last_mut() {
            last.extend_from_slice(&bytes);
            if let Some(count) = last.get_mut(2) {
                *count += 1;
            }
        }
    }
    all
}

impl Part {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, PART, self.proposer];
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        self.view.encode(&mut out);
        out.extend_from_slice(&[self.index, self.count]);
        out.extend_from_slice(&self.bytes);
        out
    }
}

/// `None`: not a datagram of ours, or of another version.
pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
    if bytes.len() > DATAGRAM_LIMIT {
        return None;
    }
    let mut c = Cursor(bytes);
    if c.u8()? != VERSION {
        return None;
    }
    match c.u8()? {
        RECORDS => {
            let count = c.u8()?;
            let records = (0..count).map(|_| Record::decode(&mut c)).collect::<Option<Vec<_>>>()?;
            (c.0.is_empty() && !records.is_empty()).then_some(Message::Records(records))
        }
        PART => {
            let (proposer, incarnation, view, index, count) = (c.node()?, c.u64()?, c.view()?, c.u8()?, c.u8()?);
            let lawful = index < count && usize::from(count) <= PARTS_LIMIT && !view.is_none();
            (lawful && c.0.len() <= PART_BYTES)
                .then(|| Message::Part(Part { proposer, incarnation, view, index, count, bytes: c.0.to_vec() }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(node: u8) -> Record {
        Record {
            node,
            incarnation: 7,
            sequence: 9,
            configuration: 3,
            open: true,
            released: true,
            hears: 0b101,
            held: 1 << 31,
            view: ViewId { generation: 4, hash: 5 },
            members: 0b111,
            heard: vec![1; NODES],
            ..Record::default()
        }
    }

    #[test]
    fn what_is_said_is_understood_in_datagrams_of_bounded_size() {
        let records: Vec<Record> = (0..32).map(record).collect();
        let all = datagrams(&records);
        let mut heard = Vec::new();
        for bytes in &all {
            assert!(bytes.len() <= DATAGRAM_LIMIT);
            let Some(Message::Records(mut some)) = decode(bytes) else { panic!("not understood") };
            assert_eq!(some.remove(0), records[0]);
            heard.extend(some);
        }
        assert_eq!(heard, records[1..]);
        let part =
            Part { proposer: 3, incarnation: 1, view: record(0).view, index: 1, count: 2, bytes: vec![1; PART_BYTES] };
        assert!(part.encode().len() <= DATAGRAM_LIMIT);
        assert_eq!(decode(&part.encode()), Some(Message::Part(part)));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = datagrams(&[record(1)]).remove(0);
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut]), None);
        }
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            decode(&bytes)
        };
        assert_eq!(changed(0, 2), None, "another version");
        assert_eq!(changed(1, 9), None, "another kind");
        assert_eq!(changed(2, 2), None, "fewer records than announced");
        assert_eq!(changed(3, 32), None, "no such node");
        let mut long = good.clone();
        long.push(0);
        assert_eq!(decode(&long), None, "something behind the records");
    }

    proptest! {
        #[test]
        fn garbage_does_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..1300), kind in 0..4_u8) {
            let _ = decode(&bytes);
            if let [version, second, ..] = bytes.as_mut_slice() {
                (*version, *second) = (VERSION, kind);
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn a_changed_byte_does_no_harm(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = datagrams(&[record(1), record(2)]).remove(0);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode(&bytes);
        }
    }
}
