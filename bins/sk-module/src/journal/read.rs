//! What stands in a journal's file? Lines are bounded, and damage costs the damaged lines only.

use super::Line;
use crate::Failure;
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line believed; a core with thousands of resources is far below.
const LINE_MAX: u64 = 8 * 1024 * 1024;

pub(super) struct Reader {
    pub path: PathBuf,
    file: BufReader<File>,
    /// Of the line read last, counted from 1.
    pub number: u64,
}

/// A line of a journal.
pub(super) struct Entry {
    pub line: Line,
    /// The actions recorded with an event, as they stand there.
    pub actions: Value,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| Failure::system(path.display(), e))?;
        Ok(Self { path: path.to_owned(), file: BufReader::new(file), number: 0 })
    }

    /// The next line; None at the end. What is no line of a journal is `Err` with the reason.
    pub fn next(&mut self) -> Result<Option<Result<Entry, String>>, Failure> {
        let mut bytes = Vec::new();
        let failed = |e| Failure::system(self.path.display(), e);
        self.file.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes).map_err(failed)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if bytes.last() != Some(&b'\n') && bytes.len() as u64 == LINE_MAX {
            self.skip_line()?;
            return Ok(Some(Err(format!("longer than {LINE_MAX} bytes"))));
        }
        let mut value: Value = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            // Being written just now, or torn by the end of its host: no line yet.
            Err(_) if bytes.last() != Some(&b'\n') => return Ok(None),
            Err(error) => return Ok(Some(Err(error.to_string()))),
        };
        let actions = value.get_mut("actions").map(Value::take).unwrap_or_default();
        Ok(Some(Line::deserialize(value).map(|line| Entry { line, actions }).map_err(|e| e.to_string())))
    }

    fn skip_line(&mut self) -> Result<(), Failure> {
        loop {
            let failed = |e| Failure::system(self.path.display(), e);
            let buffer = self.file.fill_buf().map_err(failed)?;
            let (used, done) = match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.file.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}
