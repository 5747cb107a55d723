//! What may differ from the peer, as a set that can be merged, sent and stored.

use crate::op::RelPath;
use crate::tree::BLOCK;
use std::collections::{BTreeMap, BTreeSet};

/// Replicated directory and inode number on the node that recorded the change.
pub type FileKey = (u16, u64);

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

    pub(super) fn merge(&mut self, other: &Self) {
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

    /// Adds what another node knows, whose inode numbers mean nothing here: its files become paths to compare.
    pub fn merge_foreign(&mut self, other: &Self) {
        self.everything |= other.everything;
        self.names.extend(other.names.iter().cloned());
        for key in other.moved.keys() {
            self.moved.entry(key.clone()).or_insert(0);
        }
        for ((dir, _), change) in &other.files {
            self.moved.entry((*dir, change.path.clone())).or_insert(0);
        }
        self.forget_if_everything();
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

    pub(super) fn decode(input: &mut &[u8]) -> Option<Self> {
        let mut set = Self { everything: take(input, 1)? != [0], ..Self::default() };
        for _ in 0..number(input)? {
            set.names.insert(path(input)?);
        }
        for _ in 0..number(input)? {
            let key = path(input)?;
            set.moved.insert(key, number(input)?);
        }
        for _ in 0..number(input)? {
            let (dir, path) = path(input)?;
            let ino = number(input)?;
            let flags = *take(input, 1)?.first()?;
            let tail = number(input)?;
            let mut blocks =
                Blocks { whole: flags & 2 != 0, tail: (tail != u64::MAX).then_some(tail), words: BTreeMap::new() };
            for _ in 0..number(input)? {
                let word = number(input)?;
                blocks.words.insert(word, number(input)?);
            }
            set.files.insert((dir, ino), FileChange { path, blocks, born: flags & 1 != 0 });
        }
        Some(set)
    }
}

pub(super) fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(head)
}

pub(super) fn number(input: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(input, 8)?.try_into().ok()?))
}

fn short(input: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take(input, 2)?.try_into().ok()?))
}

fn path(input: &mut &[u8]) -> Option<(u16, RelPath)> {
    let dir = short(input)?;
    let len = short(input)?;
    Some((dir, RelPath::new(take(input, usize::from(len))?)?))
}
