//! How does a directory or file of this node become what a resynchronisation says it is?
//!
//! **Links.** Files of one listing that are one inode on the primary must be one inode here, and no others. The primary names for
//! each further name of an inode one that was listed before (`same_as`). Here `bound` remembers to which inode of the primary a
//! file with several names was given; the same file found under a name of another inode is replaced by a new, empty one. Both ways
//! the listing's answer says so, and the primary compares the content afterwards.

use super::live::{New, make, set_owner_and_mode};
use super::{Applied, Applier, Fault, set_mtime};
use crate::op::{Entry, Kind, RelPath};
use crate::pieces;
use crate::resync::ask::{Answer, FileAnswer, Item, MAX_BLOCKS, MAX_ITEMS, pack};
use crate::salvage::remove_tree;
use crate::tree::{self, BLOCK, EMPTY, Meta, Place};
use crate::verify::Question;
use rustix::fs::{AtFlags, FallocateFlags, OFlags, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What was found for an entry.
#[derive(Default)]
struct Found {
    fresh: bool,
    linked: bool,
}

impl Applier {
    pub(super) fn sync_names(
        &mut self,
        dir: u16,
        path: &RelPath,
        (first, last): (Option<&RelPath>, Option<&RelPath>),
        (ask, recent): (Option<u64>, bool),
        payload: &[u8],
    ) -> Result<Applied, Fault> {
        let entries: Vec<Entry> = serde_json::from_slice(payload).map_err(|_| Fault::Malformed("a bad listing"))?;
        let single = |name: &RelPath| !name.is_root() && name.is_walkable() && !name.as_bytes().contains(&b'/');
        let within = |name: &[u8]| {
            first.is_none_or(|first| first.as_bytes() <= name) && last.is_none_or(|last| name <= last.as_bytes())
        };
        if !entries.iter().all(|e| single(&e.name) && within(e.name.as_bytes()))
            || !entries.is_sorted_by(|a, b| a.name < b.name)
        {
            return Err(Fault::Malformed("a listing with bad names"));
        }
        let here = tree::open_dir(self.checked(dir, path)?, path)?;
        let one_name = first.is_some() && first == last;
        let present = if one_name {
            let name = first.map(|f| f.as_bytes().to_vec()).unwrap_or_default();
            if tree::stat_at(&here, &name).is_ok() { vec![name] } else { Vec::new() }
        } else {
            tree::names(&here)?
        };
        for name in present.iter().filter(|name| within(name)) {
            if entries.binary_search_by(|e| e.name.as_bytes().cmp(name)).is_err() {
                let full = path.join(name);
                let stat = tree::stat_at(&here, name)?;
                if !self.is_excluded(dir, &full, tree::kind_of(&stat)) {
                    self.cache.forget_local(dir, stat.st_ino);
                    self.remove(&here, name, dir, &full, Some(&stat))?;
                }
            }
        }
        let mut answer = Answer { id: ask.unwrap_or_default(), ..Answer::default() };
        for (number, entry) in entries.iter().enumerate() {
            let full = path.join(entry.name.as_bytes());
            if self.is_excluded(dir, &full, Some(entry.kind)) {
                continue;
            }
            // Asked first: what is made equal here changes the time.
            let changed = recent
                && tree::stat_at(&here, entry.name.as_bytes()).is_ok_and(|stat| tree::ctime_of(&stat) >= self.since);
            let found = self.entry(&here, dir, &full, entry)?;
            answer.linked |= found.linked;
            if found.fresh {
                answer.fresh.push(number as u32);
            } else if changed {
                answer.recent.push(number as u32);
            }
        }
        if ask.is_none() {
            return Ok(Applied::Done);
        }
        encode(&answer)
    }

    fn is_excluded(&self, dir: u16, path: &RelPath, kind: Option<Kind>) -> bool {
        self.excludes
            .get(usize::from(dir))
            .is_some_and(|e| e.is_excluded(path.as_bytes(), kind == Some(Kind::Directory)))
    }

    /// Removes an entry with everything beneath; what has nothing of its own to lose is not put aside.
    fn remove(&mut self, here: &OwnedFd, name: &[u8], dir: u16, path: &RelPath, stat: Option<&Stat>) -> io::Result<()> {
        let settled = stat.is_some_and(|s| s.st_nlink > 1 && tree::kind_of(s) == Some(Kind::File))
            || stat.is_some_and(|s| self.settled.contains(&(dir, s.st_ino)));
        let mut nothing = None;
        remove_tree(here, name, dir, path, if settled { &mut nothing } else { &mut self.salvage })
    }

    /// Makes one entry what it must be; content of files is left to the data phase.
    fn entry(&mut self, here: &OwnedFd, dir: u16, path: &RelPath, entry: &Entry) -> Result<Found, Fault> {
        let name = entry.name.as_bytes();
        let stat = match tree::stat_at(here, name) {
            Ok(stat) => Some(stat),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        if let Some(known) = entry.same_as.as_ref().filter(|_| entry.kind != Kind::Directory)
            && let Some(found) = self.same_as(here, dir, path, entry, known, stat.as_ref())?
        {
            return Ok(found);
        }
        let mut found = Found::default();
        if let Some(stat) = &stat
            && fits(here, name, stat, entry)?
        {
            let local = (dir, stat.st_ino);
            if entry.kind != Kind::Directory && stat.st_nlink > 1 {
                found.linked = true;
                if self.bound.get(&local).is_some_and(|ino| *ino != entry.ino) {
                    return self.renew(here, dir, path, entry, Some(stat));
                }
                self.bound.insert(local, entry.ino);
            }
            self.cache.keep_only((dir, entry.ino), stat.st_ino);
            if !matches!(entry.kind, Kind::File | Kind::Directory) {
                let place = Place::At(here.as_fd(), name);
                set_owner_and_mode(place, entry.kind, entry.owner)?;
                if let Some(mtime) = entry.mtime {
                    set_mtime(place, mtime)?;
                }
            }
            return Ok(found);
        }
        self.renew(here, dir, path, entry, stat.as_ref())
    }

    /// A further name of a file that was listed before. None: that file is not here, take the entry as the first of its names.
    fn same_as(
        &mut self,
        here: &OwnedFd,
        dir: u16,
        path: &RelPath,
        entry: &Entry,
        known: &RelPath,
        stat: Option<&Stat>,
    ) -> Result<Option<Found>, Fault> {
        let name = entry.name.as_bytes();
        let (other, other_name) = match self.named(dir, known) {
            Ok(found) => found,
            Err(Fault::Io(_)) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let Ok(wanted) = tree::stat_at(&other, other_name) else { return Ok(None) };
        if tree::kind_of(&wanted) != Some(entry.kind) {
            return Ok(None);
        }
        self.bound.insert((dir, wanted.st_ino), entry.ino);
        self.cache.keep_only((dir, entry.ino), wanted.st_ino);
        if stat.is_none_or(|s| s.st_ino != wanted.st_ino) {
            if stat.is_some() {
                self.remove(here, name, dir, path, stat)?;
            }
            rustix::fs::linkat(&other, other_name, here, name, AtFlags::empty())?;
        }
        Ok(Some(Found { fresh: false, linked: true }))
    }

    /// Replaces whatever is there by a new, empty object.
    fn renew(
        &mut self,
        here: &OwnedFd,
        dir: u16,
        path: &RelPath,
        entry: &Entry,
        stat: Option<&Stat>,
    ) -> Result<Found, Fault> {
        let name = entry.name.as_bytes();
        if let Some(stat) = stat {
            self.cache.forget_local(dir, stat.st_ino);
            self.remove(here, name, dir, path, Some(stat))?;
        }
        self.cache.forget((dir, entry.ino));
        let new = New {
            kind: entry.kind,
            owner: entry.owner,
            rdev: entry.rdev,
            target: entry.target.as_ref(),
            mtime: entry.mtime,
        };
        if let Some((_, local)) = make(here, name, &new)? {
            self.settled.insert((dir, local));
            self.bound.remove(&(dir, local));
        }
        Ok(Found { fresh: true, linked: false })
    }

    pub(super) fn sync_data(
        &mut self,
        dir: u16,
        path: &RelPath,
        ino: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let file = self.file(dir, path, ino)?;
        self.guard_content(dir, path, &file)?;
        Ok(pieces::write_all(&file, offset, bytes)?)
    }

    pub(super) fn sync_zero(
        &mut self,
        dir: u16,
        path: &RelPath,
        ino: u64,
        offset: u64,
        length: u64,
    ) -> Result<(), Fault> {
        let file = self.file(dir, path, ino)?;
        self.guard_content(dir, path, &file)?;
        let size = rustix::fs::fstat(&*file)?.st_size as u64;
        let end = offset.saturating_add(length).min(size);
        if offset >= end {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&file, punch, offset, end - offset) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0u8; BLOCK as usize];
                let mut at = offset;
                while at < end {
                    let part = (end - at).min(BLOCK);
                    pieces::write_all(&file, at, zeros.get(..part as usize).unwrap_or_default())?;
                    at += part;
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn sync_meta(&mut self, dir: u16, path: &RelPath, ino: u64, payload: &[u8]) -> Result<(), Fault> {
        let meta: Meta = serde_json::from_slice(payload).map_err(|_| Fault::Malformed("bad attributes"))?;
        if meta.kind == Kind::File {
            let file = self.file(dir, path, ino)?;
            let stat = rustix::fs::fstat(&*file)?;
            if let Some(size) = meta.size.filter(|size| *size != stat.st_size as u64) {
                if size < stat.st_size as u64 {
                    self.guard_content(dir, path, &file)?;
                }
                rustix::fs::ftruncate(&file, size)?;
            }
            return attributes(Place::Fd(file.as_fd()), &meta);
        }
        let target = self.target(dir, path)?;
        if let Place::At(parent, name) = target.place()
            && tree::kind_of(&tree::stat_at(parent, name)?) != Some(meta.kind)
        {
            return Err(super::errno(libc::EEXIST));
        }
        attributes(target.place(), &meta)
    }

    pub(super) fn answer_files(&mut self, id: u64, items: &[Item]) -> Result<Applied, Fault> {
        let asked = items.iter().fold(0u64, |sum, item| sum.saturating_add(item.count));
        if items.len() > MAX_ITEMS || asked > MAX_BLOCKS.saturating_add(MAX_ITEMS as u64) {
            return Err(Fault::Malformed("too much asked at once"));
        }
        let mut files = Vec::with_capacity(items.len());
        for item in items {
            files.push(self.answer_file(item)?);
        }
        encode(&Answer { id, files, ..Answer::default() })
    }

    /// How a comparison finds this tree; never a reason to stop.
    pub(super) fn answer_verify(&self, id: u64, question: &Question) -> Result<Applied, Fault> {
        let (Question::Objects { dir, .. } | Question::Content { dir, .. } | Question::Names { dir, .. }) = question;
        let reply = crate::verify::answer(self.root(*dir)?, question).ok_or(Fault::Malformed("a bad question"))?;
        encode(&Answer { id, verify: Some(reply), ..Answer::default() })
    }

    fn answer_file(&mut self, item: &Item) -> Result<FileAnswer, Fault> {
        let file = match tree::open_file(self.checked(item.dir, &item.path)?, &item.path, OFlags::RDONLY) {
            Ok(file) => file,
            Err(e) if self.may_ignore(&e) => return Ok(FileAnswer::default()),
            Err(e) => return Err(e.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        let size = stat.st_size as u64;
        let end = size.div_ceil(BLOCK).min(item.first.saturating_add(item.count));
        self.buffer.resize(BLOCK as usize, 0);
        let mut hashes = Vec::new();
        let mut data = None;
        for block in item.first..end {
            // The next place with data, asked again only when passed.
            let start = block.saturating_mul(BLOCK);
            if data.is_none_or(|at| at < start) {
                data = Some(tree::next_data(&file, start)?.unwrap_or(u64::MAX));
            }
            let is_hole = data.is_some_and(|at| at >= start.saturating_add(BLOCK));
            hashes.push(if is_hole { EMPTY } else { tree::hash_block(&file, block, &mut self.buffer)? });
        }
        let meta = Meta::read(Place::Fd(file.as_fd()), &stat)?;
        Ok(FileAnswer { size, meta: format!("{:032x}", meta.digest()), hashes: pack(&hashes) })
    }
}

/// Whether what is there can stay.
fn fits(here: &OwnedFd, name: &[u8], stat: &Stat, entry: &Entry) -> Result<bool, Fault> {
    if tree::kind_of(stat) != Some(entry.kind) {
        return Ok(false);
    }
    Ok(match entry.kind {
        Kind::CharDevice | Kind::BlockDevice => stat.st_rdev == entry.rdev,
        Kind::Symlink => {
            let target = rustix::fs::readlinkat(here, name, Vec::new())?;
            entry.target.as_ref().is_some_and(|wanted| wanted.as_bytes() == target.to_bytes())
        }
        _ => true,
    })
}

/// Everything but the size; the times last.
fn attributes(place: Place<'_>, meta: &Meta) -> Result<(), Fault> {
    set_owner_and_mode(place, meta.kind, meta.owner)?;
    tree::set_xattrs(place, &meta.xattrs)?;
    set_mtime(place, meta.mtime)
}

/// The answer to a listing of a directory that is not here (yet).
pub(super) fn no_such_directory(id: u64) -> Result<Applied, Fault> {
    encode(&Answer { id, ..Answer::default() })
}

fn encode(answer: &Answer) -> Result<Applied, Fault> {
    serde_json::to_vec(answer).map(Applied::Answer).map_err(|e| Fault::Io(e.into()))
}
