//! Do both trees end equal, whatever happens between two steps? One thread, one seed: live changes and the receiver's progress are
//! drawn between the steps of the walker.

#![allow(clippy::expect_used)]

mod resync_support;

use lineage::EpochId;
use replica::activity::{Activity, Touch, Worth};
use replica::apply::{Applied, Applier, Options};
use replica::change_map::{ChangeMap, DirtySet};
use replica::op::{Op, Time};
use replica::resync::{Config, Gone, Link, Mode, Resync};
use replica::stream::message::StreamId;
use resync_support::*;
use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct World {
    random: Mutex<Random>,
    queue: Mutex<VecDeque<(Op, Vec<u8>)>>,
    applier: Mutex<Applier>,
    resync: Arc<Resync>,
    locks: Arc<Locks>,
    tree: std::path::PathBuf,
    /// Live changes left to be made.
    budget: Mutex<u64>,
    failure: Mutex<Option<String>>,
    ignored: Mutex<u64>,
}

impl World {
    fn push(&self, op: &Op, payload: &[u8]) {
        let text = serde_json::to_string(op).expect("json");
        self.queue.lock().expect("lock").push_back((serde_json::from_str(&text).expect("json"), payload.to_vec()));
    }

    fn receive(&self, frames: u64) {
        for _ in 0..frames {
            let Some((op, payload)) = self.queue.lock().expect("lock").pop_front() else { return };
            match self.applier.lock().expect("lock").apply(&op, &payload) {
                Ok(Applied::Done) => {}
                Ok(Applied::Ignored) => *self.ignored.lock().expect("lock") += 1,
                Ok(Applied::Answer(bytes)) => assert!(self.resync.answer(&bytes)),
                Err(e) => {
                    self.failure.lock().expect("lock").get_or_insert(format!("{e} in {op:?}"));
                    self.resync.cancel();
                    return;
                }
            }
        }
    }
}

impl Link for World {
    fn emit(&self, op: &Op, payload: &[u8]) -> Result<(), Gone> {
        self.push(op, payload);
        Ok(())
    }

    fn wait_room(&self, bytes: usize) -> Result<(), Gone> {
        let (changes, frames) = {
            let mut random = self.random.lock().expect("lock");
            (random.below(4), if bytes == 0 { 1000 } else { random.below(6) })
        };
        for _ in 0..changes {
            let mut budget = self.budget.lock().expect("lock");
            if *budget == 0 {
                break;
            }
            *budget -= 1;
            drop(budget);
            let record = |op: &Op, payload: &[u8]| {
                self.push(op, payload);
                self.resync.note_live(op);
            };
            let primary =
                Primary { tree: self.tree.clone(), locks: &self.locks, record: Box::new(record), before: None };
            primary.random(&mut self.random.lock().expect("lock"));
        }
        self.receive(frames);
        Ok(())
    }

    fn finish(&self) -> Result<bool, Gone> {
        self.push(&Op::ResyncEnd, &[]);
        Ok(true)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

fn fill(tree: &Path, random: &mut Random, count: usize, record: &dyn Fn(&Op, &[u8])) {
    let locks = Locks::default();
    let primary = Primary { tree: tree.to_path_buf(), locks: &locks, record: Box::new(record), before: None };
    for _ in 0..count {
        primary.random(random);
    }
}

/// One resynchronisation; returns how many live operations did not apply.
fn run(a: &Path, b: &Path, mode: Mode, seed: u64, changes: u64) -> u64 {
    run_with(a, b, mode, (seed, changes), None, None)
}

/// The same; `foreign`: what the other node says that it changed; `recent`: after a crash of both, since when there may be changes.
fn run_with(
    a: &Path,
    b: &Path,
    mode: Mode,
    (seed, changes): (u64, u64),
    foreign: Option<&DirtySet>,
    recent: Option<Time>,
) -> u64 {
    let locks = Arc::new(Locks::default());
    let plain = config(a, mode, Arc::clone(&locks), seed as u32);
    let resync = Resync::new(Config { foreign: foreign.is_some(), recent, ..plain });
    if let Some(set) = foreign {
        let bytes = set.to_bytes();
        let mut parts = bytes.chunks(1000).peekable();
        while let Some(part) = parts.next() {
            resync.add_foreign(part, parts.peek().is_none());
        }
    }
    resync.set_names_per_step(1 + (seed % 5) as usize);
    let world = World {
        random: Mutex::new(Random(seed * 7919)),
        queue: Mutex::default(),
        applier: Mutex::new(Applier::new(
            vec![root_fd(b)],
            Options { since: recent.unwrap_or_default(), ..Options::default() },
        )),
        resync: Arc::clone(&resync),
        locks,
        tree: a.to_path_buf(),
        budget: Mutex::new(changes),
        failure: Mutex::default(),
        ignored: Mutex::default(),
    };
    world.push(&Op::ResyncBegin { full: true }, &[]);
    let result = resync.run(&world);
    world.receive(u64::MAX);
    if let Some(failure) = world.failure.lock().expect("lock").take() {
        panic!("seed {seed}: {failure}");
    }
    if let Err(e) = result {
        panic!("seed {seed}: {e}");
    }
    let found = differences(a, b);
    assert!(found.is_empty(), "seed {seed}: {} differences\n{}", found.len(), found.join("\n"));
    // Some more changes: the trees follow in step.
    *world.budget.lock().expect("lock") = 50;
    while *world.budget.lock().expect("lock") > 0 {
        world.wait_room(1).expect("room");
    }
    world.receive(u64::MAX);
    if let Some(failure) = world.failure.lock().expect("lock").take() {
        panic!("seed {seed}, afterwards: {failure}");
    }
    let found = differences(a, b);
    assert!(found.is_empty(), "seed {seed}, afterwards: {} differences\n{}", found.len(), found.join("\n"));
    world.ignored.into_inner().expect("lock")
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    // RESYNC_SEEDS=from-to for a longer search.
    let range = std::env::var("RESYNC_SEEDS").ok();
    let parsed =
        range.as_deref().and_then(|r| r.split_once('-')).and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let (from, to) = parsed.unwrap_or((1, 40));
    from..=to
}

fn trees() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let at = tempfile::tempdir().expect("tempdir");
    let (a, b) = (at.path().join("a"), at.path().join("b"));
    std::fs::create_dir(&a).expect("mkdir");
    std::fs::create_dir(&b).expect("mkdir");
    (at, a, b)
}

#[test]
fn unrelated_trees() {
    let mut ignored = 0;
    for seed in seeds() {
        let (_at, a, b) = trees();
        let mut random = Random(seed * 31);
        fill(&a, &mut random, 500, &|_, _| {});
        fill(&b, &mut random, 500, &|_, _| {});
        ignored += run(&a, &b, Mode::Full, seed, 150);
    }
    assert!(ignored > 0, "the test is too easy: everything applied");
}

#[test]
fn a_recorded_difference() {
    for seed in seeds() {
        let (_at, a, b) = trees();
        let mut random = Random(seed * 17);
        fill(&a, &mut random, 500, &|_, _| {});
        run(&a, &b, Mode::Compare, seed, 0);
        let map = Mutex::new(ChangeMap::default());
        for number in 0..4 {
            fill(&a, &mut random, 25, &|op, payload| map.lock().expect("lock").record(op, payload.len()));
            map.lock().expect("lock").seal(number);
        }
        let set = DirtySet::from_bytes(&map.lock().expect("lock").all().to_bytes()).expect("readable");
        run(&a, &b, Mode::Incremental(set), seed, if seed % 4 == 0 { 0 } else { 80 });
    }
}

#[test]
fn what_a_crashed_peer_did_alone() {
    // Both changed: what each recorded, merged, is enough.
    for seed in seeds() {
        let (_at, a, b) = trees();
        let mut random = Random(seed * 23);
        fill(&a, &mut random, 400, &|_, _| {});
        run(&a, &b, Mode::Compare, seed, 0);
        let (mine, theirs) = (Mutex::new(ChangeMap::default()), Mutex::new(ChangeMap::default()));
        fill(&a, &mut random, 50, &|op, payload| mine.lock().expect("lock").record(op, payload.len()));
        fill(&b, &mut random, 50, &|op, payload| theirs.lock().expect("lock").record(op, payload.len()));
        let set = mine.lock().expect("lock").all();
        let foreign = theirs.lock().expect("lock").all();
        run_with(&a, &b, Mode::Incremental(set), (seed, 60), Some(&foreign), None);
    }
}

/// The time of a kernel clock that has moved on since the call.
fn moment() -> Time {
    let now = || rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let before = now();
    loop {
        let now = now();
        if now != before {
            return Time(now.tv_sec, now.tv_nsec as u32);
        }
        std::thread::yield_now();
    }
}

#[test]
fn what_a_crash_of_both_left() {
    // Every change was on the primary's record before it was made. The first ones reached both disks, the others one of them.
    let mut kept = [0, 0];
    for seed in seeds() {
        let (at, a, b) = trees();
        let mut random = Random(seed * 41);
        fill(&a, &mut random, 400, &|_, _| {});
        run(&a, &b, Mode::Compare, seed, 0);
        let state = at.path().join("state");
        std::fs::create_dir(&state).expect("mkdir");
        let (log, head) = (StreamId(1), EpochId(1));
        let (activity, _) = Activity::open(&state, None, log).expect("a log");
        let worth = Worth { id: StreamId(2), base: Some(head), also: None };
        activity.restart(worth, &DirtySet::default(), true).expect("written");
        let since = moment();
        // Which object of `a` is at a path of `b`. What is made on `b` alone has a number that nothing has on `a`.
        let numbers: Mutex<HashMap<u64, u64>> = Mutex::default();
        let applier = Mutex::new(Applier::new(vec![root_fd(&b)], Options::default()));
        let follow = |op: &Op, payload: &[u8]| {
            activity.applied(op);
            applier.lock().expect("lock").apply(op, payload).expect("it applies");
        };
        let locks = Locks::default();
        let primary = Primary {
            tree: a.clone(),
            locks: &locks,
            record: Box::new(follow),
            before: Some(Box::new(|touch| activity.about_to(touch).expect("recorded"))),
        };
        for _ in 0..40 {
            primary.random(&mut random);
        }
        drop(primary);
        applier.lock().expect("lock").settle();
        for name in picture(&b).keys().filter(|name| !name.is_empty()) {
            let ino = |tree: &Path| tree.join(name).symlink_metadata().expect("stat").ino();
            numbers.lock().expect("lock").insert(ino(&b), ino(&a));
        }
        numbers.lock().expect("lock").insert(b.metadata().expect("stat").ino(), a.metadata().expect("stat").ino());
        let secondary_kept = seed % 2 == 0;
        let number = |ino: u64| {
            if secondary_kept { *numbers.lock().expect("lock").entry(ino).or_insert(ino | 1 << 50) } else { ino }
        };
        let touch = |touch: &Touch<'_>| {
            let touch = match *touch {
                Touch::Names { dir, parent, path } => Touch::Names { dir, parent: number(parent), path },
                Touch::Content { dir, ino, path, offset, end, state } => {
                    Touch::Content { dir, ino: number(ino), path, offset, end, state }
                }
                Touch::Attributes { dir, ino, path, links } => Touch::Attributes { dir, ino: number(ino), path, links },
                Touch::Emptied { dir, ino, path, links } => Touch::Emptied { dir, ino: number(ino), path, links },
                Touch::Renamed { dir, ino, from, path, directory } => {
                    Touch::Renamed { dir, ino: number(ino), from, path, directory }
                }
            };
            activity.about_to(&touch).expect("recorded");
        };
        let record = |op: &Op, _: &[u8]| {
            let mut op = op.clone();
            if let Op::Create { ino, .. } | Op::Symlink { ino, .. } | Op::Unlink { ino, .. } | Op::Rmdir { ino, .. } =
                &mut op
            {
                *ino = number(*ino);
            }
            activity.applied(&op);
        };
        let last = Primary {
            tree: if secondary_kept { b.clone() } else { a.clone() },
            locks: &locks,
            record: Box::new(record),
            before: Some(Box::new(touch)),
        };
        for _ in 0..25 {
            last.random(&mut random);
        }
        drop(last);
        kept[usize::from(secondary_kept)] += differences(&a, &b).len();
        let mut recovered = Activity::open(&state, Some(log), StreamId(3)).expect("a log").1;
        // The log takes a margin of seconds, which these trees are not old enough for.
        recovered.header.since = since;
        let set = recovered.resolve(&[root_fd(&a)]).expect("resolved");
        assert!(!set.everything());
        // Whoever serves afterwards.
        if seed % 4 < 2 {
            run_with(&a, &b, Mode::Incremental(set), (seed, 60), None, Some(since));
        } else {
            run_with(&b, &a, Mode::Incremental(DirtySet::default()), (seed, 60), Some(&set), Some(since));
        }
    }
    assert!(kept.iter().all(|differences| *differences > 20), "the test is too easy: {kept:?}");
}
