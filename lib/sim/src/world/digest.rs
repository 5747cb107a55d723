//! When are two worlds the same for whatever can happen next, apart from times and names drawn by chance?

use super::{Ev, World};
use automaton::Event;
use automaton::arbitration::Request;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

/// Fields of the core that only count or name, or say when.
const LEFT_OUT: [&str; 11] =
    ["now", "wall", "id", "next_id", "position", "start", "since", "started", "loop_since_ms", "loop_count", "turn"];
/// Lives of runners, drawn by chance.
const LIVES: [&str; 6] = ["incarnation", "partner", "heir", "life", "lease_to", "heard"];
/// Revisions of the arbiter's record.
const REVISIONS: [&str; 5] = ["revision", "written", "store_revision", "expect", "served"];
/// Smaller ones are times.
const DRAWN: u64 = 1 << 53;
/// A lease that lasts longer than this is as good as new.
const LEASE_STEP_MS: u64 = 1_500;
/// Numbers from here on are times or drawn by chance.
const LARGE: u64 = 1_000;

/// Names by the order in which they appear, and which revision of the record is the present one.
#[derive(Default)]
struct Names {
    seen: BTreeMap<String, usize>,
    revision: u64,
}

impl Names {
    fn of(&mut self, name: String) -> usize {
        let next = self.seen.len();
        *self.seen.entry(name).or_insert(next)
    }
}

fn write(out: &mut String, key: &str, value: &Value, names: &mut Names) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if !LEFT_OUT.contains(&key.as_str()) {
                    let _ = write!(out, "{key}:");
                    write(out, key, value, names);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| write(out, key, item, names)),
        Value::Number(n) => {
            let timed =
                key.ends_with("_deadline") || key.ends_with("_due") || key.ends_with("_retry") || key.ends_with("_ms");
            match n.as_u64() {
                _ if timed => out.push_str("set,"),
                Some(n) if n > 0 && n < LARGE && REVISIONS.contains(&key) => {
                    out.push_str(if n == names.revision { "present," } else { "former," });
                }
                Some(n) if n >= DRAWN && LIVES.contains(&key) => {
                    let _ = write!(out, "n{},", names.of(n.to_string()));
                }
                Some(n) if n >= LARGE => out.push_str("large,"),
                _ => {
                    let _ = write!(out, "{n},");
                }
            }
        }
        Value::String(s) if s.len() == 32 && s.bytes().all(|b| b.is_ascii_hexdigit()) => {
            let _ = write!(out, "e{},", names.of(s.clone()));
        }
        other => {
            let _ = write!(out, "{other},");
        }
    }
}

impl World {
    /// The state of everything that decides: both cores whole, replicas, networks, what is on its way.
    pub fn digest(&self) -> u64 {
        let (mut out, mut names) = (String::new(), Names::default());
        if let Some(store) = &self.store {
            names.revision = store.revision;
            let _ = write!(out, "{}{:?}{}", store.down, store.cut, store.slow);
            write(&mut out, "record", &serde_json::to_value(&store.record).unwrap_or_default(), &mut names);
            for node in 0..2 {
                let left = self.nodes[node].lease.saturating_sub(self.local(node));
                let _ = write!(out, "{},", left.div_ceil(LEASE_STEP_MS));
            }
        }
        for node in &self.nodes {
            let e = &node.engine;
            let _ = write!(out, "|{}{}{}{}{}", node.on, node.paused, node.app, node.vip, node.vip_conflict);
            let _ = write!(out, "{:?}{:?}{:?}{}{}{}", e.standing, e.role, e.peer, e.running, e.follow, e.full);
            let _ = write!(out, "{}", e.unshared);
            write(&mut out, "lineage", &serde_json::to_value(&e.lineage).unwrap_or_default(), &mut names);
            write(&mut out, "persisted", &serde_json::to_value(&node.persisted).unwrap_or_default(), &mut names);
            let _ = write!(out, "{}{}", !e.pending.is_empty(), node.stream == self.streams);
            if let Some(runner) = &node.runner {
                write(&mut out, "core", &serde_json::to_value(&runner.core).unwrap_or_default(), &mut names);
                let _ = write!(out, "{}{:?}{}", runner.heartbeat, runner.verdict, runner.published.is_some());
            }
            let holds_all = self.acked.iter().all(|w| e.data.contains(w));
            let durable = e.data.len() == e.durable;
            let _ = write!(out, "{holds_all}{durable}");
        }
        let [a, b] = [&self.nodes[0].engine.data, &self.nodes[1].engine.data];
        // Whether there is something that only one of them has.
        let _ = write!(out, "{}{}", a.iter().all(|w| b.contains(w)), b.iter().all(|w| a.contains(w)));
        let _ = write!(out, "{}{}", a.starts_with(b), b.starts_with(a));
        let phase = self.stream.as_ref().map(|s| (s.primary, std::mem::discriminant(&s.phase)));
        let _ = write!(out, "{:?}{}{phase:?}{}", self.beats, self.link, self.isolation);
        // What is on its way, without when.
        let mut pending: Vec<String> = self.queue.values().filter_map(kind).collect();
        pending.sort();
        pending.dedup();
        let _ = write!(out, "{pending:?}");
        let mut hasher = DefaultHasher::new();
        out.hash(&mut hasher);
        hasher.finish()
    }
}

fn kind(ev: &Ev) -> Option<String> {
    match ev {
        Ev::Order { node, order, .. } => Some(format!("{node}{order:?}")),
        Ev::Script { node, name, .. } => Some(format!("{node}{name}")),
        Ev::Vip { node, held, .. } => Some(format!("{node}{held}")),
        Ev::Restart { node } => Some(format!("{node}restart")),
        Ev::Store { node, request, .. } => Some(format!("{node}store{}", matches!(request, Request::Read))),
        Ev::Core { node, event: Event::Arbiter { .. }, .. } => Some(format!("{node}answer")),
        Ev::Marker { .. } => Some("marker".to_owned()),
        Ev::Adopt { .. } => Some("adopt".to_owned()),
        _ => None,
    }
}
