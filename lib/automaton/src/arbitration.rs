//! Who may own a module when its nodes cannot hear each other, and from when on: the rules of arbiters.
//!
//! A store (etcd) holds one [`Record`] a module, changed by compare-and-swap only. Its rules, and why they leave no instant at which
//! two nodes serve, whatever is cut, paused or killed (docs/architecture.md §8 has the words):
//!
//! *Lease.* Serving needs a lease, which ends at a time of the node's own clock that counts suspension. It comes from (S) a swap that
//! made or kept this node the owner, and lasts [`lease_ms`](crate::Arbiter::Store) from the moment **before** the request was sent; or from (P) the
//! peer: a secondary that echoes a stamp of the primary promises not to serve for as long from the moment it heard the stamp, and
//! the lease lasts as long from the moment **before** the stamp was published.
//!
//! *Claim.* Who wants to serve swaps the record it has read for one that names itself. Every lease (S) of the other node comes from a swap
//! up to the record that was read, since a later one would make this swap fail; so it was sent before the record was seen here.
//! Every lease (P) comes from an echo of ours. [`Observation::free_at`] waits for the end of both, plus a margin for clocks that run
//! differently and for what the kernel does late. Only durations are compared between nodes, never times.

use crate::state::Arbiter;
use lineage::{EpochId, Lineage, Standing};
use serde::{Deserialize, Serialize};

/// What the store says about a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The node that may serve alone. Empty: nobody (released by the operator).
    pub owner: String,
    /// The newest epoch that the owner had when it wrote; None: it had none, or the module has no replicated directories.
    #[serde(default)]
    pub epoch: Option<EpochId>,
    /// The owner serves, or was about to serve, without its peer: what the peer has may be old.
    #[serde(default)]
    pub alone: bool,
    /// The node that wrote this record, and its incarnation.
    pub by: String,
    #[serde(default)]
    pub life: u64,
    /// Grows with each record of one life: a renewal changes nothing else.
    #[serde(default)]
    pub turn: u64,
    /// How long a lease of the writer lasts, milliseconds.
    #[serde(default)]
    pub lease_ms: u64,
}

/// What the core asks of an arbiter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Does a witness answer?
    Test,
    /// What is the record?
    Read,
    /// Replace the record of this revision (0: there is none) by this one.
    Swap { expect: u64, record: Record },
}

/// What an arbiter answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// A witness answered.
    Reached,
    /// No answer of the arbiter: what a swap did is not known.
    Unreachable { reason: String },
    /// The record as it is; `revision` 0 and None: there is none. Answers `Read`, and a `Swap` that compared unequal.
    Found {
        revision: u64,
        #[serde(default)]
        record: Option<Record>,
    },
    /// There is something under the module's key that is not a record.
    Strange { revision: u64, reason: String },
    /// The swap was made.
    Swapped { revision: u64 },
}

/// Why a node believes that it may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// The operator said so.
    Forced,
    /// It would serve without an arbiter: it owns the newest epoch, or has no data to compare.
    Lone,
    /// It was in sync, in this life, until it lost the primary.
    Heir,
    /// Both nodes wait, hear each other, and both compute that this one serves.
    Chosen,
    /// Nothing but that it was equal to the peer once: only a store that calls it the last owner helps.
    Own,
}

/// The node that wants to serve.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    pub node: &'a str,
    pub replicated: bool,
    pub standing: Standing,
    pub lineage: &'a Lineage,
    /// It was primary when it was last active.
    pub served: bool,
    pub ground: Ground,
}

/// Why a claim is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The other node owns data that this one may not have.
    Elsewhere,
    /// The store knows nothing of this module, and this node alone cannot tell.
    NoRecord,
    /// The store names an epoch that this node does not have.
    Newer,
}

/// Whether the record allows this node to serve. Says nothing about when: see [`Observation::free_at`].
pub fn may_claim(record: Option<&Record>, claimant: &Claimant<'_>) -> Result<(), Denial> {
    if claimant.ground == Ground::Forced {
        return Ok(());
    }
    let Some(record) = record.filter(|r| !r.owner.is_empty()) else {
        // Nobody's: what is lawful without an arbiter is lawful.
        return if claimant.ground == Ground::Own { Err(Denial::NoRecord) } else { Ok(()) };
    };
    if !claimant.replicated {
        return Ok(());
    }
    let has_epoch = record.epoch.is_none_or(|epoch| claimant.lineage.contains(epoch));
    let own = record.owner == claimant.node;
    match claimant.ground {
        Ground::Forced => Ok(()),
        _ if !has_epoch => Err(if own { Denial::Newer } else { Denial::Elsewhere }),
        _ if !claimant.standing.is_up_to_date() => Err(Denial::Elsewhere),
        // Both hear each other and compared what they have; the record's epoch is among it.
        Ground::Chosen => Ok(()),
        // A role that was handed over, or claimed, and never taken up: the former primary may have more on its disk.
        Ground::Own if own && (record.by != claimant.node || !claimant.served) => Err(Denial::Elsewhere),
        _ if own => Ok(()),
        Ground::Heir if !record.alone && record.epoch.is_some() && record.epoch == claimant.lineage.head() => Ok(()),
        _ => Err(Denial::Elsewhere),
    }
}

/// A record, and when (own clock) it was certainly not newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub revision: u64,
    pub record: Option<Record>,
    pub at: u64,
}

/// What else bounds the leases of the other node.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    pub node: &'a str,
    pub incarnation: u64,
    /// When this life last echoed a stamp of the peer.
    pub granted_at: Option<u64>,
    /// The peer says that it does not serve, and that this is the revision of the record it wrote last.
    pub word: Option<u64>,
}

impl Observation {
    /// From when on (own clock) no lease of the other node is left.
    pub fn free_at(&self, bounds: &Bounds<'_>, arbiter: &Arbiter) -> u64 {
        let Arbiter::Store { lease_ms, margin_ms } = *arbiter else { return 0 };
        let theirs = self.record.as_ref().map_or(0, |r| r.lease_ms);
        let after = |at: u64| at.saturating_add(lease_ms.max(theirs)).saturating_add(margin_ms);
        let granted = bounds.granted_at.map_or(0, after);
        match &self.record {
            Some(_) if bounds.word == Some(self.revision) => 0,
            // We claimed when no lease of the other was left; it serves again only through a record of its own, or by our hand-over.
            Some(r) if r.by == bounds.node && r.owner == bounds.node => 0,
            // Handed over by us in this life: what the peer has, it has from our echoes or from a newer record.
            Some(r) if r.by == bounds.node && r.life == bounds.incarnation => granted,
            // Also without a record: a store that lost it does not end the leases it gave.
            _ => granted.max(after(self.at)),
        }
    }
}

#[cfg(test)]
#[path = "arbitration_tests.rs"]
mod tests;
