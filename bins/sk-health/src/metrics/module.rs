//! Which samples does the state of one module give? Pure. Whatever is missing or strange in it gives none.

use super::Exposition;
use serde_json::Value;

const STATES: [&str; 6] = ["STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UP"];
const PEER_STATES: [&str; 6] = ["UNKNOWN", "STOP", "WAIT", "ALONE", "PRIM", "SECOND"];
const READINESS: [&str; 3] = ["NotReady", "Transient", "Ready"];
const DATA: [(&str, &str); 3] = [("uptodate", "uptodate"), ("not uptodate", "not_uptodate"), ("degraded", "degraded")];
/// Resources of one module that are exposed.
const RESOURCES_MAX: usize = 2000;

/// `state`: the module's `state.json`, or `Null` without a runner.
pub fn collect(out: &mut Exposition, name: &str, state: &Value, now_ms: u64) {
    let module = [("module", name)];
    out.add("sk_module_running", &module, if state.is_object() { 1.0 } else { 0.0 });
    let text = |key: &str| state[key].as_str().unwrap_or_default();
    let here = if state.is_object() { text("state") } else { "STOP" };
    let readiness = if state.is_object() { text("readiness") } else { "NotReady" };
    out.one_of("sk_module_state", name, "state", &STATES, here);
    out.one_of("sk_module_readiness", name, "readiness", &READINESS, readiness);
    out.add("sk_module_serving", &module, f64::from(u8::from(crate::readiness::serves(here, readiness))));
    if !state.is_object() {
        return;
    }
    let id = state["id"].as_u64().map_or_else(String::new, |id| id.to_string());
    let labels =
        [("module", name), ("mode", text("mode")), ("node", text("node")), ("peer", text("peer")), ("id", &id)];
    out.add("sk_module_info", &labels, 1.0);
    if state["peer"].is_string() {
        let peer = state["remote"]["state"].as_str().unwrap_or("UNKNOWN");
        out.one_of("sk_module_peer_state", name, "state", &PEER_STATES, peer);
    }
    if let Some((_, data)) = DATA.iter().find(|(word, _)| *word == text("data")) {
        out.one_of("sk_module_data", name, "data", &DATA.map(|(_, word)| word), data);
    }
    if let Some(rule) = state["rule"].as_str() {
        out.add("sk_module_blocked", &[("module", name), ("rule", rule)], 1.0);
    }
    if let Ok(since) = text("since").parse::<jiff::Timestamp>() {
        out.add("sk_module_state_since_seconds", &module, since.as_microsecond() as f64 / 1e6);
    }
    counters(out, name, state);
    resources(out, name, state);
    replication(out, name, &state["replica"]);
    farm(out, name, &state["farm"]);
    if let Some(until) = state["lease_until_ms"].as_u64() {
        out.add("sk_arbiter_lease_left_seconds", &module, (until as f64 - now_ms as f64) / 1000.0);
    }
}

fn counters(out: &mut Exposition, name: &str, state: &Value) {
    let mut failovers = 0;
    for (step, count) in state["transitions"].as_object().into_iter().flatten() {
        let (Some((from, to)), Some(count)) = (step.split_once(' '), count.as_u64()) else { continue };
        if !STATES.contains(&from) || !STATES.contains(&to) {
            continue;
        }
        out.add("sk_module_transitions_total", &[("module", name), ("from", from), ("to", to)], count as f64);
        if (from, to) == ("SECOND", "ALONE") {
            failovers = count;
        }
    }
    if state["peer"].is_string() {
        out.add("sk_module_failovers_total", &[("module", name)], failovers as f64);
    }
    if let Some(starts) = state["application"].as_str().and_then(|a| a.split_once('.')?.1.parse::<u64>().ok()) {
        out.add("sk_module_application_starts_total", &[("module", name)], starts as f64);
    }
    for child in list(&state["children"]) {
        if let (Some(process), Some(restarts)) = (child["name"].as_str(), child["restarts"].as_u64()) {
            out.add("sk_process_restarts_total", &[("module", name), ("process", process)], restarts as f64);
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// 1 for `up`, 0 for `down`; other words, such as `init`, say nothing.
fn level(value: &str) -> Option<f64> {
    match value {
        "up" => Some(1.0),
        "down" => Some(0.0),
        _ => None,
    }
}

fn resources(out: &mut Exposition, name: &str, state: &Value) {
    for resource in list(&state["resources"]).take(RESOURCES_MAX) {
        let (Some(resource), Some(value)) = (resource["name"].as_str(), resource["value"].as_str()) else { continue };
        let labels = [("module", name), ("resource", resource)];
        // Its "down" is in order; sk_module_data tells of it.
        if resource == "rfs.degraded" {
            continue;
        }
        if let Some(level) = level(value) {
            out.add("sk_resource_up", &labels, level);
        } else if resource == "heart.stopstartloop" {
            if let Ok(count) = value.parse::<u32>() {
                out.add("sk_module_automatic_actions", &[("module", name)], f64::from(count));
            }
        } else if let Ok(number) = value.trim_end_matches('%').parse::<f64>()
            && value.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        {
            out.add("sk_resource_value", &labels, number);
        }
    }
    for (list_name, family, label, key) in
        [("heartbeats", "sk_heartbeat_up", "link", "ident"), ("vip", "sk_virtual_address_up", "address", "address")]
    {
        for entry in list(&state[list_name]).take(RESOURCES_MAX) {
            let (Some(which), Some(level)) = (entry[key].as_str(), entry["value"].as_str().and_then(level)) else {
                continue;
            };
            out.add(family, &[("module", name), (label, which)], level);
        }
    }
}

fn replication(out: &mut Exposition, name: &str, replica: &Value) {
    if !replica.is_object() {
        return;
    }
    let module = [("module", name)];
    let mut figure = |family: &str, value: &Value, scale: f64| {
        if let Some(number) = value.as_f64() {
            out.add(family, &module, number * scale);
        }
    };
    figure("sk_replication_position", &replica["position"], 1.0);
    figure("sk_replication_sent_bytes_per_second", &replica["out_bytes_s"], 1.0);
    figure("sk_replication_received_bytes_per_second", &replica["in_bytes_s"], 1.0);
    figure("sk_replication_lag_bytes", &replica["lag_bytes"], 1.0);
    figure("sk_replication_ack_seconds", &replica["ack_us"], 1e-6);
    figure("sk_replication_ack_worst_seconds", &replica["ack_worst_us"], 1e-6);
    let resync = &replica["resync"];
    figure("sk_resync_files_done", &resync["files"], 1.0);
    figure("sk_resync_files_planned", &resync["files_total"], 1.0);
    figure("sk_resync_bytes_done", &resync["bytes"], 1.0);
    figure("sk_resync_bytes_planned", &resync["bytes_total"], 1.0);
    figure("sk_resync_bytes_per_second", &resync["rate_bytes_s"], 1.0);
    figure("sk_resync_left_seconds", &resync["left_s"], 1.0);
    let truth = |holds: bool| f64::from(u8::from(holds));
    out.add("sk_replication_in_sync", &module, truth(replica["peer"] == "in_sync"));
    out.add("sk_replication_frozen", &module, truth(replica["frozen"] == true));
    out.add("sk_resync_active", &module, truth(resync.is_object()));
}

fn farm(out: &mut Exposition, name: &str, farm: &Value) {
    if !farm.is_object() {
        return;
    }
    if let Some(generation) = farm["generation"].as_f64() {
        out.add("sk_farm_generation", &[("module", name)], generation);
    }
    let open: Vec<&str> = list(&farm["open"]).filter_map(Value::as_str).collect();
    for node in list(&farm["members"]).filter_map(Value::as_str) {
        let labels = [("module", name), ("node", node)];
        out.add("sk_farm_member", &labels, 1.0);
        out.add("sk_farm_open", &labels, f64::from(u8::from(open.contains(&node))));
    }
    for group in list(&farm["groups"]) {
        let Some(group_name) = group["group"].as_str() else { continue };
        let labels = [("module", name), ("group", group_name)];
        if let (Some(owned), Some(of)) = (group["owned"].as_f64(), group["of"].as_f64().filter(|of| *of > 0.0)) {
            out.add("sk_farm_share_ratio", &labels, owned / of);
        }
        for (family, key) in [
            ("sk_farm_connections_per_second", "connections_s"),
            ("sk_farm_accepted_bytes_per_second", "accepted_bytes_s"),
            ("sk_farm_accepted_packets_per_second", "accepted_packets_s"),
            ("sk_farm_dropped_packets_per_second", "dropped_packets_s"),
        ] {
            if let Some(rate) = group[key].as_f64() {
                out.add(family, &labels, rate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FAMILIES;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn full() -> Value {
        json!({
            "module": "db", "node": "node1", "peer": "node2", "mode": "mirror", "id": 3, "state": "PRIM",
            "readiness": "Ready", "remote": {"state": "SECOND", "readiness": "Ready"}, "data": "uptodate", "rule": "r",
            "since": "2026-11-20T10:00:00.500000Z", "application": "77.3",
            "transitions": {"SECOND ALONE": 2, "WAIT PRIM": 1, "bad": 1, "A B": 1},
            "resources": [{"name": "tcp.web", "value": "up"}, {"name": "proc.x", "value": "down"},
                {"name": "custom.n", "value": "42"}, {"name": "custom.i", "value": "inf"},
                {"name": "heart.stopstartloop", "value": "2"}, {"name": "ip.a", "value": "init"}, {"name": "rfs.degraded", "value": "down"}],
            "heartbeats": [{"ident": "default", "value": "up"}], "vip": [{"address": "10.0.0.50", "value": "up"}],
            "children": [{"name": "sk-replicate", "pid": 7, "restarts": 1}],
            "replica": {"peer": "in_sync", "frozen": false, "position": 9, "in_bytes_s": 1, "out_bytes_s": 2,
                "lag_bytes": 3, "ack_us": 1500, "ack_worst_us": 2000,
                "resync": {"files": 1, "files_total": 2, "bytes": 3, "bytes_total": 4, "rate_bytes_s": 5, "left_s": 6}},
            "farm": {"generation": 7, "members": ["node1", "node2"], "open": ["node1"],
                "groups": [{"group": "G_0", "owned": 64, "of": 256, "connections_s": 5, "accepted_bytes_s": 6,
                    "accepted_packets_s": 7, "dropped_packets_s": 8}]},
            "lease_until_ms": 12_500,
        })
    }

    fn exposed(state: &Value) -> String {
        let mut out = Exposition::default();
        collect(&mut out, "db", state, 10_000);
        out.text()
    }

    #[test]
    fn a_full_state_gives_every_family_with_its_labels() {
        let text = exposed(&full());
        let seen: BTreeSet<&str> =
            text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(['{', ' ']).next()).collect();
        for family in FAMILIES.iter().filter(|f| f.name != "sk_build_info") {
            assert!(seen.contains(family.name), "{} is documented and never exposed", family.name);
            let sample = text.lines().find(|l| l.starts_with(&format!("{}{{", family.name))).unwrap();
            let labels: Vec<&str> = sample.split(['{', ',']).skip(1).filter_map(|l| l.split('=').next()).collect();
            assert_eq!(labels, family.labels, "{sample}");
        }
        for line in [
            "sk_module_failovers_total{module=\"db\"} 2",
            "sk_replication_ack_seconds{module=\"db\"} 0.0015",
            "sk_arbiter_lease_left_seconds{module=\"db\"} 2.5",
            "sk_farm_open{module=\"db\",node=\"node2\"} 0",
            "sk_farm_share_ratio{module=\"db\",group=\"G_0\"} 0.25",
            "sk_module_state_since_seconds{module=\"db\"} 1795168800.5",
            "sk_resource_value{module=\"db\",resource=\"custom.n\"} 42",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        for silent in ["custom.i", "ip.a", "rfs.degraded"] {
            assert!(!text.contains(silent), "{silent}: {text}");
        }
    }

    #[test]
    fn without_a_runner_the_module_is_stopped() {
        let text = exposed(&Value::Null);
        for line in [
            "sk_module_running{module=\"db\"} 0",
            "sk_module_state{module=\"db\",state=\"STOP\"} 1",
            "sk_module_readiness{module=\"db\",readiness=\"NotReady\"} 1",
            "sk_module_serving{module=\"db\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        assert_eq!(text.lines().filter(|l| !l.starts_with('#')).count(), 1 + 6 + 3 + 1);
    }

    /// JSON of any shape in the place of any member.
    fn garbage() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,8}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_state_of_any_shape_gives_well_formed_lines(member in 0_usize..30, value in garbage()) {
            let mut state = full();
            let keys: Vec<String> = state.as_object().unwrap().keys().cloned().collect();
            if let Some(key) = keys.get(member) {
                state[key.as_str()] = value;
            } else {
                state = value;
            }
            for line in exposed(&state).lines() {
                let sample = line.rsplit_once(' ').is_some_and(|(name, number)| {
                    name.starts_with("sk_") && name.ends_with('}') && number.parse::<f64>().is_ok_and(f64::is_finite)
                });
                prop_assert!(line.starts_with("# ") || sample, "{line}");
            }
        }
    }
}
