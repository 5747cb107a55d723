//! The command line: verbs, options, help.

use crate::{Failure, exit};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

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

Examples:
  sk-module check /etc/sk/modules/postgresql/conf/userconfig.xml
  sk-module config -m postgresql --id 1
  sk-module prim -m postgresql --wait
  sk-module state -m postgresql --watch";

#[derive(Debug, Parser)]
#[command(name = "sk-module", version, about = "Run and command a highly available module", after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Module {
    /// Name of the module; default: the environment variable SAFEMODULE
    #[arg(short = 'm', long = "module", value_name = "AM")]
    module: Option<String>,
}

impl Module {
    pub fn is_named(&self) -> bool {
        self.module.is_some() || std::env::var_os("SAFEMODULE").is_some()
    }

    pub fn name(&self) -> Result<String, Failure> {
        let name = self.module.clone().or_else(|| std::env::var("SAFEMODULE").ok()).ok_or_else(|| {
            Failure::new(exit::USAGE, "which module?")
                .hint("name it with -m AM, or set SAFEMODULE; sk-module list shows them")
        })?;
        valid_module(&name).map_err(|message| Failure::new(exit::USAGE, message))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Automatic {
    /// Automatic origin: who asks. Counts for maxloop; without it the command is the administrator's and resets the counter
    #[arg(short = 'i', long = "identity", value_name = "NAME")]
    pub identity: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the module's runner in the foreground (for systemd or another supervisor)
    Run {
        /// Name of the module
        #[arg(value_parser = valid_module)]
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
        #[arg(value_parser = valid_module)]
        module: String,
        /// The host has just booted: passed to the first runner
        #[arg(long)]
        boot: bool,
    },
    /// Start the runners of all applied modules, at the boot of the host
    Boot,
    /// Check a userconfig.xml (and the cluster it will run in) and print every error and warning
    Check {
        /// The userconfig.xml to check
        file: PathBuf,
        /// The cluster.xml to check against; default: the one in /etc/sk, when present
        #[arg(long, value_name = "FILE")]
        cluster: Option<PathBuf>,
    },
    /// Apply the editable configuration of a stopped module; nothing changes when it has errors
    Config {
        #[command(flatten)]
        module: Module,
        /// Number of the module, the same on all nodes; ports derive from it. Default: the one applied before, else 1
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
        id: Option<u16>,
    },
    /// List the modules with their ids and states
    List {
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
        #[arg(long)]
        fullsync: bool,
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
        /// Wait for a stable state
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
    },
    /// Allow or forbid automatic failover; give it on both nodes
    Failover {
        #[command(flatten)]
        module: Module,
        /// on or off
        value: OnOff,
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
    },
    /// Take the decisions of a journal again and compare them with what was decided
    Replay {
        /// A module's journal.jsonl
        file: PathBuf,
        /// Only the verdict
        #[arg(short = 'q', long)]
        quiet: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

/// The command's definition, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments; wrong usage exits with 100.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // A help text that cannot be written is a closed pipe: nobody reads it.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
    })
}

fn valid_module(name: &str) -> Result<String, String> {
    if sys::roots::is_module_name(name) {
        Ok(name.to_owned())
    } else {
        Err(format!("{name:?} is no module name: use letters, digits, '_', '-' and '.'"))
    }
}

fn valid_state(name: &str) -> Result<String, String> {
    let upper = name.to_ascii_uppercase();
    if ["STOP", "WAIT", "ALONE", "PRIM", "SECOND"].contains(&upper.as_str()) {
        Ok(upper)
    } else {
        Err(format!("{name:?} is no state of a mirror: STOP, WAIT, ALONE, PRIM, SECOND"))
    }
}
