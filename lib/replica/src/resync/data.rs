//! Phase two: which content differs?

mod candidates;

use super::ask::{Ask, FileAnswer, Item, MAX_BLOCKS, MAX_ITEMS, unpack};
use super::pace::Pace;
use super::{Candidate, Link, Resync, ResyncError, disk, is_elsewhere, question};
use crate::change_map::{Blocks, FileChange, FileKey};
use crate::op::{Kind, Op, RelPath};
use crate::tree::{self, BLOCK, EMPTY, Meta, Place};
use rustix::fs::OFlags;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Questions on their way at once.
const DEPTH: usize = 4;
/// Blocks handled under one lock.
const STEP: u64 = 8;
/// Room asked for before such a step: the blocks, and attributes.
const ROOM: usize = (STEP * BLOCK) as usize + (1 << 20);

/// How long after an end that could not be made durable the next attempt is.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether both trees are equal.
enum End {
    Reached,
    MoreToDo,
    /// They are, but it cannot be said yet.
    NotNow,
}

/// A part of a file, asked for.
struct Work {
    file: Candidate,
    first: u64,
    count: u64,
    /// The attributes follow.
    is_last: bool,
}

/// What is remembered of a file between its parts.
#[derive(Default)]
struct Open {
    fd: Option<OwnedFd>,
    /// Size when both sides began to be zero beyond it, and the end of what was asked so far (in blocks).
    settled_size: Option<u64>,
    asked_end: u64,
    /// Number of the first question about it.
    first_ask: Option<u64>,
    sent: bool,
    meta: String,
    gone: bool,
    /// Its content was vouched for, but is shorter or longer there.
    other_size: bool,
}

pub(super) struct Data<'a> {
    this: &'a Resync,
    link: &'a dyn Link,
    pace: Pace,
    /// Directories to read.
    directories: Vec<(u16, RelPath)>,
    dirty: VecDeque<(FileKey, FileChange)>,
    /// Changed files that are not where they were.
    lost: HashMap<FileKey, Blocks>,
    ready: VecDeque<Candidate>,
    /// Parts to ask next.
    parts: VecDeque<Work>,
    asked: VecDeque<(u64, Vec<Work>)>,
    open: HashMap<FileKey, Open>,
    /// Taken from `compare`: needed again if names must be compared again.
    taken: Vec<(u16, RelPath)>,
    buffer: Vec<u8>,
}

impl<'a> Data<'a> {
    pub(super) fn new(this: &'a Resync, link: &'a dyn Link) -> Self {
        let mut data = Self {
            this,
            link,
            pace: Pace::new(this.bandwidth),
            directories: Vec::new(),
            dirty: VecDeque::new(),
            lost: HashMap::new(),
            ready: VecDeque::new(),
            parts: VecDeque::new(),
            asked: VecDeque::new(),
            open: HashMap::new(),
            taken: Vec::new(),
            buffer: vec![0; BLOCK as usize],
        };
        data.rewind();
        data
    }

    /// Everything from the beginning.
    fn rewind(&mut self) {
        let mut state = self.this.lock();
        state.compare.extend(self.taken.drain(..));
        for id in self.asked.drain(..).map(|(id, _)| id) {
            state.answers.remove(&id);
        }
        state.done.clear();
        drop(state);
        self.parts.clear();
        self.ready.clear();
        self.open.clear();
        self.lost.clear();
        self.directories.clear();
        match self.this.dirty() {
            Some(dirty) => self.dirty = dirty.files().map(|(k, v)| (*k, v.clone())).collect(),
            None => self.directories.extend(self.this.dirs().map(|dir| (dir, RelPath::default()))),
        }
    }

    /// Until both trees are equal; false: names must be compared again first.
    pub(super) fn run(&mut self) -> Result<bool, ResyncError> {
        loop {
            self.this.check()?;
            self.this.take_answers();
            if !self.this.lock().directories.is_empty() {
                self.this.names_again(self.link)?;
                self.rewind();
                return Ok(false);
            }
            while self.asked.len() < DEPTH && self.ask()? {}
            let Some((id, _)) = self.asked.front() else {
                if !self.this.lock().waiting.is_empty() {
                    self.this.pause(self.link)?;
                    continue;
                }
                match self.finish()? {
                    End::Reached => return Ok(true),
                    End::MoreToDo => {}
                    End::NotNow => {
                        let until = self.link.now() + AGAIN;
                        self.sleep_until(until)?;
                    }
                }
                continue;
            };
            let id = *id;
            let answer = self.this.lock().answers.remove(&id);
            let Some(answer) = answer else {
                self.this.pause(self.link)?;
                continue;
            };
            let Some((_, works)) = self.asked.pop_front() else { continue };
            for (number, work) in works.into_iter().enumerate() {
                let theirs = answer.files.get(number).cloned().unwrap_or_default();
                self.part(id, work, &theirs)?;
            }
        }
    }

    fn finish(&self) -> Result<End, ResyncError> {
        let mut result = Ok(End::MoreToDo);
        self.this.with_all_names(0, &mut || {
            let state = self.this.lock();
            if state.compare.is_empty()
                && state.suspects.is_empty()
                && state.waiting.is_empty()
                && state.directories.is_empty()
            {
                drop(state);
                result = self.link.finish().map(|done| if done { End::Reached } else { End::NotNow });
            }
        });
        Ok(result?)
    }

    /// Asks for one batch; false: there is nothing to ask now.
    fn ask(&mut self) -> Result<bool, ResyncError> {
        let mut works: Vec<Work> = Vec::new();
        let (mut blocks, mut bytes) = (0, 0);
        while works.len() < MAX_ITEMS && blocks < MAX_BLOCKS + works.len() as u64 && bytes < MAX_BLOCKS * BLOCK {
            if self.parts.is_empty() {
                match self.candidate(works.is_empty())? {
                    Some(file) => self.divide(file),
                    None => break,
                }
            }
            let Some(work) = self.parts.pop_front() else { break };
            if work.count > 1 && blocks + work.count > MAX_BLOCKS && !works.is_empty() {
                self.parts.push_front(work);
                break;
            }
            blocks += work.count;
            bytes += (work.count * BLOCK).min(work.file.size);
            works.push(work);
        }
        if works.is_empty() {
            return Ok(false);
        }
        let item = |w: &Work| Item {
            dir: w.file.dir,
            path: w.file.path.clone(),
            ino: w.file.ino,
            first: w.first,
            count: w.count,
        };
        let room: usize = works.iter().map(|w| 200 + 3 * w.file.path.as_bytes().len()).sum();
        self.link.wait_room(room)?;
        let mut result: Result<u64, ResyncError> = Ok(0);
        let this = self.this;
        // Under the lock, so that each path leads to its file at the place of the question, here and there.
        this.with_all_names(0, &mut || {
            works.retain(|w| {
                let right =
                    this.root(w.file.dir).is_some_and(|root| tree::is_at(root, &w.file.path, w.file.ino, Kind::File));
                if !right {
                    this.suspect(w.file.dir, w.file.ino);
                }
                right
            });
            result = (|| {
                let id = this.new_ask();
                let items = works.iter().map(item).collect();
                self.link.emit(&Op::Ask { id }, &question(&Ask::Files { items })?)?;
                Ok(id)
            })();
        });
        self.asked.push_back((result?, works));
        Ok(true)
    }

    /// Cuts a file into parts of at most [`MAX_BLOCKS`].
    fn divide(&mut self, file: Candidate) {
        let end = file.size.div_ceil(BLOCK);
        let mut state = self.this.lock();
        state.progress.files_total = state.progress.files_total.max(state.progress.files + 1);
        if self.this.dirty().is_some() {
            state.progress.files_total += 1;
            state.progress.bytes_total += file.size;
        }
        drop(state);
        self.open.insert((file.dir, file.ino), Open { asked_end: end, ..Open::default() });
        let runs = file.blocks.runs(end);
        self.add_parts(&file, &runs, true);
    }

    fn add_parts(&mut self, file: &Candidate, runs: &[(u64, u64)], at_end: bool) {
        let mut parts = Vec::new();
        for (first, count) in runs {
            let mut at = *first;
            while at < first + count {
                let some = (first + count - at).min(MAX_BLOCKS);
                parts.push(Work { file: file.clone(), first: at, count: some, is_last: false });
                at += some;
            }
        }
        match parts.last_mut() {
            Some(last) => last.is_last = true,
            None => parts.push(Work { file: file.clone(), first: 0, count: 0, is_last: true }),
        }
        if at_end {
            self.parts.extend(parts);
        } else {
            for part in parts.into_iter().rev() {
                self.parts.push_front(part);
            }
        }
    }

    /// Compares one part with the other node's answer and sends what differs.
    fn part(&mut self, id: u64, work: Work, theirs: &FileAnswer) -> Result<(), ResyncError> {
        let key = (work.file.dir, work.file.ino);
        let mut open = self.open.remove(&key).unwrap_or_default();
        let hashes = unpack(&theirs.hashes).unwrap_or_default();
        let mut at = 0;
        loop {
            let some = (work.count - at).min(STEP);
            let is_end = at + some >= work.count;
            let begun = self.link.now();
            self.link.wait_room(ROOM)?;
            let mut sent = Ok(0);
            let front = std::sync::Arc::clone(&self.this.front);
            front.with_file(key.0, key.1, &mut || {
                sent = self.step(id, &work, theirs, &hashes, (at, some), is_end, &mut open);
            });
            let sent = sent?;
            self.spend(sent)?;
            if sent > 0 {
                self.this.lock().copying += self.link.now().saturating_sub(begun);
            }
            at += some;
            if is_end || open.gone {
                break;
            }
        }
        if open.other_size {
            // Not what was vouched for: all of it is compared.
            self.ready.push_back(Candidate { blocks: Blocks::whole(), unchanged: false, ..work.file });
            return Ok(());
        }
        let asked_end = open.asked_end;
        let mut state = self.this.lock();
        let looked_at = if work.file.unchanged { work.file.size } else { work.count * BLOCK };
        state.progress.bytes += looked_at.min(work.file.size);
        if open.gone {
            if work.is_last {
                state.progress.files += 1;
            }
            drop(state);
            if !work.is_last {
                // The other parts see it too.
                self.open.insert(key, open);
            }
            return Ok(());
        }
        let end = open.settled_size.unwrap_or_default().div_ceil(BLOCK);
        if work.is_last && end > asked_end {
            // It grew between the question and the place where both began to be zero beyond its size.
            drop(state);
            open.asked_end = end;
            let runs: Vec<(u64, u64)> = work
                .file
                .blocks
                .runs(end)
                .into_iter()
                .filter_map(|(first, count)| {
                    let start = first.max(asked_end);
                    (first + count > start).then_some((start, first + count - start))
                })
                .collect();
            self.open.insert(key, open);
            self.add_parts(&work.file, &runs, false);
            return Ok(());
        }
        if work.is_last {
            state.progress.files += 1;
            state.progress.sent_files += u64::from(open.sent);
            state.done.insert(key);
        } else {
            drop(state);
            self.open.insert(key, open);
        }
        Ok(())
    }

    /// Some blocks of a part, under the file's lock; returns the bytes sent.
    #[allow(clippy::too_many_arguments)] // one step of one part
    fn step(
        &mut self,
        id: u64,
        work: &Work,
        theirs: &FileAnswer,
        hashes: &[u128],
        (at, some): (u64, u64),
        is_end: bool,
        open: &mut Open,
    ) -> Result<u64, ResyncError> {
        let (dir, path, ino) = (work.file.dir, &work.file.path, work.file.ino);
        if open.gone {
            return Ok(0);
        }
        let Some(root) = self.this.root(dir) else { return Ok(0) };
        // Moved or removed: whoever did it is noted.
        if !tree::is_at(root, path, ino, Kind::File) {
            open.gone = true;
            self.this.suspect(dir, ino);
            return Ok(0);
        }
        {
            // What was equal in an earlier part may have been moved, too.
            let first_ask = *open.first_ask.get_or_insert(id & 0xffff_ffff);
            let mut state = self.this.lock();
            if state.disturbed.get(&(dir, ino)).is_some_and(|next| first_ask < *next) {
                state.compare.insert((dir, path.clone()));
                if state.selective {
                    state.suspects.insert((dir, ino));
                }
                open.gone = true;
                return Ok(0);
            }
        }
        let file = match open.fd.take() {
            Some(fd) => fd,
            None => match tree::open_file(root, path, OFlags::RDONLY) {
                Ok(fd) => fd,
                Err(e) if is_elsewhere(&e) => {
                    open.gone = true;
                    return Ok(0);
                }
                Err(e) => return Err(disk(dir, path, e)),
            },
        };
        let failed = |e: std::io::Error| disk(dir, path, e);
        let stat = rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?;
        let size = stat.st_size as u64;
        if open.settled_size.is_none() {
            if work.file.unchanged && theirs.size != size {
                open.other_size = true;
                return Ok(0);
            }
            open.settled_size = Some(size);
            open.meta.clone_from(&theirs.meta);
            if theirs.size > size {
                let meta = Meta::read(Place::Fd(file.as_fd()), &stat).map_err(failed)?;
                self.emit_meta(dir, path, ino, &meta)?;
                open.sent = true;
            }
        }
        let mut bytes = 0;
        let mut data = None;
        for number in at..at + some {
            let block = work.first + number;
            let start = block * BLOCK;
            if start >= size {
                break;
            }
            if data.is_none_or(|at| at < start) {
                data = Some(tree::next_data(&file, start).map_err(failed)?.unwrap_or(u64::MAX));
            }
            let mut length = 0;
            if data.is_some_and(|at| at < start + BLOCK) {
                length = tree::read_full(&file, start, &mut self.buffer).map_err(failed)?;
            }
            let content = self.buffer.get(..length).unwrap_or_default();
            let ours = tree::hash_bytes(content);
            if hashes.get(number as usize).copied().unwrap_or(EMPTY) == ours {
                continue;
            }
            open.sent = true;
            if ours == EMPTY {
                let op = Op::SyncZero { dir, path: path.clone(), ino, offset: start, length: BLOCK };
                self.link.emit(&op, &[])?;
            } else {
                self.link.emit(&Op::SyncData { dir, path: path.clone(), ino, offset: start }, content)?;
                bytes += length as u64;
            }
        }
        if is_end && work.is_last && open.settled_size.is_none_or(|s| s.div_ceil(BLOCK) <= open.asked_end) {
            let meta = Meta::read(Place::Fd(file.as_fd()), &stat).map_err(failed)?;
            if open.sent || open.meta != format!("{:032x}", meta.digest()) {
                self.emit_meta(dir, path, ino, &meta)?;
                open.sent = true;
            }
        }
        open.fd = Some(file);
        Ok(bytes)
    }

    fn emit_meta(&self, dir: u16, path: &RelPath, ino: u64, meta: &Meta) -> Result<(), ResyncError> {
        let payload = serde_json::to_vec(meta).map_err(|e| disk(dir, path, e.into()))?;
        Ok(self.link.emit(&Op::SyncMeta { dir, path: path.clone(), ino }, &payload)?)
    }

    /// Accounts for content sent, and keeps to the bandwidth.
    fn spend(&mut self, bytes: u64) -> Result<(), ResyncError> {
        if bytes == 0 {
            return Ok(());
        }
        self.this.lock().progress.sent += bytes;
        let until = self.link.now() + self.pace.spend(self.link.now(), bytes);
        self.sleep_until(until)
    }

    fn sleep_until(&self, until: Duration) -> Result<(), ResyncError> {
        loop {
            let left = until.saturating_sub(self.link.now());
            if left.is_zero() {
                return Ok(());
            }
            self.this.check()?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
