//! One client: its question, the answer, the end. Never more than a bounded time and a bounded head.

use crate::reply::{self, Purpose};
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};
use sys::roots::Roots;

/// After the answer the rest of what the client sends is read for this long: closing with unread bytes would reset the
/// connection and take the answer away from the client.
const LINGER: Duration = Duration::from_secs(1);

enum Phase {
    Question,
    Answer(Vec<u8>, usize),
    Farewell,
}

pub struct Connection {
    pub stream: TcpStream,
    purpose: Purpose,
    received: Vec<u8>,
    phase: Phase,
    pub deadline: Instant,
    patience: Duration,
}

impl Connection {
    pub fn new(stream: TcpStream, purpose: Purpose, now: Instant, patience: Duration) -> Self {
        Self { stream, purpose, received: Vec::new(), phase: Phase::Question, deadline: now + patience, patience }
    }

    /// Goes on as far as the socket lets it. Returns whether the connection lives on.
    pub fn go_on(&mut self, roots: &Roots, now: Instant) -> bool {
        loop {
            let moved = match &mut self.phase {
                Phase::Question => self.listen(roots, now),
                Phase::Answer(..) => self.speak(now),
                Phase::Farewell => return self.drain(),
            };
            match moved {
                Ok(true) => {}
                Ok(false) => return true,
                Err(()) => return false,
            }
        }
    }

    /// Its time is over: a client that asked too slowly is told so, once. Returns whether the connection lives on.
    pub fn is_late(&mut self, roots: &Roots, now: Instant) -> bool {
        if !matches!(self.phase, Phase::Question) || self.received.is_empty() {
            return false;
        }
        self.phase = Phase::Answer(reply::too_slow(), 0);
        self.deadline = now + LINGER;
        self.go_on(roots, now)
    }

    fn listen(&mut self, roots: &Roots, now: Instant) -> Result<bool, ()> {
        let mut piece = [0; 1024];
        let room = (reply::HEAD_MAX - self.received.len().min(reply::HEAD_MAX)).clamp(1, piece.len());
        match self.stream.read(&mut piece[..room]) {
            Ok(0) => return Err(()),
            Ok(n) => self.received.extend_from_slice(&piece[..n]),
            Err(error) => return waits(&error),
        }
        if let Some(answer) = reply::reply(roots, self.purpose, &self.received) {
            self.phase = Phase::Answer(answer, 0);
            self.deadline = now + self.patience;
        }
        Ok(true)
    }

    fn speak(&mut self, now: Instant) -> Result<bool, ()> {
        let Phase::Answer(answer, sent) = &mut self.phase else { return Err(()) };
        match self.stream.write(&answer[*sent..]) {
            Ok(n) => *sent += n,
            Err(error) => return waits(&error),
        }
        if *sent == answer.len() {
            // A client that is gone already needs no farewell.
            self.stream.shutdown(Shutdown::Write).map_err(|_| ())?;
            self.phase = Phase::Farewell;
            self.deadline = now + LINGER;
        }
        Ok(true)
    }

    /// Returns whether the client may still send something. Its bytes are counted by time, not by number.
    fn drain(&mut self) -> bool {
        let mut piece = [0; 4096];
        // Bounded, so that one client that sends for ever does not keep the others waiting.
        for _ in 0..16 {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return waits(&error).is_ok(),
            }
        }
        false
    }
}

/// `Ok(false)`: go on when the socket is ready. `Err`: the connection is over.
fn waits(error: &std::io::Error) -> Result<bool, ()> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(false),
        ErrorKind::Interrupted => Ok(true),
        _ => Err(()),
    }
}
