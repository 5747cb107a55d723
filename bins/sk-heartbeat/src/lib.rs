//! `sk-heartbeat`: tells the peer that this node is alive and what it does, and says what it hears of the peer.

mod carry;
mod election;
mod local;
mod port;
mod run;
mod spec;

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

const EXITS: &str = "Exit codes:
  0    ended by order, or because the one who started it is gone
  1    the specification cannot be read or is wrong
  2    the cluster key cannot be used
  100  wrong usage
  111  a system call failed";

const EXAMPLE: &str = "Example:
  echo '{\"kind\":\"publish\",\"state\":{\"hello\":1}}' | cat - /dev/tty | sk-heartbeat run --spec /run/sk/AM/heartbeat.json";

/// Heartbeats of one module with its peer node, over every configured network.
#[derive(Parser)]
#[command(name = "sk-heartbeat", version, max_term_width = 80, after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLE}"))]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Send and receive heartbeats until stdin ends: orders as JSON lines on stdin, events as JSON lines on stdout
    #[command(after_help = EXITS)]
    Run(RunArgs),
    /// Carry the packets of all modules of this node; started by `run` when nobody does, ends when no module is left
    #[command(after_help = EXITS)]
    Carry(CarryArgs),
}

#[derive(Args)]
struct RunArgs {
    /// File that holds module, nodes, key file and links as one JSON object
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Write a newline to this descriptor once every link was opened or found without its address, then close it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    ready_fd: Option<i32>,
}

#[derive(Args)]
struct CarryArgs {
    /// Directory where the heartbeats of this node find the carrier
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Descriptor of the file `lock` in that directory, locked: it makes this process the only carrier
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    lock_fd: i32,
}

/// The command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments, runs, and translates the outcome into an exit code.
pub fn main() -> ExitCode {
    let cli: Cli = match complete::arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let done = match cli.verb {
        Verb::Run(args) => run::run(&args.spec, args.ready_fd),
        Verb::Carry(args) => carry::run(&args.dir, args.lock_fd),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            sys::warn!("sk-heartbeat: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
