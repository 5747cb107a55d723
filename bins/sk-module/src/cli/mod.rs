//! What can be asked of `sk-module`: verbs, options, help.

mod logged;
mod words;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use complete::outcome::{self, Asked};
use std::path::PathBuf;
use std::process::ExitCode;
use sys::roots::module_name;
use words::valid_state;
pub(crate) use words::{Automatic, BootAction, ErrdAction, Form, Module, OnOff, Traffic};

const AFTER: &str = "\
Exit codes:
  0    done
  1    refused, or the outcome asked for is impossible
  2    the configuration has errors (all are printed)
  3    the module has no running runner
  4    the time given to a wait is over
  5    the module already has a runner
  100  wrong usage
  111  a system call failed
`state -q` exits with the state: STOP 0, WAIT 1, ALONE 2, PRIM 3, SECOND 4.

On other nodes too: sk-module -H HOSTS VERB …; HOSTS is \"*\" or node1,node2
(see sk-cluster on, whose exit codes it then has).

Examples:
  sk-module check /etc/sk/modules/postgresql/conf/userconfig.xml
  sk-module config -m postgresql --id 1
  sk-module prim -m postgresql --wait
  sk-module state -m postgresql --watch";

#[derive(Debug, Parser)]
#[command(name = "sk-module", version, max_term_width = 80, about = "Run and command a highly available module", after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the module's runner in the foreground (for systemd or another supervisor)
    Run {
        /// Name of the module
        #[arg(value_parser = module_name)]
        module: String,
        /// Write a newline to this descriptor once commands are answered
        #[arg(long, value_name = "N")]
        ready_fd: Option<i32>,
        /// The host has just booted: the module starts as its attribute `boot` says
        #[arg(long)]
        boot: bool,
    },
    /// Keep the runner alive: restart it with back-off when it dies (hosts without systemd)
    Guard {
        /// Name of the module
        #[arg(value_parser = module_name)]
        module: String,
        /// The host has just booted: passed to the first runner
        #[arg(long)]
        boot: bool,
    },
    /// Start the runners of all applied modules, at the boot of the host; with a word, set or show what a module does then
    Boot {
        /// on, off: until the next configuration that says otherwise. status: of the module, or of all
        action: Option<BootAction>,
        #[command(flatten)]
        module: Module,
        /// JSON lines (status)
        #[arg(long)]
        json: bool,
    },
    /// Check a userconfig.xml (and the cluster it will run in) and print every error and warning
    Check {
        /// The userconfig.xml to check
        file: PathBuf,
        /// The cluster.xml to check against; default: the one in /etc/sk, when present
        #[arg(long, value_name = "FILE")]
        cluster: Option<PathBuf>,
        /// What was found as JSON lines: severity, file, line, column, message, help; nothing when nothing was found
        #[arg(long)]
        json: bool,
    },
    /// Apply the editable configuration; nothing changes when it has errors. While the module is in ALONE, UP or WAIT (NotReady), only if
    /// what differs may change then
    Config {
        #[command(flatten)]
        module: Module,
        /// Number of the module, the same on all nodes; ports derive from it. Default: the one applied before, else 1
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
        id: Option<u16>,
        /// Only print what would change and which processes it touches; exit code 1 when it cannot be applied in the present state
        #[arg(long, alias = "dry-run")]
        plan: bool,
        /// What is done, or would be, as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Take the applied configuration of a stopped module away; its replicas, logs and history stay
    Deconfig {
        #[command(flatten)]
        module: Module,
    },
    /// Check the editable configuration with everything that config checks, without applying it
    Confcheck {
        #[command(flatten)]
        module: Module,
        /// What was found in the files as JSON lines: severity, file, line, column, message, help
        #[arg(long)]
        json: bool,
    },
    /// Print signature and date (seconds since 1970) of the editable and of the applied configuration
    Confinfo {
        #[command(flatten)]
        module: Module,
        /// JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring conf and bin of the module to other nodes; applied there if they are applied here
    Push {
        #[command(flatten)]
        module: Module,
        /// "*", or node1,node2; default: all other nodes
        #[arg(short = 'H', long, value_name = "HOSTS")]
        hosts: Option<String>,
        /// Only the files: do not apply them
        #[arg(long)]
        only_files: bool,
    },
    /// Make the files of a first module, and of the cluster if there is none: asks on a terminal, takes flags; looks at this host, and prints the
    /// next commands. Exit code of --check: 1 when something is missing
    Init(crate::init::Answers),
    /// Install a module from a package (.safe), a directory or a template: its editable configuration; then edit it, and apply it with config
    Install {
        #[command(flatten)]
        module: Module,
        /// A .safe file, a directory with conf and bin, or the name of a template; default: the template of the module's name
        source: Option<String>,
        /// Number of the module, the same on all nodes; default: that of the package, else the lowest free one
        #[arg(short = 'M', long, value_parser = clap::value_parser!(u16).range(1..=1000))]
        id: Option<u16>,
        /// Replace the configuration of a module that is there; a package of the old one is kept in /var/lib/sk/backup
        #[arg(short = 'r', long)]
        reinstall: bool,
    },
    /// Take a stopped module from this node; a package of its configuration is kept, and replicas, logs and history stay
    Uninstall {
        #[command(flatten)]
        module: Module,
    },
    /// Pack the editable configuration of a module into a new .safe file, for other nodes
    Package {
        #[command(flatten)]
        module: Module,
        /// The file to make; must not exist
        file: PathBuf,
    },
    /// List the modules with their ids and states
    List {
        /// List what install finds by name: templates, and packages kept of modules that were taken away
        #[arg(long)]
        available: bool,
        /// JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Make a new cluster key (64 hexadecimal digits, mode 0600); copy it to every node
    ClusterKey {
        /// Where to write it; default: /etc/sk/cluster.key. An existing file is never replaced
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Start the module; the role follows from the data and the peer
    Start {
        #[command(flatten)]
        module: Module,
        /// Wait for a stable state
        #[arg(long)]
        wait: bool,
    },
    /// Start as primary; refused while the peer is primary or when this node's data are a mixture
    Prim {
        #[command(flatten)]
        module: Module,
        /// Wait for a stable state
        #[arg(long)]
        wait: bool,
        /// The next secondary compares and copies everything
        #[arg(long)]
        fullsync: bool,
    },
    /// Start as primary whatever the state of this node's data; the peer is then copied in full
    Primforce {
        #[command(flatten)]
        module: Module,
        /// Wait for a stable state
        #[arg(long)]
        wait: bool,
    },
    /// Start as secondary; refused when the peer is not primary
    Second {
        #[command(flatten)]
        module: Module,
        /// Wait for a stable state
        #[arg(long)]
        wait: bool,
        /// Compare and copy everything
        #[arg(long, conflicts_with = "since")]
        fullsync: bool,
        /// Of files that did not change on the primary since then (and are as long here) the content is vouched for, and is not compared;
        /// 2026-11-20, "2026-11-20 10:00:00" or, in UTC, 2026-11-20T10:00:00Z
        #[arg(long, value_name = "DATE")]
        since: Option<String>,
    },
    /// Stop the module; the peer takes over
    Stop {
        #[command(flatten)]
        module: Module,
        #[command(flatten)]
        automatic: Automatic,
        /// Wait for STOP
        #[arg(long)]
        wait: bool,
    },
    /// Stop without waiting for the graceful stop scripts
    Forcestop {
        #[command(flatten)]
        module: Module,
        /// Wait for STOP
        #[arg(long)]
        wait: bool,
    },
    /// Run the stop and start scripts; no failover
    Restart {
        #[command(flatten)]
        module: Module,
        #[command(flatten)]
        automatic: Automatic,
        /// Wait for a stable state
        #[arg(long)]
        wait: bool,
    },
    /// Stop, then start again; a failover when primary
    Stopstart {
        #[command(flatten)]
        module: Module,
        #[command(flatten)]
        automatic: Automatic,
        /// Wait for a stable state
        #[arg(long)]
        wait: bool,
    },
    /// Exchange the primary and the secondary
    Swap {
        #[command(flatten)]
        module: Module,
        #[command(flatten)]
        automatic: Automatic,
        /// Wait until the roles are exchanged; exit code 1 when that is given up
        #[arg(long)]
        wait: bool,
    },
    /// Stop all running modules at the shutdown of the host; they stay wanted for the next boot
    Shutdown,
    /// Print the state of a module, or of all when none is named
    State {
        #[command(flatten)]
        module: Module,
        /// All resources, one a line
        #[arg(short = 'v', long)]
        verbose: bool,
        /// Exit with the state's code (SafeKit's `-lq`)
        #[arg(short = 'q', long)]
        quiet: bool,
        /// Accepted for the form `-lq`
        #[arg(short = 'l', hide = true)]
        _level: bool,
        /// Print a line at each change, until interrupted
        #[arg(long)]
        watch: bool,
        /// JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait until the module is stable in a state
    Waitstate {
        #[command(flatten)]
        module: Module,
        /// STOP, WAIT, ALONE, PRIM or SECOND
        #[arg(value_parser = valid_state)]
        state: String,
        /// Give up after this time (exit code 4)
        #[arg(long, value_name = "TIME")]
        timeout: Option<humantime::Duration>,
    },
    /// Print the module's log
    Log {
        #[command(flatten)]
        module: Module,
        /// Number of lines
        #[arg(short = 's', long, default_value_t = 300)]
        lines: usize,
        /// Verbose: also the levels I, W and D
        #[arg(short = 'A', long)]
        all: bool,
        /// Go on with new lines until interrupted
        #[arg(short = 'f', long)]
        follow: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Assign a resource (custom checkers)
    Set {
        #[command(flatten)]
        module: Module,
        /// class.id
        #[arg(short = 'r', long)]
        resource: String,
        /// up, down or another value
        #[arg(short = 'v', long)]
        value: String,
        /// Keep no history of this assignment
        #[arg(short = 'n', long, conflicts_with = "history")]
        no_history: bool,
        /// Keep a history also when the value is the same
        #[arg(short = 'l', long)]
        history: bool,
        #[command(flatten)]
        automatic: Automatic,
    },
    /// Print a resource
    Get {
        #[command(flatten)]
        module: Module,
        /// class.id
        #[arg(short = 'r', long)]
        resource: String,
        /// JSON
        #[arg(long)]
        json: bool,
    },
    /// Allow or forbid automatic failover; give it on both nodes
    Failover {
        #[command(flatten)]
        module: Module,
        /// on or off
        value: OnOff,
    },
    /// Farm with scriptcontrol="on": open or close the traffic of this node
    Setgroups {
        #[command(flatten)]
        module: Module,
        /// all (open) or none (close)
        value: Traffic,
    },
    /// Switch all checkers of the module on or off, until the opposite or the next config, also while it is stopped
    Checker {
        #[command(flatten)]
        module: Module,
        /// on or off
        value: OnOff,
    },
    /// Supervision of processes: enable or disable a class, switch all of it on or off, list
    Errd {
        /// on and off hold until the opposite or the next config, also while the module is stopped
        action: ErrdAction,
        /// Class of processes, for enable and disable
        class: Option<String>,
        #[command(flatten)]
        module: Module,
        /// JSON (list)
        #[arg(long)]
        json: bool,
    },
    /// Set the counter of automatic actions (maxloop) to zero
    Resetloop {
        #[command(flatten)]
        module: Module,
        /// Who asks
        #[arg(short = 'i', long)]
        _identity: Option<String>,
    },
    /// Count one more automatic action; exit code 1 when the limit is reached
    Incloop {
        #[command(flatten)]
        module: Module,
        /// Who asks
        #[arg(short = 'i', long)]
        identity: String,
    },
    /// Exit code 1 when the limit of automatic actions is reached inside the interval, else 0
    Checkloop {
        #[command(flatten)]
        module: Module,
    },
    /// Read names and addresses of the cluster again and run the script update; in ALONE, UP and WAIT
    Update {
        #[command(flatten)]
        module: Module,
    },
    /// Wait for the end of a start: serving or following. Exit code 1 when the module is in STOP
    Waitstart {
        #[command(flatten)]
        module: Module,
        /// Give up after this time (exit code 4)
        #[arg(long, value_name = "TIME")]
        timeout: Option<humantime::Duration>,
    },
    /// Wait for the end of a stop
    Waitstop {
        #[command(flatten)]
        module: Module,
        /// Give up after this time (exit code 4)
        #[arg(long, value_name = "TIME")]
        timeout: Option<humantime::Duration>,
    },
    /// Print what resources were, and when; bounded, and kept over stops and reboots
    History {
        #[command(flatten)]
        module: Module,
        /// class.id; default: all
        #[arg(short = 'r', long)]
        resource: Option<String>,
        /// Number of assignments
        #[arg(short = 's', long, default_value_t = 300)]
        lines: usize,
        /// JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Print host, system and version; with a module, also what its script level says
    Level {
        #[command(flatten)]
        module: Module,
        /// JSON
        #[arg(long)]
        json: bool,
    },
    /// Save the module's log into a new file
    Logsave {
        #[command(flatten)]
        module: Module,
        /// Verbose: also the levels I, W and D
        #[arg(short = 'A', long)]
        all: bool,
        /// Absolute path; must not exist
        file: PathBuf,
    },
    /// Print the commands that changed something on this node: who, from where, with which exit code
    Cmdlog {
        /// Number of lines
        #[arg(short = 's', long, default_value_t = 300)]
        lines: usize,
        #[command(flatten)]
        form: Form,
    },
    /// Is this installation healthy? What is not, with the remedy. Exit code 1 when something fails or will fail
    Doctor {
        /// JSON lines: check, level (ok, warn, error), words, remedy
        #[arg(long)]
        json: bool,
        /// Only what is not good
        #[arg(short = 'q', long)]
        quiet: bool,
        /// Do not ask the other nodes
        #[arg(long)]
        offline: bool,
    },
    /// Pack logs, journals, configurations, states and facts of this node into one archive, without passwords and keys; of all modules
    /// when none is named
    Snapshot {
        #[command(flatten)]
        module: Module,
        /// Absolute path (.tar.gz); must not exist
        file: PathBuf,
    },
    /// Replace addresses, names of nodes and mail addresses in a snapshot by words that stand for them, the same for the same
    ///
    /// FILE.catalogue, which says what stands for what, stays here. Names of modules and what applications wrote besides is left as it is.
    Anonymise {
        /// The snapshot (.tar.gz)
        snapshot: PathBuf,
        /// The anonymous one; must not exist
        file: PathBuf,
    },
    /// Print the failover rules, whether each holds now, and what it waits for; of all modules when none is named
    Rules {
        #[command(flatten)]
        module: Module,
        /// JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Print what a transition would run, without running it
    Plan {
        #[command(flatten)]
        module: Module,
        /// State before
        #[arg(value_parser = valid_state)]
        from: String,
        /// State after
        #[arg(value_parser = valid_state)]
        to: String,
        /// start, stop, stopstart, stopwait, restart or swap
        #[arg(long, default_value = "start")]
        action: String,
        #[command(flatten)]
        form: Form,
    },
    /// Take the decisions of journals again and compare them with what was decided; works on any machine.
    /// Exit codes: 0 all the same; 1 the first difference is printed; 2 inputs are missing or damaged
    Replay {
        /// Journals of a module, oldest first (journal.1.jsonl journal.jsonl); each can be replayed alone
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only the verdict
        #[arg(short = 'q', long)]
        quiet: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Say in words why the module is in its state: rule, resources, peer, data, what would change it, and the last decisive inputs
    Explain {
        #[command(flatten)]
        module: Module,
        /// Journals to explain from, oldest first; default: those of the module on this node
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// As it was then: 2026-11-20T10:00:00Z, "2026-11-20 10:00:00" (here), or 10:00:00 (today)
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// JSON
        #[arg(long)]
        json: bool,
    },
}

/// The command's definition, for man pages and completions.
pub fn command() -> clap::Command {
    outcome::give(Cli::command(), &["run", "guard"])
}

fn asked_of(name: &str, verb: &Verb) -> Option<Asked> {
    Some(Asked { verb: name.to_owned(), module: verb.module_name() })
}

/// Parses the arguments; wrong usage exits with 100. With the verb whose outcome is wanted as JSON.
pub(crate) fn parse() -> Result<(Cli, Option<Asked>), ExitCode> {
    let parsed = command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        let asked = match &cli.verb {
            // These have a form of what they find, too.
            Verb::Init(answers) if answers.wants_outcome() => asked_of("init", &cli.verb),
            Verb::Boot { json: true, .. } if cli.verb.changes_something() => asked_of("boot", &cli.verb),
            Verb::Errd { json: true, .. } if cli.verb.changes_something() => asked_of("errd", &cli.verb),
            _ => outcome::asked(&matches),
        };
        Ok((cli, asked))
    });
    parsed.map_err(|error| complete::told(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_waited_for_and_planned() {
        for state in ["STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UP", "up"] {
            assert!(Cli::try_parse_from(["sk-module", "waitstate", "-m", "web", state]).is_ok(), "{state}");
            assert!(Cli::try_parse_from(["sk-module", "plan", "-m", "web", "WAIT", state]).is_ok(), "{state}");
        }
        assert!(Cli::try_parse_from(["sk-module", "plan", "-m", "web", "WAIT", "GREEN"]).is_err());
    }
}
