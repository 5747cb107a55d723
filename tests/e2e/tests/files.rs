//! Do applications on a mirror see an ordinary disk, and what do they find after a failover?

use anyhow::{Context, Result, ensure};
use e2e::mirror::{LATER, Mirror, Records, SOON};

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
