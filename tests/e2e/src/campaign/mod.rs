//! Does the data path keep its promises under attack? Random workloads, random faults, independent checks.

pub mod compare;
pub mod judge;
pub mod load;
pub mod notes;
pub mod plan;
pub mod postgres;
pub mod random;
pub mod selftest;
pub mod trial;
