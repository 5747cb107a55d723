//! What does `sk-replicate` accept, and which exit code says what?

mod inquiry;
mod run;
mod salvage;
mod show;
mod verify;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the specification, the key or the state directory cannot be used (run); the replicas differ (verify)
  2    no such module, or its state cannot be read (status, lineage, salvage)
  3    the replicas cannot be compared (to the end) now: no secondary in sync, stream lost (verify); nothing was removed: --yes is
       missing, or a resynchronisation runs (salvage prune)
  4    not in the salvage directory (salvage restore)
  5    a file to be restored exists already (salvage restore)
  100  wrong usage
  111  a system call failed

Example:
  sk-replicate status -m mirror
  sk-replicate lineage -m mirror --json
  sk-replicate salvage -m mirror list
  sk-replicate verify -m mirror --bandwidth 20000";

const RETENTION: &str = "\
Before a resynchronisation overwrites or deletes content of this node that the other node never received (after a split brain, or
when a node was forced), that content is put aside in the module's salvage directory, under the date of the resynchronisation.
One resynchronisation puts aside at most a quarter of the space that was free when it began; what did not fit is named in the
module's log and lost. Nothing is removed by itself, because it may be the only copy: remove with prune what you have looked at.";

const VERIFY: &str = "\
Compares names, attributes and content of both replicas while the application writes, at a bounded rate, and prints what differs,
exactly: number of the replicated directory and path, then the attributes, or offset+length of the content (in pages of 4096 bytes).
Each object is compared at one place of the replication stream, so that writing cannot make equal replicas look different. Not
compared: access times, what is excluded from replication, the times of directories and counts of hard links when anything is
excluded, which names belong to one file, other file systems mounted inside, what is created or renamed after its directory was
read. Nothing is repaired: a full resynchronisation of the secondary does that.";

/// Replicates the directories of a module to the other node, synchronously.
#[derive(Parser)]
#[command(name = "sk-replicate", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve one module: orders on the standard input, events on the standard output (started by sk-module)
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Show what the replica is doing and how up to date it is
    #[command(after_help = EXIT_CODES)]
    Status(Show),
    /// Show the epochs of the replica's history, newest first
    #[command(after_help = EXIT_CODES)]
    Lineage(Show),
    /// List, restore and remove what was put aside before a resynchronisation replaced it
    #[command(after_help = EXIT_CODES, long_about = RETENTION)]
    Salvage(Salvage),
    /// Compare both replicas while the application writes; run it on the primary
    #[command(after_help = EXIT_CODES, long_about = VERIFY)]
    Verify(Verify),
}

#[derive(Args)]
struct Verify {
    /// Name of the module
    #[arg(short, long, value_name = "AM")]
    module: String,
    /// Most that is read on each node, in KiB a second; 0: as fast as possible
    #[arg(long, value_name = "KBS", default_value_t = 51200)]
    bandwidth: u64,
    /// Print JSON lines: progress, difference, verified
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Salvage {
    /// Name of the module
    #[arg(short, long, value_name = "AM")]
    module: String,
    #[command(subcommand)]
    command: SalvageCommand,
}

#[derive(Subcommand)]
enum SalvageCommand {
    /// Show what was put aside: size, and an identifier that begins with the date (UTC) of the resynchronisation
    #[command(after_help = EXIT_CODES)]
    List(List),
    /// Copy a file, or everything beneath a directory, to another place; nothing is ever written over an existing file
    #[command(after_help = EXIT_CODES)]
    Restore(Restore),
    /// Remove what old resynchronisations put aside, for good
    #[command(after_help = EXIT_CODES)]
    Prune(Prune),
}

#[derive(Args)]
struct List {
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Restore {
    /// Identifier as printed by list, the beginning of one (a date, a directory), or a path in the salvage directory
    #[arg(value_name = "ID-OR-PATH")]
    item: String,
    /// Directory that receives it under its last name; made when it is missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
struct Prune {
    /// Remove what was put aside this long ago or earlier, for example 30d or 12h
    #[arg(long, value_name = "AGE", group = "which", value_parser = humantime::parse_duration)]
    older_than: Option<std::time::Duration>,
    /// Remove everything
    #[arg(long, group = "which")]
    all: bool,
    /// Really remove; without it only what would be removed is shown
    #[arg(long)]
    yes: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Run {
    /// File that says what to replicate, as JSON
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Number of an inherited socket to the descriptor store
    #[arg(long, value_name = "N")]
    store_fd: Option<i32>,
    /// Number of an inherited descriptor to which a newline is written when orders are accepted
    #[arg(long, value_name = "N")]
    ready_fd: Option<i32>,
}

#[derive(Args)]
struct Show {
    /// Name of the module
    #[arg(short, long, value_name = "AM")]
    module: String,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command.
pub fn main() -> ExitCode {
    complete::answer(command);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are answers, everything else is wrong usage.
            let code = if e.use_stderr() { 100 } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let outcome = match cli.command {
        Command::Run(run) => run::run(&run),
        Command::Status(show) => show::status(&show.module, show.json),
        Command::Lineage(show) => show::lineage(&show.module, show.json),
        Command::Verify(order) => verify::verify(&order),
        Command::Salvage(order) => salvage::salvage(&order.module, &order.command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is_broken_pipe() => ExitCode::SUCCESS,
        Err(e) => {
            sys::warn!("sk-replicate: {e}");
            ExitCode::from(e.code)
        }
    }
}

/// A sentence and an exit code.
#[derive(Debug)]
struct Trouble {
    code: u8,
    text: String,
    broken_pipe: bool,
}

impl Trouble {
    fn new(code: u8, text: impl ToString) -> Self {
        Self { code, text: text.to_string(), broken_pipe: false }
    }

    fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self { code: 111, text: error.to_string(), broken_pipe: error.kind() == std::io::ErrorKind::BrokenPipe }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
