//! How fast is a mirror, compared with the file system beneath it, what does it cost to become one again, and how fast is a farm, compared with
//! one server and with balancers?
//! Loads, and the arithmetic of rounds.

pub mod clients;
pub mod copy;
pub mod farm;
pub mod flood;
pub mod forest;
pub mod fullsync;
pub mod hosts;
pub mod load;
pub mod mount;
pub mod postgres;
pub mod proxy;
pub mod pulse;
pub mod replicate;
pub mod resync;
pub mod table;
pub mod verify;
