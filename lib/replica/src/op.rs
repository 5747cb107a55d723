//! The replicated operations: what travels on the stream, in order, from the primary to the secondary.
//!
//! An operation names files by path relative to the replicated directory number `dir`, as of its place in the stream,
//! so that a suffix of the stream can be applied again. `ino` is the primary's inode number: only a key for the receiver's
//! descriptor cache. Payload bytes (file content, attribute values, listings) follow the header in the frame.

use serde::{Deserialize, Serialize};

/// A path relative to the replicated directory, `/`-separated, without leading `/`, `.` or `..`; empty: the directory itself.
/// Serialised as text: bytes that are not UTF-8, `%` and control characters are written as `%XX`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<u8>);

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time(pub i64, pub u32);

/// Owner and permissions of a new or changed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Kinds of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One entry of a `SyncNames` listing; the payload is a JSON array of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: RelPath,
    pub kind: Kind,
    pub ino: u64,
    pub owner: Owner,
    /// Of everything but files and directories, which get a `SyncMeta` of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<Time>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: u64,
    /// Target of a symlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RelPath>,
    /// Another name of the same inode that the receiver already has: make a hard link to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<RelPath>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature that serde calls.
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature that serde calls.
fn is_false(value: &bool) -> bool {
    !*value
}

/// One operation. `mtime`s are the primary's resulting times, so that both replicas agree to the nanosecond.
/// The stream is read by [`crate::stream::header`], which is faster, and tested to read the same as what is derived here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Payload: the bytes written at `offset`.
    Write {
        dir: u16,
        path: RelPath,
        ino: u64,
        offset: u64,
        mtime: Time,
    },
    /// chmod, chown, truncate, utimes: fields that are present. `clear_suid`: privileges were dropped by the kernel's rules.
    SetAttr {
        dir: u16,
        path: RelPath,
        ino: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        atime: Option<Time>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mtime: Option<Time>,
    },
    /// A new file, directory, fifo, socket or device. `parent_mtime` is the directory's resulting time, here and below.
    Create {
        dir: u16,
        path: RelPath,
        ino: u64,
        kind: Kind,
        owner: Owner,
        #[serde(default, skip_serializing_if = "is_zero")]
        rdev: u64,
        /// Of the new object: kernels with fine-grained times give it another one than its parent.
        mtime: Time,
        parent_mtime: Time,
    },
    Symlink {
        dir: u16,
        path: RelPath,
        ino: u64,
        target: RelPath,
        owner: Owner,
        mtime: Time,
        parent_mtime: Time,
    },
    /// `path` becomes one more name of `from`.
    Link {
        dir: u16,
        from: RelPath,
        path: RelPath,
        ino: u64,
        parent_mtime: Time,
    },
    Unlink {
        dir: u16,
        path: RelPath,
        ino: u64,
        parent_mtime: Time,
    },
    Rmdir {
        dir: u16,
        path: RelPath,
        ino: u64,
        parent_mtime: Time,
    },
    /// `flags`: renameat2's (0, RENAME_NOREPLACE 1, RENAME_EXCHANGE 2).
    Rename {
        dir: u16,
        from: RelPath,
        path: RelPath,
        ino: u64,
        flags: u32,
        from_mtime: Time,
        parent_mtime: Time,
    },
    /// Payload: the value.
    SetXattr {
        dir: u16,
        path: RelPath,
        ino: u64,
        name: RelPath,
    },
    RemoveXattr {
        dir: u16,
        path: RelPath,
        ino: u64,
        name: RelPath,
    },
    /// `mode`: fallocate(2)'s flags.
    Fallocate {
        dir: u16,
        path: RelPath,
        ino: u64,
        offset: u64,
        length: u64,
        mode: i32,
        mtime: Time,
    },
    /// fsync, fdatasync, O_DSYNC, msync: the receiver acknowledges at once, after its own fdatasync with `async="none"`. `path` None: unlinked file, only an ordering point.
    Sync {
        dir: u16,
        path: Option<RelPath>,
        ino: u64,
        data_only: bool,
    },
    /// fsync of a directory.
    SyncDir {
        dir: u16,
        path: RelPath,
    },

    /// Resynchronisation begins: the receiver is inconsistent until `ResyncEnd`. JSON of the session's parameters in the payload.
    ResyncBegin {
        full: bool,
    },
    /// Exactly the entries of the payload exist in this directory among the names from `first` to `last` (inclusive, in byte
    /// order; None: unbounded): others are removed, missing ones created empty. `ask`: the receiver answers with this number, and with
    /// `recent` it says which of them changed there since the last common checkpoint.
    SyncNames {
        dir: u16,
        path: RelPath,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<RelPath>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<RelPath>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ask: Option<u64>,
        #[serde(default, skip_serializing_if = "is_false")]
        recent: bool,
    },
    /// A question about the receiver's state at this place of the stream (resynchronisation; JSON in the payload). Changes nothing.
    Ask {
        id: u64,
    },
    /// Payload: the file's bytes at `offset` (resynchronisation).
    SyncData {
        dir: u16,
        path: RelPath,
        ino: u64,
        offset: u64,
    },
    /// The range is a hole or zeros.
    SyncZero {
        dir: u16,
        path: RelPath,
        ino: u64,
        offset: u64,
        length: u64,
    },
    /// Final size, attributes and extended attributes of an object (JSON `Meta` in the payload).
    SyncMeta {
        dir: u16,
        path: RelPath,
        ino: u64,
    },
    /// Both trees are equal here. The receiver makes everything durable, adopts the lineage in the payload, and acknowledges.
    ResyncEnd,
    /// Both sides `syncfs`; changes before it need no longer be remembered once both did.
    Checkpoint {
        number: u64,
    },
    /// The sender leaves in good order; nothing follows.
    Goodbye,
}

impl RelPath {
    /// Refuses absolute paths, empty, `.` and `..` components, and NUL: what comes from a peer cannot leave the directory.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        let good = bytes.is_empty()
            || (bytes.len() <= 4096
                && !bytes.contains(&0)
                && bytes.split(|b| *b == b'/').all(|c| !c.is_empty() && c != b"." && c != b".." && c.len() <= 255));
        good.then_some(Self(bytes))
    }

    /// Whether [`RelPath::new`] would accept it: paths that came off the wire are checked before they are walked.
    pub fn is_walkable(&self) -> bool {
        self.0.is_empty()
            || self.0.split(|b| *b == b'/').all(|c| !c.is_empty() && c != b"." && c != b".." && c.len() <= 255)
    }

    /// Any bytes without NUL: symlink targets and attribute names, which are not walked.
    pub fn opaque(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (bytes.len() <= 4096 && !bytes.contains(&0)).then_some(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// This path with one more component.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// The directory that holds it; the root for the root itself.
    #[must_use]
    pub fn parent(&self) -> Self {
        self.split().map_or_else(Self::default, |(parent, _)| parent)
    }

    /// Parent directory and last component; None for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => Some((Self(self.0[..at].to_vec()), &self.0[at + 1..])),
            None => Some((Self::default(), &self.0)),
        }
    }
}

impl std::fmt::Debug for RelPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for RelPath {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if is_plain(&self.0) => s.serialize_str(text),
            _ => s.serialize_str(&escape(&self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_str(PathVisitor)
    }
}

struct PathVisitor;

impl serde::de::Visitor<'_> for PathVisitor {
    type Value = RelPath;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a path")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RelPath, E> {
        let bytes = unescape(text).ok_or_else(|| E::custom("bad escape in a path"))?;
        RelPath::opaque(bytes).ok_or_else(|| E::custom("a path is at most 4096 bytes without NUL"))
    }
}

/// Whether the bytes are written as they are.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| (b' '..=b'~').contains(b) && *b != b'%')
}

fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (good, bad) = match std::str::from_utf8(rest) {
            Ok(text) => (text, 0),
            Err(e) => (
                std::str::from_utf8(&rest[..e.valid_up_to()]).unwrap_or_default(),
                e.error_len().unwrap_or(rest.len() - e.valid_up_to()),
            ),
        };
        for c in good.chars() {
            if c == '%' || c.is_control() {
                let mut buffer = [0; 4];
                for b in c.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(out, "%{b:02X}");
                }
            } else {
                out.push(c);
            }
        }
        for b in &rest[good.len()..good.len() + bad] {
            let _ = write!(out, "%{b:02X}");
        }
        rest = &rest[good.len() + bad..];
    }
    out
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    if !text.contains('%') {
        return Some(text.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let high = (bytes.next()? as char).to_digit(16)?;
            let low = (bytes.next()? as char).to_digit(16)?;
            out.push((high * 16 + low) as u8);
        } else {
            out.push(b);
        }
    }
    Some(out)
}
