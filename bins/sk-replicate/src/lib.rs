//! What does `sk-replicate` accept, and which exit code says what?

mod run;
mod show;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the specification, the key or the state directory cannot be used (run)
  2    no such module, or its state cannot be read (status, lineage)
  100  wrong usage
  111  a system call failed

Example:
  sk-replicate status -m mirror
  sk-replicate lineage -m mirror --json";

/// Replicates the directories of a module to the other node, synchronously.
#[derive(Parser)]
#[command(name = "sk-replicate", version, about, after_help = EXIT_CODES)]
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
    Cli::command()
}

/// Runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are answers, everything else is wrong usage.
            let code = if e.use_stderr() { 100 } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let outcome = match cli.command {
        Command::Run(run) => run::run(&run),
        Command::Status(show) => show::status(&show.module, show.json),
        Command::Lineage(show) => show::lineage(&show.module, show.json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is_broken_pipe() => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sk-replicate: {e}");
            ExitCode::from(e.code)
        }
    }
}

/// A sentence and an exit code.
#[derive(Debug)]
struct Trouble {
    code: u8,
    text: String,
    broken_pipe: bool,
}

impl Trouble {
    fn new(code: u8, text: impl ToString) -> Self {
        Self { code, text: text.to_string(), broken_pipe: false }
    }

    fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self { code: 111, text: error.to_string(), broken_pipe: error.kind() == std::io::ErrorKind::BrokenPipe }
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
}
