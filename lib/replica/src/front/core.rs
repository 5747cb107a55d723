//! What do all requests share: locks, the way to the object beneath the mount, and the way of a change to the recorder?
//!
//! Order of locks: namespace (exclusive for changes of names, shared otherwise), then one inode, then the table of nodes, which is
//! never held during a system call. [`Recorder::enter`] is asked with the first two held, so that the time between enter and leave is
//! no longer than the change itself.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::caller::act_as;
use super::handles::{Handle, Handles};
use super::nodes::{Gap, Nodes, Place};
use super::spec::{Excludes, FrontSpec, Keeper};
use crate::activity::{State, Touch};
use crate::fuse::abi::{self, Attr, Body, Call, Header, ROOT_ID};
use crate::fuse::session::{Handler, Outcome, Request, Session};
use crate::fuse::slots::Progress;
use crate::op::{Op, RelPath, Time};
use crate::recorder::{Admission, Position, Recorder, Round};

/// Locks of inodes; two inodes may share one.
const STRIPES: usize = 1024;

/// How every path component beneath the root is resolved.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_XDEV)
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

pub(super) type Done = Result<Outcome, Errno>;

/// Position of the operation that a former worker recorded for a request, if there was one to record.
pub(super) struct Earlier(pub Option<Position>);

/// An object beneath the mount, as system calls reach it.
pub(super) enum Target {
    /// A name in a directory.
    At(Arc<OwnedFd>, Box<[u8]>),
    /// The object itself, through an `O_PATH` descriptor.
    Itself(Arc<OwnedFd>),
}

pub(super) struct Core {
    pub dir: u16,
    pub mount_point: PathBuf,
    pub root: Arc<OwnedFd>,
    pub root_ino: u64,
    pub device: u64,
    names: RwLock<()>,
    stripes: Vec<Mutex<()>>,
    nodes: Mutex<Nodes>,
    pub handles: Handles,
    pub recorder: Arc<dyn Recorder>,
    pub keeper: Option<Arc<dyn Keeper>>,
    pub excludes: Option<Excludes>,
    /// A former worker served this mount: the kernel knows objects and handles that we do not.
    pub resumed: bool,
}

thread_local! {
    /// The core whose namespace lock this thread holds exclusively by `with_names`.
    static OWNER: Cell<usize> = const { Cell::new(0) };
}

/// Calls [`Recorder::leave`] when dropped.
struct Inside<'a>(&'a dyn Recorder, Round);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

impl Core {
    /// `root` and its state; `generation` of the worker. What a former worker kept is none of the core's business.
    pub fn new(spec: FrontSpec, root: OwnedFd, stat: &Stat, generation: u64) -> Self {
        let FrontSpec { dir_index: dir, path, excludes, recorder, keeper, .. } = spec;
        Self {
            dir,
            mount_point: path,
            root: Arc::new(root),
            root_ino: stat.st_ino,
            device: stat.st_dev,
            names: RwLock::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            nodes: Mutex::new(Nodes::new(stat.st_ino)),
            handles: Handles::new(generation),
            recorder,
            keeper,
            excludes,
            resumed: generation > 1,
        }
    }

    pub fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn names_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn names_exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn inode(&self, ino: u64) -> MutexGuard<'_, ()> {
        // STRIPES locks exist, and the remainder is smaller.
        self.stripes[(ino % STRIPES as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with_names(&self, step: &mut dyn FnMut()) {
        let guard = self.names_exclusive();
        let before = OWNER.replace(std::ptr::from_ref(self) as usize);
        step();
        OWNER.set(before);
        drop(guard);
    }

    pub fn with_file(&self, ino: u64, step: &mut dyn FnMut()) {
        let owner = OWNER.get() == std::ptr::from_ref(self) as usize;
        let names = (!owner).then(|| self.names_shared());
        let inode = self.inode(ino);
        step();
        drop(inode);
        drop(names);
    }

    /// Inode number of a node of the kernel, and back.
    pub fn ino(&self, nodeid: u64) -> u64 {
        if nodeid == ROOT_ID { self.root_ino } else { nodeid }
    }

    pub fn nodeid(&self, ino: u64) -> u64 {
        if ino == self.root_ino { ROOT_ID } else { ino }
    }

    /// Where the object is. The namespace lock is held.
    pub fn target(&self, ino: u64) -> Result<Target, Errno> {
        let mut place = self.nodes().place(ino);
        if matches!(place, Place::Unknown) {
            self.recover(ino)?;
            place = self.nodes().place(ino);
        }
        match place {
            Place::Root => Ok(Target::Itself(Arc::clone(&self.root))),
            Place::Orphan(fd) => Ok(Target::Itself(fd)),
            Place::Named(parent, name) => Ok(Target::At(self.directory(parent)?, name)),
            Place::Unknown => Err(Errno::STALE),
        }
    }

    /// `O_PATH` descriptor of a directory. The namespace lock is held.
    pub fn directory(&self, ino: u64) -> Result<Arc<OwnedFd>, Errno> {
        if ino == self.root_ino {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(fd) = self.nodes().directory(ino) {
            return Ok(fd);
        }
        match self.target(ino)? {
            Target::Itself(fd) => Ok(fd),
            Target::At(parent, name) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = Arc::new(rustix::fs::openat2(&parent, &*name, flags, Mode::empty(), BENEATH)?);
                self.nodes().set_directory(ino, Arc::clone(&fd));
                Ok(fd)
            }
        }
    }

    /// The object itself, for calls that need no more than a reference to it.
    pub fn reference(&self, ino: u64) -> Result<Arc<OwnedFd>, Errno> {
        match self.target(ino)? {
            Target::Itself(fd) => Ok(fd),
            Target::At(parent, name) => open_object(&parent, &name, OFlags::PATH | OFlags::CLOEXEC, ino).map(Arc::new),
        }
    }

    pub fn stat(&self, ino: u64) -> Result<Stat, Errno> {
        let stat = match self.target(ino)? {
            Target::Itself(fd) => rustix::fs::fstat(&fd)?,
            Target::At(parent, name) => rustix::fs::statat(&parent, &*name, AtFlags::SYMLINK_NOFOLLOW)?,
        };
        if stat.st_ino == ino { Ok(stat) } else { Err(Errno::STALE) }
    }

    /// Opens a file or directory. The namespace lock is held.
    pub fn open(&self, ino: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match self.target(ino)? {
            Target::Itself(fd) if ino == self.root_ino => rustix::fs::openat(&fd, ".", flags, Mode::empty()),
            Target::Itself(fd) => rustix::fs::open(proc_path(&fd), flags, Mode::empty()),
            Target::At(parent, name) => open_object(&parent, &name, flags, ino),
        }
    }

    /// The handle of a request; one that a former worker gave out is opened again. The namespace lock is held.
    pub fn handle(&self, fh: u64, nodeid: u64) -> Result<Arc<Handle>, Errno> {
        if let Some(handle) = self.handles.get(fh) {
            return Ok(handle);
        }
        let ino = self.ino(nodeid);
        let fd = match self.open(ino, OFlags::RDWR | OFlags::NONBLOCK) {
            Err(Errno::ISDIR) => self.open(ino, OFlags::RDONLY | OFlags::DIRECTORY)?,
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => self.open(ino, OFlags::RDONLY)?,
            other => other?,
        };
        let (handle, new) = self.handles.restore(fh, ino, fd);
        if new {
            self.nodes().opened(ino);
        }
        Ok(handle)
    }

    /// Where operations name the object: None when it is excluded, or has no name any more. The namespace lock is held.
    pub fn recorded_path(&self, ino: u64) -> Result<Option<RelPath>, Errno> {
        match self.path(ino) {
            Ok(path) => Ok((!self.excluded(&path)).then_some(path)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Path of an object; ENOENT: it has none any more. The namespace lock is held.
    pub fn path(&self, ino: u64) -> Result<RelPath, Errno> {
        // Each turn finds one object that was not known; directories above it come with it.
        for _ in 0..16 {
            let gap = match self.nodes().path(ino) {
                Ok(path) => return Ok(path),
                Err(gap) => gap,
            };
            match gap {
                Gap::Orphan => return Err(Errno::NOENT),
                Gap::TooLong => return Err(Errno::NAMETOOLONG),
                Gap::Unknown(unknown) => self.recover(unknown)?,
            }
        }
        Err(Errno::STALE)
    }

    /// Path of a name in a directory. The namespace lock is held.
    pub fn path_of(&self, parent: u64, name: &[u8]) -> Result<RelPath, Errno> {
        RelPath::new(self.path(parent)?.join(name).as_bytes()).ok_or(Errno::NAMETOOLONG)
    }

    pub fn excluded(&self, path: &RelPath) -> bool {
        self.excludes.as_ref().is_some_and(|matches| matches(path))
    }

    /// Runs a change if changes may go on now, with the locks it needs held by the caller.
    pub fn change(&self, request: &Request, bytes: usize, step: impl FnOnce() -> Done) -> Done {
        if request.must_wait() {
            return Ok(Outcome::Park);
        }
        match self.recorder.enter(bytes) {
            Admission::Park => Ok(Outcome::Park),
            Admission::Refuse => Err(Errno::IO),
            Admission::Go(round) => {
                let inside = Inside(&*self.recorder, round);
                let outcome = step();
                drop(inside);
                outcome
            }
        }
    }

    /// What a change may leave behind after a crash is on record when this returns. Called inside [`Core::change`].
    pub fn about_to(&self, touch: &Touch<'_>) -> Result<(), Errno> {
        self.recorder.about_to(touch).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
    }

    /// Names in this directory change, unless it is about one that is not replicated.
    pub fn names_change(&self, parent: u64, path: &RelPath) -> Result<(), Errno> {
        if self.excluded(path) {
            return Ok(());
        }
        self.about_to(&Touch::Names { dir: self.dir, parent, path: &path.parent() })
    }

    /// Content of an open file changes; None: it is not replicated.
    pub fn content_changes(
        &self,
        fd: &OwnedFd,
        ino: u64,
        path: Option<&RelPath>,
        (offset, end): (u64, u64),
    ) -> Result<(), Errno> {
        let Some(path) = path else { return Ok(()) };
        let state = || {
            let stat = rustix::fs::fstat(fd)?;
            Ok(State { size: stat.st_size.cast_unsigned(), links: stat.st_nlink })
        };
        self.about_to(&Touch::Content { dir: self.dir, ino, path, offset, end, state: &state })
    }

    /// Attributes of an object change; None: it is not replicated.
    pub fn attributes_change(&self, stat: &Stat, path: Option<&RelPath>) -> Result<(), Errno> {
        let Some(path) = path else { return Ok(()) };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let links = if is_directory { 1 } else { stat.st_nlink };
        self.about_to(&Touch::Attributes { dir: self.dir, ino: stat.st_ino, path, links })
    }

    /// Records an operation, unless there is none to record, and remembers in the slot that the request is done.
    pub fn record(&self, request: &Request, op: Option<(&Op, &[u8])>) -> Option<Position> {
        let position = op.map(|(op, payload)| self.recorder.record(op, payload));
        request.done(position.map_or(0, |p| p + 1));
        position
    }

    /// The answer to a change.
    pub fn changed(&self, position: Option<Position>, body: Body) -> Outcome {
        match position {
            Some(position) if self.recorder.every_change_waits() => Outcome::After(position, body),
            _ => Outcome::Reply(body),
        }
    }

    /// For a replayed request that was completely done: the position of its operation, if it had one.
    pub fn already(request: &Request) -> Option<Earlier> {
        match request.progress() {
            Progress::Done(p) => Some(Earlier(p.checked_sub(1))),
            _ => None,
        }
    }
}

impl Handler for Core {
    fn handle(&self, session: &Arc<Session>, request: &Request, call: Call<'_>, scratch: &mut Vec<u8>) -> Outcome {
        self.recorder.asked();
        let node = request.header.nodeid;
        if abi::changes(request.header.opcode) {
            act_as(&request.header);
        }
        let done = match call {
            Call::Lookup { name } => self.lookup(node, name),
            Call::Forget { nlookup } => self.forget(&[(node, nlookup)]),
            Call::BatchForget { items } => self.forget(&abi::forgets(items).collect::<Vec<_>>()),
            Call::GetAttr { fh } => self.get_attr(node, fh),
            Call::StatX { fh, mask } => self.get_statx(node, fh, mask),
            Call::SetAttr(wish) => self.set_attr(request, &wish),
            Call::ReadLink => self.read_link(node, scratch),
            Call::Symlink { .. } | Call::MkNod { .. } | Call::MkDir { .. } | Call::Create { .. } => {
                self.make(request, call)
            }
            Call::TmpFile { .. } => self.temporary(request, call),
            Call::Unlink { name } => self.remove(request, name, false),
            Call::RmDir { name } => self.remove(request, name, true),
            Call::Rename { name, new_parent, new_name, flags } => {
                self.rename(request, name, new_parent, new_name, flags)
            }
            Call::Link { from, name } => self.link(request, from, name),
            Call::Open { flags, open_flags } => self.open_file(request, flags, open_flags),
            Call::Read { fh, offset, size } => self.read(session, node, fh, (offset, size), scratch),
            Call::Write { fh, offset, write_flags, data } => self.write(request, fh, offset, write_flags, data),
            Call::StatFs => self.stat_fs(),
            Call::Release { fh } | Call::ReleaseDir { fh } => self.release(fh),
            Call::FSync { fh, data_only } => self.sync(session, request, fh, data_only),
            Call::FSyncDir { fh, data_only } => self.sync_directory(session, request, fh, data_only),
            Call::SetXattr { name, value, flags, kill_sgid } => self.set_xattr(request, name, value, flags, kill_sgid),
            Call::GetXattr { name, size } => self.get_xattr(node, name, size, scratch),
            Call::ListXattr { size } => self.list_xattr(node, size, scratch),
            Call::RemoveXattr { name } => self.remove_xattr(request, name),
            Call::OpenDir => self.open_directory(node),
            Call::ReadDir { fh, offset, size, plus } => self.read_directory(node, fh, offset, size, plus),
            Call::Fallocate { fh, offset, length, mode } => self.fallocate(request, fh, offset, length, mode),
            Call::LSeek { fh, offset, whence } => self.seek(node, fh, offset, whence),
            Call::Interrupt => Ok(Outcome::Silent),
            Call::Destroy => Ok(Outcome::Reply(Body::new())),
            Call::Ioctl => Err(Errno::NOTTY),
            // The kernel never asks again after ENOSYS. FLUSH: nothing is held back here. COPY_FILE_RANGE: it reads and writes instead.
            Call::Flush | Call::Init { .. } | Call::Other(_) => Err(Errno::NOSYS),
        };
        done.unwrap_or_else(|errno| Outcome::Error(errno.raw_os_error()))
    }

    fn refused(&self, header: &Header, body: &[u8]) {
        for node in abi::references(header.opcode, body) {
            self.nodes().uncount(self.ino(node));
        }
    }

    fn when_acknowledged(&self, position: u64, reply: Box<dyn FnOnce() + Send>) {
        self.recorder.when_acknowledged(position, reply);
    }
}

/// Opens what `name` is; ESTALE: it is another object than `ino`.
fn open_object(parent: &OwnedFd, name: &[u8], flags: OFlags, ino: u64) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    if rustix::fs::fstat(&fd)?.st_ino == ino { Ok(fd) } else { Err(Errno::STALE) }
}

/// Path that leads to the object of a descriptor, also of an `O_PATH` one.
pub(super) fn proc_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Attributes as the kernel wants them.
pub(super) fn attr(stat: &Stat) -> Attr {
    Attr {
        ino: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: (stat.st_atime, stat.st_atime_nsec as u32),
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
        mode: stat.st_mode,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: encode_device(stat.st_rdev),
        blksize: stat.st_blksize as u32,
    }
}

pub(super) fn mtime(stat: &Stat) -> Time {
    Time(stat.st_mtime, stat.st_mtime_nsec as u32)
}

pub(super) fn atime(stat: &Stat) -> Time {
    Time(stat.st_atime, stat.st_atime_nsec as u32)
}

/// Device numbers as the FUSE protocol packs them into 32 bits.
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub(super) fn decode_device(packed: u32) -> u64 {
    rustix::fs::makedev((packed >> 8) & 0xfff, (packed & 0xff) | ((packed >> 12) & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_keep_their_bits() {
        for (major, minor) in [(0, 0), (8, 1), (259, 70_000), (4095, 1_048_575)] {
            let device = rustix::fs::makedev(major, minor);
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }
}
