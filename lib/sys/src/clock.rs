//! What time is it?

use std::time::{Duration, SystemTime};

/// Milliseconds since boot, suspend included (`CLOCK_BOOTTIME`): a host that slept must notice it.
pub fn monotonic_ms() -> u64 {
    monotonic().as_millis() as u64
}

/// Time since boot, suspend included.
pub fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // The kernel never counts this clock below zero.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Wall clock in milliseconds since 1970; 0 when the clock is set before 1970. Never for timeouts: it jumps.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Whether the kernel counts its wall clock as synchronised with a time server; None: it does not say. See adjtimex(2).
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: an all-zero timex asks for nothing to be set; the kernel fills it in.
    let state = unsafe {
        let mut time: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut time)
    };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

/// The time of day here, for people; `format` as strftime(3) takes it.
pub fn local_time(format: &str) -> String {
    jiff::Zoned::now().strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward() {
        let before = monotonic();
        assert!(monotonic() >= before && before > Duration::ZERO);
        assert!(wall_ms() > 1_600_000_000_000);
    }
}
