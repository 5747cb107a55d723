//! How does a module own its virtual addresses? `sk-vip`: add, remove, show, probe, hold, watch.

mod claim;
mod cli;
mod hold;
mod oneshot;
mod spec;
mod watch;

pub use cli::{command, main};
