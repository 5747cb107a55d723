//! What were the resources, and when did they change? A bounded file that outlives the runner.
//!
//! One JSON object a line: `{"t","name","value"}`; `"kept":false` for an assignment without history (`set -n`), `"carried":true`
//! for a value taken over from the file before. `resources.jsonl` is the present file, `resources.1.jsonl` the one before.

use crate::{Failure, exit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes after which a new file begins.
const ROTATE_AT: u64 = 1024 * 1024;
/// Longest line believed.
const LINE_MAX: u64 = 4096;

/// A value at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// RFC 3339.
    pub t: String,
    pub name: String,
    pub value: String,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub kept: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub carried: bool,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
fn is_true(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
fn is_false(value: &bool) -> bool {
    !*value
}

fn file(directory: &Path, older: bool) -> PathBuf {
    directory.join(if older { "resources.1.jsonl" } else { "resources.jsonl" })
}

/// Writer, owned by the runner.
pub(crate) struct History {
    directory: PathBuf,
    file: Option<File>,
    length: u64,
    limit: u64,
}

impl History {
    /// A file that cannot be opened costs the history, never the module.
    pub fn open(directory: &Path) -> Self {
        Self::with_limit(directory, ROTATE_AT)
    }

    fn with_limit(directory: &Path, limit: u64) -> Self {
        let mut history = Self { directory: directory.to_owned(), file: None, length: 0, limit };
        if let Err(error) = history.reopen() {
            sys::warn!("sk-module: the history of resources is not kept: {error}");
        }
        history
    }

    fn reopen(&mut self) -> io::Result<()> {
        let opened = OpenOptions::new().create(true).read(true).append(true).open(file(&self.directory, false))?;
        crate::tail::mend(&opened)?;
        self.length = opened.metadata()?.len();
        self.file = Some(opened);
        Ok(())
    }

    /// Appends an assignment. `current`: all present values, for the head of the next file when this one is full.
    pub fn note(&mut self, assignment: &Assignment, current: impl Iterator<Item = Assignment>) {
        // Tried again at each assignment: a disk that was full may have room again.
        if self.file.is_none() && self.reopen().is_err() {
            return;
        }
        self.write(assignment);
        if self.length >= self.limit {
            self.file = None;
            // Not renamed: not made longer either.
            if std::fs::rename(file(&self.directory, false), file(&self.directory, true)).is_ok()
                && self.reopen().is_ok()
            {
                for value in current {
                    self.write(&Assignment { carried: true, ..value });
                }
            }
        }
    }

    fn write(&mut self, assignment: &Assignment) {
        let (Some(file), Ok(mut text)) = (self.file.as_mut(), serde_json::to_string(assignment)) else { return };
        text.push('\n');
        match file.write_all(text.as_bytes()) {
            Ok(()) => self.length += text.len() as u64,
            Err(_) => {
                // Half a line is not left behind; a full disk costs the assignment.
                let _ = file.set_len(self.length);
            }
        }
    }
}

/// Everything kept, oldest first. Damaged lines are skipped.
pub(crate) fn read(directory: &Path) -> Vec<Assignment> {
    let mut all = Vec::new();
    for older in [true, false] {
        let Ok(opened) = File::open(file(directory, older)) else { continue };
        let mut reader = BufReader::new(opened);
        let mut line = Vec::new();
        while reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if let Ok(assignment) = serde_json::from_slice::<Assignment>(&line) {
                all.push(assignment);
            }
            line.clear();
        }
    }
    all
}

/// The last value of each resource, by name.
pub(crate) fn latest(directory: &Path) -> BTreeMap<String, Assignment> {
    read(directory).into_iter().map(|a| (a.name.clone(), a)).collect()
}

/// `sk-module history`.
pub(crate) fn show(directory: &Path, resource: Option<&str>, lines: usize, json: bool) -> Result<u8, Failure> {
    let all: Vec<Assignment> =
        read(directory).into_iter().filter(|a| a.kept && !a.carried && resource.is_none_or(|r| a.name == r)).collect();
    if all.is_empty() {
        let what = resource.map_or_else(|| "any resource".to_owned(), |r| format!("the resource {r}"));
        return Err(Failure::new(exit::REFUSED, format!("there is no history of {what}"))
            .hint(format!("looked at: {}", file(directory, false).display())));
    }
    for assignment in all.iter().skip(all.len().saturating_sub(lines)) {
        let line = if json {
            serde_json::json!({
                "t": assignment.t, "name": assignment.name, "value": assignment.value, "label": label(&assignment.name),
            })
            .to_string()
        } else {
            line(assignment)
        };
        sys::failure::put(&line)?;
    }
    Ok(0)
}

/// `class.id value date`.
pub(crate) fn line(assignment: &Assignment) -> String {
    columns(&assignment.name, &assignment.value, &assignment.t)
}

/// The same of what is no assignment.
pub(crate) fn columns(name: &str, value: &str, t: &str) -> String {
    sys::lines::wrap(&format!("{name:<32} {value:<16} {t}"), 4)
}

/// What consoles call a resource.
pub(crate) fn label(name: &str) -> &'static str {
    match name {
        "state.local" => return "Local state",
        "state.remote" => return "Remote state",
        "rfs.uptodate" => return "Uptodate replicated data",
        "rfs.degraded" => return "Degraded mode for replication",
        "rfs.reintegre_failed" => return "Last synchronization status",
        "usersetting.boot" => return "Module start at boot",
        "usersetting.checker" => return "Monitoring by checkers",
        "usersetting.encryption" => return "Encrypted communication",
        "usersetting.errd" => return "Processes/Services monitoring",
        "usersetting.failover" => return "Automatic failover",
        "usersetting.rfssyncmode" => return "Next synchronization",
        "usersetting.rfssyncrole" => return "Role in external synchronization",
        "usersetting.rfssyncuid" => return "Identifier of external synchronization",
        "rfs.rfssync" => return "Next synchronization possible",
        "heart.maxloop" => return "Stop on maxloop",
        "heart.stopstartloop" => return "Automatic actions",
        _ => {}
    }
    match name.split_once('.').map_or(name, |(class, _)| class) {
        "heartbeat" => "Heartbeat link",
        "heartbeatlocaladdr" => "Heartbeat interface",
        "custom" => "Custom checker",
        "intf" => "Interface checker",
        "ip" => "IP checker",
        "tcp" => "TCP checker",
        "ping" => "Ping checker",
        "module" => "Module checker",
        "splitbrain" => "Split-brain checker",
        "proc" => "Process or service",
        "rfs" => "File replication",
        "connections" => "Connections of the virtual address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(n: usize, name: &str, value: &str) -> Assignment {
        let (name, value) = (name.to_owned(), value.to_owned());
        Assignment { t: format!("2026-11-20T10:00:{n:02}Z"), name, value, kept: true, carried: false }
    }

    #[test]
    fn values_outlive_the_writer_and_the_files_are_bounded() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let limit = 2_000;
        let first = assignment(0, "custom.first", "up");
        let mut history = History::with_limit(directory.path(), limit);
        history.note(&first, std::iter::empty());
        for n in 0..500 {
            let changed = assignment(n % 60, "custom.x", if n % 2 == 0 { "up" } else { "down" });
            history.note(&changed, [first.clone(), changed.clone()].into_iter());
        }
        let latest = latest(directory.path());
        assert_eq!(latest.get("custom.first").map(|a| a.value.as_str()), Some("up"), "carried over");
        assert_eq!(latest.get("custom.x").map(|a| a.value.as_str()), Some("down"));
        for entry in std::fs::read_dir(directory.path())? {
            assert!(entry?.metadata()?.len() < limit + 500);
        }
        Ok(())
    }

    #[test]
    fn damage_costs_the_damaged_lines_only() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let good = serde_json::to_string(&assignment(1, "custom.x", "up"))?;
        std::fs::write(
            file(directory.path(), false),
            format!("{{\"t\":\n\0\0\u{1}\n{}\n{good}\nha", "x".repeat(9_000)),
        )?;
        assert_eq!(read(directory.path()), [assignment(1, "custom.x", "up")]);
        let mut history = History::open(directory.path());
        history.note(&assignment(2, "custom.x", "down"), std::iter::empty());
        assert_eq!(read(directory.path()).len(), 2);
        Ok(())
    }
}
