//! What is known of the module now: resources, children's reports, and the files that show them.

use crate::history::Journal;
use crate::instance::Instance;
use crate::log::ModuleLog;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use wire::time::rfc3339_now;

/// Bytes after which `events.jsonl` is renamed to `events.1.jsonl`.
const EVENTS_MAX: u64 = 1024 * 1024;

pub(super) struct Resource {
    pub value: String,
    /// RFC 3339.
    pub t: String,
}

/// The replication engine's latest words, as they came.
#[derive(Default)]
pub(super) struct ReplicaView {
    pub snapshot: Option<Value>,
    pub traffic: Option<Value>,
    pub resync: Option<Value>,
    /// The present resynchronisation only goes on with the stream: nothing is copied anew.
    pub resumes: bool,
}

pub(super) struct Facts {
    pub resources: BTreeMap<String, Resource>,
    pub replica: ReplicaView,
    /// Address to `up` or `down`.
    pub vip: BTreeMap<String, String>,
    /// The last refusal, for a command that waits.
    pub refused: Option<String>,
    pub since: String,
    pub log: ModuleLog,
    pub journal: Journal,
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
            vip: BTreeMap::new(),
            refused: None,
            since: rfc3339_now(),
            log: ModuleLog::open(&instance.user_var().join("log"))?,
            journal: Journal::open(&instance.user_var())?,
            events: Events::open(&instance.run_dir()),
        })
    }

    /// Assigns; true when the value changed.
    pub fn assign(&mut self, name: &str, value: &str) -> bool {
        let changed = self.resources.get(name).is_none_or(|r| r.value != value);
        if changed {
            let t = rfc3339_now();
            self.event(&json!({"t": t, "kind": "resource", "name": name, "value": value}));
            self.resources.insert(name.to_owned(), Resource { value: value.to_owned(), t });
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
