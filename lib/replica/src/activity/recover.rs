//! What do the records of a former process mean for the tree that is there now?

use super::record::{EXTENT, Extents, Record};
use crate::change_map::{Blocks, DirtySet, MAX_ENTRIES, Reader};
use crate::op::{Kind, RelPath, Time};
use crate::stream::message::StreamId;
use crate::tree;
use lineage::EpochId;
use rustix::fs::{AtFlags, StatxFlags};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The beginning of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub log: StreamId,
    pub id: StreamId,
    pub base: Option<EpochId>,
    pub also: Option<EpochId>,
    pub since: Time,
    pub everything: bool,
}

const VERSION: u8 = 1;

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.everything)];
        for id in [self.log.0, self.id.0] {
            out.extend_from_slice(&id.to_le_bytes());
        }
        for epoch in [self.base, self.also] {
            out.push(u8::from(epoch.is_some()));
            out.extend_from_slice(&epoch.map_or(0, |e| e.0).to_le_bytes());
        }
        out.extend_from_slice(&self.since.0.to_le_bytes());
        out.extend_from_slice(&self.since.1.to_le_bytes());
        out
    }

    fn decode(input: &mut Reader<'_>) -> Option<Self> {
        if input.take(1)? != [VERSION] {
            return None;
        }
        let everything = input.take(1)? != [0];
        let mut wide = || Some(u128::from_le_bytes(input.take(16)?.try_into().ok()?));
        let (log, id) = (StreamId(wide()?), StreamId(wide()?));
        let mut epoch = || {
            let there = input.take(1)? != [0];
            let id = u128::from_le_bytes(input.take(16)?.try_into().ok()?);
            Some(there.then_some(EpochId(id)))
        };
        let (base, also) = (epoch()?, epoch()?);
        let seconds = i64::from_le_bytes(input.take(8)?.try_into().ok()?);
        let nanos = u32::from_le_bytes(input.take(4)?.try_into().ok()?);
        Some(Self { log, id, base, also, since: Time(seconds, nanos), everything })
    }
}

/// What a former process recorded.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub header: Header,
    records: Vec<Record>,
}

/// One file of the records.
struct Changed<'a> {
    dir: u16,
    ino: u64,
    linked: bool,
    paths: &'a [RelPath],
    extents: Extents,
}

impl Recovered {
    /// Everything may differ.
    pub fn nothing_known(log: StreamId) -> Self {
        let header = Header { log, id: StreamId(0), base: None, also: None, since: Time(0, 0), everything: true };
        Self { header, records: Vec::new() }
    }

    /// None: of another log, or not of this version.
    pub fn read(frames: &[Vec<u8>], log: StreamId) -> Option<Self> {
        let (snapshot, batches) = frames.split_first()?;
        let mut input = Reader::new(snapshot);
        let mut header = Header::decode(&mut input)?;
        if header.log != log {
            return None;
        }
        let mut records = Vec::new();
        let mut inputs = vec![input];
        inputs.extend(batches.iter().map(|batch| Reader::new(batch)));
        for mut input in inputs {
            while !input.is_empty() {
                match Record::decode(&mut input)? {
                    Record::Everything => header.everything = true,
                    Record::Also(epoch) => header.also = Some(epoch),
                    Record::Since(time) => header.since = header.since.min(time),
                    record => records.push(record),
                }
            }
        }
        Some(Self { header, records })
    }

    /// What may differ, in terms of the tree that is there. Reads the directories that are recorded, and more only when a file with several
    /// names has lost those that are recorded.
    pub fn resolve(&self, roots: &[OwnedFd]) -> io::Result<DirtySet> {
        if self.header.everything {
            return Ok(DirtySet::all_of_it());
        }
        let mut set = DirtySet::default();
        let mut lost = HashMap::new();
        let mut names = BTreeSet::new();
        for record in &self.records {
            match record {
                Record::Names { dir, path } => {
                    names.insert((*dir, path.clone()));
                }
                Record::Moved { dir, path } => set.add_moved(*dir, path.clone()),
                Record::Content { dir, ino, linked, paths, extents } => {
                    let changed = Changed { dir: *dir, ino: *ino, linked: *linked, paths, extents: *extents };
                    find(roots, &changed, &mut set, &mut lost)?;
                }
                Record::Set(bytes) => match DirtySet::from_bytes(bytes) {
                    Some(known) => merge(roots, &known, &mut set, &mut lost)?,
                    None => return Ok(DirtySet::all_of_it()),
                },
                Record::Everything | Record::Also(_) | Record::Since(_) => {}
            }
        }
        for (dir, path) in names {
            if let Some(root) = roots.get(usize::from(dir)) {
                changed_since(root.as_fd(), dir, &path, self.header.since, &mut set)?;
            }
            set.add_names(dir, path);
            if set.len() > MAX_ENTRIES {
                return Ok(DirtySet::all_of_it());
            }
        }
        if !lost.is_empty() {
            search(roots, lost, &mut set)?;
        }
        Ok(set)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV | libc::ESTALE | libc::EINVAL)
    )
}

fn stat(root: BorrowedFd<'_>, path: &RelPath) -> io::Result<Option<rustix::fs::Stat>> {
    match tree::stat(root, path) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn blocks(extents: Extents) -> Blocks {
    match extents {
        Extents::None => Blocks::default(),
        Extents::Some { first, last } => {
            let start = first.saturating_mul(EXTENT);
            Blocks::range(start, (last.saturating_add(1)).saturating_mul(EXTENT).saturating_sub(start))
        }
        Extents::From(first) => Blocks::from(first.saturating_mul(EXTENT)),
    }
}

type Lost = HashMap<(u16, u64), Blocks>;

/// The file under one of its names. One that has none of them any more was removed; with other names it is looked for.
fn find(roots: &[OwnedFd], changed: &Changed<'_>, set: &mut DirtySet, lost: &mut Lost) -> io::Result<()> {
    let Some(root) = roots.get(usize::from(changed.dir)) else { return Ok(()) };
    let mut found = false;
    for path in changed.paths {
        let Some(stat) = stat(root.as_fd(), path)? else { continue };
        if changed.ino != 0 && stat.st_ino != changed.ino {
            continue;
        }
        found = true;
        set.add_file(changed.dir, stat.st_ino, path.clone(), blocks(changed.extents));
    }
    if !found && changed.linked && changed.ino != 0 {
        lost.entry((changed.dir, changed.ino)).or_default().merge(&blocks(changed.extents));
    }
    Ok(())
}

/// Changes that the change map knew.
fn merge(roots: &[OwnedFd], known: &DirtySet, set: &mut DirtySet, lost: &mut Lost) -> io::Result<()> {
    let mut rest = known.clone();
    for ((dir, ino), change) in rest.take_files() {
        let Some(root) = roots.get(usize::from(dir)) else { continue };
        match stat(root.as_fd(), &change.path)? {
            Some(stat) if stat.st_ino == ino => set.add_file(dir, ino, change.path, change.blocks),
            _ => lost.entry((dir, ino)).or_default().merge(&change.blocks),
        }
    }
    set.merge(&rest);
    Ok(())
}

/// What changed in a directory after this time.
fn changed_since(root: BorrowedFd<'_>, dir: u16, path: &RelPath, since: Time, set: &mut DirtySet) -> io::Result<()> {
    let here = match tree::open_dir(root, path) {
        Ok(here) => here,
        Err(e) if is_gone(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in tree::names(&here)? {
        let stat = match tree::stat_at(&here, &name) {
            Ok(stat) => stat,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(e),
        };
        if tree::ctime_of(&stat) < since {
            continue;
        }
        let full = path.join(&name);
        if tree::kind_of(&stat) == Some(Kind::Directory) && is_older(&here, &name, since)? {
            // Its attributes changed, or its entries, which have a record of their own.
            set.add_names(dir, full);
        } else {
            set.add_moved(dir, full);
        }
    }
    Ok(())
}

/// Whether an object was made before this time; false when the file system does not know.
fn is_older(here: &OwnedFd, name: &[u8], since: Time) -> io::Result<bool> {
    match rustix::fs::statx(here, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME) {
        Ok(found) if StatxFlags::from_bits_truncate(found.stx_mask).contains(StatxFlags::BTIME) => {
            Ok(Time(found.stx_btime.tv_sec, found.stx_btime.tv_nsec) < since)
        }
        Ok(_) | Err(rustix::io::Errno::NOSYS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Looks for files in the whole tree.
fn search(roots: &[OwnedFd], mut lost: Lost, set: &mut DirtySet) -> io::Result<()> {
    for (dir, root) in (0u16..).zip(roots) {
        let mut queue = vec![RelPath::default()];
        while let Some(path) = queue.pop() {
            let here = match tree::open_dir(root.as_fd(), &path) {
                Ok(here) => here,
                Err(e) if is_gone(&e) => continue,
                Err(e) => return Err(e),
            };
            for name in tree::names(&here)? {
                let Ok(stat) = tree::stat_at(&here, &name) else { continue };
                if tree::kind_of(&stat) == Some(Kind::Directory) {
                    queue.push(path.join(&name));
                }
                if let Some(blocks) = lost.remove(&(dir, stat.st_ino)) {
                    set.add_file(dir, stat.st_ino, path.join(&name), blocks);
                }
                if lost.is_empty() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
