//! How is the directory of a secondary kept from everybody else.
//!
//! A read-only bind mount over itself: readers see the data, nobody can change it by its name. The engine works through a descriptor
//! opened before. The mount's number is noted in the state directory, so that a later process of ours finds and removes what a dead one left,
//! and nothing else: a number counts only in the same boot and at the same path.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Of mount_setattr(2).
const MOUNT_ATTR_RDONLY: u64 = 1;

/// A blocked directory; stays blocked when this is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    path: PathBuf,
    mount: u64,
    boot: String,
}

/// Identity of the present boot of the host.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

impl Block {
    /// Mounts.
    pub fn new(path: &Path) -> io::Result<Self> {
        mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(e) = mount(None::<&str>, path, None::<&str>, flags, None::<&str>) {
            let _ = umount2(path, MntFlags::MNT_DETACH);
            return Err(e.into());
        }
        let mount = top_mount(path)?.unwrap_or_default();
        Ok(Self { path: path.to_owned(), mount, boot: boot_id() })
    }

    /// Mounts `beneath` itself over whatever lies at the path, from the first moment read-only. Needs Linux 5.12; `ENOSYS` before.
    pub fn over(beneath: impl AsFd, path: &Path) -> io::Result<Self> {
        Self::put(beneath, path, MoveMountFlags::empty())
    }

    /// Mounts `beneath`, read-only, between the directory and the mount that lies over it: when that one ends, the directory is blocked
    /// from the first moment. Needs Linux 6.5; `EINVAL` or `ENOSYS` before.
    pub fn under(beneath: impl AsFd, path: &Path) -> io::Result<Self> {
        Self::put(beneath, path, MoveMountFlags::MOVE_MOUNT_BENEATH)
    }

    fn put(directory: impl AsFd, path: &Path, place: MoveMountFlags) -> io::Result<Self> {
        let tree = copy(directory)?;
        set_read_only(&tree, true)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | place;
        rustix::mount::move_mount(&tree, "", rustix::fs::CWD, path, flags)?;
        let seen = rustix::fs::statx(&tree, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        Ok(Self { path: path.to_owned(), mount: seen.stx_mnt_id, boot: boot_id() })
    }

    /// A descriptor of the blocked directory through which it can be changed, like one that was opened before it was blocked. Needs
    /// Linux 5.12.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let tree =
            copy(rustix::fs::open(&self.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)?;
        set_read_only(&tree, false)?;
        Ok(rustix::fs::openat(&tree, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is what everybody sees at its path.
    pub fn is_on_top(&self) -> bool {
        self.boot == boot_id() && top_mount(&self.path).is_ok_and(|top| top == Some(self.mount))
    }

    /// Whether it is mounted, perhaps beneath something else.
    pub fn is_there(&self) -> bool {
        let found = |table: Vec<u8>| mounts_at(&table, self.path.as_os_str().as_bytes()).any(|m| m.id == self.mount);
        self.boot == boot_id() && std::fs::read("/proc/self/mountinfo").is_ok_and(found)
    }

    /// None, and none takes more room in a note.
    pub fn widest(path: &Path) -> Self {
        Self { path: path.to_owned(), mount: u64::MAX, boot: boot_id() }
    }

    /// Unmounts, when it is still the topmost mount there.
    pub fn remove(&self) -> io::Result<()> {
        if self.is_on_top() {
            umount2(&self.path, MntFlags::MNT_DETACH)?;
        }
        Ok(())
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Another mount of the same directory, at no path yet.
fn copy(directory: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(directory, "", flags)?)
}

/// Of a mount that is at no path yet.
fn set_read_only(tree: &OwnedFd, read_only: bool) -> io::Result<()> {
    let (set, clear) = if read_only { (MOUNT_ATTR_RDONLY, 0) } else { (0, MOUNT_ATTR_RDONLY) };
    let attributes = MountAttributes { set, clear, propagation: 0, user_namespace: 0 };
    // SAFETY: the path is an empty C string, the attributes are laid out as mount_setattr(2) says and of the size that is told, and both
    // outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attributes),
            size_of::<MountAttributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Number of the topmost mount at exactly this path.
fn top_mount(path: &Path) -> io::Result<Option<u64>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(topmost(&table, path.as_os_str().as_bytes()))
}

/// A line of mountinfo.
#[derive(Clone, Copy)]
struct Mounted {
    id: u64,
    /// What it lies over.
    parent: u64,
}

/// All mounts at exactly this path, in no order that says which lies over which.
fn mounts_at<'a>(table: &'a [u8], path: &'a [u8]) -> impl Iterator<Item = Mounted> + Clone + 'a {
    table.split(|b| *b == b'\n').filter_map(move |line| {
        let mut fields = line.split(|b| *b == b' ');
        let mut number = || fields.next().and_then(|f| std::str::from_utf8(f).ok()).and_then(|f| f.parse().ok());
        let (id, parent) = (number()?, number()?);
        fields.nth(2).is_some_and(|f| unescape(f) == path).then_some(Mounted { id, parent })
    })
}

/// The one that no other lies over.
fn topmost(table: &[u8], path: &[u8]) -> Option<u64> {
    let all = mounts_at(table, path);
    all.clone().filter(|m| !all.clone().any(|other| other.parent == m.id)).last().map(|m| m.id)
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'\\'
            && let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = tail
        {
            out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_of_a_path_with_a_space() {
        let table = b"20 1 0:1 / / rw - ext4 /dev/a rw\n31 20 0:2 / /a\\040b rw - ext4 /dev/b rw\n40 31 0:2 / /a\\040b ro shared:1 - ext4 /dev/b rw\n41 20 0:2 / /a rw - x y z\n";
        assert_eq!(topmost(table, b"/a b"), Some(40));
        assert_eq!(topmost(table, b"/c"), None);
        // Put beneath the other one later: 41 lies over 20, and 31 over 41.
        let table = b"31 41 0:2 / /a rw - x y z\n41 20 0:2 / /a ro - x y z\n";
        assert_eq!(topmost(table, b"/a"), Some(31));
    }

    #[test]
    fn a_directory_is_blocked_when_what_lies_over_the_block_ends() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::DIRECTORY | OFlags::PATH;
        let beneath = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        mount(None::<&str>, dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let under = Block::under(&beneath, dir.path());
        let above = std::fs::write(dir.path().join("on top"), b"1");
        let Ok(block) = under else {
            umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
            eprintln!("skipped: older than Linux 6.5");
            return;
        };
        let covered = (block.is_there(), block.is_on_top());
        block.remove().unwrap();
        let kept = block.is_there();
        umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
        let uncovered = (block.is_there(), block.is_on_top());
        let refused = std::fs::write(dir.path().join("x"), b"1");
        let through = block.open().and_then(|root| {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            Ok(rustix::fs::openat(&root, "y", flags, Mode::RUSR)?)
        });
        block.remove().unwrap();
        let gone = !block.is_there();
        above.unwrap();
        assert_eq!((covered, kept, uncovered, gone), ((true, false), true, (true, true), true));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        through.unwrap();
        assert!(dir.path().join("y").exists());
        std::fs::write(dir.path().join("x"), b"1").unwrap();
    }

    #[test]
    fn what_lies_over_a_directory_is_covered_with_the_directory() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("there"), b"1").unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::PATH;
        let beneath = rustix::fs::open(dir.path(), flags, rustix::fs::Mode::empty()).unwrap();
        mount(None::<&str>, dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(dir.path().join("on top"), b"1").unwrap();
        let block = Block::over(&beneath, dir.path()).unwrap();
        let seen = std::fs::read(dir.path().join("there"));
        let refused = std::fs::write(dir.path().join("x"), b"1");
        block.remove().unwrap();
        let uncovered = std::fs::read(dir.path().join("on top"));
        umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
        assert_eq!(seen.unwrap(), b"1");
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(uncovered.unwrap(), b"1");
    }

    #[test]
    fn a_blocked_directory_refuses_names_and_serves_descriptors() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let beneath = rustix::fs::open(dir.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        let block = Block::new(dir.path()).unwrap();
        let refused = std::fs::write(dir.path().join("x"), b"1");
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let through = rustix::fs::openat(&beneath, "y", flags, rustix::fs::Mode::RUSR);
        block.remove().unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        through.unwrap();
        std::fs::write(dir.path().join("x"), b"1").unwrap();
        block.remove().unwrap();
    }
}
