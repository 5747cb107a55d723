//! What does a comparison ask the secondary, and what is answered?

use crate::op::{Kind, RelPath, Time};
use serde::{Deserialize, Serialize};

/// A question; part of `resync::ask::Ask`. Changes nothing and never fails: trouble is part of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The state of entries of a directory. An empty name: the directory itself.
    Objects { dir: u16, path: RelPath, names: Vec<RelPath> },
    /// Hashes of `count` units of `unit` bytes from number `first` on. After the answer: `ahead` bytes behind them will be asked next.
    Content { dir: u16, path: RelPath, first: u64, count: u64, unit: u64, ahead: u64 },
    /// Names of a directory, in the file system's own order, from a place that an earlier answer gave (0: the beginning).
    Names { dir: u16, path: RelPath, from: u64 },
}

/// State of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of files, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub mtime: Time,
    /// Names of it. None: a directory, whose count is its file system's affair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<u64>,
    /// Of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdev: Option<u64>,
    /// Digest of a symlink's target, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Digest of the extended attributes, hexadecimal. None: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<String>,
    /// Another file system is mounted here, and nothing of this is replicated.
    #[serde(default)]
    pub mount: bool,
}

/// One for each name asked; None: no such entry.
pub type Objects = Vec<Option<Object>>;

/// Hashes of a file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// False: there is no such file.
    pub found: bool,
    /// Bytes.
    pub size: u64,
    /// As `resync::ask::pack` writes them; units beyond the end are left out.
    pub hashes: String,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Objects(Objects),
    Content(Content),
    /// `next`: where the following page begins; None: this was the last.
    Names {
        names: Vec<RelPath>,
        next: Option<u64>,
    },
    /// The secondary's disk failed.
    Trouble(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_is_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[\\[\\]{}\":a-z0-9,]{0,60}") {
            if let Ok(reply) = serde_json::from_slice::<Reply>(&bytes) {
                prop_assert!(serde_json::to_vec(&reply).is_ok());
            }
            let _ = serde_json::from_str::<Question>(&text);
        }
    }
}
