//! What may differ from the peer, as a set that can be merged, sent and stored.

use crate::op::RelPath;
use crate::tree::BLOCK;
use std::collections::{BTreeMap, BTreeSet};

/// Replicated directory and inode number on the node that recorded the change.
pub type FileKey = (u16, u64);

/// Marks the inode numbers of the other node: they mean nothing here, the path counts.
pub const FOREIGN: u64 = 1 << 63;

/// Words of 64 blocks that one file may mark before all of it counts as changed.
const MAX_WORDS: usize = 4096;

/// Which content of a file may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    whole: bool,
    /// Every block from this one on.
    tail: Option<u64>,
    /// Bitmap: word number → 64 blocks.
    words: BTreeMap<u64, u64>,
}

impl Blocks {
    pub fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    pub fn is_whole(&self) -> bool {
        self.whole
    }

    pub fn is_empty(&self) -> bool {
        !self.whole && self.tail.is_none() && self.words.is_empty()
    }

    /// The bytes of `offset..offset + length`.
    pub fn range(offset: u64, length: u64) -> Self {
        let mut blocks = Self::default();
        blocks.mark(offset, length);
        blocks
    }

    /// Everything from this byte on.
    pub fn from(offset: u64) -> Self {
        let mut blocks = Self::default();
        blocks.mark_tail(offset);
        blocks
    }

    pub(super) fn mark_whole(&mut self) {
        *self = Self::whole();
    }

    pub(super) fn mark_tail(&mut self, offset: u64) {
        let block = offset / BLOCK;
        self.tail = Some(self.tail.map_or(block, |have| have.min(block)));
    }

    /// Marks the bytes of `offset..offset + length`.
    pub(super) fn mark(&mut self, offset: u64, length: u64) {
        if self.whole || length == 0 {
            return;
        }
        let first = offset / BLOCK;
        let last = offset.saturating_add(length - 1) / BLOCK;
        if self.tail.is_some_and(|tail| first >= tail) {
            return;
        }
        if (last - first) / 64 >= MAX_WORDS as u64 {
            return self.mark_tail(offset);
        }
        for word in first / 64..=last / 64 {
            let low = if word == first / 64 { first % 64 } else { 0 };
            let high = if word == last / 64 { last % 64 } else { 63 };
            *self.words.entry(word).or_default() |= (u64::MAX >> (63 - high)) & (u64::MAX << low);
        }
        if self.words.len() > MAX_WORDS {
            self.mark_whole();
        }
    }

    pub fn merge(&mut self, other: &Self) {
        if other.whole || self.whole {
            return self.mark_whole();
        }
        if let Some(tail) = other.tail {
            self.tail = Some(self.tail.map_or(tail, |have| have.min(tail)));
        }
        for (word, bits) in &other.words {
            *self.words.entry(*word).or_default() |= bits;
        }
        if self.words.len() > MAX_WORDS {
            self.mark_whole();
        }
    }

    /// Runs of blocks `(first, count)` below `end` blocks, in order, without overlap.
    pub fn runs(&self, end: u64) -> Vec<(u64, u64)> {
        if self.whole {
            return if end == 0 { Vec::new() } else { vec![(0, end)] };
        }
        let tail = self.tail.unwrap_or(u64::MAX).min(end);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut add = |first: u64, count: u64| match runs.last_mut() {
            Some((start, len)) if *start + *len == first => *len += count,
            _ => runs.push((first, count)),
        };
        for (word, bits) in &self.words {
            for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                let block = word.saturating_mul(64).saturating_add(bit);
                if block < tail {
                    add(block, 1);
                }
            }
        }
        if tail < end {
            add(tail, end - tail);
        }
        runs
    }
}

/// Changes of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileChange {
    /// A path it had when it was changed; may be out of date.
    pub path: RelPath,
    pub blocks: Blocks,
    /// Created since the beginning of this record, with one name only.
    pub born: bool,
}

/// Everything that may differ from the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirtySet {
    /// Nothing is known: compare all.
    pub(super) everything: bool,
    /// Content or attributes of objects.
    pub(super) files: BTreeMap<FileKey, FileChange>,
    /// Directories whose entries changed.
    pub(super) names: BTreeSet<(u16, RelPath)>,
    /// Paths where another object is now than before: a file is compared whole, a directory with all beneath it.
    pub(super) moved: BTreeMap<(u16, RelPath), u64>,
}

impl DirtySet {
    /// Nothing is known about what is equal.
    pub fn all_of_it() -> Self {
        Self { everything: true, ..Self::default() }
    }

    pub fn everything(&self) -> bool {
        self.everything
    }

    pub fn is_empty(&self) -> bool {
        !self.everything && self.len() == 0
    }

    /// Entries in the tables.
    pub fn len(&self) -> usize {
        self.files.len() + self.names.len() + self.moved.len()
    }

    pub fn files(&self) -> impl Iterator<Item = (&FileKey, &FileChange)> {
        self.files.iter()
    }

    pub fn names(&self) -> impl Iterator<Item = &(u16, RelPath)> {
        self.names.iter()
    }

    pub fn moved(&self) -> impl Iterator<Item = (&(u16, RelPath), u64)> {
        self.moved.iter().map(|(key, ino)| (key, *ino))
    }

    /// A directory to list.
    pub fn add_names(&mut self, dir: u16, path: RelPath) {
        self.names.insert((dir, path));
    }

    /// A path to compare, with all beneath it.
    pub fn add_moved(&mut self, dir: u16, path: RelPath) {
        self.moved.insert((dir, path), 0);
    }

    /// Content (no blocks: attributes alone) of an object of this node.
    pub fn add_file(&mut self, dir: u16, ino: u64, path: RelPath, blocks: Blocks) {
        let file = self.files.entry((dir, ino)).or_default();
        file.blocks.merge(&blocks);
        file.path = path;
    }

    /// Takes the files out.
    pub fn take_files(&mut self) -> impl Iterator<Item = (FileKey, FileChange)> + use<> {
        std::mem::take(&mut self.files).into_iter()
    }

    /// What another node knows, whose inode numbers mean nothing here.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.files = self.files.into_iter().map(|((dir, ino), change)| ((dir, ino | FOREIGN), change)).collect();
        self.moved.values_mut().for_each(|ino| *ino = 0);
        self
    }

    /// Finds the files of the other node by their paths. `find`: inode number of the file at a path, if there is one.
    pub fn localise<E>(&mut self, mut find: impl FnMut(u16, &RelPath) -> Result<Option<u64>, E>) -> Result<(), E> {
        for ((dir, ino), change) in self.take_files() {
            if ino & FOREIGN == 0 {
                self.add_file(dir, ino, change.path, change.blocks);
            } else if let Some(ino) = find(dir, &change.path)? {
                self.add_file(dir, ino, change.path, change.blocks);
            } else {
                // Whoever moved or removed it marked that.
                self.moved.entry((dir, change.path)).or_insert(0);
            }
        }
        for ino in self.moved.values_mut().filter(|ino| **ino & FOREIGN != 0) {
            *ino = 0;
        }
        Ok(())
    }

    /// Adds a set recorded on this node.
    pub fn merge(&mut self, other: &Self) {
        self.everything |= other.everything;
        self.names.extend(other.names.iter().cloned());
        self.moved.extend(other.moved.iter().map(|(k, v)| (k.clone(), *v)));
        for (key, change) in &other.files {
            let mine = self.files.entry(*key).or_insert_with(|| FileChange { born: true, ..FileChange::default() });
            mine.blocks.merge(&change.blocks);
            mine.path = change.path.clone();
            mine.born &= change.born;
        }
        self.forget_if_everything();
    }

    pub(super) fn forget_if_everything(&mut self) {
        if self.everything {
            *self = Self::all_of_it();
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_le_bytes());
        let path = |out: &mut Vec<u8>, dir: u16, path: &RelPath| {
            out.extend_from_slice(&dir.to_le_bytes());
            out.extend_from_slice(&(path.as_bytes().len() as u16).to_le_bytes());
            out.extend_from_slice(path.as_bytes());
        };
        out.push(u8::from(self.everything));
        number(out, self.names.len() as u64);
        for (dir, name) in &self.names {
            path(out, *dir, name);
        }
        number(out, self.moved.len() as u64);
        for ((dir, name), ino) in &self.moved {
            path(out, *dir, name);
            number(out, *ino);
        }
        number(out, self.files.len() as u64);
        for ((dir, ino), change) in &self.files {
            path(out, *dir, &change.path);
            number(out, *ino);
            out.push(u8::from(change.born) | u8::from(change.blocks.whole) << 1);
            number(out, change.blocks.tail.unwrap_or(u64::MAX));
            number(out, change.blocks.words.len() as u64);
            for (word, bits) in &change.blocks.words {
                number(out, *word);
                number(out, *bits);
            }
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Option<Self> {
        let mut set = Self { everything: input.take(1)? != [0], ..Self::default() };
        for _ in 0..input.number()? {
            set.names.insert(path(input)?);
        }
        for _ in 0..input.number()? {
            let key = path(input)?;
            set.moved.insert(key, input.number()?);
        }
        for _ in 0..input.number()? {
            let (dir, path) = path(input)?;
            let ino = input.number()?;
            let flags = *input.take(1)?.first()?;
            let tail = input.number()?;
            let mut blocks =
                Blocks { whole: flags & 2 != 0, tail: (tail != u64::MAX).then_some(tail), words: BTreeMap::new() };
            for _ in 0..input.number()? {
                let word = input.number()?;
                blocks.words.insert(word, input.number()?);
            }
            set.files.insert((dir, ino), FileChange { path, blocks, born: flags & 1 != 0 });
        }
        Some(set)
    }
}

/// Reads little-endian numbers and bytes, and nothing beyond the end.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn left(&self) -> usize {
        self.0.len()
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub fn short(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }
}

fn path(input: &mut Reader<'_>) -> Option<(u16, RelPath)> {
    let dir = input.short()?;
    let length = input.short()?;
    Some((dir, RelPath::new(input.take(usize::from(length))?)?))
}
