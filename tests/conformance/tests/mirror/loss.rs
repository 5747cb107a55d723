//! M11–M16, M19, M21: what fails, and comes back.

use crate::{application, pair, paired, read, runs_only, write};
use anyhow::{Result, ensure};
use conformance::{Cluster, LATER, SOON, Spec, wait};

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m11_the_secondary_takes_over_from_a_dead_primary() -> Result<()> {
    Cluster::up("m11", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        write(cluster, &module, "node1", "file", "acknowledged")?;
        cluster.lab.run(&["poweroff", "node1"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        let log = module.log("node2");
        for ident in ["default", "flow"] {
            ensure!(log.contains(&format!("Resource heartbeat.{ident} set to down by heart")), "{ident}: {log}");
        }
        module.in_order(
            "node2",
            "Remote state UNKNOWN",
            &["Action alone called by heart: no heartbeat", "Script start_prim", "Local state ALONE Ready"],
        )?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("acknowledged"));
        let before = application(&module, "node2")?;
        cluster.lab.run(&["boot", "node1"])?;
        module.pair("node2", "node1")?;
        ensure!(application(&module, "node2")? == before, "the application was restarted");
        ensure!(module.application("node1")?.is_empty(), "two applications");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m12_the_primary_goes_on_when_the_secondary_dies() -> Result<()> {
    Cluster::up("m12", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        let before = application(&module, "node1")?;
        cluster.lab.run(&["poweroff", "node2"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.in_order("node1", "Action alone called by heart: no heartbeat", &["Local state ALONE Ready"])?;
        write(cluster, &module, "node1", "file", "alone")?;
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        ensure!(application(&module, "node1")? == before, "the application was restarted");
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("alone"));
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m13_after_a_blackout_the_first_node_waits_for_the_other() -> Result<()> {
    Cluster::up("m13", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        write(cluster, &module, "node1", "file", "acknowledged")?;
        cluster.lab.blackout(&["node1", "node2"])?;
        cluster.lab.run(&["boot", "node1"])?;
        module.blocked("node1", "rfs_notuptodate_server")?;
        module.resource_is("node1", "rfs.uptodate", "down")?;
        ensure!(module.application("node1")?.is_empty(), "the application runs though the peer may know more");
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        runs_only(&module, "node1", "node2")?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("acknowledged"));
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m14_with_syncdelta_the_first_node_serves_after_a_blackout() -> Result<()> {
    Cluster::up("m14", 2)?.scenario(|cluster| {
        let module = paired(cluster, &Spec::mirror("mir").rfs(r#"async="second" syncdelta="10m""#))?;
        write(cluster, &module, "node1", "file", "acknowledged")?;
        module.resource_is("node1", "rfs.synced", "up")?;
        cluster.lab.blackout(&["node1", "node2"])?;
        cluster.lab.run(&["boot", "node1"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.logged("node1", "Action rfs.uptodate=up from failover rule rfs_forceuptodate", 1)?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("acknowledged"));
        write(cluster, &module, "node1", "file", "newer")?;
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        runs_only(&module, "node1", "node2")?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("newer"));
        // Who stopped in order knows that it was left behind, however short ago.
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        write(cluster, &module, "node1", "file", "newest")?;
        module.order("node1", &["stop", "--wait"])?;
        module.order("node2", &["start"])?;
        module.blocked("node2", "rfs_notuptodate_server")?;
        module.resource_is("node2", "rfs.synced", "down")?;
        module.order("node1", &["start"])?;
        module.pair("node1", "node2")?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("newest"));
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m15_without_any_network_both_serve() -> Result<()> {
    Cluster::up("m15", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        let before = application(&module, "node1")?;
        cluster.lab.run(&["cut", "node1", "node2"])?;
        for node in ["node1", "node2"] {
            module.reaches(node, "ALONE Ready", SOON)?;
            module.logged(node, "Action alone called by heart: no heartbeat", 1)?;
        }
        ensure!(application(&module, "node1")? == before, "the primary's application was restarted");
        application(&module, "node2").map(drop)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m16_after_an_isolation_the_former_primary_stays() -> Result<()> {
    Cluster::up("m16", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        let before = application(&module, "node1")?;
        cluster.lab.run(&["cut", "node1", "node2"])?;
        for node in ["node1", "node2"] {
            module.reaches(node, "ALONE Ready", SOON)?;
            write(cluster, &module, node, &format!("on-{node}"), node)?;
        }
        cluster.lab.run(&["heal"])?;
        module.pair("node1", "node2")?;
        module.in_order("node1", "Split brain recovery: staying alone", &["Local state PRIM Ready"])?;
        module.in_order(
            "node2",
            "Split brain recovery: exiting alone",
            &["Script stop_prim", "Local state SECOND Transient", "Local state SECOND Ready"],
        )?;
        ensure!(application(&module, "node1")? == before, "the application of the node that stays was restarted");
        runs_only(&module, "node1", "node2")?;
        ensure!(read(cluster, &module, "node2", "on-node1").as_deref() == Some("node1"));
        ensure!(read(cluster, &module, "node1", "on-node2").is_none());
        // Better than the list: what only the loser had is kept aside.
        let kept = cluster.lab.sh("node2", "grep -rlx node2 /var/lib/sk/modules/mir/salvage | head -n 1")?;
        ensure!(!kept.trim().is_empty(), "what only the loser had was erased");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m19_one_heartbeat_is_enough() -> Result<()> {
    Cluster::up("m19", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        let said = module.messages("node1", "").len();
        cluster.lab.run(&["cut", "node1", "node2", "--net", "prod"])?;
        for node in ["node1", "node2"] {
            module.logged(node, "Resource heartbeat.default set to down by heart", 1)?;
        }
        write(cluster, &module, "node1", "file", "still replicated")?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("still replicated"));
        cluster.lab.run(&["heal"])?;
        for node in ["node1", "node2"] {
            module.logged(node, "Resource heartbeat.default set to up by heart", 2)?;
        }
        let said = module.messages("node1", "").split_off(said);
        ensure!(!said.iter().any(|line| line.contains("state")), "a state changed: {said:#?}");
        module.pair("node1", "node2")
    })
}

/// The other network: the heartbeat that is left keeps the peer alive, but the data cannot follow. The service goes on.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m19_without_the_replication_network_the_primary_goes_on_alone() -> Result<()> {
    Cluster::up("m19b", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        let before = application(&module, "node1")?;
        cluster.lab.run(&["cut", "node1", "node2", "--net", "repl"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.logged("node1", "Action alone called by heart: no replication", 1)?;
        write(cluster, &module, "node1", "file", "alone")?;
        module.reaches("node2", "SECOND Transient", SOON)?;
        cluster.lab.run(&["heal"])?;
        module.pair("node1", "node2")?;
        ensure!(application(&module, "node1")? == before, "the application was restarted");
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("alone"));
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m21_a_dead_replication_engine_is_restarted_and_degrades_only_when_it_cannot_live() -> Result<()> {
    Cluster::up("m21", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        let before = application(&module, "node1")?;
        // Once: nobody notices.
        module.kill("node1", "sk-replicate")?;
        module.logged("node1", "sk-replicate ended unexpectedly (signal 9); it is started again", 1)?;
        write(cluster, &module, "node1", "file", "after a death")?;
        module.pair("node1", "node2")?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("after a death"));
        // Again and again: it cannot be kept alive.
        wait::until("degraded", LATER, || {
            let degraded = module.resource("node1", "rfs.degraded").map_err(|error| error.to_string())?;
            // Between two lives there is nothing to kill.
            let _ = module.kill("node1", "sk-replicate");
            if degraded == "up" { Ok(()) } else { Err(degraded) }
        })?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.blocked("node2", "degraded_server")?;
        module.resource_is("node2", "rfs.uptodate", "down")?;
        wait::until("the degraded data of node1 are published", SOON, || match module.state("node1")?.data {
            data if data == "degraded" => Ok(()),
            other => Err(other),
        })?;
        ensure!(application(&module, "node1")? == before, "the application was restarted");
        module.order("node1", &["stop", "--wait"])?;
        module.order("node1", &["start"])?;
        module.pair("node1", "node2")?;
        module.resource_is("node1", "rfs.degraded", "down")?;
        module.replays()
    })
}
