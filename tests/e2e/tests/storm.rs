//! Does an application notice that its replication is killed again and again?

use anyhow::{Context, Result, ensure};
use e2e::campaign::compare::{differences, walk};
use e2e::churn::Churned;
use e2e::mirror::{LATER, LEDGER, Mirror, SOON, Writer};
use e2e::wait;
use std::time::{Duration, Instant};

const SERVER: &str = "/postgres -D /var/lib/postgresql/mirror";
const DATA: &str = "/var/lib/postgresql/mirror";
/// What a server says of a disk that fails, or of children that were ended.
const COMPLAINTS: [&str; 4] = ["PANIC", "could not", "terminated by signal", "Input/output error"];

/// How long the storm lasts: short beside other tests.
fn duration() -> Result<Duration> {
    let seconds = match std::env::var("SK_STORM_SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("SK_STORM_SECONDS={text:?}: give a number of seconds"))?,
        Err(_) => 15,
    };
    Ok(Duration::from_secs(seconds))
}

fn server(mirror: &Mirror) -> Result<u32> {
    mirror.lab.pids("node1", SERVER)?.first().copied().context("no server runs on node1")
}

/// Kills the primary's engine in every second in which there is one; how often.
fn kill_every_second(mirror: &Mirror, how_long: Duration) -> Result<u64> {
    let (began, mut kills) = (Instant::now(), 0);
    let mut next = Duration::from_secs(1);
    while next <= how_long {
        // The rhythm of the attack, not a wait for something.
        std::thread::sleep(next.saturating_sub(began.elapsed()));
        next += Duration::from_secs(1);
        // None: the former one has not been replaced yet.
        kills += u64::from(mirror.lab.kill("node1", "sk-replicate run").is_ok());
    }
    Ok(kills)
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn a_replication_that_is_killed_every_second_costs_the_application_time_and_nothing_else() -> Result<()> {
    let how_long = duration()?;
    Mirror::started("storm", "postgresql", r#"async="second""#)?.scenario(|mirror| {
        let before = server(mirror)?;
        let bench = ["pgbench", "-h", &mirror.vip, "-U", "postgres", "postgres"];
        mirror.lab.exec("client", &[&bench[..], &["-i", "-q", "-s", "2"]].concat())?;
        let to = format!("{}:5432", mirror.vip);
        // Longer than any pause: whoever gives up has seen an error.
        let deadline = ["--writers", "1", "--deadline-ms", "60000"];
        let writer = [&["ack-writer", "run", "--to", &to, "--ledger", LEDGER][..], &deadline].concat();
        let writer = Writer::start(&mirror.lab, &writer)?;
        let mut names = mirror.lab.spawn("node1", &["ack-writer", "churn", &format!("{DATA}/storm")])?;
        let seconds = how_long.as_secs().to_string();
        let clients = ["-n", "-c", "4", "-j", "2", "-T", &seconds];
        let bench = mirror.lab.spawn("client", &[&bench[..], &clients].concat())?;
        mirror.acknowledged(100, SOON)?;

        let kills = kill_every_second(mirror, how_long)?;
        let bench = bench.wait_with_output()?;
        let words = String::from_utf8_lossy(&bench.stdout).into_owned();
        ensure!(bench.status.success(), "pgbench: {}: {words}", bench.status);
        ensure!(words.contains("number of failed transactions: 0 "), "pgbench: {words}");
        mirror.acknowledged(100, LATER)?;
        drop(names.stdin.take());
        let names = names.wait_with_output()?;
        ensure!(names.status.success(), "the storm of names: {}", names.status);
        let names: Churned = serde_json::from_slice(&names.stdout).context("the storm's summary")?;
        let seen = writer.finish()?;
        eprintln!("{kills} kills in {seconds} s; {names:?}; {words}");
        ensure!(seen.failures == 0, "{} statements failed, the last one: {}", seen.failures, seen.last_failure);
        ensure!(kills >= how_long.as_secs() / 6 && names.steps > 1000, "too little happened");

        mirror.pair("node1", "node2")?;
        ensure!(server(mirror)? == before, "the server was restarted");
        let log = mirror.lab.read("node1", "/var/log/postgresql/postgresql.log").context("the server has no log")?;
        let complaint = log.lines().find(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)));
        ensure!(complaint.is_none(), "the server complains: {complaint:?}");
        mirror.verify()?;
        let (one, two) = (mirror.disk("node1", DATA)?, mirror.disk("node2", DATA)?);
        wait::until("equal replicas", SOON, || {
            let found = walk(&one).and_then(|one| Ok(differences(&one, &walk(&two)?, 10)));
            let found = found.map_err(|error| format!("{error:#}"))?;
            if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
        })?;
        // The other copy is as good.
        mirror.lab.run(&["poweroff", "node1"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.verify()?;
        Ok(())
    })
}
