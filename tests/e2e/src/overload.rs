//! Is a pair left alone while both hosts are overloaded and the networks lose packets? Nothing is broken here, so nothing
//! may be declared dead, and no role may move.

use crate::mirror::{Mirror, Records, SOON};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

/// Packets lost in each direction, percent.
pub const LOSS: u32 = 20;
/// Share of the memory that is free now, touched by each host again and again, percent: beside other tests.
pub const MEMORY: u64 = 10;
/// How often the states are looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Four busy loops, two storms of forks, and two processes that touch much memory, give it back and begin again, until stdin
/// ends. The shell is the leader of a session of its own, so that everything ends with it.
const LOAD: &str = r#"
for n in 1 2 3 4; do (while :; do :; done) & done
for n in 1 2; do (while :; do /bin/true; done) & done
for n in 1 2; do (while :; do head -c "$0" /dev/zero | tail -n 1 >/dev/null; done) & done
cat >/dev/null
kill -KILL 0
"#;

/// What was seen.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Duration of the overload.
    pub seconds: u64,
    /// Verdicts that the peer is dead, on both nodes.
    pub peer_down: usize,
    /// Early evidence that it is.
    pub peer_gone: usize,
    /// Links that were lost for a while, while another one was not.
    pub link_down: usize,
    /// Losses of the replication stream: TCP does not like the loss either.
    pub stream_lost: usize,
    /// Deaths of processes of the module.
    pub restarts: usize,
    /// Processes that carried the heartbeats and were replaced.
    pub carriers_replaced: usize,
    /// Time in each pair of states, milliseconds.
    pub states: BTreeMap<String, u64>,
    /// Records that the application on the primary wrote durably meanwhile.
    pub records: u64,
    /// The longest pause between two glances at the states: how busy the machine was.
    pub longest_glance_ms: u64,
    /// How long some process of the machine waited for a processor, or for memory to be freed, milliseconds.
    pub cpu_stalled_ms: u64,
    pub memory_stalled_ms: u64,
    /// The least memory that was available, MiB.
    pub least_available_mib: u64,
}

impl Report {
    /// Nobody was declared dead, and the roles stayed where they were.
    pub fn good(&self) -> bool {
        let stayed = |pair: &String| {
            let (one, two) = pair.split_once(" / ").unwrap_or_default();
            (one == "PRIM" || one == "ALONE") && two != "PRIM" && two != "ALONE"
        };
        self.peer_down == 0 && self.peer_gone == 0 && self.states.keys().all(stayed)
    }
}

/// Ends the load of a host when it goes out of scope.
struct Burden(Child);

impl Drop for Burden {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Its shell ends by its own SIGKILL.
        let _ = self.0.wait();
    }
}

/// Overloads both hosts of a pair (node1 PRIM, node2 SECOND) and lets both networks lose packets. `memory`: see [`MEMORY`].
pub fn overload(mirror: &Mirror, duration: Duration, memory: u64) -> Result<Report> {
    let before = count(mirror);
    let mut records = Records::start(mirror, "node1", "/srv/data/records", "dsync", 20_000)?;
    records.acknowledged(10, SOON)?;
    let carriers = carriers(mirror)?;
    for node in ["node1", "node2"] {
        mirror.lab.sh(
            node,
            &format!(
                "nft 'add table inet loss; add chain inet loss input {{ type filter hook input priority 0; }}; \
             add rule inet loss input iif != lo numgen random mod 100 < {LOSS} drop'"
            ),
        )?;
    }
    let bytes = (available()? / 100 * memory / 2).to_string();
    let burdens = ["node1", "node2"]
        .into_iter()
        .map(|node| mirror.lab.spawn(node, &["setsid", "sh", "-c", LOAD, &bytes]).map(Burden))
        .collect::<Result<Vec<_>>>()?;
    let stalled = [stalled_ms("cpu"), stalled_ms("memory")];
    let mut report = Report { least_available_mib: available()? >> 20, ..Report::default() };
    let began = Instant::now();
    let mut last = began;
    while began.elapsed() < duration {
        std::thread::sleep(GLANCE);
        let pair = ["node1", "node2"].map(|node| mirror.state(node).map_or_else(|e| e, |s| s.state)).join(" / ");
        let span = millis(last.elapsed());
        last = Instant::now();
        report.longest_glance_ms = report.longest_glance_ms.max(span);
        *report.states.entry(pair).or_default() += span;
        report.least_available_mib = report.least_available_mib.min(available()? >> 20);
    }
    report.cpu_stalled_ms = stalled_ms("cpu").saturating_sub(stalled[0]);
    report.memory_stalled_ms = stalled_ms("memory").saturating_sub(stalled[1]);
    report.seconds = began.elapsed().as_secs();
    drop(burdens);
    for node in ["node1", "node2"] {
        mirror.lab.sh(node, "nft delete table inet loss")?;
    }
    let after = count(mirror);
    let more = |what: fn(&Counts) -> usize| what(&after).saturating_sub(what(&before));
    report.peer_down = more(|c| c.peer_down);
    report.peer_gone = more(|c| c.peer_gone);
    report.link_down = more(|c| c.link_down);
    report.stream_lost = more(|c| c.stream_lost);
    report.restarts = more(|c| c.restarts);
    let now = self::carriers(mirror)?;
    report.carriers_replaced = carriers.iter().zip(&now).filter(|(was, is)| was != is).count();
    report.records = records.finish()?;
    Ok(report)
}

#[derive(Default)]
struct Counts {
    peer_down: usize,
    peer_gone: usize,
    link_down: usize,
    stream_lost: usize,
    restarts: usize,
}

/// What the logs and journals of both nodes tell.
fn count(mirror: &Mirror) -> Counts {
    let mut counts = Counts::default();
    for node in ["node1", "node2"] {
        let log = mirror.log(node);
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        counts.link_down +=
            log.lines().filter(|l| l.contains("Resource heartbeat.") && l.contains("set to down")).count();
        counts.stream_lost += lines("Replication stream lost");
        counts.restarts += lines("ended unexpectedly");
        counts.peer_gone += lines("ended without a goodbye");
        let directory = format!("/var/lib/sk/modules/{}", mirror.module);
        let files = mirror.lab.path(node, &directory).and_then(|path| std::fs::read_dir(path).ok());
        for file in files.into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with("journal") {
                let text = std::fs::read_to_string(file.path()).unwrap_or_default();
                counts.peer_down += text.matches(r#""event":"peer_down""#).count();
            }
        }
    }
    counts
}

/// The processes that carry the heartbeats.
fn carriers(mirror: &Mirror) -> Result<Vec<Vec<u32>>> {
    ["node1", "node2"].into_iter().map(|node| mirror.lab.pids(node, "^sk-heartbeat carry")).collect()
}

/// Pressure stall information of the kernel; 0 where it has none.
fn stalled_ms(what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/pressure/{what}")).unwrap_or_default();
    let micros =
        text.lines().find(|l| l.starts_with("some")).and_then(|l| l.rsplit_once("total=")?.1.parse::<u64>().ok());
    micros.unwrap_or_default() / 1_000
}

fn available() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:")).context("no MemAvailable")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    ensure!(kib > 0, "no memory is free");
    Ok(kib * 1024)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
