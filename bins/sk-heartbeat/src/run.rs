//! What does one module's heartbeat do: orders of the runner to the carrier, events of the carrier to the runner?
//!
//! It does not speak to the network itself. While it has no carrier, it judges by itself what it hears: nothing.

use crate::election::{Place, depose};
use crate::local::{
    Attach, CARRIER_ROUNDS, CARRIER_WORD, Channel, Keys, MEMBER_WORD, Memory, PROTOCOL, Received, Statement, ToCarrier,
    ToMember, round_ms,
};
use crate::spec::Spec;
use detector::{Detector, LinkSpec, Notice};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::path::Path;
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::failure::Failure;
use sys::pidfd::PidFd;
use sys::realtime::{self, Children};
use sys::words::SharedWords;
use wire::lines::{EmitError, LineBuffer, LineError};
use wire::{Emitter, KeyFile, Message};

/// Exit code: the key file cannot be used.
const KEY: u8 = 2;

const STDIN: Token = Token(0);
const CARRIER: Token = Token(1);
/// Longest published state in bytes of JSON: with the names it must fit a packet.
const STATE_LIMIT: usize = 1100;
/// A goodbye that no carrier confirms is taken as said after this time.
const BYE_MS: u64 = 500;
/// A carrier must answer an attachment within this time, or three rounds.
const ANSWER_MS: u64 = 500;
/// Pauses between attempts to reach a carrier: at first, a successor may be there any moment.
const RETRY_FIRST_MS: u64 = 2;
const RETRY_LAST_MS: u64 = 100;

/// The carrier, as it is reached.
struct Tie {
    channel: Channel,
    process: PidFd,
    /// Present once it has answered.
    words: Option<SharedWords>,
    since: u64,
}

struct Heart {
    emitter: Emitter,
    spec: Spec,
    watched: Vec<LinkSpec>,
    keys: KeyFile,
    incarnation: u64,
    runner: Option<PidFd>,
    round: u64,
    place: Place,
    tie: Option<Tie>,
    /// Judges while no carrier does.
    detector: Option<Detector>,
    retry_at: u64,
    retry_ms: u64,
    /// No verdict about the carrier before: we were not running ourselves.
    grace_until: u64,
    last_turn: u64,
    statement: Option<Statement>,
    memory: Memory,
    /// When a goodbye counts as said.
    bye_by: Option<u64>,
    /// Presence of the local address of each link, as last reported.
    addresses: Vec<Option<bool>>,
    /// Somebody waits for our readiness.
    ready_fd: Option<i32>,
    complained: bool,
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
    let keys = KeyFile::open(&spec.key_file).map_err(|e| Failure::new(KEY, e.to_string()))?;
    let incarnation = wire::path::random_incarnation().map_err(|e| Failure::system("random bytes", e))?;
    let parent = std::os::unix::process::parent_id();
    let runner = PidFd::open(parent.cast_signed()).map_err(|e| Failure::system("pidfd_open", e))?;
    let watched: Vec<_> =
        spec.links.iter().map(|l| LinkSpec { pulse_ms: l.pulse_ms, timeout_ms: l.timeout_ms }).collect();
    let poll = Poll::new().map_err(|e| Failure::system("epoll", e))?;
    // A carrier that this process may start is in a hurry, too.
    for words in realtime::enter("heartbeats", realtime::Memory::Touched, Children::Inherit) {
        sys::warn!("sk-heartbeat: {words}");
    }
    let now = monotonic_ms();
    let links = spec.links.len();
    let mut heart = Heart {
        emitter: Emitter::new("sk-heartbeat", &spec.node, &spec.module),
        keys,
        incarnation,
        runner,
        round: round_ms(&spec.links),
        place: Place::new(spec.carrier_directory())?,
        tie: None,
        detector: Some(Detector::new(now, &watched)),
        retry_at: now,
        retry_ms: RETRY_FIRST_MS,
        grace_until: 0,
        last_turn: now,
        statement: None,
        memory: Memory { links: vec![false; links], ..Memory::default() },
        bye_by: None,
        addresses: vec![None; links],
        ready_fd,
        complained: false,
        watched,
        spec,
    };
    match heart.serve(poll) {
        Ok(()) | Err(End::Orderly) => Ok(()),
        Err(End::Failed(failure)) => Err(failure),
    }
}

impl Heart {
    fn serve(&mut self, mut poll: Poll) -> Result<(), End> {
        let stdin = io::stdin();
        watch_stdin(&poll).map_err(|e| End::Failed(Failure::system("stdin must be a pipe, socket or terminal", e)))?;
        let mut orders = LineBuffer::new();
        let mut events = Events::with_capacity(8);
        loop {
            let now = monotonic_ms();
            if now.saturating_sub(self.last_turn) > CARRIER_ROUNDS * self.round {
                self.grace_until = now + CARRIER_ROUNDS * self.round;
            }
            self.last_turn = now;
            self.listen(now)?;
            self.renew_keys(now);
            self.reach(now, &poll);
            self.judge(now)?;
            if self.bye_by.is_some_and(|at| at <= now) {
                self.bye_is_said()?;
            }
            let timeout = Duration::from_millis(self.deadline(now).saturating_sub(monotonic_ms()));
            match poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    return Err(End::Failed(Failure::system("epoll", e)));
                }
                _ => {}
            }
            if events.iter().any(|e| e.token() == STDIN) && !self.orders(&mut orders, &mut stdin.lock())? {
                return Ok(());
            }
        }
    }

    fn deadline(&self, now: u64) -> u64 {
        [self.tie.is_none().then_some(self.retry_at), self.detector.as_ref().and_then(Detector::deadline), self.bye_by]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX)
            .min(now + self.round)
    }

    /// A renewal of the cluster key reaches a heart that beats.
    fn renew_keys(&mut self, now: u64) {
        match self.keys.renewed(now) {
            Ok(false) => {}
            Ok(true) => {
                let keys = Keys::of(self.keys.ring());
                self.tell(&ToCarrier::Keys(keys));
            }
            Err(error) => sys::warn!("sk-heartbeat: {error}; the keys read before are used"),
        }
    }

    // --- the carrier ---

    /// Looks for a carrier, or after the one there is.
    fn reach(&mut self, now: u64, poll: &Poll) {
        self.place.tidy();
        if let Some(tie) = &self.tie {
            let (seen, patience) = match &tie.words {
                Some(words) => {
                    words.set(MEMBER_WORD, now);
                    (words.get(CARRIER_WORD), CARRIER_ROUNDS * self.round)
                }
                None => (tie.since, ANSWER_MS.max(CARRIER_ROUNDS * self.round)),
            };
            if now < self.grace_until || now.saturating_sub(seen) <= patience {
                return;
            }
            sys::warn!("sk-heartbeat: the carrier of this node's heartbeats hangs; it is replaced");
            depose(&tie.process);
            self.part(now);
        }
        if now < self.retry_at {
            return;
        }
        match self.connect(now, poll) {
            Ok(true) => return,
            Ok(false) => self.place.fill(now),
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    let place = self.place.socket();
                    sys::warn!(
                        "sk-heartbeat: the carrier at {} is not reached: {error}; trying again",
                        place.display()
                    );
                }
            }
        }
        self.retry_at = now + self.retry_ms;
        self.retry_ms = (self.retry_ms * 2).min(RETRY_LAST_MS);
    }

    /// `false`: there is none.
    fn connect(&mut self, now: u64, poll: &Poll) -> io::Result<bool> {
        let channel = match Channel::connect(&self.place.socket()) {
            Ok(channel) => channel,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
                    _ => Err(error),
                };
            }
        };
        if !channel.is_ours()? {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
        }
        let Some(process) = channel.process()? else { return Ok(false) };
        let attach = Attach {
            protocol: PROTOCOL,
            module: self.spec.module.clone(),
            node: self.spec.node.clone(),
            peer: self.spec.peer.clone(),
            port: self.spec.port,
            keys: Keys::of(self.keys.ring()),
            incarnation: self.incarnation,
            links: self.spec.links.clone(),
            memory: self.memory.clone(),
            statement: self.statement.clone(),
        };
        channel.send(&ToCarrier::Attach(Box::new(attach)), self.runner.as_ref().map(AsFd::as_fd))?;
        poll.registry().register(&mut SourceFd(&channel.as_raw_fd()), CARRIER, Interest::READABLE)?;
        self.tie = Some(Tie { channel, process, words: None, since: now });
        Ok(true)
    }

    fn part(&mut self, now: u64) {
        let answered = self.tie.take().is_some_and(|tie| tie.words.is_some());
        if self.detector.is_none() {
            self.detector = Some(Detector::resume(now, &self.watched, &self.memory.clone().into()));
        }
        // A successor of one that worked is there in a moment.
        self.retry_ms = if answered { RETRY_FIRST_MS } else { self.retry_ms };
        self.retry_at = if answered { now } else { now + self.retry_ms };
    }

    fn listen(&mut self, now: u64) -> Result<(), End> {
        while let Some(tie) = &mut self.tie {
            match tie.channel.receive() {
                Ok(Received::Nothing) => return Ok(()),
                Ok(Received::Record(ToMember::Attached { .. }, Some(fd))) => match SharedWords::open(fd) {
                    Ok(words) => {
                        words.set(MEMBER_WORD, now);
                        tie.words = Some(words);
                        self.detector = None;
                        self.retry_ms = RETRY_FIRST_MS;
                        self.complained = false;
                        self.place.reached(now);
                    }
                    Err(error) => return Err(End::Failed(Failure::system("shared words", error))),
                },
                Ok(Received::Record(record, _)) => self.heard(now, record)?,
                Ok(Received::Noise) => {}
                Ok(Received::Closed) | Err(_) => self.part(now),
            }
        }
        Ok(())
    }

    fn heard(&mut self, now: u64, record: ToMember) -> Result<(), End> {
        match record {
            ToMember::Older { protocol } => {
                sys::warn!(
                    "sk-heartbeat: the carrier speaks version {protocol}, this program {PROTOCOL}: it is asked to end"
                );
                self.tell(&ToCarrier::Yield);
                self.part(now);
            }
            ToMember::Refused { reason } => {
                if !std::mem::replace(&mut self.complained, true) {
                    sys::warn!("sk-heartbeat: the carrier refuses: {reason}; trying again");
                }
                self.part(now);
                self.retry_ms = RETRY_LAST_MS;
                self.retry_at = now + RETRY_LAST_MS;
            }
            ToMember::LinkUp { link } => self.notice(Notice::LinkUp(link))?,
            ToMember::LinkDown { link } => self.notice(Notice::LinkDown(link))?,
            ToMember::PeerUp => self.notice(Notice::PeerUp)?,
            ToMember::PeerDown => self.notice(Notice::PeerDown)?,
            ToMember::PeerState { incarnation, version, bye, state } => {
                self.memory.newest = Some((incarnation, version));
                match serde_json::from_str::<Value>(&state) {
                    Ok(state) => {
                        let body = json!({"incarnation": incarnation, "bye": bye, "state": state});
                        self.emitter.emit("peer_state", &body)?;
                    }
                    Err(error) => sys::warn!("sk-heartbeat: the peer published something else than JSON: {error}"),
                }
            }
            ToMember::PeerGone { evidence } => self.emitter.emit("peer_gone", &json!({"evidence": evidence}))?,
            ToMember::ByeDone => self.bye_is_said()?,
            ToMember::Address { link, present } => self.address(link, present)?,
            ToMember::WrongKey { from } => self.emitter.emit("wrong_key", &json!({"from": from}))?,
            ToMember::Words { text } => sys::warn!("sk-heartbeat: {text}"),
            ToMember::Attached { .. } | ToMember::Unknown => {}
        }
        Ok(())
    }

    fn address(&mut self, link: usize, present: bool) -> Result<(), End> {
        let Some(known) = self.addresses.get_mut(link) else { return Ok(()) };
        if known.replace(present) != Some(present) {
            let ident = self.spec.links.get(link).map_or("", |l| &l.ident);
            self.emitter.emit("local_address", &json!({"ident": ident, "present": present}))?;
        }
        if self.addresses.iter().all(Option::is_some) {
            announce_ready(self.ready_fd.take());
        }
        Ok(())
    }

    /// Without a carrier nothing is heard: after the timeouts that is said, too.
    fn judge(&mut self, now: u64) -> Result<(), End> {
        let Some(detector) = &mut self.detector else { return Ok(()) };
        let mut notices = Vec::new();
        detector.tick(now, &mut notices);
        notices.into_iter().try_for_each(|notice| self.notice(notice))
    }

    fn notice(&mut self, notice: Notice) -> Result<(), End> {
        match notice {
            Notice::LinkUp(n) | Notice::LinkDown(n) => {
                let up = matches!(notice, Notice::LinkUp(_));
                let (Some(link), Some(known)) = (self.spec.links.get(n), self.memory.links.get_mut(n)) else {
                    return Ok(());
                };
                if std::mem::replace(known, up) != up {
                    let kind = if up { "link_up" } else { "link_down" };
                    self.emitter.emit(kind, &json!({"ident": link.ident}))?;
                }
            }
            Notice::PeerUp => {
                self.memory.judged = true;
                self.emitter.emit("peer_up", &())?;
            }
            Notice::PeerDown => {
                self.memory.judged = true;
                self.memory.newest = None;
                self.emitter.emit("peer_down", &())?;
            }
            // With its content, from the carrier.
            Notice::PeerState => {}
        }
        Ok(())
    }

    /// Said to a carrier that is there; one that comes later is told with the attachment.
    fn tell(&mut self, record: &ToCarrier) {
        if let Some(tie) = &self.tie
            && tie.channel.send(record, None).is_err()
        {
            // It does not read, or is gone.
            self.part(self.last_turn);
        }
    }

    // --- the runner ---

    /// Takes the orders that wait; `false` at the end of stdin or after `quit`.
    fn orders(&mut self, buffer: &mut LineBuffer, stdin: &mut impl io::Read) -> Result<bool, End> {
        let failed = |e| End::Failed(Failure::system("stdin", e));
        buffer.take_waiting(stdin, failed, |order| self.order(order))
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
                if let Some(last) = self.statement.clone() {
                    self.bye_by = Some(monotonic_ms() + BYE_MS);
                    self.state(last.state, true);
                } else {
                    // Nothing was ever said, so there is nothing to take back.
                    self.emitter.emit("done", &())?;
                }
            }
            "quit" => {
                self.tell(&ToCarrier::Leave);
                return Ok(false);
            }
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
        self.bye_is_said()?;
        if self.statement.as_ref().is_none_or(|s| s.bye || s.state != state) {
            self.state(state, false);
        }
        Ok(())
    }

    fn state(&mut self, state: String, bye: bool) {
        let version = self.statement.as_ref().map_or(0, |s| s.version) + 1;
        let statement = Statement { version, bye, state };
        self.statement = Some(statement.clone());
        self.tell(&ToCarrier::Publish(statement));
    }

    fn bye_is_said(&mut self) -> Result<(), End> {
        if self.bye_by.take().is_some() {
            self.emitter.emit("done", &())?;
        }
        Ok(())
    }
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
