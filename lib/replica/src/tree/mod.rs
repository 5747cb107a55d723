//! How is a replicated directory reached, so that no path of a peer can leave it?

mod exclude;
mod hash;
mod meta;

pub use exclude::{Exclude, ExcludeError, Rule};
pub use hash::{BLOCK, EMPTY, hash_bytes, is_zero};
pub(crate) use hash::{hash_block, next_data, read_full};
pub use meta::{Meta, Xattr};
pub(crate) use meta::{Place, proc_path, set_times, set_xattrs};

use crate::op::{Kind, RelPath, Time};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Opens `path` beneath `root`: no component may be a symlink, leave the directory or cross into another file system.
pub fn open(root: BorrowedFd<'_>, path: &RelPath, flags: OFlags) -> io::Result<OwnedFd> {
    let bytes: &[u8] = if path.is_root() { b"." } else { path.as_bytes() };
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut attempts = 0;
    loop {
        match rustix::fs::openat2(root, bytes, flags, Mode::empty(), resolve) {
            // The kernel could not prove that a concurrent rename did not move us out: try again.
            Err(rustix::io::Errno::AGAIN) if attempts < 64 => attempts += 1,
            other => return Ok(other?),
        }
    }
}

/// Opens a directory beneath `root`.
pub fn open_dir(root: BorrowedFd<'_>, path: &RelPath) -> io::Result<OwnedFd> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a regular file beneath `root`; anything else is `EINVAL`, and no fifo or device is ever waited for.
pub fn open_file(root: BorrowedFd<'_>, path: &RelPath, flags: OFlags) -> io::Result<OwnedFd> {
    let fd = open(root, path, flags | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(fd)
}

/// The parent's descriptor and the last component. The directory itself has no parent here: `EINVAL`.
pub fn open_parent<'p>(root: BorrowedFd<'_>, path: &'p RelPath) -> io::Result<(OwnedFd, &'p [u8])> {
    let (parent, name) = path.split().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok((open_dir(root, &parent)?, name))
}

/// State of `name` itself in a directory (a symlink is not followed).
pub fn stat_at(dir: impl AsFd, name: &[u8]) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// State of `path` beneath `root`, the last component not followed.
pub fn stat(root: BorrowedFd<'_>, path: &RelPath) -> io::Result<Stat> {
    if path.is_root() {
        return Ok(rustix::fs::fstat(root)?);
    }
    let (parent, name) = path.split().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    if parent.is_root() {
        return stat_at(root, name);
    }
    let fd = open(root, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
    stat_at(&fd, name)
}

/// Whether this object is still at this path. File systems use the numbers of inodes again, also for objects of another kind.
pub fn is_at(root: BorrowedFd<'_>, path: &RelPath, ino: u64, kind: Kind) -> bool {
    stat(root, path).is_ok_and(|stat| stat.st_ino == ino && kind_of(&stat) == Some(kind))
}

/// Kind of an object from its mode.
pub fn kind_of(stat: &Stat) -> Option<Kind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return None,
    })
}

/// Modification time of an object.
pub fn mtime_of(stat: &Stat) -> Time {
    Time(stat.st_mtime, stat.st_mtime_nsec as u32)
}

/// When the kernel changed an object's inode last.
pub fn ctime_of(stat: &Stat) -> Time {
    Time(stat.st_ctime, stat.st_ctime_nsec as u32)
}

/// Names in a directory, sorted, without `.` and `..`.
pub fn names(dir: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(name.to_vec());
        }
    }
    found.sort_unstable();
    Ok(found)
}
