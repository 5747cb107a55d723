//! A module of `scripts/lab-mirror` on node1 and node2, and what can be seen of it.

use crate::lab::{self, Lab};
use crate::view::View;
use crate::wait;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What the scenarios read of `/run/sk/AM/state.json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct State {
    /// STOP, WAIT, ALONE, PRIM or SECOND.
    pub state: String,
    /// NotReady, Transient or Ready.
    pub readiness: String,
    /// `uptodate`, `not uptodate`, `degraded` or `none`.
    pub data: String,
    /// Label of the failover rule that blocks.
    pub rule: Option<String>,
    /// What the replication engine reports; nothing while it does not run.
    pub replica: Option<Replica>,
}

/// The replica's part of the state.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Replica {
    /// absent, syncing, `in_sync`, lost or left.
    pub peer: String,
    /// Nothing that changes something is answered at present.
    pub frozen: bool,
}

/// How long anything that takes no heartbeat timeout may last on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// How long a boot, a reintegration and a change of roles may last together on a busy machine.
pub const LATER: Duration = Duration::from_secs(90);

/// A module on two nodes of a lab.
#[derive(Debug)]
pub struct Mirror {
    /// The hosts.
    pub lab: Lab,
    /// Name of the module.
    pub module: &'static str,
    /// The virtual address.
    pub vip: String,
}

impl Mirror {
    /// A lab with the module `postgresql` or `files`, configured but not started.
    pub fn configured(purpose: &str, module: &'static str, rfs: &str) -> Result<Self> {
        Self::configured_on(purpose, module, rfs, None)
    }

    /// The same, on disks of this size (MiB).
    pub fn configured_on(purpose: &str, module: &'static str, rfs: &str, disk_mib: Option<u64>) -> Result<Self> {
        let lab = Lab::up_on(purpose, 2, disk_mib)?;
        let mut command = Command::new(lab::scripts().join("lab-mirror"));
        command.args(["--name", lab.name(), "--configure-only", "--rfs", rfs, module]);
        lab::checked(command, &["lab-mirror", module])?;
        let node1 = lab.address("node1", "prod")?;
        let (network, _) = node1.rsplit_once('.').context("an address without dots")?;
        Ok(Self { vip: format!("{network}.50"), lab, module })
    }

    /// The same, started: node1 PRIM, node2 SECOND, both Ready.
    pub fn started(purpose: &str, module: &'static str, rfs: &str) -> Result<Self> {
        let mirror = Self::configured(purpose, module, rfs)?;
        mirror.start_pair().inspect_err(|_| mirror.diagnose())?;
        Ok(mirror)
    }

    /// First start: `prim` on node1, `second` on node2.
    pub fn start_pair(&self) -> Result<()> {
        self.order("node1", &["prim"])?;
        self.reaches("node1", "ALONE Ready", SOON)?;
        self.order("node2", &["second"])?;
        self.pair("node1", "node2")
    }

    fn view(&self) -> View<'_> {
        View { lab: &self.lab, module: self.module }
    }

    /// A verb of sk-module on a node.
    pub fn order(&self, node: &str, verb: &[&str]) -> Result<String> {
        self.view().order(node, verb)
    }

    /// The state, as published. An `Err` describes why there is none.
    pub fn state(&self, node: &str) -> Result<State, String> {
        self.view().state(node)
    }

    /// Waits for a word pair such as `PRIM Ready`.
    pub fn reaches(&self, node: &str, wanted: &str, deadline: Duration) -> Result<()> {
        self.view().reaches(node, wanted, deadline)
    }

    /// Waits for PRIM Ready on one node and SECOND Ready on the other, both of them up to date.
    pub fn pair(&self, primary: &str, secondary: &str) -> Result<()> {
        self.reaches(secondary, "SECOND Ready", LATER)?;
        self.reaches(primary, "PRIM Ready", SOON)?;
        wait::until("both up to date", SOON, || {
            for node in [primary, secondary] {
                let state = self.state(node)?;
                if state.data != "uptodate" || state.replica.as_ref().is_none_or(|replica| replica.frozen) {
                    return Err(format!("{node}: {state:?}"));
                }
            }
            Ok(())
        })
    }

    /// Waits for a pair of PRIM and SECOND in either order; the primary's name first.
    pub fn any_pair(&self) -> Result<(&'static str, &'static str)> {
        let order = wait::until("PRIM and SECOND", LATER, || {
            let (one, two) = (self.state("node1")?, self.state("node2")?);
            match (one.state.as_str(), one.readiness.as_str(), two.state.as_str(), two.readiness.as_str()) {
                ("PRIM", "Ready", "SECOND", "Ready") => Ok(("node1", "node2")),
                ("SECOND", "Ready", "PRIM", "Ready") => Ok(("node2", "node1")),
                seen => Err(format!("{seen:?}")),
            }
        })?;
        self.pair(order.0, order.1)?;
        Ok(order)
    }

    /// A path of a node's disk, beneath every mount.
    pub fn disk(&self, node: &str, path: &str) -> Result<PathBuf> {
        let state = std::env::var_os("SK_LAB_STATE").map_or_else(|| PathBuf::from("/run/sk-lab"), PathBuf::from);
        let state = state.join(self.lab.name());
        let room = std::fs::read_to_string(state.join("room")).context("the lab has no room")?;
        let room = room.split_whitespace().next().context("the room has no pid")?;
        Ok(PathBuf::from(format!("/proc/{room}/root{}/mnt/{node}{path}", state.display())))
    }

    /// The module's log of a node.
    pub fn log(&self, node: &str) -> String {
        self.view().log(node)
    }

    /// Waits until the module's log has `times` lines that contain `text`.
    pub fn logged(&self, node: &str, text: &str, times: usize) -> Result<()> {
        self.view().logged(node, text, times)
    }

    /// Starts a writer on the client host.
    pub fn writer(&self) -> Result<Writer> {
        let to = format!("{}:5432", self.vip);
        Writer::start(&self.lab, &["ack-writer", "run", "--to", &to, "--ledger", LEDGER])
    }

    /// Waits until `more` rows beyond the present ones were acknowledged.
    pub fn acknowledged(&self, more: usize, deadline: Duration) -> Result<()> {
        acknowledged(&self.lab, more, deadline)
    }

    /// Every acknowledged row exists on the server behind the virtual address; how many there are.
    pub fn verify(&self) -> Result<u64> {
        let to = format!("{}:5432", self.vip);
        let text = self.lab.exec("client", &["ack-writer", "verify", "--to", &to, "--ledger", LEDGER])?;
        let seen: serde_json::Value = serde_json::from_str(&text)?;
        seen.get("acked").and_then(serde_json::Value::as_u64).context("no number of rows")
    }

    /// Prints what a person would look at first.
    pub fn diagnose(&self) {
        for node in ["node1", "node2"] {
            eprintln!("---- {node}: {:?}", self.state(node));
            for path in ["log", "core.json"] {
                let text = self.lab.read(node, &format!("/var/lib/sk/modules/{}/{path}", self.module));
                let text = text.unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                for line in lines.iter().skip(lines.len().saturating_sub(60)) {
                    eprintln!("{node} {path}: {line}");
                }
            }
        }
    }

    /// Runs a scenario; prints the diagnosis when it fails.
    pub fn scenario(&self, run: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        run(self).inspect_err(|_| self.diagnose())
    }
}

/// Where the client host remembers what was acknowledged.
pub const LEDGER: &str = "/srv/acked";

/// Waits until the client's ledger has `more` lines than now.
pub fn acknowledged(lab: &Lab, more: usize, deadline: Duration) -> Result<()> {
    let count = || lab.read("client", LEDGER).map_or(0, |text| text.lines().count());
    let wanted = count() + more;
    wait::until(&format!("{more} more acknowledged records"), deadline, || {
        let now = count();
        if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}")) }
    })
}

/// A running writer on the client; killed when dropped.
#[derive(Debug)]
pub struct Writer {
    child: Option<Child>,
}

/// What the writer saw.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// Rows acknowledged.
    pub acked: u64,
    /// Statements or connections that failed.
    pub failures: u64,
    /// Text of the last failure.
    pub last_failure: String,
    /// The longest time without an acknowledgement, milliseconds.
    pub outage_ms: u64,
}

impl Writer {
    /// Starts it on the client host: a command that writes until its stdin ends, then prints what it saw.
    pub fn start(lab: &Lab, command: &[&str]) -> Result<Self> {
        Ok(Self { child: Some(lab.spawn("client", command)?) })
    }

    /// Ends the writing and tells what was seen.
    pub fn finish(mut self) -> Result<Seen> {
        let mut child = self.child.take().context("finished twice")?;
        drop(child.stdin.take());
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("the writer ended with {}", output.status);
        }
        let seen = serde_json::from_slice(&output.stdout).context("the writer's summary")?;
        eprintln!("writer: {seen:?}");
        Ok(seen)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// An application without database on a node: it prints the number of each record whose write has returned.
#[derive(Debug)]
pub struct Records {
    child: Child,
    numbers: std::sync::mpsc::Receiver<u64>,
    last: u64,
}

impl Records {
    /// Starts it; `durable` is no, dsync or fsync.
    pub fn start(mirror: &Mirror, node: &str, file: &str, durable: &str, pause_us: u32) -> Result<Self> {
        let pause = pause_us.to_string();
        let arguments = ["ack-writer", "records", file, "--durable", durable, "--pause-us", &pause];
        let mut child = mirror.lab.spawn(node, &arguments)?;
        let output = child.stdout.take().context("no pipe")?;
        let (sender, numbers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.parse().is_ok_and(|number| sender.send(number).is_err()) {
                    break;
                }
            }
        });
        Ok(Self { child, numbers, last: 0 })
    }

    /// Waits until `more` records were acknowledged from now on; the number of the last one.
    pub fn acknowledged(&mut self, more: u64, deadline: Duration) -> Result<u64> {
        let began = Instant::now();
        while let Ok(number) = self.numbers.try_recv() {
            self.last = number;
        }
        let wanted = self.last + more;
        while self.last < wanted {
            let left = deadline.saturating_sub(began.elapsed());
            self.last = self
                .numbers
                .recv_timeout(left)
                .map_err(|_| anyhow!("record {} of {wanted} is the last one acknowledged", self.last))?;
        }
        Ok(self.last)
    }

    /// Ends it, or notices that its host is gone; the last record that was acknowledged.
    pub fn finish(mut self) -> Result<u64> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        while let Ok(number) = self.numbers.recv() {
            self.last = number;
        }
        Ok(self.last)
    }
}
