//! A store of three members: any one of them may die, whichever the nodes were speaking to; without a majority it decides nothing.

use crate::{VIP, with_store};
use anyhow::{Result, ensure};
use conformance::{Cluster, LATER, SOON, Store, Witnesses};

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn the_death_of_one_member_of_the_store_changes_nothing_and_of_two_ends_the_service_of_a_lone_node() -> Result<()> {
    Cluster::up("members", 2)?.scenario(|cluster| {
        let store = Store::members(cluster, "witness", 3)?;
        // Longer than the election of a new leader.
        let module = with_store(cluster, &store, r#"lease="8s""#)?;
        let mut witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        // From now on node1 lives by the store alone, whose first member it has spoken to so far.
        witnesses.leave("node2")?;
        cluster.lab.run(&["poweroff", "node2"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        for member in 0..3 {
            store.stop(member)?;
            witnesses.served_by("node1")?;
            module.reaches("node1", "ALONE Ready", SOON)?;
            ensure!(
                module.log("node1").matches("splitbrain_failure").count() == 0,
                "fenced by the loss of member {member}"
            );
            store.resume(member)?;
        }
        // The takeover asks a store that has just lost the member that was asked last.
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        store.stop(1)?;
        drop(witnesses);
        cluster.lab.run(&["poweroff", "node1"])?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        store.stop(0)?;
        module.blocked("node2", "splitbrain_failure")?;
        store.resume(0)?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        cluster.lab.run(&["boot", "node1"])?;
        module.pair("node2", "node1")?;
        module.replays()
    })
}
