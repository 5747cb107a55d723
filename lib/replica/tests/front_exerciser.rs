//! Does a mounted directory behave like a plain one, and do the recorded operations make an equal one? Random operations tell.

#![allow(clippy::unwrap_used)] // helpers of tests

mod front_support;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use front_support::{Random, beneath, follow, mounted, scratch, tree};
use replica::front::Unmount;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};

const NAMES: [&[u8]; 9] = [b"a", b"b", b"c d", b"e\xff\xfe", b"%41", b"\xc3\xa4", b"f", b"g", b"h\n"];

fn some_path(r: &mut Random) -> PathBuf {
    let mut path = PathBuf::new();
    for _ in 0..=r.below(3) {
        path.push(OsStr::from_bytes(NAMES[r.below(NAMES.len() as u64) as usize]));
    }
    path
}

fn outcome<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("errno {:?}", error.raw_os_error()),
    }
}

fn store_mapped(path: &Path, offset: u64, byte: u8) -> io::Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= offset {
        return Ok(());
    }
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};
    // SAFETY: a mapping of a file that nobody truncates meanwhile; the store is inside the file.
    unsafe {
        let base = rustix::mm::mmap(
            std::ptr::null_mut(),
            length as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )?;
        base.cast::<u8>().add(offset as usize).write_volatile(byte);
        rustix::mm::msync(base, length as usize, MsyncFlags::SYNC)?;
        rustix::mm::munmap(base, length as usize)?;
    }
    Ok(())
}

/// One random operation in a tree; both trees get the same random numbers.
fn step(r: &mut Random, root: &Path) -> String {
    let kind = r.below(20);
    let (one, two) = (root.join(some_path(r)), root.join(some_path(r)));
    let (offset, length) = (r.below(200_000), r.below(70_000) as usize);
    let byte = r.below(256) as u8;
    let text = match kind {
        0..=3 => outcome(
            fs::OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(byte < 20)
                .mode(0o640)
                .open(&one)
                .and_then(|f| f.write_all_at(&vec![byte; length], offset)),
        ),
        4 => outcome(fs::create_dir(&one)),
        5 => outcome(fs::remove_file(&one)),
        6 => outcome(fs::remove_dir(&one)),
        7 | 8 => outcome(fs::rename(&one, &two)),
        9 => outcome(fs::hard_link(&one, &two)),
        10 => outcome(std::os::unix::fs::symlink(OsStr::from_bytes(NAMES[(byte % 9) as usize]), &one)),
        11 => outcome(
            fs::symlink_metadata(&one)
                .and_then(|_| fs::set_permissions(&one, fs::Permissions::from_mode(0o400 | u32::from(byte)))),
        ),
        12 => outcome(fs::OpenOptions::new().write(true).open(&one).and_then(|f| f.set_len(offset))),
        13 => outcome(
            rustix::fs::lsetxattr(&one, "user.test", &[byte; 40], XattrFlags::from_bits_retain(u32::from(byte % 3)))
                .map_err(Into::into),
        ),
        14 => outcome(rustix::fs::lremovexattr(&one, "user.test").map_err(Into::into)),
        15 => outcome(fs::OpenOptions::new().write(true).open(&one).and_then(|f| {
            let flags = match byte % 4 {
                0 => FallocateFlags::empty(),
                1 => FallocateFlags::KEEP_SIZE,
                2 => FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE,
                _ => FallocateFlags::ZERO_RANGE,
            };
            Ok(rustix::fs::fallocate(&f, flags, offset, length as u64 + 1)?)
        })),
        16 => outcome(store_mapped(&one, offset, byte)),
        17 => {
            let flags = if byte < 128 { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            outcome(rustix::fs::renameat_with(CWD, &one, CWD, &two, flags).map_err(Into::into))
        }
        18 => {
            let kind = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice][(byte % 3) as usize];
            let device = if byte % 3 == 2 { rustix::fs::makedev(1, 3) } else { 0 };
            outcome(rustix::fs::mknodat(CWD, &one, kind, Mode::from_raw_mode(0o600), device).map_err(Into::into))
        }
        _ => outcome(
            rustix::fs::chownat(
                CWD,
                &one,
                Some(rustix::fs::Uid::from_raw(byte.into())),
                None,
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(Into::into),
        ),
    };
    // Opening a fifo for writing would wait for a reader: none of the above opens one (they are opened by `open`), see `is_fifo`.
    format!("{kind} {text}")
}

/// Whether the next step would open a fifo, which blocks, or a device.
fn opens_special(r: &Random, root: &Path) -> bool {
    let mut r = Random(r.0);
    let kind = r.below(20);
    let one = root.join(some_path(&mut r));
    matches!(kind, 0..=3 | 12 | 15 | 16) && one.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir())
}

fn exercise(seed: u64, steps: usize) {
    eprintln!("seed {seed}");
    let m = mounted();
    let plain = scratch();
    let mut r = Random(seed);
    for n in 0..steps {
        while opens_special(&r, plain.path()) {
            r.next();
        }
        let mut again = Random(r.0);
        let on_mount = step(&mut r, &m.path);
        let on_plain = step(&mut again, plain.path());
        assert_eq!(on_mount, on_plain, "seed {seed} step {n}");
    }
    let wanted = tree(plain.path(), false);
    assert!(wanted.len() > 5);
    assert_eq!(tree(&m.path, false), wanted, "through the mount, seed {seed}");
    assert_eq!(
        tree(&beneath(m.front.root_fd()), true),
        tree(&m.path, true),
        "attributes through the mount, seed {seed}"
    );

    let mirror = scratch();
    for (op, payload) in m.tape.ops.lock().unwrap().iter() {
        follow(mirror.path(), op, payload);
    }
    assert_eq!(tree(mirror.path(), false), wanted, "what the operations make, seed {seed}");

    m.front.unmount(Unmount::Orderly).unwrap();
    assert_eq!(tree(&m.path, false), wanted, "the plain directory afterwards, seed {seed}");
}

#[test]
fn behaves_like_a_plain_directory() {
    for seed in [1, 0x5eed, 0xfeed_f00d] {
        exercise(seed, 1500);
    }
}
