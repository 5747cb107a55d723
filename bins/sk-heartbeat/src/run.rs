//! What does the heartbeat do, second by second?

use crate::port::Port;
use crate::spec::Spec;
use crate::{Failure, realtime};
use detector::{Detector, Notice};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::path::Path;
use std::time::Duration;
use sys::clock::monotonic_ms;
use wire::datagram::{DatagramError, PACKET_LIMIT, Receiver, Sender};
use wire::lines::{EmitError, LineBuffer, LineError};
use wire::{ClusterKey, Emitter, Message};

const STDIN: Token = Token(usize::MAX);
/// Longest published state in bytes of JSON: with the names it must fit a packet.
const STATE_LIMIT: usize = 1100;
const BYES: u32 = 5;
const BYE_INTERVAL_MS: u64 = 20;
/// Packets taken from one link before the others and the timers have their turn.
const BATCH: usize = 64;

/// What every packet says, without the state itself: parsed for each packet, without allocation.
#[derive(Deserialize)]
struct Head {
    v: u64,
}

struct Bye {
    left: u32,
    next: u64,
}

struct Heart {
    emitter: Emitter,
    detector: Detector,
    ports: Vec<Port>,
    /// The state as JSON, from the first `publish` on.
    state: Option<String>,
    version: u64,
    /// The body that pulses carry; `None` while silent.
    body: Option<Vec<u8>>,
    bye: Option<Bye>,
    packet: Vec<u8>,
    notices: Vec<Notice>,
    /// A link had more packets than one batch.
    backlog: bool,
}

/// Why the loop ends.
enum End {
    /// By order, or because nobody listens.
    Orderly,
    Failed(Failure),
}

impl From<EmitError> for End {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Closed => Self::Orderly,
            other => Self::Failed(Failure::system("stdout", other)),
        }
    }
}

pub(crate) fn run(path: &Path, ready_fd: Option<i32>) -> Result<(), Failure> {
    if let Err(error) = sys::signals::die_with_parent() {
        return Err(Failure::system("prctl(PR_SET_PDEATHSIG)", error));
    }
    let spec = Spec::load(path)?;
    let key = ClusterKey::load(&spec.key_file).map_err(Failure::key)?.datagram_key(&spec.module);
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| Failure::system("random bytes", e))?;
    let incarnation = u64::from_ne_bytes(random);

    let mut ports = Vec::new();
    for (number, link) in spec.links.iter().enumerate() {
        let sender = Sender::new(key, &spec.module, &spec.node, &link.ident, incarnation).map_err(Failure::spec)?;
        let receiver = Receiver::new(key, &spec.module, &spec.peer, &link.ident);
        ports.push(Port::new(link, spec.port, Token(number), sender, receiver));
    }
    let watched: Vec<_> =
        spec.links.iter().map(|l| detector::LinkSpec { pulse_ms: l.pulse_ms, timeout_ms: l.timeout_ms }).collect();
    let poll = Poll::new().map_err(|e| Failure::system("epoll", e))?;
    realtime::enter();
    let mut heart = Heart {
        emitter: Emitter::new("sk-heartbeat", &spec.node, &spec.module),
        detector: Detector::new(monotonic_ms(), &watched),
        ports,
        state: None,
        version: 0,
        body: None,
        bye: None,
        packet: Vec::with_capacity(PACKET_LIMIT),
        notices: Vec::with_capacity(8),
        backlog: false,
    };
    match heart.serve(poll, ready_fd) {
        End::Orderly => Ok(()),
        End::Failed(failure) => Err(failure),
    }
}

impl Heart {
    fn serve(&mut self, poll: Poll, ready_fd: Option<i32>) -> End {
        match self.serve_until(poll, ready_fd) {
            Ok(()) => End::Orderly,
            Err(end) => end,
        }
    }

    fn serve_until(&mut self, mut poll: Poll, ready_fd: Option<i32>) -> Result<(), End> {
        let stdin = io::stdin();
        watch_stdin(&poll).map_err(|e| End::Failed(Failure::system("stdin must be a pipe, socket or terminal", e)))?;
        let mut orders = LineBuffer::new();
        let mut events = Events::with_capacity(64);
        self.open_ports(&poll)?;
        announce_ready(ready_fd);
        loop {
            let now = monotonic_ms();
            let timeout = Duration::from_millis(self.next_deadline(now).saturating_sub(now));
            match poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    return Err(End::Failed(Failure::system("epoll", e)));
                }
                _ => {}
            }
            for event in &events {
                if event.token() == STDIN && !self.orders(&mut orders, &mut stdin.lock())? {
                    return Ok(());
                }
            }
            // All sockets, whatever epoll said: mio is edge-triggered, and a batch may have left something.
            self.backlog = false;
            for link in 0..self.ports.len() {
                self.receive(link)?;
            }
            let now = monotonic_ms();
            self.detector.tick(now, &mut self.notices);
            self.tell(None)?;
            self.speak(now)?;
            self.open_ports(&poll)?;
        }
    }

    fn next_deadline(&self, now: u64) -> u64 {
        if self.backlog {
            return now;
        }
        // Once a pulse at least: the detector takes longer gaps for pauses of this process.
        let pulse = self.ports.iter().map(Port::pulse_ms).min().unwrap_or(1000);
        let speaking = self.body.is_some();
        self.ports
            .iter()
            .map(|p| p.deadline(speaking))
            .chain(self.detector.deadline())
            .chain(self.bye.as_ref().map(|b| b.next))
            .min()
            .unwrap_or(u64::MAX)
            .min(now + pulse)
    }

    /// Takes the orders that wait; `false` at the end of stdin or after `quit`.
    fn orders(&mut self, buffer: &mut LineBuffer, stdin: &mut impl io::Read) -> Result<bool, End> {
        loop {
            match buffer.read_from(stdin) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(End::Failed(Failure::system("stdin", e))),
            }
            while let Some(order) = buffer.next_message() {
                if !self.order(order)? {
                    return Ok(false);
                }
            }
        }
    }

    fn order(&mut self, order: Result<Message, LineError>) -> Result<bool, End> {
        let order = match order {
            Ok(order) => order,
            Err(error) => {
                sys::warn!("sk-heartbeat: order refused: {error}");
                return Ok(true);
            }
        };
        match order.kind.as_str() {
            "publish" => {
                if let Some(state @ Value::Object(_)) = order.value.get("state") {
                    self.publish(state.to_string())?;
                } else {
                    sys::warn!("sk-heartbeat: order `publish` refused: `state` is not an object");
                }
            }
            "bye" => {
                if self.state.is_some() {
                    self.version += 1;
                    self.bye = Some(Bye { left: BYES, next: monotonic_ms() });
                } else {
                    // Nothing was ever said, so there is nothing to take back.
                    self.emitter.emit("done", &())?;
                }
            }
            "quit" => return Ok(false),
            other => sys::warn!("sk-heartbeat: unknown order `{other}` skipped"),
        }
        Ok(true)
    }

    fn publish(&mut self, state: String) -> Result<(), End> {
        if state.len() > STATE_LIMIT {
            sys::warn!(
                "sk-heartbeat: order `publish` refused: the state has {} bytes, more than {STATE_LIMIT}",
                state.len()
            );
            return Ok(());
        }
        if self.bye.take().is_some() {
            self.emitter.emit("done", &())?;
        }
        if self.body.is_none() || self.state.as_ref() != Some(&state) {
            self.version += 1;
        }
        self.body = Some(body(self.version, false, &state));
        self.state = Some(state);
        let now = monotonic_ms();
        for port in &mut self.ports {
            port.next_pulse = now;
        }
        Ok(())
    }

    fn receive(&mut self, link: usize) -> Result<(), End> {
        let mut buffer = [0; PACKET_LIMIT + 1];
        for _ in 0..BATCH {
            let Some(port) = self.ports.get_mut(link) else { return Ok(()) };
            let Some((length, from)) = port.receive(&mut buffer) else { return Ok(()) };
            let now = monotonic_ms();
            match port.receiver.open(buffer.get(..length).unwrap_or_default()) {
                Ok(received) => {
                    let Ok(head) = serde_json::from_slice::<Head>(received.body) else { continue };
                    self.detector.packet(now, link, received.incarnation, head.v, &mut self.notices);
                    self.tell(Some((received.incarnation, received.body)))?;
                }
                Err(DatagramError::WrongKey) if port.may_complain(now) => {
                    self.emitter.emit("wrong_key", &json!({"from": from.ip()}))?;
                }
                // Replays, foreign modules, noise: dropped.
                Err(_) => {}
            }
        }
        self.backlog = true;
        Ok(())
    }

    /// Reports what the detector noticed. `packet` is the one it noticed it by.
    fn tell(&mut self, packet: Option<(u64, &[u8])>) -> Result<(), End> {
        for notice in self.notices.drain(..) {
            let ident = |n: usize| json!({"ident": self.ports.get(n).map_or("", |p| &p.ident)});
            match notice {
                Notice::LinkUp(n) => self.emitter.emit("link_up", &ident(n))?,
                Notice::LinkDown(n) => self.emitter.emit("link_down", &ident(n))?,
                Notice::PeerUp => self.emitter.emit("peer_up", &())?,
                Notice::PeerDown => self.emitter.emit("peer_down", &())?,
                Notice::PeerState => {
                    let Some((incarnation, body)) = packet else { continue };
                    let Ok(value) = serde_json::from_slice::<Value>(body) else { continue };
                    self.emitter.emit(
                        "peer_state",
                        &json!({"incarnation": incarnation, "bye": value["bye"] == true, "state": value["state"]}),
                    )?;
                }
            }
        }
        Ok(())
    }

    fn open_ports(&mut self, poll: &Poll) -> Result<(), End> {
        let now = monotonic_ms();
        for port in &mut self.ports {
            if let Some(present) = port.open(now, poll.registry()) {
                self.emitter.emit("local_address", &json!({"ident": port.ident, "present": present}))?;
            }
        }
        Ok(())
    }

    /// Sends what is due.
    fn speak(&mut self, now: u64) -> Result<(), End> {
        let farewell = self.bye.as_ref().is_some_and(|b| now >= b.next);
        if farewell && let Some(state) = &self.state {
            self.body = Some(body(self.version, true, state));
        }
        if let Some(body) = &self.body {
            for port in &mut self.ports {
                let due = if self.bye.is_some() { farewell } else { port.pulse(now) };
                if due {
                    port.send(body, &mut self.packet);
                }
            }
        }
        if farewell && let Some(bye) = &mut self.bye {
            bye.left -= 1;
            bye.next = now + BYE_INTERVAL_MS;
            if bye.left == 0 {
                self.bye = None;
                self.body = None;
                self.emitter.emit("done", &())?;
            }
        }
        Ok(())
    }
}

fn body(version: u64, bye: bool, state: &str) -> Vec<u8> {
    format!("{{\"v\":{version},\"bye\":{bye},\"state\":{state}}}").into_bytes()
}

fn watch_stdin(poll: &Poll) -> io::Result<()> {
    let stdin = io::stdin();
    let flags = rustix::fs::fcntl_getfl(stdin.as_fd())?;
    rustix::fs::fcntl_setfl(stdin.as_fd(), flags | rustix::fs::OFlags::NONBLOCK)?;
    poll.registry().register(&mut SourceFd(&stdin.as_raw_fd()), STDIN, Interest::READABLE)
}

fn announce_ready(fd: Option<i32>) {
    if let Some(fd) = fd {
        // SAFETY: whoever passed this number on the command line gave the descriptor to us for this one use.
        let mut file = unsafe { File::from_raw_fd(fd) };
        // Nobody listens: not an error of ours.
        let _ = file.write_all(b"\n");
    }
}
