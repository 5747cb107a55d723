//! The replication engine: FUSE front, ordered stream, change map, resynchronisation. See docs/architecture.md §4.

pub mod activity;
pub mod apply;
pub mod change_map;
pub mod engine;
pub mod front;
pub mod fuse;
pub mod mutation;
pub mod op;
mod pieces;
pub mod policy;
pub mod recorder;
pub mod resync;
pub mod salvage;
pub mod store;
pub mod stream;
pub mod tree;
pub mod verify;
