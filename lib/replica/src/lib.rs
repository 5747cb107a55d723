//! The replication engine: FUSE front, ordered stream, change map, resynchronisation. See docs/architecture.md §4.

pub mod op;
pub mod recorder;
