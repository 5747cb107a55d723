//! The operator's word about the next synchronisation, as the engine uses it.

use super::core::{Core, lock};
use super::spec::Failure;
use crate::policy::{self, Policy};

impl Core {
    /// What the operator wants; when that cannot be read, what follows from the data.
    pub fn policy(&self) -> Policy {
        policy::read(lock(&self.store).directory()).unwrap_or_else(|e| {
            self.note(e);
            Policy::Default
        })
    }

    /// Replaces what the operator wants, unless it is this already.
    pub fn set_policy(&self, next: &Policy) {
        if self.policy() != *next
            && let Err(e) = policy::write(lock(&self.store).directory(), next)
        {
            self.note(e);
        }
    }

    /// This node begins to serve: a mark that was to count from here on gets its moment.
    pub fn begin_policy(&self) -> Result<(), Failure> {
        policy::begin(lock(&self.store).directory(), wall_s())
            .map_err(|e| Failure::new(e, "the state directory must be on a writable disk"))
    }
}

/// Seconds since 1970.
pub fn wall_s() -> i64 {
    (sys::clock::wall_ms() / 1000) as i64
}
