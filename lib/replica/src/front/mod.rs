//! What does the application do in the replicated directory, and what must the peer know of it?

mod attr;
mod caller;
mod core;
mod data;
mod dirs;
mod handles;
mod names;
mod nodes;
mod recover;
mod spec;
mod tmpfile;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

pub use spec::{Excludes, FrontError, FrontSpec, Holder, Keeper, Unmount, kept_prefixes};

use self::core::Core;
use crate::fuse::holders::{Use, holders};
use crate::fuse::mount;
use crate::fuse::session::Session;
use crate::fuse::slots::{Pool, Slot};
use crate::recorder::Front;

/// Threads at the beginning: at most two of them read, and one is there to see that they get on.
const THREADS: usize = 3;
/// How long the kernel may take to begin, in seconds.
const INIT_SECONDS: i64 = 10;

/// One replicated directory being served through FUSE. Clones refer to the same mount. Dropping the last one does not unmount.
#[derive(Clone)]
pub struct FrontSession {
    core: Arc<Core>,
    session: Arc<Session>,
    path: PathBuf,
    keeper: Option<Arc<dyn Keeper>>,
}

/// What a former worker left for this directory.
#[derive(Default)]
struct Kept {
    fuse: Option<OwnedFd>,
    slots: Option<OwnedFd>,
    root: Option<OwnedFd>,
    unlinked: Vec<(u64, OwnedFd)>,
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> FrontError {
    move |error| FrontError::System { what, error }
}

/// Detaches mounts that a dead worker left over `path`; the directory is plain again.
pub fn clear_stale(path: &Path) -> Result<(), FrontError> {
    mount::clear_stale(path).map_err(|error| FrontError::Unmount { path: path.to_owned(), error })
}

impl FrontSession {
    /// Mounts over the directory and serves it; or continues where a former worker ended, first with the requests it left.
    /// Returns when requests are being served.
    pub fn start(mut spec: FrontSpec) -> Result<Self, FrontError> {
        let path = spec.path.clone();
        let kept = sort_kept(&path, std::mem::take(&mut spec.kept));
        if let Some(taken_over) = Self::take_over(&spec, kept)? {
            return Ok(taken_over);
        }
        // A mount without its descriptors cannot be continued.
        clear_stale(&path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = |error: std::io::Error| FrontError::Directory { path: path.clone(), error };
        if !path.is_absolute() || path.canonicalize().map_err(directory)? != path {
            let error = std::io::Error::other("it must be an absolute path without symbolic links");
            return Err(directory(error));
        }
        let root = match spec.root.take() {
            Some(root) => root,
            None => rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| directory(e.into()))?,
        };
        let found = holders(&path, Use::Changing);
        if !found.is_empty() {
            return Err(FrontError::InUse { path, holders: found });
        }
        let fuse = mount::open_device().map_err(FrontError::Device)?;
        let pool = Pool::create().map_err(system("creating request slots"))?;
        if let Some(keeper) = &spec.keeper {
            keeper.keep(&name("root", &path), root.as_fd());
            keeper.keep(&name("slots", &path), pool.memfd());
            keeper.keep(&name("fuse", &path), fuse.as_fd());
        }
        if let Err(error) = mount::mount(fuse.as_fd(), &path, root.as_fd()) {
            drop_kept(spec.keeper.as_ref(), &path);
            return Err(FrontError::Mount { path, error });
        }
        Self::serve(spec, fuse, pool, Vec::new(), root, Vec::new())
    }

    fn take_over(spec: &FrontSpec, kept: Kept) -> Result<Option<Self>, FrontError> {
        let path = &spec.path;
        let (Some(fuse), Some(slots), Some(root)) = (kept.fuse, kept.slots, kept.root) else { return Ok(None) };
        let mounted = mount::mounts_over(path).map_err(system("reading /proc/self/mountinfo"))? > 0;
        if !mounted || !mount::connected(fuse.as_fd()) {
            return Ok(None);
        }
        let Ok((pool, left)) = Pool::adopt(slots) else { return Ok(None) };
        let spec = FrontSpec {
            dir_index: spec.dir_index,
            path: path.clone(),
            root: None,
            excludes: spec.excludes.clone(),
            recorder: Arc::clone(&spec.recorder),
            keeper: spec.keeper.clone(),
            kept: Vec::new(),
        };
        Self::serve(spec, fuse, pool, left, root, kept.unlinked).map(Some)
    }

    fn serve(
        spec: FrontSpec,
        fuse: OwnedFd,
        pool: Arc<Pool>,
        left: Vec<Slot>,
        root: OwnedFd,
        unlinked: Vec<(u64, OwnedFd)>,
    ) -> Result<Self, FrontError> {
        let (path, keeper) = (spec.path.clone(), spec.keeper.clone());
        let stat = rustix::fs::fstat(&root).map_err(|e| system("fstat")(e.into()))?;
        raise_descriptor_limit();
        let core = Core::new(spec, root, &stat, pool.generation());
        for (ino, fd) in unlinked {
            // Kept just before it was to be unlinked, and that did not happen (yet): it is found by its name.
            if rustix::fs::fstat(&fd).is_ok_and(|s| s.st_nlink == 0) {
                core.nodes().orphaned(ino, nodes::Orphan { fd: Arc::new(fd), kept: true });
            } else {
                core.drop_kept(ino);
            }
        }
        let core = Arc::new(core);
        let session = Session::new(fuse, Arc::clone(&pool), Arc::clone(&core) as _);
        let front = Self { core, session, path, keeper };
        front.session.serve(left, THREADS).map_err(system("starting threads"))?;
        front.await_init(&pool)?;
        Ok(front)
    }

    /// The kernel's first request tells its version; a kernel that is too old never gets further.
    fn await_init(&self, pool: &Pool) -> Result<(), FrontError> {
        let mut waited = 0;
        while pool.negotiated().is_none() {
            if let Some((major, minor)) = self.session.refused() {
                let _ = self.unmount(Unmount::Abort);
                return Err(FrontError::Protocol { major, minor });
            }
            if waited >= INIT_SECONDS * 1000 {
                let _ = self.unmount(Unmount::Abort);
                let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(FrontError::System { what: "waiting for the kernel's FUSE driver", error });
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
            waited += 1;
        }
        Ok(())
    }

    /// `O_PATH` descriptor of the directory beneath the mount.
    pub fn root_fd(&self) -> BorrowedFd<'_> {
        self.core.root.as_fd()
    }

    /// The directory that is served.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of requests that wait for [`Front::resume`].
    pub fn parked(&self) -> usize {
        self.session.parked()
    }

    /// The mount is gone (by whomever) and nothing is served any more.
    pub fn ended(&self) -> bool {
        self.session.ended()
    }

    /// Serves no more, and leaves the dead mount over the directory: whatever waits for an answer fails.
    pub fn break_off(&self) -> std::io::Result<()> {
        mount::break_off(&self.path)
    }

    /// Gives the directory back; see [`Unmount`]. Afterwards nothing is kept for a successor. After `Busy`, serving goes on.
    pub fn unmount(&self, how: Unmount) -> Result<(), FrontError> {
        let result = match how {
            Unmount::Orderly => mount::unmount(&self.path),
            Unmount::Lazy => mount::detach(&self.path),
            Unmount::Abort => mount::abort(&self.path),
        };
        match result {
            Ok(()) => {
                drop_kept(self.keeper.as_ref(), &self.path);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                Err(FrontError::Busy { path: self.path.clone(), holders: holders(&self.path, Use::Any) })
            }
            // Somebody else unmounted it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                drop_kept(self.keeper.as_ref(), &self.path);
                Ok(())
            }
            Err(error) => Err(FrontError::Unmount { path: self.path.clone(), error }),
        }
    }
}

impl Front for FrontSession {
    fn resume(&self) {
        self.session.resume();
    }

    fn is_settled(&self) -> bool {
        self.session.is_settled()
    }

    /// `dir` is this session's directory: the caller has one session for each.
    fn with_names(&self, _dir: u16, step: &mut dyn FnMut()) {
        self.core.with_names(step);
    }

    /// The file keeps its name, too. May be called inside `with_names` of the same directory, not inside another `with_file`.
    fn with_file(&self, _dir: u16, ino: u64, step: &mut dyn FnMut()) {
        self.core.with_file(ino, step);
    }
}

fn name(kind: &str, path: &Path) -> String {
    format!("{kind}:{}", path.display())
}

fn drop_kept(keeper: Option<&Arc<dyn Keeper>>, path: &Path) {
    for kind in ["fuse", "slots", "root"] {
        if let Some(keeper) = keeper {
            Keeper::drop(&**keeper, &name(kind, path));
        }
    }
}

fn sort_kept(path: &Path, all: Vec<(String, OwnedFd)>) -> Kept {
    let mut kept = Kept::default();
    let unlinked = format!("{}:", name("unlinked", path));
    for (label, fd) in all {
        if label == name("fuse", path) {
            kept.fuse = Some(fd);
        } else if label == name("slots", path) {
            kept.slots = Some(fd);
        } else if label == name("root", path) {
            kept.root = Some(fd);
        } else if let Some(ino) = label.strip_prefix(&unlinked).and_then(|n| n.parse().ok()) {
            kept.unlinked.push((ino, fd));
        }
    }
    kept
}

/// Each open file of the application is one of ours, too.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With the old limit, opening many files at once fails, which the application is told.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
