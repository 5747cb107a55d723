//! What goes wrong in a history, and what must hold afterwards: a safety phase, then everything heals and must converge.

use crate::engine::Mutation;
use crate::world::{TIMEOUT_MS, World};
use automaton::{Event, Readiness, StateName, Verb};

/// The end of one history.
#[derive(Debug, Default)]
pub struct Outcome {
    pub violations: Vec<String>,
    /// Why it did not converge.
    pub stuck: Option<String>,
    /// The operator had to choose between histories.
    pub chosen: bool,
    pub isolation: bool,
    pub acked: usize,
}

/// Runs the history of `seed`, without an arbiter.
pub fn run(seed: u64, mutation: Mutation, trace: bool) -> Outcome {
    history(seed, World::new(seed, mutation), trace)
}

/// Runs the history of `seed` with a store as the arbiter: no isolation excuses anything.
pub fn arbitrated(seed: u64, mutation: Mutation, trace: bool) -> Outcome {
    history(seed, World::new(seed, mutation).with_store(), trace)
}

fn history(seed: u64, mut world: World, trace: bool) -> Outcome {
    world.trace = trace;
    let mut outcome = Outcome::default();
    // Histories in which a living node is taken for dead prove less: only every third may have them.
    let isolating = world.store.is_some() || seed.is_multiple_of(3);
    world.loss = world.rng.range(0, 12);
    world.slow_scripts = world.rng.chance(30);
    world.boot(0);
    world.boot(1);
    world.command(0, Verb::Prim);
    world.command(1, Verb::Start);
    if !world.run_until(120_000, World::is_mirror) {
        outcome.stuck = Some("no mirror after the first start".to_owned());
    }
    if world.rng.chance(25) {
        world.hangs = world.rng.range(1, 20);
        world.failures = world.rng.range(1, 10);
    }
    let faults = world.rng.range(2, 14);
    for _ in 0..faults {
        let pause = if world.rng.chance(40) { world.rng.range(0, 300) } else { world.rng.range(300, 9_000) };
        world.run_for(pause);
        fault(&mut world, isolating);
    }
    let pause = world.rng.range(0, 6_000);
    world.run_for(pause);
    heal(&mut world);
    if outcome.stuck.is_none() {
        outcome.stuck = converge(&mut world, &mut outcome.chosen);
    }
    outcome.isolation = world.isolation;
    outcome.acked = world.acked.len();
    outcome.violations = world.violations;
    outcome
}

fn fault(world: &mut World, isolating: bool) {
    let node = usize::from(world.rng.chance(50));
    if world.store.is_some() && world.rng.chance(35) {
        return store_fault(world, node);
    }
    let kinds = if isolating { 26 } else { 22 };
    match world.rng.range(1, kinds) {
        1 | 2 => world.power_off(node),
        3 | 4 => {
            world.boot(0);
            world.boot(1);
        }
        5 | 6 => world.kill_runner(node),
        7 | 8 => world.link = false,
        9 | 10 => world.link = true,
        11 => world.command(node, Verb::Stop),
        12 => {
            for n in 0..2 {
                if world.is(n, StateName::Stop, Readiness::NotReady) {
                    world.command(n, Verb::Start);
                }
            }
        }
        13 => world.command(node, Verb::Swap),
        14 => world.command(node, Verb::StopStart),
        15 => world.command(node, Verb::Restart),
        16 => {
            world.power_off(node);
            let gap = world.rng.range(0, 50);
            world.run_for(gap);
            world.power_off(1 - node);
        }
        17 => {
            let value = if world.rng.chance(50) { "down" } else { "up" };
            let event = Event::Resource {
                name: "intf.10.0.0.0".to_owned(),
                value: value.to_owned(),
                origin: "intfcheck".to_owned(),
            };
            world.tell(node, event);
        }
        18 => world.nodes[node].vip_conflict = world.rng.chance(50),
        19 => world.automatic(node, Verb::Restart, "errd"),
        20 => {
            let on = world.rng.chance(60);
            for n in 0..2 {
                world.tell(n, Event::SetFailover { on, origin: "root".to_owned() });
            }
        }
        21 => world.tell(node, Event::ReplicaFault { reason: "by chance".to_owned() }),
        22 => dying_host(world, node),
        23 => world.beats = [false, false],
        24 => world.beats[node] = !world.beats[node],
        25 => world.pause(node),
        _ => {
            world.resume(0);
            world.resume(1);
            world.beats = [true, true];
        }
    }
}

fn store_fault(world: &mut World, node: usize) {
    let kind = world.rng.range(1, 8);
    let jump = world.rng.range(0, 100_000_000);
    let Some(store) = world.store.as_mut() else { return };
    match kind {
        1 | 2 => store.down = true,
        3 => store.down = false,
        4 => store.cut[node] = true,
        5 => store.cut = [false, false],
        6 => store.slow = !store.slow,
        7 => world.nodes[node].clock.wall_jump = jump,
        // A node cut from everything: its peer, its data network and the store.
        _ => {
            store.cut[node] = true;
            world.beats = [false, false];
            world.link = false;
        }
    }
}

/// A host whose network fails before the rest of it: it still hears, but is not heard.
fn dying_host(world: &mut World, node: usize) {
    let (beats, link) = (world.beats, world.link);
    world.beats[node] = false;
    world.link = false;
    // Less than the heartbeat timeout: the peer learns of the death after it.
    let agony = world.rng.range(0, TIMEOUT_MS - 500);
    world.run_for(agony);
    world.power_off(node);
    (world.beats, world.link) = (beats, link);
}

pub(crate) fn heal(world: &mut World) {
    world.beats = [true, true];
    world.link = true;
    world.loss = 0;
    world.hangs = 0;
    world.failures = 0;
    if let Some(store) = world.store.as_mut() {
        (store.down, store.cut, store.slow) = (false, [false, false], false);
    }
    for node in 0..2 {
        world.resume(node);
        world.nodes[node].vip_conflict = false;
        world.boot(node);
        let up = Event::Resource {
            name: "intf.10.0.0.0".to_owned(),
            value: "up".to_owned(),
            origin: "intfcheck".to_owned(),
        };
        world.tell(node, up);
        world.tell(node, Event::SetFailover { on: true, origin: "root".to_owned() });
    }
}

/// Waits for PRIM and SECOND, with an operator who starts what is stopped and chooses where the reference says that one must.
pub(crate) fn converge(world: &mut World, chosen: &mut bool) -> Option<String> {
    let blocked = |w: &World, n| w.is(n, StateName::Wait, Readiness::NotReady);
    for _ in 0..40 {
        if world.run_until(6_000, World::is_mirror) {
            // Stable, not passing through.
            world.run_for(3_000);
            if world.is_mirror() {
                return settled(world);
            }
        }
        for node in 0..2 {
            if world.is(node, StateName::Stop, Readiness::NotReady) {
                world.command(node, Verb::Start);
            }
            // Only a stop and a start bring replication back.
            if world.nodes[node].runner.as_ref().is_some_and(|r| r.core.data_state() == "degraded") {
                world.command(node, Verb::Stop);
            }
        }
        if blocked(world, 0) && blocked(world, 1) {
            if !world.isolation {
                return Some(format!("both nodes wait for the operator: {}", describe(world)));
            }
            *chosen = true;
            // The longer history, as an operator would after a look at the data.
            let keep = usize::from(world.nodes[1].engine.data.len() > world.nodes[0].engine.data.len());
            world.command(keep, Verb::Stop);
            world.run_until(30_000, |w| w.is(keep, StateName::Stop, Readiness::NotReady));
            world.command(keep, Verb::PrimForce);
        }
    }
    Some(describe(world))
}

fn settled(world: &mut World) -> Option<String> {
    let before = world.acked.len();
    world.run_for(2_000);
    if world.acked.len() == before {
        return Some("writes are not acknowledged after convergence".to_owned());
    }
    world.writing = false;
    world.run_for(1_000);
    if world.nodes[0].engine.data != world.nodes[1].engine.data {
        world.violate("the replicas differ after convergence");
    }
    world.judge_salvage();
    let missing = world.acked.iter().filter(|w| !world.nodes[0].engine.data.contains(w)).count();
    if missing > 0 && !world.isolation {
        world.violate(format!("{missing} acknowledged writes are lost"));
    }
    None
}

fn describe(world: &World) -> String {
    let node = |n: usize| {
        let state = world.state(n).map_or("no runner".to_owned(), |s| s.to_string());
        let engine = &world.nodes[n].engine;
        format!("node{} {state} {:?} {:?} {:?}", n + 1, engine.role, engine.standing, engine.peer)
    };
    format!("{}; {}", node(0), node(1))
}
