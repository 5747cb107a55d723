//! What may differ from the peer, and from which peer.

use crate::activity::{Header, Worth};
use crate::change_map::{ChangeMap, DirtySet};
use crate::engine::choose::Covered;
use crate::mutation;
use crate::op::Op;
use crate::resync::localise;
use crate::stream::message::StreamId;
use lineage::EpochId;
use std::io;
use std::os::fd::OwnedFd;

/// Checkpoints are numbered from 1; this one ends what was not known before a comparison.
const COMPARISON: u64 = 0;

/// The change map with its identity. The identity changes whenever what it covers does.
pub struct Changes {
    map: ChangeMap,
    covered: Covered,
    recovered: Recovered,
}

/// Whether the map holds what a former process recorded: an activity log says less than the map that its process had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovered {
    No,
    /// In the generation that has not ended.
    Open,
    /// In the one that this checkpoint ended.
    Sealed(u64),
}

impl Changes {
    /// A map that covers nobody yet: it says "everything".
    pub fn unknown(id: StreamId) -> Self {
        let covered = Covered { id, base: None, also: None };
        Self { map: ChangeMap::unknown(), covered, recovered: Recovered::No }
    }

    /// What a former process recorded.
    pub fn recover(&mut self, set: &DirtySet, header: &Header) {
        self.map.replace(set);
        self.recovered = Recovered::Open;
        let known = !set.everything();
        self.covered = Covered {
            id: if known { header.id } else { self.covered.id },
            base: header.base.filter(|_| known),
            also: header.also.filter(|_| known),
        };
    }

    /// Whether what a former process recorded is still of interest.
    pub fn is_recovered(&self) -> bool {
        self.recovered != Recovered::No
    }

    /// What follows was received, or is this node's own.
    pub fn set_foreign(&mut self, foreign: bool) {
        self.map.set_foreign(foreign);
    }

    pub fn record(&mut self, op: &Op, payload: usize) {
        if mutation::forgets(op) {
            return;
        }
        self.map.record(op, payload);
    }

    /// More that may differ, found by other means.
    pub fn add(&mut self, set: &DirtySet) {
        self.map.add(set);
    }

    pub fn seal(&mut self, checkpoint: u64) {
        self.map.seal(checkpoint);
        if self.recovered == Recovered::Open {
            self.recovered = Recovered::Sealed(checkpoint);
        }
    }

    /// Both sides have the checkpoint: from now on the map covers a peer whose newest epoch is `head`.
    pub fn retire(&mut self, checkpoint: u64, head: Option<EpochId>) {
        self.map.retire(checkpoint);
        if matches!(self.recovered, Recovered::Sealed(sealed) if sealed <= checkpoint) {
            self.recovered = Recovered::No;
        }
        self.rebase(head);
    }

    /// A comparison of everything begins: what changes from here on is noted beside what is not known.
    pub fn begin_comparison(&mut self) {
        if self.map.is_everything() {
            self.map.seal(COMPARISON);
        }
    }

    /// The peer has everything, durably, up to a place after the beginning of the comparison.
    pub fn end_comparison(&mut self, head: Option<EpochId>) {
        self.retire(COMPARISON, head);
    }

    /// Both trees are equal and durable, and nothing changes.
    pub fn clear(&mut self, head: Option<EpochId>) {
        self.map.clear();
        self.recovered = Recovered::No;
        self.rebase(head);
    }

    /// The trees differ, and nobody knows where.
    pub fn forget(&mut self) {
        self.map.replace(&DirtySet::all_of_it());
        self.rebase(None);
    }

    /// Both trees were equal at some moment since the map began.
    pub fn rebase(&mut self, head: Option<EpochId>) {
        // Without an identity an interrupted resynchronisation must not be continued from this map.
        let id = super::core::random().ok();
        self.covered =
            Covered { id: StreamId(id.unwrap_or_default()), base: head.filter(|_| id.is_some()), also: None };
    }

    /// What the map is worth: a map that says "everything" covers nobody.
    pub fn covered(&self) -> Covered {
        if self.map.is_everything() { Covered { base: None, also: None, ..self.covered } } else { self.covered }
    }

    pub fn worth(&self) -> Worth {
        let Covered { id, base, also } = self.covered();
        Worth { id, base, also }
    }

    pub fn dirty(&self) -> DirtySet {
        self.map.all()
    }

    /// Received changes become changes of files of this node.
    pub fn localise(&mut self, roots: &[OwnedFd]) -> io::Result<()> {
        let mut set = self.map.all();
        localise(&mut set, roots)?;
        self.map.replace(&set);
        Ok(())
    }
}
