//! How is a file that grows and is replaced read without missing a line?

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes taken in one turn, so that one noisy module does not keep the others waiting.
const TURN: u64 = 256 * 1024;

/// Where reading goes on: file and byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    pub inode: u64,
    pub offset: u64,
}

/// Where a file is begun for which there is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Start,
    End,
}

/// One file, and the one before it that was renamed to `….1.jsonl`.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    open: Option<(File, u64)>,
    /// Of the first byte in `rest`.
    offset: u64,
    rest: Vec<u8>,
    longest: usize,
}

impl Follower {
    /// Begins at the mark when its file still exists under one of the two names.
    pub fn new(path: &Path, mark: Option<Mark>, begin: Begin, longest: usize) -> Self {
        let mut follower = Self { path: path.to_owned(), open: None, offset: 0, rest: Vec::new(), longest };
        let former = path.with_extension("1.jsonl");
        let marked = mark.and_then(|mark| {
            [path, &former]
                .into_iter()
                .find_map(|p| open(p).filter(|(_, inode)| *inode == mark.inode))
                .map(|f| (f, mark))
        });
        if let Some(((file, inode), mark)) = marked {
            follower.enter(file, inode, mark.offset);
        } else if begin == Begin::End
            && let Some((file, inode)) = open(path)
        {
            let end = file.metadata().map_or(0, |m| m.len());
            follower.enter(file, inode, end);
        }
        follower
    }

    fn enter(&mut self, mut file: File, inode: u64, offset: u64) {
        // A file that is shorter than the mark was written anew.
        let offset = if file.metadata().is_ok_and(|m| m.len() >= offset) { offset } else { 0 };
        if file.seek(SeekFrom::Start(offset)).is_ok() {
            self.open = Some((file, inode));
            self.offset = offset;
            self.rest.clear();
        }
    }

    /// The next whole lines, if any. A file that cannot be read has none.
    pub fn lines(&mut self) -> Vec<Vec<u8>> {
        if self.open.is_none() {
            let Some((file, inode)) = open(&self.path) else { return Vec::new() };
            self.enter(file, inode, 0);
        }
        let grown = self.read().unwrap_or(0);
        if grown == 0
            && let Some((file, inode)) = open(&self.path)
            && self.open.as_ref().is_some_and(|(_, present)| *present != inode)
        {
            // The file was replaced, and all of the former one is read.
            self.enter(file, inode, 0);
            self.read().unwrap_or(0);
        }
        self.split()
    }

    fn read(&mut self) -> io::Result<u64> {
        let Some((file, _)) = &mut self.open else { return Ok(0) };
        let place = file.stream_position()?;
        if file.metadata()?.len() < place {
            file.seek(SeekFrom::Start(0))?;
            self.offset = 0;
            self.rest.clear();
        }
        Ok(file.take(TURN).read_to_end(&mut self.rest)? as u64)
    }

    fn split(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut begin = 0;
        while let Some(end) = self.rest.get(begin..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
            lines.extend(self.rest.get(begin..begin + end).map(<[u8]>::to_vec));
            begin += end + 1;
        }
        self.rest.drain(..begin);
        self.offset += begin as u64;
        if self.rest.len() > self.longest {
            // A line without end must not grow for ever.
            self.offset += self.rest.len() as u64;
            self.rest.clear();
        }
        lines
    }

    /// After the last line given out.
    pub fn mark(&self) -> Option<Mark> {
        self.open.as_ref().map(|(_, inode)| Mark { inode: *inode, offset: self.offset })
    }
}

fn open(path: &Path) -> Option<(File, u64)> {
    let file = File::open(path).ok()?;
    let inode = file.metadata().ok()?.ino();
    Some((file, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn append(path: &Path, text: &str) {
        File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn read(follower: &mut Follower) -> Vec<String> {
        follower.lines().into_iter().map(|l| String::from_utf8(l).unwrap()).collect()
    }

    #[test]
    fn no_line_is_missed_or_told_twice_across_replacement_and_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut follower = Follower::new(&path, None, Begin::Start, 100);
        assert!(read(&mut follower).is_empty());
        append(&path, "one\ntwo\nhal");
        assert_eq!(read(&mut follower), ["one", "two"]);
        let mark = follower.mark();
        append(&path, "f\nlast\n");
        std::fs::rename(&path, path.with_extension("1.jsonl")).unwrap();
        append(&path, "new\n");
        let mut next = Follower::new(&path, mark, Begin::End, 100);
        assert_eq!(read(&mut next), ["half", "last"]);
        assert_eq!(read(&mut next), ["new"]);
        assert_eq!(read(&mut follower), ["half", "last"]);
        assert_eq!(read(&mut follower), ["new"]);
    }

    #[test]
    fn without_a_mark_the_beginning_is_as_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        append(&path, "old\n");
        let mut from_end = Follower::new(&path, None, Begin::End, 100);
        let mut from_start = Follower::new(&path, Some(Mark { inode: 1, offset: 900 }), Begin::Start, 100);
        append(&path, "new\n");
        assert_eq!(read(&mut from_end), ["new"]);
        assert_eq!(read(&mut from_start), ["old", "new"]);
    }

    #[test]
    fn what_is_cut_or_endless_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        append(&path, &"x".repeat(5000));
        let mut follower = Follower::new(&path, None, Begin::Start, 100);
        assert!(read(&mut follower).is_empty());
        append(&path, "\nnext\n");
        assert_eq!(read(&mut follower), ["", "next"]);
        std::fs::write(&path, "again\n").unwrap();
        assert_eq!(read(&mut follower), ["again"]);
    }
}
