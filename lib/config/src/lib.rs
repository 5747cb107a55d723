//! What do `userconfig.xml` and `cluster.xml` say; what is wrong in them, where, how to mend it?
//!
//! Reading never stops at the first mistake: everything wrong is reported at once, and a file with an error gives no module.

mod agree;
mod balancing;
mod changes;
mod check;
mod cluster;
mod diagnostic;
mod duration;
mod expand;
mod failover;
mod farm;
mod fields;
mod load;
mod macros;
mod model;
mod module;
mod ports;
mod quotes;
mod rfs;
mod schedule;
mod service;
mod tree;
mod vhost;
mod vip;

pub use agree::{FarmLinks, FarmNetwork, Link, Links, Pair, check_module_against_cluster, farm_links, links};
pub use balancing::{Filter, Group, Host, Proto, Rule};
pub use changes::{Change, changes};
pub use check::{
    ArbiterKind, CheckAction, Checks, CustomCheck, Etcd, IntfCheck, IpCheck, ModuleCheck, PingCheck, Splitbrain,
    TcpCheck, When,
};
pub use cluster::{Cluster, Lan, LanNode, host, parse_cluster};
pub use diagnostic::{Diagnostic, Diagnostics, Severity, Span};
pub use expand::escape as escape_attribute;
pub use failover::Failover;
pub use farm::{Farm, FarmLan, farm_port};
pub use fields::placeholder as is_placeholder;
pub use load::{check_file, load_cluster, load_module};
pub use macros::Environment;
pub use model::{
    Async, Boot, CpuLatency, DefaultPrim, Errd, Flow, HEART_PORT, Heart, Heartbeat, Interface, Mode, Module, Network,
    NotReplicated, Place, Proc, ProcAction, Replicated, Rfs, Service, Sync, User, Var, Vip, VirtualAddress, VirtualMac,
    rfs_port,
};
pub use module::parse_module;
pub use ports::{Port, Protocol};
pub use schedule::Schedule;
pub use tree::MAX_FILE;
pub use vhost::{HostWhen, VirtualHostName};
