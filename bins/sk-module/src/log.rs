//! How is the module's log written, and read back.
//!
//! One line a message: `2026-11-20 10:00:00.123456 | heart | E | Local state PRIM Ready`. Levels: U user action, E event,
//! C critical, S script; verbose: I information, W warning, D debug.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use sys::clock::local_time;

/// Bytes after which the log is renamed to `log.1` (which is replaced).
const ROTATE_AT: u64 = 8 * 1024 * 1024;

/// Writer of a module's log.
pub(crate) struct ModuleLog {
    path: PathBuf,
    file: File,
    written: u64,
    /// The last line could not be written, or not to its end.
    torn: bool,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path)
}

/// Levels shown without `-A`.
pub(crate) fn is_shown_by_default(level: &str) -> bool {
    matches!(level, "U" | "E" | "C" | "S")
}

impl ModuleLog {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        crate::tail::mend(&file)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written, torn: false })
    }

    /// Appends one line. A log that cannot be written (full disk) must not stop the module: the line goes to stderr instead.
    pub fn write(&mut self, level: char, from: &str, message: &str) {
        let line = format!("{} | {from} | {level} | {}\n", local_time("%Y-%m-%d %H:%M:%S%.6f"), one_line(message));
        let whole = if self.torn { crate::tail::mend(&self.file) } else { Ok(()) };
        let written = whole.and_then(|()| self.file.write_all(line.as_bytes()));
        self.torn = written.is_err();
        if let Err(error) = written {
            sys::warn!("{}", line.trim_end());
            sys::warn!("sk-module: the log {} cannot be written: {error}", self.path.display());
            return;
        }
        self.written += line.len() as u64;
        if self.written > ROTATE_AT {
            self.rotate();
        }
    }

    fn rotate(&mut self) {
        let old = self.path.with_extension("1");
        let fresh = std::fs::rename(&self.path, &old).and_then(|()| open(&self.path));
        match fresh {
            Ok(file) => {
                self.file = file;
                self.written = 0;
            }
            Err(error) => {
                sys::warn!("sk-module: the log {} cannot be rotated: {error}", self.path.display());
                self.written = 0;
            }
        }
    }
}

/// All lines of the log, oldest first; without `all`, those shown by default.
pub(crate) fn lines(path: &Path, all: bool) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for file in [path.with_extension("1"), path.to_owned()] {
        match std::fs::read(&file) {
            Ok(bytes) => lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    lines.retain(|line| all || line.split(" | ").nth(2).is_none_or(is_shown_by_default));
    Ok(lines)
}

/// A line of the log for programs: t (RFC 3339, UTC), from, level, message. What is no line of ours is all message.
pub(crate) fn as_json(line: &str) -> Value {
    let mut parts = line.splitn(4, " | ");
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(date), Some(from), Some(level), Some(message)) => {
            json!({"t": instant(date), "from": from, "level": level, "message": message})
        }
        _ => json!({"message": line}),
    }
}

/// The instant of a date as logs have it, in the time of this host; null when it is none.
pub(crate) fn instant(date: &str) -> Option<String> {
    let local = DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", date).ok()?;
    Some(format!("{:.6}", local.to_zoned(TimeZone::system()).ok()?.timestamp()))
}

fn one_line(message: &str) -> String {
    message.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_did_not_fit_on_the_disk_does_not_spoil_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = ModuleLog::open(&path).unwrap();
        log.write('E', "heart", "first");
        // No room for all of it.
        log.file.write_all(b"2026-11-20 10:00:00.123456 | h").unwrap();
        let file = std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.write('E', "heart", "lost");
        log.file = file;
        log.write('E', "heart", "second");
        let lines = lines(&path, true).unwrap();
        assert!(lines.len() == 3 && lines[0].ends_with("| first") && lines[2].ends_with("| second"), "{lines:?}");
        assert!(lines[2].starts_with("20") && lines[1].ends_with("| h"), "{lines:?}");
    }
}
