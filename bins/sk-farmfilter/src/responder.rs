//! Who answers neighbours that ask for a virtual address? This process, on each interface: the kernel is silent about them.

use crate::cli::Failure;
use crate::kernel::Contents;
use crate::mark::{Class, bucket_of};
use crate::plan::Placed;
use crate::spec::{Group, Key, Mode, Proto};
use net::neighbour::{Question, answer, question, solicited_node_group};
use net::packet::PacketSocket;
use net::{Link, Mac, NetError, frame};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// What decides whether this node answers.
#[derive(Clone, Copy)]
pub struct Standing<'a> {
    /// Traffic is open here and the lease runs.
    pub open: bool,
    /// Connections go on here (also while the share is given away).
    pub up: bool,
    pub groups: &'a [Group],
    pub contents: &'a Contents,
    /// MACs of the other nodes.
    pub friends: &'a [Mac],
}

/// The sockets of one interface.
pub struct Responder {
    mac: Mac,
    sockets: Vec<(u16, PacketSocket)>,
    /// Where questions for IPv6 addresses come in; open for their memberships.
    _groups: Option<UdpSocket>,
    addresses: Vec<Placed>,
    send_failed: bool,
}

impl Responder {
    /// `None`: the interface speaks neither ARP nor neighbour discovery.
    pub fn open(link: &Link, addresses: Vec<Placed>) -> Result<Option<Self>, Failure> {
        let Some(mac) = link.mac.filter(|_| link.arp) else { return Ok(None) };
        let mut sockets = Vec::new();
        let mut groups = None;
        for v6 in [false, true] {
            let mut here = addresses.iter().filter(|a| a.address.is_ipv6() == v6).peekable();
            if here.peek().is_none() {
                continue;
            }
            let kind = if v6 { frame::ETHERTYPE_IPV6 } else { frame::ETHERTYPE_ARP };
            let socket = PacketSocket::open(link.index)?;
            if v6 {
                socket.only_neighbour_solicitations()?;
            }
            socket.listen(kind)?;
            let mut admitted: Vec<Mac> = Vec::new();
            for placed in here {
                if placed.mode == Mode::VmacInvisible && !admitted.contains(&placed.told_mac) {
                    socket.admit(placed.told_mac)?;
                    admitted.push(placed.told_mac);
                }
                if let IpAddr::V6(ip) = placed.address {
                    let join = |socket: UdpSocket| {
                        match socket.join_multicast_v6(&solicited_node_group(ip), link.index) {
                            // Two addresses can have the same group.
                            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => Ok(socket),
                            other => other.map(|()| socket),
                        }
                    };
                    let socket = match groups.take() {
                        Some(socket) => Ok(socket),
                        None => UdpSocket::bind("[::]:0"),
                    };
                    groups = Some(socket.and_then(join).map_err(|e| {
                        Failure::Sys(format!("cannot listen for questions about {ip} on {}", link.name), e)
                    })?);
                }
            }
            sockets.push((kind, socket));
        }
        Ok(Some(Self { mac, sockets, _groups: groups, addresses, send_failed: false }))
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|(_, s)| s.as_fd())
    }

    /// Answers what waits. Bounded: a flood of questions must not keep this process from its other work.
    pub fn serve(&mut self, standing: &Standing<'_>) -> Result<(), NetError> {
        let mut buffer = [0; 2048];
        let mut failure = None;
        for (kind, socket) in &self.sockets {
            for _ in 0..256 {
                let Some(received) = socket.receive(&mut buffer)? else { break };
                if frame::source(received) == Some(self.mac) {
                    continue;
                }
                let Some(asked) = question(received) else { continue };
                let Some(placed) = self.addresses.iter().find(|a| a.address == asked.target) else { continue };
                if answers(placed, &asked, standing) {
                    let reply = answer(&asked, placed.told_mac, self.mac);
                    if let Err(e) = socket.send(&reply, *kind) {
                        failure = Some(e);
                    }
                }
            }
        }
        self.tell(failure);
        Ok(())
    }

    /// Tells everybody where an address is.
    pub fn announce(&mut self, address: IpAddr) {
        let Some(placed) = self.addresses.iter().find(|a| a.address == address) else { return };
        let kind = frame::ethertype(address);
        let Some((_, socket)) = self.sockets.iter().find(|(k, _)| *k == kind) else { return };
        let frames = frame::announcements(address, placed.told_mac);
        let sent = frames.into_iter().try_for_each(|f| socket.send(&frame::sent_by(f, self.mac), kind));
        self.tell(sent.err());
    }

    /// Told once until it works again: an interface without a cable is no news.
    fn tell(&mut self, failure: Option<NetError>) {
        match failure {
            None => self.send_failed = false,
            Some(e) => {
                if !std::mem::replace(&mut self.send_failed, true) {
                    sys::warn!("sk-farmfilter: neighbours are not answered: {e}");
                }
            }
        }
    }
}

fn answers(placed: &Placed, asked: &Question, standing: &Standing<'_>) -> bool {
    if !standing.up {
        return false;
    }
    if placed.mode == Mode::VmacInvisible {
        // All nodes say the same.
        return true;
    }
    if asked.unicast {
        // Somebody verifies that this node is still there. It is, and passes on what is not its own.
        return true;
    }
    if !standing.open {
        return false;
    }
    let Some(asker) = asked.asker else {
        // Who looks for duplicates must hear of us, except the nodes that share the address.
        return !standing.friends.contains(&asked.asker_mac);
    };
    let chosen = standing
        .groups
        .iter()
        .zip(standing.contents)
        .find(|(group, _)| group.rules.iter().any(|r| r.proto == Proto::Arp && r.address.covers(&placed.address)));
    chosen.is_none_or(|(_, buckets)| {
        bucket_of(Key::Addr, asker, None, None)
            .and_then(|b| buckets.get(usize::from(b)))
            .is_some_and(|b| matches!(b.class, Some(Class::Own | Class::Gained)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Bucket;
    use crate::spec::tests::read;
    use serde_json::json;

    #[test]
    fn one_directed_node_answers_each_requester() {
        let spec = read(|v| {
            v["addresses"][0]["mode"] = "vmac_directed".into();
            v["groups"][0]["rules"] = json!([{"proto": "arp", "filter": "on_addr"}]);
        })
        .unwrap();
        let placed = Placed {
            address: "10.0.0.50".parse().unwrap(),
            interface: "eth0".into(),
            mode: Mode::VmacDirected,
            told_mac: Mac([2; 6]),
            own_ipv4: None,
        };
        let friend = Mac([4; 6]);
        let friends = [friend];
        let ask = |host: u8, unicast, mac| Question {
            target: placed.address,
            asker: (host > 0).then_some(IpAddr::from([192, 0, 2, host])),
            asker_mac: mac,
            unicast,
        };
        let contents = |parity: usize| -> Contents {
            let class = |b: usize| if b % 2 == parity { Some(Class::Own) } else { Some(Class::Legacy) };
            vec![(0..256).map(|b| Bucket { class: class(b), ..Bucket::default() }).collect()]
        };
        let (even, odd) = (contents(0), contents(1));
        let standing = |contents| Standing { open: true, up: true, groups: &spec.groups, contents, friends: &friends };
        for host in 1..=255 {
            let asked = ask(host, false, Mac([6; 6]));
            assert!(answers(&placed, &asked, &standing(&even)) ^ answers(&placed, &asked, &standing(&odd)), "{host}");
            assert!(answers(&placed, &ask(host, true, Mac([6; 6])), &standing(&even)));
        }
        assert!(answers(&placed, &ask(0, false, Mac([6; 6])), &standing(&even)));
        assert!(!answers(&placed, &ask(0, false, friend), &standing(&even)));
        let closed = Standing { open: false, ..standing(&even) };
        assert!(!answers(&placed, &ask(1, false, friend), &closed) && answers(&placed, &ask(1, true, friend), &closed));
        assert!(!answers(&placed, &ask(1, true, friend), &Standing { up: false, ..closed }));
    }
}
