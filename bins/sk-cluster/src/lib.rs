//! `sk-cluster`: the nodes of a cluster together: their configuration, their keys, who may do what, commands on all of them.

mod archive;
mod bundle;
mod cli;
mod daemon;
mod hosts;
mod keys;
mod modules;
mod nodes;
mod on;
mod report;
mod roles;
mod serve;

pub use cli::{command, main};
use sys::failure::{Failure, put};

/// Outcomes of the command, documented in its help.
pub(crate) mod exit {
    pub const REFUSED: u8 = 1;
    pub const UNREACHED: u8 = 2;
    pub const FORBIDDEN: u8 = 3;
    pub const USAGE: u8 = 100;
    pub const SYSTEM: u8 = 111;
}
