//! Does a module fit its cluster, and which addresses do its links have on a node?

use crate::cluster::{Cluster, Lan};
use crate::diagnostic::{At, Diagnostics, quoted};
use crate::model::{DefaultPrim, Module, Network};
use std::time::Duration;

/// The module's links as seen by one of its two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    pub node: String,
    pub peer: String,
    pub heartbeats: Vec<Link>,
    /// The replication link's addresses, with `<rfs>`.
    pub replication: Option<Pair>,
}

/// One heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ident: String,
    pub addresses: Pair,
    pub pulse: Duration,
    pub timeout: Duration,
}

/// Addresses or host names, as the cluster's file gives them, without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Configured on this node.
    pub local: String,
    /// Where the peer is reached.
    pub peer: String,
}

/// Whether the module's lans exist, hold the same two nodes, and its default primary is one of them. Places are those of the
/// module's file.
pub fn check_module_against_cluster(module: &Module, cluster: &Cluster) -> Diagnostics {
    let mut found = Diagnostics::new(module.source.clone());
    let mut nodes: Option<(Vec<&str>, &str)> = None;
    let flow = module.rfs.as_ref().and_then(|r| r.flow.as_ref());
    let networks = module.heart.heartbeats.iter().map(|h| (&h.network, h.at)).chain(flow.map(|f| (&f.network, f.at)));
    for (network, at) in networks {
        let Some(lan) = find(network, cluster) else {
            missing(network, at, cluster, &mut found);
            continue;
        };
        let mut members: Vec<&str> = lan.nodes.iter().map(|n| n.name.as_str()).collect();
        members.sort_unstable();
        if members.len() != 2 {
            let message = format!(
                "lan {} has {} node(s) ({}); a mirror runs on exactly 2",
                quoted(&lan.name),
                members.len(),
                members.join(", ")
            );
            found.error(at.0, message, "define a lan with the two nodes of this module in cluster.xml");
            continue;
        }
        match &nodes {
            None => nodes = Some((members, &lan.name)),
            Some((first, first_lan)) if *first != members => {
                let message = format!(
                    "lan {} connects {}, but lan {} connects {}",
                    quoted(&lan.name),
                    members.join(" and "),
                    quoted(first_lan),
                    first.join(" and ")
                );
                found.error(at.0, message, "use lans of the same two nodes");
            }
            Some(_) => {}
        }
    }
    if let (DefaultPrim::Node(name), Some((nodes, _))) = (&module.service.default_prim, &nodes)
        && !nodes.contains(&name.as_str())
    {
        let message = format!("defaultprim names {}, which is not a node of this module", quoted(name));
        let help = format!("write alone, lastprim, {}", nodes.join(" or "));
        found.error(module.service.default_prim_at.0, message, help);
    }
    if let Some(vip) = &module.vip {
        for address in vip.interfaces.iter().flat_map(|i| &i.addresses) {
            let taken = cluster.lans.iter().find_map(|lan| {
                let node = lan.nodes.iter().find(|n| n.address == address.addr || n.local() == address.addr)?;
                Some((lan, node))
            });
            if let Some((lan, node)) = taken {
                let message = format!(
                    "virtual address {} is the address of node {} on lan {}",
                    quoted(&address.addr),
                    quoted(&node.name),
                    quoted(&lan.name)
                );
                found.error(address.at.0, message, "choose a free address");
            }
        }
    }
    found.sort();
    found
}

/// The module's links on `node`. `None` when the module does not fit the cluster or does not run on `node`;
/// [`check_module_against_cluster`] says why.
pub fn links(module: &Module, cluster: &Cluster, node: &str) -> Option<Links> {
    let pair = |network: &Network| {
        let lan = find(network, cluster)?;
        let own = lan.node(node)?;
        let peer = lan.nodes.iter().find(|n| n.name != node)?;
        (lan.nodes.len() == 2).then(|| {
            let addresses = Pair { local: own.local().to_owned(), peer: peer.address.clone() };
            (addresses, peer.name.clone())
        })
    };
    let mut peer: Option<String> = None;
    let mut heartbeats = Vec::new();
    for beat in &module.heart.heartbeats {
        let (addresses, name) = pair(&beat.network)?;
        if peer.get_or_insert_with(|| name.clone()) != &name {
            return None;
        }
        heartbeats.push(Link { ident: beat.ident.clone(), addresses, pulse: beat.pulse, timeout: beat.timeout });
    }
    let replication = match module.replication_network() {
        None => None,
        Some(network) => {
            let (addresses, name) = pair(network)?;
            if peer.as_ref() != Some(&name) {
                return None;
            }
            Some(addresses)
        }
    };
    Some(Links { node: node.to_owned(), peer: peer?, heartbeats, replication })
}

fn find<'c>(network: &Network, cluster: &'c Cluster) -> Option<&'c Lan> {
    match network {
        Network::Lan(name) => cluster.lan(name),
        Network::Addresses(addresses) => cluster
            .lans
            .iter()
            .find(|lan| addresses.iter().all(|a| lan.nodes.iter().any(|n| n.address == *a || n.name == *a))),
    }
}

fn missing(network: &Network, at: At, cluster: &Cluster, found: &mut Diagnostics) {
    let lans: Vec<&str> = cluster.lans.iter().map(|l| l.name.as_str()).collect();
    let message = match network {
        Network::Lan(name) => format!("there is no lan {} in the cluster", quoted(name)),
        Network::Addresses(addresses) => {
            format!("no lan of the cluster has the addresses {}", addresses.join(", "))
        }
    };
    found.error(at.0, message, format!("lans of the cluster: {}", lans.join(", ")));
}
