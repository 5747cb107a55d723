//! How does this node hear and tell the others? One authenticated UDP socket a lan.

use crate::cli::Failure;
use crate::kernel::Hop;
use crate::spec::Spec;
use net::Mac;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use sys::clock::wall_ms;
use wire::path::{BODY_LIMIT, Direction, Opener, PACKET_LIMIT, Refused, Sealer, random_incarnation};
use wire::{ClusterKey, KeyFile, KeyRing};

/// How often a missing address is looked for, and one that is there is checked.
const RETRY_MS: u64 = 200;
const CHECK_MS: u64 = 1000;
/// At least this long between two complaints about packets with a wrong key.
const COMPLAINT_MS: u64 = 10_000;
/// First byte of a datagram that tells where its sender can be sent packets to; the core's begin with a small version.
const HOP: u8 = 0xfd;
/// First byte of a datagram that tells what its sender takes at present.
const RATES: u8 = 0xfc;
/// As [`HOP`], and whoever hears it shall tell the same of itself.
const ASK: u8 = 0xfb;

struct Peer {
    /// Its number among all nodes.
    number: u8,
    address: IpAddr,
    sealer: Sealer,
    opener: Opener,
}

struct Lan {
    ident: String,
    local: SocketAddr,
    peers: Vec<Peer>,
    socket: Option<UdpSocket>,
    next_bind: u64,
    told: bool,
}

/// What came from another node.
pub enum Heard {
    /// For the core.
    Datagram(u8, Vec<u8>),
    /// Where a node can be sent packets to; `true`: it wants to know the same of this node.
    Hop(u8, Hop, Mac, bool),
    Rates(u8, Vec<u8>),
    WrongKey(IpAddr),
}

/// A number for a new life.
pub fn random() -> Result<u64, Failure> {
    random_incarnation().map_err(|e| Failure::Sys("the kernel gives no random bytes".to_owned(), e))
}

/// The sockets of all lans.
pub struct Lans {
    lans: Vec<Lan>,
    module: String,
    keys: KeyFile,
    next_complaint: u64,
    packet: Vec<u8>,
}

impl Lans {
    pub fn new(spec: &Spec) -> Result<Self, Failure> {
        let incarnation = random()?;
        let keys = KeyFile::open(&spec.key_file).map_err(|e| Failure::Usage(e.to_string()))?;
        let key = keys.ring().used().datagram_key(&spec.module);
        let nodes = spec.nodes();
        let mut lans = Vec::new();
        for lan in &spec.lans {
            let own = lan.nodes.iter().find(|n| n.node == spec.node);
            let Some(own) = own else { continue };
            let peers = lan.nodes.iter().filter(|n| n.node != spec.node).filter_map(|n| {
                let there = Direction { from: (&own.node, own.addr), to: (&n.node, n.addr) };
                let back = Direction { from: there.to, to: there.from };
                Some(Peer {
                    number: u8::try_from(nodes.iter().position(|name| *name == n.node)?).ok()?,
                    address: n.addr,
                    sealer: Sealer::new(key, &there, incarnation),
                    opener: Opener::new(key, &back, incarnation),
                })
            });
            lans.push(Lan {
                ident: lan.ident.clone(),
                local: SocketAddr::new(own.addr, spec.port),
                peers: peers.collect(),
                socket: None,
                next_bind: 0,
                told: false,
            });
        }
        let mut lans = Self {
            lans,
            module: spec.module.clone(),
            keys,
            next_complaint: 0,
            packet: Vec::with_capacity(PACKET_LIMIT),
        };
        lans.set_keys();
        Ok(lans)
    }

    /// A renewal of the cluster key reaches a member that runs.
    fn renew_keys(&mut self, now: u64) {
        match self.keys.renewed(now) {
            Ok(false) => {}
            Ok(true) => self.set_keys(),
            Err(error) => sys::warn!("sk-farmfilter: {error}; the keys read before are used"),
        }
    }

    fn set_keys(&mut self) {
        let ring: &KeyRing = self.keys.ring();
        let used = ring.used().datagram_key(&self.module);
        let all: Vec<[u8; 32]> = ring.keys().map(|key: &ClusterKey| key.datagram_key(&self.module)).collect();
        for lan in &mut self.lans {
            for peer in &mut lan.peers {
                peer.sealer.set_key(used);
                peer.opener.set_keys(&all);
            }
        }
    }

    /// Opens what is missing and can be opened.
    pub fn open(&mut self, now: u64) {
        self.renew_keys(now);
        for lan in self.lans.iter_mut().filter(|l| now >= l.next_bind) {
            lan.open(now);
        }
    }

    /// When [`Lans::open`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        self.lans.iter().map(|l| l.next_bind).min()
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.lans.iter().filter_map(|l| l.socket.as_ref()).map(AsFd::as_fd)
    }

    /// To all others on a lan.
    pub fn send(&mut self, lan: usize, bytes: &[u8]) {
        let Some(lan) = self.lans.get_mut(lan) else { return };
        let Some(socket) = &lan.socket else { return };
        if bytes.len() > BODY_LIMIT {
            sys::warn!("sk-farmfilter: lan {}: {} bytes do not fit a packet", lan.ident, bytes.len());
            return;
        }
        for peer in &mut lan.peers {
            peer.sealer.seal(peer.opener.echo(), wall_ms(), bytes, &mut self.packet);
            // No route, no carrier, buffer full: to the peer this is silence, as it must be. Perhaps our address is gone.
            if socket.send_to(&self.packet, (peer.address, lan.local.port())).is_err() {
                lan.next_bind = lan.next_bind.min(1);
            }
        }
    }

    /// Tells all others where this node can be sent packets to, and asks them to `answer` with the same.
    pub fn send_hop(&mut self, hop: Hop, mac: Mac, answer: bool) {
        let mut bytes = vec![if answer { ASK } else { HOP }];
        bytes.extend_from_slice(&mac.0);
        bytes.extend_from_slice(&hop.v4.map_or([0; 4], |a| a.octets()));
        bytes.extend_from_slice(&hop.v6.map_or([0; 16], |a| a.octets()));
        self.send_to_all(&bytes);
    }

    /// Tells all others what this node takes.
    pub fn send_rates(&mut self, rates: &[u8]) {
        self.send_to_all(&[&[RATES], rates].concat());
    }

    fn send_to_all(&mut self, bytes: &[u8]) {
        for lan in 0..self.lans.len() {
            self.send(lan, bytes);
        }
    }

    /// Everything that waits, at most `limit` packets.
    pub fn receive(&mut self, now: u64, limit: usize, mut take: impl FnMut(Heard)) {
        let mut buffer = [0; PACKET_LIMIT + 1];
        for lan in &mut self.lans {
            for _ in 0..limit {
                let Some((length, from)) = lan.socket.as_ref().and_then(|s| receive(s, &mut buffer)) else { break };
                let Some(peer) = lan.peers.iter_mut().find(|p| p.address == from.ip().to_canonical()) else { continue };
                match peer.opener.open(wall_ms(), buffer.get(..length).unwrap_or_default()) {
                    Ok(body) => match body {
                        [kind @ (HOP | ASK), rest @ ..] => {
                            if let Some((hop, mac)) = hop(rest) {
                                take(Heard::Hop(peer.number, hop, mac, *kind == ASK));
                            }
                        }
                        [RATES, rest @ ..] => take(Heard::Rates(peer.number, rest.to_vec())),
                        body => take(Heard::Datagram(peer.number, body.to_vec())),
                    },
                    Err(Refused::WrongKey) if now >= self.next_complaint => {
                        self.next_complaint = now + COMPLAINT_MS;
                        take(Heard::WrongKey(from.ip()));
                    }
                    // Replays, foreign nodes, noise: dropped.
                    Err(_) => {}
                }
            }
        }
    }
}

impl Lan {
    fn open(&mut self, now: u64) {
        self.next_bind = now + CHECK_MS;
        if self.socket.is_some() {
            // A bound socket goes on sending with its address after that has left the host: ask with another one.
            let probe = UdpSocket::bind((self.local.ip(), 0));
            if !probe.is_err_and(|e| e.kind() == io::ErrorKind::AddrNotAvailable) {
                return;
            }
            self.socket = None;
        }
        match bind(self.local) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.told = false;
            }
            Err(error) => {
                self.next_bind = now + RETRY_MS;
                if !std::mem::replace(&mut self.told, true) {
                    sys::warn!(
                        "sk-farmfilter: lan {}: cannot listen on {}: {error}; trying again",
                        self.ident,
                        self.local
                    );
                }
            }
        }
    }
}

fn bind(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    // A former life may still hold the port for a moment.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            // Errors of earlier sends (ICMP) are reported here; the next call goes on.
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused) => {}
            Err(_) => return None,
        }
    }
}

fn hop(bytes: &[u8]) -> Option<(Hop, Mac)> {
    let (mac, rest) = bytes.split_first_chunk::<6>()?;
    let (v4, rest) = rest.split_first_chunk::<4>()?;
    let v6: [u8; 16] = rest.try_into().ok()?;
    let hop = Hop {
        v4: Some((*v4).into()).filter(|a: &std::net::Ipv4Addr| !a.is_unspecified()),
        v6: Some(v6.into()).filter(|a: &std::net::Ipv6Addr| !a.is_unspecified()),
    };
    Some((hop, Mac(*mac)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_is_no_hop(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(hop(&bytes).is_some(), bytes.len() == 26);
        }
    }
}
