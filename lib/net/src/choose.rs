//! On which interface and with which prefix does a virtual address live? Pure.

use crate::error::NetError;
use crate::types::{Address, Link, Subnet};
use std::net::IpAddr;

/// Where a virtual address goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub link: Link,
    pub prefix: u8,
    /// The network it belongs to; its first address names the interface checker.
    pub subnet: Subnet,
}

/// Finds the interface: the named one, else the one whose own network contains the address (longest prefix first, an
/// interface with carrier before one without). The prefix is the wanted one, else that of the network, else a full one.
pub fn place(
    address: IpAddr,
    prefix: Option<u8>,
    interface: Option<&str>,
    links: &[Link],
    addresses: &[Address],
) -> Result<Place, NetError> {
    let mut networks: Vec<(&Link, &Address)> = addresses
        .iter()
        .filter(|a| a.ip != address && a.subnet().contains(address))
        .filter(|a| prefix.is_none_or(|p| interface.is_none() || a.prefix == p))
        .filter_map(|a| links.iter().find(|l| l.index == a.index).map(|l| (l, a)))
        .filter(|(l, _)| interface.map_or(!l.loopback, |name| l.name == name))
        .collect();
    networks.sort_by_key(|(l, a)| (std::cmp::Reverse(a.prefix), std::cmp::Reverse(l.carrier), l.index));
    let full = if address.is_ipv4() { 32 } else { 128 };
    let on = |link: &Link, prefix: u8| Place { link: link.clone(), prefix, subnet: Subnet::of(address, prefix) };
    if let Some((link, own)) = networks.first() {
        return Ok(on(link, prefix.unwrap_or(own.prefix)));
    }
    if let Some(name) = interface {
        let link = links
            .iter()
            .find(|l| l.name == name)
            .ok_or_else(|| NetError::UnknownInterface { name: name.to_owned() })?;
        return Ok(on(link, prefix.unwrap_or(full)));
    }
    // An orphan of a former life still shows where it was; whether it is one is decided when it is claimed.
    let present = addresses.iter().find(|a| a.ip == address);
    match present.and_then(|a| links.iter().find(|l| l.index == a.index && !l.loopback).map(|l| (l, a))) {
        Some((link, own)) => Ok(on(link, prefix.unwrap_or(own.prefix))),
        None => Err(NetError::NoInterface { address }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mac;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            mac: Some(Mac([2, 0, 0, 0, 0, index as u8])),
            up: true,
            carrier: true,
            loopback: name == "lo",
            arp: name != "lo",
        }
    }

    fn own(index: u32, ip: &str, prefix: u8) -> Address {
        Address {
            index,
            ip: ip.parse().unwrap(),
            prefix,
            valid_s: None,
            marked: false,
            marked_by_other: false,
            tentative: false,
        }
    }

    fn chosen(ip: &str, prefix: Option<u8>, interface: Option<&str>) -> Result<(String, u8, String), String> {
        let links = [link(1, "lo"), link(2, "eth0"), link(3, "eth1")];
        let addresses = [own(1, "127.0.0.1", 8), own(2, "10.0.0.1", 24), own(3, "10.0.0.1", 8), own(3, "fd00::1", 64)];
        place(ip.parse().unwrap(), prefix, interface, &links, &addresses)
            .map(|p| (p.link.name, p.prefix, p.subnet.first.to_string()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_interface_whose_network_contains_the_address_is_taken() {
        assert_eq!(chosen("10.0.0.50", None, None), Ok(("eth0".into(), 24, "10.0.0.0".into())));
        assert_eq!(chosen("10.9.0.50", None, None), Ok(("eth1".into(), 8, "10.0.0.0".into())));
        assert_eq!(chosen("fd00::50", None, None), Ok(("eth1".into(), 64, "fd00::".into())));
        assert_eq!(chosen("10.0.0.50", Some(32), None), Ok(("eth0".into(), 32, "10.0.0.50".into())));
    }

    #[test]
    fn a_named_interface_wins_and_a_missing_one_is_told() {
        assert_eq!(chosen("10.0.0.50", None, Some("eth1")), Ok(("eth1".into(), 8, "10.0.0.0".into())));
        assert_eq!(chosen("192.168.1.1", Some(16), Some("eth1")), Ok(("eth1".into(), 16, "192.168.0.0".into())));
        assert_eq!(chosen("192.168.1.1", None, Some("eth1")), Ok(("eth1".into(), 32, "192.168.1.1".into())));
        assert!(chosen("10.0.0.50", None, Some("eth9")).unwrap_err().contains("no interface `eth9`"));
        assert!(chosen("192.168.1.1", None, None).unwrap_err().contains("no interface has a network"));
        assert!(chosen("127.0.0.9", None, None).is_err(), "never the loopback by itself");
    }

    #[test]
    fn an_orphan_shows_where_it_was() {
        let orphan = own(2, "10.7.0.50", 32);
        let links = [link(2, "eth0")];
        let at = place(orphan.ip, None, None, &links, std::slice::from_ref(&orphan)).unwrap();
        assert_eq!((at.link.name.as_str(), at.prefix), ("eth0", 32));
    }
}
