//! The compatibility command of SafeKit, as far as scripts of modules and operators of a mirror use it.

mod absent;
mod bound;
mod clean;
mod cli;
mod crontab;
mod dump;
mod elsewhere;
mod errdpoll;
mod farm;
mod firewall;
mod kill;
mod modules;
mod normal;
mod paths;
mod ports;
mod runner;
mod special;
mod tree;
mod units;
mod verbs;
mod waits;

pub use cli::{Failure, command, main, understood};
