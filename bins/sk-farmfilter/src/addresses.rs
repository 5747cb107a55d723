//! How are the virtual addresses of the farm set on this host, watched and taken away?
//!
//! They are addresses of the loopback interface: the IP stack delivers what the filter lets through, and the kernel neither
//! answers nor asks for them on any network. They have a lifetime, renewed while this process runs.

use crate::cli::Failure;
use crate::plan::Placed;
use crate::responder::Responder;
use crate::spec::{Mode, Spec, Wanted};
use net::announce::{Reroute, Schedule};
use net::choose::place;
use net::interfaces::Interfaces;
use net::probe::{Patience, Probe, first_conflict};
use net::rtnl::{Rtnl, Wanted as Setting};
use net::{Address, Link, Mac, NetError, Subnet};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::Emitter;

/// Seconds until the kernel removes an address that nobody renews.
const LIFETIME_S: u32 = 6;
const RENEWAL_MS: u64 = 2000;

/// One address, set.
struct Held {
    wanted: Wanted,
    placed: Placed,
    present: bool,
    schedule: Option<Schedule>,
}

impl Held {
    /// If this node announces the address at all.
    fn announce_again(&mut self, now: u64) {
        if self.schedule.is_some() {
            self.schedule = Some(Schedule::new(now, None));
        }
    }
}

/// Where the addresses belong, found before anything is set.
pub struct Layout {
    pub placed: Vec<Placed>,
    links: Vec<Link>,
    subnets: Vec<Subnet>,
    loopback: u32,
}

impl Layout {
    pub fn find(spec: &Spec, rtnl: &mut Rtnl) -> Result<Self, Failure> {
        let (links, addresses) = (rtnl.links()?, rtnl.addresses()?);
        let loopback = links.iter().find(|l| l.loopback).map_or(1, |l| l.index);
        let mut layout = Self { placed: Vec::new(), links: Vec::new(), subnets: Vec::new(), loopback };
        let mut first: Vec<(String, IpAddr)> = Vec::new();
        for wanted in &spec.addresses {
            // What a former life left on the loopback is no hint where it belongs.
            let elsewhere: Vec<Address> = addresses.iter().filter(|a| a.index != loopback).cloned().collect();
            let place = place(wanted.address, wanted.prefix, wanted.interface.as_deref(), &links, &elsewhere)?;
            if place.link.loopback {
                return Err(NetError::NoInterface { address: wanted.address }.into());
            }
            let name = place.link.name.clone();
            if !first.iter().any(|(n, _)| *n == name) {
                first.push((name.clone(), wanted.address));
            }
            let of_interface = first.iter().find(|(n, _)| *n == name).map_or(wanted.address, |(_, a)| *a);
            let told_mac = match wanted.mode {
                Mode::VmacInvisible => wanted.virtual_mac(of_interface),
                Mode::VmacDirected => place.link.mac.unwrap_or(Mac::ZERO),
            };
            layout.placed.push(Placed {
                address: wanted.address,
                interface: name,
                mode: wanted.mode,
                told_mac,
                own_ipv4: own_ipv4(&place.link, wanted.address, &elsewhere),
            });
            layout.subnets.push(place.subnet);
            layout.links.push(place.link);
        }
        let mut directed = layout.placed.iter().filter(|p| p.mode == Mode::VmacDirected).map(|p| &p.interface);
        if let Some(first) = directed.next()
            && let Some(other) = directed.find(|i| *i != first)
        {
            return Err(Failure::Usage(format!(
                "directed addresses are on {first} and on {other}: all of a module must be on one interface"
            )));
        }
        Ok(layout)
    }

    /// Whether an interface was made anew, and rules and sockets went with the old one, or has another MAC.
    pub fn is_outdated(&self, links: &[Link]) -> bool {
        let differs = |was: &Link, now: &Link| now.name == was.name && (now.index, now.mac) != (was.index, was.mac);
        self.links.iter().any(|was| links.iter().any(|now| differs(was, now)))
    }

    /// The same places on the interfaces that have their names now. What is missing at the moment, an interface or its own
    /// address, stays as it was: it is made in several steps, and the last may come much later.
    pub fn renewed(&self, now: &[Link], rtnl: &mut Rtnl) -> Result<Self, Failure> {
        let addresses = rtnl.addresses()?;
        let (mut placed, mut links) = (self.placed.clone(), self.links.clone());
        for (placed, link) in placed.iter_mut().zip(&mut links) {
            let Some(new) = now.iter().find(|l| l.name == placed.interface) else { continue };
            link.clone_from(new);
            if placed.mode == Mode::VmacDirected {
                placed.told_mac = new.mac.unwrap_or(Mac::ZERO);
            }
            placed.own_ipv4 = own_ipv4(new, placed.address, &addresses).or(placed.own_ipv4);
        }
        Ok(Self { placed, links, subnets: self.subnets.clone(), loopback: self.loopback })
    }

    /// Where other nodes send packets for directed addresses to, and from which MAC this node asks.
    pub fn hop(&self, rtnl: &mut Rtnl) -> Result<Option<(crate::kernel::Hop, Mac)>, Failure> {
        let Some(position) = self.placed.iter().position(|p| p.mode == Mode::VmacDirected) else { return Ok(None) };
        let Some(link) = self.links.get(position) else { return Ok(None) };
        let addresses = rtnl.addresses()?;
        let v4 = self.placed.get(position).and_then(|p| p.own_ipv4);
        let v6 = addresses.iter().filter(|a| a.index == link.index && !a.tentative).find_map(|a| match a.ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
            _ => None,
        });
        Ok(Some((
            crate::kernel::Hop { v4, v6: v6.filter(|a: &Ipv6Addr| !a.is_unspecified()) },
            link.mac.unwrap_or(Mac::ZERO),
        )))
    }
}

fn own_ipv4(link: &Link, near: IpAddr, addresses: &[Address]) -> Option<Ipv4Addr> {
    let mut own: Vec<(bool, Ipv4Addr)> = addresses
        .iter()
        .filter(|a| a.index == link.index && a.ip != near && !a.marked)
        .filter_map(|a| match a.ip {
            IpAddr::V4(v4) => Some((!a.subnet().contains(near), v4)),
            IpAddr::V6(_) => None,
        })
        .collect();
    own.sort();
    own.first().map(|(_, ip)| *ip)
}

/// All addresses of the module, set.
pub struct Addresses {
    held: Vec<Held>,
    pub responders: Vec<Responder>,
    interfaces: Interfaces,
    carriers: Interfaces,
    loopback: u32,
    renewed: u64,
}

impl Addresses {
    /// Refuses what somebody else has here or on the network. Nothing is changed but orphans of former lives.
    pub fn check(layout: &Layout, rtnl: &mut Rtnl, friends: &[Mac]) -> Result<(), NetError> {
        let (links, addresses) = (rtnl.links()?, rtnl.addresses()?);
        for placed in &layout.placed {
            for present in addresses.iter().filter(|a| a.ip == placed.address) {
                if !present.marked && !present.is_orphan_of_ours() {
                    let interface = links.iter().find(|l| l.index == present.index).map(|l| l.name.clone());
                    return Err(NetError::Foreign {
                        address: placed.address,
                        interface: interface.unwrap_or_default(),
                    });
                }
                if present.index != layout.loopback {
                    rtnl.remove_address(present.index, present.ip, present.prefix)?;
                }
            }
        }
        let mut asked = Vec::new();
        let mut probes = Vec::new();
        for (placed, link) in layout.placed.iter().zip(&layout.links) {
            if let Some(probe) = Probe::new(link, placed.address)? {
                asked.push(placed);
                probes.push(probe.among(friends.iter().copied().chain([placed.told_mac]).collect()));
            }
        }
        if let Some((position, mac)) = first_conflict(&probes, Patience::default())?
            && let Some(placed) = asked.get(position)
        {
            return Err(NetError::Conflict { address: placed.address, mac, interface: placed.interface.clone() });
        }
        Ok(())
    }

    /// Sets all.
    pub fn set(spec: &Spec, layout: &Layout, rtnl: &mut Rtnl, emitter: &Emitter, now: u64) -> Result<Self, Failure> {
        let mut all = Self {
            held: Vec::new(),
            responders: Vec::new(),
            interfaces: Interfaces::default(),
            carriers: Interfaces::default(),
            loopback: layout.loopback,
            renewed: now,
        };
        let parts = layout.placed.iter().zip(&layout.subnets).zip(&spec.addresses);
        for ((placed, subnet), wanted) in parts {
            if wanted.interface_check {
                all.interfaces.watch(*subnet, &placed.interface);
            }
            all.carriers.watch(*subnet, &placed.interface);
            all.held.push(Held { wanted: wanted.clone(), placed: placed.clone(), present: true, schedule: None });
        }
        let made = all.listen(&layout.links).and_then(|()| {
            all.held.iter().try_for_each(|h| set(rtnl, all.loopback, h.placed.address).map_err(Failure::from))
        });
        if let Err(error) = made {
            for held in &all.held {
                let _ = remove(rtnl, all.loopback, held.placed.address);
            }
            return Err(error);
        }
        for held in &all.held {
            emitter.emit("vip", &json!({"address": held.placed.address, "value": "up"}))?;
        }
        all.report(&rtnl.links()?, emitter)?;
        Ok(all)
    }

    /// Goes on in the places of this layout, on interfaces that were made anew.
    pub fn move_to(&mut self, layout: &Layout, now: u64) -> Result<(), Failure> {
        for (held, placed) in self.held.iter_mut().zip(&layout.placed) {
            held.placed.clone_from(placed);
            held.announce_again(now);
        }
        self.listen(&layout.links)
    }

    /// Opens the sockets of all interfaces.
    fn listen(&mut self, links: &[Link]) -> Result<(), Failure> {
        self.responders.clear();
        let mut done: Vec<u32> = Vec::new();
        for link in links {
            if done.contains(&link.index) {
                continue;
            }
            done.push(link.index);
            let here: Vec<Placed> =
                self.held.iter().filter(|h| h.placed.interface == link.name).map(|h| h.placed.clone()).collect();
            self.responders.extend(Responder::open(link, here)?);
        }
        Ok(())
    }

    /// Tells the neighbours, now and a few times more; directed addresses only when `directed` says so.
    pub fn announce(&mut self, now: u64, directed: bool) {
        for held in self.held.iter_mut().filter(|h| h.placed.mode == Mode::VmacInvisible || directed) {
            let w = &held.wanted;
            let reroute = Reroute { interval_ms: w.arp_interval_ms, elapse_ms: w.arp_elapse_ms };
            held.schedule = Some(Schedule::new(now, (w.arp_reroute && w.address.is_ipv4()).then_some(reroute)));
        }
        self.announce_due(now);
    }

    /// No announcements any more.
    pub fn silence(&mut self) {
        self.held.iter_mut().for_each(|h| h.schedule = None);
    }

    pub fn announce_due(&mut self, now: u64) {
        for held in &mut self.held {
            if held.schedule.as_mut().is_some_and(|s| s.poll(now)) {
                for responder in &mut self.responders {
                    responder.announce(held.placed.address);
                }
            }
        }
    }

    pub fn deadline(&self) -> u64 {
        let due = self.held.iter().filter_map(|h| h.schedule.as_ref()?.due()).min();
        due.unwrap_or(u64::MAX).min(self.renewed + RENEWAL_MS)
    }

    /// Renews lifetimes that are due.
    pub fn renew(&mut self, rtnl: &mut Rtnl, now: u64) -> Result<(), Failure> {
        if now >= self.renewed + RENEWAL_MS {
            self.renewed = now;
            for held in self.held.iter().filter(|h| h.present) {
                set(rtnl, self.loopback, held.placed.address)?;
            }
        }
        Ok(())
    }

    /// Compares with what the kernel has; `links` are its interfaces.
    pub fn compare(&mut self, links: &[Link], rtnl: &mut Rtnl, emitter: &Emitter, now: u64) -> Result<(), Failure> {
        let addresses = rtnl.addresses()?;
        for held in &mut self.held {
            let ip = held.placed.address;
            let present = addresses.iter().any(|a| a.ip == ip && a.index == self.loopback);
            if present == held.present {
                continue;
            }
            // The kernel removes an address whose renewal is late: this process did not run for that long.
            let expired = now >= self.renewed + u64::from(LIFETIME_S) * 1000;
            if !present && expired {
                set(rtnl, self.loopback, ip)?;
                continue;
            }
            if !present && !held.wanted.check {
                sys::warn!("sk-farmfilter: {ip} was removed by somebody else and is put back");
                set(rtnl, self.loopback, ip)?;
                continue;
            }
            held.present = present;
            emitter.emit("ip", &json!({"address": ip, "value": if present { "up" } else { "down" }}))?;
        }
        self.report(links, emitter)?;
        let back: Vec<String> =
            self.carriers.update(links).into_iter().filter(|r| r.value == "up").map(|r| r.interface).collect();
        for held in self.held.iter_mut().filter(|h| back.contains(&h.placed.interface)) {
            // The switch may have learnt something else while the cable was out.
            held.announce_again(now);
        }
        Ok(())
    }

    fn report(&mut self, links: &[Link], emitter: &Emitter) -> Result<(), Failure> {
        for report in self.interfaces.update(links) {
            emitter.emit("intf", &report)?;
        }
        Ok(())
    }

    /// Takes all away; goes on with the others when one fails.
    pub fn remove(self, rtnl: &mut Rtnl, emitter: &Emitter, reset: bool) -> Result<(), Failure> {
        let mut first_error = None;
        for held in &self.held {
            let ip = held.placed.address;
            if reset && let Err(e) = net::diag::reset_connections(ip) {
                sys::warn!("sk-farmfilter: connections of {ip} remain: {e}");
            }
            match remove(rtnl, self.loopback, ip) {
                Ok(_) => {
                    // A closed output must not keep the other addresses from being removed.
                    let _ = emitter.emit("vip", &json!({"address": ip, "value": "down"}));
                }
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        first_error.map_or(Ok(()), |e| Err(e.into()))
    }
}

fn full(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn set(rtnl: &mut Rtnl, loopback: u32, ip: IpAddr) -> Result<(), NetError> {
    rtnl.set_address(&Setting {
        index: loopback,
        ip,
        prefix: full(ip),
        lifetime_s: Some(LIFETIME_S),
        preferred_source: false,
    })
}

/// Removes an address of a module from the loopback interface.
pub fn remove(rtnl: &mut Rtnl, loopback: u32, ip: IpAddr) -> Result<bool, NetError> {
    rtnl.remove_address(loopback, ip, full(ip))
}
