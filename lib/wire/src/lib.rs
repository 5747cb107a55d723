//! How do processes and nodes talk: JSON lines, cluster key, encrypted stream, authenticated datagrams.

pub mod channel;
pub mod key;
pub mod lines;
pub mod node;
pub mod path;
pub mod ring;
pub mod role;
pub mod time;

pub use key::ClusterKey;
pub use lines::{Emitter, Message};
pub use ring::{KeyFile, KeyRing};
