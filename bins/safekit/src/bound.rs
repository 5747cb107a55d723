//! How long may a command take? `boundcmd SECONDS COMMAND ARGS…`: its exit code, 2 when the time is over.

use crate::cli::Failure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;
use sys::pidfd::PidFd;
use sys::table;

/// Exit code when the time is over.
const TIME_IS_OVER: u8 = 2;
/// How long the command may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

const USAGE: &str = "usage: boundcmd SECONDS COMMAND [ARGUMENTS]";

pub fn run(arguments: &[String], variables: &[(&str, String)]) -> Result<u8, Failure> {
    let [seconds, program, rest @ ..] = arguments else { return Err(Failure::usage(USAGE)) };
    let limit = seconds
        .parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| Failure::usage(format!("boundcmd: {seconds:?} is no number of seconds; {USAGE}")))?;
    let mut command = Command::new(program);
    command.args(rest).envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            let code = if e.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            return Err(Failure::new(code, format!("boundcmd: cannot run {program}: {e}")));
        }
    };
    let failed = |e| Failure::sys("boundcmd: cannot wait for the command", e);
    let pid = child.id() as i32;
    let ended = match PidFd::open(pid).map_err(failed)? {
        Some(fd) => fd.wait(limit).map_err(failed)?,
        None => true,
    };
    if !ended {
        end(pid);
        child.wait().map_err(failed)?;
        return Err(Failure::new(
            TIME_IS_OVER,
            format!("boundcmd: {program} took longer than {seconds} s and was ended"),
        ));
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Ends a command with everything it started, first politely. Its process group is that of the calling script, so that the
/// script's own end reaches it too; its descendants are therefore found in the process table.
fn end(pid: i32) {
    let family = table::descendants(pid);
    let fds: Vec<PidFd> = family.iter().filter_map(|p| PidFd::open(*p).ok().flatten()).collect();
    for process in &family {
        // Gone meanwhile is what is wanted.
        let _ = kill(Pid::from_raw(*process), Signal::SIGTERM);
    }
    let deadline = sys::clock::monotonic() + GRACE;
    for fd in &fds {
        let left = deadline.saturating_sub(sys::clock::monotonic());
        if !fd.wait(left).unwrap_or(true) {
            let _ = fd.signal(rustix::process::Signal::KILL);
        }
    }
}
