//! What may differ from the peer, and from which peer.

use crate::change_map::{ChangeMap, DirtySet};
use crate::engine::choose::Covered;
use crate::op::Op;
use crate::store::SavedMap;
use crate::stream::message::StreamId;
use lineage::EpochId;

/// The change map with its identity. The identity changes whenever what it covers does.
pub struct Changes {
    map: ChangeMap,
    covered: Covered,
}

impl Changes {
    /// A map that covers nobody yet.
    pub fn new(map: ChangeMap, id: StreamId) -> Self {
        Self { map, covered: Covered { id, base: None } }
    }

    /// A map as it was saved.
    pub fn restored(map: ChangeMap, saved: SavedMap) -> Self {
        let base = if map.all().everything() { None } else { saved.base };
        Self { map, covered: Covered { id: saved.id, base } }
    }

    pub fn record(&mut self, op: &Op, payload: usize) {
        self.map.record(op, payload);
    }

    pub fn seal(&mut self, checkpoint: u64) {
        self.map.seal(checkpoint);
    }

    /// Both sides have the checkpoint: from now on the map covers a peer whose newest epoch is `head`.
    pub fn retire(&mut self, checkpoint: u64, head: Option<EpochId>) {
        self.map.retire(checkpoint);
        self.rebase(head);
    }

    /// Both trees are equal and durable, and nothing changes.
    pub fn clear(&mut self, head: Option<EpochId>) {
        self.map.clear();
        self.rebase(head);
    }

    /// Both trees were equal at some moment since the map began.
    pub fn rebase(&mut self, head: Option<EpochId>) {
        self.covered.base = head;
        if let Ok(id) = super::core::random() {
            self.covered.id = StreamId(id);
        } else {
            // Without an identity an interrupted resynchronisation must not be continued from this map.
            self.covered.base = None;
        }
    }

    pub fn covered(&self) -> Covered {
        self.covered
    }

    pub fn dirty(&self) -> DirtySet {
        self.map.all()
    }

    /// Writes the map beside the lineage.
    pub fn save(&self, path: &std::path::Path) -> std::io::Result<SavedMap> {
        self.map.save(path)?;
        Ok(SavedMap { id: self.covered.id, base: self.covered.base })
    }
}
