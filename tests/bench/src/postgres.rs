//! PostgreSQL on a directory: alone, as the primary of its own replication, as the standby.

use crate::load::{Amount, checked};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where a primary listens for its standby.
pub const PORT: u16 = 5432;
const SOCKET: &str = "/tmp";

fn programs() -> Result<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed; run scripts/install-deps")?
        .filter_map(|e| Some(e.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().context("PostgreSQL is not installed; run scripts/install-deps")
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

/// An empty directory of the user postgres for a database.
fn private_directory(data: &Path) -> Result<()> {
    checked(Command::new("install").args(["-d", "-m", "700", "-o", "postgres", "-g", "postgres"]).arg(data)).map(drop)
}

/// Makes the database of pgbench in `dir`, unless it is there.
pub fn prepare(dir: &Path) -> Result<()> {
    let data = dir.join("pg");
    if data.join("PG_VERSION").exists() {
        return Ok(());
    }
    private_directory(&data)?;
    let bin = programs()?;
    checked(as_postgres(&bin.join("initdb")).args(["-A", "trust", "--no-instructions", "-D"]).arg(&data))?;
    // The lab's networks are behind nobody's door: no password.
    let mut rules = std::fs::OpenOptions::new().append(true).open(data.join("pg_hba.conf"))?;
    rules.write_all(b"host replication postgres samenet trust\n")?;
    start(dir, &[])?;
    let filled =
        checked(as_postgres(&bin.join("pgbench")).args(["-i", "-q", "-s", "10", "-h", SOCKET, "postgres"])).map(drop);
    stop(dir)?;
    filled
}

fn control(dir: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = as_postgres(&programs()?.join("pg_ctl"));
    command.args(["-w", "-s", "-l", "/tmp/bench-pg.log", "-D"]).arg(dir.join("pg")).args(arguments);
    // pg_ctl's server must not inherit our pipes, or whoever reads them waits for it.
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { bail!("{command:?}: {status}; see /tmp/bench-pg.log") }
}

fn start(dir: &Path, settings: &[String]) -> Result<()> {
    let mut options = format!("-c unix_socket_directories={SOCKET} -c shared_buffers=64MB");
    for setting in settings {
        options.push_str(&format!(" -c {setting}"));
    }
    if !settings.iter().any(|s| s.starts_with("listen_addresses=")) {
        options.push_str(" -c listen_addresses=");
    }
    control(dir, &["-o", &options, "start"])
}

/// Starts the server in `dir` so that each commit waits for a standby.
pub fn lead(dir: &Path, listen: IpAddr, commit: &str) -> Result<()> {
    let settings = [
        format!("listen_addresses={listen}"),
        format!("port={PORT}"),
        format!("synchronous_commit={commit}"),
        "synchronous_standby_names=*".to_owned(),
    ];
    start(dir, &settings)
}

/// Starts the standby in `dir` of a primary that runs; copies the primary first, unless there is a copy.
pub fn follow(dir: &Path, primary: IpAddr) -> Result<()> {
    let data = dir.join("pg");
    if !data.join("PG_VERSION").exists() {
        private_directory(&data)?;
        let (host, port) = (primary.to_string(), PORT.to_string());
        let mut copy = as_postgres(&programs()?.join("pg_basebackup"));
        copy.args(["-h", &host, "-p", &port, "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-D"]).arg(&data);
        checked(&mut copy)?;
    }
    start(dir, &[])
}

/// Stops the server in `dir`.
pub fn stop(dir: &Path) -> Result<()> {
    control(dir, &["-m", "fast", "stop"])
}

fn ask(statement: &str) -> Result<String> {
    let mut psql = as_postgres(&programs()?.join("psql"));
    checked(psql.args(["-q", "-A", "-t", "-h", SOCKET, "-c", statement, "postgres"]))
}

/// Waits until commits wait for a standby's disk, or memory, and not only for this one's.
fn answered_for() -> Result<()> {
    e2e::wait::until("the standby is synchronous", Duration::from_mins(1), || {
        let state = ask("SELECT state, sync_state FROM pg_stat_replication").map_err(|e| format!("{e:#}"))?;
        if state.trim() == "streaming|sync" { Ok(()) } else { Err(state) }
    })
}

fn pgbench(clients: u32, time: Duration) -> Result<f64> {
    ask("CHECKPOINT")?;
    let (seconds, clients) = ((time.as_secs() * 3).max(3).to_string(), clients.to_string());
    let mut command = as_postgres(&programs()?.join("pgbench"));
    command.args(["-n", "-c", &clients, "-j", &clients, "-T", &seconds, "-h", SOCKET, "postgres"]);
    let output = checked(&mut command)?;
    let tps = output.lines().find_map(|l| l.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
    tps.with_context(|| format!("pgbench answered {output:?}"))
}

/// Transactions a second.
pub fn run(dir: &Path, clients: u32, amount: Amount) -> Result<f64> {
    if amount.standby {
        answered_for()?;
        let rate = pgbench(clients, amount.time)?;
        // Had the standby gone, the primary would have waited; had it changed its kind, the figure would be of something else.
        answered_for()?;
        return Ok(rate);
    }
    start(dir, &[])?;
    let rate = pgbench(clients, amount.time);
    stop(dir)?;
    rate
}
