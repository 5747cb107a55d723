//! The vocabulary: states, what a node publishes, what it must remember.

use crate::supervision::Supervision;
use lineage::{Lineage, Standing};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Name half of a module's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StateName {
    Stop,
    Wait,
    Alone,
    Prim,
    Second,
    /// Farm and light modules: the application runs here.
    Up,
}

/// Readiness half of a module's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Readiness {
    NotReady,
    Transient,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct State {
    pub name: StateName,
    pub readiness: Readiness,
}

/// Who becomes primary when the peer already serves alone (`defaultprim`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultPrimary {
    /// The one that serves.
    Alone,
    /// The named node, by a swap right after its resynchronisation.
    Node(String),
    /// The one that was primary before its last stop.
    LastPrimary,
}

/// Which automaton a module has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Mirror,
    /// Every node serves; no peer, no roles.
    Farm,
    /// One node by itself.
    Light,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Farm => "farm",
            Self::Light => "light",
        }
    }
}

/// Who decides when all heartbeats are lost (`<splitbrain>`). Durations are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Arbiter {
    /// Nobody: both nodes may serve during an isolation.
    #[default]
    None,
    /// A node that reaches no witness does not serve alone.
    Ping,
    /// A store with compare-and-swap; serving needs a lease.
    Store {
        /// How long a lease lasts.
        lease_ms: u64,
        /// How much longer a rival waits: clocks that run differently, and what the kernel does late.
        margin_ms: u64,
    },
}

/// What the module's configuration says to the core. Durations are milliseconds.
///
/// A field missing from an older journal takes its value from [`Settings::default`]: what the product did before the field was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub mode: Mode,
    pub node: String,
    /// Mirror: the other node.
    pub peer: String,
    /// The module has `<rfs>`.
    pub replicated: bool,
    /// The module has `<vip>`.
    pub has_vip: bool,
    /// Farm: traffic is opened and closed by the module's scripts (`scriptcontrol`).
    pub script_control: bool,
    /// The module has `<user>`: scripts are called.
    pub has_scripts: bool,
    pub failover: bool,
    pub default_primary: DefaultPrimary,
    pub max_loop: u32,
    /// 0 disables the counter.
    pub loop_interval_ms: u64,
    pub automatic_reboot: bool,
    pub nice_stop_timeout_ms: u64,
    pub force_stop_timeout_ms: u64,
    /// Longest heartbeat timeout: how long a silent peer is waited for at start.
    pub heartbeat_timeout_ms: u64,
    /// How long a lost replication stream may take to come back, while heartbeats go on, before the peer is outdated.
    pub stream_grace_ms: u64,
    /// Failover rules and checkers.
    pub supervision: Supervision,
    pub arbiter: Arbiter,
    /// `syncdelta`: how old the last synchronisation may be for a node without its peer to count as up to date. 0: never.
    pub sync_delta_ms: u64,
    /// `syncat`: the secondary is synchronised when told (`rfs.syncat`), and waits in between.
    pub sync_at: bool,
    /// `scripts` of `<rfs>`: `_rfs_callback` is called.
    pub rfs_scripts: bool,
}

impl Default for Settings {
    /// The documented defaults of the attributes, for a module without directories, addresses and scripts.
    fn default() -> Self {
        Self {
            mode: Mode::Mirror,
            node: String::new(),
            peer: String::new(),
            replicated: false,
            has_vip: false,
            script_control: false,
            has_scripts: false,
            failover: true,
            default_primary: DefaultPrimary::Alone,
            max_loop: 3,
            loop_interval_ms: 86_400_000,
            automatic_reboot: false,
            nice_stop_timeout_ms: 300_000,
            force_stop_timeout_ms: 300_000,
            heartbeat_timeout_ms: 30_000,
            stream_grace_ms: 5_000,
            supervision: Supervision::default(),
            arbiter: Arbiter::None,
            sync_delta_ms: 0,
            sync_at: false,
            rfs_scripts: false,
        }
    }
}

/// What the core wants kept across its own death and reboots (`core.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Persisted {
    /// The operator wants the module to run: a new runner after a crash starts by itself.
    pub wanted: bool,
    /// Was PRIM or ALONE when last active.
    pub was_primary: bool,
    /// Automatic actions counted in the present interval, and when the interval began (wall clock, ms; only for display and the interval's length).
    pub loop_count: u32,
    pub loop_since_ms: u64,
    /// ALONE was entered from PRIM when last entered.
    pub alone_from_prim: bool,
    /// Last moment at which both copies are known to have been equal (wall clock, ms); 0: none, or the peer went on since. Kept only with
    /// `syncdelta`.
    pub synced_ms: u64,
    /// `failover off` given by command; overrides the configuration.
    pub failover_override: Option<bool>,
    /// `failover off` kept this node from taking over: it waits for the old primary.
    pub failover_hold: bool,
    /// `prim fullsync`, `primforce`: the next secondary copies everything.
    pub full_wanted: bool,
    /// `checker off` given by command.
    pub checkers_off: bool,
}

/// What a node tells its peer in every heartbeat. At most 1100 bytes as JSON: the lineage is cut to its newest epochs when needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub state: State,
    /// Random, new with each runner: tells a restarted peer from a continuing one.
    pub incarnation: u64,
    pub standing: Standing,
    pub lineage: Lineage,
    /// Stream position.
    pub position: u64,
    pub was_primary: bool,
    /// In ALONE: whether it came there from PRIM (stays in a split brain) rather than by a takeover. In WAIT: the same, of its last ALONE.
    #[serde(default, skip_serializing_if = "is_false")]
    pub alone_from_prim: bool,
    /// The node is going away in good order: application stopped, stream drained. The peer may take over at once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// PRIM→SECOND handed the primary role over: the peer must become PRIM.
    #[serde(default, skip_serializing_if = "is_false")]
    pub handover: bool,
    /// SECOND asks for a swap.
    #[serde(default, skip_serializing_if = "is_false")]
    pub swap_wanted: bool,
    /// Tells one order for a swap from another: its moment, by the clock of the node that asks. 0: of a release that does not tell.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub swap_order: u64,
    /// PRIM has given up the swap of this `swap_order`. 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub swap_refused: u64,
    /// The primary lost the stream and asks the peer to declare itself outdated; the peer answers with `outdate_done`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outdate_wanted: bool,
    /// Answer to `outdate_wanted`: this node durably counts as not up to date and takes nothing more from the lost stream,
    /// so the primary may go on without it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outdate_done: bool,
    /// PRIM: incarnation of the secondary that it counts as its partner. From then on the primary does not go on alone without
    /// that secondary knowing, or being silent; only a secondary that was named may take over. 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub partner: u64,
    /// Revision of the arbiter's record that this life wrote last. 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub store_revision: u64,
    /// A serving node asks for a lease: its own clock, milliseconds, when this was published. 0: not asked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lease_stamp: u64,
    /// A secondary grants it: the stamp, and the incarnation that it was heard from. See [`crate::arbitration`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lease_echo: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lease_to: u64,
    /// The replication engine of this node failed for good.
    #[serde(default, skip_serializing_if = "is_false")]
    pub degraded: bool,
    /// A primary that was started with `prim fullsync` or `primforce`: its secondary copies everything.
    #[serde(default, skip_serializing_if = "is_false")]
    pub full_wanted: bool,
    /// Values of the resources that the rules of the peer test, when they test any: see `Supervision::encode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl State {
    pub const fn new(name: StateName, readiness: Readiness) -> Self {
        Self { name, readiness }
    }
}

impl StateName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
            Self::Alone => "ALONE",
            Self::Prim => "PRIM",
            Self::Second => "SECOND",
            Self::Up => "UP",
        }
    }

    /// The application runs here, whatever other nodes do: PRIM, ALONE or UP.
    pub const fn runs_application(self) -> bool {
        matches!(self, Self::Alone | Self::Prim | Self::Up)
    }

    /// Serves as the only one of a pair: PRIM or ALONE.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Alone | Self::Prim)
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for State {
    /// `PRIM Ready`, `WAIT NotReady`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.readiness)
    }
}

#[cfg(test)]
pub(crate) fn test_settings(node: &str, peer: &str) -> Settings {
    Settings {
        mode: Mode::Mirror,
        script_control: false,
        node: node.to_owned(),
        peer: peer.to_owned(),
        replicated: true,
        has_vip: true,
        has_scripts: true,
        heartbeat_timeout_ms: 2_000,
        stream_grace_ms: 3_000,
        supervision: Supervision::default(),
        ..Settings::default()
    }
}
