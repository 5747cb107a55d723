//! Which inputs can come from outside in a state, and how long is the world left alone after each?

use crate::world::World;
use automaton::{Readiness, StateName, Verb};

/// In the middle of things.
const INSTANT_MS: u64 = 130;
/// Longer than any timeout of the world.
pub(super) const SETTLE_MS: u64 = 6_000;
/// Longer than any timeout and any lease.
const SETTLE_LEASES_MS: u64 = 12_000;

/// One input from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    PowerOff(usize),
    Boot(usize),
    KillRunner(usize),
    Command(usize, Verb),
    /// Heartbeats of this node are lost, or not.
    Mute(usize),
    Heard(usize),
    CutAll,
    Heal,
    CutStream,
    Pause(usize),
    Resume(usize),
    /// The arbiter's store is gone, or there again with what it had.
    StoreDown,
    StoreBack,
    /// This node does not reach the store.
    CutFromStore(usize),
    /// This node reaches nobody: neither the store nor the other node.
    Isolate(usize),
}

/// How long nothing else comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The next input meets the world in the middle of its transition.
    Instant,
    /// The next input comes in the moment in which a lease has ended.
    Lease,
    /// Until everything has come to rest.
    Settled,
}

/// What can happen now.
pub(super) fn possible(world: &World) -> Vec<Step> {
    let mut steps = vec![Step::CutAll, Step::Heal, Step::CutStream];
    if let Some(store) = &world.store {
        steps.push(if store.down { Step::StoreBack } else { Step::StoreDown });
    }
    for n in 0..2 {
        let node = &world.nodes[n];
        if let Some(store) = world.store.as_ref().filter(|s| !s.cut[n]) {
            steps.push(Step::Isolate(n));
            if !store.down {
                steps.push(Step::CutFromStore(n));
            }
        }
        if !node.on {
            steps.push(Step::Boot(n));
            continue;
        }
        steps.push(Step::PowerOff(n));
        steps.push(if node.paused { Step::Resume(n) } else { Step::Pause(n) });
        steps.push(if world.beats[n] { Step::Mute(n) } else { Step::Heard(n) });
        if node.runner.is_some() && !node.paused {
            steps.push(Step::KillRunner(n));
            steps.extend([Verb::Start, Verb::Stop, Verb::Prim, Verb::Second, Verb::Swap].map(|v| Step::Command(n, v)));
        }
    }
    steps
}

pub(super) fn apply(world: &mut World, step: Step) {
    match step {
        Step::PowerOff(n) => world.power_off(n),
        Step::Boot(n) => world.boot(n),
        Step::KillRunner(n) => world.kill_runner(n),
        Step::Command(n, verb) => world.command(n, verb),
        Step::Mute(n) => world.beats[n] = false,
        Step::Heard(n) => world.beats[n] = true,
        Step::CutAll => (world.beats, world.link) = ([false; 2], false),
        Step::Heal => {
            (world.beats, world.link) = ([true; 2], true);
            if let Some(store) = world.store.as_mut() {
                store.cut = [false; 2];
            }
        }
        Step::CutStream => world.link = false,
        Step::Pause(n) => world.pause(n),
        Step::Resume(n) => world.resume(n),
        Step::StoreDown | Step::StoreBack => {
            if let Some(store) = world.store.as_mut() {
                store.down = step == Step::StoreDown;
            }
        }
        Step::CutFromStore(n) | Step::Isolate(n) => {
            if let Some(store) = world.store.as_mut() {
                store.cut[n] = true;
            }
            if step == Step::Isolate(n) {
                (world.beats, world.link) = ([false; 2], false);
            }
        }
    }
}

/// Lets the world go on. False: what was waited for does not happen, so this is no case of its own.
pub(super) fn pass(world: &mut World, wait: Wait) -> bool {
    match wait {
        Wait::Instant => world.run_for(INSTANT_MS),
        Wait::Settled => world.run_for(if world.store.is_some() { SETTLE_LEASES_MS } else { SETTLE_MS }),
        Wait::Lease => {
            let had: Vec<usize> = (0..2).filter(|n| world.has_lease(*n)).collect();
            return world.run_until(SETTLE_LEASES_MS, |w| had.iter().any(|n| !w.has_lease(*n)));
        }
    }
    true
}

pub(super) const fn waits(arbitrated: bool) -> &'static [Wait] {
    if arbitrated { &[Wait::Settled, Wait::Instant, Wait::Lease] } else { &[Wait::Settled, Wait::Instant] }
}

/// Whether this command makes older data count although newer ones may exist: the operator's word, not ours.
pub(super) fn overrules(world: &World, step: Step) -> bool {
    matches!(step, Step::Command(n, Verb::Prim) if !world.is(n, StateName::Prim, Readiness::Ready))
}
