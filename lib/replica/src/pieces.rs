//! How much of a file is written at a time?

/// ext4 (since Linux 6.16) keeps what one call writes in one folio of the page cache, and each later write of a few bytes to it walks through the
/// blocks of all of it, and so does writing it back: measured on megabytes that were written at once, a third of what small writes cost the processors of both nodes.
const PIECE: usize = 64 << 10;

/// What of `bytes` to write next.
pub fn first(bytes: &[u8]) -> &[u8] {
    bytes.get(..PIECE).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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
