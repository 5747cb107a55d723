//! Which frames has the secondary not settled yet, also when the process that made them is dead.
//!
//! The ring lives in a memory file that the runner keeps (descriptor `ring`). The first page holds two headers and the byte that says which
//! of them counts; frames follow, one after the other, wrapping around. **Frame first, then the header that does not count, then the byte
//! that publishes both**: a process killed before the last step leaves a frame that nobody sees, and its request, still in its
//! slot, is replayed and recorded again. See [`super::memory`] for why the order of the steps survives the process.
//! The index of frame ends is memory of the process only; a successor finds it again by walking the headers.

use super::frame::{self, FrameError};
use super::memory::{Mapped, Memory};
use super::message::StreamId;
use crate::recorder::Position;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

/// Bytes of unacknowledged frames up to which requests are admitted.
pub const WINDOW: u64 = 32 * 1024 * 1024;
/// Room above the window for what was admitted before it filled, and for steps of the resynchronisation.
pub const HEADROOM: u64 = 32 * 1024 * 1024;

const HEADER: u64 = 4096;
const MAGIC: u64 = 0x736b_7269_6e67_0002;
/// Bytes of each of the two headers, which lie one behind the other.
const SLOT: u64 = 128;
/// The byte that says which header counts, 0 or 1.
const CURRENT: u64 = 2 * SLOT;

/// Why a ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("the memory of the ring cannot be accessed: {0}")]
    Io(#[from] io::Error),
    #[error("the ring is not one of ours, or damaged: {0}")]
    Damaged(&'static str),
    #[error("the ring holds a damaged frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the ring is full")]
    Full,
}

/// The published state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    stream: StreamId,
    /// Offsets grow for ever; the place in the memory is the distance from `base` modulo the capacity.
    head: u64,
    tail: u64,
    /// Position of the last operation, whether a frame of it exists or not.
    position: Position,
    /// Position before the first frame that is still here.
    settled: Position,
    /// Another name of the place at which this stream began (see [`Ring::origin`]).
    origin_stream: StreamId,
    origin: Position,
    /// An offset at which the ring was empty, and began at its first byte again: memory that was used is used again, and no more than needed.
    base: u64,
}

/// Frames between what the secondary settled and what was recorded last.
pub struct Ring<M: Memory> {
    memory: M,
    capacity: u64,
    header: Header,
    /// Which of the two headers counts.
    current: u8,
    /// Position and end offset of every frame held, in order.
    index: VecDeque<(Position, u64)>,
}

impl<M: Memory> Ring<M> {
    /// Size of the memory needed for `capacity` bytes of frames.
    const fn memory_size(capacity: u64) -> u64 {
        HEADER + capacity
    }

    /// An empty ring whose next frame follows `position`.
    pub fn create(memory: M, capacity: u64, stream: StreamId, position: Position) -> Result<Self, RingError> {
        let header = Header {
            stream,
            head: 0,
            tail: 0,
            position,
            settled: position,
            origin_stream: stream,
            origin: position,
            base: 0,
        };
        let mut ring = Self { memory, capacity, header, current: 0, index: VecDeque::new() };
        ring.publish()?;
        Ok(ring)
    }

    /// Continues a ring left by another process.
    pub fn open(memory: M, capacity: u64) -> Result<Self, RingError> {
        let (mut bytes, mut current) = ([0; SLOT as usize], [0]);
        memory.read_at(CURRENT, &mut current)?;
        let current @ 0..=1 = current[0] else { return Err(RingError::Damaged("header")) };
        memory.read_at(u64::from(current) * SLOT, &mut bytes)?;
        let header = Header::decode(&bytes).ok_or(RingError::Damaged("header"))?;
        let ordered = header.base <= header.tail && header.tail <= header.head;
        if !ordered || header.head - header.tail > capacity || header.settled > header.position {
            return Err(RingError::Damaged("offsets"));
        }
        let mut ring = Self { memory, capacity, header, current, index: VecDeque::new() };
        ring.walk()?;
        Ok(ring)
    }

    fn walk(&mut self) -> Result<(), RingError> {
        let mut at = self.header.tail;
        let mut bytes = Vec::new();
        let mut last = self.header.settled;
        while at < self.header.head {
            let left = self.header.head - at;
            self.copy_out(at, left.min(frame::MAX_HEADER as u64) as usize, &mut bytes)?;
            let extent = frame::extent(&bytes)?.ok_or(RingError::Damaged("a frame is cut"))?;
            let size = (extent.header + extent.payload) as u64;
            if size > left || extent.n <= last || extent.n > self.header.position {
                return Err(RingError::Damaged("frames do not follow each other"));
            }
            last = extent.n;
            at += size;
            self.index.push_back((extent.n, at));
        }
        Ok(())
    }

    /// Appends a frame (in parts) as operation `n` and publishes it.
    pub fn append(&mut self, n: Position, header: &[u8], payload: &[u8]) -> Result<(), RingError> {
        let size = (header.len() + payload.len()) as u64;
        if self.used() + size > self.capacity {
            return Err(RingError::Full);
        }
        if self.used() == 0 {
            self.header.base = self.header.head;
        }
        self.copy_in(self.header.head, header)?;
        self.copy_in(self.header.head + header.len() as u64, payload)?;
        self.header.head += size;
        self.header.position = n;
        self.index.push_back((n, self.header.head));
        self.publish()
    }

    /// Counts an operation of which no frame is needed.
    pub fn advance(&mut self, n: Position) -> Result<(), RingError> {
        self.header.position = n;
        if self.index.is_empty() {
            self.header.settled = n;
        }
        self.publish()
    }

    /// Forgets frames up to `n`. Returns the bytes freed.
    pub fn settle(&mut self, n: Position) -> Result<u64, RingError> {
        let before = self.header.tail;
        while let Some(&(position, end)) = self.index.front() {
            if position > n {
                break;
            }
            self.index.pop_front();
            self.header.tail = end;
        }
        let n = n.min(self.header.position);
        if n > self.header.settled {
            self.header.settled = n;
            self.publish()?;
        }
        Ok(self.header.tail - before)
    }

    /// Forgets everything and becomes another stream, at the present position. `origin`: the place of another stream at which both trees
    /// were equal when this one began.
    pub fn restart(
        &mut self,
        stream: StreamId,
        position: Position,
        origin: Option<(StreamId, Position)>,
    ) -> Result<(), RingError> {
        let (origin_stream, origin) = origin.unwrap_or((stream, position));
        self.index.clear();
        self.header = Header {
            stream,
            head: self.header.head,
            tail: self.header.head,
            position,
            settled: position,
            origin_stream,
            origin,
            base: self.header.head,
        };
        self.publish()
    }

    /// The offset from which a receiver that has everything up to `place` continues. None: it is not a place of this ring.
    ///
    /// The receiver may know the beginning of this stream by its origin: the place in the former stream at which it handed over.
    pub fn offset_after(&self, stream: StreamId, position: Position) -> Option<u64> {
        let at_origin = stream == self.header.origin_stream && position == self.header.origin;
        let position = if stream == self.header.stream {
            position
        } else if at_origin {
            self.beginning()?
        } else {
            return None;
        };
        if position < self.header.settled || position > self.header.position {
            return None;
        }
        let found = self.index.partition_point(|(n, _)| *n <= position);
        Some(found.checked_sub(1).and_then(|i| self.index.get(i)).map_or(self.header.tail, |(_, end)| *end))
    }

    /// Position of the origin in this stream's own numbering, while nothing after it was settled.
    fn beginning(&self) -> Option<Position> {
        (self.header.settled == self.header.origin).then_some(self.header.origin)
    }

    /// Copies published bytes from `from` on, at most `max`, and ends where the frames end.
    pub fn read(&self, from: u64, max: usize, out: &mut Vec<u8>) -> Result<(), RingError> {
        if from < self.header.tail {
            return Err(RingError::Damaged("what was settled is not there any more"));
        }
        let size = self.header.head.saturating_sub(from).min(max as u64) as usize;
        self.copy_out(from, size, out)
    }

    /// Position of the first frame held.
    pub fn first(&self) -> Option<Position> {
        self.index.front().map(|(n, _)| *n)
    }

    pub fn stream(&self) -> StreamId {
        self.header.stream
    }

    pub fn position(&self) -> Position {
        self.header.position
    }

    pub fn settled(&self) -> Position {
        self.header.settled
    }

    /// Offset after the last frame.
    pub fn head(&self) -> u64 {
        self.header.head
    }

    /// Bytes of frames held.
    pub fn used(&self) -> u64 {
        self.header.head - self.header.tail
    }

    fn publish(&mut self) -> Result<(), RingError> {
        let other = 1 - self.current;
        self.memory.write_at(u64::from(other) * SLOT, &self.header.encode())?;
        self.memory.publish_at(CURRENT, other)?;
        self.current = other;
        Ok(())
    }

    /// Where the byte with this offset lies, behind the header page.
    fn place(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.header.base) % self.capacity
    }

    fn copy_in(&mut self, offset: u64, bytes: &[u8]) -> Result<(), RingError> {
        let at = self.place(offset);
        let first = bytes.len().min((self.capacity - at) as usize);
        let (a, b) = bytes.split_at(first);
        if !a.is_empty() {
            self.memory.write_at(HEADER + at, a)?;
        }
        if !b.is_empty() {
            self.memory.write_at(HEADER, b)?;
        }
        Ok(())
    }

    fn copy_out(&self, offset: u64, size: usize, out: &mut Vec<u8>) -> Result<(), RingError> {
        out.clear();
        let at = self.place(offset);
        let first = size.min((self.capacity - at) as usize);
        self.memory.append_to(HEADER + at, first, out)?;
        if first < size {
            self.memory.append_to(HEADER, size - first, out)?;
        }
        Ok(())
    }
}

impl Header {
    fn encode(self) -> [u8; SLOT as usize] {
        let mut bytes = [0; SLOT as usize];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            at += part.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&self.stream.0.to_le_bytes());
        put(&self.head.to_le_bytes());
        put(&self.tail.to_le_bytes());
        put(&self.position.to_le_bytes());
        put(&self.settled.to_le_bytes());
        put(&self.origin_stream.0.to_le_bytes());
        put(&self.origin.to_le_bytes());
        put(&self.base.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SLOT as usize]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let wide = |at: usize| bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map(u128::from_le_bytes);
        (word(0)? == MAGIC).then_some(())?;
        Some(Self {
            stream: StreamId(wide(8)?),
            head: word(24)?,
            tail: word(32)?,
            position: word(40)?,
            settled: word(48)?,
            origin_stream: StreamId(wide(56)?),
            origin: word(72)?,
            base: word(80)?,
        })
    }
}

/// Memory files: a new one for a ring of `capacity` bytes.
pub fn memory_file(capacity: u64) -> io::Result<std::fs::File> {
    let descriptor = rustix::fs::memfd_create("sk-ring", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&descriptor, Ring::<Mapped>::memory_size(capacity))?;
    Ok(std::fs::File::from(descriptor))
}

/// The memory of a ring of `capacity` bytes that lies in this file.
pub fn map(file: BorrowedFd<'_>, capacity: u64) -> io::Result<Mapped> {
    Mapped::new(file, Ring::<Mapped>::memory_size(capacity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Op;
    use proptest::prelude::*;

    const SMALL: u64 = 2048;

    impl Memory for Vec<u8> {
        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let at = offset as usize;
            out.copy_from_slice(self.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn append_to(&self, offset: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
            let at = offset as usize;
            out.extend_from_slice(self.get(at..at + length).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let at = offset as usize;
            self.get_mut(at..at + bytes.len()).ok_or(io::ErrorKind::WriteZero)?.copy_from_slice(bytes);
            Ok(())
        }

        fn publish_at(&mut self, offset: u64, byte: u8) -> io::Result<()> {
            self.write_at(offset, &[byte])
        }
    }

    fn frame(n: Position, payload: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        frame::op_text(&Op::Checkpoint { number: n }, &mut text).unwrap();
        let mut out = Vec::new();
        frame::put_header(&mut out, n, payload.len(), &text);
        out
    }

    fn ring() -> Ring<Vec<u8>> {
        Ring::create(vec![0; Ring::<Vec<u8>>::memory_size(SMALL) as usize], SMALL, StreamId(5), 100).unwrap()
    }

    proptest! {
        /// At every moment a successor that opens the same bytes sees the same ring.
        #[test]
        fn a_successor_sees_the_same_frames(steps in proptest::collection::vec((0usize..300, 0u64..4), 1..80)) {
            let mut ring = ring();
            let mut held: VecDeque<(Position, Vec<u8>)> = VecDeque::new();
            let mut n = 100;
            for (size, settle) in steps {
                n += 1;
                let payload = vec![n as u8; size];
                let header = frame(n, &payload);
                match ring.append(n, &header, &payload) {
                    Ok(()) => held.push_back((n, [header, payload].concat())),
                    Err(RingError::Full) => n -= 1,
                    Err(e) => return Err(TestCaseError::fail(e.to_string())),
                }
                if settle > 0 && held.len() as u64 > settle {
                    for _ in 0..settle { held.pop_front(); }
                    ring.settle(held.front().map_or(n, |(p, _)| p - 1)).unwrap();
                }
                let other = Ring::open(ring.memory.clone(), SMALL).unwrap();
                prop_assert_eq!(other.header, ring.header);
                prop_assert_eq!(&other.index, &ring.index);
                let from = other.offset_after(StreamId(5), other.settled()).unwrap();
                let mut bytes = Vec::new();
                other.read(from, usize::MAX, &mut bytes).unwrap();
                prop_assert_eq!(bytes, held.iter().flat_map(|(_, b)| b.clone()).collect::<Vec<_>>());
            }
        }

        #[test]
        fn garbage_is_refused_never_a_panic(seed in proptest::collection::vec(any::<u8>(), 128), body in any::<u8>()) {
            let mut memory = vec![body; Ring::<Vec<u8>>::memory_size(SMALL) as usize];
            memory[..128].copy_from_slice(&seed);
            memory[..8].copy_from_slice(&MAGIC.to_le_bytes());
            memory[CURRENT as usize] = 0;
            let _ = Ring::open(memory, SMALL);
        }
    }

    /// The bytes of a process that dies after each of its steps, also in the middle of one that may be torn.
    #[derive(Clone)]
    struct Dying {
        bytes: Vec<u8>,
        left_behind: Vec<Vec<u8>>,
    }

    impl Memory for Dying {
        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.bytes.read_at(offset, out)
        }

        fn append_to(&self, offset: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
            self.bytes.append_to(offset, length, out)
        }

        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            for part in [bytes.len() / 3, bytes.len()] {
                self.bytes.write_at(offset, &bytes[..part])?;
                self.left_behind.push(self.bytes.clone());
            }
            Ok(())
        }

        fn publish_at(&mut self, offset: u64, byte: u8) -> io::Result<()> {
            self.bytes.publish_at(offset, byte)?;
            self.left_behind.push(self.bytes.clone());
            Ok(())
        }
    }

    #[test]
    fn a_successor_sees_every_step_done_or_not_done_whenever_the_process_died() {
        let memory = Dying { bytes: vec![0; Ring::<Dying>::memory_size(SMALL) as usize], left_behind: Vec::new() };
        let mut ring = Ring::create(memory, SMALL, StreamId(5), 100).unwrap();
        let mut seed = 7_u64;
        let mut dice = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        let frames = |ring: &Ring<Vec<u8>>| {
            let mut bytes = Vec::new();
            ring.read(ring.header.tail, usize::MAX, &mut bytes).unwrap();
            (ring.header, bytes)
        };
        for _ in 0..400 {
            let before = frames(&Ring::open(ring.memory.bytes.clone(), SMALL).unwrap());
            ring.memory.left_behind.clear();
            let n = ring.position() + 1;
            let done = match dice() % 8 {
                0 => ring.advance(n),
                1 => ring.restart(StreamId(u128::from(n)), n, None),
                2 | 3 => ring.settle(n - 1 - dice() % 3 * u64::from(n > 103)).map(drop),
                _ => {
                    let payload = vec![n as u8; dice() as usize % 300];
                    ring.append(n, &frame(n, &payload), &payload)
                }
            };
            assert!(matches!(done, Ok(()) | Err(RingError::Full)), "{done:?}");
            let after = frames(&Ring::open(ring.memory.bytes.clone(), SMALL).unwrap());
            assert_eq!(after.0, ring.header);
            for left in &ring.memory.left_behind {
                let found = frames(&Ring::open(left.clone(), SMALL).unwrap());
                assert!(found == before || found == after, "{found:?} is neither {before:?} nor {after:?}");
            }
        }
    }

    #[test]
    fn an_empty_ring_begins_at_its_first_byte_again() {
        let mut ring = ring();
        for n in 101..=200 {
            ring.append(n, &frame(n, &[3; 100]), &[3; 100]).unwrap();
            ring.settle(n).unwrap();
        }
        let used = ring.memory.iter().rposition(|b| *b != 0).unwrap();
        assert!(used < HEADER as usize + 256, "{used} bytes are in use for frames of a hundred");
    }

    #[test]
    fn places_outside_are_not_resumed() {
        let mut ring = ring();
        for n in 101..=105 {
            ring.append(n, &frame(n, b""), b"").unwrap();
        }
        ring.settle(102).unwrap();
        assert!(ring.offset_after(StreamId(5), 101).is_none(), "already forgotten");
        assert!(ring.offset_after(StreamId(5), 102).is_some());
        assert!(ring.offset_after(StreamId(5), 105).is_some());
        assert!(ring.offset_after(StreamId(5), 106).is_none(), "not made yet");
        assert!(ring.offset_after(StreamId(6), 103).is_none(), "another stream");
    }

    #[test]
    fn the_former_primary_continues_at_the_place_of_its_handover() {
        let mut ring = ring();
        ring.restart(StreamId(9), 100, Some((StreamId(5), 100))).unwrap();
        ring.append(101, &frame(101, b""), b"").unwrap();
        assert!(ring.offset_after(StreamId(5), 100).is_some());
        assert!(ring.offset_after(StreamId(5), 99).is_none());
        ring.settle(101).unwrap();
        assert!(ring.offset_after(StreamId(5), 100).is_none(), "its frames are gone");
    }
}
