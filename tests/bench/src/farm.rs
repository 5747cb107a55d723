//! How much does sharing an address cost, compared with one server without a filter and with balancers? One lab, one run.

use crate::clients::{Clients, MANY_CONNECTIONS};
use crate::table::median;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use e2e::farm::{Farm, SOON, Timing, now_ms};
use e2e::wait;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const HAPROXY: u16 = 8080;
const NGINX: u16 = 8081;
/// Of all clients together.
const CONNECTIONS: u32 = 32;

/// What is measured.
pub struct Options<'a> {
    pub rounds: u32,
    pub seconds: u32,
    pub takeovers: u32,
    pub clients: u32,
    /// 1 to this many.
    pub servers: usize,
    /// Empty: all.
    pub only: &'a [Way],
    pub json: bool,
    /// Directory of this program and its helpers.
    pub bin: &'a Path,
}

/// A way from the client to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// One server by its own address: no filter, no balancer.
    Direct,
    /// The servers by an address that each has for itself; the clients' own routes spread their connections over them.
    /// Nothing is on the way, and nobody filters: nothing that shares an address can be faster on the same processors.
    Routed,
    Invisible,
    /// The same while hosts that are no part of the farm are on the switch, which floods frames to them, too: on this
    /// machine they are received by the processors that serve.
    InvisibleBystanders,
    Directed,
    Haproxy,
    Nginx,
}

impl Way {
    /// Whether the balancer's host is a part of it.
    fn is_balanced(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx)
    }
}

/// One run of the load.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Requests a second, each in a connection of its own.
    close: f64,
    /// Requests a second in 32 connections that stay.
    keep: f64,
    /// Mean microseconds of a request in one connection, nothing else going on.
    latency_us: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    way: Way,
    servers: u32,
    close_s: f64,
    keep_alive_s: f64,
    latency_us: f64,
    /// Of the same round's rate of the direct way; median.
    close_to_direct: Option<f64>,
    keep_alive_to_direct: Option<f64>,
    close_to_routed: Option<f64>,
    keep_alive_to_routed: Option<f64>,
    close_to_haproxy: Option<f64>,
    keep_alive_to_haproxy: Option<f64>,
}

/// A process on a host, killed when dropped.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn helper(farm: &Farm, host: &str, command: &[&str]) -> Result<Helper> {
    let mut exec = farm.lab.command(&[&["exec", host], command].concat());
    Ok(Helper(exec.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("run scripts/lab")?))
}

fn write(farm: &Farm, host: &str, path: &str, text: &str) -> Result<()> {
    std::fs::write(farm.lab.path(host, path).context("the host is off")?, text).with_context(|| path.to_owned())
}

/// nginx with one worker, as a server of a few bytes or as a balancer.
fn nginx(farm: &Farm, host: &str, http: &str) -> Result<Helper> {
    let text = format!(
        "worker_processes 1; daemon off; pid /run/nginx-bench.pid; error_log /dev/null;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; {http} }}\n"
    );
    write(farm, host, "/run/nginx-bench.conf", &text)?;
    helper(farm, host, &["nginx", "-c", "/run/nginx-bench.conf"])
}

fn haproxy(farm: &Farm, servers: &[String]) -> Result<Helper> {
    let list: Vec<String> = (1..).zip(servers).map(|(n, s)| format!("  server s{n} {s}:80\n")).collect();
    let list = list.concat();
    let text = format!(
        "global\n  nbthread 1\n  maxconn 5000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  \
         timeout server 30s\n  balance roundrobin\nlisten farm\n  bind :{HAPROXY}\n{list}"
    );
    write(farm, "witness", "/run/haproxy-bench.cfg", &text)?;
    helper(farm, "witness", &["haproxy", "-db", "-f", "/run/haproxy-bench.cfg"])
}

fn nginx_balancer(farm: &Farm, servers: &[String]) -> Result<Helper> {
    let list: Vec<String> = servers.iter().map(|s| format!("server {s}:80; ")).collect();
    let list = list.concat();
    let http = format!(
        "upstream farm {{ {list} keepalive 64; }} server {{ listen {NGINX} backlog=4096; location / {{ \
         proxy_pass http://farm; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    );
    nginx(farm, "witness", &http)
}

/// On the switch are the hosts that a way needs, and no others.
fn plug(farm: &Farm, way: Way, servers: usize) -> Result<()> {
    let state = |up: bool| if up { "up" } else { "down" };
    let all = way == Way::InvisibleBystanders;
    let witness = std::iter::once(("witness", all || way.is_balanced()));
    let nodes = farm.nodes.iter().enumerate().map(|(n, node)| (node.as_str(), all || n < servers));
    for (host, up) in witness.chain(nodes) {
        farm.lab.exec(host, &["ip", "link", "set", "eth0", state(up)])?;
    }
    Ok(())
}

fn answers(farm: &Farm, url: &str) -> Result<()> {
    wait::until("an answer", SOON, || {
        let output = Clients::curl(farm, url).map_err(|e| format!("{e:#}"))?;
        if output.status.success() { Ok(()) } else { Err(format!("{url}: {}", output.status)) }
    })
}

/// Everything, as a table or JSON lines.
pub fn run(options: &Options<'_>) -> Result<()> {
    let timing = Timing { pulse_ms: 100, missed: 3 };
    let mut farm = Farm::new("benchfarm", 3, timing)?;
    let servers: Vec<String> = farm.nodes.iter().map(|n| farm.lab.address(n, "prod")).collect::<Result<_>>()?;
    let witness = farm.lab.address("witness", "prod")?;
    let clients = Clients::new(&farm, options.clients)?;
    farm.lab.exec("witness", &[&["sysctl", "-qw"], &MANY_CONNECTIONS[..]].concat())?;
    let routed = farm.vip.replace(".50", ".52");
    let mut helpers = Vec::new();
    for node in farm.nodes.clone() {
        farm.lab.exec(&node, &["ip", "address", "add", &format!("{routed}/32"), "dev", "lo"])?;
        let body = format!("server {{ listen 80 backlog=4096; location / {{ return 200 \"{node}\\n\"; }} }}");
        helpers.push(nginx(&farm, &node, &body)?);
    }
    let directed = farm.vip.replace(".50", ".51");
    let mut rows = Vec::new();
    for count in 1..=options.servers.min(servers.len()) {
        let node = format!("node{count}");
        plug(&farm, Way::Haproxy, count)?;
        join(&mut farm, &node)?;
        let open: Vec<&str> = farm.nodes.iter().take(count).map(String::as_str).collect();
        farm.settled(&open)?;
        let some = servers.get(..count).context("servers")?;
        let balancers = [haproxy(&farm, some)?, nginx_balancer(&farm, some)?];
        clients.route(&farm, &routed, some)?;
        let url = |way: Way| match way {
            Way::Direct => format!("http://{}/", servers.first().map_or("", String::as_str)),
            Way::Routed => format!("http://{routed}/"),
            Way::Invisible | Way::InvisibleBystanders => format!("http://{}/", farm.vip),
            Way::Directed => format!("http://{directed}/"),
            Way::Haproxy => format!("http://{witness}:{HAPROXY}/"),
            Way::Nginx => format!("http://{witness}:{NGINX}/"),
        };
        rows.extend(stage(&farm, &clients, options, count as u32, url)?);
        // What was killed here were the ways into the host; those that entered it are still there.
        drop(balancers);
        farm.lab.kill("witness", "^(haproxy|nginx)")?;
        wait::until("the balancers to end", SOON, || {
            let left = farm.lab.pids("witness", "^(haproxy|nginx)").map_err(|e| format!("{e:#}"))?;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })?;
    }
    if !options.json {
        println!(
            "{:<20} {:>7} {:>9} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
            "way",
            "servers",
            "close/s",
            "keep/s",
            "latency us",
            "cl/direct",
            "ka/direct",
            "cl/routed",
            "ka/routed",
            "cl/haprx",
            "ka/haprx"
        );
    }
    let ratio = |r: Option<f64>| r.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
    for row in &rows {
        if options.json {
            println!("{}", serde_json::to_string(row)?);
        } else {
            println!(
                "{:<20} {:>7} {:>9.0} {:>9.0} {:>10.1} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
                serde_json::to_value(row.way)?.as_str().unwrap_or_default(),
                row.servers,
                row.close_s,
                row.keep_alive_s,
                row.latency_us,
                ratio(row.close_to_direct),
                ratio(row.keep_alive_to_direct),
                ratio(row.close_to_routed),
                ratio(row.keep_alive_to_routed),
                ratio(row.close_to_haproxy),
                ratio(row.keep_alive_to_haproxy)
            );
        }
    }
    drop(helpers);
    plug(&farm, Way::InvisibleBystanders, servers.len())?;
    for node in farm.nodes.clone().iter().skip(options.servers) {
        join(&mut farm, node)?;
    }
    let takeovers = (0..options.takeovers).map(|_| takeover(&mut farm)).collect::<Result<Vec<_>>>()?;
    drop(farm);
    let drops = drops(options.bin)?;
    report(options.json, &takeovers, timing.detection_ms(), &drops)
}

/// A member with an invisible and a directed address takes its share.
fn join(farm: &mut Farm, node: &str) -> Result<()> {
    let rules = json!([{"port": 80, "proto": "tcp", "filter": "on_port"},
        {"port": 8000, "proto": "tcp", "filter": "on_port"}]);
    let mut spec = farm.spec(node, &[1, 1, 1], &rules, "vmac_invisible")?;
    spec["addresses"] = json!([{"address": farm.vip, "mode": "vmac_invisible"},
        {"address": farm.vip.replace(".50", ".51"), "mode": "vmac_directed"}]);
    farm.start(node, &spec)?;
    farm.member(node)?.do_("open", "opened").map(drop)
}

fn stage(
    farm: &Farm,
    clients: &Clients,
    options: &Options<'_>,
    servers: u32,
    url: impl Fn(Way) -> String,
) -> Result<Vec<Row>> {
    let mut seen: BTreeMap<Way, Vec<Sample>> = BTreeMap::new();
    let wanted = |way: &Way| options.only.is_empty() || options.only.contains(way);
    let ways: Vec<Way> = Way::value_variants().iter().copied().filter(wanted).collect();
    for round in 0..options.rounds {
        let mut order = ways.clone();
        order.rotate_left(round as usize % ways.len());
        for way in order {
            let to = url(way);
            plug(farm, way, servers as usize)?;
            answers(farm, &to)?;
            let close = clients.wrk(farm, &to, CONNECTIONS, options.seconds, true)?.rate;
            let keep = clients.wrk(farm, &to, CONNECTIONS, options.seconds, false)?.rate;
            let latency_us = clients.wrk(farm, &to, 1, 1, false)?.latency_us;
            eprintln!(
                "bench: {servers} servers, round {}, {way:?}: {close:.0} {keep:.0} /s, {latency_us:.1} us",
                round + 1
            );
            seen.entry(way).or_default().push(Sample { close, keep, latency_us });
        }
    }
    let of = |way: Way| seen.get(&way).map(Vec::as_slice).unwrap_or_default();
    let middle = |way: Way, pick: fn(&Sample) -> f64| median(&mut of(way).iter().map(pick).collect::<Vec<_>>());
    // Of the rounds' ratios: what all suffered from in a round cancels out.
    let ratio = |way: Way, to: Way, pick: fn(&Sample) -> f64| {
        let mut all: Vec<f64> = of(way).iter().zip(of(to)).map(|(a, b)| pick(a) / pick(b)).collect();
        (!all.is_empty()).then(|| median(&mut all))
    };
    Ok(ways
        .iter()
        .map(|way| Row {
            way: *way,
            servers,
            close_s: middle(*way, |s| s.close),
            keep_alive_s: middle(*way, |s| s.keep),
            latency_us: middle(*way, |s| s.latency_us),
            close_to_direct: ratio(*way, Way::Direct, |s| s.close),
            keep_alive_to_direct: ratio(*way, Way::Direct, |s| s.keep),
            close_to_routed: ratio(*way, Way::Routed, |s| s.close),
            keep_alive_to_routed: ratio(*way, Way::Routed, |s| s.keep),
            close_to_haproxy: ratio(*way, Way::Haproxy, |s| s.close),
            keep_alive_to_haproxy: ratio(*way, Way::Haproxy, |s| s.keep),
        })
        .collect())
}

/// Pulls the plug of node2 while a client connects all the time: for how many milliseconds did connections fail?
fn takeover(farm: &mut Farm) -> Result<u64> {
    farm.settled(&["node1", "node2", "node3"])?;
    let probe = farm.load("client", "probe", &["--deadline-ms", "30", "--threads", "8"])?;
    std::thread::sleep(Duration::from_millis(500));
    let pulled = now_ms();
    farm.lab.run(&["poweroff", "node2"])?;
    farm.members.remove("node2");
    farm.settled(&["node1", "node3"])?;
    std::thread::sleep(Duration::from_millis(500));
    let seen = probe.finish()?;
    let seen = seen.first().context("the probe said nothing")?;
    let (Some(first), Some(last)) = (seen["first_failure_ms"].as_u64(), seen["last_failure_ms"].as_u64()) else {
        bail!("no connection failed: {seen}");
    };
    farm.lab.run(&["boot", "node2"])?;
    farm.prepare("node2")?;
    join(farm, "node2")?;
    // The last one was begun then, and gave up 30 ms later.
    let outage = last + 30 - first.max(pulled);
    eprintln!("bench: takeover of node2: connections failed for {outage} ms");
    Ok(outage)
}

/// What a packet costs that a filter drops, in nanoseconds above no filter at all.
#[derive(Debug, Serialize)]
struct Drops {
    none_ns: f64,
    address_only_ns: f64,
    /// The rules alone.
    filter_ns: f64,
    /// With a program before them that drops what is certainly another's. `None`: this kernel takes none.
    early_ns: Option<f64>,
}

/// Two namespaces and a cable. The receiver's work is done in the sender's time, which is what is measured.
fn drops(bin: &Path) -> Result<Drops> {
    let names = [format!("skb{}-tx", std::process::id()), format!("skb{}-rx", std::process::id())];
    let [tx, rx] = &names;
    let result = measure_drops(bin, tx, rx);
    for name in &names {
        let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    }
    result
}

fn measure_drops(bin: &Path, tx: &str, rx: &str) -> Result<Drops> {
    let sh = |line: &str| -> Result<String> {
        let output = Command::new("sh").args(["-c", line]).output()?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    sh(&format!(
        "ip netns add {tx} && ip netns add {rx} && ip -n {tx} link add eth0 type veth peer name eth0 netns {rx} && \
         ip -n {tx} link set eth0 address 02:00:00:00:00:01 up && ip -n {rx} link set eth0 address 02:00:00:00:00:02 up && \
         ip -n {rx} link set lo up && ip -n {rx} address add 10.0.0.2/24 dev eth0 && ip -n {tx} address add 10.0.0.1/24 dev eth0"
    ))?;
    let dir = std::env::temp_dir().join(tx);
    std::fs::create_dir_all(&dir)?;
    let key = dir.join("key");
    std::fs::write(&key, "5a".repeat(32))?;
    sh(&format!("chmod 600 {}", key.display()))?;
    let nodes = json!([{"node": "a", "addr": "10.0.0.2"}, {"node": "b", "addr": "10.0.0.3"}]);
    // Power 0: this node owns nothing, so that every packet goes the whole way to its drop.
    let mut spec: Value = json!({"module": "bench", "node": "a", "key_file": key, "port": 4803, "pulse_ms": 100,
        "mlost_count": 3, "slost_count": 3, "lans": [{"ident": "x", "nodes": nodes}],
        "addresses": [{"address": "10.0.0.50", "mode": "vmac_invisible"}],
        "groups": [{"name": "g_0", "hosts": [{"node": "a", "power": 0}, {"node": "b", "power": 1}],
            "rules": [{"port": 9, "proto": "udp", "filter": "on_addr"}]}]});
    let file = dir.join("spec.json");
    let flood = || -> Result<f64> {
        let program = bin.join("bench-load");
        let text = sh(&format!("ip netns exec {tx} {} flood eth0 5a:fe:0a:00:00:32 10.0.0.50", program.display()))?;
        text.trim().parse().with_context(|| text)
    };
    let none = flood()?;
    sh(&format!(
        "printf 'table netdev x {{\\n chain c {{\\n type filter hook ingress device eth0 priority 0;\\n ip daddr 10.0.0.50 drop\\n }}\\n}}\\n' | \
         ip netns exec {rx} nft -f -"
    ))?;
    let address_only = flood()?;
    sh(&format!("ip netns exec {rx} nft delete table netdev x"))?;
    let mut filtered = |early: bool| -> Result<Option<f64>> {
        spec["early_drop"] = early.into();
        std::fs::write(&file, spec.to_string())?;
        let command = |verb: &[&str]| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", rx]).arg(bin.join("sk-farmfilter")).args(verb).env("SK_RUN", &dir);
            command
        };
        let mut node = command(&["run", "--spec"]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let measured = (|| {
            use std::io::{BufRead, BufReader, Write};
            node.stdin.as_mut().context("no pipe")?.write_all(b"{\"kind\":\"open\"}\n")?;
            let lines = BufReader::new(node.stdout.take().context("no pipe")?).lines();
            for line in lines {
                if line?.contains("\"opened\"") {
                    let shown = command(&["show", "--json"]).output()?;
                    let status: Value = serde_json::from_slice(&shown.stdout)?;
                    let in_place = !status["early_drop"]["interfaces"].as_array().is_none_or(Vec::is_empty);
                    return if in_place == early { flood().map(Some) } else { Ok(None) };
                }
            }
            bail!("sk-farmfilter ended")
        })();
        drop(node.stdin.take());
        let _ = node.wait();
        measured
    };
    let (rules, early) = (filtered(false), filtered(true));
    std::fs::remove_dir_all(&dir)?;
    let rules = rules?.context("a program is in place although none was wanted")?;
    let early_ns = early?.map(|ns| ns - none);
    Ok(Drops { none_ns: none, address_only_ns: address_only - none, filter_ns: rules - none, early_ns })
}

fn report(as_json: bool, takeovers: &[u64], detection_ms: u64, drops: &Drops) -> Result<()> {
    let mut times: Vec<f64> = takeovers.iter().map(|t| *t as f64).collect();
    let longest = takeovers.iter().max();
    if as_json {
        println!(
            "{}",
            json!({"takeover_ms": takeovers, "median_ms": median(&mut times), "detection_ms": detection_ms})
        );
        println!("{}", serde_json::to_string(drops)?);
        return Ok(());
    }
    if let Some(longest) = longest {
        println!(
            "takeover of a dead node's share, seen by clients: median {:.0} ms, longest {longest} ms (detection {detection_ms} ms)",
            median(&mut times)
        );
    }
    println!(
        "dropped packet: {:.0} ns above no filter ({:.0} ns a packet), {} by a program before the rules; a filter that \
         only compares the address: {:.0} ns",
        drops.filter_ns,
        drops.none_ns,
        drops.early_ns.map_or_else(|| "which this kernel does not take,".to_owned(), |ns| format!("{ns:.0} ns")),
        drops.address_only_ns
    );
    Ok(())
}
