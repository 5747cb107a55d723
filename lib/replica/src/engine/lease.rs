//! Until when may this node acknowledge? Asked before a change begins, and again at the last moment before an answer leaves.
//!
//! The deadline is a time of the clock that counts suspension, so a host that was paused wakes up with its lease ended: what waited for an
//! answer goes on waiting, and what arrives is parked, as in a freeze. Only the runner extends it. Between the last look at the
//! clock and the system call that answers lie some hundred nanoseconds; the rival's margin is made for them, and a thread that is stopped just there is
//! the one case left (docs/guarantees.md).

use super::core::{Core, Reply};
use crate::recorder::Position;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// No lease is needed.
const FOREVER: u64 = u64::MAX;

/// End of the lease, milliseconds since boot.
pub struct Lease(AtomicU64);

impl Lease {
    /// `needed`: nothing is acknowledged before the first [`Lease::extend`].
    pub fn new(needed: bool) -> Self {
        Self(AtomicU64::new(if needed { 0 } else { FOREVER }))
    }

    pub fn holds(&self) -> bool {
        let until = self.0.load(SeqCst);
        until == FOREVER || sys::clock::monotonic_ms() < until
    }

    /// Never shortens it, and never makes a limited one unlimited.
    fn extend(&self, until_ms: u64) {
        self.0.fetch_max(until_ms.min(FOREVER - 1), SeqCst);
    }
}

impl Core {
    /// The runner's order.
    pub fn extend_lease(&self, until_ms: u64) {
        self.lease.extend(until_ms);
        let due = {
            let mut flow = self.flow();
            let last = if flow.paired { flow.done } else { Position::MAX };
            let later = last.checked_add(1).map(|next| flow.waiting.split_off(&next)).unwrap_or_default();
            std::mem::replace(&mut flow.waiting, later)
        };
        self.answer(due.into_iter().flat_map(|(n, replies)| replies.into_iter().map(move |r| (n, r))));
        self.resume_parked();
        self.publish();
    }

    /// Gives the answers that are due; keeps them when the lease has ended meanwhile.
    pub fn answer(&self, replies: impl IntoIterator<Item = (Position, Reply)>) {
        for (position, reply) in replies {
            if self.lease.holds() {
                reply();
            } else if self.abandoned.load(SeqCst) {
                // Unanswered for good: the application is told that its change may be lost.
                drop(reply);
            } else {
                self.flow().waiting.entry(position).or_default().push(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_only_grows_and_ends_by_itself() {
        let free = Lease::new(false);
        assert!(free.holds());
        free.extend(1);
        assert!(free.holds(), "an engine that needs none is not given one");
        let lease = Lease::new(true);
        assert!(!lease.holds());
        let now = sys::clock::monotonic_ms();
        lease.extend(now + 60_000);
        lease.extend(now + 1);
        assert!(lease.holds());
        lease.extend(u64::MAX);
        let ending = Lease::new(true);
        ending.extend(now.saturating_sub(1));
        assert!(!ending.holds());
    }
}
