//! What does `<vip>` say?

use crate::cluster::host;
use crate::diagnostic::{At, Diagnostics, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, only, unknown_child};
use crate::model::{Interface, Place, Vip, VirtualAddress};
use crate::tree::Node;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub(crate) fn read(element: &Node, found: &mut Diagnostics) -> Vip {
    let mut f = Fields::new(element);
    let tcp_reset = f.on_off("tcpreset", found).unwrap_or(true);
    if f.on_off("scriptcontrol", found) == Some(true) {
        let help = "traffic control by scripts belongs to farm modules; remove it";
        found.error(f.place("scriptcontrol").0, "scriptcontrol=\"on\" in a mirror", help);
    }
    f.finish(found);
    let mut vip = Vip { tcp_reset, interfaces: Vec::new() };
    for child in &element.children {
        match child.name.as_str() {
            "interface_list" => {}
            "loadbalancing_list" => {
                let help = "load balancing belongs to farm modules, which are not supported yet; remove it";
                found.error(child.span, "<loadbalancing_list> in a mirror", help);
            }
            _ => unknown_child(element, child, &["interface_list"], found),
        }
    }
    let Some(list) = only(element, "interface_list", found) else {
        found.error(element.span, "<vip> holds no <interface_list>", "add the interfaces, or remove <vip>");
        return vip;
    };
    Fields::new(list).finish(found);
    let mut seen = BTreeSet::new();
    for child in &list.children {
        if child.name == "interface" {
            vip.interfaces.push(interface(child, &mut seen, found));
        } else {
            unknown_child(list, child, &["interface"], found);
        }
    }
    if list.children.is_empty() {
        found.error(list.span, "<interface_list> holds no <interface>", "add one, or remove <vip>");
    }
    vip
}

fn interface(element: &Node, seen: &mut BTreeSet<String>, found: &mut Diagnostics) -> Interface {
    let mut f = Fields::new(element);
    let name = f.string("name", found);
    if let Some(name) = &name
        && (name.len() > 15 || name.contains(['/', ' ']))
    {
        let message = format!("{} cannot be the name of an interface", quoted(name));
        found.error(f.place("name").0, message, "names have at most 15 characters, without '/' and blanks");
    }
    let mut interface = Interface {
        name,
        check: f.on_off("check", found).unwrap_or(true),
        arp_reroute: f.on_off("arpreroute", found).unwrap_or(false),
        arp_interval: f.period("arpinterval", Unit::Seconds, found).unwrap_or(Duration::from_mins(1)),
        arp_elapse: f.duration("arpelapse", Unit::Seconds, found).unwrap_or(Duration::from_mins(20)),
        addresses: Vec::new(),
    };
    f.finish(found);
    let mut any = false;
    for child in &element.children {
        match child.name.as_str() {
            "real_interface" => {
                any = true;
                Fields::new(child).finish(found);
                for address in &child.children {
                    if address.name == "virtual_addr" {
                        interface.addresses.extend(virtual_address(address, seen, found));
                    } else {
                        unknown_child(child, address, &["virtual_addr"], found);
                    }
                }
                if child.children.is_empty() {
                    let help = "add <virtual_addr addr=\"…\" where=\"one_side_alias\"/>";
                    found.error(child.span, "<real_interface> holds no <virtual_addr>", help);
                }
            }
            "virtual_interface" => {
                any = true;
                let help = "virtual MAC addresses are not supported yet; use <real_interface>";
                found.error(child.span, "<virtual_interface> is not supported yet", help);
            }
            _ => unknown_child(element, child, &["real_interface"], found),
        }
    }
    if !any {
        let help = "add <real_interface> with the virtual addresses";
        found.error(element.span, "<interface> holds no <real_interface>", help);
    }
    interface
}

fn virtual_address(element: &Node, seen: &mut BTreeSet<String>, found: &mut Diagnostics) -> Option<VirtualAddress> {
    no_children(element, found);
    let mut f = Fields::new(element);
    let given = f.mandatory("addr", found);
    let place = match f.text("where", found) {
        None => Place::OneSideAlias,
        Some(("one_side_alias", _)) => Place::OneSideAlias,
        Some(("one_side", _)) => Place::OneSide,
        Some((other, span)) => {
            let message = if other == "alias" {
                "where=\"alias\" puts the address on all nodes, which is for farm modules".to_owned()
            } else {
                format!("invalid value {} for the attribute where", quoted(other))
            };
            found.error(span, message, "write where=\"one_side_alias\" or where=\"one_side\"");
            Place::OneSideAlias
        }
    };
    let check = f.on_off("check", found).unwrap_or(true);
    if f.on_off("connections", found) == Some(true) {
        let help = "the resource connections.ADDRESS will not be set; nothing else depends on it";
        found.warning(f.place("connections").0, "connections are not counted yet", help);
    }
    let mask = f.text("netmask", found);
    f.finish(found);
    let (text, span) = given?;
    let address = host(text);
    let Some(address) = address else {
        let message = format!("{} is neither an address nor a host name", quoted(text));
        let help = if text.contains('/') {
            "write the address alone; its mask goes into netmask=\"255.255.255.0\""
        } else {
            "write an IPv4 or IPv6 address, or a host name"
        };
        found.error(span, message, help);
        return None;
    };
    let Ok(ip) = address.parse::<IpAddr>() else {
        let message = format!("host name {} as virtual address is not supported yet", quoted(text));
        found.error(span, message, "write its address: the module must not depend on a name server");
        return None;
    };
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        let message = format!("{} cannot be a virtual address", quoted(text));
        found.error(span, message, "choose a free unicast address of the clients' network");
    }
    if !seen.insert(address.clone()) {
        let message = format!("virtual address {} stands twice", quoted(text));
        found.error(span, message, "remove one of them");
    }
    let mut prefix = None;
    if let Some((mask, span)) = mask {
        prefix = prefix_of(mask);
        if prefix.is_none() {
            let message = format!("{} is not a network mask", quoted(mask));
            found.error(span, message, "write for instance netmask=\"255.255.255.0\"");
        } else if address.contains(':') {
            found.error(span, "netmask with an IPv6 address", "remove it: it is for IPv4 only");
        }
    }
    Some(VirtualAddress { addr: address, place, check, prefix, at: At(span) })
}

fn prefix_of(mask: &str) -> Option<u8> {
    let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let ones = bits.leading_ones();
    (ones > 0 && bits.count_ones() == ones).then_some(ones as u8)
}

/// The mask of a prefix length, dotted.
pub(crate) fn mask_of(prefix: u8) -> Ipv4Addr {
    let zeros = 32_u32.saturating_sub(u32::from(prefix));
    Ipv4Addr::from(u32::MAX.checked_shl(zeros).unwrap_or(0))
}
