//! `sk-arbiter`: asks witnesses, or a store, who may serve when the nodes of a mirror cannot hear each other.

mod arbiter;
mod etcd;
mod http;
mod none;
mod oneshot;
mod ping;
mod run;
mod spec;

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code: the arbiter does not answer, or not as an arbiter does.
const ARBITER: u8 = 2;
/// Exit code: the record belongs to somebody else.
const OTHERS: u8 = 3;

const EXITS: &str = "Exit codes:
  0    done; show: there is a record; test: the arbiter can be used
  1    show: there is no record of this module; test: no witness or endpoint answered
  2    the arbiter does not answer, or refuses; or its record is unreadable
  3    release: the record names another owner, or was changed meanwhile
  100  wrong usage, or a malformed specification
  111  a system call failed";

const EXAMPLES: &str = "Examples:
  sk-arbiter test -m AM                    which witnesses or endpoints answer?
  sk-arbiter show -m AM --json             who owns the module?
  sk-arbiter release -m AM --owner node1   node1 is gone for good and its data with it: nobody owns the module";

/// Who may serve when the nodes cannot hear each other: asks witnesses, or a store.
#[derive(Parser)]
#[command(name = "sk-arbiter", version, max_term_width = 80, after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer questions until stdin ends: JSON lines on stdin and stdout (used by sk-module)
    #[command(after_help = EXITS)]
    Run(RunArgs),
    /// Show what the store says about a module
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Show(Shown),
    /// Try every witness or endpoint and say what is wrong with it; changes nothing
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Test(Shown),
    /// Write into the store that nobody owns the module. Stop it on both nodes first
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Release(Release),
}

#[derive(Args)]
struct RunArgs {
    /// File with the specification (JSON, see sk-arbiter in the architecture)
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
}

#[derive(Args)]
struct Which {
    /// Module; its configuration has written what to ask to /run/sk/MODULE/arbiter.json
    #[arg(short, long, value_name = "MODULE", conflicts_with = "spec", required_unless_present = "spec")]
    module: Option<String>,
    /// File with the specification
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
}

#[derive(Args)]
struct Shown {
    #[command(flatten)]
    which: Which,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Release {
    #[command(flatten)]
    which: Which,
    /// The owner that the record must name
    #[arg(long, value_name = "NODE")]
    owner: String,
    /// Print JSON lines
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
        Verb::Run(args) => run::run(&args.spec).map(|()| 0),
        Verb::Show(args) => oneshot::show(&args.which, args.json),
        Verb::Test(args) => oneshot::test(&args.which, args.json),
        Verb::Release(args) => {
            let roots = sys::roots::Roots::from_environment();
            let module = args.which.module.as_deref().unwrap_or_default();
            let logged = sys::commands::Command::start_own(&roots, "sk-arbiter", module);
            let result = oneshot::release(&args.which, &args.owner, args.json);
            logged.end(result.as_ref().map_or_else(|failure| failure.code, |code| *code));
            result
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            sys::warn!("sk-arbiter: {}", failure.message);
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
