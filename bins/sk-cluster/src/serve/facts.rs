//! What is this node, and what does it have?

use crate::{bundle, modules};
use serde_json::Value;
use std::path::Path;
use std::time::UNIX_EPOCH;
use sys::roots::Roots;
use wire::KeyRing;
use wire::node::{Facts, ModuleFact, Stamp};
use wire::role::Role;

/// More modules or users than this are not told of.
const LIMIT: usize = 1024;

pub fn facts(roots: &Roots, role: Role, users: &[String]) -> Facts {
    let (cluster, _) = config::load_cluster(&roots.cluster_xml());
    let node = cluster.and_then(|c| sys::node::own(roots, c.own_addresses()).ok()).unwrap_or_default();
    let ring = KeyRing::load(&roots.cluster_key()).ok();
    let numbers = |name: &String| {
        let user = nix::unistd::User::from_name(name).ok().flatten()?;
        Some((name.clone(), (user.uid.as_raw(), user.gid.as_raw())))
    };
    Facts {
        node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wall_ms: sys::clock::wall_ms(),
        cluster: bundle::stamp(roots),
        locked: roots.cluster_lock().exists(),
        key: ring.as_ref().map(|r| r.used().fingerprint()).unwrap_or_default(),
        accepted: ring.iter().flat_map(KeyRing::accepted).map(wire::ClusterKey::fingerprint).collect(),
        role: Some(role),
        modules: module_facts(roots),
        users: users.iter().take(LIMIT).filter_map(numbers).collect(),
    }
}

fn module_facts(roots: &Roots) -> Vec<ModuleFact> {
    sys::modules::known(roots).into_iter().take(LIMIT).map(|name| module_fact(roots, name)).collect()
}

fn module_fact(roots: &Roots, module: String) -> ModuleFact {
    let active = roots.module_active(&module);
    let signature = active.join("signature");
    let config = sys::files::read_bounded(&signature, 256)
        .ok()
        .map(|bytes| Stamp { signature: String::from_utf8_lossy(&bytes).trim().to_owned(), date: date(&signature) });
    // Believed while the runner holds its lock; what a former life left says nothing.
    let run = roots.module_run(&module);
    let lives = sys::lock::is_held(&run.join("lock")).unwrap_or(false);
    let state: Value = Some(run.join("state.json"))
        .filter(|_| lives)
        .and_then(|path| sys::files::read_bounded(&path, 4 * 1024 * 1024).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let text = |name: &str, otherwise: &str| state[name].as_str().unwrap_or(otherwise).to_owned();
    let stopped = if config.is_some() { ("STOP", "NotReady") } else { ("", "") };
    ModuleFact {
        id: modules::id(roots, &module),
        mode: text("mode", ""),
        state: text("state", stopped.0),
        readiness: text("readiness", stopped.1),
        config,
        module,
    }
}

/// Seconds since 1970.
fn date(path: &Path) -> u64 {
    let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
    modified.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs())
}
