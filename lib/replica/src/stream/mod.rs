//! How does what the primary did travel to the secondary: frames, the ring of unacknowledged ones, the outlet to the socket.

pub mod frame;
pub mod header;
pub mod memory;
pub mod message;
pub mod outlet;
pub mod ring;
