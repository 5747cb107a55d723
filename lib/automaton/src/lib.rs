//! Which state, which role, which action next: the decision core of a module. Pure: events in, actions out.

mod action;
mod event;
mod state;

pub use action::{Action, PeerMode, ReplicaOrder};
pub use event::{Event, ReplicaPeer, ReplicaReport, ReplicaRole, Verb};
pub use state::{DefaultPrimary, Persisted, Published, Readiness, Settings, State, StateName};
