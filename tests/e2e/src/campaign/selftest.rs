//! Would the campaign notice? Which rule is broken on purpose, and what happens to the hosts so that it shows.

use crate::campaign::plan::{Act, Step};
use crate::campaign::random::Random;
use crate::campaign::trial::Outcome;

/// Rules of data safety that `lib/replica/src/mutation.rs` can break, as `SK_MUTATE` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutation {
    /// No rule: nothing may be found
    None,
    /// The primary answers before the secondary has acknowledged
    R1,
    /// The secondary leaves out operations
    R2,
    /// A primary that lost the stream goes on acknowledging before it has excluded its peer
    R3,
    /// Change map and activity log forget
    R5,
}

/// The rules that can be broken.
pub const BROKEN: [Mutation; 4] = [Mutation::R1, Mutation::R2, Mutation::R3, Mutation::R5];

impl Mutation {
    /// Faults that show it, node1 being the primary; those of each rule in turn when none is broken.
    pub fn plan(self, trial: u64, random: &mut Random) -> Vec<Step> {
        let step = |at_ms: u64, act: Act| Step { at_ms, act };
        let early = random.range(300, 900);
        match self {
            Self::None => {
                let turn = usize::try_from(trial).unwrap_or(0) % BROKEN.len();
                BROKEN.get(turn).map(|rule| rule.plan(trial, random)).unwrap_or_default()
            }
            // What was acknowledged in the silence that is no loss of the stream yet is missing on the survivor.
            Self::R1 => {
                let failure = early + random.range(400, 1400);
                vec![
                    step(early, Act::Cut { from: "node1", net: "repl", one_way: false }),
                    step(failure, Act::Poweroff("node1")),
                    step(failure + 4000, Act::Boot("node1")),
                ]
            }
            // Nothing but work.
            Self::R2 => vec![step(early + 1000, Act::Heal)],
            // The stream is lost after 3 s of silence, and the peer, whose heartbeats are heard, is told 2 s later that it is out of date:
            // the power fails between the two, and the peer takes over.
            Self::R3 => {
                let failure = early + 3000 + random.range(600, 1400);
                vec![
                    step(early, Act::Cut { from: "node1", net: "repl", one_way: false }),
                    step(failure, Act::Poweroff("node1")),
                    step(failure + 4000, Act::Boot("node1")),
                ]
            }
            // What the survivor changes meanwhile is all that is copied: after a checkpoint of both, which come every 5 s, the files are in
            // the log of the node that returns no more as those that are new. About half of the failures come at a moment when they still
            // are, so that they come at others in the next trials.
            Self::R5 => {
                let failure = early + 10_000 + 1_250 * (trial % 4);
                vec![step(failure, Act::Poweroff("node2")), step(failure + 4000, Act::Boot("node2"))]
            }
        }
    }
}

/// As which kind of failure an outcome counts; nothing when it is good.
pub fn found(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        _ if outcome.good() => None,
        _ if !outcome.verdict.lost.is_empty() => Some("lost"),
        _ if !outcome.diverged.is_empty() => Some("diverged"),
        _ => Some("stuck"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_broken_rule_the_faults_of_each_happen() {
        for (trial, rule) in (0..8).zip(BROKEN.iter().cycle()) {
            let plan = |of: Mutation| of.plan(trial, &mut Random::new(trial)).into_iter().map(|step| step.act);
            let kinds = |of| plan(of).map(|act| std::mem::discriminant(&act)).collect::<Vec<_>>();
            assert_eq!(kinds(Mutation::None), kinds(*rule), "{trial}");
        }
    }

    #[test]
    fn a_loss_counts_more_than_a_difference() {
        let mut outcome = Outcome::default();
        assert_eq!(found(&outcome), None);
        outcome.stuck = Some("WAIT".into());
        assert_eq!(found(&outcome), Some("stuck"));
        outcome.diverged.push("a".into());
        assert_eq!(found(&outcome), Some("diverged"));
        outcome.verdict.lost.push("b".into());
        assert_eq!(found(&outcome), Some("lost"));
    }
}
