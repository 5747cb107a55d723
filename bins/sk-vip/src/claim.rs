//! How is one address claimed, announced and given up?

use crate::cli::Failure;
use net::announce::{Reroute, Schedule};
use net::choose::{Place, place};
use net::diag::{Reset, reset_connections};
use net::packet::PacketSocket;
use net::probe::{Patience, Probe, first_conflict};
use net::rtnl::{Rtnl, Wanted};
use net::{Address, Link, NetError, frame, prefer};
use std::io::{self, Write};
use std::net::IpAddr;

/// An address on its way to being ours, or ours.
pub struct Claim {
    pub ip: IpAddr,
    pub place: Place,
    pub one_side: bool,
    sender: Option<PacketSocket>,
    send_failed: bool,
}

impl Claim {
    /// Chooses the interface and opens what is needed later, so that claiming itself is short.
    pub fn prepare(
        ip: IpAddr,
        prefix: Option<u8>,
        interface: Option<&str>,
        one_side: bool,
        links: &[Link],
        addresses: &[Address],
    ) -> Result<Self, NetError> {
        let place = place(ip, prefix, interface, links, addresses)?;
        let sender = sender(&place.link)?;
        Ok(Self { ip, place, one_side, sender, send_failed: false })
    }

    /// Goes on at its interface as it is now: made anew under the same name, or with another MAC. `true`: something changed.
    pub fn follow(&mut self, links: &[Link]) -> Result<bool, NetError> {
        let here = &self.place.link;
        let same = links.iter().find(|l| l.index == here.index);
        let Some(now) = same.or_else(|| links.iter().find(|l| l.name == here.name)) else { return Ok(false) };
        if (now.index, now.mac) == (here.index, here.mac) {
            return Ok(false);
        }
        self.sender = sender(now)?;
        self.place.link.clone_from(now);
        Ok(true)
    }

    /// Takes over what a former life left behind; refuses what somebody else configured.
    pub fn adopt(&mut self, rtnl: &mut Rtnl, links: &[Link], addresses: &[Address]) -> Result<(), NetError> {
        let name = |index| links.iter().find(|l| l.index == index).map_or_else(String::new, |l| l.name.clone());
        for present in addresses.iter().filter(|a| a.ip == self.ip) {
            if !present.is_orphan_of_ours() && !present.marked {
                return Err(NetError::Foreign { address: self.ip, interface: name(present.index) });
            }
            if present.index == self.place.link.index {
                // The same address cannot be there with two prefixes usefully: keep the one it has.
                self.place.prefix = present.prefix;
            } else {
                rtnl.remove_address(present.index, present.ip, present.prefix)?;
            }
        }
        Ok(())
    }

    /// Sets the address, or refreshes its lifetime.
    pub fn set(&self, rtnl: &mut Rtnl, lifetime_s: Option<u32>) -> Result<(), NetError> {
        rtnl.set_address(&Wanted {
            index: self.place.link.index,
            ip: self.ip,
            prefix: self.place.prefix,
            lifetime_s,
            preferred_source: self.one_side,
        })
    }

    /// Makes it the source of outgoing connections, when that is wanted.
    pub fn prefer(&self, rtnl: &mut Rtnl) -> Result<(), NetError> {
        if !self.one_side || self.ip.is_ipv6() {
            return Ok(());
        }
        let present = rtnl.routes()?;
        for route in prefer::routes(self.ip, self.place.link.index, &present) {
            rtnl.add_route(&route)?;
        }
        Ok(())
    }

    /// Tells the neighbours. Failures are told once: a claim does not depend on them.
    pub fn announce(&mut self) {
        let (Some(sender), Some(mac)) = (&self.sender, self.place.link.mac) else { return };
        let kind = frame::ethertype(self.ip);
        let sent = frame::announcements(self.ip, mac).iter().try_for_each(|f| sender.send(f, kind));
        match sent {
            Ok(()) => self.send_failed = false,
            Err(e) => {
                if !std::mem::replace(&mut self.send_failed, true) {
                    let _ = writeln!(io::stderr(), "sk-vip: {} is not announced: {e}", self.ip);
                }
            }
        }
    }

    pub fn remove(&self, rtnl: &mut Rtnl) -> Result<bool, NetError> {
        rtnl.remove_address(self.place.link.index, self.ip, self.place.prefix)
    }

    pub fn schedule(&self, now: u64, reroute: Option<Reroute>) -> Schedule {
        // IPv6 has no periodic form: neighbours verify reachability by themselves.
        Schedule::new(now, reroute.filter(|_| self.ip.is_ipv4()))
    }
}

fn sender(link: &Link) -> Result<Option<PacketSocket>, NetError> {
    match link.mac {
        Some(_) if link.arp => PacketSocket::open(link.index).map(Some),
        _ => Ok(None),
    }
}

/// Asks the network for all claims at once; a conflict is an error.
pub fn probe(claims: &[&Claim], patience: Patience) -> Result<(), NetError> {
    let mut asked = Vec::new();
    let mut probes = Vec::new();
    for claim in claims {
        if let Some(probe) = Probe::new(&claim.place.link, claim.ip)? {
            asked.push(claim);
            probes.push(probe);
        }
    }
    match first_conflict(&probes, patience)? {
        Some((position, mac)) => match asked.get(position) {
            Some(claim) => Err(NetError::Conflict { address: claim.ip, mac, interface: claim.place.link.name.clone() }),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// Resets the connections of an address before it goes away, so that clients reconnect at once instead of waiting.
/// Gives how many, or `None` when the kernel cannot; that is told once per process by the caller.
pub fn reset(ip: IpAddr) -> Result<Option<usize>, Failure> {
    match reset_connections(ip)? {
        Reset::Done(count) => Ok(Some(count)),
        Reset::Unsupported => Ok(None),
    }
}
