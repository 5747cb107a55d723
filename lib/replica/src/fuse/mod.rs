//! How do requests of the kernel's FUSE driver reach us, survive us, and get answered? Knows nothing of replication.

pub mod abi;
pub mod holders;
pub mod mount;
mod readers;
pub mod session;
pub mod slots;
pub mod umask;
