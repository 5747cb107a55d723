//! What can be asked of `sk-check`, and which exit code answers?

use crate::spec::Target;
use crate::{oneshot, run, trial};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use sys::roots::module_name;

const EXITS: &str = "Exit codes:
  0    up; run: ended by order, or because the one who started it is gone
  1    down, with the reason on stderr; run: the specification cannot be read or is wrong
  2    custom: the checker has reported nothing
  100  wrong usage
  111  a system call failed";

const EXAMPLES: &str = "Examples:
  sk-check tcp 10.0.0.50:5432 --timeout 2s
  sk-check ping gateway.example && echo reachable
  sk-check intf eth0
  sk-check module web --at 10.0.0.51:9010
  sk-check custom --for 30s -- ./my_checker 10";

/// Check a service, a host, a link, an address or another module, once or for a module that runs.
#[derive(Debug, Parser)]
#[command(name = "sk-check", version, max_term_width = 80, after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check until stdin ends: orders as JSON lines on stdin, events as JSON lines on stdout
    #[command(after_help = EXITS)]
    Run(RunArgs),
    /// Whether a TCP connection is accepted
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Tcp(Tcp),
    /// Whether a host answers an ICMP echo (needs root, or CAP_NET_RAW)
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Ping(Ping),
    /// Whether an interface, given by its name or by one of its addresses, has its link
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Intf(Intf),
    /// Whether an address is configured on this host
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Ip(Ip),
    /// Whether another module is ready: asks its sk-health server
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Module(Module),
    /// Run a custom checker without a module and print what it reports
    #[command(after_help = EXITS, after_long_help = format!("{EXITS}\n\n{EXAMPLES}"))]
    Custom(Custom),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// File that holds the checkers as one JSON object
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Longest wait for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = period)]
    pub timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
struct Tcp {
    /// Address or name and port; an IPv6 address in brackets
    #[arg(value_name = "HOST:PORT", value_parser = host_and_port)]
    to: (String, u16),
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Ping {
    /// Address or name
    host: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Intf {
    /// Name of the interface, or one of its addresses
    interface: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Ip {
    /// The address
    address: IpAddr,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Module {
    /// Name of the other module
    #[arg(value_parser = module_name)]
    module: String,
    /// Its server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9010", value_parser = host_and_port)]
    at: (String, u16),
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Custom {
    /// End it after this time; without, it is ended at its first report
    #[arg(long = "for", value_name = "TIME", value_parser = period)]
    pub lasting: Option<Duration>,
    /// How long the first report may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = period)]
    pub timeout: Duration,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// The executable and its own arguments; module and resource are put in front of them, as a module does
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

fn period(text: &str) -> Result<Duration, String> {
    let time = text.parse::<humantime::Duration>().map_err(|e| format!("{e}; write for instance 5s or 500ms"))?;
    if time.is_zero() || *time > Duration::from_hours(24) {
        return Err("write a time from 1ms to 24h".to_owned());
    }
    Ok(*time)
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || "write HOST:PORT, for instance 10.0.0.1:80 or [2001:db8::1]:80".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    let port = port.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
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
        Verb::Tcp(args) => {
            let (host, port) = args.to;
            let name = format!("{host}:{port}");
            oneshot::probe("tcp", &name, &Target::Tcp { host, port }, &args.common)
        }
        Verb::Ping(args) => oneshot::probe("ping", &args.host.clone(), &Target::Ping { host: args.host }, &args.common),
        Verb::Module(args) => {
            let (host, port) = args.at;
            let target = Target::Module { module: args.module.clone(), host, port };
            oneshot::probe("module", &args.module, &target, &args.common)
        }
        Verb::Intf(args) => oneshot::interface(&args.interface, args.json),
        Verb::Ip(args) => oneshot::address(args.address, args.json),
        Verb::Custom(args) => trial::run(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            sys::warn!("sk-check: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        let to = |text| host_and_port(text);
        assert_eq!(to("10.0.0.1:80"), Ok(("10.0.0.1".to_owned(), 80)));
        assert_eq!(to("[fd00::1]:80"), Ok(("fd00::1".to_owned(), 80)));
        for wrong in ["10.0.0.1", "fd00::1:80", "[fd00::1:80", ":80", "x:0", "x:70000", "x:"] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
        assert!(period("0s").is_err() && period("5").is_err() && period("5s").is_ok());
    }
}
