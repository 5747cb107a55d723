//! Is this installation healthy? What is not, in words, with the remedy.

pub(crate) mod host;
mod modules;
mod peers;

use crate::{Failure, exit};
use serde_json::json;
use sys::roots::Roots;

/// The commands of the product that a node needs.
pub(crate) const PROGRAMS: [&str; 9] = [
    "sk-heartbeat",
    "sk-replicate",
    "sk-vip",
    "sk-errd",
    "sk-check",
    "sk-arbiter",
    "sk-farmfilter",
    "sk-cluster",
    "safekit",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Ok,
    Warn,
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// What was looked at: stable, for programs.
    pub check: &'static str,
    pub level: Level,
    pub words: String,
    pub remedy: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, words: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, words: words.into(), remedy: None }
    }

    pub fn warn(check: &'static str, words: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, words: words.into(), remedy: Some(remedy.into()) }
    }

    pub fn error(check: &'static str, words: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Error, ..Self::warn(check, words, remedy) }
    }

    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }

    /// For programs: check, level (ok, warn, error), words, remedy.
    pub fn json(&self) -> serde_json::Value {
        let level = format!("{:?}", self.level).to_lowercase();
        json!({"check": self.check, "level": level, "words": self.words, "remedy": self.remedy})
    }

    /// For people: what was looked at, and in a second line how to mend it.
    pub fn line(&self) -> String {
        let level = match self.level {
            Level::Ok => "[OK]",
            Level::Warn => "[WARN]",
            Level::Error => "[ERROR]",
        };
        let remedy = self.remedy.as_ref().map_or_else(String::new, |r| format!("\n        {r}"));
        format!("{level:<7} {}: {}{remedy}", self.check, self.words)
    }
}

/// Everything that can be looked at from here. `offline`: other nodes are not asked.
pub(crate) fn findings(roots: &Roots, offline: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let modules = modules::modules(roots, &mut found);
    host::look(roots, &modules, &mut found);
    let cluster = host::cluster(roots, &mut found);
    if let (Some(cluster), false) = (cluster, offline) {
        peers::look(roots, &cluster, &modules, &mut found);
    }
    found
}

/// `sk-module doctor`.
pub(crate) fn doctor(roots: &Roots, as_json: bool, quiet: bool, offline: bool) -> Result<u8, Failure> {
    let shown = sys::progress::beside(|| "looking at this node, and asking the others".into());
    let found = findings(roots, offline);
    drop(shown);
    for finding in found.iter().filter(|f| !quiet || f.level > Level::Ok) {
        if as_json {
            say!("{}", finding.json());
        } else {
            say!("{}", finding.line());
        }
    }
    Ok(if found.iter().any(Finding::is_error) { exit::REFUSED } else { 0 })
}
