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
