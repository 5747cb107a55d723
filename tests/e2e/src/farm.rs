//! A farm of `sk-farmfilter` on node1, node2, … of a lab, driven by specifications and orders, without a runner.

use crate::lab::{self, Lab};
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may last on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// The port of the service.
pub const PORT: u16 = 8000;
/// The first of 4096 addresses of `client`, of `witness`.
pub const CLIENTS: [(&str, &str); 2] = [("client", "198.18.0.0"), ("witness", "198.18.16.0")];
pub const ADDRESSES: u32 = 4096;

/// Timing of a farm.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub pulse_ms: u64,
    pub missed: u64,
}

impl Timing {
    /// After this time a dead node is known to be dead.
    pub fn detection_ms(&self) -> u64 {
        self.pulse_ms * self.missed
    }
}

/// A member that runs on a host.
#[derive(Debug)]
pub struct Member {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
}

impl Member {
    pub fn order(&mut self, kind: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the member's input is closed")?;
        writeln!(stdin, "{{\"kind\":\"{kind}\"}}").context("the member does not read its orders")
    }

    /// The next event of this kind.
    pub fn event(&self, kind: &str) -> Result<Value> {
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if event["kind"] == kind => return Ok(event),
                Ok(event) if event["kind"] == "failed" => bail!("no event `{kind}` but {event}"),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("no event `{kind}` within {SOON:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("the member ended before an event `{kind}`"),
            }
        }
    }

    /// Gives an order and waits for its answer.
    pub fn do_(&mut self, order: &str, answer: &str) -> Result<Value> {
        self.order(order)?;
        self.event(answer)
    }

    /// Closes its input, as a runner that is gone.
    pub fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        self.event("released")?;
        ensure!(self.child.wait()?.success(), "the member ended with an error");
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // `scripts/lab exec` became nsenter, whose child is the member: closing its input is what ends it.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load that runs until its input is closed.
pub struct Load {
    child: Child,
}

impl Load {
    /// What it printed, line by line, at its end.
    pub fn finish(mut self) -> Result<Vec<Value>> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.child.stdout.take().context("no pipe")?.read_to_string(&mut text)?;
        self.child.wait()?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

/// The farm.
pub struct Farm {
    pub lab: Lab,
    pub nodes: Vec<String>,
    pub vip: String,
    pub timing: Timing,
    pub members: BTreeMap<String, Member>,
    servers: Vec<Child>,
}

impl Farm {
    /// A lab with `count` servers that serve, and two clients with many addresses. Nothing is filtered yet.
    pub fn new(purpose: &str, count: u32, timing: Timing) -> Result<Self> {
        let lab = Lab::up(purpose, count)?;
        let nodes: Vec<String> = (1..=count).map(|n| format!("node{n}")).collect();
        let node1 = lab.address("node1", "prod")?;
        let network = node1.rsplit_once('.').context("an IPv4 address")?.0.to_owned();
        let mut farm =
            Self { vip: format!("{network}.50"), lab, nodes, timing, members: BTreeMap::new(), servers: Vec::new() };
        for (host, first) in CLIENTS {
            // All addresses of a network are this host's own.
            farm.lab.sh(host, &format!("ip route add local {first}/20 dev lo"))?;
        }
        for node in farm.nodes.clone() {
            farm.prepare(&node)?;
        }
        Ok(farm)
    }

    /// What a server needs after each boot: routes, key, service.
    pub fn prepare(&mut self, node: &str) -> Result<()> {
        for (host, first) in CLIENTS {
            let via = self.lab.address(host, "prod")?;
            self.lab.sh(node, &format!("ip route add {first}/20 via {via}"))?;
        }
        self.lab.sh(node, &format!("umask 077 && echo {} >/etc/sk/cluster.key", "5a".repeat(32)))?;
        let server = self.lab.spawn(node, &["farm-load", "serve", "--name", node])?;
        self.servers.push(server);
        let to = format!("{}:{PORT}", self.lab.address(node, "prod")?);
        wait::until("the server serves", SOON, || {
            let script = format!("exec 3<>/dev/tcp/{} && echo count >&3 && read -r n <&3", to.replace(':', "/"));
            let output = self.lab.try_exec("client", &["bash", "-c", &script]).map_err(|e| format!("{e:#}"))?;
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        })
    }

    /// The specification for a node; all groups have these powers.
    pub fn spec(&self, node: &str, powers: &[u32], rules: &Value, mode: &str) -> Result<Value> {
        let mut nodes = Vec::new();
        for name in &self.nodes {
            nodes.push(json!({"node": name, "addr": self.lab.address(name, "prod")?}));
        }
        let hosts: Vec<Value> =
            self.nodes.iter().zip(powers).map(|(name, power)| json!({"node": name, "power": power})).collect();
        Ok(json!({"module": "AM", "node": node, "key_file": "/etc/sk/cluster.key", "port": 4803,
            "pulse_ms": self.timing.pulse_ms, "mlost_count": self.timing.missed, "slost_count": self.timing.missed,
            "lans": [{"ident": "default", "nodes": nodes}], "addresses": [{"address": self.vip, "mode": mode}],
            "groups": [{"name": "FarmProto_0", "hosts": hosts, "rules": rules}]}))
    }

    /// Starts a member; it is not open yet.
    pub fn start(&mut self, node: &str, spec: &Value) -> Result<()> {
        let path = self.lab.path(node, "/srv/farm.json").context("the host is off")?;
        std::fs::write(&path, spec.to_string())?;
        let mut child = self.lab.spawn(node, &["sk-farmfilter", "run", "--spec", "/srv/farm.json"])?;
        let stdout = child.stdout.take().context("no pipe")?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { continue };
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        self.members.insert(node.to_owned(), Member { stdin: child.stdin.take(), child, events });
        Ok(())
    }

    /// Starts and opens all nodes, one after the other, so that the table is the same in every run.
    pub fn open_all(&mut self, powers: &[u32], rules: &Value, mode: &str) -> Result<()> {
        for node in self.nodes.clone() {
            let spec = self.spec(&node, powers, rules, mode)?;
            self.start(&node, &spec)?;
        }
        for node in self.nodes.clone() {
            self.member(&node)?.do_("open", "opened")?;
        }
        let nodes = self.nodes.clone();
        self.settled(&nodes.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn member(&mut self, node: &str) -> Result<&mut Member> {
        self.members.get_mut(node).with_context(|| format!("no member on {node}"))
    }

    pub fn status(&self, node: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.lab.exec(node, &["sk-farmfilter", "show", "-m", "AM", "--json"])?)?)
    }

    /// Waits until exactly these share everything, each bucket owned once.
    pub fn settled(&self, nodes: &[&str]) -> Result<()> {
        wait::until("one table", SOON, || {
            let mut owned = 0;
            for node in nodes {
                let status = self.status(node).map_err(|e| format!("{e:#}"))?;
                if status["open_members"] != json!(nodes) {
                    return Err(format!("{node}: {}", status["open_members"]));
                }
                owned += status["groups"][0]["owned"].as_u64().unwrap_or(0);
            }
            if owned == 256 { Ok(()) } else { Err(format!("{owned} buckets are owned")) }
        })
    }

    fn to(&self) -> String {
        format!("{}:{PORT}", self.vip)
    }

    /// One connection from each of many addresses of a client.
    pub fn count(&self, host: &str, first: &str, more: &[&str]) -> Result<Value> {
        let (to, addresses) = (self.to(), ADDRESSES.to_string());
        let command = [&["farm-load", "count", &to, "--from", first, "--addresses", &addresses], more].concat();
        let text = self.lab.exec(host, &command)?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// How often a server said who it is, by its own count.
    pub fn served(&self, node: &str) -> Result<u64> {
        let to = self.lab.address(node, "prod")?;
        let script = format!("exec 3<>/dev/tcp/{to}/{PORT} && echo count >&3 && cat <&3");
        Ok(self.lab.exec("client", &["bash", "-c", &script])?.trim().parse()?)
    }

    /// A load on a client: `download` or `probe` with its options.
    pub fn load(&self, host: &str, verb: &str, options: &[&str]) -> Result<Load> {
        let to = self.to();
        let command = [&["exec", host, "farm-load", verb, &to], options].concat();
        let child = self.lab.command(&command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Load { child })
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.members.clear();
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// How many milliseconds of wall clock have passed since 1970, for comparison with what a load prints.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Runs `scripts/lab`, for what has no method.
pub fn lab_run(farm: &Farm, arguments: &[&str]) -> Result<String> {
    lab::checked(farm.lab.command(arguments), arguments)
}
