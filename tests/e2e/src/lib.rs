//! Helpers of the end-to-end scenarios: real binaries, on the test hosts of `scripts/lab`.

pub mod campaign;
pub mod gauge;
pub mod lab;
pub mod ledger;
pub mod mirror;
pub mod pg;
pub mod wait;
