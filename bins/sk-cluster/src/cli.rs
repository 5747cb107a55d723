//! The command line: verbs, options, help.

use crate::hosts::Hosts;
use crate::{Failure, bundle, daemon, keys, modules, on, report, roles, serve};
use clap::{Args, CommandFactory, Parser, Subcommand};
use complete::outcome;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use sys::roots::{Roots, module_name};
use wire::role::Role;

const AFTER: &str = "\
HOSTS is \"*\" (all nodes of the cluster) or a list: node1,node2 or addresses,
with :PORT where it is not the one of cluster.xml (4800).

Who may do what (role of the key):
  monitor  read: state, log, history, rules, explain, confinfo, level, …
  control  also: start, stop, prim, second, swap, restart, errd, checker, …
  admin    also: config, push, keys, roles, everything else
The key of the cluster is a node's and may do everything. What a key did is in
the log of commands of each node: sk-module cmdlog.

Exit codes:
  0    done, on all hosts
  1    refused, or the command failed on a host, or nodes differ
  2    a host was not reached, or did not answer to the end
  3    the key may not do this
  100  wrong usage
  111  a system call failed
Of several, the highest of 1 to 3.

Examples:
  sk-cluster create node1=10.0.0.1 node2=10.0.0.2
  sk-cluster export | ssh node2 sk-cluster import
  sk-cluster confinfo
  sk-cluster push -m web
  sk-cluster on '*' sk-module state
  sk-cluster on node2 sk-module start -m web --wait
  sk-cluster key renew
  sk-cluster role add ops control --output ops.key
  sk-cluster --key ops.key on 10.0.0.1,10.0.0.2 sk-module swap -m web";

/// Nodes of a cluster together: configuration, keys, roles, commands on all.
#[derive(Debug, Parser)]
#[command(name = "sk-cluster", version, max_term_width = 80, after_help = AFTER)]
pub(crate) struct Cli {
    /// Key file of an operator; default: SK_KEY, else the cluster's key
    #[arg(long, value_name = "FILE", global = true)]
    pub key: Option<PathBuf>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct On {
    /// "*", or node1,node2, or addresses
    pub hosts: String,
    /// One JSON line a host: node, address, exit, stdout, stderr, error
    #[arg(long)]
    pub json: bool,
    /// Give up on a host after this time; its command is ended
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<humantime::Duration>,
    /// A command of sk and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a command of sk on several nodes at the same time
    On(On),
    /// Make a cluster of these nodes: cluster.xml, and a key if there is none
    Create {
        /// NAME=ADDRESS of each node; without a name it is node1, node2, …
        #[arg(required = true, num_args = 2.., value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Check a cluster.xml and apply it on this node
    Config {
        /// The file; default: check and apply the present one again
        file: Option<PathBuf>,
        /// lock: refuse later changes; unlock: allow them again
        #[arg(value_parser = ["lock", "unlock"])]
        lock: Option<String>,
    },
    /// Check a cluster.xml without applying it
    Confcheck {
        /// The file; default: the present one
        file: Option<PathBuf>,
        /// What was found as JSON lines: severity, file, line, column, message, help
        #[arg(long)]
        json: bool,
    },
    /// Which configuration and key has each node? Exit code 1 when they differ
    Confinfo {
        /// JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Take the cluster's configuration and key of this node away
    Deconfig,
    /// Modules of all nodes, with their states
    State {
        /// JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Bring this node's configuration of the cluster, or of a module, to others
    Push {
        /// Default: all other nodes
        #[arg(short = 'H', long, value_name = "HOSTS")]
        hosts: Option<String>,
        /// The module whose conf and bin are pushed; applied where it is here
        #[arg(short = 'm', long, value_name = "AM", value_parser = module_name)]
        module: Option<String>,
        /// Only the files: do not apply them
        #[arg(long, requires = "module")]
        only_files: bool,
    },
    /// Print configuration and key of the cluster, for `import` on another node
    Export,
    /// Take what `export` printed from stdin
    Import {
        /// Also when this node has another key
        #[arg(long)]
        replace_key: bool,
    },
    /// The cluster's key: renew it while everything runs, or show its state
    #[command(subcommand)]
    Key(Key),
    /// Keys of operators, and what they may do
    #[command(subcommand)]
    Role(RoleVerb),
    /// Answer other nodes and operators, in the foreground
    Serve {
        /// Only at this address; several are allowed. Default: all
        #[arg(long, value_name = "ADDRESS")]
        listen: Vec<IpAddr>,
        /// A newline is written to this descriptor once it listens
        #[arg(long, value_name = "N")]
        ready_fd: Option<i32>,
    },
    /// Start the daemon of this node if it does not run
    Up,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Give all nodes a new key; heartbeats, replication and farms go on
    Renew,
    /// Fingerprints of the keys that each node uses and accepts
    Status {
        /// JSON lines
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleVerb {
    /// Make a key for an operator and bring it to all nodes
    Add {
        /// Name of the operator
        name: String,
        /// monitor, control or admin
        #[arg(value_parser = role)]
        role: Role,
        /// Where the operator's key file is written; must not exist
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Operators and their roles
    List {
        /// JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Take an operator's key away on all nodes
    Remove {
        /// Name of the operator
        name: String,
    },
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "roles are monitor, control and admin".to_owned())
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    outcome::give(Cli::command(), &["export", "serve"])
}

/// Runs with the arguments of the process.
pub fn main() -> ExitCode {
    complete::answer(command);
    let (cli, asked) = match outcome::parse::<Cli>(command()) {
        Ok(parsed) => parsed,
        Err(error) => return complete::told(&error),
    };
    if asked.is_some() {
        sys::outcome::begin();
    }
    let roots = Roots::from_environment();
    let logged = cli
        .verb
        .changes_something()
        .then(|| sys::commands::Command::start_own(&roots, "sk-cluster", cli.verb.module()));
    let result = run(&roots, cli);
    if let Some(logged) = logged {
        logged.end(result.as_ref().map_or_else(|failure| failure.code, |code| *code));
    }
    if let Some(asked) = asked {
        sys::outcome::end(&asked.verb, asked.module.as_deref(), &result);
    }
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            sys::warn!("sk-cluster: {}", failure.message);
            if let Some(hint) = &failure.hint {
                sys::warn!("  {hint}");
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(roots: &Roots, cli: Cli) -> Result<u8, Failure> {
    let hosts = Hosts { roots, key: cli.key.as_deref() };
    match cli.verb {
        Verb::On(asked) => on::on(&hosts, &asked),
        Verb::Create { nodes } => bundle::create(roots, &nodes),
        Verb::Config { file, lock } => bundle::config(roots, file.as_deref(), lock.as_deref()),
        Verb::Confcheck { file, json } => bundle::confcheck(roots, file.as_deref(), json),
        Verb::Confinfo { json } => report::confinfo(&hosts, json),
        Verb::Deconfig => bundle::deconfig(roots),
        Verb::State { json } => report::state(&hosts, json),
        Verb::Push { hosts: to, module: None, .. } => bundle::push(&hosts, to.as_deref()),
        Verb::Push { hosts: to, module: Some(module), only_files } => {
            modules::push(&hosts, to.as_deref(), &module, only_files)
        }
        Verb::Export => bundle::export(roots),
        Verb::Import { replace_key } => bundle::import(roots, replace_key),
        Verb::Key(Key::Renew) => keys::renew(&hosts),
        Verb::Key(Key::Status { json }) => keys::status(&hosts, json),
        Verb::Role(RoleVerb::Add { name, role, output }) => roles::add(&hosts, &name, role, &output),
        Verb::Role(RoleVerb::List { json }) => roles::list(roots, json),
        Verb::Role(RoleVerb::Remove { name }) => roles::remove(&hosts, &name),
        Verb::Serve { listen, ready_fd } => serve::serve(roots, &listen, ready_fd),
        Verb::Up => daemon::up(roots).map(|()| 0),
    }
}

impl Verb {
    /// What belongs into the log of commands of this node. `on` is logged where the command runs.
    fn changes_something(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Config { .. }
            | Self::Deconfig
            | Self::Push { .. }
            | Self::Export
            | Self::Import { .. }
            | Self::Up => true,
            Self::Key(key) => matches!(key, Key::Renew),
            Self::Role(role) => !matches!(role, RoleVerb::List { .. }),
            _ => false,
        }
    }

    fn module(&self) -> &str {
        match self {
            Self::Push { module: Some(module), .. } => module,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        let cli = Cli::try_parse_from(["sk-cluster", "on", "*", "sk-module", "state", "-m", "web", "--json"]).unwrap();
        let Verb::On(on) = cli.verb else { panic!("{cli:?}") };
        assert_eq!((on.json, on.command.len()), (false, 5));
        assert!(Cli::try_parse_from(["sk-cluster", "create", "10.0.0.1"]).is_err());
        assert!(Cli::try_parse_from(["sk-cluster", "push", "-m", "../x"]).is_err());
    }
}
