//! Phase one: which names exist?

use super::ask::Ask;
use super::{Directory, Link, Listing, Phase, Resync, ResyncError, disk, is_elsewhere, question};
use crate::op::{Entry, Kind, Op, Owner, RelPath};
use crate::tree::{self, Meta, Place};
use rustix::fs::Stat;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Entries listed under one lock, unless told otherwise.
pub(super) const CHUNK: usize = 256;
/// Room asked for before a step: a listing with long names and targets, and attributes.
const ROOM: usize = 1 << 20;
/// Names listed again while every namespace lock is held.
const LAST_FIXES: usize = 1000;

/// A listing that the other node will answer.
pub(super) struct Asked {
    dir: u16,
    path: RelPath,
    entries: Vec<(RelPath, Kind, u64)>,
}

impl Resync {
    /// Until all names are equal.
    pub(super) fn names(&self, link: &dyn Link) -> Result<(), ResyncError> {
        loop {
            self.check()?;
            self.take_answers();
            let fix = self.lock().fixes.pop_first();
            if let Some(((dir, path), moved)) = fix {
                link.wait_room(ROOM)?;
                let mut result = Ok(());
                self.front.with_names(dir, &mut || result = self.fix(link, dir, &path, moved));
                result?;
                continue;
            }
            let next = self.lock().directories.pop_front();
            if let Some(directory) = next {
                self.list(link, &directory)?;
                continue;
            }
            if self.lock().waiting.is_empty() {
                link.wait_room(ROOM)?;
                if self.all_equal(link)? {
                    return Ok(());
                }
            } else {
                self.pause(link)?;
            }
        }
    }

    /// Waits for an answer or a short while, without locks.
    pub(super) fn pause(&self, link: &dyn Link) -> Result<(), ResyncError> {
        self.check()?;
        link.wait_room(0)?;
        let state = self.lock();
        if state.answers.is_empty() {
            drop(self.wake.wait_timeout(state, Duration::from_millis(20)));
        }
        Ok(())
    }

    /// Under every namespace lock: lists the last names again; when nothing is left, all names are equal.
    fn all_equal(&self, link: &dyn Link) -> Result<bool, ResyncError> {
        let mut result = Ok(false);
        self.with_all_names(0, &mut || {
            result = (|| {
                for _ in 0..LAST_FIXES {
                    let Some(((dir, path), moved)) = self.lock().fixes.pop_first() else { break };
                    self.fix(link, dir, &path, moved)?;
                }
                let mut state = self.lock();
                if !state.fixes.is_empty() || !state.directories.is_empty() {
                    return Ok(false);
                }
                state.phase = Phase::Data;
                self.note_content.store(false, Ordering::SeqCst);
                state.progress.phase = "data".into();
                state.next_ask += 1;
                let id = u64::from(self.session) << 32 | (state.next_ask - 1);
                drop(state);
                link.emit(&Op::Ask { id }, &question(&Ask::NamesDone)?)?;
                Ok(true)
            })();
        });
        result
    }

    /// Uses the answers to listings: what was made anew is compared, several names of a file need all names.
    pub(super) fn take_answers(&self) -> bool {
        let mut widen = false;
        let mut state = self.lock();
        let ids: Vec<u64> = state.waiting.keys().filter(|id| state.answers.contains_key(id)).copied().collect();
        for id in ids {
            let (Some(asked), Some(answer)) = (state.waiting.remove(&id), state.answers.remove(&id)) else { continue };
            widen |= answer.linked;
            for number in answer.fresh {
                let Some((name, kind, ino)) = asked.entries.get(number as usize) else { continue };
                let path = asked.path.join(name.as_bytes());
                if *kind == Kind::Directory {
                    state.directories.push_back(Directory { dir: asked.dir, path: path.clone(), deep: true });
                }
                if *kind == Kind::File {
                    state.suspects.insert((asked.dir, *ino));
                }
                if matches!(kind, Kind::File | Kind::Directory) {
                    state.compare.insert((asked.dir, path));
                }
            }
            for number in answer.recent {
                if let Some((name, kind, ino)) = asked.entries.get(number as usize) {
                    state.compare_recent(asked.dir, asked.path.join(name.as_bytes()), *kind, *ino);
                }
            }
            if answer.linked {
                for (name, _, ino) in asked.entries.iter().filter(|(_, kind, _)| *kind == Kind::File) {
                    state.suspects.insert((asked.dir, *ino));
                    state.compare.insert((asked.dir, asked.path.join(name.as_bytes())));
                }
            }
        }
        drop(state);
        if widen { self.widen() } else { false }
    }

    /// From now on the names of everything are listed. False: they are already.
    fn widen(&self) -> bool {
        let mut state = self.lock();
        if state.widened {
            return false;
        }
        state.widened = true;
        drop(state);
        self.everything();
        true
    }

    /// Back from the data phase, because a file with several names turned up late.
    pub(super) fn names_again(&self, link: &dyn Link) -> Result<(), ResyncError> {
        let mut result = Ok(());
        self.with_all_names(0, &mut || {
            result = (|| {
                self.lock().phase = Phase::Names;
                self.note_content.store(true, Ordering::SeqCst);
                link.emit(&Op::Ask { id: self.new_ask() }, &question(&Ask::NamesAgain)?)?;
                Ok(())
            })();
        });
        result
    }

    /// Lists one name again; the namespace lock is held.
    fn fix(&self, link: &dyn Link, dir: u16, path: &RelPath, moved: bool) -> Result<(), ResyncError> {
        let (Some(root), Some((parent, name))) = (self.root(dir), path.split()) else { return Ok(()) };
        let here = match tree::open_dir(root, &parent) {
            Ok(here) => here,
            Err(e) if is_elsewhere(&e) => return Ok(()),
            Err(e) => return Err(disk(dir, path, e)),
        };
        let Some(only) = RelPath::new(name) else { return Ok(()) };
        let below = self.emit_names(link, dir, &parent, &here, &[name.to_vec()], Some(&only), Some(&only))?;
        self.emit_meta(link, dir, &parent)?;
        if moved {
            let mut state = self.lock();
            if !below.is_empty() {
                state.directories.push_back(Directory { dir, path: path.clone(), deep: true });
            }
            if state.selective {
                state.compare.insert((dir, path.clone()));
            }
        }
        Ok(())
    }

    fn list(&self, link: &dyn Link, directory: &Directory) -> Result<(), ResyncError> {
        let (dir, path) = (directory.dir, &directory.path);
        let Some(root) = self.root(dir) else { return Ok(()) };
        let here = match tree::open_dir(root, path) {
            Ok(here) => here,
            Err(e) if is_elsewhere(&e) => return Ok(()),
            Err(e) => return Err(disk(dir, path, e)),
        };
        let ino = rustix::fs::fstat(&here).map_err(|e| disk(dir, path, e.into()))?.st_ino;
        // Registered first: a change is seen by the reading or noted.
        self.lock().listing = Some(Listing { dir, path: path.clone(), touched: BTreeSet::new() });
        let result = self.list_open(link, directory, &here, ino);
        let mut state = self.lock();
        state.listing = None;
        state.progress.directories += u64::from(result.is_ok());
        drop(state);
        result
    }

    fn list_open(&self, link: &dyn Link, directory: &Directory, here: &OwnedFd, ino: u64) -> Result<(), ResyncError> {
        let (dir, path) = (directory.dir, &directory.path);
        let names = tree::names(here).map_err(|e| disk(dir, path, e))?;
        let step = self.names_per_step.load(Ordering::SeqCst);
        let mut at = 0;
        let mut before: Option<Vec<u8>> = None;
        let mut below = Vec::new();
        loop {
            self.check()?;
            link.wait_room(ROOM)?;
            let mut result: Result<bool, ResyncError> = Ok(true);
            self.front.with_names(dir, &mut || {
                result = (|| {
                    // Moved or removed meanwhile: whoever did it is noted.
                    let Some(root) = self.root(dir) else { return Ok(true) };
                    if !tree::is_at(root, path, ino, Kind::Directory) {
                        return Ok(true);
                    }
                    let mut chunk: BTreeSet<Vec<u8>> = names.iter().skip(at).take(step).cloned().collect();
                    let is_last = at + step >= names.len();
                    let last = if is_last { None } else { chunk.last().cloned() };
                    if let Some(listing) = &self.lock().listing {
                        let after = |n: &&Vec<u8>| before.as_ref().is_none_or(|b| *n >= b);
                        let until = |n: &&Vec<u8>| last.as_ref().is_none_or(|l| *n <= l);
                        chunk.extend(listing.touched.iter().filter(after).filter(until).cloned());
                    }
                    // The ranges overlap in one name, so that none lies between them.
                    chunk.extend(before.clone());
                    let chunk: Vec<Vec<u8>> = chunk.into_iter().collect();
                    let first = before.clone().and_then(RelPath::new);
                    let end = last.clone().and_then(RelPath::new);
                    below.extend(self.emit_names(link, dir, path, here, &chunk, first.as_ref(), end.as_ref())?);
                    if is_last {
                        self.emit_meta(link, dir, path)?;
                    }
                    before = last;
                    at += step;
                    Ok(is_last)
                })();
            });
            if result? {
                break;
            }
        }
        if directory.deep {
            let mut state = self.lock();
            // Depth first: the queue stays as long as the tree is deep and wide at one place.
            for path in below.into_iter().rev() {
                state.directories.push_front(Directory { dir, path, deep: true });
            }
        }
        Ok(())
    }

    /// Emits one listing; returns the directories in it.
    #[allow(clippy::too_many_arguments)] // one range of one directory
    fn emit_names(
        &self,
        link: &dyn Link,
        dir: u16,
        path: &RelPath,
        here: &OwnedFd,
        names: &[Vec<u8>],
        first: Option<&RelPath>,
        last: Option<&RelPath>,
    ) -> Result<Vec<RelPath>, ResyncError> {
        let mut entries = Vec::new();
        let mut below = Vec::new();
        let mut attributes = Vec::new();
        let mut several = false;
        for name in names {
            let full = path.join(name);
            let stat = match tree::stat_at(here, name) {
                Ok(stat) => stat,
                Err(e) if is_elsewhere(&e) => continue,
                Err(e) => return Err(disk(dir, &full, e)),
            };
            let (Some(kind), Some(only)) = (tree::kind_of(&stat), RelPath::new(name.as_slice())) else { continue };
            if self.is_excluded(dir, &full, kind) {
                continue;
            }
            let mut entry = Entry {
                name: only,
                kind,
                ino: stat.st_ino,
                owner: Owner { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid },
                mtime: None,
                rdev: 0,
                target: None,
                same_as: None,
            };
            if stat.st_nlink > 1 && kind != Kind::Directory {
                several = true;
                entry.same_as = self.other_name(dir, &full, &stat);
            }
            if self.recent.is_some_and(|since| tree::ctime_of(&stat) >= since) {
                self.lock().compare_recent(dir, full.clone(), kind, stat.st_ino);
            }
            match kind {
                Kind::Directory => below.push(full),
                Kind::File => {
                    let mut state = self.lock();
                    if !state.selective {
                        state.progress.files_total += 1;
                        state.progress.bytes_total += stat.st_size as u64;
                    }
                }
                _ => {
                    entry.mtime = Some(tree::mtime_of(&stat));
                    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                        entry.rdev = stat.st_rdev;
                    }
                    if kind == Kind::Symlink {
                        let target = rustix::fs::readlinkat(here, name.as_slice(), Vec::new())
                            .map_err(|e| disk(dir, &full, e.into()))?;
                        entry.target = RelPath::opaque(target.into_bytes());
                    }
                    let meta = Meta::read(Place::At(here.as_fd(), name), &stat).map_err(|e| disk(dir, &full, e))?;
                    if !meta.xattrs.is_empty() || self.recent.is_some() {
                        attributes.push((full, stat.st_ino, meta));
                    }
                }
            }
            entries.push(entry);
        }
        if several && self.lock().selective {
            self.widen();
        }
        let selective = self.lock().selective;
        let ask = selective.then(|| self.new_ask());
        if let Some(id) = ask {
            let entries = entries.iter().map(|e| (e.name.clone(), e.kind, e.ino)).collect();
            self.lock().waiting.insert(id, Asked { dir, path: path.clone(), entries });
        }
        let payload = serde_json::to_vec(&entries).map_err(|e| disk(dir, path, e.into()))?;
        let recent = self.recent.is_some();
        let op = Op::SyncNames { dir, path: path.clone(), first: first.cloned(), last: last.cloned(), ask, recent };
        link.emit(&op, &payload)?;
        for (path, ino, meta) in attributes {
            let payload = serde_json::to_vec(&meta).map_err(|e| disk(dir, &path, e.into()))?;
            link.emit(&Op::SyncMeta { dir, path, ino }, &payload)?;
        }
        Ok(below)
    }

    /// Another name of this file that was listed before and still is one; notes this one.
    fn other_name(&self, dir: u16, path: &RelPath, stat: &Stat) -> Option<RelPath> {
        let root = self.root(dir)?;
        let mut known = self.lock().links.get(&(dir, stat.st_ino)).cloned().unwrap_or_default();
        known.retain(|name| name != path && tree::stat(root, name).is_ok_and(|s| s.st_ino == stat.st_ino));
        let other = known.first().cloned();
        known.push(path.clone());
        self.lock().links.insert((dir, stat.st_ino), known);
        other
    }

    /// Emits the attributes of something that is not a file; the namespace lock is held.
    pub(super) fn emit_meta(&self, link: &dyn Link, dir: u16, path: &RelPath) -> Result<(), ResyncError> {
        let Some(root) = self.root(dir) else { return Ok(()) };
        let read = || {
            if let Some((parent, name)) = path.split() {
                let stat = tree::stat(root, path)?;
                if tree::kind_of(&stat) != Some(Kind::Directory) {
                    let here = tree::open_dir(root, &parent)?;
                    return Ok((stat.st_ino, Meta::read(Place::At(here.as_fd(), name), &stat)?));
                }
            }
            let here = tree::open_dir(root, path)?;
            let stat = rustix::fs::fstat(&here)?;
            Ok((stat.st_ino, Meta::read(Place::Fd(here.as_fd()), &stat)?))
        };
        let (ino, meta) = match read() {
            Ok(found) => found,
            Err(e) if is_elsewhere(&e) => return Ok(()),
            Err(e) => return Err(disk(dir, path, e)),
        };
        let payload = serde_json::to_vec(&meta).map_err(|e| disk(dir, path, e.into()))?;
        Ok(link.emit(&Op::SyncMeta { dir, path: path.clone(), ino }, &payload)?)
    }
}
