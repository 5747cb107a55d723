//! How much of a file is written at a time?

use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// ext4 (since Linux 6.16) keeps what one call writes in one folio of the page cache, and each later write of a few bytes to it walks through the
/// blocks of all of it, and so does writing it back: measured on megabytes that were written at once, a third of what small writes cost the processors of both nodes.
const PIECE: usize = 64 << 10;

/// What of `bytes` to write next.
fn first(bytes: &[u8]) -> &[u8] {
    bytes.get(..PIECE).unwrap_or(bytes)
}

/// Writes as much as possible at `offset`: how much, and why not everything, if the kernel says so.
pub fn write(file: impl AsFd, offset: u64, bytes: &[u8]) -> (usize, Option<Errno>) {
    let mut count = 0;
    while let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(&file, first(rest), offset + count as u64) {
            Ok(0) => break,
            Ok(n) => count += n,
            Err(Errno::INTR) => {}
            Err(errno) => return (count, Some(errno)),
        }
    }
    (count, None)
}

/// Writes everything at `offset`.
pub fn write_all(file: impl AsFd, offset: u64, bytes: &[u8]) -> io::Result<()> {
    match write(file, offset, bytes) {
        (_, Some(errno)) => Err(errno.into()),
        (count, None) if count < bytes.len() => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_tells_how_much_and_why_not_everything() {
        let (full, file) =
            (std::fs::File::options().write(true).open("/dev/full").unwrap(), tempfile::tempfile().unwrap());
        let bytes = vec![7; PIECE + 1];
        assert_eq!(write(&full, 0, &bytes), (0, Some(Errno::NOSPC)));
        assert_eq!(write_all(&full, 0, &bytes).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(write(&file, 5, &bytes), (bytes.len(), None));
        write_all(&file, 5 + bytes.len() as u64, b"end").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5 + bytes.len() as u64 + 3);
    }

    #[test]
    fn pieces_make_the_whole() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5] {
            let whole: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let (mut rest, mut again) = (&whole[..], Vec::new());
            while !rest.is_empty() {
                let piece = first(rest);
                assert!((1..=PIECE).contains(&piece.len()));
                again.extend_from_slice(piece);
                rest = &rest[piece.len()..];
            }
            assert_eq!(again, whole);
        }
    }
}
