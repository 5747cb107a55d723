//! What can be asked of `sk-vip`, and which exit code answers?

use crate::{hold, oneshot, watch};
use clap::{Args, CommandFactory, Parser, Subcommand};
use net::NetError;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    show, remove: the address is not on this host
  2    no interface fits the address, or the named interface does not exist
  3    the address is already used by another host
  4    the address is already configured on this host by somebody else
  100  wrong usage, or a malformed specification
  111  a system call failed

Examples:
  sk-vip add 10.0.0.50 --lifetime 1m      claim it; it disappears after a minute unless added again
  sk-vip probe 10.0.0.50                  does another host use it?
  sk-vip show
  sk-vip remove 10.0.0.50";

/// Own virtual addresses: claim them without conflict, announce them, and give them up cleanly.
#[derive(Debug, Parser)]
#[command(name = "sk-vip", version, max_term_width = 80, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add an address: probe for conflicts, set it, announce it to the neighbours once
    #[command(after_help = EXIT_CODES)]
    Add(Add),
    /// Remove an address, resetting its TCP connections first
    #[command(after_help = EXIT_CODES)]
    Remove(Remove),
    /// List the addresses of this host, or tell about one
    #[command(after_help = EXIT_CODES)]
    Show(Show),
    /// Ask the network whether another host uses an address
    #[command(after_help = EXIT_CODES)]
    Probe(Probe),
    /// Add the addresses of a specification and keep them until the standard input ends (used by sk-module)
    #[command(after_help = EXIT_CODES)]
    Hold(Spec),
    /// Report carrier changes of the interfaces of a specification until the standard input ends (used by sk-module)
    #[command(after_help = EXIT_CODES)]
    Watch(Watch),
}

#[derive(Debug, Args)]
pub struct Add {
    /// The address, with or without prefix length: 10.0.0.50 or 10.0.0.50/24
    #[arg(value_parser = target)]
    pub address: Target,
    /// Interface; by default the one whose network contains the address
    #[arg(short, long)]
    pub interface: Option<String>,
    /// Time after which the kernel removes the address by itself, e.g. 30s; without it the address stays
    #[arg(short, long, value_parser = duration)]
    pub lifetime: Option<Duration>,
    /// Make it the source address of outgoing connections
    #[arg(long)]
    pub one_side: bool,
    /// Do not ask whether another host uses it
    #[arg(long)]
    pub no_probe: bool,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// The address; a prefix length given must match
    #[arg(value_parser = target)]
    pub address: Target,
    /// Only on this interface
    #[arg(short, long)]
    pub interface: Option<String>,
    /// Do not reset its TCP connections
    #[arg(long)]
    pub keep_connections: bool,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Show {
    /// Only this address
    pub address: Option<IpAddr>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Probe {
    /// The address
    pub address: IpAddr,
    /// Interface; by default the one whose network contains the address
    #[arg(short, long)]
    pub interface: Option<String>,
    /// Number of questions
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub count: u32,
    /// Time to wait for an answer to each, e.g. 40ms
    #[arg(short, long, default_value = "40ms", value_parser = duration)]
    pub wait: Duration,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Spec {
    /// File with the specification (JSON, see sk-vip in the architecture)
    #[arg(long)]
    pub spec: PathBuf,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// File with the specification (JSON)
    #[arg(long)]
    pub spec: PathBuf,
    /// Report the present values and end
    #[arg(long)]
    pub once: bool,
}

/// An address as typed, with an optional prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub ip: IpAddr,
    pub prefix: Option<u8>,
}

fn target(text: &str) -> Result<Target, String> {
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| "not an IPv4 or IPv6 address".to_owned())?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = prefix
        .map(|p| p.parse::<u8>().ok().filter(|p| *p <= longest))
        .map(|p| p.ok_or(format!("the prefix length must be a number from 0 to {longest}")))
        .transpose()?;
    Ok(Target { ip, prefix })
}

/// `40ms`, `1m 30s`, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|e| e.to_string()),
    }
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs with the arguments of the process.
pub fn main() -> ExitCode {
    let cli: Cli = match complete::arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let result = match cli.verb {
        Verb::Add(a) => logged(|| oneshot::add(&a)),
        Verb::Remove(a) => logged(|| oneshot::remove(&a)),
        Verb::Show(a) => oneshot::show(&a),
        Verb::Probe(a) => oneshot::probe(&a),
        Verb::Hold(a) => hold::hold(&a.spec),
        Verb::Watch(a) => watch::watch(&a.spec, a.once),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "sk-vip: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Does something that belongs into the log of commands.
fn logged(work: impl FnOnce() -> Result<u8, Failure>) -> Result<u8, Failure> {
    let roots = sys::roots::Roots::from_environment();
    // A module is named in the environment when its wrapper or one of its scripts calls.
    let module = std::env::var("SAFEMODULE").unwrap_or_default();
    let module = sys::roots::module_name(&module).unwrap_or_default();
    let logged = sys::commands::Command::start_own(&roots, "sk-vip", &module);
    let result = work();
    logged.end(result.as_ref().map_or_else(Failure::code, |code| *code));
    result
}

/// Why a command ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}: {1}")]
    Sys(String, io::Error),
    #[error(transparent)]
    Output(#[from] sys::failure::Failure),
    /// The reader of our events is gone.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Self::Net(NetError::NoInterface { .. } | NetError::UnknownInterface { .. }) => 2,
            Self::Net(NetError::Conflict { .. }) => 3,
            Self::Net(NetError::Foreign { .. }) => 4,
            Self::Net(_) | Self::Sys(..) => 111,
            Self::Usage(_) => 100,
            Self::Output(failure) => failure.code,
            Self::Closed => 0,
        }
    }
}

impl From<wire::lines::EmitError> for Failure {
    fn from(error: wire::lines::EmitError) -> Self {
        match error {
            wire::lines::EmitError::Closed => Self::Closed,
            wire::lines::EmitError::Io(e) => Self::Sys("cannot write an event".to_owned(), e),
            other => Self::Usage(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn addresses_and_durations_are_read_as_typed() {
        assert_eq!(target("10.0.0.50/24"), Ok(Target { ip: "10.0.0.50".parse().unwrap(), prefix: Some(24) }));
        assert_eq!(target("fd00::1").unwrap().prefix, None);
        assert!(target("10.0.0.50/33").unwrap_err().contains("0 to 32"));
        assert!(target("10.0.0").is_err());
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err());
    }
}
