//! Who carries the heartbeats of this node, and how does a successor start?
//!
//! The carrier holds the lock of the directory from its start to its end. Whoever finds no carrier takes the lock and starts
//! one, which inherits it: so there is one at a time, and its death frees the place at once, however it died. One that
//! hangs is killed by those who notice.

use rustix::process::Signal;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use sys::failure::Failure;
use sys::lock::LockFile;
use sys::pidfd::PidFd;

/// A carrier that was started and cannot be reached for so long does not come any more.
const START_MS: u64 = 2_000;

/// The place of the carrier on this node.
pub(crate) struct Place {
    directory: PathBuf,
    /// The carrier that this process started, and when.
    started: Option<(Child, u64)>,
    complained: bool,
}

/// The socket of the carrier.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("carrier")
}

/// Makes the directory, for ourselves only.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

impl Place {
    pub fn new(directory: PathBuf) -> Result<Self, Failure> {
        prepare(&directory).map_err(|e| Failure::system(directory.display(), e))?;
        Ok(Self { directory, started: None, complained: false })
    }

    pub fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// Starts a carrier unless somebody else is one, or is starting one. Failures are told once, and tried again.
    pub fn fill(&mut self, now: u64) {
        self.bury(now);
        if self.started.is_some() {
            return;
        }
        match self.start() {
            Ok(None) => {}
            Ok(Some(child)) => {
                self.started = Some((child, now));
                self.complained = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    let place = self.directory.display();
                    sys::warn!("sk-heartbeat: no carrier can be started in {place}: {error}; trying again");
                }
            }
        }
    }

    fn start(&self) -> io::Result<Option<Child>> {
        let lock = match LockFile::open(&self.directory.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                prepare(&self.directory)?;
                LockFile::open(&self.directory.join("lock"))?
            }
            other => other?,
        };
        if !lock.try_exclusive()? {
            return Ok(None);
        }
        let fd = lock.as_raw_fd();
        // This very program, also when the file was replaced by another version meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sk-heartbeat").args(["carry", "--dir"]).arg(&self.directory).args(["--lock-fd", &fd.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // SAFETY: setsid, close_range and fcntl are async-signal-safe; `fd` stays open in the parent until after the spawn.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                // Nothing of the module may be held open by a process that outlives it: not its lock, not its pipes.
                if libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) < 0
                    || libc::fcntl(fd, libc::F_SETFD, 0) < 0
                {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command.spawn().map(Some)
    }

    /// Takes leave of a carrier of ours that has ended, or that does not come up.
    fn bury(&mut self, now: u64) {
        let Some((child, since)) = &mut self.started else { return };
        if now.saturating_sub(*since) > START_MS {
            // ESRCH: it has just ended. One that serves would have been reached.
            let _ = child.kill();
        }
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                let fast = now.saturating_sub(*since) < START_MS;
                if fast && !status.success() && !std::mem::replace(&mut self.complained, true) {
                    sys::warn!("sk-heartbeat: the carrier that was started ended with {status}; trying again");
                }
                self.started = None;
            }
            Err(_) => self.started = None,
        }
    }

    /// The carrier was reached.
    pub fn reached(&mut self, now: u64) {
        if let Some((_, since)) = &mut self.started {
            *since = now;
        }
        self.complained = false;
    }

    /// A child that has ended leaves no corpse. To be called now and then.
    pub fn tidy(&mut self) {
        if self.started.as_mut().is_some_and(|(child, _)| !matches!(child.try_wait(), Ok(None))) {
            self.started = None;
        }
    }
}

/// Ends a carrier that hangs: stopped, or without a processor.
pub(crate) fn depose(carrier: &PidFd) {
    if let Err(error) = carrier.signal(Signal::KILL) {
        sys::warn!("sk-heartbeat: the carrier hangs and cannot be killed: {error}");
    }
}
