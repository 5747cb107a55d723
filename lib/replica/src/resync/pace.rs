//! How fast may a resynchronisation send? The time is passed in.

use std::time::Duration;

/// A token bucket: at most `rate` bytes a second on average, with bursts of a tenth of a second.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<u64>,
    /// When everything sent so far is paid for.
    paid: Duration,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|r| *r > 0), paid: Duration::ZERO }
    }

    /// Accounts for `bytes` sent at `now`; returns how long to wait before more is sent.
    pub(crate) fn spend(&mut self, now: Duration, bytes: u64) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let burst = Duration::from_millis(100);
        self.paid = self.paid.max(now.saturating_sub(burst)) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.paid.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_average() {
        let mut pace = Pace::new(Some(1_000_000));
        let mut now = Duration::from_secs(50);
        let start = now;
        for _ in 0..100 {
            now += pace.spend(now, 100_000);
        }
        let spent = now.saturating_sub(start).as_secs_f64();
        assert!((9.8..=10.0).contains(&spent), "{spent}");
        assert_eq!(Pace::new(None).spend(now, u64::MAX), Duration::ZERO);
        assert_eq!(Pace::new(Some(0)).spend(now, 1 << 40), Duration::ZERO);
    }
}
