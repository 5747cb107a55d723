//! What was the core told, and what did it decide: the module's journal, one JSON object a line.
//!
//! Each file can be replayed alone: it begins with a `begin` line (a new runner: settings, what was persisted, incarnation) or a
//! `snapshot` line (the whole core, when a file ended in the middle of a runner's life). One `event` line follows for each input,
//! with the two clocks it was given and the actions decided.

mod explain;
mod read;
mod replay;
pub(crate) mod words;
mod write;

pub(crate) use explain::explain;
pub(crate) use replay::replay;
pub(crate) use write::Journal;

use automaton::{Action, Core, Event, Persisted, Settings};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A line as it is read.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    /// A runner began: a new core.
    Begin {
        t: String,
        settings: Box<Settings>,
        persisted: Persisted,
        incarnation: u64,
    },
    /// The core at this place. `lost`: inputs before it that could not be written.
    Snapshot {
        t: String,
        core: Box<Core>,
        #[serde(default)]
        lost: u64,
    },
    Event {
        t: String,
        now: u64,
        wall: u64,
        input: Event,
    },
}

/// A line as it is written.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record<'a> {
    Begin { t: &'a str, version: &'a str, settings: &'a Settings, persisted: &'a Persisted, incarnation: u64 },
    Snapshot { t: &'a str, version: &'a str, core: &'a Core, lost: u64 },
    Event { t: &'a str, now: u64, wall: u64, input: &'a Event, actions: &'a [Action] },
}

/// The present file, and older ones by number.
fn file(directory: &Path, number: usize) -> PathBuf {
    directory.join(if number == 0 { "journal.jsonl".to_owned() } else { format!("journal.{number}.jsonl") })
}

/// The files of a module, oldest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = (0..write::FILES).map(|n| file(directory, n)).filter(|p| p.exists()).collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests;
