//! What does the front need to serve a directory, and what can go wrong when it starts or stops?
//!
//! Signatures the engine codes against (implemented by `front::FrontSession`, cheap to clone):
//!
//! - `FrontSession::start(FrontSpec) -> Result<FrontSession, FrontError>`: mounts over `path` (or takes over the mount that `kept`
//!   describes and replays the busy slots) and serves until unmounted; implements [`crate::recorder::Front`].
//! - `root_fd(&self) -> BorrowedFd`: `O_PATH` descriptor of the directory beneath the mount.
//! - `unmount(&self, Unmount) -> Result<(), FrontError>`: see [`Unmount`]; afterwards the plain directory is back.
//! - `clear_stale(path)`: detaches dead mounts of ours over `path` (before the directory is used as a secondary, for instance).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::op::RelPath;
use crate::recorder::Recorder;

/// Says whether a path relative to the replicated directory is excluded from replication.
pub type Excludes = Arc<dyn Fn(&RelPath) -> bool + Send + Sync>;

/// Keeps descriptors beyond the death of this process (the descriptor store of the runner).
pub trait Keeper: Send + Sync {
    /// Keeps a duplicate of `fd` under `name`, replacing an older one. Must have taken effect when it returns.
    fn keep(&self, name: &str, fd: BorrowedFd<'_>);
    fn drop(&self, name: &str);
}

/// How to serve one replicated directory.
pub struct FrontSpec {
    /// Number of the directory in the module's list: `dir` of the operations.
    pub dir_index: u16,
    /// The directory itself; FUSE is mounted over it.
    pub path: PathBuf,
    /// The same, opened: the path may lead to a block of ours. None: it is opened by its path.
    pub root: Option<OwnedFd>,
    /// None: everything is replicated.
    pub excludes: Option<Excludes>,
    pub recorder: Arc<dyn Recorder>,
    /// None: the mount dies with this process.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// What a former worker kept. Names of other directories are ignored; the names used are `fuse:PATH`, `slots:PATH`, `root:PATH`
    /// and `unlinked:PATH:INO`, see [`kept_prefixes`].
    pub kept: Vec<(String, OwnedFd)>,
}

/// Prefixes of the names of all descriptors that the front keeps.
pub fn kept_prefixes() -> [&'static str; 4] {
    ["fuse:", "slots:", "root:", "unlinked:"]
}

/// Ways to give the directory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only when nothing is in use; fails with [`FrontError::Busy`] otherwise. Not to be used while requests are parked:
    /// the kernel writes mapped pages back first, and would wait for them.
    Orderly,
    /// The directory is plain again at once for whoever opens it by name; files that are open go on being served through FUSE until closed.
    Lazy,
    /// Nothing is answered any more: open files get an error, the directory is plain again.
    Abort,
}

/// A process that has files of the directory open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    pub command: String,
    /// The first thing found, for instance `/data/base/1` or `/data (working directory)`.
    pub what: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {}): {}", self.command, self.pid, self.what)
    }
}

fn list(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "a process that could not be identified".to_owned();
    }
    let named = holders.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if holders.len() > 5 { format!("{named} and {} more", holders.len() - 5) } else { named }
}

/// Why the front could not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("replicated directory {} cannot be opened: {error}; create it or correct its path", path.display())]
    Directory { path: PathBuf, error: std::io::Error },
    #[error("{} is in use by {}; stop these programs before replication starts, their writes would not be replicated", path.display(), list(holders))]
    InUse { path: PathBuf, holders: Vec<Holder> },
    #[error("{} cannot be unmounted, it is in use by {}; stop these programs", path.display(), list(holders))]
    Busy { path: PathBuf, holders: Vec<Holder> },
    #[error("/dev/fuse cannot be opened: {0}; load the kernel module fuse and run as root")]
    Device(std::io::Error),
    #[error("FUSE cannot be mounted over {}: {error}", path.display())]
    Mount { path: PathBuf, error: std::io::Error },
    #[error("{} cannot be unmounted: {error}", path.display())]
    Unmount { path: PathBuf, error: std::io::Error },
    #[error("the kernel's FUSE protocol {major}.{minor} is older than 7.31 (Linux 5.4)")]
    Protocol { major: u32, minor: u32 },
    #[error("{what} failed: {error}")]
    System { what: &'static str, error: std::io::Error },
}
