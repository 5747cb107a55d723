//! Are both replicas equal, while the application writes?
//!
//! **Why a difference is one.** Service is paired, so the secondary's tree at a place of the stream is the primary's at that place: every
//! change is applied here and recorded under the lock that orders it. Each question reads the primary's state and enters the stream
//! under that same lock (the inode's for content, the namespace's for names), and the secondary answers when it comes to that place.
//! Two states of one place are compared, not two moments: writers cannot make them look different. What differs is
//! asked for once more all the same, content in pages of [`FINE`], and reported as that second answer shows it.
//!
//! **What it costs writers.** Under an inode's lock at most [`STEP`] blocks are read, which were read before without the lock (and
//! the secondary was told to read ahead); under the namespace lock at most [`NAMES`] names are looked up. The bandwidth counts
//! what is read, on either side, and pauses are made without locks.
//!
//! **What is not looked at**: access times, what is excluded, the times of directories and counts of names where anything is excluded, other file
//! systems mounted inside, labels that each host gives by its own policy, names that come while their directory is compared, and
//! files that are renamed while they are compared (counted as skipped).

mod answer;
mod compare;
mod question;
mod walk;

pub(crate) use answer::answer;
pub use compare::{Difference, What};
pub use question::{Content, Object, Objects, Question, Reply};
pub use walk::{Config, Summary, Trouble, Verify};

use crate::resync::Gone;
use std::time::Duration;

/// Blocks compared under one lock.
pub(crate) const STEP: u64 = 8;
/// Bytes a hash stands for when a difference is narrowed down.
pub(crate) const FINE: u64 = 4096;
/// Names looked up under one lock.
pub(crate) const NAMES: usize = 64;
/// Names in one page of the secondary's listing.
pub(crate) const PAGE: usize = 1024;

/// What the engine offers to a running comparison.
pub trait Link: Send + Sync {
    /// Appends a question to the stream; its number. Called under the front's locks, never waits.
    fn ask(&self, question: &Question) -> Result<u64, Gone>;

    /// Waits, without any lock held, until the ring can take `bytes` and still has a reserve for live operations.
    fn wait_room(&self, bytes: usize) -> Result<(), Gone>;

    /// A monotonic clock, for the bandwidth.
    fn now(&self) -> Duration;
}
