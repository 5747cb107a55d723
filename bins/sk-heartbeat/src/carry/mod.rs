//! What does the carrier do, second by second: one stream of packets a network path for all modules of this node?
//!
//! It needs no file, reads no clock but the kernel's, and waits for nobody: a module that does not read is cut off and comes
//! back. The rules are `detector::carrier`'s.

mod clients;
mod paths;

use crate::election;
use crate::local::{CARRIER_WORD, MEMBER_ROUNDS};
use clients::Client;
use detector::carrier::{Carrier, MemberId};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use paths::Stream;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::failure::Failure;
use sys::realtime::{self, Children, Memory};
use wire::path::PACKET_LIMIT;

const LISTENER: Token = Token(0);
/// Tokens of ports, then of clients and their runners in turn.
const PORTS: usize = 1;
const PORTS_LIMIT: usize = 1_000;
const CLIENTS: usize = PORTS + PORTS_LIMIT;
/// More modules than this on one node are refused.
const CLIENTS_LIMIT: usize = 1_024;
/// Without any module, and without news of dead ones, for so long it ends.
const IDLE_MS: u64 = 1_000;
/// How often the carrier makes sure that it is still the one who is found.
const CHECK_MS: u64 = 1_000;
/// Its longest round.
const ROUND_MS: u64 = 500;

pub(crate) struct Carry {
    core: Carrier,
    poll: Poll,
    listener: OwnedFd,
    directory: PathBuf,
    lock: OwnedFd,
    /// Device and number of our socket in the directory.
    bound: (u64, u64),
    clients: Vec<Option<Client>>,
    /// The client of each member of the core.
    owners: Vec<Option<usize>>,
    ports: Vec<Option<crate::port::Port>>,
    /// By number of the stream in the core.
    streams: Vec<Option<Stream>>,
    /// What clients should know of this process, in words.
    words: Vec<String>,
    body: Vec<u8>,
    packet: Vec<u8>,
    /// No verdict about clients before: we were not running ourselves.
    grace_until: u64,
    last_turn: u64,
    busy_at: u64,
    check_at: u64,
    /// More waits than one turn takes.
    backlog: bool,
    /// A later version takes over.
    yields: bool,
}

pub(crate) fn run(directory: &Path, lock: i32) -> Result<(), Failure> {
    // SAFETY: whoever passed this number on the command line gave the descriptor to us.
    let lock = unsafe { OwnedFd::from_raw_fd(lock) };
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::CLOEXEC).map_err(|e| Failure::system("--lock-fd", e))?;
    let place = election::socket(directory);
    let listener = listen(&place).map_err(|e| Failure::system(place.display(), e))?;
    let bound = identity(&place).map_err(|e| Failure::system(place.display(), e))?;
    let poll = Poll::new().map_err(|e| Failure::system("epoll", e))?;
    poll.registry()
        .register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)
        .map_err(|e| Failure::system("epoll", e))?;
    // It was started by a path that ends in `exe`. Only for people.
    let _ = nix::sys::prctl::set_name(c"sk-heartbeat");
    let words = realtime::enter("heartbeats", Memory::All, Children::Inherit);
    // One process for all modules: the last one to be chosen when memory is short. Only asked for.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    let now = monotonic_ms();
    Carry {
        core: Carrier::new(),
        poll,
        listener,
        directory: directory.to_owned(),
        lock,
        bound,
        clients: Vec::new(),
        owners: Vec::new(),
        ports: Vec::new(),
        streams: Vec::new(),
        words,
        body: Vec::with_capacity(PACKET_LIMIT),
        packet: Vec::with_capacity(PACKET_LIMIT),
        grace_until: 0,
        last_turn: now,
        busy_at: now,
        check_at: now + CHECK_MS,
        backlog: false,
        yields: false,
    }
    .serve()
}

/// Only the holder of the lock comes here: a socket that is there is a dead one's.
fn listen(place: &Path) -> io::Result<OwnedFd> {
    sys::files::remove(place)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(place)?)?;
    rustix::net::listen(&socket, 512)?;
    Ok(socket)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

impl Carry {
    fn serve(mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(256);
        loop {
            let timeout = Duration::from_millis(self.deadline().saturating_sub(monotonic_ms()));
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(Failure::system("epoll", e)),
                _ => {}
            }
            let now = monotonic_ms();
            if now.saturating_sub(self.last_turn) > MEMBER_ROUNDS * self.round() {
                self.grace_until = now + MEMBER_ROUNDS * self.round();
            }
            self.last_turn = now;
            self.backlog = false;
            for token in events.iter().map(mio::event::Event::token) {
                if let Some(number) = token.0.checked_sub(CLIENTS)
                    && let Some(client) = self.clients.get_mut(number / 2).and_then(Option::as_mut)
                {
                    // An event of a former owner of the number finds nothing to read.
                    client.ready = true;
                }
            }
            self.accept();
            self.listen_to_clients(now);
            // All sockets, whatever epoll said: there are few, and a batch may have left something.
            for port in 0..self.ports.len() {
                self.receive(port);
            }
            let now = monotonic_ms();
            self.renew(now);
            self.core.tick(now);
            self.tell();
            self.transmit(now);
            self.open_ports(now);
            self.tidy(now);
            if self.yields || self.is_done(now) {
                return Ok(());
            }
        }
    }

    fn deadline(&self) -> u64 {
        if self.backlog {
            return 0;
        }
        let ports = self.ports.iter().flatten().map(|p| p.next_bind);
        let ended = self.clients.iter().flatten().filter_map(Client::verdict_at);
        ports
            .chain(ended)
            .chain(self.core.deadline())
            .min()
            .unwrap_or(u64::MAX)
            .min(self.last_turn + self.round())
            .min(self.check_at)
    }

    /// The shortest round of all clients.
    fn round(&self) -> u64 {
        self.clients.iter().flatten().map(|c| c.round).min().unwrap_or(ROUND_MS).min(ROUND_MS)
    }

    /// Those whose loop goes round count as alive; and they see that we do.
    fn renew(&mut self, now: u64) {
        for client in self.clients.iter().flatten() {
            client.words.set(CARRIER_WORD, now);
            if let Some(member) = client.member {
                let until = client.lease(now).max(if client.is_gone() { 0 } else { self.grace_until });
                self.core.renew(now, member, until);
            }
        }
    }

    fn owner(&self, member: MemberId) -> Option<&Client> {
        let number = (*self.owners.get(member)?)?;
        self.clients.get(number)?.as_ref()
    }

    /// Nobody needs it, or nobody finds it any more.
    fn is_done(&mut self, now: u64) -> bool {
        if self.clients.iter().any(Option::is_some) || !self.core.is_idle() {
            self.busy_at = now;
        }
        if now >= self.busy_at + IDLE_MS {
            return true;
        }
        if now < self.check_at {
            return false;
        }
        self.check_at = now + CHECK_MS;
        // Somebody removed our files: a successor could start beside us.
        let lock = rustix::fs::fstat(self.lock.as_fd()).map(|s| (s.st_dev, s.st_ino)).ok();
        let moved = |name: &Path, own: Option<(u64, u64)>| {
            identity(name).map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |there| Some(there) != own)
        };
        moved(&election::socket(&self.directory), Some(self.bound)) || moved(&self.directory.join("lock"), lock)
    }
}
