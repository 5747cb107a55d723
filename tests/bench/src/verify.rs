//! What does it cost to compare both replicas, and to repair one, while the application writes?

use crate::pulse::Pulse;
use crate::table::median;
use anyhow::{Context, Result, ensure};
use e2e::mirror::{LATER, Mirror};
use serde::Serialize;
use serde_json::Value;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const DIR: &str = "/srv/data";
const STOP: &str = "/run/sk-pulse-stop";
/// Files of the tree, and the size of the large ones.
const LARGE_FILES: u32 = 8;
const SMALL_BYTES: u64 = 4096;
const MIB: u64 = 1 << 20;
/// How long the application writes before anything else happens.
const ALONE: Duration = Duration::from_secs(3);

/// How large the tree is, how often, and how fast.
pub struct Options {
    pub json: bool,
    pub rounds: u32,
    pub large_mib: u32,
    pub files: u32,
    /// What is given to the command.
    pub bandwidth_kbs: u64,
    /// Blocks that are damaged on the secondary before each repair.
    pub damage: u32,
}

/// Medians of the rounds.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    /// From the order to the answer; of a repair: until the secondary is in sync again.
    seconds: f64,
    /// Compared on each node, MiB a second.
    mib_s: f64,
    /// The application's durable writes meanwhile: how many a second, and the longest of all rounds.
    writes_s: Option<f64>,
    longest_ms: Option<f64>,
    rounds: u32,
}

/// What one command did.
struct Asked {
    seconds: f64,
    /// The last `verified`.
    verified: Value,
    pulse: Option<(Pulse, f64)>,
}

struct Bench<'a> {
    mirror: &'a Mirror,
    options: &'a Options,
}

impl Bench<'_> {
    /// Runs `act` while the application writes: how long its writes took, and for how many seconds it wrote.
    fn under_load<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<(T, Pulse, f64)> {
        let lab = &self.mirror.lab;
        lab.sh("node1", &format!("rm -f {STOP}"))?;
        let mut pulse = lab.spawn("node1", &["bench-load", "pulse", &format!("{DIR}/pulse"), STOP])?;
        let began = Instant::now();
        let done = act();
        let seconds = began.elapsed().as_secs_f64();
        lab.sh("node1", &format!(": > {STOP}"))?;
        let mut text = String::new();
        pulse.stdout.take().context("no pipe")?.read_to_string(&mut text)?;
        ensure!(pulse.wait()?.success(), "bench-load pulse failed");
        Ok((done?, serde_json::from_str(&text).with_context(|| format!("bench-load answered {text:?}"))?, seconds))
    }

    /// `sk-replicate verify`: the seconds, and what it found.
    fn ask(&self, repair: bool) -> Result<(f64, Value)> {
        let bandwidth = self.options.bandwidth_kbs.to_string();
        let mut command =
            vec!["sk-replicate", "verify", "-m", &self.mirror.module, "--json", "--bandwidth", &bandwidth];
        if repair {
            command.push("--repair");
        }
        let began = Instant::now();
        let text = self.mirror.lab.exec("node1", &command)?;
        let seconds = began.elapsed().as_secs_f64();
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |kind: &str| events.iter().rfind(|e| e["kind"] == kind).cloned();
        ensure!(!repair || of("repaired").is_some(), "nothing was repaired: {text}");
        Ok((seconds, of("verified").context("no verdict")?))
    }

    fn verify(&self, load: bool) -> Result<Asked> {
        let ((seconds, verified), pulse) = if load {
            let (asked, pulse, lasted) = self.under_load(|| self.ask(false))?;
            (asked, Some((pulse, lasted)))
        } else {
            (self.ask(false)?, None)
        };
        ensure!(verified["differences"] == 0, "the replicas differ: {verified}");
        Ok(Asked { seconds, verified, pulse })
    }

    /// Changes blocks beneath the secondary's directory, as a disk that lies does, and has them repaired.
    fn repair(&self) -> Result<Asked> {
        for n in 0..self.options.damage {
            let small = crate::forest::small(Path::new(DIR), n % self.options.files);
            let path = self.mirror.disk("node2", &small.to_string_lossy())?;
            let file =
                std::fs::OpenOptions::new().write(true).open(&path).with_context(|| path.display().to_string())?;
            file.write_all_at(b"damaged", 100)?;
        }
        let ((seconds, verified), pulse, lasted) = self.under_load(|| self.ask(true))?;
        let found = verified["differences"].as_u64().unwrap_or_default();
        ensure!(found >= u64::from(self.options.damage), "not all was found: {verified}");
        self.mirror.pair("node1", "node2")?;
        Ok(Asked { seconds, verified, pulse: Some((pulse, lasted)) })
    }

    fn row(&self, what: &'static str, asked: &[Asked]) -> Row {
        let of = |pick: &dyn Fn(&Asked) -> Option<f64>| {
            let mut seen: Vec<f64> = asked.iter().filter_map(pick).collect();
            (!seen.is_empty()).then(|| median(&mut seen))
        };
        let rate = |a: &Asked| {
            let (bytes, ms) = (a.verified["bytes"].as_f64()?, a.verified["ms"].as_f64()?);
            Some(bytes / MIB as f64 / (ms.max(1.0) / 1000.0))
        };
        let round = |value: f64, digits: f64| (value * digits).round() / digits;
        Row {
            what,
            seconds: round(of(&|a| Some(a.seconds)).unwrap_or_default(), 100.0),
            mib_s: round(of(&rate).unwrap_or_default(), 10.0),
            writes_s: of(&|a| a.pulse.map(|(pulse, seconds)| pulse.writes as f64 / seconds)).map(f64::round),
            longest_ms: asked
                .iter()
                .filter_map(|a| a.pulse)
                .map(|(pulse, _)| pulse.longest_ms)
                .reduce(f64::max)
                .map(|ms| round(ms, 10.0)),
            rounds: self.options.rounds,
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    let tree_mib = u64::from(options.large_mib) + u64::from(options.files) * 8 / 1024;
    let mirror = Mirror::configured_on("verify", "files", "async=\"second\"", Some(1024 + tree_mib * 2))?;
    mirror.start_pair().inspect_err(|_| mirror.diagnose())?;
    let bench = Bench { mirror: &mirror, options };
    let rows = bench.all().inspect_err(|_| mirror.diagnose())?;
    if !options.json {
        println!("{:<24} {:>9} {:>9} {:>10} {:>12}", "what", "seconds", "MiB/s", "writes/s", "longest ms");
    }
    for row in rows {
        if options.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            let some = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.0}"));
            println!(
                "{:<24} {:>9.2} {:>9.1} {:>10} {:>12}",
                row.what,
                row.seconds,
                row.mib_s,
                some(row.writes_s),
                some(row.longest_ms)
            );
        }
    }
    Ok(())
}

impl Bench<'_> {
    fn all(&self) -> Result<Vec<Row>> {
        let fill = |dir: &str, files: u32, size: u64| {
            let (files, size) = (files.to_string(), size.to_string());
            self.mirror.lab.exec("node1", &["bench-load", "fill", dir, "--files", &files, "--size", &size]).map(drop)
        };
        fill(DIR, self.options.files, SMALL_BYTES)?;
        fill(&format!("{DIR}/large"), LARGE_FILES, u64::from(self.options.large_mib) * MIB / u64::from(LARGE_FILES))?;
        self.mirror.lab.sh("node1", "sync -f /srv/data")?;
        self.mirror.reaches("node1", "PRIM Ready", LATER)?;
        let (mut idle, mut beside, mut alone, mut repaired) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.options.rounds {
            eprintln!("bench: round {}", round + 1);
            let ((), pulse, seconds) = self.under_load(|| {
                std::thread::sleep(ALONE);
                Ok(())
            })?;
            alone.push(Asked { seconds, verified: Value::Null, pulse: Some((pulse, seconds)) });
            idle.push(self.verify(false)?);
            beside.push(self.verify(true)?);
            repaired.push(self.repair()?);
        }
        Ok(vec![
            self.row("the application alone", &alone),
            self.row("verify", &idle),
            self.row("verify beside it", &beside),
            self.row("verify --repair beside it", &repaired),
        ])
    }
}
