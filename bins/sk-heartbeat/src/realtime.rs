//! How does the heartbeat keep beating on a host that swaps or is overloaded?

use nix::sys::mman::{MlockAllFlags, mlockall};

/// The lowest real-time priority: above all ordinary work, below what an administrator sets higher.
const PRIORITY: i32 = 1;

/// Locks all memory and asks for round-robin real-time scheduling. What is not permitted is told on stderr, once.
pub(crate) fn enter() {
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        sys::warn!("sk-heartbeat: memory is not locked ({error}); heartbeats may be late when this host swaps");
    }
    // SAFETY: all-zero bytes are a valid sched_param.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = PRIORITY;
    // SAFETY: the pointer is valid during the call; 0 is this process.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const param) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        sys::warn!(
            "sk-heartbeat: no real-time scheduling ({error}); heartbeats may be late when this host is overloaded"
        );
    }
}
