//! How does the kernel tell and change links, addresses and routes? The only module that knows the netlink crates.

use crate::error::NetError;
use crate::prefer::Route;
use crate::types::{Address, Link, Mac, Subnet};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Our mark in `IFA_PROTO`: who installed an address.
const OWNER_MARK: u8 = 0x5b;
const FOREVER: u32 = u32::MAX;
const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 5;
const GROUP_IPV6_ADDRESS: u32 = 9;

/// How an address is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Interface index.
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    /// Seconds until the kernel removes it unless it is refreshed; `None`: never. 0 counts as 1.
    pub lifetime_s: Option<u32>,
    /// Whether the kernel may choose it as source of outgoing connections (IPv6 only; see [`crate::prefer`] for IPv4).
    pub preferred_source: bool,
}

/// A request socket.
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    pub fn open() -> Result<Self, NetError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(|e| NetError::sys("cannot open a netlink socket", e))?;
        socket.bind_auto().map_err(|e| NetError::sys("cannot bind a netlink socket", e))?;
        // The kernel answers within the request; a limit keeps a lost answer from blocking for ever.
        socket2::SockRef::from(&socket.as_fd())
            .set_read_timeout(Some(Duration::from_secs(5)))
            .map_err(|e| NetError::sys("cannot limit waiting on a netlink socket", e))?;
        Ok(Self { socket, sequence: 0 })
    }

    pub fn links(&mut self) -> Result<Vec<Link>, NetError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.exchange("list interfaces", RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewLink(l) => link(l),
                _ => None,
            })
            .collect())
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>, NetError> {
        let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.exchange("list addresses", ask, NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewAddress(a) => address(a),
                _ => None,
            })
            .collect())
    }

    /// Adds an address, or changes the lifetime of one that is there.
    pub fn set_address(&mut self, wanted: &Wanted) -> Result<(), NetError> {
        let what = format!("add {}/{}", wanted.ip, wanted.prefix);
        let message = address_message(wanted);
        self.exchange(&what, RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
            .map(|_| ())
    }

    /// Removes an address. `false` when it was not there.
    pub fn remove_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> Result<bool, NetError> {
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(ip));
        let what = format!("remove {ip}/{prefix}");
        match self.exchange(&what, RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// IPv4 unicast routes of the main table with one next hop.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.exchange("list routes", RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewRoute(r) => route(r),
                _ => None,
            })
            .collect())
    }

    /// Adds an IPv4 route. One that is there already is no error.
    pub fn add_route(&mut self, wanted: &Route) -> Result<(), NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = wanted.to.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if wanted.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(wanted.to.first)));
        message.attributes.push(RouteAttribute::Oif(wanted.index));
        message.attributes.extend(wanted.gateway.map(|g| RouteAttribute::Gateway(RouteAddress::from(g))));
        message.attributes.extend(wanted.source.map(|s| RouteAttribute::PrefSource(RouteAddress::from(s))));
        message.attributes.extend(wanted.metric.map(RouteAttribute::Priority));
        let what = format!("add a route to {}", wanted.to);
        match self.exchange(&what, RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Sends one request and collects the answers up to the acknowledgement or the end of the list.
    fn exchange(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        let failed = |e: io::Error| NetError::sys(format!("cannot {what}"), e);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        let mut answers = Vec::new();
        let mut buffer = Vec::with_capacity(128 * 1024);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(failed(e)),
                Ok(_) => {}
            }
            for (sequence, payload) in decode(&buffer) {
                if sequence != self.sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(code) => Err(failed(io::Error::from_raw_os_error(code.get().saturating_neg()))),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }
}

/// A change reported by the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Link(Link),
    LinkGone {
        index: u32,
    },
    Address(Address),
    AddressGone(Address),
    /// Reports were lost: read everything again.
    Lost,
}

/// A socket that hears about changes of links and addresses.
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    pub fn open() -> Result<Self, NetError> {
        let failed = |e| NetError::sys("cannot watch links and addresses", e);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        for group in [GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS] {
            socket.add_membership(group).map_err(failed)?;
        }
        socket.set_non_blocking(true).map_err(failed)?;
        Ok(Self { socket })
    }

    /// Everything reported since the last call; never waits.
    pub fn read(&mut self) -> Result<Vec<Change>, NetError> {
        let mut changes = Vec::new();
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes.push(Change::Lost);
                    continue;
                }
                Err(e) => return Err(NetError::sys("cannot watch links and addresses", e)),
            }
            for (_, payload) in decode(&buffer) {
                let NetlinkPayload::InnerMessage(message) = payload else { continue };
                changes.extend(match message {
                    RouteNetlinkMessage::NewLink(l) => link(&l).map(Change::Link),
                    RouteNetlinkMessage::DelLink(l) => Some(Change::LinkGone { index: l.header.index }),
                    RouteNetlinkMessage::NewAddress(a) => address(&a).map(Change::Address),
                    RouteNetlinkMessage::DelAddress(a) => address(&a).map(Change::AddressGone),
                    _ => None,
                });
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Cuts a datagram into messages. One that a newer kernel words in a way the decoder does not know is passed over.
fn decode(mut buffer: &[u8]) -> Vec<(u32, NetlinkPayload<RouteNetlinkMessage>)> {
    let mut found = Vec::new();
    while let Some(length) = buffer.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes) {
        let Some(one) = buffer.get(..length as usize).filter(|m| m.len() >= 16) else { break };
        if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
            found.push((message.header.sequence_number, message.payload));
        }
        buffer = buffer.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(wanted: &Wanted) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(wanted.ip);
    message.header.prefix_len = wanted.prefix;
    message.header.index = wanted.index;
    message.attributes.push(AddressAttribute::Local(wanted.ip));
    message.attributes.push(AddressAttribute::Address(wanted.ip));
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OWNER_MARK)));
    let valid = wanted.lifetime_s.map_or(FOREVER, |s| s.clamp(1, FOREVER - 1));
    let mut cache = CacheInfo::default();
    cache.ifa_valid = valid;
    cache.ifa_preferred = valid;
    match wanted.ip {
        IpAddr::V4(v4) => message.attributes.extend(broadcast(v4, wanted.prefix).map(AddressAttribute::Broadcast)),
        IpAddr::V6(_) => {
            // Whether somebody uses it is asked before; the kernel's own detection would cost more than a second.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            if !wanted.preferred_source {
                cache.ifa_preferred = 0;
            }
        }
    }
    message.attributes.push(AddressAttribute::CacheInfo(cache));
    message
}

fn broadcast(ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    (prefix < 31).then(|| Ipv4Addr::from(u32::from(ip) | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0)))
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(n) => name = Some(n.clone()),
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
            _ => {}
        }
    }
    let flags = message.header.flags;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    Some(Link {
        index: message.header.index,
        name: name?,
        mac: mac.filter(|_| ethernet),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        arp: ethernet && !flags.contains(LinkFlags::Noarp),
    })
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut other = None;
    let mut valid_s = None;
    let mut mark = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            AddressAttribute::CacheInfo(cache) if cache.ifa_valid != FOREVER => valid_s = Some(cache.ifa_valid),
            AddressAttribute::Protocol(p) => mark = Some(u8::from(*p)).filter(|p| *p != 0),
            AddressAttribute::Flags(f) => flags = *f,
            _ => {}
        }
    }
    Some(Address {
        index: message.header.index,
        // On point-to-point links `Address` is the other end.
        ip: local.or(other)?,
        prefix: message.header.prefix_len,
        valid_s,
        marked: mark == Some(OWNER_MARK),
        marked_by_other: mark.is_some_and(|m| m != OWNER_MARK),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let mut to = None;
    let mut gateway = None;
    let mut index = None;
    let mut source = None;
    let mut metric = None;
    let ip = |a: &RouteAddress| match a {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => to = ip(a),
            RouteAttribute::Gateway(a) => gateway = ip(a),
            RouteAttribute::PrefSource(a) => source = ip(a),
            RouteAttribute::Oif(i) => index = Some(*i),
            RouteAttribute::Priority(p) => metric = Some(*p),
            RouteAttribute::Table(t) if *t != u32::from(RouteHeader::RT_TABLE_MAIN) => return None,
            RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    let fits = header.address_family == AddressFamily::Inet
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.tos == 0;
    let to = to.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    fits.then_some(Route {
        to: Subnet::of(to, header.destination_prefix_length),
        gateway,
        index: index?,
        source,
        metric,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_broadcast_address_ends_the_network() {
        assert_eq!(broadcast("10.0.0.50".parse().unwrap(), 24), Some("10.0.0.255".parse().unwrap()));
        assert_eq!(broadcast("10.0.0.50".parse().unwrap(), 0), Some(Ipv4Addr::BROADCAST));
        assert_eq!(broadcast("10.0.0.50".parse().unwrap(), 32), None);
    }

    proptest! {
        #[test]
        fn decoding_is_bounded(buffer in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&buffer).len() <= buffer.len() / 16);
        }
    }
}
