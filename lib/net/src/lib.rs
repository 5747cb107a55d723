//! How does a node own an address: addresses and links through netlink, ARP and neighbour discovery through packet sockets.
//!
//! Nothing here decides what to own; the netlink crates are used from [`rtnl`], [`diag`] and [`nft`] alone.

pub mod announce;
pub mod choose;
pub mod diag;
pub mod ebpf;
pub mod echo;
pub mod error;
pub mod frame;
pub mod interfaces;
pub mod jhash;
pub mod neighbour;
pub mod nft;
pub mod packet;
pub mod prefer;
pub mod probe;
pub mod rtnl;
pub mod tcx;
pub mod types;

pub use error::NetError;
pub use types::{Address, Link, Mac, Subnet};
