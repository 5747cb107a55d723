//! Is anybody of a former life still there? A lock that lasts as long as any process holds its descriptor.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file to lock with `flock`. The lock belongs to the open file: children that inherit the descriptor hold it too.
pub struct LockFile(File);

impl LockFile {
    /// Opens or creates the file (mode 0600), without locking it.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(Self)
    }

    /// Takes the lock if nobody else has it; `false` when somebody does.
    pub fn try_exclusive(&self) -> io::Result<bool> {
        loop {
            match flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Gives the lock back, for all processes that share this descriptor.
    pub fn unlock(&self) -> io::Result<()> {
        Ok(flock(&self.0, FlockOperation::Unlock)?)
    }
}

/// Whether somebody has the lock of this file. A missing file is locked by nobody. It is looked at by a shared lock given back
/// at once: who wants it exclusively in this instant must try again.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    loop {
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(false),
            Err(Errno::WOULDBLOCK) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for LockFile {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_a_duplicate_is_the_same_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (first, second) = (LockFile::open(&path).unwrap(), LockFile::open(&path).unwrap());
        assert!(!is_held(&path).unwrap() && !is_held(&dir.path().join("absent")).unwrap());
        assert!(first.try_exclusive().unwrap());
        assert!(is_held(&path).unwrap());
        assert!(!second.try_exclusive().unwrap());
        let duplicate = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        assert!(!second.try_exclusive().unwrap());
        drop(duplicate);
        assert!(second.try_exclusive().unwrap());
    }
}
