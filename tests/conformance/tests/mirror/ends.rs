//! No dead ends: two healthy nodes that hear each other serve again, whatever was lost before.

use crate::{pair, read, runs_only, write};
use anyhow::{Result, ensure};
use conformance::{Cluster, Module, SOON, Spec, wait};

fn boot_both(cluster: &Cluster) -> Result<()> {
    let mut other = cluster.lab.command(&["boot", "node2"]).spawn()?;
    cluster.lab.run(&["boot", "node1"])?;
    ensure!(other.wait()?.success());
    Ok(())
}

/// An isolation in which both served and wrote.
fn isolated(cluster: &Cluster, module: &Module<'_>) -> Result<()> {
    cluster.lab.run(&["cut", "node1", "node2"])?;
    for node in ["node1", "node2"] {
        module.reaches(node, "ALONE Ready", SOON)?;
        write(cluster, module, node, &format!("on-{node}"), node)?;
    }
    Ok(())
}

/// What only node2 had is kept aside there.
fn kept_aside(cluster: &Cluster, module: &Module<'_>) -> Result<()> {
    ensure!(read(cluster, module, "node2", "on-node1").as_deref() == Some("node1"));
    ensure!(read(cluster, module, "node2", "on-node2").is_none());
    let kept = cluster.lab.sh("node2", "grep -rlx node2 /var/lib/sk/modules/mir/salvage | head -n 1")?;
    ensure!(!kept.trim().is_empty(), "what only the loser had was erased");
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn both_lost_in_an_isolation_serve_again_when_it_is_over() -> Result<()> {
    Cluster::up("end-split", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        isolated(cluster, &module)?;
        cluster.lab.blackout(&["node1", "node2"])?;
        cluster.lab.run(&["heal"])?;
        boot_both(cluster)?;
        // One of them may have given the other up before it heard it: then the end is that of a split brain. Either way node1 stays.
        module.pair("node1", "node2")?;
        runs_only(&module, "node1", "node2")?;
        kept_aside(cluster, &module)?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn both_lost_while_the_loser_of_a_split_brain_is_copied_serve_again() -> Result<()> {
    Cluster::up("end-loser", 2)?.scenario(|cluster| {
        let module = cluster.configure(&Spec::mirror("mir").rfs(r#"async="second" reiallowedbw="2000""#))?;
        module.start_pair()?;
        isolated(cluster, &module)?;
        let big = format!("{}/big", module.directory());
        cluster.lab.sh("node1", &format!("head -c 64M /dev/urandom >{big} && sync {big}"))?;
        cluster.lab.run(&["heal"])?;
        module.logged("node2", "Split brain recovery: exiting alone", 1)?;
        wait::until("node2 is being copied to", SOON, || {
            let seen = module.log("node2").matches("Updating directory tree from").count();
            if seen >= 2 { Ok(()) } else { Err(seen.to_string()) }
        })?;
        cluster.lab.blackout(&["node1", "node2"])?;
        boot_both(cluster)?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        runs_only(&module, "node1", "node2")?;
        ensure!(read(cluster, &module, "node1", "on-node1").as_deref() == Some("node1"));
        module.reaches("node2", "SECOND Transient", SOON)?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn both_lost_in_a_swap_serve_again() -> Result<()> {
    Cluster::up("end-swap", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        write(cluster, &module, "node1", "file", "acknowledged")?;
        cluster.lab.sh("node1", "echo 3 >/srv/mir/slow; sync")?;
        module.order("node1", &["swap"])?;
        module.reaches("node1", "PRIM Transient", SOON)?;
        cluster.lab.blackout(&["node1", "node2"])?;
        boot_both(cluster)?;
        let primary = wait::until("one serves with the other", SOON * 2, || {
            let (one, two) = (module.state("node1")?, module.state("node2")?);
            match (one.state.as_str(), two.state.as_str()) {
                ("PRIM", "SECOND") => Ok("node1"),
                ("SECOND", "PRIM") => Ok("node2"),
                seen => Err(format!("{seen:?}")),
            }
        })?;
        let other = if primary == "node1" { "node2" } else { "node1" };
        module.pair(primary, other)?;
        runs_only(&module, primary, other)?;
        ensure!(read(cluster, &module, primary, "file").as_deref() == Some("acknowledged"));
        module.replays()
    })
}

/// A primary is lost with content that its peer never received, comes back as a secondary, and is stopped before it could connect: the
/// content is still its own, and kept aside, whenever it is copied to.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn what_a_lost_primary_never_shared_is_kept_aside_however_it_comes_back() -> Result<()> {
    Cluster::up("end-tail", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        // Local at once, and never durable: nobody waits for the other node.
        cluster.lab.run(&["cut", "node1", "node2"])?;
        cluster.lab.sh("node1", &format!("echo unshared >{}/tail", module.directory()))?;
        module.kill("node1", "sk-module run")?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        write(cluster, &module, "node2", "later", "later")?;
        // The nodes hear each other again, but nothing can be copied.
        cluster.lab.run(&["heal", "--net", "prod"])?;
        module.reaches("node1", "SECOND Transient", SOON)?;
        module.order("node1", &["stop", "--wait"])?;
        ensure!(read(cluster, &module, "node1", "tail").is_some(), "the scenario needs content of node1's own");
        cluster.lab.run(&["heal"])?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        ensure!(read(cluster, &module, "node1", "tail").is_none(), "the replicas differ");
        let kept = cluster.lab.sh("node1", "grep -rlx unshared /var/lib/sk/modules/mir/salvage | head -n 1")?;
        ensure!(!kept.trim().is_empty(), "what only node1 had was erased");
        cluster.lab.exec("node2", &["sk-replicate", "verify", "-m", "mir"])?;
        module.replays()
    })
}

/// Both lose their power, and the disk of the secondary has what that of the primary lost: a file that grew, and one that was replaced by a
/// rename. Nobody was promised either; both nodes must hold the same afterwards, whichever that is.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn what_only_the_secondary_kept_of_a_blackout_is_made_equal() -> Result<()> {
    Cluster::up("end-kept", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        for file in ["grown", "replaced"] {
            write(cluster, &module, "node1", file, "old")?;
        }
        // Until they are older than anything that the nodes would look at by itself: checkpoints are common again and again.
        let common = || cluster.lab.sh("node1", "grep '\"position\"' /var/lib/sk/modules/mir/replica/lineage.json");
        for round in 0..4 {
            let before = common()?;
            write(cluster, &module, "node1", "tick", &round.to_string())?;
            wait::until("the next checkpoint", SOON, || {
                let now = common().map_err(|e| e.to_string())?;
                if now == before { Err(now) } else { Ok(()) }
            })?;
        }
        let line = "printf new >other && mv other replaced && printf %s -more >>grown";
        cluster.lab.sh("node1", &format!("cd {} && {line}", module.directory()))?;
        wait::until("node2 has it", SOON, || match read(cluster, &module, "node2", "grown") {
            Some(text) if text == "old-more" => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        cluster.lab.exec("node2", &["sync", "-f", module.directory()])?;
        cluster.lab.blackout(&["node1", "node2"])?;
        boot_both(cluster)?;
        module.pair("node1", "node2")?;
        module.reintegrated("node2", "incremental")?;
        for file in ["grown", "replaced"] {
            let (one, two) = (read(cluster, &module, "node1", file), read(cluster, &module, "node2", file));
            eprintln!("{file}: {one:?}, {two:?}");
            ensure!(one.is_some() && one == two, "{file}: {one:?} on node1, {two:?} on node2");
        }
        module.replays()
    })
}
