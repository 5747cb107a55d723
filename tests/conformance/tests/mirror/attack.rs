//! The worst moments: what a case of the list does is interrupted by the sudden end of a runner.

use crate::{pair, read, write};
use anyhow::{Context, Result, ensure};
use conformance::{Cluster, LATER, Module, SOON, wait};
use std::time::Duration;

/// A state that a living runner tells; the file of a dead one would still show its last.
fn told(module: &Module<'_>, node: &str) -> Result<String, String> {
    let text = module.order(node, &["state", "--json"]).map_err(|error| format!("{error:#}"))?;
    let state: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let word = |name: &str| state.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok(format!("{} {} {}", word("state"), word("readiness"), word("data")))
}

/// PRIM and SECOND in either order, with one application; the primary first.
fn any_pair(module: &Module<'_>) -> Result<(&'static str, &'static str)> {
    wait::until("PRIM and SECOND, both Ready, with one application", LATER, || {
        let (one, two) = (told(module, "node1")?, told(module, "node2")?);
        let (primary, secondary) = match (one.as_str(), two.as_str()) {
            ("PRIM Ready uptodate", "SECOND Ready uptodate") => ("node1", "node2"),
            ("SECOND Ready uptodate", "PRIM Ready uptodate") => ("node2", "node1"),
            seen => return Err(format!("{seen:?}")),
        };
        let pids = |node| module.application(node).map_err(|error| format!("{error:#}"));
        let (here, there) = (pids(primary)?, pids(secondary)?);
        if here.len() == 1 && there.is_empty() { Ok((primary, secondary)) } else { Err(format!("{here:?} {there:?}")) }
    })
}

/// Kills the runner of a node with SIGKILL, if it has one at this moment.
fn kill_runner(cluster: &Cluster, module: &Module<'_>, node: &str) -> Result<()> {
    for pid in cluster.lab.pids(node, &format!("sk-module run {}", module.name()))? {
        let _ = cluster.lab.exec(node, &["kill", "-KILL", &pid.to_string()]);
    }
    Ok(())
}

/// Gives an order on the primary and kills the runner of a victim after some time, again and again. Whatever the moment: the
/// pair comes back, one application runs, and what was acknowledged is there.
fn interrupted(purpose: &str, verb: &str, victims: &[&str]) -> Result<()> {
    Cluster::up(purpose, 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        cluster.lab.sh("node1", "echo 0.2 >/srv/mir/slow")?;
        cluster.lab.sh("node2", "echo 0.2 >/srv/mir/slow")?;
        for (round, delay) in [0, 120, 300].into_iter().enumerate() {
            let (primary, secondary) = any_pair(&module)?;
            write(cluster, &module, primary, "round", &format!("round {round}"))?;
            let mut order = cluster.lab.command(&["exec", primary, "sk-module", verb, "-m", module.name()]).spawn()?;
            // Not a wait for something: the moment of the blow.
            std::thread::sleep(Duration::from_millis(delay));
            for victim in victims {
                kill_runner(cluster, &module, if *victim == "primary" { primary } else { secondary })?;
            }
            // Refused, cut off or done: all are right.
            order.wait().context("the order")?;
            let (primary, secondary) = any_pair(&module)?;
            for node in [primary, secondary] {
                let seen = read(cluster, &module, node, "round");
                ensure!(
                    seen.as_deref() == Some(&format!("round {round}")),
                    "{node}, {verb} cut after {delay} ms: {seen:?}"
                );
            }
        }
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_swap_survives_the_end_of_the_primary_s_runner() -> Result<()> {
    interrupted("att-swap1", "swap", &["primary"])
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_swap_survives_the_end_of_the_secondary_s_runner() -> Result<()> {
    interrupted("att-swap2", "swap", &["secondary"])
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_swap_survives_the_end_of_both_runners() -> Result<()> {
    interrupted("att-swap3", "swap", &["primary", "secondary"])
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_restart_survives_the_end_of_its_runner() -> Result<()> {
    interrupted("att-rest", "restart", &["primary"])
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_stopstart_survives_the_end_of_both_runners() -> Result<()> {
    interrupted("att-stst", "stopstart", &["primary", "secondary"])
}

/// The configuration of a stopped module is exchanged as a whole: whenever `config` is killed, the next start works.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_configuration_survives_the_end_of_the_command() -> Result<()> {
    Cluster::up("att-conf", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        for delay in ["0.003", "0.01", "0.03"] {
            // Killed, or faster than that: both are right.
            let line = format!("timeout -s KILL {delay} sk-module config -m mir; true");
            cluster.lab.sh("node2", &line)?;
            module.order("node2", &["start", "--wait"])?;
            module.pair("node1", "node2")?;
            module.order("node2", &["stop", "--wait"])?;
            module.reaches("node1", "ALONE Ready", SOON)?;
        }
        module.order("node2", &["config"])?;
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")
    })
}
