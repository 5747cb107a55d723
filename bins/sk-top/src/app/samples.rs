//! What were the figures of a module in the last minutes?

use crate::snapshot::Snapshot;
use std::collections::VecDeque;

/// Seconds kept: more than the widest screen shows.
const KEPT: usize = 600;

/// Figures of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub sent: u64,
    pub received: u64,
    pub lag: u64,
    /// Acknowledgement of a flush, microseconds; nothing while nothing is flushed.
    pub ack_us: u64,
    /// New connections of all groups of a farm.
    pub connections: u64,
    /// Bytes that a farm accepted.
    pub accepted: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Samples(VecDeque<Sample>);

impl Samples {
    pub fn take(&mut self, snapshot: &Snapshot) {
        let mut sample = Sample::default();
        if let Some(replica) = &snapshot.replica {
            sample.sent = count(replica.out_bytes_s);
            sample.received = count(replica.in_bytes_s);
            sample.lag = count(replica.lag_bytes);
            sample.ack_us = count(replica.ack_us);
        }
        for group in snapshot.farm.iter().flat_map(|f| &f.groups) {
            sample.connections = sample.connections.saturating_add(count(group.connections_s));
            sample.accepted = sample.accepted.saturating_add(count(group.accepted_bytes_s));
        }
        self.0.push_back(sample);
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The last `width` values of one figure, the newest last; missing ones are zero.
    pub fn last(&self, width: usize, figure: fn(&Sample) -> u64) -> Vec<u64> {
        let missing = width.saturating_sub(self.0.len());
        let shown = self.0.iter().skip(self.0.len().saturating_sub(width)).map(figure);
        std::iter::repeat_n(0, missing).chain(shown).collect()
    }
}

/// A figure from outside as a number that can be drawn.
fn count(figure: Option<f64>) -> u64 {
    // Casts of floats saturate; what is no number becomes 0.
    figure.map_or(0, |f| f.max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Replica;

    #[test]
    fn the_newest_is_last_and_the_oldest_are_forgotten() {
        let mut samples = Samples::default();
        for n in 0..700 {
            let replica = Replica { out_bytes_s: Some(f64::from(n)), lag_bytes: Some(f64::NAN), ..Replica::default() };
            samples.take(&Snapshot { replica: Some(replica), ..Snapshot::default() });
        }
        assert_eq!(samples.last(3, |s| s.sent), [697, 698, 699]);
        assert_eq!(samples.last(1000, |s| s.sent).len(), 1000);
        assert_eq!(samples.last(2, |s| s.lag), [0, 0]);
        assert_eq!(Samples::default().last(2, |s| s.sent), [0, 0]);
    }
}
