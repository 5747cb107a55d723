//! Which state, which role, which action next: the decision core of a module. Pure: events in, actions out.

mod action;
mod core;
mod decide;
mod event;
mod plan;
mod state;

pub use action::{Action, PeerMode, ReplicaOrder};
pub use core::Core;
#[cfg(feature = "mutations")]
pub use core::Weakness;
pub use event::{Event, ReplicaPeer, ReplicaReport, ReplicaRole, Verb};
pub use plan::{Step, plan};
pub use state::{DefaultPrimary, Persisted, Published, Readiness, Settings, State, StateName};
