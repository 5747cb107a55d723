//! What does the walker need from the stream, and what does it tell about itself?

use crate::op::Op;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The stream is gone (or the resynchronisation was cancelled): start again on the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream to the other node is gone")]
pub struct Gone;

/// What the engine offers to a running resynchronisation.
pub trait Link: Send + Sync {
    /// Appends to the stream, in the order of the calls, between the live operations. Called under the front's locks: never waits
    /// for the peer (room was asked before with [`Link::wait_room`]). Must not write to the change map.
    fn emit(&self, op: &Op, payload: &[u8]) -> Result<(), Gone>;

    /// Waits, without any lock held, until the ring can take `bytes` and still has a reserve for live operations.
    fn wait_room(&self, bytes: usize) -> Result<(), Gone>;

    /// Called once, under every namespace lock, when both trees are equal at this place of the stream: persist what must be
    /// durable before the end marker, then emit `Op::ResyncEnd`.
    fn finish(&self) -> Result<(), Gone>;

    /// A monotonic clock, for the bandwidth cap and the progress.
    fn now(&self) -> Duration;
}

/// How far a resynchronisation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// `names` (directories), then `data` (files).
    pub phase: String,
    /// Files compared or copied.
    pub files: u64,
    /// Files known so far; grows while directories are read.
    pub files_total: u64,
    /// Bytes of content compared or copied.
    pub bytes: u64,
    pub bytes_total: u64,
    /// Bytes of content that had to be sent.
    pub sent: u64,
    /// Bytes of content a second, since the start.
    pub rate_bytes_s: u64,
    /// Seconds left at this rate.
    pub left_s: Option<u64>,
}

/// What a finished resynchronisation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files whose content or attributes were sent.
    pub files: u64,
    /// Bytes of content sent.
    pub bytes: u64,
    /// Files looked at.
    pub looked_at: u64,
    pub ms: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error("the resynchronisation was cancelled")]
    Cancelled,
    /// The primary's own disk failed.
    #[error("cannot read {path} in replicated directory {dir} for the resynchronisation: {source}")]
    Disk { dir: u16, path: String, source: std::io::Error },
}
