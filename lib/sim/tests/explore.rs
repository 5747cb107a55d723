//! Does everything hold in every small history, and would the exploration notice if it did not?

use automaton::{Verb, Weakness};
use sim::engine::Mutation;
use sim::explore::{Bounds, Step, Wait, explore, history};

const ALONE_TOGETHER: Bounds = Bounds { depth: 2, states: 100_000, arbitrated: false };

#[test]
fn every_history_of_two_inputs_holds_and_none_is_a_dead_end() {
    let found = explore(Mutation::None, ALONE_TOGETHER, false);
    assert!(found.failures.is_empty(), "{:#?}", found.failures);
    assert!(found.complete && found.states > 500, "{:?} states", found.levels);
    assert!(found.isolated > 50 && found.salvaged > 50, "{found:?}");
}

#[test]
fn with_a_store_every_history_of_one_input_holds_whether_leases_end_or_not() {
    let found = explore(Mutation::None, Bounds { depth: 1, arbitrated: true, ..ALONE_TOGETHER }, false);
    assert!(found.failures.is_empty(), "{:#?}", found.failures);
    assert!(found.complete && found.states > 50 && found.owners > 5, "{found:?}");
    assert_eq!(found.isolated, 0);
}

/// Found by an exploration of three inputs: a node that the store calls the owner gave its role up for one that had just lost its own,
/// and both waited for the operator.
#[test]
fn the_owner_of_the_lease_yields_to_nobody_who_has_lost_it() {
    let (pause, settled) = ((Step::Pause(0), Wait::Settled), Wait::Settled);
    let command = |verb, wait| (Step::Command(1, verb), wait);
    for path in [
        [pause, command(Verb::Stop, settled), command(Verb::Second, Wait::Instant)],
        [command(Verb::Stop, settled), pause, command(Verb::Prim, settled)],
    ] {
        assert_eq!(history(true, &path), [""; 0], "{path:?}");
    }
}

#[track_caller]
fn is_caught(mutation: Mutation) {
    let found = explore(mutation, Bounds { depth: 3, states: 5_000, arbitrated: false }, true);
    assert!(!found.failures.is_empty(), "{mutation:?} is not noticed in {} states", found.states);
}

#[test]
fn a_missing_epoch_is_caught() {
    is_caught(Mutation::NoMint);
}

#[test]
fn a_primary_that_does_not_freeze_is_caught() {
    is_caught(Mutation::NoFreeze);
}

#[test]
fn early_acknowledgements_are_caught() {
    is_caught(Mutation::AckEarly);
}

#[test]
fn an_unfinished_copy_that_counts_as_paired_is_caught() {
    is_caught(Mutation::PairedTooSoon);
}

#[test]
fn a_lie_about_the_standing_is_caught() {
    is_caught(Mutation::LiesAboutStanding);
}

#[test]
fn a_hasty_detector_is_caught() {
    is_caught(Mutation::HastyDetector);
}

#[test]
fn a_lone_start_of_a_paired_node_is_caught() {
    is_caught(Mutation::Rule(Weakness::StartsPaired));
}

#[test]
fn a_primary_that_never_excludes_is_caught() {
    is_caught(Mutation::Rule(Weakness::NeverExcludes));
}

#[test]
fn a_takeover_without_having_been_named_is_caught() {
    is_caught(Mutation::Rule(Weakness::TakesOverUnsynced));
}

#[test]
fn a_copy_that_puts_nothing_aside_is_caught() {
    is_caught(Mutation::NoSalvage);
}

#[test]
fn an_engine_that_forgets_what_it_never_shared_is_caught() {
    is_caught(Mutation::ForgetsUnshared);
}

#[track_caller]
fn is_caught_with_a_store(mutation: Mutation) {
    let found = explore(mutation, Bounds { depth: 3, states: 5_000, arbitrated: true }, true);
    assert!(!found.failures.is_empty(), "{mutation:?} is not noticed in {} states", found.states);
}

#[test]
fn a_core_that_does_not_ask_its_arbiter_is_caught() {
    is_caught_with_a_store(Mutation::Rule(Weakness::ServesUnasked));
}

#[test]
fn a_takeover_before_the_lease_ends_is_caught() {
    is_caught_with_a_store(Mutation::Rule(Weakness::TakesOverEarly));
}

#[test]
fn service_beyond_the_lease_is_caught() {
    is_caught_with_a_store(Mutation::Rule(Weakness::OutlivesItsLease));
}

#[test]
fn a_lease_by_the_wall_clock_is_caught() {
    is_caught_with_a_store(Mutation::Rule(Weakness::TrustsWallClock));
}

#[test]
fn a_claim_against_the_record_is_caught() {
    is_caught_with_a_store(Mutation::Rule(Weakness::IgnoresTheRecord));
}

#[test]
fn a_swap_that_compares_nothing_is_caught() {
    is_caught_with_a_store(Mutation::BlindSwap);
}

#[test]
fn an_engine_without_a_lease_is_caught() {
    is_caught_with_a_store(Mutation::AckUnlicensed);
}

#[test]
fn with_a_store_a_copy_that_puts_nothing_aside_is_caught() {
    is_caught_with_a_store(Mutation::NoSalvage);
}
