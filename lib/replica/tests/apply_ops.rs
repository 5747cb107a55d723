//! Does the receiver's tree follow exactly, once or twice, and never leave its directory?

#![allow(clippy::expect_used)]

mod resync_support;

use proptest::prelude::*;
use replica::apply::{Applied, Applier, ApplyError, Options};
use replica::op::{Entry, Kind, Op, Owner, RelPath, Time};
use replica::salvage::{self, Salvage};
use resync_support::*;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

fn trees() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let at = tempfile::tempdir().expect("tempdir");
    let (a, b) = (at.path().join("a"), at.path().join("b"));
    std::fs::create_dir(&a).expect("mkdir");
    std::fs::create_dir(&b).expect("mkdir");
    (at, a, b)
}

fn applier(tree: &Path) -> Applier {
    Applier::new(vec![root_fd(tree)], Options::default())
}

/// Whether an operation cannot be told from not applied, and is refused when it comes again.
fn is_ambiguous(op: &Op) -> bool {
    match op {
        Op::Rename { flags, .. } => *flags == 2,
        Op::Fallocate { mode, .. } => mode & (8 | 32) != 0,
        _ => false,
    }
}

#[test]
fn follows_exactly_and_one_operation_may_come_again() {
    for seed in 1..=60u64 {
        let (_at, a, b) = trees();
        let (mut random, mut chance) = (Random(seed * 41), Random(seed * 43));
        let applier = Mutex::new(applier(&b));
        let locks = Locks::default();
        let chance = Mutex::new(&mut chance);
        let record = |op: &Op, payload: &[u8]| {
            let mut applier = applier.lock().expect("lock");
            if chance.lock().expect("lock").below(10) == 0 {
                // The receiving process was killed and started again: nothing is cached.
                applier.settle();
            }
            let done = applier.apply(op, payload);
            assert!(matches!(done, Ok(Applied::Done)), "seed {seed}: {done:?} for {op:?}");
            if chance.lock().expect("lock").below(3) == 0 {
                applier.settle();
                applier.set_replaying(true);
                let again = applier.apply(op, payload);
                applier.set_replaying(false);
                if is_ambiguous(op) {
                    assert!(matches!(again, Err(ApplyError::Ambiguous { .. })), "seed {seed}: {again:?} for {op:?}");
                } else {
                    assert!(matches!(again, Ok(Applied::Done)), "seed {seed}: again {again:?} for {op:?}");
                }
            }
        };
        let primary = Primary { tree: a.clone(), locks: &locks, record: Box::new(record), before: None };
        for _ in 0..400 {
            primary.random(&mut random);
        }
        let found = differences(&a, &b);
        assert!(found.is_empty(), "seed {seed}:\n{}", found.join("\n"));
    }
}

const OWNER: Owner = Owner { mode: 0o644, uid: 0, gid: 0 };

fn create(path: RelPath) -> Op {
    Op::Create {
        dir: 0,
        path,
        ino: 1,
        kind: Kind::File,
        owner: OWNER,
        rdev: 0,
        mtime: Time(1, 1),
        parent_mtime: Time(1, 1),
    }
}

#[test]
fn nothing_leaves_the_directory() {
    let (at, _, b) = trees();
    let outside = at.path().join("outside");
    std::fs::create_dir(&outside).expect("mkdir");
    std::fs::write(outside.join("file"), b"safe").expect("write");
    std::os::unix::fs::symlink(&outside, b.join("link")).expect("symlink");
    std::os::unix::fs::symlink(outside.join("file"), b.join("direct")).expect("symlink");
    let before = picture(&outside);
    let time = Time(5, 5);
    let paths = [
        "../outside/file",
        "..",
        ".",
        "link/file",
        "link/new",
        "direct",
        "/etc/passwd",
        "a/../../outside/file",
        "link",
    ];
    for inconsistent in [false, true] {
        for path in paths {
            let path = RelPath::opaque(path).expect("bytes");
            let (dir, ino) = (0, 9);
            let ops = [
                create(path.clone()),
                Op::Write { dir, path: path.clone(), ino, offset: 0, mtime: time },
                Op::SyncData { dir, path: path.clone(), ino, offset: 0 },
                Op::Unlink { dir, path: path.join(b"file"), ino, parent_mtime: time },
                Op::Rename {
                    dir,
                    from: path.join(b"file"),
                    path: rel("stolen"),
                    ino,
                    flags: 0,
                    from_mtime: time,
                    parent_mtime: time,
                },
                Op::Link { dir, from: path.join(b"file"), path: rel("stolen"), ino, parent_mtime: time },
                Op::SyncNames { dir, path: path.join(b"."), first: None, last: None, ask: None, recent: false },
                Op::SyncZero { dir, path: path.clone(), ino, offset: 0, length: 100 },
            ];
            for op in ops {
                let options = Options { inconsistent, ..Options::default() };
                let result = Applier::new(vec![root_fd(&b)], options).apply(&op, b"[]");
                assert!(!matches!(result, Ok(Applied::Done | Applied::Answer(_))), "{op:?}: {result:?}");
            }
        }
    }
    // Of a symlink itself the attributes may be set, not of what it points to.
    let chmod = |path: &str| Op::SetAttr {
        dir: 0,
        path: rel(path),
        ino: 3,
        mode: Some(0o777),
        uid: Some(12),
        gid: None,
        size: None,
        atime: None,
        mtime: Some(time),
    };
    applier(&b).apply(&chmod("direct"), &[]).expect("the link's own");
    let listing = |name: &str| {
        let entry = Entry {
            name: RelPath::opaque(name).expect("bytes"),
            kind: Kind::File,
            ino: 1,
            owner: OWNER,
            mtime: None,
            rdev: 0,
            target: None,
            same_as: None,
        };
        serde_json::to_vec(&[entry]).expect("json")
    };
    let names = Op::SyncNames { dir: 0, path: rel(""), first: None, last: None, ask: None, recent: false };
    for name in ["..", ".", "a/b", "", "../x"] {
        assert!(matches!(applier(&b).apply(&names, &listing(name)), Err(ApplyError::Malformed { .. })), "{name}");
    }
    assert!(matches!(applier(&b).apply(&create(rel("x")), &[]), Ok(Applied::Done)));
    let elsewhere = Op::SyncDir { dir: 7, path: rel("") };
    assert!(matches!(applier(&b).sync_target(&elsewhere), Err(ApplyError::Malformed { .. })));
    assert_eq!(picture(&outside), before);
}

/// The directory in which a name came last is remembered: not beyond its own change of name.
#[test]
fn a_name_comes_where_its_directory_is_now() {
    let (_at, _, b) = trees();
    let mut applier = applier(&b);
    let mut apply = |op: Op| assert!(matches!(applier.apply(&op, &[]), Ok(Applied::Done)), "{op:?}");
    let directory = |path: &str| match create(rel(path)) {
        Op::Create { dir, path, ino, owner, rdev, mtime, parent_mtime, .. } => {
            Op::Create { dir, path, ino: ino + 7, kind: Kind::Directory, owner, rdev, mtime, parent_mtime }
        }
        other => other,
    };
    let rename = |from: &str, path: &str| Op::Rename {
        dir: 0,
        from: rel(from),
        path: rel(path),
        ino: 8,
        flags: 0,
        from_mtime: Time(1, 1),
        parent_mtime: Time(1, 1),
    };
    let unlink = |path: &str| Op::Unlink { dir: 0, path: rel(path), ino: 1, parent_mtime: Time(1, 1) };
    apply(directory("c"));
    apply(directory("a"));
    apply(create(rel("a/one")));
    apply(create(rel("a/two")));
    apply(rename("a", "b"));
    apply(rename("c", "a"));
    apply(create(rel("a/three")));
    apply(unlink("b/one"));
    apply(create(rel("b/four")));
    apply(unlink("a/three"));
    apply(Op::Rmdir { dir: 0, path: rel("a"), ino: 8, parent_mtime: Time(1, 1) });
    apply(directory("a"));
    apply(create(rel("a/five")));
    for (path, there) in
        [("a/one", false), ("b/one", false), ("b/two", true), ("a/three", false), ("b/four", true), ("a/five", true)]
    {
        assert_eq!(b.join(path).exists(), there, "{path}");
    }
}

#[test]
fn a_new_file_has_its_owner_and_its_mode_whatever_its_directory_says() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let (_at, _, b) = trees();
    std::fs::create_dir(b.join("group")).expect("mkdir");
    chown(b.join("group"), None, Some(77)).expect("chown");
    std::fs::set_permissions(b.join("group"), std::fs::Permissions::from_mode(0o2775)).expect("chmod");
    for directory in ["", "group"] {
        for (n, (mode, uid, gid)) in
            [(0o644, 0, 0), (0o600, 26, 26), (0o4755, 0, 0), (0o6750, 5, 6), (0o666, 0, 77), (0, 1, 0), (0o1777, 9, 9)]
                .into_iter()
                .enumerate()
        {
            let path = rel(directory).join(format!("f{n}").as_bytes());
            let op = match create(path) {
                Op::Create { dir, path, ino, kind, rdev, mtime, parent_mtime, .. } => {
                    Op::Create { dir, path, ino, kind, owner: Owner { mode, uid, gid }, rdev, mtime, parent_mtime }
                }
                other => other,
            };
            assert!(matches!(applier(&b).apply(&op, &[]), Ok(Applied::Done)), "{op:?}");
            let found = std::fs::metadata(b.join(directory).join(format!("f{n}"))).expect("there");
            assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (mode, uid, gid), "{directory}/f{n}");
            assert_eq!((found.mtime(), found.mtime_nsec()), (1, 1));
        }
    }
}

#[test]
fn a_missing_file_is_a_divergence_unless_inconsistent() {
    let (_at, _, b) = trees();
    let write = Op::Write { dir: 0, path: rel("none"), ino: 1, offset: 0, mtime: Time(1, 1) };
    let error = applier(&b).apply(&write, b"x").expect_err("there is no such file");
    assert!(error.is_divergence(), "{error}");
    let options = Options { inconsistent: true, ..Options::default() };
    assert!(matches!(Applier::new(vec![root_fd(&b)], options).apply(&write, b"x"), Ok(Applied::Ignored)));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        b.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("fifo");
    let write = Op::Write { dir: 0, path: rel("pipe"), ino: 1, offset: 0, mtime: Time(1, 1) };
    assert!(applier(&b).apply(&write, b"x").expect_err("a fifo is no file").is_divergence());
}

#[test]
fn barriers_find_their_files() {
    let (_at, _, b) = trees();
    let mut applier = applier(&b);
    applier.apply(&create(rel("f")), &[]).expect("create");
    let sync = |path: Option<RelPath>| Op::Sync { dir: 0, path, ino: 1, data_only: true };
    for cached in [true, false] {
        if !cached {
            applier.settle();
        }
        let fd = applier.sync_target(&sync(Some(rel("f")))).expect("found").expect("a descriptor");
        rustix::fs::fdatasync(&fd).expect("durable");
    }
    assert!(applier.sync_target(&sync(None)).expect("an unlinked file").is_none());
    let directory = applier.sync_target(&Op::SyncDir { dir: 0, path: rel("") }).expect("found").expect("a descriptor");
    rustix::fs::fsync(&directory).expect("durable");
    applier.sync_everything().expect("syncfs");
    assert!(applier.sync_target(&sync(Some(rel("other")))).is_err());
}

#[test]
fn overwritten_and_deleted_content_is_put_aside() {
    let (at, a, b) = trees();
    let aside = at.path().join("aside");
    std::fs::create_dir(b.join("d")).expect("mkdir");
    for (name, content) in [("d/lost", "mine"), ("same", "equal"), ("other", "b's content")] {
        std::fs::write(b.join(name), content).expect("write");
    }
    std::fs::write(a.join("same"), "equal").expect("write");
    std::fs::write(a.join("other"), "a's content").expect("write");
    let locks = std::sync::Arc::new(Locks::default());
    let resync = replica::resync::Resync::new(config(&a, replica::resync::Mode::Full, locks, 3));
    let salvage = Salvage::new(&aside, UNIX_EPOCH, std::slice::from_ref(&b), 1 << 20);
    let options = Options { salvage: Some(salvage), ..Options::default() };
    let (pipe, receiver) = receiver(&b, options, Some(std::sync::Arc::clone(&resync)));
    pipe.send(&Op::ResyncBegin { full: true }, &[]);
    resync.run(&*pipe).expect("it ends");
    pipe.send(&Op::Goodbye, &[]);
    let (mut applier, _) = receiver.join().expect("it applies");
    assert!(differences(&a, &b).is_empty());
    assert_eq!(applier.salvaged().len(), 2);
    let listed: Vec<(PathBuf, String)> = salvage::list(&aside)
        .expect("list")
        .into_iter()
        .map(|l| {
            let content = std::fs::read_to_string(aside.join(&l.date).join(&l.path)).expect("content");
            (l.path.components().skip(1).collect(), content)
        })
        .collect();
    assert_eq!(listed, [("d/lost".into(), "mine".to_string()), ("other".into(), "b's content".to_string())]);
}

#[test]
fn what_is_not_replicated_stays() {
    let (_at, a, b) = trees();
    for tree in [&a, &b] {
        std::fs::create_dir_all(tree.join("d/tmp")).expect("mkdir");
        std::fs::write(tree.join("d/x.log"), tree.to_string_lossy().as_bytes()).expect("write");
        std::fs::write(tree.join("d/tmp/own"), b"own").expect("write");
    }
    std::fs::write(b.join("d/tmp/more"), b"b").expect("write");
    std::fs::write(a.join("d/data"), b"data").expect("write");
    let rules = [replica::tree::Rule::Regex(r"\.log$".into()), replica::tree::Rule::Path("d/tmp".into())];
    let exclude = std::sync::Arc::new(replica::tree::Exclude::new(&rules).expect("rules"));
    let resync = replica::resync::Resync::new(replica::resync::Config {
        excludes: vec![std::sync::Arc::clone(&exclude)],
        ..config(&a, replica::resync::Mode::Full, std::sync::Arc::new(Locks::default()), 3)
    });
    let options = Options { excludes: vec![exclude], ..Options::default() };
    let (pipe, receiver) = receiver(&b, options, Some(std::sync::Arc::clone(&resync)));
    pipe.send(&Op::ResyncBegin { full: true }, &[]);
    resync.run(&*pipe).expect("it ends");
    // The primary's directory is empty but for its own excluded files, which went before.
    let rmdir = Op::Rmdir { dir: 0, path: rel("d"), ino: 1, parent_mtime: Time(1, 1) };
    assert_eq!(std::fs::read(a.join("d/data")).expect("read"), b"data");
    pipe.send(&Op::Goodbye, &[]);
    let (mut applier, _) = receiver.join().expect("it applies");
    assert_eq!(std::fs::read(b.join("d/data")).expect("read"), b"data");
    assert_eq!(std::fs::read(b.join("d/x.log")).expect("read"), b.to_string_lossy().as_bytes());
    assert!(b.join("d/tmp/more").exists());
    assert!(applier.apply(&rmdir, &[]).is_err(), "there is replicated content");
    applier.apply(&Op::Unlink { dir: 0, path: rel("d/data"), ino: 1, parent_mtime: Time(1, 1) }, &[]).expect("unlink");
    applier.apply(&rmdir, &[]).expect("only excluded entries are left");
    assert!(!b.join("d").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn garbage_payloads_do_not_panic(payload in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4, path in "[a./%]{0,6}") {
        let (_at, _, b) = trees();
        let mut applier = applier(&b);
        let path = RelPath::opaque(path.as_bytes()).expect("bytes");
        let op = match kind {
            0 => Op::SyncNames { dir: 0, path, first: None, last: None, ask: Some(1), recent: true },
            1 => Op::SyncMeta { dir: 0, path, ino: 1 },
            2 => Op::Ask { id: 4 },
            _ => Op::SetXattr { dir: 0, path: path.clone(), ino: 1, name: path },
        };
        let result = applier.apply(&op, &payload);
        prop_assert!(result.is_err(), "{:?}", result);
    }
}
