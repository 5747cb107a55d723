//! What did the application tell its client was done? Remembered outside of the system under test.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// An append-only list of acknowledged row numbers, one decimal number a line.
#[derive(Debug)]
pub struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens or makes the file; what it holds already is kept.
    pub fn append_to(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { file: file.with_context(|| format!("open {}", path.display()))? })
    }

    /// Remembers an acknowledgement.
    pub fn acknowledged(&mut self, id: u64) -> Result<()> {
        self.file.write_all(format!("{id}\n").as_bytes()).context("write the ledger")
    }

    /// All numbers of a ledger file. A last line without its end counts not: it was never completely remembered.
    pub fn read(path: &Path) -> Result<BTreeSet<u64>> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut reader = BufReader::new(file);
        let mut ids = BTreeSet::new();
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            if let Some(number) = line.strip_suffix('\n') {
                ids.insert(number.parse().with_context(|| format!("{}: {number:?} is no number", path.display()))?);
            }
            line.clear();
        }
        Ok(ids)
    }
}
