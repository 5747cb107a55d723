//! `sk-module`: the runner of a module and the operator's verbs.

mod boot;
mod cli;
mod client;
mod configure;
mod guard;
mod history;
mod instance;
mod log;
mod plan;
mod replay;
mod runner;
mod show;
mod tail;

use cli::{Cli, Verb};
use std::process::ExitCode;

pub use cli::command;

/// Outcomes of the command, documented in its help.
pub(crate) mod exit {
    pub const REFUSED: u8 = 1;
    pub const BAD_CONFIGURATION: u8 = 2;
    pub const NO_RUNNER: u8 = 3;
    pub const TIMEOUT: u8 = 4;
    pub const ALREADY_RUNNING: u8 = 5;
    pub const USAGE: u8 = 100;
    pub const SYSTEM: u8 = 111;
}

/// An error with its exit code and its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub message: String,
    pub hint: Option<String>,
    pub code: u8,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn system(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::new(exit::SYSTEM, format!("{what}: {error}"))
    }
}

pub fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            sys::warn!("sk-module: {}", failure.message);
            if let Some(hint) = &failure.hint {
                sys::warn!("  {hint}");
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let roots = sys::roots::Roots::from_environment();
    match cli.verb {
        Verb::Run { module, ready_fd, boot } => runner::run(&roots, &module, ready_fd, boot),
        Verb::Guard { module, boot } => guard::guard(&module, boot),
        Verb::Boot => boot::boot(&roots),
        Verb::Check { file, cluster } => configure::check(&roots, &file, cluster.as_deref()),
        Verb::Config { module, id } => configure::config(&roots, &module.name()?, id),
        Verb::List { json } => show::list(&roots, json),
        Verb::ClusterKey { output } => configure::cluster_key(&roots, output.as_deref()),
        Verb::Start { module, wait } => client::start(&roots, &module.name()?, "start", false, wait),
        Verb::Prim { module, wait } => client::start(&roots, &module.name()?, "prim", false, wait),
        Verb::Primforce { module, wait } => client::start(&roots, &module.name()?, "primforce", false, wait),
        Verb::Second { module, wait, fullsync } => client::start(&roots, &module.name()?, "second", fullsync, wait),
        Verb::Stop { module, automatic, wait } => {
            client::act(&roots, &module.name()?, "stop", automatic.identity, wait)
        }
        Verb::Forcestop { module, wait } => client::act(&roots, &module.name()?, "forcestop", None, wait),
        Verb::Restart { module, automatic, wait } => {
            client::act(&roots, &module.name()?, "restart", automatic.identity, wait)
        }
        Verb::Stopstart { module, automatic, wait } => {
            client::act(&roots, &module.name()?, "stopstart", automatic.identity, wait)
        }
        Verb::Swap { module, automatic, wait } => {
            client::act(&roots, &module.name()?, "swap", automatic.identity, wait)
        }
        Verb::Shutdown => client::shutdown(&roots),
        Verb::State { module, verbose, quiet, watch, json, .. } => {
            let view = show::StateView { verbose, quiet, watch, json };
            if !module.is_named() && !quiet && !watch {
                return show::states(&roots, &view);
            }
            show::state(&roots, &module.name()?, &view)
        }
        Verb::Waitstate { module, state, timeout } => {
            client::wait_state(&roots, &module.name()?, &state, timeout.map(Into::into))
        }
        Verb::Log { module, lines, all, follow } => show::log(&roots, &module.name()?, lines, all, follow),
        Verb::Set { module, resource, value, automatic } => {
            client::set(&roots, &module.name()?, &resource, &value, automatic.identity)
        }
        Verb::Get { module, resource } => client::get(&roots, &module.name()?, &resource),
        Verb::Failover { module, value } => client::failover(&roots, &module.name()?, value),
        Verb::Plan { module, from, to, action } => plan::plan(&roots, &module.name()?, &from, &to, &action),
        Verb::Replay { file, quiet } => replay::replay(&file, quiet),
    }
}
