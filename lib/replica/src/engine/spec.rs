//! What is the engine told when it starts, and what may it be ordered to do.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// One replicated directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    pub path: PathBuf,
    /// The directory of the secondary is blocked for everybody else.
    #[serde(default = "yes")]
    pub read_only: bool,
    #[serde(default)]
    pub exclude: Vec<Exclude>,
    /// Paths that must exist before the engine serves or follows.
    #[serde(default)]
    pub to_check: Vec<PathBuf>,
}

/// What is not replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclude {
    /// Relative path, with everything below.
    Path(String),
    /// Extended regular expression.
    Regex(String),
}

/// What the secondary's acknowledgement of a barrier means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asynchronous {
    /// Applied in its memory.
    #[default]
    Second,
    /// On its disk.
    None,
}

/// Which operations wait for the secondary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// What the application makes durable.
    #[default]
    Fsync,
    /// Every change.
    Write,
}

/// Whether idle processors are kept awake between the requests of a busy application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuLatency {
    /// On virtual machines whose hypervisor has processors enough.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// The file behind `--spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub module: String,
    pub node: String,
    /// Name of the other node.
    pub peer: String,
    pub directories: Vec<Directory>,
    pub listen: SocketAddr,
    pub peer_address: SocketAddr,
    /// Absent: the stream is neither encrypted nor authenticated.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    #[serde(default, rename = "async")]
    pub asynchronous: Asynchronous,
    #[serde(default, rename = "sync")]
    pub synchronous: Synchronous,
    #[serde(default)]
    pub cpu_latency: CpuLatency,
    pub state_dir: PathBuf,
    /// Longest time without an answer of a secondary that is alive.
    #[serde(default = "send_timeout")]
    pub send_timeout_ms: u64,
    /// Most a resynchronisation may send, in KiB a second.
    #[serde(default)]
    pub resync_bandwidth_kbs: Option<u64>,
    /// Each file that a resynchronisation brings is told.
    #[serde(default)]
    pub resync_detail: bool,
    #[serde(default)]
    pub salvage_dir: Option<PathBuf>,
    /// Nothing is acknowledged without a lease, which orders extend.
    #[serde(default)]
    pub lease: bool,
}

fn yes() -> bool {
    true
}

fn send_timeout() -> u64 {
    30_000
}

/// Whether the peer's acknowledgement is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerMode {
    Excluded,
    Paired,
}

/// Orders of docs/architecture.md §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Order {
    Primary {
        peer: PeerMode,
        #[serde(default)]
        force: bool,
    },
    Secondary {
        #[serde(default)]
        full: bool,
        /// Seconds since 1970: the operator vouches for the content of files that did not change on the primary since then.
        #[serde(default)]
        since: Option<i64>,
    },
    ExcludePeer,
    Promote {
        peer: PeerMode,
    },
    Demote,
    Outdate,
    Abandon,
    Retire,
    /// This node may acknowledge until then (`CLOCK_BOOTTIME`, milliseconds). Taken at once, also while another order is carried out; not answered.
    Lease {
        until_boottime_ms: u64,
    },
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub reason: String,
    /// How to mend it.
    pub hint: String,
}

impl Failure {
    pub fn new(reason: impl ToString, hint: impl ToString) -> Self {
        Self { reason: reason.to_string(), hint: hint.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_are_read() {
        let spec: Spec = serde_json::from_str(
            r#"{"module":"AM","node":"n1","peer":"n2","directories":[{"path":"/d","read_only":true,"exclude":[{"path":"x"},{"regex":"^y"}],"to_check":["z"]}],
            "listen":"10.0.1.1:5600","peer_address":"10.0.1.2:5600","key_file":"/k","async":"none","sync":"write","state_dir":"/s","send_timeout_ms":30000,
            "resync_bandwidth_kbs":null,"salvage_dir":"/v"}"#,
        )
        .unwrap();
        assert_eq!(spec.asynchronous, Asynchronous::None);
        assert_eq!(spec.directories[0].exclude[1], Exclude::Regex("^y".into()));
        let order: Order = serde_json::from_str(r#"{"kind":"primary","id":3,"peer":"excluded"}"#).unwrap();
        assert_eq!(order, Order::Primary { peer: PeerMode::Excluded, force: false });
    }
}
