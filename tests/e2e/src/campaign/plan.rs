//! Which faults happen when? A plan made from a seed alone, so that it can be told and repeated.

use crate::campaign::random::Random;
use serde::Serialize;

/// Kinds of faults, as `--only` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Loss of power of one node or both, with everything that was not synced
    Poweroff,
    /// SIGKILL of a process of the module
    Kill,
    /// A cut cable: replication, production or both, in one direction or both
    Cut,
    /// All processes of a node stand still for a while
    Pause,
    /// No room on a node's disk
    Full,
    /// Not a fault: the operator's swap, restart and stop, in the middle of everything
    Order,
}

/// All kinds.
pub const KINDS: [Kind; 6] = [Kind::Poweroff, Kind::Kill, Kind::Cut, Kind::Pause, Kind::Full, Kind::Order];

/// node1 or node2.
pub type Node = &'static str;
/// The two nodes.
pub const NODES: [Node; 2] = ["node1", "node2"];

/// The other node.
pub fn other(node: Node) -> Node {
    if node == NODES[0] { NODES[1] } else { NODES[0] }
}

/// Something done to the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Pull the plug.
    Poweroff(Node),
    /// Switch on.
    Boot(Node),
    /// SIGKILL; the text is matched against command lines.
    Kill(Node, &'static str),
    /// Frames from the node to its peer are dropped.
    Cut {
        /// Sender of the frames (both directions unless `one_way`).
        from: Node,
        /// prod, repl or all
        net: &'static str,
        /// Only frames of `from`.
        one_way: bool,
    },
    /// All cables are good again.
    Heal,
    /// Freeze.
    Pause(Node),
    /// Thaw.
    Resume(Node),
    /// Use up the disk.
    Fill(Node),
    /// Give the room back.
    Free(Node),
    /// A verb of sk-module.
    Order(Node, &'static [&'static str]),
}

/// An act and its time, milliseconds from the start of the faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When.
    pub at_ms: u64,
    /// What.
    pub act: Act,
}

/// Command lines of what may be killed.
const VICTIMS: [&str; 5] =
    ["sk-replicate run", "sk-replicate run", "sk-module run", "sk-heartbeat run", "sk-vip hold|sk-vip watch"];

/// Makes the plan of a trial. `only`: kinds to choose from, all when empty. `isolation`: whether both networks may be cut at once.
pub fn plan(random: &mut Random, only: &[Kind], isolation: bool) -> Vec<Step> {
    let kinds = if only.is_empty() { &KINDS[..] } else { only };
    let mut steps = Vec::new();
    let mut at = random.range(200, 1500);
    for _ in 0..random.range(1, 4) {
        let kind = random.pick(kinds).copied().unwrap_or(Kind::Kill);
        episode(random, kind, isolation, at, &mut steps);
        // Soon: in the middle of what the first one began. Later: after it, or during the resynchronisation.
        at += if random.chance(40) { random.below(400) } else { random.range(400, 6000) };
    }
    steps.sort_by_key(|step| step.at_ms);
    steps
}

fn episode(random: &mut Random, kind: Kind, isolation: bool, at: u64, steps: &mut Vec<Step>) {
    let node = if random.chance(60) { NODES[0] } else { NODES[1] };
    // Shorter and longer than the time after which a peer is held for lost.
    let short = random.chance(50);
    let hold = if short { random.range(100, 1900) } else { random.range(2100, 6000) };
    let undone = random.chance(75);
    let mut push = |at_ms: u64, act: Act| steps.push(Step { at_ms, act });
    match kind {
        Kind::Poweroff if random.chance(35) => {
            push(at, Act::Poweroff(node));
            push(at + random.below(2) * random.below(3500), Act::Poweroff(other(node)));
            let first = if random.chance(50) { node } else { other(node) };
            push(at + 3600 + random.below(500), Act::Boot(first));
            if undone {
                push(at + 4200 + random.below(4000), Act::Boot(other(first)));
            }
        }
        Kind::Poweroff => {
            // In half of them the cable is dead a moment earlier: what was acknowledged in between without the peer is nowhere else.
            let off = if random.chance(50) {
                let off = at + random.range(50, 1000);
                push(at, Act::Cut { from: node, net: "repl", one_way: false });
                push(off, Act::Poweroff(node));
                push(off, Act::Heal);
                off
            } else {
                push(at, Act::Poweroff(node));
                at
            };
            if undone {
                push(off + hold, Act::Boot(node));
            }
        }
        Kind::Kill => {
            let victim = random.pick(&VICTIMS).copied().unwrap_or(VICTIMS[0]);
            let times = if random.chance(25) { random.range(2, 5) } else { 1 };
            for n in 0..times {
                push(at + n * random.range(50, 1200), Act::Kill(node, victim));
            }
        }
        Kind::Cut => {
            let nets: &[&str] = if isolation { &["repl", "repl", "prod", "all"] } else { &["repl", "prod"] };
            let net = random.pick(nets).copied().unwrap_or("repl");
            push(at, Act::Cut { from: node, net, one_way: random.chance(30) });
            // Without isolation a second cut could complete the first one.
            if undone || !isolation {
                push(at + hold, Act::Heal);
            }
        }
        Kind::Pause => {
            push(at, Act::Pause(node));
            if undone {
                push(at + hold, Act::Resume(node));
            }
        }
        Kind::Full => {
            push(at, Act::Fill(node));
            if undone {
                push(at + hold, Act::Free(node));
            }
        }
        Kind::Order => {
            const ORDERS: [&[&str]; 4] = [&["swap"], &["restart"], &["stopstart"], &["stop"]];
            push(at, Act::Order(node, random.pick(&ORDERS).copied().unwrap_or(ORDERS[0])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_plan_and_only_means_only() {
        for seed in 0..200 {
            let plan_of = |only: &[Kind]| plan(&mut Random::new(seed), only, true);
            assert_eq!(plan_of(&[]), plan_of(&[]));
            for step in plan_of(&[Kind::Pause]) {
                assert!(matches!(step.act, Act::Pause(_) | Act::Resume(_)), "{step:?}");
            }
        }
    }

    #[test]
    fn without_isolation_one_network_is_always_whole() {
        for seed in 0..500 {
            for step in plan(&mut Random::new(seed), &[Kind::Cut], false) {
                assert!(!matches!(step.act, Act::Cut { net: "all", .. }), "{seed}: {step:?}");
            }
        }
    }
}
