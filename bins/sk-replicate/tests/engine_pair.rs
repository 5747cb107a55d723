//! Two engines as processes: follow, freeze, resume, exclude, rejoin, swap, take over, be killed.

mod pair;

use pair::{Pair, Writer, check_acknowledged, possible, until_equal};
use serde_json::json;
use std::io::Write as _;
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
    // The end of the runner gives both directories back.
    pair.a.end_of_file();
    pair.b.end_of_file();
    std::fs::write(pair.a.dir.join("plain"), b"x").unwrap();
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
    assert_eq!(begin["mode"], "compare", "a crashed primary may hold what nobody received");
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
