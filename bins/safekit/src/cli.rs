//! Which verbs and options are there, and which exit code answers?

use crate::normal::normalise;
use crate::paths::Place;
use crate::{absent, bound, elsewhere, special, verbs};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::io::{self, Write};
use std::process::ExitCode;
use sys::roots::Roots;

const AFTER: &str = "\
The module is named by -m AM or by the environment variable SAFEMODULE; options may stand before or after the verb.
  safekit -p                    print SAFE, SAFEVAR, SAFEBIN and the variables of the module
  safekit -H HOSTS VERB …       run on other hosts too: \"*\", or node1,node2
  safekit -H HOSTS -G           bring this node's cluster configuration there
  safekit -H HOSTS -E AM        bring the module's conf and bin there; applied
                                if it is applied here
  safekit -r COMMAND ARGUMENTS  run a special command (one of SAFEBIN, or an absolute path) with these variables

Exit codes:
  0    done
  1    refused, or: incloop, checkloop: the limit is reached; state -lq: WAIT
  2-4  state -lq: 2 ALONE or UP, 3 PRIM, 4 SECOND (0: STOP); boundcmd: 2 time is over
  100  wrong usage, or a verb that this version does not have
  111  a system call failed
  cluster, -H: the exit codes of sk-cluster; rfsverify, rfsdiff, rfssync: those of sk-replicate
  start, prim, primforce, second, log, logview, logsave, cmdlog, config, update, boot, level, shutdown, and errd on|off, failover:
  the exit codes of sk-module

Examples:
  safekit printe \"the database does not answer\"
  safekit stop -i start_prim -m postgresql
  safekit errd disable myclass -m postgresql
  safekit waitstate -m postgresql PRIM
  safekit -m web -r saferpc_send vipd SETGROUPS all all all    open the traffic (scriptcontrol=\"on\"); none none none closes it
  safekit -m web -r vip_if_ctrl -l                             which clients of a farm are served here";

/// Control a module from scripts and shells, in the words of SafeKit
#[derive(Debug, Parser)]
#[command(name = "safekit", version, max_term_width = 80, after_help = AFTER)]
struct Cli {
    #[command(flatten)]
    module: Named,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the module
    #[arg(short = 'm', long = "module", global = true, value_name = "AM")]
    module: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the variables NAME="value" (also: safekit -p)
    Print,
    /// Run a special command with these variables (also: safekit -r)
    Run {
        /// Command and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Write a message of level I (verbose) to the module's log
    Printi(Message),
    /// Write a message of level E to the module's log
    Printe(Message),
    /// Write a message of level W (verbose) to the module's log
    Printw(Message),
    /// Start the module; its role follows from the data and the peer
    Start,
    /// Start as primary; refused while the peer is primary
    Prim {
        /// fullsync: the next secondary compares and copies everything
        #[arg(value_enum)]
        mode: Option<Full>,
    },
    /// Start as primary whatever the data are; the peer is copied in full
    Primforce,
    /// Start as secondary; refused when the peer is not primary
    Second {
        /// fullsync: compare and copy everything
        #[arg(value_enum)]
        mode: Option<Full>,
    },
    /// Start as secondary, copying what was modified on the primary since a date; the rest is vouched for
    Secondforce {
        /// YYYY-MM-DD, "YYYY-MM-DD hh:mm:ss" or YYYY-MM-DDThh:mm:ss, as clocks show it here; with a final Z in UTC
        #[arg(short = 'd', value_name = "DATE")]
        date: String,
    },
    /// Stop the module; the peer takes over
    Stop(Automatic),
    /// Stop without waiting for the graceful stop scripts
    Forcestop,
    /// Run the stop and start scripts; no failover
    Restart(Automatic),
    /// Stop, then start again; a failover when primary
    Stopstart(Automatic),
    /// Exchange the primary and the secondary
    Swap {
        /// nosync: nothing is copied afterwards, as in any swap of nodes that are in sync
        #[arg(value_enum)]
        mode: Option<NoSync>,
        #[command(flatten)]
        automatic: Automatic,
    },
    /// Compare the replicas while the application runs, as sk-replicate verify
    Rfsverify,
    /// Estimate what the next secondary would be compared with and sent, as sk-replicate diff; on the primary
    Rfsdiff,
    /// Show or change how the secondary is synchronised next, as sk-replicate policy
    Rfssync {
        /// The mark counts from the next start on: what changes before is vouched for, too
        #[arg(short = 'd')]
        from_start: bool,
        /// Nothing: show; full; default; external prim UID, on the node whose data are copied by other means; external second UID, on the
        /// node that received the copy (with -d, external may be left out)
        #[arg(value_name = "POLICY")]
        words: Vec<String>,
    },
    /// Stop all running modules, at the shutdown of the host
    Shutdown,
    /// Apply the editable configuration; while the module runs, only what may change then
    Config,
    /// Take the applied configuration of a stopped module away
    Deconfig,
    /// Check the editable configuration without applying it
    Confcheck,
    /// Print signature and date of the active and of the current configuration
    Confinfo,
    /// Read names and addresses of the cluster again and run the script update
    Update,
    /// Start at the boot of the host: on, off, or print status; webon, weboff, webstatus for the health page
    Boot {
        #[arg(value_enum)]
        /// on, off: until the next configuration that says otherwise
        action: Boot,
    },
    /// The service of the health page: start, stop, restart
    Webserver {
        #[arg(value_enum)]
        /// What to do
        action: Daemon,
    },
    /// Mail and other notifications, now and at each boot: enable, disable, or print status
    Notification {
        #[arg(value_enum)]
        /// What to do
        action: Switch,
    },
    /// Print host, system and version; with a module, also what its script level says
    Level,
    /// Nodes of the cluster: config, confcheck, confinfo, deconfig, state, create, genkey, delkey
    Cluster {
        /// What to do, as sk-cluster does it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
    /// Modules of this node: list, install, package, uninstall, ports
    Module {
        #[command(subcommand)]
        what: Modules,
    },
    /// Save the module's log into a new file
    Logsave {
        /// Verbose: also the levels I, W and D
        #[arg(short = 'A')]
        all: bool,
        /// Language; whatever is asked for, messages are in English
        #[arg(short = 'l', value_parser = ["en", "fr", "ja"])]
        _language: Option<String>,
        /// Absolute path; must not exist
        file: String,
    },
    /// Pack logs, configurations and states, without passwords and keys, into a new .tar.gz
    Snapshot {
        /// Absolute path; must not exist
        file: String,
    },
    /// Pack the same into the node's directory of dumps, and keep the last three
    Dump,
    /// Take away logs, histories of resources or hanging processes of a module
    Clean {
        /// all: forcestop, then logs and histories; log, resource: only of a module in STOP; process: forcestop
        #[arg(value_enum, default_value_t = Clean::All)]
        what: Clean,
    },
    /// Print the commands that changed something on this node
    Cmdlog,
    /// End processes by name, or only list them
    Kill {
        /// Name of the command (at most 15 bytes)
        #[arg(long)]
        name: String,
        /// Regular expression on the command line
        #[arg(long)]
        argregex: Option<String>,
        /// test: list; terminate: SIGTERM, then SIGKILL; 15, 9: the signal
        #[arg(long, value_parser = ["test", "terminate", "9", "15"])]
        level: String,
    },
    /// Wait for the end of a start
    Waitstart,
    /// Wait for the end of a stop
    Waitstop,
    /// Wait for a stable state
    Waitstate {
        /// STOP, WAIT, ALONE, UP, PRIM or SECOND
        #[arg(value_parser = ["STOP", "WAIT", "ALONE", "UP", "PRIM", "SECOND"], ignore_case = true)]
        state: String,
    },
    /// Print the state of the module, or of all
    State {
        /// All resources, one a line: class.id, value, date
        #[arg(short = 'v')]
        verbose: bool,
        /// Only the state
        #[arg(short = 'l')]
        line: bool,
        /// Exit with the code of the state
        #[arg(short = 'q')]
        quiet: bool,
    },
    /// Print the module's log
    Log(Log),
    /// Print the module's log and follow it
    Logview(Log),
    /// Assign a resource
    Set {
        /// class.id
        #[arg(short = 'r')]
        resource: String,
        /// Value: up, down or another
        #[arg(short = 'v')]
        value: String,
        /// Keep no history of this assignment
        #[arg(short = 'n', conflicts_with = "history")]
        no_history: bool,
        /// Keep a history also when the value is the same
        #[arg(short = 'l')]
        history: bool,
        #[command(flatten)]
        automatic: Automatic,
    },
    /// Print a resource
    Get {
        /// class.id
        #[arg(short = 'r')]
        resource: String,
    },
    /// Process supervision: enable or disable a class, switch all on or off, list
    Errd {
        #[arg(value_enum)]
        /// What to do
        action: Errd,
        /// Class of processes, for enable and disable
        class: Option<String>,
    },
    /// Switch all checkers on or off; holds while the module is stopped, too
    Checker {
        #[arg(value_enum)]
        /// on or off
        value: OnOff,
    },
    /// Allow or forbid automatic failover; give it on both nodes
    Failover {
        #[arg(value_enum)]
        /// on or off
        value: OnOff,
    },
    /// Set the counter of automatic actions to zero
    Resetloop {
        /// Who asks
        #[arg(short = 'i')]
        _identity: Option<String>,
    },
    /// Count one more automatic action; exit code 1 when the limit is reached
    Incloop {
        /// Who asks
        #[arg(short = 'i')]
        identity: String,
    },
    /// Exit code 1 when the limit of automatic actions is reached, else 0
    Checkloop,
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

#[derive(Debug, Args)]
pub struct Message {
    /// The message
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub words: Vec<String>,
    /// Origin shown in the log
    #[arg(short = 'i', value_name = "NAME")]
    pub identity: Option<String>,
}

#[derive(Debug, Args)]
pub struct Automatic {
    /// Automatic origin: who asks. Counts for maxloop
    #[arg(short = 'i', value_name = "IDENTITY")]
    pub identity: Option<String>,
}

#[derive(Debug, Args)]
pub struct Log {
    /// Number of messages
    #[arg(short = 's', default_value_t = 300)]
    pub lines: usize,
    /// Verbose: also the levels I, W and D
    #[arg(short = 'A')]
    pub all: bool,
    /// Language; whatever is asked for, messages are in English
    #[arg(short = 'l', value_parser = ["en", "fr", "ja"])]
    _language: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Full {
    Fullsync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NoSync {
    Nosync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Boot {
    On,
    Off,
    Status,
    Webon,
    Weboff,
    Webstatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Daemon {
    Start,
    Stop,
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    Enable,
    Disable,
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Clean {
    All,
    Log,
    Process,
    Resource,
}

impl Clean {
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Log => "log",
            Self::Process => "process",
            Self::Resource => "resource",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Modules {
    /// Print their names
    List,
    /// Print their numbers and names, the same on all nodes
    Listid,
    /// Install a module from a package or a template
    Install {
        /// Number of the module, the same on all nodes
        #[arg(short = 'M', value_name = "ID")]
        id: Option<u16>,
        /// Install again: replace its configuration
        #[arg(short = 'r')]
        again: bool,
        /// A .safe file; default: the template of the module's name
        file: Option<String>,
    },
    /// Pack the configuration of a module into a new file
    Package {
        /// Absolute path; must not exist
        file: String,
    },
    /// Take a stopped module from this node; a package of it is kept
    Uninstall,
    /// Print the ports that a firewall must let pass between the nodes
    Getports {
        /// Number of the module, instead of -m AM
        #[arg(short = 'i', value_name = "ID")]
        id: Option<u16>,
    },
    /// Check that what the nodes say to each other is encrypted: always, with the cluster's key
    Genkey,
    /// Refused: there is no way to talk in clear text
    Delkey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Errd {
    Enable,
    Disable,
    On,
    Off,
    List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}

/// An error with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u8,
    message: String,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(100, message)
    }

    pub fn sys(what: impl std::fmt::Display, error: io::Error) -> Self {
        Self::new(111, format!("{what}: {error}"))
    }
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The arguments in the order that parsers expect, and whose they are: those for other hosts are a command line of `sk-cluster`.
pub fn understood(arguments: Vec<String>) -> Result<(&'static str, Vec<String>), Failure> {
    match elsewhere::translate(&arguments) {
        Some(words) => Ok(("sk-cluster", words?)),
        None => Ok(("safekit", normalise(arguments))),
    }
}

/// Runs with the arguments of the process. Called as `boundcmd` (a link in SAFEBIN) it is that command.
pub fn main() -> ExitCode {
    complete::answer(command);
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let mut arguments = Vec::new();
    for word in words {
        match word.into_string() {
            Ok(text) => arguments.push(text),
            Err(word) => return finish(Err(Failure::usage(format!("the argument {} is not UTF-8", word.display())))),
        }
    }
    if std::path::Path::new(&called).file_name().is_some_and(|n| n == "boundcmd") {
        return finish(bound::run(&arguments, &[]));
    }
    let words = match understood(arguments) {
        Ok(("sk-cluster", words)) => return finish(elsewhere::become_cluster(&Roots::from_environment(), &words)),
        Ok((_, words)) => words,
        Err(failure) => return finish(Err(failure)),
    };
    match Cli::try_parse_from(std::iter::once("safekit".to_owned()).chain(words)) {
        Ok(cli) => finish(run(cli)),
        Err(error) => {
            // Help and version are no errors; nothing can be done when even printing fails.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { 100 } else { 0 })
        }
    }
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let place = Place::new(Roots::from_environment(), cli.module.module)?;
    match cli.verb {
        Verb::Run { command } => special::run(&place, &command),
        Verb::Cluster { words } => elsewhere::become_cluster(&place.roots, &elsewhere::cluster(&words)?),
        Verb::Unknown(words) => {
            let verb = words.first().map_or("", String::as_str);
            Err(Failure::usage(match absent::reason(verb) {
                Some(reason) => format!("`{verb}` is not here: {reason}"),
                None => format!("there is no verb `{verb}`; `safekit --help` lists those it has"),
            }))
        }
        verb => verbs::run(&place, &verb),
    }
}

fn finish(result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "safekit: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The name of the verb that a command line has; none: it is no verb of this program.
    pub fn parsed_verb(words: Vec<String>) -> Result<Option<String>, ()> {
        let typed = std::iter::once("safekit".to_owned()).chain(words);
        let matches = command().try_get_matches_from(typed).map_err(|_| ())?;
        let name = matches.subcommand_name().map(str::to_owned);
        Ok(name.filter(|n| command().find_subcommand(n).is_some()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
