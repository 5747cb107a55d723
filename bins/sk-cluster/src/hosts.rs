//! Which hosts are meant, and with which key are they asked?

use crate::{Failure, exit};
use config::Cluster;
use std::path::{Path, PathBuf};
use sys::roots::Roots;
use wire::KeyRing;
use wire::node::Peer;

/// Most hosts of one command.
const HOSTS_LIMIT: usize = 256;
/// Where a cluster.xml says nothing else.
pub const PORT: u16 = 4800;

/// Where hosts and keys are looked up.
pub struct Hosts<'a> {
    pub roots: &'a Roots,
    /// The file of an operator's key.
    pub key: Option<&'a Path>,
}

/// A host that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node's name, else the address.
    pub name: String,
    pub peer: Peer,
}

impl Target {
    /// As an address of the node's channel.
    pub fn url(&self) -> String {
        let (host, port) = (&self.peer.host, self.peer.port);
        if host.contains(':') { format!("sk://[{host}]:{port}") } else { format!("sk://{host}:{port}") }
    }
}

impl Hosts<'_> {
    /// The cluster of this node, if it is configured and good.
    pub fn cluster(&self) -> Result<Option<Cluster>, Failure> {
        let path = self.roots.cluster_xml();
        if !path.exists() {
            return Ok(None);
        }
        let (cluster, found) = config::load_cluster(&path);
        cluster.map(Some).ok_or_else(|| {
            Failure::new(exit::REFUSED, format!("{} has errors", path.display()))
                .hint(found.plain().lines().next().unwrap_or("sk-cluster confcheck shows them").to_owned())
        })
    }

    /// The cluster of this node, which must be configured.
    pub fn need_cluster(&self) -> Result<Cluster, Failure> {
        self.cluster()?.ok_or_else(|| {
            Failure::new(exit::REFUSED, format!("{} does not exist", self.roots.cluster_xml().display()))
                .hint("make it with: sk-cluster create NAME=ADDRESS NAME=ADDRESS")
        })
    }

    /// All nodes of the cluster.
    pub fn all(&self) -> Result<Vec<Target>, Failure> {
        parse("*", Some(&self.need_cluster()?))
    }

    /// All nodes but this one.
    pub fn others(&self) -> Result<Vec<Target>, Failure> {
        let own = self.own()?;
        Ok(self.all()?.into_iter().filter(|t| t.name != own).collect())
    }

    /// The name of this node.
    pub fn own(&self) -> Result<String, Failure> {
        sys::node::own(self.roots, self.need_cluster()?.own_addresses())
            .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))
    }

    /// Those that a list names; all others than this node without one.
    pub fn named(&self, list: Option<&str>) -> Result<Vec<Target>, Failure> {
        match list {
            Some(list) => parse(list, self.cluster()?.as_ref()),
            None => self.others(),
        }
    }

    /// What proves who asks: an operator's key, else that of the cluster.
    pub fn psk(&self) -> Result<[u8; 32], Failure> {
        let refused = |e: wire::key::KeyError| Failure::new(exit::REFUSED, e.to_string());
        let named = self.key.map(Path::to_owned).or_else(|| std::env::var_os("SK_KEY").map(PathBuf::from));
        let Some(path) = named.filter(|p| !p.as_os_str().is_empty()) else {
            return Ok(KeyRing::load(&self.roots.cluster_key()).map_err(refused)?.used().node_psk());
        };
        if !path.exists() {
            return Err(Failure::new(exit::REFUSED, format!("{} does not exist", path.display()))
                .hint("the file that `sk-cluster role add` wrote"));
        }
        match wire::role::load_operators(&path).map_err(refused)?.as_slice() {
            [operator] => Ok(operator.key.node_psk()),
            _ => Err(Failure::new(exit::REFUSED, format!("{} does not hold one key", path.display()))
                .hint("the file that `sk-cluster role add` wrote has one line: NAME ROLE KEY")),
        }
    }
}

/// `*`, or names and addresses separated by commas. What SafeKit writes for its web service is understood: `[http:9500],a,b` and
/// `http://a:9010`; protocol and port are not used.
pub fn parse(text: &str, cluster: Option<&Cluster>) -> Result<Vec<Target>, Failure> {
    let port = cluster.map_or(PORT, |c| c.port);
    let mut targets: Vec<Target> = Vec::new();
    for (number, word) in words(text).into_iter().enumerate() {
        if word == "*" {
            let lan = cluster.and_then(Cluster::command_lan).ok_or_else(|| {
                Failure::new(exit::REFUSED, "\"*\" means the nodes of cluster.xml, and there is none here")
                    .hint("name the hosts, or make the cluster with: sk-cluster create")
            })?;
            targets.extend(
                lan.nodes.iter().map(|n| Target { name: n.name.clone(), peer: Peer { host: n.address.clone(), port } }),
            );
            continue;
        }
        let web = |inner: &str| {
            inner == "http" || inner == "https" || inner.starts_with("http:") || inner.starts_with("https:")
        };
        if number == 0 && word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).is_some_and(web) {
            continue;
        }
        targets.push(target(&word, cluster, port)?);
    }
    let mut unique: Vec<Target> = Vec::new();
    for target in targets {
        if !unique.iter().any(|t| t.peer == target.peer) {
            unique.push(target);
        }
    }
    match unique.len() {
        0 => Err(Failure::new(exit::USAGE, "no host is named").hint("\"*\", or node1,node2")),
        n if n > HOSTS_LIMIT => Err(Failure::new(exit::USAGE, format!("{n} hosts are more than {HOSTS_LIMIT}"))),
        _ => Ok(unique),
    }
}

/// Separated by commas or blanks.
fn words(text: &str) -> Vec<String> {
    text.split([',', ' ', '\t', '\n']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn target(word: &str, cluster: Option<&Cluster>, port: u16) -> Result<Target, Failure> {
    let bad = || {
        Failure::new(exit::USAGE, format!("{word:?} names no host"))
            .hint("\"*\", or node1,node2, or addresses: 10.0.0.1,[fd00::2]:4800")
    };
    let lan = cluster.and_then(Cluster::command_lan);
    let rest = word.strip_prefix("http://").or_else(|| word.strip_prefix("https://"));
    let (rest, web) = rest.map_or((word, false), |r| (r.split('/').next().unwrap_or(r), true));
    let rest = rest.strip_prefix("sk://").unwrap_or(rest);
    let (host, given) = if let Some(inner) = rest.strip_prefix('[') {
        let (host, tail) = inner.split_once(']').ok_or_else(bad)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
        (host.to_owned(), tail.strip_prefix(':'))
    } else if rest.parse::<std::net::Ipv6Addr>().is_ok() {
        (rest.to_owned(), None)
    } else {
        let (host, given) = rest.split_once(':').map_or((rest, None), |(h, p)| (h, Some(p)));
        let plain = !host.is_empty()
            && host.len() <= 253
            && !host.starts_with(['-', '.'])
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain {
            return Err(bad());
        }
        (host.to_owned(), given)
    };
    let given = given.map(|p| p.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)).transpose()?;
    let port = given.filter(|_| !web).unwrap_or(port);
    Ok(match lan.and_then(|l| l.nodes.iter().find(|n| n.name == host || n.address == host)) {
        Some(node) => Target { name: node.name.clone(), peer: Peer { host: node.address.clone(), port } },
        None => Target { name: host.clone(), peer: Peer { host, port } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster() -> Cluster {
        let text = r#"<cluster><lans port="4810"><lan name="default"><node name="node1" addr="10.0.0.1"/><node name="node2" addr="10.0.0.2"/></lan></lans></cluster>"#;
        config::parse_cluster("cluster.xml", text).0.unwrap()
    }

    fn urls(text: &str) -> Vec<String> {
        parse(text, Some(&cluster())).unwrap().iter().map(|t| format!("{} {}", t.name, t.url())).collect()
    }

    #[test]
    fn every_documented_form_is_understood() {
        let both = ["node1 sk://10.0.0.1:4810", "node2 sk://10.0.0.2:4810"];
        for text in [
            "*",
            "node1,node2",
            "node1, node2",
            "[http:9500],node1,node2",
            "[https],10.0.0.1,node2",
            "http://10.0.0.1:9010,http://10.0.0.2:9010/x",
            "node1,*",
        ] {
            assert_eq!(urls(text), both, "{text}");
        }
        assert_eq!(urls("db.example.com"), ["db.example.com sk://db.example.com:4810"]);
        assert_eq!(
            urls("10.9.0.1:5000,[fd00::2]:5001,fd00::3"),
            ["10.9.0.1 sk://10.9.0.1:5000", "fd00::2 sk://[fd00::2]:5001", "fd00::3 sk://[fd00::3]:4810"]
        );
        for bad in ["", ",", "[http]", "-x", "a b/c", "[x]:1", "10.0.0.1:0", "10.0.0.1:99999", "a:b:c", "$(x)"] {
            assert!(parse(bad, Some(&cluster())).is_err(), "{bad}");
        }
        assert!(parse("*", None).is_err());
        assert_eq!(parse("10.0.0.1", None).unwrap()[0].peer.port, PORT);
    }

    proptest! {
        #[test]
        fn garbage_names_no_host_or_a_plain_one(text in "\\PC{0,60}") {
            if let Ok(targets) = parse(&text, Some(&cluster())) {
                prop_assert!(targets.iter().all(|t| !t.peer.host.starts_with('-') && t.peer.port > 0));
            }
        }
    }
}
