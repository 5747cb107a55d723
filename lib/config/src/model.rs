//! What does a module's configuration say, as types?

use crate::balancing::Group;
use crate::check::Checks;
use crate::diagnostic::{At, Source};
use crate::failover::Failover;
use crate::farm::Farm;
use crate::schedule::Schedule;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// The UDP port of the heartbeats of all modules whose file says no other: they share one stream of packets.
pub const HEART_PORT: u16 = 8888;

/// The TCP port of the replication of module number `id` (from 1).
pub fn rfs_port(id: u16) -> u16 {
    5600_u16.saturating_add(id.saturating_sub(1).saturating_mul(4))
}

/// A module: `userconfig.xml` with macros expanded and defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub mode: Mode,
    pub service: Service,
    /// Virtual addresses, when the module has any.
    pub vip: Option<Vip>,
    /// Replicated directories, when the module has any.
    pub rfs: Option<Rfs>,
    /// `None`: scripts are never called.
    pub user: Option<User>,
    pub errd: Option<Errd>,
    /// `<vhost>`: names of the host that the application sees.
    pub vhost: Vec<crate::vhost::VirtualHostName>,
    pub checks: Checks,
    pub failover: Failover,
    pub(crate) source: Source,
}

/// `mode` of `<service>`, and what only modules of this kind have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Two nodes: one serves, the other is ready to.
    Mirror(Heart),
    /// Two nodes or more that serve at the same time.
    Farm(Farm),
    /// One node by itself.
    Light,
}

impl Mode {
    /// The word of the file.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Mirror(_) => "mirror",
            Self::Farm(_) => "farm",
            Self::Light => "light",
        }
    }
}

/// `<service>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub boot: Boot,
    pub boot_delay: Duration,
    /// Whether the secondary takes over by itself.
    pub failover: bool,
    pub default_prim: DefaultPrim,
    /// Automatic restarts allowed within `loop_interval`.
    pub max_loop: u32,
    /// Zero: not counted.
    pub loop_interval: Duration,
    /// `stopstart` reboots the host.
    pub automatic_reboot: bool,
    pub(crate) default_prim_at: At,
}

/// Whether the module starts with the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    On,
    Off,
    /// When it ran before.
    Auto,
    /// As told by command.
    Ignore,
}

/// Who is primary when a module starts while its peer serves alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultPrim {
    /// The one that serves.
    Alone,
    /// The one that was primary before its last stop.
    LastPrim,
    /// The named node.
    Node(String),
}

/// `<heart>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heart {
    /// `None`: [`HEART_PORT`].
    pub port: Option<u16>,
    pub pulse: Duration,
    pub timeout: Duration,
    pub heartbeats: Vec<Heartbeat>,
}

/// `<heartbeat>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub network: Network,
    /// The resource is `heartbeat.IDENT`; `flow` marks the replication network.
    pub ident: String,
    pub pulse: Duration,
    pub timeout: Duration,
    pub(crate) at: At,
}

/// How a network of the cluster is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// A lan of `cluster.xml`.
    Lan(String),
    /// The addresses of both nodes (`<server>`, the old form).
    Addresses(Vec<String>),
}

/// `<vip>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Reset connections before an address is removed.
    pub tcp_reset: bool,
    /// Farm: traffic is opened and closed by the module's scripts.
    pub script_control: bool,
    /// Farm: packets of other nodes may be dropped before the rules (`earlydrop`, our own attribute).
    pub early_drop: bool,
    pub interfaces: Vec<Interface>,
    /// Farm: what is shared out, and how.
    pub groups: Vec<Group>,
}

/// `<interface>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// `None`: the one whose network holds the address.
    pub name: Option<String>,
    /// Watch the carrier.
    pub check: bool,
    /// Go on announcing the addresses.
    pub arp_reroute: bool,
    pub arp_interval: Duration,
    pub arp_elapse: Duration,
    pub addresses: Vec<VirtualAddress>,
}

/// `<virtual_addr>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    /// IPv4, or IPv6 without brackets.
    pub addr: String,
    /// `where`.
    pub place: Place,
    /// Watch that the address stays configured.
    pub check: bool,
    /// Count its TCP connections, in the resource `connections.ADDRESS`.
    pub connections: bool,
    /// Prefix length made of `netmask`; `None`: that of the interface.
    pub prefix: Option<u8>,
    /// Farm: the MAC address that clients see. `None`: that of the interface, as in a mirror.
    pub mac: Option<VirtualMac>,
    pub(crate) at: At,
}

/// `type` of `<virtual_interface>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualMac {
    /// `vmac_directed`: the real address of one node at a time.
    Directed,
    /// `vmac_invisible`: an address of its own, which is never a source: switches flood what is sent to it.
    Invisible([u8; 6]),
}

impl VirtualMac {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directed => "vmac_directed",
            Self::Invisible(_) => "vmac_invisible",
        }
    }
}

/// `where` of a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// One more address of the interface, on the primary.
    OneSideAlias,
    /// The first address of the interface, on the primary: the source of outgoing connections.
    OneSide,
    /// Farm: on every node that is UP.
    Alias,
}

impl Place {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneSideAlias => "one_side_alias",
            Self::OneSide => "one_side",
            Self::Alias => "alias",
        }
    }
}

/// `<rfs>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rfs {
    pub asynchronous: Async,
    pub sync: Sync,
    pub cpu_latency: CpuLatency,
    /// Silence of the replication stream after which the peer counts as lost.
    pub send_timeout: Duration,
    /// Limit of resynchronisation, KB/s.
    pub rei_allowed_bandwidth_kbs: Option<u64>,
    /// `reidetail`: the secondary logs each file that a resynchronisation brings.
    pub rei_detail: bool,
    /// `syncdelta`: how old the last synchronisation may be for a node without its peer to serve all the same. None: never.
    pub sync_delta: Option<Duration>,
    /// `syncat`: the dates at which the secondary is synchronised; between them it waits. None: it follows all the time.
    pub sync_at: Option<Schedule>,
    /// `scripts`: the module's `_rfs_callback` is called.
    pub scripts: bool,
    /// Replication network given by `<flow>`. See [`Module::replication_network`].
    pub flow: Option<Flow>,
    pub replicated: Vec<Replicated>,
}

/// When the secondary acknowledges (`async`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Async {
    /// `second`: on receipt.
    Second,
    /// `none`: when it is on its own disk.
    None,
}

/// What waits for the secondary (`sync`, our own attribute).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// fsync, O_SYNC and O_DSYNC: what the application itself asks to be durable.
    Fsync,
    /// Every change.
    Write,
}

/// Whether idle processors are kept awake while a replicated directory is busy (`cpulatency`, our own attribute).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuLatency {
    /// On virtual machines whose hypervisor has processors enough.
    Auto,
    Off,
}

/// `<flow>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub network: Network,
    pub(crate) at: At,
}

/// `<replicated>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicated {
    /// Absolute, without a slash at its end.
    pub dir: String,
    /// Nobody may write on the secondary.
    pub read_only: bool,
    /// Relative paths that must exist before replication starts.
    pub to_check: Vec<String>,
    pub not_replicated: Vec<NotReplicated>,
}

/// `<notreplicated>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReplicated {
    /// A file or subtree, relative.
    Path(String),
    /// Names that match; with `!` in front, names that do not.
    Regex(String),
}

/// `<user>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub nice_stop_timeout: Duration,
    pub force_stop_timeout: Duration,
    /// Keep what scripts print.
    pub logging: bool,
    /// Size from which a log is emptied at the start of the module, KB.
    pub userlog_size_kb: u64,
    /// Variables of the scripts' environment.
    pub vars: Vec<Var>,
}

/// `<var>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Var {
    pub name: String,
    pub value: String,
}

/// `<errd>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errd {
    pub poll_timer: Duration,
    pub procs: Vec<Proc>,
}

/// `<proc>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proc {
    /// The resource is `proc.NAME`; without `name_regex` also the command's name.
    pub name: String,
    /// `name` is a unit of systemd, with or without its suffix.
    pub service: bool,
    /// What the scripts are told to restart alone; empty: the whole application.
    pub restart_services: Vec<String>,
    pub name_regex: Option<String>,
    pub arg_regex: Option<String>,
    /// -1: any number is enough.
    pub at_least: i64,
    /// -1: any number is allowed.
    pub at_max: i64,
    pub action: ProcAction,
    pub class: String,
    /// The first check comes `start_after - 1` periods late.
    pub start_after: u32,
}

/// What happens when the number of processes is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcAction {
    Restart,
    StopStart,
    Stop,
    NoAction,
    /// An executable: absolute, or relative to the module's `bin`.
    Handler(String),
}

impl ProcAction {
    /// The word of the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Restart => "restart",
            Self::StopStart => "stopstart",
            Self::Stop => "stop",
            Self::NoAction => "noaction",
            Self::Handler(path) => path,
        }
    }
}

impl Serialize for ProcAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Module {
    /// The resources (`class.id`) that are known before the module runs: checkers, heartbeats, watched processes.
    pub fn known_resources(&self) -> Vec<String> {
        let mut all: Vec<String> = self.checks.resources().into_iter().map(|(name, _)| name).collect();
        if let Mode::Mirror(heart) = &self.mode {
            all.extend(heart.heartbeats.iter().map(|beat| format!("heartbeat.{}", beat.ident)));
        }
        all.extend(self.errd.iter().flat_map(|e| &e.procs).map(|p| format!("proc.{}", p.name)));
        all
    }

    /// All failover rules of the module.
    pub fn rule_set(&self) -> rules::RuleSet {
        self.failover.rule_set(&self.checks)
    }

    /// The heartbeats of a mirror.
    pub fn heart(&self) -> Option<&Heart> {
        match &self.mode {
            Mode::Mirror(heart) => Some(heart),
            Mode::Farm(_) | Mode::Light => None,
        }
    }

    pub fn farm(&self) -> Option<&Farm> {
        match &self.mode {
            Mode::Farm(farm) => Some(farm),
            Mode::Mirror(_) | Mode::Light => None,
        }
    }

    /// The port of all its heartbeats.
    pub fn heart_port(&self) -> u16 {
        self.heart().and_then(|h| h.port).unwrap_or(HEART_PORT)
    }

    /// The longest heartbeat timeout of a mirror; zero for other modules.
    pub fn heartbeat_timeout(&self) -> Duration {
        self.heart().map_or(Duration::ZERO, |h| h.heartbeats.iter().map(|h| h.timeout).max().unwrap_or(h.timeout))
    }

    /// The network that replication uses: `<flow>`, else the heartbeat `flow`, else the first heartbeat. `None` without `<rfs>`.
    pub fn replication_network(&self) -> Option<&Network> {
        let rfs = self.rfs.as_ref()?;
        let heartbeats = &self.heart()?.heartbeats;
        rfs.flow
            .as_ref()
            .map(|f| &f.network)
            .or_else(|| heartbeats.iter().find(|h| h.ident == "flow").or(heartbeats.first()).map(|h| &h.network))
    }
}
