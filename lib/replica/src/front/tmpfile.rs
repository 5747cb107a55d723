//! How does a file without a name (`O_TMPFILE`) come to be, and what does the peer learn when it gets its first name?
//!
//! Until then nothing is recorded: nobody could name the file on the other side, and a crash would take it away here, too. When it is
//! linked, its creation, content and attributes are recorded as if they had just happened, under the exclusive namespace lock.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::core::{Core, Done, atime, attr, mtime, proc_path};
use super::nodes::Orphan;
use crate::fuse::abi::{Body, Call, OPEN_FILE};
use crate::fuse::session::{Outcome, Request};
use crate::fuse::umask;
use crate::op::{Kind, Op, Owner, RelPath};
use crate::recorder::Position;

/// Content that can be recorded in one step: the ring of unacknowledged frames has as much room above the level where changes park,
/// for everybody together.
pub(super) const MOST_AT_ONCE: u64 = 16 << 20;
/// Bytes of one recorded write.
const PIECE: usize = 1 << 20;

impl Core {
    pub(super) fn temporary(&self, request: &Request, call: Call<'_>) -> Done {
        let Call::TmpFile { flags, mode, umask: mask } = call else { return Err(Errno::NOSYS) };
        let _names = self.names_shared();
        let parent = self.ino(request.header.nodeid);
        // It is not in the stream, but takes space: not while frozen.
        self.change(request, 0, || {
            let directory = self.directory(parent)?;
            // Whether it may be linked later is decided here.
            let exclusive = OFlags::from_bits_retain(flags) & OFlags::EXCL;
            umask::set(mask);
            let open = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | exclusive;
            let fd = rustix::fs::openat(&directory, ".", open, Mode::from_raw_mode(mode & 0o7777))?;
            let mut stat = rustix::fs::fstat(&fd)?;
            if stat.st_uid != request.header.uid {
                rustix::fs::fchown(&fd, Some(rustix::fs::Uid::from_raw(request.header.uid)), None)?;
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                stat = rustix::fs::fstat(&fd)?;
            }
            let ino = stat.st_ino;
            let kept = rustix::fs::open(proc_path(&fd), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            if let Some(keeper) = &self.keeper {
                keeper.keep(&self.kept_name(ino), kept.as_fd());
            }
            {
                let mut nodes = self.nodes();
                nodes.orphaned(ino, Orphan { fd: Arc::new(kept), kept: self.keeper.is_some() });
                nodes.opened(ino);
            }
            let mut body = Body::new();
            body.entry_out(self.nodeid(ino), 0, &attr(&stat));
            body.open_out(self.handles.insert(ino, fd), OPEN_FILE);
            Ok(Outcome::Reply(body))
        })
    }

    /// Whether an object without a name may get one: its content must fit into one step.
    pub(super) fn linkable(stat: &Stat) -> Result<(), Errno> {
        let content = stat.st_blocks.cast_unsigned().saturating_mul(512);
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_file && content <= MOST_AT_ONCE { Ok(()) } else { Err(Errno::OPNOTSUPP) }
    }

    /// Records the file as it is now, as if it had just been made at `path`. The namespace lock is held exclusively.
    pub(super) fn record_whole(
        &self,
        request: &Request,
        path: &RelPath,
        reference: &OwnedFd,
        parent: &OwnedFd,
    ) -> Result<Option<Position>, Errno> {
        let stat = rustix::fs::fstat(reference)?;
        let (dir, ino) = (self.dir, stat.st_ino);
        let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
        let create = Op::Create {
            dir,
            path: path.clone(),
            ino,
            kind: Kind::File,
            owner: Owner { mode, uid, gid },
            rdev: 0,
            mtime: mtime(&stat),
            parent_mtime: mtime(&rustix::fs::fstat(parent)?),
        };
        self.recorder.record(&create, &[]);
        let file = rustix::fs::open(proc_path(reference), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut at = 0;
        let mut buffer = vec![0; PIECE];
        // ENXIO: only a hole follows.
        while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
            self.record_range(&file, path, &stat, start..at, &mut buffer)?;
        }
        // After the content: a write takes capabilities away.
        for name in attribute_names(reference)? {
            let length = rustix::fs::getxattr(proc_path(reference), &*name, &mut buffer[..])?;
            let name = RelPath::opaque(name).ok_or(Errno::INVAL)?;
            let op = Op::SetXattr { dir, path: path.clone(), ino, name };
            self.recorder.record(&op, buffer.get(..length).unwrap_or_default());
        }
        let last = Op::SetAttr {
            dir,
            path: path.clone(),
            ino,
            mode: Some(mode),
            uid: None,
            gid: None,
            size: Some(stat.st_size.cast_unsigned()),
            atime: Some(atime(&stat)),
            mtime: Some(mtime(&stat)),
        };
        Ok(self.record(request, Some((&last, &[]))))
    }

    /// Records what a range of a file holds as writes.
    fn record_range(
        &self,
        file: &OwnedFd,
        path: &RelPath,
        stat: &Stat,
        range: std::ops::Range<u64>,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        let mut offset = range.start;
        while offset < range.end {
            let length = usize::try_from(range.end - offset).unwrap_or(PIECE).min(buffer.len());
            let count = rustix::io::pread(file, buffer.get_mut(..length).ok_or(Errno::INVAL)?, offset)?;
            if count == 0 {
                break;
            }
            let (dir, ino, mtime) = (self.dir, stat.st_ino, mtime(stat));
            let op = Op::Write { dir, path: path.clone(), ino, offset, mtime };
            self.recorder.record(&op, buffer.get(..count).unwrap_or_default());
            offset += count as u64;
        }
        Ok(())
    }

    /// A change of content failed, perhaps half-way: what it left is recorded, if the file is another than `before`.
    pub(super) fn record_remains(
        &self,
        fd: &OwnedFd,
        path: Option<&RelPath>,
        before: &Stat,
        range: std::ops::Range<u64>,
    ) -> Result<(), Errno> {
        let after = rustix::fs::fstat(fd)?;
        let Some(path) = path else { return Ok(()) };
        if after.st_size == before.st_size && mtime(&after) == mtime(before) {
            return Ok(());
        }
        let end = range.end.min(after.st_size.cast_unsigned()).min(range.start.saturating_add(MOST_AT_ONCE));
        if range.start < end {
            self.record_range(fd, path, &after, range.start..end, &mut vec![0; PIECE])?;
        }
        let (dir, ino) = (self.dir, after.st_ino);
        let (mode, uid, gid, atime) = (None, None, None, None);
        let size = (after.st_size != before.st_size).then_some(after.st_size.cast_unsigned());
        let op = Op::SetAttr { dir, path: path.clone(), ino, mode, uid, gid, size, atime, mtime: Some(mtime(&after)) };
        self.recorder.record(&op, &[]);
        Ok(())
    }

    /// The reply to a link that gave an object without a name its first one.
    pub(super) fn named(&self, ino: u64, parent: u64, name: &[u8], directory: &OwnedFd) -> Result<Body, Errno> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let body = self.entry(&stat, parent, name);
        self.drop_kept(ino);
        Ok(body)
    }
}

fn attribute_names(reference: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    // The kernel's limit of a listing.
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::listxattr(proc_path(reference), &mut names[..])?;
    let names = names.get(..length).unwrap_or_default();
    Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
}
