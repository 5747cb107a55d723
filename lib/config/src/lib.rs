//! What do `userconfig.xml` and `cluster.xml` say; what is wrong in them, where, how to mend it?
//!
//! Reading never stops at the first mistake: everything wrong is reported at once, and a file with an error gives no module.

mod agree;
mod cluster;
mod diagnostic;
mod duration;
mod expand;
mod fields;
mod load;
mod macros;
mod model;
mod module;
mod quotes;
mod rfs;
mod service;
mod tree;
mod vip;

pub use agree::{Link, Links, Pair, check_module_against_cluster, links};
pub use cluster::{Cluster, Lan, LanNode, parse_cluster};
pub use diagnostic::{Diagnostic, Diagnostics, Severity, Span};
pub use load::{check_file, load_cluster, load_module};
pub use macros::Environment;
pub use model::{
    Async, Boot, DefaultPrim, Errd, Flow, Heart, Heartbeat, Interface, Module, Network, NotReplicated, Place, Proc,
    ProcAction, Replicated, Rfs, Service, Sync, User, Var, Vip, VirtualAddress, heart_port, rfs_port,
};
pub use module::parse_module;
pub use tree::MAX_FILE;
