//! `sk-errd`: says when the processes of an application are no longer there, or are too many.

mod births;
mod list;
mod run;
mod services;
mod spec;
mod watch;

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

const EXITS: &str = "Exit codes:
  0    run: ended by order, or because the one who started it is gone; list: something was found
  1    run: the specification cannot be read or is wrong; list: nothing was found
  100  wrong usage
  111  a system call failed";

const EXAMPLE: &str = "Example:
  sk-errd list --name postgres --arg-regex '-D /var/lib/postgresql'";

/// Watches the processes of a module by name and arguments.
#[derive(Parser)]
#[command(name = "sk-errd", version, max_term_width = 80, after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLE}"))]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Watch until stdin ends: orders as JSON lines on stdin, events as JSON lines on stdout
    #[command(after_help = EXITS)]
    Run(RunArgs),
    /// Show the running processes that a configuration would match
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLE}"))]
    List(ListArgs),
}

#[derive(Args)]
struct RunArgs {
    /// File that holds polling period, classes and processes as one JSON object
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
}

#[derive(Args)]
struct ListArgs {
    /// Name of the process as the kernel keeps it; longer names are compared by their first 15 bytes
    #[arg(long, value_name = "NAME", conflicts_with = "name_regex")]
    name: Option<String>,
    /// Regular expression that the kernel's name of the process must match
    #[arg(long, value_name = "RE")]
    name_regex: Option<String>,
    /// Regular expression that the full command line must match
    #[arg(long, value_name = "RE", allow_hyphen_values = true)]
    arg_regex: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
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
    let result = match cli.verb {
        Verb::Run(args) => run::run(&args.spec).map(|()| ExitCode::SUCCESS),
        Verb::List(args) => list::list(&args).map(|found| ExitCode::from(u8::from(!found))),
    };
    result.unwrap_or_else(|failure| {
        sys::warn!("sk-errd: {}", failure.message);
        ExitCode::from(failure.code)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
