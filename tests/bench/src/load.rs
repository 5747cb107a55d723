//! The workloads: what does one do in a directory, and how fast was it?

use crate::postgres;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const MIB: u64 = 1024 * 1024;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Workload {
    /// 4 KiB random write + fdatasync, one job
    Fsync4k,
    /// The same, four jobs on four files
    Fsync4kX4,
    /// 4 KiB write without sync
    Write4k,
    /// 128 KiB sequential write, fsync at the end
    Seq128k,
    /// 1 MiB sequential write, fsync at the end
    Seq1m,
    /// 4 KiB random read of a file in the page cache
    RandreadWarm,
    /// Sequential read of a file that no page cache holds
    ReadCold,
    /// Create files of 4 KiB
    Create,
    /// stat each of them, the second time
    Stat,
    /// List their directory with attributes, ten times
    List,
    /// Delete them
    Delete,
    /// SQLite, single-row transactions, rollback journal
    SqliteRollback,
    /// SQLite, single-row transactions, write-ahead log
    SqliteWal,
    /// pgbench scale 10, one client
    Pgbench,
    /// pgbench scale 10, four clients
    PgbenchX4,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// For workloads that last a time.
    pub time: Duration,
    /// For workloads of many files or transactions.
    pub count: u32,
    /// Size of the files that are written and read.
    pub file_mib: u64,
    /// The server of PostgreSQL runs already, and a standby answers for it.
    pub standby: bool,
}

impl Workload {
    /// The unit of the rate.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Seq128k | Self::Seq1m | Self::ReadCold => "MiB/s",
            Self::Create | Self::Stat | Self::List | Self::Delete => "files/s",
            Self::SqliteRollback | Self::SqliteWal | Self::Pgbench | Self::PgbenchX4 => "transactions/s",
            _ => "op/s",
        }
    }

    /// Seconds that one operation of one job takes at this rate; nothing for rates of bytes.
    pub fn latency(self, rate: f64) -> Option<f64> {
        match self {
            Self::Seq128k | Self::Seq1m | Self::ReadCold => None,
            Self::Fsync4kX4 | Self::PgbenchX4 => Some(4.0 / rate),
            _ => Some(1.0 / rate),
        }
    }

    /// Is it PostgreSQL, which can replicate itself?
    pub fn is_postgres(self) -> bool {
        matches!(self, Self::Pgbench | Self::PgbenchX4)
    }

    /// The file whose pages must not be in any cache before the run.
    pub fn cold_file(self) -> Option<&'static str> {
        (self == Self::ReadCold).then_some("read")
    }

    /// Makes what the workload needs in `dir`; not measured. What is there already is kept.
    pub fn prepare(self, dir: &Path, amount: Amount) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        match self {
            Self::Fsync4k => allocated(&dir.join("fsync0"), amount.file_mib),
            Self::Fsync4kX4 => (0..4).try_for_each(|n| allocated(&dir.join(format!("fsync{n}")), amount.file_mib)),
            Self::RandreadWarm | Self::ReadCold => allocated(&dir.join("read"), amount.file_mib),
            Self::Stat | Self::List | Self::Delete if !dir.join("many").exists() => {
                Self::Create.run(dir, amount).map(drop)
            }
            Self::Pgbench | Self::PgbenchX4 => postgres::prepare(dir),
            _ => Ok(()),
        }
    }

    /// Does it; the rate in [`Workload::unit`].
    pub fn run(self, dir: &Path, amount: Amount) -> Result<f64> {
        match self {
            Self::Fsync4k => fsync_jobs(dir, 1, amount),
            Self::Fsync4kX4 => fsync_jobs(dir, 4, amount),
            Self::Write4k => write_unsynced(dir, amount),
            Self::Seq128k => sequential(dir, 128 * 1024, amount),
            Self::Seq1m => sequential(dir, MIB as usize, amount),
            Self::RandreadWarm => read_warm(dir, amount),
            Self::ReadCold => read_cold(dir),
            Self::Create => create(dir, amount.count),
            Self::Stat => stat(dir, amount.count),
            Self::List => list(dir),
            Self::Delete => delete(dir, amount.count),
            Self::SqliteRollback => sqlite(dir, "DELETE", amount.count / 10),
            Self::SqliteWal => sqlite(dir, "WAL", amount.count / 10),
            Self::Pgbench => postgres::run(dir, 1, amount),
            Self::PgbenchX4 => postgres::run(dir, 4, amount),
        }
    }
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

fn allocated(path: &Path, mib: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() == mib * MIB {
        return Ok(());
    }
    file.set_len(0)?;
    let block: Vec<u8> = (0..MIB).map(|n| (n % 251) as u8).collect();
    for n in 0..mib {
        file.write_all_at(&block, n * MIB)?;
    }
    Ok(file.sync_all()?)
}

fn rate(count: u64, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

fn fsync_job(path: &Path, amount: Amount, seed: u64) -> Result<u64> {
    let file = OpenOptions::new().write(true).open(path)?;
    let mut numbers = Numbers(seed);
    let blocks = amount.file_mib * MIB / BLOCK as u64;
    let mut block = [7; BLOCK];
    let until = Instant::now() + amount.time;
    let mut count = 0_u64;
    while Instant::now() < until {
        block.iter_mut().zip(count.to_le_bytes()).for_each(|(to, from)| *to = from);
        file.write_all_at(&block, numbers.below(blocks) * BLOCK as u64)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count)
}

fn fsync_jobs(dir: &Path, jobs: u64, amount: Amount) -> Result<f64> {
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs)
            .map(|n| scope.spawn(move || fsync_job(&dir.join(format!("fsync{n}")), amount, 0x9e37_79b9 + n)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a job panicked"))).collect::<Result<Vec<_>>>()
    })?;
    Ok(rate(counts.iter().sum(), began))
}

fn write_unsynced(dir: &Path, amount: Amount) -> Result<f64> {
    // Less than the stream may hold back: what is measured is a write, not the network's bandwidth.
    let count = (amount.file_mib * MIB / 4 / BLOCK as u64).clamp(1, 4096);
    let file = File::create(dir.join("unsynced"))?;
    let block = [3; BLOCK];
    let began = Instant::now();
    for n in 0..count {
        file.write_all_at(&block, n * BLOCK as u64)?;
    }
    let rate = rate(count, began);
    file.sync_all()?;
    Ok(rate)
}

fn sequential(dir: &Path, size: usize, amount: Amount) -> Result<f64> {
    let file = File::create(dir.join("sequential"))?;
    let block = vec![5; size];
    let total = amount.file_mib * MIB;
    let began = Instant::now();
    let mut at = 0;
    while at < total {
        file.write_all_at(&block, at)?;
        at += size as u64;
    }
    file.sync_all()?;
    Ok(rate(at / MIB, began))
}

fn read_warm(dir: &Path, amount: Amount) -> Result<f64> {
    let file = File::open(dir.join("read"))?;
    let mut block = [0; BLOCK];
    let blocks = amount.file_mib * MIB / BLOCK as u64;
    for n in 0..blocks {
        file.read_exact_at(&mut block, n * BLOCK as u64)?;
    }
    let mut numbers = Numbers(0x1234_5678);
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < amount.time / 2 {
        for _ in 0..1000 {
            file.read_exact_at(&mut block, numbers.below(blocks) * BLOCK as u64)?;
        }
        count += 1000;
    }
    Ok(rate(count, began))
}

fn read_cold(dir: &Path) -> Result<f64> {
    let file = File::open(dir.join("read"))?;
    // The caller has emptied what lies beneath.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut block = vec![0; 128 * 1024];
    let (mut at, began) = (0, Instant::now());
    loop {
        let read = file.read_at(&mut block, at)?;
        if read == 0 {
            return Ok(rate(at / MIB, began));
        }
        at += read as u64;
    }
}

fn many(dir: &Path, n: u32) -> PathBuf {
    dir.join(format!("many/file{n}"))
}

fn create(dir: &Path, count: u32) -> Result<f64> {
    let directory = dir.join("many");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir(&directory)?;
    let block = [9; BLOCK];
    let began = Instant::now();
    for n in 0..count {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(many(dir, n))?;
        file.write_all_at(&block, 0)?;
    }
    Ok(rate(count.into(), began))
}

fn stat(dir: &Path, count: u32) -> Result<f64> {
    let all = || (0..count).try_for_each(|n| std::fs::symlink_metadata(many(dir, n)).map(drop));
    // Attributes that a write has changed are asked for once.
    all()?;
    let began = Instant::now();
    all()?;
    Ok(rate(count.into(), began))
}

fn list(dir: &Path) -> Result<f64> {
    let began = Instant::now();
    let mut count = 0;
    for _ in 0..10 {
        for entry in std::fs::read_dir(dir.join("many"))? {
            entry?.metadata()?;
            count += 1;
        }
    }
    Ok(rate(count, began))
}

fn delete(dir: &Path, count: u32) -> Result<f64> {
    let began = Instant::now();
    for n in 0..count {
        std::fs::remove_file(many(dir, n))?;
    }
    let rate = rate(count.into(), began);
    std::fs::remove_dir(dir.join("many"))?;
    Ok(rate)
}

pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn sqlite(dir: &Path, journal: &str, count: u32) -> Result<f64> {
    let path = dir.join(format!("{journal}.db"));
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let old = dir.join(format!("{journal}.db{suffix}"));
        if old.exists() {
            std::fs::remove_file(old)?;
        }
    }
    let mut text =
        format!(".bail on\nPRAGMA synchronous=FULL;\nPRAGMA journal_mode={journal};\nCREATE TABLE t(a, b);\n");
    text.push_str("SELECT 'begin', julianday('now');\n");
    for n in 0..count {
        text.push_str(&format!("INSERT INTO t VALUES({n}, 'a row of some length, as rows are');\n"));
    }
    text.push_str("SELECT 'end', julianday('now'), count(*) FROM t;\n");
    let script = dir.join("script.sql");
    std::fs::write(&script, text)?;
    let output = checked(Command::new("sqlite3").arg(&path).stdin(File::open(&script)?))?;
    let field = |word: &str, at: usize| -> Option<f64> {
        output.lines().find(|l| l.starts_with(word))?.split('|').nth(at)?.parse().ok()
    };
    let (Some(began), Some(ended), Some(rows)) = (field("begin", 1), field("end", 1), field("end", 2)) else {
        bail!("sqlite3 answered {output:?}");
    };
    if (rows - f64::from(count)).abs() > 0.5 {
        bail!("{rows} rows instead of {count}");
    }
    // Julian days have a resolution of about a millisecond here.
    Ok(f64::from(count) / ((ended - began) * 86_400.0).max(0.001))
}
