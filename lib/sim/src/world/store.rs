//! How does the arbiter's store answer, and what must hold when nodes have leases: R8, judged by clocks that no node has.

use super::{Ev, World};
use automaton::arbitration::{Answer, Record, Request};
use automaton::{Action, Arbiter, Event, ReplicaRole};

pub const LEASE_MS: u64 = 3_000;
pub const MARGIN_MS: u64 = 1_000;

/// The store: one record, and who reaches it.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub revision: u64,
    pub record: Option<Record>,
    pub down: bool,
    /// Node i does not reach it.
    pub cut: [bool; 2],
    /// It answers, but late.
    pub slow: bool,
}

/// The clock of a host: milliseconds that began when it was made, and that may be too long or too short.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    pub offset: u64,
    /// Thousandths by which it is fast (or slow).
    pub drift: i64,
    /// What people have set the wall clock to, beyond the truth.
    pub wall_jump: u64,
}

impl Clock {
    pub fn local(self, now: u64) -> u64 {
        self.offset + now.saturating_add_signed((now as i64) * self.drift / 1_000)
    }

    /// True time at which the local clock shows `local` at the latest.
    pub fn truly(self, local: u64) -> u64 {
        let shown = local.saturating_sub(self.offset);
        (i128::from(shown) * 1_000 / i128::from(1_000 + self.drift)) as u64 + 1
    }
}

impl World {
    /// A world whose nodes ask a store, and whose clocks differ.
    #[must_use]
    pub fn with_store(mut self) -> Self {
        self.store = Some(Store::default());
        for node in 0..2 {
            let (offset, drift) = (self.rng.range(0, 1_000_000), self.rng.range(0, 18) as i64 - 9);
            self.nodes[node].clock = Clock { offset, drift, wall_jump: 0 };
            self.nodes[node].settings.arbiter = Arbiter::Store { lease_ms: LEASE_MS, margin_ms: MARGIN_MS };
        }
        self
    }

    pub(super) fn local(&self, node: usize) -> u64 {
        self.nodes[node].clock.local(self.now)
    }

    /// The engine may acknowledge, and the kernel keeps the addresses.
    pub(super) fn licensed(&self, node: usize) -> bool {
        self.store.is_none() || self.nodes[node].lease > self.local(node)
    }

    /// Has a right that ends: what an exploration waits for.
    pub(crate) fn has_lease(&self, node: usize) -> bool {
        self.store.is_some() && self.licensed(node)
    }

    /// Serves, to anybody who asks: its application's writes are answered, or its address is there.
    fn serves(&self, node: usize) -> bool {
        let n = &self.nodes[node];
        let engine = n.engine.running && n.engine.role == ReplicaRole::Primary && n.app;
        n.on && self.licensed(node) && (engine || n.vip)
    }

    /// R8, after every event.
    pub(super) fn judge_leases(&mut self) {
        if self.store.is_some() && self.serves(0) && self.serves(1) {
            self.violate("both nodes serve");
        }
    }

    pub(super) fn ask_store(&mut self, node: usize, life: u64, action: Action) {
        let Action::Arbitrate { id, request } = action else { return };
        let Some(store) = &self.store else { return };
        if store.down || store.cut[node] || self.rng.chance(self.loss) {
            return self.no_answer(node, life, id);
        }
        let most = if store.slow { 1_200 } else { 25 };
        let delay = self.rng.range(1, most);
        self.at(delay, Ev::Store { node, life, id, request });
    }

    fn no_answer(&mut self, node: usize, life: u64, id: u64) {
        let delay = self.rng.range(5, 1_500);
        let answer = Answer::Unreachable { reason: "cut".to_owned() };
        self.at(delay, Ev::Core { node, life, event: Event::Arbiter { id, answer } });
    }

    /// The request arrives, whatever has become of the one who sent it.
    pub(super) fn store_takes(&mut self, node: usize, life: u64, id: u64, request: Request) {
        let blind = self.mutation == crate::engine::Mutation::BlindSwap;
        let Some(store) = self.store.as_mut() else { return };
        if store.down {
            return self.no_answer(node, life, id);
        }
        let found = Answer::Found {
            revision: store.revision * u64::from(store.record.is_some()),
            record: store.record.clone(),
        };
        let answer = match request {
            Request::Read => found,
            Request::Swap { expect, record } => {
                let present = if store.record.is_some() { store.revision } else { 0 };
                if expect == present || blind {
                    store.revision += 1;
                    store.record = Some(record);
                    Answer::Swapped { revision: store.revision }
                } else {
                    found
                }
            }
            Request::Test => Answer::Unreachable { reason: "no witness".to_owned() },
        };
        if self.trace {
            self.say(node, format!("store {}", serde_json::to_string(&answer).unwrap_or_default()));
        }
        let lost = self.store.as_ref().is_some_and(|s| s.cut[node]) || self.rng.chance(self.loss);
        if lost {
            return self.no_answer(node, life, id);
        }
        let most = if self.store.as_ref().is_some_and(|s| s.slow) { 1_200 } else { 25 };
        let delay = self.rng.range(1, most);
        self.at(delay, Ev::Core { node, life, event: Event::Arbiter { id, answer } });
    }
}
