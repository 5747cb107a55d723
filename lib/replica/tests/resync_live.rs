//! Do both trees end equal when the primary's changes while it is copied?

#![allow(clippy::expect_used)]

mod resync_support;

use replica::apply::Options;
use replica::change_map::ChangeMap;
use replica::op::{Kind, Op};
use replica::resync::{Config, Gone, Link, Mode, Resync, Summary};
use resync_support::*;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct Outcome {
    summary: Summary,
    bytes: u64,
    changes: u64,
}

/// Runs one resynchronisation from `a` to `b`, with a thread that changes `a` meanwhile when there is a seed.
fn resync(a: &Path, b: &Path, mode: Mode, seed: Option<u64>) -> Outcome {
    let locks = Arc::new(Locks::default());
    let resync = Resync::new(config(a, mode, Arc::clone(&locks), 7));
    let (pipe, receiver) = receiver(b, Options::default(), Some(Arc::clone(&resync)));
    pipe.send(&Op::ResyncBegin { full: true }, &[]);
    let stop = AtomicBool::new(false);
    let mut changes = 0;
    let summary = std::thread::scope(|scope| {
        let live = scope.spawn(|| {
            let Some(seed) = seed else { return 0 };
            let mut random = Random(seed);
            let count = std::sync::atomic::AtomicU64::new(0);
            let record = |op: &Op, payload: &[u8]| {
                pipe.send(op, payload);
                resync.note_live(op);
                count.fetch_add(1, Ordering::SeqCst);
            };
            let primary = Primary { tree: a.to_path_buf(), locks: &locks, record: Box::new(record), before: None };
            while !stop.load(Ordering::SeqCst) {
                primary.random(&mut random);
                if random.below(20) == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(random.below(600)));
                }
            }
            drop(primary);
            count.into_inner()
        });
        let summary = resync.run(&*pipe);
        stop.store(true, Ordering::SeqCst);
        changes = live.join().expect("the writer does not panic");
        summary
    });
    let bytes = pipe.bytes.load(Ordering::SeqCst);
    pipe.send(&Op::Goodbye, &[]);
    if let Err(e) = receiver.join() {
        panic!("seed {seed:?}: the receiver failed: {e}");
    }
    Outcome { summary: summary.expect("it ends"), bytes, changes }
}

fn fill(tree: &Path, seed: u64, count: usize, record: &dyn Fn(&Op, &[u8])) {
    let locks = Locks::default();
    let primary = Primary { tree: tree.to_path_buf(), locks: &locks, record: Box::new(record), before: None };
    let mut random = Random(seed);
    for _ in 0..count {
        primary.random(&mut random);
    }
}

fn check(a: &Path, b: &Path, seed: u64, what: &str) {
    let found = differences(a, b);
    assert!(found.is_empty(), "seed {seed}, {what}: {} differences\n{}", found.len(), found.join("\n"));
}

#[test]
fn equal_after_a_full_one_under_change() {
    for seed in 1..=24u64 {
        let at = tempfile::tempdir().expect("tempdir");
        let (a, b) = (at.path().join("a"), at.path().join("b"));
        std::fs::create_dir(&a).expect("mkdir");
        std::fs::create_dir(&b).expect("mkdir");
        fill(&a, seed * 31, 600, &|_, _| {});
        fill(&b, seed * 57, 600, &|_, _| {});
        let outcome = resync(&a, &b, Mode::Full, Some(seed * 101));
        check(&a, &b, seed, "full");
        println!("seed {seed}: {} live changes, {:?}", outcome.changes, outcome.summary);
    }
}

#[test]
fn equal_after_an_incremental_one_under_change() {
    for seed in 1..=24u64 {
        let at = tempfile::tempdir().expect("tempdir");
        let (a, b) = (at.path().join("a"), at.path().join("b"));
        std::fs::create_dir(&a).expect("mkdir");
        std::fs::create_dir(&b).expect("mkdir");
        fill(&a, seed * 13, 600, &|_, _| {});
        resync(&a, &b, Mode::Compare, None);
        check(&a, &b, seed, "before");
        let map = Mutex::new(ChangeMap::default());
        fill(&a, seed * 17, 60, &|op, payload| map.lock().expect("lock").record(op, payload.len()));
        let set = map.lock().expect("lock").all();
        let outcome = resync(&a, &b, Mode::Incremental(set), Some(seed * 103).filter(|_| seed % 3 != 0));
        check(&a, &b, seed, "incremental");
        println!("seed {seed}: {} live changes, {:?}", outcome.changes, outcome.summary);
    }
}

#[test]
fn copies_only_what_differs() {
    let at = tempfile::tempdir().expect("tempdir");
    let (a, b) = (at.path().join("a"), at.path().join("b"));
    std::fs::create_dir(&a).expect("mkdir");
    std::fs::create_dir(&b).expect("mkdir");
    let map = Mutex::new(ChangeMap::default());
    let locks = Locks::default();
    let record = |op: &Op, payload: &[u8]| map.lock().expect("lock").record(op, payload.len());
    let primary = Primary { tree: a.clone(), locks: &locks, record: Box::new(record), before: None };
    let mut random = Random(99);
    for number in 0..300 {
        primary.create(&format!("f{number}"), Kind::File).expect("create");
        primary.write(&format!("f{number}"), 0, &vec![(number % 250) as u8 + 1; 20_000]).expect("write");
    }
    primary.create("big", Kind::File).expect("create");
    for part in 0..32 {
        let bytes: Vec<u8> = (0..1 << 20).map(|_| random.below(255) as u8 + 1).collect();
        primary.write("big", part << 20, &bytes).expect("write");
    }
    let first = resync(&a, &b, Mode::Full, None);
    check(&a, &b, 0, "first");
    assert_eq!(first.summary.bytes, 300 * 20_000 + (32 << 20));
    // Nothing to do, known and unknown.
    map.lock().expect("lock").clear();
    let idle = resync(&a, &b, Mode::Compare, None);
    assert_eq!((idle.summary.bytes, idle.summary.files), (0, 0));
    // Two blocks of the large file, one small file, a new one and a removed one.
    primary.write("big", 5 << 20, b"x").expect("write");
    primary.write("big", (20 << 20) + 131_072 - 1, b"yy").expect("write");
    primary.write("f7", 3, b"z").expect("write");
    primary.create("new", Kind::File).expect("create");
    primary.write("new", 0, &[1; 100]).expect("write");
    primary.remove("f8").expect("remove");
    let set = map.lock().expect("lock").all();
    let third = resync(&a, &b, Mode::Incremental(set), None);
    check(&a, &b, 0, "third");
    assert_eq!(third.summary.bytes, 3 * 131_072 + 20_000 + 100);
    assert_eq!(third.summary.looked_at, 3);
    assert!(third.bytes < 600_000, "{}", third.bytes);
}

/// A file that is to be compared is removed, and its inode becomes a symbolic link of the same name before the question goes out.
#[test]
fn an_inode_that_becomes_something_else() {
    let at = tempfile::tempdir().expect("tempdir");
    let (a, b) = (at.path().join("a"), at.path().join("b"));
    for tree in [&a, &b] {
        std::fs::create_dir(tree).expect("mkdir");
        std::fs::write(tree.join("c"), tree.as_os_str().as_encoded_bytes()).expect("write");
    }
    let locks = Arc::new(Locks::default());
    let resync = Resync::new(config(&a, Mode::Full, Arc::clone(&locks), 7));
    let (pipe, receiver) = receiver(&b, Options::default(), Some(Arc::clone(&resync)));
    pipe.send(&Op::ResyncBegin { full: true }, &[]);
    let again = Again { pipe: &pipe, resync: &resync, tree: &a, locks: &locks, done: AtomicBool::new(false) };
    resync.run(&again).expect("it ends");
    assert!(again.done.into_inner(), "the file was asked for too early");
    pipe.send(&Op::Goodbye, &[]);
    if let Err(e) = receiver.join() {
        panic!("the receiver failed: {e}");
    }
    check(&a, &b, 0, "afterwards");
}

/// A link on which the application replaces the file when the walker knows of it and has not asked for it.
struct Again<'a> {
    pipe: &'a Pipe,
    resync: &'a Resync,
    tree: &'a Path,
    locks: &'a Locks,
    done: AtomicBool,
}

impl Link for Again<'_> {
    fn emit(&self, op: &Op, payload: &[u8]) -> Result<(), Gone> {
        self.pipe.emit(op, payload)
    }

    fn wait_room(&self, bytes: usize) -> Result<(), Gone> {
        // In the data phase room is asked for before a question.
        if self.resync.progress(self.now()).phase == "data" && !self.done.swap(true, Ordering::SeqCst) {
            let record = |op: &Op, payload: &[u8]| {
                self.pipe.send(op, payload);
                self.resync.note_live(op);
            };
            let primary =
                Primary { tree: self.tree.to_path_buf(), locks: self.locks, record: Box::new(record), before: None };
            let ino = |name: &str| self.tree.join(name).symlink_metadata().expect("stat").ino();
            let wanted = ino("c");
            primary.remove("c").expect("removed");
            // Most file systems give the number to the next object; one that does not has nothing to get wrong.
            for n in 0..100 {
                let name = format!("other{n}");
                primary.create(&name, replica::op::Kind::Symlink).expect("made");
                if ino(&name) == wanted {
                    primary.rename(&name, "c", 0).expect("renamed");
                    break;
                }
            }
        }
        self.pipe.wait_room(bytes)
    }

    fn finish(&self) -> Result<bool, Gone> {
        self.pipe.finish()
    }

    fn now(&self) -> std::time::Duration {
        self.pipe.now()
    }
}

#[test]
fn cancelled_and_run_again() {
    let at = tempfile::tempdir().expect("tempdir");
    let (a, b) = (at.path().join("a"), at.path().join("b"));
    std::fs::create_dir(&a).expect("mkdir");
    std::fs::create_dir(&b).expect("mkdir");
    for number in 0..64 {
        std::fs::write(a.join(format!("f{number}")), vec![number as u8 + 1; 1 << 20]).expect("write");
    }
    let running =
        Resync::new(Config { bandwidth: Some(16 << 20), ..config(&a, Mode::Full, Arc::new(Locks::default()), 1) });
    let (pipe, receiver) = receiver(&b, Options::default(), Some(Arc::clone(&running)));
    pipe.send(&Op::ResyncBegin { full: true }, &[]);
    let started = std::time::Instant::now();
    let sent = std::thread::scope(|scope| {
        let run = scope.spawn(|| running.run(&*pipe));
        while running.progress(replica::resync::Link::now(&*pipe)).sent < 16 << 20 {
            assert!(started.elapsed().as_secs() < 30, "no progress");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        running.cancel();
        assert!(run.join().expect("no panic").is_err());
        running.progress(replica::resync::Link::now(&*pipe))
    });
    // 16 MiB at 16 MiB a second.
    assert!(started.elapsed().as_millis() > 800, "the bandwidth is not kept: {:?}", started.elapsed());
    assert_eq!(sent.files_total, 64);
    pipe.send(&Op::Goodbye, &[]);
    let (applier, _) = receiver.join().expect("it stays usable");
    assert!(applier.is_inconsistent());
    let again = resync(&a, &b, Mode::Full, None);
    check(&a, &b, 0, "again");
    assert!(again.summary.bytes <= (64 << 20) - (16 << 20), "{}", again.summary.bytes);
}

/// Run by hand: `cargo test --profile lab -p replica --test resync_live -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let at = tempfile::tempdir().expect("tempdir");
    let (a, b) = (at.path().join("a"), at.path().join("b"));
    std::fs::create_dir(&a).expect("mkdir");
    std::fs::create_dir(&b).expect("mkdir");
    for dir in 0..100 {
        std::fs::create_dir(a.join(format!("d{dir}"))).expect("mkdir");
        for number in 0..100 {
            std::fs::write(a.join(format!("d{dir}/f{number}")), vec![1; 4096]).expect("write");
        }
    }
    let small = resync(&a, &b, Mode::Full, None).summary;
    println!("10000 files of 4 KiB, new: {small:?}");
    let equal = resync(&a, &b, Mode::Compare, None).summary;
    println!("10000 files, equal: {equal:?}");
    let mut random = Random(5);
    let mib = random.bytes(1 << 20);
    let file = std::fs::File::create(a.join("big")).expect("create");
    for part in 0..1024u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &mib, part << 20).expect("write");
        std::os::unix::fs::FileExt::write_all_at(&file, &part.to_le_bytes(), part << 20).expect("write");
    }
    println!("1 GiB, new: {:?}", resync(&a, &b, Mode::Full, None).summary);
    println!("1 GiB, equal: {:?}", resync(&a, &b, Mode::Compare, None).summary);
    check(&a, &b, 0, "throughput");
}
