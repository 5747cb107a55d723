//! How fast is the first copy of a tree to the secondary, compared with tar over the same network, and does one that is interrupted go on where it stopped?

use crate::hosts::{self, Helper, STREAM_PORT};
use crate::table::median;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use e2e::lab::Lab;
use e2e::mirror::{LATER, Mirror, SOON};
use e2e::wait;
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::time::Duration;

const RAW_PORT: u16 = 5700;
const DIR: &str = "/srv/data";
/// The same tree beside the replicated one, since that is behind a mount.
const SOURCE: &str = "/srv/source";
const COPY: &str = "/srv/copy";
const MIB: u64 = 1 << 20;
const LARGE_FILES: u32 = 8;
const SMALL_BYTES: u64 = 4096;
const LONG: Duration = Duration::from_hours(1);

/// What is in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Eight large files
    Large,
    /// Many files of 4 KiB
    Small,
}

/// What is measured, and how often.
pub struct Options<'a> {
    pub json: bool,
    pub rounds: u32,
    pub cases: Vec<Case>,
    pub large_mib: u32,
    pub files: u32,
    pub delay: Option<u64>,
    pub rfs: &'a str,
}

impl Case {
    /// Number of files, and the size of each.
    fn tree(self, options: &Options<'_>) -> (u32, u64) {
        match self {
            Self::Large => (LARGE_FILES, u64::from(options.large_mib) * MIB / u64::from(LARGE_FILES)),
            Self::Small => (options.files, SMALL_BYTES),
        }
    }
}

/// One tree's result. Rates are of content, bytes a second.
#[derive(Debug, Serialize)]
struct Row {
    workload: String,
    /// tar to tar, until it is durable.
    raw_bytes_s: u64,
    /// The synchronisation, from its beginning until the secondary has everything on its disk.
    sync_bytes_s: u64,
    /// Median of the rounds' ratios.
    ratio: f64,
    /// Median of a round trip before each round.
    rtt_us: f64,
    rounds: u32,
    files: u32,
    tree_bytes: u64,
    /// What the primary sent on the network, median; everything that a network carries included.
    sent_bytes: u64,
    /// The same of a synchronisation that was interrupted once, and how much of it had been sent when the network was cut.
    interrupted_at_bytes: u64,
    interrupted_sent_bytes: u64,
    /// What the interrupted one sent, to the size of the tree.
    interrupted_to_tree: f64,
}

/// The sender of the raw copy, on node1.
fn sender(lab: &Lab) -> Result<Helper> {
    let mut child = lab.spawn("node1", &["bench-load", "send", &format!("0.0.0.0:{RAW_PORT}"), SOURCE])?;
    let output = child.stdout.take().context("no pipe")?;
    let sender = Helper(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == "listening", "the sender of the copy did not start");
    Ok(sender)
}

/// A synchronisation as node2 saw its end.
struct Synced {
    seconds: f64,
    sent: u64,
}

struct Bench<'a> {
    mirror: &'a Mirror,
    tree_bytes: u64,
}

impl Bench<'_> {
    /// Bytes that node1 has sent on the replication network since it was booted.
    fn sent(&self) -> Result<u64> {
        let text = self.mirror.lab.read("node1", "/sys/class/net/eth1/statistics/tx_bytes");
        text.context("no counters of the interface")?.trim().parse().context("a counter that is no number")
    }

    fn events(&self, node: &str) -> Vec<serde_json::Value> {
        let text = self.mirror.lab.read(node, &format!("/run/sk/{}/events.jsonl", self.mirror.module));
        text.unwrap_or_default().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Rate of the raw copy, bytes a second.
    fn raw(&self) -> Result<f64> {
        let from = format!("{}:{RAW_PORT}", self.mirror.lab.address("node1", "repl")?);
        let text = self.mirror.lab.exec("node2", &["bench-load", "receive", &from, COPY])?;
        let seconds: f64 = text.trim().parse().with_context(|| format!("bench-load answered {text:?}"))?;
        self.mirror.lab.sh("node2", &format!("rm -r {COPY} && sync -f /srv"))?;
        Ok(self.tree_bytes as f64 / seconds)
    }

    /// node2 becomes a server that never had anything.
    fn forget(&self) -> Result<()> {
        self.mirror.order("node2", &["stop", "--wait"])?;
        self.mirror.reaches("node1", "ALONE Ready", LATER)?;
        self.mirror.lab.sh("node2", &format!("find {DIR} -mindepth 1 -delete && sync -f /srv")).map(drop)
    }

    /// Begins a full synchronisation, lets `meanwhile` happen to it, and waits for its end.
    fn sync(&self, meanwhile: impl FnOnce(u64) -> Result<()>) -> Result<Synced> {
        let known = self.events("node2").len();
        let before = self.sent()?;
        self.mirror.order("node2", &["second", "--fullsync"])?;
        meanwhile(before)?;
        let end = wait::until("the end of the synchronisation", LONG, || {
            let events = self.events("node2");
            let end = events.into_iter().skip(known).rfind(|e| e["kind"] == "resync_end");
            end.ok_or_else(|| format!("{:?}", self.mirror.state("node1")))
        })?;
        let sent = self.sent()? - before;
        self.mirror.pair("node1", "node2")?;
        let milliseconds = end["ms"].as_u64().context("an end without a duration")?.max(1);
        Ok(Synced { seconds: milliseconds as f64 / 1000.0, sent })
    }

    /// A synchronisation that sends everything.
    fn whole(&self) -> Result<Synced> {
        self.forget()?;
        let synced = self.sync(|_| Ok(()))?;
        ensure!(synced.sent > self.tree_bytes, "{} bytes were sent of {}", synced.sent, self.tree_bytes);
        Ok(synced)
    }

    /// One whose connection is lost when half of the tree has been sent. How much had been sent then, and in all.
    fn interrupted(&self) -> Result<(u64, u64)> {
        self.forget()?;
        let known = self.events("node2").len();
        let mut cut_at = 0;
        let synced = self.sync(|before| {
            wait::until("half of the tree", LONG, || {
                let sent = self.sent().map_err(|e| format!("{e:#}"))? - before;
                if sent >= self.tree_bytes / 2 { Ok(()) } else { Err(format!("{sent} bytes")) }
            })?;
            self.mirror.lab.run(&["cut", "node1", "node2", "--net", "repl"])?;
            for node in ["node1", "node2"] {
                wait::until(&format!("{node} misses the connection"), SOON, || {
                    let peer = self.mirror.state(node)?.replica.map(|r| r.peer).unwrap_or_default();
                    if peer == "syncing" || peer == "in_sync" { Err(peer) } else { Ok(()) }
                })?;
            }
            cut_at = self.sent()? - before;
            self.mirror.lab.run(&["heal"]).map(drop)
        })?;
        let begun = self.events("node2").iter().skip(known).filter(|e| e["kind"] == "resync_begin").count();
        ensure!(begun >= 2, "the synchronisation was over before the network was cut; take a larger tree");
        Ok((cut_at, synced.sent))
    }

    /// Both nodes have the same tree.
    fn compared(&self) -> Result<()> {
        self.mirror
            .lab
            .exec("node1", &["sk-replicate", "verify", "-m", self.mirror.module, "--bandwidth", "0"])
            .map(drop)
    }
}

fn measure(case: Case, options: &Options<'_>) -> Result<Row> {
    let (files, size) = case.tree(options);
    let tree_bytes = u64::from(files) * size;
    // Twice the tree, and what a block and an inode a file need; the image is sparse.
    let disk_mib = 1024 + tree_bytes / MIB * 5 / 2 + u64::from(files) / 20;
    let mirror = Mirror::configured_on("fullsync", "files", options.rfs, Some(disk_mib))?;
    let row = measure_on(&mirror, case, options, tree_bytes).inspect_err(|_| mirror.diagnose());
    row.with_context(|| format!("{case:?}"))
}

fn measure_on(mirror: &Mirror, case: Case, options: &Options<'_>, tree_bytes: u64) -> Result<Row> {
    let name = case.to_possible_value().context("a tree without a name")?.get_name().to_owned();
    let (files, size) = case.tree(options);
    let bench = Bench { mirror, tree_bytes };
    for dir in [SOURCE, DIR] {
        mirror.lab.exec("node1", &["mkdir", "-p", dir])?;
        let (files, size) = (files.to_string(), size.to_string());
        mirror.lab.exec("node1", &["bench-load", "fill", dir, "--files", &files, "--size", &size])?;
    }
    let _relays = options.delay.map(|us| hosts::delay(&mirror.lab, &[STREAM_PORT, RAW_PORT], us)).transpose()?;
    let _sender = sender(&mirror.lab)?;
    let echo = hosts::Echo::start(&mirror.lab)?;
    mirror.order("node1", &["prim"])?;
    mirror.reaches("node1", "ALONE Ready", SOON)?;
    mirror.order("node2", &["second"])?;
    wait::until("the first pair", LONG, || {
        mirror.reaches("node2", "SECOND Ready", LATER).map_err(|e| format!("{e:#}"))
    })?;
    mirror.pair("node1", "node2")?;
    eprintln!("bench: {name}: {tree_bytes} bytes");

    let (mut raws, mut syncs, mut ratios, mut sent, mut trips) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..options.rounds {
        trips.push(echo.round_trip()?);
        let (raw, synced);
        // What is first in a round changes.
        if round.is_multiple_of(2) {
            raw = bench.raw()?;
            synced = bench.whole()?;
        } else {
            synced = bench.whole()?;
            raw = bench.raw()?;
        }
        let rate = tree_bytes as f64 / synced.seconds;
        eprintln!("bench: round {} {name}: {:.0} {:.0} MiB/s", round + 1, raw / MIB as f64, rate / MIB as f64);
        raws.push(raw);
        syncs.push(rate);
        ratios.push(rate / raw);
        sent.push(synced.sent as f64);
    }
    let (cut_at, sent_in_all) = bench.interrupted()?;
    bench.compared()?;
    let thousandth = |value: f64| (value * 1000.0).round() / 1000.0;
    Ok(Row {
        workload: format!("fullsync-{name}"),
        raw_bytes_s: median(&mut raws) as u64,
        sync_bytes_s: median(&mut syncs) as u64,
        ratio: thousandth(median(&mut ratios)),
        rtt_us: (median(&mut trips) * 10.0).round() / 10.0,
        rounds: options.rounds,
        files,
        tree_bytes,
        sent_bytes: median(&mut sent) as u64,
        interrupted_at_bytes: cut_at,
        interrupted_sent_bytes: sent_in_all,
        interrupted_to_tree: thousandth(sent_in_all as f64 / tree_bytes as f64),
    })
}

pub fn run(options: &Options<'_>) -> Result<()> {
    if !options.json {
        println!(
            "{:<16} {:>11} {:>11} {:>6} {:>8} {:>9} {:>12} {:>9}",
            "workload", "raw MiB/s", "sync MiB/s", "ratio", "tree MiB", "sent MiB", "interrupted", "to tree"
        );
    }
    for case in &options.cases {
        let row = measure(*case, options)?;
        if options.json {
            println!("{}", serde_json::to_string(&row)?);
            continue;
        }
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        println!(
            "{:<16} {:>11.0} {:>11.0} {:>6.2} {:>8.0} {:>9.0} {:>12.0} {:>9.2}",
            row.workload,
            mib(row.raw_bytes_s),
            mib(row.sync_bytes_s),
            row.ratio,
            mib(row.tree_bytes),
            mib(row.sent_bytes),
            mib(row.interrupted_sent_bytes),
            row.interrupted_to_tree
        );
    }
    Ok(())
}
