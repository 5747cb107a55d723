//! How are many connections, echoes and questions under way at the same time, in one poll loop?

pub(crate) mod http;
pub(crate) mod icmp;
pub(crate) mod local;
mod ping;
mod resolve;

use crate::spec::Target;
use http::Question;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token, Waker};
use ping::Echoes;
use resolve::Resolver;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use sys::failure::Failure;

/// Tokens below this belong to others.
const FIRST_TOKEN: usize = 1 << 20;
const RESOLVER: Token = Token(FIRST_TOKEN - 1);
const ECHO_V4: Token = Token(FIRST_TOKEN - 2);
const ECHO_V6: Token = Token(FIRST_TOKEN - 3);
/// An echo that is not answered is sent again, so often within the timeout.
const ECHOES: u64 = 3;

/// What a probe found: good, with the life of the other module's application where that was asked for; or why not.
pub(crate) type Outcome = Result<Option<String>, Trouble>;

/// Why a probe did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub reason: String,
    /// This host could not even ask (no descriptor, no memory, no socket): nothing is known of the other side.
    pub own: bool,
}

impl Trouble {
    fn of(reason: String, error: &io::Error) -> Self {
        // Not EPERM: a packet filter on the way out says so, and then the way is broken.
        let own = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS));
        Self { reason, own }
    }
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self { reason, own: false }
    }
}

/// The probes under way, by the number of their checker.
pub(crate) struct Prober {
    registry: Registry,
    resolver: Resolver,
    echoes: Echoes,
    active: BTreeMap<usize, Probe>,
    next_token: usize,
}

struct Probe {
    target: Target,
    token: usize,
    deadline: u64,
    timeout_ms: u64,
    stage: Stage,
    /// What went wrong so far, for the case that nothing better comes.
    trouble: Option<Trouble>,
}

enum Stage {
    Resolving,
    Connecting(TcpStream),
    Asking { stream: TcpStream, question: Question, to: SocketAddr, out: Vec<u8>, sent: usize, received: Vec<u8> },
    Echo { to: SocketAddr, next: u64 },
}

/// Progress of one stage.
enum Step {
    Wait,
    Done(Outcome),
    /// Ask the other question.
    Otherwise(SocketAddr),
}

impl Prober {
    pub fn new(registry: &Registry) -> Result<Self, Failure> {
        let failed = |e| Failure::system("epoll", e);
        let waker = Waker::new(registry, RESOLVER).map_err(failed)?;
        Ok(Self {
            registry: registry.try_clone().map_err(failed)?,
            resolver: Resolver::new(waker),
            echoes: Echoes::new().map_err(|e| Failure::system("random source", e))?,
            active: BTreeMap::new(),
            next_token: FIRST_TOKEN,
        })
    }

    /// Whether an event belongs to a probe.
    pub fn owns(token: Token) -> bool {
        token.0 >= ECHO_V6.0
    }

    /// Begins a probe over the network. An outcome that is known at once is returned.
    pub fn start(&mut self, number: usize, target: &Target, timeout_ms: u64, now: u64) -> Option<Outcome> {
        let host = match target {
            Target::Tcp { host, .. } | Target::Ping { host } | Target::Module { host, .. } => host.clone(),
            Target::Intf { .. } | Target::Ip { .. } | Target::Custom(_) => return None,
        };
        let probe = Probe {
            target: target.clone(),
            token: self.next_token,
            deadline: now.saturating_add(timeout_ms),
            timeout_ms,
            stage: Stage::Resolving,
            trouble: None,
        };
        self.next_token += 1;
        self.active.insert(number, probe);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.resolved(number, SocketAddr::new(ip, 0), now);
        }
        self.resolver.ask(&host);
        None
    }

    pub fn cancel(&mut self, number: usize) {
        self.active.remove(&number);
    }

    /// When `expire` must be called at the latest.
    pub fn deadline(&self) -> Option<u64> {
        let next = |probe: &Probe| match probe.stage {
            Stage::Echo { next, .. } => probe.deadline.min(next),
            _ => probe.deadline,
        };
        self.active.values().map(next).min()
    }

    /// What an event of the poll brings.
    pub fn ready(&mut self, event: &Event, now: u64) -> Vec<(usize, Outcome)> {
        match event.token() {
            RESOLVER => self.names(now),
            ECHO_V4 | ECHO_V6 => {
                let mut done = Vec::new();
                for (from, token) in self.echoes.read(event.token() == ECHO_V6) {
                    let answered = self.active.iter().find(|(_, probe)| {
                        probe.token == token
                            && matches!(probe.stage, Stage::Echo { to, .. } if icmp::plain(to.ip()) == icmp::plain(from))
                    });
                    if let Some(number) = answered.map(|(number, _)| *number) {
                        self.active.remove(&number);
                        done.push((number, Ok(None)));
                    }
                }
                done
            }
            token => {
                let number = self.active.iter().find(|(_, probe)| probe.token == token.0).map(|(number, _)| *number);
                number.and_then(|number| Some((number, self.go_on(number)?))).into_iter().collect()
            }
        }
    }

    fn names(&mut self, now: u64) -> Vec<(usize, Outcome)> {
        let mut done = Vec::new();
        for (host, result) in self.resolver.answers() {
            let waiting: Vec<usize> = self
                .active
                .iter()
                .filter(|(_, p)| matches!(p.stage, Stage::Resolving) && p.host() == Some(&host))
                .map(|(number, _)| *number)
                .collect();
            for number in waiting {
                let outcome = match result.as_ref().map(|all| all.first()) {
                    Ok(Some(address)) => self.resolved(number, *address, now),
                    Ok(None) => Some(Err(format!("{host} has no address").into())),
                    Err(reason) => Some(Err(reason.clone().into())),
                };
                if let Some(outcome) = outcome {
                    self.active.remove(&number);
                    done.push((number, outcome));
                }
            }
        }
        done
    }

    /// The address is known: the probe proper begins.
    fn resolved(&mut self, number: usize, address: SocketAddr, now: u64) -> Option<Outcome> {
        let probe = self.active.get_mut(&number)?;
        let mut to = address;
        let outcome = match &probe.target {
            Target::Tcp { port, .. } => {
                to.set_port(*port);
                match connect(&self.registry, to, probe.token) {
                    Ok(stream) => {
                        probe.stage = Stage::Connecting(stream);
                        return None;
                    }
                    Err(error) => Err(failure(to, &error)),
                }
            }
            Target::Module { port, .. } => {
                to.set_port(*port);
                match self.ask(number, Question::State, to) {
                    Ok(()) => return None,
                    Err(error) => Err(failure(to, &error)),
                }
            }
            Target::Ping { .. } => {
                probe.stage = Stage::Echo { to, next: now };
                match self.echoes.open(&self.registry, to.is_ipv6(), ECHO_V4, ECHO_V6) {
                    Ok(()) => {
                        self.echo(number, now);
                        return None;
                    }
                    Err(error) => {
                        let reason = format!("no ICMP socket: {error} (needs root or CAP_NET_RAW)");
                        Err(Trouble { reason, own: true })
                    }
                }
            }
            Target::Intf { .. } | Target::Ip { .. } | Target::Custom(_) => return None,
        };
        self.active.remove(&number);
        Some(outcome)
    }

    fn ask(&mut self, number: usize, question: Question, to: SocketAddr) -> io::Result<()> {
        let Some(probe) = self.active.get_mut(&number) else { return Ok(()) };
        let Target::Module { module, host, .. } = &probe.target else { return Ok(()) };
        let out = http::request(question, module, host);
        // A token of its own: events of the former stream must not be taken for this one's.
        probe.token = self.next_token;
        self.next_token += 1;
        let stream = connect(&self.registry, to, probe.token)?;
        probe.stage = Stage::Asking { stream, question, to, out, sent: 0, received: Vec::new() };
        Ok(())
    }

    fn go_on(&mut self, number: usize) -> Option<Outcome> {
        let probe = self.active.get_mut(&number)?;
        let outcome = match probe.step() {
            Step::Wait => return None,
            Step::Done(outcome) => outcome,
            Step::Otherwise(to) => match self.ask(number, Question::Ready, to) {
                Ok(()) => return None,
                Err(error) => Err(failure(to, &error)),
            },
        };
        self.active.remove(&number);
        Some(outcome)
    }

    fn echo(&mut self, number: usize, now: u64) {
        let Some(probe) = self.active.get_mut(&number) else { return };
        if let Stage::Echo { to, next } = &mut probe.stage {
            *next = now.saturating_add((probe.timeout_ms / ECHOES).max(1));
            if let Err(error) = self.echoes.send(*to, probe.token) {
                probe.trouble = Some(Trouble::of(format!("{}: {error}", to.ip()), &error));
            }
        }
    }

    /// What ran out of its time.
    pub fn expire(&mut self, now: u64) -> Vec<(usize, Outcome)> {
        let late: Vec<usize> = self.active.iter().filter(|(_, p)| p.deadline <= now).map(|(n, _)| *n).collect();
        let mut done = Vec::new();
        for number in late {
            if let Some(probe) = self.active.remove(&number) {
                let nothing = || Trouble::from(format!("no answer within {} ms", probe.timeout_ms));
                let resolving = matches!(probe.stage, Stage::Resolving);
                let slow = || {
                    let host = probe.host().unwrap_or("?");
                    Trouble::from(format!("{host} was not resolved within {} ms", probe.timeout_ms))
                };
                let trouble = probe.trouble.clone().unwrap_or_else(|| if resolving { slow() } else { nothing() });
                done.push((number, Err(trouble)));
            }
        }
        let again: Vec<usize> = self
            .active
            .iter()
            .filter(|(_, p)| matches!(p.stage, Stage::Echo { next, .. } if next <= now))
            .map(|(n, _)| *n)
            .collect();
        for number in again {
            self.echo(number, now);
        }
        done
    }
}

impl Probe {
    fn host(&self) -> Option<&str> {
        match &self.target {
            Target::Tcp { host, .. } | Target::Ping { host } | Target::Module { host, .. } => Some(host),
            Target::Intf { .. } | Target::Ip { .. } | Target::Custom(_) => None,
        }
    }

    fn step(&mut self) -> Step {
        let module = match &self.target {
            Target::Module { module, .. } => module.clone(),
            _ => String::new(),
        };
        match &mut self.stage {
            Stage::Resolving | Stage::Echo { .. } => Step::Wait,
            Stage::Connecting(stream) => match connected(stream) {
                Ok(true) => Step::Done(Ok(None)),
                Ok(false) => Step::Wait,
                Err(error) => Step::Done(Err(Trouble::of(words(&error), &error))),
            },
            Stage::Asking { stream, question, to, out, sent, received } => {
                match converse(stream, out, sent, received) {
                    Ok(false) => Step::Wait,
                    Ok(true) => match http::answer(*question, &module, received) {
                        http::Answer::Up { application } => Step::Done(Ok(application)),
                        http::Answer::Down { reason } => Step::Done(Err(reason.into())),
                        http::Answer::Absent => Step::Otherwise(*to),
                    },
                    Err(error) => Step::Done(Err(failure(*to, &error))),
                }
            }
        }
    }
}

fn connect(registry: &Registry, to: SocketAddr, token: usize) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

/// Whether the connection stands.
fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotConnected => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sends the question and reads until the server closes. Whether that is done.
fn converse(stream: &mut TcpStream, out: &[u8], sent: &mut usize, received: &mut Vec<u8>) -> io::Result<bool> {
    if !connected(stream)? {
        return Ok(false);
    }
    while let Some(rest) = out.get(*sent..).filter(|r| !r.is_empty()) {
        match stream.write(rest) {
            Ok(n) => *sent += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(true),
            Ok(n) => {
                received.extend_from_slice(piece.get(..n).unwrap_or_default());
                if received.len() > http::ANSWER_MAX {
                    return Err(io::Error::other("the answer is too long"));
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // A reset behind a whole answer takes nothing away from it.
            Err(e) if e.kind() == ErrorKind::ConnectionReset && !received.is_empty() => return Ok(true),
            Err(e) => return Err(e),
        }
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    }
}

fn failure(to: SocketAddr, error: &io::Error) -> Trouble {
    Trouble::of(format!("{to}: {}", words(error)), error)
}
