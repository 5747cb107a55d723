//! When does a request wait, what is recorded for it, who owns what it makes, and how does a mount end?

#![allow(clippy::unwrap_used)] // helpers of tests

mod front_support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use front_support::{Mounted, beneath, follow, mounted, mounted_with, scratch, tree, wait_for};
use replica::front::{FrontError, FrontSession, FrontSpec, Unmount};
use replica::op::Op;
use replica::recorder::Front;

/// Runs a shell command as user and group 65534. The standard library drops other groups when root asks for another user.
fn as_nobody(dir: &Path, script: &str) -> bool {
    Command::new("sh").args(["-c", script]).current_dir(dir).uid(65534).gid(65534).status().unwrap().success()
}

fn count(m: &Mounted, name: &str) -> usize {
    m.tape.names().iter().filter(|n| *n == name).count()
}

#[test]
fn frozen_writers_wait_while_readers_are_served() {
    let m = mounted();
    fs::write(m.path.join("old"), b"content").unwrap();
    m.tape.frozen.store(true, Ordering::SeqCst);
    let before = m.tape.names().len();
    let (tell, done) = mpsc::channel();
    // More writers than threads that read requests: none may block one.
    let writers: Vec<_> = (0..20)
        .map(|n| {
            let (path, tell) = (m.path.join(format!("new{n}")), tell.clone());
            std::thread::spawn(move || {
                fs::write(path, n.to_string()).unwrap();
                tell.send(n).unwrap();
            })
        })
        .collect();
    // The kernel holds the directory locked for the first creation, the others wait for it.
    wait_for("a parked request", || m.front.parked() >= 1);
    assert_eq!(fs::read(m.path.join("old")).unwrap(), b"content");
    assert!(m.path.join("old").metadata().unwrap().len() == 7);
    assert!(done.try_recv().is_err());
    assert_eq!(m.tape.names().len(), before);
    assert!(!beneath(m.front.root_fd()).join("new0").exists());

    m.tape.frozen.store(false, Ordering::SeqCst);
    m.front.resume();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(count(&m, "Create"), 21);
    let mirror = scratch();
    for (op, payload) in m.tape.ops.lock().unwrap().iter() {
        follow(mirror.path(), op, payload);
    }
    assert_eq!(tree(mirror.path(), false), tree(&m.path, false));
}

#[test]
fn parked_writers_of_open_files_do_not_use_up_the_threads() {
    let m = mounted();
    let files: Vec<_> = (0..40).map(|n| fs::File::create(m.path.join(n.to_string())).unwrap()).collect();
    m.tape.frozen.store(true, Ordering::SeqCst);
    let writers: Vec<_> =
        files.into_iter().map(|f| std::thread::spawn(move || f.write_all_at(b"x", 0).unwrap())).collect();
    wait_for("all to be parked", || m.front.parked() == 40);
    assert_eq!(fs::read_dir(&m.path).unwrap().count(), 40);
    // A resume without a thaw parks them again.
    m.front.resume();
    wait_for("all to be parked again", || m.front.parked() == 40);
    m.tape.frozen.store(false, Ordering::SeqCst);
    m.front.resume();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(count(&m, "Write"), 40);
}

#[test]
fn a_sync_waits_for_the_acknowledgement_and_a_write_does_not() {
    let m = mounted();
    let file = fs::File::create(m.path.join("f")).unwrap();
    m.tape.holding.store(true, Ordering::SeqCst);
    file.write_all_at(b"row", 0).unwrap();
    let (tell, done) = mpsc::channel();
    let syncer = std::thread::spawn(move || {
        file.sync_data().unwrap();
        tell.send(()).unwrap();
    });
    wait_for("the answer to be held", || m.tape.held.lock().unwrap().len() == 1);
    assert!(done.recv_timeout(Duration::from_millis(50)).is_err());
    let position = m.tape.held.lock().unwrap()[0].0;
    assert!(matches!(m.tape.ops.lock().unwrap()[position as usize - 1].0, Op::Sync { data_only: true, .. }));
    m.tape.acknowledge();
    syncer.join().unwrap();
    done.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn every_change_waits_when_the_policy_says_so() {
    let m = mounted();
    m.tape.all_wait.store(true, Ordering::SeqCst);
    let path = m.path.join("d");
    m.tape.holding.store(true, Ordering::SeqCst);
    let maker = std::thread::spawn(move || fs::create_dir(path).unwrap());
    wait_for("the answer to be held", || m.tape.held.lock().unwrap().len() == 1);
    assert!(!maker.is_finished());
    m.tape.acknowledge();
    maker.join().unwrap();
}

#[test]
fn synchronous_writes_are_one_write_and_one_sync() {
    let m = mounted();
    for flag in [libc::O_DSYNC, libc::O_SYNC, libc::O_DSYNC | libc::O_DIRECT] {
        let path = m.path.join(format!("f{flag}"));
        let file = fs::OpenOptions::new().create(true).write(true).custom_flags(flag).open(&path).unwrap();
        let before = m.tape.names().len();
        let data = Box::new(Aligned([7; 4096]));
        file.write_all_at(&data.0, 0).unwrap();
        assert_eq!(m.tape.names()[before..], ["Write", "Sync"], "flags {flag:o}");
        // Appending is decided by the kernel: the offset is absolute.
        let mut append = fs::OpenOptions::new().append(true).open(&path).unwrap();
        append.write_all(b"tail").unwrap();
        assert!(matches!(m.tape.ops.lock().unwrap().last(), Some((Op::Write { offset: 4096, .. }, p)) if p == b"tail"));
    }
}

#[repr(align(4096))]
struct Aligned([u8; 4096]);

#[test]
fn a_write_by_somebody_else_takes_set_user_id_away() {
    let m = mounted();
    let file = m.path.join("tool");
    fs::write(&file, b"x").unwrap();
    for (act, wanted) in [("echo y >> tool", 0o777), (": > tool", 0o777), ("truncate -s 100 tool", 0o777)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6777)).unwrap();
        assert!(as_nobody(&m.path, act));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, wanted, "{act}");
        assert_eq!(fs::metadata(beneath(m.front.root_fd()).join("tool")).unwrap().mode() & 0o7777, wanted, "{act}");
        let ops = m.tape.ops.lock().unwrap();
        assert!(ops.iter().rev().take(3).any(|(op, _)| matches!(op, Op::SetAttr { mode: Some(0o777), .. })), "{act}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6777)).unwrap();
    std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o777);
    let ops = m.tape.ops.lock().unwrap();
    assert!(matches!(ops.last(), Some((Op::SetAttr { mode: Some(0o777), uid: Some(65534), .. }, _))));
}

#[test]
fn owners_groups_and_masks_are_those_of_the_caller() {
    let m = mounted();
    let plain = scratch();
    let script = "umask 027; touch f; mkdir d; ln -s f s; mkfifo p; umask 0; touch open; (umask 077; touch shut); \
                  mkdir -m 2775 g; touch g/in; mkdir g/sub";
    for dir in [&m.path, &plain.path().to_path_buf()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o2777)).unwrap();
        std::os::unix::fs::chown(dir, None, Some(4711)).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o2777)).unwrap();
        assert!(as_nobody(dir, script));
        // A directory with a default access list: the mask does not count (acl: user::rwx, group::rwx, other::---).
        fs::create_dir(dir.join("acl")).unwrap();
        fs::set_permissions(dir.join("acl"), fs::Permissions::from_mode(0o777)).unwrap();
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, perm) in [(1_u16, 7_u16), (4, 7), (0x20, 0)] {
            list.extend_from_slice(&tag.to_le_bytes());
            list.extend_from_slice(&perm.to_le_bytes());
            list.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        let name = "system.posix_acl_default";
        rustix::fs::setxattr(dir.join("acl"), name, &list, rustix::fs::XattrFlags::empty()).unwrap();
        assert!(as_nobody(dir, "umask 077; touch acl/f; mkdir acl/d"));
    }
    assert_eq!(tree(&m.path, false), tree(plain.path(), false));
    assert_eq!(fs::metadata(m.path.join("acl/f")).unwrap().mode() & 0o777, 0o660);
    assert_eq!(fs::metadata(m.path.join("f")).unwrap().gid(), 4711);
    // Permissions are checked: a file of root's cannot be written by others.
    fs::write(m.path.join("root"), b"x").unwrap();
    fs::set_permissions(m.path.join("root"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!as_nobody(&m.path, "cat root 2>&-"));
}

#[test]
fn unlinked_files_stay_usable_and_need_no_operations() {
    let m = mounted();
    let path = m.path.join("f");
    fs::write(&path, b"before").unwrap();
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let before = m.tape.names().len();
    file.write_all_at(b"after!", 0).unwrap();
    file.set_len(3).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "aft");
    assert_eq!(m.tape.names()[before..], ["Sync"]);
    assert!(matches!(m.tape.ops.lock().unwrap().last(), Some((Op::Sync { path: None, .. }, _))));
}

#[test]
fn excluded_names_are_changed_here_only() {
    let m = mounted_with(Some(Arc::new(|path| path.as_bytes().starts_with(b"cache"))));
    fs::create_dir(m.path.join("cache")).unwrap();
    fs::write(m.path.join("cache/x"), b"1").unwrap();
    fs::File::open(m.path.join("cache/x")).unwrap().sync_all().unwrap();
    assert!(m.tape.names().is_empty());
    let crossing = fs::rename(m.path.join("cache/x"), m.path.join("kept")).unwrap_err();
    assert_eq!(crossing.raw_os_error(), Some(libc::EXDEV));
    assert!(fs::hard_link(m.path.join("cache/x"), m.path.join("kept")).is_err());
    fs::write(m.path.join("kept"), b"1").unwrap();
    assert_eq!(m.tape.names(), ["Create", "Write"]);
}

#[test]
fn failures_are_returned_and_not_recorded() {
    let m = mounted();
    fs::create_dir(m.path.join("d")).unwrap();
    fs::write(m.path.join("d/f"), b"").unwrap();
    let before = m.tape.names();
    let errno = |r: std::io::Result<()>| r.unwrap_err().raw_os_error().unwrap();
    assert_eq!(errno(fs::remove_dir(m.path.join("d"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::create_dir(m.path.join("d"))), libc::EEXIST);
    assert_eq!(errno(fs::rename(m.path.join("d"), m.path.join("d/x"))), libc::EINVAL);
    assert_eq!(errno(fs::write(m.path.join("x".repeat(256)), b"")), libc::ENAMETOOLONG);
    let file = fs::OpenOptions::new().write(true).open(m.path.join("d/f")).unwrap();
    let far = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1 << 50).unwrap_err();
    assert!([libc::ENOSPC, libc::EFBIG].contains(&far.raw_os_error()));
    assert_eq!(m.tape.names(), before);
}

#[test]
fn the_kernel_reads_further_ahead_than_it_would_by_itself() {
    let m = mounted();
    // Answered after the first request of all, with which the kernel learns how far it may.
    let device = fs::metadata(&m.path).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).unwrap();
    assert_eq!(setting.trim(), "512");
}

#[test]
fn large_directories_and_deep_paths() {
    let m = mounted();
    let mut deep = m.path.clone();
    for _ in 0..60 {
        deep.push("d".repeat(50));
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("f"), b"deep").unwrap();
    assert_eq!(fs::read(deep.join("f")).unwrap(), b"deep");
    let wide = m.path.join("wide");
    fs::create_dir(&wide).unwrap();
    for n in 0..3000 {
        fs::File::create(wide.join(format!("name-{n}"))).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(&wide).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3000);
    // Removing while reading.
    for entry in fs::read_dir(&wide).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::remove_dir(&wide).unwrap();
}

#[test]
fn an_unmount_in_use_names_who_uses_it() {
    let m = mounted();
    fs::write(m.path.join("f"), b"plain").unwrap();
    let mut child = Command::new("cat").stdin(Stdio::piped()).current_dir(&m.path).spawn().unwrap();
    let refused = m.front.unmount(Unmount::Orderly);
    drop(child.stdin.take());
    child.wait().unwrap();
    match refused {
        Err(FrontError::Busy { holders, .. }) => {
            assert_eq!(holders.iter().map(|h| h.pid.cast_unsigned()).collect::<Vec<_>>(), [child.id()]);
        }
        other => panic!("{other:?}"),
    }
    m.front.unmount(Unmount::Orderly).unwrap();
    wait_for("the threads to end", || m.front.ended());
    let before = m.tape.names().len();
    fs::write(m.path.join("f"), b"not recorded").unwrap();
    assert_eq!(m.tape.names().len(), before);
}

#[test]
fn an_abort_fails_what_is_parked() {
    let m = mounted();
    let file = fs::File::create(m.path.join("f")).unwrap();
    m.tape.frozen.store(true, Ordering::SeqCst);
    let writer = std::thread::spawn(move || file.write_all_at(b"x", 0));
    wait_for("the writer to be parked", || m.front.parked() == 1);
    m.front.unmount(Unmount::Abort).unwrap();
    assert!(writer.join().unwrap().is_err());
    wait_for("the threads to end", || m.front.ended());
    assert_eq!(fs::read(m.path.join("f")).unwrap(), b"");
    assert_eq!(fs::metadata(&m.path).unwrap().uid(), 0);
}

#[test]
fn refuses_a_directory_in_use_and_one_that_is_not_there() {
    let dir = scratch();
    let path = dir.path().canonicalize().unwrap();
    let spec = |path: &Path| FrontSpec {
        dir_index: 0,
        root: None,
        path: path.to_owned(),
        excludes: None,
        recorder: Arc::new(front_support::Tape::default()),
        keeper: None,
        kept: Vec::new(),
    };
    let log = fs::File::create(path.join("log")).unwrap();
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(log).spawn().unwrap();
    let refused = FrontSession::start(spec(&path)).map(drop);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(matches!(refused, Err(FrontError::InUse { .. })), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("cat (pid "));
    assert!(matches!(FrontSession::start(spec(&path.join("no"))).map(drop), Err(FrontError::Directory { .. })));
    let front = FrontSession::start(spec(&path)).unwrap();
    front.unmount(Unmount::Lazy).unwrap();
}
