//! Does what is seldom used work through the mount: files without a name, reserves, failing allocations, wide directories, locks?

#![allow(clippy::unwrap_used)] // helpers of tests

mod front_support;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use front_support::{Mounted, Tape, beneath, follow, mounted, scratch, tree};
use replica::front::{FrontSession, FrontSpec, Unmount};
use replica::op::Op;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, XattrFlags};

fn assert_replayed(m: &Mounted, root: &Path) {
    let mirror = scratch();
    for (op, payload) in m.tape.ops.lock().unwrap().iter() {
        follow(mirror.path(), op, payload);
    }
    assert_eq!(tree(mirror.path(), false), tree(root, false));
}

fn temporary(dir: &Path, flags: OFlags) -> OwnedFd {
    rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | flags, Mode::from_raw_mode(0o640)).unwrap()
}

#[test]
fn a_file_without_a_name_is_recorded_when_it_gets_one() {
    let m = mounted();
    let file = fs::File::from(temporary(&m.path, OFlags::empty()));
    file.write_all_at(b"head", 0).unwrap();
    file.write_all_at(&vec![7; 3 << 20], 5 << 20).unwrap();
    file.set_len(20 << 20).unwrap();
    rustix::fs::fsetxattr(&file, "user.kind", b"late", XattrFlags::empty()).unwrap();
    std::os::unix::fs::fchown(&file, Some(4711), Some(4712)).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o4751)).unwrap();
    assert!(m.tape.names().is_empty(), "{:?}", m.tape.names());
    assert_eq!(file.metadata().unwrap().nlink(), 0);

    rustix::fs::linkat(&file, "", CWD, m.path.join("name"), AtFlags::EMPTY_PATH).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 1);
    assert_replayed(&m, &m.path);
    // From now on it is a file like any other, and a second name is a link.
    file.write_all_at(b"tail", 4).unwrap();
    fs::hard_link(m.path.join("name"), m.path.join("other")).unwrap();
    let names = m.tape.names();
    assert_eq!(names[names.len() - 2..], ["Write", "Link"]);
    assert_replayed(&m, &m.path);
    let there = fs::metadata(m.path.join("name")).unwrap();
    assert_eq!((there.mode() & 0o7777, there.uid(), there.gid(), there.nlink()), (0o4751, 4711, 4712, 2));
    drop(file);
    fs::remove_file(m.path.join("name")).unwrap();
    assert_replayed(&m, &m.path);
}

#[test]
fn a_file_that_never_gets_a_name_leaves_nothing() {
    let m = mounted();
    let before = rustix::fs::statvfs(&m.path).unwrap().f_ffree;
    let file = temporary(&m.path, OFlags::EXCL);
    rustix::io::write(&file, b"secret").unwrap();
    let refused = rustix::fs::linkat(&file, "", CWD, m.path.join("name"), AtFlags::EMPTY_PATH).unwrap_err();
    assert_eq!(refused, rustix::io::Errno::NOENT);
    drop(file);
    assert!(m.tape.names().is_empty());
    assert_eq!(fs::read_dir(&m.path).unwrap().count(), 0);
    // Closing is answered before the descriptor beneath is closed.
    front_support::wait_for("the inode to be free", || rustix::fs::statvfs(&m.path).unwrap().f_ffree + 64 >= before);
    m.front.unmount(Unmount::Orderly).unwrap();
}

#[test]
fn a_file_without_a_name_belongs_to_its_maker() {
    let m = mounted();
    fs::set_permissions(&m.path, fs::Permissions::from_mode(0o777)).unwrap();
    let script = "import os; f = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o666); os.write(f, b'x'); \
                  os.link(f'/proc/self/fd/{f}', 'name', src_dir_fd=f, follow_symlinks=True)";
    let status =
        Command::new("python3").args(["-c", script]).current_dir(&m.path).uid(65534).gid(65533).status().unwrap();
    assert!(status.success());
    let made = fs::metadata(m.path.join("name")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777, made.len()), (65534, 65533, 0o644, 1));
    assert_replayed(&m, &m.path);
}

/// A small ext4 of its own, unmounted when dropped.
struct Image {
    dir: tempfile::TempDir,
}

impl Image {
    fn new(size: u64, options: &[&str]) -> Self {
        let dir = scratch();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(dir.path().join("fs")).unwrap();
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("mkfs.ext4").arg("-q").args(options).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir.path().join("fs")));
        Self { dir }
    }

    fn data(&self) -> PathBuf {
        let data = self.dir.path().canonicalize().unwrap().join("fs/data");
        if !data.exists() {
            fs::create_dir(&data).unwrap();
            fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        }
        data
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily: the last thread of the front may still be closing its descriptor. The loop device goes with it.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path().join("fs")).status();
    }
}

fn serve(path: PathBuf) -> (FrontSession, Arc<Tape>) {
    let tape = Arc::new(Tape::default());
    let front = FrontSession::start(FrontSpec {
        dir_index: 0,
        root: None,
        path,
        excludes: None,
        recorder: Arc::clone(&tape) as _,
        keeper: None,
        kept: Vec::new(),
    })
    .unwrap();
    (front, tape)
}

/// Fills the file as somebody; returns how many bytes fitted.
fn fill(path: &Path, uid: u32) -> u64 {
    let output = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", "conv=notrunc"])
        .arg(format!("of={}", path.display()))
        .uid(uid)
        .gid(uid)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!output.success(), "the file system has no end");
    fs::metadata(path).unwrap().len()
}

#[test]
fn only_root_gets_the_blocks_reserved_for_root() {
    let image = Image::new(32 << 20, &["-m", "25"]);
    let data = image.data();
    let plain = fill(&data.join("plain"), 65534);
    fs::remove_file(data.join("plain")).unwrap();
    let (front, tape) = serve(data.clone());
    let available = rustix::fs::statvfs(&data).unwrap();
    assert!(available.f_bfree > available.f_bavail + available.f_bavail / 5);
    let user = fill(&data.join("user"), 65534);
    assert!(user.abs_diff(plain) <= 1 << 20, "{user} through the mount, {plain} without");
    assert!(matches!(tape.ops.lock().unwrap().last(), Some((Op::SetAttr { mtime: Some(_), .. }, _))));
    let there = fs::metadata(data.join("user")).unwrap();
    assert_eq!((there.uid(), there.gid()), (65534, 65534));
    let root = fill(&data.join("root"), 0);
    assert!(root > 4 << 20, "root got {root}");
    front.unmount(Unmount::Orderly).unwrap();
}

#[test]
fn what_a_refused_allocation_left_is_recorded() {
    let image = Image::new(16 << 20, &["-m", "0"]);
    let data = image.data();
    let (front, tape) = serve(data.clone());
    let file = fs::File::create(data.join("f")).unwrap();
    file.write_all_at(&vec![1; 100_000], 0).unwrap();
    for flags in [FallocateFlags::empty(), FallocateFlags::ZERO_RANGE] {
        let refused = rustix::fs::fallocate(&file, flags, 50_000, 1 << 30).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::NOSPC);
        let there = fs::metadata(format!("{}/f", beneath(front.root_fd()).display())).unwrap();
        let mirror = scratch();
        for (op, payload) in tape.ops.lock().unwrap().iter() {
            follow(mirror.path(), op, payload);
        }
        let here = fs::read(mirror.path().join("f")).unwrap();
        assert!(here == fs::read(beneath(front.root_fd()).join("f")).unwrap(), "{flags:?}");
        let ops = tape.ops.lock().unwrap();
        let recorded = ops.iter().rev().find_map(|(op, _)| match op {
            Op::Write { mtime, .. } | Op::SetAttr { mtime: Some(mtime), .. } => Some(*mtime),
            _ => None,
        });
        let recorded = recorded.unwrap();
        assert_eq!((recorded.0, i64::from(recorded.1)), (there.mtime(), there.mtime_nsec()), "{flags:?}");
    }
    drop(file);
    front.unmount(Unmount::Orderly).unwrap();
}

#[test]
fn locks_hold_between_processes() {
    let m = mounted();
    let path = m.path.join("lock");
    fs::write(&path, b"").unwrap();
    let script = "import fcntl, sys, os\nf = open(sys.argv[1], 'r+')\n\
                  (fcntl.flock if sys.argv[2] == 'flock' else fcntl.lockf)(f, fcntl.LOCK_EX)\n\
                  print('held', flush=True)\nsys.stdin.read()";
    for kind in ["flock", "lockf"] {
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let attempt = || match kind {
            "flock" => rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive),
            _ => rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive),
        };
        assert_eq!(attempt().unwrap_err(), rustix::io::Errno::AGAIN, "{kind}");
        drop(child.stdin.take());
        child.wait().unwrap();
        attempt().unwrap();
    }
}

#[test]
fn appending_processes_never_overwrite_each_other() {
    let m = mounted();
    let script = "for n in $(seq 300); do echo \"$0 $n\"; done >> log";
    let children: Vec<_> = ["a", "b", "c"]
        .map(|who| Command::new("sh").args(["-c", script, who]).current_dir(&m.path).spawn().unwrap())
        .into();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let text = fs::read_to_string(m.path.join("log")).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 900);
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 900);
    assert_replayed(&m, &m.path);
}

#[test]
fn a_listing_of_a_wide_directory_is_stable_while_names_come_and_go() {
    let m = mounted();
    let wide = beneath(m.front.root_fd()).join("wide");
    fs::create_dir(&wide).unwrap();
    let count = 20_000;
    for n in 0..count {
        fs::File::create(wide.join(format!("stays-{n}"))).unwrap();
    }
    let mut seen = std::collections::BTreeMap::new();
    for (n, entry) in fs::read_dir(m.path.join("wide")).unwrap().enumerate() {
        *seen.entry(entry.unwrap().file_name().into_string().unwrap()).or_insert(0) += 1;
        if n % 50 == 0 {
            fs::write(m.path.join(format!("wide/comes-{n}")), b"").unwrap();
        }
        if n % 100 == 99 {
            fs::remove_file(m.path.join(format!("wide/comes-{}", n - 49))).unwrap();
        }
    }
    assert!(seen.values().all(|times| *times == 1));
    assert_eq!(seen.keys().filter(|name| name.starts_with("stays-")).count(), count);
}

#[test]
fn data_holes_and_copied_ranges_are_those_of_the_file_beneath() {
    let m = mounted();
    let file =
        fs::OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(m.path.join("f")).unwrap();
    file.write_all_at(&[5; 8192], 1 << 20).unwrap();
    file.set_len(4 << 20).unwrap();
    file.sync_all().unwrap();
    let seek = |to| rustix::fs::seek(&file, to).unwrap();
    assert_eq!(seek(rustix::fs::SeekFrom::Data(0)), 1 << 20);
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(1 << 20)), (1 << 20) + 8192);
    let copy = fs::File::create(m.path.join("copy")).unwrap();
    let (mut from, mut to) = (1 << 20, 100);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 8192).unwrap();
    assert_eq!((copied, to), (8192, 8292));
    assert_eq!(fs::read(m.path.join("copy")).unwrap()[100..], [5; 8192]);
    assert_replayed(&m, &m.path);
}

#[test]
fn birth_times_are_told() {
    let m = mounted();
    fs::File::create(m.path.join("f")).unwrap().write_all(b"x").unwrap();
    let birth = |path: &Path| {
        let all = rustix::fs::StatxFlags::BASIC_STATS | rustix::fs::StatxFlags::BTIME;
        let x = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, all).unwrap();
        (x.stx_mask & rustix::fs::StatxFlags::BTIME.bits() != 0, x.stx_btime.tv_sec, x.stx_btime.tv_nsec)
    };
    let there = birth(&beneath(m.front.root_fd()).join("f"));
    assert!(there.0);
    assert_eq!(birth(&m.path.join("f")), there);
}
