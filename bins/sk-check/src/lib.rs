//! `sk-check`: says whether what an application needs, and the application itself, answer.

mod cli;
mod custom;
mod oneshot;
mod probe;
mod run;
mod spec;
mod trial;
mod verdict;

pub use cli::{command, main};
