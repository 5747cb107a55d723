//! What did the application intend, and what was it told is done? One line a fact, kept outside of the nodes' disks.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A kind of fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// About to be done: it may be found afterwards.
    Intent,
    /// Durable, so the system said: it must be found afterwards, or something newer.
    Done,
    /// The system answered with an error.
    Failed,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What.
    pub kind: Kind,
    /// Nanoseconds of the machine's clock, which all nodes of a lab share.
    pub at: u64,
    /// Which thing, e.g. `b/F1/17`.
    pub key: String,
    /// Its content, as a number that grows with time; 0: absent.
    pub value: u64,
    /// Words of an error.
    pub words: String,
}

/// Everything one life of the application wrote.
#[derive(Clone, Debug)]
pub struct Life {
    /// Node it ran on.
    pub node: String,
    /// Its name, part of the keys that belong to it alone.
    pub name: String,
    /// In order.
    pub notes: Vec<Note>,
}

/// The machine's clock in nanoseconds.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a life writes its notes. Each note is one `write` and outlives the writer, not the machine.
#[derive(Debug)]
pub struct Notebook(File);

impl Notebook {
    /// A new one.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(path);
        Ok(Self(file.with_context(|| format!("make {}", path.display()))?))
    }

    /// Another writer of the same notes.
    pub fn again(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone().context("duplicate the notes' descriptor")?))
    }

    /// Writes facts, in one piece.
    pub fn write<'a>(&self, kind: Kind, facts: impl IntoIterator<Item = (&'a str, u64)>, words: &str) -> Result<()> {
        let letter = match kind {
            Kind::Intent => 'i',
            Kind::Done => 'd',
            Kind::Failed => 'f',
        };
        let at = now();
        let mut text = String::new();
        for (key, value) in facts {
            text.push_str(&format!("{letter} {at} {key} {value} {words}\n"));
        }
        (&self.0).write_all(text.as_bytes()).context("write a note")
    }
}

/// Reads a line; nothing when it is not a whole note.
pub fn parse(line: &str) -> Option<Note> {
    let mut parts = line.strip_suffix('\n')?.splitn(5, ' ');
    let kind = match parts.next()? {
        "i" => Kind::Intent,
        "d" => Kind::Done,
        "f" => Kind::Failed,
        _ => return None,
    };
    Some(Note {
        kind,
        at: parts.next()?.parse().ok()?,
        key: parts.next()?.to_owned(),
        value: parts.next()?.parse().ok()?,
        words: parts.next().unwrap_or_default().to_owned(),
    })
}

/// All lives of a directory of notes, oldest first. Files are called NODE-START.notes.
pub fn lives(directory: &Path) -> Result<Vec<Life>> {
    let mut lives = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".notes")) else {
            continue;
        };
        let node = name.split('-').next().unwrap_or_default().to_owned();
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let notes = text.split_inclusive('\n').filter_map(parse).collect();
        lives.push(Life { node, name: name.to_owned(), notes });
    }
    lives.sort_by_key(|life: &Life| life.name.split('-').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0));
    Ok(lives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_written_is_read() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("notes-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("node1-5.notes");
        let book = Notebook::create(&path)?;
        book.write(Kind::Intent, [("b/F/1", 7), ("b/F/2", 8)], "")?;
        book.again()?.write(Kind::Failed, [("b/F/1", 7)], "No space left")?;
        let lives = lives(&directory);
        std::fs::remove_dir_all(&directory)?;
        let lives = lives?;
        assert_eq!(lives.len(), 1);
        assert_eq!(lives[0].node, "node1");
        let seen: Vec<_> = lives[0].notes.iter().map(|n| (n.kind, n.key.as_str(), n.value, n.words.as_str())).collect();
        assert_eq!(
            seen,
            [
                (Kind::Intent, "b/F/1", 7, ""),
                (Kind::Intent, "b/F/2", 8, ""),
                (Kind::Failed, "b/F/1", 7, "No space left")
            ]
        );
        Ok(())
    }

    #[test]
    fn half_a_line_says_nothing() {
        assert_eq!(parse("d 12 b/F/1 7"), None);
        assert!(parse("d 12 b/F/1 7 \n").is_some());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_read_but_never_a_panic(line in "\\PC{0,60}\n?") {
            let _ = parse(&line);
        }
    }
}
