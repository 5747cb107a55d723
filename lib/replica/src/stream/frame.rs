//! What does one frame of the stream look like: a JSON header line, then raw payload.
//!
//! `{"n":17,"len":4096,"op":"write",…}\n` followed by `len` bytes. A frame carries either an operation (`op`, with its position
//! in `n`) or a control message (`ctl`, `n` is 0). Both directions of a connection use this form, inside the encrypted channel.

use super::header::{Header, What};
use super::message::Control;
use crate::op::Op;
use crate::recorder::Position;
use serde::Deserialize;

/// Longest header line, with its newline: two paths of 4096 bytes with every byte escaped (a rename) fit.
pub const MAX_HEADER: usize = 32 * 1024;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
/// Longest frame.
pub const MAX_FRAME: usize = MAX_HEADER + MAX_PAYLOAD;

/// Why bytes are not a frame. The connection they came from cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame's header is longer than {MAX_HEADER} bytes")]
    HeaderTooLong,
    #[error("a frame's payload of {0} bytes is longer than {MAX_PAYLOAD}")]
    PayloadTooLong(u64),
    #[error("a frame's header is not understood: {0}")]
    Header(#[from] serde_json::Error),
    #[error("a frame's header names neither an operation nor a control message")]
    Empty,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Op(Op),
    Control(Control),
}

/// A decoded frame; the payload borrows the decoder's buffer.
#[derive(Debug)]
pub struct Frame<'a> {
    pub n: Position,
    pub body: Body,
    pub payload: &'a [u8],
}

/// As much of a header as is needed to get past its frame.
#[derive(Deserialize)]
struct Head {
    n: Position,
    #[serde(default)]
    len: u64,
}

/// Length of a frame's header and payload, and its position, without decoding the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub n: Position,
    pub header: usize,
    pub payload: usize,
}

/// The part of an operation's header that does not depend on its position: made outside every lock.
///
/// Returns the JSON object without its opening brace.
pub fn op_text(op: &Op, text: &mut Vec<u8>) -> Result<(), FrameError> {
    text.clear();
    serde_json::to_writer(&mut *text, op)?;
    if text.len() + 64 > MAX_HEADER {
        return Err(FrameError::HeaderTooLong);
    }
    Ok(())
}

/// Appends the header line of a frame whose body's JSON is `object`.
pub fn put_header(out: &mut Vec<u8>, n: Position, payload: usize, object: &[u8]) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"n\":{n},\"len\":{payload},");
    out.extend_from_slice(object.get(1..).unwrap_or_default());
    out.push(b'\n');
}

/// Appends a whole control frame.
pub fn put_control(out: &mut Vec<u8>, control: &Control, payload: &[u8]) -> Result<(), FrameError> {
    let object = serde_json::to_vec(control)?;
    if object.len() + 64 > MAX_HEADER {
        return Err(FrameError::HeaderTooLong);
    }
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::PayloadTooLong(payload.len() as u64));
    }
    put_header(out, 0, payload.len(), &object);
    out.extend_from_slice(payload);
    Ok(())
}

/// Where the first frame of `bytes` ends. None: more bytes are needed.
pub fn extent(bytes: &[u8]) -> Result<Option<Extent>, FrameError> {
    let Some(line) = header_line(bytes)? else { return Ok(None) };
    let Head { n, len } = serde_json::from_slice(line)?;
    Ok(Some(Extent { n, header: line.len() + 1, payload: payload(len)? }))
}

/// The first line of `bytes`, without its newline. None: more bytes are needed.
fn header_line(bytes: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    let window = bytes.get(..MAX_HEADER).unwrap_or(bytes);
    match memchr::memchr(b'\n', window) {
        Some(end) => Ok(window.get(..end)),
        None if window.len() == MAX_HEADER => Err(FrameError::HeaderTooLong),
        None => Ok(None),
    }
}

fn payload(len: u64) -> Result<usize, FrameError> {
    usize::try_from(len).ok().filter(|len| *len <= MAX_PAYLOAD).ok_or(FrameError::PayloadTooLong(len))
}

/// A header that was read, and where its frame ends in the buffer.
struct Begun {
    n: Position,
    body: Body,
    /// Where the payload begins, and its length.
    start: usize,
    payload: usize,
}

/// Takes frames out of bytes as they arrive.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    at: usize,
    /// The frame at `at`, whose payload is not complete yet; `start` counts from `at`.
    begun: Option<Begun>,
}

impl Decoder {
    /// Where received plaintext is appended. Consumed bytes are dropped first.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        } else if self.at > 256 * 1024 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        &mut self.buffer
    }

    /// Whether nothing is left that could become a frame.
    pub fn is_empty(&self) -> bool {
        self.at == self.buffer.len()
    }

    /// The next complete frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => match header_line(rest)? {
                Some(line) => begin(line)?,
                None => return Ok(None),
            },
        };
        let end = begun.start + begun.payload;
        if rest.len() < end {
            self.begun = Some(begun);
            return Ok(None);
        }
        let Begun { n, body, start, .. } = begun;
        let (start, end) = (self.at + start, self.at + end);
        self.at = end;
        Ok(Some(Frame { n, body, payload: self.buffer.get(start..end).unwrap_or_default() }))
    }
}

fn begin(line: &[u8]) -> Result<Begun, FrameError> {
    let Header { n, len, what } = serde_json::from_slice(line)?;
    let payload = payload(len)?;
    let body = match what {
        What::Op(op) => Body::Op(op),
        What::Control => Body::Control(serde_json::from_slice(line)?),
        What::Nothing => return Err(FrameError::Empty),
    };
    Ok(Begun { n, body, start: line.len() + 1, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{RelPath, Time};
    use proptest::prelude::*;

    fn write_op(path: &[u8], offset: u64) -> Option<Op> {
        Some(Op::Write { dir: 1, path: RelPath::new(path)?, ino: 7, offset, mtime: Time(5, 6) })
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_byte_stream(
            items in proptest::collection::vec((proptest::collection::vec(1u8..=255, 1..40), proptest::collection::vec(any::<u8>(), 0..300), any::<u64>()), 1..12),
            cut in 1usize..97,
        ) {
            let mut wire = Vec::new();
            let mut sent = Vec::new();
            let mut text = Vec::new();
            for (n, (path, payload, offset)) in items.into_iter().enumerate() {
                let Some(op) = write_op(&path, offset) else { continue };
                op_text(&op, &mut text).unwrap();
                put_header(&mut wire, n as u64, payload.len(), &text);
                wire.extend_from_slice(&payload);
                sent.push((n as u64, op, payload));
                put_control(&mut wire, &Control::Ping, b"").unwrap();
            }
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            let mut pings = 0;
            for chunk in wire.chunks(cut) {
                decoder.tail().extend_from_slice(chunk);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    match frame.body {
                        Body::Op(op) => got.push((frame.n, op, frame.payload.to_vec())),
                        Body::Control(_) => pings += 1,
                    }
                }
            }
            prop_assert_eq!(pings, sent.len());
            prop_assert_eq!(got, sent);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn garbage_is_an_error_or_a_wait_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            decoder.tail().extend_from_slice(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }

        #[test]
        fn a_damaged_header_never_panics(at in 0usize..200, byte in any::<u8>()) {
            let mut wire = Vec::new();
            let mut text = Vec::new();
            op_text(&write_op(b"a/b", 3).unwrap(), &mut text).unwrap();
            put_header(&mut wire, 9, 4, &text);
            wire.extend_from_slice(b"data");
            let at = at % wire.len();
            wire[at] = byte;
            let mut decoder = Decoder::default();
            decoder.tail().extend_from_slice(&wire);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let mut decoder = Decoder::default();
        decoder
            .tail()
            .extend_from_slice(format!("{{\"n\":1,\"len\":{},\"ctl\":\"ping\"}}\n", MAX_PAYLOAD + 1).as_bytes());
        assert!(matches!(decoder.next_frame(), Err(FrameError::PayloadTooLong(_))));
        let mut decoder = Decoder::default();
        decoder.tail().extend_from_slice(&vec![b' '; MAX_HEADER]);
        assert!(matches!(decoder.next_frame(), Err(FrameError::HeaderTooLong)));
    }

    #[test]
    fn the_longest_rename_fits_in_a_header() {
        let long = RelPath::new([&[0xff; 255][..]; 15].join(&b'/')).unwrap();
        let op = Op::Rename {
            dir: 0,
            from: long.clone(),
            path: long,
            ino: 1,
            flags: 0,
            from_mtime: Time(0, 0),
            parent_mtime: Time(0, 0),
        };
        op_text(&op, &mut Vec::new()).unwrap();
    }
}
