//! What the core is told. Every event is one line of the module's journal.

use crate::arbitration::Answer;
use crate::state::{Published, Settings};
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
    /// The module's configuration or the cluster's was changed: run the script `update`.
    Update,
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

/// What, other than silence, says that the peer's module has ended without a goodbye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The peer's host says so itself, authenticated: the kernel there reported the death of the module's runner.
    RunnerDead,
    /// The peer's host answers on every link that is up, again and again, that nobody listens to heartbeats. Not
    /// authenticated, so only a hint.
    PortUnreachable,
    /// A kind that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
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
    /// The life of the peer that reported last has ended without a goodbye. Known before the heartbeat timeout, at most
    /// once for each of its lives.
    PeerGone {
        #[serde(default)]
        evidence: Evidence,
    },
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
    /// Answer to `Action::Farm` number `id`.
    FarmDone {
        id: u64,
    },
    /// E.g. the kernel refused the filter.
    FarmFailed {
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
    /// Answer to `Action::Arbitrate` number `id`.
    Arbiter {
        id: u64,
        answer: Answer,
    },
    /// `failover on|off`.
    SetFailover {
        on: bool,
        origin: String,
    },
    /// `checker on|off`.
    SetCheckers {
        on: bool,
        origin: String,
    },
    ResetLoop,
    /// errd found services missing that may be restarted alone (`restart_services`): scripts are told which. Counted by maxloop.
    RestartServices {
        services: Vec<String>,
        identity: String,
    },
    /// A configuration was applied. In STOP all of it counts; while the module runs, what a running module cannot change stays.
    Settings {
        settings: Box<Settings>,
        origin: String,
    },
    /// `incloop`: a handler counts an automatic action of its own (see `Core::loop_reached`).
    IncLoop {
        identity: String,
    },
    /// A deadline asked for by `Core::poll_timeout` passed. Carries nothing: `now` says which.
    Tick,
}
