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

    /// Called under every namespace lock, when both trees are equal at this place of the stream: persist what must be
    /// durable before the end marker, then emit `Op::ResyncEnd`. False: that cannot be made durable now; it is called again later.
    fn finish(&self) -> Result<bool, Gone>;

    /// A monotonic clock, for the bandwidth cap and the progress.
    fn now(&self) -> Duration;
}

/// Longest text of a [`Progress`] that is taken from another node.
const PROGRESS_MAX: usize = 1024;

/// How far a resynchronisation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// `names` (directories), `data` (files), [`Progress::DONE`].
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
    /// Directories listed.
    pub directories: u64,
    /// Files whose content or attributes were sent.
    pub sent_files: u64,
    /// Time spent with looking for differences: listing, asking, reading what is equal.
    pub scan_ms: u64,
    /// Time spent with sending content, pauses of the bandwidth included.
    pub copy_ms: u64,
}

impl Progress {
    /// The phase of the last words: both trees are equal.
    pub const DONE: &str = "done";

    /// What the primary says in the payload of a sign of life. None: it says nothing, or not this (a later version).
    pub fn heard(payload: &[u8]) -> Option<Self> {
        if payload.is_empty() || payload.len() > PROGRESS_MAX {
            return None;
        }
        let progress: Self = serde_json::from_slice(payload).ok()?;
        matches!(progress.phase.as_str(), "names" | "data" | Self::DONE).then_some(progress)
    }

    /// What [`Progress::heard`] takes.
    pub fn told(&self) -> Vec<u8> {
        // Numbers and a short word: there is nothing that could fail. An empty payload says nothing.
        serde_json::to_vec(self).unwrap_or_default()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_progress_is_heard_as_it_was_told() {
        let longest = Progress {
            phase: "names".into(),
            files: u64::MAX,
            files_total: u64::MAX,
            bytes: u64::MAX,
            bytes_total: u64::MAX,
            sent: u64::MAX,
            rate_bytes_s: u64::MAX,
            left_s: Some(u64::MAX),
            directories: u64::MAX,
            sent_files: u64::MAX,
            scan_ms: u64::MAX,
            copy_ms: u64::MAX,
        };
        assert!(longest.told().len() <= PROGRESS_MAX, "{}", longest.told().len());
        assert_eq!(Progress::heard(&longest.told()), Some(longest));
        // Of an earlier version, and of a later one.
        let other = br#"{"phase":"data","files":3,"sent":7,"colour":"red"}"#;
        let heard = Progress { phase: "data".into(), files: 3, sent: 7, ..Progress::default() };
        assert_eq!(Progress::heard(other), Some(heard));
        let strange = br#"{"phase":"dreams","files":3}"#;
        for nothing in [&b""[..], b"{}", b"[1]", strange, &vec![b' '; PROGRESS_MAX + 1]] {
            assert_eq!(Progress::heard(nothing), None);
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_progress(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Progress::heard(&bytes), None);
        }
    }
}
