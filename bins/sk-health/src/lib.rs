//! `sk-health`: says over HTTP, to load balancers, other modules and monitoring systems, how the modules of this node are.

mod cli;
mod connection;
pub mod metrics;
mod readiness;
mod reply;
mod serve;

pub use cli::{command, main};
