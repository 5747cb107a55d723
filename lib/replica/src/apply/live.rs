//! How is what the application did on the primary done again here?

use super::{Applier, Fault, Target, errno, set_mtime};
use crate::op::{Kind, Op, Owner, RelPath, Time};
use crate::pieces;
use crate::salvage::remove_tree;
use crate::tree::{self, Place};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A uid or gid that names somebody; -1 would mean "leave it".
fn somebody(id: u32) -> Result<u32, Fault> {
    if id == u32::MAX { Err(Fault::Malformed("an owner that nobody can be")) } else { Ok(id) }
}

fn set_owner(place: Place<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), Fault> {
    let uid = uid.map(somebody).transpose()?.map(Uid::from_raw);
    let gid = gid.map(somebody).transpose()?.map(Gid::from_raw);
    if uid.is_some() || gid.is_some() {
        match place {
            Place::Fd(fd) => rustix::fs::fchown(fd, uid, gid)?,
            Place::At(dir, name) => rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?,
        }
    }
    Ok(())
}

/// The caller knows that it is no symlink.
fn set_mode(place: Place<'_>, mode: u32) -> Result<(), Fault> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match place {
        Place::Fd(fd) => rustix::fs::fchmod(fd, mode)?,
        Place::At(dir, name) => rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?,
    }
    Ok(())
}

/// Owner first: changing it clears the set-id bits.
pub(super) fn set_owner_and_mode(place: Place<'_>, kind: Kind, owner: Owner) -> Result<(), Fault> {
    set_owner(place, Some(owner.uid), Some(owner.gid))?;
    if kind == Kind::Symlink { Ok(()) } else { set_mode(place, owner.mode) }
}

fn kind_at(target: &Target<'_>) -> Result<Kind, Fault> {
    match target {
        Target::Root(_) => Ok(Kind::Directory),
        Target::Named(parent, name) => tree::kind_of(&tree::stat_at(parent, name)?).ok_or_else(|| errno(libc::EINVAL)),
    }
}

/// What a new object is made of.
pub(super) struct New<'a> {
    pub kind: Kind,
    pub owner: Owner,
    pub rdev: u64,
    pub target: Option<&'a RelPath>,
    pub mtime: Option<Time>,
}

/// Makes an empty file; it must not exist. Returns it with its inode number.
fn make_file(parent: &OwnedFd, name: &[u8], new: &New<'_>) -> Result<(Arc<OwnedFd>, u64), Fault> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Until it has its owner it is root's, and nobody may do more with it than afterwards.
    let mode = Mode::from_raw_mode(new.owner.mode & 0o777);
    let file = rustix::fs::openat(parent, name, flags, mode)?;
    let stat = rustix::fs::fstat(&file)?;
    let owner = (somebody(new.owner.uid)?, somebody(new.owner.gid)?);
    let given = (stat.st_uid, stat.st_gid) != owner;
    if given {
        set_owner(Place::Fd(file.as_fd()), Some(owner.0), Some(owner.1))?;
    }
    // Special bits, the umask, or an access list that the directory gave it.
    if stat.st_mode & 0o7777 != new.owner.mode & 0o7777 {
        set_mode(Place::Fd(file.as_fd()), new.owner.mode)?;
    }
    if let Some(mtime) = new.mtime {
        set_mtime(Place::Fd(file.as_fd()), mtime)?;
    }
    Ok((Arc::new(file), stat.st_ino))
}

/// Makes `name`; it must not exist. Returns the open file and its inode number when it is one.
pub(super) fn make(parent: &OwnedFd, name: &[u8], new: &New<'_>) -> Result<Option<(Arc<OwnedFd>, u64)>, Fault> {
    let private = Mode::from_raw_mode(0o600);
    match new.kind {
        Kind::File => return make_file(parent, name, new).map(Some),
        Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?,
        Kind::Symlink => {
            let target = new.target.ok_or(Fault::Malformed("a symlink without a target"))?;
            rustix::fs::symlinkat(target.as_bytes(), parent, name)?;
        }
        Kind::Fifo => rustix::fs::mknodat(parent, name, FileType::Fifo, private, 0)?,
        Kind::Socket => rustix::fs::mknodat(parent, name, FileType::Socket, private, 0)?,
        Kind::CharDevice => rustix::fs::mknodat(parent, name, FileType::CharacterDevice, private, new.rdev)?,
        Kind::BlockDevice => rustix::fs::mknodat(parent, name, FileType::BlockDevice, private, new.rdev)?,
    }
    let place = Place::At(parent.as_fd(), name);
    set_owner_and_mode(place, new.kind, new.owner)?;
    if let Some(mtime) = new.mtime {
        set_mtime(place, mtime)?;
    }
    Ok(None)
}

impl Applier {
    pub(super) fn live(&mut self, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        match op {
            Op::Write { dir, path, ino, offset, mtime } => {
                let file = self.file(*dir, path, *ino)?;
                self.guard_content(*dir, path, &file)?;
                pieces::write_all(&file, *offset, payload)?;
                set_mtime(Place::Fd(file.as_fd()), *mtime)
            }
            Op::SetAttr { dir, path, ino, mode, uid, gid, size, atime, mtime } => {
                if let Some(size) = size {
                    let file = self.file(*dir, path, *ino)?;
                    self.guard_content(*dir, path, &file)?;
                    rustix::fs::ftruncate(&file, *size)?;
                }
                let target = self.target(*dir, path)?;
                let kind = kind_at(&target)?;
                set_owner(target.place(), *uid, *gid)?;
                if let Some(mode) = mode.filter(|_| kind != Kind::Symlink) {
                    set_mode(target.place(), mode)?;
                }
                Ok(tree::set_times(target.place(), *atime, *mtime)?)
            }
            Op::Create { dir, path, ino, kind, owner, rdev, mtime, parent_mtime } => {
                let new = New { kind: *kind, owner: *owner, rdev: *rdev, target: None, mtime: Some(*mtime) };
                self.create(*dir, path, *ino, &new, *parent_mtime)
            }
            Op::Symlink { dir, path, ino, target, owner, mtime, parent_mtime } => {
                let new =
                    New { kind: Kind::Symlink, owner: *owner, rdev: 0, target: Some(target), mtime: Some(*mtime) };
                self.create(*dir, path, *ino, &new, *parent_mtime)
            }
            Op::Link { dir, from, path, parent_mtime, .. } => {
                let (old, old_name) = self.named(*dir, from)?;
                let (parent, name) = self.named(*dir, path)?;
                match rustix::fs::linkat(&old, old_name, &parent, name, AtFlags::empty()) {
                    Err(Errno::EXIST)
                        if self.replaying
                            && tree::stat_at(&old, old_name)?.st_ino == tree::stat_at(&parent, name)?.st_ino => {}
                    other => other?,
                }
                set_mtime(Place::Fd(parent.as_fd()), *parent_mtime)
            }
            Op::Unlink { dir, path, ino, parent_mtime } => {
                let (parent, name) = self.named_again(*dir, path)?;
                self.guard_entry(*dir, path, &parent, name)?;
                self.cache.forget((*dir, *ino));
                match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
                    Err(Errno::NOENT)
                        if self.replaying || self.is_loose() || (self.inconsistent && self.salvage.is_some()) => {}
                    other => other?,
                }
                set_mtime(Place::Fd(parent.as_fd()), *parent_mtime)
            }
            Op::Rmdir { dir, path, parent_mtime, .. } => self.rmdir(*dir, path, *parent_mtime),
            Op::Rename { .. } => self.rename(op),
            Op::SetXattr { dir, path, name, .. } => {
                let target = self.target(*dir, path)?;
                let name = name.as_bytes();
                match target.place() {
                    Place::Fd(fd) => rustix::fs::fsetxattr(fd, name, payload, XattrFlags::empty())?,
                    Place::At(parent, at) => {
                        rustix::fs::lsetxattr(
                            tree::proc_path(parent, at).as_slice(),
                            name,
                            payload,
                            XattrFlags::empty(),
                        )?;
                    }
                }
                Ok(())
            }
            Op::RemoveXattr { dir, path, name, .. } => {
                let target = self.target(*dir, path)?;
                let removed = match target.place() {
                    Place::Fd(fd) => rustix::fs::fremovexattr(fd, name.as_bytes()),
                    Place::At(parent, at) => {
                        rustix::fs::lremovexattr(tree::proc_path(parent, at).as_slice(), name.as_bytes())
                    }
                };
                match removed {
                    // Attributes of a file are compared in the data phase only.
                    Err(Errno::NODATA) if self.replaying || self.inconsistent => Ok(()),
                    other => Ok(other?),
                }
            }
            Op::Fallocate { dir, path, ino, offset, length, mode, mtime } => {
                let flags = FallocateFlags::from_bits(*mode as u32).ok_or(Fault::Malformed("unknown flags"))?;
                let shifts = flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE);
                if shifts && self.replaying {
                    return Err(Fault::Ambiguous);
                }
                let file = self.file(*dir, path, *ino)?;
                if shifts || flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
                    self.guard_content(*dir, path, &file)?;
                }
                match rustix::fs::fallocate(&file, flags, *offset, *length) {
                    // The file is shorter here until it was compared, and the primary compares it again.
                    Err(Errno::INVAL) if shifts && self.inconsistent => {}
                    other => other?,
                }
                set_mtime(Place::Fd(file.as_fd()), *mtime)
            }
            _ => Err(Fault::Malformed("an operation that is not a live one")),
        }
    }

    fn create(&mut self, dir: u16, path: &RelPath, ino: u64, new: &New<'_>, parent_mtime: Time) -> Result<(), Fault> {
        // The inode number may have belonged to another file.
        self.cache.forget((dir, ino));
        let (parent, name) = self.named_again(dir, path)?;
        match make(&parent, name, new) {
            Ok(opened) => {
                if let Some((file, local)) = opened {
                    if self.inconsistent {
                        self.settled.insert((dir, local));
                        self.bound.remove(&(dir, local));
                    }
                    self.cache.put((dir, ino), file, local);
                }
            }
            Err(Fault::Io(e)) if self.replaying && e.raw_os_error() == Some(libc::EEXIST) => {
                if tree::kind_of(&tree::stat_at(&parent, name)?) != Some(new.kind) {
                    return Err(Fault::Io(e));
                }
                let place = Place::At(parent.as_fd(), name);
                set_owner_and_mode(place, new.kind, new.owner)?;
                if let Some(mtime) = new.mtime {
                    set_mtime(place, mtime)?;
                }
            }
            Err(other) => return Err(other),
        }
        set_mtime(Place::Fd(parent.as_fd()), parent_mtime)
    }

    fn rmdir(&mut self, dir: u16, path: &RelPath, parent_mtime: Time) -> Result<(), Fault> {
        let (parent, name) = self.named(dir, path)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) if self.replaying || self.is_loose() => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.is_loose() || self.only_excluded(dir, path)? => {
                remove_tree(&parent, name, dir, path, &mut self.salvage)?;
            }
            other => other?,
        }
        set_mtime(Place::Fd(parent.as_fd()), parent_mtime)
    }

    /// Whether a directory holds nothing but entries that are not replicated, which the primary does not know of.
    fn only_excluded(&self, dir: u16, path: &RelPath) -> Result<bool, Fault> {
        let Some(exclude) = self.excludes.get(usize::from(dir)).filter(|e| !e.is_empty()) else { return Ok(false) };
        let inner = tree::open_dir(self.checked(dir, path)?, path)?;
        for name in tree::names(&inner)? {
            let directory = tree::kind_of(&tree::stat_at(&inner, &name)?) == Some(Kind::Directory);
            if !exclude.is_excluded(path.join(&name).as_bytes(), directory) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn rename(&mut self, op: &Op) -> Result<(), Fault> {
        let Op::Rename { dir, from, path, ino, flags, from_mtime, parent_mtime } = op else {
            return Err(Fault::Malformed("no rename"));
        };
        let mut flags = RenameFlags::from_bits(*flags).ok_or(Fault::Malformed("unknown flags"))?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if exchange && self.replaying {
            return Err(Fault::Ambiguous);
        }
        let (old, old_name) = self.named(*dir, from)?;
        let (parent, name) = self.named(*dir, path)?;
        if self.is_loose() {
            // It succeeded on the primary: what is in the way here is only left over.
            flags -= RenameFlags::NOREPLACE;
            self.cache.forget((*dir, *ino));
            tree::stat_at(&old, old_name)?;
        }
        if !exchange && let Ok(replaced) = tree::stat_at(&parent, name) {
            self.cache.forget_local(*dir, replaced.st_ino);
            self.guard_entry(*dir, path, &parent, name)?;
        }
        match rustix::fs::renameat_with(&old, old_name, &parent, name, flags) {
            Err(Errno::NOENT) if self.replaying && tree::stat_at(&parent, name).is_ok() => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR | Errno::NOTDIR) if self.is_loose() && !exchange => {
                remove_tree(&parent, name, *dir, path, &mut self.salvage)?;
                rustix::fs::renameat_with(&old, old_name, &parent, name, flags)?;
            }
            other => other?,
        }
        set_mtime(Place::Fd(old.as_fd()), *from_mtime)?;
        set_mtime(Place::Fd(parent.as_fd()), *parent_mtime)
    }
}
