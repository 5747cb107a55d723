//! Data that came to the secondary by other means (§5.5 of the reference): by date, by mark, and what is wrong with them is repaired.

use crate::{mirror, pair, read, write};
use anyhow::{Result, ensure};
use conformance::{Cluster, Module, SOON};

/// Waits on a node until its clock shows a later second than any change so far; that second, as `date -u` writes it.
fn moment(cluster: &Cluster, node: &str) -> Result<String> {
    let script = "before=$(date +%s); while [ $(date +%s) -le $((before + 1)) ]; do sleep 0.05; done; \
        date -u -d @$((before + 1)) '+%Y-%m-%d %H:%M:%SZ'";
    Ok(cluster.lab.sh(node, script)?.trim().to_owned())
}

/// Replaces a file of a stopped node by content of the same length that nobody replicated.
fn spoil(cluster: &Cluster, module: &Module<'_>, node: &str, file: &str, text: &str) -> Result<()> {
    write(cluster, module, node, file, text)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn secondforce_copies_what_changed_since_a_date_and_verify_repairs_what_was_wrong() -> Result<()> {
    Cluster::up("copy-date", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        write(cluster, &module, "node1", "old", "right")?;
        write(cluster, &module, "node1", "new", "before")?;
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        spoil(cluster, &module, "node2", "old", "wrong")?;
        let date = moment(cluster, "node1")?;
        write(cluster, &module, "node1", "new", "after")?;
        // What the next secondary would receive, by the change map.
        let told = cluster.lab.exec("node1", &["safekit", "rfsdiff", "-m", "mir"])?;
        // The file from before as well, when no checkpoint came after it.
        ensure!(told.starts_with("directories ") && told.contains("files       "), "{told}");
        ensure!(!told.contains("files       0"), "{told}");
        for bad in ["yesterday", "9999-01-01"] {
            let said = cluster.fails("node2", &["safekit", "secondforce", "-d", bad, "-m", "mir"], 100)?;
            ensure!(said.contains(bad), "{said}");
        }
        cluster.lab.exec("node2", &["safekit", "secondforce", "-d", &date, "-m", "mir"])?;
        module.pair("node1", "node2")?;
        module.reintegrated("node2", "since")?;
        ensure!(read(cluster, &module, "node2", "new").as_deref() == Some("after"));
        ensure!(read(cluster, &module, "node2", "old").as_deref() == Some("wrong"), "it was not vouched for");
        let said = cluster.fails("node1", &["sk-replicate", "verify", "-m", "mir"], 1)?;
        ensure!(said.contains("--repair"), "{said}");
        let said = cluster.lab.exec("node1", &["sk-replicate", "verify", "-m", "mir", "--repair"])?;
        ensure!(said.contains("repaired"), "{said}");
        module.pair("node1", "node2")?;
        ensure!(read(cluster, &module, "node2", "old").as_deref() == Some("right"));
        let kept = cluster.lab.sh("node2", "grep -rlx wrong /var/lib/sk/modules/mir/salvage | wc -l")?;
        ensure!(kept.trim() == "1", "what was replaced is not put aside: {kept}");
        cluster.lab.exec("node1", &["sk-replicate", "verify", "-m", "mir"])?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn an_external_synchronisation_needs_the_mark_of_the_primary_and_is_used_once() -> Result<()> {
    Cluster::up("copy-mark", 2)?.scenario(|cluster| {
        let module = mirror(cluster)?;
        module.order("node1", &["prim", "--wait"])?;
        write(cluster, &module, "node1", "old", "right")?;
        write(cluster, &module, "node1", "new", "before")?;
        let policy = |node: &str, words: &[&str]| {
            cluster.lab.exec(node, &[&["safekit", "rfssync"], words, &["-m", "mir"]].concat())
        };
        ensure!(policy("node2", &[])?.contains("default"));
        // The copy on the other node, whose module has never run.
        let copy = format!("d={}; mkdir -p $d; printf wrong >$d/old; printf before >$d/new", module.directory());
        cluster.lab.sh("node2", &copy)?;
        policy("node2", &["external", "second", "tape-1"])?;
        // Without a mark the secondary stops, and says so.
        module.order("node2", &["second"])?;
        module.reaches("node2", "STOP NotReady", SOON)?;
        module.logged("node2", "the primary was not marked with tape-1", 1)?;
        module.resource_is("node2", "rfs.rfssync", "down")?;
        module.resource_is("node2", "usersetting.rfssyncmode", "external")?;
        moment(cluster, "node1")?;
        policy("node1", &["external", "prim", "tape-1"])?;
        module.resource_is("node1", "usersetting.rfssyncuid", "tape-1")?;
        moment(cluster, "node1")?;
        write(cluster, &module, "node1", "new", "after!")?;
        policy("node2", &["external", "second", "tape-1"])?;
        module.resource_is("node2", "rfs.rfssync", "up")?;
        module.order("node2", &["second"])?;
        module.pair("node1", "node2")?;
        ensure!(read(cluster, &module, "node2", "new").as_deref() == Some("after!"));
        ensure!(read(cluster, &module, "node2", "old").as_deref() == Some("wrong"), "it was not vouched for");
        for node in ["node1", "node2"] {
            module.resource_is(node, "usersetting.rfssyncmode", "default")?;
        }
        // A full copy, wanted while the module is stopped.
        module.order("node2", &["stop", "--wait"])?;
        policy("node2", &["full"])?;
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")?;
        module.reintegrated("node2", "full")?;
        ensure!(read(cluster, &module, "node2", "old").as_deref() == Some("right"));
        let said =
            cluster.fails("node1", &["safekit", "rfssync", "external", "prim", "no blanks", "-m", "mir"], 100)?;
        ensure!(said.contains("no blanks"), "{said}");
        module.replays()
    })
}
