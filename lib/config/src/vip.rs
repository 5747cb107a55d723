//! What does `<vip>` say?

use crate::balancing;
use crate::cluster::host;
use crate::diagnostic::{At, Diagnostics, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, only, unknown_child};
use crate::model::{Interface, Place, Vip, VirtualAddress, VirtualMac};
use crate::tree::Node;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The kind of module that a `<vip>` stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Mirror,
    Farm,
}

pub(crate) fn read(element: &Node, kind: Kind, found: &mut Diagnostics) -> Vip {
    let mut f = Fields::new(element);
    let tcp_reset = f.on_off("tcpreset", found).unwrap_or(true);
    let script_control = f.on_off("scriptcontrol", found).unwrap_or(false);
    if script_control && kind == Kind::Mirror {
        let help = "traffic control by scripts belongs to farm modules; remove it";
        found.error(f.place("scriptcontrol").0, "scriptcontrol=\"on\" in a mirror", help);
    }
    let early_drop = f.choice("earlydrop", &[("auto", true), ("off", false)], found);
    if early_drop.is_some() && kind == Kind::Mirror {
        let help = "only a farm receives packets of other nodes; remove it";
        found.error(f.place("earlydrop").0, "earlydrop in a mirror", help);
    }
    f.finish(found);
    let early_drop = early_drop.unwrap_or(true);
    let mut vip = Vip { tcp_reset, script_control, early_drop, interfaces: Vec::new(), groups: Vec::new() };
    for child in &element.children {
        match (child.name.as_str(), kind) {
            ("interface_list", _) | ("loadbalancing_list", Kind::Farm) => {}
            ("loadbalancing_list", Kind::Mirror) => {
                let help = "load balancing belongs to farm modules: remove it, or write mode=\"farm\"";
                found.error(child.span, "<loadbalancing_list> in a mirror", help);
            }
            (_, Kind::Mirror) => unknown_child(element, child, &["interface_list"], found),
            (_, Kind::Farm) => unknown_child(element, child, &["interface_list", "loadbalancing_list"], found),
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
            vip.interfaces.push(interface(child, kind, &mut seen, found));
        } else {
            unknown_child(list, child, &["interface"], found);
        }
    }
    if list.children.is_empty() {
        found.error(list.span, "<interface_list> holds no <interface>", "add one, or remove <vip>");
    }
    if kind == Kind::Farm {
        if let Some(list) = only(element, "loadbalancing_list", found) {
            vip.groups = balancing::read(list, &vip, found);
        } else {
            let help = "add <loadbalancing_list> with a rule for each service: traffic without a rule is refused";
            found.error(element.span, "<vip> of a farm holds no <loadbalancing_list>", help);
        }
    }
    vip
}

fn interface(element: &Node, kind: Kind, seen: &mut BTreeSet<String>, found: &mut Diagnostics) -> Interface {
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
                if kind == Kind::Farm {
                    let help = "write <virtual_interface type=\"vmac_directed\"> or type=\"vmac_invisible\"";
                    found.error(child.span, "<real_interface> in a farm", help);
                }
                Fields::new(child).finish(found);
                let addresses = addresses(child, kind, seen, found);
                interface.addresses.extend(addresses);
            }
            "virtual_interface" if kind == Kind::Mirror => {
                any = true;
                let help = "mirrors move their addresses with the interface's own MAC address; use <real_interface>";
                found.error(child.span, "<virtual_interface> in a mirror is not supported yet", help);
            }
            "virtual_interface" => {
                any = true;
                let addresses = virtual_interface(child, seen, found);
                interface.addresses.extend(addresses);
            }
            _ => unknown_child(element, child, &[kind.holder()], found),
        }
    }
    if !any {
        let help = format!("add <{}> with the virtual addresses", kind.holder());
        found.error(element.span, format!("<interface> holds no <{}>", kind.holder()), help);
    }
    interface
}

impl Kind {
    /// What holds the addresses of an interface.
    const fn holder(self) -> &'static str {
        match self {
            Self::Mirror => "real_interface",
            Self::Farm => "virtual_interface",
        }
    }
}

fn addresses(element: &Node, kind: Kind, seen: &mut BTreeSet<String>, found: &mut Diagnostics) -> Vec<VirtualAddress> {
    let mut addresses = Vec::new();
    for child in &element.children {
        if child.name == "virtual_addr" {
            addresses.extend(virtual_address(child, kind, seen, found));
        } else {
            unknown_child(element, child, &["virtual_addr"], found);
        }
    }
    if element.children.is_empty() {
        let place = if kind == Kind::Farm { "alias" } else { "one_side_alias" };
        let help = format!("add <virtual_addr addr=\"…\" where=\"{place}\"/>");
        found.error(element.span, format!("<{}> holds no <virtual_addr>", element.name), help);
    }
    addresses
}

fn virtual_interface(element: &Node, seen: &mut BTreeSet<String>, found: &mut Diagnostics) -> Vec<VirtualAddress> {
    let mut f = Fields::new(element);
    f.demand("type", found);
    let invisible = f.choice("type", &[("vmac_directed", false), ("vmac_invisible", true)], found);
    let given = f.text("addr", found);
    f.finish(found);
    let mut addresses = addresses(element, Kind::Farm, seen, found);
    let mac = match (invisible, given) {
        (Some(false), Some((_, span))) => {
            let help = "remove it: with vmac_directed clients see the address of the interface itself";
            found.error(span, "a MAC address with type=\"vmac_directed\"", help);
            None
        }
        (_, Some((text, span))) => {
            let mac = mac_of(text);
            if mac.is_none() {
                let message = format!("{} cannot be a virtual MAC address", quoted(text));
                found.error(
                    span,
                    message,
                    "write six bytes in hex whose first is even, for instance 5A:FE:C0:00:02:32",
                );
            }
            mac
        }
        (_, None) => addresses.first().and_then(|a| a.addr.parse().ok()).map(default_mac),
    };
    let mac = match invisible {
        Some(true) => mac.map(VirtualMac::Invisible),
        _ => Some(VirtualMac::Directed),
    };
    for address in &mut addresses {
        address.mac = mac;
    }
    addresses
}

/// Unicast, not null; bytes separated by `:` or `-`.
fn mac_of(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|p| (1..=2).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// `5A:FE` and the last four bytes of the address.
fn default_mac(address: IpAddr) -> [u8; 6] {
    let [.., a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }[..] else {
        return [0x5a, 0xfe, 0, 0, 0, 0];
    };
    [0x5a, 0xfe, a, b, c, d]
}

/// As it is written in files: `5A:FE:C0:00:02:32`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02X}")).join(":")
}

fn virtual_address(
    element: &Node,
    kind: Kind,
    seen: &mut BTreeSet<String>,
    found: &mut Diagnostics,
) -> Option<VirtualAddress> {
    no_children(element, found);
    let mut f = Fields::new(element);
    let given = f.mandatory("addr", found);
    let place = place(&mut f, kind, found);
    let check = f.on_off("check", found).unwrap_or(true);
    let connections = f.on_off("connections", found).unwrap_or(false);
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
    Some(VirtualAddress { addr: address, place, check, connections, prefix, mac: None, at: At(span) })
}

fn place(f: &mut Fields<'_>, kind: Kind, found: &mut Diagnostics) -> Place {
    let usual = if kind == Kind::Farm { Place::Alias } else { Place::OneSideAlias };
    let Some((word, span)) = f.text("where", found) else { return usual };
    let (message, help) = match (word, kind) {
        ("one_side_alias", Kind::Mirror) => return Place::OneSideAlias,
        ("one_side", Kind::Mirror) => return Place::OneSide,
        ("alias", Kind::Farm) => return Place::Alias,
        ("alias", Kind::Mirror) => (
            "where=\"alias\" puts the address on all nodes, which is for farm modules".to_owned(),
            "write where=\"one_side_alias\" or where=\"one_side\"",
        ),
        ("one_side_alias" | "one_side", Kind::Farm) => (
            format!("where=\"{word}\" puts the address on one node, which is for mirrors"),
            "write where=\"alias\": in a farm every node has the address",
        ),
        (_, Kind::Mirror) => (
            format!("invalid value {} for the attribute where", quoted(word)),
            "write where=\"one_side_alias\" or where=\"one_side\"",
        ),
        (_, Kind::Farm) => (format!("invalid value {} for the attribute where", quoted(word)), "write where=\"alias\""),
    };
    found.error(span, message, help);
    usual
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
