//! Which clients are served, and for how long? One thread, one loop.

use crate::cli::{Failure, Serve};
use crate::connection::Connection;
use crate::reply::Purpose;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use sys::roots::Roots;

/// Connections accepted in one turn, so that those that are open get theirs.
const ACCEPTED_IN_A_TURN: usize = 64;
/// How long nobody new is let in when the process has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

struct Server<'a> {
    roots: &'a Roots,
    limits: &'a Serve,
    poll: Poll,
    listeners: Vec<(TcpListener, Purpose)>,
    connections: BTreeMap<usize, Connection>,
    next: usize,
}

/// Answers until the process is ended.
pub fn serve(roots: &Roots, limits: &Serve) -> Result<(), Failure> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error| (what, error)
    };
    let poll = Poll::new().map_err(failed("epoll"))?;
    let mut listeners = Vec::new();
    let health = limits.listen.iter().map(|address| (address, Purpose::Health, limits.listen.len()));
    let metrics = limits.metrics.iter().map(|address| (address, Purpose::Metrics, limits.metrics.len()));
    for (address, purpose, alternatives) in health.chain(metrics) {
        let mut listener = match listen(*address) {
            // A host without IPv6 serves what it has.
            Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) && alternatives > 1 => continue,
            other => other.map_err(failed(&format!("cannot listen on {address}")))?,
        };
        if let Ok(bound) = listener.local_addr() {
            let what = if purpose == Purpose::Metrics { "metrics on" } else { "listening on" };
            sys::warn!("sk-health: {what} {bound}");
        }
        let token = Token(listeners.len());
        poll.registry().register(&mut listener, token, Interest::READABLE).map_err(failed("epoll"))?;
        listeners.push((listener, purpose));
    }
    if let Some(fd) = limits.ready_fd {
        // SAFETY: the caller passed this descriptor for this one use and gave up its ownership.
        let file = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        // Nobody listens: not an error of ours.
        let _ = io::Write::write_all(&mut &file, b"\n");
    }
    if listeners.is_empty() {
        return Err(("cannot listen".to_owned(), io::Error::from_raw_os_error(nix::libc::EAFNOSUPPORT)));
    }
    let next = listeners.len();
    let mut server = Server { roots, limits, poll, listeners, connections: BTreeMap::new(), next };
    let mut events = Events::with_capacity(256);
    loop {
        server.turn(&mut events).map_err(failed("epoll"))?;
    }
}

/// IPv6 sockets take IPv6 only, so that one for each family can listen on the same port.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(TcpListener::from_std(std::net::TcpListener::from(fd)))
}

impl Server<'_> {
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let now = Instant::now();
        let wait = self.connections.values().map(|c| c.deadline).min().map(|at| at.saturating_duration_since(now));
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = Instant::now();
        for event in events.iter() {
            let Token(token) = event.token();
            if token < self.listeners.len() {
                self.accept(token, now)?;
            } else if let Some(connection) = self.connections.get_mut(&token)
                && !connection.go_on(self.roots, now)
            {
                self.drop(token);
            }
        }
        let late: Vec<usize> = self.connections.iter().filter(|(_, c)| c.deadline <= now).map(|(t, _)| *t).collect();
        for token in late {
            if self.connections.get_mut(&token).is_some_and(|c| !c.is_late(self.roots, now)) {
                self.drop(token);
            }
        }
        Ok(())
    }

    fn accept(&mut self, token: usize, now: Instant) -> io::Result<()> {
        for _ in 0..ACCEPTED_IN_A_TURN {
            let Some((listener, purpose)) = self.listeners.get(token) else { return Ok(()) };
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream, *purpose, now)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    // The client is gone already, or descriptors are short: the others must not suffer from a busy loop.
                    if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                        sys::warn!("sk-health: accept: {error}");
                        std::thread::sleep(EXHAUSTED);
                        return self.again(token);
                    }
                }
            }
        }
        self.again(token)
    }

    /// There may be more: epoll tells of new ones only.
    fn again(&mut self, token: usize) -> io::Result<()> {
        match self.listeners.get_mut(token) {
            Some((listener, _)) => self.poll.registry().reregister(listener, Token(token), Interest::READABLE),
            None => Ok(()),
        }
    }

    fn admit(&mut self, mut stream: TcpStream, purpose: Purpose, now: Instant) -> io::Result<()> {
        // Who asks a question asks it at once. The oldest connection is the one that most probably never will.
        while self.connections.len() >= usize::from(self.limits.connections) {
            let Some(oldest) = self.connections.iter().min_by_key(|(_, c)| c.deadline).map(|(t, _)| *t) else { break };
            self.drop(oldest);
        }
        let token = self.next;
        self.next = self.next.checked_add(1).unwrap_or(self.listeners.len());
        self.poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        self.connections.insert(token, Connection::new(stream, purpose, now, self.limits.patience()));
        Ok(())
    }

    fn drop(&mut self, token: usize) {
        if let Some(mut connection) = self.connections.remove(&token) {
            // Closing takes it out of epoll as well.
            let _ = self.poll.registry().deregister(&mut connection.stream);
        }
    }
}
