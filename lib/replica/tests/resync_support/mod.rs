//! Two trees, a stream between them in memory, a front that only has the locks, and an independent comparison.

#![allow(dead_code)] // each test file uses a part of it
#![allow(clippy::expect_used, clippy::type_complexity)]

use replica::activity::{State, Touch};
use replica::apply::{Applied, Applier, Options};
use replica::op::{Kind, Op, Owner, RelPath, Time};
use replica::recorder::Front;
use replica::resync::{Config, Gone, Link, Mode, Resync};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};

pub fn rel(text: &str) -> RelPath {
    RelPath::new(text).expect("a relative path")
}

pub fn root_fd(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("the tree").into()
}

/// A resynchronisation of one tree, with nothing special about it.
pub fn config(tree: &Path, mode: Mode, front: Arc<Locks>, session: u32) -> Config {
    Config {
        mode,
        roots: vec![root_fd(tree)],
        excludes: Vec::new(),
        front,
        bandwidth: None,
        session,
        foreign: false,
        recent: None,
    }
}

/// A small generator: tests print the seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        if self.below(6) == 0 {
            return vec![0; len];
        }
        let mut bytes = vec![0; len];
        for chunk in bytes.chunks_mut(8) {
            let word = self.below(u64::MAX).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }
}

/// Only the locks of a front: one lock for names, one for all files.
#[derive(Default)]
pub struct Locks {
    pub names: RwLock<()>,
    pub files: Mutex<()>,
}

impl Front for Locks {
    fn resume(&self) {}

    fn is_settled(&self) -> bool {
        true
    }

    fn with_names(&self, _: u16, step: &mut dyn FnMut()) {
        let _names = self.names.write().expect("lock");
        step();
    }

    fn with_file(&self, _: u16, _: u64, step: &mut dyn FnMut()) {
        let _names = self.names.read().expect("lock");
        let _files = self.files.lock().expect("lock");
        step();
    }
}

enum Frame {
    Op(Op, Vec<u8>),
    End,
}

/// The stream: frames in order to a receiving thread; answers come back to `resync`.
pub struct Pipe {
    frames: Mutex<mpsc::Sender<Frame>>,
    pub bytes: AtomicU64,
    pub frames_sent: AtomicU64,
    queued: Arc<AtomicU64>,
    start: Instant,
}

impl Pipe {
    pub fn send(&self, op: &Op, payload: &[u8]) {
        self.bytes.fetch_add(payload.len() as u64, Ordering::SeqCst);
        self.frames_sent.fetch_add(1, Ordering::SeqCst);
        self.queued.fetch_add(payload.len() as u64 + 64, Ordering::SeqCst);
        // A receiver that failed is seen by join.
        let _ = self.frames.lock().expect("lock").send(Frame::Op(op.clone(), payload.to_vec()));
    }
}

impl Link for Pipe {
    fn emit(&self, op: &Op, payload: &[u8]) -> Result<(), Gone> {
        self.send(op, payload);
        Ok(())
    }

    fn wait_room(&self, _: usize) -> Result<(), Gone> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.queued.load(Ordering::SeqCst) > 32 << 20 {
            if Instant::now() > deadline {
                return Err(Gone);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn finish(&self) -> Result<bool, Gone> {
        self.send(&Op::ResyncEnd, &[]);
        Ok(true)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

pub struct Receiver {
    thread: std::thread::JoinHandle<Result<(Applier, u64), String>>,
}

impl Receiver {
    /// The applier and how many operations it ignored; the failure that ended it otherwise.
    pub fn join(self) -> Result<(Applier, u64), String> {
        self.thread.join().expect("the receiver does not panic")
    }
}

/// Starts a receiver over `tree`. Ends at `Pipe` drop or `Goodbye`.
pub fn receiver(tree: &Path, options: Options, resync: Option<Arc<Resync>>) -> (Arc<Pipe>, Receiver) {
    let (frames, incoming) = mpsc::channel();
    let queued = Arc::new(AtomicU64::new(0));
    let pipe = Arc::new(Pipe {
        frames: Mutex::new(frames),
        bytes: AtomicU64::new(0),
        frames_sent: AtomicU64::new(0),
        queued: Arc::clone(&queued),
        start: Instant::now(),
    });
    let mut applier = Applier::new(vec![root_fd(tree)], options);
    let thread = std::thread::spawn(move || {
        let mut ignored = 0;
        let result = loop {
            let (op, payload) = match incoming.recv() {
                Ok(Frame::Op(Op::Goodbye, _) | Frame::End) | Err(_) => break Ok((applier, ignored)),
                Ok(Frame::Op(op, payload)) => (op, payload),
            };
            queued.fetch_sub(payload.len() as u64 + 64, Ordering::SeqCst);
            // Through text, as on the wire.
            let text = serde_json::to_string(&op).expect("json");
            let op: Op = serde_json::from_str(&text).expect("json");
            match applier.apply(&op, &payload) {
                Ok(Applied::Done) => {}
                Ok(Applied::Ignored) => ignored += 1,
                Ok(Applied::Answer(bytes)) => {
                    if let Some(resync) = &resync {
                        assert!(resync.answer(&bytes));
                    }
                }
                Err(e) => break Err(format!("{e} at {text}")),
            }
        };
        if let (Err(_), Some(resync)) = (&result, &resync) {
            resync.cancel();
        }
        result
    });
    (pipe, Receiver { thread })
}

fn times(meta: &fs::Metadata) -> Time {
    Time(meta.mtime(), meta.mtime_nsec() as u32)
}

/// The application on the primary: changes the tree and records, under the locks, like the front.
pub struct Primary<'a> {
    pub tree: PathBuf,
    pub locks: &'a Locks,
    /// Called after each change, under the locks.
    pub record: Box<dyn Fn(&Op, &[u8]) + 'a>,
    /// Called before each change, like the front does.
    pub before: Option<Box<dyn Fn(&Touch<'_>) + 'a>>,
}

impl Primary<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.tree.join(path)
    }

    fn touch(&self, touch: &Touch<'_>) {
        if let Some(before) = &self.before {
            before(touch);
        }
    }

    fn touch_names(&self, path: &str) {
        let path = rel(path).parent();
        if let Ok(parent) = fs::metadata(self.tree.join(std::ffi::OsStr::from_bytes(path.as_bytes()))) {
            self.touch(&Touch::Names { dir: 0, parent: parent.ino(), path: &path });
        }
    }

    fn touch_attributes(&self, path: &str, meta: &fs::Metadata) {
        let links = if meta.is_dir() { 1 } else { meta.nlink() };
        self.touch(&Touch::Attributes { dir: 0, ino: meta.ino(), path: &rel(path), links });
    }

    fn touch_content(&self, path: &str, meta: &fs::Metadata, (offset, end): (u64, u64)) {
        let state = || Ok(State { size: meta.len(), links: meta.nlink() });
        self.touch(&Touch::Content { dir: 0, ino: meta.ino(), path: &rel(path), offset, end, state: &state });
    }

    fn parent_mtime(&self, path: &str) -> Time {
        times(&fs::metadata(self.at(path).parent().expect("a parent")).expect("stat"))
    }

    pub fn write(&self, path: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _names = self.locks.names.read().expect("lock");
        let _files = self.locks.files.lock().expect("lock");
        if !self.at(path).symlink_metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = fs::OpenOptions::new().write(true).open(self.at(path))?;
        self.touch_content(path, &file.metadata()?, (offset, offset + bytes.len() as u64));
        file.write_all_at(bytes, offset)?;
        let meta = file.metadata()?;
        let op = Op::Write { dir: 0, path: rel(path), ino: meta.ino(), offset, mtime: times(&meta) };
        (self.record)(&op, bytes);
        Ok(())
    }

    pub fn truncate(&self, path: &str, size: u64) -> io::Result<()> {
        let _names = self.locks.names.read().expect("lock");
        let _files = self.locks.files.lock().expect("lock");
        if !self.at(path).symlink_metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = fs::OpenOptions::new().write(true).open(self.at(path))?;
        let before = file.metadata()?;
        self.touch_attributes(path, &before);
        if size == 0 {
            self.touch(&Touch::Emptied { dir: 0, ino: before.ino(), path: &rel(path), links: before.nlink() });
        } else {
            self.touch_content(path, &before, (size, u64::MAX));
        }
        file.set_len(size)?;
        let meta = file.metadata()?;
        let op = Op::SetAttr {
            dir: 0,
            path: rel(path),
            ino: meta.ino(),
            mode: None,
            uid: None,
            gid: None,
            size: Some(size),
            atime: None,
            mtime: Some(times(&meta)),
        };
        (self.record)(&op, &[]);
        Ok(())
    }

    pub fn chmod(&self, path: &str, mode: u32) -> io::Result<()> {
        let _names = self.locks.names.read().expect("lock");
        let _files = self.locks.files.lock().expect("lock");
        let meta = self.at(path).symlink_metadata()?;
        if meta.is_symlink() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.touch_attributes(path, &meta);
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode))?;
        let op = Op::SetAttr {
            dir: 0,
            path: rel(path),
            ino: meta.ino(),
            mode: Some(mode),
            uid: None,
            gid: None,
            size: None,
            atime: None,
            mtime: None,
        };
        (self.record)(&op, &[]);
        Ok(())
    }

    pub fn xattr(&self, path: &str, name: &str, value: &[u8]) -> io::Result<()> {
        let _names = self.locks.names.read().expect("lock");
        let _files = self.locks.files.lock().expect("lock");
        let meta = self.at(path).symlink_metadata()?;
        if !meta.is_file() && !meta.is_dir() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.touch_attributes(path, &meta);
        rustix::fs::lsetxattr(self.at(path), name, value, rustix::fs::XattrFlags::empty())?;
        let op = Op::SetXattr { dir: 0, path: rel(path), ino: meta.ino(), name: rel(name) };
        (self.record)(&op, value);
        Ok(())
    }

    pub fn create(&self, path: &str, kind: Kind) -> io::Result<()> {
        let _names = self.locks.names.write().expect("lock");
        let at = self.at(path);
        self.touch_names(path);
        match kind {
            Kind::Directory => fs::create_dir(&at)?,
            Kind::Symlink => std::os::unix::fs::symlink(format!("to {path}"), &at)?,
            Kind::Fifo => rustix::fs::mknodat(
                rustix::fs::CWD,
                &at,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o640),
                0,
            )?,
            _ => drop(fs::OpenOptions::new().write(true).create_new(true).open(&at)?),
        }
        let meta = at.symlink_metadata()?;
        let owner = Owner { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() };
        let (mtime, parent_mtime) = (times(&meta), self.parent_mtime(path));
        let op = if kind == Kind::Symlink {
            let target = rel(&format!("to {path}"));
            Op::Symlink { dir: 0, path: rel(path), ino: meta.ino(), target, owner, mtime, parent_mtime }
        } else {
            Op::Create { dir: 0, path: rel(path), ino: meta.ino(), kind, owner, rdev: 0, mtime, parent_mtime }
        };
        (self.record)(&op, &[]);
        Ok(())
    }

    pub fn link(&self, from: &str, path: &str) -> io::Result<()> {
        let _names = self.locks.names.write().expect("lock");
        let meta = self.at(from).symlink_metadata()?;
        self.touch_names(path);
        self.touch_attributes(from, &meta);
        fs::hard_link(self.at(from), self.at(path))?;
        let parent_mtime = self.parent_mtime(path);
        (self.record)(&Op::Link { dir: 0, from: rel(from), path: rel(path), ino: meta.ino(), parent_mtime }, &[]);
        Ok(())
    }

    pub fn remove(&self, path: &str) -> io::Result<()> {
        let _names = self.locks.names.write().expect("lock");
        let meta = self.at(path).symlink_metadata()?;
        let (dir, ino) = (0, meta.ino());
        self.touch_names(path);
        if meta.is_dir() {
            fs::remove_dir(self.at(path))?;
        } else {
            fs::remove_file(self.at(path))?;
        }
        let parent_mtime = self.parent_mtime(path);
        let op = if meta.is_dir() {
            Op::Rmdir { dir, path: rel(path), ino, parent_mtime }
        } else {
            Op::Unlink { dir, path: rel(path), ino, parent_mtime }
        };
        (self.record)(&op, &[]);
        Ok(())
    }

    pub fn rename(&self, from: &str, path: &str, flags: u32) -> io::Result<()> {
        let _names = self.locks.names.write().expect("lock");
        let ino = self.at(from).symlink_metadata()?.ino();
        self.touch_names(from);
        self.touch_names(path);
        let moves = [(from, path), (path, from)];
        for (from, path) in moves.into_iter().take(if flags & libc::RENAME_EXCHANGE == 0 { 1 } else { 2 }) {
            if let Ok(meta) = self.at(from).symlink_metadata() {
                let (ino, directory) = (meta.ino(), meta.is_dir());
                self.touch(&Touch::Renamed { dir: 0, ino, from: &rel(from), path: &rel(path), directory });
            }
        }
        let bits = rustix::fs::RenameFlags::from_bits_truncate(flags);
        rustix::fs::renameat_with(rustix::fs::CWD, self.at(from), rustix::fs::CWD, self.at(path), bits)?;
        let (from_mtime, parent_mtime) = (self.parent_mtime(from), self.parent_mtime(path));
        let op = Op::Rename { dir: 0, from: rel(from), path: rel(path), ino, flags, from_mtime, parent_mtime };
        (self.record)(&op, &[]);
        Ok(())
    }

    pub fn unset(&self, path: &str, name: &str) -> io::Result<()> {
        let _names = self.locks.names.read().expect("lock");
        let _files = self.locks.files.lock().expect("lock");
        let meta = self.at(path).symlink_metadata()?;
        let ino = meta.ino();
        self.touch_attributes(path, &meta);
        rustix::fs::lremovexattr(self.at(path), name)?;
        (self.record)(&Op::RemoveXattr { dir: 0, path: rel(path), ino, name: rel(name) }, &[]);
        Ok(())
    }

    pub fn fallocate(&self, path: &str, offset: u64, length: u64, mode: i32) -> io::Result<()> {
        let _names = self.locks.names.read().expect("lock");
        let _files = self.locks.files.lock().expect("lock");
        if !self.at(path).symlink_metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = fs::OpenOptions::new().write(true).open(self.at(path))?;
        let before = file.metadata()?;
        self.touch_attributes(path, &before);
        if mode & !1 != 0 {
            let end = if mode & (8 | 32) == 0 { offset + length } else { u64::MAX };
            self.touch_content(path, &before, (offset, end));
        }
        let flags = rustix::fs::FallocateFlags::from_bits_truncate(mode as u32);
        let result = rustix::fs::fallocate(&file, flags, offset, length);
        let meta = file.metadata()?;
        let (ino, mtime) = (meta.ino(), times(&meta));
        if let Err(e) = result {
            // ext4 sets the time before it refuses.
            let (mode, uid, gid, size, atime) = (None, None, None, None, None);
            let op = Op::SetAttr { dir: 0, path: rel(path), ino, mode, uid, gid, size, atime, mtime: Some(mtime) };
            (self.record)(&op, &[]);
            return Err(e.into());
        }
        (self.record)(&Op::Fallocate { dir: 0, path: rel(path), ino, offset, length, mode, mtime }, &[]);
        Ok(())
    }

    /// One random change among few names, so that they meet; refusals of the file system are part of it.
    pub fn random(&self, random: &mut Random) {
        let a = random_path(random);
        let b = random_path(random);
        let _ = match random.below(26) {
            0..=2 => self.create(&a, Kind::File),
            3 | 4 => self.create(&a, Kind::Directory),
            5 => self.create(&a, Kind::Symlink),
            6 => self.create(&a, Kind::Fifo),
            7..=11 => {
                let len = if random.below(10) == 0 { 300_000 } else { random.below(5000) as usize };
                let offset = if random.below(4) == 0 { random.below(600_000) } else { random.below(3000) };
                self.write(&a, offset, &random.bytes(len))
            }
            12 | 13 => {
                let size = if random.below(3) == 0 { 0 } else { random.below(500_000) };
                self.truncate(&a, size)
            }
            14 => self.chmod(&a, [0o600, 0o755, 0o4711, 0o1777][random.below(4) as usize]),
            15 => self.xattr(&a, ["user.a", "user.b"][random.below(2) as usize], &random.bytes(20)),
            16 => self.link(&a, &b),
            17 | 18 => self.remove(&a),
            19 | 20 => self.rename(&a, &b, 0),
            21 => self.rename(&a, &b, [1, 2][random.below(2) as usize]),
            22 => self.unset(&a, "user.a"),
            23 => {
                // Keep size, punch a hole, collapse, insert: the latter two by whole blocks of the file system.
                let mode = [0, 1, 3, 8, 32][random.below(5) as usize];
                self.fallocate(&a, random.below(40) * 4096, (1 + random.below(40)) * 4096, mode)
            }
            _ => self.create(&format!("{a}/{}", random.below(12)), Kind::File),
        };
    }
}

pub fn random_path(random: &mut Random) -> String {
    let names = ["a", "b", "c", "d", "e"];
    let mut path = names[random.below(5) as usize].to_string();
    for _ in 0..random.below(4) {
        path = format!("{path}/{}", names[random.below(5) as usize]);
    }
    path
}

/// Everything that must be equal, as lines; written without the library's own walker.
pub fn picture(tree: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut groups: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut queue = vec![tree.to_path_buf()];
    while let Some(next) = queue.pop() {
        let meta = next.symlink_metadata().expect("stat");
        let name = next.strip_prefix(tree).expect("inside").to_string_lossy().into_owned();
        let kind = meta.file_type();
        let content = if kind.is_dir() {
            queue.extend(fs::read_dir(&next).expect("list").map(|e| e.expect("entry").path()));
            "dir".to_string()
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(&next).expect("target").display())
        } else if kind.is_file() {
            format!("file {} {}", meta.len(), blake3::hash(&fs::read(&next).expect("content")))
        } else {
            format!("other {} {}", kind.is_fifo(), meta.rdev())
        };
        if !kind.is_dir() {
            groups.entry(meta.ino()).or_default().push(name.clone());
        }
        let mut xattrs = Vec::new();
        let mut list = vec![0u8; 4096];
        let len = rustix::fs::llistxattr(&next, &mut list[..]).expect("list");
        for attribute in list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let mut value = vec![0u8; 4096];
            let len =
                rustix::fs::lgetxattr(&next, std::ffi::OsStr::from_bytes(attribute), &mut value[..]).expect("get");
            xattrs.push(format!("{}={:?}", String::from_utf8_lossy(attribute), &value[..len]));
        }
        xattrs.sort();
        let line = format!(
            "{content} {:o} {}:{} {}.{:09} {xattrs:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        lines.insert(name, line);
    }
    for names in groups.values_mut() {
        names.sort();
        for name in names.iter() {
            if let Some(line) = lines.get_mut(name) {
                line.push_str(&format!(" {names:?}"));
            }
        }
    }
    lines
}

/// Differences between two trees; empty: equal.
pub fn differences(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (picture(a), picture(b));
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| format!("{name}: {:?} / {:?}", a.get(name), b.get(name)))
        .collect()
}
