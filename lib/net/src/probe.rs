//! Does somebody else use an address already? ARP probe (RFC 5227) or duplicate address detection (RFC 4862), shortened.

use crate::error::NetError;
use crate::frame;
use crate::packet::PacketSocket;
use crate::types::{Link, Mac};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Questions sent.
    pub count: u32,
    /// Time to wait after each.
    pub wait: Duration,
}

impl Default for Patience {
    /// One question, 40 ms: hosts on the same segment answer within one, a takeover must not wait for more.
    fn default() -> Self {
        Self { count: 1, wait: Duration::from_millis(40) }
    }
}

/// A question that was asked, or will be.
pub struct Probe {
    socket: PacketSocket,
    ip: IpAddr,
    mac: Mac,
    /// Answers that are no conflict.
    friends: Vec<Mac>,
}

impl Probe {
    /// `None` when the interface speaks neither ARP nor neighbour discovery, or has no carrier: nobody could answer.
    pub fn new(link: &Link, ip: IpAddr) -> Result<Option<Self>, NetError> {
        let Some(mac) = link.mac.filter(|_| link.arp && link.carrier) else { return Ok(None) };
        let socket = PacketSocket::open(link.index)?;
        socket.listen(frame::ethertype(ip))?;
        Ok(Some(Self { socket, ip, mac, friends: Vec::new() }))
    }

    /// The same question, where answers with one of these MACs are no conflict: other nodes that share the address.
    #[must_use]
    pub fn among(mut self, friends: Vec<Mac>) -> Self {
        self.friends = friends;
        self
    }

    fn ask(&self) -> Result<(), NetError> {
        self.socket.send(&frame::probe(self.ip, self.mac), frame::ethertype(self.ip))
    }

    fn answer(&self) -> Result<Option<Mac>, NetError> {
        let mut buffer = [0; 2048];
        // Bounded: other traffic of this EtherType must not hold the claim up.
        for _ in 0..1024 {
            let Some(received) = self.socket.receive(&mut buffer)? else { break };
            // Own frames come back to packet sockets.
            if frame::source(received) == Some(self.mac) {
                continue;
            }
            if let Some(mac) =
                frame::claimant(received, self.ip).filter(|m| *m != self.mac && !self.friends.contains(m))
            {
                return Ok(Some(mac));
            }
        }
        Ok(None)
    }
}

/// Asks for all addresses at once. Gives the position and the owner of the first that is used.
pub fn first_conflict(probes: &[Probe], patience: Patience) -> Result<Option<(usize, Mac)>, NetError> {
    if probes.is_empty() {
        return Ok(None);
    }
    for _ in 0..patience.count.max(1) {
        for probe in probes {
            probe.ask()?;
        }
        let end = Instant::now() + patience.wait;
        loop {
            for (position, probe) in probes.iter().enumerate() {
                if let Some(mac) = probe.answer()? {
                    return Ok(Some((position, mac)));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Rounded up, else the last fraction of a millisecond would be spent spinning.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            let mut wait: Vec<PollFd> =
                probes.iter().map(|p| PollFd::new(p.socket.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut wait, timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(e) => return Err(NetError::sys("cannot wait for answers to an ARP probe", e.into())),
            }
        }
    }
    Ok(None)
}
