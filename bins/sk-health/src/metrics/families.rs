//! Which metrics are there, and what do they mean? The page `docs/metrics.md` is made from this table.

/// A family of samples of one name.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const MODULE: &[&str] = &["module"];
const STATE: &[&str] = &["module", "state"];
const GROUP: &[&str] = &["module", "group"];
const NODE: &[&str] = &["module", "node"];

/// All of them, in the order in which they are exposed.
pub const FAMILIES: &[Family] = &[
    gauge("sk_build_info", &["version"], "Always 1; the version of sk that answers"),
    gauge(
        "sk_module_info",
        &["module", "mode", "node", "peer", "id"],
        "Always 1; what the module is: mirror, farm or light, and on which nodes",
    ),
    gauge(
        "sk_module_running",
        MODULE,
        "1 when the module has a runner on this node; without one nothing else is known of it, and it is in STOP",
    ),
    gauge(
        "sk_module_state",
        STATE,
        "1 for the module's state on this node (STOP, WAIT, ALONE, PRIM, SECOND, UP), 0 for the others",
    ),
    gauge(
        "sk_module_readiness",
        &["module", "readiness"],
        "1 for the readiness of the state (NotReady, Transient, Ready), 0 for the others",
    ),
    gauge(
        "sk_module_serving",
        MODULE,
        "1 when clients may come to this node: PRIM, ALONE or UP, and Ready; what the health URL says",
    ),
    gauge(
        "sk_module_peer_state",
        STATE,
        "The same of the other node of a mirror, as this node knows it; UNKNOWN when it is not heard",
    ),
    gauge(
        "sk_module_data",
        &["module", "data"],
        "1 for what is known of the replicated data on this node (uptodate, not_uptodate, degraded), 0 for the others; absent without replication",
    ),
    gauge(
        "sk_module_blocked",
        &["module", "rule"],
        "1 for the failover rule that keeps the module in WAIT; absent when none does",
    ),
    gauge("sk_module_state_since_seconds", MODULE, "When the module came into its present state, seconds since 1970"),
    counter(
        "sk_module_transitions_total",
        &["module", "from", "to"],
        "Changes from one state to another since the runner began",
    ),
    counter(
        "sk_module_failovers_total",
        MODULE,
        "Times that this node took over from the other one, SECOND to ALONE, since the runner began",
    ),
    counter(
        "sk_module_application_starts_total",
        MODULE,
        "Starts of the application on this node since the runner began",
    ),
    gauge(
        "sk_module_automatic_actions",
        MODULE,
        "Automatic restarts counted within loop_interval; at maxloop the module stops",
    ),
    gauge(
        "sk_resource_up",
        &["module", "resource"],
        "1 for a resource that is up, 0 for one that is down: checkers, processes, heartbeats, interfaces; absent while not checked",
    ),
    gauge("sk_resource_value", &["module", "resource"], "A resource whose value is a number"),
    gauge("sk_heartbeat_up", &["module", "link"], "1 when the other node is heard on this network"),
    gauge(
        "sk_virtual_address_up",
        &["module", "address"],
        "1 when this node holds the address; 0 is in order on a secondary",
    ),
    counter(
        "sk_process_restarts_total",
        &["module", "process"],
        "Deaths of a part of sk itself (sk-replicate, sk-vip, …) since it was asked to run",
    ),
    gauge("sk_replication_in_sync", MODULE, "1 when every acknowledged write is on both nodes"),
    gauge(
        "sk_replication_frozen",
        MODULE,
        "1 while writes wait because the other node is lost and it is not decided yet who goes on",
    ),
    gauge(
        "sk_replication_position",
        MODULE,
        "Place in the stream of changes: the one made last on a primary, the one received last on a secondary",
    ),
    gauge("sk_replication_sent_bytes_per_second", MODULE, "Bytes sent to the other node in the last second"),
    gauge("sk_replication_received_bytes_per_second", MODULE, "Bytes received from the other node in the last second"),
    gauge("sk_replication_lag_bytes", MODULE, "Changes that the secondary has not acknowledged yet"),
    gauge(
        "sk_replication_ack_seconds",
        MODULE,
        "How long the secondary's acknowledgement of a flush took in the last second, mean; absent when nothing was flushed",
    ),
    gauge("sk_replication_ack_worst_seconds", MODULE, "The same, the longest one followed"),
    gauge("sk_resync_active", MODULE, "1 while a resynchronisation runs"),
    gauge(
        "sk_resync_files_done",
        MODULE,
        "Files compared or copied by the present resynchronisation; absent when none runs",
    ),
    gauge("sk_resync_files_planned", MODULE, "Files that it has to look at, as far as known"),
    gauge("sk_resync_bytes_done", MODULE, "Bytes compared or copied"),
    gauge("sk_resync_bytes_planned", MODULE, "Bytes that it has to look at, as far as known"),
    gauge("sk_resync_bytes_per_second", MODULE, "Its speed"),
    gauge("sk_resync_left_seconds", MODULE, "Its estimate of the time left"),
    gauge("sk_farm_generation", MODULE, "Number of the view that the members of the farm agreed on"),
    gauge("sk_farm_member", NODE, "1 for each node that is heard in the farm"),
    gauge("sk_farm_open", NODE, "1 for each node heard that takes clients, 0 for one that does not"),
    gauge("sk_farm_share_ratio", GROUP, "This node's share of the clients of a load-balancing group, 0 to 1"),
    gauge("sk_farm_connections_per_second", GROUP, "New connections accepted by this node in the last second"),
    gauge("sk_farm_accepted_bytes_per_second", GROUP, "Bytes accepted by this node in the last second"),
    gauge("sk_farm_accepted_packets_per_second", GROUP, "Packets accepted by this node in the last second"),
    gauge("sk_farm_dropped_packets_per_second", GROUP, "Packets left to the other nodes in the last second"),
    gauge(
        "sk_arbiter_lease_left_seconds",
        MODULE,
        "Time left of the lease that allows this node to serve; negative when it has ended; absent without etcd",
    ),
];

/// `docs/metrics.md`.
pub fn page() -> String {
    let mut out = String::from(HEAD);
    out.push_str("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            family.name,
            family.kind.word(),
            if labels.is_empty() { "-".to_owned() } else { labels.join(", ") },
            family.help
        ));
    }
    out.push_str(TAIL);
    out
}

const HEAD: &str = "\
# Metrics

<!-- Made from bins/sk-health/src/metrics/families.rs: cargo run -p docs -- generate -->

`sk-health` tells a monitoring system what the modules of a node do, in the text format of Prometheus.

Once, to look at:

```sh run=node1
sk-health metrics
```

```text expect
sk_module_info{module=\"www\",mode=\"mirror\",node=\"node1\",peer=\"node2\",id=\"1\"} 1
```

Always, for whoever asks, here for the module of the tutorial:

```sh run=node1
sk-health serve --metrics 10.0.1.11:9011 >/dev/null 2>&1 &
```

```sh run=node2 wait
curl -sf http://10.0.1.11:9011/metrics
```

```text expect
sk_module_info{module=\"www\",mode=\"mirror\",node=\"node1\",peer=\"node2\",id=\"1\"} 1
```

The metrics name modules, nodes, addresses and resources, so they are served only where `--metrics` says, never at the address of
the health URL. `scripts/systemd/sk-health.service` serves them on the host itself, at `127.0.0.1:9011`; name an address of your
management network there to let Prometheus come to it. Where node_exporter runs already, its textfile collector does without a port:

```sh
sk-health metrics >/var/lib/node_exporter/sk.prom.new && mv /var/lib/node_exporter/sk.prom.new /var/lib/node_exporter/sk.prom
```

Every node speaks for itself: let Prometheus ask all of them. A counter begins again at 0 with each runner, which `rate()` and
`increase()` take into account. Ready for use: alerts in `monitoring/alerts.yml`, a dashboard in `monitoring/grafana.json`
(Grafana: Dashboards, New, Import), a scrape configuration in `monitoring/prometheus.yml`.

";

const TAIL: &str = "
## Notifications without Prometheus

A module can also call a script of yours when something happens: see `notifications.md`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_and_are_told_once() {
        let mut names: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
        for family in FAMILIES {
            assert!(family.name.starts_with("sk_") && !family.help.is_empty(), "{family:?}");
            assert!(family.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{family:?}");
            assert_eq!(family.kind == Kind::Counter, family.name.ends_with("_total"), "{family:?}");
            assert!(!family.help.contains('|'), "{family:?}: a table of Markdown");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }
}
