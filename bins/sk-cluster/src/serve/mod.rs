//! The daemon of a node: who is let in, how many at a time?
//!
//! A thread a conversation. Who has not shown a key within a few seconds is sent away, and of such there are only a few at a time.

mod answer;
mod facts;
mod run;

use crate::hosts::PORT;
use crate::{Failure, daemon, exit};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use sys::roots::Roots;
use wire::KeyRing;
use wire::channel::ChannelError;
use wire::node::{GREETING, SILENCE, Talk, TalkError};
use wire::role::Role;

/// Conversations at a time, and those of them who have not shown a key yet.
const TALKS: usize = 64;
const STRANGERS: usize = 16;
/// How often the file of the cluster is looked at, for another port.
const LOOK: Duration = Duration::from_secs(1);
/// At least this long between two complaints about strangers.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Who talks to us.
pub struct Asker {
    pub role: Role,
    /// The operator's name. None: the key of the cluster.
    pub operator: Option<String>,
    pub address: IpAddr,
}

struct Server {
    roots: Roots,
    talks: AtomicUsize,
    strangers: AtomicUsize,
    complained: Mutex<Option<Instant>>,
}

/// Counts one as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let counted = Self(counter);
        (counter.fetch_add(1, SeqCst) < limit).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// `sk-cluster serve`: answers until the process is ended.
pub fn serve(roots: &Roots, addresses: &[IpAddr], ready_fd: Option<i32>) -> Result<u8, Failure> {
    let Some(_lock) = daemon::lock(roots)? else {
        return Err(Failure::new(exit::REFUSED, "the daemon of this node runs already"));
    };
    let server = Arc::new(Server {
        roots: roots.clone(),
        talks: AtomicUsize::new(0),
        strangers: AtomicUsize::new(0),
        complained: Mutex::new(None),
    });
    let mut port = port(roots);
    let mut listeners =
        listen(addresses, port).map_err(|e| Failure::system(format!("cannot listen on TCP port {port}"), e))?;
    sys::warn!("sk-cluster: listening on TCP port {port}");
    if let Some(fd) = ready_fd {
        // SAFETY: the caller passed this descriptor for this one use and gave up its ownership.
        let file = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        // Nobody listens: not an error of ours.
        let _ = io::Write::write_all(&mut &file, b"\n");
    }
    loop {
        let mut waiting: Vec<PollFd> = listeners.iter().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Failure::system("poll", e)),
        }
        for listener in &listeners {
            while let Some(stream) = accept(listener) {
                server.clone().receive(stream);
            }
        }
        let wanted = self::port(roots);
        if wanted != port {
            match listen(addresses, wanted) {
                Ok(fresh) => {
                    sys::warn!("sk-cluster: listening on TCP port {wanted}, no longer on {port}");
                    listeners = fresh;
                    port = wanted;
                }
                Err(e) => {
                    server
                        .complain(&format!("cannot listen on TCP port {wanted} of cluster.xml: {e}; still on {port}"));
                }
            }
        }
    }
}

/// Of `cluster.xml`, as far as it can be read.
fn port(roots: &Roots) -> u16 {
    config::load_cluster(&roots.cluster_xml()).0.map_or(PORT, |c| c.port)
}

fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
        Err(e) => {
            // Descriptors are short: no busy loop.
            if !matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
                sys::warn!("sk-cluster: accept: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
            None
        }
    }
}

fn listen(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let one = |address: IpAddr| -> io::Result<TcpListener> {
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(64)?;
        Ok(socket.into())
    };
    if !addresses.is_empty() {
        return addresses.iter().copied().map(one).collect();
    }
    let mut listeners = vec![one(Ipv4Addr::UNSPECIFIED.into())?];
    // A host without IPv6 serves what it has.
    listeners.extend(one(Ipv6Addr::UNSPECIFIED.into()));
    Ok(listeners)
}

impl Server {
    fn receive(self: Arc<Self>, stream: TcpStream) {
        let spawned = std::thread::Builder::new().name("talk".into()).spawn(move || self.talk(stream));
        if let Err(e) = spawned {
            sys::warn!("sk-cluster: no thread for another conversation: {e}");
        }
    }

    fn talk(&self, stream: TcpStream) {
        let Some(_talk) = Counted::new(&self.talks, TALKS) else { return };
        let Ok(address) = stream.peer_addr().map(|a| a.ip().to_canonical()) else { return };
        let (mut talk, asker) = {
            let Some(_stranger) = Counted::new(&self.strangers, STRANGERS) else { return };
            match self.greet(stream, address) {
                Ok(greeted) => greeted,
                Err(e) => return self.complain(&format!("{address}: {e}")),
            }
        };
        match talk.receive(SILENCE) {
            Ok((ask, payload)) => {
                if let Err(e) = answer::answer(&self.roots, &asker, &mut talk, ask, payload) {
                    self.complain(&format!("{address}: {e}"));
                }
            }
            Err(TalkError::Closed) => {}
            Err(e) => self.complain(&format!("{address}: {e}")),
        }
    }

    /// The handshake. Keys are read for each: a renewed one counts at once, one that was taken away no longer.
    fn greet(&self, stream: TcpStream, address: IpAddr) -> Result<(Talk, Asker), Box<dyn std::error::Error>> {
        stream.set_nonblocking(false)?;
        let ring = KeyRing::load(&self.roots.cluster_key())?;
        let operators = wire::role::load_operators(&self.roots.operators()).unwrap_or_else(|e| {
            sys::warn!("sk-cluster: {e}; no operator is let in");
            Vec::new()
        });
        let nodes = ring.keys().count();
        let psks: Vec<[u8; 32]> =
            ring.keys().map(wire::ClusterKey::node_psk).chain(operators.iter().map(|o| o.key.node_psk())).collect();
        let (talk, number) = match Talk::accept(stream, &psks, Instant::now() + GREETING) {
            Err(TalkError::Channel(ChannelError::WrongKey)) => {
                return Err("it showed a key that this node does not know".into());
            }
            other => other?,
        };
        let operator = number.checked_sub(nodes).and_then(|n| operators.get(n));
        let asker = Asker {
            role: operator.map_or(Role::Admin, |o| o.role),
            operator: operator.map(|o| o.name.clone()),
            address,
        };
        Ok((talk, asker))
    }

    /// Strangers must not fill the log.
    fn complain(&self, words: &str) {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|t| t.elapsed() >= COMPLAIN) {
            *last = Some(Instant::now());
            sys::warn!("sk-cluster: {words}");
        }
    }
}

impl Asker {
    /// For the log of commands: who, from where, with which key. `origin`: what he says of himself.
    pub fn words(&self, roots: &Roots, origin: &str) -> String {
        let origin: String = origin.chars().filter(|c| !c.is_control() && *c != '|').take(120).collect();
        let (cluster, _) = config::load_cluster(&roots.cluster_xml());
        let node = cluster.and_then(|c| {
            let address = self.address.to_string();
            c.lans
                .iter()
                .flat_map(|l| &l.nodes)
                .find(|n| sys::node::numeric(&n.address) == address)
                .map(|n| n.name.clone())
        });
        let place = node.unwrap_or_else(|| self.address.to_string());
        // Only the key proves anything. A node is believed about its users.
        let user: String = origin.split([' ', '@']).next().unwrap_or_default().to_owned();
        let (who, key) = match &self.operator {
            Some(name) => (name.as_str(), name.as_str()),
            None => (if user.is_empty() { "node" } else { user.as_str() }, "of the cluster"),
        };
        format!("{who}@{place} (key {key}, role {}, from {}; there: {origin})", self.role, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_says_who_it_was_and_an_operator_cannot_call_himself_another() {
        let roots =
            Roots { etc: "/nowhere".into(), var: "/nowhere".into(), run: "/nowhere".into(), safe: "/nowhere".into() };
        let ops = Asker { role: Role::Control, operator: Some("ops".into()), address: [10, 0, 0, 9].into() };
        assert_eq!(
            ops.words(&roots, "root@10.0.0.1 (uid 0)\n| forged"),
            "ops@10.0.0.9 (key ops, role control, from 10.0.0.9; there: root@10.0.0.1 (uid 0) forged)"
        );
        let node = Asker { role: Role::Admin, operator: None, address: [10, 0, 0, 1].into() };
        assert!(
            node.words(&roots, "alice (uid 0, sudo by alice)")
                .starts_with("alice@10.0.0.1 (key of the cluster, role admin")
        );
        assert!(node.words(&roots, &"x".repeat(10_000)).len() < 400);
    }
}
