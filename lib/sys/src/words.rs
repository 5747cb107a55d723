//! Does another process still go round its loop? Words of memory that two processes share: nobody is woken by them.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of words.
pub const COUNT: usize = 2;
const BYTES: usize = COUNT * size_of::<u64>();

/// [`COUNT`] numbers, all 0 at first.
pub struct SharedWords(NonNull<AtomicU64>);

// SAFETY: the memory belongs to nobody's thread and is only touched by atomic operations.
unsafe impl Send for SharedWords {}

impl SharedWords {
    /// New words, and the descriptor that gives them to another process.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let fd = memfd_create("sk-words", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, BYTES as u64)?;
        // Nobody can make them shorter: touching memory beyond the end of a file kills.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::map(&fd)?, fd))
    }

    /// The words behind a descriptor from another process.
    pub fn open(fd: impl AsFd) -> io::Result<Self> {
        let sealed = fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK);
        if !sealed || fstat(&fd)?.st_size < BYTES as i64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the descriptor holds no shared words"));
        }
        Self::map(fd)
    }

    fn map(fd: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses; nothing else is there.
        let place = unsafe {
            mmap(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd.as_fd(), 0)?
        };
        NonNull::new(place.cast()).map(Self).ok_or_else(|| io::ErrorKind::Other.into())
    }

    fn word(&self, number: usize) -> Option<&AtomicU64> {
        // SAFETY: the mapping is page aligned, COUNT words long, and lives as long as `self`; its file cannot shrink.
        (number < COUNT).then(|| unsafe { self.0.add(number).as_ref() })
    }

    /// Word `number`; 0 when there is none of that number.
    pub fn get(&self, number: usize) -> u64 {
        self.word(number).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    pub fn set(&self, number: usize, value: u64) {
        if let Some(word) = self.word(number) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: nothing borrows the mapping any more. A failure would only keep a page.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_words() {
        let (ours, fd) = SharedWords::create().unwrap();
        let theirs = SharedWords::open(&fd).unwrap();
        ours.set(0, 7);
        theirs.set(1, u64::MAX);
        theirs.set(2, 9);
        assert_eq!((theirs.get(0), ours.get(1), ours.get(2)), (7, u64::MAX, 0));
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
        drop(ours);
        assert_eq!(theirs.get(0), 7);
    }

    #[test]
    fn other_files_are_refused() {
        let plain = tempfile::tempfile().unwrap();
        assert!(SharedWords::open(&plain).is_err());
        let short = memfd_create("short", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fcntl_add_seals(&short, SealFlags::SHRINK).unwrap();
        assert!(SharedWords::open(&short).is_err());
    }
}
