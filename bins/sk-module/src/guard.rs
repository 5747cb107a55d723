//! Is the runner alive? The smallest supervisor, for hosts without systemd.

use crate::{Failure, exit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use sys::roots::Roots;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Notes whether the boot of the host was acted upon for this module, or is to be. Gone after a reboot.
pub(crate) fn remember_boot(roots: &Roots, module: &str, done: bool) -> Result<(), Failure> {
    let mark = booted(roots, module);
    let noted = if done {
        fs::create_dir_all(roots.module_run(module)).and_then(|()| fs::write(&mark, b""))
    } else {
        sys::files::remove(&mark)
    };
    noted.map_err(|e| Failure::system(mark.display(), e))
}

fn booted(roots: &Roots, module: &str) -> PathBuf {
    roots.module_run(module).join("booted")
}

/// Runs `sk-module run` again and again until it ends by itself (exit 0), cannot ever work (bad configuration, already running),
/// or this process is asked to end (SIGTERM is passed on).
pub(crate) fn guard(roots: &Roots, module: &str, boot: bool) -> Result<u8, Failure> {
    let program = sys::program::own().map_err(|e| Failure::system("own program file", e))?;
    let mut watched = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        watched.add(signal);
    }
    // Blocked, so that a signal between two waits is not lost; the runner sets its own mask.
    watched.thread_block().map_err(|e| Failure::system("signal mask", e))?;
    let mut delay = FIRST_DELAY;
    // A unit says `--boot` whenever it is started: by a command, or again after the death of this process. The host boots once.
    let mut boot = boot && !booted(roots, module).exists();
    remember_boot(roots, module, true)?;
    loop {
        let mut command = Command::new(&program);
        command.args(["run", module]);
        if std::mem::take(&mut boot) {
            command.arg("--boot");
        }
        let mut child = command.spawn().map_err(|e| Failure::system(program.display(), e))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|e| Failure::system("pid", e))?);
        let begun = sys::clock::monotonic_ms();
        let mut ending = false;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|e| Failure::system("waiting for the runner", e))? {
                break status;
            }
            match watched.wait() {
                Ok(Signal::SIGTERM | Signal::SIGINT) => {
                    ending = true;
                    // The child may have ended meanwhile; the next try_wait tells.
                    let _ = kill(pid, Signal::SIGTERM);
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(Failure::system("waiting for a signal", error)),
            }
        };
        if ending {
            return Ok(0);
        }
        match status.code() {
            Some(0) => return Ok(0),
            Some(code) if code == i32::from(exit::BAD_CONFIGURATION) || code == i32::from(exit::ALREADY_RUNNING) => {
                return Ok(u8::try_from(code).unwrap_or(exit::SYSTEM));
            }
            _ => {}
        }
        sys::warn!("sk-module: the runner of {module} ended ({status}); it is started again in {delay:?}");
        let lived = Duration::from_millis(sys::clock::monotonic_ms().saturating_sub(begun));
        if lived > LONGEST_DELAY {
            delay = FIRST_DELAY;
        }
        std::thread::sleep(delay);
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}
