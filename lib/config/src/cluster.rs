//! What does `cluster.xml` say: which nodes, on which networks?

use crate::diagnostic::{Diagnostics, Source, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, unknown_child};
use crate::tree::{self, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// `cluster.xml` with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// UDP port of the node daemons.
    pub port: u16,
    pub pulse: Duration,
    /// Packets missed before a new leader is elected.
    pub leader_missed: u32,
    /// Packets missed before a follower counts as absent.
    pub follower_missed: u32,
    pub lans: Vec<Lan>,
}

/// A network that modules refer to by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lan {
    pub name: String,
    /// Carries distributed commands.
    pub command: bool,
    pub nodes: Vec<LanNode>,
}

/// A node on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanNode {
    pub name: String,
    /// As others see it: IPv4, IPv6 without brackets, or a host name.
    pub address: String,
    /// What is configured on the node itself, where it differs (address translation).
    pub local_address: Option<String>,
}

impl Cluster {
    /// The names of all nodes, in the order of the file.
    pub fn nodes(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for node in self.lans.iter().flat_map(|l| &l.nodes) {
            if !names.contains(&node.name.as_str()) {
                names.push(&node.name);
            }
        }
        names
    }

    /// Names of nodes and the addresses that they have themselves, as `sys::node::own` wants them.
    pub fn own_addresses(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.lans.iter().flat_map(|l| &l.nodes).map(|n| (n.name.as_str(), n.local()))
    }

    pub fn lan(&self, name: &str) -> Option<&Lan> {
        self.lans.iter().find(|l| l.name == name)
    }

    /// The lan for distributed commands: the one marked, else the first.
    pub fn command_lan(&self) -> Option<&Lan> {
        self.lans.iter().find(|l| l.command).or(self.lans.first())
    }
}

impl Lan {
    pub fn node(&self, name: &str) -> Option<&LanNode> {
        self.nodes.iter().find(|n| n.name == name)
    }
}

impl LanNode {
    /// The address to bind on the node itself.
    pub fn local(&self) -> &str {
        self.local_address.as_deref().unwrap_or(&self.address)
    }
}

/// Reads a cluster. `None` exactly when an error was found.
pub fn parse_cluster(file_name: &str, text: &str) -> (Option<Cluster>, Diagnostics) {
    let mut found = Diagnostics::new(Source::new(file_name, text));
    let cluster = tree::parse(text, &mut found).and_then(|roots| read(&roots, &mut found));
    found.sort();
    let cluster = cluster.filter(|_| !found.has_errors());
    (cluster, found)
}

fn read(roots: &[Node], found: &mut Diagnostics) -> Option<Cluster> {
    let root = roots.first()?;
    for extra in roots.iter().skip(1) {
        let message = format!("<{}> stands after the end of <{}>", extra.name, root.name);
        found.error(extra.span, message, "a file holds one element");
    }
    if root.name != "cluster" {
        let message = format!("<{}> stands where <cluster> is expected", root.name);
        found.error(root.span, message, "a cluster file is <cluster><lans>…</lans></cluster>");
        return None;
    }
    Fields::new(root).finish(found);
    let mut lans = None;
    for child in &root.children {
        if child.name != "lans" {
            unknown_child(root, child, &["lans"], found);
        } else if lans.is_some() {
            found.error(child.span, "<lans> stands twice in <cluster>", "put all lans into one");
        } else {
            lans = Some(child);
        }
    }
    let Some(lans) = lans else {
        found.error(root.span, "<cluster> holds no <lans>", "add <lans> with at least one <lan>");
        return None;
    };
    let mut f = Fields::new(lans);
    let port = f.port("port", found).unwrap_or(4800);
    let pulse = f.period("pulse", Unit::Milliseconds, found);
    let leader_missed = f.integer("mlost_count", 1, 1_000_000, found).unwrap_or(20);
    let follower_missed = f.integer("slost_count", 1, 1_000_000, found).unwrap_or(10);
    f.finish(found);
    let mut cluster = Cluster {
        port,
        pulse: pulse.unwrap_or(Duration::from_millis(100)),
        leader_missed: leader_missed as u32,
        follower_missed: follower_missed as u32,
        lans: Vec::new(),
    };
    let mut command_given = false;
    for child in &lans.children {
        if child.name != "lan" {
            unknown_child(lans, child, &["lan"], found);
            continue;
        }
        let Some(lan) = read_lan(child, found) else {
            continue;
        };
        if lan.command && std::mem::replace(&mut command_given, true) {
            found.error(child.span, "a second lan has command=\"on\"", "let one lan carry commands");
        }
        if cluster.lan(&lan.name).is_some() {
            let message = format!("lan {} is defined twice", quoted(&lan.name));
            found.error(child.span, message, "give each lan a name of its own");
        }
        cluster.lans.push(lan);
    }
    // Conclusions from lans that could not be read would only confuse.
    if !found.has_errors() {
        check_whole(&cluster, lans, found);
    }
    Some(cluster)
}

fn check_whole(cluster: &Cluster, lans: &Node, found: &mut Diagnostics) {
    if cluster.lans.is_empty() {
        found.error(lans.span, "<lans> holds no <lan>", "add a lan with the nodes of the cluster");
        return;
    }
    if cluster.nodes().len() < 2 {
        found.error(lans.span, "the cluster has only one node", "add at least one more <node>");
    }
    let complete = |lan: &Lan| cluster.nodes().iter().all(|n| lan.node(n).is_some());
    if !cluster.lans.iter().any(complete) {
        let help = format!("list {} in one lan", cluster.nodes().join(", "));
        found.error(lans.span, "no lan contains every node", help);
    }
    for (lan, node) in cluster.lans.iter().zip(&lans.children) {
        if lan.command && !complete(lan) {
            let missing: Vec<&str> = cluster.nodes().iter().filter(|n| lan.node(n).is_none()).copied().collect();
            let message =
                format!("lan {} has command=\"on\" but does not contain {}", quoted(&lan.name), missing.join(", "));
            found.error(node.span, message, "add the nodes, or choose a lan that has all of them");
        }
    }
}

fn read_lan(element: &Node, found: &mut Diagnostics) -> Option<Lan> {
    let mut f = Fields::new(element);
    let name = f.mandatory("name", found).map(|(n, _)| n.to_owned());
    let command = f.on_off("command", found).unwrap_or(false);
    for old in ["console", "framework", "connect"] {
        f.without_effect(old, "it belongs to earlier versions", found);
    }
    f.finish(found);
    let mut nodes: Vec<LanNode> = Vec::new();
    let mut addresses: BTreeMap<String, String> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for child in &element.children {
        if child.name != "node" {
            unknown_child(element, child, &["node"], found);
            continue;
        }
        no_children(child, found);
        let mut f = Fields::new(child);
        let name = f.mandatory("name", found);
        let address = f.mandatory("addr", found);
        let local = f.text("laddr", found);
        f.finish(found);
        let mut check = |given: Option<(&str, crate::diagnostic::Span)>| {
            let (text, span) = given?;
            let address = host(text);
            if address.is_none() {
                let message = format!("{} is neither an address nor a host name", quoted(text));
                found.error(span, message, "write an IPv4 address, an IPv6 address in brackets, or a host name");
            }
            address
        };
        let (address_read, local_address) = (check(address), check(local));
        let (Some((name, name_span)), Some(address_read)) = (name, address_read) else {
            continue;
        };
        if !node_name(name) {
            let message = format!("{} is not a good name for a node", quoted(name));
            found.error(name_span, message, "use letters, digits, '.', '_' and '-'");
            continue;
        }
        if !names.insert(name.to_owned()) {
            let message = format!("node {} stands twice in this lan", quoted(name));
            found.error(name_span, message, "remove one; a node has one name and one address on each lan");
            continue;
        }
        if let Some(other) = addresses.insert(address_read.clone(), name.to_owned()) {
            let message = format!("nodes {} and {} have the same address on this lan", quoted(&other), quoted(name));
            found.error(address.map_or(child.span, |a| a.1), message, "give each node its own address");
        }
        nodes.push(LanNode { name: name.to_owned(), address: address_read, local_address });
    }
    if element.children.is_empty() {
        found.error(element.span, "the lan holds no <node>", "add <node name=\"…\" addr=\"…\"/>");
    }
    Some(Lan { name: name?, command, nodes })
}

pub(crate) fn node_name(name: &str) -> bool {
    name.len() <= 255 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// An address in its shortest form, or a host name. `None`: neither.
pub fn host(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[') {
        let address: IpAddr = inner.strip_suffix(']')?.parse().ok()?;
        return address.is_ipv6().then(|| address.to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    // All digits and dots: an address with a mistake in it.
    let name = text.len() <= 253
        && text.bytes().any(|b| b.is_ascii_alphabetic())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
        });
    name.then(|| text.to_owned())
}
