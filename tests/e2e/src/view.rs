//! What can be seen of a module on a host from outside: its orders, its published state, its log.

use crate::lab::Lab;
use crate::mirror::{SOON, State};
use crate::wait;
use anyhow::{Context, Result};
use std::time::Duration;

/// A module on the hosts of a lab.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The hosts.
    pub lab: &'a Lab,
    /// Name of the module.
    pub module: &'a str,
}

impl View<'_> {
    /// A verb of sk-module on a node; its stdout.
    pub fn order(&self, node: &str, verb: &[&str]) -> Result<String> {
        let (first, rest) = verb.split_first().context("no verb")?;
        self.lab.exec(node, &[&["sk-module", *first, "-m", self.module], rest].concat())
    }

    /// The state, as published. An `Err` describes why there is none.
    pub fn state(&self, node: &str) -> Result<State, String> {
        let text = self.lab.read(node, &format!("/run/sk/{}/state.json", self.module)).ok_or("no state.json")?;
        serde_json::from_str(&text).map_err(|error| format!("state.json: {error}"))
    }

    /// Waits for a word pair such as `PRIM Ready`.
    pub fn reaches(&self, node: &str, wanted: &str, deadline: Duration) -> Result<()> {
        wait::until(&format!("{} on {node} {wanted}", self.module), deadline, || {
            let state = self.state(node)?;
            let seen = format!("{} {}", state.state, state.readiness);
            if seen == wanted { Ok(()) } else { Err(format!("{seen}, data {}, rule {:?}", state.data, state.rule)) }
        })
    }

    /// The module's log of a node.
    pub fn log(&self, node: &str) -> String {
        self.lab.read(node, &format!("/var/lib/sk/modules/{}/log", self.module)).unwrap_or_default()
    }

    /// Waits until the module's log has `times` lines that contain `text`.
    pub fn logged(&self, node: &str, text: &str, times: usize) -> Result<()> {
        wait::until(&format!("{node} logs {text:?} {times} times"), SOON, || {
            let seen = self.log(node).lines().filter(|line| line.contains(text)).count();
            if seen >= times { Ok(()) } else { Err(format!("{seen} times")) }
        })
    }
}
