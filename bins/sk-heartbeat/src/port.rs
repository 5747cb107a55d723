//! How is one network path sent over and listened to, also while its local address is missing?

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;

/// How often a missing address is looked for.
const RETRY_MS: u64 = 200;
/// How often it is asked whether a local address is still there.
const CHECK_MS: u64 = 1000;
/// At least this long between two reports of packets with a wrong key.
const COMPLAINT_INTERVAL_MS: u64 = 10_000;

pub(crate) struct Port {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    token: Token,
    socket: Option<UdpSocket>,
    /// When to try to bind, or to check what is bound.
    pub next_bind: u64,
    /// As last reported.
    pub present: Option<bool>,
    next_complaint: u64,
    /// The kind of the last failure to bind that was told.
    told: Option<io::ErrorKind>,
}

/// What opening a port brought.
#[derive(Default)]
pub(crate) struct Opened {
    /// The presence of the local address, when that changed.
    pub present: Option<bool>,
    /// For people.
    pub words: Option<String>,
}

/// What waits at a port.
pub(crate) enum Arrival {
    Packet(usize),
    /// The peer's host says that nobody listens.
    Refused,
    Nothing,
}

impl Port {
    pub fn new(local: SocketAddr, peer: SocketAddr, token: Token) -> Self {
        Self { local, peer, token, socket: None, next_bind: 0, present: None, next_complaint: 0, told: None }
    }

    /// Opens the socket, or checks it, if it is time to.
    pub fn open(&mut self, now: u64, registry: &Registry) -> Opened {
        if now < self.next_bind {
            return Opened::default();
        }
        if self.socket.is_some() {
            // A bound socket goes on sending with its source address after that has left the host: ask with another one.
            let probe = std::net::UdpSocket::bind((self.local.ip(), 0));
            if !probe.is_err_and(|e| e.kind() == io::ErrorKind::AddrNotAvailable) {
                self.next_bind = now + CHECK_MS;
                return Opened::default();
            }
            self.socket = None;
        }
        match self.bind(registry) {
            Ok(socket) => {
                // Without a route there is no socket yet.
                self.next_bind = now + if socket.is_some() { CHECK_MS } else { RETRY_MS };
                self.socket = socket;
                self.told = None;
                Opened { present: self.report(true), words: None }
            }
            Err(error) => {
                self.next_bind = now + RETRY_MS;
                let kind = error.kind();
                let words = (kind != io::ErrorKind::AddrNotAvailable && self.told.replace(kind) != Some(kind))
                    .then(|| format!("cannot listen on {}: {error}; trying again", self.local));
                Opened { present: self.report(false), words }
            }
        }
    }

    /// `None`: the address is there, but no way to the peer, as when the interface is down.
    fn bind(&self, registry: &Registry) -> io::Result<Option<UdpSocket>> {
        let socket = Socket::new(Domain::for_address(self.local), Type::DGRAM, Some(Protocol::UDP))?;
        // Several peers may use the same local address and port.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.local.into())?;
        // Only what the peer sends arrives, and its host's "nobody listens" is told.
        match socket.connect(&self.peer.into()) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                return Ok(None);
            }
            other => other?,
        }
        let mut socket = UdpSocket::from_std(socket.into());
        registry.register(&mut socket, self.token, Interest::READABLE)?;
        Ok(Some(socket))
    }

    fn report(&mut self, present: bool) -> Option<bool> {
        (self.present.replace(present) != Some(present)).then_some(present)
    }

    /// Sends one packet. `true`: the peer's host answered an earlier one that nobody listens.
    pub fn send(&mut self, packet: &[u8]) -> bool {
        let Some(socket) = &self.socket else { return false };
        let Err(mut error) = socket.send(packet) else { return false };
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        if refused {
            // The error belonged to an earlier packet, and this one was not sent.
            match socket.send(packet) {
                Ok(_) => return true,
                Err(again) => error = again,
            }
        }
        if error.kind() != io::ErrorKind::ConnectionRefused {
            // No route, no carrier, buffer full: to the peer this is silence, as it must be. Perhaps our address is gone.
            self.next_bind = 0;
        }
        refused
    }

    pub fn receive(&mut self, buffer: &mut [u8]) -> Arrival {
        let Some(socket) = &self.socket else { return Arrival::Nothing };
        loop {
            match socket.recv(buffer) {
                Ok(length) => return Arrival::Packet(length),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Arrival::Refused,
                Err(_) => return Arrival::Nothing,
            }
        }
    }

    /// Whether packets that cannot be used may be reported now.
    pub fn may_complain(&mut self, now: u64) -> bool {
        let may = now >= self.next_complaint;
        if may {
            self.next_complaint = now + COMPLAINT_INTERVAL_MS;
        }
        may
    }
}
