//! What does a runner say of its module? The `state` reply, as far as it is shown. Pure.

use serde::Deserialize;
use serde_json::Value;

/// Every member may be missing: an older or newer runner must still be shown.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    pub module: String,
    pub node: String,
    /// Mirrors have one.
    pub peer: Option<String>,
    /// `mirror`, `farm` or `light`.
    pub mode: Option<String>,
    pub id: Option<u64>,
    pub state: String,
    pub readiness: String,
    /// RFC 3339: since when it is in this state.
    pub since: String,
    pub remote: Option<Remote>,
    pub data: Option<String>,
    pub standing: Option<String>,
    pub rule: Option<String>,
    pub refused: Option<String>,
    pub heartbeats: Vec<Heartbeat>,
    pub vip: Vec<Vip>,
    pub replica: Option<Replica>,
    pub farm: Option<Farm>,
    pub children: Vec<Child>,
    pub resources: Vec<Resource>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resource {
    pub name: String,
    pub value: String,
    pub t: String,
    pub label: Option<String>,
}

/// A failover rule as the runner tells it (`rules`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rule {
    pub label: String,
    /// Nothing while one of its resources has not been reported.
    pub truth: Option<bool>,
    pub acting: bool,
    #[serde(rename = "if")]
    pub condition: String,
    #[serde(rename = "then")]
    pub action: String,
    pub waits_for: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Remote {
    pub state: Option<String>,
    pub readiness: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    pub ident: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Vip {
    pub address: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Replica {
    pub peer: Option<String>,
    pub frozen: Option<bool>,
    pub position: Option<f64>,
    pub in_bytes_s: Option<f64>,
    pub out_bytes_s: Option<f64>,
    pub lag_bytes: Option<f64>,
    /// How long the secondary took to acknowledge a flush in the last second, microseconds.
    pub ack_us: Option<f64>,
    pub ack_worst_us: Option<f64>,
    pub resync: Option<Resync>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resync {
    pub phase: Option<String>,
    pub files: Option<f64>,
    pub files_total: Option<f64>,
    pub bytes: Option<f64>,
    pub bytes_total: Option<f64>,
    pub rate_bytes_s: Option<f64>,
    pub left_s: Option<f64>,
}

/// A farm as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Farm {
    /// Number of the view in use.
    pub generation: Option<u64>,
    /// Nodes that are heard.
    pub members: Vec<String>,
    /// Those that take clients.
    pub open: Vec<String>,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Group {
    pub group: String,
    pub owned: Option<f64>,
    pub of: Option<f64>,
    pub connections_s: Option<f64>,
    pub accepted_bytes_s: Option<f64>,
    /// Of all nodes that are heard, this one among them.
    pub nodes: Vec<NodeShare>,
}

/// What a node owns of a group, and takes at present.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeShare {
    pub node: String,
    pub owned: Option<f64>,
    pub connections_s: Option<f64>,
    pub accepted_bytes_s: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Child {
    pub name: String,
    pub pid: Option<i64>,
    pub restarts: Option<u64>,
}

impl Snapshot {
    /// Reads a reply; what it is for, not its exact form, decides: members of a wrong type make it unreadable.
    pub fn read(value: Value) -> Result<Self, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    /// A module without a runner.
    pub fn stopped(module: &str) -> Self {
        Self { module: module.to_owned(), state: "STOP".into(), readiness: "NotReady".into(), ..Self::default() }
    }

    pub fn resync(&self) -> Option<&Resync> {
        self.replica.as_ref()?.resync.as_ref()
    }
}

/// How a state is to be seen, whatever the means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Light {
    Green,
    Orange,
    Red,
    Grey,
}

/// The colour of a state: STOP and WAIT NotReady red, whatever is Transient orange, Ready green.
pub fn light(state: &str, readiness: &str) -> Light {
    match (state, readiness) {
        ("STOP", _) | ("WAIT", "NotReady") => Light::Red,
        (_, "Transient") => Light::Orange,
        ("ALONE" | "PRIM" | "SECOND" | "UP", "Ready") => Light::Green,
        ("ALONE" | "PRIM" | "SECOND" | "UP" | "WAIT", _) => Light::Red,
        _ => Light::Grey,
    }
}

/// The colour of a data state.
pub fn data_light(data: &str) -> Light {
    match data {
        "uptodate" => Light::Green,
        "degraded" => Light::Orange,
        "not uptodate" => Light::Red,
        _ => Light::Grey,
    }
}

impl Group {
    /// This node's share, 0 to 1; `None` while it is not known.
    pub fn share(&self) -> Option<f64> {
        self.ratio(self.owned)
    }

    fn ratio(&self, owned: Option<f64>) -> Option<f64> {
        let share = owned? / self.of.filter(|of| *of > 0.0)?;
        share.is_finite().then(|| share.clamp(0.0, 1.0))
    }

    /// `50 % · 128/256 · 12 connections/s · 1.0 MiB/s`
    pub fn words(&self) -> String {
        self.words_of(self.owned, self.connections_s, self.accepted_bytes_s)
    }

    /// Name, share and words of each node; of one that does not say what it takes, its share.
    pub fn by_node(&self) -> impl Iterator<Item = (&str, Option<f64>, String)> {
        self.nodes.iter().map(|n| {
            (n.node.as_str(), self.ratio(n.owned), self.words_of(n.owned, n.connections_s, n.accepted_bytes_s))
        })
    }

    fn words_of(&self, owned: Option<f64>, connections: Option<f64>, volume: Option<f64>) -> String {
        let share = self.ratio(owned).map_or_else(|| "?".to_owned(), |s| format!("{:.0} %", s * 100.0));
        let (owned, of) = (owned.unwrap_or(0.0), self.of.unwrap_or(0.0));
        let rate = connections.filter(|r| r.is_finite()).map_or_else(|| "?".to_owned(), |r| format!("{r:.0}"));
        let volume = volume.map_or_else(|| "?".to_owned(), bytes);
        format!("{share} · {owned:.0}/{of:.0} · {rate} connections/s · {volume}/s")
    }
}

impl Resync {
    /// Share done, 0 to 1: by bytes, else by files; `None` while the totals are unknown.
    pub fn ratio(&self) -> Option<f64> {
        let share = |done: Option<f64>, total: Option<f64>| {
            total.filter(|t| *t > 0.0).map(|t| (done.unwrap_or(0.0) / t).clamp(0.0, 1.0))
        };
        share(self.bytes, self.bytes_total).or_else(|| share(self.files, self.files_total)).filter(|r| r.is_finite())
    }

    /// `45 % · 12/34 files · 1.2 GiB/3.4 GiB · 23 MiB/s · 1m20s left`
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        if let Some(ratio) = self.ratio() {
            parts.push(format!("{:.0} %", (ratio * 100.0).floor()));
        } else if let Some(phase) = &self.phase {
            parts.push(phase.clone());
        }
        let pair = |done: Option<f64>, total: Option<f64>, show: fn(f64) -> String| match (done, total) {
            (Some(done), Some(total)) if total > 0.0 => Some(format!("{}/{}", show(done), show(total))),
            (Some(done), _) => Some(show(done)),
            _ => None,
        };
        parts.extend(pair(self.files, self.files_total, |n| format!("{n:.0}")).map(|p| format!("{p} files")));
        parts.extend(pair(self.bytes, self.bytes_total, bytes));
        parts.extend(self.rate_bytes_s.map(|r| format!("{}/s", bytes(r))));
        parts.extend(self.left_s.map(|s| format!("{} left", duration(s))));
        parts.join(" · ")
    }
}

/// `0 B`, `1.5 MiB`.
pub fn bytes(count: f64) -> String {
    let mut value = if count.is_finite() { count.max(0.0) } else { 0.0 };
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if unit == "B" || value >= 100.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `850 µs`, `1.2 ms`, `3.4 s`.
pub fn brief(micros: f64) -> String {
    let us = if micros.is_finite() { micros.max(0.0) } else { 0.0 };
    if us < 1000.0 {
        format!("{us:.0} µs")
    } else if us < 1e6 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{:.1} s", us / 1e6)
    }
}

/// `9s`, `1m20s`, `2h05m`, `3d04h`.
pub fn duration(seconds: f64) -> String {
    let s = if seconds.is_finite() { seconds.max(0.0) as u64 } else { 0 };
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn colours_are_those_of_the_reference() {
        use Light::{Green, Grey, Orange, Red};
        for (state, readiness, expected) in [
            ("STOP", "NotReady", Red),
            ("WAIT", "Transient", Orange),
            ("WAIT", "NotReady", Red),
            ("ALONE", "Transient", Orange),
            ("PRIM", "Transient", Orange),
            ("SECOND", "Transient", Orange),
            ("ALONE", "Ready", Green),
            ("PRIM", "Ready", Green),
            ("SECOND", "Ready", Green),
            ("UP", "Ready", Green),
            ("UP", "Transient", Orange),
            ("UNKNOWN", "", Grey),
        ] {
            assert_eq!(light(state, readiness), expected, "{state} {readiness}");
        }
    }

    #[test]
    fn missing_members_and_nulls_are_shown_as_nothing() {
        let snapshot = Snapshot::read(json!({"module": "m", "remote": {"state": null}, "replica": null, "later": 1}));
        assert_eq!(snapshot.unwrap().module, "m");
        assert!(Snapshot::read(json!({"module": 5})).is_err());
    }

    #[test]
    fn progress_is_worded() {
        let resync = Resync {
            files: Some(12.0),
            files_total: Some(34.0),
            bytes: Some(1.5e9),
            bytes_total: Some(3.0e9),
            rate_bytes_s: Some(24e6),
            left_s: Some(80.0),
            phase: None,
        };
        assert_eq!(resync.words(), "50 % · 12/34 files · 1.4 GiB/2.8 GiB · 22.9 MiB/s · 1m20s left");
        let unknown = Resync { phase: Some("compare".into()), files: Some(3.0), ..Resync::default() };
        assert_eq!((unknown.ratio(), unknown.words()), (None, "compare · 3 files".to_owned()));
        let nonsense = Resync { bytes: Some(f64::NAN), bytes_total: Some(1.0), ..Resync::default() };
        assert_eq!(nonsense.ratio(), None);
    }

    #[test]
    fn shares_are_worded() {
        let group = |owned: f64, of: f64| Group { owned: Some(owned), of: Some(of), ..Group::default() };
        assert_eq!(group(128.0, 256.0).words(), "50 % · 128/256 · ? connections/s · ?/s");
        assert_eq!((group(3.0, 0.0).share(), group(900.0, 256.0).share()), (None, Some(1.0)));
        assert_eq!(Group::default().words(), "? · 0/0 · ? connections/s · ?/s");
        let farm = Snapshot::read(json!({"module": "web", "peer": null, "mode": "farm", "replica": null,
            "farm": {"generation": 4, "members": ["a", "b"], "open": ["a"], "groups": [{"group": "G_0", "owned": 1}]}}));
        assert_eq!(farm.unwrap().farm.unwrap().open, ["a"]);
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!((bytes(0.0).as_str(), bytes(999.0).as_str(), bytes(1000.0).as_str()), ("0 B", "999 B", "1.0 KiB"));
        assert_eq!(bytes(-1.0), "0 B");
        assert_eq!((duration(9.4).as_str(), duration(7500.0).as_str()), ("9s", "2h05m"));
        assert_eq!((duration(273_900.0).as_str(), duration(f64::NAN).as_str()), ("3d04h", "0s"));
        assert_eq!(
            (brief(850.0).as_str(), brief(1234.0).as_str(), brief(3.4e6).as_str()),
            ("850 µs", "1.2 ms", "3.4 s")
        );
    }
}
