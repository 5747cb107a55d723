//! Do applications on a mirror see an ordinary disk, and do states follow the conformance list M1–M29?

use anyhow::{Context, Result, ensure};
use e2e::mirror::{LATER, Mirror, Records, SOON};
use e2e::wait;

const RFS: &str = r#"async="second""#;
const FILE: &str = "/srv/data/records";

/// Number of records of a file on a node; an error when they are not complete and in order.
fn records(mirror: &Mirror, node: &str) -> Result<u64> {
    let text = mirror.lab.exec(node, &["ack-writer", "check-records", FILE])?;
    let seen: serde_json::Value = serde_json::from_str(&text)?;
    seen.get("records").and_then(serde_json::Value::as_u64).context("no number of records")
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn an_application_with_o_dsync_loses_nothing() -> Result<()> {
    Mirror::started("dsync", "files", RFS)?.scenario(|mirror| {
        let mut application = Records::start(mirror, "node1", FILE, "dsync", 0)?;
        application.acknowledged(500, SOON)?;
        mirror.lab.run(&["poweroff", "node1"])?;
        let acknowledged = application.finish()?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        let survived = records(mirror, "node2")?;
        ensure!(survived >= acknowledged, "{survived} of {acknowledged} survived");
        mirror.lab.run(&["boot", "node1"])?;
        mirror.pair("node2", "node1")?;
        ensure!(records(mirror, "node1")? == survived, "the copy that came back differs");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn an_application_without_fsync_loses_at_most_the_end() -> Result<()> {
    Mirror::started("nosync", "files", RFS)?.scenario(|mirror| {
        let mut application = Records::start(mirror, "node1", FILE, "no", 200)?;
        application.acknowledged(2000, SOON)?;
        mirror.lab.run(&["poweroff", "node1"])?;
        let written = application.finish()?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        // A prefix, never a hole; and what was written well before the end had been received.
        let survived = records(mirror, "node2")?;
        ensure!(survived + 1000 >= written, "only {survived} of {written} survived");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn an_application_without_fsync_loses_nothing_in_a_swap() -> Result<()> {
    Mirror::started("swapfile", "files", RFS)?.scenario(|mirror| {
        let mut application = Records::start(mirror, "node1", FILE, "no", 0)?;
        application.acknowledged(1000, SOON)?;
        let written = application.finish()?;
        mirror.order("node1", &["swap"])?;
        mirror.pair("node2", "node1")?;
        ensure!(records(mirror, "node2")? >= written);
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn both_lose_their_power_with_async_none() -> Result<()> {
    Mirror::started("none", "files", r#"async="none""#)?.scenario(|mirror| {
        let mut application = Records::start(mirror, "node1", FILE, "fsync", 0)?;
        application.acknowledged(300, SOON)?;
        mirror.lab.run(&["poweroff", "node1"])?;
        mirror.lab.run(&["poweroff", "node2"])?;
        let acknowledged = application.finish()?;
        // The disk of the primary is beyond repair: the secondary's alone must hold everything.
        mirror.lab.run(&["boot", "node2"])?;
        mirror.reaches("node2", "WAIT NotReady", LATER).or_else(|_| mirror.reaches("node2", "ALONE Ready", SOON))?;
        if mirror.state("node2").is_ok_and(|state| state.state == "WAIT") {
            mirror.order("node2", &["stop", "--wait"])?;
            mirror.order("node2", &["prim"])?;
        }
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        let survived = records(mirror, "node2")?;
        ensure!(survived >= acknowledged, "{survived} of {acknowledged} survived");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn conformance_m1_to_m9() -> Result<()> {
    let mirror = Mirror::configured("m1-m9", "files", RFS)?;
    mirror.scenario(|mirror| {
        // M1: nobody knows who is up to date.
        mirror.order("node1", &["start"])?;
        mirror.order("node2", &["start"])?;
        for node in ["node1", "node2"] {
            mirror.reaches(node, "WAIT NotReady", SOON)?;
            mirror.logged(node, "Action wait from failover rule rfs_notuptodate_server", 1)?;
            mirror.logged(node, "Data may be not uptodate for replicated directories", 1)?;
            mirror.order(node, &["stop", "--wait"])?;
        }
        // M2
        mirror.lab.sh("node1", "echo one > /srv/data/first")?;
        mirror.start_pair()?;
        mirror.logged("node1", "Action prim called by", 1)?;
        mirror.logged("node2", "Action second called by", 1)?;
        ensure!(mirror.lab.read("node2", "/srv/data/first").as_deref() == Some("one\n"), "not in the first copy");
        // M8
        mirror.lab.sh("node1", "echo 1 > /srv/data/file1; sync /srv/data/file1")?;
        ensure!(mirror.lab.read("node2", "/srv/data/file1").as_deref() == Some("1\n"), "file1 is not on SECOND");
        ensure!(mirror.lab.sh("node2", "rm /srv/data/file1").is_err(), "SECOND lets a file be deleted");
        ensure!(mirror.lab.sh("node2", "echo x > /srv/data/mine").is_err(), "SECOND lets a file be made");
        // M3
        mirror.order("node2", &["stop", "--wait"])?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        mirror.order("node1", &["stop", "--wait"])?;
        mirror.order("node1", &["start"])?;
        mirror.order("node2", &["start"])?;
        mirror.pair("node1", "node2")?;
        // M4, M9
        mirror.order("node1", &["stop", "--wait"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.logged("node2", "Action alone called by heart: remote stop", 1)?;
        mirror.lab.sh("node2", "echo 2 > /srv/data/file2; rm /srv/data/file1; sync /srv/data")?;
        ensure!(mirror.lab.read("node1", "/srv/data/file2").is_none(), "file2 is on the stopped node");
        // M5
        mirror.order("node1", &["start"])?;
        mirror.pair("node2", "node1")?;
        ensure!(mirror.lab.read("node1", "/srv/data/file2").as_deref() == Some("2\n"), "file2 was not reintegrated");
        ensure!(mirror.lab.read("node1", "/srv/data/file1").is_none(), "a deletion was not reintegrated");
        mirror.logged("node1", "Reintegration ended", 2)?;
        // M6
        mirror.order("node2", &["restart", "--wait"])?;
        mirror.pair("node2", "node1")?;
        // M7
        let vip = |node: &str| mirror.lab.sh(node, &format!("ip -o addr | grep -cF 'inet {}/' || true", mirror.vip));
        ensure!(vip("node2")?.trim() == "1" && vip("node1")?.trim() == "0", "the VIP is not on the primary alone");
        mirror.lab.exec("client", &["ping", "-c1", "-W2", &mirror.vip])?;
        let neighbour = || mirror.lab.exec("client", &["ip", "neigh", "show", &mirror.vip]);
        let before = neighbour()?;
        mirror.order("node2", &["stopstart"])?;
        mirror.pair("node1", "node2")?;
        ensure!(vip("node1")?.trim() == "1" && vip("node2")?.trim() == "0", "the VIP has not moved");
        let mac = mirror.lab.sh("node1", "cat /sys/class/net/eth0/address")?;
        wait::until("the client's ARP entry moved", SOON, || {
            let seen = neighbour().map_err(|error| error.to_string())?;
            if seen.contains(mac.trim()) { Ok(()) } else { Err(format!("{before} then {seen}")) }
        })?;
        // M24
        mirror.order("node1", &["swap"])?;
        mirror.pair("node2", "node1")?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn conformance_isolation_and_stale_data() -> Result<()> {
    let mirror = Mirror::started("m15-m29", "files", RFS)?;
    mirror.scenario(|mirror| {
        // M29
        ensure!(mirror.order("node2", &["prim"]).is_err(), "prim while the peer is PRIM");
        mirror.pair("node1", "node2")?;
        // M15: an isolated pair serves twice, as the product does without a split-brain checker.
        mirror.lab.run(&["cut", "node1", "node2"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        mirror.lab.sh("node1", "echo one > /srv/data/on-one; sync /srv/data")?;
        mirror.lab.sh("node2", "echo two > /srv/data/on-two; sync /srv/data")?;
        // M16
        mirror.lab.run(&["heal"])?;
        mirror.pair("node1", "node2")?;
        mirror.logged("node1", "Split brain recovery: staying alone", 1)?;
        mirror.logged("node2", "Split brain recovery: exiting alone", 1)?;
        ensure!(mirror.lab.read("node2", "/srv/data/on-one").as_deref() == Some("one\n"));
        ensure!(mirror.lab.read("node2", "/srv/data/on-two").is_none(), "the loser's file is still in place");
        let kept = mirror.lab.sh("node2", "grep -rslx two /var/lib/sk /srv | head -n 1")?;
        ensure!(!kept.trim().is_empty(), "what only the loser had was erased, not kept aside");
        // M20
        mirror.order("node2", &["stop", "--wait"])?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        mirror.lab.sh("node1", "echo late > /srv/data/late; sync /srv/data")?;
        mirror.order("node1", &["stop", "--wait"])?;
        mirror.order("node2", &["start"])?;
        mirror.reaches("node2", "WAIT NotReady", SOON)?;
        ensure!(mirror.state("node2").is_ok_and(|state| state.data == "not uptodate"), "{:?}", mirror.state("node2"));
        mirror.order("node1", &["start"])?;
        mirror.pair("node1", "node2")?;
        ensure!(mirror.lab.read("node2", "/srv/data/late").as_deref() == Some("late\n"));
        // M19
        mirror.lab.run(&["cut", "node1", "node2", "--net", "prod"])?;
        mirror.logged("node1", "Resource heartbeat.default set to down by heart", 2)?;
        mirror.pair("node1", "node2")?;
        mirror.lab.run(&["heal"])?;
        mirror.pair("node1", "node2")
    })
}
