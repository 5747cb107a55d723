//! What does a running node tell about itself: shares, owners, counters?

use crate::plan;
use crate::rates::Traffic;
use crate::run::{Node, is_directed};
use serde::Serialize;
use serde_json::{Value, json};
use sys::clock::monotonic_ms;

/// Nodes of all groups together in a status, which must fit into a socket's buffer.
const NODES_SHOWN: usize = 256;

/// The event `share`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    pub group: String,
    pub owned: usize,
    pub of: usize,
    pub percent: usize,
    pub bitmap: String,
    pub members: Vec<String>,
}

/// This node's share of a group.
pub fn share(node: &Node, number: usize) -> Share {
    let mine = node.farm.sets().get(number).map(|s| s.mine).unwrap_or_default();
    let group = node.group(number);
    let directed = group.is_some_and(|g| is_directed(&node.spec, g));
    let bitmap = match node.farm.table(number) {
        Some(table) if directed => table.directed(node.me),
        _ => mine.to_string(),
    };
    let members = node.farm.view().map(detector::farm::View::members).unwrap_or_default();
    Share {
        group: group.map_or_else(String::new, |g| g.name.clone()),
        owned: mine.len(),
        of: share::BUCKETS,
        // Rounded, so that shares of a third are 33 and not 34 twice.
        percent: (mine.len() * 100 + share::BUCKETS / 2) / share::BUCKETS,
        bitmap,
        members: members
            .iter()
            .filter(|m| m.open)
            .filter_map(|m| node.nodes.get(usize::from(m.node)).cloned())
            .collect(),
    }
}

/// What was counted of each group.
pub fn traffic(node: &Node) -> Vec<Traffic> {
    let of = |name: String| node.counters.iter().find(|c| c.name == name);
    (0..node.spec.groups.len())
        .map(|number| {
            let name = plan::group(number);
            let (accepted, connections, dropped) =
                (of(format!("{name}_accepted")), of(format!("{name}_connections")), of(plan::dropped(&name)));
            Traffic {
                connections: connections.map_or(0, |c| c.packets),
                packets: accepted.map_or(0, |c| c.packets),
                bytes: accepted.map_or(0, |c| c.bytes),
                dropped: dropped.map_or(0, |c| c.packets),
            }
        })
        .collect()
}

/// What each node of the view owns of a group, and takes at present.
pub fn nodes(node: &Node, number: usize) -> Vec<Value> {
    let now = monotonic_ms();
    let members = node.farm.view().map(detector::farm::View::members).unwrap_or_default();
    let shown = members.iter().map(|m| {
        let owned = node.farm.table(number).map_or(0, |t| t.count(m.node));
        let mut shown = json!({"node": node.nodes.get(usize::from(m.node)), "owned": owned});
        let rates = node.rates.of(now, m.node, number).and_then(|r| serde_json::to_value(r).ok());
        if let (Some(Value::Object(rates)), Some(shown)) = (rates, shown.as_object_mut()) {
            shown.extend(rates);
        }
        shown
    });
    shown.collect()
}

/// Everything, for `show` and `who`.
pub fn status(node: &Node) -> Value {
    let traffic = traffic(node);
    let groups: Vec<Value> = (0..node.spec.groups.len())
        .map(|number| {
            let mut value = serde_json::to_value(share(node, number)).unwrap_or_default();
            let owners: Vec<Option<u8>> =
                (0..=u8::MAX).map(|b| node.farm.table(number).and_then(|t| t.owner(b))).collect();
            let draining = node
                .contents
                .get(number)
                .map_or(0, |g| g.iter().filter(|b| b.class == Some(crate::mark::Class::Legacy)).count());
            if let Some(map) = value.as_object_mut() {
                if let Some(counted) = traffic.get(number) {
                    map.insert("connections".into(), counted.connections.into());
                    map.insert("accepted_packets".into(), counted.packets.into());
                    map.insert("accepted_bytes".into(), counted.bytes.into());
                    map.insert("dropped_packets".into(), counted.dropped.into());
                }
                if node.spec.groups.len() * node.nodes.len() <= NODES_SHOWN {
                    map.insert("nodes".into(), nodes(node, number).into());
                }
                let filters: std::collections::BTreeSet<_> =
                    node.group(number).into_iter().flat_map(|g| g.rules.iter().map(|r| r.filter)).collect();
                map.insert("filters".into(), json!(filters));
                map.insert("owners".into(), json!(owners));
                map.insert("draining".into(), draining.into());
            }
            value
        })
        .collect();
    let mut status = node.describe();
    let named = |name: &str| node.counters.iter().find(|c| c.name == name).map_or(0, |c| c.packets);
    if let Some(map) = status.as_object_mut() {
        map.insert("groups".into(), groups.into());
        map.insert("unmatched_packets".into(), named("unmatched").into());
        map.insert("closed_packets".into(), named("closed").into());
    }
    status
}
