//! What does the runner want: which farm, which addresses, how is their traffic shared?

use crate::cli::Failure;
use net::Mac;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const SPEC_LIMIT: u64 = 4 * 1024 * 1024;
/// Names are part of every packet.
const NAME_LIMIT: usize = 64;
const LANS_LIMIT: usize = 8;
const ADDRESSES_LIMIT: usize = 64;
/// As many as the membership carries; they are numbered in eight bits of a packet mark.
const GROUPS_LIMIT: usize = 32;
const RULES_LIMIT: usize = 256;
/// An nftables name holds the module's.
const MODULE_LIMIT: usize = 64;

/// `run --spec`; unknown members are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct Spec {
    pub module: String,
    pub node: String,
    pub key_file: PathBuf,
    /// UDP, the same on all nodes.
    pub port: u16,
    pub pulse_ms: u64,
    pub mlost_count: u64,
    pub slost_count: u64,
    /// How long the kernel accepts without being told again.
    #[serde(default)]
    pub lease_ms: Option<u64>,
    pub lans: Vec<Lan>,
    #[serde(default)]
    pub script_control: bool,
    #[serde(default = "yes")]
    pub tcp_reset: bool,
    /// Whether packets of others may be dropped before the rules, where the kernel allows it.
    #[serde(default = "yes")]
    pub early_drop: bool,
    #[serde(default)]
    pub addresses: Vec<Wanted>,
    #[serde(default)]
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Lan {
    pub ident: String,
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    pub node: String,
    pub addr: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everybody receives everything, through a MAC that is never a source.
    VmacInvisible,
    /// One node receives and passes on.
    VmacDirected,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Wanted {
    pub address: IpAddr,
    #[serde(default)]
    pub prefix: Option<u8>,
    #[serde(default)]
    pub interface: Option<String>,
    pub mode: Mode,
    #[serde(default)]
    pub mac: Option<String>,
    /// Report `ip` when somebody else removes it; otherwise it is put back.
    #[serde(default = "yes")]
    pub check: bool,
    /// Report `intf`.
    #[serde(default = "yes")]
    pub interface_check: bool,
    #[serde(default)]
    pub arp_reroute: bool,
    #[serde(default = "arp_interval")]
    pub arp_interval_ms: u64,
    #[serde(default = "arp_elapse")]
    pub arp_elapse_ms: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// `<group name>_<index>`
    pub name: String,
    /// Empty: all nodes have the same power.
    #[serde(default)]
    pub hosts: Vec<Host>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Host {
    pub node: String,
    pub power: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    #[serde(default)]
    pub address: Any<IpAddr>,
    #[serde(default)]
    pub port: Any<u16>,
    pub proto: Proto,
    pub filter: Key,
}

/// A value, or `"*"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Any<T> {
    #[default]
    All,
    One(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Any<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form<T> {
            One(T),
            Text(String),
        }
        match Form::<T>::deserialize(deserializer)? {
            Form::One(value) => Ok(Self::One(value)),
            Form::Text(text) if text == "*" => Ok(Self::All),
            Form::Text(text) => Err(serde::de::Error::custom(format!("`{text}` is neither `*` nor a value"))),
        }
    }
}

impl<T: PartialEq> Any<T> {
    pub fn covers(&self, value: &T) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == value,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
    Arp,
}

/// What of a packet tells its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    #[serde(rename = "on_addr")]
    Addr,
    #[serde(rename = "on_port")]
    Port,
    #[serde(rename = "on_ipid")]
    Ipid,
}

fn yes() -> bool {
    true
}

fn arp_interval() -> u64 {
    60_000
}

fn arp_elapse() -> u64 {
    1_200_000
}

impl Spec {
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = sys::files::read_bounded(path, SPEC_LIMIT)
            .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
        let spec: Self =
            serde_json::from_slice(&text).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
        spec.check().map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
        Ok(spec)
    }

    /// Names of all nodes, sorted: a node's number is its place here, the same on all nodes.
    pub fn nodes(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.lans.iter().flat_map(|l| l.nodes.iter().map(|n| &n.node)).collect();
        all.into_iter().cloned().collect()
    }

    /// Time without a word from another node after which it is lost.
    pub fn detection_ms(&self) -> u64 {
        self.pulse_ms.saturating_mul(self.slost_count)
    }

    fn check(&self) -> Result<(), String> {
        if !sys::roots::is_module_name(&self.module) || self.module.len() > MODULE_LIMIT {
            return Err(format!("`{}` is not the name of a module", self.module));
        }
        if self.port == 0 {
            return Err("`port` is 0; give the UDP port that all nodes use".to_owned());
        }
        if self.pulse_ms == 0 || self.pulse_ms > 60_000 {
            return Err(format!("`pulse_ms` must be from 1 to 60000, not {}", self.pulse_ms));
        }
        for (name, count) in [("mlost_count", self.mlost_count), ("slost_count", self.slost_count)] {
            if !(2..=10_000).contains(&count) {
                return Err(format!("`{name}` must be from 2 to 10000, not {count}: one late packet is no failure"));
            }
        }
        if let Some(lease) = self.lease_ms
            && (lease < self.pulse_ms.saturating_mul(3) / 2 || lease >= self.detection_ms())
        {
            return Err(format!(
                "`lease_ms` must be at least 1.5 pulses ({} ms) and less than pulse_ms x slost_count ({} ms), else \
                 others take over while this node still accepts; not {lease}",
                self.pulse_ms.saturating_mul(3) / 2,
                self.detection_ms()
            ));
        }
        self.check_nodes()?;
        self.check_addresses()?;
        self.check_groups()
    }

    fn check_nodes(&self) -> Result<(), String> {
        if self.lans.is_empty() || self.lans.len() > LANS_LIMIT {
            return Err(format!("there must be 1 to {LANS_LIMIT} lans, not {}", self.lans.len()));
        }
        let nodes = self.nodes();
        if nodes.is_empty() || nodes.len() > share::NODES {
            return Err(format!("a farm has 1 to {} nodes, not {}", share::NODES, nodes.len()));
        }
        let mut idents = BTreeSet::new();
        let mut locals = BTreeSet::new();
        for lan in &self.lans {
            let ident = &lan.ident;
            if !idents.insert(ident) {
                return Err(format!("two lans are called `{ident}`"));
            }
            for name in std::iter::once(ident).chain(lan.nodes.iter().map(|n| &n.node)) {
                if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
                    return Err(format!("the name {name:?} is empty, longer than {NAME_LIMIT} bytes, or not text"));
                }
            }
            let Some(own) = lan.nodes.iter().find(|n| n.node == self.node) else {
                return Err(format!("lan `{ident}` has no address of this node, `{}`", self.node));
            };
            if !locals.insert(own.addr) {
                return Err(format!("lan `{ident}`: {} is this node's address in another lan too", own.addr));
            }
            let mut seen = BTreeSet::new();
            let mut addresses = BTreeSet::new();
            for node in &lan.nodes {
                if node.addr.is_unspecified() || node.addr.is_multicast() {
                    return Err(format!("lan `{ident}`: {} is not the address of a node", node.addr));
                }
                if node.addr.is_ipv4() != own.addr.is_ipv4() {
                    return Err(format!("lan `{ident}`: {} and {} are of different families", own.addr, node.addr));
                }
                if !seen.insert(&node.node) || !addresses.insert(node.addr) {
                    return Err(format!("lan `{ident}`: `{}` or its address {} is there twice", node.node, node.addr));
                }
            }
        }
        match nodes.iter().find(|n| self.lans.iter().any(|l| !l.nodes.iter().any(|m| m.node == **n))) {
            Some(missing) => Err(format!("`{missing}` must have an address in every lan")),
            None => Ok(()),
        }
    }

    fn check_addresses(&self) -> Result<(), String> {
        if self.addresses.len() > ADDRESSES_LIMIT {
            return Err(format!("at most {ADDRESSES_LIMIT} virtual addresses, not {}", self.addresses.len()));
        }
        for (position, wanted) in self.addresses.iter().enumerate() {
            let address = wanted.address;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            if wanted.prefix.is_some_and(|p| p > longest) {
                return Err(format!("the prefix of {address} must be at most {longest}"));
            }
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                return Err(format!("{address} cannot be a virtual address"));
            }
            if self.addresses.iter().take(position).any(|w| w.address == address) {
                return Err(format!("{address} is there twice"));
            }
            if let Some(mac) = &wanted.mac {
                if wanted.mode == Mode::VmacDirected {
                    return Err(format!("{address}: `mac` is for vmac_invisible; directed nodes use their own"));
                }
                parse_mac(mac).map_err(|e| format!("{address}: {e}"))?;
            }
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), String> {
        if self.groups.len() > GROUPS_LIMIT {
            return Err(format!("at most {GROUPS_LIMIT} groups, not {}", self.groups.len()));
        }
        let nodes = self.nodes();
        let mut names = BTreeSet::new();
        for group in &self.groups {
            let name = &group.name;
            if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
                return Err(format!("the group name {name:?} is empty, longer than {NAME_LIMIT} bytes, or not text"));
            }
            if !names.insert(name) {
                return Err(format!("two groups are called `{name}`"));
            }
            let mut hosts = BTreeSet::new();
            for host in &group.hosts {
                if !nodes.contains(&host.node) {
                    return Err(format!(
                        "group `{name}`: `{}` is no node of this farm ({})",
                        host.node,
                        nodes.join(", ")
                    ));
                }
                if !hosts.insert(&host.node) {
                    return Err(format!("group `{name}`: `{}` is there twice", host.node));
                }
            }
            if group.rules.is_empty() || group.rules.len() > RULES_LIMIT {
                return Err(format!("group `{name}` must have 1 to {RULES_LIMIT} rules, not {}", group.rules.len()));
            }
            for rule in &group.rules {
                self.check_rule(rule).map_err(|e| format!("group `{name}`: {e}"))?;
            }
        }
        Ok(())
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), String> {
        if let Any::One(address) = rule.address
            && !self.addresses.iter().any(|w| w.address == address)
        {
            return Err(format!("a rule is for {address}, which is no virtual address of this module"));
        }
        if rule.port == Any::One(0) {
            return Err("port 0 does not exist; write \"*\" for all ports".to_owned());
        }
        let covered = || self.addresses.iter().filter(|w| rule.address.covers(&w.address));
        match (rule.proto, rule.filter) {
            (Proto::Tcp | Proto::Udp, Key::Addr | Key::Port) | (Proto::Arp, Key::Addr) => {}
            (Proto::Udp, Key::Ipid) => {
                if let Some(v6) = covered().find(|w| w.address.is_ipv6()) {
                    return Err(format!(
                        "on_ipid needs the identification field of IPv4, but {} is IPv6; use on_addr or on_port",
                        v6.address
                    ));
                }
            }
            (Proto::Tcp, Key::Ipid) => {
                return Err("on_ipid would tear TCP connections apart; use on_addr or on_port for tcp".to_owned());
            }
            (Proto::Arp, Key::Port | Key::Ipid) => {
                return Err("questions for an address have no port; use on_addr for arp".to_owned());
            }
        }
        if rule.proto == Proto::Arp
            && let Some(other) = covered().find(|w| w.mode != Mode::VmacDirected)
        {
            return Err(format!(
                "proto=\"arp\" chooses who answers with its own MAC, but {} is vmac_invisible: all nodes answer with the \
                 same MAC; remove the rule or use vmac_directed",
                other.address
            ));
        }
        Ok(())
    }
}

/// The rules for packets to an address with the numbers of their groups, in the order in which a packet meets them.
pub fn rules_of(groups: &[Group], address: IpAddr) -> impl Iterator<Item = (usize, &Rule)> {
    groups
        .iter()
        .enumerate()
        .flat_map(|(number, group)| group.rules.iter().map(move |rule| (number, rule)))
        .filter(move |(_, rule)| rule.proto != Proto::Arp && rule.address.covers(&address))
}

impl Wanted {
    /// The MAC of an invisible address: the given one, else 5A:FE and four bytes of the first address of the interface.
    pub fn virtual_mac(&self, first: IpAddr) -> Mac {
        self.mac.as_deref().and_then(|m| parse_mac(m).ok()).unwrap_or_else(|| {
            let [a, b, c, d] = match first {
                IpAddr::V4(v4) => v4.octets(),
                IpAddr::V6(v6) => {
                    let [.., a, b, c, d] = v6.octets();
                    [a, b, c, d]
                }
            };
            Mac([0x5a, 0xfe, a, b, c, d])
        })
    }
}

/// `5a:fe:0a:00:00:32`, with colons or dashes.
fn parse_mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|part| (1..=2).contains(&part.len()).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect();
    let mac = bytes.and_then(|b| <[u8; 6]>::try_from(b).ok()).ok_or(format!("`{text}` is not a MAC address"))?;
    let [first, ..] = mac;
    if first & 1 == 1 || mac == [0; 6] {
        return Err(format!("`{text}` is not the MAC address of one interface (its first byte must be even)"));
    }
    Ok(Mac(mac))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A farm of three nodes with one address and one group.
    pub fn example() -> Value {
        let nodes: Vec<Value> =
            (1..=3).map(|n| json!({"node": format!("node{n}"), "addr": format!("10.0.0.{n}")})).collect();
        json!({"module": "AM", "node": "node1", "key_file": "/k", "port": 4803, "pulse_ms": 100, "mlost_count": 20,
            "slost_count": 10, "lans": [{"ident": "default", "nodes": nodes}], "later": 1,
            "addresses": [{"address": "10.0.0.50", "mode": "vmac_invisible"}],
            "groups": [{"name": "FarmProto_0", "rules": [{"address": "*", "port": 80, "proto": "tcp", "filter": "on_addr"}]}]})
    }

    pub fn read(change: impl FnOnce(&mut Value)) -> Result<Spec, String> {
        let mut value = example();
        change(&mut value);
        let spec: Spec = serde_json::from_value(value).map_err(|e| e.to_string())?;
        spec.check().map(|()| spec)
    }

    #[test]
    fn the_virtual_mac_shows_the_address() {
        let spec = read(|_| ()).unwrap();
        let [wanted] = spec.addresses.as_slice() else { panic!("one address") };
        assert_eq!(wanted.virtual_mac(wanted.address).to_string(), "5a:fe:0a:00:00:32");
        let spec = read(|v| v["addresses"][0]["mac"] = "5A-FE-1-2-3-4".into()).unwrap();
        assert_eq!(spec.addresses[0].virtual_mac(spec.addresses[0].address).to_string(), "5a:fe:01:02:03:04");
        assert_eq!(spec.nodes(), ["node1", "node2", "node3"]);
        assert!(spec.tcp_reset && spec.addresses[0].check);
    }

    #[test]
    fn wrong_specifications_are_refused_with_the_place() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 20] = [
            (|v| v["port"] = 0.into(), "`port` is 0"),
            (|v| v["module"] = "a/b".into(), "not the name of a module"),
            (|v| v["pulse_ms"] = 0.into(), "`pulse_ms`"),
            (|v| v["slost_count"] = 1.into(), "`slost_count`"),
            (|v| v["lease_ms"] = 1000.into(), "`lease_ms`"),
            (|v| v["lans"] = json!([]), "1 to 8 lans"),
            (|v| v["node"] = "x".into(), "no address of this node"),
            (|v| v["lans"][0]["nodes"][1]["addr"] = "fd00::1".into(), "different families"),
            (|v| v["lans"][0]["nodes"][1]["node"] = "node1".into(), "twice"),
            (|v| v["addresses"][0]["address"] = "127.0.0.1".into(), "cannot be a virtual address"),
            (|v| v["addresses"][0]["mac"] = "01:00:00:00:00:00".into(), "first byte must be even"),
            (|v| v["addresses"][0]["mode"] = "vmac".into(), "unknown variant"),
            (|v| v["groups"][0]["hosts"] = json!([{"node": "nope", "power": 1}]), "no node of this farm"),
            (|v| v["groups"][0]["rules"] = json!([]), "1 to 256 rules"),
            (|v| v["groups"][0]["rules"][0]["port"] = 0.into(), "port 0"),
            (|v| v["groups"][0]["rules"][0]["port"] = "http".into(), "neither `*` nor a value"),
            (|v| v["groups"][0]["rules"][0]["filter"] = "on_ipid".into(), "tear TCP connections"),
            (|v| v["groups"][0]["rules"][0]["proto"] = "arp".into(), "vmac_invisible"),
            (|v| v["groups"][0]["rules"][0]["address"] = "10.0.0.51".into(), "no virtual address"),
            (|v| v["groups"][0]["rules"][0]["address"] = "ten".into(), "neither `*` nor a value"),
        ];
        for (change, words) in cases {
            let text = read(change).unwrap_err();
            assert!(text.contains(words), "{words}: {text}");
        }
        let ipid = read(|v| {
            v["addresses"][0]["address"] = "fd00::50".into();
            v["groups"][0]["rules"][0]["proto"] = "udp".into();
            v["groups"][0]["rules"][0]["filter"] = "on_ipid".into();
        });
        assert!(ipid.unwrap_err().contains("IPv6"));
    }
}
