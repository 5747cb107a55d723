//! How does the secondary's tree follow the stream?
//!
//! **Nothing leaves the directory.** Every path is checked, then walked by `openat2` beneath the replicated directory's descriptor,
//! without symlinks, magic links or other file systems; the last step is a system call on an open parent that follows nothing.
//!
//! **Exactness.** Owner, mode, times and attributes are set as the primary has them, with each operation: the receiving process
//! may be killed at any place, and times that were only remembered would be lost. (Setting the times after a write costs about a
//! microsecond.)
//!
//! **Again.** The place reached is recorded after an operation, so a restarted receiver gets at most one operation that it had
//! applied already. [`Applier::set_replaying`] tolerates the traces of that: what was to be created exists, what was to be removed
//! or renamed is gone. An exchange, and moving the blocks of a file (collapse, insert), cannot be told from not applied: they are
//! refused while replaying, and the engine resynchronises. Longer suffixes are safe only when they hold no renames or removals of
//! names they also write to; the engine does not rely on that.
//!
//! **Inconsistent.** Between `ResyncBegin` and the place where all names are equal (`Ask::NamesDone`), live operations may not apply
//! (their parent is not here yet, something else is in the way). They are ignored: see the argument in [`crate::resync`]. After that
//! place nothing about names may fail, and in a consistent tree nothing at all: such a failure is a divergence
//! ([`ApplyError::is_divergence`]).

mod cache;
mod live;
mod sync;

use crate::op::{Op, RelPath, Time};
use crate::resync::ask::Ask;
use crate::salvage::{Salvage, Saved};
use crate::tree::{self, Exclude, Place};
use cache::Cache;
use rustix::fs::OFlags;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Descriptors kept open.
const CACHE: usize = 256;

/// How to apply.
#[derive(Debug, Default)]
pub struct Options {
    /// One a replicated directory; missing ones exclude nothing.
    pub excludes: Vec<Arc<Exclude>>,
    /// Put content aside before it is overwritten or deleted by a resynchronisation.
    pub salvage: Option<Salvage>,
    /// The tree is a mixture: a resynchronisation began and did not end.
    pub inconsistent: bool,
    /// What changed here before this time is in the last common checkpoint.
    pub since: Time,
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// It does not apply yet (only before all names are equal in a resynchronisation).
    Ignored,
    /// For the primary: hand it to `Resync::answer` there.
    Answer(Vec<u8>),
}

/// Why an operation could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot apply {op} to {path:?} in replicated directory {dir}: {source}")]
    Failed { op: &'static str, dir: u16, path: RelPath, source: io::Error },
    #[error("the peer sent {op} with {reason}")]
    Malformed { op: &'static str, reason: &'static str },
    #[error("{op} was sent again after a restart and cannot be told from not applied: resynchronise")]
    Ambiguous { op: &'static str },
}

impl ApplyError {
    /// The trees differ (resynchronise), rather than this node's disk failing.
    pub fn is_divergence(&self) -> bool {
        match self {
            Self::Failed { source, .. } => is_disorder(source),
            Self::Ambiguous { .. } => true,
            Self::Malformed { .. } => false,
        }
    }
}

/// Errors that mean "another object than expected is here, or none".
fn is_disorder(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOENT
                | libc::ENOTDIR
                | libc::EEXIST
                | libc::EISDIR
                | libc::ENOTEMPTY
                | libc::ELOOP
                | libc::EINVAL
                | libc::EPERM
                | libc::ENODATA
                | libc::ENXIO
                | libc::ENODEV
                | libc::EMLINK
        )
    )
}

#[derive(Debug)]
enum Fault {
    Io(io::Error),
    Malformed(&'static str),
    Ambiguous,
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}

fn errno(code: i32) -> Fault {
    Fault::Io(io::Error::from_raw_os_error(code))
}

/// Applies operations to the replicated directories of this node.
#[derive(Debug)]
pub struct Applier {
    roots: Vec<OwnedFd>,
    excludes: Vec<Arc<Exclude>>,
    cache: Cache,
    /// The directory in which a name came or went last, while no operation could have made its path that of another one.
    last_parent: Option<(u16, RelPath, Arc<OwnedFd>)>,
    salvage: Option<Salvage>,
    inconsistent: bool,
    since: Time,
    /// All names are equal: nothing may be ignored any more.
    names_done: bool,
    replaying: bool,
    /// Files with several names: this node's inode → the primary's, as found in this resynchronisation.
    bound: HashMap<(u16, u64), u64>,
    /// Inodes of this node with nothing (more) to put aside.
    settled: HashSet<(u16, u64)>,
    buffer: Vec<u8>,
}

/// An object to change: by parent and name, or the replicated directory itself.
enum Target<'p> {
    Named(OwnedFd, &'p [u8]),
    Root(OwnedFd),
}

impl Target<'_> {
    fn place(&self) -> Place<'_> {
        match self {
            Self::Named(parent, name) => Place::At(parent.as_fd(), name),
            Self::Root(fd) => Place::Fd(fd.as_fd()),
        }
    }
}

impl Applier {
    /// `roots`: a descriptor of each replicated directory, opened beneath whatever is mounted over it.
    pub fn new(roots: Vec<OwnedFd>, options: Options) -> Self {
        Self {
            roots,
            excludes: options.excludes,
            cache: Cache::new(CACHE),
            last_parent: None,
            salvage: options.salvage,
            inconsistent: options.inconsistent,
            since: options.since,
            names_done: false,
            replaying: false,
            bound: HashMap::new(),
            settled: HashSet::new(),
            buffer: Vec::new(),
        }
    }

    /// Whether a resynchronisation towards this node has not ended.
    pub fn is_inconsistent(&self) -> bool {
        self.inconsistent
    }

    /// The next operations may have been applied before a restart.
    pub fn set_replaying(&mut self, replaying: bool) {
        self.replaying = replaying;
    }

    /// Puts content aside from now on, or no more.
    pub fn set_salvage(&mut self, salvage: Option<Salvage>) {
        self.salvage = salvage;
        self.settled.clear();
    }

    /// What was put aside since the last call.
    pub fn salvaged(&mut self) -> Vec<Saved> {
        self.salvage.as_mut().map(Salvage::drain).unwrap_or_default()
    }

    /// Closes every cached descriptor: before the directory is unblocked, unmounted or given to the front.
    pub fn settle(&mut self) {
        self.cache.clear();
        self.last_parent = None;
    }

    /// Makes everything applied durable.
    pub fn sync_everything(&self) -> io::Result<()> {
        for root in &self.roots {
            // A descriptor opened with O_PATH cannot be synchronised itself.
            rustix::fs::syncfs(tree::open_dir(root.as_fd(), &RelPath::default())?)?;
        }
        Ok(())
    }

    /// What must be synchronised (`fdatasync` or `fsync`) before a `Sync` or `SyncDir` is acknowledged as durable; any thread may do it.
    pub fn sync_target(&mut self, op: &Op) -> Result<Option<OwnedFd>, ApplyError> {
        let (dir, path, key) = match op {
            Op::Sync { dir, path: Some(path), ino, .. } => (*dir, path, Some((*dir, *ino))),
            Op::SyncDir { dir, path } => (*dir, path, None),
            _ => return Ok(None),
        };
        let found = match key.and_then(|key| self.cache.get(key)) {
            Some(fd) => fd.try_clone().map_err(Fault::Io),
            None => {
                self.checked(dir, path).and_then(|root| Ok(tree::open(root, path, OFlags::RDONLY | OFlags::NONBLOCK)?))
            }
        };
        match found {
            Ok(fd) => Ok(Some(fd)),
            Err(Fault::Io(e)) if self.may_ignore(&e) => Ok(None),
            Err(fault) => Err(describe(op, fault)),
        }
    }

    /// Applies one operation. `Sync`, `SyncDir`, `Checkpoint` and `Goodbye` change nothing here: see [`Applier::sync_target`] and
    /// [`Applier::sync_everything`].
    pub fn apply(&mut self, op: &Op, payload: &[u8]) -> Result<Applied, ApplyError> {
        match self.step(op, payload) {
            Ok(applied) => Ok(applied),
            Err(Fault::Io(e)) if self.may_ignore(&e) => Ok(Applied::Ignored),
            Err(fault) => Err(describe(op, fault)),
        }
    }

    fn may_ignore(&self, error: &io::Error) -> bool {
        self.inconsistent && !self.names_done && is_disorder(error)
    }

    /// The tree may not be as the operation expects.
    fn is_loose(&self) -> bool {
        self.inconsistent && !self.names_done
    }

    fn step(&mut self, op: &Op, payload: &[u8]) -> Result<Applied, Fault> {
        if !keeps_directories(op) {
            self.last_parent = None;
        }
        match op {
            Op::ResyncBegin { .. } => {
                self.inconsistent = true;
                self.names_done = false;
                self.cache.clear();
                self.bound.clear();
                self.settled.clear();
            }
            Op::ResyncEnd => {
                self.inconsistent = false;
                self.names_done = false;
                self.bound = HashMap::new();
                self.settled = HashSet::new();
            }
            Op::Sync { .. } | Op::SyncDir { .. } | Op::Checkpoint { .. } | Op::Goodbye => {}
            Op::Ask { id } => {
                return match serde_json::from_slice(payload).map_err(|_| Fault::Malformed("a question nobody knows"))? {
                    Ask::NamesDone => {
                        self.names_done = true;
                        Ok(Applied::Done)
                    }
                    Ask::NamesAgain => {
                        self.names_done = false;
                        Ok(Applied::Done)
                    }
                    Ask::Files { items } => self.answer_files(*id, &items),
                    Ask::Verify { question } => self.answer_verify(*id, &question),
                };
            }
            Op::SyncNames { dir, path, first, last, ask, recent } => {
                let range = (first.as_ref(), last.as_ref());
                return match (self.sync_names(*dir, path, range, (*ask, *recent), payload), ask) {
                    // The primary waits for an answer.
                    (Err(Fault::Io(e)), Some(id)) if self.may_ignore(&e) => sync::no_such_directory(*id),
                    (other, _) => other,
                };
            }
            Op::SyncData { dir, path, ino, offset } => self.sync_data(*dir, path, *ino, *offset, payload)?,
            Op::SyncZero { dir, path, ino, offset, length } => self.sync_zero(*dir, path, *ino, *offset, *length)?,
            Op::SyncMeta { dir, path, ino } => self.sync_meta(*dir, path, *ino, payload)?,
            _ => self.live(op, payload)?,
        }
        Ok(Applied::Done)
    }

    fn root(&self, dir: u16) -> Result<BorrowedFd<'_>, Fault> {
        self.roots
            .get(usize::from(dir))
            .map(AsFd::as_fd)
            .ok_or(Fault::Malformed("the number of a directory that is not replicated"))
    }

    /// The root, once the path is known to be one that may be walked.
    fn checked(&self, dir: u16, path: &RelPath) -> Result<BorrowedFd<'_>, Fault> {
        if !path.is_walkable() {
            return Err(Fault::Malformed("a path that leads out of the directory"));
        }
        self.root(dir)
    }

    fn target<'p>(&self, dir: u16, path: &'p RelPath) -> Result<Target<'p>, Fault> {
        let root = self.checked(dir, path)?;
        if path.is_root() {
            return Ok(Target::Root(tree::open_dir(root, path)?));
        }
        let (parent, name) = tree::open_parent(root, path)?;
        Ok(Target::Named(parent, name))
    }

    /// Parent and name of something that is not the replicated directory itself.
    fn named<'p>(&self, dir: u16, path: &'p RelPath) -> Result<(OwnedFd, &'p [u8]), Fault> {
        let root = self.checked(dir, path)?;
        if path.is_root() {
            return Err(Fault::Malformed("the replicated directory itself as an entry"));
        }
        Ok(tree::open_parent(root, path)?)
    }

    /// The same for one name after the other in one directory, which is walked to only once.
    fn named_again<'p>(&mut self, dir: u16, path: &'p RelPath) -> Result<(Arc<OwnedFd>, &'p [u8]), Fault> {
        if let Some((last_dir, last_path, parent)) = &self.last_parent
            && *last_dir == dir
            && path.is_walkable()
            && let Some((path, name)) = path.split()
            && path == *last_path
        {
            return Ok((Arc::clone(parent), name));
        }
        let (parent, name) = self.named(dir, path)?;
        let parent = Arc::new(parent);
        self.last_parent = path.split().map(|(path, _)| (dir, path, Arc::clone(&parent)));
        Ok((parent, name))
    }

    /// The open file of the primary's inode `ino`, known at this place of the stream as `path`.
    fn file(&mut self, dir: u16, path: &RelPath, ino: u64) -> Result<Arc<OwnedFd>, Fault> {
        if let Some(fd) = self.cache.get((dir, ino)) {
            return Ok(fd);
        }
        let fd = Arc::new(tree::open_file(self.checked(dir, path)?, path, OFlags::RDWR)?);
        let local = rustix::fs::fstat(&*fd)?.st_ino;
        self.cache.put((dir, ino), Arc::clone(&fd), local);
        Ok(fd)
    }

    /// Called before the content of a file is overwritten.
    fn guard_content(&mut self, dir: u16, path: &RelPath, file: &OwnedFd) -> Result<(), Fault> {
        if !self.inconsistent {
            return Ok(());
        }
        if let Some(salvage) = &mut self.salvage {
            let local = rustix::fs::fstat(file)?.st_ino;
            if self.settled.insert((dir, local)) {
                salvage.copy(file, dir, path)?;
            }
        }
        Ok(())
    }

    /// Called before an entry that may hold content of its own is removed or replaced; afterwards it may be gone.
    fn guard_entry(&mut self, dir: u16, path: &RelPath, parent: &OwnedFd, name: &[u8]) -> Result<(), Fault> {
        if !self.inconsistent {
            return Ok(());
        }
        if let Some(salvage) = &mut self.salvage
            && let Ok(stat) = tree::stat_at(parent, name)
            && stat.st_nlink == 1
            && !self.settled.contains(&(dir, stat.st_ino))
        {
            salvage.take(parent, name, dir, path)?;
        }
        Ok(())
    }
}

/// Every directory has the path that it had before.
fn keeps_directories(op: &Op) -> bool {
    matches!(
        op,
        Op::Write { .. }
            | Op::SetAttr { .. }
            | Op::Create { .. }
            | Op::Symlink { .. }
            | Op::Link { .. }
            | Op::Unlink { .. }
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::Fallocate { .. }
            | Op::Sync { .. }
            | Op::SyncDir { .. }
            | Op::Checkpoint { .. }
    )
}

fn set_mtime(place: Place<'_>, mtime: Time) -> Result<(), Fault> {
    Ok(tree::set_times(place, None, Some(mtime))?)
}

fn describe(op: &Op, fault: Fault) -> ApplyError {
    let (name, dir, path) = name_of(op);
    match fault {
        Fault::Io(source) => ApplyError::Failed { op: name, dir, path: path.cloned().unwrap_or_default(), source },
        Fault::Malformed(reason) => ApplyError::Malformed { op: name, reason },
        Fault::Ambiguous => ApplyError::Ambiguous { op: name },
    }
}

fn name_of(op: &Op) -> (&'static str, u16, Option<&RelPath>) {
    match op {
        Op::Write { dir, path, .. } => ("write", *dir, Some(path)),
        Op::SetAttr { dir, path, .. } => ("setattr", *dir, Some(path)),
        Op::Create { dir, path, .. } => ("create", *dir, Some(path)),
        Op::Symlink { dir, path, .. } => ("symlink", *dir, Some(path)),
        Op::Link { dir, path, .. } => ("link", *dir, Some(path)),
        Op::Unlink { dir, path, .. } => ("unlink", *dir, Some(path)),
        Op::Rmdir { dir, path, .. } => ("rmdir", *dir, Some(path)),
        Op::Rename { dir, path, .. } => ("rename", *dir, Some(path)),
        Op::SetXattr { dir, path, .. } => ("setxattr", *dir, Some(path)),
        Op::RemoveXattr { dir, path, .. } => ("removexattr", *dir, Some(path)),
        Op::Fallocate { dir, path, .. } => ("fallocate", *dir, Some(path)),
        Op::Sync { dir, path, .. } => ("sync", *dir, path.as_ref()),
        Op::SyncDir { dir, path } => ("sync_dir", *dir, Some(path)),
        Op::SyncNames { dir, path, .. } => ("sync_names", *dir, Some(path)),
        Op::SyncData { dir, path, .. } => ("sync_data", *dir, Some(path)),
        Op::SyncZero { dir, path, .. } => ("sync_zero", *dir, Some(path)),
        Op::SyncMeta { dir, path, .. } => ("sync_meta", *dir, Some(path)),
        Op::Ask { .. } => ("ask", 0, None),
        Op::ResyncBegin { .. } => ("resync_begin", 0, None),
        Op::ResyncEnd => ("resync_end", 0, None),
        Op::Checkpoint { .. } => ("checkpoint", 0, None),
        Op::Goodbye => ("goodbye", 0, None),
    }
}
