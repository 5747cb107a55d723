//! `cargo run -p docs -- generate|check`: man pages and completions in the source tree.

use clap::{Parser, Subcommand};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "docs",
    about = "Writes man pages and completions from the definitions of the commands",
    after_help = "Exit codes: 0 done; 1 check found stale files; 100 wrong usage; 111 a file cannot be read or written.\n\
                  Example: cargo run -p docs -- generate"
)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write what is missing or differs, remove what is left over
    Generate,
    /// Say what generate would change, and exit with 1 when there is anything
    Check,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe: nobody reads it.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 100 } else { 0 });
        }
    };
    let root = docs::root();
    let result = match cli.what {
        What::Generate => docs::write(&root).map(|paths| (paths, 0)),
        What::Check => docs::stale(&root).map(|paths| {
            let code = u8::from(!paths.is_empty());
            (paths, code)
        }),
    };
    match result {
        Ok((paths, code)) => {
            list(&paths);
            if code != 0 {
                eprintln!("docs: these files are stale; write them with: cargo run -p docs -- generate");
            }
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("docs: {}: {error}; check the permissions of man and completions", root.display());
            ExitCode::from(111)
        }
    }
}

fn list(paths: &[PathBuf]) {
    use io::Write as _;
    let mut out = io::stdout().lock();
    for path in paths {
        if writeln!(out, "{}", path.display()).is_err() {
            return;
        }
    }
}
