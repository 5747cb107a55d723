//! May idle processors sleep? Not between two requests of a busy application.
//!
//! A request goes from the application's process to this one and back, and what must be durable to the other node and back. Each time
//! a processor that was idle must wake up. On a virtual machine that costs 20 to 40 µs where the hypervisor takes idle processors
//! back at once, and is half of the time of a small write. So while requests come in quick succession the kernel is asked to let
//! processors wait instead. It ends with the requests, and with the process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use sys::cpu_latency::{self, CpuLatency};

/// As many requests, or parts of the stream that arrive, within [`SUCCESSION`] are quick succession.
const MANY: u64 = 64;
const SUCCESSION: Duration = Duration::from_millis(64);
/// Less a second at a look is not.
const FEW: u64 = 400;

/// How requests follow each other. Times are since any fixed moment.
#[derive(Debug, Default)]
struct Pace {
    passed: AtomicU64,
    /// When the last [`MANY`] were complete, in nanoseconds.
    complete: AtomicU64,
}

impl Pace {
    /// One has come. True: the last [`MANY`] came in quick succession. The clock is asked once for as many.
    fn pass(&self, clock: impl FnOnce() -> Duration) -> bool {
        if !(self.passed.fetch_add(1, Relaxed) + 1).is_multiple_of(MANY) {
            return false;
        }
        let now = clock().as_nanos() as u64;
        let before = self.complete.swap(now, Relaxed);
        before != 0 && now.saturating_sub(before) < SUCCESSION.as_nanos() as u64
    }
}

/// Keeps processors awake.
#[derive(Debug)]
pub struct Wakeful {
    allowed: bool,
    begun: Instant,
    pace: Pace,
    holds: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    limit: Option<CpuLatency>,
    /// The last look, and how many had passed by then.
    looked: (Instant, u64),
}

impl Wakeful {
    /// `wanted`: by the configuration. Nothing is done on machines where it has not been found to help.
    pub fn new(wanted: bool) -> Self {
        Self::allowed(wanted && cpu_latency::halts_to_a_willing_hypervisor())
    }

    fn allowed(allowed: bool) -> Self {
        let begun = Instant::now();
        Self {
            allowed,
            begun,
            pace: Pace::default(),
            holds: AtomicBool::new(false),
            held: Mutex::new(Held { limit: None, looked: (begun, 0) }),
        }
    }

    /// A request, or a part of the stream, has come.
    pub fn pass(&self) {
        if self.allowed && self.pace.pass(|| self.begun.elapsed()) && !self.holds.load(Relaxed) {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            // Where the kernel does not let us, all is as it was, and tried again no sooner than after the next look.
            held.limit = CpuLatency::limit(0).ok();
            held.looked = (Instant::now(), self.pace.passed.load(Relaxed));
            self.holds.store(true, Relaxed);
        }
    }

    /// To be called now and then: processors may sleep again when little has come since.
    pub fn look(&self) {
        if self.holds.load(Relaxed) {
            self.look_at(Instant::now());
        }
    }

    fn look_at(&self, now: Instant) {
        let passed = self.pace.passed.load(Relaxed);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if is_slow(passed.saturating_sub(held.looked.1), now.saturating_duration_since(held.looked.0)) {
            held.limit = None;
            self.holds.store(false, Relaxed);
        }
        held.looked = (now, passed);
    }
}

/// As many in that time are not worth keeping processors awake.
fn is_slow(passed: u64, time: Duration) -> bool {
    u128::from(passed) * 1000 < u128::from(FEW) * time.as_millis()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;

    /// Whether any of `count` requests, `gap` apart, is part of a quick succession.
    fn quick(pace: &Pace, from: Duration, gap: Duration, count: u32) -> bool {
        (0..count).filter(|n| pace.pass(|| from + gap * *n)).count() > 0
    }

    #[test]
    fn quick_succession_is_a_thousand_a_second_not_a_few_at_once() {
        let second = Duration::from_secs(1);
        assert!(!quick(&Pace::default(), second, Duration::from_millis(2), 1000));
        assert!(quick(&Pace::default(), second, Duration::from_micros(900), 1000));
        let pace = Pace::default();
        for burst in 1..100 {
            assert!(!quick(&pace, second * burst, Duration::from_micros(10), 50), "a burst of 50 each second");
        }
    }

    #[test]
    fn it_is_slow_below_the_rate_and_not_at_it() {
        assert!(is_slow(0, Duration::from_millis(250)));
        assert!(is_slow(99, Duration::from_millis(250)));
        assert!(!is_slow(100, Duration::from_millis(250)));
        assert!(!is_slow(0, Duration::ZERO));
    }

    #[test]
    fn processors_are_kept_awake_while_requests_come_and_no_longer() {
        let wakeful = Wakeful::allowed(true);
        let holds = || wakeful.held.lock().unwrap().limit.is_some();
        let possible = CpuLatency::limit(0).is_ok();
        (0..10 * MANY).for_each(|_| wakeful.pass());
        assert_eq!((wakeful.holds.load(Relaxed), holds()), (true, possible));
        let later = wakeful.held.lock().unwrap().looked.0 + Duration::from_secs(1);
        (0..FEW).for_each(|_| wakeful.pass());
        wakeful.look_at(later);
        assert_eq!(holds(), possible);
        wakeful.look_at(later + Duration::from_millis(250));
        assert!(!wakeful.holds.load(Relaxed) && !holds());
    }

    #[test]
    fn what_is_not_wanted_holds_nothing() {
        let wakeful = Wakeful::new(false);
        (0..1000).for_each(|_| wakeful.pass());
        assert!(!wakeful.holds.load(Relaxed));
        wakeful.look();
        assert!(wakeful.held.lock().unwrap().limit.is_none());
    }
}
