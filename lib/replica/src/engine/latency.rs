//! How long does the secondary take to acknowledge what an application wants durable?

use crate::recorder::Position;
use std::time::{Duration, Instant};

/// One barrier at a time is followed from its place in the stream to its acknowledgement: no cost for the others.
#[derive(Debug, Default)]
pub struct Latency {
    followed: Option<(Position, Instant)>,
    sum: Duration,
    worst: Duration,
    samples: u32,
}

/// What was seen since the last look, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mean_us: u64,
    pub worst_us: u64,
}

impl Latency {
    /// A barrier has this place in the stream.
    pub fn begin(&mut self, position: Position) {
        if self.followed.is_none() {
            self.followed = Some((position, Instant::now()));
        }
    }

    /// Everything up to here is acknowledged.
    pub fn acknowledged(&mut self, done: Position) {
        if let Some((_, begun)) = self.followed.take_if(|(position, _)| *position <= done) {
            let took = begun.elapsed();
            self.sum += took;
            self.worst = self.worst.max(took);
            self.samples += 1;
        }
    }

    /// The connection is gone: what is followed will not be acknowledged over it.
    pub fn forget(&mut self) {
        self.followed = None;
    }

    /// What was seen since the last call; `None` when nothing was.
    pub fn take(&mut self) -> Option<Seen> {
        let mean = self.sum.checked_div(self.samples)?;
        let seen = Seen { mean_us: mean.as_micros() as u64, worst_us: self.worst.as_micros() as u64 };
        *self = Self { followed: self.followed, ..Self::default() };
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_barrier_at_a_time_is_followed() {
        let mut latency = Latency::default();
        assert_eq!(latency.take(), None);
        latency.begin(5);
        latency.begin(9);
        latency.acknowledged(4);
        assert_eq!(latency.take(), None, "not there yet");
        latency.acknowledged(7);
        assert_eq!(latency.samples, 1);
        latency.acknowledged(9);
        assert_eq!(latency.samples, 1, "the second one was not followed");
        let seen = latency.take().unwrap();
        assert!(seen.mean_us <= seen.worst_us);
        latency.begin(10);
        latency.forget();
        latency.acknowledged(20);
        assert_eq!(latency.take(), None);
    }
}
