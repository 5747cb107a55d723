//! Does the application notice that the process behind its files is killed and started again?

#![allow(clippy::unwrap_used)] // helpers of tests

mod front_support;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use front_support::{Random, scratch, tree, try_follow};
use replica::activity::Touch;
use replica::front::{FrontSession, FrontSpec, Keeper, Unmount};
use replica::op::Op;
use replica::recorder::{Admission, Front, Position, Recorder, Round};
use sys::store::{Store, StoreClient};

/// Appends operations to a file, in one write each: what was recorded survives a kill. Files of a directory say what else happens.
struct Log(Mutex<(fs::File, Position)>, PathBuf);

/// No change may begin.
const CLOSED: &str = "closed";
/// The worker dies when a rename was applied and is not recorded yet.
const DIE: &str = "die";
/// Parked requests are tried again; the worker takes the file away.
const RESUME: &str = "resume";
/// How many requests are parked; the worker writes it.
const PARKED: &str = "parked";
/// There while a change that a former worker made is not recorded; the worker's, too.
const UNSETTLED: &str = "unsettled";

impl Recorder for Log {
    fn enter(&self, _bytes: usize) -> Admission {
        if self.1.join(CLOSED).exists() { Admission::Park } else { Admission::Go(Round(0)) }
    }

    fn leave(&self, _round: Round) {}

    fn about_to(&self, _touch: &Touch<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn record(&self, op: &Op, payload: &[u8]) -> Position {
        if matches!(op, Op::Rename { .. }) && self.1.join(DIE).exists() {
            std::process::abort();
        }
        let mut frame = serde_json::to_vec(op).unwrap();
        frame.extend_from_slice(format!("\n{}\n", payload.len()).as_bytes());
        frame.extend_from_slice(payload);
        let mut log = self.0.lock().unwrap();
        log.0.write_all(&frame).unwrap();
        log.1 += 1;
        log.1
    }

    fn when_acknowledged(&self, _position: Position, reply: Box<dyn FnOnce() + Send>) {
        reply();
    }

    fn every_change_waits(&self) -> bool {
        false
    }
}

/// The first frame of a log and what follows; None if it is not complete: a kill can interrupt a long write.
fn frame(bytes: &[u8]) -> Option<(Op, &[u8], &[u8])> {
    let line = |bytes: &[u8]| bytes.iter().position(|b| *b == b'\n');
    let end = line(bytes)?;
    let op = serde_json::from_slice(&bytes[..end]).unwrap();
    let rest = &bytes[end + 1..];
    let end = line(rest)?;
    let length: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
    let (payload, rest) = rest[end + 1..].split_at_checked(length)?;
    Some((op, payload, rest))
}

/// Cuts an incomplete frame off the end: its request is answered by the successor, which records it again.
fn repair(log: &Path) {
    let bytes = fs::read(log).unwrap_or_default();
    let mut rest = &bytes[..];
    while let Some((_, _, tail)) = frame(rest) {
        rest = tail;
    }
    if !rest.is_empty() {
        let whole = (bytes.len() - rest.len()) as u64;
        fs::OpenOptions::new().write(true).open(log).unwrap().set_len(whole).unwrap();
    }
}

struct Client(StoreClient);

impl Keeper for Client {
    fn keep(&self, name: &str, fd: BorrowedFd<'_>) {
        self.0.keep(name, fd).unwrap();
    }

    fn drop(&self, name: &str) {
        self.0.drop_name(name).unwrap();
    }
}

/// Not a test: what the tests below start as a process of its own. Serves until its stdin ends, then unmounts.
#[test]
fn worker() {
    let Ok(path) = std::env::var("FRONT_TEST_PATH") else { return };
    let number = std::env::var("FRONT_TEST_STORE").unwrap().parse().unwrap();
    // SAFETY: the parent handed this descriptor to us, nobody else uses it.
    let (client, kept) = StoreClient::connect(unsafe { OwnedFd::from_raw_fd(number) }).unwrap();
    let log = PathBuf::from(std::env::var("FRONT_TEST_LOG").unwrap());
    repair(&log);
    let orders = log.with_file_name("orders");
    let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let front = FrontSession::start(FrontSpec {
        dir_index: 0,
        root: None,
        path: PathBuf::from(path),
        excludes: None,
        recorder: Arc::new(Log(Mutex::new((log, 0)), orders.clone())),
        keeper: Some(Arc::new(Client(client))),
        kept,
    })
    .unwrap();
    let served = front.clone();
    std::thread::spawn(move || {
        loop {
            // Said first: whoever sees a parked request knows whether it is one of these.
            if served.is_settled() {
                let _ = fs::remove_file(orders.join(UNSETTLED));
            } else {
                fs::write(orders.join(UNSETTLED), b"").unwrap();
            }
            fs::write(orders.join(PARKED), served.parked().to_string()).unwrap();
            if fs::remove_file(orders.join(RESUME)).is_ok() {
                served.resume();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    println!("serving");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    front.unmount(Unmount::Orderly).unwrap();
}

struct Served {
    store: Store,
    path: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let dir = scratch();
        let base = dir.path().canonicalize().unwrap();
        let (path, log) = (base.join("data"), base.join("log"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(base.join("orders")).unwrap();
        let mut served = Self { store: Store::new(), path, log, child: None, _dir: dir };
        served.begin();
        served
    }

    fn begin(&mut self) {
        let end = self.store.serve().unwrap();
        rustix::io::fcntl_setfd(&end, rustix::io::FdFlags::empty()).unwrap();
        let number = end.into_raw_fd();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--nocapture"])
            .env("FRONT_TEST_PATH", &self.path)
            .env("FRONT_TEST_LOG", &self.log)
            .env("FRONT_TEST_STORE", number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // SAFETY: ours, and not used any more; the child has its own.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        let mut seen = Vec::new();
        let mut byte = [0];
        let out = child.stdout.as_mut().unwrap();
        while !seen.ends_with(b"serving\n") {
            assert_eq!(out.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        self.child = Some(child);
    }

    fn order(&self, name: &str) -> PathBuf {
        self.log.with_file_name("orders").join(name)
    }

    fn parked(&self) -> usize {
        fs::read_to_string(self.order(PARKED)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn end(&mut self) {
        let mut child = self.child.take().unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }

    /// What the recorded operations make; repeated operations are allowed to fail.
    fn mirror(&self) -> tempfile::TempDir {
        let mirror = scratch();
        let bytes = fs::read(&self.log).unwrap();
        let mut rest = &bytes[..];
        while let Some((op, payload, tail)) = frame(rest) {
            rest = tail;
            match try_follow(mirror.path(), &op, payload) {
                Ok(()) => {}
                Err(e) if [Some(libc::EEXIST), Some(libc::ENOENT), Some(libc::ENODATA)].contains(&e.raw_os_error()) => {
                }
                Err(e) => panic!("{op:?}: {e}"),
            }
        }
        mirror
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = replica::front::clear_stale(&self.path);
    }
}

/// One round of an application; every error is a failure.
#[allow(clippy::many_single_char_names)] // the names of the files
fn round(dir: &Path, r: &mut Random, n: u64) -> io::Result<()> {
    let d = dir.join(format!("d{n}"));
    fs::create_dir(&d)?;
    let (a, b, c) = (d.join("a"), d.join("b"), d.join("c"));
    let size = r.below(200_000) as usize;
    let content: Vec<u8> = (0..size).map(|i| (i as u64 * n) as u8).collect();
    let mut file = fs::OpenOptions::new().create_new(true).write(true).open(&a)?;
    file.write_all(&content)?;
    fs::hard_link(&a, &c)?;
    fs::rename(&a, &b)?;
    fs::OpenOptions::new().append(true).open(&b)?.write_all(b"tail")?;
    if r.below(3) == 0 {
        file.sync_all()?;
    }
    let back = fs::read(&c)?;
    if back.len() != size + 4 || back[..size] != content || &back[size..] != b"tail" {
        return Err(io::Error::other("other content"));
    }
    fs::remove_file(&c)?;
    // Open, unlinked, and used.
    let hidden = fs::OpenOptions::new().create_new(true).read(true).write(true).open(&a)?;
    hidden.write_all_at(b"hidden", 0)?;
    fs::remove_file(&a)?;
    std::thread::sleep(Duration::from_millis(r.below(20)));
    hidden.write_all_at(b"HID", 0)?;
    let mut text = [0; 6];
    hidden.read_exact_at(&mut text, 0)?;
    if &text != b"HIDden" || hidden.metadata()?.nlink() != 0 {
        return Err(io::Error::other("other hidden content"));
    }
    rustix::fs::setxattr(&b, "user.n", &n.to_le_bytes(), rustix::fs::XattrFlags::CREATE)?;
    if r.below(2) == 0 {
        fs::remove_file(&b)?;
        fs::remove_dir(&d)?;
    }
    Ok(())
}

#[test]
fn kills_under_load_are_not_noticed() {
    let mut served = Served::new();
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (1..=3_u64)
        .map(|t| {
            let (stop, rounds, path) = (Arc::clone(&stop), Arc::clone(&rounds), served.path.join(format!("t{t}")));
            std::thread::spawn(move || {
                fs::create_dir(&path)?;
                let lasting =
                    fs::OpenOptions::new().create_new(true).append(true).read(true).open(path.join("lasting"))?;
                let mut r = Random(t * 7919);
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    round(&path, &mut r, n)?;
                    (&lasting).write_all(&n.to_le_bytes())?;
                    n += 1;
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
                let mut all = vec![0; n as usize * 8];
                lasting.read_exact_at(&mut all, 0)?;
                let good = all.chunks(8).enumerate().all(|(i, c)| c == (i as u64).to_le_bytes());
                if good { Ok(()) } else { Err(io::Error::other("the lasting file is damaged")) }
            })
        })
        .collect();
    let mut r = Random(4711);
    for _ in 0..15 {
        let before = rounds.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(20_000 + r.below(100_000)));
        served.kill();
        served.begin();
        front_support::wait_for("the load to go on", || rounds.load(Ordering::SeqCst) > before + 2);
    }
    stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    let wanted = tree(&served.path, false);
    assert!(wanted.len() > 20);
    front_support::wait_for("the hidden files to be let go", || {
        !served.store.names().iter().any(|n| n.starts_with("unlinked:"))
    });
    served.end();
    assert_eq!(tree(&served.path, false), wanted, "the plain directory");
    assert_eq!(tree(served.mirror().path(), false), wanted, "what the operations make");
    assert_eq!(served.store.names(), [] as [&str; 0]);
}

#[test]
fn open_files_and_directories_survive() {
    let mut served = Served::new();
    let deep = served.path.join("x/y/z");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), b"0123456789").unwrap();
    fs::hard_link(deep.join("f"), served.path.join("x/link")).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(deep.join("f")).unwrap();
    let gone = fs::OpenOptions::new().create_new(true).read(true).write(true).open(deep.join("gone")).unwrap();
    gone.write_all_at(b"gone", 0).unwrap();
    fs::remove_file(deep.join("gone")).unwrap();
    for n in 0..200 {
        fs::write(deep.join(format!("n{n}")), b"").unwrap();
    }
    let mut listing = fs::read_dir(&deep).unwrap();
    let first = listing.next().unwrap().unwrap().file_name();

    for round in 0..3_u8 {
        served.kill();
        // A request that nobody serves yet is answered by the successor.
        let waiting = {
            let path = served.path.join(format!("made{round}"));
            std::thread::spawn(move || fs::create_dir(path))
        };
        served.begin();
        waiting.join().unwrap().unwrap();
        file.write_all_at(&[b'a' + round], 0).unwrap();
        gone.write_all_at(&[b'A' + round], 0).unwrap();
        let mut text = [0; 4];
        gone.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(text, [b'A' + round, b'o', b'n', b'e']);
        assert_eq!(fs::read(served.path.join("x/link")).unwrap()[0], b'a' + round);
        fs::rename(served.path.join("x/y"), served.path.join("x/w")).unwrap();
        fs::rename(served.path.join("x/w"), served.path.join("x/y")).unwrap();
    }
    let mut names: Vec<_> = listing.map(|e| e.unwrap().file_name()).collect();
    names.push(first);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 201);
    // The last known name goes, another one is left.
    fs::remove_file(deep.join("f")).unwrap();
    file.write_all_at(b"end", 0).unwrap();
    assert_eq!(&fs::read(served.path.join("x/link")).unwrap()[..3], b"end");
    drop((file, gone));
    let wanted = tree(&served.path, false);
    served.end();
    assert_eq!(tree(served.mirror().path(), false), wanted);
}

/// A write that came later must not be recorded under the name that a rename gave, before that rename is.
#[test]
fn a_change_waits_for_one_that_was_applied_and_not_recorded() {
    let mut served = Served::new();
    let (old, new) = (served.path.join("old"), served.path.join("new"));
    fs::create_dir(&old).unwrap();
    fs::write(old.join("file"), b"before").unwrap();
    // The kernel itself holds back writes to what is renamed, but not to what is beneath.
    let file = fs::OpenOptions::new().write(true).open(old.join("file")).unwrap();
    fs::write(served.order(DIE), b"").unwrap();
    let renaming = std::thread::spawn({
        let (old, new) = (old.clone(), new.clone());
        move || fs::rename(old, new)
    });
    // It dies by itself.
    assert!(!served.child.take().unwrap().wait().unwrap().success());
    fs::remove_file(served.order(DIE)).unwrap();
    fs::write(served.order(CLOSED), b"").unwrap();
    served.begin();
    front_support::wait_for("the rename to be parked", || served.parked() == 1);
    assert!(served.order(UNSETTLED).exists(), "it was applied");
    fs::remove_file(served.order(CLOSED)).unwrap();
    // Changes may begin again; the parked one is not tried yet.
    let writing = std::thread::spawn(move || file.write_all_at(b"AFTER", 0));
    front_support::wait_for("the write to be tried", || served.parked() == 2 || writing.is_finished());
    fs::write(served.order(RESUME), b"").unwrap();
    renaming.join().unwrap().unwrap();
    writing.join().unwrap().unwrap();
    assert_eq!(fs::read(new.join("file")).unwrap(), b"AFTERe");
    front_support::wait_for("everything to be recorded", || !served.order(UNSETTLED).exists());
    let wanted = tree(&served.path, false);
    served.end();
    assert_eq!(tree(served.mirror().path(), false), wanted, "what the operations make");
}

#[test]
fn a_program_is_started_while_nobody_serves() {
    let mut served = Served::new();
    // The first file of this mount: none was ever closed.
    let file = fs::File::create(served.path.join("f")).unwrap();
    served.kill();
    // Its copy of the file's descriptor is closed when it becomes the program.
    let starting = std::thread::spawn(|| Command::new("true").status());
    let limit = Instant::now() + Duration::from_secs(20);
    while !starting.is_finished() {
        if Instant::now() > limit {
            replica::front::clear_stale(&served.path).unwrap();
            panic!("a program cannot be started");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(starting.join().unwrap().unwrap().success());
    drop(file);
    served.begin();
    served.end();
}

#[test]
fn without_kept_descriptors_a_dead_mount_is_cleared() {
    let mut served = Served::new();
    fs::write(served.path.join("f"), b"x").unwrap();
    served.kill();
    served.store.clear();
    let error = fs::read(served.path.join("f")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    served.begin();
    assert_eq!(fs::read(served.path.join("f")).unwrap(), b"x");
    served.end();
    assert_eq!(fs::read(served.path.join("f")).unwrap(), b"x");
    assert_eq!(served.store.names(), [] as [&str; 0]);
}
