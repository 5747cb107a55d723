//! How much of what the secondary has not settled may be the application's, and how much a resynchronisation's? Pure.
//!
//! Both share one ordered stream, and each has a part of the window of its own: with a common one, whoever always has something to send keeps the
//! other out for ever. In service the application has all of [`WINDOW`]. While a resynchronisation runs each has what the secondary settles in
//! half a second: more would not be faster, since the link is never idle, but every question would wait behind it for its answer.

use crate::recorder::Position;
use crate::stream::ring::WINDOW;
use std::collections::VecDeque;
use std::time::Duration;

/// Bounds of a part while a resynchronisation runs.
const PART: std::ops::RangeInclusive<u64> = (1 << 20)..=(WINDOW / 4);
/// Over which the rate is measured.
const MEASURED: Duration = Duration::from_millis(250);
/// Bytes counted together.
const RUN: u64 = 256 << 10;

/// Who put something into the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Application,
    /// Resynchronisations and comparisons.
    Walker,
}

#[derive(Debug)]
struct Run {
    whose: Whose,
    last: Position,
    bytes: u64,
}

/// Who fills the window.
#[derive(Debug)]
pub struct Window {
    runs: VecDeque<Run>,
    application: u64,
    walker: u64,
    part: u64,
    /// Bytes settled since then.
    settled: u64,
    since: Duration,
    /// Somebody waited for room: the secondary had all that it could take.
    held: bool,
}

impl Window {
    /// What a former process left in the ring, up to `position`, counts as the application's.
    pub fn new(position: Position, bytes: u64) -> Self {
        let mut window = Self {
            runs: VecDeque::new(),
            application: 0,
            walker: 0,
            part: *PART.start() * 2,
            settled: 0,
            since: Duration::ZERO,
            held: false,
        };
        window.appended(Whose::Application, position, bytes);
        window
    }

    fn of(&mut self, whose: Whose) -> &mut u64 {
        match whose {
            Whose::Application => &mut self.application,
            Whose::Walker => &mut self.walker,
        }
    }

    /// The operation at this place is this long.
    pub fn appended(&mut self, whose: Whose, position: Position, bytes: u64) {
        if bytes == 0 {
            return;
        }
        *self.of(whose) += bytes;
        match self.runs.back_mut().filter(|run| run.whose == whose && run.bytes < RUN) {
            Some(run) => (run.last, run.bytes) = (position, run.bytes + bytes),
            None => self.runs.push_back(Run { whose, last: position, bytes }),
        }
    }

    /// The secondary needs nothing of what is up to this place any more. `now`: of a clock that is never set.
    pub fn settled(&mut self, position: Position, now: Duration) {
        while let Some(run) = self.runs.pop_front_if(|run| run.last <= position) {
            let of = self.of(run.whose);
            *of = of.saturating_sub(run.bytes);
            self.settled += run.bytes;
        }
        let elapsed = now.saturating_sub(self.since);
        if elapsed < MEASURED {
            return;
        }
        // Half a second's worth. Of a secondary that could have settled more nothing is known.
        let half = (u128::from(self.settled) * 500 / elapsed.as_millis().max(1)) as u64;
        if self.held || half > self.part {
            self.part = half.clamp(*PART.start(), *PART.end());
        }
        (self.settled, self.since, self.held) = (0, now, false);
    }

    /// Nothing is in the stream any more.
    pub fn clear(&mut self) {
        self.runs.clear();
        (self.application, self.walker) = (0, 0);
    }

    /// Somebody waits for room.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Bytes of the application in the stream.
    pub fn application(&self) -> u64 {
        self.application
    }

    /// Bytes up to which it is admitted.
    pub fn limit(&self, resynchronising: bool) -> u64 {
        if resynchronising { self.part } else { WINDOW }
    }

    /// Whether a walker may add this much. One step always has room.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.walker == 0 || self.walker.saturating_add(bytes) <= self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_has_a_part_of_its_own() {
        let mut window = Window::new(7, 0);
        for n in 0..64 {
            window.appended(Whose::Application, 8 + n, MIB / 2);
        }
        assert_eq!(window.application(), WINDOW);
        assert!(window.has_room(100 * MIB), "one step of a walker always fits");
        window.appended(Whose::Walker, 72, MIB);
        assert!(!window.has_room(3 * MIB / 2));
        assert!(window.has_room(MIB));
        window.settled(71, Duration::ZERO);
        assert_eq!(window.application(), 0);
        assert!(!window.has_room(3 * MIB / 2));
        window.settled(72, Duration::ZERO);
        assert!(window.has_room(100 * MIB));
    }

    /// A secondary that settles `rate` bytes a second, while the application sends what it may.
    fn part_at(rate: u64, window: &mut Window, from: u64) -> u64 {
        let (mut position, mut credit) = (from * 1_000_000, 0);
        for tick in 0..100 {
            while window.application() < window.limit(true) {
                position += 1;
                window.appended(Whose::Application, position, 64 << 10);
            }
            window.hold();
            credit += rate / 20;
            let now = Duration::from_millis(10_000 * from + 50 * tick);
            while let Some(last) = window.runs.front().filter(|run| run.bytes <= credit).map(|run| run.last) {
                credit -= window.runs.front().map_or(0, |run| run.bytes);
                window.settled(last, now);
            }
            window.settled(0, now);
        }
        window.limit(true)
    }

    #[test]
    fn a_part_is_half_a_seconds_worth_within_bounds() {
        let mut window = Window::new(0, 0);
        let near = |part: u64, wanted: u64| part.abs_diff(wanted) < wanted / 2;
        for (round, (rate, wanted)) in
            [(8 * MIB, 4 * MIB), (125_000, MIB), (900 * MIB, 8 * MIB), (6 * MIB, 3 * MIB)].into_iter().enumerate()
        {
            let part = part_at(rate, &mut window, 1 + round as u64);
            assert!(near(part, wanted), "at {rate} bytes/s: {part}");
        }
        assert_eq!(window.limit(false), WINDOW);
    }

    #[test]
    fn an_idle_application_says_nothing_about_the_secondary() {
        let mut window = Window::new(0, 0);
        let before = window.limit(true);
        for second in 1..100 {
            window.appended(Whose::Application, second, 100);
            window.settled(second, Duration::from_secs(second));
        }
        assert_eq!(window.limit(true), before);
    }

    proptest! {
        #[test]
        fn what_was_added_is_settled(steps in proptest::collection::vec((any::<bool>(), 0u64..3_000_000, 0u64..5), 1..200)) {
            let mut window = Window::new(0, 0);
            let mut settled = 0;
            for (n, (walker, bytes, behind)) in (1..).zip(&steps) {
                window.appended(if *walker { Whose::Walker } else { Whose::Application }, n, *bytes);
                settled = settled.max(n.saturating_sub(*behind));
                window.settled(settled, Duration::from_millis(n));
            }
            window.settled(u64::MAX, Duration::from_secs(1));
            prop_assert_eq!((window.application, window.walker, window.runs.len()), (0, 0, 0));
        }
    }
}
