//! What does the application do in the replicated directory, and what must the peer know of it?

mod spec;

pub use spec::{Excludes, FrontError, FrontSpec, Holder, Keeper, Unmount, kept_prefixes};
