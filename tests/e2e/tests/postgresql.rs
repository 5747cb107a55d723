//! Does a mirror save a real database? Whatever is killed or cut: no acknowledged commit is lost.

use anyhow::{Context, Result, ensure};
use e2e::mirror::{LATER, Mirror, SOON};

const RFS: &str = r#"async="second""#;
const SERVER: &str = "/postgres -D /var/lib/postgresql/mirror";
/// Timeout of the template's heartbeats, milliseconds.
const HEARTBEAT_TIMEOUT_MS: u64 = 2000;

/// How long the last start of the server took, by its own log, milliseconds.
fn last_start_ms(mirror: &Mirror, node: &str) -> Result<u64> {
    let log = mirror.lab.read(node, "/var/log/postgresql/postgresql.log").context("the server has no log")?;
    let at = |text: &str| -> Option<u64> {
        let line = log.lines().rev().find(|line| line.contains(text))?;
        let mut clock = line.split_whitespace().nth(1)?.split([':', '.']).map(|part| part.parse::<u64>().ok());
        let (hours, minutes, seconds, millis) = (clock.next()??, clock.next()??, clock.next()??, clock.next()??);
        Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
    };
    let (began, ready) = (at("starting PostgreSQL"), at("ready to accept connections"));
    let day = 24 * 3600 * 1000;
    Ok((ready.context("never ready")? + day - began.context("never started")?) % day)
}

/// The primary's server process.
fn server(mirror: &Mirror, node: &str) -> Result<u32> {
    mirror.lab.pids(node, SERVER)?.first().copied().with_context(|| format!("no server runs on {node}"))
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn primary_loses_its_power() -> Result<()> {
    Mirror::started("poweroff", "postgresql", RFS)?.scenario(|mirror| {
        let writer = mirror.writer()?;
        mirror.acknowledged(500, SOON)?;
        mirror.lab.run(&["poweroff", "node1"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.acknowledged(200, SOON)?;
        let seen = writer.finish()?;
        let allowed = HEARTBEAT_TIMEOUT_MS + last_start_ms(mirror, "node2")? + 1000;
        ensure!(seen.outage_ms <= allowed, "an outage of {} ms, more than {allowed} ms", seen.outage_ms);
        ensure!(mirror.verify()? >= 700);

        let writer = mirror.writer()?;
        mirror.lab.run(&["boot", "node1"])?;
        mirror.pair("node2", "node1")?;
        mirror.order("node2", &["swap"])?;
        mirror.pair("node1", "node2")?;
        mirror.acknowledged(200, SOON)?;
        writer.finish()?;
        mirror.verify()?;
        // What came back by resynchronisation and by the stream serves alone as well.
        mirror.lab.run(&["poweroff", "node1"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.verify()?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn secondary_loses_its_power() -> Result<()> {
    Mirror::started("second", "postgresql", RFS)?.scenario(|mirror| {
        let before = server(mirror, "node1")?;
        let writer = mirror.writer()?;
        mirror.acknowledged(200, SOON)?;
        mirror.lab.run(&["poweroff", "node2"])?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        mirror.acknowledged(200, SOON)?;
        mirror.lab.run(&["boot", "node2"])?;
        mirror.pair("node1", "node2")?;
        writer.finish()?;
        ensure!(server(mirror, "node1")? == before, "the application was restarted");
        mirror.lab.run(&["poweroff", "node1"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.verify()?;
        Ok(())
    })
}

/// Kills a process of the primary under load; whether the server was left alone.
fn killed_under_load(purpose: &str, victim: &str, restarted_by_errd: bool) -> Result<()> {
    Mirror::started(purpose, "postgresql", RFS)?.scenario(|mirror| {
        let before = server(mirror, "node1")?;
        let writer = mirror.writer()?;
        mirror.acknowledged(300, SOON)?;
        mirror.lab.kill("node1", victim)?;
        mirror.acknowledged(300, LATER)?;
        let (primary, secondary) = mirror.any_pair()?;
        mirror.acknowledged(100, SOON)?;
        writer.finish()?;
        mirror.verify()?;
        if restarted_by_errd {
            mirror.logged("node1", "Action restart called by errd", 1)?;
            ensure!(primary == "node1", "a failover where a restart was to be enough");
            ensure!(server(mirror, "node1")? != before, "the dead server is alive");
        }
        // The other copy is as good.
        mirror.lab.run(&["poweroff", primary])?;
        mirror.reaches(secondary, "ALONE Ready", SOON)?;
        mirror.verify()?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_server_is_killed() -> Result<()> {
    killed_under_load("kill-pg", SERVER, true)
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_replication_is_killed() -> Result<()> {
    killed_under_load("kill-repl", "sk-replicate run", false)
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_heartbeat_is_killed() -> Result<()> {
    killed_under_load("kill-heart", "sk-heartbeat run", false)
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_runner_is_killed() -> Result<()> {
    killed_under_load("kill-run", "sk-module run", false)
}

/// Both lose their power at once; `first` boots alone and must wait: the other could know more.
fn both_lose_their_power(purpose: &str, first: &str, second: &str) -> Result<()> {
    Mirror::started(purpose, "postgresql", RFS)?.scenario(|mirror| {
        let writer = mirror.writer()?;
        mirror.acknowledged(500, SOON)?;
        mirror.lab.blackout(&["node1", "node2"])?;
        mirror.lab.run(&["boot", first])?;
        mirror.reaches(first, "WAIT NotReady", SOON)?;
        mirror.lab.run(&["boot", second])?;
        mirror.pair("node1", "node2")?;
        mirror.acknowledged(100, SOON)?;
        writer.finish()?;
        mirror.verify()?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn both_lose_their_power_and_the_primary_boots_first() -> Result<()> {
    both_lose_their_power("both-1", "node1", "node2")
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn both_lose_their_power_and_the_secondary_boots_first() -> Result<()> {
    both_lose_their_power("both-2", "node2", "node1")
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_replication_network_is_cut_and_healed_under_load() -> Result<()> {
    Mirror::started("cut-repl", "postgresql", RFS)?.scenario(|mirror| {
        let before = server(mirror, "node1")?;
        let writer = mirror.writer()?;
        mirror.acknowledged(300, SOON)?;
        mirror.lab.run(&["cut", "node1", "node2", "--net", "repl"])?;
        // The service goes on without the peer, which knows that it is left behind.
        mirror.acknowledged(300, LATER)?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        mirror.lab.run(&["heal"])?;
        mirror.pair("node1", "node2")?;
        mirror.acknowledged(100, SOON)?;
        writer.finish()?;
        ensure!(server(mirror, "node1")? == before, "the application was restarted");
        mirror.lab.run(&["poweroff", "node1"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.verify()?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn swap_stop_and_start_under_load() -> Result<()> {
    Mirror::started("swap", "postgresql", RFS)?.scenario(|mirror| {
        let writer = mirror.writer()?;
        mirror.acknowledged(200, SOON)?;
        mirror.order("node1", &["swap"])?;
        mirror.pair("node2", "node1")?;
        mirror.acknowledged(200, SOON)?;
        mirror.order("node2", &["stop", "--wait"])?;
        mirror.reaches("node2", "STOP NotReady", SOON)?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        mirror.logged("node1", "Action alone called by heart: remote stop", 1)?;
        mirror.acknowledged(200, SOON)?;
        mirror.order("node2", &["start"])?;
        mirror.pair("node1", "node2")?;
        mirror.order("node1", &["restart", "--wait"])?;
        mirror.pair("node1", "node2")?;
        mirror.order("node1", &["stopstart"])?;
        mirror.pair("node2", "node1")?;
        mirror.acknowledged(200, SOON)?;
        writer.finish()?;
        mirror.verify()?;
        Ok(())
    })
}
