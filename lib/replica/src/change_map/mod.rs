//! What may differ from the peer since the last place where both were known to be equal?
//!
//! Changes are recorded by generation: a checkpoint seals the current one, and once both nodes have made everything before the
//! checkpoint durable the sealed one is retired. Both nodes record (the secondary what it receives), so that after a crash the
//! survivor knows what the other may lack.
//!
//! **What is marked.** A change of names marks the parent directory. A changed object is known by its inode number and by a path
//! it had; a stale path is harmless, for three reasons: (1) a rename marks its target as *moved*: what is found there is compared
//! whole, with everything beneath if it is a directory, which covers every mark made beneath the former path; (2) a mark that
//! relies on a later rename lies in the same or an older generation than the rename's, so it is never retired after it; (3) when
//! the path of a changed file no longer leads to its inode (another hard link was written through), the resynchronisation looks
//! for the inode in the whole tree. A path that meanwhile belongs to somebody else is compared in vain, nothing worse.
//!
//! **Bounds.** A file that marks too many places counts as changed from there on or whole; too many entries: everything.
//!
//! **On disk.** The activity log ([`crate::activity`]) says the same more coarsely; at a clean stop it holds the map itself.

mod set;

pub use set::{Blocks, DirtySet, FOREIGN, FileChange, FileKey, Reader};

use crate::op::{Kind, Op, RelPath};
use std::collections::{BTreeMap, HashMap, HashSet};

const MAGIC: &[u8; 8] = b"skchg\0\0\x01";
const CHECKSUM: usize = 32;

/// Entries kept before the map says "everything".
pub const MAX_ENTRIES: usize = 200_000;

/// The changes since one checkpoint.
#[derive(Debug, Default)]
struct Generation {
    everything: bool,
    files: HashMap<FileKey, FileChange>,
    names: HashSet<(u16, RelPath)>,
    moved: HashMap<(u16, RelPath), u64>,
    /// The directory marked last: most changes of names come in runs.
    last: Option<(u16, RelPath)>,
}

/// Changes that the peer may lack.
#[derive(Debug)]
pub struct ChangeMap {
    current: Generation,
    /// Sealed generations by the number of the checkpoint that ended them.
    sealed: BTreeMap<u64, DirtySet>,
    /// Files of the current generation may come from older ones: their `born` says nothing about names before it.
    max_entries: usize,
    /// What is recorded was received: its inode numbers are the other node's.
    foreign: bool,
}

impl Default for ChangeMap {
    fn default() -> Self {
        Self::new(MAX_ENTRIES)
    }
}

impl Generation {
    fn set(&self) -> DirtySet {
        let mut set = DirtySet { everything: self.everything, ..DirtySet::default() };
        if !self.everything {
            set.files = self.files.iter().map(|(k, v)| (*k, v.clone())).collect();
            set.names = self.names.iter().cloned().collect();
            set.moved = self.moved.iter().map(|(k, v)| (k.clone(), *v)).collect();
        }
        set
    }

    fn parent(&mut self, dir: u16, path: &RelPath) {
        let bytes = path.as_bytes();
        let end = bytes.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let parent = bytes.get(..end).unwrap_or_default();
        if self.last.as_ref().is_some_and(|(d, p)| *d == dir && p.as_bytes() == parent) {
            return;
        }
        if let Some((parent, _)) = path.split() {
            self.names.insert((dir, parent.clone()));
            self.last = Some((dir, parent));
        }
    }

    fn file(&mut self, dir: u16, ino: u64, path: &RelPath) -> &mut FileChange {
        self.files.entry((dir, ino)).or_insert_with(|| FileChange { path: path.clone(), ..FileChange::default() })
    }

    /// `mark`: of whose inode numbers these are.
    fn record(&mut self, op: &Op, payload_len: usize, mark: u64) {
        match op {
            Op::Write { dir, path, ino, offset, .. } => {
                self.file(*dir, *ino | mark, path).blocks.mark(*offset, payload_len as u64);
            }
            Op::SetAttr { dir, path, ino, size, .. } => {
                let file = self.file(*dir, *ino | mark, path);
                if let Some(size) = size {
                    file.blocks.mark_tail(*size);
                }
            }
            Op::SetXattr { dir, path, ino, .. } | Op::RemoveXattr { dir, path, ino, .. } => {
                self.file(*dir, *ino | mark, path);
            }
            Op::Fallocate { dir, path, ino, offset, length, mode, .. } => {
                let file = self.file(*dir, *ino | mark, path);
                if mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0 {
                    file.blocks.mark_tail(*offset);
                } else if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
                    file.blocks.mark(*offset, *length);
                }
            }
            Op::Create { dir, path, ino, kind, .. } => {
                self.parent(*dir, path);
                match kind {
                    Kind::File => {
                        let change = FileChange { path: path.clone(), blocks: Blocks::whole(), born: true };
                        self.files.insert((*dir, *ino | mark), change);
                    }
                    Kind::Directory => {
                        self.moved.insert((*dir, path.clone()), *ino | mark);
                    }
                    _ => {}
                }
            }
            Op::Symlink { dir, path, .. } => self.parent(*dir, path),
            Op::Link { dir, from, path, ino, .. } => {
                self.parent(*dir, from);
                self.parent(*dir, path);
                if let Some(file) = self.files.get_mut(&(*dir, *ino | mark)) {
                    file.born = false;
                }
                self.moved.insert((*dir, path.clone()), *ino | mark);
            }
            Op::Unlink { dir, path, ino, .. } | Op::Rmdir { dir, path, ino, .. } => {
                self.parent(*dir, path);
                self.moved.remove(&(*dir, path.clone()));
                if self.files.get(&(*dir, *ino | mark)).is_some_and(|f| f.born && f.path == *path) {
                    self.files.remove(&(*dir, *ino | mark));
                }
            }
            Op::Rename { dir, from, path, ino, flags, .. } => {
                self.parent(*dir, from);
                self.parent(*dir, path);
                self.moved.remove(&(*dir, from.clone()));
                if flags & libc::RENAME_EXCHANGE != 0 {
                    self.moved.insert((*dir, from.clone()), 0);
                    self.moved.insert((*dir, path.clone()), *ino | mark);
                    return;
                }
                // Atomic replacement, again and again: what was born here and replaced is gone.
                if let Some(replaced) = self.moved.insert((*dir, path.clone()), *ino | mark)
                    && replaced != *ino | mark
                    && self.files.get(&(*dir, replaced)).is_some_and(|f| f.born && f.path == *path)
                {
                    self.files.remove(&(*dir, replaced));
                }
                if let Some(file) = self.files.get_mut(&(*dir, *ino | mark)) {
                    file.path = path.clone();
                }
            }
            Op::Sync { .. }
            | Op::SyncDir { .. }
            | Op::Ask { .. }
            | Op::ResyncEnd
            | Op::Checkpoint { .. }
            | Op::Goodbye => {}
            // Only a node that is not up to date receives these, and it is compared anyhow.
            Op::ResyncBegin { .. }
            | Op::SyncNames { .. }
            | Op::SyncData { .. }
            | Op::SyncZero { .. }
            | Op::SyncMeta { .. } => {}
        }
    }
}

impl ChangeMap {
    /// Nothing differs. `max_entries`: how many entries are kept before the map says "everything".
    pub fn new(max_entries: usize) -> Self {
        Self { current: Generation::default(), sealed: BTreeMap::new(), max_entries, foreign: false }
    }

    /// Nothing is known: everything may differ, until [`ChangeMap::clear`].
    pub fn unknown() -> Self {
        let mut map = Self::default();
        map.current.everything = true;
        map
    }

    /// From here on changes are received ones, or this node's own.
    pub fn set_foreign(&mut self, foreign: bool) {
        self.foreign = foreign;
    }

    /// Replaces everything that is known by this.
    pub fn replace(&mut self, set: &DirtySet) {
        self.clear();
        self.add(set);
    }

    /// Records a change, with the size of its payload.
    pub fn record(&mut self, op: &Op, payload_len: usize) {
        if self.current.everything {
            return;
        }
        self.current.record(op, payload_len, if self.foreign { FOREIGN } else { 0 });
        if self.current.files.len() + self.current.names.len() + self.current.moved.len() > self.max_entries {
            self.current = Generation { everything: true, ..Generation::default() };
        }
    }

    /// Adds changes known from elsewhere (the ring, the peer).
    pub fn add(&mut self, set: &DirtySet) {
        let mut merged = self.current.set();
        merged.merge(set);
        let everything = merged.everything || merged.len() > self.max_entries;
        self.current = Generation::default();
        if everything {
            self.current.everything = true;
        } else {
            self.current.files = merged.files.into_iter().collect();
            self.current.names = merged.names.into_iter().collect();
            self.current.moved = merged.moved.into_iter().collect();
        }
    }

    /// Ends the current generation with this checkpoint.
    pub fn seal(&mut self, checkpoint: u64) {
        let ended = std::mem::take(&mut self.current).set();
        self.sealed.entry(checkpoint).or_default().merge(&ended);
        let kept: usize = self.sealed.values().map(DirtySet::len).sum();
        if kept > self.max_entries.saturating_mul(2) {
            self.current.everything = true;
        }
    }

    /// Everything before this checkpoint is durable on both nodes.
    pub fn retire(&mut self, checkpoint: u64) {
        self.sealed = self.sealed.split_off(&checkpoint.saturating_add(1));
    }

    /// Both trees are equal now (end of a resynchronisation, made durable by both).
    pub fn clear(&mut self) {
        let foreign = self.foreign;
        *self = Self { foreign, ..Self::new(self.max_entries) };
    }

    /// Whether nothing is known.
    pub fn is_everything(&self) -> bool {
        self.current.everything || self.sealed.values().any(DirtySet::everything)
    }

    /// Everything that may differ.
    pub fn all(&self) -> DirtySet {
        let mut set = DirtySet::default();
        for sealed in self.sealed.values() {
            set.merge(sealed);
        }
        set.merge(&self.current.set());
        set
    }
}

impl DirtySet {
    /// For a file or the wire, with a checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut body = Vec::new();
        self.encode(&mut body);
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// None: damaged, cut short, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kept, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        if blake3::hash(kept).as_bytes() != sum {
            return None;
        }
        let mut input = Reader::new(kept);
        if input.take(MAGIC.len())? != MAGIC || input.number()? != input.left() as u64 {
            return None;
        }
        let set = Self::decode(&mut input)?;
        input.is_empty().then_some(set)
    }
}

#[cfg(test)]
mod tests;
