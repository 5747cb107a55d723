//! Helpers of the end-to-end scenarios: real binaries, on the test hosts of `scripts/lab`.

pub mod campaign;
pub mod churn;
pub mod dialogue;
pub mod farm;
pub mod gauge;
pub mod guide;
pub mod lab;
pub mod ledger;
pub mod mirror;
pub mod overload;
pub mod pg;
pub mod view;
pub mod wait;
