//! Two engines on disks of their own, one of which loses its power: only what it had recorded is compared, and that is enough.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod pair;

use pair::{Node, Pair, possible, until_equal};
use serde_json::{Value, json};
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Changes of all kinds in an order drawn from a seed, until it is stopped or the directory goes away.
struct Storm {
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

struct Dice(u64);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

impl Dice {
    /// `SEED=n` repeats an order of changes; `ROUNDS=n` makes it longer.
    fn from_environment() -> Self {
        let seed = number("SEED").unwrap_or_else(|| u64::from(std::process::id()));
        println!("SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn path(&mut self, dir: &Path) -> PathBuf {
        let file = format!("f{}", self.below(12));
        match self.below(4) {
            0 => dir.join(file),
            n => dir.join(format!("d{n}")).join(file),
        }
    }
}

fn step(dir: &Path, dice: &mut Dice) -> std::io::Result<()> {
    let path = dice.path(dir);
    let size = dice.below(3_000_000);
    match dice.below(14) {
        0 => fs::write(&path, vec![size as u8; size as usize]),
        // In place, which the file system itself keeps no record of.
        1..=4 => {
            let file = fs::File::options().write(true).open(&path)?;
            let length = file.metadata()?.len();
            file.write_all_at(&vec![size as u8; 5000], size % length.max(1))?;
            if dice.below(3) == 0 { file.sync_data() } else { Ok(()) }
        }
        5 => fs::File::options().append(true).open(&path)?.write_all(&vec![size as u8; 9000]),
        6 => fs::File::options().write(true).open(&path)?.set_len(size),
        7 => fs::rename(&path, dice.path(dir)),
        8 => fs::remove_file(&path),
        9 => fs::set_permissions(&path, fs::Permissions::from_mode(0o600 + size as u32 % 64)),
        10 => fs::hard_link(&path, dice.path(dir)),
        11 => fs::create_dir(dir.join(format!("d{}", 1 + dice.below(3)))),
        12 => {
            let (from, to) = (1 + dice.below(3), 4 + dice.below(2));
            fs::rename(dir.join(format!("d{from}")), dir.join(format!("d{to}")))?;
            fs::create_dir(dir.join(format!("d{from}")))
        }
        _ => {
            let mut file = fs::File::create(dir.join("db"))?;
            file.seek(SeekFrom::Start(20 << 20))?;
            file.write_all(&[size as u8; 100])
        }
    }
}

impl Storm {
    fn start(dir: &Path, seed: u64) -> Self {
        let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, dir) = (stop.clone(), steps.clone(), dir.to_owned());
        let thread = std::thread::spawn(move || {
            let mut dice = Dice(seed);
            while !stopped.load(SeqCst) {
                // What cannot be done in this tree is not done; without a daemon nothing can.
                match step(&dir, &mut dice) {
                    Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOTCONN | nix::libc::EIO)) => return,
                    _ => counted.fetch_add(1, SeqCst),
                };
            }
        });
        Self { stop, steps, thread }
    }

    /// Waits for some more steps, unless something else keeps it from going on.
    fn until_more(&self, more: u64, limit: Duration) {
        let (goal, deadline) = (self.steps.load(SeqCst) + more, Instant::now() + limit);
        while self.steps.load(SeqCst) < goal && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn finish(self) {
        self.stop.store(true, SeqCst);
        self.thread.join().unwrap();
    }
}

/// The node comes back as a secondary; the event that says how.
fn rejoin(node: &mut Node) -> Value {
    node.start_again();
    node.done(json!({"kind":"secondary"}));
    let begun = node.until("its resynchronisation", |e| e["kind"] == "resync_begin");
    node.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    begun
}

fn take_over(node: &mut Node) {
    node.until("the loss", |e| e["kind"] == "stream_lost");
    node.done(json!({"kind":"promote","peer":"excluded"}));
}

#[test]
fn a_primary_that_lost_its_power_in_a_storm_compares_its_record_and_is_equal() {
    if !possible() {
        return;
    }
    let mut dice = Dice::from_environment();
    let mut pair = Pair::synced(json!({"disks": true}));
    for round in 0..number("ROUNDS").unwrap_or(2) {
        let storm = Storm::start(&pair.a.dir, dice.below(u64::from(u32::MAX)));
        storm.until_more(150 + dice.below(200), Duration::from_secs(20));
        pair.b.forget();
        let held = round % 2 == 0;
        if held {
            // From here on only the primary has what is written; shorter than its patience.
            pair.wire.cut();
            storm.until_more(80, Duration::from_secs(2));
        }
        if dice.below(2) == 0 {
            pair.a.sync_disk();
        }
        storm.until_more(dice.below(20), Duration::from_secs(1));
        pair.a.power_off();
        storm.finish();
        take_over(&mut pair.b);
        pair.wire.heal();
        let storm = Storm::start(&pair.b.dir, dice.below(u64::from(u32::MAX)));
        storm.until_more(60, Duration::from_secs(10));
        let begun = rejoin(&mut pair.a);
        assert_eq!(begun["mode"], "incremental", "{begun}");
        storm.finish();
        until_equal(&pair.b.dir, &pair.a.dir);
        pair.b.done(json!({"kind":"demote"}));
        pair.a.done(json!({"kind":"promote","peer":"paired"}));
        pair.a.until_replica("the swap", |r| r["peer"] == "in_sync" && r["frozen"] == false);
    }
    until_equal(&pair.a.dir, &pair.b.dir);
}

/// Of what nobody was promised each disk has kept what it liked; whoever serves afterwards, the other one becomes equal.
#[test]
fn both_lose_their_power_in_a_storm_and_only_their_records_are_compared() {
    if !possible() {
        return;
    }
    let mut dice = Dice::from_environment();
    let mut pair = Pair::synced(json!({"disks": true}));
    let mut first = true;
    for _ in 0..number("ROUNDS").unwrap_or(2) {
        {
            let (primary, secondary) = if first { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
            let storm = Storm::start(&primary.dir, dice.below(u64::from(u32::MAX)));
            storm.until_more(150 + dice.below(200), Duration::from_secs(20));
            for _ in 0..dice.below(4) {
                match dice.below(3) {
                    0 => primary.sync_disk(),
                    1 => secondary.sync_disk(),
                    _ => {}
                }
                storm.until_more(dice.below(30), Duration::from_secs(1));
            }
            primary.power_off();
            secondary.power_off();
            storm.finish();
        }
        first = dice.below(2) == 0;
        let (primary, secondary) = if first { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
        primary.start_again();
        primary.done(json!({"kind":"primary","peer":"excluded","force":true}));
        let storm = Storm::start(&primary.dir, dice.below(u64::from(u32::MAX)));
        storm.until_more(dice.below(60), Duration::from_secs(10));
        let begun = rejoin(secondary);
        assert_eq!(begun["mode"], "incremental", "{begun}");
        storm.until_more(dice.below(60), Duration::from_secs(10));
        storm.finish();
        until_equal(&primary.dir, &secondary.dir);
    }
}

/// Its runner dies while its disk is full: the directory is blocked, and the next engine can release it.
#[test]
fn a_primary_that_ends_on_a_full_disk_can_follow_afterwards() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({"disks": true}));
    fs::write(pair.a.dir.join("before"), b"1").unwrap();
    let filler = pair.a.home().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    drop(file);
    pair.a.sync_disk();
    assert_eq!(fs::write(pair.a.home().join("more"), b"1").unwrap_err().raw_os_error(), Some(nix::libc::ENOSPC));
    pair.a.end_of_file();
    assert_eq!(fs::write(pair.a.dir.join("past"), b"").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    take_over(&mut pair.b);
    fs::remove_file(&filler).unwrap();
    fs::write(pair.b.dir.join("after"), b"2").unwrap();
    rejoin(&mut pair.a);
    until_equal(&pair.b.dir, &pair.a.dir);
}

#[test]
fn a_directory_that_is_mounted_read_only_is_refused_with_a_sentence() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({"disks": true}));
    // Nobody noted it.
    replica::engine::block::Block::new(&pair.a.dir).unwrap();
    for order in [json!({"kind":"secondary"}), json!({"kind":"primary","peer":"excluded","force":true})] {
        let answer = pair.a.order(order);
        let reason = answer["reason"].as_str().unwrap_or_default();
        assert!(answer["kind"] == "failed" && reason.contains("is mounted read-only"), "{answer}");
    }
    // Not by the block itself: it looks at the mounts of the whole process, and this thread has a namespace of its own.
    nix::mount::umount(&pair.a.dir).unwrap();
    pair.follow();
}

/// That both are equal must be on record before the secondary may count on it.
#[test]
fn a_resynchronisation_that_ends_on_a_full_disk_ends_when_there_is_room_again() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({"disks": true}));
    pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
    fs::write(pair.a.dir.join("file"), b"content").unwrap();
    let filler = pair.a.home().join("filler");
    let mut full = fs::File::create(&filler).unwrap();
    for size in [1 << 20, 4096, 1] {
        while full.write_all(&vec![7; size]).is_ok() {}
    }
    full.sync_all().unwrap();
    pair.b.done(json!({"kind":"secondary"}));
    pair.a.until("all is compared", |e| e["kind"] == "progress" && e["phase"] == "data");
    pair.b.until_replica("everything but the end", |r| r["peer"] == "syncing" && r["standing"] == "inconsistent");
    fs::remove_file(&filler).unwrap();
    drop(full);
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    pair.b.until_replica("b in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    until_equal(&pair.a.dir, &pair.b.dir);
}

#[test]
fn a_node_that_served_alone_and_lost_its_power_still_knows_what_its_peer_lacks() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({"disks": true}));
    let storm = Storm::start(&pair.a.dir, 7);
    storm.until_more(100, Duration::from_secs(20));
    pair.a.forget();
    pair.b.end_of_file();
    pair.a.until_replica("freeze", |r| r["frozen"] == true);
    pair.a.done(json!({"kind":"exclude_peer"}));
    storm.until_more(100, Duration::from_secs(20));
    pair.a.power_off();
    storm.finish();
    pair.a.start_again();
    pair.a.done(json!({"kind":"primary","peer":"excluded"}));
    let storm = Storm::start(&pair.a.dir, 8);
    storm.until_more(50, Duration::from_secs(20));
    let begun = rejoin(&mut pair.b);
    assert_eq!(begun["mode"], "incremental", "{begun}");
    storm.finish();
    until_equal(&pair.a.dir, &pair.b.dir);
}

/// Both halves of the promise: what is not on record is not looked at, and a record that lies is found out by a comparison that does not rely
/// on it.
#[test]
fn what_is_not_on_record_is_not_compared_and_a_record_that_lies_is_found_out() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({"disks": true}));
    fs::create_dir(pair.a.dir.join("old")).unwrap();
    for name in ["recorded", "forgotten", "never touched"] {
        fs::write(pair.a.dir.join("old").join(name), vec![1; 100_000]).unwrap();
    }
    pair.follow();
    let logs = ["activity.0", "activity.1"];
    let log = |pair: &Pair, name: &str| pair.a.home().join("state").join(name);
    let overwrite = |pair: &Pair, name: &str| {
        let file = fs::File::options().write(true).open(pair.a.dir.join("old").join(name)).unwrap();
        file.write_all_at(&[2; 10], 50_000).unwrap();
    };
    pair.wire.cut();
    overwrite(&pair, "recorded");
    let kept: Vec<_> = logs.iter().map(|name| fs::read(log(&pair, name)).unwrap()).collect();
    overwrite(&pair, "forgotten");
    pair.a.sync_disk();
    pair.a.power_off();
    take_over(&mut pair.b);
    pair.wire.heal();
    // The record of one overwrite is lost, and a file that nobody touched differs.
    for (name, content) in logs.iter().zip(kept) {
        fs::write(log(&pair, name), content).unwrap();
    }
    let unseen = fs::File::options().write(true).open(pair.a.dir.join("old/never touched")).unwrap();
    unseen.write_all_at(&[3; 10], 50_000).unwrap();
    drop(unseen);
    let begun = rejoin(&mut pair.a);
    assert_eq!(begun["mode"], "incremental", "{begun}");
    let (code, lines, _) = pair.b.verify(&[]);
    let mut differs: Vec<_> =
        lines.iter().filter(|l| l["kind"] == "difference").filter_map(|l| l["path"].as_str()).collect();
    differs.sort_unstable();
    differs.dedup();
    assert_eq!(differs, ["old/forgotten", "old/never touched"], "{lines:?}");
    assert_ne!(code, 0);
}
