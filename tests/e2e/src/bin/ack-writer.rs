//! Commits rows or writes records, remembers what was acknowledged, and checks later that all of it is there.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use e2e::dialogue::{self, Words};
use e2e::gauge::Gauge;
use e2e::ledger::Ledger;
use e2e::pg::Client;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const AFTER: &str = "\
Exit codes: 0 done, nothing lost; 1 something acknowledged is missing; 100 wrong usage; 111 not possible
Example: ack-writer run --to 10.0.0.50:5432 --ledger /srv/acked --seconds 10 && ack-writer verify --to 10.0.0.50:5432 --ledger /srv/acked";

#[derive(Parser)]
#[command(name = "ack-writer", version, about = "Writer and checker of the end-to-end scenarios", after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Insert rows until standard input ends; print one JSON object: rows acknowledged, longest outage
    Run {
        #[command(flatten)]
        target: Target,
        /// Connections that write at the same time
        #[arg(long, default_value_t = 2)]
        writers: u32,
        /// Stop after this time in seconds instead of at the end of standard input
        #[arg(long)]
        seconds: Option<u64>,
        /// Give up a statement or a connection after this time in milliseconds
        #[arg(long, default_value_t = 500)]
        deadline_ms: u64,
    },
    /// Check that every acknowledged row exists and is intact; print one JSON object
    Verify {
        #[command(flatten)]
        target: Target,
    },
    /// Store records through a command-line client until standard input ends; print one JSON object as "run" does
    Through {
        #[command(flatten)]
        client: Through,
        /// What asks for a record, with {id} for its number
        #[arg(long)]
        request: String,
        /// The client's line that acknowledges it, with {id}
        #[arg(long)]
        answer: String,
        /// Give up a request after this time in milliseconds
        #[arg(long, default_value_t = 2000)]
        deadline_ms: u64,
    },
    /// Check that every acknowledged record is in the list that a command-line client gives; print one JSON object
    Listed {
        #[command(flatten)]
        client: Through,
        /// What asks for the list: one number a line
        #[arg(long)]
        request: String,
        /// The client's line after the list
        #[arg(long)]
        end: String,
    },
    /// Append numbered records to a file until standard input ends; print each number once its write has returned
    Records {
        /// File to append to
        file: PathBuf,
        /// What the application does to make records durable
        #[arg(long, value_enum)]
        durable: Durable,
        /// Pause between records in microseconds
        #[arg(long, default_value_t = 0)]
        pause_us: u64,
    },
    /// Make, rename, link and remove files until standard input ends; print one JSON object, or the first thing that went wrong
    Churn {
        /// Directory to make and to work in
        directory: PathBuf,
        /// Chooses the steps
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Check a file of records; print one JSON object: number of records, whether they are complete and in order
    CheckRecords {
        /// File to check
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct Target {
    /// Address and port of the server
    #[arg(long)]
    to: SocketAddr,
    /// File that remembers the acknowledged rows
    #[arg(long)]
    ledger: PathBuf,
    /// User of the database
    #[arg(long, default_value = "postgres")]
    user: String,
    /// Database
    #[arg(long, default_value = "postgres")]
    database: String,
}

#[derive(clap::Args)]
struct Through {
    /// File that remembers the acknowledged records
    #[arg(long)]
    ledger: PathBuf,
    /// What is said first on each connection
    #[arg(long, default_value = "")]
    first: String,
    /// The client's command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Through {
    fn words(&self, request: &str, answer: &str) -> Words {
        Words {
            command: self.command.clone(),
            first: self.first.clone(),
            request: request.to_owned(),
            answer: answer.to_owned(),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Durable {
    /// Nothing: never calls fsync
    No,
    /// Opens the file with O_DSYNC
    Dsync,
    /// Calls fdatasync after each record
    Fsync,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS acked (id bigint PRIMARY KEY, content text NOT NULL)";
const RECORD: usize = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 100 } else { 0 });
        }
    };
    let done = match cli.verb {
        Verb::Run { target, writers, seconds, deadline_ms } => {
            run(&target, writers, seconds, Duration::from_millis(deadline_ms))
        }
        Verb::Verify { target } => verify(&target),
        Verb::Through { client, request, answer, deadline_ms } => {
            through(&client.words(&request, &answer), &client.ledger, Duration::from_millis(deadline_ms))
        }
        Verb::Listed { client, request, end } => listed(&client, &request, &end),
        Verb::Records { file, durable, pause_us } => records(&file, durable, Duration::from_micros(pause_us)),
        Verb::Churn { directory, seed } => churn(&directory, seed),
        Verb::CheckRecords { file } => check_records(&file),
    };
    done.unwrap_or_else(|error| {
        eprintln!("ack-writer: {error:#}");
        ExitCode::from(111)
    })
}

struct Shared {
    ledger: Ledger,
    gauge: Gauge,
    acknowledged: u64,
    failures: u64,
    last_failure: String,
}

fn run(target: &Target, writers: u32, seconds: Option<u64>, deadline: Duration) -> Result<ExitCode> {
    let first_free = match Ledger::read(&target.ledger) {
        // Numbers tried but not acknowledged by an earlier run may exist: keep away from them.
        Ok(ids) => ids.last().map_or(1, |last| last + 1_000_000),
        Err(_) => 1,
    };
    let next = AtomicU64::new(first_free);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let shared = Mutex::new(Shared {
        ledger: Ledger::append_to(&target.ledger)?,
        gauge: Gauge::default(),
        acknowledged: 0,
        failures: 0,
        last_failure: String::new(),
    });
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let write_rows = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let attempt = (|| -> Result<()> {
                let mut client = Client::connect(target.to, &target.user, &target.database, deadline)?;
                client.query(TABLE)?;
                while !stop.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    client.query(&format!("INSERT INTO acked VALUES ({id}, repeat('{id} ', 20))"))?;
                    let mut all = lock();
                    all.gauge.mark(began.elapsed());
                    all.acknowledged += 1;
                    all.ledger.acknowledged(id)?;
                }
                Ok(())
            })();
            if let Err(error) = attempt {
                let mut all = lock();
                all.failures += 1;
                all.last_failure = format!("{error:#}");
                drop(all);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..writers).map(|_| scope.spawn(write_rows)).collect();
        if let Some(seconds) = seconds {
            std::thread::sleep(Duration::from_secs(seconds));
        } else {
            wait_for_end_of_input()?;
        }
        lock().gauge.finish(began.elapsed());
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(())
    })?;
    let all = lock();
    println!(
        "{}",
        json!({"acked": all.acknowledged, "failures": all.failures, "last_failure": all.last_failure,
            "outage_ms": all.gauge.longest_ms(), "outages": all.gauge.outages()})
    );
    Ok(ExitCode::SUCCESS)
}

fn verify(target: &Target) -> Result<ExitCode> {
    let acknowledged = Ledger::read(&target.ledger)?;
    let mut client = Client::connect(target.to, &target.user, &target.database, Duration::from_secs(30))?;
    let number = |row: &e2e::pg::Row| row.first().cloned().flatten().and_then(|text| text.parse::<u64>().ok());
    // Read past the indexes: the rows themselves must be there.
    let rows = client.query("SET enable_indexscan = off; SET enable_indexonlyscan = off; SELECT id FROM acked")?;
    let present: std::collections::BTreeSet<u64> = rows.iter().filter_map(number).collect();
    let damaged = client.query("SELECT count(*) FROM acked WHERE content <> repeat(id || ' ', 20)")?;
    let damaged = damaged.first().and_then(number).context("the server counts no rows")?;
    let lost: Vec<u64> = acknowledged.difference(&present).copied().collect();
    println!(
        "{}",
        json!({"acked": acknowledged.len(), "present": present.len(), "lost": lost.len(), "damaged": damaged,
            "first_lost": lost.iter().take(10).collect::<Vec<_>>()})
    );
    Ok(ExitCode::from(u8::from(!lost.is_empty() || damaged > 0)))
}

fn through(words: &Words, ledger: &Path, deadline: Duration) -> Result<ExitCode> {
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| -> Result<dialogue::Seen> {
        let writer = scope.spawn(|| dialogue::write(words, ledger, deadline, &stop));
        wait_for_end_of_input()?;
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
    })?;
    println!(
        "{}",
        json!({"acked": seen.acknowledged, "failures": seen.failures, "last_failure": seen.last_failure,
            "outage_ms": seen.gauge.longest_ms(), "outages": seen.gauge.outages()})
    );
    Ok(ExitCode::SUCCESS)
}

fn listed(client: &Through, request: &str, end: &str) -> Result<ExitCode> {
    let acknowledged = Ledger::read(&client.ledger)?;
    let present = dialogue::list(&client.words("", ""), request, end, Duration::from_mins(1))?;
    let distinct: std::collections::BTreeSet<u64> = present.iter().copied().collect();
    let lost: Vec<u64> = acknowledged.difference(&distinct).copied().collect();
    let twice = present.len() - distinct.len();
    println!(
        "{}",
        json!({"acked": acknowledged.len(), "present": distinct.len(), "lost": lost.len(), "twice": twice,
            "first_lost": lost.iter().take(10).collect::<Vec<_>>()})
    );
    Ok(ExitCode::from(u8::from(!lost.is_empty() || twice > 0)))
}

fn churn(directory: &Path, seed: u64) -> Result<ExitCode> {
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| -> Result<e2e::churn::Churned> {
        let storm = scope.spawn(|| e2e::churn::churn(directory, seed, &stop));
        wait_for_end_of_input()?;
        stop.store(true, Ordering::Relaxed);
        storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))?
    })?;
    println!("{}", serde_json::to_string(&done)?);
    Ok(ExitCode::SUCCESS)
}

fn record(number: u64) -> String {
    format!("{number:>0$}\n", RECORD - 1)
}

fn records(path: &Path, durable: Durable, pause: Duration) -> Result<ExitCode> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    if matches!(durable, Durable::Dsync) {
        options.custom_flags(0o10_000);
    }
    let mut file = options.open(path).with_context(|| format!("open {}", path.display()))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            let mut out = std::io::stdout().lock();
            for number in 1_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                file.write_all(record(number).as_bytes()).with_context(|| format!("write record {number}"))?;
                if matches!(durable, Durable::Fsync) {
                    file.sync_data().with_context(|| format!("fdatasync of record {number}"))?;
                }
                // Unbuffered: what was printed was acknowledged, whatever happens next.
                out.write_all(format!("{number}\n").as_bytes())?;
                out.flush()?;
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
            Ok(())
        });
        wait_for_end_of_input()?;
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
    })?;
    Ok(ExitCode::SUCCESS)
}

fn check_records(path: &Path) -> Result<ExitCode> {
    let content = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let whole = content.chunks_exact(RECORD);
    let rest = whole.remainder();
    let mut in_order = 0_u64;
    for (chunk, number) in whole.clone().zip(1_u64..) {
        if chunk != record(number).as_bytes() {
            break;
        }
        in_order = number;
    }
    let torn = record(in_order + 1);
    let clean = in_order == u64::try_from(whole.len())? && torn.as_bytes().starts_with(rest);
    println!("{}", json!({"records": in_order, "bytes": content.len(), "clean": clean}));
    Ok(ExitCode::from(u8::from(!clean)))
}

fn wait_for_end_of_input() -> Result<()> {
    let mut buffer = [0_u8; 256];
    loop {
        match std::io::stdin().read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => bail!("standard input: {error}"),
        }
    }
}
