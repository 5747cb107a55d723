//! What can be asked of `sk-top`, and which exit code answers?

use crate::draw::Theme;
use crate::screen;
use clap::{CommandFactory, Parser};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use sys::roots::Roots;

const AFTER: &str = "\
Pages: 1 overview of modules and nodes, 2 the module with its resources and their history, 3 its failover rules and why it is in its
state, 4 replication (or the shares of a farm) over the last minutes, 5 the log with a filter.
Keys: arrows choose; s start, t stop, w swap, r restart, each confirmed with y; / filters the log; ? help; q quit.
NO_COLOR in the environment switches colours off. When the output is no terminal, --once is meant.

Exit codes:
  0    done
  100  wrong usage
  111  a system call failed

Examples:
  sk-top
  sk-top --once
  sk-top --json | jq .state";

/// Show the modules of this node and of its peers, live
#[derive(Debug, Parser)]
#[command(name = "sk-top", version, max_term_width = 80, after_help = AFTER)]
struct Cli {
    /// Print one frame as plain text and end
    #[arg(long)]
    once: bool,
    /// Print the states as JSON lines and end
    #[arg(long)]
    json: bool,
    /// Take the mouse: clicks choose pages and modules, the wheel scrolls. The terminal's own selection then needs Shift
    #[arg(long)]
    mouse: bool,
}

/// An error with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Failure {
    what: String,
    source: io::Error,
}

impl Failure {
    pub fn sys(what: &str, source: io::Error) -> Self {
        Self { what: what.to_owned(), source }
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
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "sk-top: {failure}");
            ExitCode::from(111)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let roots = Roots::from_environment();
    if cli.once || cli.json || !io::stdout().is_terminal() {
        for line in screen::once(&roots, cli.json)? {
            writeln!(io::stdout(), "{line}").map_err(|e| Failure::sys("cannot write", e))?;
        }
        return Ok(());
    }
    let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    screen::run(&roots, &Theme { colour, zone: jiff::tz::TimeZone::system() }, cli.mouse)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
