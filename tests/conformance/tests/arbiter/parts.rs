//! With a store as the arbiter, any one process of the primary may be killed: service goes on, or moves, and is never in two places.

use crate::{VIP, with_store};
use anyhow::{Result, ensure};
use conformance::{Cluster, LATER, Secured, Store, Witnesses};
use std::time::Duration;

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn each_process_of_a_primary_may_be_killed_alone() -> Result<()> {
    Cluster::up("parts", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let module = with_store(cluster, &store, "")?;
        let witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        for program in ["sk-vip hold", "sk-replicate run", "sk-arbiter run", "sk-heartbeat run"] {
            module.kill("node1", program)?;
            let name = program.split(' ').next().unwrap_or_default();
            module.logged("node1", &format!("| {name} | C | "), 1)?;
            witnesses.served_by("node1")?;
            // The role stayed where it was, and the other node did not begin.
            module.pair("node1", "node2")?;
            ensure!(witnesses.writes("node2") == 0, "{program}: node2 served");
        }
        // The runner is the one that decides: without it its node is fenced at once, and the other one takes over.
        module.kill("node1", "sk-module run")?;
        witnesses.served_by("node2")?;
        module.pair("node2", "node1")?;
        witnesses.served_by("node2")?;
        witnesses.never_both("node1", "node2")?;
        let record = store.record("node1", "mir")?;
        ensure!(record["record"]["owner"] == "node2" && record["record"]["alone"] == false, "{record}");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_runner_that_dies_while_the_store_is_slow_leaves_one_primary() -> Result<()> {
    Cluster::up("slow", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let module = with_store(cluster, &store, "")?;
        let witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        // Answers take up to some tenths of a second: nothing that a healthy pair would notice.
        let slow = store.slow(250, 150)?;
        witnesses.served_by("node1")?;
        module.pair("node1", "node2")?;
        module.kill("node1", "sk-module run")?;
        witnesses.served_by("node2")?;
        module.pair("node2", "node1")?;
        // Silent for good, while the primary has nobody else: it is fenced.
        cluster.lab.run(&["cut", "node1", "node2"])?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        witnesses.served_by("node2")?;
        drop(slow);
        store.freeze(true)?;
        module.blocked("node2", "splitbrain_failure")?;
        let before = witnesses.writes("node2");
        std::thread::sleep(Duration::from_secs(2));
        ensure!(witnesses.writes("node2") == before, "writes are acknowledged without a lease");
        store.freeze(false)?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        witnesses.served_by("node2")?;
        witnesses.never_both("node1", "node2")?;
        cluster.lab.run(&["heal"])?;
        module.pair("node2", "node1")?;
        module.replays()
    })
}
