//! What can go wrong with addresses, in words for the user.

use crate::types::Mac;
use std::io;
use std::net::IpAddr;

/// Exit codes of `sk-vip` follow from the variants.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{what}: {source}")]
    Sys { what: String, source: io::Error },
    /// The kernel answered something that cannot be understood.
    #[error("the kernel's answer to `{what}` makes no sense: {detail}")]
    Protocol { what: String, detail: String },
    #[error(
        "no interface has a network that contains {address}; name the interface (`interface`), \
         or give this host an address in the same network"
    )]
    NoInterface { address: IpAddr },
    #[error("there is no interface `{name}` on this host; `ip link` lists them")]
    UnknownInterface { name: String },
    #[error(
        "{address} is an address of interface {interface} already, set by somebody else; \
         remove it from the network configuration of this host: only one of both can own it"
    )]
    Foreign { address: IpAddr, interface: String },
    #[error(
        "address {address} is already used by MAC {mac} on {interface}; find that host and withdraw \
         the address there, or wait until it is gone"
    )]
    Conflict { address: IpAddr, mac: Mac, interface: String },
}

impl NetError {
    pub fn sys(what: impl Into<String>, source: io::Error) -> Self {
        Self::Sys { what: what.into(), source }
    }

    /// The last error of this thread.
    pub fn last(what: impl Into<String>) -> Self {
        Self::sys(what, io::Error::last_os_error())
    }

    /// Error number, when a system call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Sys { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
