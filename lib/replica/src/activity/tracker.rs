//! Which change needs a record before it may touch the disk? Pure.
//!
//! A record covers later changes of the same object until it is dropped: an object that is changed all the time is written down once.
//! Changes are counted by generation, as in the change map. [`Tracker::retire`] drops what was not touched since; what was touched
//! again and again stays some generations longer, so that a data base writes nothing in the steady state.
//!
//! **What the file system itself records.** What a change puts into the inode (its creation, owner, mode, attributes, name, size) reaches the
//! disk together with the inode's change time, never without it. So such changes need only a record of the directory they are found in: whoever
//! reads the log looks there for objects that changed since the log's time. The content of a file that was created, emptied or prolonged in the present
//! generation is found in the same way, because its blocks belong to no older state of the inode. What is overwritten in place may reach the
//! disk before the change time does, and needs a record of its extents.
//!
//! **Names.** A record names a file by inode number and by the names it has or had in this generation: the crash may have undone a
//! rename. A renamed directory is recorded itself, under both names, with all beneath it.

use super::record::{EXTENT, Extents, Record};
use crate::op::{RelPath, Time};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

/// Generations that a record outlives its last use, while there are few.
const STAYS: u64 = 6;
/// Records that may stay longer than needed: their extents are compared after a crash.
const FEW: usize = 1024;
/// Extents recorded ahead of a sequential overwrite.
const AHEAD: u64 = 64;
/// Names of one file in a record.
const NAMES: usize = 8;
/// A clock that was set back by less is not noticed, and the kernel's coarse time may lag behind ours: older changes are looked at, too.
const SLACK: i64 = 3;

/// Size and number of names of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub size: u64,
    pub links: u64,
}

/// A change that is about to be made.
pub enum Touch<'a> {
    /// Of the entries of a directory; `parent`: its inode number.
    Names { dir: u16, parent: u64, path: &'a RelPath },
    /// Of the content of a file; `end` is `u64::MAX` when it reaches to wherever the file ends. `state` is asked only when it matters.
    Content { dir: u16, ino: u64, path: &'a RelPath, offset: u64, end: u64, state: &'a dyn Fn() -> io::Result<State> },
    /// Of nothing but attributes, or of a size that grows.
    Attributes { dir: u16, ino: u64, path: &'a RelPath, links: u64 },
    /// A file loses all its content.
    Emptied { dir: u16, ino: u64, path: &'a RelPath, links: u64 },
    /// An object gets another name.
    Renamed { dir: u16, ino: u64, from: &'a RelPath, path: &'a RelPath, directory: bool },
}

/// When something was touched last, and the batch of records that makes it durable.
#[derive(Clone, Copy, Debug)]
struct Seen {
    last: u64,
    batch: u64,
}

#[derive(Debug, Default)]
struct File {
    /// With the generation in which each was in use.
    paths: Vec<(RelPath, u64)>,
    linked: bool,
    extents: BTreeMap<u64, Seen>,
    /// All extents from this one on.
    tail: Option<(u64, Seen)>,
    /// Everything from this offset on came to be in this generation.
    fresh: Option<(u64, u64)>,
    /// Recorded for its attributes.
    listed: Option<Seen>,
}

/// What is covered by records.
pub struct Tracker {
    generation: u64,
    /// Records that are needed now belong to this batch.
    pub batch: u64,
    names: HashMap<(u16, RelPath), Seen>,
    files: HashMap<(u16, u64), File>,
    moved: HashMap<(u16, RelPath), Seen>,
    /// Objects made in this generation.
    born: HashMap<(u16, u64), u64>,
    /// Earliest time of each generation that is not retired.
    times: BTreeMap<u64, Time>,
    clock_batch: u64,
    /// Inode numbers in records: those of a secondary are the peer's.
    own_numbers: bool,
    entries: usize,
    most: usize,
}

/// What is certainly before every change time that the kernel gives from now on.
pub fn earlier(Time(seconds, nanos): Time) -> Time {
    Time(seconds.saturating_sub(SLACK), nanos)
}

impl Tracker {
    /// Nothing is covered; what changed since `since` is of interest. `most`: records kept.
    pub fn new(since: Time, own_numbers: bool, most: usize) -> Self {
        Self {
            generation: 1,
            batch: 1,
            names: HashMap::new(),
            files: HashMap::new(),
            moved: HashMap::new(),
            born: HashMap::new(),
            times: BTreeMap::from([(1, since)]),
            clock_batch: 0,
            own_numbers,
            entries: 0,
            most,
        }
    }

    /// What changed before this time is of no interest.
    pub fn since(&self) -> Time {
        self.times.values().copied().min().unwrap_or(Time(0, 0))
    }

    /// Whether there is more than may be remembered.
    pub fn is_full(&self) -> bool {
        self.entries > self.most
    }

    /// Ends a generation; its number. Records of changes that are under way stay: their last use is not before the new one.
    pub fn bump(&mut self, now: Time) -> u64 {
        self.generation += 1;
        self.times.insert(self.generation, earlier(now));
        self.generation - 1
    }

    /// An object was made.
    pub fn born(&mut self, dir: u16, ino: u64) {
        if self.born.len() < self.most {
            self.born.insert((dir, ino), self.generation);
            self.files.remove(&(dir, ino));
        }
    }

    /// A name of an object went; perhaps its last.
    pub fn gone(&mut self, dir: u16, ino: u64) {
        self.born.remove(&(dir, ino));
    }

    fn is_born(&self, dir: u16, ino: u64) -> bool {
        ino != 0 && self.born.get(&(dir, ino)) == Some(&self.generation)
    }

    /// Appends the records that are needed to `out`. The batch that must be durable before the change.
    pub fn touch(&mut self, touch: &Touch<'_>, now: Time, out: &mut Vec<Record>) -> io::Result<u64> {
        let since = self.times.entry(self.generation).or_insert_with(|| earlier(now));
        if now < *since {
            *since = earlier(now);
            out.push(Record::Since(*since));
            self.clock_batch = self.batch;
        }
        let needed = match *touch {
            Touch::Names { dir, parent, path } => {
                if self.is_born(dir, parent) {
                    0
                } else {
                    self.directory(dir, path, out)
                }
            }
            Touch::Content { dir, ino, path, offset, end, state } => {
                self.content(dir, ino, path, (offset, end), state, out)?
            }
            Touch::Attributes { dir, ino, path, links } => self.attributes(dir, ino, path, links, out),
            Touch::Emptied { dir, ino, path, links } => {
                if links > 1 {
                    self.content(dir, ino, path, (0, u64::MAX), &|| Ok(State { size: u64::MAX, links }), out)?
                } else {
                    let needed = self.attributes(dir, ino, path, links, out);
                    if !self.is_born(dir, ino) {
                        let generation = self.generation;
                        self.file(dir, ino, path, out).fresh = Some((generation, 0));
                    }
                    needed
                }
            }
            Touch::Renamed { dir, ino, from, path, directory } => {
                if directory {
                    self.moved(dir, from, out).max(self.moved(dir, path, out))
                } else {
                    if !self.is_born(dir, ino) {
                        self.file(dir, ino, from, out);
                        self.file(dir, ino, path, out);
                    }
                    0
                }
            }
        };
        Ok(needed.max(self.clock_batch))
    }

    fn moved(&mut self, dir: u16, path: &RelPath, out: &mut Vec<Record>) -> u64 {
        let (generation, batch) = (self.generation, self.batch);
        let mut new = false;
        let seen = self.moved.entry((dir, path.clone())).or_insert_with(|| {
            new = true;
            Seen { last: generation, batch }
        });
        seen.last = generation;
        let needed = seen.batch;
        if new {
            self.entries += 1;
            out.push(Record::Moved { dir, path: path.clone() });
        }
        needed
    }

    fn directory(&mut self, dir: u16, path: &RelPath, out: &mut Vec<Record>) -> u64 {
        let (generation, batch) = (self.generation, self.batch);
        let key = (dir, path.clone());
        if let Some(seen) = self.names.get_mut(&key) {
            seen.last = generation;
            return seen.batch;
        }
        self.entries += 1;
        out.push(Record::Names { dir, path: path.clone() });
        self.names.insert(key, Seen { last: generation, batch });
        batch
    }

    fn attributes(&mut self, dir: u16, ino: u64, path: &RelPath, links: u64, out: &mut Vec<Record>) -> u64 {
        if self.is_born(dir, ino) {
            return 0;
        }
        let needed = self.directory(dir, &path.parent(), out);
        if links <= 1 {
            return needed;
        }
        // The name that leads to it may be gone by then, and another one may lie elsewhere.
        let (generation, batch) = (self.generation, self.batch);
        let own = self.own_numbers;
        let file = self.file(dir, ino, path, out);
        file.linked = true;
        if let Some(seen) = file.listed.as_mut() {
            seen.last = generation;
            return needed.max(seen.batch);
        }
        file.listed = Some(Seen { last: generation, batch });
        out.push(file.record(dir, ino, own, Extents::None));
        self.entries += 1;
        batch
    }

    /// The file, known by this name, too.
    fn file(&mut self, dir: u16, ino: u64, path: &RelPath, out: &mut Vec<Record>) -> &mut File {
        let file = self.files.entry((dir, ino)).or_default();
        if file.name(path, self.generation, self.batch) {
            file.records(dir, ino, self.own_numbers, out);
            self.entries += 1;
        }
        file
    }

    fn content(
        &mut self,
        dir: u16,
        ino: u64,
        path: &RelPath,
        (offset, end): (u64, u64),
        state: &dyn Fn() -> io::Result<State>,
        out: &mut Vec<Record>,
    ) -> io::Result<u64> {
        if self.is_born(dir, ino) || offset >= end {
            return Ok(0);
        }
        let (generation, batch, own) = (self.generation, self.batch, self.own_numbers);
        let file = self.file(dir, ino, path, out);
        if file.fresh.is_some_and(|(when, from)| when == generation && offset >= from) {
            return Ok(0);
        }
        let (first, last) = (offset / EXTENT, (end - 1) / EXTENT);
        if let Some((from, seen)) = &mut file.tail
            && *from <= first
        {
            seen.last = generation;
            return Ok(seen.batch);
        }
        let mut needed = 0;
        if end != u64::MAX {
            let covered = file.extents.range_mut(first..=last).fold(0, |count, (_, seen)| {
                seen.last = generation;
                needed = needed.max(seen.batch);
                count + 1
            });
            if covered > last - first {
                return Ok(needed);
            }
        }
        let State { size, links } = state()?;
        if links <= 1 && offset >= size {
            // Blocks that no durable state of the inode knows.
            file.fresh = Some((generation, offset));
            return Ok(self.directory(dir, &path.parent(), out));
        }
        file.linked |= links > 1;
        let seen = Seen { last: generation, batch };
        if end == u64::MAX || last - first > 4096 {
            file.tail = Some((first, seen));
            file.extents.retain(|extent, _| *extent < first);
            out.push(file.record(dir, ino, own, Extents::From(first)));
            self.entries += 1;
            return Ok(batch);
        }
        // In order, it seems: as many ahead as are behind.
        let behind = (1..=AHEAD).take_while(|n| first >= *n && file.extents.contains_key(&(first - n))).count() as u64;
        let last = (last + behind).min(size.saturating_sub(1).max(end - 1) / EXTENT);
        let mut added = 0;
        for extent in first..=last {
            if file.extents.insert(extent, seen).is_none() {
                added += 1;
            }
        }
        out.push(file.record(dir, ino, own, Extents::Some { first, last }));
        self.entries += added;
        Ok(batch)
    }

    /// Everything up to this generation is durable on both nodes. What a new log must hold is appended to `out`.
    pub fn retire(&mut self, generation: u64, out: &mut Vec<Record>) {
        let few = self.entries <= FEW;
        let limit = if few { generation.saturating_sub(STAYS) } else { generation };
        self.times.retain(|when, _| *when > generation);
        self.born.retain(|_, when| *when > generation);
        // A directory was renamed once; nothing is gained by remembering it longer.
        self.moved.retain(|_, seen| seen.last > generation);
        self.names.retain(|_, seen| seen.last > limit);
        self.files.retain(|_, file| {
            file.extents.retain(|_, seen| seen.last > limit);
            file.tail = file.tail.filter(|(_, seen)| seen.last > limit);
            file.listed = file.listed.filter(|seen| seen.last > limit);
            let newest = file.paths.iter().map(|(_, when)| *when).max().unwrap_or_default();
            file.paths.retain(|(_, when)| *when > generation || *when == newest);
            let is_fresh = file.fresh.is_some_and(|(when, _)| when > generation);
            !file.extents.is_empty()
                || file.tail.is_some()
                || file.listed.is_some()
                || is_fresh
                || file.paths.iter().any(|(_, when)| *when > generation)
        });
        self.entries = self.names.len()
            + self.moved.len()
            + self.files.values().map(|f| f.extents.len() + f.paths.len()).sum::<usize>();
        self.records(out);
    }

    /// All records, in an order that does not depend on the hash maps.
    pub fn records(&self, out: &mut Vec<Record>) {
        let names: BTreeSet<_> = self.names.keys().collect();
        out.extend(names.into_iter().map(|(dir, path)| Record::Names { dir: *dir, path: path.clone() }));
        let moved: BTreeSet<_> = self.moved.keys().collect();
        out.extend(moved.into_iter().map(|(dir, path)| Record::Moved { dir: *dir, path: path.clone() }));
        let files: BTreeMap<_, _> = self.files.iter().collect();
        for ((dir, ino), file) in files {
            file.records(*dir, *ino, self.own_numbers, out);
        }
    }
}

impl File {
    fn record(&self, dir: u16, ino: u64, own_numbers: bool, extents: Extents) -> Record {
        // The newest name first.
        let paths = self.paths.iter().rev().map(|(path, _)| path.clone()).collect();
        Record::Content { dir, ino: if own_numbers { ino } else { 0 }, linked: self.linked, paths, extents }
    }

    /// All records about it.
    fn records(&self, dir: u16, ino: u64, own_numbers: bool, out: &mut Vec<Record>) {
        if self.listed.is_some() {
            out.push(self.record(dir, ino, own_numbers, Extents::None));
        }
        if let Some((first, _)) = self.tail {
            out.push(self.record(dir, ino, own_numbers, Extents::From(first)));
        }
        let mut run: Option<(u64, u64)> = None;
        for extent in self.extents.keys() {
            run = match run {
                Some((first, last)) if last + 1 == *extent => Some((first, *extent)),
                Some((first, last)) => {
                    out.push(self.record(dir, ino, own_numbers, Extents::Some { first, last }));
                    Some((*extent, *extent))
                }
                None => Some((*extent, *extent)),
            };
        }
        if let Some((first, last)) = run {
            out.push(self.record(dir, ino, own_numbers, Extents::Some { first, last }));
        }
    }

    /// Known by this name, too. What was recorded is recorded again with it. True: the name is new.
    fn name(&mut self, path: &RelPath, generation: u64, batch: u64) -> bool {
        if let Some((_, last)) = self.paths.iter_mut().find(|(known, _)| known == path) {
            *last = generation;
            return false;
        }
        if self.paths.len() >= NAMES {
            self.paths.remove(0);
            self.linked = true;
        }
        self.paths.push((path.clone(), generation));
        self.extents.values_mut().for_each(|seen| seen.batch = batch);
        let others = self.tail.iter_mut().map(|(_, seen)| seen).chain(&mut self.listed);
        others.for_each(|seen| seen.batch = batch);
        true
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
