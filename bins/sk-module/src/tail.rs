//! What does a power failure, or a disk that became full, leave at the end of a file that is only appended to, and how is it mended?

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Bytes looked at from the end: more than what is written between two write-backs of such a file.
const LOOK_BACK: u64 = 4 * 1024 * 1024;

/// A file system may have kept the new length without the content (zeros), or half a line. Zeros are cut off and half
/// a line is ended, so that what is appended next begins a line. `file` must be readable and in append mode.
pub(crate) fn mend(mut file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LOOK_BACK);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(LOOK_BACK).read_to_end(&mut end)?;
    let kept = end.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    if kept < end.len() {
        file.set_len(start + kept as u64)?;
    }
    if kept > 0 && end.get(kept - 1) != Some(&b'\n') {
        file.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    fn mended(content: &[u8]) -> io::Result<Vec<u8>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("log");
        std::fs::write(&path, content)?;
        let mut file = OpenOptions::new().read(true).append(true).open(&path)?;
        mend(&file)?;
        file.write_all(b"next\n")?;
        std::fs::read(&path)
    }

    #[test]
    fn what_is_appended_begins_a_line() -> io::Result<()> {
        let table: [(&[u8], &[u8]); 5] = [
            (b"", b"next\n"),
            (b"whole\n", b"whole\nnext\n"),
            (b"whole\nha", b"whole\nha\nnext\n"),
            (b"whole\n\0\0\0", b"whole\nnext\n"),
            (b"\0\0", b"next\n"),
        ];
        for (content, want) in table {
            assert_eq!(mended(content)?, want, "{content:?}");
        }
        Ok(())
    }

    #[test]
    fn more_zeros_than_are_looked_at_leave_a_line_of_their_own() -> io::Result<()> {
        let mut content = b"whole\n".to_vec();
        content.resize(content.len() + LOOK_BACK as usize + 10, 0);
        let text = mended(&content)?;
        assert!(text.starts_with(b"whole\n") && text.ends_with(b"next\n"));
        Ok(())
    }
}
