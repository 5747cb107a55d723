//! Which nftables rules share the traffic of the addresses? Pure: text for `nft -f -`.
//!
//! Three things are decided at the ingress of the interface, before the IP stack: whether this node may accept at all (the
//! element of the address in `lease4` or `lease6`, which ends by itself), which bucket a packet is in (the kernel's own
//! hash), and what becomes of packets of that bucket (the map of the group). For buckets that changed hands while others
//! live, the input of the IP stack looks whether the connection is here: a packet with a socket that is not a listener.
//! No connection tracking is needed, and none is used.

use crate::mark::{BASE, FOR_ALL, SEED};
use crate::spec::{Group, Key, Mode, Proto, Rule, rules_of};
use net::Mac;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// An address on its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub address: IpAddr,
    pub interface: String,
    pub mode: Mode,
    /// What neighbours are told.
    pub told_mac: Mac,
    /// The interface's own IPv4 address, which asks for neighbours instead of the virtual one.
    pub own_ipv4: Option<Ipv4Addr>,
}

/// What the rules are made of.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    pub module: &'a str,
    pub addresses: &'a [Placed],
    pub groups: &'a [Group],
    /// How many nodes the farm has.
    pub nodes: usize,
}

/// The name of the module's tables.
pub fn table(module: &str) -> String {
    format!("sk_{module}")
}

/// The chain that a lease of the address with this number leads to.
pub fn chain(number: usize) -> String {
    format!("vip{number}")
}

/// The chain that a lease leads to while everything is this node's own: no bucket need be computed.
pub fn whole(number: usize) -> String {
    format!("vip{number}_whole")
}

/// The names of a group's map and counters.
pub fn group(number: usize) -> String {
    format!("g{number}")
}

/// The counter of what a group's filter drops.
pub fn dropped(group: &str) -> String {
    format!("{group}_dropped")
}

/// The map of old owners in the tables of the IP stack.
pub fn former(node: usize) -> String {
    format!("former{node}")
}

/// The map with a node's address, for what goes to all.
pub fn peer(node: usize) -> String {
    format!("peer{node}")
}

impl Plan<'_> {
    pub fn has(&self, v6: bool) -> bool {
        self.addresses.iter().any(|a| a.address.is_ipv6() == v6)
    }

    pub fn directed(&self, v6: bool) -> bool {
        self.addresses.iter().any(|a| a.address.is_ipv6() == v6 && a.mode == Mode::VmacDirected)
    }

    /// All tables, replacing those of the same names in one transaction.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.netdev(&mut out);
        for v6 in [false, true] {
            if self.has(v6) {
                self.stack(&mut out, v6);
            }
        }
        if self.has(false) {
            self.arp(&mut out);
        }
        out
    }

    /// Begins a table, whether it is there already or not.
    fn begin(&self, out: &mut String, family: &str) {
        let name = table(self.module);
        let _ = writeln!(out, "table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{");
    }

    fn netdev(&self, out: &mut String) {
        self.begin(out, "netdev");
        out.push_str("\t# Address to its rules, while this node may accept; renewed all the time, gone by itself.\n");
        for (v6, name, kind) in [(false, "lease4", "ipv4_addr"), (true, "lease6", "ipv6_addr")] {
            if self.has(v6) {
                let _ = writeln!(out, "\tmap {name} {{ type {kind} : verdict; flags timeout; size 128; }}");
            }
        }
        for (number, spec) in self.groups.iter().enumerate() {
            let name = group(number);
            let _ = writeln!(
                out,
                "\t# Group {}: bucket to mark; 0: ours, 0x5a..01..: ours, others have old connections, 0x5a..02..: old \
                 connections only.\n\
                 \tmap {name} {{ type mark : mark; size 512; }}\n\
                 \tcounter {name}_accepted {{ }}\n\
                 \tcounter {name}_connections {{ }}\n\
                 \tcounter {name}_dropped {{ }}",
                spec.name
            );
        }
        for (v6, name, kind) in [(false, "to4", "ipv4_addr"), (true, "to6", "ipv6_addr")] {
            if self.directed(v6) {
                let _ = writeln!(
                    out,
                    "\t# Bucket to the node that owns it.\n\tmap {name} {{ type mark : {kind}; size 16384; }}"
                );
            }
        }
        out.push_str("\tcounter unmatched { }\n\tcounter closed { }\n");
        for number in 0..self.groups.len() {
            verdicts(out, &group(number));
        }
        for (number, placed) in self.addresses.iter().enumerate() {
            self.address(out, number, placed);
        }
        let interfaces: BTreeSet<&str> = self.addresses.iter().map(|a| a.interface.as_str()).collect();
        for (number, interface) in interfaces.into_iter().enumerate() {
            let _ = writeln!(
                out,
                "\tchain ingress{number} {{\n\t\ttype filter hook ingress device \"{interface}\" priority 0; policy accept;"
            );
            let here = |v6: bool| {
                let all = self.addresses.iter().filter(|a| a.interface == interface && a.address.is_ipv6() == v6);
                all.map(|a| a.address.to_string()).collect::<Vec<_>>().join(", ")
            };
            let (v4, v6) = (here(false), here(true));
            if !v4.is_empty() {
                let _ =
                    writeln!(out, "\t\tip daddr vmap @lease4\n\t\tip daddr {{ {v4} }} counter name \"closed\" drop");
            }
            if !v6.is_empty() {
                let _ = writeln!(
                    out,
                    "\t\tip6 daddr vmap @lease6\n\
                     \t\tip6 daddr {{ {v6} }} icmpv6 type nd-neighbor-solicit accept\n\
                     \t\tip6 daddr {{ {v6} }} counter name \"closed\" drop"
                );
            }
            out.push_str("\t}\n");
        }
        out.push_str("}\n");
    }

    /// The chains of one address: which rule, which bucket.
    fn address(&self, out: &mut String, number: usize, placed: &Placed) {
        let v6 = placed.address.is_ipv6();
        let rules: Vec<(usize, &Rule)> = rules_of(self.groups, placed.address).collect();
        let ways: BTreeSet<(usize, Proto, Key)> = rules.iter().map(|(g, r)| (*g, r.proto, r.filter)).collect();
        for way in &ways {
            let (g, proto, key) = *way;
            let name = group(g);
            let hash = hash(g, proto, key, v6);
            // Datagrams have no connections: old owners take none.
            let verdict = if proto == Proto::Tcp { "goto" } else { "meta mark & 0x0000ff00 != 0x00000200 goto" };
            let _ = writeln!(
                out,
                "\tchain {} {{\n\t\t{hash} meta mark set meta mark map @{name} {verdict} {name}_{}",
                way_chain(number, *way),
                proto_word(proto)
            );
            if placed.mode == Mode::VmacDirected {
                pass_on(out, &name, placed);
            }
            let _ = writeln!(out, "\t\tcounter name \"{name}_dropped\" drop\n\t}}");
        }
        let fragments = rules.iter().any(|(_, r)| r.proto == Proto::Udp);
        if fragments {
            // Parts of a datagram after the first bear no ports. Those of clients that may be ours are let through; parts
            // whose first one was dropped are forgotten by the IP stack.
            let udp: Vec<_> = ways.iter().filter(|(_, proto, _)| *proto == Proto::Udp).collect();
            let anybody = udp.iter().any(|(.., key)| *key == Key::Port);
            let directed = placed.mode == Mode::VmacDirected;
            let _ = writeln!(out, "\tchain {}_parts {{", chain(number));
            if anybody || (directed && udp.len() > 1) {
                if directed {
                    for_all(out, v6, "");
                }
                out.push_str("\t\tmeta pkttype set host accept\n");
            } else {
                for (g, proto, key) in udp {
                    let _ = writeln!(
                        out,
                        "\t\t{} meta mark set meta mark map @{} meta mark & 0x0000ff00 != 0x00000200 meta mark set 0 \
                         meta pkttype set host accept",
                        hash(*g, *proto, *key, v6),
                        group(*g)
                    );
                    if directed {
                        pass_on(out, &group(*g), placed);
                    }
                }
            }
            out.push_str("\t\tcounter name \"unmatched\" drop\n\t}\n");
        }
        for is_whole in [true, false] {
            let name = if is_whole { whole(number) } else { chain(number) };
            let _ = writeln!(out, "\tchain {name} {{");
            for (g, rule) in &rules {
                let proto = proto_word(rule.proto);
                let matching = match rule.port {
                    crate::spec::Any::One(port) => format!("{proto} dport {port}"),
                    crate::spec::Any::All => format!("meta l4proto {proto}"),
                };
                let to = if is_whole {
                    format!("{}_{proto}", group(*g))
                } else {
                    way_chain(number, (*g, rule.proto, rule.filter))
                };
                let _ = writeln!(out, "\t\t{matching} goto {to}");
            }
            if fragments {
                let later = if v6 { "frag frag-off != 0" } else { "ip frag-off & 0x1fff != 0" };
                let to = if is_whole {
                    "meta pkttype set host accept".to_owned()
                } else {
                    format!("goto {}_parts", chain(number))
                };
                let _ = writeln!(out, "\t\t{later} {to}");
            }
            messages(out, placed, is_whole);
        }
    }

    /// Inside the IP stack: addresses are reached through their interface only, and buckets that changed hands.
    fn stack(&self, out: &mut String, v6: bool) {
        let family = if v6 { "ip6" } else { "ip" };
        self.begin(out, family);
        let here: Vec<&Placed> = self.addresses.iter().filter(|a| a.address.is_ipv6() == v6).collect();
        let all = here.iter().map(|a| a.address.to_string()).collect::<Vec<_>>().join(", ");
        let directed = here.iter().find(|a| a.mode == Mode::VmacDirected);
        out.push_str("\tcounter not_here { }\n");
        if directed.is_some() {
            let (kind, to) = if v6 { ("ipv6_addr", "to6") } else { ("ipv4_addr", "to4") };
            let _ = writeln!(
                out,
                "\t# Where packets go whose connection is not here: to the owner, or to nodes with old connections.\n\
                 \tmap {to} {{ type mark : {kind}; size 16384; }}"
            );
            for node in 0..self.nodes {
                let _ = writeln!(
                    out,
                    "\tmap {} {{ type mark : {kind}; size 16384; }}\n\tmap {} {{ type mark : {kind}; size 1; }}",
                    former(node),
                    peer(node)
                );
            }
        }
        let hops = if v6 { "ip6 hoplimit" } else { "ip ttl" };
        if let Some(placed) = directed {
            let _ = writeln!(out, "\tchain for_all {{\n\t\t{hops} set 3");
            for node in 0..self.nodes {
                let _ = writeln!(out, "\t\tdup to meta mark map @{} device \"{}\"", peer(node), placed.interface);
            }
            out.push_str("\t\tmeta mark set 0\n\t}\n");
        }
        // Before parts of datagrams are put together, which happens at -400 where connections are tracked.
        out.push_str("\tchain elsewhere {\n\t\ttype filter hook prerouting priority -450; policy accept;\n");
        for placed in &here {
            let _ = writeln!(
                out,
                "\t\t{family} daddr {} iifname != {{ \"lo\", \"{}\" }} drop",
                placed.address, placed.interface
            );
        }
        if directed.is_some() {
            let _ = writeln!(out, "\t\tmeta mark {FOR_ALL:#x} goto for_all");
        }
        out.push_str("\t}\n\tchain not_here {\n");
        if let Some(placed) = directed {
            let to = if v6 { "to6" } else { "to4" };
            let _ = writeln!(out, "\t\t{hops} 1 counter name \"not_here\" drop\n\t\t{hops} > 3 {hops} set 3");
            for map in std::iter::once(to.to_owned()).chain((0..self.nodes).map(former)) {
                let _ = writeln!(out, "\t\tdup to meta mark map @{map} device \"{}\"", placed.interface);
            }
        }
        let invisible: Vec<String> =
            here.iter().filter(|a| a.mode == Mode::VmacInvisible).map(|a| a.address.to_string()).collect();
        let mut forgotten = String::new();
        if !invisible.is_empty() {
            let _ = writeln!(
                forgotten,
                "\t\t{family} daddr {{ {} }} tcp flags & fin == fin socket transparent <= 1 meta mark set 0 accept",
                invisible.join(", ")
            );
        }
        if directed.is_some() {
            let _ = writeln!(forgotten, "\t\t{hops} < 3 socket transparent <= 1 meta mark set 0 accept");
        }
        let _ = writeln!(
            out,
            "\t\tcounter name \"not_here\" drop\n\t}}\n\
             \tchain changed_hands {{\n\
             \t\ttcp flags & (syn | ack) == syn meta mark & 0x0000ff00 == 0x00000100 meta mark set 0 accept\n\
             \t\ttcp flags & (syn | ack) == syn goto not_here\n\
             \t\t# The stack found a connection, or one that is being opened.\n\
             \t\tmeta cgroup >= 0 meta mark set 0 accept\n\
             \t\t# A listener, or a socket of another kind.\n\
             \t\tsocket wildcard <= 1 goto not_here\n\
             \t\t# A connection that is being forgotten. In a bucket given away, its client may have used the port again for a\n\
             \t\t# connection to the owner: only ends that the owner could not place are for this node.\n\
             \t\tmeta mark & 0x0000ff00 == 0x00000100 socket transparent <= 1 meta mark set 0 accept\n\
{forgotten}\
             \t\tgoto not_here\n\
             \t}}\n\
             \tchain input {{\n\
             \t\ttype filter hook input priority -310; policy accept;\n\
             \t\tmeta mark & 0xff000000 == {BASE:#x} {family} daddr {{ {all} }} goto changed_hands\n\
             \t}}\n}}"
        );
    }

    /// The kernel does not answer for virtual addresses: the daemon does. Nor does it ask in their name.
    fn arp(&self, out: &mut String) {
        self.begin(out, "arp");
        out.push_str("\tchain in {\n\t\ttype filter hook input priority 0; policy accept;\n");
        let v4 = || self.addresses.iter().filter(|a| a.address.is_ipv4());
        for placed in v4() {
            let _ = writeln!(out, "\t\tarp operation request arp daddr ip {} drop", placed.address);
        }
        out.push_str("\t}\n\tchain out {\n\t\ttype filter hook output priority 0; policy accept;\n");
        for placed in v4() {
            let own = placed.own_ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let _ = writeln!(out, "\t\tarp operation request arp saddr ip {} arp saddr ip set {own}", placed.address);
        }
        out.push_str("\t}\n}\n");
    }
}

fn proto_word(proto: Proto) -> &'static str {
    if proto == Proto::Tcp { "tcp" } else { "udp" }
}

fn way_chain(address: usize, (g, proto, key): (usize, Proto, Key)) -> String {
    let proto = proto_word(proto);
    let key = match key {
        Key::Addr => "addr",
        Key::Port => "port",
        Key::Ipid => "ipid",
    };
    format!("{}_{}_{proto}_{key}", chain(address), group(g))
}

fn hash(g: usize, proto: Proto, key: Key, v6: bool) -> String {
    let source = if v6 { "ip6 saddr" } else { "ip saddr" };
    let what = match (key, proto) {
        (Key::Addr, _) => source.to_owned(),
        (Key::Port, Proto::Tcp) => format!("{source} . tcp sport"),
        (Key::Port, _) => format!("{source} . udp sport"),
        (Key::Ipid, _) => "ip id".to_owned(),
    };
    format!("meta mark set jhash {what} mod 256 seed {SEED:#x} offset {}", crate::mark::bucket_mark(g, 0))
}

/// The end of an address's chain. Echo: every node that is up answers. Errors about packets of ours: whoever has the
/// connection takes them.
fn messages(out: &mut String, placed: &Placed, is_whole: bool) {
    let v6 = placed.address.is_ipv6();
    if placed.mode == Mode::VmacDirected && !is_whole {
        let errors = if v6 {
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"
        } else {
            "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
        };
        for_all(out, v6, &format!("{errors} limit rate 1000/second burst 200 packets "));
    }
    if v6 {
        out.push_str(
            "\t\ticmpv6 type nd-neighbor-solicit accept\n\t\tmeta l4proto ipv6-icmp meta pkttype set host accept\n",
        );
    } else {
        out.push_str("\t\tmeta l4proto icmp meta pkttype set host accept\n");
    }
    out.push_str("\t\tcounter name \"unmatched\" drop\n\t}\n");
}

/// A directed node sends what is another's to that one. What was passed on is not passed on again here: it is sent with
/// three hops left, one of which the sending takes. The owner may send it to a node with old connections, then with two.
fn pass_on(out: &mut String, group: &str, placed: &Placed) {
    let (hops, to) = if placed.address.is_ipv6() {
        ("ip6 hoplimit", "ip6 to meta mark map @to6")
    } else {
        ("ip ttl", "ip to meta mark map @to4")
    };
    let _ = writeln!(
        out,
        "\t\t{hops} < 3 counter name \"{group}_dropped\" drop\n\t\t{hops} set 3 fwd {to} device \"{}\"",
        placed.interface
    );
}

/// What nobody can say whose it is a directed node takes itself and sends to all others, which pass it on no further.
fn for_all(out: &mut String, v6: bool, what: &str) {
    let hops = if v6 { "ip6 hoplimit" } else { "ip ttl" };
    let _ = writeln!(out, "\t\t{hops} >= 3 {what}meta mark set {FOR_ALL:#x} meta pkttype set host accept");
}

/// What becomes of packets of buckets in the map of a group.
fn verdicts(out: &mut String, name: &str) {
    let accept = format!("meta pkttype set host counter name \"{name}_accepted\" accept");
    let _ = writeln!(
        out,
        "\tchain {name}_syn {{\n\
         \t\tmeta mark & 0x0000ff00 == 0x00000200 meta pkttype set host accept\n\
         \t\tcounter name \"{name}_connections\"\n\
         \t\t{accept}\n\
         \t}}\n\
         \tchain {name}_tcp {{\n\
         \t\ttcp flags & (syn | ack) == syn goto {name}_syn\n\
         \t\t{accept}\n\
         \t}}\n\
         \tchain {name}_udp {{\n\
         \t\tmeta mark set 0 {accept}\n\
         \t}}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::read;
    use serde_json::json;

    /// A farm with everything at once.
    pub fn everything() -> (crate::spec::Spec, Vec<Placed>) {
        let spec = read(|v| {
            v["addresses"] = json!([
                {"address": "10.0.0.50", "mode": "vmac_invisible"}, {"address": "fd00::50", "mode": "vmac_invisible"},
                {"address": "10.0.0.51", "mode": "vmac_directed"}, {"address": "fd00::51", "mode": "vmac_directed"}]);
            v["groups"] = json!([
                {"name": "web_0", "rules": [
                    {"port": 80, "proto": "tcp", "filter": "on_addr"}, {"port": 443, "proto": "tcp", "filter": "on_port"}]},
                {"name": "dns_1", "rules": [{"address": "10.0.0.50", "port": 53, "proto": "udp", "filter": "on_ipid"},
                    {"port": 123, "proto": "udp", "filter": "on_port"}, {"port": "*", "proto": "udp", "filter": "on_addr"},
                    {"address": "10.0.0.51", "proto": "arp", "filter": "on_addr"}]}]);
        })
        .unwrap();
        let placed = spec.addresses.iter().map(|w| Placed {
            address: w.address,
            interface: "eth0".into(),
            mode: w.mode,
            told_mac: w.virtual_mac(w.address),
            own_ipv4: Some("10.0.0.1".parse().unwrap()),
        });
        let placed = placed.collect();
        (spec, placed)
    }

    fn text(change: impl FnOnce(&mut Vec<Placed>)) -> String {
        let (spec, mut placed) = everything();
        change(&mut placed);
        Plan { module: "AM", addresses: &placed, groups: &spec.groups, nodes: 3 }.text()
    }

    /// That the kernel takes it is shown by tests/farm.rs.
    #[test]
    fn an_address_has_the_rules_that_cover_it() {
        let text = text(|_| ());
        let chain = |name: &str| {
            let begin = text.find(&format!("\tchain {name} {{")).unwrap_or_else(|| panic!("no chain {name}:\n{text}"));
            text[begin..].split("\n\t}").next().unwrap().to_owned()
        };
        assert!(chain("vip0").contains("udp dport 53 goto vip0_g1_udp_ipid"));
        assert!(!chain("vip1").contains("53"), "the rule is for the first address only");
        assert!(
            chain("vip1_g0_tcp_port").contains("jhash ip6 saddr . tcp sport mod 256 seed 0x5afe offset 1509949440")
        );
        assert!(chain("vip0_g1_udp_ipid").contains("jhash ip id mod 256 seed 0x5afe offset 1510014976"));
        assert!(!chain("vip0_g0_tcp_addr").contains("fwd") && chain("vip2_g0_tcp_addr").contains("fwd ip to"));
        for vip in 0..4 {
            assert!(chain(&format!("vip{vip}")).ends_with("counter name \"unmatched\" drop"));
            let whole = chain(&format!("vip{vip}_whole"));
            assert!(whole.contains("tcp dport 80 goto g0_tcp") && !whole.contains("jhash"), "{whole}");
            assert!(whole.ends_with("counter name \"unmatched\" drop"));
        }
        assert_eq!(text.matches("type filter hook ingress device \"eth0\"").count(), 1);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn families_and_modes_that_are_not_there_have_no_rules() {
        let text = text(|placed| placed.retain(|p| p.address.is_ipv4() && p.mode == Mode::VmacInvisible));
        for word in ["ip6", "lease6", "fwd", "dup", "to4", "for_all"] {
            assert!(!text.contains(word), "{word}:\n{text}");
        }
        assert!(text.contains("table arp sk_AM"));
    }
}
