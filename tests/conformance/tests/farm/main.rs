//! Cases F1–F10 of the conformance list: farms. Seen from outside: what clients are answered, and by whom.

mod chain;
mod faults;
mod scripts;
mod template;

use anyhow::{Context, Result, ensure};
use conformance::{Cluster, LATER, Module, SOON, Spec, wait};
use std::collections::{BTreeMap, BTreeSet};

const SCRIPTS: [&str; 3] = ["prestart", "start_both", "stop_both"];

/// A server of the application: says on each connection which node it is. It leads a session of its own, so that `stop_both`
/// finds it.
const START: &str = r#"#!/bin/sh
own=/srv/$SAFEMODULE
note() { echo "$(date +%s%N) $*" >>"$own/calls"; }
note begin start_both "$@"
for port in 80 81 82 83; do
    setsid perl -MSocket -e '
        $0 = "app-web $ARGV[0]"; $SIG{CHLD} = "IGNORE"; $node = `uname -n`;
        socket(S, PF_INET6, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
        bind(S, Socket::pack_sockaddr_in6($ARGV[0], Socket::IN6ADDR_ANY())) or die; listen(S, 1024) or die;
        open(R, ">", "/srv/web/ready.$ARGV[0]"); close(R);
        while (accept(C, S)) { syswrite(C, $node); close(C); }' $port </dev/null >/dev/null 2>&1 &
done
for port in 80 81 82 83; do
    while [ ! -e "$own/ready.$port" ]; do sleep 0.05; done
    rm -f "$own/ready.$port"
done
note end start_both "$@"
"#;

const STOP: &str = r#"#!/bin/sh
own=/srv/$SAFEMODULE
note() { echo "$(date +%s%N) $*" >>"$own/calls"; }
note begin stop_both "$@"
pkill -f '^app-web '
rm -f "$own"/ready.*
note end stop_both "$@"
exit 0
"#;

/// What a crash left running is stopped first.
const PRESTART: &str = "#!/bin/sh\npkill -f '^app-web '\nrm -f /srv/$SAFEMODULE/ready.*\nexit 0\n";

/// The scripts of the farm.
fn scripted(spec: Spec) -> Spec {
    spec.script("prestart", PRESTART).script("start_both", START).script("stop_both", STOP)
}

/// The farm `web` on these nodes, with this kind of MAC address and these groups.
fn farm<'a>(cluster: &'a Cluster, nodes: &[&str], mac: &str, groups: &str) -> Result<Module<'a>> {
    let xml = userconfig(cluster, mac, "", groups);
    cluster.configure(&scripted(Spec::whole("web", nodes, &xml, &SCRIPTS)))
}

/// Its configuration. `vip`: attributes of the element of this name.
fn userconfig(cluster: &Cluster, mac: &str, vip: &str, groups: &str) -> String {
    let address = self::vip(cluster);
    format!(
        r#"<!DOCTYPE safe>
<safe><service mode="farm" boot="auto">
  <farm pulse="100ms" slost_count="10"><lan name="default"/></farm>
  <vip {vip}><interface_list><interface check="on"><virtual_interface type="{mac}">
    <virtual_addr addr="{address}" where="alias"/>
  </virtual_interface></interface></interface_list>
  <loadbalancing_list>{groups}</loadbalancing_list></vip>
  <user/>
</service></safe>
"#
    )
}

fn vip(cluster: &Cluster) -> String {
    format!("{}.80", cluster.network())
}

const ONE_GROUP: &str = r#"<group name="FarmProto"><rule port="80" proto="tcp" filter="on_port"/></group>"#;

fn started(module: &Module<'_>, nodes: &[&str]) -> Result<()> {
    for node in nodes {
        module.order(node, &["start"])?;
    }
    for node in nodes {
        module.reaches(node, "UP Ready", SOON)?;
    }
    Ok(())
}

/// Waits until the last load that a node logged for a group is this one.
fn load_is(module: &Module<'_>, node: &str, group: &str, wanted: &str) -> Result<()> {
    let ending = format!(" (group {group})");
    wait::until(&format!("farm load of {node}: {wanted} in {group}"), SOON, || {
        let log = module.log(node);
        let last = log.lines().rev().find(|l| l.contains("farm load: ") && l.ends_with(&ending)).unwrap_or_default();
        if last.contains(&format!("farm load: {wanted} ")) { Ok(()) } else { Err(last.to_owned()) }
    })
}

/// The 256 entries of a group as a node has them.
fn bitmap(module: &Module<'_>, node: &str, group: &str) -> Result<String> {
    let document = module.document(node)?;
    let groups = document["farm"]["groups"].as_array().context("no groups")?;
    let found = groups.iter().find(|g| g["group"] == group).with_context(|| format!("no {group} in {document}"))?;
    Ok(found["bitmap"].as_str().context("no bitmap")?.to_owned())
}

fn bits(text: &str) -> Result<Vec<bool>> {
    let digits: String = text.split_whitespace().collect();
    ensure!(digits.len() == 64 && text.split_whitespace().count() == 8, "not eight groups of eight digits: {text}");
    let mut bits = Vec::new();
    for digit in digits.chars() {
        let value = digit.to_digit(16).with_context(|| format!("no hex digit: {digit}"))?;
        bits.extend((0..4).rev().map(|bit| value >> bit & 1 == 1));
    }
    Ok(bits)
}

/// Every entry has exactly one owner; how many each node has.
fn exactly_once(module: &Module<'_>, nodes: &[&str], group: &str) -> Result<Vec<usize>> {
    wait::until(&format!("{group}: each entry owned once by {nodes:?}"), SOON, || {
        let try_once = || -> Result<Vec<usize>> {
            let maps = nodes.iter().map(|n| bits(&bitmap(module, n, group)?)).collect::<Result<Vec<_>>>()?;
            for entry in 0..256 {
                let owners = maps.iter().filter(|m| m[entry]).count();
                ensure!(owners == 1, "entry {entry} has {owners} owners");
            }
            Ok(maps.iter().map(|m| m.iter().filter(|b| **b).count()).collect())
        };
        try_once().map_err(|error| format!("{error:#}"))
    })
}

/// Makes `count` connections to a port of the address, from a host; how many each node answered. One that nobody answers
/// within `patience` seconds counts for `nobody`, a refused one for `refused`.
fn ask(cluster: &Cluster, from: &str, port: u16, count: u32, patience: f64) -> Result<BTreeMap<String, u32>> {
    ask_at(cluster, from, &vip(cluster), port, count, patience)
}

fn ask_at(
    cluster: &Cluster,
    from: &str,
    address: &str,
    port: u16,
    count: u32,
    patience: f64,
) -> Result<BTreeMap<String, u32>> {
    let script = r#"
        use Socket; use IO::Socket::IP; use IO::Select;
        my ($address, $port, $count, $patience) = @ARGV; my %seen;
        for (1 .. $count) {
            my $socket = IO::Socket::IP->new(PeerHost => $address, PeerPort => $port, Type => SOCK_STREAM, Timeout => $patience);
            if (!$socket) { $seen{$!{ECONNREFUSED} ? "refused" : "nobody"}++; next }
            my $text = IO::Select->new($socket)->can_read($patience) ? <$socket> : undef;
            $text = "silence" unless defined $text; chomp $text; $seen{$text}++;
        }
        print map { "$_ $seen{$_}\n" } sort keys %seen;"#;
    let port = port.to_string();
    let (count, patience) = (count.to_string(), patience.to_string());
    let text = cluster.lab.exec(from, &["perl", "-e", script, address, &port, &count, &patience])?;
    text.lines()
        .map(|line| {
            let (who, times) = line.split_once(' ').with_context(|| format!("not an answer: {line:?}"))?;
            Ok((who.to_owned(), times.parse()?))
        })
        .collect()
}

/// Connections are answered by exactly these nodes, all of them, none refused.
fn answered_by(cluster: &Cluster, from: &str, port: u16, nodes: &[&str]) -> Result<BTreeMap<String, u32>> {
    let wanted: BTreeSet<&str> = nodes.iter().copied().collect();
    wait::until(&format!("answers of {nodes:?} to {from}"), SOON, || {
        let seen = ask(cluster, from, port, 60, 3.0).map_err(|error| format!("{error:#}"))?;
        let who: BTreeSet<&str> = seen.keys().map(String::as_str).collect();
        if who == wanted { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
}

/// MAC address that a client has for the address after a ping; separators as `ip neigh` writes them.
fn neighbour(cluster: &Cluster, from: &str) -> Result<String> {
    let address = vip(cluster);
    wait::until("an answer to ping and ARP", SOON, || {
        let line =
            format!("ip neigh flush to {address}; ping -c 1 -W 2 {address} >/dev/null; ip neigh show to {address}");
        let text = cluster.lab.sh(from, &line).map_err(|error| format!("{error:#}"))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|w| *w == "lladdr").ok_or_else(|| text.clone())?;
        words.get(at + 1).map(|mac| (*mac).to_owned()).ok_or(text.clone())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f01_start_on_all_nodes() -> Result<()> {
    Cluster::up("f01", 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        for node in nodes {
            module.in_order(
                node,
                "Action start called by",
                &[
                    "Local state WAIT Transient",
                    "Local state UP Transient",
                    "Script start_both",
                    "Local state UP Ready",
                ],
            )?;
            ensure!(module.times(node, "start_both")? == 1);
            let code = cluster.lab.try_exec(node, &["safekit", "state", "-m", "web", "-lq"])?.status.code();
            ensure!(code == Some(2), "UP is 2, not {code:?}");
        }
        answered_by(cluster, "client", 80, &nodes)?;
        cluster.lab.exec("node1", &["sk-health", "check", "web"])?;
        let plan = module.order("node1", &["plan", "WAIT", "UP"])?;
        let at = |words: &str| plan.find(words).with_context(|| format!("no {words:?} in {plan}"));
        ensure!(
            at("addresses: hold")? < at("start_both WAIT UP start")? && at("start_both WAIT")? < at("traffic open")?,
            "{plan}"
        );
        module.refused("node1", &["plan", "WAIT", "PRIM"], 1)?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f02_stop_on_one_node() -> Result<()> {
    Cluster::up("f02", 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        answered_by(cluster, "client", 80, &nodes)?;
        // Clients go on asking meanwhile: a stop in good order refuses none.
        let during = std::thread::scope(|scope| {
            let clients = scope.spawn(|| ask(cluster, "client", 80, 3000, 5.0));
            module.order("node2", &["stop", "--wait"])?;
            clients.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
        })?;
        ensure!(!during.contains_key("refused") && !during.contains_key("nobody"), "{during:?}");
        module.in_order(
            "node2",
            "Action stop called by",
            &["Script stop_both", "Local state WAIT Transient", "Local state STOP NotReady"],
        )?;
        for node in ["node1", "node3"] {
            module.reaches(node, "UP Ready", SOON)?;
            ensure!(
                module.times(node, "start_both")? == 1 && module.times(node, "stop_both")? <= 1,
                "{node} was touched"
            );
        }
        answered_by(cluster, "client", 80, &["node1", "node3"])?;
        // Nothing is left: no address, no filter.
        let left =
            cluster.lab.sh("node2", &format!("ip address show | grep -F {} || true; nft list tables", vip(cluster)))?;
        ensure!(!left.contains(&vip(cluster)) && !left.contains("web"), "left behind: {left}");
        // Nor does a start refuse any.
        let during = std::thread::scope(|scope| {
            let clients = scope.spawn(|| ask(cluster, "client", 80, 3000, 5.0));
            module.order("node2", &["start", "--wait"])?;
            clients.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
        })?;
        ensure!(!during.contains_key("refused") && !during.contains_key("nobody"), "{during:?}");
        answered_by(cluster, "client", 80, &nodes).map(drop)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f03_restart_on_one_node() -> Result<()> {
    Cluster::up("f03", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        answered_by(cluster, "client", 80, &nodes)?;
        let during = std::thread::scope(|scope| {
            let clients = scope.spawn(|| ask(cluster, "client", 80, 3000, 5.0));
            module.order("node1", &["restart", "--wait"])?;
            clients.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
        })?;
        ensure!(!during.contains_key("refused") && !during.contains_key("nobody"), "{during:?}");
        module.in_order(
            "node1",
            "Action restart called by",
            &["Local state UP Transient", "Script stop_both", "Script start_both", "Local state UP Ready"],
        )?;
        answered_by(cluster, "client", 80, &nodes).map(drop)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f04_arp_table_of_clients() -> Result<()> {
    Cluster::up("f04", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        for client in ["client", "witness"] {
            let mac = neighbour(cluster, client)?;
            ensure!(mac.starts_with("5a:fe:"), "vmac_invisible: {mac}");
        }
        module.everywhere(&["stop", "--wait"])?;

        let module = farm(cluster, &nodes, "vmac_directed", ONE_GROUP)?;
        started(&module, &nodes)?;
        let mut real = BTreeSet::new();
        for node in nodes {
            let line = format!(
                "cat /sys/class/net/$(ip -o -4 address show | awk '$2 != \"lo\" && $4 ~ /^{}\\./ {{print $2; exit}}')/address",
                cluster.network()
            );
            real.insert(cluster.lab.sh(node, &line)?.trim().to_owned());
        }
        ensure!(real.len() == 2, "{real:?}");
        for client in ["client", "witness"] {
            let mac = neighbour(cluster, client)?;
            ensure!(real.contains(&mac), "vmac_directed: {mac} is none of {real:?}");
        }
        answered_by(cluster, "client", 80, &nodes).map(drop)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f05_connections_are_shared_out() -> Result<()> {
    Cluster::up("f05", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        for node in nodes {
            load_is(&module, node, "FarmProto_0", "128/256")?;
            module.resource_is(node, "farm.FarmProto_0", "50%")?;
            module.logged(node, "farm membership: node1 node2 (group FarmProto_0)", 1)?;
        }
        ensure!(exactly_once(&module, &nodes, "FarmProto_0")? == [128, 128]);
        let list = cluster.lab.exec("node1", &["safekit", "-m", "web", "-r", "vip_if_ctrl", "-l"])?;
        ensure!(list.trim() == format!("FarmProto_0:\n  {}", bitmap(&module, "node1", "FarmProto_0")?), "{list}");
        let seen = ask(cluster, "client", 80, 1000, 3.0)?;
        let counts: Vec<u32> = nodes.iter().map(|n| seen.get(*n).copied().unwrap_or(0)).collect();
        ensure!(counts.iter().sum::<u32>() == 1000, "refused or unanswered: {seen:?}");
        ensure!(counts.iter().all(|c| (400..=600).contains(c)), "far from one half each: {seen:?}");
        // What no rule names is refused, though the application listens.
        let other = ask(cluster, "client", 81, 3, 1.0)?;
        ensure!(other.keys().all(|k| k == "refused" || k == "nobody"), "{other:?}");
        let state = module.order("node1", &["state"])?;
        ensure!(state.contains("FarmProto_0 50% (128/256)") && state.contains("open node1 node2"), "{state}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f06_the_last_one_has_all() -> Result<()> {
    Cluster::up("f06", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        load_is(&module, "node1", "FarmProto_0", "128/256")?;
        module.order("node2", &["stop", "--wait"])?;
        load_is(&module, "node1", "FarmProto_0", "256/256")?;
        module.resource_is("node1", "farm.FarmProto_0", "100%")?;
        ensure!(exactly_once(&module, &["node1"], "FarmProto_0")? == [256]);
        ensure!(bitmap(&module, "node1", "FarmProto_0")? == ["ffffffff"; 8].join(" "));
        answered_by(cluster, "client", 80, &["node1"]).map(drop)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f07_partition() -> Result<()> {
    Cluster::up("f07", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        load_is(&module, "node1", "FarmProto_0", "128/256")?;
        // Two sides: node1 with the client, node2 with the witness.
        for (one, other) in [("node1", "node2"), ("node1", "witness"), ("client", "node2"), ("client", "witness")] {
            cluster.lab.run(&["cut", one, other])?;
        }
        for (node, client) in [("node1", "client"), ("node2", "witness")] {
            load_is(&module, node, "FarmProto_0", "256/256")?;
            answered_by(cluster, client, 80, &[node])?;
        }
        module.logged("node1", "Lost contact from node2", 1)?;
        cluster.lab.run(&["heal"])?;
        for node in nodes {
            load_is(&module, node, "FarmProto_0", "128/256")?;
        }
        exactly_once(&module, &nodes, "FarmProto_0")?;
        for node in nodes {
            module.reaches(node, "UP Ready", SOON)?;
            ensure!(module.times(node, "start_both")? == 1, "{node} was stopped");
            answered_by(cluster, "client", 80, &nodes)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f08_every_node_answers_a_ping() -> Result<()> {
    Cluster::up("f08", 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        let answers = |client: &str| -> Result<usize> {
            // Without a limit of answers ping would leave after the first.
            let line = format!("ping -W 2 -w 3 -i 100 {} || true", vip(cluster));
            Ok(cluster
                .lab
                .sh(client, &line)?
                .lines()
                .filter(|l| l.contains("bytes from") && l.contains("icmp_seq=1 "))
                .count())
        };
        let expect = |wanted: usize| {
            wait::until(&format!("{wanted} answers to one ping"), SOON, || match answers("client") {
                Ok(seen) if seen == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            })
        };
        expect(3)?;
        module.order("node3", &["stop", "--wait"])?;
        expect(2)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f09_power_off_of_one() -> Result<()> {
    Cluster::up("f09", 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0")?;
        cluster.lab.run(&["poweroff", "node2"])?;
        let rest = ["node1", "node3"];
        answered_by(cluster, "client", 80, &rest)?;
        ensure!(exactly_once(&module, &rest, "FarmProto_0")? == [128, 128]);
        for node in rest {
            module.reaches(node, "UP Ready", SOON)?;
            ensure!(module.times(node, "start_both")? == 1, "{node} was touched");
        }
        cluster.lab.run(&["boot", "node2"])?;
        module.reaches("node2", "UP Ready", LATER)?;
        module.in_order("node2", "Action start called at boot time", &["Script start_both", "Local state UP Ready"])?;
        answered_by(cluster, "client", 80, &nodes)?;
        let shares = exactly_once(&module, &nodes, "FarmProto_0")?;
        ensure!(shares.iter().all(|s| (85..=86).contains(s)), "{shares:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn f10_unequal_powers_and_several_groups() -> Result<()> {
    Cluster::up("f10", 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        let hosts = |powers: [u32; 3]| {
            let list: Vec<String> =
                nodes.iter().zip(powers).map(|(n, p)| format!(r#"<host name="{n}" power="{p}"/>"#)).collect();
            format!("<cluster>{}</cluster>", list.concat())
        };
        let group = |name: &str, powers: [u32; 3], port: u16| {
            format!(
                r#"<group name="{name}">{}<rule port="{port}" proto="tcp" filter="on_port"/></group>"#,
                hosts(powers)
            )
        };
        let groups = [
            group("Unequal", [2, 1, 1], 80),
            group("Without", [1, 0, 3], 81),
            group("Chain", [1, 64, 4096], 82),
            r#"<group name="Equal"><rule port="83" proto="tcp" filter="on_addr"/></group>"#.to_owned(),
        ];
        let module = farm(cluster, &nodes, "vmac_invisible", &groups.concat())?;
        started(&module, &nodes)?;
        ensure!(exactly_once(&module, &nodes, "Unequal_0")? == [128, 64, 64]);
        ensure!(exactly_once(&module, &nodes, "Without_1")? == [64, 0, 192]);
        ensure!(exactly_once(&module, &nodes, "Chain_2")? == [0, 0, 256]);
        exactly_once(&module, &nodes, "Equal_3")?;
        module.resource_is("node1", "farm.Unequal_0", "50%")?;
        module.resource_is("node2", "farm.Without_1", "0%")?;
        let asks = [
            "sk-farmfilter who 192.0.2.7:40000",
            "sk-farmfilter show -m AM",
            "safekit -m AM -r vip_if_ctrl -l",
            "safekit state -m AM -v",
            "sk-module state -m AM -v",
            "sk-module explain -m AM",
            "sk-vip show",
            "sk-module rules -m AM",
            "sk-module history -m AM",
            "sk-module list",
            "sk-top",
        ];
        module.fits("node1", &asks)?;

        // What clients see.
        let seen = ask(cluster, "client", 80, 1000, 3.0)?;
        let of = |node: &str| seen.get(node).copied().unwrap_or(0);
        ensure!((400..=600).contains(&of("node1")) && (180..=320).contains(&of("node2")), "{seen:?}");
        let seen = ask(cluster, "client", 81, 400, 3.0)?;
        ensure!(seen.keys().map(String::as_str).collect::<Vec<_>>() == ["node1", "node3"], "{seen:?}");
        answered_by(cluster, "client", 82, &["node3"])?;
        for client in ["client", "witness"] {
            let seen = ask(cluster, client, 83, 50, 3.0)?;
            ensure!(seen.len() == 1, "a client stays with its node: {seen:?}");
        }

        // Survivors share by their powers; the next of the chain takes all.
        cluster.lab.run(&["poweroff", "node3"])?;
        let rest = ["node1", "node2"];
        wait::until("shares of the survivors", SOON, || {
            let shares = exactly_once(&module, &rest, "Unequal_0").map_err(|error| format!("{error:#}"))?;
            if shares == [171, 85] || shares == [170, 86] { Ok(()) } else { Err(format!("{shares:?}")) }
        })?;
        ensure!(exactly_once(&module, &rest, "Without_1")? == [256, 0]);
        ensure!(exactly_once(&module, &rest, "Chain_2")? == [0, 256]);
        answered_by(cluster, "client", 82, &["node2"])?;
        answered_by(cluster, "client", 81, &["node1"]).map(drop)
    })
}
