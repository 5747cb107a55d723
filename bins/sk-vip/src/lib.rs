//! How does a module own its virtual addresses? `sk-vip`: add, remove, show, probe, hold, watch.

mod claim;
mod cli;
mod hold;
mod interfaces;
mod oneshot;
mod spec;

pub use cli::{command, main};
