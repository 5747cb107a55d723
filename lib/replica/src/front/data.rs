//! How does content get in and out? Changes hold the namespace lock shared and the inode's lock around {local change, record}.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::core::{Core, Done, Earlier, mtime};
use super::handles::Handle;
use crate::fuse::abi::{Body, MAX_WRITE, OPEN_FILE, OPEN_KILL_SUIDGID, WRITE_KILL_SUIDGID};
use crate::fuse::session::{Outcome, Request, Session};
use crate::op::{Op, RelPath};
use crate::pieces;

/// Mode without the bits that a change by an unprivileged caller takes away; None: nothing to take.
pub(super) fn without_privileges(stat: &Stat) -> Option<u32> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut mode = stat.st_mode & 0o7777 & !0o4000;
    if mode & 0o010 != 0 {
        mode &= !0o2000;
    }
    (mode != stat.st_mode & 0o7777).then_some(mode)
}

impl Core {
    pub(super) fn open_file(&self, request: &Request, flags: u32, open_flags: u32) -> Done {
        let _names = self.names_shared();
        let ino = self.ino(request.header.nodeid);
        // How the file is accessed only: appending, truncating, bypassing the cache and syncing are requests of their own.
        let writes = flags & libc::O_ACCMODE.cast_unsigned() != libc::O_RDONLY.cast_unsigned();
        let access = if writes { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = self.open(ino, access | OFlags::NONBLOCK)?;
        if open_flags & OPEN_KILL_SUIDGID != 0 {
            let _inode = self.inode(ino);
            if let Outcome::Park = self.change(request, 0, || {
                self.drop_privileges(&fd, ino, self.recorded_path(ino)?)?;
                Ok(Outcome::Silent)
            })? {
                return Ok(Outcome::Park);
            }
        }
        self.nodes().opened(ino);
        let mut body = Body::new();
        body.open_out(self.handles.insert(ino, fd), OPEN_FILE);
        Ok(Outcome::Reply(body))
    }

    pub(super) fn release(&self, fh: u64) -> Done {
        if let Some(handle) = self.handles.remove(fh) {
            let gone = self.nodes().closed(handle.ino);
            self.drop_orphan(handle.ino, gone);
        }
        Ok(Outcome::Reply(Body::new()))
    }

    fn handle_of(&self, fh: u64, nodeid: u64) -> Result<Arc<Handle>, Errno> {
        if let Some(handle) = self.handles.get(fh) {
            return Ok(handle);
        }
        let _names = self.names_shared();
        self.handle(fh, nodeid)
    }

    pub(super) fn read(
        &self,
        session: &Arc<Session>,
        nodeid: u64,
        fh: u64,
        (offset, size): (u64, u32),
        scratch: &mut Vec<u8>,
    ) -> Done {
        let handle = self.handle_of(fh, nodeid)?;
        let size = (size as usize).min(MAX_WRITE);
        if scratch.len() < size {
            scratch.resize(size, 0);
        }
        let buffer = scratch.get_mut(..size).ok_or(Errno::INVAL)?;
        // What is in no cache is waited for, and others may have requests meanwhile.
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        let mut filled = rustix::io::preadv2(&handle.fd, &mut [IoSliceMut::new(buffer)], offset, flags).unwrap_or(0);
        if filled < size {
            session.about_to_wait();
        }
        while filled < size {
            match rustix::io::pread(&handle.fd, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(Errno::INTR) => {}
                Err(_) if filled > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Outcome::Scratch(filled))
    }

    /// Clears set-user-id and set-group-id, and records it.
    fn drop_privileges(&self, fd: &impl std::os::fd::AsFd, ino: u64, path: Option<RelPath>) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(fd)?;
        if let Some(mode) = without_privileges(&stat) {
            self.attributes_change(&stat, path.as_ref())?;
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
            if let Some(path) = path {
                let (uid, gid, size, atime, mtime) = (None, None, None, None, None);
                let op = Op::SetAttr { dir: self.dir, path, ino, mode: Some(mode), uid, gid, size, atime, mtime };
                self.recorder.record(&op, &[]);
            }
        }
        Ok(())
    }

    fn record_time(&self, fd: &OwnedFd, path: Option<RelPath>) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(fd)?;
        if let Some(path) = path {
            let (mode, uid, gid, size, atime) = (None, None, None, None, None);
            let (dir, ino, mtime) = (self.dir, stat.st_ino, Some(mtime(&stat)));
            self.recorder.record(&Op::SetAttr { dir, path, ino, mode, uid, gid, size, atime, mtime }, &[]);
        }
        Ok(())
    }

    pub(super) fn write(&self, request: &Request, fh: u64, offset: u64, flags: u32, data: &[u8]) -> Done {
        let _names = self.names_shared();
        let handle = self.handle(fh, request.header.nodeid)?;
        let ino = handle.ino;
        let written = |count: usize| {
            let mut body = Body::new();
            body.u32(count as u32).u32(0);
            body
        };
        if let Some(Earlier(position)) = Self::already(request) {
            return Ok(self.changed(position, written(data.len())));
        }
        let _inode = self.inode(ino);
        self.change(request, data.len(), || {
            let path = self.recorded_path(ino)?;
            let end = offset.saturating_add(data.len() as u64);
            self.content_changes(&handle.fd, ino, path.as_ref(), (offset, end))?;
            if flags & WRITE_KILL_SUIDGID != 0 {
                self.drop_privileges(&handle.fd, ino, path.clone())?;
            }
            let count = match pieces::write(&handle.fd, offset, data) {
                (0, Some(errno)) => {
                    // A write that finds no space has changed the time.
                    self.record_time(&handle.fd, path)?;
                    return Err(errno);
                }
                (count, _) => count,
            };
            let op = match path {
                Some(path) => {
                    let mtime = mtime(&rustix::fs::fstat(&handle.fd)?);
                    Some(Op::Write { dir: self.dir, path, ino, offset, mtime })
                }
                None => None,
            };
            let position = self.record(request, op.as_ref().map(|op| (op, data.get(..count).unwrap_or_default())));
            Ok(self.changed(position, written(count)))
        })
    }

    pub(super) fn fallocate(&self, request: &Request, fh: u64, offset: u64, length: u64, mode: u32) -> Done {
        let allowed = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        // Collapsing and inserting ranges cannot be repeated after a restart; the kernel does not pass them on either.
        let fallocate_flags =
            FallocateFlags::from_bits(mode).filter(|m| allowed.contains(*m)).ok_or(Errno::OPNOTSUPP)?;
        let _names = self.names_shared();
        let handle = self.handle(fh, request.header.nodeid)?;
        let ino = handle.ino;
        if let Some(Earlier(position)) = Self::already(request) {
            return Ok(self.changed(position, Body::new()));
        }
        let _inode = self.inode(ino);
        self.change(request, 0, || {
            let path = self.recorded_path(ino)?;
            let before = rustix::fs::fstat(&handle.fd)?;
            self.attributes_change(&before, path.as_ref())?;
            if fallocate_flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
                let end = offset.saturating_add(length);
                self.content_changes(&handle.fd, ino, path.as_ref(), (offset, end))?;
            }
            if let Err(errno) = rustix::fs::fallocate(&handle.fd, fallocate_flags, offset, length) {
                // ext4 changes the time, and the size as far as it came. Allocating alone changes no content.
                let changes = fallocate_flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE);
                let range = if changes { offset..offset.saturating_add(length) } else { 0..0 };
                self.record_remains(&handle.fd, path.as_ref(), &before, range)?;
                return Err(errno);
            }
            let op = match path {
                Some(path) => {
                    let (dir, mtime) = (self.dir, mtime(&rustix::fs::fstat(&handle.fd)?));
                    Some(Op::Fallocate { dir, path, ino, offset, length, mode: mode.cast_signed(), mtime })
                }
                None => None,
            };
            let position = self.record(request, op.as_ref().map(|op| (op, &[][..])));
            Ok(self.changed(position, Body::new()))
        })
    }

    pub(super) fn seek(&self, nodeid: u64, fh: u64, offset: u64, whence: u32) -> Done {
        let handle = self.handle_of(fh, nodeid)?;
        let to = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let mut body = Body::new();
        body.u64(rustix::fs::seek(&handle.fd, to)?);
        Ok(Outcome::Reply(body))
    }

    pub(super) fn sync(&self, session: &Arc<Session>, request: &Request, fh: u64, data_only: bool) -> Done {
        self.barrier(session, request, fh, data_only, |path, ino| {
            // An unlinked file has no path any more, but what was done before is waited for.
            let excluded = path.is_none() && self.nodes().path(ino).is_ok();
            (!excluded).then_some(Op::Sync { dir: self.dir, path, ino, data_only })
        })
    }

    pub(super) fn sync_directory(&self, session: &Arc<Session>, request: &Request, fh: u64, data_only: bool) -> Done {
        self.barrier(session, request, fh, data_only, |path, _| path.map(|path| Op::SyncDir { dir: self.dir, path }))
    }

    /// The local disk and the peer are waited for in parallel: the operation is on its way before the local sync begins.
    fn barrier(
        &self,
        session: &Arc<Session>,
        request: &Request,
        fh: u64,
        data_only: bool,
        op: impl FnOnce(Option<RelPath>, u64) -> Option<Op>,
    ) -> Done {
        let names = self.names_shared();
        let handle = self.handle(fh, request.header.nodeid)?;
        let position = if let Some(Earlier(position)) = Self::already(request) {
            position
        } else {
            let mut position = None;
            let recorded = self.change(request, 0, || {
                let op = op(self.recorded_path(handle.ino)?, handle.ino);
                position = self.record(request, op.as_ref().map(|op| (op, &[][..])));
                Ok(Outcome::Silent)
            })?;
            if let Outcome::Park = recorded {
                return Ok(Outcome::Park);
            }
            position
        };
        drop(names);
        session.about_to_wait();
        if data_only {
            rustix::fs::fdatasync(&handle.fd)?;
        } else {
            rustix::fs::fsync(&handle.fd)?;
        }
        Ok(position.map_or_else(|| Outcome::Reply(Body::new()), |p| Outcome::After(p, Body::new())))
    }
}
