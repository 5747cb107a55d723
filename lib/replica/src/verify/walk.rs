//! Walks the primary's tree, asks, and compares what is answered.

use super::answer::{content, is_absent, list, objects as states};
use super::compare::{self, Difference, What};
use super::question::{Content, Objects, Question, Reply};
use super::{FINE, Link, NAMES, PAGE, STEP};
use crate::op::{Kind, RelPath};
use crate::recorder::Front;
use crate::resync::Gone;
use crate::resync::ask::Answer;
use crate::resync::pace::Pace;
use crate::tree::{self, BLOCK, Exclude};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Questions on their way at once.
const DEPTH: usize = 8;
/// Answers kept at most; a peer that sends others than were asked for must not fill the memory.
const ANSWERS: usize = 64;
/// Room asked for before a question: names of 64 entries, escaped.
const ROOM: usize = 64 * 1024;
/// What one name costs of the bandwidth, in bytes.
const NAME_COST: u64 = 256;
/// Attempts to meet a file under its name.
const ATTEMPTS: usize = 3;
/// Pages that differ, held back to be joined.
const HELD: usize = 4096;

/// A comparison to be run.
pub struct Config {
    /// A descriptor of each replicated directory, opened beneath whatever is mounted over it.
    pub roots: Vec<OwnedFd>,
    /// One a replicated directory; missing ones exclude nothing.
    pub excludes: Vec<Arc<Exclude>>,
    pub front: Arc<dyn Front>,
    /// Bytes a second read on each node.
    pub bandwidth: Option<u64>,
}

/// How far it is, or what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Files, directories and other objects.
    pub objects: u64,
    /// Bytes of content.
    pub bytes: u64,
    pub differences: u64,
    /// Files that were renamed or removed while they were compared.
    pub skipped: u64,
    pub ms: u64,
}

/// Why a comparison ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("the stream to the secondary was lost, or the role of this node changed")]
    Gone(#[from] Gone),
    #[error("nobody waits for the result any more")]
    Cancelled,
    #[error("cannot read {path} in replicated directory {dir}: {source}")]
    Disk { dir: u16, path: String, source: io::Error },
    #[error("the secondary cannot read its replica: {0}")]
    Peer(String),
    #[error("the secondary answered something else than was asked")]
    Confused,
}

/// A running comparison.
pub struct Verify {
    config: Config,
    answers: Mutex<HashMap<u64, Reply>>,
    wake: Condvar,
    ended: AtomicBool,
}

impl Verify {
    pub fn new(config: Config) -> Arc<Self> {
        let (answers, wake, ended) = (Mutex::new(HashMap::new()), Condvar::new(), AtomicBool::new(false));
        Arc::new(Self { config, answers, wake, ended })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Reply>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the secondary's answer. False: it is none to a question of a comparison.
    pub fn answer(&self, bytes: &[u8]) -> bool {
        let Ok(Answer { id, verify: Some(reply), .. }) = serde_json::from_slice(bytes) else { return false };
        let mut answers = self.lock();
        if answers.len() >= ANSWERS {
            return false;
        }
        answers.insert(id, reply);
        self.wake.notify_all();
        true
    }

    /// Makes [`Verify::run`] return soon.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.wake.notify_all();
    }

    /// Runs in the calling thread. `found` is told each difference, `progress` about every second how far it is; false ends it. Both are
    /// called without locks.
    pub fn run(
        &self,
        link: &dyn Link,
        found: &mut dyn FnMut(Difference) -> bool,
        progress: &mut dyn FnMut(Summary) -> bool,
    ) -> Result<Summary, Trouble> {
        let started = link.now();
        let mut walk = Walk {
            this: self,
            link,
            found,
            progress,
            pace: Pace::new(self.config.bandwidth),
            started,
            told: started,
            asked: VecDeque::new(),
            directories: Vec::new(),
            files: VecDeque::new(),
            fine: VecDeque::new(),
            doubts: VecDeque::new(),
            pages: BTreeMap::new(),
            held: 0,
            summary: Summary::default(),
        };
        walk.everything()?;
        walk.summary.ms = link.now().saturating_sub(started).as_millis() as u64;
        Ok(walk.summary)
    }
}

/// A question on its way, with what was true here at its place.
enum Asked {
    Objects { dir: u16, path: RelPath, names: Vec<RelPath>, ours: Objects, again: bool },
    Content { dir: u16, path: RelPath, first: u64, count: u64, unit: u64, ours: Content },
    Names { dir: u16, path: RelPath },
}

struct Walk<'a> {
    this: &'a Verify,
    link: &'a dyn Link,
    found: &'a mut dyn FnMut(Difference) -> bool,
    progress: &'a mut dyn FnMut(Summary) -> bool,
    pace: Pace,
    started: Duration,
    told: Duration,
    asked: VecDeque<(u64, Asked)>,
    directories: Vec<(u16, RelPath)>,
    files: VecDeque<(u16, RelPath)>,
    /// Blocks to be narrowed down.
    fine: VecDeque<(u16, RelPath, u64)>,
    /// Names to be asked for once more: directory and name.
    doubts: VecDeque<(u16, RelPath, RelPath)>,
    /// Pages that differ, and the larger of the file's sizes.
    pages: BTreeMap<(u16, RelPath), (BTreeSet<u64>, u64)>,
    held: usize,
    summary: Summary,
}

impl Walk<'_> {
    fn root(&self, dir: u16) -> Result<BorrowedFd<'_>, Trouble> {
        self.this.config.roots.get(usize::from(dir)).map(AsFd::as_fd).ok_or(Trouble::Confused)
    }

    fn excludes(&self, dir: u16) -> Option<&Exclude> {
        self.this.config.excludes.get(usize::from(dir)).map(AsRef::as_ref)
    }

    fn everything(&mut self) -> Result<(), Trouble> {
        for dir in 0..self.this.config.roots.len() as u16 {
            self.objects(dir, &RelPath::default(), vec![RelPath::default()], false)?;
            self.directories.push((dir, RelPath::default()));
        }
        while let Some((dir, path)) = self.directories.pop() {
            self.directory(dir, &path)?;
            // Everything of this directory is answered before its differences are told.
            self.settle(0)?;
            self.tell_pages()?;
        }
        Ok(())
    }

    fn directory(&mut self, dir: u16, path: &RelPath) -> Result<(), Trouble> {
        let here = match tree::open_dir(self.root(dir)?, path) {
            Ok(here) => here,
            // Moved or removed: where it is now, its new parent shows.
            Err(e) if is_absent(&e) => return Ok(()),
            Err(e) => return Err(disk(dir, path, e)),
        };
        let mut place = Some(0);
        while let Some(from) = place {
            let (names, next) = list(&here, from, NAMES).map_err(|e| disk(dir, path, e))?;
            place = next;
            let names: Vec<_> = names.into_iter().filter_map(RelPath::new).collect();
            if !names.is_empty() {
                self.objects(dir, path, names, false)?;
            }
            self.contents()?;
        }
        drop(here);
        self.names(dir, path, 0)?;
        Ok(())
    }

    fn contents(&mut self) -> Result<(), Trouble> {
        while let Some((dir, path)) = self.files.pop_front() {
            self.content(dir, &path)?;
        }
        Ok(())
    }

    /// Asks for the states of entries, as they are here at this place of the stream.
    fn objects(&mut self, dir: u16, path: &RelPath, names: Vec<RelPath>, again: bool) -> Result<(), Trouble> {
        self.settle(DEPTH - 1)?;
        self.link.wait_room(ROOM)?;
        let root = self.root(dir)?;
        let mut result: Result<_, Trouble> = Err(Trouble::Confused);
        self.this.config.front.with_names(dir, &mut || {
            result = (|| {
                let ours = states(root, path, &names).map_err(|e| disk(dir, path, e))?;
                let question = Question::Objects { dir, path: path.clone(), names: names.clone() };
                Ok((self.link.ask(&question)?, ours))
            })();
        });
        let (id, ours) = result?;
        let cost = names.len() as u64 * NAME_COST;
        self.asked.push_back((id, Asked::Objects { dir, path: path.clone(), names, ours, again }));
        self.spend(cost)
    }

    /// Compares a file's content, a step at a time.
    fn content(&mut self, dir: u16, path: &RelPath) -> Result<(), Trouble> {
        let mut first = 0;
        loop {
            let Some(size) = self.part(dir, path, first, STEP, BLOCK)? else {
                self.summary.skipped += 1;
                return Ok(());
            };
            self.summary.bytes += (STEP * BLOCK).min(size.saturating_sub(first * BLOCK));
            first += STEP;
            if first * BLOCK >= size {
                return Ok(());
            }
        }
    }

    /// One question about content. Its size; None: the file is not there any more.
    fn part(&mut self, dir: u16, path: &RelPath, first: u64, count: u64, unit: u64) -> Result<Option<u64>, Trouble> {
        self.settle(DEPTH - 1)?;
        self.link.wait_room(ROOM)?;
        let root = self.root(dir)?;
        let mut asked = None;
        for _ in 0..ATTEMPTS {
            let ino = match tree::stat(root, path) {
                Ok(stat) if tree::kind_of(&stat) == Some(Kind::File) => stat.st_ino,
                Ok(_) => return Ok(None),
                Err(e) if is_absent(&e) => return Ok(None),
                Err(e) => return Err(disk(dir, path, e)),
            };
            // From the disk without a lock, from memory under it.
            warm(root, path, first * unit, count * unit);
            let mut result: Result<_, Trouble> = Ok(None);
            self.this.config.front.with_file(dir, ino, &mut || {
                result = (|| {
                    if !tree::is_at(root, path, ino, Kind::File) {
                        return Ok(None);
                    }
                    let ours = content(root, path, first, count, unit, 0).map_err(|e| disk(dir, path, e))?;
                    let ahead = ours.size.saturating_sub((first + count) * unit).min(count * unit);
                    let question = Question::Content { dir, path: path.clone(), first, count, unit, ahead };
                    Ok(Some((self.link.ask(&question)?, ours)))
                })();
            });
            asked = result?;
            if asked.is_some() {
                break;
            }
        }
        let Some((id, ours)) = asked else { return Ok(None) };
        let size = ours.size;
        let read = (count * unit).min(size.saturating_sub(first * unit));
        self.asked.push_back((id, Asked::Content { dir, path: path.clone(), first, count, unit, ours }));
        self.spend(read.max(NAME_COST))?;
        Ok(Some(size))
    }

    /// Asks which names the secondary has.
    fn names(&mut self, dir: u16, path: &RelPath, from: u64) -> Result<(), Trouble> {
        self.link.wait_room(ROOM)?;
        let id = self.link.ask(&Question::Names { dir, path: path.clone(), from })?;
        self.asked.push_back((id, Asked::Names { dir, path: path.clone() }));
        Ok(())
    }

    /// Takes answers until at most `left` questions are open; with 0, also until nothing is to be asked again.
    fn settle(&mut self, left: usize) -> Result<(), Trouble> {
        loop {
            while self.asked.len() > left {
                // Not more in hand than a page's worth, however much differs.
                if left == 0
                    && self.doubts.len() > PAGE
                    && let Some((dir, path, name)) = self.doubts.pop_front()
                {
                    self.objects(dir, &path, vec![name], true)?;
                } else {
                    self.take()?;
                }
            }
            if left > 0 {
                return Ok(());
            }
            if let Some((dir, path, name)) = self.doubts.pop_front() {
                self.objects(dir, &path, vec![name], true)?;
            } else if let Some((dir, path, block)) = self.fine.pop_front() {
                let pages = BLOCK / FINE;
                if self.part(dir, &path, block * pages, pages, FINE)?.is_none() {
                    self.summary.skipped += 1;
                }
            } else if self.files.is_empty() && self.asked.is_empty() {
                return Ok(());
            } else {
                self.contents()?;
            }
        }
    }

    /// Waits for the answer to the oldest question.
    fn take(&mut self) -> Result<(), Trouble> {
        let Some((id, asked)) = self.asked.pop_front() else { return Ok(()) };
        let reply = loop {
            self.alive()?;
            let mut answers = self.this.lock();
            if let Some(reply) = answers.remove(&id) {
                break reply;
            }
            drop(self.this.wake.wait_timeout(answers, Duration::from_millis(20)));
        };
        match (asked, reply) {
            (_, Reply::Trouble(reason)) => Err(Trouble::Peer(reason)),
            (Asked::Objects { dir, path, names, ours, again }, Reply::Objects(theirs))
                if theirs.len() == names.len() =>
            {
                for ((name, ours), theirs) in names.into_iter().zip(ours).zip(theirs) {
                    self.object(dir, &path, name, ours, theirs, again)?;
                }
                Ok(())
            }
            (Asked::Content { dir, path, first, count, unit, ours }, Reply::Content(theirs)) => {
                let size = ours.size.max(theirs.size);
                for number in compare::units(&ours, &theirs, first, count) {
                    if unit == FINE {
                        let held = self.pages.entry((dir, path.clone())).or_default();
                        held.1 = held.1.max(size);
                        self.held += usize::from(held.0.insert(number));
                    } else {
                        self.fine.push_back((dir, path.clone(), number));
                    }
                }
                // A damaged disk must not become a question of memory.
                if self.held > HELD { self.tell_pages() } else { Ok(()) }
            }
            (Asked::Names { dir, path }, Reply::Names { names, next }) => {
                for name in names {
                    let absent = tree::stat(self.root(dir)?, &path.join(name.as_bytes())).is_err_and(|e| is_absent(&e));
                    if absent && name.is_walkable() && !name.is_root() && !name.as_bytes().contains(&b'/') {
                        self.doubts.push_back((dir, path.clone(), name));
                    }
                }
                next.map_or(Ok(()), |from| self.names(dir, &path, from))
            }
            _ => Err(Trouble::Confused),
        }
    }

    /// Compares an entry at one place of the stream.
    fn object(
        &mut self,
        dir: u16,
        path: &RelPath,
        name: RelPath,
        ours: Option<super::Object>,
        theirs: Option<super::Object>,
        again: bool,
    ) -> Result<(), Trouble> {
        let full = if name.is_root() { path.clone() } else { path.join(name.as_bytes()) };
        let Some(kind) = ours.as_ref().or(theirs.as_ref()).map(|o| o.kind) else { return Ok(()) };
        let excludes = self.excludes(dir);
        if excludes.is_some_and(|e| e.is_excluded(full.as_bytes(), kind == Kind::Directory)) {
            return Ok(());
        }
        let partial = excludes.is_some_and(|e| !e.is_empty());
        let differs = compare::objects(ours.as_ref(), theirs.as_ref(), partial);
        if !again {
            self.summary.objects += 1;
            let both =
                ours.as_ref().zip(theirs.as_ref()).is_some_and(|(o, t)| o.kind == t.kind && !o.mount && !t.mount);
            match kind {
                Kind::File if both => self.files.push_back((dir, full.clone())),
                Kind::Directory if both && !name.is_root() => self.directories.push((dir, full.clone())),
                _ => {}
            }
        }
        match differs {
            None => Ok(()),
            Some(_) if !again => {
                self.doubts.push_back((dir, path.clone(), name));
                Ok(())
            }
            Some(what) => self.tell(Difference { dir, path: full, what }),
        }
    }

    fn tell_pages(&mut self) -> Result<(), Trouble> {
        self.held = 0;
        for ((dir, path), (pages, size)) in std::mem::take(&mut self.pages) {
            let ranges = compare::ranges(pages, size);
            if !ranges.is_empty() {
                self.tell(Difference { dir, path, what: What::Content { ranges } })?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, difference: Difference) -> Result<(), Trouble> {
        self.summary.differences += 1;
        if (self.found)(difference) { Ok(()) } else { Err(Trouble::Cancelled) }
    }

    /// Called between questions, without locks.
    fn alive(&mut self) -> Result<(), Trouble> {
        if self.this.ended.load(Ordering::SeqCst) {
            return Err(Gone.into());
        }
        let now = self.link.now();
        if now.saturating_sub(self.told) >= Duration::from_secs(1) {
            self.told = now;
            let ms = now.saturating_sub(self.started).as_millis() as u64;
            if !(self.progress)(Summary { ms, ..self.summary }) {
                return Err(Trouble::Cancelled);
            }
            self.link.wait_room(0)?;
        }
        Ok(())
    }

    /// Accounts for what was read, and keeps to the bandwidth.
    fn spend(&mut self, bytes: u64) -> Result<(), Trouble> {
        let until = self.link.now() + self.pace.spend(self.link.now(), bytes);
        loop {
            self.alive()?;
            let left = until.saturating_sub(self.link.now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Reads a part of a file, so that it is in memory. What cannot be read is met again under the lock.
fn warm(root: BorrowedFd<'_>, path: &RelPath, mut offset: u64, length: u64) {
    let Ok(file) = tree::open_file(root, path, OFlags::RDONLY) else { return };
    let end = offset.saturating_add(length);
    let mut buffer = vec![0; BLOCK as usize];
    while offset < end {
        // Holes cost nothing.
        match tree::next_data(&file, offset) {
            Ok(Some(data)) if data < end => offset = data,
            _ => return,
        }
        match tree::read_full(&file, offset, &mut buffer) {
            Ok(read) if read > 0 => offset += read as u64,
            _ => return,
        }
    }
}

fn disk(dir: u16, path: &RelPath, source: io::Error) -> Trouble {
    Trouble::Disk { dir, path: String::from_utf8_lossy(path.as_bytes()).into_owned(), source }
}
