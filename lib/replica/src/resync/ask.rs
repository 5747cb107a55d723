//! What does the primary ask about the secondary's files, and what is answered?

use crate::op::RelPath;
use crate::tree::EMPTY;
use crate::verify::{Question, Reply};
use serde::{Deserialize, Serialize};

/// Files in one question, at most.
pub const MAX_ITEMS: usize = 256;
/// Blocks hashed for one question, at most: what the receiver reads delays the live operations behind it.
pub const MAX_BLOCKS: u64 = 64;

/// The payload of `Op::Ask`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Not a question: from here on all names are equal, so nothing may fail to apply.
    NamesDone,
    /// Not a question: names are compared once more, and may fail to apply until the next `NamesDone`.
    NamesAgain,
    /// State and hashes of files.
    Files { items: Vec<Item> },
    /// Of a comparison of replicas in sync, see [`crate::verify`].
    Verify { question: Question },
}

/// A file and the blocks of it that are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub dir: u16,
    pub path: RelPath,
    pub ino: u64,
    pub first: u64,
    pub count: u64,
}

/// What the receiver answers to `Op::Ask` or to a `SyncNames` with a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub id: u64,
    /// Of a `SyncNames`: positions in its listing of what was made anew, and is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fresh: Vec<u32>,
    /// Of a `SyncNames` that asked for it: positions of what was there, and changed there since the last common checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<u32>,
    /// Of a `SyncNames`: a file here has other names too.
    #[serde(default)]
    pub linked: bool,
    /// One for each item asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileAnswer>,
    /// To `Ask::Verify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Reply>,
}

/// State of one of the receiver's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAnswer {
    pub size: u64,
    /// Digest of its attributes, hexadecimal; empty: there is no such file.
    pub meta: String,
    /// Hashes of the blocks asked for, up to the file's end; see [`pack`].
    pub hashes: String,
}

/// Hashes as text: 32 hexadecimal digits each, `.` for an empty block.
pub fn pack(hashes: &[u128]) -> String {
    let mut text = String::with_capacity(hashes.len() * 32);
    for hash in hashes {
        if *hash == EMPTY {
            text.push('.');
        } else {
            text.push_str(&format!("{hash:032x}"));
        }
    }
    text
}

/// The inverse of [`pack`]; None when it is not one.
pub fn unpack(text: &str) -> Option<Vec<u128>> {
    let mut hashes = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            hashes.push(EMPTY);
            rest = after;
        } else {
            let (digits, after) = rest.split_at_checked(32)?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            hashes.push(u128::from_str_radix(digits, 16).ok()?);
            rest = after;
        }
    }
    Some(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_is_reversible(hashes in proptest::collection::vec(prop_oneof![Just(0u128), any::<u128>()], 0..20)) {
            prop_assert_eq!(unpack(&pack(&hashes)), Some(hashes));
        }

        #[test]
        fn garbage_does_not_panic(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = unpack(&text);
            prop_assert!(serde_json::from_slice::<Answer>(&bytes).is_err() || !bytes.is_empty());
        }
    }
}
