//! M26–M28: what a resynchronisation copies, measured, and what clocks have to do with it.

use crate::{pair, read, write};
use anyhow::{Context, Result, ensure};
use conformance::{Cluster, Module, SOON, wait};
use std::path::PathBuf;
use std::process::Command;

const BIG: u64 = 64 << 20;

/// A big file on both nodes, in sync and durable.
fn big_file(cluster: &Cluster, module: &Module<'_>) -> Result<()> {
    let path = format!("{}/big", module.directory());
    cluster.lab.sh("node1", &format!("head -c {BIG} /dev/urandom >{path} && sync {path}")).map(drop)
}

/// Changes one zone of 4 KiB in the middle of the big file.
fn change_zone(cluster: &Cluster, module: &Module<'_>, node: &str) -> Result<()> {
    let path = format!("{}/big", module.directory());
    let line = format!("dd if=/dev/urandom of={path} bs=4096 seek=5000 count=1 conv=notrunc,fsync status=none");
    cluster.lab.sh(node, &line).map(drop)
}

/// Bytes of file content that the last resynchronisation of a node sent, by its log; 0 when it copied nothing.
fn copied(module: &Module<'_>, node: &str) -> Result<u64> {
    let log = module.log(node);
    let since = log.rfind("Updating directory tree from").context("no resynchronisation")?;
    let Some((_, rest)) = log[since..].split_once("Copied ") else { return Ok(0) };
    rest.split(' ').next().and_then(|bytes| bytes.parse().ok()).with_context(|| format!("no number in {rest:?}"))
}

fn same_content(cluster: &Cluster, module: &Module<'_>) -> Result<()> {
    let sum = |node: &str| cluster.lab.exec(node, &["sha256sum", &format!("{}/big", module.directory())]);
    ensure!(sum("node1")? == sum("node2")?, "the replicas differ");
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m26_after_a_clean_stop_only_changed_zones_are_copied() -> Result<()> {
    Cluster::up("m26", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        big_file(cluster, &module)?;
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        change_zone(cluster, &module, "node1")?;
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")?;
        module.reintegrated("node2", "incremental")?;
        let bytes = copied(&module, "node2")?;
        eprintln!("copied after a clean stop: {bytes} bytes for 4096 changed in {BIG}");
        ensure!((4096..=1 << 20).contains(&bytes), "{bytes} bytes were copied");
        same_content(cluster, &module)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m27_after_a_crash_still_only_what_may_differ_is_copied() -> Result<()> {
    Cluster::up("m27", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        big_file(cluster, &module)?;
        write(cluster, &module, "node1", "older", "older")?;
        // With async="second" the secondary may lose at a crash what only its memory held: that would be copied again, too.
        cluster.lab.exec("node2", &["sync"])?;
        cluster.lab.run(&["poweroff", "node2"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        change_zone(cluster, &module, "node1")?;
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        module.reintegrated("node2", "incremental")?;
        let asks = [
            "sk-replicate status -m AM",
            "sk-replicate lineage -m AM",
            "sk-replicate salvage -m AM list",
            "sk-replicate policy -m AM show",
            "sk-module state -m AM -v",
            "safekit state -m AM -v",
            "sk-module rules -m AM",
            "sk-module explain -m AM",
            "sk-vip show",
            "sk-module history -m AM",
            "sk-top",
        ];
        for node in ["node1", "node2"] {
            module.fits(node, &asks)?;
        }
        module.fits("node1", &["sk-replicate diff -m AM", "sk-replicate verify -m AM"])?;
        // Everything since the last common checkpoint may be missing there: it is compared by hash, only what differs is copied.
        let bytes = copied(&module, "node2")?;
        eprintln!("copied after a crash: {bytes} bytes for 4096 changed in {BIG}");
        ensure!((4096..=1 << 20).contains(&bytes), "{bytes} bytes were copied");
        same_content(cluster, &module)?;
        ensure!(read(cluster, &module, "node2", "older").as_deref() == Some("older"));
        Ok(())
    })
}

/// A library that lets the processes of a host live an hour in the future.
const SKEW: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t)
{
    int r = (int)syscall(SYS_clock_gettime, id, t);
    if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += 3600;
    return r;
}
int gettimeofday(struct timeval *v, void *z)
{
    struct timespec t;
    (void)z;
    clock_gettime(CLOCK_REALTIME, &t);
    v->tv_sec = t.tv_sec;
    v->tv_usec = t.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *p)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (p) *p = t.tv_sec;
    return t.tv_sec;
}
";

/// Sets the clock of a host an hour ahead for all processes started from now on, until its next boot.
fn an_hour_ahead(cluster: &Cluster, node: &str) -> Result<()> {
    let own = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(cluster.lab.name());
    std::fs::create_dir_all(&own)?;
    std::fs::write(own.join("skew.c"), SKEW)?;
    let library = own.join("skew.so");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(own.join("skew.c")).status();
    ensure!(built.context("run cc")?.success(), "cc failed");
    cluster.lab.run(&["push", node, &own.to_string_lossy(), "/usr/local/lib/skew"])?;
    std::fs::remove_dir_all(&own)?;
    cluster.lab.sh(node, "echo /usr/local/lib/skew/skew.so >/etc/ld.so.preload")?;
    let now = |node: &str| -> Result<u64> { Ok(cluster.lab.exec(node, &["date", "+%s"])?.trim().parse()?) };
    let ahead = now(node)?.saturating_sub(now("witness")?);
    ensure!((3500..3700).contains(&ahead), "the clock of {node} is {ahead} s ahead");
    Ok(())
}

/// Nothing here is refused because of clocks, since nothing is decided by them.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m28_clocks_an_hour_apart_change_nothing() -> Result<()> {
    Cluster::up("m28", 2)?.scenario(|cluster| {
        an_hour_ahead(cluster, "node2")?;
        let module = pair(cluster)?;
        write(cluster, &module, "node1", "file", "1")?;
        // The secondary is left behind, the primary's change is "older" than the secondary's last life.
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        write(cluster, &module, "node1", "file", "2")?;
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")?;
        module.reintegrated("node1", "incremental")?;
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("2"));
        // The node of the future serves, and dates its files there; the other comes back from its past.
        module.order("node1", &["stop", "--wait"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        write(cluster, &module, "node2", "file", "3")?;
        cluster.lab.sh("node2", &format!("touch -d '+1 hour' {0}/file; sync {0}/file", module.directory()))?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("3"));
        // Its clock is set right by a boot: an hour back. What it wrote in the future is older than now.
        cluster.lab.run(&["poweroff", "node2"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        write(cluster, &module, "node1", "file", "4")?;
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        wait::until("the last change is on both", SOON, || {
            let seen = read(cluster, &module, "node2", "file");
            if seen.as_deref() == Some("4") { Ok(()) } else { Err(format!("{seen:?}")) }
        })?;
        ensure!(!module.log("node1").contains("abnormal delta"));
        module.replays()
    })
}
