//! What of this node's content was never on the other one, and where is it kept?
//!
//! Before a diverged or forced resynchronisation overwrites or deletes content, it is moved (same file system) or copied (sharing
//! blocks where the file system can) to `<salvage directory>/<UTC date>/<replicated directory>/<path>`. The budget bounds the bytes
//! kept by one resynchronisation; what did not fit is counted and told, not kept.

mod shelf;

pub use shelf::{Listed, RestoreError, Restored, Resyncs, list, prunable, prune, restore};

use crate::op::RelPath;
use crate::pieces;
use crate::tree::{self, Meta, Place, next_data, read_full};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of the longest name, on all file systems that are common.
const NAME_MAX: usize = 255;

/// Content that was put aside, or could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Where it is now; where it was, when it was not kept.
    pub path: PathBuf,
    pub bytes: u64,
    /// False: the budget was used up.
    pub kept: bool,
}

/// The salvage of one resynchronisation.
#[derive(Debug)]
pub struct Salvage {
    place: PathBuf,
    /// One a replicated directory.
    labels: Vec<String>,
    left: u64,
    saved: Vec<Saved>,
}

impl Salvage {
    /// `directory`: the salvage directory, outside of every replicated one. `replicated`: paths of the replicated directories.
    /// `budget`: bytes. Nothing is created before something is put aside.
    pub fn new(directory: &Path, now: SystemTime, replicated: &[PathBuf], budget: u64) -> Self {
        let label = |path: &PathBuf| path.to_string_lossy().trim_matches('/').replace('/', "_");
        Self {
            place: directory.join(date(now)),
            labels: replicated.iter().map(label).collect(),
            left: budget,
            saved: Vec::new(),
        }
    }

    /// What was put aside since the last call.
    pub fn drain(&mut self) -> Vec<Saved> {
        std::mem::take(&mut self.saved)
    }

    /// A free place for `path`, its parent made; None when the budget is used up (which is noted).
    ///
    /// What is put aside may be a link to anywhere: none is followed. A name that is taken by something else gets a number.
    fn reserve(&mut self, dir: u16, path: &RelPath, bytes: u64) -> io::Result<Option<Free>> {
        let label = self.labels.get(usize::from(dir)).cloned().unwrap_or_else(|| dir.to_string());
        if bytes > self.left {
            let name = std::ffi::OsStr::from_bytes(path.as_bytes());
            self.saved.push(Saved { path: Path::new(&label).join(name), bytes, kept: false });
            return Ok(None);
        }
        let mut place = self.place.join(label);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut parent = rustix::fs::open(&place, flags, Mode::empty())?;
        let mut names = path.as_bytes().split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            for number in 0.. {
                let name = numbered(name, number);
                let free = place.join(std::ffi::OsStr::from_bytes(&name));
                if names.peek().is_none() {
                    match rustix::fs::statat(&parent, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(_) => continue,
                        Err(Errno::NOENT) => return Ok(Some(Free { parent, name, path: free })),
                        Err(e) => return Err(e.into()),
                    }
                }
                match rustix::fs::mkdirat(&parent, &*name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                match rustix::fs::openat(&parent, &*name, flags, Mode::empty()) {
                    Ok(inner) => {
                        (parent, place) = (inner, free);
                        break;
                    }
                    // Put aside before, under this name.
                    Err(Errno::NOTDIR | Errno::LOOP) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }

    fn note(&mut self, path: PathBuf, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.saved.push(Saved { path, bytes, kept: true });
    }

    /// Puts the entry `name` of the open directory aside (no directories). Whether it is still there afterwards is the caller's to
    /// look at: it is moved when that is possible, copied otherwise.
    pub fn take(&mut self, parent: impl AsFd, name: &[u8], dir: u16, path: &RelPath) -> io::Result<()> {
        let stat = tree::stat_at(&parent, name)?;
        let bytes = (stat.st_blocks as u64).saturating_mul(512);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
            return Ok(());
        }
        let Some(to) = self.reserve(dir, path, bytes)? else { return Ok(()) };
        match rustix::fs::renameat_with(&parent, name, &to.parent, &*to.name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.note(to.path, bytes);
                Ok(())
            }
            Err(Errno::XDEV) if kind == FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let from = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
                copy_file(&from, &to)?;
                self.note(to.path, bytes);
                Ok(())
            }
            Err(Errno::XDEV) => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), &to.parent, &*to.name)?;
                self.note(to.path, 0);
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Copies the content of an open file aside, before it is overwritten.
    pub fn copy(&mut self, file: impl AsFd, dir: u16, path: &RelPath) -> io::Result<()> {
        let stat = rustix::fs::fstat(&file)?;
        let bytes = (stat.st_blocks as u64).saturating_mul(512);
        if stat.st_size == 0 {
            return Ok(());
        }
        let Some(to) = self.reserve(dir, path, bytes)? else { return Ok(()) };
        copy_file(&file, &to)?;
        self.note(to.path, bytes);
        Ok(())
    }
}

/// A name in a salvage that is not taken.
struct Free {
    parent: OwnedFd,
    name: Vec<u8>,
    /// The same, for those who read about it.
    path: PathBuf,
}

/// `name`, or with a number behind it; never longer than a name may be.
fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    if number == 0 {
        return name.to_vec();
    }
    let end = format!(".{number}");
    let kept = name.len().min(NAME_MAX.saturating_sub(end.len()));
    [name.get(..kept).unwrap_or(name), end.as_bytes()].concat()
}

/// Copies content, owner, mode, extended attributes and times; holes stay holes; durable when it returns.
fn copy_file(from: impl AsFd, to: &Free) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let new: OwnedFd = rustix::fs::openat(&to.parent, &*to.name, flags, Mode::from_raw_mode(0o600))?;
    fill_copy(from, new)
}

/// What [`copy_file`] does, into an empty file.
fn fill_copy(from: impl AsFd, new: impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(&from)?;
    if rustix::fs::ioctl_ficlone(&new, &from).is_err() {
        let size = stat.st_size as u64;
        let mut buffer = vec![0u8; 1 << 20];
        let mut offset = 0;
        while let Some(data) = next_data(&from, offset)?.filter(|at| *at < size) {
            let read = read_full(&from, data, &mut buffer)?;
            if read == 0 {
                break;
            }
            let bytes = buffer.get(..read).unwrap_or_default();
            if !tree::is_zero(bytes) {
                pieces::write_all(&new, data, bytes)?;
            }
            offset = data + read as u64;
        }
        rustix::fs::ftruncate(&new, size)?;
    }
    let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&new, Some(owner.0), Some(owner.1))?;
    rustix::fs::fchmod(&new, Mode::from_raw_mode(stat.st_mode & 0o777))?;
    let meta = Meta::read(Place::Fd(from.as_fd()), &stat)?;
    match tree::set_xattrs(Place::Fd(new.as_fd()), &meta.xattrs) {
        // The other file system has none: the content is what matters.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => other?,
    }
    tree::set_times(Place::Fd(new.as_fd()), None, Some(meta.mtime))?;
    rustix::fs::fdatasync(&new)?;
    Ok(())
}

/// `2026-11-20T101530Z`.
fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = ((seconds / 86400) as i64, seconds % 86400);
    // Days to a civil date, in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Removes `name` and everything beneath it, files put aside first when there is a salvage. `path` is only a label.
pub(crate) fn remove_tree(
    parent: impl AsFd,
    name: &[u8],
    dir: u16,
    path: &RelPath,
    salvage: &mut Option<Salvage>,
) -> io::Result<()> {
    let stat = match tree::stat_at(&parent, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        if rustix::fs::fstat(&inner)?.st_dev != rustix::fs::fstat(&parent)?.st_dev {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        for child in tree::names(&inner)? {
            remove_tree(&inner, &child, dir, &path.join(&child), salvage)?;
        }
        rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
        return Ok(());
    }
    if let Some(salvage) = salvage {
        salvage.take(&parent, name, dir, path)?;
    }
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T000000Z"),
            (951_782_400, "2000-02-29T000000Z"),
            (1_763_633_730, "2025-11-20T101530Z"),
            (4_107_542_399, "2100-02-28T235959Z"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn put_aside_within_the_budget() {
        let at = tempfile::tempdir().unwrap();
        let (tree, aside) = (at.path().join("tree"), at.path().join("aside"));
        std::fs::create_dir_all(tree.join("d/e")).unwrap();
        std::fs::write(tree.join("d/e/small"), vec![7; 4096]).unwrap();
        std::fs::write(tree.join("d/large"), vec![8; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("nowhere", tree.join("d/link")).unwrap();
        let root = std::fs::File::open(&tree).unwrap();
        let mut salvage = Some(Salvage::new(&aside, UNIX_EPOCH, std::slice::from_ref(&tree), 100_000));
        remove_tree(&root, b"d", 0, &RelPath::new("d").unwrap(), &mut salvage).unwrap();
        assert!(!tree.join("d").exists());
        let saved = salvage.as_mut().unwrap().drain();
        assert_eq!(saved.iter().filter(|s| !s.kept).map(|s| s.bytes).collect::<Vec<_>>(), [1 << 20]);
        let listed = list(&aside).unwrap();
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().any(|l| l.path.ends_with("d/e/small") && l.bytes == 4096));
        std::fs::write(tree.join("x"), b"precious").unwrap();
        let file = std::fs::File::open(tree.join("x")).unwrap();
        for _ in 0..2 {
            salvage.as_mut().unwrap().copy(&file, 0, &RelPath::new("x").unwrap()).unwrap();
        }
        let listed = list(&aside).unwrap();
        assert_eq!(listed.iter().filter(|l| l.bytes == 8).count(), 2);
        assert!(list(&at.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn what_was_put_aside_leads_nowhere() {
        let at = tempfile::tempdir().unwrap();
        let (tree, aside, outside) = (at.path().join("tree"), at.path().join("aside"), at.path().join("outside"));
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let root = std::fs::File::open(&tree).unwrap();
        let mut salvage = Salvage::new(&aside, UNIX_EPOCH, std::slice::from_ref(&tree), u64::MAX);
        let long = "n".repeat(255);
        for _ in 0..2 {
            // First something that is no directory, then a directory of that name.
            for link in [Some(outside.as_path()), Some(Path::new("dangling")), None] {
                for name in ["d", &long] {
                    match link {
                        Some(target) => std::os::unix::fs::symlink(target, tree.join(name)).unwrap(),
                        None => std::fs::write(tree.join(name), b"file").unwrap(),
                    }
                    salvage.take(&root, name.as_bytes(), 0, &RelPath::new(name).unwrap()).unwrap();
                    std::fs::create_dir(tree.join(name)).unwrap();
                    std::fs::write(tree.join(name).join("x"), b"beneath").unwrap();
                    let inner = std::fs::File::open(tree.join(name)).unwrap();
                    salvage.take(&inner, b"x", 0, &RelPath::new(format!("{name}/x")).unwrap()).unwrap();
                    std::fs::remove_dir(tree.join(name)).unwrap();
                }
            }
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "a link was followed");
        let saved = salvage.drain();
        assert_eq!(saved.len(), 24);
        let content = |wanted: &[u8]| {
            let is = |s: &&Saved| {
                let file = s.path.symlink_metadata().unwrap().is_file();
                file && std::fs::read(&s.path).unwrap() == wanted
            };
            saved.iter().filter(is).count()
        };
        assert_eq!((content(b"beneath"), content(b"file")), (12, 4));
    }
}
