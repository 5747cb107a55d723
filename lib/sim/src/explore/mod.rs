//! Does everything hold in *every* small history, not only in those that chance finds?
//!
//! Breadth first from a mirror and from two fresh nodes: in each state every fault and every command is tried, and the world is left alone
//! either for an instant (the next one then meets it in the middle of its transition), or until a lease has ended, or until it has settled.
//! States that are the same apart from times and drawn names ([`World::digest`]: both cores whole, replicas, networks, the arbiter's store,
//! what is on its way) are visited once. Delays within a step are those of one seed: this explores orders of events, `scenario` timings.
//!
//! Two kinds of worlds: two nodes that have only each other, and two nodes that ask a store, with clocks that differ and run differently,
//! and a store that one of them, or both, or nobody reaches.
//!
//! In every state: no violation as the world checks them (R3, R4; R6: nothing accepted by one node alone is erased before it was put aside,
//! not even by order of the operator; with a store R8: never two that serve). From every state: when all heals and an operator starts what is
//! stopped, there is a mirror again, its replicas are equal, everything that was ever acknowledged is in them or was put aside, and nothing
//! acknowledged is lost (no dead end). With a store, moreover: after a loss of power of both hosts, the owner of the last epoch starts alone. Where the
//! nodes were isolated without an arbiter, what was acknowledged *before* is still there, and so is what the former primary
//! acknowledged: the documented compromise (`docs/guarantees.md`, split brain) costs what the other one acknowledged, which is put aside.

mod steps;

use crate::engine::Mutation;
use crate::scenario;
use crate::world::World;
use automaton::{Readiness, StateName, Verb};
use lineage::Standing;
use std::collections::{BTreeSet, VecDeque};
use steps::SETTLE_MS;
pub use steps::{Step, Wait};

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Inputs one after the other.
    pub depth: usize,
    pub states: usize,
    /// The nodes ask a store.
    pub arbitrated: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub states: usize,
    pub transitions: usize,
    /// States at each depth.
    pub levels: Vec<usize>,
    /// Nothing was left out within the depth.
    pub complete: bool,
    pub isolated: usize,
    /// States from which both hosts lost their power, and the owner came back alone.
    pub owners: usize,
    /// States from whose future on something is kept in salvage only.
    pub salvaged: usize,
    /// Each with the inputs that lead to it.
    pub failures: Vec<String>,
}

#[derive(Clone)]
struct State {
    world: World,
    path: Vec<(Step, Wait)>,
    /// Acknowledged before the first isolation.
    safe: Option<BTreeSet<u64>>,
    /// The operator made data count that may be older: only that there is no dead end, and that nothing is erased, is checked, and
    /// nothing is tried from here.
    forced: bool,
}

fn roots(mutation: Mutation, arbitrated: bool) -> Vec<World> {
    let mut fresh = World::new(11, mutation);
    if arbitrated {
        fresh = fresh.with_store();
        // Somebody has set this host's wall clock to a day later: nobody may care.
        fresh.nodes[0].clock.wall_jump = 86_400_000;
    }
    fresh.boot(0);
    fresh.boot(1);
    fresh.run_for(SETTLE_MS);
    let mut mirror = fresh.clone();
    mirror.command(0, Verb::Prim);
    mirror.command(1, Verb::Start);
    mirror.run_until(60_000, World::is_mirror);
    mirror.run_for(1_000);
    vec![mirror, fresh]
}

/// Explores. Stops at the first failure when `first` is set.
pub fn explore(mutation: Mutation, bounds: Bounds, first: bool) -> Found {
    let mut found = Found { complete: true, ..Found::default() };
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::new();
    for world in roots(mutation, bounds.arbitrated) {
        let state = State { world, path: Vec::new(), safe: None, forced: false };
        visit(state, bounds, &mut seen, &mut queue, &mut found);
    }
    while let Some(state) = queue.pop_front() {
        if first && !found.failures.is_empty() {
            break;
        }
        if found.states >= bounds.states {
            found.complete = false;
            break;
        }
        for step in steps::possible(&state.world) {
            for wait in steps::waits(bounds.arbitrated) {
                let mut next = state.clone();
                if !take(&mut next, step, *wait) {
                    continue;
                }
                found.transitions += 1;
                visit(next, bounds, &mut seen, &mut queue, &mut found);
            }
        }
    }
    found
}

/// One step further; `false` when what was waited for does not happen.
fn take(state: &mut State, step: Step, wait: Wait) -> bool {
    state.forced |= steps::overrules(&state.world, step);
    state.path.push((step, wait));
    let (before, isolated) = (state.world.acked.clone(), state.world.isolation);
    steps::apply(&mut state.world, step);
    let passed = steps::pass(&mut state.world, wait);
    if state.world.isolation && !isolated {
        state.safe = Some(before);
    }
    passed
}

/// One history from each beginning: what is wrong after it, as [`explore`] finds it.
pub fn history(arbitrated: bool, path: &[(Step, Wait)]) -> Vec<String> {
    let mut found = Found::default();
    for world in roots(Mutation::None, arbitrated) {
        let mut state = State { world, path: Vec::new(), safe: None, forced: false };
        for (step, wait) in path {
            take(&mut state, *step, *wait);
        }
        let bounds = Bounds { depth: 0, states: 1, arbitrated };
        visit(state, bounds, &mut BTreeSet::new(), &mut VecDeque::new(), &mut found);
    }
    found.failures
}

fn visit(state: State, bounds: Bounds, seen: &mut BTreeSet<u64>, queue: &mut VecDeque<State>, found: &mut Found) {
    if let Some(violation) = counted(&state.world, state.forced).first() {
        found.failures.push(format!("{:?}: {violation}", state.path));
        return;
    }
    if !seen.insert(state.world.digest()) {
        return;
    }
    found.states += 1;
    found.isolated += usize::from(state.world.isolation);
    let depth = state.path.len();
    if found.levels.len() <= depth {
        found.levels.resize(depth + 1, 0);
    }
    found.levels[depth] += 1;
    if let Some(why) = dead_end(&state, found).or_else(|| lone_owner(&state, found)) {
        found.failures.push(format!("{:?}: {why}", state.path));
    }
    if depth < bounds.depth && !state.forced {
        queue.push_back(state);
    }
}

/// The operator's word excuses the loss of what was acknowledged, but not that it is nowhere any more.
fn counted(world: &World, forced: bool) -> &[String] {
    if forced { &world.erased } else { &world.violations }
}

/// Why no mirror comes about from here, or what it lost.
fn dead_end(state: &State, found: &mut Found) -> Option<String> {
    let mut world = state.world.clone();
    let stays = former_primary(&world).map(|n| world.nodes[n].engine.data.clone());
    scenario::heal(&mut world);
    let mut chosen = false;
    if world.acked.is_empty() && world.nodes.iter().all(|n| n.engine.standing == Standing::Blank) {
        // Nothing was ever written, and nobody may guess: the operator says which node begins.
        world.run_for(SETTLE_MS);
        world.command(0, Verb::Stop);
        world.run_for(SETTLE_MS);
        world.command(0, Verb::Prim);
    }
    if let Some(why) = scenario::converge(&mut world, &mut chosen) {
        return Some(format!("dead end: {why}"));
    }
    found.salvaged += usize::from(world.nodes.iter().any(|n| !n.engine.salvage.is_empty()));
    if let Some(violation) = counted(&world, state.forced).first() {
        return Some(format!("after healing: {violation}"));
    }
    if state.forced {
        return None;
    }
    let kept = &world.nodes[0].engine.data;
    if stays.is_some_and(|data| !kept.starts_with(&data)) && !chosen {
        return Some("both served, and the former primary did not stay".to_owned());
    }
    let lost = state.safe.iter().flatten().filter(|w| !kept.contains(w)).count();
    (lost > 0 && !chosen).then(|| format!("{lost} writes acknowledged before the isolation are lost"))
}

/// In a split brain: the one that was primary before. Its data must be what both have in the end.
fn former_primary(world: &World) -> Option<usize> {
    let alone = (0..2).all(|n| world.is(n, StateName::Alone, Readiness::Ready));
    let mut former = (0..2).filter(|n| world.nodes[*n].persisted.alone_from_prim);
    former.next().filter(|_| alone && former.next().is_none())
}

/// Both hosts lose their power now, and only the one that the store calls the owner of the last epoch comes back: it serves.
fn lone_owner(state: &State, found: &mut Found) -> Option<String> {
    state.world.store.as_ref()?;
    let mut world = state.world.clone();
    scenario::heal(&mut world);
    world.power_off(0);
    world.power_off(1);
    // What was on its way to the store arrives.
    world.run_for(SETTLE_MS);
    let record = world.store.as_ref()?.record.clone()?;
    let node = (0..2).find(|n| world.nodes[*n].settings.node == record.owner)?;
    let owner = &world.nodes[node];
    let has_it = owner.engine.standing.is_up_to_date() && record.epoch == owner.engine.lineage.head();
    // A role that was handed over and never taken up proves nothing: its former owner may have more.
    let lawful = has_it && record.by == record.owner && owner.persisted.was_primary && owner.persisted.wanted;
    if !lawful || state.forced {
        return None;
    }
    found.owners += 1;
    world.boot(node);
    let serves = world.run_until(60_000, |w| w.is(node, StateName::Alone, Readiness::Ready));
    if let Some(violation) = world.violations.first() {
        return Some(format!("the owner alone after a loss of power: {violation}"));
    }
    (!serves).then(|| format!("the owner alone after a loss of power: node{} does not serve", node + 1))
}
