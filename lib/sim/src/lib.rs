//! Whole clusters of the real decision cores in one thread, from one seed.

pub mod engine;
pub mod explore;
pub mod farm;
pub mod rng;
pub mod scenario;
pub mod world;
