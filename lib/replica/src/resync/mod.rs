//! What must travel so that both trees become equal while the application goes on?

mod link;

pub use link::{Gone, Link, Progress, ResyncError, Summary};
