//! `sk-notify`: tells people what happens to the modules of this node, through a script of theirs.

mod batch;
mod cli;
mod deliver;
mod event;
mod follow;
mod place;
mod run;

pub use cli::{command, main};
