//! Two engines as processes: follow, freeze, resume, exclude, rejoin, swap, take over, be killed.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod pair;

use pair::{Pair, Writer, check_acknowledged, possible, until_equal};
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

#[test]
fn a_secondary_follows_and_a_barrier_is_with_it_when_it_returns() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    std::fs::create_dir(pair.a.dir.join("before")).unwrap();
    std::fs::write(pair.a.dir.join("before/file"), b"was here").unwrap();
    pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
    pair.b.done(json!({"kind":"secondary"}));
    pair.b.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    until_equal(&pair.a.dir, &pair.b.dir);
    for n in 0..50 {
        let mut file = std::fs::File::create(pair.a.dir.join(format!("f{n}"))).unwrap();
        file.write_all(format!("content {n}").as_bytes()).unwrap();
        file.sync_all().unwrap();
        // No waiting here: fsync has returned.
        assert_eq!(std::fs::read_to_string(pair.b.dir.join(format!("f{n}"))).unwrap(), format!("content {n}"));
    }
    let refused = std::fs::write(pair.b.dir.join("mine"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    until_equal(&pair.a.dir, &pair.b.dir);
    // The end of the runner gives the secondary's directory back; the primary's only to the next order, since the application may
    // still be there.
    pair.a.end_of_file();
    pair.b.end_of_file();
    let past = std::fs::write(pair.a.dir.join("plain"), b"x").unwrap_err();
    assert_eq!(past.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    std::fs::write(pair.b.dir.join("plain"), b"x").unwrap();
}

#[test]
fn a_killed_secondary_freezes_the_primary_and_resumes() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    let writer = Writer::start(&pair.a.dir);
    for _ in 0..3 {
        writer.until_more(20);
        pair.a.forget();
        pair.b.kill_and_restart();
        pair.a.until("the loss", |e| e["kind"] == "stream_lost");
        pair.b.done(json!({"kind":"secondary"}));
        pair.b.until("resume", |e| e["kind"] == "resync_begin" && e["mode"] == "resume");
        pair.a.until_replica("thaw", |r| r["peer"] == "in_sync" && r["frozen"] == false);
    }
    writer.until_more(20);
    let acknowledged = writer.finish();
    until_equal(&pair.a.dir, &pair.b.dir);
    check_acknowledged(&pair.b.dir, &acknowledged);
}

#[test]
fn a_killed_primary_engine_is_not_noticed_by_the_application() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    let writer = Writer::start(&pair.a.dir);
    for _ in 0..3 {
        writer.until_more(20);
        pair.a.kill_and_restart();
        pair.a.done(json!({"kind":"primary","peer":"paired"}));
        pair.a.until_replica("back in sync", |r| r["peer"] == "in_sync" && r["frozen"] == false);
    }
    writer.until_more(20);
    let acknowledged = writer.finish();
    until_equal(&pair.a.dir, &pair.b.dir);
    check_acknowledged(&pair.b.dir, &acknowledged);
}

#[test]
fn a_silent_cut_is_noticed_freezes_and_heals() {
    if !possible() {
        return;
    }
    let pair = Pair::synced(json!({"async":"none"}));
    let writer = Writer::start(&pair.a.dir);
    writer.until_more(20);
    pair.a.forget();
    pair.b.forget();
    let start = Instant::now();
    pair.wire.cut();
    pair.a.until_replica("freeze", |r| r["frozen"] == true && r["peer"] == "lost");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    let before = writer.count();
    pair.b.until("its own loss", |e| e["kind"] == "stream_lost");
    assert!(writer.count() <= before + 1, "acknowledged without the peer");
    pair.wire.heal();
    pair.a.until_replica("thaw", |r| r["frozen"] == false && r["peer"] == "in_sync");
    writer.until_more(20);
    let acknowledged = writer.finish();
    until_equal(&pair.a.dir, &pair.b.dir);
    check_acknowledged(&pair.b.dir, &acknowledged);
}

#[test]
fn an_excluded_peer_comes_back_incrementally() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    std::fs::write(pair.a.dir.join("big"), vec![7; 3 << 20]).unwrap();
    std::fs::File::open(pair.a.dir.join("big")).unwrap().sync_all().unwrap();
    let epoch = pair.a.until_replica("epoch", |_| true)["lineage"][0]["id"].clone();
    let writer = Writer::start(&pair.a.dir);
    writer.until_more(10);
    pair.b.end_of_file();
    pair.a.until_replica("freeze", |r| r["frozen"] == true);
    pair.a.done(json!({"kind":"exclude_peer"}));
    let alone = pair.a.until_replica("alone", |r| r["standing"] == "alone" && r["frozen"] == false);
    assert_ne!(alone["lineage"][0]["id"], epoch, "a new epoch");
    assert_eq!(alone["lineage"][1]["id"], epoch);
    writer.until_more(50);
    pair.b.start_again();
    pair.a.forget();
    pair.b.done(json!({"kind":"secondary"}));
    let begin = pair.b.until("resync", |e| e["kind"] == "resync_begin");
    assert_eq!(begin["mode"], "incremental");
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    let end = pair.a.until("figures", |e| e["kind"] == "resync_end");
    assert!(end["bytes"].as_u64().unwrap() < 3 << 20, "copied what had not changed: {end}");
    writer.until_more(20);
    let acknowledged = writer.finish();
    until_equal(&pair.a.dir, &pair.b.dir);
    check_acknowledged(&pair.b.dir, &acknowledged);
}

/// Its runner repeats to the successor what was not answered: whether the dead engine had excluded its peer is not known to it.
#[test]
fn an_engine_that_dies_around_an_exclusion_goes_on_alone() {
    if !possible() {
        return;
    }
    for carried_out in [true, false] {
        let mut pair = Pair::synced(json!({}));
        let writer = Writer::start(&pair.a.dir);
        writer.until_more(10);
        pair.b.end_of_file();
        pair.a.until_replica("freeze", |r| r["frozen"] == true);
        if carried_out {
            pair.a.done(json!({"kind":"exclude_peer"}));
            writer.until_more(10);
        }
        pair.a.kill_and_restart();
        pair.a.done(json!({"kind":"primary","peer":"excluded"}));
        pair.a.done(json!({"kind":"exclude_peer"}));
        pair.a.until_replica("alone", |r| r["standing"] == "alone" && r["frozen"] == false);
        writer.until_more(10);
        let acknowledged = writer.finish();
        check_acknowledged(&pair.a.dir, &acknowledged);
        pair.b.start_again();
        pair.b.done(json!({"kind":"secondary"}));
        pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        until_equal(&pair.a.dir, &pair.b.dir);
        check_acknowledged(&pair.b.dir, &acknowledged);
    }
}

#[test]
fn roles_are_swapped_without_a_copy() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    let writer = Writer::start(&pair.a.dir);
    writer.until_more(30);
    let acknowledged = writer.finish();
    pair.a.forget();
    pair.a.done(json!({"kind":"demote"}));
    pair.b.done(json!({"kind":"promote","peer":"paired"}));
    let begin = pair.a.until("continue", |e| e["kind"] == "resync_begin");
    assert_eq!(begin["mode"], "resume");
    pair.b.until_replica("thaw", |r| r["role"] == "primary" && r["frozen"] == false && r["peer"] == "in_sync");
    check_acknowledged(&pair.b.dir, &acknowledged);
    let writer = Writer::start(&pair.b.dir);
    writer.until_more(30);
    let acknowledged = writer.finish();
    check_acknowledged(&pair.a.dir, &acknowledged);
    until_equal(&pair.b.dir, &pair.a.dir);
}

#[test]
fn a_takeover_has_everything_and_the_former_primary_rejoins() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    let writer = Writer::start(&pair.a.dir);
    writer.until_more(50);
    let acknowledged = writer.finish();
    pair.a.kill();
    pair.a.end_of_file();
    pair.b.until("the loss", |e| e["kind"] == "stream_lost");
    pair.b.done(json!({"kind":"promote","peer":"excluded"}));
    pair.b.until_replica("alone", |r| r["standing"] == "alone" && r["frozen"] == false);
    check_acknowledged(&pair.b.dir, &acknowledged);
    std::fs::write(pair.b.dir.join("news"), b"after the takeover").unwrap();
    pair.a.start_again();
    pair.a.done(json!({"kind":"secondary"}));
    let begin = pair.a.until("copy", |e| e["kind"] == "resync_begin");
    assert_eq!(begin["mode"], "incremental", "both know what they changed");
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    until_equal(&pair.b.dir, &pair.a.dir);
}

#[test]
fn what_cannot_be_ordered_is_refused_with_a_sentence() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    let refused = pair.a.order(json!({"kind":"primary","peer":"excluded"}));
    assert_eq!(refused["kind"], "failed");
    assert!(refused["reason"].as_str().unwrap().contains("blank"), "{refused}");
    let refused = pair.a.order(json!({"kind":"promote","peer":"paired"}));
    assert_eq!(refused["kind"], "failed");
    std::fs::remove_dir(&pair.a.dir).unwrap();
    let refused = pair.a.order(json!({"kind":"primary","peer":"excluded","force":true}));
    assert_eq!(refused["kind"], "failed");
    assert!(refused["hint"].as_str().unwrap().contains("create"), "{refused}");
    std::fs::create_dir(&pair.a.dir).unwrap();
}

/// Kills, cuts and swaps in an order drawn from a seed, while an application writes. `SEED=n` repeats one.
#[test]
fn accidents_in_any_order_lose_nothing_acknowledged() {
    if !possible() {
        return;
    }
    let mut seed: u64 =
        std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let mut pair = Pair::synced(json!({"async": if seed.is_multiple_of(2) { "none" } else { "second" }}));
    let writer = Writer::start(&pair.a.dir);
    for _ in 0..8 {
        writer.until_more(15);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pair.a.forget();
        pair.b.forget();
        match (seed >> 33) % 4 {
            0 => {
                pair.a.kill_and_restart();
                pair.a.done(json!({"kind":"primary","peer":"paired"}));
            }
            1 => {
                pair.b.kill_and_restart();
                pair.b.done(json!({"kind":"secondary"}));
            }
            2 => {
                pair.a.kill_and_restart();
                pair.b.kill_and_restart();
                pair.b.done(json!({"kind":"secondary"}));
                pair.a.done(json!({"kind":"primary","peer":"paired"}));
            }
            _ => {
                pair.wire.cut();
                pair.a.until_replica("freeze", |r| r["frozen"] == true);
                pair.wire.heal();
            }
        }
        pair.a.until_replica("thaw", |r| r["frozen"] == false && r["peer"] == "in_sync");
        let seen = writer.acknowledged.lock().unwrap().clone();
        check_acknowledged(&pair.b.dir, &seen);
    }
    writer.until_more(15);
    let acknowledged = writer.finish();
    until_equal(&pair.a.dir, &pair.b.dir);
    check_acknowledged(&pair.b.dir, &acknowledged);
}

#[test]
fn every_change_waits_with_sync_write() {
    if !possible() {
        return;
    }
    let pair = Pair::synced(json!({"sync":"write","async":"none"}));
    for n in 0..30 {
        // No fsync.
        std::fs::write(pair.a.dir.join(format!("w{n}")), [n; 100]).unwrap();
        assert_eq!(std::fs::read(pair.b.dir.join(format!("w{n}"))).unwrap(), [n; 100]);
        std::fs::rename(pair.a.dir.join(format!("w{n}")), pair.a.dir.join("w")).unwrap();
        assert!(!pair.b.dir.join(format!("w{n}")).exists());
    }
}

#[test]
fn an_interrupted_resynchronisation_goes_on_and_the_application_never_waits_for_it() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({"resync_bandwidth_kbs": 20_000}));
    for n in 0..40_u8 {
        std::fs::write(pair.a.dir.join(format!("blob{n}")), vec![n; 1 << 20]).unwrap();
    }
    pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
    let writer = Writer::start(&pair.a.dir);
    pair.b.done(json!({"kind":"secondary"}));
    pair.b.until("the copy", |e| e["kind"] == "resync_begin");
    pair.a.until("progress", |e| e["kind"] == "progress" && e["bytes"].as_u64() > Some(1 << 20));
    pair.b.kill_and_restart();
    pair.a.until("the loss", |e| e["kind"] == "stream_lost");
    let alone = pair.a.until_replica("alone", |r| r["peer"] == "absent");
    assert_eq!((&alone["standing"], &alone["frozen"]), (&json!("alone"), &json!(false)));
    writer.until_more(20);
    assert_eq!(pair.b.until_replica("inconsistent", |_| true)["standing"], "inconsistent");
    pair.b.done(json!({"kind":"secondary"}));
    pair.a.kill_and_restart();
    pair.a.done(json!({"kind":"primary","peer":"excluded"}));
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    writer.until_more(20);
    let acknowledged = writer.finish();
    until_equal(&pair.a.dir, &pair.b.dir);
    check_acknowledged(&pair.b.dir, &acknowledged);
}

#[test]
fn a_resynchronisation_gets_on_however_much_the_application_writes() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    for n in 0..6_u8 {
        std::fs::write(pair.a.dir.join(format!("blob{n}")), vec![n; 1 << 20]).unwrap();
    }
    pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
    // More than the wire carries: whoever waits for room in the window finds it taken.
    pair.wire.slow(8 << 20);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["one", "two"] {
            let (file, stop) = (std::fs::File::create(pair.a.dir.join(name)).unwrap(), &stop);
            scope.spawn(move || {
                let blocks = (0..16_u64).cycle().zip(0_u8..=255);
                for (block, byte) in blocks.cycle().take_while(|_| !stop.load(SeqCst)) {
                    file.write_all_at(&vec![byte; 128 << 10], block << 17).unwrap();
                }
            });
        }
        let _stop = Stop(&stop);
        pair.b.done(json!({"kind":"secondary"}));
        pair.a.until_replica("b in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    });
    pair.wire.slow(0);
    until_equal(&pair.a.dir, &pair.b.dir);
}

/// What a step of many small files asks room for is much more than what it uses: with a window that is too small for it, each would wait until the
/// secondary says by itself how far it is, twice a second.
#[test]
fn a_resynchronisation_of_many_small_files_does_not_wait_for_signs_of_life() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    for n in 0..1000_u16 {
        std::fs::write(pair.a.dir.join(n.to_string()), n.to_be_bytes().repeat(2048)).unwrap();
    }
    pair.follow();
    until_equal(&pair.a.dir, &pair.b.dir);
}

/// Ends other threads also when this one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_clean_stop_of_both_is_remembered() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    let writer = Writer::start(&pair.a.dir);
    writer.until_more(20);
    writer.finish();
    pair.until_checkpoint();
    pair.a.done(json!({"kind":"retire"}));
    pair.b.until_replica("goodbye", |r| r["peer"] == "left" || r["peer"] == "absent");
    pair.b.done(json!({"kind":"promote","peer":"excluded"}));
    std::fs::write(pair.b.dir.join("news"), b"1").unwrap();
    pair.b.done(json!({"kind":"retire"}));
    pair.a.end_of_file();
    pair.b.end_of_file();
    pair.a.start_again();
    pair.b.start_again();
    pair.b.done(json!({"kind":"primary","peer":"excluded"}));
    std::fs::write(pair.b.dir.join("news2"), b"2").unwrap();
    pair.a.done(json!({"kind":"secondary"}));
    let begin = pair.a.until("copy", |e| e["kind"] == "resync_begin");
    assert_eq!(begin["mode"], "incremental");
    pair.b.until_replica("in sync", |r| r["peer"] == "in_sync");
    until_equal(&pair.b.dir, &pair.a.dir);
}

#[test]
fn two_directories_share_a_stream_and_what_is_excluded_stays_local() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({"two": true}));
    let (a, b) = (pair.a.second(), pair.b.second());
    std::fs::create_dir(a.join("skip")).unwrap();
    std::fs::write(a.join("skip/before"), b"mine").unwrap();
    std::fs::write(b.join("own.tmp"), b"of b").unwrap();
    std::fs::write(b.join("foreign"), b"not known to a").unwrap();
    std::fs::write(a.join("kept"), b"1").unwrap();
    pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
    pair.b.done(json!({"kind":"secondary"}));
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync");
    std::fs::write(pair.a.dir.join("first"), b"1").unwrap();
    std::fs::write(a.join("live.tmp"), b"mine").unwrap();
    std::fs::write(a.join("skip/live"), b"mine").unwrap();
    let mut file = std::fs::File::create(a.join("live")).unwrap();
    file.write_all(b"both").unwrap();
    file.sync_all().unwrap();
    assert_eq!(std::fs::read(b.join("live")).unwrap(), b"both");
    assert_eq!(std::fs::read(pair.b.dir.join("first")).unwrap(), b"1");
    assert_eq!(std::fs::read(b.join("kept")).unwrap(), b"1");
    assert_eq!(std::fs::read(b.join("own.tmp")).unwrap(), b"of b");
    assert!(!b.join("live.tmp").exists() && !b.join("skip").exists() && !b.join("foreign").exists());
    assert_eq!(std::fs::read(a.join("skip/live")).unwrap(), b"mine");
    // Both directories survive a restart of the engine.
    pair.a.kill_and_restart();
    pair.a.done(json!({"kind":"primary","peer":"paired"}));
    file.write_all(b" again").unwrap();
    file.sync_all().unwrap();
    assert_eq!(std::fs::read(b.join("live")).unwrap(), b"both again");
}

#[test]
fn what_a_split_brain_overwrites_is_salvaged() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    std::fs::write(pair.a.dir.join("both"), b"common").unwrap();
    pair.wire.cut();
    pair.a.until_replica("freeze", |r| r["frozen"] == true);
    pair.b.until("the loss", |e| e["kind"] == "stream_lost");
    pair.a.done(json!({"kind":"exclude_peer"}));
    pair.b.done(json!({"kind":"promote","peer":"excluded"}));
    std::fs::write(pair.a.dir.join("both"), b"of a").unwrap();
    std::fs::write(pair.b.dir.join("both"), b"of b, never seen by a").unwrap();
    std::fs::write(pair.b.dir.join("only b"), b"precious").unwrap();
    pair.b.done(json!({"kind":"retire"}));
    pair.wire.heal();
    pair.b.forget();
    pair.b.done(json!({"kind":"secondary"}));
    let begin = pair.b.until("copy", |e| e["kind"] == "resync_begin");
    assert_eq!(begin["mode"], "incremental");
    pair.b.until_replica("in sync", |r| r["peer"] == "in_sync");
    until_equal(&pair.a.dir, &pair.b.dir);
    assert!(pair.b.has("salvaged"));
    let kept = pair::tree(&pair.b.dir.parent().unwrap().join("salvage"));
    for name in ["both", "only b"] {
        assert!(kept.keys().any(|p| p.ends_with(name)), "{name} was not put aside: {kept:?}");
    }
}

/// A thread that makes a file on a frozen primary, once the kernel has it in `openat` (x86-64: 257, AArch64: 56).
fn waiting_application(path: &std::path::Path) -> std::thread::JoinHandle<std::io::Result<()>> {
    let path = path.to_owned();
    let (say, hear) = std::sync::mpsc::channel();
    let application = std::thread::spawn(move || {
        say.send(nix::unistd::gettid()).unwrap();
        std::fs::write(path, b"x")
    });
    let thread = hear.recv().unwrap();
    let begun = Instant::now();
    loop {
        let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap();
        if matches!(call.split_whitespace().next(), Some("257" | "56")) {
            return application;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the application does not wait: {call}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_end_of_the_runner_releases_a_frozen_primary_at_once() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    pair.wire.cut();
    pair.a.until_replica("freeze", |r| r["frozen"] == true);
    let application = waiting_application(&pair.a.dir.join("waits"));
    let start = Instant::now();
    pair.a.end_of_file();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // It waited for the peer, and nobody will ever acknowledge it.
    application.join().unwrap().unwrap_err();
    // Nor can an application that outlives its runner write past the replication.
    let past = std::fs::write(pair.a.dir.join("past"), b"y").unwrap_err();
    assert_eq!(past.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // A successor starts frozen: `paired` is what counts, not that it was alone for a moment.
    pair.a.start_again();
    let refused = pair.a.order(json!({"kind":"primary","peer":"excluded"}));
    assert_eq!(refused["kind"], "failed", "{refused}");
    // Given back to its owner when the module stops.
    assert_eq!(pair.a.order(json!({"kind":"retire"}))["kind"], "done");
    std::fs::write(pair.a.dir.join("plain"), b"y").unwrap();
}

#[test]
fn an_abandoned_primary_answers_with_errors_and_can_be_retired() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    pair.wire.cut();
    pair.a.until_replica("freeze", |r| r["frozen"] == true);
    let application = waiting_application(&pair.a.dir.join("waits"));
    assert_eq!(pair.a.order(json!({"kind":"abandon"}))["kind"], "done");
    let failed = application.join().unwrap().unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
    assert_eq!(std::fs::write(pair.a.dir.join("later"), b"x").unwrap_err().raw_os_error(), Some(5));
    assert_eq!(pair.a.order(json!({"kind":"retire"}))["kind"], "done");
    assert!(!pair.a.dir.join("waits").exists() && !pair.a.dir.join("later").exists());
}

#[test]
fn a_full_disk_of_the_secondary_is_not_the_applications_problem() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    let options = Some("size=4m");
    nix::mount::mount(Some("none"), &pair.b.dir, Some("tmpfs"), nix::mount::MsFlags::empty(), options).unwrap();
    pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
    pair.b.done(json!({"kind":"secondary"}));
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync");
    let path = pair.a.dir.join("large");
    let application = std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(&vec![1; 8 << 20]).unwrap();
        file.sync_all().unwrap();
    });
    let lost = pair.a.until("the loss", |e| e["kind"] == "stream_lost");
    assert!(lost["reason"].as_str().unwrap().contains("No space left"), "{lost}");
    pair.b.until_replica("its confession", |r| r["standing"] == "outdated");
    pair.a.until_replica("freeze", |r| r["frozen"] == true);
    pair.a.done(json!({"kind":"exclude_peer"}));
    application.join().expect("the application saw an error");
    assert_eq!(std::fs::metadata(pair.a.dir.join("large")).unwrap().len(), 8 << 20);
}

/// A program that opens its file again as soon as it gets an error, as a service does that is restarted.
struct Stubborn {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Stubborn {
    /// Writes files that are called `ROUND-NUMBER`.
    fn start(dir: &std::path::Path, round: usize) -> Self {
        let (stop, dir) = (Arc::new(AtomicBool::new(false)), dir.to_owned());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0_u64.. {
                if stopped.load(SeqCst) {
                    break;
                }
                let name = format!("{round}-{n}");
                let written = std::fs::File::create(dir.join(&name)).and_then(|mut file| {
                    file.write_all(name.as_bytes())?;
                    file.sync_all()
                });
                if written.is_ok() {
                    acknowledged.push(name);
                }
            }
            acknowledged
        });
        Self { stop, thread }
    }

    /// What it was told is safe.
    fn finish(self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        self.thread.join().unwrap()
    }
}

fn until_there(path: &std::path::Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "the application does not write");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every file that a [`Stubborn`] program was told is safe is in the directory, whole.
fn check_files(dir: &std::path::Path, acknowledged: &[String]) {
    for name in acknowledged {
        let there = std::fs::read(dir.join(name)).unwrap_or_default();
        assert_eq!(there, name.as_bytes(), "{name} was acknowledged");
    }
}

/// It writes nothing past a primary whose runner is gone.
#[test]
fn what_is_opened_again_while_the_runner_dies_is_not_acknowledged_past_it() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    for round in 0..12 {
        let application = Stubborn::start(&pair.a.dir, round);
        until_there(&pair.b.dir.join(format!("{round}-5")));
        pair.a.end_of_file();
        let refused = std::fs::write(pair.a.dir.join("past"), b"x").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "round {round}");
        let acknowledged = application.finish();
        pair.b.done(json!({"kind":"promote","peer":"excluded"}));
        check_files(&pair.b.dir, &acknowledged);
        pair.a.start_again();
        pair.a.done(json!({"kind":"secondary"}));
        pair.a.until_replica("a in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        pair.b.until_replica("b sees it", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        until_equal(&pair.b.dir, &pair.a.dir);
        pair.a.forget();
        pair.b.done(json!({"kind":"demote"}));
        pair.a.done(json!({"kind":"promote","peer":"paired"}));
        pair.b.until_replica("b in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        pair.a.until_replica("a sees it", |r| r["peer"] == "in_sync");
    }
}

/// Whether a directory can be blocked beneath a mount (Linux 6.5).
fn blocks_beneath() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0_u32), numbers.next().unwrap_or(0_u32)) >= (6, 5)
}

/// Nor past one that hands its role over while the program should have ended and has not.
#[test]
fn what_is_opened_again_during_a_swap_is_not_acknowledged_past_it() {
    if !possible() {
        return;
    }
    if !blocks_beneath() {
        eprintln!("skipped: older than Linux 6.5");
        return;
    }
    let mut pair = Pair::synced(json!({}));
    // Each takes 5 s: the mount is broken off when programs do not let it go.
    for round in 0..3 {
        let application = Stubborn::start(&pair.a.dir, round);
        until_there(&pair.b.dir.join(format!("{round}-5")));
        pair.a.forget();
        pair.b.forget();
        pair.a.done(json!({"kind":"demote"}));
        let refused = std::fs::write(pair.a.dir.join("past"), b"x").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "round {round}");
        let acknowledged = application.finish();
        // Nor does one that waits for the directory on the other node come in before the mount is there.
        let waiting = Stubborn::start(&pair.b.dir, 100 + round);
        pair.b.done(json!({"kind":"promote","peer":"paired"}));
        check_files(&pair.b.dir, &acknowledged);
        pair.a.until_replica("a in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        pair.b.until_replica("b sees it", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        let acknowledged = waiting.finish();
        until_equal(&pair.b.dir, &pair.a.dir);
        check_files(&pair.a.dir, &acknowledged);
        pair.b.done(json!({"kind":"demote"}));
        pair.a.done(json!({"kind":"promote","peer":"paired"}));
        pair.b.until_replica("b in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        pair.a.until_replica("a sees it", |r| r["peer"] == "in_sync");
    }
    pair.b.done(json!({"kind":"retire"}));
    pair.a.done(json!({"kind":"retire"}));
    for node in [&pair.a, &pair.b] {
        std::fs::write(node.dir.join("plain again"), b"x").unwrap();
    }
}

#[test]
fn termination_drains_and_says_goodbye() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    std::fs::write(pair.a.dir.join("last words"), b"x").unwrap();
    pair.b.forget();
    pair.a.terminate();
    pair.b.until_replica("goodbye", |r| r["peer"] == "left");
    until_equal(&pair.a.dir, &pair.b.dir);
    pair.b.done(json!({"kind":"promote","peer":"excluded"}));
    pair.a.start_again();
    pair.a.done(json!({"kind":"secondary"}));
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    assert!(!pair.b.has("fault"));
}

/// Figures for people: `cargo test --profile lab -p sk-replicate -- --ignored --nocapture figures`.
#[test]
#[ignore = "figures, not a check"]
fn figures() {
    if !possible() {
        return;
    }
    let time = |what: &str, dir: &std::path::Path| {
        let mut file = std::fs::File::create(dir.join("bench")).unwrap();
        let block = vec![1; 4096];
        let measure = |count: u32, step: &mut dyn FnMut()| {
            let mut each: Vec<_> = (0..count)
                .map(|_| {
                    let start = Instant::now();
                    step();
                    start.elapsed()
                })
                .collect();
            each.sort();
            each[each.len() / 2]
        };
        let write = measure(4000, &mut || file.write_all(&block).unwrap());
        let barrier = measure(400, &mut || {
            file.write_all(&block).unwrap();
            file.sync_data().unwrap();
        });
        let mut n = 0;
        let create = measure(1000, &mut || {
            n += 1;
            std::fs::File::create(dir.join(format!("c{n}"))).unwrap();
        });
        let start = Instant::now();
        let big = vec![2; 1 << 20];
        for _ in 0..200 {
            file.write_all(&big).unwrap();
        }
        file.sync_data().unwrap();
        println!(
            "{what:<22} write4k {write:?} write4k+fdatasync {barrier:?} create {create:?} 1M writes {:.0} MB/s",
            210.0 / start.elapsed().as_secs_f64()
        );
    };
    let plain = tempfile::tempdir().unwrap();
    time("native", plain.path());
    let modes = [
        ("alone", None),
        ("async=second", Some(json!({}))),
        ("async=none", Some(json!({"async":"none"}))),
        ("sync=write", Some(json!({"sync":"write"}))),
    ];
    for (name, extra) in modes {
        let pair = extra.map_or_else(
            || {
                let mut pair = Pair::new(json!({}));
                pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
                pair
            },
            Pair::synced,
        );
        time(name, &pair.a.dir);
    }
}
