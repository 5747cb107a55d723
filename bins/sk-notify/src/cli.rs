//! What can be asked of `sk-notify`, and which exit code answers?

use crate::run;
use clap::{Args, CommandFactory, Parser, Subcommand};
use complete::outcome;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use sys::roots::Roots;

const AFTER: &str = "\
The script gets the events of some seconds as JSON lines on its stdin, and a summary in its environment: SK_SUBJECT (one line),
SK_NODE, SK_MODULES, SK_EVENTS (number of lines), SK_LOST (events there was no room for), SK_WORST (most serious level),
SK_ATTEMPT. Exit code 0: told. Anything else: called again later with the same events. The modules never wait for it. A
module's own script bin/notification is called in the same way with the events of that module.

Exit codes:
  0    done
  1    test: there is no script, or it failed
  100  wrong usage
  111  a system call failed

Examples:
  install -m 755 /opt/sk/notify/mail /etc/sk/notification
  sk-notify test
  sk-notify run --gather 60s --levels CEU";

/// Tell people what happens to the modules of this node, through a script: mail, webhook, pager.
#[derive(Debug, Parser)]
#[command(name = "sk-notify", version, max_term_width = 80, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Follow all modules of this node until ended, and call the script
    #[command(after_help = AFTER)]
    Run(Run),
    /// Call the script once, now, with a test event
    #[command(after_help = AFTER)]
    Test(Test),
}

#[derive(Debug, Args)]
pub struct Run {
    /// The script for all modules; default: /etc/sk/notification
    #[arg(long, value_name = "FILE", default_value_os_t = default_script(), hide_default_value = true)]
    pub script: PathBuf,
    /// How long events are collected after the first one
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub gather: humantime::Duration,
    /// Time for one call; then the script is killed
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub limit: humantime::Duration,
    /// Calls for the same events before they are given up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
    /// Pause after the first failure; doubled after each further one, up to five minutes
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub pause: humantime::Duration,
    /// Levels of messages that are told: C critical, E events, U commands of people, S scripts, I, W, D. Changes of state always are
    #[arg(long, value_name = "LETTERS", default_value = "C", value_parser = levels)]
    pub levels: String,
    /// Tell changes of resources, too
    #[arg(long)]
    pub resources: bool,
}

#[derive(Debug, Args)]
struct Test {
    /// The script; default: /etc/sk/notification
    #[arg(long, value_name = "FILE", default_value_os_t = default_script(), hide_default_value = true)]
    script: PathBuf,
    /// Time for the call; then the script is killed
    #[arg(long, value_name = "TIME", default_value = "60s")]
    limit: humantime::Duration,
}

fn default_script() -> PathBuf {
    Roots::from_environment().etc.join("notification")
}

fn levels(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !"CEUSIWD".contains(*c)) {
        Some(other) => Err(format!("{other} is no level: use some of C, E, U, S, I, W, D")),
        None => Ok(text.to_owned()),
    }
}

/// An error with its cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Failure {
    what: &'static str,
    source: io::Error,
}

impl Failure {
    pub fn new(what: &'static str, source: io::Error) -> Self {
        Self { what, source }
    }
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    outcome::give(Cli::command(), &["run"])
}

/// Runs with the arguments of the process.
pub fn main() -> ExitCode {
    complete::answer(command);
    let (cli, asked) = match outcome::parse::<Cli>(command()) {
        Ok(parsed) => parsed,
        Err(error) => return complete::told(&error),
    };
    let roots = Roots::from_environment();
    let (code, words) = match cli.verb {
        Verb::Run(options) => match run::run(&roots, &options) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => (111, failure.to_string()),
        },
        Verb::Test(options) => {
            let result = run::test(&roots, &options.script, options.limit.into()).map(|()| 0);
            if let Some(asked) = asked {
                let result = result.clone().map_err(|reason| sys::failure::Failure::new(1, reason));
                sys::outcome::end(&asked.verb, None, &result);
            }
            match result {
                Ok(code) => return ExitCode::from(code),
                Err(reason) => (1, reason),
            }
        }
    };
    sys::warn!("sk-notify: {words}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        assert!(Cli::try_parse_from(["sk-notify", "run", "--levels", "CX"]).is_err());
        assert!(Cli::try_parse_from(["sk-notify", "run", "--gather", "soon"]).is_err());
    }
}
