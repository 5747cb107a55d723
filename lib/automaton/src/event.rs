//! What the core is told. Every event is one line of the module's journal.

use crate::state::Published;
use lineage::{Lineage, Standing};
use serde::{Deserialize, Serialize};

/// Verbs of the operator, of scripts and of checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Start,
    Prim,
    PrimForce,
    Second,
    Stop,
    ForceStop,
    Restart,
    StopStart,
    /// Stop the application and wait for the reason to clear.
    Wait,
    Swap,
    /// Stop at the shutdown of the host: like stop, but the module stays wanted.
    Shutdown,
}

/// The replication engine's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    pub role: ReplicaRole,
    pub standing: Standing,
    pub lineage: Lineage,
    pub peer: ReplicaPeer,
    pub frozen: bool,
    pub position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaRole {
    Idle,
    Primary,
    Secondary,
}

/// What the engine sees of the other engine through the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaPeer {
    Absent,
    Syncing,
    InSync,
    /// The stream broke while in sync (frozen on a primary).
    Lost,
    /// The secondary said goodbye.
    Left,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The runner is ready (children of STOP state: none). `boot`: first run after a boot of the host that must start the module;
    /// otherwise the module starts by itself when `Persisted::wanted` says so.
    Begin {
        boot: bool,
    },
    /// `identity`: automatic origin (`-i`), counted by maxloop. `origin`: who, for the log (`root`, `errd`, …).
    Command {
        verb: Verb,
        #[serde(default)]
        full: bool,
        #[serde(default)]
        identity: Option<String>,
        origin: String,
    },
    /// The peer published a new state. `bye`: its heartbeat announces its own end.
    PeerState {
        state: Published,
        #[serde(default)]
        bye: bool,
    },
    /// All heartbeats lost, or none ever came for the heartbeat timeout.
    PeerDown,
    /// A heartbeat of the peer arrived after silence (its state follows).
    PeerUp,
    /// Completion of `Action::Script` number `id`. `exit`: None when killed at its timeout.
    ScriptDone {
        id: u64,
        exit: Option<i32>,
    },
    /// Snapshot of the replication engine.
    Replica {
        report: ReplicaReport,
    },
    /// Answer to `Action::Replicate` number `id`.
    ReplicaDone {
        id: u64,
    },
    ReplicaFailed {
        id: u64,
        reason: String,
    },
    /// The engine cannot go on and cannot be restarted.
    ReplicaFault {
        reason: String,
    },
    /// Answer to `Action::Vip` number `id`.
    VipDone {
        id: u64,
    },
    /// E.g. the address is in use by somebody else.
    VipFailed {
        id: u64,
        reason: String,
    },
    /// Answer to `Action::Bye`.
    ByeDone,
    /// A resource changed: `class.id`, e.g. `ip.10.0.0.50` down, `intf.10.0.0.0` down, `proc.x` down, `custom.x` up.
    Resource {
        name: String,
        value: String,
        origin: String,
    },
    /// `failover on|off`.
    SetFailover {
        on: bool,
        origin: String,
    },
    ResetLoop,
    /// `incloop`: a handler counts an automatic action of its own (see `Core::loop_reached`).
    IncLoop {
        identity: String,
    },
    /// A deadline asked for by `Core::poll_timeout` passed. Carries nothing: `now` says which.
    Tick,
}
