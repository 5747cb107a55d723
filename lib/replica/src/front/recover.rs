//! Where is an object that the kernel knows and we do not? After a restart the kernel goes on to name objects by number.
//!
//! First the file system is asked (by file handle, which ext4 accepts without the generation); what it says is verified. Else the tree is
//! searched once.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::core::{BENEATH, Core, proc_path};
use super::nodes::Orphan;

/// Type of handles that hold a 32-bit inode number and a generation.
const FILEID_INO32_GEN: i32 = 1;

#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    ino: u32,
    generation: u32,
}

impl Core {
    /// Puts the object and its directories into the table, or ESTALE. The namespace lock is held, shared or exclusively.
    pub(super) fn recover(&self, ino: u64) -> Result<(), Errno> {
        if let Some(fd) = self.by_handle(ino) {
            let stat = rustix::fs::fstat(&fd)?;
            if stat.st_ino == ino && stat.st_dev == self.device {
                if stat.st_nlink == 0 {
                    // A former worker may have given it to the runner.
                    self.nodes().orphaned(ino, Orphan { fd: Arc::new(fd), kept: true });
                    return Ok(());
                }
                if self.by_path(ino, &fd).is_some() {
                    return Ok(());
                }
            }
        }
        let mut trail = Vec::new();
        let root =
            rustix::fs::openat(&self.root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if self.search(ino, &root, self.root_ino, &mut trail)? { Ok(()) } else { Err(Errno::STALE) }
    }

    fn by_handle(&self, ino: u64) -> Option<OwnedFd> {
        let root =
            rustix::fs::openat(&self.root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.ok()?;
        let mut handle = FileHandle { bytes: 8, kind: FILEID_INO32_GEN, ino: u32::try_from(ino).ok()?, generation: 0 };
        let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        // SAFETY: the structure is laid out as the kernel's file_handle with 8 bytes of handle, and outlives the call.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, root.as_fd().as_raw_fd(), std::ptr::from_mut(&mut handle), flags)
        };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just gave us this descriptor.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The kernel's idea of the path, if it is right.
    fn by_path(&self, ino: u64, fd: &OwnedFd) -> Option<()> {
        let path = std::fs::read_link(proc_path(fd)).ok()?;
        let root = std::fs::read_link(proc_path(&self.root)).ok()?;
        let relative = path.strip_prefix(&root).ok()?;
        let mut parent = self.root_ino;
        let mut directory = Arc::clone(&self.root);
        let parts: Vec<&[u8]> = relative.iter().map(std::ffi::OsStr::as_bytes).collect();
        let mut found = Vec::new();
        for (at, name) in parts.iter().enumerate() {
            let stat = rustix::fs::statat(&directory, *name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            if stat.st_dev != self.device {
                return None;
            }
            found.push((stat.st_ino, parent, *name));
            parent = stat.st_ino;
            if at + 1 < parts.len() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                directory = Arc::new(rustix::fs::openat2(&directory, *name, flags, Mode::empty(), BENEATH).ok()?);
            }
        }
        if found.last()?.0 != ino {
            return None;
        }
        let mut nodes = self.nodes();
        for (ino, parent, name) in found {
            nodes.recovered(ino, parent, name);
        }
        Some(())
    }

    fn search(
        &self,
        ino: u64,
        dir: &OwnedFd,
        dir_ino: u64,
        trail: &mut Vec<(u64, u64, Vec<u8>)>,
    ) -> Result<bool, Errno> {
        let mut below = Vec::new();
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if entry.ino() == ino {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if stat.st_ino == ino && stat.st_dev == self.device {
                    let mut nodes = self.nodes();
                    for (ino, parent, name) in trail.iter() {
                        nodes.recovered(*ino, *parent, name);
                    }
                    nodes.recovered(ino, dir_ino, name);
                    return Ok(true);
                }
            }
            if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
                below.push((entry.ino(), name.to_vec()));
            }
        }
        for (below_ino, name) in below {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(fd) = rustix::fs::openat2(dir, &*name, flags, Mode::empty(), BENEATH) else { continue };
            trail.push((below_ino, dir_ino, name));
            if self.search(ino, &fd, below_ino, trail)? {
                return Ok(true);
            }
            trail.pop();
        }
        Ok(false)
    }
}
