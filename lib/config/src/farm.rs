//! What does `<farm>` say?

use crate::cluster::host;
use crate::diagnostic::{At, Diagnostics, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, unknown_child};
use crate::model::Network;
use crate::tree::Node;
use std::time::Duration;

/// The UDP port of the membership of module number `id` (from 1), unless the file says another.
pub fn farm_port(id: u16) -> u16 {
    4803_u16.saturating_add(id.saturating_sub(1).saturating_mul(3))
}

/// `<farm>`: who takes part, and when a node counts as absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farm {
    /// `None`: derived from the module's number.
    pub port: Option<u16>,
    /// Between two packets.
    pub pulse: Duration,
    /// Packets missed before a new leader is elected.
    pub leader_missed: u32,
    /// Packets missed before a node counts as absent.
    pub follower_missed: u32,
    pub lans: Vec<FarmLan>,
}

/// `<lan>` of `<farm>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarmLan {
    pub network: Network,
    pub(crate) at: At,
}

impl Farm {
    /// The port of the membership, for module number `id` (from 1).
    pub fn port(&self, id: u16) -> u16 {
        self.port.unwrap_or_else(|| farm_port(id))
    }
}

pub(crate) fn read(element: &Node, found: &mut Diagnostics) -> Farm {
    let mut f = Fields::new(element);
    let port = f.port("port", found);
    let pulse = f.period("pulse", Unit::Milliseconds, found).unwrap_or(Duration::from_millis(100));
    let mut count =
        |name, default| f.integer(name, 2, 10_000, found).and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let (leader_missed, follower_missed) = (count("mlost_count", 20), count("slost_count", 10));
    f.finish(found);
    let mut farm = Farm { port, pulse, leader_missed, follower_missed, lans: Vec::new() };
    let mut any = false;
    for child in &element.children {
        if child.name != "lan" {
            unknown_child(element, child, &["lan"], found);
            continue;
        }
        any = true;
        if let Some(lan) = lan(child, found) {
            if farm.lans.iter().any(|other| other.network == lan.network) {
                found.error(lan.at.0, "this lan stands twice in <farm>", "remove one of them");
            }
            farm.lans.push(lan);
        }
    }
    if !any {
        found.error(element.span, "<farm> holds no <lan>", "add <lan name=\"…\"/> with a lan of cluster.xml");
    }
    farm
}

fn lan(element: &Node, found: &mut Diagnostics) -> Option<FarmLan> {
    let mut f = Fields::new(element);
    let old_form = !element.children.is_empty();
    let name = if old_form { f.text("name", found) } else { f.mandatory("name", found) };
    f.finish(found);
    let at = At(name.map_or(element.span, |n| n.1));
    if !old_form {
        return Some(FarmLan { network: Network::Lan(name?.0.to_owned()), at });
    }
    let mut addresses = Vec::new();
    for child in &element.children {
        if child.name != "node" {
            unknown_child(element, child, &["node"], found);
            continue;
        }
        no_children(child, found);
        let help = "name a lan of cluster.xml instead: <lan name=\"…\"/>";
        found.warning(child.span, "<node> in <lan> of a module is the form of old versions", help);
        let mut f = Fields::new(child);
        f.raw("name");
        if let Some((text, span)) = f.mandatory("addr", found) {
            if let Some(address) = host(text) {
                addresses.push(address);
            } else {
                let message = format!("{} is neither an address nor a host name", quoted(text));
                found.error(span, message, "write an address of cluster.xml");
            }
        }
        f.finish(found);
    }
    (!addresses.is_empty()).then_some(FarmLan { network: Network::Addresses(addresses), at })
}
