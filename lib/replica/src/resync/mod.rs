//! What must travel so that both trees become equal while the application goes on?
//!
//! A walker reads the primary's tree and emits operations into the same ordered stream as the live ones, each step under the lock
//! that orders live changes of what it read. Live operations are always sent. Two phases:
//!
//! **Names.** Directories are listed top-down; each listing (by ranges, so that no lock is long) is emitted as `SyncNames` under the
//! namespace lock. Call a directory *clean* when the secondary has it, at the same path, with the same entries and link groups. A
//! live change of names in a clean directory keeps it clean. In another one it may fail on the secondary, which ignores it; then the
//! name is still to be listed (names that changed during a listing are added to its remaining ranges), with two exceptions which
//! [`Resync::note_live`] puts on the queue: a rename or link may fail because of its other end (both names are listed again), and
//! a directory that was moved is listed again with everything beneath. When the queue is empty under every namespace lock, all
//! directories are clean, and since live changes keep them so, nothing may fail from here on (`Ask::NamesDone`).
//!
//! **Data.** Files are asked for in batches (`Op::Ask`, answered with size, digest of the attributes and hashes of blocks), then read
//! block by block under the inode's lock; what differs is sent. *Why an equal hash suffices although the answer is older than our
//! reading:* take a file as an endless array, zero beyond its size. Every write, truncation, hole and `SyncMeta` assigns constants to
//! places of it. Let S0 be the secondary's array when it answered, P0 ours at the same place of the stream, and V the composition of
//! all assignments emitted from there to the place where we read P = V(P0) under the lock. The secondary will be at V(S0). If
//! S0 = P on a block, then there V(S0) = V(P) = V(V(P0)) = V(P0) = P, because doing the same assignments twice, in order, changes
//! nothing more. Owner, mode, times, attributes and (as a maximum and assignment) the size obey the same rule. Moving blocks inside
//! a file (collapse, insert) is no assignment: an answer older than one is not used. Our own `SyncData` are assignments of what the
//! primary's file holds, so they fit in V.
//!
//! *Beyond the end:* when the secondary's file is longer than ours, its size is set before anything else. From that place on
//! both are zero beyond our size, so blocks by which the file grows later are equal without being looked at.
//!
//! A file renamed or linked in this phase is looked at again under its new path, unless it was finished. When nothing is left under
//! every namespace lock, both trees are equal at that place of the stream: [`Link::finish`].
//!
//! **Incremental.** The same with the change map's directories and files instead of all. What the secondary had to create anew is
//! compared whole. Hard links need all their names: as soon as a listed file has several, on either side, the names phase is
//! widened to the whole tree (no content is read for that). Until all names are equal a live change may reach another file of the
//! secondary than it should, or none: such files are compared by inode, wherever their names are in the end.
//!
//! **After a crash of the primary** its map is what its log says, and a log says of some changes no more than the directory they were made in:
//! the change time of the object tells the rest ([`crate::activity`]). But it may tell it on the other node only: of what neither node had made
//! durable, either may have kept more. So in directories that are listed each node names the objects that changed since the last common
//! checkpoint by its own clock, and these are compared whole.
//!
//! **Since a moment.** All names are compared, and every file is asked for. Of a file whose times say that it did not change here since then
//! no block is read, on either side, unless its size differs there (as it does where the names phase had to make it anew). A live change
//! reaches both copies in any case, and sets the file's change time.
//!
//! **Crash windows.** If the stream or either node dies, the receiver stays inconsistent and a new resynchronisation starts; what was
//! done stays done, since hashes match. The change map is not retired before the receiver acknowledged `ResyncEnd` as durable.

pub mod ask;
mod data;
mod link;
mod names;
pub(crate) mod pace;

pub use link::{Gone, Link, Progress, ResyncError, Summary};

use crate::change_map::{Blocks, DirtySet};
use crate::op::{Kind, Op, RelPath, Time};
use crate::recorder::Front;
use crate::tree::{self, Exclude};
use ask::{Answer, Ask};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What is known about the differences.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Nothing; ordered by the operator.
    Full,
    /// Nothing; blocks with equal hashes are not sent (nor are they with `Full`).
    Compare,
    /// The operator vouches for the content of files that did not change here since this moment (seconds of this node's clock since 1970) and
    /// are as long there: it is not read. Names and attributes are made equal all the same.
    Since(i64),
    /// Only this may differ.
    Incremental(DirtySet),
}

/// A resynchronisation to be run.
pub struct Config {
    pub mode: Mode,
    /// A descriptor of each replicated directory, opened beneath whatever is mounted over it.
    pub roots: Vec<OwnedFd>,
    /// One a replicated directory; missing ones exclude nothing.
    pub excludes: Vec<Arc<Exclude>>,
    pub front: Arc<dyn Front>,
    /// Bytes of content a second.
    pub bandwidth: Option<u64>,
    /// Another number for each resynchronisation of a process: answers to a former one are not taken.
    pub session: u32,
    /// `Incremental`, and the map is what a log of this node says after a crash: since when there may be changes here that are not in the last
    /// common checkpoint.
    pub recent: Option<Time>,
    /// The other node says what it changed, see [`Resync::add_foreign`]; `Incremental` is about both.
    pub foreign: bool,
}

/// Most that the other node may say about its changes.
const MAX_FOREIGN: usize = 128 << 20;

/// What the other node changed, as far as it is here.
struct Foreign {
    awaited: bool,
    bytes: Vec<u8>,
}

/// A running resynchronisation.
pub struct Resync {
    roots: Vec<OwnedFd>,
    excludes: Vec<Arc<Exclude>>,
    front: Arc<dyn Front>,
    bandwidth: Option<u64>,
    /// See [`Mode::Since`].
    since: Option<i64>,
    /// See [`Config::recent`].
    recent: Option<Time>,
    session: u32,
    /// What may differ, once all is known; None: everything.
    dirty: OnceLock<Option<DirtySet>>,
    /// What this node knows.
    own: Option<DirtySet>,
    foreign: Mutex<Foreign>,
    state: Mutex<State>,
    wake: Condvar,
    cancelled: AtomicBool,
    names_per_step: AtomicUsize,
    /// Changes of content matter, too: names are not equal yet, and not all files will be compared.
    note_content: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the first step: nothing to note, the first listing sees it.
    Names,
    Data,
}

/// A directory to list.
#[derive(Clone, Debug)]
struct Directory {
    dir: u16,
    path: RelPath,
    /// With everything beneath.
    deep: bool,
}

/// A directory being listed: names that changed meanwhile.
struct Listing {
    dir: u16,
    path: RelPath,
    touched: BTreeSet<Vec<u8>>,
}

struct State {
    phase: Phase,
    /// Incremental: what must be found by path afterwards.
    selective: bool,
    /// Incremental, and the names of everything are listed all the same.
    widened: bool,
    listing: Option<Listing>,
    directories: VecDeque<Directory>,
    /// Single names to list again; true: something was moved there.
    fixes: BTreeMap<(u16, RelPath), bool>,
    /// Names listed so far of files with several.
    links: HashMap<(u16, u64), Vec<RelPath>>,
    /// To be compared whole in the data phase.
    compare: BTreeSet<(u16, RelPath)>,
    /// Files whose blocks were moved: answers to questions before this number do not count.
    disturbed: HashMap<(u16, u64), u64>,
    /// Incremental: files that may differ and whose names may all have changed; looked for by inode in the end.
    suspects: HashSet<(u16, u64)>,
    answers: HashMap<u64, Answer>,
    next_ask: u64,
    /// Listings not yet answered.
    waiting: BTreeMap<u64, names::Asked>,
    done: HashSet<(u16, u64)>,
    progress: Progress,
    started: Duration,
    /// Time spent with sending content.
    copying: Duration,
}

impl Resync {
    pub fn new(config: Config) -> Arc<Self> {
        let since = match config.mode {
            Mode::Since(moment) => Some(moment),
            _ => None,
        };
        let own = match config.mode {
            Mode::Incremental(set) if !set.everything() => Some(set),
            _ => None,
        };
        let is_selective = own.is_some();
        let state = State {
            phase: Phase::Names,
            selective: is_selective,
            widened: false,
            listing: None,
            directories: VecDeque::new(),
            fixes: BTreeMap::new(),
            links: HashMap::new(),
            compare: BTreeSet::new(),
            disturbed: HashMap::new(),
            suspects: HashSet::new(),
            answers: HashMap::new(),
            next_ask: 0,
            waiting: BTreeMap::new(),
            done: HashSet::new(),
            progress: Progress { phase: "names".into(), ..Progress::default() },
            started: Duration::ZERO,
            copying: Duration::ZERO,
        };
        Arc::new(Self {
            roots: config.roots,
            excludes: config.excludes,
            front: config.front,
            bandwidth: config.bandwidth,
            since,
            recent: config.recent.filter(|_| is_selective),
            session: config.session,
            dirty: OnceLock::new(),
            own,
            foreign: Mutex::new(Foreign { awaited: config.foreign && is_selective, bytes: Vec::new() }),
            state: Mutex::new(state),
            wake: Condvar::new(),
            cancelled: AtomicBool::new(false),
            names_per_step: AtomicUsize::new(names::CHUNK),
            note_content: AtomicBool::new(is_selective),
        })
    }

    /// Runs in the calling thread until the end marker was emitted. `Op::ResyncBegin` must be in the stream already, and
    /// [`Resync::note_live`] must be called for every live operation behind it.
    pub fn run(&self, link: &dyn Link) -> Result<Summary, ResyncError> {
        self.lock().started = link.now();
        self.know(link)?;
        self.seed()?;
        let mut data = data::Data::new(self, link);
        loop {
            self.names(link)?;
            if data.run()? {
                break;
            }
            // A file with several names was found late: names once more, for the whole tree.
        }
        let state = self.lock();
        Ok(Summary {
            files: state.progress.sent_files,
            bytes: state.progress.sent,
            looked_at: state.progress.files,
            ms: link.now().saturating_sub(state.started).as_millis() as u64,
        })
    }

    /// To be called for each live operation after it was appended to the stream, still under the locks that order it.
    pub fn note_live(&self, op: &Op) {
        match op {
            Op::Write { dir, ino, .. }
            | Op::SetAttr { dir, ino, .. }
            | Op::SetXattr { dir, ino, .. }
            | Op::RemoveXattr { dir, ino, .. } => {
                // Through a name that is not right there yet it may change another file, or none.
                if self.note_content.load(Ordering::SeqCst) {
                    self.lock().suspects.insert((*dir, *ino));
                }
                return;
            }
            _ => {}
        }
        let mut state = self.lock();
        if let Op::Unlink { dir, ino, .. }
        | Op::Link { dir, ino, .. }
        | Op::Rename { dir, ino, .. }
        | Op::Fallocate { dir, ino, .. } = op
            && state.selective
            && state.phase == Phase::Names
        {
            state.suspects.insert((*dir, *ino));
        }
        match op {
            Op::Create { dir, path, .. } | Op::Symlink { dir, path, .. } => {
                state.touch(*dir, path);
                if state.selective && state.phase == Phase::Names {
                    state.fixes.insert((*dir, path.clone()), true);
                }
            }
            Op::Unlink { dir, path, ino, .. } | Op::Rmdir { dir, path, ino, .. } => {
                state.touch(*dir, path);
                state.unlink(*dir, *ino, path);
            }
            Op::Link { dir, from, path, .. } => {
                state.touch(*dir, path);
                if state.phase == Phase::Names {
                    state.fixes.entry((*dir, from.clone())).or_insert(false);
                }
                state.moved(*dir, path);
            }
            Op::Rename { dir, from, path, ino, flags, .. } => {
                state.touch(*dir, from);
                state.touch(*dir, path);
                state.unlink(*dir, *ino, from);
                if flags & libc::RENAME_EXCHANGE != 0 {
                    if state.selective
                        && let Some(Ok(stat)) = self.root(*dir).map(|root| tree::stat(root, from))
                    {
                        state.suspects.insert((*dir, stat.st_ino));
                    }
                    state.moved(*dir, from);
                } else if state.phase == Phase::Names {
                    state.fixes.entry((*dir, from.clone())).or_insert(false);
                }
                state.moved(*dir, path);
            }
            Op::Fallocate { dir, path, ino, mode, .. }
                if mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0 =>
            {
                let next = state.next_ask;
                state.disturbed.insert((*dir, *ino), next);
                if !state.done.contains(&(*dir, *ino)) {
                    state.compare.insert((*dir, path.clone()));
                }
            }
            _ => {}
        }
    }

    /// What the other node changed, part by part ([`DirtySet::to_bytes`]).
    pub fn add_foreign(&self, part: &[u8], last: bool) {
        {
            let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
            if !foreign.awaited {
                return;
            }
            if foreign.bytes.len().saturating_add(part.len()) <= MAX_FOREIGN {
                foreign.bytes.extend_from_slice(part);
            }
            foreign.awaited = !last;
        }
        self.wake.notify_all();
    }

    /// Waits until all is known that may differ.
    fn know(&self, link: &dyn Link) -> Result<(), ResyncError> {
        let bytes = loop {
            {
                let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
                if !foreign.awaited {
                    break std::mem::take(&mut foreign.bytes);
                }
            }
            self.pause(link)?;
        };
        let mut dirty = self.own.clone();
        if let Some(set) = &mut dirty
            && !bytes.is_empty()
        {
            match DirtySet::from_bytes(&bytes).map(DirtySet::foreign) {
                Some(mut theirs) => {
                    localise(&mut theirs, &self.roots).map_err(|e| disk(0, &RelPath::default(), e))?;
                    set.merge(&theirs);
                }
                None => *set = DirtySet::all_of_it(),
            }
        }
        let dirty = dirty.filter(|set| !set.everything());
        if dirty.is_none() {
            self.lock().selective = false;
        }
        // Set once: a resynchronisation is run once.
        let _ = self.dirty.set(dirty);
        Ok(())
    }

    /// What may differ; None: everything.
    fn dirty(&self) -> Option<&DirtySet> {
        self.dirty.get().and_then(Option::as_ref)
    }

    /// Takes the other node's answer. False: it is none of ours (garbage, or of a former resynchronisation).
    pub fn answer(&self, bytes: &[u8]) -> bool {
        let Ok(answer) = serde_json::from_slice::<Answer>(bytes) else { return false };
        let mut state = self.lock();
        if answer.id >> 32 != u64::from(self.session) || answer.id & 0xffff_ffff >= state.next_ask {
            return false;
        }
        state.answers.insert(answer.id, answer);
        self.wake.notify_all();
        true
    }

    /// Entries listed under one hold of the namespace lock: fewer stall the application less, more are faster.
    pub fn set_names_per_step(&self, names: usize) {
        self.names_per_step.store(names.max(1), Ordering::SeqCst);
    }

    /// Makes [`Resync::run`] return soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.wake.notify_all();
    }

    /// How far it is; `now` by the clock of its [`Link`].
    pub fn progress(&self, now: Duration) -> Progress {
        let state = self.lock();
        let mut progress = state.progress.clone();
        let elapsed = if state.started.is_zero() { Duration::ZERO } else { now.saturating_sub(state.started) };
        if !elapsed.is_zero() {
            progress.rate_bytes_s = (progress.bytes as f64 / elapsed.as_secs_f64()) as u64;
        }
        progress.copy_ms = state.copying.as_millis() as u64;
        progress.scan_ms = elapsed.saturating_sub(state.copying).as_millis() as u64;
        let left = progress.bytes_total.saturating_sub(progress.bytes);
        progress.left_s = left.checked_div(progress.rate_bytes_s);
        progress
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), ResyncError> {
        if self.cancelled.load(Ordering::SeqCst) { Err(ResyncError::Cancelled) } else { Ok(()) }
    }

    fn root(&self, dir: u16) -> Option<BorrowedFd<'_>> {
        self.roots.get(usize::from(dir)).map(AsFd::as_fd)
    }

    fn dirs(&self) -> std::ops::Range<u16> {
        0..self.roots.len() as u16
    }

    fn is_excluded(&self, dir: u16, path: &RelPath, kind: Kind) -> bool {
        self.excludes.get(usize::from(dir)).is_some_and(|e| e.is_excluded(path.as_bytes(), kind == Kind::Directory))
    }

    /// Runs `step` with the namespace locks of all directories from `from` on, in order.
    fn with_all_names(&self, from: u16, step: &mut dyn FnMut()) {
        if from >= self.dirs().end {
            return step();
        }
        self.front.with_names(from, &mut || self.with_all_names(from + 1, step));
    }

    /// A file is not where it was expected, and may have other names that nobody notes.
    fn suspect(&self, dir: u16, ino: u64) {
        let mut state = self.lock();
        if state.selective {
            state.suspects.insert((dir, ino));
        }
    }

    fn new_ask(&self) -> u64 {
        let mut state = self.lock();
        state.next_ask += 1;
        u64::from(self.session) << 32 | (state.next_ask - 1)
    }

    /// What the change map knows, as work.
    fn seed(&self) -> Result<(), ResyncError> {
        let Some(dirty) = self.dirty() else {
            self.everything();
            return Ok(());
        };
        let mut moved = Vec::new();
        for ((dir, path), ino) in dirty.moved() {
            let Some(root) = self.root(*dir) else { continue };
            if ino != 0 {
                self.lock().suspects.insert((*dir, ino));
            }
            match tree::stat(root, path) {
                Ok(stat) => {
                    self.lock().suspects.insert((*dir, stat.st_ino));
                    moved.push((*dir, path.clone(), tree::kind_of(&stat)));
                }
                Err(e) if is_elsewhere(&e) => {}
                Err(source) => return Err(disk(*dir, path, source)),
            }
        }
        let mut state = self.lock();
        for (dir, path) in dirty.names() {
            state.directories.push_back(Directory { dir: *dir, path: path.clone(), deep: false });
        }
        for (dir, path, kind) in moved {
            match kind {
                Some(Kind::Directory) => {
                    state.directories.push_back(Directory { dir, path: path.clone(), deep: true });
                    state.compare.insert((dir, path));
                }
                Some(Kind::File) => {
                    state.compare.insert((dir, path));
                }
                // All there is to say about it is in a listing.
                _ => {
                    state.fixes.insert((dir, path), false);
                }
            }
        }
        Ok(())
    }

    /// List the names of everything.
    fn everything(&self) {
        let mut state = self.lock();
        for dir in self.dirs() {
            state.directories.push_back(Directory { dir, path: RelPath::default(), deep: true });
        }
    }
}

impl State {
    fn touch(&mut self, dir: u16, path: &RelPath) {
        if let Some(listing) = self.listing.as_mut().filter(|l| l.dir == dir)
            && let Some((parent, name)) = path.split()
            && parent == listing.path
        {
            listing.touched.insert(name.to_vec());
        }
    }

    /// An object of a listing changed since the last common checkpoint, here or there.
    fn compare_recent(&mut self, dir: u16, path: RelPath, kind: Kind, ino: u64) {
        match kind {
            Kind::File => {
                self.suspects.insert((dir, ino));
                self.compare.insert((dir, path));
            }
            Kind::Directory => self.directories.push_back(Directory { dir, path, deep: false }),
            // A listing says all of the others.
            _ => {}
        }
    }

    fn unlink(&mut self, dir: u16, ino: u64, path: &RelPath) {
        if let Some(names) = self.links.get_mut(&(dir, ino)) {
            names.retain(|name| name != path);
        }
    }

    /// Something came to this path by a rename or link.
    fn moved(&mut self, dir: u16, path: &RelPath) {
        match self.phase {
            Phase::Names => {
                self.fixes.insert((dir, path.clone()), true);
            }
            Phase::Data => {
                self.compare.insert((dir, path.clone()));
            }
        }
    }
}

/// The object is not where it was looked for: it was moved or removed, which is noted elsewhere, or another file system is mounted.
fn is_elsewhere(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV | libc::ESTALE | libc::EINVAL | libc::ENXIO)
    )
}

/// Finds what another node knows in the trees of this one.
pub(crate) fn localise(set: &mut DirtySet, roots: &[OwnedFd]) -> io::Result<()> {
    set.localise(|dir, path| {
        let Some(root) = roots.get(usize::from(dir)) else { return Ok(None) };
        match tree::stat(root.as_fd(), path) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV)) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    })
}

fn disk(dir: u16, path: &RelPath, source: io::Error) -> ResyncError {
    ResyncError::Disk { dir, path: String::from_utf8_lossy(path.as_bytes()).into_owned(), source }
}

fn question(ask: &Ask) -> Result<Vec<u8>, ResyncError> {
    serde_json::to_vec(ask).map_err(|e| disk(0, &RelPath::default(), e.into()))
}

/// A file to compare.
#[derive(Clone, Debug)]
struct Candidate {
    dir: u16,
    path: RelPath,
    ino: u64,
    blocks: Blocks,
    size: u64,
    /// Its content is vouched for, see [`Mode::Since`].
    unchanged: bool,
}
