//! How do names come, change and go? Every change holds the namespace lock exclusively around {local change, record}.
//!
//! A request is noted in its slot before it is applied. One that a former worker noted may have been applied; what is there now tells:
//! the kernel has held the directories locked since it sent the request, and nobody else uses them. At most one request can be applied
//! and not recorded, because of the exclusive lock, and a successor holds all other changes back until that one is recorded: their paths are
//! right then.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::core::{Core, Done, Earlier, attr, decode_device, mtime};
use super::nodes::Orphan;
use super::spec::Keeper;
use crate::activity::Touch;
use crate::fuse::abi::{Body, Call, OPEN_FILE};
use crate::fuse::session::{Outcome, Request};
use crate::fuse::slots::Progress;
use crate::fuse::umask;
use crate::op::{Kind, Op, Owner, RelPath};

/// What to make, from one of the requests that make a name.
struct Making<'a> {
    name: &'a [u8],
    kind: Kind,
    mode: u32,
    umask: u32,
    rdev: u64,
    target: &'a [u8],
    /// CREATE: the file is opened, too.
    open: bool,
}

fn kind_of(mode: u32) -> Result<Kind, Errno> {
    Ok(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return Err(Errno::INVAL),
    })
}

impl Core {
    pub(super) fn lookup(&self, nodeid: u64, name: &[u8]) -> Done {
        let _names = self.names_shared();
        let parent = self.ino(nodeid);
        let directory = self.directory(parent)?;
        let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                let mut body = Body::new();
                body.no_entry();
                return Ok(Outcome::Reply(body));
            }
            other => other?,
        };
        if stat.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        Ok(Outcome::Reply(self.entry(&stat, parent, name)))
    }

    pub(super) fn entry(&self, stat: &Stat, parent: u64, name: &[u8]) -> Body {
        self.nodes().looked_up(stat.st_ino, parent, name);
        let mut body = Body::new();
        body.entry_out(self.nodeid(stat.st_ino), 0, &attr(stat));
        body
    }

    pub(super) fn forget(&self, items: &[(u64, u64)]) -> Done {
        for (nodeid, count) in items {
            let gone = self.nodes().forget(*nodeid, *count);
            self.drop_orphan(*nodeid, gone);
        }
        Ok(Outcome::Silent)
    }

    pub(super) fn make(&self, request: &Request, call: Call<'_>) -> Done {
        let making = match call {
            Call::Symlink { name, target } => {
                Making { name, kind: Kind::Symlink, mode: 0o777, umask: 0, rdev: 0, target, open: false }
            }
            Call::MkNod { name, mode, rdev, umask } => {
                let rdev = decode_device(rdev);
                Making { name, kind: kind_of(mode)?, mode, umask, rdev, target: &[], open: false }
            }
            Call::MkDir { name, mode, umask } => {
                Making { name, kind: Kind::Directory, mode, umask, rdev: 0, target: &[], open: false }
            }
            Call::Create { name, mode, umask, .. } => {
                Making { name, kind: Kind::File, mode, umask, rdev: 0, target: &[], open: true }
            }
            _ => return Err(Errno::NOSYS),
        };
        let names = self.names_exclusive();
        let parent = self.ino(request.header.nodeid);
        if let Some(Earlier(position)) = Self::already(request) {
            let directory = self.directory(parent)?;
            let stat = rustix::fs::statat(&directory, making.name, AtFlags::SYMLINK_NOFOLLOW)?;
            let body = self.made(&stat, parent, &making, None)?;
            return Ok(self.changed(position, body));
        }
        let done = self.change(request, 0, || self.make_now(request, parent, &making));
        drop(names);
        done
    }

    fn make_now(&self, request: &Request, parent: u64, making: &Making<'_>) -> Done {
        let directory = self.directory(parent)?;
        let path = self.path_of(parent, making.name)?;
        self.names_change(parent, &path)?;
        let perhaps_applied = request.perhaps_applied();
        request.note([0, 0]);
        let existing = if perhaps_applied {
            rustix::fs::statat(&directory, making.name, AtFlags::SYMLINK_NOFOLLOW).ok()
        } else {
            None
        };
        let same_kind = existing.is_some_and(|stat| kind_of(stat.st_mode) == Ok(making.kind));
        let fd = if same_kind { None } else { make_object(&directory, making)? };
        let stat = match own(&directory, making, request.header.uid) {
            Ok(stat) => stat,
            Err(errno) => {
                if !same_kind {
                    let flags = if making.kind == Kind::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                    // Best effort: the original error is the one that counts.
                    let _ = rustix::fs::unlinkat(&directory, making.name, flags);
                }
                return Err(errno);
            }
        };
        let op = if self.excluded(&path) { None } else { Some(self.op_of_new(path, making, &stat, &directory)?) };
        let position = self.record(request, op.as_ref().map(|op| (op, &[][..])));
        let body = self.made(&stat, parent, making, fd)?;
        Ok(self.changed(position, body))
    }

    fn op_of_new(&self, path: RelPath, making: &Making<'_>, stat: &Stat, directory: &OwnedFd) -> Result<Op, Errno> {
        let owner = Owner { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid };
        let (dir, ino) = (self.dir, stat.st_ino);
        let parent_mtime = mtime(&rustix::fs::fstat(directory)?);
        Ok(if making.kind == Kind::Symlink {
            let target = RelPath::opaque(making.target).ok_or(Errno::NAMETOOLONG)?;
            Op::Symlink { dir, path, ino, target, owner, mtime: mtime(stat), parent_mtime }
        } else {
            Op::Create {
                dir,
                path,
                ino,
                kind: making.kind,
                owner,
                rdev: stat.st_rdev,
                mtime: mtime(stat),
                parent_mtime,
            }
        })
    }

    /// The reply to what makes a name: the entry, and for CREATE a handle. `fd`: a file that did not exist before.
    fn made(&self, stat: &Stat, parent: u64, making: &Making<'_>, fd: Option<OwnedFd>) -> Result<Body, Errno> {
        let mut body = self.entry(stat, parent, making.name);
        if fd.is_some() {
            self.nodes().set_without_capability(stat.st_ino, true);
        }
        if making.open {
            let fd = match fd {
                Some(fd) => fd,
                None => self.open(stat.st_ino, OFlags::RDWR)?,
            };
            self.nodes().opened(stat.st_ino);
            body.open_out(self.handles.insert(stat.st_ino, fd), OPEN_FILE);
        }
        Ok(body)
    }

    pub(super) fn kept_name(&self, ino: u64) -> String {
        format!("unlinked:{}:{ino}", self.mount_point.display())
    }

    /// What kept an orphan that is gone; its inode number may be used again now.
    pub(super) fn drop_orphan(&self, ino: u64, orphan: Option<Orphan>) {
        // Nearly all never were with the runner, and telling it about each file that is removed would wake it up for nothing.
        if orphan.as_ref().is_some_and(|orphan| orphan.kept) {
            self.drop_kept(ino);
        }
        drop(orphan);
    }

    /// No successor needs it any more.
    pub(super) fn drop_kept(&self, ino: u64) {
        if let Some(keeper) = &self.keeper {
            Keeper::drop(&**keeper, &self.kept_name(ino));
        }
    }

    /// Before the last name of an object goes: what keeps the object while the kernel knows it.
    fn save_orphan(&self, directory: &OwnedFd, name: &[u8], stat: &Stat) -> Result<Option<Orphan>, Errno> {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (known, open) = {
            let nodes = self.nodes();
            (nodes.knows(stat.st_ino), nodes.is_open(stat.st_ino))
        };
        if stat.st_nlink > 1 && !is_directory || !known && !self.resumed {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let keeper = self.keeper.as_ref().filter(|_| !is_directory && (open || self.resumed));
        if let Some(keeper) = keeper {
            keeper.keep(&self.kept_name(stat.st_ino), fd.as_fd());
        }
        Ok(Some(Orphan { fd: Arc::new(fd), kept: keeper.is_some() }))
    }

    /// A name of an object is gone.
    fn lost_name(&self, ino: u64, parent: u64, name: &[u8], orphan: Option<Orphan>) {
        match orphan {
            Some(orphan) => self.nodes().orphaned(ino, orphan),
            None => self.nodes().remove_name(ino, parent, name),
        }
    }

    pub(super) fn remove(&self, request: &Request, name: &[u8], is_directory: bool) -> Done {
        let _names = self.names_exclusive();
        let parent = self.ino(request.header.nodeid);
        if let Some(Earlier(position)) = Self::already(request) {
            return Ok(self.changed(position, Body::new()));
        }
        self.change(request, 0, || {
            let directory = self.directory(parent)?;
            let path = self.path_of(parent, name)?;
            self.names_change(parent, &path)?;
            let perhaps_applied = request.perhaps_applied();
            request.note([0, 0]);
            let ino = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                // A former worker removed it; the inode number is only a hint to the receiver.
                Err(Errno::NOENT) if perhaps_applied => 0,
                Err(errno) => return Err(errno),
                Ok(stat) => {
                    let orphan = self.save_orphan(&directory, name, &stat)?;
                    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                    if let Err(errno) = rustix::fs::unlinkat(&directory, name, flags) {
                        self.drop_orphan(stat.st_ino, orphan);
                        return Err(errno);
                    }
                    self.lost_name(stat.st_ino, parent, name, orphan);
                    stat.st_ino
                }
            };
            let op = if self.excluded(&path) {
                None
            } else {
                let (dir, parent_mtime) = (self.dir, mtime(&rustix::fs::fstat(&directory)?));
                Some(if is_directory {
                    Op::Rmdir { dir, path, ino, parent_mtime }
                } else {
                    Op::Unlink { dir, path, ino, parent_mtime }
                })
            };
            let position = self.record(request, op.as_ref().map(|op| (op, &[][..])));
            Ok(self.changed(position, Body::new()))
        })
    }

    pub(super) fn rename(&self, request: &Request, name: &[u8], new_parent: u64, new_name: &[u8], flags: u32) -> Done {
        let _names = self.names_exclusive();
        let (from, to) = (self.ino(request.header.nodeid), self.ino(new_parent));
        if let Some(Earlier(position)) = Self::already(request) {
            return Ok(self.changed(position, Body::new()));
        }
        let rename_flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        if rename_flags.intersects(!(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE)) {
            return Err(Errno::INVAL);
        }
        self.change(request, 0, || {
            let (old_dir, new_dir) = (self.directory(from)?, self.directory(to)?);
            let (old_path, new_path) = (self.path_of(from, name)?, self.path_of(to, new_name)?);
            let excluded = self.excluded(&old_path);
            if excluded != self.excluded(&new_path) {
                // mv then copies and removes, which replicates what it should.
                return Err(Errno::XDEV);
            }
            let old = rustix::fs::statat(&old_dir, name, AtFlags::SYMLINK_NOFOLLOW);
            let new = rustix::fs::statat(&new_dir, new_name, AtFlags::SYMLINK_NOFOLLOW).ok();
            let exchange = rename_flags.contains(RenameFlags::EXCHANGE);
            if !excluded {
                self.names_change(from, &old_path)?;
                self.names_change(to, &new_path)?;
                let moves = [
                    (old.as_ref().ok(), &old_path, &new_path),
                    (new.as_ref().filter(|_| exchange), &new_path, &old_path),
                ];
                for (stat, from, path) in moves {
                    let Some(stat) = stat else { continue };
                    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                    let (dir, ino) = (self.dir, stat.st_ino);
                    self.about_to(&Touch::Renamed { dir, ino, from, path, directory })?;
                }
            }
            let ino = match (old, new) {
                (Err(Errno::NOENT), Some(there)) if request.perhaps_applied() && !exchange => {
                    self.nodes().remove_name(there.st_ino, from, name);
                    self.nodes().found(there.st_ino, to, new_name);
                    there.st_ino
                }
                (Err(errno), _) => return Err(errno),
                (Ok(old), new) => {
                    let inos = [old.st_ino, new.map_or(0, |s| s.st_ino)];
                    // Noted before, and now the other way round: a former worker exchanged them.
                    let exchanged = exchange && matches!(request.progress(), Progress::Noted([a, b]) if [b, a] == inos);
                    if exchanged {
                        inos[1]
                    } else {
                        request.note(inos);
                        let same = old.st_ino == inos[1];
                        let orphan = match new.filter(|_| !exchange && !same) {
                            Some(stat) => self.save_orphan(&new_dir, new_name, &stat)?,
                            None => None,
                        };
                        if let Err(errno) = rustix::fs::renameat_with(&old_dir, name, &new_dir, new_name, rename_flags)
                        {
                            self.drop_orphan(inos[1], orphan);
                            return Err(errno);
                        }
                        if same {
                            // Two names of one object: nothing happens.
                            self.record(request, None);
                            return Ok(Outcome::Reply(Body::new()));
                        }
                        if exchange {
                            self.nodes().found(inos[1], from, name);
                            self.nodes().remove_name(inos[1], to, new_name);
                        } else if new.is_some() {
                            self.lost_name(inos[1], to, new_name, orphan);
                        }
                        self.nodes().found(old.st_ino, to, new_name);
                        self.nodes().remove_name(old.st_ino, from, name);
                        old.st_ino
                    }
                }
            };
            let op = if excluded {
                None
            } else {
                Some(Op::Rename {
                    dir: self.dir,
                    from: old_path,
                    path: new_path,
                    ino,
                    flags,
                    from_mtime: mtime(&rustix::fs::fstat(&old_dir)?),
                    parent_mtime: mtime(&rustix::fs::fstat(&new_dir)?),
                })
            };
            let position = self.record(request, op.as_ref().map(|op| (op, &[][..])));
            Ok(self.changed(position, Body::new()))
        })
    }

    pub(super) fn link(&self, request: &Request, from: u64, name: &[u8]) -> Done {
        let _names = self.names_exclusive();
        let (ino, parent) = (self.ino(from), self.ino(request.header.nodeid));
        if let Some(Earlier(position)) = Self::already(request) {
            let stat = self.stat(ino)?;
            return Ok(self.changed(position, self.entry(&stat, parent, name)));
        }
        self.change(request, 0, || {
            let directory = self.directory(parent)?;
            let path = self.path_of(parent, name)?;
            let reference = self.reference(ino)?;
            // A former worker may have given it its name, and not recorded it.
            let nameless = self.nodes().is_orphan(ino) || matches!(request.progress(), Progress::Noted([1, _]));
            let original = self.recorded_path(ino)?;
            self.names_change(parent, &path)?;
            self.attributes_change(&rustix::fs::fstat(&reference)?, original.as_ref())?;
            if nameless {
                Self::linkable(&rustix::fs::fstat(&reference)?)?;
            } else if original.is_none() != self.excluded(&path) {
                return Err(Errno::XDEV);
            }
            let perhaps_applied = request.perhaps_applied();
            request.note([u64::from(nameless), 0]);
            match rustix::fs::linkat(&reference, "", &directory, name, AtFlags::EMPTY_PATH) {
                Err(Errno::EXIST) if perhaps_applied => {
                    if rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino != ino {
                        return Err(Errno::EXIST);
                    }
                }
                other => other?,
            }
            if nameless {
                let position = if self.excluded(&path) {
                    self.record(request, None)
                } else {
                    self.record_whole(request, &path, &reference, &directory)?
                };
                return Ok(self.changed(position, self.named(ino, parent, name, &directory)?));
            }
            let stat = rustix::fs::fstat(&reference)?;
            let parent_mtime = mtime(&rustix::fs::fstat(&directory)?);
            let op = original.map(|from| Op::Link { dir: self.dir, from, path, ino, parent_mtime });
            let position = self.record(request, op.as_ref().map(|op| (op, &[][..])));
            Ok(self.changed(position, self.entry(&stat, parent, name)))
        })
    }

    pub(super) fn read_link(&self, nodeid: u64, scratch: &mut Vec<u8>) -> Done {
        let _names = self.names_shared();
        let reference = self.reference(self.ino(nodeid))?;
        let target = rustix::fs::readlinkat(&reference, "", Vec::new())?;
        scratch.clear();
        scratch.extend_from_slice(target.as_bytes());
        Ok(Outcome::Scratch(scratch.len()))
    }
}

/// Makes the object with the caller's umask (or the directory's default ACL).
fn make_object(directory: &OwnedFd, making: &Making<'_>) -> Result<Option<OwnedFd>, Errno> {
    umask::set(making.umask);
    let mode = Mode::from_raw_mode(making.mode & 0o7777);
    match making.kind {
        Kind::Symlink => rustix::fs::symlinkat(making.target, directory, making.name).map(|()| None),
        Kind::Directory => rustix::fs::mkdirat(directory, making.name, mode).map(|()| None),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, making.name, flags, mode).map(Some)
        }
        Kind::Fifo => rustix::fs::mknodat(directory, making.name, FileType::Fifo, mode, 0).map(|()| None),
        Kind::Socket => rustix::fs::mknodat(directory, making.name, FileType::Socket, mode, 0).map(|()| None),
        Kind::CharDevice => {
            rustix::fs::mknodat(directory, making.name, FileType::CharacterDevice, mode, making.rdev).map(|()| None)
        }
        Kind::BlockDevice => {
            rustix::fs::mknodat(directory, making.name, FileType::BlockDevice, mode, making.rdev).map(|()| None)
        }
    }
}

/// Gives a new object to its owner, where the thread could not act as that one.
fn own(directory: &OwnedFd, making: &Making<'_>, uid: u32) -> Result<Stat, Errno> {
    let stat = rustix::fs::statat(directory, making.name, AtFlags::SYMLINK_NOFOLLOW)?;
    if stat.st_uid == uid {
        return Ok(stat);
    }
    rustix::fs::chownat(directory, making.name, Some(rustix::fs::Uid::from_raw(uid)), None, AtFlags::SYMLINK_NOFOLLOW)?;
    if making.kind == Kind::File && stat.st_mode & 0o6000 != 0 {
        // Changing the owner cleared these bits.
        rustix::fs::chmodat(directory, making.name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    rustix::fs::statat(directory, making.name, AtFlags::SYMLINK_NOFOLLOW)
}
