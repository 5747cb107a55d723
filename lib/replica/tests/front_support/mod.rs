//! What tests of the front share: a recorder that can freeze and hold answers back, mounts, a follower, and comparison of trees.
#![allow(dead_code)] // Each test file uses its part.
#![allow(clippy::unwrap_used, clippy::format_push_string, clippy::should_implement_trait)] // helpers of tests

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use replica::activity::Touch;
use replica::front::{Excludes, FrontSession, FrontSpec, Unmount};
use replica::op::{Kind, Op, RelPath};
use replica::recorder::{Admission, Position, Recorder, Round};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};

type Answer = Box<dyn FnOnce() + Send>;

/// What the present change said that it would touch.
#[derive(Clone, Copy, Default)]
struct Told {
    names: bool,
    content: bool,
    attributes: bool,
    made: bool,
}

thread_local! {
    static TOLD: std::cell::Cell<Told> = const { std::cell::Cell::new(Told { names: false, content: false, attributes: false, made: false }) };
}

/// Nothing is changed that was not announced.
fn check_told(op: &Op) {
    let mut told = TOLD.get();
    let good = match op {
        Op::Write { .. } => told.content || told.made,
        Op::SetAttr { .. } => told.attributes || told.content || told.made,
        Op::SetXattr { .. } | Op::RemoveXattr { .. } | Op::Fallocate { .. } => told.attributes || told.made,
        Op::Create { .. }
        | Op::Symlink { .. }
        | Op::Link { .. }
        | Op::Unlink { .. }
        | Op::Rmdir { .. }
        | Op::Rename { .. } => told.names,
        _ => true,
    };
    assert!(good, "not announced: {op:?}");
    told.made |= matches!(op, Op::Create { .. });
    TOLD.set(told);
}

#[derive(Default)]
pub struct Tape {
    pub ops: Mutex<Vec<(Op, Vec<u8>)>>,
    pub frozen: AtomicBool,
    pub holding: AtomicBool,
    pub all_wait: AtomicBool,
    pub held: Mutex<Vec<(Position, Answer)>>,
    inside: AtomicI64,
}

impl Recorder for Tape {
    fn enter(&self, _bytes: usize) -> Admission {
        if self.frozen.load(Ordering::SeqCst) {
            return Admission::Park;
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        TOLD.set(Told::default());
        Admission::Go(Round(0))
    }

    fn leave(&self, _round: Round) {
        assert!(self.inside.fetch_sub(1, Ordering::SeqCst) > 0);
    }

    fn about_to(&self, touch: &Touch<'_>) -> std::io::Result<()> {
        let mut told = TOLD.get();
        match touch {
            Touch::Names { .. } | Touch::Renamed { .. } => told.names = true,
            Touch::Content { .. } | Touch::Emptied { .. } => told.content = true,
            Touch::Attributes { .. } => told.attributes = true,
        }
        TOLD.set(told);
        Ok(())
    }

    fn record(&self, op: &Op, payload: &[u8]) -> Position {
        assert!(self.inside.load(Ordering::SeqCst) > 0, "recorded outside of enter and leave: {op:?}");
        let mut ops = self.ops.lock().unwrap();
        check_told(op);
        ops.push((op.clone(), payload.to_vec()));
        ops.len() as Position
    }

    fn when_acknowledged(&self, position: Position, reply: Answer) {
        if self.holding.load(Ordering::SeqCst) {
            self.held.lock().unwrap().push((position, reply));
        } else {
            reply();
        }
    }

    fn every_change_waits(&self) -> bool {
        self.all_wait.load(Ordering::SeqCst)
    }
}

impl Tape {
    pub fn acknowledge(&self) {
        self.holding.store(false, Ordering::SeqCst);
        for (_, reply) in std::mem::take(&mut *self.held.lock().unwrap()) {
            reply();
        }
    }

    pub fn names(&self) -> Vec<String> {
        let ops = self.ops.lock().unwrap();
        ops.iter().map(|(op, _)| format!("{op:?}").split([' ', '{']).next().unwrap_or_default().to_owned()).collect()
    }
}

/// A mounted directory; unmounted by force if a test fails.
pub struct Mounted {
    pub front: FrontSession,
    pub tape: Arc<Tape>,
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

pub fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("sk-front-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

pub fn mounted() -> Mounted {
    mounted_with(None)
}

pub fn mounted_with(excludes: Option<Excludes>) -> Mounted {
    let dir = scratch();
    let path = dir.path().canonicalize().unwrap().join("data");
    fs::create_dir(&path).unwrap();
    let tape = Arc::new(Tape::default());
    let front = FrontSession::start(FrontSpec {
        dir_index: 0,
        root: None,
        path: path.clone(),
        excludes,
        recorder: Arc::clone(&tape) as _,
        keeper: None,
        kept: Vec::new(),
    })
    .unwrap();
    Mounted { front, tape, path, _dir: dir }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.front.unmount(Unmount::Abort);
    }
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Everything that two trees must agree on.
pub fn tree(root: &Path, times: bool) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut groups = BTreeMap::new();
    walk(root, root, times, &mut all, &mut groups);
    all
}

fn walk(root: &Path, dir: &Path, times: bool, all: &mut BTreeMap<Vec<u8>, String>, groups: &mut BTreeMap<u64, usize>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let m = fs::symlink_metadata(&path).unwrap();
        let next = groups.len();
        let group = *groups.entry(m.ino()).or_insert(next);
        let directory = m.is_dir();
        let mut text = format!(
            "{:o} {}:{} links {} group {group} rdev {}",
            m.mode(),
            m.uid(),
            m.gid(),
            if directory { 0 } else { m.nlink() },
            m.rdev()
        );
        if m.is_file() {
            text.push_str(&format!(" size {} hash {}", m.len(), blake3::hash(&fs::read(&path).unwrap())));
        }
        if m.is_symlink() {
            text.push_str(&format!(" -> {}", fs::read_link(&path).unwrap().display()));
        }
        if m.is_file() || directory {
            let mut names = vec![0_u8; 4096];
            let length = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
            let mut names: Vec<&[u8]> = names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
            names.sort_unstable();
            for name in names {
                let mut value = vec![0_u8; 4096];
                let length = rustix::fs::getxattr(&path, name, &mut value[..]).unwrap();
                text.push_str(&format!(" {}={:?}", String::from_utf8_lossy(name), &value[..length]));
            }
        }
        if times {
            text.push_str(&format!(" mtime {}.{}", m.mtime(), m.mtime_nsec()));
        }
        all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), text);
        if directory {
            walk(root, &path, times, all, groups);
        }
    }
}

fn at(root: &Path, path: &RelPath) -> PathBuf {
    if path.is_root() { root.to_owned() } else { root.join(OsStr::from_bytes(path.as_bytes())) }
}

/// Does to a plain directory what an operation says: an independent, simple secondary (times left out).
pub fn try_follow(root: &Path, op: &Op, payload: &[u8]) -> std::io::Result<()> {
    let cwd = rustix::fs::CWD;
    let bits = |mode: u32| fs::Permissions::from_mode(mode);
    match op {
        Op::Write { path, offset, .. } => {
            fs::OpenOptions::new().write(true).open(at(root, path))?.write_all_at(payload, *offset)?;
        }
        Op::SetAttr { path, mode, uid, gid, size, .. } => {
            let file = at(root, path);
            if let Some(size) = size {
                fs::OpenOptions::new().write(true).open(&file)?.set_len(*size)?;
            }
            if uid.is_some() || gid.is_some() {
                std::os::unix::fs::lchown(&file, *uid, *gid)?;
            }
            if let Some(mode) = mode.filter(|_| !file.is_symlink()) {
                fs::set_permissions(&file, bits(mode))?;
            }
        }
        Op::Create { path, kind, owner, rdev, .. } => {
            let file = at(root, path);
            let kind = match kind {
                Kind::File => FileType::RegularFile,
                Kind::Directory => FileType::Directory,
                Kind::Fifo => FileType::Fifo,
                Kind::Socket => FileType::Socket,
                Kind::CharDevice => FileType::CharacterDevice,
                Kind::BlockDevice => FileType::BlockDevice,
                Kind::Symlink => unreachable!("a symlink is Op::Symlink"),
            };
            if kind == FileType::Directory {
                fs::create_dir(&file)?;
            } else {
                rustix::fs::mknodat(cwd, &file, kind, Mode::empty(), *rdev)?;
            }
            std::os::unix::fs::lchown(&file, Some(owner.uid), Some(owner.gid))?;
            fs::set_permissions(&file, bits(owner.mode))?;
        }
        Op::Symlink { path, target, owner, .. } => {
            let file = at(root, path);
            std::os::unix::fs::symlink(OsStr::from_bytes(target.as_bytes()), &file)?;
            std::os::unix::fs::lchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        Op::Link { from, path, .. } => {
            rustix::fs::linkat(cwd, at(root, from), cwd, at(root, path), AtFlags::empty())?;
        }
        Op::Unlink { path, .. } => fs::remove_file(at(root, path))?,
        Op::Rmdir { path, .. } => fs::remove_dir(at(root, path))?,
        Op::Rename { from, path, flags, .. } => {
            let flags = RenameFlags::from_bits_retain(*flags);
            rustix::fs::renameat_with(cwd, at(root, from), cwd, at(root, path), flags)?;
        }
        Op::SetXattr { path, name, .. } => {
            rustix::fs::lsetxattr(at(root, path), name.as_bytes(), payload, XattrFlags::empty())?;
        }
        Op::RemoveXattr { path, name, .. } => rustix::fs::lremovexattr(at(root, path), name.as_bytes())?,
        Op::Fallocate { path, offset, length, mode, .. } => {
            let file = fs::OpenOptions::new().write(true).open(at(root, path))?;
            let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
            rustix::fs::fallocate(&file, flags, *offset, *length)?;
        }
        Op::Sync { path, .. } => assert!(path.as_ref().is_none_or(|p| at(root, p).symlink_metadata().is_ok())),
        Op::SyncDir { path, .. } => assert!(at(root, path).is_dir()),
        other => panic!("not from the front: {other:?}"),
    }
    Ok(())
}

pub fn follow(root: &Path, op: &Op, payload: &[u8]) {
    if let Err(error) = try_follow(root, op, payload) {
        panic!("{op:?}: {error}");
    }
}

/// Small deterministic random numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// Path to the tree beneath a mount.
pub fn beneath(fd: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}/.", fd.as_fd().as_raw_fd()))
}
