//! What was the core told, and what did it decide: the module's journal, one JSON object a line.
//!
//! A journal begins with a `begin` line (settings, what was persisted, incarnation), followed by one `event` line for
//! each input with the two clocks it was given, and the actions decided. `sk-module replay` takes the decisions again.

use automaton::{Action, Event, Persisted, Settings};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Bytes after which a new runner begins a new journal (the old one becomes `journal.1.jsonl`).
const ROTATE_AT: u64 = 8 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line {
    Begin { t: String, settings: Settings, persisted: Persisted, incarnation: u64 },
    Event { t: String, now: u64, wall: u64, input: Event, actions: Vec<Action> },
}

pub(crate) struct Journal {
    file: File,
}

impl Journal {
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("journal.jsonl");
        if std::fs::metadata(&path).is_ok_and(|m| m.len() > ROTATE_AT) {
            std::fs::rename(&path, directory.join("journal.1.jsonl"))?;
        }
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        crate::tail::mend(&file)?;
        Ok(Self { file })
    }

    /// Appends a line; a full disk is reported on stderr and does not stop the module.
    pub fn write(&mut self, line: &Line) {
        let result = serde_json::to_string(line)
            .map_err(io::Error::other)
            .and_then(|text| self.file.write_all(format!("{text}\n").as_bytes()));
        if let Err(error) = result {
            sys::warn!("sk-module: the journal cannot be written: {error}");
        }
    }
}
