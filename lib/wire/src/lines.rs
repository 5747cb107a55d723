//! How do a runner and its children exchange JSON lines: one object a line, bounded, resynchronising after garbage.

use crate::time::rfc3339_now;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::sync::Mutex;

/// Longest line without its newline, in bytes.
pub const LINE_LIMIT: usize = 64 * 1024;

/// Why an event could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// The reader is gone. Not a fault: a command ends with status 0, a child of the runner takes its safe side.
    #[error("the reader of our events is gone")]
    Closed,
    #[error("an event of kind `{kind}` has {length} bytes, more than the {LINE_LIMIT} a line may have")]
    TooLong { kind: String, length: usize },
    #[error("an event of kind `{kind}` is not a JSON object")]
    NotAnObject { kind: String },
    #[error("cannot encode an event of kind `{kind}`: {source}")]
    Encode { kind: String, source: serde_json::Error },
    #[error("cannot write an event: {0}")]
    Io(io::Error),
}

/// Why a line was refused. Reading can go on with the next line after each of these, except `Io`.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("a line is longer than {LINE_LIMIT} bytes; it was skipped")]
    TooLong,
    #[error("a line is not a JSON object: {0}")]
    NotJson(String),
    #[error("a line has no text member `kind`")]
    NoKind,
    #[error("a line of kind `{kind}` is malformed: {source}")]
    Body { kind: String, source: serde_json::Error },
    #[error("cannot read a line: {0}")]
    Io(#[from] io::Error),
}

/// Writes events in the envelope. Can be shared between threads: each line is one write under a lock.
pub struct Emitter {
    /// `,"from":…,"node":…,"module":…,"kind":` is the same for every event.
    middle: String,
    out: Mutex<Out>,
}

struct Out {
    writer: Box<dyn Write + Send>,
    line: Vec<u8>,
}

impl Emitter {
    /// Writes to the standard output.
    pub fn new(from: &str, node: &str, module: &str) -> Self {
        Self::to(Box::new(io::stdout()), from, node, module)
    }

    /// Writes anywhere.
    pub fn to(writer: Box<dyn Write + Send>, from: &str, node: &str, module: &str) -> Self {
        let quote = |text: &str| Value::from(text).to_string();
        Self {
            middle: format!(
                ",\"from\":{},\"node\":{},\"module\":{},\"kind\":",
                quote(from),
                quote(node),
                quote(module)
            ),
            out: Mutex::new(Out { writer, line: Vec::with_capacity(1024) }),
        }
    }

    /// Writes one event and flushes. `body` is a structure or map; `&()` for events without members.
    pub fn emit<T: Serialize + ?Sized>(&self, kind: &str, body: &T) -> Result<(), EmitError> {
        let mut out = match self.out.lock() {
            Ok(guard) => guard,
            // A line is built from scratch each time, so what a panicking thread left behind does no harm.
            Err(poisoned) => poisoned.into_inner(),
        };
        let Out { writer, line } = &mut *out;
        line.clear();
        let encode = |source| EmitError::Encode { kind: kind.to_owned(), source };
        line.extend_from_slice(b"{\"t\":\"");
        line.extend_from_slice(rfc3339_now().as_bytes());
        line.push(b'"');
        line.extend_from_slice(self.middle.as_bytes());
        serde_json::to_writer(&mut *line, kind).map_err(encode)?;
        let body_at = line.len();
        serde_json::to_writer(&mut *line, body).map_err(encode)?;
        match line.get(body_at..) {
            Some(b"null" | b"{}") => {
                line.truncate(body_at);
                line.push(b'}');
            }
            Some([b'{', ..]) => {
                if let Some(brace) = line.get_mut(body_at) {
                    *brace = b',';
                }
            }
            _ => return Err(EmitError::NotAnObject { kind: kind.to_owned() }),
        }
        if line.len() > LINE_LIMIT {
            return Err(EmitError::TooLong { kind: kind.to_owned(), length: line.len() });
        }
        line.push(b'\n');
        writer.write_all(line).and_then(|()| writer.flush()).map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => EmitError::Closed,
            _ => EmitError::Io(e),
        })
    }
}

/// One parsed line.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub kind: String,
    /// The whole object, envelope included.
    pub value: Value,
}

impl Message {
    /// The members as a structure. Unknown members are ignored by serde's default.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, LineError> {
        T::deserialize(&self.value).map_err(|source| LineError::Body { kind: self.kind.clone(), source })
    }

    /// A text member.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name).and_then(Value::as_str)
    }

    /// The `id` of an order, to answer it.
    pub fn id(&self) -> Option<u64> {
        self.value.get("id").and_then(Value::as_u64)
    }
}

/// Parses one line, with or without its newline.
pub fn parse(line: &[u8]) -> Result<Message, LineError> {
    if line.len() > LINE_LIMIT + 1 {
        return Err(LineError::TooLong);
    }
    let value: Value = serde_json::from_slice(line).map_err(|e| LineError::NotJson(e.to_string()))?;
    let Value::Object(map) = &value else {
        return Err(LineError::NotJson("it holds another JSON value".to_owned()));
    };
    let kind = map.get("kind").and_then(Value::as_str).ok_or(LineError::NoKind)?.to_owned();
    Ok(Message { kind, value })
}

/// Encodes an order or a reply without the envelope: `{"kind":…, …body}` and a newline.
pub fn order<T: Serialize + ?Sized>(kind: &str, body: &T) -> Result<Vec<u8>, EmitError> {
    let encode = |source| EmitError::Encode { kind: kind.to_owned(), source };
    let mut line = b"{\"kind\":".to_vec();
    serde_json::to_writer(&mut line, kind).map_err(encode)?;
    let body = serde_json::to_vec(body).map_err(encode)?;
    match body.as_slice() {
        b"null" | b"{}" => line.push(b'}'),
        [b'{', rest @ ..] => {
            line.push(b',');
            line.extend_from_slice(rest);
        }
        _ => return Err(EmitError::NotAnObject { kind: kind.to_owned() }),
    }
    if line.len() > LINE_LIMIT {
        return Err(EmitError::TooLong { kind: kind.to_owned(), length: line.len() });
    }
    line.push(b'\n');
    Ok(line)
}

/// Cuts a stream of bytes into lines, without doing IO itself. Never holds more than one line and one read.
#[derive(Default)]
pub struct LineBuffer {
    buffer: Vec<u8>,
    /// Start of what was not handed out yet.
    start: usize,
    /// How far the search for a newline went.
    searched: usize,
    /// In the middle of a line that was too long.
    skipping: bool,
}

impl LineBuffer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds received bytes. Call `next_line` until it gives `None` before adding more, so that the memory stays bounded.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Reads once. `Ok(0)` is the end of the file; `WouldBlock` comes back as the error it is.
    pub fn read_from(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        let mut chunk = [0_u8; 8192];
        let count = loop {
            match reader.read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.feed(chunk.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// The next complete line without its newline.
    pub fn next_line(&mut self) -> Option<Result<&[u8], LineError>> {
        loop {
            let found = self.buffer.get(self.searched..)?.iter().position(|b| *b == b'\n');
            let Some(offset) = found else {
                self.searched = self.buffer.len();
                let pending = self.searched - self.start;
                if self.skipping || pending > LINE_LIMIT {
                    self.buffer.clear();
                    self.start = 0;
                    self.searched = 0;
                    // The error is told once, when the limit is passed; the rest of the line disappears silently.
                    if !std::mem::replace(&mut self.skipping, true) {
                        return Some(Err(LineError::TooLong));
                    }
                }
                return None;
            };
            let end = self.searched + offset;
            let begin = self.start;
            self.start = end + 1;
            self.searched = end + 1;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if end - begin > LINE_LIMIT {
                return Some(Err(LineError::TooLong));
            }
            return self.buffer.get(begin..end).map(Ok);
        }
    }

    /// The next complete message; empty lines are passed over.
    pub fn next_message(&mut self) -> Option<Result<Message, LineError>> {
        loop {
            match self.next_line()? {
                Ok(line) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(line) => return Some(parse(line)),
                Err(e) => return Some(Err(e)),
            }
        }
    }

    /// Gives every message that waits in a stream that does not block to `take`, which says whether to go on. `false`: it
    /// said no, or the stream has ended. What the stream itself fails with becomes an error by `failed`.
    pub fn take_waiting<E>(
        &mut self,
        reader: &mut impl Read,
        failed: impl FnOnce(io::Error) -> E,
        mut take: impl FnMut(Result<Message, LineError>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        loop {
            match self.read_from(reader) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(failed(e)),
            }
            while let Some(message) = self.next_message() {
                if !take(message)? {
                    return Ok(false);
                }
            }
        }
    }
}

/// Messages of a blocking reader, as an iterator; ends at the end of the file or after an IO error.
pub struct Messages<R> {
    reader: R,
    buffer: LineBuffer,
    ended: bool,
}

impl<R: Read> Messages<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: LineBuffer::new(), ended: false }
    }
}

impl<R: Read> Iterator for Messages<R> {
    type Item = Result<Message, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(message) = self.buffer.next_message() {
                return Some(message);
            }
            if self.ended {
                return None;
            }
            match self.buffer.read_from(&mut self.reader) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e.into()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_carries_the_envelope_and_its_members() {
        let sink = Shared::default();
        let emitter = Emitter::to(Box::new(sink.clone()), "sk-errd", "node1", "A\"M");
        emitter.emit("proc", &serde_json::json!({"name": "x", "running": 2})).unwrap();
        emitter.emit("done", &()).unwrap();
        assert!(matches!(emitter.emit("bad", &7), Err(EmitError::NotAnObject { .. })));
        assert!(matches!(
            emitter.emit("big", &serde_json::json!({"x": "y".repeat(LINE_LIMIT)})),
            Err(EmitError::TooLong { .. })
        ));
        let bytes = sink.0.lock().unwrap().clone();
        let all: Vec<_> = Messages::new(bytes.as_slice()).collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].kind, "proc");
        assert_eq!(all[0].text("module"), Some("A\"M"));
        assert_eq!(all[0].value["running"], 2);
        assert_eq!(all[1].kind, "done");
    }

    #[test]
    fn a_closed_reader_is_told_apart() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let emitter = Emitter::to(Box::new(writer), "f", "n", "m");
        assert!(matches!(emitter.emit("x", &()), Err(EmitError::Closed)));
    }

    #[test]
    fn a_line_too_long_is_one_error_and_the_next_line_is_read() {
        let mut text = "x".repeat(3 * LINE_LIMIT);
        text.push_str("\n{\"kind\":\"after\"}\n");
        let all: Vec<_> = Messages::new(text.as_bytes()).collect();
        assert_eq!(all.len(), 2);
        assert!(matches!(all[0], Err(LineError::TooLong)));
        assert_eq!(all[1].as_ref().unwrap().kind, "after");
    }

    #[test]
    fn orders_parse_back() {
        let line = order("primary", &serde_json::json!({"id": 4})).unwrap();
        let message = parse(&line).unwrap();
        assert_eq!((message.kind.as_str(), message.id()), ("primary", Some(4)));
        assert!(matches!(parse(b"[1]"), Err(LineError::NotJson(_))));
        assert!(matches!(parse(b"{\"kind\":3}"), Err(LineError::NoKind)));
    }

    proptest! {
        #[test]
        fn garbage_in_any_cut_never_panics_and_never_hides_a_good_line(
            garbage in proptest::collection::vec(any::<u8>(), 0..2000),
            cuts in proptest::collection::vec(1_usize..300, 0..20),
        ) {
            let mut bytes = garbage;
            bytes.extend_from_slice(b"\n{\"kind\":\"good\"}\n");
            let mut buffer = LineBuffer::new();
            let mut kinds = Vec::new();
            let mut rest = bytes.as_slice();
            let mut cuts = cuts.into_iter();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
                rest = later;
                buffer.feed(now);
                while let Some(message) = buffer.next_message() {
                    kinds.extend(message.ok().map(|m| m.kind));
                }
            }
            prop_assert_eq!(kinds.last().map(String::as_str), Some("good"));
        }

        #[test]
        fn cutting_does_not_change_lines(lines in proptest::collection::vec("[a-z]{0,40}", 0..20), step in 1_usize..17) {
            let bytes: Vec<u8> = lines.iter().flat_map(|l| l.bytes().chain([b'\n'])).collect();
            let mut buffer = LineBuffer::new();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                buffer.feed(piece);
                while let Some(line) = buffer.next_line() {
                    seen.push(String::from_utf8(line.unwrap().to_vec()).unwrap());
                }
            }
            prop_assert_eq!(seen, lines);
        }
    }
}
