//! What does `<loadbalancing_list>` say: which traffic is shared out, between whom, by what?

use crate::cluster::host;
use crate::diagnostic::{At, Diagnostics, quoted};
use crate::fields::{Fields, no_children, only, unknown_child};
use crate::model::{Vip, VirtualAddress, VirtualMac};
use crate::tree::Node;
use serde::Serialize;

/// Greatest `power`: five steps of a chain with ratio 64.
const POWER_MAX: i64 = 1 << 30;
/// Longest name of a group.
const NAME_MAX: usize = 32;
/// Most groups of a module.
const GROUPS_MAX: usize = 64;
/// Most rules of a group.
const RULES_MAX: usize = 64;

/// `<group>`: a table of 256 entries of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// `None`: every node has the same share. Nodes that a list leaves out get no traffic of this group.
    pub hosts: Option<Vec<Host>>,
    pub rules: Vec<Rule>,
    pub(crate) at: At,
}

/// `<host>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub power: u32,
    pub(crate) at: At,
}

/// `<rule>`: the traffic that belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `None`: every virtual address of the module.
    pub addr: Option<String>,
    /// `None`: every port.
    pub port: Option<u16>,
    pub proto: Proto,
    pub filter: Filter,
}

/// `proto` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
    /// Who answers the question for the address: ARP and neighbour discovery.
    Arp,
}

/// `filter` of a rule: what of a packet chooses its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The client's address.
    OnAddr,
    /// The client's port (and address).
    OnPort,
    /// The identification of the IPv4 packet.
    OnIpid,
}

impl Proto {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Arp => "arp",
        }
    }
}

impl Filter {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnAddr => "on_addr",
            Self::OnPort => "on_port",
            Self::OnIpid => "on_ipid",
        }
    }
}

/// Reads the groups; `vip` holds the addresses that rules speak of.
pub(crate) fn read(list: &Node, vip: &Vip, found: &mut Diagnostics) -> Vec<Group> {
    Fields::new(list).finish(found);
    let mut groups: Vec<Group> = Vec::new();
    for child in &list.children {
        if child.name != "group" {
            unknown_child(list, child, &["group"], found);
            continue;
        }
        let Some(group) = group(child, vip, found) else { continue };
        if groups.iter().any(|g| g.name == group.name) {
            let message = format!("two groups have the name {}", quoted(&group.name));
            found.error(group.at.0, message, "give each a name of its own");
        }
        for rule in &group.rules {
            let twin = groups.iter().find(|g| g.rules.iter().any(|r| same_traffic(r, rule)));
            if let Some(twin) = twin {
                let message = format!(
                    "groups {} and {} have a rule for the same traffic ({})",
                    quoted(&twin.name),
                    quoted(&group.name),
                    traffic(rule)
                );
                found.error(group.at.0, message, "let it belong to one of them");
            }
        }
        let before = groups.iter().flat_map(|g| g.rules.iter().map(move |r| (g.name.as_str(), r)));
        warn_of_overlaps(&before.collect::<Vec<_>>(), &group, found);
        groups.push(group);
    }
    if list.children.is_empty() {
        found.error(list.span, "<loadbalancing_list> holds no <group>", "add <group name=\"…\"><rule …/></group>");
    }
    if groups.len() > GROUPS_MAX {
        let message = format!("<loadbalancing_list> holds {} groups; {GROUPS_MAX} are the most", groups.len());
        found.error(list.span, message, "put rules of the same hosts into one group");
    }
    groups
}

/// The first rule in the order of the file decides. That a special rule goes before a general one is how it is meant;
/// anything else is hardly what the author had in mind.
fn warn_of_overlaps(before: &[(&str, &Rule)], group: &Group, found: &mut Diagnostics) {
    let mut before = before.to_vec();
    for rule in &group.rules {
        let odd = before.iter().find(|(_, r)| overlap(r, rule) && !covers(rule, r));
        if let Some((name, first)) = odd {
            let (what, help) = if covers(first, rule) {
                ("gets nothing: it is covered by", "write the rule for less before the rule for more")
            } else {
                ("gets only what is left by", "the first in the file decides; say the common part in a rule of its own")
            };
            let message = format!(
                "the rule of group {} ({}) {what} the one of group {} ({})",
                quoted(&group.name),
                traffic(rule),
                quoted(name),
                traffic(first)
            );
            found.warning(group.at.0, message, help);
        }
        before.push((&group.name, rule));
    }
}

/// Whether some traffic matches both.
fn overlap(a: &Rule, b: &Rule) -> bool {
    a.proto == b.proto
        && (a.addr.is_none() || b.addr.is_none() || a.addr == b.addr)
        && (a.port.is_none() || b.port.is_none() || a.port == b.port)
}

/// Whether all traffic of `b` matches `a`.
fn covers(a: &Rule, b: &Rule) -> bool {
    a.proto == b.proto && (a.addr.is_none() || a.addr == b.addr) && (a.port.is_none() || a.port == b.port)
}

fn same_traffic(a: &Rule, b: &Rule) -> bool {
    (&a.addr, a.port, a.proto) == (&b.addr, b.port, b.proto)
}

fn traffic(rule: &Rule) -> String {
    let port = rule.port.map_or_else(|| "*".to_owned(), |p| p.to_string());
    format!("{} address {} port {port}", rule.proto.as_str(), rule.addr.as_deref().unwrap_or("*"))
}

fn group(element: &Node, vip: &Vip, found: &mut Diagnostics) -> Option<Group> {
    let mut f = Fields::new(element);
    let name = f.mandatory("name", found);
    f.finish(found);
    let hosts = only(element, "cluster", found).map(|e| hosts(e, found));
    let mut rules: Vec<Rule> = Vec::new();
    for child in &element.children {
        match child.name.as_str() {
            "cluster" => {}
            "rule" => {
                let Some(rule) = rule(child, vip, found) else { continue };
                if rules.iter().any(|r| same_traffic(r, &rule)) {
                    let message = format!("two rules for the same traffic ({})", traffic(&rule));
                    found.error(child.span, message, "remove one of them");
                }
                rules.push(rule);
            }
            _ => unknown_child(element, child, &["cluster", "rule"], found),
        }
    }
    if !element.children.iter().any(|c| c.name == "rule") {
        let help = "add <rule port=\"…\" proto=\"tcp\" filter=\"on_addr\"/>: traffic without a rule is refused";
        found.error(element.span, "<group> holds no <rule>", help);
    }
    if rules.len() > RULES_MAX {
        let message = format!("<group> holds {} rules; {RULES_MAX} are the most", rules.len());
        found.error(element.span, message, "use port=\"*\", or a second group");
    }
    let (name, span) = name?;
    let good = name.len() <= NAME_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !good {
        let message = format!("{} cannot be the name of a group", quoted(name));
        found.error(span, message, format!("use at most {NAME_MAX} letters, digits, '.', '_' and '-'"));
    }
    Some(Group { name: name.to_owned(), hosts, rules, at: At(span) })
}

fn hosts(element: &Node, found: &mut Diagnostics) -> Vec<Host> {
    Fields::new(element).finish(found);
    let mut hosts: Vec<Host> = Vec::new();
    for child in &element.children {
        if child.name != "host" {
            unknown_child(element, child, &["host"], found);
            continue;
        }
        no_children(child, found);
        let mut f = Fields::new(child);
        let name = f.mandatory("name", found);
        let power = f.integer("power", 0, POWER_MAX, found).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        f.finish(found);
        let Some((name, span)) = name else { continue };
        if hosts.iter().any(|h| h.name == name) {
            found.error(span, format!("host {} stands twice in this group", quoted(name)), "remove one of them");
        }
        hosts.push(Host { name: name.to_owned(), power, at: At(span) });
    }
    if element.children.is_empty() {
        let help = "add <host name=\"…\" power=\"1\"/>, or remove <cluster>: then all have the same share";
        found.error(element.span, "<cluster> holds no <host>", help);
    } else if !hosts.is_empty() && hosts.iter().all(|h| h.power == 0) {
        let help = "give at least one host a power from 1; a group that nobody serves is better removed";
        found.error(element.span, "every host of this group has power=\"0\"", help);
    }
    hosts
}

fn rule(element: &Node, vip: &Vip, found: &mut Diagnostics) -> Option<Rule> {
    no_children(element, found);
    let mut f = Fields::new(element);
    let address = f.text("virtual_addr", found).filter(|(text, _)| *text != "*");
    let port = match f.text("port", found) {
        None | Some(("*", _)) => None,
        Some((text, span)) => {
            let port = text.parse::<u16>().ok().filter(|p| *p > 0);
            if port.is_none() {
                let message = format!("invalid value {} for the attribute port", quoted(text));
                found.error(span, message, "write a whole number from 1 to 65535, or *");
            }
            port
        }
    };
    f.demand("proto", found);
    let proto = f.choice("proto", &[("tcp", Proto::Tcp), ("udp", Proto::Udp), ("arp", Proto::Arp)], found);
    f.demand("filter", found);
    let filters = [("on_addr", Filter::OnAddr), ("on_port", Filter::OnPort), ("on_ipid", Filter::OnIpid)];
    let filter = f.choice("filter", &filters, found);
    let places = (f.place("port").0, f.place("filter").0, f.place("proto").0);
    f.finish(found);
    let all = || vip.interfaces.iter().flat_map(|i| &i.addresses);
    let mut addr = None;
    if let Some((text, span)) = address {
        addr = host(text);
        let Some(known) = &addr else {
            let message = format!("{} is neither an address nor a host name", quoted(text));
            found.error(span, message, "write one of the virtual addresses, or *");
            return None;
        };
        if !all().any(|a| a.addr == *known) {
            let list: Vec<&str> = all().map(|a| a.addr.as_str()).collect();
            let message = format!("{} is not a virtual address of this module", quoted(text));
            found.error(span, message, format!("write * or one of: {}", list.join(", ")));
        }
    }
    let (proto, filter) = (proto?, filter?);
    let meant: Vec<&VirtualAddress> = all().filter(|a| addr.as_ref().is_none_or(|n| a.addr == *n)).collect();
    let (port_at, filter_at, proto_at) = places;
    if proto == Proto::Arp {
        if filter != Filter::OnAddr {
            let message = format!("proto=\"arp\" with filter=\"{}\"", filter.as_str());
            found.error(filter_at, message, "write filter=\"on_addr\": a question for an address has no port");
        }
        if port.is_some() {
            found.error(port_at, "proto=\"arp\" with a port", "remove it: a question for an address has no port");
        }
        if !meant.is_empty() && !meant.iter().any(|a| a.mac == Some(VirtualMac::Directed)) {
            let help = "use <virtual_interface type=\"vmac_directed\">, or remove the rule: with vmac_invisible all answer the same";
            found.error(proto_at, "proto=\"arp\" for addresses that are not vmac_directed", help);
        }
    }
    if filter == Filter::OnIpid {
        let v6 = meant.iter().filter(|a| a.addr.contains(':')).count();
        if proto == Proto::Tcp {
            let help = "write on_addr or on_port: the packets of one connection would go to different nodes";
            found.error(filter_at, "proto=\"tcp\" with filter=\"on_ipid\"", help);
        } else if v6 > 0 && v6 == meant.len() {
            let help = "write on_addr or on_port: packets of IPv6 have no identification";
            found.error(filter_at, "filter=\"on_ipid\" with an IPv6 address", help);
        } else if v6 > 0 {
            let help = "write a rule of its own for the IPv6 addresses: what matches no rule is refused";
            found.warning(filter_at, "filter=\"on_ipid\" applies to the IPv4 addresses only", help);
        }
    }
    Some(Rule { addr, port, proto, filter })
}
