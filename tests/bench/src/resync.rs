//! What does it cost to become a pair again: time and bytes on the network, after a stop in good order and after each node lost its power?

use anyhow::{Context, Result};
use e2e::mirror::{LATER, Mirror};
use e2e::wait;
use serde::Serialize;
use std::time::{Duration, Instant};

/// A resynchronisation of a large tree on a busy machine.
const LONG: Duration = Duration::from_hours(1);
const DIR: &str = "/srv/data";

/// How large the tree is and how much of it changes.
pub struct Options {
    pub files: u32,
    pub changed: u32,
    pub big_mib: u64,
    pub json: bool,
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    /// `full`, `compare`, `incremental`.
    mode: String,
    /// Of the resynchronisation itself.
    seconds: f64,
    /// Files and bytes of content that were sent.
    files: u64,
    content: u64,
    /// Bytes on the replication network, both ways.
    network: u64,
    /// Largest memory of the primary's engine so far, MiB.
    memory_mib: f64,
}

struct Bench<'a> {
    mirror: &'a Mirror,
    options: &'a Options,
}

impl Bench<'_> {
    /// Makes the tree or changes some of it.
    fn load(&self, node: &str, verb: &str, seed: u64) -> Result<()> {
        let numbers = [u64::from(self.options.files), u64::from(self.options.changed), self.options.big_mib, seed];
        let [files, changed, big, seed] = numbers.map(|n| n.to_string());
        let command =
            ["bench-load", verb, DIR, "--files", &files, "--changed", &changed, "--big-mib", &big, "--seed", &seed];
        self.mirror.lab.exec(node, &command).map(drop)
    }

    /// Bytes that the replication network carried, as this node counts them.
    fn carried(&self, node: &str) -> Result<u64> {
        let address = self.mirror.lab.address(node, "repl")?;
        let line = format!(
            "i=$(ip -o addr show to {address} | awk '{{print $2}}' | cut -d@ -f1); ip -s -j link show dev \"$i\""
        );
        let text = self.mirror.lab.sh(node, &line)?;
        let seen: serde_json::Value = serde_json::from_str(&text)?;
        let bytes = |way: &str| seen[0]["stats64"][way]["bytes"].as_u64().context("no counters of the interface");
        Ok(bytes("rx")? + bytes("tx")?)
    }

    fn memory(&self, node: &str) -> f64 {
        let peak = |pid: u32| {
            let text = self.mirror.lab.read(node, &format!("/proc/{pid}/status")).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().to_owned();
            line.split(' ').next()?.parse::<f64>().ok()
        };
        let pids = self.mirror.lab.pids(node, "sk-replicate run").unwrap_or_default();
        pids.into_iter().filter_map(peak).fold(0.0, f64::max) / 1024.0
    }

    /// Waits until `secondary` has come back and says what that took.
    fn measure(
        &self,
        case: &'static str,
        primary: &str,
        secondary: &str,
        start: impl FnOnce() -> Result<()>,
    ) -> Result<Row> {
        let events = format!("/run/sk/{}/events.jsonl", self.mirror.module);
        let known = self.mirror.lab.read(primary, &events).unwrap_or_default().len();
        let before = self.carried(primary)?;
        let began = Instant::now();
        start()?;
        let (mode, end) = wait::until("the end of the resynchronisation", LONG, || {
            let all = self.mirror.lab.read(primary, &events).unwrap_or_default();
            let new = all.get(known..).unwrap_or(&all);
            let lines: Vec<serde_json::Value> = new.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
            let of = |kind: &str| lines.iter().rev().find(|e| e["kind"] == kind).cloned();
            match (of("resync_begin"), of("resync_end")) {
                (Some(begin), Some(end)) => Ok((begin["mode"].as_str().unwrap_or_default().to_owned(), end)),
                _ => Err(format!("{:.0} s", began.elapsed().as_secs_f64())),
            }
        })?;
        self.mirror.reaches(secondary, "SECOND Ready", LATER)?;
        let number = |name: &str| end[name].as_u64().unwrap_or_default();
        Ok(Row {
            case,
            mode,
            seconds: number("ms") as f64 / 1000.0,
            files: number("files"),
            content: number("bytes"),
            network: self.carried(primary)? - before,
            memory_mib: self.memory(primary),
        })
    }
}

pub fn run(options: &Options) -> Result<()> {
    // Room for every file's block and inode; the image is sparse.
    let disk_mib = 2048 + u64::from(options.files) / 40 + options.big_mib / 8;
    let mirror = Mirror::configured_on("resync", "files", "async=\"second\"", Some(disk_mib))?;
    let bench = Bench { mirror: &mirror, options };
    let measured = bench.all().inspect_err(|_| mirror.diagnose())?;
    if !options.json {
        println!(
            "{:<28} {:<12} {:>9} {:>8} {:>12} {:>12} {:>8}",
            "after", "mode", "seconds", "files", "content", "network", "MiB"
        );
    }
    for row in measured {
        if options.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            println!(
                "{:<28} {:<12} {:>9.2} {:>8} {:>12} {:>12} {:>8.0}",
                row.case, row.mode, row.seconds, row.files, row.content, row.network, row.memory_mib
            );
        }
    }
    Ok(())
}

impl Bench<'_> {
    fn all(&self) -> Result<Vec<Row>> {
        let mirror = self.mirror;
        let say =
            |row: &Row| eprintln!("bench: {}: {} {:.2} s, {} bytes", row.case, row.mode, row.seconds, row.network);
        eprintln!("bench: making {} files", self.options.files);
        self.load("node1", "tree", 0)?;
        mirror.order("node1", &["prim"])?;
        mirror.reaches("node1", "ALONE Ready", LATER)?;
        let follow = || mirror.order("node2", &["second"]).map(drop);
        let mut rows = vec![self.measure("first synchronisation", "node1", "node2", follow)?];
        rows.iter().for_each(say);
        mirror.pair("node1", "node2")?;

        mirror.order("node2", &["stop"])?;
        mirror.reaches("node1", "ALONE Ready", LATER)?;
        self.load("node1", "change", 1)?;
        rows.push(
            self.measure("stop of the secondary", "node1", "node2", || mirror.order("node2", &["second"]).map(drop))?,
        );
        rows.last().iter().for_each(|row| say(row));
        mirror.pair("node1", "node2")?;

        self.load("node1", "change", 2)?;
        mirror.lab.run(&["poweroff", "node2"])?;
        mirror.reaches("node1", "ALONE Ready", LATER)?;
        self.load("node1", "change", 3)?;
        rows.push(self.measure("power-off of the secondary", "node1", "node2", || self.boot("node2"))?);
        rows.last().iter().for_each(|row| say(row));
        mirror.pair("node1", "node2")?;

        self.load("node1", "change", 4)?;
        mirror.lab.run(&["poweroff", "node1"])?;
        mirror.reaches("node2", "ALONE Ready", LATER)?;
        self.load("node2", "change", 5)?;
        rows.push(self.measure("power-off of the primary", "node2", "node1", || self.boot("node1"))?);
        rows.last().iter().for_each(|row| say(row));
        mirror.pair("node2", "node1")?;
        Ok(rows)
    }

    fn boot(&self, node: &str) -> Result<()> {
        self.mirror.lab.run(&["boot", node]).map(drop)
    }
}
