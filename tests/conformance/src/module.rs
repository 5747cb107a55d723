//! A configured module: orders to it, its states, its log, its scripts' calls.

use crate::{Cluster, LATER, SOON, Spec, State, wait};
use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::view::View;
use std::time::Duration;

/// A module on nodes of a cluster.
#[derive(Debug)]
pub struct Module<'a> {
    cluster: &'a Cluster,
    name: String,
    directory: String,
    nodes: Vec<String>,
}

/// A call of a script, from the notes of the ordinary scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Nanoseconds since 1970; the clock is the same on all hosts.
    pub at: u128,
    /// `begin` or `end`.
    pub edge: String,
    /// Name of the script and its arguments.
    pub words: String,
}

impl<'a> Module<'a> {
    pub(crate) fn new(cluster: &'a Cluster, spec: &Spec) -> Self {
        Self { cluster, name: spec.name.clone(), directory: spec.directory(), nodes: spec.nodes.clone() }
    }

    fn view(&self) -> View<'_> {
        View { lab: &self.cluster.lab, module: &self.name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its replicated directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// A verb of sk-module on a node; its stdout.
    pub fn order(&self, node: &str, verb: &[&str]) -> Result<String> {
        self.view().order(node, verb)
    }

    /// A verb of sk-module that must fail with an exit code; what it said on stderr.
    pub fn refused(&self, node: &str, verb: &[&str], code: i32) -> Result<String> {
        let (first, rest) = verb.split_first().context("no verb")?;
        self.cluster.fails(node, &[&["sk-module", *first, "-m", &self.name], rest].concat(), code)
    }

    /// The same verb on every node of the module.
    pub fn everywhere(&self, verb: &[&str]) -> Result<()> {
        for node in &self.nodes {
            self.order(node, verb)?;
        }
        Ok(())
    }

    /// First start of a mirror: `prim` on the first node, `second` on the other.
    pub fn start_pair(&self) -> Result<()> {
        let [first, second] = self.nodes.as_slice() else { bail!("a mirror has two nodes") };
        self.order(first, &["prim"])?;
        self.reaches(first, "ALONE Ready", SOON)?;
        self.order(second, &["second"])?;
        self.pair(first, second)
    }

    /// The state, as published. An `Err` describes why there is none.
    pub fn state(&self, node: &str) -> Result<State, String> {
        self.view().state(node)
    }

    /// The published state as a document, for fields the scenarios rarely need.
    pub fn document(&self, node: &str) -> Result<serde_json::Value> {
        let path = format!("/run/sk/{}/state.json", self.name);
        let text = self.cluster.lab.read(node, &path).context("no state.json")?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits for a word pair such as `PRIM Ready`.
    pub fn reaches(&self, node: &str, wanted: &str, deadline: Duration) -> Result<()> {
        self.view().reaches(node, wanted, deadline)
    }

    /// Waits for a blocked module whose active rule is `rule`.
    pub fn blocked(&self, node: &str, rule: &str) -> Result<()> {
        wait::until(&format!("{} on {node} WAIT NotReady by {rule}", self.name), LATER, || {
            let state = self.state(node)?;
            let there = state.state == "WAIT" && state.readiness == "NotReady" && state.rule.as_deref() == Some(rule);
            if there { Ok(()) } else { Err(format!("{} {} {:?}", state.state, state.readiness, state.rule)) }
        })
    }

    /// What these commands print on a node, with the module's name in the place of `AM`, fits a terminal of 80 columns. How they end is not asked.
    pub fn fits(&self, node: &str, commands: &[&str]) -> Result<()> {
        let mut wide = Vec::new();
        for line in commands {
            let line = line.replace("AM", &self.name);
            let said = self.cluster.lab.try_exec(node, &line.split(' ').collect::<Vec<_>>())?;
            ensure!(!said.stdout.is_empty(), "{line}: {}", String::from_utf8_lossy(&said.stderr));
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            wide.extend(said.lines().filter(|text| programs::columns(text) > 80).map(|text| format!("{line}: {text}")));
        }
        ensure!(wide.is_empty(), "wider than 80 columns:\n{}", wide.join("\n"));
        Ok(())
    }

    /// Waits for PRIM Ready on one node and SECOND Ready on the other, neither frozen.
    pub fn pair(&self, primary: &str, secondary: &str) -> Result<()> {
        self.reaches(secondary, "SECOND Ready", LATER)?;
        self.reaches(primary, "PRIM Ready", SOON)?;
        wait::until(&format!("{}: both up to date", self.name), SOON, || {
            for node in [primary, secondary] {
                let state = self.state(node)?;
                if state.data == "not uptodate" || state.replica.as_ref().is_some_and(|replica| replica.frozen) {
                    return Err(format!("{node}: {state:?}"));
                }
            }
            Ok(())
        })
    }

    /// A resource's value.
    pub fn resource(&self, node: &str, name: &str) -> Result<String> {
        Ok(self.order(node, &["get", "-r", name])?.trim().to_owned())
    }

    /// Waits for a resource's value.
    pub fn resource_is(&self, node: &str, name: &str, wanted: &str) -> Result<()> {
        wait::until(&format!("{} on {node}: {name} {wanted}", self.name), SOON, || {
            let seen = self.resource(node, name).map_err(|error| format!("{error:#}"))?;
            if seen == wanted { Ok(()) } else { Err(seen) }
        })
    }

    /// The module's log of a node.
    pub fn log(&self, node: &str) -> String {
        self.view().log(node)
    }

    /// Waits until the module's log has `times` lines that contain `text`.
    pub fn logged(&self, node: &str, text: &str, times: usize) -> Result<()> {
        self.view().logged(node, text, times)
    }

    /// Its latest synchronisation had this mode.
    pub fn reintegrated(&self, node: &str, mode: &str) -> Result<()> {
        const WORDS: &str = "Reintegration mode: ";
        let log = self.log(node);
        let last = log.lines().rev().find_map(|line| line.split_once(WORDS)).map(|(_, mode)| mode);
        ensure!(last == Some(mode), "{node} was synchronised in the mode {last:?} instead of {mode}");
        Ok(())
    }

    /// The log's messages of the levels shown by default (U, E, C, S) from the last one on that contains `after`; none when there is
    /// none, all of them when `after` is empty. Of a script's line, the part before its log file.
    pub fn messages(&self, node: &str, after: &str) -> Vec<String> {
        let log = self.log(node);
        let shown: Vec<String> = log
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(4, " | ").skip(2);
                let (level, words) = (parts.next()?, parts.next()?);
                matches!(level, "U" | "E" | "C" | "S")
                    .then(|| words.split_once(" > userlog_").map_or(words, |(script, _)| script).to_owned())
            })
            .collect();
        if after.is_empty() {
            return shown;
        }
        let begin = shown.iter().rposition(|words| words.contains(after)).unwrap_or(shown.len());
        shown.into_iter().skip(begin).collect()
    }

    /// Waits until the messages after the last `after` contain these lines in this order, with others in between.
    pub fn in_order(&self, node: &str, after: &str, wanted: &[&str]) -> Result<()> {
        wait::until(&format!("{node} logs in order after {after:?}"), SOON, || {
            in_order(&self.messages(node, after), wanted).map_err(|error| format!("{error:#}"))
        })
    }

    /// Calls of the ordinary scripts on a node, oldest first.
    pub fn calls(&self, node: &str) -> Result<Vec<Call>> {
        let text = self.cluster.lab.sh(node, &format!("cat /srv/{}/calls 2>/dev/null || true", self.name))?;
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(3, ' ');
                let mut next = || parts.next().ok_or_else(|| anyhow!("a call that cannot be read: {line:?}"));
                Ok(Call { at: next()?.parse()?, edge: next()?.to_owned(), words: next()?.to_owned() })
            })
            .collect()
    }

    /// How often a script was called on a node, plain or with `force`.
    pub fn times(&self, node: &str, script: &str) -> Result<usize> {
        let calls = self.calls(node)?;
        Ok(calls.iter().filter(|c| c.edge == "begin" && c.words.split(' ').next() == Some(script)).count())
    }

    /// When the last call of a script ended (`end`) or began (`begin`) on a node.
    pub fn last(&self, node: &str, edge: &str, script: &str) -> Result<u128> {
        let calls = self.calls(node)?;
        let found = calls.iter().rev().find(|c| c.edge == edge && c.words.split(' ').next() == Some(script));
        found.map(|call| call.at).with_context(|| format!("no {edge} of {script} on {node}"))
    }

    /// Pids of the module's application on a node.
    pub fn application(&self, node: &str) -> Result<Vec<u32>> {
        let output = self.cluster.lab.try_exec(node, &["pgrep", "-x", &self.process()])?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    /// Name of the application's process as the kernel keeps it.
    pub fn process(&self) -> String {
        format!("app-{}", self.name).chars().take(15).collect()
    }

    /// Kills with SIGKILL the module's process of a kind (`sk-module run`, `sk-replicate`, …) on a node.
    pub fn kill(&self, node: &str, program: &str) -> Result<()> {
        let pattern = format!("{program}.*[ /]{}( |/|$)", self.name);
        self.cluster.lab.kill(node, &pattern).map(drop)
    }

    /// 0 when every decision of the nodes' journals is taken again.
    pub fn replays(&self) -> Result<()> {
        let journal = format!("/var/lib/sk/modules/{}/journal.jsonl", self.name);
        for node in &self.nodes {
            self.cluster.lab.exec(node, &["sk-module", "replay", "-q", &journal])?;
        }
        Ok(())
    }
}

/// The lines appear in this order, with others in between.
pub fn in_order(seen: &[String], wanted: &[&str]) -> Result<()> {
    let mut rest = seen.iter();
    for line in wanted {
        ensure!(rest.any(|seen| seen == line), "no {line:?} (in its place) in {seen:#?}");
    }
    Ok(())
}
