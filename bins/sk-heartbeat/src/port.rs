//! How is one link sent over and listened to, also while its local address is missing?

use crate::spec::LinkSpec;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use wire::datagram::{Receiver, Sender};

/// How often a missing address is looked for.
const RETRY_MS: u64 = 200;
/// How often it is asked whether a local address is still there.
const CHECK_MS: u64 = 1000;
/// At least this long between two reports of packets with a wrong key.
const WRONG_KEY_INTERVAL_MS: u64 = 10_000;

pub(crate) struct Port {
    pub ident: String,
    pub sender: Sender,
    pub receiver: Receiver,
    pulse_ms: u64,
    pub next_pulse: u64,
    /// When to try to bind, or to check what is bound.
    next_bind: u64,
    local: SocketAddr,
    peer: SocketAddr,
    token: Token,
    socket: Option<UdpSocket>,
    /// As last reported.
    present: Option<bool>,
    next_complaint: u64,
    /// The kind of the last failure to bind that was told.
    told: Option<io::ErrorKind>,
}

impl Port {
    pub fn new(spec: &LinkSpec, port: u16, token: Token, sender: Sender, receiver: Receiver) -> Self {
        Self {
            ident: spec.ident.clone(),
            sender,
            receiver,
            pulse_ms: spec.pulse_ms,
            next_pulse: 0,
            next_bind: 0,
            local: SocketAddr::new(spec.local, port),
            peer: SocketAddr::new(spec.peer, port),
            token,
            socket: None,
            present: None,
            next_complaint: 0,
            told: None,
        }
    }

    /// Opens the socket, or checks it, if it is time to. Returns the presence of the local address when that changed.
    pub fn open(&mut self, now: u64, registry: &Registry) -> Option<bool> {
        if now < self.next_bind {
            return None;
        }
        if self.socket.is_some() {
            // A bound socket goes on sending with its source address after that has left the host: ask with another one.
            let probe = std::net::UdpSocket::bind((self.local.ip(), 0));
            if !probe.is_err_and(|e| e.kind() == io::ErrorKind::AddrNotAvailable) {
                self.next_bind = now + CHECK_MS;
                return None;
            }
            self.socket = None;
        }
        match self.bind(registry) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.told = None;
                self.next_bind = now + CHECK_MS;
                self.next_pulse = now;
                self.report(true)
            }
            Err(error) => {
                self.next_bind = now + RETRY_MS;
                let kind = error.kind();
                if kind != io::ErrorKind::AddrNotAvailable && self.told.replace(kind) != Some(kind) {
                    sys::warn!(
                        "sk-heartbeat: link {}: cannot listen on {}: {error}; trying again",
                        self.ident,
                        self.local
                    );
                }
                self.report(false)
            }
        }
    }

    fn bind(&self, registry: &Registry) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(self.local), Type::DGRAM, Some(Protocol::UDP))?;
        // A former life may still hold the port for a moment.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.local.into())?;
        let mut socket = UdpSocket::from_std(socket.into());
        registry.register(&mut socket, self.token, Interest::READABLE)?;
        Ok(socket)
    }

    fn report(&mut self, present: bool) -> Option<bool> {
        (self.present.replace(present) != Some(present)).then_some(present)
    }

    /// Sends one packet.
    pub fn send(&mut self, body: &[u8], packet: &mut Vec<u8>) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = self.sender.seal(body, packet) {
            sys::warn!("sk-heartbeat: link {}: {error}", self.ident);
        } else if socket.send_to(packet, self.peer).is_err() {
            // No route, no carrier, buffer full: to the peer this is silence, as it must be. Perhaps our address is gone.
            self.next_bind = 0;
        }
    }

    /// Receives one packet; `None` when nothing waits.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let socket = self.socket.as_ref()?;
        loop {
            match socket.recv_from(buffer) {
                Ok(received) => return Some(received),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                // Errors of earlier sends (ICMP) are reported here; the next call goes on.
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused) => {}
                Err(_) => return None,
            }
        }
    }

    /// Whether a packet with a wrong key may be reported now.
    pub fn may_complain(&mut self, now: u64) -> bool {
        let may = now >= self.next_complaint;
        if may {
            self.next_complaint = now + WRONG_KEY_INTERVAL_MS;
        }
        may
    }

    /// Whether a pulse is due; the next one is then set.
    pub fn pulse(&mut self, now: u64) -> bool {
        let due = self.socket.is_some() && now >= self.next_pulse;
        if due {
            // From now on, not from the time it was due: after a pause one pulse is enough.
            self.next_pulse = now + self.pulse_ms;
        }
        due
    }

    /// When this link wants to be served again.
    pub fn deadline(&self, speaking: bool) -> u64 {
        let pulse = (speaking && self.socket.is_some()).then_some(self.next_pulse);
        pulse.map_or(self.next_bind, |p| p.min(self.next_bind))
    }

    pub fn pulse_ms(&self) -> u64 {
        self.pulse_ms
    }
}
