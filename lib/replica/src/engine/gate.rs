//! Who is inside a change right now, and how are new ones held back.
//!
//! A change enters before it touches the disk and leaves after it was recorded. Closing is at once for those who come later and never waits for
//! the peer; [`Gate::close_and_drain`] also waits for those inside, who do nothing but local work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

/// Counts changes in progress.
#[derive(Default)]
pub struct Gate {
    closed: AtomicBool,
    inside: AtomicUsize,
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

    /// False: closed, and the caller is not inside.
    pub fn enter(&self) -> bool {
        // Count first, look second: a closer that stores first and counts second then sees us, or we see it.
        self.inside.fetch_add(1, SeqCst);
        if self.closed.load(SeqCst) {
            self.leave();
            return false;
        }
        true
    }

    pub fn leave(&self) {
        if self.inside.fetch_sub(1, SeqCst) == 1 && self.closed.load(SeqCst) {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.empty.notify_all();
        }
    }

    /// From now on nobody enters.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Closes, and returns when nobody is inside.
    pub fn close_and_drain(&self) {
        self.close();
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.inside.load(SeqCst) > 0 {
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
                        if gate.enter() {
                            inside.fetch_add(1, SeqCst);
                            entered.fetch_add(1, SeqCst);
                            inside.fetch_sub(1, SeqCst);
                            gate.leave();
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
}
