//! When is an address announced to its neighbours? Pure: times are milliseconds on the caller's clock.

/// Delays of the burst after an address was claimed: the first at once, then again for neighbours and switches that
/// missed it, the last when a spanning tree or a bonding failover has settled.
pub const BURST_MS: [u64; 5] = [0, 100, 500, 1000, 2000];

/// Periodic announcements after the burst (`arpreroute`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reroute {
    /// Period in ms; 0 counts as 1 s.
    pub interval_ms: u64,
    /// How long after the claim, in ms.
    pub elapse_ms: u64,
}

/// The announcements of one claimed address.
#[derive(Clone, Debug)]
pub struct Schedule {
    claimed: u64,
    reroute: Option<Reroute>,
    sent: usize,
    next: Option<u64>,
}

impl Schedule {
    /// Claimed at `now`; the first announcement is due at once.
    pub fn new(now: u64, reroute: Option<Reroute>) -> Self {
        Self { claimed: now, reroute, sent: 0, next: Some(now) }
    }

    /// When the next announcement is due, if any remains.
    pub fn due(&self) -> Option<u64> {
        self.next
    }

    /// Whether to announce now. Announcements missed while the process was not scheduled are not made up for.
    pub fn poll(&mut self, now: u64) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        self.sent = BURST_MS.iter().position(|d| self.claimed + d > now).unwrap_or(BURST_MS.len());
        self.next = match (BURST_MS.get(self.sent), self.reroute) {
            (Some(delay), _) => Some(self.claimed + delay),
            (None, Some(reroute)) => {
                let next = now + if reroute.interval_ms == 0 { 1000 } else { reroute.interval_ms };
                (next <= self.claimed.saturating_add(reroute.elapse_ms)).then_some(next)
            }
            (None, None) => None,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mut schedule: Schedule) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(due) = schedule.due() {
            assert!(due == 0 || !schedule.poll(due - 1), "early at {due}");
            assert!(schedule.poll(due));
            times.push(due);
        }
        times
    }

    #[test]
    fn a_burst_then_silence() {
        assert_eq!(run(Schedule::new(0, None)), BURST_MS);
    }

    #[test]
    fn reroute_goes_on_for_its_time() {
        let reroute = Reroute { interval_ms: 60_000, elapse_ms: 200_000 };
        let times = run(Schedule::new(0, Some(reroute)));
        assert_eq!(times.split_at(5).1, [62_000, 122_000, 182_000]);
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut schedule = Schedule::new(10, None);
        assert!(schedule.poll(10));
        assert!(schedule.poll(1300));
        assert_eq!(schedule.due(), Some(2010));
    }
}
