//! What goes wrong in a farm, and what must hold: a phase of faults, then everything heals and must converge in time.

use super::{Totals, World, config};
use detector::farm::Mistake;

/// The end of one history.
#[derive(Debug, Default)]
pub struct Outcome {
    pub nodes: usize,
    pub violations: Vec<String>,
    /// Why it did not converge in time.
    pub stuck: Option<String>,
    pub totals: Totals,
    /// Slowest convergence after a burst of faults, in hundredths of the follower's timeout.
    pub slowest: u64,
}

/// Views must converge within this many timeouts of a follower after any burst of faults (the leader's timeout is two);
/// within one more where a daemon began after its clock was set back.
pub const BOUND: u64 = 3;
/// How often it is looked at.
const STEP_MS: u64 = 5;

/// Runs the history of `seed`; every twentieth has 32 nodes.
pub fn run(seed: u64, mistake: Option<Mistake>, trace: bool) -> Outcome {
    let mut draw = crate::rng::Rng::new(seed ^ 0xfa12);
    let nodes = if seed % 20 == 19 { 32 } else { draw.range(2, 7) as usize };
    let lans = draw.range(1, 2) as usize;
    let (pulse, missed) = [(100, 10), (100, 10), (50, 6), (100, 5)][draw.range(0, 3) as usize];
    let mut world = World::new(seed, config(nodes, lans, pulse, 2 * missed, missed), mistake);
    world.trace = trace;
    let mut outcome = Outcome { nodes, ..Outcome::default() };
    (0..world.count()).for_each(|n| world.boot(n));
    settle(&mut world, &mut outcome);
    let bursts = if nodes == 32 { 1 } else { world.rng.range(1, 3) };
    for _ in 0..bursts {
        if outcome.stuck.is_some() {
            break;
        }
        for _ in 0..world.rng.range(1, 9) {
            fault(&mut world);
            let timeout = world.timeout();
            let pause =
                if world.rng.chance(50) { world.rng.range(0, timeout / 3) } else { world.rng.range(0, 4 * timeout) };
            world.run_for(pause);
        }
        heal(&mut world);
        settle(&mut world, &mut outcome);
    }
    outcome.totals = world.totals;
    outcome.violations = world.violations;
    outcome
}

/// It must converge in time, and then stay so, at every moment of two more timeouts.
fn settle(world: &mut World, outcome: &mut Outcome) {
    let began = world.now;
    let due = began + (BOUND + u64::from(std::mem::take(&mut world.set_back))) * world.timeout();
    let mut last_bad = began;
    while world.now < due {
        if !world.converged() {
            last_bad = world.now;
        }
        world.run_for(STEP_MS);
    }
    if !world.converged() || last_bad + STEP_MS >= due {
        outcome.stuck.get_or_insert(format!("{} ms: {}", world.now, world.describe()));
        return;
    }
    outcome.slowest = outcome.slowest.max((last_bad - began) * 100 / world.timeout());
    while world.now < due + 2 * world.timeout() {
        world.run_for(STEP_MS);
        if !world.converged() {
            world.violate(format!("it did not stay converged: {}", world.describe()));
            return;
        }
    }
}

fn any(world: &mut World) -> u8 {
    let last = u64::from(world.count()) - 1;
    world.rng.range(0, last) as u8
}

fn fault(world: &mut World) {
    let (node, other) = (any(world), any(world));
    let kind = world.rng.range(1, 20);
    world.say(node, format!("fault {kind}, other node{}", other + 1));
    match kind {
        1 => world.power_off(node),
        2 => (0..world.count()).for_each(|n| world.boot(n)),
        3 => {
            let after = world.rng.range(0, 2 * world.timeout());
            world.restart(node, after);
        }
        4 => world.kill(node),
        5 | 6 => world.pause(node),
        7 => (0..world.count()).for_each(|n| world.resume(n)),
        8 | 9 => world.cut(node, other, true),
        10 => {
            world.cut(node, other, true);
            world.cut(other, node, true);
        }
        11 => partition(world),
        12 => isolate(world, node),
        13 => world.heal_network(),
        14 => world.loss = world.rng.range(0, 60),
        15 => (world.doubled, world.late) = (world.rng.range(0, 40), world.rng.range(0, 40)),
        16 => {
            let open = world.rng.chance(50);
            world.open(node, open);
        }
        17 => world.leave(node),
        18 => {
            let by = world.rng.range(0, 5 * world.timeout());
            let ahead = world.rng.chance(50);
            world.jump(node, by, ahead);
        }
        19 => {
            let lan = world.rng.range(0, world.lans as u64 - 1) as usize;
            for row in &mut world.cut[lan] {
                row.fill(true);
            }
        }
        _ => flap(world, node, other),
    }
}

fn partition(world: &mut World) {
    let side: Vec<bool> = (0..world.count()).map(|_| world.rng.chance(50)).collect();
    for a in 0..world.count() {
        for b in 0..world.count() {
            let apart = side[usize::from(a)] != side[usize::from(b)];
            world.cut(a, b, apart);
        }
    }
}

fn isolate(world: &mut World, node: u8) {
    let (deaf, mute) = (world.rng.chance(60), world.rng.chance(60));
    for n in (0..world.count()).filter(|n| *n != node) {
        world.cut(n, node, deaf);
        world.cut(node, n, mute);
    }
}

fn flap(world: &mut World, node: u8, other: u8) {
    for n in 0..world.rng.range(2, 6) {
        world.cut(node, other, n % 2 == 0);
        let longer = world.timeout() + 2 * world.pulse();
        world.run_for(longer);
    }
}

fn heal(world: &mut World) {
    world.say(0, "all heals");
    world.heal_network();
    for node in 0..world.count() {
        world.resume(node);
        let host_is_on = world.nodes[usize::from(node)].on;
        if world.rng.chance(70) || (!host_is_on && world.rng.chance(50)) {
            world.boot(node);
        }
        if world.rng.chance(70) {
            world.open(node, true);
        }
    }
    // The burst is over when the last daemon is back.
    world.run_for(world.restarts_until.saturating_sub(world.now));
}
