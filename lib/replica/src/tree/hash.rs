//! Are two blocks of content equal, holes included?
//!
//! A file is taken as an endless array of bytes that is zero beyond its size: trailing zeros of a block do not count, and a
//! hole, a block of zeros and a block beyond the end are the same. The hash is not a defence against a peer that forges
//! collisions: peers are authenticated.

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes in a block.
pub const BLOCK: u64 = 128 * 1024;

/// Hash of a block without any content.
pub const EMPTY: u128 = 0;

/// Hash of a block's bytes; trailing zeros do not count.
pub fn hash_bytes(bytes: &[u8]) -> u128 {
    let kept = trimmed(bytes);
    if kept.is_empty() {
        return EMPTY;
    }
    // EMPTY stays reserved.
    xxh3_128(kept).max(1)
}

/// Whether there are only zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    trimmed(bytes).is_empty()
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    const STEP: usize = 64;
    let mut end = bytes.len();
    while end >= STEP && bytes[end - STEP..end] == [0; STEP] {
        end -= STEP;
    }
    let low = end.saturating_sub(STEP);
    match bytes[low..end].iter().rposition(|b| *b != 0) {
        Some(at) => &bytes[..=low + at],
        None => &bytes[..low],
    }
}

/// Reads from `offset` until the buffer is full or the file ends; returns the bytes read.
pub(crate) fn read_full(file: impl AsFd, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(done)
}

/// First offset at or after `offset` that is not in a hole; None: only holes until the end.
pub(crate) fn next_data(file: impl AsFd, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(e) => Err(e.into()),
    }
}

/// Hash of block number `block`; `buffer` holds at least [`BLOCK`] bytes.
pub(crate) fn hash_block(file: impl AsFd, block: u64, buffer: &mut [u8]) -> io::Result<u128> {
    let offset = block.saturating_mul(BLOCK);
    let buffer = buffer.get_mut(..BLOCK as usize).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let read = read_full(file, offset, buffer)?;
    Ok(hash_bytes(buffer.get(..read).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn trailing_zeros_do_not_count(mut bytes in proptest::collection::vec(0u8..3, 0..300), zeros in 0usize..300) {
            let naive = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
            prop_assert_eq!(trimmed(&bytes).len(), naive);
            let before = hash_bytes(&bytes);
            bytes.resize(bytes.len() + zeros, 0);
            prop_assert_eq!(hash_bytes(&bytes), before);
            prop_assert_eq!(before == EMPTY, naive == 0);
        }
    }
}
