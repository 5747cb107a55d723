//! A client of a delivered module that remembers what was acknowledged, and the story every such module must survive.

use crate::{Cluster, LATER, Module};
use anyhow::{Context, Result, ensure};
use e2e::mirror::{LEDGER, Writer, acknowledged};
use std::time::Duration;

/// How an application is spoken to, through its own command-line client on the client host. `{id}` is the number of a record.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Said first on each connection; not answered.
    pub first: String,
    /// Asks for a record.
    pub request: String,
    /// The line that acknowledges it.
    pub answer: String,
    /// Asks for all records, one number a line.
    pub list: String,
    /// The line after the list.
    pub end: String,
}

impl Client {
    /// A client of the recorders among the fixtures.
    pub fn recorder(address: &str, port: u16) -> Self {
        Self {
            command: ["busybox", "nc", address, &port.to_string()].map(str::to_owned).to_vec(),
            request: "put {id}".to_owned(),
            answer: "acked {id}".to_owned(),
            list: "list".to_owned(),
            end: "end".to_owned(),
            ..Self::default()
        }
    }

    /// Starts writing on the client host.
    pub fn start(&self, cluster: &Cluster) -> Result<Writer> {
        let own = ["ack-writer", "through", "--ledger", LEDGER, "--first", &self.first];
        let said = ["--request", &self.request, "--answer", &self.answer, "--"];
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        Writer::start(&cluster.lab, &[&own[..], &said[..], command.as_slice()].concat())
    }

    /// Waits until `more` records beyond the present ones were acknowledged.
    pub fn acknowledged(&self, cluster: &Cluster, more: usize, deadline: Duration) -> Result<()> {
        acknowledged(&cluster.lab, more, deadline)
    }

    /// Every acknowledged record is there, none twice; how many were acknowledged.
    pub fn verify(&self, cluster: &Cluster) -> Result<u64> {
        let own = ["ack-writer", "listed", "--ledger", LEDGER, "--first", &self.first];
        let said = ["--request", &self.list, "--end", &self.end, "--"];
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let output = cluster.lab.try_exec("client", &[&own[..], &said[..], command.as_slice()].concat())?;
        let (found, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}: {found} {words}", output.status);
        eprintln!("checked: {}", found.trim());
        let found: serde_json::Value = serde_json::from_str(&found)?;
        found.get("acked").and_then(serde_json::Value::as_u64).context("no number of records")
    }
}

/// How the application of a module dies, and what its module says then.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// Extended regular expression for the command line of what is killed.
    pub victim: &'a str,
    /// The log's line about the restart.
    pub restart: &'a str,
}

/// A mirror whose pair is complete, with node1 as the primary, loses its application, then its primary's power, gets the host
/// back, and swaps the roles, while a client writes: nothing acknowledged is lost, and both copies are equal.
/// `prepare` does on a host that was switched on again what is forgotten at power-off there.
pub fn fails_over(
    cluster: &Cluster,
    module: &Module<'_>,
    client: &Client,
    death: Death<'_>,
    prepare: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let writer = client.start(cluster)?;
    client.acknowledged(cluster, 20, LATER)?;
    cluster.lab.kill("node1", death.victim)?;
    module.logged("node1", death.restart, 1)?;
    client.acknowledged(cluster, 20, LATER)?;
    module.pair("node1", "node2")?;

    cluster.lab.run(&["poweroff", "node1"])?;
    module.reaches("node2", "ALONE Ready", LATER)?;
    client.acknowledged(cluster, 20, LATER)?;
    writer.finish()?;
    ensure!(client.verify(cluster)? >= 60);

    let writer = client.start(cluster)?;
    cluster.lab.run(&["boot", "node1"])?;
    prepare("node1")?;
    module.pair("node2", "node1")?;
    module.order("node2", &["swap"])?;
    module.pair("node1", "node2")?;
    client.acknowledged(cluster, 20, LATER)?;
    writer.finish()?;
    ensure!(client.verify(cluster)? >= 80);
    for text in ["Action restart called by errd", "from failover rule"] {
        ensure!(!module.log("node2").contains(text), "an application that nobody killed was restarted: {text}");
    }
    // Both copies, names and contents.
    cluster.lab.exec("node1", &["sk-replicate", "verify", "-m", module.name()])?;
    module.replays()
}
