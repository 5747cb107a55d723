//! Are the modules of this node configured, applied, and at work?

use super::Finding;
use crate::instance::{Instance, applied_id};
use crate::{boot, client};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sys::roots::Roots;

/// Files of a replicated tree whose owners are looked at, and the time for that.
const OWNERS: usize = 20_000;
const OWNERS_TIME: Duration = Duration::from_secs(3);

/// A module whose applied configuration can be read.
pub(super) struct Known {
    pub name: String,
    pub id: Option<u16>,
    pub config: config::Module,
    pub signature: String,
    pub starts_at_boot: bool,
    /// Of its graceful and its forced stop scripts together.
    pub longest_stop: Duration,
}

impl Known {
    /// The replicated directories.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.config.rfs.iter().flat_map(|r| &r.replicated).map(|d| PathBuf::from(&d.dir)).collect()
    }

    /// Users who own something in the replicated directories, as far as it was looked at.
    pub fn owners(&self) -> BTreeSet<u32> {
        let mut owners = BTreeSet::new();
        let deadline = Instant::now() + OWNERS_TIME;
        let mut left = OWNERS;
        let mut waiting = self.directories();
        while let Some(path) = waiting.pop() {
            if left == 0 || Instant::now() >= deadline {
                break;
            }
            left -= 1;
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            owners.insert(metadata.uid());
            if metadata.is_dir() {
                waiting.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
            }
        }
        owners
    }
}

pub(super) fn modules(roots: &Roots, found: &mut Vec<Finding>) -> Vec<Known> {
    let names = match boot::applied_modules(roots) {
        Ok(names) => names,
        Err(failure) => {
            found.push(Finding::error("modules", failure.message, "run this as root"));
            return Vec::new();
        }
    };
    names.into_iter().filter_map(|name| module(roots, name, found)).collect()
}

fn module(roots: &Roots, name: String, found: &mut Vec<Finding>) -> Option<Known> {
    let Some(instance) = Instance::load_quietly(roots, &name) else {
        found.push(Finding::error(
            "configuration",
            format!("module {name}: the applied configuration or cluster.xml has errors"),
            format!("sk-module confcheck -m {name}"),
        ));
        return None;
    };
    let active = roots.module_active(&name);
    let signature = std::fs::read_to_string(active.join("signature")).unwrap_or_default().trim().to_owned();
    let editable = crate::configure::signature_of(&roots.module_source(&name));
    if editable.is_some_and(|s| s != signature) {
        found.push(Finding::warn(
            "configuration",
            format!("module {name}: what was edited is not applied"),
            format!("sk-module config -m {name}"),
        ));
    }
    at_work(roots, &name, found);
    let config = instance.config().clone();
    for directory in config.rfs.iter().flat_map(|r| &r.replicated) {
        if !Path::new(&directory.dir).is_dir() {
            found.push(Finding::error(
                "replicated",
                format!("module {name}: {} is no directory", directory.dir),
                format!("mkdir -p {}", directory.dir),
            ));
        }
    }
    let (nice, force) =
        config.user.as_ref().map_or((Duration::ZERO, Duration::ZERO), |u| (u.nice_stop_timeout, u.force_stop_timeout));
    Some(Known {
        id: applied_id(roots, &name),
        starts_at_boot: !matches!(instance.boot_policy(), crate::instance::BootPolicy::Off),
        longest_stop: nice + force,
        config,
        signature,
        name,
    })
}

/// State, rule, heartbeats and data of a module that runs.
fn at_work(roots: &Roots, name: &str, found: &mut Vec<Finding>) {
    let (state, readiness, reply) = match client::state_pair(roots, name) {
        Ok(seen) => seen,
        Err(failure) => {
            found.push(Finding::error(
                "runner",
                format!("module {name}: {}", failure.message),
                format!("see sk-module log -m {name}"),
            ));
            return;
        }
    };
    if reply.is_null() {
        found.push(Finding::ok("module", format!("{name} is stopped")));
        return;
    }
    let words = format!("{name} is in {state} {readiness}");
    let rule = reply["rule"].as_str();
    found.push(match (state.as_str(), rule) {
        ("WAIT", Some(rule)) => {
            Finding::warn("module", format!("{words}: rule {rule}"), format!("sk-module explain -m {name}"))
        }
        ("WAIT", None) => Finding::warn("module", words, format!("sk-module explain -m {name}")),
        _ => Finding::ok("module", words),
    });
    let down = |list: &str, key: &str| -> Vec<String> {
        let all = reply[list].as_array().into_iter().flatten();
        all.filter(|v| v["value"] == "down").filter_map(|v| v[key].as_str().map(str::to_owned)).collect()
    };
    let silent = down("heartbeats", "ident");
    if !silent.is_empty() && reply["remote"]["state"].as_str().is_some() {
        found.push(Finding::warn(
            "heartbeat",
            format!("module {name}: the other node is not heard by {}", silent.join(", ")),
            "look at that network and its firewall; UDP 8888 between the nodes",
        ));
    }
    if reply["data"] == "degraded" {
        found.push(Finding::error(
            "data",
            format!("module {name}: replication is degraded"),
            format!("sk-module log -m {name}; then stop and start the module"),
        ));
    }
    for child in reply["children"].as_array().into_iter().flatten() {
        let restarts = child["restarts"].as_u64().unwrap_or(0);
        if restarts > 0 {
            let process = child["name"].as_str().unwrap_or("a process");
            found.push(Finding::warn(
                "processes",
                format!("module {name}: {process} was started again {restarts} times"),
                format!("sk-module log -A -m {name}"),
            ));
        }
    }
    if reply["refused"].as_str().is_some_and(|r| !r.is_empty()) && state == "STOP" {
        found.push(Finding::warn(
            "module",
            format!("{name}: {}", text(&reply["refused"])),
            format!("sk-module explain -m {name}"),
        ));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
