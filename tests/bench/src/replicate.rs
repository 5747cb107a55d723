//! How fast is a replicated directory, compared with the primary's own disk and, for PostgreSQL, with its own replication?

use crate::hosts::{self, STREAM_PORT};
use crate::load::Workload;
use crate::table::{Rates, Row, median};
use crate::{mount, postgres};
use anyhow::{Context, Result};
use clap::ValueEnum;
use e2e::mirror::Mirror;
use std::collections::BTreeMap;
use std::path::Path;

/// What is measured, and how often.
pub struct Options<'a> {
    pub json: bool,
    pub rounds: u32,
    pub workloads: Vec<Workload>,
    /// `synchronous_commit` of a primary and a standby of PostgreSQL that the workloads of PostgreSQL are run on, too.
    pub streaming: Option<&'a str>,
    /// Also on a directory that is only mounted.
    pub mount: bool,
    pub delay: Option<u64>,
    pub rfs: &'a str,
    pub ms: u64,
    pub count: u32,
    pub file_mib: u64,
    pub bin: &'a Path,
}

const MOUNT: &str = "/srv/mount";

/// Where a workload runs.
#[derive(Clone, Copy)]
enum Place {
    Native,
    Mirror,
    Mount,
    Streaming,
}

impl Place {
    fn directory(self) -> &'static str {
        match self {
            Self::Native => "/srv/native",
            Self::Mirror => "/srv/data",
            Self::Mount => MOUNT,
            Self::Streaming => "/srv/streaming",
        }
    }
}

struct Bench<'a> {
    mirror: &'a Mirror,
    options: &'a Options<'a>,
}

impl Bench<'_> {
    fn load(&self, verb: &str, workload: Workload, place: Place, more: &[&str]) -> Result<String> {
        let name = workload.to_possible_value().context("a workload without a name")?;
        let (ms, count) = (self.options.ms.to_string(), self.options.count.to_string());
        let file_mib = self.options.file_mib.to_string();
        let command = ["bench-load", verb, name.get_name(), place.directory()];
        let amount = ["--ms", &ms, "--count", &count, "--file-mib", &file_mib];
        self.mirror.lab.exec("node1", &[&command, &amount[..], more].concat())
    }

    fn measure(&self, workload: Workload, place: Place) -> Result<f64> {
        self.load("prepare", workload, place, &[])?;
        let dir = place.directory();
        if let Some(file) = workload.cold_file() {
            self.forget(&format!("{dir}/{file}"))?;
        }
        let rate = match (place, self.options.streaming) {
            (Place::Streaming, Some(commit)) => {
                let primary = self.mirror.lab.address("node1", "repl")?;
                let database = |node: &str, more: &[&str]| {
                    self.mirror.lab.exec(node, &[&["bench-load", "database"], more].concat()).map(drop)
                };
                database("node1", &["lead", dir, "--listen", &primary, "--commit", commit])?;
                database("node2", &["follow", dir, "--primary", &primary])?;
                let rate = self.load("run", workload, place, &["--standby"])?;
                // The primary first: it ends when the standby has everything.
                database("node1", &["stop", dir])?;
                database("node2", &["stop", dir])?;
                rate
            }
            _ => self.load("run", workload, place, &[])?,
        };
        rate.trim().parse().with_context(|| format!("bench-load answered {rate:?}"))
    }

    /// Empties the caches of the host's disk, not those in front of it, of a file. The mount hides it on the host, but not
    /// in the namespace where the disk is mounted.
    fn forget(&self, path: &str) -> Result<()> {
        let name = self.mirror.lab.name();
        let disks = std::env::var("SK_LAB_DISKS").unwrap_or_else(|_| "/var/tmp/sk-lab".into());
        let image = format!("{disks}/{name}/node1.img");
        let mut command = std::process::Command::new(self.options.bin.join("bench-load"));
        command.arg("forget").arg(self.mirror.disk("node1", path)?).arg(&image);
        e2e::lab::checked(command, &["bench-load", "forget"]).map(drop)
    }

    fn rates(&self, workload: Workload, round: u32) -> Result<Rates> {
        let mut order = vec![Place::Native, Place::Mirror];
        if self.options.mount {
            order.push(Place::Mount);
        }
        if workload.is_postgres() && self.options.streaming.is_some() {
            order.push(Place::Streaming);
        }
        // What is first in a round changes.
        let first = round as usize % order.len();
        order.rotate_left(first);
        let mut rates = Rates::default();
        for place in order {
            let rate = self.measure(workload, place).inspect_err(|_| self.mirror.diagnose())?;
            match place {
                Place::Native => rates.native = rate,
                Place::Mirror => rates.mirror = rate,
                Place::Mount => rates.mount = Some(rate),
                Place::Streaming => rates.streaming = Some(rate),
            }
        }
        Ok(rates)
    }
}

pub fn run(options: &Options<'_>) -> Result<()> {
    // A third copy of everything, and the standby's write-ahead log.
    let disk = (options.streaming.is_some() || options.mount).then_some(4096);
    let mirror = Mirror::configured_on("bench", "files", options.rfs, disk)?;
    let bench = Bench { mirror: &mirror, options };
    let ports = [STREAM_PORT, postgres::PORT];
    let _relays = options.delay.map(|us| hosts::delay(&mirror.lab, &ports, us)).transpose()?;
    mirror.start_pair().inspect_err(|_| mirror.diagnose())?;
    let echo = hosts::Echo::start(&mirror.lab)?;
    let _mount = options.mount.then(|| mount::start(&mirror.lab, "node1", MOUNT)).transpose()?;
    eprintln!("bench: two hosts are a pair");

    let mut seen: BTreeMap<Workload, Vec<Rates>> = BTreeMap::new();
    let mut trips = Vec::new();
    for round in 0..options.rounds {
        let trip = echo.round_trip()?;
        eprintln!("bench: round {}: round trip of the replication network {trip:.1} us", round + 1);
        trips.push(trip);
        for workload in &options.workloads {
            let rates = bench.rates(*workload, round)?;
            eprintln!("bench: round {} {workload:?}: {rates} {}", round + 1, workload.unit());
            seen.entry(*workload).or_default().push(rates);
        }
    }
    // The figures are of a pair that still is one.
    mirror.pair("node1", "node2")?;
    let rtt = median(&mut trips);
    if !options.json {
        println!("{}  (round trip {rtt:.1} us)", Row::heading(options.mount, options.streaming.is_some()));
    }
    for (workload, rounds) in &seen {
        let commit = options.streaming.filter(|_| workload.is_postgres());
        let row = Row::new(*workload, rounds, rtt, options.rfs, commit);
        if options.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            println!("{}", row.line());
        }
    }
    Ok(())
}
