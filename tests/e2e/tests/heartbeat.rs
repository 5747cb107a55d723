//! Do the ends of heartbeat processes and of runners mean what they are: nothing, or an end that is known at once?

use anyhow::{Result, ensure};
use e2e::mirror::{Mirror, SOON};
use e2e::wait;

const CARRIER: &str = "^sk-heartbeat carry";

/// The carrier of a node's heartbeats, other than `former`.
fn carrier(mirror: &Mirror, node: &str, former: u32) -> Result<u32> {
    wait::until(&format!("a carrier on {node}"), SOON, || {
        match mirror.lab.pids(node, CARRIER).map_err(|e| e.to_string())?.as_slice() {
            [pid] if *pid != former => Ok(*pid),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn carriers_come_and_go_and_the_death_of_a_runner_is_known_at_once() -> Result<()> {
    let mirror = Mirror::started("heartbeat", "files", r#"async="second""#)?;
    mirror.scenario(|mirror| {
        for (node, signal) in [("node1", "-KILL"), ("node2", "-KILL"), ("node1", "-STOP")] {
            let former = carrier(mirror, node, 0)?;
            mirror.lab.exec(node, &["kill", signal, &former.to_string()])?;
            carrier(mirror, node, former)?;
        }
        // The last successor speaks: an order crosses.
        mirror.order("node1", &["swap"])?;
        mirror.pair("node2", "node1")?;
        for node in ["node1", "node2"] {
            let log = mirror.log(node);
            let up = log.split("Remote state SECOND Ready").last().unwrap_or_default();
            ensure!(!up.contains("set to down by heart") && !up.contains("ended without a goodbye"), "{node}: {log}");
        }
        mirror.lab.kill("node1", "sk-module run")?;
        mirror.logged("node2", "ended without a goodbye: its host reports the death of its runner", 1)?;
        mirror.pair("node2", "node1")
    })
}
