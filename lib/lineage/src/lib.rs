//! Which replica is up to date, and which may serve without its peer.
//!
//! A replica remembers a [`Lineage`]: the epochs of its history, newest first. An epoch begins each time a
//! primary starts to acknowledge writes that its peer will not receive. Comparing two lineages tells who is
//! ahead without looking at any clock. [`Standing`] is what the replica durably knows about itself.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Identity of an epoch: 128 random bits, minted by the caller (this crate has no random source).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochId(pub u128);

/// One epoch of a replica's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    pub id: EpochId,
    /// Stream position (number of operations since the first epoch) at which it began.
    pub start: u64,
}

/// Epochs, newest first. Empty: this replica never held data of the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub Vec<Epoch>);

/// Epochs kept; older ones are forgotten. A peer away for longer than this many epochs is compared in full.
pub const EPOCHS_KEPT: usize = 16;

/// What a replica durably knows about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Never synchronised.
    Blank,
    /// A resynchronisation towards this replica did not end: its content is a mixture.
    Inconsistent,
    /// Consistent, but the peer is known to have gone on without it.
    Outdated,
    /// Equal to the peer when last heard of. The peer may have gone on since.
    Paired,
    /// Owns the newest epoch, which the peer does not have: the only standing that may serve unasked.
    Alone,
}

/// How one lineage relates to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Neither has any history.
    BothBlank,
    /// Same newest epoch.
    Same,
    /// The first is outdated: its newest epoch lies in the other's past (or the first is blank).
    Older,
    /// The first is ahead: the other's newest epoch lies in its past (or the other is blank).
    Newer,
    /// Each has epochs that the other lacks (split brain), or they share nothing.
    Diverged,
}

impl Lineage {
    pub fn head(&self) -> Option<EpochId> {
        self.0.first().map(|e| e.id)
    }

    pub fn contains(&self, id: EpochId) -> bool {
        self.0.iter().any(|e| e.id == id)
    }

    /// Whether both have an epoch in common: once they were copies of each other.
    pub fn shares_past(&self, other: &Self) -> bool {
        self.0.iter().any(|epoch| other.contains(epoch.id))
    }

    /// Begins a new epoch at `start`. Minting an epoch that is already the head is a no-op.
    pub fn mint(&mut self, id: EpochId, start: u64) {
        if self.head() == Some(id) {
            return;
        }
        self.0.insert(0, Epoch { id, start });
        self.0.truncate(EPOCHS_KEPT);
    }

    /// Whether a replica with this lineage may hold content that the one with lineage `theirs` never received. What a copy from there
    /// overwrites or removes here must then be put aside first. `unshared`: it served, and did not end with everything shared;
    /// `full`: the operator wants everything copied whatever the lineages say.
    pub fn may_hold_unseen(&self, theirs: &Self, unshared: bool, full: bool) -> bool {
        self.head().is_some() && (full || unshared || self.compare(theirs) == Relation::Diverged)
    }

    pub fn compare(&self, other: &Self) -> Relation {
        match (self.head(), other.head()) {
            (None, None) => Relation::BothBlank,
            (None, Some(_)) => Relation::Older,
            (Some(_), None) => Relation::Newer,
            (Some(a), Some(b)) if a == b => Relation::Same,
            (Some(a), Some(b)) => match (other.contains(a), self.contains(b)) {
                (true, false) => Relation::Older,
                (false, true) => Relation::Newer,
                _ => Relation::Diverged,
            },
        }
    }
}

impl Standing {
    /// Whether the data may be shown as up to date (`rfs.uptodate`).
    pub fn is_up_to_date(self) -> bool {
        matches!(self, Self::Paired | Self::Alone)
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", self.0 >> 96)
    }
}

impl Serialize for EpochId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EpochId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        // Digits only: the conversion alone would take a sign.
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(serde::de::Error::custom("an epoch id is 32 hexadecimal digits"));
        }
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}
