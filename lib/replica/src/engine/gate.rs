//! Who is inside a change right now, and how are new ones held back.
//!
//! A change enters before it touches the disk and leaves after it was recorded. Closing is at once for those who come later and never waits for
//! the peer; [`Gate::close_and_drain`] also waits for those inside, who do nothing but local work. [`Gate::pass`] holds nobody back and waits for those
//! who are inside already.

use crate::recorder::Round;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

/// Counts changes in progress.
#[derive(Default)]
pub struct Gate {
    closed: AtomicBool,
    /// Rounds begun; those who enter count in the one of the present round.
    round: AtomicUsize,
    inside: [AtomicUsize; 2],
    passing: AtomicBool,
    /// One pass at a time.
    turn: Mutex<()>,
    lock: Mutex<()>,
    empty: Condvar,
}

impl Gate {
    /// A gate that is closed at first.
    pub fn closed() -> Self {
        let gate = Self::default();
        gate.closed.store(true, SeqCst);
        gate
    }

    fn count(&self, round: Round) -> &AtomicUsize {
        let [even, odd] = &self.inside;
        if round.0.is_multiple_of(2) { even } else { odd }
    }

    /// None: closed, and the caller is not inside.
    pub fn enter(&self) -> Option<Round> {
        loop {
            let round = Round(self.round.load(SeqCst));
            // Count first, look second: a closer that stores first and counts second then sees us, or we see it.
            self.count(round).fetch_add(1, SeqCst);
            if self.closed.load(SeqCst) {
                self.leave(round);
                return None;
            }
            if self.round.load(SeqCst) == round.0 {
                return Some(round);
            }
            self.leave(round);
        }
    }

    pub fn leave(&self, round: Round) {
        if self.count(round).fetch_sub(1, SeqCst) == 1 && (self.closed.load(SeqCst) || self.passing.load(SeqCst)) {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.empty.notify_all();
        }
    }

    /// Returns when everybody who is inside now has left.
    pub fn pass(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Round(self.round.load(SeqCst));
        self.passing.store(true, SeqCst);
        self.round.store(before.0.wrapping_add(1), SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.count(before).load(SeqCst) > 0 {
            guard = self.empty.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.passing.store(false, SeqCst);
    }

    /// From now on nobody enters.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Closes, and returns when nobody is inside.
    pub fn close_and_drain(&self) {
        self.close();
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.inside.iter().any(|count| count.load(SeqCst) > 0) {
            guard = self.empty.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn open(&self) {
        self.closed.store(false, SeqCst);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn nobody_is_inside_after_a_drain_and_everybody_comes_back() {
        let gate = Arc::new(Gate::default());
        let inside = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let entered = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (gate, inside, stop, entered) = (gate.clone(), inside.clone(), stop.clone(), entered.clone());
                std::thread::spawn(move || {
                    while !stop.load(SeqCst) {
                        if let Some(round) = gate.enter() {
                            inside.fetch_add(1, SeqCst);
                            entered.fetch_add(1, SeqCst);
                            inside.fetch_sub(1, SeqCst);
                            gate.leave(round);
                        } else {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for _ in 0..300 {
            gate.close_and_drain();
            for _ in 0..20 {
                assert_eq!(inside.load(SeqCst), 0);
            }
            let before = entered.load(SeqCst);
            gate.open();
            while entered.load(SeqCst) == before {
                std::thread::yield_now();
            }
        }
        stop.store(true, SeqCst);
        for worker in workers {
            worker.join().unwrap();
        }
    }

    #[test]
    fn a_pass_waits_for_those_inside_and_for_nobody_else() {
        let gate = Arc::new(Gate::default());
        for _ in 0..300 {
            let earlier = gate.enter().unwrap();
            let passed = Arc::new(AtomicBool::new(false));
            let (other, said) = (gate.clone(), passed.clone());
            let passing = std::thread::spawn(move || {
                other.pass();
                said.store(true, SeqCst);
            });
            while gate.round.load(SeqCst) == earlier.0 {
                std::thread::yield_now();
            }
            let later = gate.enter().unwrap();
            assert!(!passed.load(SeqCst));
            gate.leave(earlier);
            passing.join().unwrap();
            gate.leave(later);
        }
    }
}
