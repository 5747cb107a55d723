//! Two engines compare their replicas while an application writes.
#![allow(clippy::unwrap_used)]

mod pair;

use pair::{PATIENCE, Pair, Writer, possible};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

/// The secondary's directory, beneath the block: opened before it is made.
fn beneath(pair: &Pair) -> std::path::PathBuf {
    use std::os::fd::AsRawFd as _;
    let fd: OwnedFd = std::fs::File::open(&pair.b.dir).unwrap().into();
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into();
    // Open until the test's process ends.
    std::mem::forget(fd);
    path
}

fn synced() -> (Pair, std::path::PathBuf) {
    let mut pair = Pair::new(json!({}));
    let beneath = beneath(&pair);
    pair.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
    pair.b.done(json!({"kind":"secondary"}));
    pair.a.until_replica("in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    (pair, beneath)
}

fn tree(dir: &std::path::Path) {
    std::fs::create_dir_all(dir.join("sub/deep")).unwrap();
    for n in 0..150_u8 {
        std::fs::write(dir.join(format!("sub/f{n}")), vec![n; usize::from(n) * 37]).unwrap();
    }
    std::fs::write(dir.join("big"), (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let sparse = std::fs::File::create(dir.join("sub/sparse")).unwrap();
    sparse.write_at(b"x", 5 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    std::os::unix::fs::symlink("big", dir.join("sub/link")).unwrap();
    std::fs::hard_link(dir.join("sub/f9"), dir.join("sub/deep/nine")).unwrap();
    std::fs::write(dir.join("sub/100% \u{e9}"), b"odd name").unwrap();
    nix::unistd::mkfifo(&dir.join("sub/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::fs::File::open(dir.join("big")).unwrap().sync_all().unwrap();
}

fn differences(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|l| l["kind"] == "difference").collect()
}

/// A comparison that takes long, and has begun.
fn slow(pair: &Pair) -> std::process::Child {
    let base = pair.a.dir.parent().unwrap().parent().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_sk-replicate"))
        .env("SK_RUN", base.join("a.run"))
        .args(["verify", "-m", "pair", "--json", "--bandwidth", "500"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.as_mut().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.contains("progress"), "{line}");
    child
}

fn ended(mut child: std::process::Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the comparison does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Who asked before is gone: the engine notices at the next thing it says, and compares for the next one.
fn until_equal(node: &pair::Node) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, lines, words) = node.verify(&["--bandwidth", "0"]);
        if code == 0 {
            break;
        }
        assert!(code == 3 && words.contains("already") && Instant::now() < deadline, "{code} {lines:?} {words}");
    }
}

#[test]
fn equal_replicas_are_found_equal_while_an_application_writes() {
    if !possible() {
        return;
    }
    let (pair, _) = synced();
    tree(&pair.a.dir);
    let writer = Writer::start(&pair.a.dir);
    let path = pair.a.dir.join("big");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    // Content, size and names change under the comparison, also without any fsync.
    let busy = std::thread::spawn(move || {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let mut n = 0_u64;
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            n += 1;
            file.write_all_at(&n.to_le_bytes(), n.wrapping_mul(0x9E37_79B9) % 11_000_000).unwrap();
            if n.is_multiple_of(50) {
                let name = path.with_file_name(format!("sub/new{}", n % 500));
                std::fs::write(&name, vec![7; 5000]).unwrap();
                let _ = std::fs::rename(&name, path.with_file_name(format!("sub/deep/moved{}", n % 300)));
                let _ = std::fs::remove_file(path.with_file_name(format!("sub/deep/moved{}", n % 250)));
                file.set_len(11_500_000 + n % 7 * 10_000).unwrap();
            }
        }
        n
    });
    for _ in 0..5 {
        writer.until_more(5);
        let (code, lines, words) = pair.a.verify(&["--bandwidth", "0"]);
        assert_eq!((code, differences(&lines)), (0, Vec::<&Value>::new()), "{words}");
        let last = lines.last().unwrap();
        assert!(last["kind"] == "verified" && last["objects"].as_u64() > Some(150), "{last}");
        assert!(last["bytes"].as_u64() > Some(20_000_000), "{last}");
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(busy.join().unwrap() > 0);
    writer.finish();
    assert!(!pair.a.has("stream_lost") && !pair.b.has("fault"));
}

#[test]
fn exactly_what_differs_is_reported() {
    if !possible() {
        return;
    }
    let (pair, beneath) = synced();
    tree(&pair.a.dir);
    let writer = Writer::start(&pair.a.dir);
    // Behind our back; times put back, as a disk that decays would.
    let big = std::fs::File::options().write(true).open(beneath.join("big")).unwrap();
    let before = big.metadata().unwrap().modified().unwrap();
    big.write_all_at(&[0xEE; 5000], 1_000_000).unwrap();
    big.write_all_at(&[0xEE; 1], 11_999_999).unwrap();
    big.set_modified(before).unwrap();
    std::fs::remove_file(beneath.join("sub/fifo")).unwrap();
    std::fs::write(beneath.join("sub/deep/foreign"), b"x").unwrap();
    std::fs::set_permissions(beneath.join("sub/f7"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(pair.a.verify_unread(&["--bandwidth", "0"]), 1, "the exit code says it also when nobody reads");
    let (code, lines, words) = pair.a.verify(&["--bandwidth", "0"]);
    assert_eq!(code, 1, "{lines:?} {words}");
    let mut found: Vec<_> = differences(&lines)
        .into_iter()
        .map(|d| {
            assert_eq!(d["dir"], 0);
            let detail = if d["ranges"].is_null() { &d["attributes"] } else { &d["ranges"] };
            (d["path"].as_str().unwrap().to_owned(), d["what"].as_str().unwrap().to_owned(), detail.clone())
        })
        .collect();
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let expected = [
        ("big", "content", json!([[999_424, 8192], [11_997_184, 2816]])),
        ("sub", "attributes", json!(["mtime"])),
        ("sub/deep", "attributes", json!(["mtime"])),
        ("sub/deep/foreign", "extra", Value::Null),
        ("sub/f7", "attributes", json!(["mode"])),
        ("sub/fifo", "missing", Value::Null),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(p, w, d)| (p.to_owned(), w.to_owned(), d)).collect();
    assert_eq!(found, expected);
    assert_eq!(lines.last().unwrap()["differences"], 6);
    writer.until_more(5);
    writer.finish();
}

#[test]
fn it_ends_when_it_cannot_go_on_and_holds_nobody_up() {
    if !possible() {
        return;
    }
    let mut pair = Pair::synced(json!({}));
    tree(&pair.a.dir);
    let (code, _, words) = pair.b.verify(&[]);
    assert_eq!((code, words.contains("primary")), (3, true), "{words}");
    // The rate is kept (12 MB at 500 KiB/s), and writers are not.
    let child = slow(&pair);
    let writer = Writer::start(&pair.a.dir);
    let start = Instant::now();
    writer.until_more(100);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let (code, _, words) = pair.a.verify(&[]);
    assert_eq!((code, words.contains("already")), (3, true), "{words}");
    // The secondary dies: no comparison, and the stream resumes as if none had been.
    pair.a.forget();
    pair.b.kill_and_restart();
    assert_eq!(ended(child).code(), Some(3));
    pair.b.done(json!({"kind":"secondary"}));
    pair.a.until_replica("thaw", |r| r["peer"] == "in_sync" && r["frozen"] == false);
    // Who asked goes away: the next one is answered.
    let mut child = slow(&pair);
    child.kill().unwrap();
    child.wait().unwrap();
    writer.until_more(5);
    writer.finish();
    until_equal(&pair.a);
    // A swap in the middle: the role ends in good order.
    let child = slow(&pair);
    pair.a.done(json!({"kind":"demote"}));
    assert_eq!(ended(child).code(), Some(3));
    pair.b.done(json!({"kind":"promote","peer":"paired"}));
    pair.b.until_replica("thaw", |r| r["role"] == "primary" && r["frozen"] == false && r["peer"] == "in_sync");
    let (code, lines, words) = pair.b.verify(&["--bandwidth", "0"]);
    assert_eq!(code, 0, "{lines:?} {words}");
}

#[test]
fn one_that_a_person_interrupts_leaves_no_trace() {
    use std::os::unix::process::ExitStatusExt as _;
    if !possible() {
        return;
    }
    let (pair, _) = synced();
    tree(&pair.a.dir);
    let writer = Writer::start(&pair.a.dir);
    writer.until_more(5);
    for _ in 0..2 {
        pair.a.forget();
        pair.b.forget();
        let child = slow(&pair);
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(ended(child).signal(), Some(2));
        until_equal(&pair.a);
        writer.until_more(5);
        pair.a.until_replica("as before", |r| {
            r["peer"] == "in_sync" && r["standing"] == "paired" && r["frozen"] == false
        });
        assert!(!pair.a.has("stream_lost") && !pair.a.has("fault") && !pair.b.has("fault"));
    }
    writer.finish();
}

#[test]
fn what_differs_is_repaired_and_what_was_there_is_put_aside() {
    if !possible() {
        return;
    }
    let (mut pair, beneath) = synced();
    tree(&pair.a.dir);
    pair.until_checkpoint();
    let big = std::fs::File::options().write(true).open(beneath.join("big")).unwrap();
    let before = big.metadata().unwrap().modified().unwrap();
    big.write_all_at(&[0xEE; 5000], 1_000_000).unwrap();
    big.set_modified(before).unwrap();
    std::fs::remove_file(beneath.join("sub/fifo")).unwrap();
    std::fs::write(beneath.join("sub/deep/foreign"), b"made by nobody").unwrap();
    std::fs::set_permissions(beneath.join("sub/f7"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(beneath.join("sub/f11")).unwrap();
    std::fs::create_dir(beneath.join("sub/f11")).unwrap();
    let writer = Writer::start(&pair.a.dir);
    pair.a.forget();
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_sk-replicate"))
        .env("SK_RUN", pair.a.home().parent().unwrap().join("a.run"))
        .args(["verify", "-m", "pair", "--json", "--bandwidth", "0", "--repair"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // What the runners do about a secondary that lost its place.
    pair.a.until("the end of the pair", |e| e["kind"] == "stream_lost");
    pair.b.done(json!({"kind": "outdate"}));
    pair.a.done(json!({"kind": "exclude_peer"}));
    pair.b.done(json!({"kind": "secondary"}));
    let begin = pair.a.until("the repair", |e| e["kind"] == "resync_begin");
    assert_eq!(begin["mode"], "incremental");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((output.status.code(), last["kind"].as_str()), (Some(0), Some("repaired")), "{said}");
    writer.until_more(5);
    let (code, lines, words) = pair.a.verify(&["--bandwidth", "0"]);
    assert_eq!(code, 0, "{lines:?} {words}");
    writer.finish();
    let salvage = pair.b.home().join("salvage");
    let aside =
        std::process::Command::new("find").arg(&salvage).args(["-name", "foreign", "-o", "-name", "big"]).output();
    let aside = String::from_utf8(aside.unwrap().stdout).unwrap();
    assert_eq!(aside.lines().count(), 2, "{aside}");
}
