//! Do the rules hold in many histories, and would the checks notice if they did not?

use sim::engine::Mutation;
use sim::scenario;

/// Seeds that failed once, with what was wrong.
const ONCE_FAILED: [u64; 1] = [
    1549, // swap, both hosts lose power: the new primary had not made durable what it had received as secondary
];

#[test]
fn no_acknowledged_write_is_lost_and_every_history_converges() {
    for seed in (0..200).chain(ONCE_FAILED) {
        let outcome = scenario::run(seed, Mutation::None, false);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
        assert!(outcome.stuck.is_none(), "seed {seed}: stuck: {:?}", outcome.stuck);
        assert!(outcome.acked > 100, "seed {seed}: nothing happened");
    }
}

fn is_caught(mutation: Mutation, seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let outcome = scenario::run(seed, mutation, false);
        if !outcome.violations.is_empty() || outcome.stuck.is_some() {
            return;
        }
    }
    panic!("{mutation:?} is not noticed");
}

#[test]
fn a_primary_that_does_not_freeze_is_caught() {
    is_caught(Mutation::NoFreeze, 0..200);
}

#[test]
fn a_missing_epoch_is_caught() {
    is_caught(Mutation::NoMint, 0..200);
}

#[test]
fn early_acknowledgements_are_caught() {
    is_caught(Mutation::AckEarly, 0..200);
}

#[test]
fn an_unfinished_copy_that_counts_as_paired_is_caught() {
    is_caught(Mutation::PairedTooSoon, 0..200);
}

#[test]
fn a_hasty_detector_is_caught() {
    is_caught(Mutation::HastyDetector, 0..200);
}

#[test]
fn a_lie_about_the_standing_is_caught() {
    is_caught(Mutation::LiesAboutStanding, 0..200);
}

#[test]
fn a_promotion_that_is_not_durable_is_caught() {
    is_caught(Mutation::PromoteWithoutSync, ONCE_FAILED);
}
