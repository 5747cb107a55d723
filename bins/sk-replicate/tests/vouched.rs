//! The data of the secondary were copied by other means: what the operator vouches for is not read, everything else becomes equal.
#![allow(clippy::unwrap_used)]

mod pair;

use pair::{PATIENCE, Pair, possible};
use replica::policy::{Policy, Side, read, write};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

fn wall_s() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A moment after everything so far and before everything to come, by the clock of files.
fn moment() -> i64 {
    let moment = wall_s() + 1;
    let deadline = Instant::now() + PATIENCE;
    while wall_s() <= moment {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    moment
}

fn state(dir: &Path) -> PathBuf {
    dir.parent().unwrap().join("state")
}

/// Both directories hold the same files, by a copy that keeps times, with differences that the operator does not know of.
fn copied(pair: &Pair) {
    std::fs::create_dir_all(pair.a.dir.join("sub")).unwrap();
    for n in 0..40_u8 {
        std::fs::write(pair.a.dir.join(format!("sub/f{n}")), vec![n; 1000 + usize::from(n) * 4096]).unwrap();
    }
    std::fs::hard_link(pair.a.dir.join("sub/f3"), pair.a.dir.join("three")).unwrap();
    let source = format!("{}/.", pair.a.dir.display());
    assert!(std::process::Command::new("cp").args(["-a", &source]).arg(&pair.b.dir).status().unwrap().success());
    let b = |name: &str| pair.b.dir.join(name);
    // As long as there, and not changed here since: vouched for, whatever it holds.
    std::fs::write(b("sub/f1"), vec![0xEE; 1000 + 4096]).unwrap();
    std::fs::write(b("sub/f4"), b"too short").unwrap();
    std::fs::remove_file(b("sub/f5")).unwrap();
    std::fs::write(b("sub/extra"), b"x").unwrap();
}

fn serve(pair: &mut Pair) {
    pair.a.done(json!({"kind": "primary", "peer": "excluded", "force": true}));
}

fn until_synced(pair: &Pair) -> Value {
    pair.b.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    pair.a.until("the begin", |e| e["kind"] == "resync_begin")
}

/// Paths that still differ.
fn differing(pair: &Pair) -> Vec<String> {
    let (_, lines, words) = pair.a.verify(&["--bandwidth", "0"]);
    assert!(lines.last().is_some_and(|l| l["kind"] == "verified"), "{words}");
    let found = lines.iter().filter(|l| l["kind"] == "difference" && l["what"] == "content");
    found.map(|l| l["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn since_a_date_only_what_changed_or_shows_a_difference_is_copied() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    copied(&pair);
    let since = moment();
    serve(&mut pair);
    std::fs::write(pair.a.dir.join("sub/f7"), vec![0x77; 1000 + 7 * 4096]).unwrap();
    pair.b.done(json!({"kind": "secondary", "since": since}));
    assert_eq!(until_synced(&pair)["mode"], "since");
    assert_eq!(differing(&pair), ["sub/f1"], "what was vouched for was not read");
    assert_eq!(std::fs::read(pair.b.dir.join("sub/f7")).unwrap(), vec![0x77; 1000 + 7 * 4096]);
    assert!(!pair.b.dir.join("sub/extra").exists());
    // It was good for one synchronisation: the next one, which cannot rely on the change map, compares.
    pair.b.done(json!({"kind": "retire"}));
    pair.a.done(json!({"kind": "exclude_peer"}));
    std::fs::write(pair.b.dir.join("sub/f1"), vec![0xDD; 1000 + 4096]).unwrap();
    pair.a.forget();
    pair.b.forget();
    pair.b.done(json!({"kind": "secondary", "full": true}));
    assert_eq!(until_synced(&pair)["mode"], "full");
    assert_eq!(differing(&pair), Vec::<String>::new());
}

#[test]
fn a_synchronisation_that_relied_on_the_operator_and_was_interrupted_goes_on_by_comparing() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({"resync_bandwidth_kbs": 400}));
    copied(&pair);
    let since = moment();
    serve(&mut pair);
    std::fs::write(pair.a.dir.join("large"), vec![9; 1 << 20]).unwrap();
    pair.b.done(json!({"kind": "secondary", "since": since}));
    pair.a.until("content on its way", |e| e["kind"] == "progress" && e["sent"].as_u64() > Some(0));
    pair.b.kill_and_restart();
    pair.a.until("the loss", |e| e["kind"] == "stream_lost");
    pair.a.forget();
    pair.b.done(json!({"kind": "secondary"}));
    // It has no epoch yet: everything is compared.
    assert_eq!(until_synced(&pair)["mode"], "full");
    assert_eq!(differing(&pair), Vec::<String>::new());
}

#[test]
fn marks_tie_both_nodes_together_and_are_used_once() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    copied(&pair);
    let (a, b) = (state(&pair.a.dir), state(&pair.b.dir));
    let mark = |role, uid: &str, since| Policy::External { role, uid: uid.into(), since, refused: false };
    // Nobody marked the primary: the secondary must not be copied by guess, and trying again does not help.
    serve(&mut pair);
    write(&b, &mark(Side::Second, "tape-1", None)).unwrap();
    pair.b.done(json!({"kind": "secondary"}));
    let fault = pair.b.until("the refusal", |e| e["kind"] == "fault");
    assert!(fault["reason"].as_str().unwrap().contains("tape-1"), "{fault}");
    assert!(matches!(read(&b).unwrap(), Policy::External { refused: true, .. }));
    pair.b.done(json!({"kind": "retire"}));
    // Marked, the data copied, then changed.
    write(&a, &mark(Side::Prim, "tape-1", Some(moment()))).unwrap();
    write(&b, &mark(Side::Second, "tape-1", None)).unwrap();
    std::fs::write(pair.a.dir.join("sub/f9"), b"changed since").unwrap();
    pair.a.forget();
    pair.b.forget();
    pair.b.done(json!({"kind": "secondary"}));
    assert_eq!(until_synced(&pair)["mode"], "since");
    assert_eq!(differing(&pair), ["sub/f1"]);
    let deadline = Instant::now() + PATIENCE;
    while (read(&a).unwrap(), read(&b).unwrap()) != (Policy::Default, Policy::Default) {
        assert!(Instant::now() < deadline, "{:?} {:?}", read(&a), read(&b));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_copy_can_be_wanted_by_either_node() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({}));
    copied(&pair);
    for full in ["a", "b"] {
        let dir = if full == "a" { state(&pair.a.dir) } else { state(&pair.b.dir) };
        write(&dir, &Policy::Full).unwrap();
        serve(&mut pair);
        pair.a.forget();
        pair.b.forget();
        pair.b.done(json!({"kind": "secondary"}));
        assert_eq!(until_synced(&pair)["mode"], "full", "{full}");
        let deadline = Instant::now() + PATIENCE;
        while read(&dir).unwrap() != Policy::Default {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(10));
        }
        pair.b.done(json!({"kind": "retire"}));
        pair.a.done(json!({"kind": "exclude_peer"}));
    }
}

#[test]
fn what_the_next_secondary_costs_is_told() {
    if !possible() {
        return;
    }
    let mut pair = Pair::new(json!({"resync_bandwidth_kbs": 1000}));
    let diff = |pair: &Pair| -> (Option<i32>, Value) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sk-replicate"))
            .env("SK_RUN", pair.a.home().parent().unwrap().join("a.run"))
            .args(["diff", "-m", "pair", "--json"])
            .output()
            .unwrap();
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or("null").to_owned();
        (output.status.code(), serde_json::from_str(&last).unwrap())
    };
    assert_eq!(diff(&pair).0, Some(3), "no role yet");
    copied(&pair);
    serve(&mut pair);
    let (code, told) = diff(&pair);
    // 40 files, one of them with two names.
    assert_eq!((code, &told["everything"], &told["files"]), (Some(0), &json!(true), &json!(40)), "{told}");
    let bytes: u64 = (0..40).map(|n| 1000 + n * 4096).sum();
    assert_eq!(told["bytes"], json!(bytes));
    assert_eq!(told["seconds"], json!(bytes.div_ceil(1000 * 1024)));
    pair.b.done(json!({"kind": "secondary"}));
    until_synced(&pair);
    let (_, told) = diff(&pair);
    assert_eq!((&told["everything"], &told["files"], &told["bytes"]), (&json!(false), &json!(0), &json!(0)), "{told}");
    pair.until_checkpoint();
    pair.b.done(json!({"kind": "retire"}));
    pair.a.until("goodbye", |e| e["kind"] == "stream_lost");
    pair.a.done(json!({"kind": "exclude_peer"}));
    std::fs::write(pair.a.dir.join("sub/f2"), b"new").unwrap();
    std::fs::write(pair.a.dir.join("fresh"), vec![1; 70_000]).unwrap();
    let (_, told) = diff(&pair);
    assert_eq!(
        (&told["everything"], &told["files"], &told["bytes"]),
        (&json!(false), &json!(2), &json!(70_003)),
        "{told}"
    );
}
