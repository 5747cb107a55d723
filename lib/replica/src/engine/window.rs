//! How much of what the secondary has not settled may be the application's, and how much a resynchronisation's? Pure.
//!
//! Both share one ordered stream, and each has a part of the window of its own: with a common one, whoever always has something to send keeps the
//! other out for ever. In service the application has all of [`WINDOW`]. While a resynchronisation runs it has no more than that: what is sent is
//! not sent faster by being sent earlier, and every question of the resynchronisation waits behind it for its answer.

use crate::recorder::Position;
use crate::stream::ring::WINDOW;
use std::collections::VecDeque;

/// Of a walker always, and of the application while a resynchronisation runs. Well above what a walker asks for at once, and above what a secondary
/// receives before it says so.
const PART: u64 = WINDOW / 4;
/// Bytes counted together.
const RUN: u64 = 256 << 10;

/// Who put something into the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Application,
    /// Resynchronisations and comparisons; and the few marks of the engine itself.
    Walker,
}

#[derive(Debug)]
struct Run {
    whose: Whose,
    last: Position,
    bytes: u64,
}

/// Who fills the window.
#[derive(Debug, Default)]
pub struct Window {
    runs: VecDeque<Run>,
    application: u64,
    walker: u64,
}

impl Window {
    /// What a former process left in the ring, up to `position`, counts as the application's.
    pub fn new(position: Position, bytes: u64) -> Self {
        let mut window = Self::default();
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

    /// The secondary needs nothing of what is up to this place any more.
    pub fn settled(&mut self, position: Position) {
        while let Some(run) = self.runs.pop_front_if(|run| run.last <= position) {
            let of = self.of(run.whose);
            *of = of.saturating_sub(run.bytes);
        }
    }

    /// Nothing is in the stream any more.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes of the application in the stream.
    pub fn application(&self) -> u64 {
        self.application
    }

    /// Bytes up to which it is admitted.
    pub fn limit(resynchronising: bool) -> u64 {
        if resynchronising { PART } else { WINDOW }
    }

    /// Whether a walker may add this much. One step always has room.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.walker == 0 || self.walker.saturating_add(bytes) <= PART
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
        window.appended(Whose::Walker, 72, PART - 2 * MIB);
        assert!(!window.has_room(3 * MIB));
        assert!(window.has_room(2 * MIB));
        window.settled(71);
        assert_eq!(window.application(), 0);
        assert!(!window.has_room(3 * MIB));
        window.settled(72);
        assert!(window.has_room(100 * MIB));
    }

    #[test]
    fn the_application_has_less_while_a_resynchronisation_runs() {
        assert!(Window::limit(true) < Window::limit(false));
    }

    proptest! {
        #[test]
        fn what_was_added_is_settled(steps in proptest::collection::vec((any::<bool>(), 0u64..3_000_000, 0u64..5), 1..200)) {
            let mut window = Window::new(0, 0);
            let mut settled = 0;
            for (n, (walker, bytes, behind)) in (1..).zip(&steps) {
                window.appended(if *walker { Whose::Walker } else { Whose::Application }, n, *bytes);
                settled = settled.max(n.saturating_sub(*behind));
                window.settled(settled);
            }
            window.settled(u64::MAX);
            prop_assert_eq!((window.application, window.walker, window.runs.len()), (0, 0, 0));
        }
    }
}
