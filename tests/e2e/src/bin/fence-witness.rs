//! A client that would notice two primaries: every line it prints has a time of the one clock that all hosts of a lab share.
//!
//! Started in a host's namespaces, but not among its processes, it goes on while the host is paused.

use clap::{Parser, Subcommand};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use sys::clock::monotonic_ms;

/// Writes, answers or asks, and says when.
#[derive(Parser)]
#[command(
    name = "fence-witness",
    after_help = "Ends when its stdin does. Exit codes: 0 done; 100 wrong usage; 111 a system call failed"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write a number durably, again and again; print the time at which each was acknowledged
    Write {
        /// File to write
        file: PathBuf,
    },
    /// Answer every connection with a name
    Serve {
        /// Port to listen on, on every address
        port: u16,
        /// What to answer
        name: String,
    },
    /// Connect again and again; print when each connection began that was answered, and the answer
    Ask {
        /// Address and port
        to: SocketAddr,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 100 } else { 0 });
        }
    };
    std::thread::spawn(|| {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {}
        std::process::exit(0);
    });
    match cli.verb {
        Verb::Write { file } => write(&file),
        Verb::Serve { port, name } => match serve(port, &name) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("fence-witness: port {port}: {error}");
                ExitCode::from(111)
            }
        },
        Verb::Ask { to } => ask(to),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// An error is no acknowledgement: the file is opened anew, since its mount may be another one now.
fn write(path: &Path) -> ExitCode {
    let mut number = 0_u64;
    loop {
        let opened = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
        if let Ok(file) = opened {
            loop {
                number += 1;
                // A mount of ours is meant, not the plain directory beneath: without it nobody acknowledges anything.
                let mounted = is_mounted(path);
                if !mounted
                    || file
                        .write_all_at(format!("{number:020}\n").as_bytes(), 0)
                        .and_then(|()| file.sync_data())
                        .is_err()
                {
                    break;
                }
                say(&format!("{} {number}", monotonic_ms()));
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the file is on a FUSE mount.
fn is_mounted(path: &Path) -> bool {
    const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type == FUSE_SUPER_MAGIC)
}

fn serve(port: u16, name: &str) -> std::io::Result<()> {
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        // The asker may have given up.
        let _ = stream.and_then(|mut s| s.write_all(name.as_bytes()));
    }
    Ok(())
}

fn ask(to: SocketAddr) -> ExitCode {
    loop {
        let began = monotonic_ms();
        let mut name = String::new();
        let answered = TcpStream::connect_timeout(&to, Duration::from_millis(500)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.read_to_string(&mut name)
        });
        if answered.is_ok() && !name.is_empty() {
            say(&format!("{began} {name}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
