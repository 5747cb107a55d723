//! What can be asked of `sk-farmfilter`, and which exit code answers?

use crate::{oneshot, run};
use clap::{Args, CommandFactory, Parser, Subcommand};
use net::NetError;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    show, who: no farm filter runs; run, clean: one runs already
  2    who: nobody owns the client now
  5    run, plan: the kernel or nft refused the rules
  100  wrong usage, or a malformed specification
  111  a system call failed

Examples:
  sk-farmfilter show -m AM                 members, shares, counters
  sk-farmfilter who 192.0.2.7:40000        which node serves this client?
  sk-farmfilter plan --spec spec.json      the rules as nft reads them
  sk-farmfilter clean -m AM                after a crash: remove what is left";

/// Share the clients of one address among all nodes of a farm, inside the kernel and without a balancer.
#[derive(Debug, Parser)]
#[command(name = "sk-farmfilter", version, max_term_width = 80, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Be a node of a farm until the standard input ends (used by sk-module)
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Show members, shares and counters of the farms of this host
    #[command(after_help = EXIT_CODES)]
    Show(Show),
    /// Tell which node owns a client
    #[command(after_help = EXIT_CODES)]
    Who(Who),
    /// Print the nftables rules of a specification
    #[command(after_help = EXIT_CODES)]
    Plan(PlanArguments),
    /// Remove the rules and addresses that a killed node left behind
    #[command(after_help = EXIT_CODES)]
    Clean(Clean),
}

#[derive(Debug, Args)]
pub struct Run {
    /// File with the specification (JSON, see sk-farmfilter in the architecture)
    #[arg(long)]
    pub spec: PathBuf,
    /// Write a newline to this descriptor when orders are taken
    #[arg(long, value_name = "N")]
    pub ready_fd: Option<i32>,
}

#[derive(Debug, Args)]
pub struct Show {
    /// Only this module
    #[arg(short, long)]
    pub module: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Who {
    /// The client: 192.0.2.7:40000, 192.0.2.7, [fd00::7]:40000 or fd00::7
    #[arg(value_parser = client)]
    pub client: Client,
    /// Only this module
    #[arg(short, long)]
    pub module: Option<String>,
    /// Only this group
    #[arg(short, long)]
    pub group: Option<String>,
    /// The identification field of a datagram, for rules with on_ipid
    #[arg(long)]
    pub ipid: Option<u16>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// File with the specification (JSON)
    #[arg(long)]
    pub spec: PathBuf,
    /// Print a JSON line: module, and rules as the text for nft
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Clean {
    /// The module
    #[arg(short, long)]
    pub module: String,
    /// Print a JSON line
    #[arg(long)]
    pub json: bool,
}

/// Who asks for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

fn client(text: &str) -> Result<Client, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Client { ip, port: None });
    }
    match text.parse::<std::net::SocketAddr>() {
        Ok(at) => Ok(Client { ip: at.ip(), port: Some(at.port()) }),
        Err(_) => {
            Err("neither an address nor an address with a port, as 192.0.2.7:40000 or [fd00::7]:40000".to_owned())
        }
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
        Verb::Run(a) => run::run(&a.spec, a.ready_fd),
        Verb::Show(a) => oneshot::show(&a),
        Verb::Who(a) => oneshot::who(&a),
        Verb::Plan(a) => oneshot::plan(&a),
        Verb::Clean(a) => {
            let roots = sys::roots::Roots::from_environment();
            let logged = sys::commands::Command::start_own(&roots, "sk-farmfilter", &a.module);
            let result = oneshot::clean(&a);
            logged.end(result.as_ref().map_or_else(Failure::code, |code| *code));
            result
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "sk-farmfilter: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Why a command, or an order, ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}: {1}")]
    Sys(String, io::Error),
    /// nft's words.
    #[error("nft refused the rules: {0}")]
    Rules(String),
    #[error("a farm filter of this module runs already (it answers on {0}); stop its module first")]
    Running(PathBuf),
    #[error(transparent)]
    Output(#[from] sys::failure::Failure),
    /// The reader of our events is gone.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Self::Running(_) => 1,
            Self::Rules(_) => 5,
            Self::Net(_) | Self::Sys(..) => 111,
            Self::Usage(_) => 100,
            Self::Output(failure) => failure.code,
            Self::Closed => 0,
        }
    }

    /// How to mend it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Net(NetError::NoInterface { .. } | NetError::UnknownInterface { .. }) => {
                "check <interface name> and the addresses of this host (ip address)"
            }
            Self::Net(NetError::Conflict { .. }) => "find the other machine by its MAC and withdraw the address there",
            Self::Net(NetError::Foreign { .. }) => "remove the address from the network configuration of this host",
            Self::Rules(_) => {
                "nftables with netdev ingress, jhash and socket matching is needed: see the kernel's configuration (CONFIG_NFT_*, CONFIG_NETFILTER_INGRESS)"
            }
            _ => "",
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
    fn clients_are_read_as_typed() {
        let ip = |text: &str| text.parse().unwrap();
        assert_eq!(client("192.0.2.7:40000"), Ok(Client { ip: ip("192.0.2.7"), port: Some(40000) }));
        assert_eq!(client("[fd00::7]:80"), Ok(Client { ip: ip("fd00::7"), port: Some(80) }));
        assert_eq!(client("fd00::7"), Ok(Client { ip: ip("fd00::7"), port: None }));
        assert!(client("here").is_err());
    }
}
