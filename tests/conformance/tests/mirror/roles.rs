//! M22, M23, M25 and their kin: who may be primary, by configuration and by the state of the data.

use crate::{application, pair, paired, read, runs_only, write};
use anyhow::{Result, ensure};
use conformance::{Cluster, LATER, SOON, Spec};

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m22_without_failover_the_secondary_waits_for_its_primary() -> Result<()> {
    Cluster::up("m22", 2)?.scenario(|cluster| {
        let module = paired(cluster, &Spec::mirror("mir").service(r#"boot="auto" failover="off""#))?;
        cluster.lab.run(&["poweroff", "node1"])?;
        module.blocked("node2", "failover-off")?;
        module.in_order(
            "node2",
            "Failover-off configured",
            &[
                "Failover-off configured",
                "Action stopstart called by failover-off",
                "Transition STOPSTART from failover-off",
                "Local state WAIT NotReady",
            ],
        )?;
        ensure!(module.application("node2")?.is_empty(), "the application was started");
        cluster.lab.run(&["boot", "node1"])?;
        module.pair("node1", "node2")?;
        // A clean stop is no reason either.
        module.order("node1", &["stop", "--wait"])?;
        module.blocked("node2", "failover-off")?;
        // The operator's way out.
        module.order("node2", &["stop", "--wait"])?;
        module.order("node2", &["prim"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m23_a_named_default_primary_gets_its_role_back() -> Result<()> {
    Cluster::up("m23", 2)?.scenario(|cluster| {
        let module = paired(cluster, &Spec::mirror("mir").service(r#"boot="auto" defaultprim="node1""#))?;
        cluster.lab.run(&["poweroff", "node1"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        write(cluster, &module, "node2", "file", "alone")?;
        cluster.lab.run(&["boot", "node1"])?;
        module.logged("node2", "Transition SWAP from defaultprim", 1)?;
        module.pair("node1", "node2")?;
        module.in_order(
            "node2",
            "Transition SWAP from defaultprim",
            &["Begin of Swap", "Script stop_prim", "Local state SECOND Ready"],
        )?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("alone"));
        runs_only(&module, "node1", "node2")?;
        // A swap by hand is respected: the other becomes primary and stays it.
        module.order("node1", &["swap"])?;
        module.pair("node2", "node1")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m23_by_default_the_application_stays_where_it_is() -> Result<()> {
    Cluster::up("m23b", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        cluster.lab.run(&["poweroff", "node1"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        let before = application(&module, "node2")?;
        cluster.lab.run(&["boot", "node1"])?;
        module.pair("node2", "node1")?;
        ensure!(application(&module, "node2")? == before, "the application was moved or restarted");
        ensure!(!module.log("node2").contains("defaultprim"));
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m23_lastprim_gives_the_role_back_to_the_last_primary() -> Result<()> {
    Cluster::up("m23c", 2)?.scenario(|cluster| {
        let module = paired(cluster, &Spec::mirror("mir").service(r#"boot="auto" defaultprim="lastprim""#))?;
        // node1 was primary when it stopped: it becomes primary again.
        module.order("node1", &["stop", "--wait"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        module.order("node1", &["start"])?;
        module.logged("node2", "Transition SWAP from defaultprim", 1)?;
        module.pair("node1", "node2")?;
        // node2 was secondary when it stopped: it stays secondary.
        let swaps = module.log("node1").matches("Begin of Swap").count();
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")?;
        ensure!(module.log("node1").matches("Begin of Swap").count() == swaps, "the secondary was swapped in");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m20_a_node_left_behind_does_not_start_alone() -> Result<()> {
    Cluster::up("m20", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        write(cluster, &module, "node1", "late", "late")?;
        module.order("node1", &["stop", "--wait"])?;
        module.order("node2", &["start"])?;
        module.blocked("node2", "rfs_notuptodate_server")?;
        module.resource_is("node2", "rfs.uptodate", "down")?;
        module.order("node1", &["start"])?;
        module.pair("node1", "node2")?;
        ensure!(read(cluster, &module, "node2", "late").as_deref() == Some("late"));
        // The other way out: node1's data are given up, and kept aside when it comes back.
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        write(cluster, &module, "node1", "given-up", "given up")?;
        module.order("node1", &["stop", "--wait"])?;
        module.order("node2", &["start"])?;
        module.blocked("node2", "rfs_notuptodate_server")?;
        module.order("node2", &["stop", "--wait"])?;
        module.order("node2", &["prim"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        ensure!(read(cluster, &module, "node1", "given-up").is_none(), "what was given up is still there");
        let kept = cluster.lab.sh("node1", "grep -rlx 'given up' /var/lib/sk/modules/mir/salvage | head -n 1")?;
        ensure!(!kept.trim().is_empty(), "what was given up was erased");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m25_data_of_an_unfinished_copy_are_served_only_by_force() -> Result<()> {
    Cluster::up("m25", 2)?.scenario(|cluster| {
        // Slow enough that the copy can be interrupted.
        let module = cluster.configure(&Spec::mirror("mir").rfs(r#"async="second" reiallowedbw="2000""#))?;
        cluster.lab.sh("node1", &format!("head -c 64M /dev/urandom >{}/big", module.directory()))?;
        module.order("node1", &["prim"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.order("node2", &["second"])?;
        module.reaches("node2", "SECOND Transient", SOON)?;
        module.logged("node2", "Updating directory tree from", 1)?;
        module.order("node2", &["stop", "--wait"])?;
        module.order("node1", &["stop", "--wait"])?;
        let said = module.refused("node2", &["prim", "--wait"], 1)?;
        ensure!(said.contains("Requested prim start aborted"), "{said}");
        module.reaches("node2", "STOP NotReady", LATER)?;
        module.in_order(
            "node2",
            "Action prim called by root",
            &[
                "Data may be inconsistent for replicated directories (stopped during reintegration)",
                "If you are sure that this server has valid data, run safekit primforce to force start as primary",
                "Requested prim start aborted",
                "Local state STOP NotReady",
            ],
        )?;
        // start waits, for the same reason.
        module.order("node2", &["start"])?;
        module.blocked("node2", "rfs_notuptodate_server")?;
        module.order("node2", &["stop", "--wait"])?;
        module.order("node2", &["primforce"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        module.resource_is("node2", "usersetting.rfssyncmode", "full")?;
        // The other side is copied in full, whatever it holds; its own are kept aside.
        cluster.lab.sh("node2", &format!("rm -f {0}/big; echo forced >{0}/forced; sync {0}", module.directory()))?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        for node in ["node1", "node2"] {
            module.reintegrated(node, "full")?;
            module.resource_is(node, "usersetting.rfssyncmode", "default")?;
        }
        ensure!(read(cluster, &module, "node1", "forced").as_deref() == Some("forced\n"));
        ensure!(read(cluster, &module, "node1", "big").is_none(), "not equal to the forced primary");
        module.replays()
    })
}
