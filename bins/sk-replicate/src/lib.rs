//! What does `sk-replicate` accept, and which exit code says what?

mod estimate;
mod inquiry;
mod policy;
mod run;
mod salvage;
mod show;
mod verify;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use complete::outcome;
use std::path::PathBuf;
use std::process::ExitCode;
use sys::roots::Roots;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the specification, the key or the state directory cannot be used (run); the replicas differ (verify)
  2    no such module, or its state cannot be read (status, lineage, salvage, policy)
  3    the replicas cannot be compared or repaired (to the end) now: no secondary in sync, stream lost (verify); this node does not
       serve (diff); nothing was removed: --yes is missing, or a resynchronisation runs (salvage prune)
  4    not in the salvage directory (salvage restore)
  5    another file exists where one is to be restored (salvage restore)
  100  wrong usage
  111  a system call failed

Example:
  sk-replicate status -m mirror
  sk-replicate lineage -m mirror --json
  sk-replicate salvage -m mirror list
  sk-replicate verify -m mirror --bandwidth 20000
  sk-replicate diff -m mirror
  sk-replicate policy -m mirror external prim backup-7";

const RETENTION: &str = "\
Before a resynchronisation overwrites or deletes content of this node that the other node never received (after a \
split brain, or when a node was forced), that content is put aside in the module's salvage directory, under the date \
of the resynchronisation. One resynchronisation puts aside at most a quarter of the space that was free when it began; \
what did not fit is named in the module's log and lost. Nothing is removed by itself, because it may be the only copy: \
remove with prune what you have looked at.";

const VERIFY: &str = "\
Compares names, attributes and content of both replicas while the application writes, at a bounded rate, and prints \
what differs, exactly: number of the replicated directory and path, then the attributes, or offset+length of the \
content (in pages of 4096 bytes). Each object is compared at one place of the replication stream, so that writing \
cannot make equal replicas look different. Not compared: access times, what is excluded from replication, the times of \
directories and counts of hard links when anything is excluded, which names belong to one file, other file systems \
mounted inside, what is created or renamed after its directory was read.\n\
With --repair, what was found is copied anew after the comparison: the secondary, which is not what it should be, \
loses its place; the application is held up until the primary has gone on alone (a second or two); only what differs \
is copied, what it replaces is put aside (see salvage), and then both are in sync again.";

const ESTIMATE: &str = "\
Prints how many directories, files and bytes the secondary that comes next would have to be compared with, at most, \
and how long that takes at the speed of the last synchronisation. Run it on the node that serves. What the other node \
changed by itself is not known here.";

const POLICY: &str = "\
What must be copied to a secondary follows from the data (default). full: everything is compared and copied once more.\n\
external: the data are copied by other means, a backup that is restored on the other node, say, and only what changed \
since then goes over the network. On the node with the data: external prim UID, then make the copy (the module may be \
stopped, or serve meanwhile). On the other, stopped: restore the copy, external second UID, and start the module. UID \
ties both together. Of files that did not change since the mark and have the same size on both nodes no content is \
read: that is vouched for by whoever made the copy.\n\
The policy holds for one synchronisation, and is kept while the module is stopped.";

/// A build that can break the rules of data safety says so: what installs programs looks at it.
const VERSION: &str = if cfg!(feature = "mutations") {
    concat!(env!("CARGO_PKG_VERSION"), " (mutations)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Replicates the directories of a module to the other node, synchronously.
#[derive(Parser)]
#[command(name = "sk-replicate", version = VERSION, about, max_term_width = 80, after_help = EXIT_CODES)]
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
    /// Estimate what the next synchronisation would compare and send; run it on the primary
    #[command(after_help = EXIT_CODES, long_about = ESTIMATE)]
    Diff(Show),
    /// Show or change how the secondary is synchronised next
    #[command(after_help = EXIT_CODES, long_about = POLICY)]
    Policy(Policy),
}

#[derive(Args)]
struct Policy {
    /// Name of the module
    #[arg(short, long, value_name = "AM")]
    module: String,
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Show it
    #[command(after_help = EXIT_CODES)]
    Show(List),
    /// What must be copied follows from the data
    #[command(after_help = EXIT_CODES)]
    Default,
    /// The next synchronisation compares and copies everything
    #[command(after_help = EXIT_CODES)]
    Full,
    /// The data are copied by other means; the next synchronisation copies what changed since the mark
    #[command(after_help = EXIT_CODES)]
    External(External),
}

#[derive(Args)]
struct External {
    /// prim: this node has the data, mark it now; second: this node received the copy
    #[arg(value_enum, value_name = "ROLE")]
    role: Role,
    /// Ties both nodes together: letters, digits, '_', '-' and '.', at most 24 characters
    #[arg(value_name = "UID")]
    uid: String,
    /// The mark counts from the next start on: what changes before is vouched for, too
    #[arg(short = 'd', long)]
    from_start: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Prim,
    Second,
}

impl From<Role> for replica::policy::Side {
    fn from(role: Role) -> Self {
        match role {
            Role::Prim => Self::Prim,
            Role::Second => Self::Second,
        }
    }
}

#[derive(Args)]
struct Verify {
    /// Name of the module
    #[arg(short, long, value_name = "AM")]
    module: String,
    /// Most that is read on each node, in KiB a second; 0: as fast as possible
    #[arg(long, value_name = "KBS", default_value_t = 51200)]
    bandwidth: u64,
    /// Copy what differs anew, and wait until the secondary is in sync again
    #[arg(long)]
    repair: bool,
    /// Print JSON lines: progress, difference, verified, repairing, repaired
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
    /// Copy a file, or everything beneath a directory, to another place; nothing is ever written over an existing file, and what was
    /// interrupted goes on when it is given again
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
    outcome::give(Cli::command(), &["run"])
}

/// Runs the command.
pub fn main() -> ExitCode {
    complete::answer(command);
    let (cli, asked) = match outcome::parse::<Cli>(command()) {
        Ok(parsed) => parsed,
        Err(error) => return complete::told(&error),
    };
    if asked.is_some() {
        sys::outcome::begin();
    }
    let outcome = match cli.command {
        Command::Run(run) => run::run(&run),
        Command::Status(show) => show::status(&show.module, show.json),
        Command::Lineage(show) => show::lineage(&show.module, show.json),
        Command::Verify(order) => verify::verify(&order),
        Command::Diff(show) => estimate::estimate(&show),
        Command::Policy(order) => policy::policy(&order.module, &order.command),
        Command::Salvage(order) => salvage::salvage(&order.module, &order.command),
    };
    if let Some(asked) = asked {
        let told = outcome
            .as_ref()
            .map(|()| 0)
            .map_err(|trouble| sys::failure::Failure::new(trouble.code, trouble.to_string()));
        sys::outcome::end(&asked.verb, asked.module.as_deref(), &told);
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            sys::warn!("sk-replicate: {e}");
            ExitCode::from(e.code)
        }
    }
}

/// Does something; what `changes` anything belongs into the log of commands.
fn logged(
    roots: &Roots,
    module: &str,
    changes: bool,
    act: impl FnOnce() -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let logged = changes.then(|| sys::commands::Command::start_own(roots, "sk-replicate", module));
    let result = act();
    if let Some(logged) = logged {
        logged.end(result.as_ref().map_or_else(|trouble| trouble.code, |()| 0));
    }
    result
}

/// A sentence and an exit code.
#[derive(Debug)]
struct Trouble {
    code: u8,
    text: String,
}

impl Trouble {
    fn new(code: u8, text: impl ToString) -> Self {
        Self { code, text: text.to_string() }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::new(111, error)
    }
}

impl From<sys::failure::Failure> for Trouble {
    fn from(failure: sys::failure::Failure) -> Self {
        Self { code: failure.code, text: failure.message }
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

    #[test]
    fn rules_can_be_broken_by_no_build_that_does_not_ask_for_it() {
        assert_eq!(super::VERSION, env!("CARGO_PKG_VERSION"), "the feature \"mutations\" is on");
    }
}
