//! What is this module on this node: its applied configuration, its places, and what its children must be told.

mod arbiter;

use crate::{Failure, configure, exit, supervision};
use automaton::{DefaultPrimary, Persisted, Settings};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::roots::Roots;

/// Addresses are held with this lifetime: an orphan disappears by itself after it.
const VIP_LIFETIME_MS: u64 = 6_000;
/// A lost replication stream may come back within this time while heartbeats go on; never longer than the heartbeat timeout.
const STREAM_GRACE_MS: u64 = 5_000;
/// Output files of scripts kept.
const USERLOGS_KEPT: usize = 200;
/// Its presence means that process supervision is switched off.
pub(crate) const ERRD_OFF: &str = "errd.off";
/// Largest configuration file read.
const CONFIGURATION_MAX: u64 = 1024 * 1024;

/// The attribute `boot`, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootPolicy {
    On,
    /// If it was running before the reboot.
    Auto,
    Off,
}

pub(crate) struct Instance {
    pub module: String,
    pub id: u16,
    pub node: String,
    /// Mirror: the other node.
    pub peer: Option<String>,
    pub(crate) roots: Roots,
    pub(crate) config: config::Module,
    pub(crate) network: Network,
}

/// How this node reaches the others of the module.
pub(crate) enum Network {
    Mirror(config::Links),
    Farm(config::FarmLinks),
    None,
}

impl Instance {
    /// Reads the applied configuration and the cluster's, and finds this node in it.
    pub fn load(roots: &Roots, module: &str) -> Result<Self, Failure> {
        configure::recover(roots, module);
        let path = roots.module_active(module).join("conf/userconfig.xml");
        if !path.exists() {
            return Err(Failure::new(exit::BAD_CONFIGURATION, format!("module {module} has no applied configuration"))
                .hint(format!("apply it with: sk-module config -m {module}")));
        }
        let (config, cluster) = configure::read(roots, &path)?;
        Self::assemble(roots, module, applied_id(roots, module).unwrap_or(1), config, &cluster)
    }

    /// The same without words for people; None when it cannot be read.
    pub fn load_quietly(roots: &Roots, module: &str) -> Option<Self> {
        Self::read_quietly(roots, module, &roots.module_active(module))
    }

    /// What the runner is to become: the staged configuration, with the cluster as it is now.
    pub fn load_staged(roots: &Roots, module: &str) -> Option<Self> {
        Self::read_quietly(roots, module, &configure::staged(roots, module))
    }

    fn read_quietly(roots: &Roots, module: &str, root: &Path) -> Option<Self> {
        let (cluster, _) = config::load_cluster(&roots.cluster_xml());
        let (config, _) = config::load_module(&root.join("conf/userconfig.xml"), &|name| std::env::var(name).ok());
        let (cluster, config) = (cluster?, config?);
        if config::check_module_against_cluster(&config, &cluster).has_errors() {
            return None;
        }
        Self::assemble(roots, module, id_in(root).unwrap_or(1), config, &cluster).ok()
    }

    /// Joins a checked configuration and a cluster. The node is found by its addresses, or named by `SK_NODE`.
    pub fn assemble(
        roots: &Roots,
        module: &str,
        id: u16,
        config: config::Module,
        cluster: &config::Cluster,
    ) -> Result<Self, Failure> {
        let node = own_node(roots, cluster)?;
        let network = match &config.mode {
            config::Mode::Mirror(_) => config::links(&config, cluster, &node).map(Network::Mirror),
            config::Mode::Farm(_) => config::farm_links(&config, cluster, &node).map(Network::Farm),
            config::Mode::Light => Some(Network::None),
        };
        let network = network.ok_or_else(|| {
            Failure::new(exit::BAD_CONFIGURATION, format!("module {module} does not run on node {node}")).hint(format!(
                "check it: sk-module check {}",
                roots.module_source(module).join("conf/userconfig.xml").display()
            ))
        })?;
        let peer = match &network {
            Network::Mirror(links) => Some(links.peer.clone()),
            Network::Farm(_) | Network::None => None,
        };
        Ok(Self { module: module.to_owned(), id, node, peer, roots: roots.clone(), config, network })
    }

    /// What the applied file says.
    pub fn config(&self) -> &config::Module {
        &self.config
    }

    // --- places ---

    pub fn run_dir(&self) -> PathBuf {
        self.roots.module_run(&self.module)
    }

    /// `SAFEUSERVAR`.
    pub fn user_var(&self) -> PathBuf {
        self.roots.module_var(&self.module)
    }

    /// `SAFEUSERBIN`.
    pub fn active_bin(&self) -> PathBuf {
        self.roots.module_active(&self.module).join("bin")
    }

    /// Where the operator edits the scripts.
    pub fn source_bin(&self) -> PathBuf {
        self.roots.module_source(&self.module).join("bin")
    }

    /// One of our commands: beside this program, else in `SAFE/bin`.
    pub fn program(&self, name: &str) -> String {
        sys::program::beside(name).unwrap_or_else(|| self.roots.safe.join("bin").join(name)).display().to_string()
    }

    /// Variables of the module's scripts.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.display().to_string();
        let mut variables = vec![
            ("SAFE".into(), text(self.roots.safe.clone())),
            ("SAFEVAR".into(), text(self.roots.var.clone())),
            ("SAFEBIN".into(), text(self.roots.safe_bin())),
            ("SAFEMODULE".into(), self.module.clone()),
            ("SAFEUSERBIN".into(), text(self.active_bin())),
            ("SAFEUSERCONF".into(), text(self.roots.module_active(&self.module).join("conf"))),
            ("SAFEUSERVAR".into(), text(self.user_var())),
            ("OSNAME".into(), "Linux".into()),
        ];
        if let Some(user) = &self.config.user {
            variables.extend(user.vars.iter().map(|v| (v.name.clone(), v.value.clone())));
        }
        variables
    }

    pub fn logs_scripts(&self) -> bool {
        self.config.user.as_ref().is_some_and(|u| u.logging)
    }

    /// Old output files are removed, too big ones emptied (`userlogsize`), when the runner starts.
    pub fn tidy_userlogs(&self) {
        let limit = self.config.user.as_ref().map_or(u64::MAX, |u| u.userlog_size_kb.saturating_mul(1024));
        let Ok(entries) = std::fs::read_dir(self.user_var()) else { return };
        let mut logs: Vec<PathBuf> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("userlog_")))
            .collect();
        // Their names begin with their date.
        logs.sort();
        let surplus = logs.len().saturating_sub(USERLOGS_KEPT);
        for (number, path) in logs.iter().enumerate() {
            // Only housekeeping: what cannot be removed now may be next time.
            if number < surplus {
                let _ = std::fs::remove_file(path);
            } else if std::fs::metadata(path).is_ok_and(|m| m.len() >= limit) {
                let _ = std::fs::File::create(path);
            }
        }
    }

    // --- the core ---

    pub fn settings(&self) -> Settings {
        let service = &self.config.service;
        let user = self.config.user.as_ref();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let timeout = millis(self.config.heartbeat_timeout());
        Settings {
            mode: match self.config.mode {
                config::Mode::Mirror(_) => automaton::Mode::Mirror,
                config::Mode::Farm(_) => automaton::Mode::Farm,
                config::Mode::Light => automaton::Mode::Light,
            },
            node: self.node.clone(),
            peer: self.peer.clone().unwrap_or_default(),
            replicated: self.config.rfs.is_some(),
            has_vip: self.config.vip.is_some(),
            script_control: self.config.vip.as_ref().is_some_and(|v| v.script_control),
            has_scripts: user.is_some(),
            failover: service.failover,
            default_primary: match &service.default_prim {
                config::DefaultPrim::Alone => DefaultPrimary::Alone,
                config::DefaultPrim::LastPrim => DefaultPrimary::LastPrimary,
                config::DefaultPrim::Node(name) => DefaultPrimary::Node(name.clone()),
            },
            max_loop: service.max_loop,
            loop_interval_ms: millis(service.loop_interval),
            automatic_reboot: service.automatic_reboot,
            nice_stop_timeout_ms: user.map_or(300_000, |u| millis(u.nice_stop_timeout)),
            force_stop_timeout_ms: user.map_or(300_000, |u| millis(u.force_stop_timeout)),
            heartbeat_timeout_ms: timeout,
            stream_grace_ms: timeout.min(STREAM_GRACE_MS),
            supervision: supervision::supervision(&self.config),
            arbiter: self.arbiter(),
            sync_at: self.config.rfs.as_ref().is_some_and(|r| r.sync_at.is_some()),
            rfs_scripts: self.config.rfs.as_ref().is_some_and(|r| r.scripts),
            sync_delta_ms: self.config.rfs.as_ref().and_then(|r| r.sync_delta).map_or(0, millis),
        }
    }

    /// `mirror`, `farm` or `light`.
    pub fn mode(&self) -> &'static str {
        self.config.mode.as_str()
    }

    /// The command `boot on|off`, else the attribute.
    pub fn boot_policy(&self) -> BootPolicy {
        match (crate::switches::stored_boot(&self.user_var()), self.config.service.boot) {
            (Some(true), _) | (None, config::Boot::On) => BootPolicy::On,
            (None, config::Boot::Auto) => BootPolicy::Auto,
            (Some(false), _) | (None, config::Boot::Off | config::Boot::Ignore) => BootPolicy::Off,
        }
    }

    /// The attribute `boot` leaves the decision to the command.
    pub fn ignores_boot(&self) -> bool {
        self.config.service.boot == config::Boot::Ignore
    }

    pub fn boot_delay(&self) -> Duration {
        self.config.service.boot_delay
    }

    /// See the function of that name.
    pub fn load_core(&self, complain: &mut dyn FnMut(&str)) -> Persisted {
        load_core(&self.user_var(), complain)
    }

    /// Whether the cluster key can be used: without it the children could only die one after the other.
    pub fn check_key(&self) -> Result<(), String> {
        wire::key::ClusterKey::load(&self.roots.cluster_key()).map(|_| ()).map_err(|error| error.to_string())
    }

    /// `errd off` given by command; kept until `errd on` or the next `config`.
    pub fn errd_is_off(&self) -> bool {
        self.user_var().join(ERRD_OFF).exists()
    }

    pub fn switch_errd(&self, on: bool) -> std::io::Result<()> {
        switch_errd(&self.user_var(), on)
    }

    pub fn save_core(&self, core: &Persisted) -> std::io::Result<()> {
        save_core(&self.user_var(), core)
    }

    // --- children ---

    pub fn heartbeat_spec(&self) -> Option<Value> {
        let Network::Mirror(links) = &self.network else { return None };
        let beats: Vec<Value> = links
            .heartbeats
            .iter()
            .map(|l| {
                json!({
                    "ident": l.ident, "local": sys::node::numeric(&l.addresses.local), "peer": sys::node::numeric(&l.addresses.peer),
                    "pulse_ms": l.pulse.as_millis() as u64, "timeout_ms": l.timeout.as_millis() as u64,
                })
            })
            .collect();
        Some(json!({
            "module": self.module, "node": self.node, "peer": self.peer, "port": self.config.heart_port(),
            "carrier": self.roots.heartbeat_run(), "key_file": self.roots.cluster_key(), "links": beats,
        }))
    }

    pub fn errd_spec(&self) -> Option<Value> {
        let errd = self.config.errd.as_ref()?;
        let processes: Vec<Value> = errd
            .procs
            .iter()
            .map(|p| {
                json!({
                    "name": p.name, "service": p.service, "restart_services": p.restart_services, "name_regex": p.name_regex, "arg_regex": p.arg_regex, "atleast": p.at_least,
                    "atmax": p.at_max, "action": p.action.as_str(), "class": p.class, "start_after": p.start_after,
                })
            })
            .collect();
        Some(json!({
            "module": self.module, "node": self.node, "poll_ms": errd.poll_timer.as_millis() as u64, "classes": [], "processes": processes,
        }))
    }

    pub fn virtual_addresses(&self) -> Vec<String> {
        let interfaces = self.config.vip.iter().flat_map(|v| v.interfaces.iter());
        interfaces.flat_map(|i| i.addresses.iter()).map(|a| sys::node::numeric(&a.addr)).collect()
    }

    /// Whether `check="on"` asks for a resource `ip.ADDRESS`.
    pub fn checks_address(&self, address: &str) -> bool {
        let interfaces = self.config.vip.iter().flat_map(|v| v.interfaces.iter());
        interfaces.flat_map(|i| i.addresses.iter()).any(|a| a.check && sys::node::numeric(&a.addr) == address)
    }

    /// `lease_until_ms`: until when this node may hold them, where an arbiter gives leases.
    pub fn vip_spec(&self, lease_until_ms: u64) -> Option<Value> {
        let vip = self.config.vip.as_ref().filter(|_| self.peer.is_some())?;
        let lease = self.needs_lease().then_some(lease_until_ms);
        Some(json!({
            "module": self.module, "node": self.node, "addresses": self.addresses(false), "tcp_reset": vip.tcp_reset,
            "lifetime_ms": VIP_LIFETIME_MS, "probe": true, "lease_until_ms": lease,
        }))
    }

    /// For WAIT and SECOND too: the interfaces of the addresses, where they are to be watched, and the connections, where these are
    /// to be counted.
    pub fn vip_watch_spec(&self) -> Option<Value> {
        let vip = self.config.vip.as_ref()?;
        let counts = |i: &config::Interface| i.addresses.iter().any(|a| a.connections);
        vip.interfaces.iter().any(|i| i.check || counts(i)).then(|| {
            json!({"module": self.module, "node": self.node, "addresses": self.addresses(true), "tcp_reset": false, "lifetime_ms": VIP_LIFETIME_MS, "probe": false})
        })
    }

    fn addresses(&self, watch: bool) -> Vec<Value> {
        let interfaces = self.config.vip.iter().flat_map(|v| v.interfaces.iter());
        interfaces
            .flat_map(|i| i.addresses.iter().map(move |a| (i, a)))
            .map(|(i, a)| {
                json!({
                    "address": sys::node::numeric(&a.addr), "prefix": a.prefix, "interface": i.name,
                    // For the watch of a farm's interfaces it is all the same.
                    "where": if a.place == config::Place::Alias { config::Place::OneSideAlias } else { a.place },
                    "check": a.check,
                    // The watch does this all the time; the holder would say it a second time.
                    "interface_check": watch && i.check, "connections": watch && a.connections,
                    "arp_reroute": i.arp_reroute, "arp_interval_ms": i.arp_interval.as_millis() as u64,
                    "arp_elapse_ms": i.arp_elapse.as_millis() as u64,
                })
            })
            .collect()
    }

    pub fn replicated_directories(&self) -> Vec<String> {
        self.config.rfs.iter().flat_map(|r| r.replicated.iter()).map(|d| d.dir.clone()).collect()
    }

    pub fn replicate_spec(&self) -> Option<Value> {
        let rfs = self.config.rfs.as_ref()?;
        let Network::Mirror(links) = &self.network else { return None };
        let pair = links.replication.as_ref()?;
        let port = config::rfs_port(self.id);
        let directories: Vec<Value> = rfs
            .replicated
            .iter()
            .map(|d| {
                let paths = d.not_replicated.iter().map(|e| match e {
                    config::NotReplicated::Path(path) => json!({"path": path}),
                    config::NotReplicated::Regex(regex) => json!({"regex": regex}),
                });
                json!({"path": d.dir, "read_only": d.read_only, "exclude": paths.collect::<Vec<_>>(), "to_check": d.to_check})
            })
            .collect();
        Some(json!({
            "module": self.module, "node": self.node, "peer": self.peer, "directories": directories,
            "listen": socket(&pair.local, port), "peer_address": socket(&pair.peer, port),
            "key_file": self.roots.cluster_key(), "async": rfs.asynchronous,
            "sync": rfs.sync, "cpu_latency": rfs.cpu_latency,
            "state_dir": self.user_var().join("replica"), "salvage_dir": self.user_var().join("salvage"),
            "send_timeout_ms": rfs.send_timeout.as_millis() as u64, "resync_bandwidth_kbs": rfs.rei_allowed_bandwidth_kbs, "resync_detail": rfs.rei_detail,
            "lease": self.needs_lease(),
        }))
    }
}

/// `errd on|off`, for the next life too.
pub(crate) fn switch_errd(user_var: &Path, on: bool) -> std::io::Result<()> {
    let path = user_var.join(ERRD_OFF);
    if !on {
        return sys::files::write_durably(&path, b"", 0o600);
    }
    sys::files::remove(&path)?;
    sys::files::sync_directory(user_var)
}

/// What the core persisted. An unreadable file is reported, and the safe default (not wanted, not primary) taken.
pub(crate) fn load_core(user_var: &Path, complain: &mut dyn FnMut(&str)) -> Persisted {
    let path = user_var.join("core.json");
    match sys::files::read_bounded(&path, CONFIGURATION_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            complain(&format!("{} is unreadable ({error}): starting as if it were new", path.display()));
            Persisted::default()
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Persisted::default(),
        Err(error) => {
            complain(&format!("{}: {error}: starting as if it were new", path.display()));
            Persisted::default()
        }
    }
}

pub(crate) fn save_core(user_var: &Path, core: &Persisted) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(core).map_err(std::io::Error::other)?;
    sys::files::write_durably(&user_var.join("core.json"), &text, 0o600)
}

fn socket(address: &str, port: u16) -> String {
    let address = sys::node::numeric(address);
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The node of the cluster that this host is.
pub(crate) fn own_node(roots: &Roots, cluster: &config::Cluster) -> Result<String, Failure> {
    sys::node::own(roots, cluster.own_addresses())
        .map_err(|error| Failure::new(exit::BAD_CONFIGURATION, error.to_string()))
}

/// The number given at `config`.
pub(crate) fn applied_id(roots: &Roots, module: &str) -> Option<u16> {
    id_in(&roots.module_active(module))
}

fn id_in(root: &Path) -> Option<u16> {
    let bytes = sys::files::read_bounded(&root.join("id"), 16).ok()?;
    String::from_utf8(bytes).ok()?.trim().parse().ok()
}
