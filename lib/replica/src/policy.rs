//! How is the secondary to be synchronised next, by the operator's word?
//!
//! One small file, replaced atomically (`policy.json` in the state directory), since it is given while the module is stopped as well. It
//! holds for one synchronisation, and falls back to the default then: what is vouched for once says nothing about later.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Longest identifier of an external synchronisation.
pub const UID_MAX: usize = 24;
/// The file's size is bounded like every input's.
const LIMIT: u64 = 4096;

/// The role that a mark was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The node whose data were copied by other means.
    Prim,
    /// The node that received the copy.
    Second,
}

/// What the operator wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Policy {
    /// What follows from the data.
    #[default]
    Default,
    /// Everything is compared and copied.
    Full,
    /// The data were copied by other means: what changed on the primary since its mark is.
    External {
        role: Side,
        /// Ties the marks of both nodes to each other.
        uid: String,
        /// Of the primary: the moment of the mark, seconds since 1970. None: that of its next start.
        #[serde(default)]
        since: Option<i64>,
        /// Of the secondary: the primary would not rely on it.
        #[serde(default)]
        refused: bool,
    },
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{path} cannot be read: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is damaged: {error}; set the policy again: sk-replicate policy -m AM default")]
    Damaged { path: PathBuf, error: serde_json::Error },
    #[error("{path} cannot be written: {error}")]
    Write { path: PathBuf, error: io::Error },
}

/// Whether this can be an identifier: letters, digits, `_`, `-` and `.`, at most [`UID_MAX`] characters.
pub fn is_uid(text: &str) -> bool {
    (1..=UID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn file(directory: &Path) -> PathBuf {
    directory.join("policy.json")
}

/// The policy of the replica whose state directory this is.
pub fn read(directory: &Path) -> Result<Policy, PolicyError> {
    let path = file(directory);
    match sys::files::read_bounded(&path, LIMIT) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| PolicyError::Damaged { path, error }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Policy::Default),
        Err(error) => Err(PolicyError::Read { path, error }),
    }
}

/// Durable when it returns.
pub fn write(directory: &Path, policy: &Policy) -> Result<(), PolicyError> {
    let path = file(directory);
    let outcome = match policy {
        Policy::Default => sys::files::remove(&path).and_then(|()| sys::files::sync_directory(directory)),
        _ => serde_json::to_vec(policy)
            .map_err(io::Error::from)
            .and_then(|bytes| sys::files::write_durably(&path, &bytes, 0o644)),
    };
    outcome.map_err(|error| PolicyError::Write { path, error })
}

/// A primary begins to serve: a mark that was to count from there gets its moment.
pub fn begin(directory: &Path, now: i64) -> Result<(), PolicyError> {
    match read(directory)? {
        Policy::External { role: Side::Prim, uid, since: None, refused } => {
            write(directory, &Policy::External { role: Side::Prim, uid, since: Some(now), refused })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_default_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Policy::Default);
        let mark = |since| Policy::External { role: Side::Prim, uid: "tape-1".into(), since, refused: false };
        for policy in [Policy::Full, mark(Some(5)), mark(None)] {
            write(dir.path(), &policy).unwrap();
            assert_eq!(read(dir.path()).unwrap(), policy);
        }
        begin(dir.path(), 77).unwrap();
        assert_eq!(read(dir.path()).unwrap(), mark(Some(77)));
        begin(dir.path(), 99).unwrap();
        assert_eq!(read(dir.path()).unwrap(), mark(Some(77)), "a moment is not moved");
        write(dir.path(), &Policy::Default).unwrap();
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        write(dir.path(), &Policy::Default).unwrap();
        std::fs::write(dir.path().join("policy.json"), b"{\"mode\":\"exter").unwrap();
        assert!(matches!(read(dir.path()), Err(PolicyError::Damaged { .. })));
    }

    #[test]
    fn identifiers() {
        for (text, good) in [
            ("tape-1", true),
            ("a.b_C-9", true),
            ("", false),
            ("two words", false),
            ("123456789012345678901234", true),
            ("1234567890123456789012345", false),
            ("über", false),
        ] {
            assert_eq!(is_uid(text), good, "{text}");
        }
    }
}
