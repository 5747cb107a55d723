//! Do the nodes agree: keys, configurations, versions, clocks, numbers of users; and do they reach each other?

use super::Finding;
use super::modules::Known;
use config::Cluster;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use sys::roots::Roots;
use wire::KeyRing;
use wire::channel::ChannelError;
use wire::node::{Answer, Ask, Bundle, Facts, Peer, TalkError, call};

/// Logs of two nodes are hard to compare beyond the first, heartbeats of a node that starts need the second.
const CLOCKS_WARN_MS: u64 = 1_000;
const CLOCKS_ERROR_MS: u64 = 60_000;
const CONNECT: Duration = Duration::from_secs(3);

pub(super) fn look(roots: &Roots, cluster: &Cluster, modules: &[Known], found: &mut Vec<Finding>) {
    let Ok(own) = sys::node::own(roots, cluster.own_addresses()) else { return };
    let Ok(ring) = KeyRing::load(&roots.cluster_key()) else { return };
    let users = owners(modules);
    let ask = Ask::Facts { users: users.keys().cloned().collect() };
    let psk = ring.used().node_psk();
    let nodes = cluster.command_lan().map(|l| l.nodes.as_slice()).unwrap_or_default();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .filter(|n| n.name != own)
            .map(|node| {
                let peer = Peer { host: node.address.clone(), port: cluster.port };
                let (ask, psk) = (&ask, &psk);
                scope.spawn(move || {
                    let before = sys::clock::wall_ms();
                    let answer = call(&peer, psk, ask, &[], |_, _| true);
                    (node.name.clone(), peer, answer, before, sys::clock::wall_ms())
                })
            })
            .collect();
        threads.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    let bundle = bundle(roots);
    for (node, peer, answer, before, after) in answers {
        match answer {
            Ok(Answer::Facts(facts)) => {
                found.push(Finding::ok("reach", format!("{node} answers at TCP {}:{}", peer.host, peer.port)));
                found.push(clocks(&node, before, after, facts.wall_ms));
                agree(&node, &facts, bundle.as_ref(), &ring, modules, &users, found);
                ports(roots, &node, modules, found);
            }
            Ok(other) => found.push(Finding::warn(
                "reach",
                format!("{node} answered something else: {other:?}"),
                "install the same version on all nodes",
            )),
            Err(TalkError::Channel(ChannelError::WrongKey)) => found.push(Finding::error(
                "key",
                format!("{node} has another key: neither heartbeats nor replication get through"),
                format!(
                    "on the node whose key is right: sk-cluster export | ssh {node} sk-cluster import --replace-key"
                ),
            )),
            Err(e) => found.push(Finding::warn(
                "reach",
                format!("{node} is not reached at TCP {}:{}: {e}", peer.host, peer.port),
                format!("on {node}: sk-cluster up; and open TCP {} between the nodes", peer.port),
            )),
        }
    }
}

/// Names of the users who own something that is replicated, with their numbers here.
fn owners(modules: &[Known]) -> BTreeMap<String, (u32, u32)> {
    let numbers = modules.iter().flat_map(Known::owners);
    let user = |uid: u32| nix::unistd::User::from_uid(uid.into()).ok().flatten();
    numbers.filter_map(user).map(|u| (u.name, (u.uid.as_raw(), u.gid.as_raw()))).collect()
}

fn bundle(roots: &Roots) -> Option<Bundle> {
    let cluster_xml = std::fs::read_to_string(roots.cluster_xml()).ok()?;
    let operators = std::fs::read_to_string(roots.operators()).unwrap_or_default();
    Some(Bundle { cluster_xml, operators, key: None })
}

fn clocks(node: &str, before: u64, after: u64, theirs: u64) -> Finding {
    // What the answer took on its way is not known: only what lies outside is a difference.
    let apart = if theirs < before { before - theirs } else { theirs.saturating_sub(after) };
    let words = format!("the clock of {node} differs by {}.{:03} s", apart / 1000, apart % 1000);
    if apart > CLOCKS_ERROR_MS {
        Finding::error(
            "clocks",
            format!("{words}: a node that starts is recognised late"),
            "run chrony or systemd-timesyncd on both",
        )
    } else if apart > CLOCKS_WARN_MS {
        Finding::warn("clocks", words, "run chrony or systemd-timesyncd on both: their logs are hard to compare")
    } else {
        Finding::ok("clocks", format!("the clock of {node} agrees"))
    }
}

fn agree(
    node: &str,
    facts: &Facts,
    bundle: Option<&Bundle>,
    ring: &KeyRing,
    modules: &[Known],
    users: &BTreeMap<String, (u32, u32)>,
    found: &mut Vec<Finding>,
) {
    if facts.version != env!("CARGO_PKG_VERSION") {
        found.push(Finding::warn(
            "version",
            format!("{node} has version {}, this node {}", facts.version, env!("CARGO_PKG_VERSION")),
            "install the same version on all nodes",
        ));
    }
    if bundle.map(Bundle::signature) != facts.cluster.as_ref().map(|s| s.signature.clone()) {
        found.push(Finding::error(
            "cluster",
            format!("{node} has another cluster.xml, or other operators"),
            "on the node whose files are right: sk-cluster push",
        ));
    }
    if facts.key != ring.used().fingerprint() {
        found.push(Finding::warn(
            "key",
            format!("{node} uses another key: a renewal is not finished"),
            "sk-cluster key renew ends it",
        ));
    }
    for module in modules {
        let Some(there) = facts.modules.iter().find(|m| m.module == module.name && m.config.is_some()) else {
            if !matches!(module.config.mode, config::Mode::Light) {
                found.push(Finding::warn(
                    "modules",
                    format!("{node} does not have the module {}", module.name),
                    format!("sk-module push -m {} -H {node}", module.name),
                ));
            }
            continue;
        };
        if there.id != module.id {
            found.push(Finding::error(
                "modules",
                format!(
                    "module {} has the id {:?} on {node} and {:?} here: their ports differ",
                    module.name,
                    there.id.unwrap_or(0),
                    module.id.unwrap_or(0)
                ),
                format!("sk-module config -m {} --id N, the same on all nodes", module.name),
            ));
        } else if there.config.as_ref().map(|c| c.signature.as_str()) != Some(module.signature.as_str()) {
            found.push(Finding::warn(
                "modules",
                format!("module {} is configured otherwise on {node}", module.name),
                format!("sk-module push -m {} -H {node}", module.name),
            ));
        }
    }
    for (name, (uid, gid)) in users {
        match facts.users.get(name) {
            None => found.push(Finding::error("users", format!("{node} has no user {name}, who owns replicated files"), format!("on {node}: create it with uid {uid} and gid {gid}"))),
            Some(numbers) if numbers != &(*uid, *gid) => found.push(Finding::error(
                "users",
                format!("{name} is uid {uid} gid {gid} here and uid {} gid {} on {node}: replicated files belong to somebody else there", numbers.0, numbers.1),
                "give the user the same numbers on all nodes (usermod -u, groupmod -g), with the modules stopped",
            )),
            Some(_) => {}
        }
    }
}

/// The replication ports of modules that serve there. UDP cannot be tried: heartbeats say it themselves.
fn ports(roots: &Roots, node: &str, modules: &[Known], found: &mut Vec<Finding>) {
    for module in modules.iter().filter(|m| m.config.rfs.is_some()) {
        let Ok((state, _, reply)) = crate::client::state_pair(roots, &module.name) else { continue };
        // Only a primary listens.
        if state != "SECOND" || reply["remote"]["state"] != "PRIM" {
            continue;
        }
        let spec = std::fs::read_to_string(roots.module_run(&module.name).join("replicate.json")).unwrap_or_default();
        let address = serde_json::from_str::<serde_json::Value>(&spec)
            .ok()
            .and_then(|s| s["peer_address"].as_str()?.parse::<SocketAddr>().ok());
        let Some(address) = address else { continue };
        found.push(match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => Finding::ok("ports", format!("{node} takes replication of {} at TCP {address}", module.name)),
            Err(e) => Finding::error(
                "ports",
                format!("{node} is not reached at TCP {address} for the replication of {}: {e}", module.name),
                format!("open TCP {} between the nodes", address.port()),
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn only_what_lies_outside_the_question_is_a_difference_of_clocks() {
        for (theirs, level) in [
            (1_000, Level::Ok),
            (1_500, Level::Ok),
            (2_900, Level::Ok),
            (500_000, Level::Error),
            (3_500, Level::Warn),
            (0, Level::Ok),
        ] {
            let found = clocks("b", 1_000, 2_000, theirs);
            assert_eq!(found.level, level, "{theirs}");
            let remedy = found.remedy.unwrap_or_default();
            assert_eq!(remedy.contains("chrony"), level > Level::Ok, "{theirs}: {remedy}");
        }
        assert_eq!(clocks("b", 100_000, 100_010, 20_000).level, Level::Error);
    }

    #[test]
    fn nodes_that_do_not_agree_are_told_apart() {
        let ring = KeyRing::of(wire::ClusterKey::from_bytes([1; 32]));
        let bundle = Bundle { cluster_xml: "x".into(), ..Bundle::default() };
        let good = Facts {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster: Some(wire::node::Stamp { signature: bundle.signature(), date: 0 }),
            key: ring.used().fingerprint(),
            users: [("app".to_owned(), (5, 5))].into(),
            ..Facts::default()
        };
        let users = BTreeMap::from([("app".to_owned(), (5, 5))]);
        let found = |facts: &Facts| {
            let mut found = Vec::new();
            agree("b", facts, Some(&bundle), &ring, &[], &users, &mut found);
            found
        };
        assert!(found(&good).is_empty());
        for (facts, check, remedy) in [
            (Facts { version: "0".into(), ..good.clone() }, "version", "install the same version"),
            (Facts { cluster: None, ..good.clone() }, "cluster", "sk-cluster push"),
            (Facts { key: "f".into(), ..good.clone() }, "key", "sk-cluster key renew"),
            (Facts { users: [("app".to_owned(), (5, 6))].into(), ..good.clone() }, "users", "usermod -u"),
            (Facts { users: BTreeMap::new(), ..good }, "users", "create it with uid 5 and gid 5"),
        ] {
            let [finding] = &found(&facts)[..] else { panic!("{check}: {:?}", found(&facts)) };
            assert_eq!(finding.check, check);
            assert!(finding.remedy.as_deref().is_some_and(|r| r.contains(remedy)), "{finding:?}");
        }
    }
}
