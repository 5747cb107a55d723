//! How are attributes and extended attributes read and changed?

use rustix::fs::{AtFlags, Gid, Mode, Stat, StatxFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::core::{Core, Done, Earlier, atime, attr, mtime, proc_path};
use super::data::without_privileges;
use crate::activity::{State, Touch};
use crate::fuse::abi::{Body, MAX_WRITE, SetAttr, valid};
use crate::fuse::session::{Outcome, Request};
use crate::op::{Op, RelPath};

/// What a file can do that its caller cannot; a write takes it away.
const CAPABILITY: &[u8] = b"security.capability";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

impl Core {
    pub(super) fn get_attr(&self, nodeid: u64, fh: Option<u64>) -> Done {
        let stat = if let Some(handle) = fh.and_then(|fh| self.handles.get(fh)) {
            rustix::fs::fstat(&handle.fd)?
        } else {
            let _names = self.names_shared();
            self.stat(self.ino(nodeid))?
        };
        Ok(Outcome::Reply(attributes(&stat)))
    }

    pub(super) fn get_statx(&self, nodeid: u64, fh: Option<u64>, mask: u32) -> Done {
        // Only what the file system tells, and nothing that a later version of the call may add.
        let wanted = StatxFlags::from_bits_truncate(mask) & (StatxFlags::BASIC_STATS | StatxFlags::BTIME);
        let found = if let Some(handle) = fh.and_then(|fh| self.handles.get(fh)) {
            rustix::fs::statx(&handle.fd, "", AtFlags::EMPTY_PATH, wanted)?
        } else {
            let _names = self.names_shared();
            let reference = self.reference(self.ino(nodeid))?;
            rustix::fs::statx(&reference, "", AtFlags::EMPTY_PATH, wanted)?
        };
        let mut body = Body::new();
        body.statx_out(&found);
        Ok(Outcome::Reply(body))
    }

    pub(super) fn stat_fs(&self) -> Done {
        let s = rustix::fs::fstatvfs(&self.root)?;
        let mut body = Body::new();
        body.u64(s.f_blocks).u64(s.f_bfree).u64(s.f_bavail).u64(s.f_files).u64(s.f_ffree);
        body.u32(s.f_bsize as u32).u32(s.f_namemax as u32).u32(s.f_frsize as u32);
        for _ in 0..7 {
            body.u32(0);
        }
        Ok(Outcome::Reply(body))
    }

    pub(super) fn set_attr(&self, request: &Request, wish: &SetAttr) -> Done {
        let _names = self.names_shared();
        let ino = self.ino(request.header.nodeid);
        if let Some(Earlier(position)) = Self::already(request) {
            let stat = self.stat(ino)?;
            return Ok(self.changed(position, attributes(&stat)));
        }
        let _inode = self.inode(ino);
        self.change(request, 0, || {
            let path = self.recorded_path(ino)?;
            let fd = self.reference(ino)?;
            let before = rustix::fs::fstat(&fd)?;
            self.attributes_change(&before, path.as_ref())?;
            if wish.valid & valid::SIZE != 0
                && let Some(path) = &path
            {
                let (dir, links) = (self.dir, before.st_nlink);
                if wish.size == 0 {
                    self.about_to(&Touch::Emptied { dir, ino, path, links })?;
                } else {
                    let state = || Ok(State { size: before.st_size.cast_unsigned(), links });
                    let (offset, end) = (wish.size, u64::MAX);
                    self.about_to(&Touch::Content { dir, ino, path, offset, end, state: &state })?;
                }
            }
            let mut done = 0;
            let result = apply(&fd, &before, wish, &mut done);
            // What did happen is recorded even when a later step failed.
            let stat = rustix::fs::fstat(&fd)?;
            let op = path.filter(|_| done != 0).map(|path| {
                let has = |bit: u32| done & bit != 0;
                let mode = stat.st_mode & 0o7777;
                Op::SetAttr {
                    dir: self.dir,
                    path,
                    ino,
                    mode: (has(valid::MODE) || mode != before.st_mode & 0o7777).then_some(mode),
                    uid: has(valid::UID).then_some(stat.st_uid),
                    gid: has(valid::GID).then_some(stat.st_gid),
                    size: has(valid::SIZE).then_some(stat.st_size.cast_unsigned()),
                    atime: has(valid::ATIME).then(|| atime(&stat)),
                    mtime: (has(valid::MTIME) || has(valid::SIZE)).then(|| mtime(&stat)),
                }
            });
            let position = self.record(request, op.as_ref().map(|op| (op, &[][..])));
            result?;
            Ok(self.changed(position, attributes(&stat)))
        })
    }

    /// Path for the calls on extended attributes, which take no `O_PATH` descriptors.
    fn with_object<T>(&self, ino: u64, call: impl FnOnce(&str) -> Result<T, Errno>) -> Result<T, Errno> {
        let fd = self.reference(ino)?;
        call(&proc_path(&fd))
    }

    pub(super) fn get_xattr(&self, nodeid: u64, name: &[u8], size: u32, scratch: &mut Vec<u8>) -> Done {
        let _names = self.names_shared();
        let ino = self.ino(nodeid);
        // Asked for by the kernel before the first write to each file, and hardly ever there.
        let inode = (name == CAPABILITY).then(|| self.inode(ino));
        if inode.is_some() && self.nodes().is_without_capability(ino) {
            return Err(Errno::NODATA);
        }
        let got = self.with_object(ino, |path| {
            let buffer = buffer(scratch, size)?;
            let length = rustix::fs::getxattr(path, name, buffer)?;
            Ok(sized(size, length))
        });
        if inode.is_some() && matches!(got, Err(Errno::NODATA)) {
            self.nodes().set_without_capability(ino, true);
        }
        got
    }

    pub(super) fn list_xattr(&self, nodeid: u64, size: u32, scratch: &mut Vec<u8>) -> Done {
        let _names = self.names_shared();
        self.with_object(self.ino(nodeid), |path| {
            let buffer = buffer(scratch, size)?;
            let length = rustix::fs::listxattr(path, buffer)?;
            Ok(sized(size, length))
        })
    }

    pub(super) fn set_xattr(&self, request: &Request, name: &[u8], value: &[u8], flags: u32, kill_sgid: bool) -> Done {
        let xattr_flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        // A former worker may have created it.
        let xattr_flags = if request.replayed { XattrFlags::empty() } else { xattr_flags };
        self.change_xattr(
            request,
            name,
            value,
            kill_sgid,
            |path| rustix::fs::setxattr(path, name, value, xattr_flags),
            |dir, path, ino, name| Op::SetXattr { dir, path, ino, name },
        )
    }

    pub(super) fn remove_xattr(&self, request: &Request, name: &[u8]) -> Done {
        let remove = |path: &str| match rustix::fs::removexattr(path, name) {
            Err(Errno::NODATA) if request.replayed => Ok(()),
            other => other,
        };
        self.change_xattr(request, name, &[], false, remove, |dir, path, ino, name| Op::RemoveXattr {
            dir,
            path,
            ino,
            name,
        })
    }

    fn change_xattr(
        &self,
        request: &Request,
        name: &[u8],
        value: &[u8],
        kill_sgid: bool,
        call: impl FnOnce(&str) -> Result<(), Errno>,
        op: impl FnOnce(u16, RelPath, u64, RelPath) -> Op,
    ) -> Done {
        let _names = self.names_shared();
        let ino = self.ino(request.header.nodeid);
        if let Some(Earlier(position)) = Self::already(request) {
            return Ok(self.changed(position, Body::new()));
        }
        let _inode = self.inode(ino);
        self.change(request, value.len(), || {
            let path = self.recorded_path(ino)?;
            let fd = self.reference(ino)?;
            let before = rustix::fs::fstat(&fd)?;
            self.attributes_change(&before, path.as_ref())?;
            if name == CAPABILITY {
                self.nodes().set_without_capability(ino, false);
            }
            call(&proc_path(&fd))?;
            let mut after = rustix::fs::fstat(&fd)?;
            if kill_sgid && after.st_mode & 0o2000 != 0 {
                rustix::fs::chmod(proc_path(&fd), Mode::from_raw_mode(after.st_mode & 0o7777 & !0o2000))?;
                after = rustix::fs::fstat(&fd)?;
            }
            let Some(path) = path else {
                self.record(request, None);
                return Ok(Outcome::Reply(Body::new()));
            };
            let name_of = RelPath::opaque(name).ok_or(Errno::INVAL)?;
            let position = self.record(request, Some((&op(self.dir, path.clone(), ino, name_of), value)));
            // An access list is also a mode.
            if name == ACCESS_ACL && after.st_mode != before.st_mode {
                let mode = Some(after.st_mode & 0o7777);
                let (uid, gid, size, atime, mtime) = (None, None, None, None, None);
                self.recorder
                    .record(&Op::SetAttr { dir: self.dir, path, ino, mode, uid, gid, size, atime, mtime }, &[]);
            }
            Ok(self.changed(position, Body::new()))
        })
    }
}

fn attributes(stat: &Stat) -> Body {
    let mut body = Body::new();
    body.attr_out(&attr(stat));
    body
}

/// Space for an answer; size 0: the kernel only asks how long it would be.
fn buffer(scratch: &mut Vec<u8>, size: u32) -> Result<&mut [u8], Errno> {
    let size = (size as usize).min(MAX_WRITE);
    if scratch.len() < size {
        scratch.resize(size, 0);
    }
    scratch.get_mut(..size).ok_or(Errno::INVAL)
}

fn sized(size: u32, length: usize) -> Outcome {
    if size > 0 {
        return Outcome::Scratch(length);
    }
    let mut body = Body::new();
    body.u32(length as u32).u32(0);
    Outcome::Reply(body)
}

/// Applies the wishes one after the other; `done` tells which were.
fn apply(fd: &std::os::fd::OwnedFd, before: &Stat, wish: &SetAttr, done: &mut u32) -> Result<(), Errno> {
    let has = |bit: u32| wish.valid & bit != 0;
    if has(valid::UID | valid::GID) {
        let uid = has(valid::UID).then(|| Uid::from_raw(wish.uid));
        let gid = has(valid::GID).then(|| Gid::from_raw(wish.gid));
        rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        *done |= wish.valid & (valid::UID | valid::GID);
    }
    if has(valid::MODE) {
        rustix::fs::chmod(proc_path(fd), Mode::from_raw_mode(wish.mode & 0o7777))?;
        *done |= valid::MODE;
    } else if has(valid::KILL_SUIDGID)
        && let Some(mode) = without_privileges(before)
    {
        rustix::fs::chmod(proc_path(fd), Mode::from_raw_mode(mode))?;
        *done |= valid::MODE;
    }
    if has(valid::SIZE) {
        let file =
            rustix::fs::open(proc_path(fd), rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::ftruncate(&file, wish.size)?;
        *done |= valid::SIZE;
    }
    if has(valid::ATIME | valid::MTIME) {
        let time = |bit: u32, now: u32, (tv_sec, ns): (i64, u32)| {
            let special = if !has(bit) {
                Some(rustix::fs::UTIME_OMIT)
            } else if has(now) {
                Some(rustix::fs::UTIME_NOW)
            } else {
                None
            };
            Timespec {
                tv_sec: if special.is_some() { 0 } else { tv_sec },
                tv_nsec: special.unwrap_or_else(|| ns.into()),
            }
        };
        let times = Timestamps {
            last_access: time(valid::ATIME, valid::ATIME_NOW, wish.atime),
            last_modification: time(valid::MTIME, valid::MTIME_NOW, wish.mtime),
        };
        rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)?;
        *done |= wish.valid & (valid::ATIME | valid::MTIME);
    }
    Ok(())
}
