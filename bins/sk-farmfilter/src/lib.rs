//! How is the traffic of one address shared by all nodes? `sk-farmfilter`: run, show, who, plan, clean.

mod addresses;
mod classify;
mod cli;
mod control;
mod early;
mod kernel;
mod mark;
mod member;
mod oneshot;
mod orders;
mod plan;
mod rates;
mod responder;
mod run;
mod spec;
mod status;

pub use cli::{command, main};
