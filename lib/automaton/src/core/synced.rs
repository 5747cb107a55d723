//! May a node that was equal to its peer a short while ago serve without it (`syncdelta`)? Off by default.
//!
//! This is the one decision that looks at a wall clock, because the attribute asks for it: after both nodes were lost at once, the
//! first to come back serves although the other may have gone on for a moment. Less is risked than the words of the attribute allow:
//! a node that knows that its peer goes on without it (it left in order, or was told) never does.

use super::{Core, Reach};
use crate::decide::Intent;
use crate::event::ReplicaPeer;
use crate::state::{Arbiter, State, StateName};
use lineage::Standing;

/// The date is made durable at least this often while both are equal, or four times per `syncdelta`.
const STAMP_MS: u64 = 20_000;

impl Core {
    fn stamp_every(&self) -> u64 {
        (self.settings.sync_delta_ms / 4).min(STAMP_MS)
    }

    /// Both copies are equal at this moment, as far as this node knows.
    fn equal_now(&self) -> bool {
        match self.state.name {
            StateName::Prim => self.serves_paired() && self.stream() == ReplicaPeer::InSync,
            StateName::Second => self.synced && self.stream() == ReplicaPeer::InSync,
            _ => false,
        }
    }

    /// Keeps the date of the last moment at which both were equal.
    pub(super) fn stamp_sync(&mut self) {
        if self.settings.sync_delta_ms == 0 || !self.equal_now() {
            self.stamp_due = None;
            return;
        }
        if self.stamp_due.is_none_or(|due| due <= self.now) {
            self.stamp_due = Some(self.now.saturating_add(self.stamp_every()));
            self.persisted.synced_ms = self.wall;
            self.persist();
        }
    }

    /// In good order to WAIT from a pair: the peer goes on without this node.
    pub(super) fn forget_sync(&mut self, was: State, now: State) {
        let left = matches!(was.name, StateName::Prim | StateName::Second) && now.name == StateName::Wait;
        if left && self.persisted.synced_ms != 0 {
            self.persisted.synced_ms = 0;
            self.persist();
        }
    }

    /// How long the data will still count as synchronised; None: they do not. A clock set back proves nothing.
    fn synced_for(&self) -> Option<u64> {
        let consistent = matches!(self.standing(), Standing::Paired | Standing::Alone);
        let age = self.wall.checked_sub(self.persisted.synced_ms).filter(|_| self.persisted.synced_ms != 0)?;
        self.settings.sync_delta_ms.checked_sub(age).filter(|left| consistent && *left > 0)
    }

    /// Value of `rfs.synced`; None without `syncdelta`.
    pub(super) fn is_synced(&self) -> Option<bool> {
        (self.settings.replicated && self.settings.sync_delta_ms > 0).then(|| self.synced_for().is_some())
    }

    /// When the date must be renewed, or ends to be good enough (monotonic ms).
    pub(super) fn sync_deadline(&self) -> Option<u64> {
        let ends = || self.synced_for().filter(|_| self.state.name == StateName::Wait).map(|left| self.now + left);
        (self.settings.sync_delta_ms > 0).then(|| self.stamp_due.or_else(ends)).flatten()
    }

    /// The rule `rfs_forceuptodate`: no heartbeat, not known to be left behind, equal a short while ago. Where a store knows who served
    /// last, no date is asked.
    pub(super) fn counts_as_up_to_date(&self) -> bool {
        !matches!(self.settings.arbiter, Arbiter::Store { .. })
            && self.intent == Intent::Start
            && self.reach == Reach::Down
            && self.standing() == Standing::Paired
            && self.is_synced() == Some(true)
    }
}
