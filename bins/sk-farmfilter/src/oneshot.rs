//! What do `show`, `who`, `plan` and `clean` do for somebody at a shell?

use crate::cli::{Clean, Client, Failure, PlanArguments, Show, Who};
use crate::control::ask;
use crate::mark::bucket_of;
use crate::spec::{Key, Spec};
use crate::{addresses, kernel, run};
use net::rtnl::Rtnl;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use sys::failure::put;
use sys::lines::{table, wrap};
use sys::roots::Roots;

const LIMIT: u64 = 64 * 1024;

/// The part of a status that is needed here.
#[derive(Deserialize)]
struct Status {
    node: String,
    nodes: Vec<String>,
    generation: u64,
    members: Vec<String>,
    open_members: Vec<String>,
    open: bool,
    lease_ms: u64,
    yields: Option<Yields>,
    groups: Vec<GroupStatus>,
    unmatched_packets: u64,
    #[serde(default)]
    early_drop: EarlyDrop,
}

/// Where packets of others end before the rules, and why nowhere although that is wanted.
#[derive(Default, Deserialize)]
struct EarlyDrop {
    interfaces: Vec<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Yields {
    node: String,
    reason: String,
}

#[derive(Deserialize)]
struct GroupStatus {
    group: String,
    owned: usize,
    of: usize,
    percent: usize,
    bitmap: String,
    draining: usize,
    connections: u64,
    accepted_packets: u64,
    dropped_packets: u64,
    filters: Vec<Key>,
    owners: Vec<Option<u8>>,
    #[serde(default)]
    nodes: Vec<NodeStatus>,
}

#[derive(Deserialize)]
struct NodeStatus {
    node: String,
    owned: usize,
    connections_s: Option<u64>,
    accepted_packets_s: Option<u64>,
    accepted_bytes_s: Option<u64>,
}

fn modules(wanted: Option<&String>) -> Vec<String> {
    if let Some(module) = wanted {
        return vec![module.clone()];
    }
    let entries = std::fs::read_dir(Roots::from_environment().run).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|e| e.path().join("farmfilter").exists())
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| sys::roots::is_module_name(name))
        .collect();
    names.sort();
    names
}

/// The status of each module that runs, of those wanted.
fn running(wanted: Option<&String>) -> Result<Vec<(String, Value)>, Failure> {
    let roots = Roots::from_environment();
    let mut found = Vec::new();
    for module in modules(wanted) {
        if let Some(status) = ask(&roots.module_run(&module))? {
            found.push((module, status));
        }
    }
    Ok(found)
}

fn nobody(wanted: Option<&String>) -> u8 {
    let of = wanted.map_or_else(String::new, |module| format!(" of module {module}"));
    sys::warn!("sk-farmfilter: no farm filter{of} runs on this host");
    1
}

fn status(module: &str, value: Value) -> Result<Status, Failure> {
    serde_json::from_value(value).map_err(|e| {
        Failure::Sys(
            format!("the farm filter of {module} answered in another version"),
            io::Error::other(e.to_string()),
        )
    })
}

pub fn show(args: &Show) -> Result<u8, Failure> {
    let found = running(args.module.as_ref())?;
    if found.is_empty() {
        return Ok(nobody(args.module.as_ref()));
    }
    for (module, value) in found {
        if args.json {
            put(&value.to_string())?;
            continue;
        }
        for line in shown(&module, &status(&module, value)?) {
            put(&line)?;
        }
    }
    Ok(0)
}

/// What `show` says to people.
fn shown(module: &str, s: &Status) -> Vec<String> {
    let state = match (&s.yields, s.open, s.lease_ms > 0) {
        (Some(y), ..) => format!("accepts nothing because of {}: {}", y.node, y.reason),
        (None, true, true) => "open".to_owned(),
        (None, true, false) => "open, but without a lease: nothing is accepted".to_owned(),
        (None, false, _) => "closed".to_owned(),
    };
    let open = if s.open_members.is_empty() { "none".to_owned() } else { s.open_members.join(" ") };
    let head = format!("{module} on {}: {state}; view {}: {}; open: {open}", s.node, s.generation, s.members.join(" "));
    let mut lines = vec![wrap(&head, 2)];
    let mut rows =
        vec![["GROUP", "OWNED", "SHARE", "DRAINING", "CONNECTIONS", "ACCEPTED", "DROPPED"].map(str::to_owned).to_vec()];
    rows.extend(s.groups.iter().map(|g| {
        vec![
            g.group.clone(),
            format!("{}/{}", g.owned, g.of),
            format!("{}%", g.percent),
            g.draining.to_string(),
            g.connections.to_string(),
            g.accepted_packets.to_string(),
            g.dropped_packets.to_string(),
        ]
    }));
    lines.extend(table(&rows));
    for g in &s.groups {
        // The map has its own line: with a name before it, it would be too wide.
        lines.push(format!("{}:", g.group));
        lines.push(wrap(&format!("  {}", g.bitmap), 2));
    }
    let mut rows =
        vec![["GROUP", "NODE", "OWNED", "CONNECTIONS/s", "PACKETS/s", "BYTES/s"].map(str::to_owned).to_vec()];
    let rate = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
    rows.extend(s.groups.iter().flat_map(|g| {
        g.nodes.iter().map(|n| {
            vec![
                g.group.clone(),
                n.node.clone(),
                format!("{}/{}", n.owned, g.of),
                rate(n.connections_s),
                rate(n.accepted_packets_s),
                rate(n.accepted_bytes_s),
            ]
        })
    }));
    if rows.len() > 1 {
        lines.extend(table(&rows));
    }
    lines.push(format!("packets that match no rule: {}", s.unmatched_packets));
    match (s.early_drop.interfaces.as_slice(), &s.early_drop.reason) {
        ([], None) => {}
        ([], Some(reason)) => lines.push(wrap(&format!("early drop: none: {reason}"), 2)),
        (interfaces, _) => lines.push(wrap(&format!("early drop: {}", interfaces.join(" ")), 2)),
    }
    lines
}

pub fn who(args: &Who) -> Result<u8, Failure> {
    let found = running(args.module.as_ref())?;
    if found.is_empty() {
        return Ok(nobody(args.module.as_ref()));
    }
    let Client { ip, port } = args.client;
    let mut rows = vec![["MODULE", "GROUP", "FILTER", "BUCKET", "NODE"].map(str::to_owned).to_vec()];
    let mut known = false;
    let mut unowned = false;
    for (module, value) in found {
        let s = status(&module, value)?;
        for group in s.groups.iter().filter(|g| args.group.as_ref().is_none_or(|wanted| *wanted == g.group)) {
            known = true;
            for key in &group.filters {
                let Some(bucket) = bucket_of(*key, ip, port, args.ipid) else { continue };
                let owner = group.owners.get(usize::from(bucket)).copied().flatten();
                let name = owner.and_then(|o| s.nodes.get(usize::from(o)));
                unowned |= name.is_none();
                let filter = serde_json::to_value(key).unwrap_or_default();
                let filter = filter.as_str().unwrap_or_default();
                if args.json {
                    let line = json!({"module": module, "group": group.group, "filter": filter, "bucket": bucket, "node": name});
                    put(&line.to_string())?;
                }
                rows.push(vec![
                    module.clone(),
                    group.group.clone(),
                    filter.to_owned(),
                    bucket.to_string(),
                    name.cloned().unwrap_or_else(|| "-".to_owned()),
                ]);
            }
        }
    }
    if !known {
        return Err(Failure::Usage(format!("there is no group `{}`", args.group.as_deref().unwrap_or_default())));
    }
    if rows.len() == 1 {
        return Err(Failure::Usage(
            "the groups are shared by what was not given: a port (192.0.2.7:40000), or the identification field (--ipid)".to_owned(),
        ));
    }
    if !args.json {
        for line in table(&rows) {
            put(&line)?;
        }
    }
    Ok(if unowned { 2 } else { 0 })
}

pub fn plan(args: &PlanArguments) -> Result<u8, Failure> {
    let spec = Spec::load(&args.spec)?;
    let rules = run::rules(&spec)?;
    if args.json {
        put(&json!({"module": spec.module, "rules": rules}).to_string())?;
    } else {
        put(rules.trim_end())?;
    }
    Ok(0)
}

pub fn clean(args: &Clean) -> Result<u8, Failure> {
    if !sys::roots::is_module_name(&args.module) {
        return Err(Failure::Usage(format!("`{}` is not the name of a module", args.module)));
    }
    let directory = Roots::from_environment().module_run(&args.module);
    if ask(&directory)?.is_some() {
        return Err(Failure::Running(directory.join("farmfilter")));
    }
    let removed = clean_up(&args.module)?;
    if args.json {
        put(&json!({"module": args.module, "removed": removed}).to_string())?;
    } else if removed.is_empty() {
        put(&format!("nothing of module {} was left", args.module))?;
    } else {
        put(&format!("removed: {}", removed.join(", ")))?;
    }
    Ok(0)
}

/// Where it is written which addresses were set.
fn memory(module: &str) -> PathBuf {
    Roots::from_environment().module_run(module).join("farmfilter.json")
}

/// Before addresses are set: notes them for whoever must clean up after us.
pub fn remember(spec: &Spec) -> Result<(), Failure> {
    let all: Vec<IpAddr> = spec.addresses.iter().map(|a| a.address).collect();
    let path = memory(&spec.module);
    sys::files::write_atomically(&path, json!({"addresses": all}).to_string().as_bytes(), 0o600)
        .map_err(|e| Failure::Sys(format!("cannot write {}", path.display()), e))
}

/// Nothing is set any more.
pub fn forget(module: &str) {
    let _ = std::fs::remove_file(memory(module));
}

/// Removes what a former life left behind; gives what that was.
pub fn clean_up(module: &str) -> Result<Vec<String>, Failure> {
    let mut removed = Vec::new();
    #[derive(Deserialize)]
    struct Memory {
        addresses: Vec<IpAddr>,
    }
    // Addresses go first: as long as the rules are there they accept nothing.
    let known = sys::files::read_bounded(&memory(module), LIMIT).ok();
    if let Some(Memory { addresses }) = known.and_then(|text| serde_json::from_slice(&text).ok()) {
        let mut rtnl = Rtnl::open()?;
        let loopback = rtnl.links()?.iter().find(|l| l.loopback).map_or(1, |l| l.index);
        let present = rtnl.addresses()?;
        for ip in addresses {
            let ours = present.iter().any(|a| a.ip == ip && a.index == loopback && (a.marked || a.is_orphan_of_ours()));
            if ours && addresses::remove(&mut rtnl, loopback, ip)? {
                removed.push(ip.to_string());
            }
        }
    }
    if kernel::remove(module)? {
        removed.push(format!("tables {}", crate::plan::table(module)));
    }
    forget(module);
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_of_many_groups_and_nodes_fits_80_columns() {
        let nodes: Vec<String> = (1..=32).map(|n| format!("server-with-a-name-{n}")).collect();
        for bitmap in [["ffffffff"; 8].join(" "), vec!["0123456789abcdef".repeat(4); 8].join(" ")] {
            let group = |n: usize| GroupStatus {
                group: format!("a_group_of_requests_to_a_port_{n}"),
                owned: 256,
                of: 256,
                percent: 100,
                bitmap: bitmap.clone(),
                draining: 256,
                connections: u64::MAX,
                accepted_packets: u64::MAX,
                dropped_packets: u64::MAX,
                filters: Vec::new(),
                owners: Vec::new(),
                nodes: nodes
                    .iter()
                    .map(|node| NodeStatus {
                        node: node.clone(),
                        owned: 256,
                        connections_s: Some(u64::MAX),
                        accepted_packets_s: None,
                        accepted_bytes_s: Some(u64::MAX),
                    })
                    .collect(),
            };
            let status = Status {
                node: nodes[0].clone(),
                nodes: nodes.clone(),
                generation: u64::MAX,
                members: nodes.clone(),
                open_members: nodes.clone(),
                open: true,
                lease_ms: 0,
                yields: Some(Yields {
                    node: nodes[1].clone(),
                    reason: "2001:db8:1234:5678:aaaa:bbbb:cccc:dddd is answered for by another machine on this network"
                        .into(),
                }),
                groups: (0..8).map(group).collect(),
                unmatched_packets: u64::MAX,
                early_drop: EarlyDrop {
                    interfaces: Vec::new(),
                    reason: Some(
                        "put a packet program before an interface: Operation not permitted (os error 1)".into(),
                    ),
                },
            };
            let said = shown("a-farm", &status).join("\n");
            assert!(said.starts_with("a-farm on server-with-a-name-1: "), "{said}");
            let wide: Vec<&str> = said.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{wide:#?}");
            assert_eq!(said.split_whitespace().filter(|word| bitmap.starts_with(word)).count(), 8 * 8, "{said}");
        }
    }
}
