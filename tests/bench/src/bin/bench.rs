//! Benchmarks of a mirror and of its resynchronisation on two test hosts, and of a farm on three. Started by scripts/bench, which makes the directory of binaries.

use bench::load::Workload;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "bench", version, about = "Measures a mirror against the file system beneath it and against copying, a farm against one server and balancers", after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "\
Exit codes: 0 measured; 1 something failed; 100 wrong usage
Examples: scripts/bench farm --rounds 5
          scripts/bench resync --files 100000 --big-mib 1024
          scripts/bench replicate --rounds 5 --only fsync4k --only create --delay 190
          scripts/bench replicate --only pgbench --only pgbench-x4 --streaming --delay 190 --ms 5000
          scripts/bench fullsync --rounds 5 --json
          scripts/bench verify --bandwidth 0";

#[derive(Subcommand)]
enum Verb {
    /// Workloads on a replicated directory and on the primary's own disk, in turn; medians
    Replicate(Replicate),
    /// Rate of a first copy of a tree, against tar over the same network; what an interrupted one sends in all
    Fullsync(Fullsync),
    /// Time and bytes until two nodes are a pair again: first synchronisation, after a stop, after each node lost its power
    Resync(Resync),
    /// Comparison of both replicas, and repair of one, while the application writes: rates, and the application's longest wait
    Verify(Verify),
    /// Requests through 1, 2 and 3 servers that share an address, against one server and against haproxy and nginx; takeover; drops
    Farm(Farm),
}

#[derive(clap::Args)]
struct Farm {
    /// JSON lines instead of tables
    #[arg(long)]
    json: bool,
    /// How often each way is measured, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long one load lasts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// How often a server loses its power
    #[arg(long, default_value_t = 3)]
    takeovers: u32,
    /// How many clients, each with its own address and network, share the 32 connections
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=32))]
    clients: u32,
    /// Measure one server, two, … this many
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    servers: u8,
    /// Only this way; may be given several times
    #[arg(long, value_enum)]
    only: Vec<bench::farm::Way>,
    /// Private directory of binaries, which the hosts see as /opt/sk/bin
    #[arg(long, env = "SK_BIN_DIR")]
    bin: PathBuf,
}

#[derive(clap::Args)]
struct Fullsync {
    /// One JSON object a tree instead of a table
    #[arg(long)]
    json: bool,
    /// How often each way is measured, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only this tree; may be given several times
    #[arg(long, value_enum)]
    only: Vec<bench::fullsync::Case>,
    /// Size of the tree of large files, MiB
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    large_mib: u32,
    /// Small files, 4 KiB each
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    files: u32,
    /// What the secondary sends arrives this much later, microseconds
    #[arg(long)]
    delay: Option<u64>,
    /// Attributes of <rfs>
    #[arg(long, default_value = "async=\"second\"")]
    rfs: String,
}

#[derive(clap::Args)]
struct Resync {
    /// JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Small files in the tree
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    files: u32,
    /// How many of them change each time
    #[arg(long, default_value_t = 100)]
    changed: u32,
    /// Size of the large file, of which one block changes; every 256th block holds data; MiB
    #[arg(long, default_value_t = 10 * 1024)]
    big_mib: u64,
}

#[derive(clap::Args)]
struct Verify {
    /// JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// How often each is done, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Size of the large files together, MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    large_mib: u32,
    /// Small files, 4 KiB each
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    files: u32,
    /// What sk-replicate verify is given: most that is read on each node, KiB a second; 0: as fast as possible
    #[arg(long, default_value_t = 51_200)]
    bandwidth: u64,
    /// Files of which a few bytes are damaged before each repair
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    damage: u32,
}

#[derive(clap::Args)]
struct Replicate {
    /// One JSON object a workload instead of a table
    #[arg(long)]
    json: bool,
    /// How often each workload is run on both
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only this workload; may be given several times
    #[arg(long, value_enum)]
    only: Vec<Workload>,
    /// Also SQLite
    #[arg(long)]
    sqlite: bool,
    /// Also pgbench
    #[arg(long)]
    pgbench: bool,
    /// Also the workloads of PostgreSQL on its own synchronous replication, from the same primary's disk to the same secondary's;
    /// what synchronous_commit waits for: on: the standby's disk; remote_write: that the standby has it
    #[arg(long, value_name = "COMMIT", num_args = 0..=1, require_equals = true, default_missing_value = "on", value_parser = ["on", "remote_write"])]
    streaming: Option<String>,
    /// Also on a directory that is mounted as a mirror's is, with nothing recorded, sent or waited for: what no replication behind such a
    /// mount can be faster than
    #[arg(long)]
    mount: bool,
    /// Acknowledgements arrive this much later, microseconds
    #[arg(long)]
    delay: Option<u64>,
    /// Attributes of <rfs>
    #[arg(long, default_value = "async=\"second\"")]
    rfs: String,
    /// How long one run lasts, for workloads that last a time; milliseconds
    #[arg(long, default_value_t = 1000)]
    ms: u64,
    /// Number of files; a tenth of it: SQLite transactions
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// Size of files that are written and read, MiB
    #[arg(long, default_value_t = 64)]
    file_mib: u64,
    /// Private directory of binaries, which the hosts see as /opt/sk/bin
    #[arg(long, env = "SK_BIN_DIR")]
    bin: PathBuf,
}

impl Replicate {
    fn workloads(&self) -> Vec<Workload> {
        use Workload::{Pgbench, PgbenchX4, SqliteRollback, SqliteWal};
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let wanted = |w: &Workload| match w {
            SqliteRollback | SqliteWal => self.sqlite,
            Pgbench | PgbenchX4 => self.pgbench || self.streaming.is_some(),
            _ => true,
        };
        Workload::value_variants().iter().copied().filter(wanted).collect()
    }
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { 100 } else { 0 })
    });
    let done = match cli.verb {
        Verb::Replicate(o) => {
            let workloads = o.workloads();
            if o.streaming.is_some() && !workloads.iter().any(|w| w.is_postgres()) {
                eprintln!(
                    "bench: --streaming compares workloads of PostgreSQL: add --only pgbench, or leave out --only"
                );
                return ExitCode::from(100);
            }
            bench::replicate::run(&bench::replicate::Options {
                json: o.json,
                rounds: o.rounds,
                workloads,
                streaming: o.streaming.as_deref(),
                mount: o.mount,
                delay: o.delay,
                rfs: &o.rfs,
                ms: o.ms,
                count: o.count,
                file_mib: o.file_mib,
                bin: &o.bin,
            })
        }
        Verb::Fullsync(o) => bench::fullsync::run(&bench::fullsync::Options {
            json: o.json,
            rounds: o.rounds,
            cases: if o.only.is_empty() { bench::fullsync::Case::value_variants().to_vec() } else { o.only },
            large_mib: o.large_mib,
            files: o.files,
            delay: o.delay,
            rfs: &o.rfs,
        }),
        Verb::Resync(o) => bench::resync::run(&bench::resync::Options {
            files: o.files,
            changed: o.changed,
            big_mib: o.big_mib,
            json: o.json,
        }),
        Verb::Verify(o) => bench::verify::run(&bench::verify::Options {
            json: o.json,
            rounds: o.rounds,
            large_mib: o.large_mib,
            files: o.files,
            bandwidth_kbs: o.bandwidth,
            damage: o.damage,
        }),
        Verb::Farm(o) => bench::farm::run(&bench::farm::Options {
            rounds: o.rounds,
            seconds: o.seconds,
            takeovers: o.takeovers,
            clients: o.clients,
            servers: o.servers.into(),
            only: &o.only,
            json: o.json,
            bin: &o.bin,
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(1)
        }
    }
}
