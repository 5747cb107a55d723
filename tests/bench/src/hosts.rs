//! Two test hosts as a benchmark needs them: helpers that run beside the load, the network's round trip, and acknowledgements that arrive late.

use crate::proxy::MARK;
use anyhow::{Context, Result, bail};
use e2e::lab::Lab;
use e2e::wait;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The port of the replication of module 1.
pub const STREAM_PORT: u16 = 5600;
const ECHO_PORT: u16 = 7998;
/// What stands for the ports of node1 on node2 while acknowledgements are late.
const FIRST_RELAY: u16 = 7990;

/// A helper on a host. What enters the host is ended when this is dropped, the helper itself with the host at the latest.
#[derive(Debug)]
pub struct Helper(pub(crate) Child);

impl Helper {
    /// Starts `bench-load` on a host.
    pub fn start(lab: &Lab, host: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = lab.command(&[&["exec", host, "bench-load"], arguments].concat());
        Ok(Self(command.stdin(Stdio::null()).spawn().context("run scripts/lab")?))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connections that node2 makes to these ports of node1, and those of [`Echo::round_trip`], go through relays on node2 that delay what it sends.
pub fn delay(lab: &Lab, ports: &[u16], delay_us: u64) -> Result<Vec<Helper>> {
    let (primary, delay) = (lab.address("node1", "repl")?, delay_us.to_string());
    let mut rules = "add table ip bench\n\
        add chain ip bench out { type nat hook output priority -100; }\n"
        .to_owned();
    let mut helpers = Vec::new();
    for (port, relay) in ports.iter().chain([&ECHO_PORT]).zip(FIRST_RELAY..) {
        rules.push_str(&format!(
            "add rule ip bench out meta mark != {MARK} ip daddr {primary} tcp dport {port} redirect to :{relay}\n"
        ));
        let (listen, to) = (format!("0.0.0.0:{relay}"), format!("{primary}:{port}"));
        helpers.push(Helper::start(lab, "node2", &["proxy", &listen, &to, &delay])?);
    }
    let mut nft = lab.command(&["exec", "node2", "nft", "-f", "-"]);
    let mut child = nft.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no pipe")?.write_all(rules.as_bytes())?;
    if !child.wait()?.success() {
        bail!("nft refused the rules of the delay");
    }
    Ok(helpers)
}

/// What answers round trips on node1.
#[derive(Debug)]
pub struct Echo<'a> {
    lab: &'a Lab,
    to: String,
    _helper: Helper,
}

impl<'a> Echo<'a> {
    /// Starts it.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let helper = Helper::start(lab, "node1", &["echo", &format!("0.0.0.0:{ECHO_PORT}")])?;
        Ok(Self { lab, to: format!("{}:{ECHO_PORT}", lab.address("node1", "repl")?), _helper: helper })
    }

    /// A TCP round trip from node2 to node1 on the replication network as it is now, relays included; microseconds.
    pub fn round_trip(&self) -> Result<f64> {
        wait::until("the echo answers", Duration::from_secs(20), || {
            let command = ["bench-load", "rtt", &self.to];
            let text = self.lab.exec("node2", &command).map_err(|e| format!("{e:#}"))?;
            text.trim().parse().map_err(|_| text)
        })
    }
}
