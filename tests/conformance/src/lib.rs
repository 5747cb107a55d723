//! What a scenario of the conformance list needs: hosts of one cluster, modules on them, and what can be seen of both.

pub mod client;
mod cluster;
pub mod delivered;
mod fence;
mod module;
mod spec;
mod store;
pub mod web;

pub use cluster::Cluster;
pub use e2e::lab::Lab;
pub use e2e::mirror::{LATER, SOON, State};
pub use e2e::wait;
pub use fence::Witnesses;
pub use module::{Module, in_order};
pub use spec::{CALLBACK, Spec};
pub use store::{Secured, Slow, Store};
