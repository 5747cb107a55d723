//! Which state, which role, which action next: the decision core of a module. Pure: events in, actions out.

mod action;
pub mod arbitration;
mod core;
mod decide;
mod event;
mod plan;
mod state;
mod supervision;

pub use action::{Action, PeerMode, ReplicaOrder, Traffic};
#[cfg(feature = "mutations")]
pub use core::Weakness;
pub use core::{Core, Explanation, RuleView};
pub use event::{Event, Evidence, ReplicaPeer, ReplicaReport, ReplicaRole, Verb};
pub use plan::{CALLBACK, Step, plan};
pub use state::{Arbiter, DefaultPrimary, Mode, Persisted, Published, Readiness, Settings, State, StateName};
pub use supervision::Supervision;

/// A lineage of epochs with these numbers, newest first.
#[cfg(test)]
pub(crate) fn test_lineage(epochs: &[u128]) -> lineage::Lineage {
    lineage::Lineage(epochs.iter().map(|id| lineage::Epoch { id: lineage::EpochId(*id), start: 0 }).collect())
}
