//! How are signals taken as events, and how do parents and children agree about them?

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;

/// Blocks `signals` in this thread and those it starts later, and gives a nonblocking descriptor to read them from.
/// Call it before any thread is started. Children must call [`unblock_all`] before exec: the mask is inherited.
pub fn take(signals: &[Signal]) -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in signals {
        set.add(*signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Lets all signals through again. Safe between fork and exec.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::all().thread_unblock()?)
}

/// The kernel kills this process as soon as the *thread* that started it ends. For processes whose safe side is to be gone.
/// A parent that died before this call is noticed by the end of file on stdin only.
pub fn die_with_parent() -> io::Result<()> {
    Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn a_blocked_signal_is_read_as_an_event() {
        let fd = take(&[Signal::SIGUSR1]).unwrap();
        assert!(fd.read_signal().unwrap().is_none());
        raise(Signal::SIGUSR1).unwrap();
        assert_eq!(fd.read_signal().unwrap().unwrap().ssi_signo, Signal::SIGUSR1 as u32);
        unblock_all().unwrap();
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1));
    }
}
