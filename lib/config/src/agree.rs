//! Does a module fit its cluster, and which addresses do its links have on a node?

use crate::cluster::{Cluster, Lan, LanNode};
use crate::diagnostic::{At, Diagnostics, quoted};
use crate::farm::Farm;
use crate::model::{DefaultPrim, Heart, Mode, Module, Network};
use std::time::Duration;

/// Most nodes of a farm.
const FARM_NODES_MAX: usize = 32;

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

/// The networks of a farm as seen by one of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarmLinks {
    pub node: String,
    /// All nodes of the farm, this one too, in the order of the cluster's file.
    pub nodes: Vec<String>,
    /// The lans that this node is on.
    pub lans: Vec<FarmNetwork>,
}

/// One lan of a farm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarmNetwork {
    pub ident: String,
    /// Node and address: of this node the one configured here, of the others where they are reached.
    pub nodes: Vec<(String, String)>,
}

/// Whether the module's lans exist and hold the nodes that a module of its kind needs, and its nodes are those of the cluster.
/// Places are those of the module's file.
pub fn check_module_against_cluster(module: &Module, cluster: &Cluster) -> Diagnostics {
    let mut found = Diagnostics::new(module.source.clone());
    match &module.mode {
        Mode::Mirror(heart) => check_mirror(module, heart, cluster, &mut found),
        Mode::Farm(farm) => check_farm(module, farm, cluster, &mut found),
        Mode::Light => {}
    }
    check_addresses(module, cluster, &mut found);
    found.sort();
    found
}

fn check_mirror(module: &Module, heart: &Heart, cluster: &Cluster, found: &mut Diagnostics) {
    let mut nodes: Option<(Vec<&str>, &str)> = None;
    let flow = module.rfs.as_ref().and_then(|r| r.flow.as_ref());
    let networks = heart.heartbeats.iter().map(|h| (&h.network, h.at)).chain(flow.map(|f| (&f.network, f.at)));
    for (network, at) in networks {
        let Some(lan) = find(network, cluster) else {
            missing(network, at, cluster, found);
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
}

fn check_farm(module: &Module, farm: &Farm, cluster: &Cluster, found: &mut Diagnostics) {
    let mut complete = true;
    for lan in &farm.lans {
        let Some(known) = find(&lan.network, cluster) else {
            missing(&lan.network, lan.at, cluster, found);
            complete = false;
            continue;
        };
        let (name, nodes) = (quoted(&known.name), known.nodes.len());
        if nodes < 2 {
            let message = format!("lan {name} has {nodes} node(s); a farm runs on two or more");
            found.error(lan.at.0, message, "use a lan with the nodes of this module");
        } else if nodes > FARM_NODES_MAX {
            let message = format!("lan {name} has {nodes} nodes; a farm runs on {FARM_NODES_MAX} at most");
            found.error(lan.at.0, message, "define a lan with the nodes of this module in cluster.xml");
        }
    }
    let nodes = farm_nodes(farm, cluster);
    if !complete {
        return;
    }
    for group in module.vip.iter().flat_map(|v| &v.groups) {
        let Some(hosts) = &group.hosts else { continue };
        for host in hosts.iter().filter(|h| !nodes.contains(&h.name.as_str())) {
            let message = format!("host {} is not a node of this farm", quoted(&host.name));
            found.error(host.at.0, message, format!("nodes of its lans in cluster.xml: {}", nodes.join(", ")));
        }
        let left_out: Vec<&str> = nodes.iter().filter(|n| !hosts.iter().any(|h| h.name == **n)).copied().collect();
        if !left_out.is_empty() {
            let message = format!("group {} does not name {}", quoted(&group.name), left_out.join(", "));
            let help =
                "what is not named gets no traffic of the group; name it with power=\"0\" to say that this is meant";
            found.warning(group.at.0, message, help);
        }
    }
}

fn check_addresses(module: &Module, cluster: &Cluster, found: &mut Diagnostics) {
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
    for beat in &module.heart()?.heartbeats {
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

/// The farm's networks on `node`. `None` when the module is no farm, does not fit the cluster or does not run on `node`.
pub fn farm_links(module: &Module, cluster: &Cluster, node: &str) -> Option<FarmLinks> {
    let farm = module.farm()?;
    let mut lans: Vec<FarmNetwork> = Vec::new();
    for lan in &farm.lans {
        let lan = find(&lan.network, cluster)?;
        if lan.node(node).is_none() {
            continue;
        }
        let address = |n: &LanNode| if n.name == node { n.local().to_owned() } else { n.address.clone() };
        let nodes = lan.nodes.iter().map(|n| (n.name.clone(), address(n))).collect();
        lans.push(FarmNetwork { ident: lan.name.clone(), nodes });
    }
    let nodes = farm_nodes(farm, cluster).into_iter().map(str::to_owned).collect();
    (!lans.is_empty()).then(|| FarmLinks { node: node.to_owned(), nodes, lans })
}

/// The nodes of all lans of a farm, in the order of the cluster's file.
fn farm_nodes<'c>(farm: &Farm, cluster: &'c Cluster) -> Vec<&'c str> {
    let lans: Vec<&Lan> = farm.lans.iter().filter_map(|l| find(&l.network, cluster)).collect();
    cluster.nodes().into_iter().filter(|n| lans.iter().any(|l| l.node(n).is_some())).collect()
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
