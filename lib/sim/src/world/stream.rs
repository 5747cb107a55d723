//! How do orders, writes and resynchronisations go through the modelled stream, and what must hold at each of them.

use super::{Ev, Node, World};
use crate::engine::{Mutation, Phase, Stream};
use automaton::{Event, ReplicaOrder, ReplicaPeer, ReplicaRole};
use lineage::{EpochId, Relation, Standing};
use std::collections::BTreeSet;

/// The node whose application made a write.
fn accepted_by(write: u64) -> usize {
    (write % 2) as usize
}

impl World {
    pub(super) fn epoch(&mut self) -> EpochId {
        EpochId((u128::from(self.rng.draw()) << 64) | u128::from(self.rng.draw()))
    }

    pub(super) fn carry_out(&mut self, node: usize, life: u64, id: u64, order: ReplicaOrder, tries: u32) {
        if self.nodes[node].life != life || !self.nodes[node].engine.running {
            return;
        }
        if tries == 0 && self.rng.chance(self.failures) {
            return self.answer(node, Event::ReplicaFailed { id, reason: "by chance".to_owned() });
        }
        let epoch = self.epoch();
        let mutation = self.mutation;
        let live = self.stream.as_ref().is_some_and(|s| s.phase == Phase::Live && self.nodes[node].stream == s.id);
        let engine = &mut self.nodes[node].engine;
        let shared = live && engine.pending.is_empty();
        let drained = shared || tries > 20;
        if tries > 20 && matches!(order, ReplicaOrder::Demote) {
            return self.answer(node, Event::ReplicaFailed { id, reason: "the stream is not drained".to_owned() });
        }
        let effect = engine.order(&order, epoch, (shared, drained), mutation);
        if effect.later {
            return self.at(50, Ev::Order { node, life, id, order, tries: tries + 1 });
        }
        if let Some(reason) = effect.failed {
            return self.answer(node, Event::ReplicaFailed { id, reason: reason.to_owned() });
        }
        if let Some(as_peer) = effect.close {
            self.close(Some(node), as_peer);
        }
        if let Some(forced) = effect.serves_alone {
            self.begins_alone(node, forced);
        }
        if self.may_acknowledge(node) {
            self.ack(node, &effect.acked);
        }
        self.report(node);
        self.answer(node, Event::ReplicaDone { id });
    }

    /// R4: who begins to serve without its peer has everything that was acknowledged.
    pub(super) fn begins_alone(&mut self, node: usize, forced: bool) {
        let has: BTreeSet<u64> = self.nodes[node].engine.data.iter().copied().collect();
        let missing = self.acked.difference(&has).count();
        if missing == 0 {
            return;
        }
        if forced || self.isolation {
            // Given up by the operator, or by the compromise of two nodes without an arbiter.
            self.acked.retain(|w| has.contains(w));
        } else {
            self.violate(format!("node{} serves without {missing} acknowledged writes", node + 1));
        }
    }

    pub(super) fn close(&mut self, by: Option<usize>, as_peer: ReplicaPeer) {
        let Some(stream) = self.stream.as_ref().map(|s| s.id) else { return };
        if let Some(node) = by
            && self.nodes[node].stream != stream
        {
            return;
        }
        self.stream = None;
        for node in 0..2 {
            if Some(node) != by && self.nodes[node].stream == stream {
                let delay = self.rng.range(0, 300);
                self.at(delay, Ev::Lost { node, stream, as_peer });
            }
        }
    }

    pub(super) fn lose(&mut self, node: usize, stream: u64, as_peer: ReplicaPeer) {
        let n = &mut self.nodes[node];
        if n.stream != stream || !n.engine.running || n.engine.peer == ReplicaPeer::Absent {
            return;
        }
        n.stream = 0;
        n.engine.peer = as_peer;
        self.report(node);
        if self.mutation == Mutation::HastyDetector {
            self.tell(node, Event::PeerDown);
        }
    }

    pub(super) fn streams(&mut self) {
        self.at(50, Ev::Streams);
        let usable = |n: &Node| n.on && !n.paused && n.engine.running;
        let up = self.link && self.nodes.iter().all(usable);
        if let Some(stream) = &self.stream {
            let [primary, secondary] = [&self.nodes[stream.primary], &self.nodes[1 - stream.primary]];
            let alive = up
                && primary.engine.role == ReplicaRole::Primary
                && secondary.engine.role == ReplicaRole::Secondary
                && secondary.engine.follow
                && primary.stream == stream.id
                && secondary.stream == stream.id;
            if !alive {
                self.close(None, ReplicaPeer::Lost);
            }
            return;
        }
        if !up || self.rng.chance(50) {
            return;
        }
        let Some(primary) = (0..2).find(|n| self.nodes[*n].engine.role == ReplicaRole::Primary) else { return };
        let secondary = 1 - primary;
        if self.nodes[secondary].engine.role != ReplicaRole::Secondary || !self.nodes[secondary].engine.follow {
            return;
        }
        self.connect(primary, secondary);
    }

    pub(super) fn connect(&mut self, primary: usize, secondary: usize) {
        let (p, s) = (&self.nodes[primary].engine, &self.nodes[secondary].engine);
        let prefix = p.data.starts_with(&s.data);
        let paired = s.standing == Standing::Paired && p.lineage.compare(&s.lineage) == Relation::Same && !s.full;
        let resume = p.standing == Standing::Paired && paired && prefix;
        if p.standing == Standing::Paired && !resume {
            // Service goes on alone first: a copy cannot be made while nothing may be acknowledged.
            return;
        }
        self.streams += 1;
        let id = self.streams;
        let phase = if resume { Phase::Marked(p.data.len()) } else { Phase::Copying };
        self.stream = Some(Stream { id, primary, phase });
        let data = p.data.clone();
        for node in [primary, secondary] {
            self.nodes[node].stream = id;
            self.nodes[node].engine.peer = ReplicaPeer::Syncing;
        }
        let delay = self.rng.range(5, 40);
        if resume {
            self.at(delay, Ev::Adopt { stream: id, data });
        } else {
            let early = self.mutation == Mutation::PairedTooSoon;
            let lineage = self.nodes[primary].engine.lineage.clone();
            let engine = &mut self.nodes[secondary].engine;
            engine.standing = if early { Standing::Paired } else { Standing::Inconsistent };
            if early {
                engine.lineage = lineage;
                engine.peer = ReplicaPeer::InSync;
            }
            // A mixture from now on: not even a prefix of what it was.
            let half = self.nodes[secondary].engine.data.len().div_ceil(2);
            self.overwrite(secondary, if early { usize::MAX } else { half });
            if early {
                self.nodes[primary].engine.standing = Standing::Paired;
                self.nodes[primary].engine.peer = ReplicaPeer::InSync;
            }
            let delay = self.rng.range(100, 4_000);
            self.at(delay, Ev::Marker { stream: id });
        }
        self.report(primary);
        self.report(secondary);
    }

    pub(super) fn ends(&self, stream: u64) -> Option<(usize, usize)> {
        let s = self.stream.as_ref().filter(|s| s.id == stream)?;
        Some((s.primary, 1 - s.primary))
    }

    /// A copy takes the place of content. R6: nothing that this node accepted, and its peer does not have, is erased.
    fn overwrite(&mut self, node: usize, part: usize) {
        let mutation = self.mutation;
        let [first, second] = &mut self.nodes;
        let (own, theirs) = if node == 0 { (first, second) } else { (second, first) };
        let gone = own.engine.overwrite(part, &theirs.engine, mutation);
        let erased = gone.iter().filter(|w| accepted_by(**w) == node).count();
        if erased > 0 {
            let what = format!("{erased} writes accepted by node{} alone are erased, and were not put aside", node + 1);
            self.violate(what.clone());
            self.erased.push(what);
        }
    }

    /// R6 in the end: what was ever acknowledged is in the data of both, or was put aside. No isolation and no order of the operator excuses more.
    pub(crate) fn judge_salvage(&mut self) {
        let [one, two] = [&self.nodes[0].engine, &self.nodes[1].engine];
        let theirs: BTreeSet<u64> = two.data.iter().copied().collect();
        let both = one.data.iter().filter(|w| theirs.contains(w));
        let kept: BTreeSet<u64> = both.chain(&one.salvage).chain(&two.salvage).copied().collect();
        let erased = self.told.difference(&kept).count();
        if erased > 0 {
            let what = format!("{erased} acknowledged writes are neither in the data nor put aside");
            self.violate(what.clone());
            self.erased.push(what);
        }
    }

    /// The copy is complete: the primary is paired from here on, before the secondary knows.
    pub(super) fn marker(&mut self, stream: u64) {
        let Some((primary, _)) = self.ends(stream) else { return };
        let engine = &mut self.nodes[primary].engine;
        engine.standing = Standing::Paired;
        let data = engine.data.clone();
        if let Some(s) = self.stream.as_mut() {
            s.phase = Phase::Marked(data.len());
        }
        self.report(primary);
        let delay = self.rng.range(5, 80);
        self.at(delay, Ev::Adopt { stream, data });
    }

    pub(super) fn adopt(&mut self, stream: u64, data: Vec<u64>) {
        // What was received before a loss still counts, unless the engine was told to give it up.
        let node = self.ends(stream).map(|(_, s)| s).or_else(|| {
            (0..2).find(|n| self.nodes[*n].stream == stream && self.nodes[*n].engine.role == ReplicaRole::Secondary)
        });
        let Some(node) = node else { return };
        if !self.nodes[node].engine.follow || !self.nodes[node].engine.running || self.nodes[node].paused {
            return;
        }
        let lineage = self.nodes[1 - node].engine.lineage.clone();
        self.overwrite(node, usize::MAX);
        let engine = &mut self.nodes[node].engine;
        engine.data = data;
        engine.durable = engine.data.len();
        engine.unshared = false;
        engine.full = false;
        engine.standing = Standing::Paired;
        engine.lineage = lineage;
        if self.stream.as_ref().is_some_and(|s| s.id == stream) {
            engine.peer = ReplicaPeer::InSync;
            let delay = self.rng.range(5, 40);
            self.at(delay, Ev::Live { stream });
        }
        self.report(node);
    }

    pub(super) fn live(&mut self, stream: u64) {
        let Some((primary, _)) = self.ends(stream) else { return };
        if self.nodes[primary].paused || self.nodes[primary].stream != stream {
            return;
        }
        if let Some(s) = self.stream.as_mut() {
            s.phase = Phase::Live;
        }
        let may = self.may_acknowledge(primary);
        let engine = &mut self.nodes[primary].engine;
        engine.peer = ReplicaPeer::InSync;
        let pending = if may { std::mem::take(&mut engine.pending) } else { Vec::new() };
        engine.durable = engine.data.len();
        self.ack(primary, &pending);
        self.report(primary);
    }

    pub(super) fn write(&mut self) {
        let delay = self.rng.range(5, 40);
        self.at(delay, Ev::Write);
        if !self.writing {
            return;
        }
        let serves = |n: &Node| n.on && !n.paused && n.app && n.engine.running && n.engine.role == ReplicaRole::Primary;
        let alone = |n: &Node| serves(n) && n.engine.standing == Standing::Alone;
        let licensed = (0..2).all(|n| self.licensed(n));
        if licensed && self.nodes.iter().all(alone) && !self.isolation {
            self.violate("both nodes acknowledge alone");
        }
        for node in 0..2 {
            if !serves(&self.nodes[node]) || !self.may_acknowledge(node) {
                continue;
            }
            let mutation = self.mutation;
            let engine = &mut self.nodes[node].engine;
            if engine.frozen() && mutation != Mutation::NoFreeze {
                continue;
            }
            let id = self.next_write * 2 + node as u64;
            self.next_write += 1;
            engine.data.push(id);
            let frozen = engine.frozen();
            if engine.standing == Standing::Alone || mutation == Mutation::AckEarly || frozen {
                engine.durable = engine.data.len();
                self.ack(node, &[id]);
            } else {
                engine.pending.push(id);
            }
            if let Some(stream) = self.stream.as_ref().filter(|s| s.phase == Phase::Live && s.primary == node) {
                let (stream, data) = (stream.id, self.nodes[node].engine.data.clone());
                let delay = self.rng.range(1, 10);
                self.at(delay, Ev::Apply { stream, data });
            }
        }
    }

    pub(super) fn apply(&mut self, stream: u64, data: Vec<u64>) {
        let Some((_, node)) = self.ends(stream) else { return };
        if !self.link || self.nodes[node].paused || !self.nodes[node].engine.follow {
            return;
        }
        let checkpoint = self.rng.chance(10);
        let engine = &mut self.nodes[node].engine;
        if data.len() > engine.data.len() {
            engine.data.clone_from(&data);
        }
        if checkpoint {
            engine.durable = engine.data.len();
        }
        let delay = self.rng.range(1, 10);
        self.at(delay, Ev::Ack { stream, data });
    }

    pub(super) fn acknowledge(&mut self, stream: u64, data: Vec<u64>) {
        let Some((node, _)) = self.ends(stream) else { return };
        if !self.link || self.nodes[node].paused || self.nodes[node].stream != stream || !self.may_acknowledge(node) {
            return;
        }
        let has: BTreeSet<u64> = data.into_iter().collect();
        let engine = &mut self.nodes[node].engine;
        let acked: Vec<u64> = engine.pending.iter().copied().filter(|w| has.contains(w)).collect();
        engine.pending.retain(|w| !has.contains(w));
        engine.durable = engine.data.len();
        self.ack(node, &acked);
    }

    /// The engine's own look at its lease.
    fn may_acknowledge(&self, node: usize) -> bool {
        self.mutation == Mutation::AckUnlicensed || self.licensed(node)
    }

    pub(super) fn ack(&mut self, node: usize, writes: &[u64]) {
        // Whether or not the other node serves at this very moment.
        if !writes.is_empty() && !self.licensed(node) {
            self.violate(format!("node{} acknowledges without a lease", node + 1));
        }
        self.acked.extend(writes);
        self.told.extend(writes);
    }
}
