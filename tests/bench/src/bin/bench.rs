//! Benchmarks of a mirror and of its resynchronisation on two test hosts, and of a farm on three. Started by scripts/bench, which makes the directory of binaries.

use anyhow::{Context, Result, bail};
use bench::load::Workload;
use bench::proxy::MARK;
use bench::table::Row;
use clap::{Parser, Subcommand, ValueEnum};
use e2e::mirror::Mirror;
use e2e::wait;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

/// The port of the replication of module 1.
const STREAM_PORT: u16 = 5600;
const ECHO_PORT: u16 = 7998;
const STREAM_RELAY: u16 = 7997;
const ECHO_RELAY: u16 = 7996;

#[derive(Parser)]
#[command(name = "bench", version, about = "Measures a mirror against the file system beneath it, a farm against one server and balancers", after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "\
Exit codes: 0 measured; 1 something failed; 100 wrong usage
Examples: scripts/bench farm --rounds 5
          scripts/bench resync --files 100000 --big-mib 1024
          scripts/bench replicate --rounds 5 --only fsync4k --only create --delay 190";

#[derive(Subcommand)]
enum Verb {
    /// Workloads on a replicated directory and on the primary's own disk, in turn; medians
    Replicate(Replicate),
    /// Time and bytes until two nodes are a pair again: first synchronisation, after a stop, after each node lost its power
    Resync(Resync),
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
    /// Private directory of binaries, which the hosts see as /opt/sk/bin
    #[arg(long, env = "SK_BIN_DIR")]
    bin: PathBuf,
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
            Pgbench | PgbenchX4 => self.pgbench,
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
        Verb::Replicate(options) => replicate(&options),
        Verb::Resync(o) => bench::resync::run(&bench::resync::Options {
            files: o.files,
            changed: o.changed,
            big_mib: o.big_mib,
            json: o.json,
        }),
        Verb::Farm(o) => bench::farm::run(&bench::farm::Options {
            rounds: o.rounds,
            seconds: o.seconds,
            takeovers: o.takeovers,
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

/// A helper on a host, killed when dropped. It runs as long as its stdin's other end, ours, exists.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Bench<'a> {
    mirror: &'a Mirror,
    options: &'a Replicate,
}

impl Bench<'_> {
    fn helper(&self, host: &str, arguments: &[&str]) -> Result<Helper> {
        let mut command = self.mirror.lab.command(&[&["exec", host, "bench-load"], arguments].concat());
        Ok(Helper(command.stdin(Stdio::null()).spawn().context("run scripts/lab")?))
    }

    fn load(&self, verb: &str, workload: Workload, dir: &str) -> Result<String> {
        let name = workload.to_possible_value().context("a workload without a name")?;
        let (ms, count) = (self.options.ms.to_string(), self.options.count.to_string());
        let file_mib = self.options.file_mib.to_string();
        let command =
            ["bench-load", verb, name.get_name(), dir, "--ms", &ms, "--count", &count, "--file-mib", &file_mib];
        self.mirror.lab.exec("node1", &command)
    }

    fn measure(&self, workload: Workload, dir: &str) -> Result<f64> {
        self.load("prepare", workload, dir)?;
        if let Some(file) = workload.cold_file() {
            self.forget(&format!("{dir}/{file}"))?;
        }
        let rate = self.load("run", workload, dir)?;
        rate.trim().parse().with_context(|| format!("bench-load answered {rate:?}"))
    }

    /// Empties the caches of the host's disk, not those in front of it, of a file. The mount hides it on the host, but not
    /// in the namespace where the disk is mounted.
    fn forget(&self, path: &str) -> Result<()> {
        let name = self.mirror.lab.name();
        let state = std::env::var("SK_LAB_STATE").unwrap_or_else(|_| "/run/sk-lab".into());
        let disks = std::env::var("SK_LAB_DISKS").unwrap_or_else(|_| "/var/tmp/sk-lab".into());
        let room = std::fs::read_to_string(format!("{state}/{name}/room")).context("the lab's namespace")?;
        let pid = room.split_whitespace().next().context("the lab's namespace")?;
        let beneath = format!("/proc/{pid}/root{state}/{name}/mnt/node1{path}");
        let image = format!("{disks}/{name}/node1.img");
        let mut command = std::process::Command::new(self.options.bin.join("bench-load"));
        command.args(["forget", &beneath, &image]);
        e2e::lab::checked(command, &["bench-load", "forget"]).map(drop)
    }

    fn rtt(&self, peer: &str) -> Result<f64> {
        let to = format!("{peer}:{ECHO_PORT}");
        wait::until("the echo answers", Duration::from_secs(20), || {
            let text = self.mirror.lab.exec("node2", &["bench-load", "rtt", &to]).map_err(|e| format!("{e:#}"))?;
            text.trim().parse().map_err(|_| text)
        })
    }

    /// Connections of the secondary to the primary go through a relay that delays.
    fn delay(&self, primary: &str, delay_us: u64) -> Result<[Helper; 2]> {
        let delay = delay_us.to_string();
        let mut rules = "add table ip bench\n\
            add chain ip bench out { type nat hook output priority -100; }\n"
            .to_owned();
        let mut helpers = Vec::new();
        for (port, relay) in [(STREAM_PORT, STREAM_RELAY), (ECHO_PORT, ECHO_RELAY)] {
            rules.push_str(&format!(
                "add rule ip bench out meta mark != {MARK} ip daddr {primary} tcp dport {port} redirect to :{relay}\n"
            ));
            let (listen, to) = (format!("0.0.0.0:{relay}"), format!("{primary}:{port}"));
            helpers.push(self.helper("node2", &["proxy", &listen, &to, &delay])?);
        }
        let mut nft = self.mirror.lab.command(&["exec", "node2", "nft", "-f", "-"]);
        let mut child = nft.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no pipe")?.write_all(rules.as_bytes())?;
        if !child.wait()?.success() {
            bail!("nft refused the rules of the delay");
        }
        helpers.try_into().map_err(|_| anyhow::anyhow!("two relays"))
    }
}

fn replicate(options: &Replicate) -> Result<()> {
    let workloads = options.workloads();
    let mirror = Mirror::configured("bench", "files", &options.rfs)?;
    let bench = Bench { mirror: &mirror, options };
    let primary = mirror.lab.address("node1", "repl")?;
    let _relays = options.delay.map(|us| bench.delay(&primary, us)).transpose()?;
    let _echo = bench.helper("node1", &["echo", &format!("0.0.0.0:{ECHO_PORT}")])?;
    mirror.start_pair().inspect_err(|_| mirror.diagnose())?;
    let rtt = bench.rtt(&primary)?;
    eprintln!("bench: two hosts are a pair; round trip of the replication network {rtt:.1} us");

    let mut seen: BTreeMap<Workload, Vec<(f64, f64)>> = BTreeMap::new();
    for round in 0..options.rounds {
        for workload in &workloads {
            let mut rates = [0.0; 2];
            let mut order = [(0, "/srv/native"), (1, "/srv/data")];
            // What is first in a pair alternates.
            order.rotate_left(round as usize % 2);
            for (index, dir) in order {
                let rate = bench.measure(*workload, dir).inspect_err(|_| mirror.diagnose())?;
                rates.iter_mut().skip(index).take(1).for_each(|r| *r = rate);
            }
            let [native, replicated] = rates;
            eprintln!("bench: round {} {workload:?}: {native:.0} {replicated:.0} {}", round + 1, workload.unit());
            seen.entry(*workload).or_default().push((native, replicated));
        }
    }
    // The figures are of a pair that still is one.
    mirror.pair("node1", "node2")?;
    if !options.json {
        println!("{}  (round trip {rtt:.1} us)", Row::heading());
    }
    for (workload, rounds) in &seen {
        let row = Row::new(*workload, rounds, rtt, &options.rfs);
        if options.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            println!("{}", row.line());
        }
    }
    Ok(())
}
