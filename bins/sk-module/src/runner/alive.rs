//! Does a child that speaks only when there is something to say still go round its loop? It is asked; one that does not answer is replaced.

use super::input::Kind;
use super::{Runner, monotonic_ms};
use std::collections::BTreeMap;

/// A child is asked this often, and has as long to answer.
const ALIVE_MS: u64 = 20_000;

/// The children that are asked.
#[derive(Default)]
pub(super) struct Signs(BTreeMap<Kind, Sign>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// To be asked at this time (monotonic ms).
    AskAt(u64),
    /// It must have answered by this time.
    AnswerBy(u64),
}

impl Signs {
    pub fn next_deadline(&self) -> Option<u64> {
        self.0.values().map(|(Sign::AskAt(at) | Sign::AnswerBy(at))| *at).min()
    }

    /// A new process, or an answer: nothing is owed for a while.
    pub fn seen(&mut self, kind: Kind) {
        self.0.insert(kind, Sign::AskAt(monotonic_ms().saturating_add(ALIVE_MS)));
    }

    /// It is not meant to run any more.
    pub fn forget(&mut self, kind: Kind) {
        self.0.remove(&kind);
    }

    /// An answer of a child that is still asked.
    pub fn answered(&mut self, kind: Kind) {
        if self.0.contains_key(&kind) {
            self.seen(kind);
        }
    }
}

impl Runner {
    /// Asks those whose time has come; kills the one that has not answered. Its end starts a successor.
    pub(super) fn watch_signs(&mut self, now: u64) {
        let due: Vec<(Kind, Sign)> = self
            .links
            .signs
            .0
            .iter()
            .filter(|(_, Sign::AskAt(at) | Sign::AnswerBy(at))| *at <= now)
            .map(|(kind, sign)| (*kind, *sign))
            .collect();
        for (kind, sign) in due {
            match sign {
                Sign::AskAt(_) => {
                    if self.children.order(kind, r#"{"kind":"ping"}"#) {
                        self.links.signs.0.insert(kind, Sign::AnswerBy(now.saturating_add(ALIVE_MS)));
                    } else {
                        self.links.signs.forget(kind);
                    }
                }
                Sign::AnswerBy(_) => {
                    self.links.signs.forget(kind);
                    let words = format!("{} has not answered for {} s: it is replaced", kind.label(), ALIVE_MS / 1000);
                    self.facts.say('C', kind.program(), &words);
                    self.children.kill(kind);
                }
            }
        }
    }
}
