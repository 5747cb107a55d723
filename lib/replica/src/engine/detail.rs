//! Which files does a resynchronisation bring to this secondary (`reidetail`)? Told file by file, but never more than people can read.

use super::report::Report;
use super::spec::Directory;
use crate::op::Op;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Files named in a second; the others are counted.
const NAMED: u32 = 20;

/// The file whose content arrives. Files come one after the other, each ended by its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Coming {
    dir: u16,
    ino: u64,
    bytes: u64,
}

/// What is told of files that were copied.
pub struct Detail {
    directories: Vec<PathBuf>,
    coming: Option<Coming>,
    /// The present second, and how many files were named in it.
    since: Instant,
    named: u32,
    /// Files that were not named.
    more: u64,
}

impl Detail {
    pub fn new(directories: &[Directory], now: Instant) -> Self {
        let directories = directories.iter().map(|d| d.path.clone()).collect();
        Self { directories, coming: None, since: now, named: 0, more: 0 }
    }

    /// Takes an operation that was applied; the report when it ended a file with new content.
    pub fn note(&mut self, op: &Op, length: usize, now: Instant) -> Option<Report> {
        match op {
            Op::SyncData { dir, ino, .. } | Op::SyncZero { dir, ino, .. } => {
                let length = if matches!(op, Op::SyncData { .. }) { length as u64 } else { 0 };
                let same = self.coming.filter(|c| (c.dir, c.ino) == (*dir, *ino));
                let bytes = same.map_or(0, |c| c.bytes).saturating_add(length);
                self.coming = Some(Coming { dir: *dir, ino: *ino, bytes });
                None
            }
            Op::SyncMeta { dir, ino, path } => {
                let file = self.coming.take_if(|c| (c.dir, c.ino) == (*dir, *ino))?;
                if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
                    (self.since, self.named) = (now, 0);
                }
                if self.named >= NAMED {
                    self.more += 1;
                    return None;
                }
                self.named += 1;
                let root = self.directories.get(usize::from(*dir))?;
                let name = String::from_utf8_lossy(path.as_bytes());
                let path = format!("{}/{name}", root.display());
                Some(Report::Copied { path, bytes: file.bytes, more: std::mem::take(&mut self.more) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::RelPath;

    fn path(name: &str) -> RelPath {
        RelPath::new(name.as_bytes().to_vec()).unwrap()
    }

    fn detail(now: Instant) -> Detail {
        let directory = Directory { path: "/srv/a".into(), read_only: true, exclude: vec![], to_check: vec![] };
        Detail::new(&[directory], now)
    }

    fn data(ino: u64) -> Op {
        Op::SyncData { dir: 0, path: path("x"), ino, offset: 0 }
    }

    fn meta(ino: u64, name: &str) -> Op {
        Op::SyncMeta { dir: 0, path: path(name), ino }
    }

    #[test]
    fn a_file_is_told_when_its_attributes_end_it() {
        let now = Instant::now();
        let mut detail = detail(now);
        // Attributes alone are no copy.
        assert_eq!(detail.note(&meta(1, "x"), 9, now), None);
        assert_eq!(detail.note(&data(7), 1000, now), None);
        assert_eq!(detail.note(&data(7), 24, now), None);
        let told = detail.note(&meta(7, "sub/file"), 9, now);
        assert_eq!(told, Some(Report::Copied { path: "/srv/a/sub/file".into(), bytes: 1024, more: 0 }));
        assert_eq!(detail.note(&meta(7, "x"), 9, now), None);
        // Another file came before the first one ended.
        assert_eq!(detail.note(&data(8), 5, now), None);
        assert_eq!(detail.note(&data(9), 6, now), None);
        assert_eq!(detail.note(&meta(8, "x"), 9, now), None);
        assert!(matches!(detail.note(&meta(9, "x"), 9, now), Some(Report::Copied { bytes: 6, .. })));
    }

    #[test]
    fn many_files_are_counted_and_not_named() {
        let start = Instant::now();
        let mut detail = detail(start);
        let mut copy = |ino, now| {
            assert_eq!(detail.note(&data(ino), 1, now), None);
            detail.note(&meta(ino, "x"), 1, now)
        };
        let named = (0..1000).filter(|ino| copy(*ino, start).is_some()).count();
        assert_eq!(named, NAMED as usize);
        let later = copy(2000, start + Duration::from_secs(1));
        assert!(matches!(later, Some(Report::Copied { more, .. }) if more == 1000 - u64::from(NAMED)), "{later:?}");
    }
}
