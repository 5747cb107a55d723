//! One workload, or one helper, on one host. Started by `bench`.

use anyhow::Result;
use bench::load::{Amount, Workload};
use bench::{copy, forest, mount, postgres, proxy, pulse};
use clap::{Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "bench-load", version, about = "Puts load on a directory and tells the rate", after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "\
Exit codes: 0 done; 1 it failed; 100 wrong usage
Example: bench-load run fsync4k /srv/data";

#[derive(Subcommand)]
enum Verb {
    /// Make what a workload needs
    Prepare(Load),
    /// Do it; prints the rate
    Run(Load),
    /// Let the page cache forget files
    Forget {
        /// The files
        files: Vec<PathBuf>,
    },
    /// Make a tree of small files and a large one
    Tree(Forest),
    /// Change some of these files
    Change(Forest),
    /// Make a tree of files that are full
    Fill {
        /// Where
        dir: PathBuf,
        /// Number of files
        #[arg(long)]
        files: u32,
        /// Size of each, bytes
        #[arg(long)]
        size: u64,
    },
    /// Send a tree to everybody who connects
    Send {
        /// Where to accept
        listen: SocketAddr,
        /// The tree
        dir: PathBuf,
    },
    /// Receive a tree and make it durable; prints the seconds
    Receive {
        /// Who sends
        from: SocketAddr,
        /// Where to put it
        dir: PathBuf,
    },
    /// Write 4 KiB durably, again and again, until a file exists; prints how long that took, as JSON
    Pulse {
        /// Where to write
        file: PathBuf,
        /// Ends when this exists
        stop: PathBuf,
    },
    /// Serve a directory as a mirror does, without replication, until the process is ended
    Mount {
        /// Where
        dir: PathBuf,
    },
    /// Start and stop a database that replicates itself
    #[command(subcommand)]
    Database(Database),
    /// Relay connections, delaying what goes towards the target
    Proxy {
        /// Where to accept
        listen: SocketAddr,
        /// Where to connect to
        to: SocketAddr,
        /// Delay, microseconds
        delay_us: u64,
    },
    /// Answer round trips
    Echo {
        /// Where to accept
        listen: SocketAddr,
    },
    /// Send frames as fast as possible; prints the nanoseconds a frame takes
    Flood {
        /// Interface
        interface: String,
        /// Receiver
        mac: String,
        /// Address they are for
        to: std::net::Ipv4Addr,
    },
    /// Measure round trips; prints the median in microseconds
    Rtt {
        /// An echo
        to: SocketAddr,
    },
}

#[derive(Subcommand)]
enum Database {
    /// Start the primary: each commit waits for a standby
    Lead {
        /// Where
        dir: PathBuf,
        /// Address for the standby
        #[arg(long)]
        listen: IpAddr,
        /// What a commit waits for: synchronous_commit
        #[arg(long)]
        commit: String,
    },
    /// Start the standby; the first time with a copy of the primary
    Follow {
        /// Where
        dir: PathBuf,
        /// Address of the primary
        #[arg(long)]
        primary: IpAddr,
    },
    /// Stop the server
    Stop {
        /// Where
        dir: PathBuf,
    },
}

#[derive(clap::Args)]
struct Forest {
    /// Where
    dir: PathBuf,
    /// Number of files
    #[arg(long)]
    files: u32,
    /// How many of them change
    #[arg(long)]
    changed: u32,
    /// Size of the large file, MiB
    #[arg(long)]
    big_mib: u64,
    /// Another number: another change
    #[arg(long)]
    seed: u64,
}

#[derive(clap::Args)]
struct Load {
    /// What to do
    workload: Workload,
    /// Where
    dir: PathBuf,
    /// How long, for workloads that last a time; milliseconds
    #[arg(long, default_value_t = 1000)]
    ms: u64,
    /// Number of files; a tenth of it: transactions
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// Size of files that are written and read, MiB
    #[arg(long, default_value_t = 64)]
    file_mib: u64,
    /// The server of PostgreSQL runs already, and a standby must answer for it
    #[arg(long)]
    standby: bool,
}

impl Load {
    fn amount(&self) -> Amount {
        Amount {
            time: Duration::from_millis(self.ms),
            count: self.count,
            file_mib: self.file_mib,
            standby: self.standby,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { 100 } else { 0 })
    });
    match run(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-load: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Prepare(load) => load.workload.prepare(&load.dir, load.amount())?,
        Verb::Run(load) => println!("{}", load.workload.run(&load.dir, load.amount())?),
        Verb::Forget { files } => {
            for path in files {
                let file = std::fs::File::open(&path)?;
                file.sync_all()?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            }
        }
        Verb::Tree(f) => forest::make(&f.dir, f.files, f.big_mib)?,
        Verb::Change(f) => forest::change(&f.dir, f.files, f.changed, f.big_mib, f.seed)?,
        Verb::Fill { dir, files, size } => forest::fill(&dir, files, size)?,
        Verb::Send { listen, dir } => copy::send(listen, &dir)?,
        Verb::Receive { from, dir } => println!("{}", copy::receive(from, &dir)?),
        Verb::Pulse { file, stop } => println!("{}", serde_json::to_string(&pulse::write(&file, &stop)?)?),
        Verb::Mount { dir } => mount::serve(&dir)?,
        Verb::Database(Database::Lead { dir, listen, commit }) => postgres::lead(&dir, listen, &commit)?,
        Verb::Database(Database::Follow { dir, primary }) => postgres::follow(&dir, primary)?,
        Verb::Database(Database::Stop { dir }) => postgres::stop(&dir)?,
        Verb::Proxy { listen, to, delay_us } => proxy::serve(listen, to, Duration::from_micros(delay_us))?,
        Verb::Echo { listen } => proxy::echo(listen)?,
        Verb::Flood { interface, mac, to } => println!("{}", bench::flood::flood(&interface, &mac, to)?),
        Verb::Rtt { to } => println!("{}", proxy::round_trip(to, 2000)?),
    }
    Ok(())
}
