//! Which processes end when a stop script names them? Those whose command has the name, and whose command line matches.

use crate::cli::Failure;
use regex::Regex;
use rustix::process::Signal;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use sys::pidfd::PidFd;
use sys::table::{self, Process};

/// The kernel's names are not longer.
const NAME_MAX: usize = 15;
/// Between SIGTERM and SIGKILL of the level `terminate`.
const GRACE: Duration = Duration::from_secs(10);

/// Prints the processes and ends them as `level` says. Exit code 1 when there is none.
pub fn kill(name: &str, argregex: Option<&str>, level: &str) -> Result<u8, Failure> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Failure::usage(format!("{name:?}: the name of a command has 1 to {NAME_MAX} bytes")));
    }
    let pattern = argregex.map(Regex::new).transpose().map_err(|e| Failure::usage(format!("-argregex: {e}")))?;
    let own = ancestors();
    let found: Vec<Process> = table::scan_named(|comm| comm == name)
        .map_err(|e| Failure::sys("cannot read the process table", e))?
        .into_iter()
        .filter(|p| is_meant(p, name, pattern.as_ref(), &own))
        .collect();
    let mut out = io::stdout().lock();
    for process in &found {
        // A reader that went away does not keep the processes alive.
        let _ = writeln!(out, "{:>7} {:<15} {}", process.pid, process.comm, process.command_line);
    }
    match level {
        "test" => {}
        "terminate" => terminate(&found)?,
        "9" => send(&handles(&found), Signal::KILL)?,
        _ => send(&handles(&found), Signal::TERM)?,
    }
    Ok(u8::from(found.is_empty()))
}

/// Ends processes: SIGTERM, and SIGKILL for those that are still there after a while.
pub fn terminate(processes: &[Process]) -> Result<(), Failure> {
    let handles = handles(processes);
    send(&handles, Signal::TERM)?;
    let deadline = Instant::now() + GRACE;
    let mut all_gone = true;
    for handle in &handles {
        let left = deadline.saturating_duration_since(Instant::now());
        all_gone &= handle.wait(left).map_err(|e| Failure::sys("cannot wait for a process", e))?;
    }
    if all_gone { Ok(()) } else { send(&handles, Signal::KILL) }
}

fn send(handles: &[PidFd], signal: Signal) -> Result<(), Failure> {
    for handle in handles {
        handle.signal(signal).map_err(|e| Failure::sys("cannot signal a process", e))?;
    }
    Ok(())
}

fn handles(processes: &[Process]) -> Vec<PidFd> {
    processes.iter().filter_map(handle).collect()
}

/// Never this process, its ancestors' shells included: a script's own command line may contain the words it looks for.
fn is_meant(process: &Process, name: &str, pattern: Option<&Regex>, own: &[i32]) -> bool {
    process.comm == name
        && process.pid != 1
        && !own.contains(&process.pid)
        && pattern.is_none_or(|p| p.is_match(&process.command_line))
}

/// This process and those that started it.
pub fn ancestors() -> Vec<i32> {
    let mut pids = vec![std::process::id().cast_signed()];
    while let Some(parent) = pids.last().and_then(|pid| table::read(*pid)).map(|p| p.parent) {
        if parent <= 1 || pids.contains(&parent) {
            break;
        }
        pids.push(parent);
    }
    pids
}

/// A handle of exactly this process: its number may have been given to another one since.
fn handle(process: &Process) -> Option<PidFd> {
    let handle = PidFd::open(process.pid).ok().flatten()?;
    table::read(process.pid).is_some_and(|now| now.start == process.start).then_some(handle)
}
