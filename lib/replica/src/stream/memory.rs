//! Where do the bytes of a ring lie so that a successor finds them?
//!
//! A process that is killed has made every store up to some instruction and none after it, and memory shared with a successor keeps
//! them. So what the program stores in order is there in order, whatever the moment of the death.

use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};

/// Where a ring keeps its bytes.
pub trait Memory: Send {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Appends `length` bytes to `out`.
    fn append_to(&self, offset: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()>;

    /// May be torn by the death of this process.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// One byte, never torn: whoever sees it sees everything that was written before, and nothing that is written afterwards is there before it.
    fn publish_at(&mut self, offset: u64, byte: u8) -> io::Result<()>;
}

/// A memory file, mapped as a whole. Pages come into being when they are touched first; where there is no memory for one the process is killed, as it
/// is everywhere else.
pub struct Mapped {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone, and is not bound to a thread.
unsafe impl Send for Mapped {}

impl Mapped {
    /// An error also if the file has another size: behind its end there would be nothing to access.
    pub fn new(file: BorrowedFd<'_>, size: u64) -> io::Result<Self> {
        if u64::try_from(rustix::fs::fstat(file)?.st_size) != Ok(size) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the memory file has another size"));
        }
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new shared mapping at an address chosen by the kernel; unmapped in Drop only.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                file.as_fd(),
                0,
            )?
        };
        Ok(Self { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?, size })
    }

    /// The first of `length` bytes, all inside.
    fn place(&self, offset: u64, length: usize) -> io::Result<*mut u8> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        if start.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: checked to lie inside the mapping.
        Ok(unsafe { self.base.as_ptr().add(start) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our mapping, to which nothing refers any more: no reference to its bytes leaves this module.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

impl Memory for Mapped {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = self.place(offset, out.len())?;
        // SAFETY: `from` has that many bytes, which nobody changes while `self` is borrowed; `out` is not part of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    fn append_to(&self, offset: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let from = self.place(offset, length)?;
        // SAFETY: `from` has that many bytes, which nobody changes while `self` is borrowed.
        out.extend_from_slice(unsafe { std::slice::from_raw_parts(from, length) });
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let to = self.place(offset, bytes.len())?;
        // SAFETY: `to` has room for that many bytes, which are ours alone; `bytes` is not part of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn publish_at(&mut self, offset: u64, byte: u8) -> io::Result<()> {
        let at = self.place(offset, 1)?;
        // SAFETY: a byte of the mapping, valid for as long as it; a byte has no alignment.
        unsafe { AtomicU8::from_ptr(at) }.store(byte, Ordering::Release);
        // The release keeps what came before in front of it; this, what comes afterwards behind it.
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let file = std::fs::File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(8192).unwrap();
        let mut first = Mapped::new(file.as_fd(), 8192).unwrap();
        first.write_at(4090, b"over two pages").unwrap();
        first.publish_at(8191, 7).unwrap();
        drop(first);
        let second = Mapped::new(file.as_fd(), 8192).unwrap();
        let (mut bytes, mut last) = ([0; 14], [0]);
        second.read_at(4090, &mut bytes).unwrap();
        second.read_at(8191, &mut last).unwrap();
        assert_eq!((&bytes, last), (b"over two pages", [7]));
        let mut more = b"what is: ".to_vec();
        second.append_to(4090, 8, &mut more).unwrap();
        assert_eq!(more, b"what is: over two");
    }

    #[test]
    fn nothing_outside_is_touched() {
        let file = std::fs::File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(4096).unwrap();
        assert!(Mapped::new(file.as_fd(), 8192).is_err(), "the file is shorter than what would be mapped");
        let mut memory = Mapped::new(file.as_fd(), 4096).unwrap();
        assert!(memory.write_at(4095, b"xy").is_err());
        assert!(memory.write_at(u64::MAX, b"x").is_err());
        assert!(memory.publish_at(4096, 1).is_err());
        assert!(memory.read_at(4096, &mut [0]).is_err());
        assert!(memory.append_to(4095, 2, &mut Vec::new()).is_err());
        memory.read_at(4096, &mut []).unwrap();
    }
}
