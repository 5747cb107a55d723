//! Does the daemon of this node run, and how is it started?

use crate::{Failure, exit};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use sys::lock::LockFile;
use sys::roots::Roots;

/// How long it may take to come up.
const START: Duration = Duration::from_secs(30);
const UNIT: &str = "sk-cluster.service";

/// How long a new daemon tries to get the lock: who looks whether one runs holds it for an instant.
const LOCK: Duration = Duration::from_secs(1);

fn place(roots: &Roots) -> PathBuf {
    roots.cluster_run().join("lock")
}

/// The lock that the daemon holds while it runs. None: another one has it.
pub fn lock(roots: &Roots) -> Result<Option<LockFile>, Failure> {
    let (directory, path) = (roots.cluster_run(), place(roots));
    let failed = |e| Failure::system(path.display(), e);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let lock = LockFile::open(&path).map_err(failed)?;
    let deadline = Instant::now() + LOCK;
    while !lock.try_exclusive().map_err(failed)? {
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Some(lock))
}

/// Whether the daemon of this node runs.
pub fn runs(roots: &Roots) -> Result<bool, Failure> {
    sys::lock::is_held(&place(roots)).map_err(|e| Failure::system(place(roots).display(), e))
}

/// Makes sure that the daemon runs: by systemd where it rules, else detached.
pub fn up(roots: &Roots) -> Result<(), Failure> {
    if runs(roots)? {
        return Ok(());
    }
    if Path::new("/run/systemd/system").exists() && unit_is_known() {
        let status =
            Command::new("systemctl").args(["start", UNIT]).status().map_err(|e| Failure::system("systemctl", e))?;
        if !status.success() {
            return Err(Failure::new(exit::SYSTEM, format!("systemctl could not start {UNIT}"))
                .hint(format!("see: journalctl -u {UNIT}")));
        }
        return Ok(());
    }
    std::fs::create_dir_all(roots.cluster_run()).map_err(|e| Failure::system(roots.cluster_run().display(), e))?;
    let errors = roots.cluster_run().join("daemon.err");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&errors)
        .map_err(|e| Failure::system(errors.display(), e))?;
    let program = sys::program::own().map_err(|e| Failure::system("own program file", e))?;
    let mut command = Command::new(program);
    command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).current_dir("/");
    command.env_remove("SK_KEY").env_remove("SK_ORIGIN").env_remove("SAFEMODULE");
    // Nor is who started it here who asks it something later.
    command.env_remove("SUDO_USER").env_remove("SSH_CONNECTION");
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    let mut child = command.spawn().map_err(|e| Failure::system("sk-cluster serve", e))?;
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if runs(roots)? {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::new(exit::SYSTEM, format!("the daemon of this node ended at once ({status})"))
                .hint(format!("see {}", errors.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::new(exit::SYSTEM, format!("the daemon of this node did not come up within {START:?}"))
        .hint(format!("see {}", errors.display())))
}

fn unit_is_known() -> bool {
    let quiet = Command::new("systemctl").args(["cat", UNIT]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}
