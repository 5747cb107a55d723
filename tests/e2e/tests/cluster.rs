//! The nodes together, on test hosts: the key is renewed while an application writes, commands run on both nodes, a cut is told.

use anyhow::{Context, Result, ensure};
use e2e::mirror::{LATER, Mirror, Records, SOON};
use e2e::wait;

/// Lines of the module's log on a node that must not be there while nothing fails.
fn troubles(mirror: &Mirror, node: &str) -> Vec<String> {
    let bad = ["Replication stream lost", "set to down by heart", "Remote state UNKNOWN", "another key"];
    mirror.log(node).lines().filter(|line| bad.iter().any(|b| line.contains(b))).map(str::to_owned).collect()
}

fn key(mirror: &Mirror, node: &str) -> Result<String> {
    mirror.lab.read(node, "/etc/sk/cluster.key").with_context(|| format!("{node} has no key"))
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_key_is_renewed_while_an_application_writes() -> Result<()> {
    Mirror::started("renew", "files", r#"async="second""#)?.scenario(|mirror| {
        for node in ["node1", "node2"] {
            mirror.lab.exec(node, &["sk-cluster", "up"])?;
        }
        let before = key(mirror, "node1")?;
        let quiet = [troubles(mirror, "node1"), troubles(mirror, "node2")];
        let mut records = Records::start(mirror, "node1", "/srv/data/records", "fsync", 2_000)?;
        records.acknowledged(50, SOON)?;
        for _ in 0..2 {
            mirror.lab.exec("node1", &["sk-cluster", "key", "renew"])?;
            records.acknowledged(50, SOON)?;
        }
        let after = key(mirror, "node1")?;
        ensure!(after == key(mirror, "node2")? && !after.contains(before.trim()), "the key was not renewed");
        ensure!(quiet == [troubles(mirror, "node1"), troubles(mirror, "node2")], "{:?}", troubles(mirror, "node1"));
        mirror.pair("node1", "node2")?;

        // What connects and starts from now on does so with the new key alone.
        mirror.lab.kill("node2", "sk-replicate run")?;
        mirror.lab.kill("node2", "sk-heartbeat carry")?;
        wait::until("the stream is made anew", LATER, || {
            let again = troubles(mirror, "node1").len() > quiet.first().map_or(0, Vec::len);
            if again { Ok(()) } else { Err("nothing was noticed yet".to_owned()) }
        })?;
        mirror.pair("node1", "node2")?;
        mirror.order("node2", &["stop", "--wait"])?;
        mirror.order("node2", &["start", "--wait"])?;
        mirror.pair("node1", "node2")?;
        records.acknowledged(50, SOON)?;
        let last = records.finish()?;
        ensure!(last > 200, "{last}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn commands_run_on_both_nodes_and_a_cut_is_told() -> Result<()> {
    Mirror::configured("onboth", "files", r#"async="second""#)?.scenario(|mirror| {
        for node in ["node1", "node2"] {
            mirror.lab.exec(node, &["sk-cluster", "up"])?;
        }
        let on =
            |hosts: &str, words: &[&str]| mirror.lab.try_exec("node1", &[&["sk-module", "-H", hosts], words].concat());
        for (host, verb, state) in [("node1", "prim", "ALONE Ready"), ("node2", "second", "SECOND Ready")] {
            let output = on(host, &[verb, "-m", "files", "--wait"])?;
            ensure!(output.status.success(), "{output:?}");
            mirror.reaches(host, state, SOON).or_else(|_| mirror.reaches(host, "PRIM Ready", SOON))?;
        }
        mirror.pair("node1", "node2")?;
        mirror.logged("node2", "Action second called by root@node1", 1)?;
        let states = mirror.lab.exec("node2", &["sk-cluster", "state", "--json"])?;
        ensure!(states.contains(r#""state":"PRIM""#) && states.contains(r#""state":"SECOND""#), "{states}");
        let swapped = mirror.lab.exec("node1", &["/opt/sk/safekit", "-H", "node2", "swap", "-m", "files"])?;
        ensure!(swapped.contains("Server=sk://"), "{swapped}");
        mirror.pair("node2", "node1")?;
        // Half the cluster is out of reach: its part is told, the other is done.
        let other = mirror.lab.address("node2", "prod")?;
        mirror.lab.exec("node1", &["ip", "route", "add", "blackhole", &format!("{other}/32")])?;
        let output = on("*", &["state", "-m", "files"])?;
        mirror.lab.exec("node1", &["ip", "route", "del", "blackhole", &format!("{other}/32")])?;
        let (out, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.code() == Some(2), "{output:?}");
        ensure!(out.contains("files: SECOND") && words.contains("node2: Error: "), "{out}{words}");
        Ok(())
    })
}
