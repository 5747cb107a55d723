//! What does the kernel offer: processes, signals, clocks, small durable files, locks, descriptors that outlive a process.

pub mod clock;
pub mod files;
pub mod lock;
pub mod pidfd;
pub mod roots;
pub mod signals;
pub mod store;
pub mod table;
