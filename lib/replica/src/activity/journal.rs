//! How does the activity log lie on the disk?
//!
//! Two files, of which the one with the higher number counts. Its first frame is a snapshot: everything known when it was written. The
//! others were appended, one for each batch of records, and each was durable before the next was written. So at most the last one can be torn, and
//! then nobody acted on it. A file is filled with zeros in advance, so that appending changes no metadata of the state directory.
//!
//! **Damage is not mistaken for the end.** A frame behind one that cannot be read, or frames of a newer file whose snapshot cannot be read: the log
//! is of no use, and everything is compared. A newer file with nothing but a torn snapshot was never used; the older one knows more, not less.

use crate::change_map::Reader;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"skact\0\0\x01";
/// Magic, length, number of the file, number of the frame, checksum.
const HEAD: usize = 8 + 8 + 8 + 8 + 32;
/// Frames begin at multiples of this.
const ALIGN: usize = 64;
/// Room that is filled in advance.
const ROOM: u64 = 1 << 20;
/// Most that a file may hold.
pub const MOST: u64 = 64 << 20;

/// What was read: the payloads of the frames, the snapshot first. None: there is no log, or it is damaged.
pub type Found = Option<Vec<Vec<u8>>>;

/// The log, open for writing.
pub struct Journal {
    directory: PathBuf,
    /// Number of the active file.
    number: u64,
    file: Option<File>,
    /// Where the next frame goes, and up to where there are zeros.
    at: u64,
    filled: u64,
    frames: u64,
}

fn frame(number: u64, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + payload.len() + ALIGN);
    bytes.extend_from_slice(MAGIC);
    for word in [payload.len() as u64, number, index] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let mut sum = blake3::Hasher::new();
    sum.update(&bytes).update(payload);
    bytes.extend_from_slice(sum.finalize().as_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    bytes
}

/// The frame at the beginning of `bytes`: number of the file, number of the frame, payload, length with padding.
fn parse(bytes: &[u8]) -> Option<(u64, u64, &[u8], usize)> {
    let mut input = Reader::new(bytes);
    if input.take(8)? != MAGIC {
        return None;
    }
    let length = usize::try_from(input.number()?).ok().filter(|length| *length as u64 <= MOST)?;
    let (number, index) = (input.number()?, input.number()?);
    let sum = input.take(32)?;
    let payload = input.take(length)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes.get(..32)?).update(payload);
    let good = hasher.finalize().as_bytes() == sum;
    good.then_some((number, index, payload, (HEAD + length).next_multiple_of(ALIGN)))
}

/// Content of one file.
struct Half {
    bytes: Vec<u8>,
    /// Number of the file, when its snapshot is good.
    number: Option<u64>,
}

impl Half {
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MOST + 4 * ROOM).read_to_end(&mut bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let number = parse(&bytes).filter(|(_, index, _, _)| *index == 0).map(|(number, ..)| number);
        Ok(Some(Self { bytes, number }))
    }

    /// Good frames from `start` on, wherever they begin.
    fn frames_after(&self, start: usize) -> impl Iterator<Item = (u64, u64)> {
        (start.next_multiple_of(ALIGN)..self.bytes.len())
            .step_by(ALIGN)
            .filter_map(|at| self.bytes.get(at..).and_then(parse))
            .map(|(number, index, ..)| (number, index))
    }

    /// All payloads; None: damaged.
    fn payloads(&self, number: u64) -> Found {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((of, index, payload, length)) = self.bytes.get(at..).and_then(parse) {
            if of != number || index != found.len() as u64 {
                break;
            }
            found.push(payload.to_vec());
            at += length;
        }
        let next = found.len() as u64;
        let lost = self.frames_after(at).any(|(of, index)| of == number && index >= next);
        (!lost).then_some(found)
    }
}

fn file(directory: &Path, number: u64) -> PathBuf {
    directory.join(if number.is_multiple_of(2) { "activity.0" } else { "activity.1" })
}

impl Journal {
    /// Reads what is there. The log can be written after the first [`Journal::snapshot`].
    pub fn open(directory: &Path) -> io::Result<(Self, Found)> {
        let halves = [Half::read(&file(directory, 0))?, Half::read(&file(directory, 1))?];
        let newest = halves.iter().flatten().filter_map(|h| h.number.map(|n| (n, h))).max_by_key(|(n, _)| *n);
        let mut highest = 0;
        let mut found = None;
        if let Some((number, half)) = newest {
            highest = number;
            found = half.payloads(number);
            for other in halves.iter().flatten().filter(|h| !std::ptr::eq(*h, half)) {
                for (of, index) in other.frames_after(0).filter(|(of, _)| *of > number) {
                    highest = highest.max(of);
                    if index > 0 {
                        found = None;
                    }
                }
            }
        }
        let journal =
            Self { directory: directory.to_owned(), number: highest, file: None, at: 0, filled: 0, frames: 0 };
        Ok((journal, found))
    }

    /// Begins anew with this. Durable when it returns, unless it need not be; on an error the former log is what counts.
    pub fn snapshot(&mut self, payload: &[u8], durable: bool) -> io::Result<()> {
        let number = self.number + 1;
        let path = file(&self.directory, number);
        let new = !path.exists();
        let to = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let bytes = frame(number, 0, payload);
        if bytes.len() as u64 > MOST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the activity log is full"));
        }
        let mut filled = to.metadata()?.len();
        to.write_all_at(&bytes, 0)?;
        let end = bytes.len() as u64;
        // A file that was large once gives its space back.
        if filled > end + 4 * ROOM {
            to.set_len(end)?;
            filled = end;
        }
        filled = filled.max(end);
        if filled < end + ROOM / 4 {
            fill(&to, filled, end + ROOM)?;
            filled = end + ROOM;
        }
        if durable {
            to.sync_all()?;
            if new {
                sys::files::sync_directory(&self.directory)?;
            }
        }
        (self.number, self.file, self.at, self.filled, self.frames) = (number, Some(to), end, filled, 1);
        Ok(())
    }

    /// Appends a batch.
    pub fn append(&mut self, payload: &[u8], durable: bool) -> io::Result<()> {
        let Some(to) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let bytes = frame(self.number, self.frames, payload);
        let end = self.at + bytes.len() as u64;
        if end > MOST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the activity log is full"));
        }
        if end > self.filled {
            fill(to, self.filled, end + ROOM)?;
            self.filled = end + ROOM;
            if durable {
                to.sync_all()?;
            }
        }
        to.write_all_at(&bytes, self.at)?;
        if durable {
            to.sync_data()?;
        }
        self.at = end;
        self.frames += 1;
        Ok(())
    }
}

fn fill(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; 64 << 10];
    while at < end {
        let part = (end - at).min(zeros.len() as u64) as usize;
        file.write_all_at(zeros.get(..part).unwrap_or_default(), at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(directory: &Path) -> Found {
        Journal::open(directory).unwrap().1
    }

    /// A log of three snapshots, each with `appended` batches.
    fn written(directory: &Path, appended: u8) -> Vec<Vec<u8>> {
        let (mut journal, found) = Journal::open(directory).unwrap();
        assert_eq!(found, None);
        let mut all = Vec::new();
        for round in 0..3u8 {
            all = vec![vec![round; 100]];
            journal.snapshot(&all[0], true).unwrap();
            for n in 0..appended {
                all.push(vec![n; 10 + usize::from(n)]);
                journal.append(&[n].repeat(10 + usize::from(n)), true).unwrap();
            }
        }
        all
    }

    #[test]
    fn the_newest_snapshot_and_its_batches_are_read_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let all = written(dir.path(), 5);
        assert_eq!(read(dir.path()), Some(all.clone()));
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        assert!(journal.append(b"x", true).is_err(), "nothing is appended to what a former process wrote");
        journal.snapshot(b"next", true).unwrap();
        assert_eq!(read(dir.path()), Some(vec![b"next".to_vec()]));
    }

    #[test]
    fn a_torn_end_is_no_damage_and_a_hole_in_the_middle_is() {
        let dir = tempfile::tempdir().unwrap();
        let all = written(dir.path(), 5);
        // Rounds 0, 1, 2 have the numbers 1, 2, 3.
        let path = dir.path().join("activity.1");
        let good = std::fs::read(&path).unwrap();
        let place = |n: usize| all.iter().take(n).map(|p| (HEAD + p.len()).next_multiple_of(ALIGN)).sum::<usize>();
        for (damaged, expected) in [(5, Some(all[..5].to_vec())), (3, None), (1, None)] {
            let mut bytes = good.clone();
            bytes[place(damaged) + HEAD] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(dir.path()), expected, "frame {damaged}");
        }
        // The newest snapshot, used already, cannot be read: the older file does not know what came after.
        let mut bytes = good;
        bytes[HEAD] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(dir.path()), None);
    }

    #[test]
    fn a_snapshot_that_was_torn_before_it_was_used_leaves_the_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.snapshot(b"first", true).unwrap();
        journal.append(b"more", true).unwrap();
        journal.snapshot(b"second", true).unwrap();
        let path = dir.path().join("activity.0");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEAD] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(dir.path()), Some(vec![b"first".to_vec(), b"more".to_vec()]));
    }

    #[test]
    fn a_log_grows_beyond_what_was_filled_in_advance_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.snapshot(&[], true).unwrap();
        let batch = vec![7; 5 << 20];
        let fits = (0..20).take_while(|_| journal.append(&batch, false).is_ok()).count();
        assert_eq!(fits, 12);
        assert_eq!(read(dir.path()).map(|f| f.len()), Some(13));
        journal.snapshot(b"small", true).unwrap();
        journal.snapshot(b"small", true).unwrap();
        assert!(std::fs::metadata(dir.path().join("activity.1")).unwrap().len() < 8 << 20);
    }

    proptest! {
        #[test]
        fn garbage_is_no_log(bytes in proptest::collection::vec(any::<u8>(), 0..600), magic in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = bytes;
            if magic {
                bytes.splice(0..8.min(bytes.len()), MAGIC.iter().copied());
            }
            std::fs::write(dir.path().join("activity.0"), bytes).unwrap();
            prop_assert_eq!(read(dir.path()), None);
        }
    }
}
