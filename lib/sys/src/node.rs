//! Which node of the cluster is this host?

use crate::roots::Roots;
use std::net::{IpAddr, ToSocketAddrs};

/// Why it is none. Each message says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error("this node is named {0}, which is not in cluster.xml; correct SK_NODE or the file node beside cluster.xml")]
    Unknown(String),
    #[error(
        "none of the addresses of {0} belongs to this host; compare it with: ip address; or write this node's name into the file node beside cluster.xml"
    )]
    NoAddress(String),
    #[error("addresses of this host: {0}")]
    System(nix::Error),
}

/// The node whose address this host has. `SK_NODE`, or the file `node` beside `cluster.xml`, name it where addresses do not.
/// `nodes`: names and the addresses that the nodes themselves have.
pub fn own<'a>(roots: &Roots, nodes: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Result<String, OwnError> {
    let named = std::env::var("SK_NODE").ok().or_else(|| {
        let bytes = crate::files::read_bounded(&roots.etc.join("node"), 256).ok()?;
        String::from_utf8(bytes).ok()
    });
    if let Some(name) = named.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()) {
        return if nodes.clone().any(|(node, _)| node == name) { Ok(name) } else { Err(OwnError::Unknown(name)) };
    }
    let own: Vec<String> = nix::ifaddrs::getifaddrs()
        .map_err(OwnError::System)?
        .filter_map(|i| {
            let address = i.address?;
            let v4 = address.as_sockaddr_in().map(|a| a.ip().to_string());
            v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().to_string()))
        })
        .collect();
    let found = nodes.clone().find(|(_, address)| own.contains(&numeric(address)));
    found.map(|(node, _)| node.to_owned()).ok_or_else(|| OwnError::NoAddress(roots.cluster_xml().display().to_string()))
}

/// The address of a host name. A name that does not resolve stays as it is: whoever uses it says what is wrong with it.
pub fn numeric(address: &str) -> String {
    if address.parse::<IpAddr>().is_ok() {
        return address.to_owned();
    }
    (address, 0)
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .map_or_else(|| address.to_owned(), |a| a.ip().to_string())
}
