//! What `<rfs>` says beside the data: dates of synchronisation, progress and figures, callbacks.

use crate::{paired, read, runs_only, write};
use anyhow::{Context, Result, ensure};
use conformance::{CALLBACK, Cluster, LATER, Module, SOON, Spec, wait};
use std::time::Duration;

/// A primary with a file, and a secondary that waits for its first date.
fn dated<'a>(cluster: &'a Cluster, dates: &str) -> Result<Module<'a>> {
    let module = cluster.configure(&Spec::mirror("mir").rfs(&format!(r#"async="second" syncat="{dates}""#)))?;
    module.order("node1", &["prim"])?;
    module.reaches("node1", "ALONE Ready", SOON)?;
    write(cluster, &module, "node1", "file", "first")?;
    module.order("node2", &["start"])?;
    module.blocked("node2", "rfs_syncat_wait")?;
    Ok(module)
}

fn waits_again(module: &Module<'_>, times: usize) -> Result<()> {
    // Once when it started, and once after each synchronisation.
    module.logged("node2", "Action wait from failover rule rfs_syncat_wait", times + 1)?;
    module.blocked("node2", "rfs_syncat_wait")?;
    module.reaches("node1", "ALONE Ready", SOON)?;
    module.resource_is("node2", "rfs.syncat", "down")
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn with_syncat_the_secondary_waits_is_synchronised_and_waits_again() -> Result<()> {
    Cluster::up("syncat", 2)?.scenario(|cluster| {
        // A date that does not come meanwhile.
        let module = dated(cluster, "59 23 29 2 *")?;
        module.resource_is("node2", "rfs.syncat", "down")?;
        ensure!(read(cluster, &module, "node2", "file").is_none(), "it was synchronised before its date");
        let said = module.refused("node1", &["set", "-r", "rfs.syncat", "-v", "up"], 1)?;
        ensure!(said.contains("on node2"), "no remedy: {said}");
        for date in 1..=4_usize {
            // More often than maxloop counts.
            cluster.lab.exec("node2", &["safekit", "set", "-r", "rfs.syncat", "-v", "up", "-m", "mir"])?;
            module.logged("node2", "Resource rfs.syncat set to up by safekit", date)?;
            waits_again(&module, date)?;
            module.logged("node2", "Local state SECOND Ready", date)?;
            module.logged("node1", "Local state PRIM Ready", date)?;
            let wanted = if date == 1 { "first".to_owned() } else { format!("date {}", date - 1) };
            ensure!(read(cluster, &module, "node2", "file") == Some(wanted), "not synchronised at date {date}");
            write(cluster, &module, "node1", "file", &format!("date {date}"))?;
        }
        runs_only(&module, "node1", "node2")?;
        // Only what changed since was compared.
        module.logged("node2", "Reintegration mode: incremental", 3)?;

        // What it has is a date old, and it knows.
        cluster.lab.run(&["poweroff", "node1"])?;
        module.blocked("node2", "rfs_notuptodate_server")?;
        ensure!(module.application("node2")?.is_empty(), "it serves old data");
        cluster.lab.run(&["boot", "node1"])?;
        module.reaches("node1", "ALONE Ready", LATER)?;
        module.blocked("node2", "rfs_syncat_wait")?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("date 4"));
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn the_dates_of_syncat_come_by_themselves() -> Result<()> {
    Cluster::up("dates", 2)?.scenario(|cluster| {
        let module = dated(cluster, "* * * * *")?;
        wait::until("a full minute", Duration::from_secs(75), || {
            let said = module.log("node2").contains("Resource rfs.syncat set to up by syncat");
            if said { Ok(()) } else { Err(module.log("node2")) }
        })?;
        waits_again(&module, 1)?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("first"));
        module.replays()
    })
}

/// Lines about bandwidths that the runner wrote for programs so far.
fn bandwidth_lines(cluster: &Cluster, node: &str) -> Result<usize> {
    let text = cluster.lab.read(node, "/run/sk/mir/events.jsonl").context("no events")?;
    Ok(text.lines().filter(|line| line.contains("_bandwidth\"")).count())
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn both_nodes_show_the_progress_and_the_figures_of_a_resynchronisation() -> Result<()> {
    const MB: u64 = 24;
    Cluster::up("figures", 2)?.scenario(|cluster| {
        // Six seconds.
        let spec = Spec::mirror("mir").rfs(r#"async="second" reiallowedbw="4096" reidetail="on""#);
        let module = cluster.configure(&spec)?;
        module.order("node1", &["prim"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        let directory = module.directory();
        cluster.lab.sh("node1", &format!("head -c {MB}M /dev/urandom >{directory}/big && sync {directory}/big"))?;
        module.order("node2", &["second"])?;
        for node in ["node1", "node2"] {
            wait::until(&format!("progress on {node}"), SOON, || {
                let document = module.document(node).map_err(|error| format!("{error:#}"))?;
                let resync = &document["replica"]["resync"];
                let known = resync["bytes_total"].as_u64() == Some(MB << 20);
                let moves = resync["sent"].as_u64().is_some_and(|sent| (1..MB << 20).contains(&sent));
                if known && moves { Ok(()) } else { Err(document["replica"].to_string()) }
            })?;
        }
        for node in ["node1", "node2"] {
            wait::until(&format!("bandwidth on {node}"), SOON, || {
                let seen = module.resource(node, "rfs.rei_bandwidth").map_err(|error| format!("{error:#}"))?;
                if seen.parse::<u64>().is_ok_and(|kb| (1024..8192).contains(&kb)) { Ok(()) } else { Err(seen) }
            })?;
        }
        module.pair("node1", "node2")?;
        for node in ["node1", "node2"] {
            for (name, wanted) in [("scan_count", 1), ("copy_count", 1), ("copy_size", MB << 10), ("syncdir_count", 1)]
            {
                module.resource_is(node, &format!("rfs.rei_{name}_metric"), &wanted.to_string())?;
            }
            let seconds: u64 = module.resource(node, "rfs.rei_copy_time_metric")?.parse()?;
            ensure!((4..60).contains(&seconds), "{node}: copied for {seconds} s");
            ensure!(module.resource(node, "rfs.rei_scan_time_metric")?.parse::<u64>()? < 60);
            ensure!(module.document(node)?["replica"]["resync"].is_null(), "{node}: a progress without an end");
            for name in ["netin", "netout", "rep", "rei"] {
                module.resource_is(node, &format!("rfs.{name}_bandwidth"), "0")?;
            }
        }
        let named = format!("Copied {directory}/big ({} bytes)", MB << 20);
        for line in ["10MB copied", "20MB copied", &named] {
            module.logged("node2", line, 1)?;
        }
        ensure!(!module.log("node1").contains("MB copied"), "the primary copies nothing to itself");

        // Nothing flows: nothing is written.
        let before = [bandwidth_lines(cluster, "node1")?, bandwidth_lines(cluster, "node2")?];
        cluster.lab.sh("node1", "sleep 8")?;
        let after = [bandwidth_lines(cluster, "node1")?, bandwidth_lines(cluster, "node2")?];
        ensure!(before == after, "an idle module goes on telling: {before:?}, {after:?}");
        module.replays()
    })
}

fn callbacks(cluster: &Cluster, node: &str) -> String {
    cluster.lab.read(node, "/srv/mir/callbacks").unwrap_or_default()
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn callbacks_are_called_and_may_object() -> Result<()> {
    Cluster::up("callbacks", 2)?.scenario(|cluster| {
        let spec = Spec::mirror("mir").rfs(r#"async="second" scripts="on""#);
        let module = cluster.written(&spec)?;
        let said = module.refused("node1", &["config", "--id", "1"], 2)?;
        ensure!(said.contains("_rfs_callback"), "the missing script is not named: {said}");
        let module = paired(cluster, &spec.script("_rfs_callback", CALLBACK))?;
        ensure!(callbacks(cluster, "node2") == "_rfs_startsynch\n", "{}", callbacks(cluster, "node2"));
        module.logged("node2", r#"Script _rfs_callback "_rfs_startsynch" >"#, 1)?;
        ensure!(callbacks(cluster, "node1").is_empty(), "{}", callbacks(cluster, "node1"));

        cluster.lab.sh("node1", "echo _rfs_pritoscd >/srv/mir/objects")?;
        // Each order is answered, the second one as well, and who waits for it is told.
        for (asked, times) in [("node2", 1), ("node2", 2), ("node1", 3)] {
            let stays = if asked == "node1" { "PRIM Ready" } else { "SECOND Ready" };
            let said = module.refused(asked, &["swap", "--wait"], 1)?;
            ensure!(said.contains(&format!("swap: module mir is in {stays}")), "{said}");
            module.logged("node1", "Swap given up: this node stays primary", times)?;
            module.pair("node1", "node2")?;
        }
        module.logged("node2", "The other node gave the swap up and stays primary: its log says why", 2)?;
        runs_only(&module, "node1", "node2")?;
        write(cluster, &module, "node1", "file", "still replicated")?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("still replicated"));
        cluster.lab.sh("node1", "rm /srv/mir/objects")?;
        module.order("node2", &["swap", "--wait"])?;
        ensure!(module.state("node2").map_err(anyhow::Error::msg)?.state == "PRIM", "it did not wait for the swap");
        module.pair("node2", "node1")?;
        ensure!(callbacks(cluster, "node1") == "_rfs_pritoscd\n".repeat(4), "{}", callbacks(cluster, "node1"));

        module.order("node1", &["stop", "--wait"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        write(cluster, &module, "node2", "file", "newer")?;
        cluster.lab.sh("node1", "echo _rfs_startsynch >/srv/mir/objects")?;
        module.order("node1", &["start"])?;
        module.logged("node1", "The synchronisation does not start", 1)?;
        module.reaches("node1", "STOP NotReady", SOON)?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("still replicated"));
        cluster.lab.sh("node1", "rm /srv/mir/objects")?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("newer"));
        module.replays()
    })
}
