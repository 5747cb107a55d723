//! Do the rules hold in many histories, and would the checks notice if they did not?

use automaton::{Readiness, StateName, Verb, Weakness};
use sim::engine::Mutation;
use sim::scenario;
use sim::world::World;

#[test]
fn no_acknowledged_write_is_lost_and_every_history_converges() {
    for seed in 0..200 {
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
fn a_lone_start_of_a_paired_node_is_caught() {
    is_caught(Mutation::Rule(Weakness::StartsPaired), 0..200);
}

#[test]
fn an_exclusion_without_asking_is_caught() {
    is_caught(Mutation::Rule(Weakness::ExcludesAtOnce), 0..200);
}

#[test]
fn a_primary_that_never_excludes_is_caught() {
    is_caught(Mutation::Rule(Weakness::NeverExcludes), 0..200);
}

/// Histories that once lost writes, or that chance meets too rarely: with the rule nothing is lost, without it something is.
fn matters(mutation: Mutation, history: impl Fn(&mut World)) {
    let lost = |mutation| {
        (0..60_u64).any(|seed| {
            let mut world = World::new(seed, mutation);
            world.boot(0);
            world.boot(1);
            world.command(0, Verb::Prim);
            world.command(1, Verb::Start);
            assert!(world.run_until(60_000, World::is_mirror), "seed {seed}");
            world.run_for(1_000);
            history(&mut world);
            world.run_for(10_000);
            !world.violations.is_empty()
        })
    };
    assert!(!lost(Mutation::None));
    assert!(lost(mutation), "{mutation:?} is not noticed");
}

#[test]
fn a_swap_and_the_loss_of_both_hosts() {
    matters(Mutation::PromoteWithoutSync, |world| {
        world.command(0, Verb::Swap);
        world.run_until(5_000, |w| w.is(1, StateName::Prim, Readiness::Ready));
        world.power_off(0);
        world.power_off(1);
        world.run_for(1_000);
        world.boot(0);
        world.boot(1);
    });
}

#[test]
fn a_restarted_secondary_and_the_death_of_the_primary_that_excluded_it() {
    matters(Mutation::Rule(Weakness::TakesOverUnsynced), |world| {
        world.kill_runner(1);
        world.run_until(20_000, |w| w.nodes[0].engine.standing == lineage::Standing::Alone);
        world.beats[0] = false;
        let before = world.acked.len();
        world.run_until(200, |w| w.acked.len() > before);
        world.power_off(0);
    });
}

#[test]
fn with_a_store_nothing_excuses_two_primaries_or_a_lost_write() {
    // 1005494: both nodes wait; one has claimed the role and is on its way, and the other one took its word that it does not serve.
    for seed in (0..200).chain([1_005_494]) {
        let outcome = scenario::arbitrated(seed, Mutation::None, false);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
        assert!(outcome.stuck.is_none(), "seed {seed}: stuck: {:?}", outcome.stuck);
        assert!(!outcome.isolation && !outcome.chosen, "seed {seed}");
        assert!(outcome.acked > 100, "seed {seed}: nothing happened");
    }
}

fn is_caught_with_a_store(mutation: Mutation) {
    let caught = (0..1_000).any(|seed| {
        let outcome = scenario::arbitrated(seed, mutation, false);
        !outcome.violations.is_empty() || outcome.stuck.is_some()
    });
    assert!(caught, "{mutation:?} is not noticed");
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
    let two_serve = |mutation| {
        (0..40_u64).any(|seed| {
            let mut world = World::new(seed, mutation).with_store();
            world.boot(0);
            world.boot(1);
            world.command(0, Verb::Prim);
            world.command(1, Verb::Start);
            assert!(world.run_until(60_000, World::is_mirror), "seed {seed}");
            world.run_for(1_000);
            world.nodes[0].clock.wall_jump = 100_000_000;
            world.beats = [false, false];
            world.link = false;
            // Long enough for a renewal in the store, not for the loss of the peer.
            world.run_for(1_600);
            if let Some(store) = world.store.as_mut() {
                store.cut[0] = true;
            }
            world.run_for(15_000);
            !world.violations.is_empty()
        })
    };
    assert!(!two_serve(Mutation::None));
    assert!(two_serve(Mutation::Rule(Weakness::TrustsWallClock)));
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
