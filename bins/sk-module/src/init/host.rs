//! Is this host ready for a module: kernel, packages, addresses, users, clock, firewall? Only looks, changes nothing.

use crate::doctor::{self, Finding};
use crate::{Failure, exit};
use config::{Cluster, Mode, Module, Port};
use net::Subnet;
use nix::ifaddrs::getifaddrs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use sys::roots::Roots;

/// Longest run of a command that is asked something.
const ANSWER: Duration = Duration::from_secs(10);
const OUTPUT: u64 = 1 << 20;

/// An address of an interface of this host.
pub(super) struct Own {
    pub interface: String,
    pub address: IpAddr,
    prefix: u8,
}

/// Addresses that other hosts can reach, IPv4 first.
pub(super) fn addresses() -> Vec<Own> {
    let mut found: Vec<Own> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|item| {
            let ip = |storage: &nix::sys::socket::SockaddrStorage| {
                let four = storage.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
                four.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
            };
            let address = ip(item.address.as_ref()?)?;
            let prefix = match ip(item.netmask.as_ref()?)? {
                IpAddr::V4(mask) => u32::from(mask).count_ones(),
                IpAddr::V6(mask) => u128::from(mask).count_ones(),
            };
            let link_local = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
            if address.is_loopback() || link_local {
                return None;
            }
            Some(Own { interface: item.interface_name, address, prefix: u8::try_from(prefix).unwrap_or(128) })
        })
        .collect();
    found.sort_by_key(|own| own.address.is_ipv6());
    found
}

/// What this host calls itself, without its domain.
pub(super) fn name() -> String {
    let name = nix::sys::utsname::uname().map(|u| u.nodename().to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Everything that a module of this configuration needs here.
pub(super) fn examine(roots: &Roots, module: &Module, cluster: &Cluster, id: u16) -> Vec<Finding> {
    let mut found = general();
    found.push(match sys::node::own(roots, cluster.own_addresses()) {
        Ok(node) => Finding::ok("cluster", format!("this host is {node} of the cluster")),
        Err(e) => Finding::error(
            "cluster",
            e.to_string(),
            format!("run it on a node, or correct {}", roots.cluster_xml().display()),
        ),
    });
    let farm = matches!(module.mode, Mode::Farm(_));
    virtual_addresses(module, &mut found);
    if module.rfs.is_some() {
        found.push(doctor::host::fuse());
    }
    if farm && module.vip.is_some() {
        found.push(doctor::host::nftables());
    }
    for replicated in module.rfs.iter().flat_map(|rfs| &rfs.replicated) {
        directory(Path::new(&replicated.dir), &mut found);
    }
    services(module, &mut found);
    found.push(firewall(&module.ports(id)));
    found
}

/// What every module needs.
pub(super) fn general() -> Vec<Finding> {
    let mut found = vec![doctor::host::kernel()];
    if nix::unistd::geteuid().is_root() {
        found.push(Finding::ok("root", "run by root"));
    } else {
        found.push(Finding::error("root", "modules are run by root", "sudo sk-module …"));
    }
    found.extend(doctor::host::clock_is_disciplined());
    found
}

fn virtual_addresses(module: &Module, found: &mut Vec<Finding>) {
    let own = addresses();
    for interface in module.vip.iter().flat_map(|vip| &vip.interfaces) {
        for virtual_address in &interface.addresses {
            let text = &virtual_address.addr;
            let Ok(address) = text.parse::<IpAddr>() else {
                found.push(Finding::warn(
                    "address",
                    format!("the virtual address {text} is a name"),
                    "it must be known on every node: see /etc/hosts",
                ));
                continue;
            };
            if let Some(taken) = own.iter().find(|o| o.address == address) {
                found.push(Finding::error(
                    "address",
                    format!("the virtual address {text} is on {} already", taken.interface),
                    "take it out of the configuration of the network: the module sets it",
                ));
                continue;
            }
            let named = interface.name.as_deref();
            match own
                .iter()
                .find(|o| Subnet::of(o.address, o.prefix).contains(address) && named.is_none_or(|n| n == o.interface))
            {
                Some(network) => {
                    found.push(Finding::ok(
                        "address",
                        format!("the virtual address {text} fits the network of {}", network.interface),
                    ));
                    if answers(address) {
                        found.push(Finding::error(
                            "address",
                            format!("another machine answers for the virtual address {text}"),
                            format!("choose a free address; who it is: sk-vip probe {text}"),
                        ));
                    }
                }
                None => found.push(Finding::error(
                    "address",
                    format!("no interface of this host is in the network of the virtual address {text}"),
                    "choose an address in the network of the clients, or name the interface in userconfig.xml",
                )),
            }
        }
    }
}

/// Whether somebody answers for an address: `sk-vip probe` knows how to ask, and says so by its exit code.
fn answers(address: IpAddr) -> bool {
    let Some(program) = sys::program::beside("sk-vip") else { return false };
    let mut command = Command::new(program);
    command.args(["probe", "--count", "2", &address.to_string()]);
    let outcome = sys::bounded::run(&mut command, ANSWER, OUTPUT);
    outcome.is_ok_and(|o| o.status.and_then(|s| s.code()) == Some(i32::from(CONFLICT)))
}

/// Exit code of `sk-vip probe` when another machine has the address.
const CONFLICT: u8 = 3;

fn directory(path: &Path, found: &mut Vec<Finding>) {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            found.push(Finding::error(
                "replicated",
                format!("{shown} is no directory"),
                "a directory is replicated as a whole",
            ));
            return;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let words = format!("the directory {shown} does not exist");
            found.push(Finding::error(
                "replicated",
                words,
                format!("on every node: install -d -o USER -g GROUP -m 750 {shown}"),
            ));
            return;
        }
        Err(error) => {
            found.push(Finding::error("replicated", format!("{shown}: {error}"), "it must be readable by root"));
            return;
        }
    };
    let parent = path.parent().and_then(|p| std::fs::metadata(p).ok());
    if parent.is_some_and(|p| p.dev() != metadata.dev()) {
        found.push(Finding::warn(
            "replicated",
            format!("{shown} is the root of a file system"),
            "it must be mounted at boot before the module starts (/etc/fstab), on every node",
        ));
    }
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let user = user_name(uid);
    found.push(match &user {
        Some(user) if uid == 0 => Finding::ok("replicated", format!("{shown} belongs to {user}")),
        Some(user) => Finding::warn(
            "replicated",
            format!("{shown} belongs to {user} (uid {uid}, gid {gid}): the numbers must be the same on every node"),
            format!("compare: id {user}"),
        ),
        None => Finding::error(
            "replicated",
            format!("{shown} belongs to uid {uid}, which has no name here"),
            "make the user on every node, with this number",
        ),
    });
}

fn user_name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name)
}

/// Options with which the other nodes compare the owners of the replicated directories.
pub(super) fn owner_options(module: &Module) -> String {
    let mut options = String::new();
    for replicated in module.rfs.iter().flat_map(|rfs| &rfs.replicated) {
        let Ok(metadata) = std::fs::metadata(&replicated.dir) else { continue };
        let (uid, gid) = (metadata.uid(), metadata.gid());
        if let Some(user) = user_name(uid).filter(|_| uid != 0) {
            let option = format!(" --owner {user}={uid}:{gid}");
            if !options.contains(&option) {
                options += &option;
            }
        }
    }
    options
}

/// `--owner USER=UID:GID`: has the user these numbers here?
pub(super) fn owner(text: &str) -> Result<Finding, Failure> {
    let parsed = text.split_once('=').and_then(|(user, numbers)| {
        let (uid, gid) = numbers.split_once(':')?;
        Some((user, uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?))
    });
    let Some((user, uid, gid)) = parsed.filter(|(user, ..)| !user.is_empty()) else {
        return Err(Failure::new(exit::USAGE, format!("--owner {text}: USER=UID:GID is needed"))
            .hint("such as --owner postgres=105:110, the numbers of the other node"));
    };
    let here = nix::unistd::User::from_name(user).map_err(|e| Failure::system("users", e))?;
    Ok(match here {
        None => Finding::error(
            "users",
            format!("there is no user {user} here"),
            format!("make it with uid {uid} and gid {gid}, or install its package"),
        ),
        Some(here) if here.uid.as_raw() == uid && here.gid.as_raw() == gid => {
            Finding::ok("users", format!("{user} has uid {uid} and gid {gid}, as on the other node"))
        }
        Some(here) => Finding::error(
            "users",
            format!("{user} has uid {} and gid {} here, {uid} and {gid} on the other node", here.uid, here.gid),
            format!(
                "files would change their owner with the role: usermod -u {uid} {user}, groupmod -g {gid} {user}, then chown its files"
            ),
        ),
    })
}

/// The systemd units that the scripts start must be left to them.
fn services(module: &Module, found: &mut Vec<Finding>) {
    let value =
        module.user.iter().flat_map(|user| &user.vars).find(|var| var.name == "SERVICES").map(|var| var.value.as_str());
    for unit in value.unwrap_or_default().split([',', ' ']).filter(|unit| !unit.is_empty()) {
        let asked = ask("systemctl", &["show", "--property=LoadState,UnitFileState,ActiveState", unit]);
        let Some(answer) = asked else {
            found.push(Finding::error(
                "services",
                format!("systemctl cannot be asked about {unit}"),
                "the scripts of this template need systemd",
            ));
            continue;
        };
        let is = |line: &str| answer.lines().any(|l| l == line);
        found.push(if is("LoadState=not-found") {
            Finding::error(
                "services",
                format!("there is no unit {unit}"),
                "install the application, or correct its name (systemctl list-unit-files)",
            )
        } else if is("UnitFileState=enabled") || is("ActiveState=active") {
            Finding::warn(
                "services",
                format!("the unit {unit} starts by itself"),
                format!("on every node: systemctl disable --now {unit}"),
            )
        } else {
            Finding::ok("services", format!("the unit {unit} is left to the module"))
        });
    }
}

/// Whether something on this host may drop what the nodes say to each other.
fn firewall(ports: &[Port]) -> Finding {
    if ports.is_empty() {
        return Finding::ok("firewall", "the module talks to no other node");
    }
    let list: Vec<String> = ports.iter().map(|p| format!("{} {}", p.protocol.as_str(), p.number)).collect();
    let list = list.join(", ");
    if ask("firewall-cmd", &["--state"]).is_some_and(|s| s.trim() == "running") {
        let add: Vec<String> =
            ports.iter().map(|p| format!("--add-port={}/{}", p.number, p.protocol.as_str())).collect();
        return Finding::warn(
            "firewall",
            format!("firewalld runs: open {list} between the nodes"),
            format!("firewall-cmd --permanent {} && firewall-cmd --reload", add.join(" ")),
        );
    }
    if ask("ufw", &["status"]).is_some_and(|s| s.contains("Status: active")) {
        let allow: Vec<String> =
            ports.iter().map(|p| format!("ufw allow {}/{}", p.number, p.protocol.as_str())).collect();
        return Finding::warn("firewall", format!("ufw is active: open {list} between the nodes"), allow.join(" && "));
    }
    match ask("nft", &["list", "ruleset"]).as_deref().map(drops_input) {
        Some(true) => Finding::warn(
            "firewall",
            format!("nftables drops what no rule accepts: accept {list} from the other nodes"),
            "in the chain with \"hook input\", before its last rule; see nft(8)",
        ),
        _ => Finding::ok("firewall", format!("no firewall was found here; between the nodes {list} must pass")),
    }
}

/// Whether a chain at the input drops or rejects by its policy.
fn drops_input(rules: &str) -> bool {
    rules.lines().any(|line| line.contains("hook input") && line.contains("policy drop"))
}

/// What a command prints, if it is there and succeeds.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    let outcome = sys::bounded::run(&mut command, ANSWER, OUTPUT).ok()?;
    outcome.status.filter(std::process::ExitStatus::success)?;
    Some(String::from_utf8_lossy(&outcome.output).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_is_recognised_by_its_policy() {
        let rules = |policy: &str| {
            format!(
                "table inet filter {{\n chain input {{\n  type filter hook input priority filter; policy {policy};\n }}\n}}"
            )
        };
        assert!(drops_input(&rules("drop")) && !drops_input(&rules("accept")) && !drops_input(""));
    }

    #[test]
    fn owners_are_compared_with_the_users_of_this_host() {
        assert!(!owner("root=0:0").unwrap().is_error());
        assert!(owner("root=0:1").unwrap().is_error());
        assert!(owner("no-such-user-here=1:1").unwrap().is_error());
        for text in ["", "root", "root=0", "root=a:b", "=1:1", "root=0:0:0"] {
            assert_eq!(owner(text).unwrap_err().code, exit::USAGE, "{text}");
        }
    }
}
