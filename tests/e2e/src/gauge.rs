//! How long was the service away, seen by its client?

use serde::Serialize;
use std::time::Duration;

/// A pause between two acknowledgements that is longer than [`NOTABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outage {
    /// Milliseconds from the start of the measurement to the last acknowledgement before the pause.
    pub at_ms: u64,
    /// Length in milliseconds.
    pub ms: u64,
}

/// Pauses up to this length are ordinary work, not outages.
pub const NOTABLE: Duration = Duration::from_millis(250);

/// Fed with the times of acknowledgements, all counted from one common start.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    last: Option<Duration>,
    longest: Duration,
    outages: Vec<Outage>,
}

impl Gauge {
    /// An acknowledgement came at `at`; also called once at the end of the measurement, which ends a pause too.
    pub fn mark(&mut self, at: Duration) {
        if let Some(last) = self.last {
            let pause = at.saturating_sub(last);
            self.longest = self.longest.max(pause);
            if pause > NOTABLE {
                self.outages.push(Outage { at_ms: millis(last), ms: millis(pause) });
            }
        }
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    /// The end of the measurement, when at least one acknowledgement came before.
    pub fn finish(&mut self, at: Duration) {
        if self.last.is_some() {
            self.mark(at);
        }
    }

    /// The longest pause, in milliseconds.
    pub fn longest_ms(&self) -> u64 {
        millis(self.longest)
    }

    /// All pauses longer than [`NOTABLE`], in order.
    pub fn outages(&self) -> &[Outage] {
        &self.outages
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_counts_also_at_the_end() {
        let mut gauge = Gauge::default();
        for at in [0, 10, 20, 400, 410] {
            gauge.mark(Duration::from_millis(at));
        }
        assert_eq!(gauge.longest_ms(), 380);
        gauge.finish(Duration::from_millis(2410));
        assert_eq!(gauge.longest_ms(), 2000);
        assert_eq!(gauge.outages(), [Outage { at_ms: 20, ms: 380 }, Outage { at_ms: 410, ms: 2000 }]);
    }

    #[test]
    fn nothing_acknowledged_is_no_outage_but_no_success_either() {
        let mut gauge = Gauge::default();
        gauge.finish(Duration::from_secs(5));
        assert_eq!(gauge.longest_ms(), 0);
    }
}
