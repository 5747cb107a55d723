//! What the core wants done. The runner executes actions in the order given and reports completions as events.

use crate::arbitration::Request;
use crate::state::{Persisted, Published, State};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Run a script of the module with these arguments; missing scripts complete at once with exit 0 (`prestart` must exist: exit 127).
    /// Killed with its whole process group after `timeout_ms`, if any. Answered by `Event::ScriptDone`.
    Script { id: u64, name: String, args: Vec<String>, timeout_ms: Option<u64> },
    /// Order to the replication engine (started on first use, until `Children { replicate: false }`).
    Replicate { id: u64, order: ReplicaOrder },
    /// Add and hold, or release, the module's addresses. Answered by `VipDone` / `VipFailed`.
    Vip { id: u64, held: bool },
    /// Farm: how much of the traffic of the held addresses this node asks for. Answered by `FarmDone` / `FarmFailed`.
    Farm { id: u64, traffic: Traffic },
    /// A question to the arbiter. Answered by `Event::Arbiter`, also when there is no answer.
    Arbitrate { id: u64, request: Request },
    /// This node may acknowledge writes and hold its addresses until then (monotonic clock, ms), and not longer. Never goes back.
    Lease { until_ms: u64 },
    /// Which long-lived children run: heartbeat, errd, interface watch, replication engine.
    Children { heartbeat: bool, errd: bool, replicate: bool },
    /// Process classes to watch from now on (`prim`, `second`, `both`, `pre`, `sec`).
    ErrdClass { class: String, enabled: bool },
    /// Publish to the peer (now and in each pulse).
    Publish { state: Published },
    /// Say goodbye with the last published state. Answered by `Event::ByeDone`.
    Bye,
    /// Durable before the following actions.
    Persist { core: Persisted },
    /// The local state changed (also logged by the runner as `Local state …`).
    StateChanged { state: State, rule: Option<String> },
    /// Module log. Levels: U user action, E event, C critical, S script, I information, W warning, D debug. `from`: origin column, e.g. `heart`.
    Log { level: char, from: String, message: String },
    /// Assign a resource that the core owns (`rfs.uptodate`, `heart.stopstartloop`, `state.remote`, …).
    Resource { name: String, value: String },
    /// The operator's command that was waiting is refused (start of the reply's error text), e.g. `prim` while the peer is primary.
    Refuse { error: String, hint: String },
    /// `automatic_reboot`.
    Reboot,
}

/// What a node of a farm asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// None that another node could serve: the application is not up yet, or is about to stop.
    Standby,
    /// Its share.
    Open,
}

impl Traffic {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Open => "open",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReplicaOrder {
    Primary {
        peer: PeerMode,
        force: bool,
    },
    Secondary {
        full: bool,
    },
    ExcludePeer,
    Promote {
        peer: PeerMode,
    },
    Demote,
    Outdate,
    /// The peer took over: what waits and what comes is answered with an error, so that the application can end.
    Abandon,
    Retire,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerMode {
    /// The peer does not receive what we acknowledge: an epoch of our own.
    Excluded,
    /// The peer is in sync and its acknowledgement is needed.
    Paired,
}
