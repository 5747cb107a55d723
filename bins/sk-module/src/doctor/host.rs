//! Does this host have what the product and its modules need?

use super::modules::Known;
use super::{Finding, PROGRAMS};
use crate::kernel::{OLDEST, release, version};
use config::Cluster;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use sys::roots::Roots;
use wire::KeyRing;
use wire::key::KeyError;

/// Descriptors that a replicated tree in use needs at the least.
const DESCRIPTORS: u64 = 4096;
const SYSTEMCTL: Duration = Duration::from_secs(10);

pub(super) fn look(roots: &Roots, modules: &[Known], found: &mut Vec<Finding>) {
    found.push(kernel());
    programs(roots, found);
    if modules.iter().any(|m| m.config.rfs.is_some()) {
        found.push(fuse());
    }
    if modules.iter().any(|m| matches!(m.config.mode, config::Mode::Farm(_)) && m.config.vip.is_some()) {
        found.push(nftables());
    }
    let mut directories = vec![roots.var.clone()];
    directories.extend(modules.iter().flat_map(Known::directories));
    for directory in directories {
        found.extend(space(&directory));
    }
    found.push(descriptors());
    found.extend(clock_is_disciplined());
    units(modules, found);
}

pub(crate) fn kernel() -> Finding {
    let release = release();
    match version(&release) {
        Some(version) if version >= OLDEST => Finding::ok("kernel", release),
        Some(_) => Finding::error(
            "kernel",
            format!("{release} is older than {}.{}", OLDEST.0, OLDEST.1),
            "install a later kernel",
        ),
        None => Finding::warn(
            "kernel",
            format!("{release:?} is no version"),
            format!("make sure that it is {}.{} or later", OLDEST.0, OLDEST.1),
        ),
    }
}

fn programs(roots: &Roots, found: &mut Vec<Finding>) {
    let missing: Vec<&str> =
        PROGRAMS.into_iter().filter(|name| !roots.program(name).is_file() && !in_path(name)).collect();
    found.push(if missing.is_empty() {
        Finding::ok("programs", "all commands are there")
    } else {
        Finding::error(
            "programs",
            format!("missing: {}", missing.join(", ")),
            "install the product again; all its commands belong into one directory",
        )
    });
}

fn in_path(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|d| d.join(name).is_file()))
}

pub(crate) fn fuse() -> Finding {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::ok("fuse", "/dev/fuse can be opened"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Finding::error(
            "fuse",
            "/dev/fuse does not exist: nothing can be replicated",
            "modprobe fuse; in a container, give it the device",
        ),
        Err(e) => {
            Finding::error("fuse", format!("/dev/fuse: {e}"), "run this as root; in a container, give it the device")
        }
    }
}

/// Whether the kernel's packet filter answers, and its command is there.
pub(crate) fn nftables() -> Finding {
    if !in_path("nft") && !["/usr/sbin/nft", "/sbin/nft"].iter().any(|path| Path::new(path).is_file()) {
        return Finding::error(
            "nftables",
            "nft is missing, which shares out the clients of a farm",
            "apt-get install nftables",
        );
    }
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
    let loaded = Path::new("/sys/module/nf_tables").exists()
        || std::fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release()))
            .is_ok_and(|text| text.contains("nf_tables"));
    match netlink {
        Ok(_) if loaded => Finding::ok("nftables", "the kernel has nf_tables"),
        Ok(_) => Finding::warn(
            "nftables",
            "nf_tables is not loaded: a farm loads it when it may",
            "modprobe nf_tables; modprobe nft_numgen",
        ),
        Err(e) => Finding::error(
            "nftables",
            format!("the kernel's packet filter does not answer: {e}"),
            "modprobe nf_tables; in a container, give it CAP_NET_ADMIN",
        ),
    }
}

/// Free space of the file system of a directory, for ordinary users of it.
fn space(directory: &Path) -> Option<Finding> {
    let there = directory.ancestors().find(|d| d.exists())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    let (free, all) = (stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size());
    Some(judge_space(&directory.display().to_string(), free, all))
}

fn judge_space(name: &str, free: u64, all: u64) -> Finding {
    let percent = (free * 100).checked_div(all).unwrap_or(100);
    let words = format!("{name}: {} MiB free ({percent} %)", free >> 20);
    let scarce = free < 10 << 30;
    if percent < 2 && scarce || free < 64 << 20 {
        Finding::error("space", words, "make room: a full disk stops replication and logs")
    } else if percent < 10 && scarce {
        Finding::warn("space", words, "make room in time")
    } else {
        Finding::ok("space", words)
    }
}

fn descriptors() -> Finding {
    use nix::sys::resource::{Resource, getrlimit};
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= DESCRIPTORS => Finding::ok("descriptors", format!("{hard} at most")),
        Ok((_, hard)) => Finding::warn(
            "descriptors",
            format!("a process may have only {hard} files open"),
            "raise it: LimitNOFILE= of the unit sk-module@.service, or ulimit -Hn where there is no systemd",
        ),
        Err(e) => Finding::warn("descriptors", format!("the limit is not known: {e}"), "ulimit -Hn"),
    }
}

/// Clocks decide nothing about data; logs of two nodes can only be compared when they agree.
pub(crate) fn clock_is_disciplined() -> Option<Finding> {
    Some(if sys::clock::is_synchronised()? {
        Finding::ok("clock", "synchronised")
    } else {
        Finding::warn("clock", "the clock is not synchronised", "run chrony or systemd-timesyncd")
    })
}

/// The cluster's configuration and keys on this node.
pub(super) fn cluster(roots: &Roots, found: &mut Vec<Finding>) -> Option<Cluster> {
    let path = roots.cluster_xml();
    if !path.exists() {
        found.push(Finding::error(
            "cluster",
            format!("{} does not exist", path.display()),
            "sk-cluster create NAME=ADDRESS NAME=ADDRESS, or import it from another node",
        ));
        return None;
    }
    let (cluster, diagnostics) = config::load_cluster(&path);
    match &cluster {
        None => found.push(Finding::error(
            "cluster",
            diagnostics.plain().lines().next().unwrap_or("it has errors").to_owned(),
            "sk-cluster confcheck shows all errors",
        )),
        Some(cluster) => found.push(match sys::node::own(roots, cluster.own_addresses()) {
            Ok(node) => Finding::ok("cluster", format!("this is {node} of {}", cluster.nodes().join(", "))),
            Err(e) => Finding::error("cluster", e.to_string(), "ip address shows what this host has"),
        }),
    }
    match KeyRing::load(&roots.cluster_key()) {
        Ok(ring) if ring.accepted().is_empty() => {
            found.push(Finding::ok("key", format!("fingerprint {}", ring.used().fingerprint())));
        }
        Ok(_) => {
            found.push(Finding::warn("key", "a renewal of the key is not finished", "sk-cluster key renew ends it"));
        }
        Err(e) => {
            found.push(unusable("key", &e));
            return None;
        }
    }
    if let Err(e) = wire::role::load_operators(&roots.operators()) {
        found.push(unusable("operators", &e));
    }
    let held = sys::lock::is_held(&roots.cluster_run().join("lock")).unwrap_or(false);
    found.push(if held {
        Finding::ok("daemon", "the daemon of this node runs")
    } else {
        Finding::warn(
            "daemon",
            "the daemon of this node does not run: no commands from other nodes",
            "sk-cluster up, or systemctl enable --now sk-cluster",
        )
    });
    cluster
}

/// What is wrong with a file of keys, and how to mend exactly that.
fn unusable(check: &'static str, error: &KeyError) -> Finding {
    let remedy = match error {
        KeyError::Missing(_) => {
            "ssh OTHER sk-cluster export | sk-cluster import; for a new cluster: sk-cluster create".into()
        }
        KeyError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
        KeyError::ForeignOwner { path, .. } => format!("chown root {}", path.display()),
        KeyError::Malformed(_) => "ssh OTHER sk-cluster export | sk-cluster import --replace-key".into(),
        KeyError::Line { .. } => "correct that line, or sk-cluster push on a node whose file is right".into(),
        other => format!("it must be readable by root: {other}"),
    };
    // The message says a remedy of its own, for those who have only that.
    let words = error.to_string();
    Finding::error(check, words.split(';').next().unwrap_or_default(), remedy)
}

/// Units of systemd, where it rules.
fn units(modules: &[Known], found: &mut Vec<Finding>) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let show = |unit: &str, property: &str| -> Option<String> {
        let mut command = Command::new("systemctl");
        command.args(["show", "--value", "--property", property, unit]).stderr(Stdio::null());
        let outcome = sys::bounded::run(&mut command, SYSTEMCTL, 4096).ok()?;
        Some(String::from_utf8_lossy(&outcome.output).trim().to_owned())
    };
    for module in modules {
        let unit = format!("sk-module@{}.service", module.name);
        if show(&unit, "LoadState").as_deref() != Some("loaded") {
            found.push(Finding::warn(
                "systemd",
                format!("{unit} is not installed: nothing starts the module at boot"),
                "install scripts/systemd/sk-module@.service into /etc/systemd/system and run systemctl daemon-reload",
            ));
            continue;
        }
        let enabled = show(&unit, "UnitFileState");
        if module.starts_at_boot && enabled.as_deref() != Some("enabled") {
            found.push(Finding::warn(
                "systemd",
                format!("{unit} is not enabled: the module does not start at boot"),
                format!("systemctl enable {unit}"),
            ));
        }
        if show(&unit, "ActiveState").as_deref() == Some("failed") {
            found.push(Finding::error(
                "systemd",
                format!("{unit} has failed"),
                format!("journalctl -u {unit}; then systemctl reset-failed {unit}"),
            ));
        }
        // In microseconds, or words.
        let stop = show(&unit, "TimeoutStopUSec").and_then(|t| humantime::parse_duration(&t).ok());
        if let Some(stop) = stop.filter(|s| *s < module.longest_stop) {
            found.push(Finding::warn(
                "systemd",
                format!(
                    "{unit} is killed {} s after its stop began, its stop scripts may take {} s",
                    stop.as_secs(),
                    module.longest_stop.as_secs()
                ),
                format!("TimeoutStopSec= of the unit, more than {} s", module.longest_stop.as_secs()),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn releases_and_space_are_judged() {
        for (release, expected) in
            [("6.1.0-18-amd64", Some((6, 1))), ("5.15.0", Some((5, 15))), ("6.12-rc1+", Some((6, 12))), ("x", None)]
        {
            assert_eq!(version(release), expected, "{release}");
        }
        for (free, all, expected) in [
            (50 << 30, 100 << 30, Level::Ok),
            (20 << 30, 1 << 40, Level::Ok),
            (5 << 30, 100 << 30, Level::Warn),
            (1 << 30, 100 << 30, Level::Error),
            (10 << 20, 20 << 20, Level::Error),
            (0, 0, Level::Error),
        ] {
            assert_eq!(judge_space("/", free, all).level, expected, "{free} of {all}");
        }
    }
}
