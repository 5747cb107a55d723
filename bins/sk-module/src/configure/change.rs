//! What would a new configuration change, what of it may change while the module runs, and which processes does it touch?

use crate::instance::Instance;
use crate::runner::child_specs;
use config::Change;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(crate) struct Plan {
    changes: Vec<Change>,
    /// Scripts that are new, gone or different.
    scripts: Vec<String>,
    /// Processes that are started again, or ended, or begun.
    children: Vec<&'static str>,
    /// What is no attribute and cannot change while the module runs.
    fixed: Vec<String>,
    /// The addresses of the cluster changed, not the module.
    addresses: bool,
}

impl Plan {
    /// From the applied configuration to another one, whose scripts are in `bin`.
    pub fn between(old: &Instance, new: &Instance, bin: &Path) -> Self {
        let changes = config::changes(&old.config, &new.config);
        let mut fixed = Vec::new();
        for (what, before, after) in [
            ("id", old.id.to_string(), new.id.to_string()),
            ("node", old.node.clone(), new.node.clone()),
            ("other node", format!("{:?}", old.peer), format!("{:?}", new.peer)),
        ] {
            if before != after {
                fixed.push(format!("{what}: {before} becomes {after}"));
            }
        }
        let (before, after) = (child_specs(old), child_specs(new));
        let children: Vec<&'static str> =
            before.iter().zip(&after).filter(|(b, a)| b.1 != a.1).map(|(b, _)| b.0).collect();
        let addresses = changes.is_empty() && fixed.is_empty() && !children.is_empty();
        let scripts = different(&files(&old.active_bin()), &files(bin));
        Self { changes, scripts, children, fixed, addresses }
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.scripts.is_empty() && self.children.is_empty() && self.fixed.is_empty()
    }

    /// What keeps the configuration from being applied while the module runs.
    pub fn fixed(&self) -> Vec<String> {
        let attributes = self.changes.iter().filter(|c| !c.dynamic).map(ToString::to_string);
        self.fixed.iter().cloned().chain(attributes).collect()
    }

    /// For programs. `fixed`: what is no attribute and can only change in STOP; `processes` are started again.
    pub fn json(&self) -> Value {
        let changes: Vec<Value> = self
            .changes
            .iter()
            .map(|c| json!({"element": c.element, "attribute": c.attribute, "old": c.old, "new": c.new, "dynamic": c.dynamic}))
            .collect();
        json!({"changes": changes, "fixed": self.fixed, "addresses": self.addresses, "scripts": self.scripts,
            "processes": self.children})
    }

    /// For people: one line each. `running`: whether the module is not in STOP.
    pub fn lines(&self, running: bool) -> Vec<String> {
        let mut lines: Vec<String> = self.fixed.iter().map(|what| mark(what, false, running)).collect();
        lines.extend(self.changes.iter().map(|c| mark(&c.to_string(), c.dynamic, running)));
        if self.addresses {
            lines.push("addresses of the cluster have changed".to_owned());
        }
        lines.extend(self.scripts.iter().map(|name| format!("script {name}: used from its next call on")));
        if running {
            lines
                .extend(self.children.iter().map(|name| format!("{name} is started again with its new configuration")));
            if !self.is_empty() {
                lines.push("the script update is called".to_owned());
            }
        }
        lines
    }
}

fn mark(what: &str, dynamic: bool, running: bool) -> String {
    if running && !dynamic { format!("{what} (only in STOP)") } else { what.to_owned() }
}

/// Content and mode of every file, by its name below the directory. Made at configuration: left out.
fn files(bin: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let Ok(entries) = fs::read_dir(bin) else { return all };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if crate::wrappers::is_made(&name, &path) {
            continue;
        }
        if let (Ok(metadata), Ok(content)) = (fs::metadata(&path), fs::read(&path)) {
            all.insert(name, (metadata.permissions().mode() & 0o777, content));
        }
    }
    all
}

fn different(old: &BTreeMap<String, (u32, Vec<u8>)>, new: &BTreeMap<String, (u32, Vec<u8>)>) -> Vec<String> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned().collect()
}
