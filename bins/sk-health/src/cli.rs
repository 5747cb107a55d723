//! What can be asked of `sk-health`, and which exit code answers?

use crate::metrics;
use crate::readiness::Module;
use crate::serve;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use sys::roots::{Roots, module_name};

const EXIT_CODES: &str = "\
Exit codes:
  0    done; check: the module is ready here
  1    check: the module is not ready here
  100  wrong usage
  111  a system call failed

Examples:
  sk-health serve
  sk-health serve --listen 10.0.0.1:9010 --metrics 127.0.0.1:9011
  sk-health metrics
  sk-health check web && echo 'clients may come'
  curl -f http://node1:9010/var/modules/web/ready.txt";

/// Tell load balancers and monitoring systems how the modules of this node are.
#[derive(Debug, Parser)]
#[command(name = "sk-health", version, max_term_width = 80, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answer over HTTP until ended: /var/modules/AM/ready.txt is 200 when the module AM is ready, else 404
    #[command(after_help = EXIT_CODES)]
    Serve(Serve),
    /// Say whether a module is ready on this node: PRIM, ALONE or UP, and Ready
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Print what GET /metrics would answer: the modules of this node in the text format of Prometheus
    #[command(after_help = EXIT_CODES)]
    Metrics,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Address and port; several are allowed
    #[arg(long, value_name = "ADDRESS:PORT", default_values = ["0.0.0.0:9010", "[::]:9010"])]
    pub listen: Vec<SocketAddr>,
    /// Address and port at which GET /metrics is answered, for Prometheus; several are allowed. Without it, nowhere
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Vec<SocketAddr>,
    /// Connections at the same time; for one more, the oldest is closed
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub connections: u16,
    /// Time a client has for its question and for taking the answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub patience: u64,
    /// A newline is written to this descriptor once the sockets listen
    #[arg(long, value_name = "N")]
    pub ready_fd: Option<i32>,
}

impl Serve {
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

#[derive(Debug, Args)]
pub struct Check {
    /// The module
    #[arg(value_parser = module_name)]
    pub module: String,
    /// Print what `state.json` of the server says
    #[arg(long)]
    pub json: bool,
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
    let roots = Roots::from_environment();
    let result = match cli.verb {
        Verb::Serve(serve) => serve::serve(&roots, &serve).map(|()| 0),
        Verb::Check(c) => check(&roots, &c),
        Verb::Metrics => print(&metrics::text(&roots)).map(|()| 0),
    };
    result.map_or_else(
        |(what, error)| {
            sys::warn!("sk-health: {what}: {error}");
            ExitCode::from(111)
        },
        ExitCode::from,
    )
}

/// What failed, and how.
pub type Failure = (String, io::Error);

fn check(roots: &Roots, check: &Check) -> Result<u8, Failure> {
    let module = Module::look(roots, &check.module);
    let line = match &module {
        Some(module) if check.json => module.public(),
        Some(module) => format!("{}: {}", check.module, module.words()),
        None if check.json => {
            serde_json::json!({"module": check.module, "state": "STOP", "readiness": "NotReady"}).to_string()
        }
        None => format!("{}: STOP NotReady", check.module),
    };
    print(&format!("{line}\n"))?;
    Ok(u8::from(!module.is_some_and(|m| m.is_ready())))
}

/// A reader that went away is no error.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(("cannot write the result".into(), error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        let cli = Cli::try_parse_from(["sk-health", "serve"]).unwrap();
        let Verb::Serve(serve) = cli.verb else { panic!("{cli:?}") };
        assert_eq!(serve.listen.iter().map(SocketAddr::port).collect::<Vec<_>>(), [9010, 9010]);
        assert!(serve.metrics.is_empty(), "what names the inside is served where somebody says so");
        assert!(Cli::try_parse_from(["sk-health", "check", "../etc"]).is_err());
    }
}
