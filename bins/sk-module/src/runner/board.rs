//! What is known of the module now: resources, children's reports, and the files that show them.

use crate::history::{Assignment, History};
use crate::instance::Instance;
use crate::journal::Journal;
use crate::log::{ModuleLog, is_shown_by_default};
use automaton::StateName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use sys::syslog::Syslog;
use wire::time::rfc3339_now;

/// Bytes after which `events.jsonl` is renamed to `events.1.jsonl`.
const EVENTS_MAX: u64 = 1024 * 1024;

pub(super) struct Resource {
    pub value: String,
    /// RFC 3339.
    pub t: String,
}

/// What goes to the history of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Changes,
    /// Also an assignment of the same value (`set -l`).
    Always,
    /// The value, but not as history (`set -n`).
    Never,
}

/// The replication engine's latest words, as they came.
#[derive(Default)]
pub(super) struct ReplicaView {
    pub snapshot: Option<Value>,
    pub traffic: Option<Value>,
    pub resync: Option<Value>,
    pub measures: super::measures::Measures,
    /// The present resynchronisation only goes on with the stream: nothing is copied anew.
    pub resumes: bool,
    /// Something is being copied: the loss of the stream would be a failed resynchronisation.
    pub copies: bool,
}

/// How often this runner saw the module go from one state to another.
pub(super) struct Transitions {
    last: StateName,
    counts: BTreeMap<(StateName, StateName), u64>,
}

impl Transitions {
    fn new() -> Self {
        Self { last: StateName::Stop, counts: BTreeMap::new() }
    }

    pub fn note(&mut self, state: StateName) {
        if state != self.last {
            *self.counts.entry((self.last, state)).or_default() += 1;
            self.last = state;
        }
    }

    /// `{"SECOND ALONE":1}`: one failover.
    pub fn view(&self) -> Value {
        self.counts.iter().map(|((from, to), n)| (format!("{from} {to}"), json!(n))).collect()
    }
}

pub(super) struct Facts {
    pub resources: BTreeMap<String, Resource>,
    pub replica: ReplicaView,
    pub farm: super::farm::FarmView,
    /// Address to `up` or `down`.
    pub vip: BTreeMap<String, String>,
    /// Which runner this is, and how often it has started the application.
    pub application: (u64, u64),
    /// The last refusal, for a command that waits.
    pub refused: Option<String>,
    pub since: String,
    pub transitions: Transitions,
    pub log: ModuleLog,
    pub journal: Journal,
    history: History,
    syslog: Syslog,
    events: Events,
}

struct Events {
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Facts {
    pub fn new(instance: &Instance) -> std::io::Result<Self> {
        Ok(Self {
            resources: BTreeMap::new(),
            replica: ReplicaView::default(),
            farm: super::farm::FarmView::default(),
            vip: BTreeMap::new(),
            application: (0, 0),
            refused: None,
            since: rfc3339_now(),
            transitions: Transitions::new(),
            log: ModuleLog::open(&instance.user_var().join("log"))?,
            journal: Journal::open(&instance.user_var()),
            history: History::open(&instance.user_var()),
            syslog: Syslog::new(&instance.module),
            events: Events::open(&instance.run_dir()),
        })
    }

    /// Assigns; true when the value changed.
    pub fn assign(&mut self, name: &str, value: &str) -> bool {
        self.assign_as(name, value, Keep::Changes)
    }

    /// Assigns, and says what goes to the history; true when the value changed.
    pub fn assign_as(&mut self, name: &str, value: &str, keep: Keep) -> bool {
        let changed = self.resources.get(name).is_none_or(|r| r.value != value);
        if changed || keep == Keep::Always {
            let t = rfc3339_now();
            self.event(&json!({"t": t, "kind": "resource", "name": name, "value": value}));
            self.resources.insert(name.to_owned(), Resource { value: value.to_owned(), t: t.clone() });
            let assignment = |name: &str, value: &str, t: &str, kept| Assignment {
                t: t.to_owned(),
                name: name.to_owned(),
                value: value.to_owned(),
                kept,
                carried: false,
            };
            let noted = assignment(name, value, &t, keep != Keep::Never);
            let current = self.resources.iter().map(|(name, r)| assignment(name, &r.value, &r.t, true));
            self.history.note(&noted, current);
        }
        changed
    }

    /// Nobody checks the resources of this class any more (`heartbeat.`): what they were says nothing about the present.
    pub fn unchecked(&mut self, class: &str) {
        let names: Vec<String> = self.resources.keys().filter(|name| name.starts_with(class)).cloned().collect();
        for name in names {
            self.assign(&name, "init");
        }
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.resources.get(name).map(|r| r.value.as_str())
    }

    /// Module log, and the stream of events.
    pub fn say(&mut self, level: char, from: &str, message: &str) {
        self.log.write(level, from, message);
        if is_shown_by_default(&level.to_string()) {
            self.syslog.send(level, from, message);
        }
        self.event(
            &json!({"t": rfc3339_now(), "kind": "log", "from": from, "level": level.to_string(), "message": message}),
        );
    }

    /// One line of `events.jsonl`.
    pub fn event(&mut self, event: &Value) {
        self.events.write(event);
    }
}

impl Events {
    fn open(run: &Path) -> Self {
        let path = run.join("events.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).ok();
        let written = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Self { path, file, written }
    }

    /// The stream of events is a convenience: a full disk costs lines, never the module.
    fn write(&mut self, event: &Value) {
        if self.written > EVENTS_MAX && std::fs::rename(&self.path, self.path.with_extension("1.jsonl")).is_ok() {
            self.file = OpenOptions::new().create(true).append(true).open(&self.path).ok();
            self.written = 0;
        }
        if let Some(file) = &mut self.file {
            let line = format!("{event}\n");
            if file.write_all(line.as_bytes()).is_ok() {
                self.written += line.len() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_are_counted_by_name() {
        let mut transitions = Transitions::new();
        for state in [StateName::Wait, StateName::Second, StateName::Second, StateName::Alone, StateName::Second] {
            transitions.note(state);
        }
        transitions.note(StateName::Alone);
        assert_eq!(transitions.view(), json!({"STOP WAIT": 1, "WAIT SECOND": 1, "SECOND ALONE": 2, "ALONE SECOND": 1}));
    }
}
