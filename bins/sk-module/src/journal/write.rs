//! How is the journal written: bounded, replayable from the head of each file, and never in the way of the module.

use super::{Record, file};
use automaton::{Action, Core, Event, Persisted, Settings};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use wire::time::rfc3339_now;

/// Files kept, the present one included.
pub(super) const FILES: usize = 8;
/// Bytes after which a file is followed by another.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) struct Journal {
    directory: PathBuf,
    file: Option<File>,
    /// Bytes of whole lines in the present file.
    length: u64,
    limit: u64,
    /// What comes next needs a snapshot before it: a file begins, or a line could not be written.
    needs_snapshot: bool,
    /// Inputs that could not be written since the last line.
    lost: u64,
    /// The trouble was told.
    told: bool,
    news: Option<String>,
}

impl Journal {
    /// Opens or begins the journal. What is wrong with it is told by [`Self::news`]; it never keeps a module from running.
    pub fn open(directory: &Path) -> Self {
        Self::with_limit(directory, FILE_BYTES)
    }

    pub(super) fn with_limit(directory: &Path, limit: u64) -> Self {
        let mut journal = Self {
            directory: directory.to_owned(),
            file: None,
            length: 0,
            limit,
            needs_snapshot: true,
            lost: 0,
            told: false,
            news: None,
        };
        let opened = journal.open_file();
        journal.note(opened);
        journal
    }

    /// A new runner begins with this core.
    pub fn begin(&mut self, settings: &Settings, persisted: &Persisted, incarnation: u64) {
        let record = Record::Begin { t: &rfc3339_now(), version: VERSION, settings, persisted, incarnation };
        let written = self.follow_when_full().and_then(|()| self.append(&record));
        self.needs_snapshot = written.is_err();
        self.note(written);
    }

    /// To be called before an input is given to the core: begins a new file when the present one is full, from this core.
    pub fn prepare(&mut self, core: &Core) {
        let mut result = self.follow_when_full();
        if result.is_ok() && self.needs_snapshot {
            let record = Record::Snapshot { t: &rfc3339_now(), version: VERSION, core, lost: self.lost };
            result = self.append(&record);
            if result.is_ok() {
                self.needs_snapshot = false;
            }
        }
        self.note(result);
    }

    /// An input and what was decided.
    pub fn event(&mut self, now: u64, wall: u64, input: &Event, actions: &[Action]) {
        if !self.needs_snapshot {
            let written = self.append(&Record::Event { t: &rfc3339_now(), now, wall, input, actions });
            self.needs_snapshot = written.is_err();
            self.note(written);
        }
        if self.needs_snapshot {
            self.lost += 1;
        }
    }

    /// Words for the log: the journal cannot be written, or is written again. Each is told once.
    pub fn news(&mut self) -> Option<String> {
        self.news.take()
    }

    fn note(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if !self.told => {
                self.told = true;
                self.news = Some(format!(
                    "The journal {} cannot be written: {error}; the module goes on, its decisions are not recorded",
                    file(&self.directory, 0).display()
                ));
            }
            Ok(()) if self.told && !self.needs_snapshot => {
                self.told = false;
                self.news = Some(format!("The journal is written again; {} inputs are missing in it", self.lost));
                self.lost = 0;
            }
            _ => {}
        }
    }

    fn open_file(&mut self) -> io::Result<()> {
        let path = file(&self.directory, 0);
        let opened = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        crate::tail::mend(&opened)?;
        self.length = opened.metadata()?.len();
        self.file = Some(opened);
        Ok(())
    }

    /// Renames the files when the present one is full. One that cannot be renamed is not made longer.
    fn follow_when_full(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.open_file()?;
        }
        if self.length < self.limit {
            return Ok(());
        }
        for number in (0..FILES - 1).rev() {
            match std::fs::rename(file(&self.directory, number), file(&self.directory, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = None;
        self.needs_snapshot = true;
        self.open_file()
    }

    /// Appends a whole line or nothing.
    fn append(&mut self, record: &Record<'_>) -> io::Result<()> {
        let mut text = serde_json::to_string(record).map_err(io::Error::other)?;
        text.push('\n');
        let Some(file) = self.file.as_mut() else { return Err(io::Error::other("it is not open")) };
        match file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.length += text.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line would spoil the next one. When even this fails, a reader skips the line.
                if file.set_len(self.length).is_err() {
                    let _ = file.write_all(b"\n");
                }
                Err(error)
            }
        }
    }
}
