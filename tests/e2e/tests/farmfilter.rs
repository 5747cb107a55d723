//! Does a farm share one address as promised: each connection answered once, shares as the powers say, connections that
//! go on while nodes come and go? Counted at the clients and at the servers.

use anyhow::{Context, Result, ensure};
use e2e::farm::{ADDRESSES, CLIENTS, Farm, Timing, now_ms};
use e2e::wait;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const FAST: Timing = Timing { pulse_ms: 100, missed: 3 };
/// For what a busy machine must not disturb.
const CALM: Timing = Timing { pulse_ms: 100, missed: 10 };
/// What a busy machine may add to a time that is measured at a client.
const LOAD_MS: u64 = 1500;

fn rules(filter: &str) -> Value {
    json!([{"port": 8000, "proto": "tcp", "filter": filter}])
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn shares_follow_the_powers_and_clients_keep_their_server() -> Result<()> {
    let mut farm = Farm::new("shares", 3, CALM)?;
    farm.open_all(&[2, 1, 1], &rules("on_addr"), "vmac_invisible")?;
    let mut total = std::collections::BTreeMap::<String, u64>::new();
    for (host, first) in CLIENTS {
        let seen = farm.count(host, first, &["--remember", "/srv/answers"])?;
        ensure!(seen["errors"] == 0, "{host}: connections were refused: {seen}");
        for (server, count) in seen["servers"].as_object().context("no servers")? {
            *total.entry(server.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        // Again, from other ports: the same client is served by the same server.
        let again = farm.count(host, first, &["--same-as", "/srv/answers"])?;
        ensure!(again["errors"] == 0 && again["moved"] == 0, "{host}: clients have changed their server: {again}");
    }
    let all = u64::from(ADDRESSES) * 2;
    for (node, weight) in farm.nodes.iter().zip([0.5, 0.25, 0.25]) {
        let count = total.get(node).copied().unwrap_or(0);
        let share = count as f64 / all as f64;
        ensure!(
            (share / weight - 1.0).abs() <= 0.05,
            "{node} served {count} of {all}, not {weight} of them: {total:?}"
        );
        // The server counted the same: nobody else answered on its behalf, nothing was answered twice.
        let served = farm.served(node)?;
        ensure!(served == 2 * count, "{node} counts {served} connections, its clients {}", 2 * count);
    }
    eprintln!("{all} clients at powers 2 1 1: {total:?}");
    Ok(())
}

/// How long a download lasts at least: a server sends 200 kB a second in each.
const DOWNLOAD: Duration = Duration::from_mins(1);
const DOWNLOAD_BYTES: &str = "12000000";

/// Downloads of a minute go on byte-exact while one node leaves, joins and another one dies; new connections are never refused.
fn downloads(mode: &str) -> Result<()> {
    let mut farm = Farm::new("downloads", 3, CALM)?;
    farm.open_all(&[1, 1, 1], &rules("on_port"), mode)?;
    let begun = Instant::now();
    let loads = [
        farm.load("client", "download", &["--count", "24", "--bytes", DOWNLOAD_BYTES])?,
        farm.load("witness", "download", &["--count", "24", "--bytes", DOWNLOAD_BYTES])?,
    ];
    let probe = farm.load("client", "probe", &["--deadline-ms", "10000"])?;
    wait::until("downloads on each server", Duration::from_secs(10), || {
        let begun = |n: &String| {
            let status = farm.status(n).map_err(|e| format!("{e:#}"))?;
            let count = status["groups"][0]["connections"].as_u64().unwrap_or(0);
            if count > 3 { Ok(()) } else { Err(format!("{n}: {count}")) }
        };
        farm.nodes.iter().try_for_each(begun)
    })?;
    farm.member("node3")?.do_("close", "closed")?;
    farm.settled(&["node1", "node2"])?;
    farm.member("node3")?.do_("open", "opened")?;
    farm.settled(&["node1", "node2", "node3"])?;
    let seen = probe.finish()?;
    let seen = seen.first().context("the probe said nothing")?;
    ensure!(seen["refused"] == 0 && seen["reset"] == 0 && seen["failed"] == 0, "new connections failed: {seen}");
    farm.lab.run(&["poweroff", "node2"])?;
    farm.members.remove("node2");
    farm.settled(&["node1", "node3"])?;
    ensure!(begun.elapsed() < DOWNLOAD, "the downloads could be over already: nothing was shown");
    let mut ends = Vec::new();
    for load in loads {
        ends.extend(load.finish()?);
    }
    ensure!(ends.len() == 48, "{} downloads ended", ends.len());
    let on = |node: &str| ends.iter().filter(|d| d["server"] == node).count();
    ensure!(on("node1") > 3 && on("node2") > 3 && on("node3") > 3, "not on each server: {ends:?}");
    let broken: Vec<_> = ends.iter().filter(|d| d["server"] != "node2" && !d["error"].is_null()).collect();
    ensure!(broken.is_empty(), "downloads from servers that live were broken: {broken:?}");
    let short: Vec<_> =
        ends.iter().filter(|d| d["error"].is_null() && d["ms"].as_u64() < Some(DOWNLOAD.as_millis() as u64)).collect();
    ensure!(short.is_empty(), "downloads lasted less than {DOWNLOAD:?}: {short:?}");
    ensure!(
        ends.iter().any(|d| d["server"] == "node2" && !d["error"].is_null()),
        "the downloads were over before node2 died: nothing was shown"
    );
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn downloads_go_on_while_servers_come_and_go() -> Result<()> {
    downloads("vmac_invisible")
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn downloads_go_on_while_servers_come_and_go_when_directed() -> Result<()> {
    downloads("vmac_directed")
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn after_a_power_failure_new_connections_fail_no_longer_than_the_detection_time() -> Result<()> {
    let mut farm = Farm::new("poweroff", 3, FAST)?;
    farm.open_all(&[1, 1, 1], &rules("on_port"), "vmac_invisible")?;
    let probe = farm.load("client", "probe", &["--deadline-ms", "50", "--threads", "8"])?;
    std::thread::sleep(Duration::from_millis(500));
    let pulled = now_ms();
    farm.lab.run(&["poweroff", "node2"])?;
    farm.members.remove("node2");
    farm.settled(&["node1", "node3"])?;
    std::thread::sleep(Duration::from_millis(500));
    let seen = probe.finish()?;
    let seen = seen.first().context("the probe said nothing")?;
    ensure!(seen["failed"].as_u64() > Some(0), "no connection failed: the power failure was not noticed: {seen}");
    ensure!(seen["refused"] == 0, "connections were refused: {seen}");
    let (first, last) = (seen["first_failure_ms"].as_u64(), seen["last_failure_ms"].as_u64());
    let (first, last) = (first.context("a time")?, last.context("a time")?);
    let outage = last.saturating_sub(first.max(pulled));
    eprintln!("new connections failed for {outage} ms (detection {} ms): {seen}", farm.timing.detection_ms());
    ensure!(outage <= farm.timing.detection_ms() + LOAD_MS, "new connections failed for {outage} ms");
    // It comes back and takes its share again.
    farm.lab.run(&["boot", "node2"])?;
    farm.prepare("node2")?;
    let spec = farm.spec("node2", &[1, 1, 1], &rules("on_port"), "vmac_invisible")?;
    farm.start("node2", &spec)?;
    farm.member("node2")?.do_("open", "opened")?;
    farm.settled(&["node1", "node2", "node3"])
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn each_side_of_a_partition_serves_and_healing_makes_one_table() -> Result<()> {
    let mut farm = Farm::new("partition", 3, CALM)?;
    farm.open_all(&[1, 1, 1], &rules("on_addr"), "vmac_invisible")?;
    // node3 and witness on one side, the others on the other.
    for (a, b) in [
        ("node1", "node3"),
        ("node2", "node3"),
        ("client", "node3"),
        ("client", "witness"),
        ("node1", "witness"),
        ("node2", "witness"),
    ] {
        farm.lab.run(&["cut", a, b])?;
    }
    farm.settled(&["node1", "node2"])?;
    farm.settled(&["node3"])?;
    let sides = [&["node1", "node2"][..], &["node3"][..]];
    for ((host, first), servers) in CLIENTS.into_iter().zip(sides) {
        let seen = farm.count(host, first, &[])?;
        let by: Vec<&str> = seen["servers"].as_object().context("servers")?.keys().map(String::as_str).collect();
        ensure!(seen["errors"] == 0 && by == servers, "{host}: {seen}");
    }
    let begun = |nodes: &[&str]| -> Result<u64> {
        let of = |node: &&str| farm.status(node)?["groups"][0]["connections"].as_u64().context("connections");
        nodes.iter().map(of).sum()
    };
    let before = [begun(sides[0])?, begun(sides[1])?];
    let downloads = [
        farm.load("client", "download", &["--count", "12", "--bytes", "1200000"])?,
        farm.load("witness", "download", &["--count", "12", "--bytes", "1200000"])?,
    ];
    wait::until("downloads on both sides", Duration::from_secs(10), || {
        for (nodes, before) in sides.iter().zip(before) {
            let count = begun(nodes).map_err(|e| format!("{e:#}"))?.saturating_sub(before);
            if count < 12 {
                return Err(format!("{nodes:?}: {count}"));
            }
        }
        Ok(())
    })?;
    farm.lab.run(&["heal"])?;
    farm.settled(&["node1", "node2", "node3"])?;
    // Each side took the other for dead, and resets what it does not know. A connection goes on or ends at once: it
    // never hangs, and never carries another's bytes.
    for load in downloads {
        let ends = load.finish()?;
        let lawful =
            |d: &Value| d["error"].is_null() || d["error"].as_str().is_some_and(|e| e.contains("reset by peer"));
        ensure!(ends.len() == 12 && ends.iter().all(lawful), "downloads hung or were broken: {ends:?}");
    }
    let seen = farm.count("client", "198.18.0.0", &[])?;
    ensure!(seen["errors"] == 0 && seen["servers"].as_object().is_some_and(|s| s.len() == 3), "{seen}");
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn a_frozen_host_is_out_and_in_again_and_a_killed_member_is_replaced() -> Result<()> {
    let mut farm = Farm::new("frozen", 3, FAST)?;
    farm.open_all(&[1, 1, 1], &rules("on_addr"), "vmac_invisible")?;
    farm.lab.run(&["pause", "node2"])?;
    farm.settled(&["node1", "node3"])?;
    let seen = farm.count("client", "198.18.0.0", &[])?;
    ensure!(seen["errors"] == 0, "a frozen host was given connections: {seen}");
    ensure!(seen["servers"]["node2"].is_null(), "a frozen host answered: {seen}");
    farm.lab.run(&["resume", "node2"])?;
    farm.settled(&["node1", "node2", "node3"])?;
    let seen = farm.count("client", "198.18.0.0", &[])?;
    ensure!(seen["errors"] == 0 && !seen["servers"]["node2"].is_null(), "it is in again: {seen}");
    // A member that is killed leaves rules that accept nothing; the next one begins from them.
    farm.lab.kill("node3", "sk-farmfilter run")?;
    farm.members.remove("node3");
    farm.settled(&["node1", "node2"])?;
    ensure!(farm.lab.sh("node3", "nft list tables")?.contains("sk_AM"), "a killed process cannot clean up");
    let seen = farm.count("client", "198.18.0.0", &[])?;
    ensure!(seen["errors"] == 0 && seen["servers"]["node3"].is_null(), "{seen}");
    let spec = farm.spec("node3", &[1, 1, 1], &rules("on_addr"), "vmac_invisible")?;
    farm.start("node3", &spec)?;
    farm.member("node3")?.do_("open", "opened")?;
    farm.settled(&["node1", "node2", "node3"])?;
    // The runner goes away: nothing is left.
    farm.members.remove("node1").context("node1")?.end()?;
    let left = farm.lab.sh("node1", "nft list tables; ip -o address show dev lo")?;
    ensure!(!left.contains("sk_AM") && !left.contains(&farm.vip), "left behind: {left}");
    farm.settled(&["node2", "node3"])
}
