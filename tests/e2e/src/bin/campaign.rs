//! Trials of the data path under random faults. Started by scripts/campaign, which makes the directory of binaries.

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};
use e2e::campaign::load::Work;
use e2e::campaign::plan::{Kind, NODES, plan};
use e2e::campaign::random::{Random, trial_seed};
use e2e::campaign::selftest::{Mutation, found};
use e2e::campaign::trial::{Arena, Outcome};
use e2e::mirror::Mirror;
use e2e::overload::{MEMORY, overload};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(name = "campaign", version, about = "Attacks a mirror and looks whether it keeps its promises", after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "\
Exit codes: 0 nothing lost, diverged, stuck or declared dead, or all that was broken on purpose was noticed; 1 otherwise, or a trial could
not be carried out; 100 wrong usage
Example: scripts/campaign crash --trials 20 --seed 7 --only poweroff --only cut";

#[derive(Subcommand)]
enum Verb {
    /// Random workloads, random faults, then recovery and an independent check; the last line is one JSON object
    Crash(Crash),
    /// Break one rule of data safety on purpose, and see whether that is noticed; prints one JSON object
    Selftest(Selftest),
    /// Busy processors, forks, memory and lossy networks: nobody may be declared dead; the last line is one JSON object
    Load(Load),
}

#[derive(clap::Args)]
struct Selftest {
    /// The rule that the programs break, for they read the same variable
    #[arg(long, value_enum, env = "SK_MUTATE")]
    mutation: Mutation,
    /// Trials in which it must be noticed; without a broken rule, trials in which nothing may be found
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    trials: u64,
    /// Chooses the times of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where failures leave their logs
    #[arg(long, default_value = "/var/tmp/sk-campaign")]
    logs: PathBuf,
    /// Private directory of binaries, which the hosts see as /opt/sk/bin
    #[arg(long, env = "SK_BIN_DIR")]
    bin: PathBuf,
}

#[derive(clap::Args)]
struct Load {
    /// How long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Share of the free memory that each of both hosts touches again and again, percent
    #[arg(long, default_value_t = MEMORY, value_parser = clap::value_parser!(u64).range(0..=50))]
    memory: u64,
}

#[derive(clap::Args)]
struct Crash {
    /// Number of trials
    #[arg(long, default_value_t = 20)]
    trials: u64,
    /// Chooses workloads and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of the first trial (to repeat one: --first N --trials 1)
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only faults of this kind; may be given several times
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// What works on the directory; chosen by the seed when not given
    #[arg(long, value_enum)]
    load: Option<Work>,
    /// Never cut both networks at once, so that no split brain is possible
    #[arg(long)]
    no_isolation: bool,
    /// Attributes of <rfs>; chosen by the seed when not given
    #[arg(long)]
    rfs: Option<String>,
    /// Trials after which the hosts are made anew (also after each failure)
    #[arg(long, default_value_t = 10)]
    renew: u64,
    /// Where failures leave their logs
    #[arg(long, default_value = "/var/tmp/sk-campaign")]
    logs: PathBuf,
    /// Private directory of binaries, which the hosts see as /opt/sk/bin
    #[arg(long, env = "SK_BIN_DIR")]
    bin: PathBuf,
    /// Stop after the first failure
    #[arg(long)]
    fail_fast: bool,
}

#[derive(Default)]
struct Sum {
    trials: u64,
    lost: usize,
    diverged: u64,
    stuck: u64,
    failed: u64,
    acknowledged: u64,
    salvaged: u64,
    /// With the hosts' making.
    seconds: f64,
}

impl Sum {
    fn per_trial(&self) -> f64 {
        let tenths = self.seconds * 10.0 / f64::from(u32::try_from(self.trials.max(1)).unwrap_or(u32::MAX));
        tenths.round() / 10.0
    }
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { 100 } else { 0 })
    });
    let crash = match cli.verb {
        Verb::Crash(crash) => crash,
        Verb::Load(load) => return overloaded(&load),
        Verb::Selftest(test) => return tested(&test),
    };
    let mut sum = Sum::default();
    let result = run(&crash, &mut sum);
    if let Err(error) = &result {
        eprintln!("campaign: {error:#}");
    }
    println!(
        "{}",
        json!({"trials": sum.trials, "lost": sum.lost, "diverged": sum.diverged, "stuck": sum.stuck, "failed": sum.failed,
            "acknowledged": sum.acknowledged, "salvaged": sum.salvaged, "seed": crash.seed,
            "seconds_per_trial": sum.per_trial()})
    );
    let good = result.is_ok() && sum.lost == 0 && sum.diverged + sum.stuck + sum.failed == 0;
    ExitCode::from(u8::from(!good))
}

fn overloaded(load: &Load) -> ExitCode {
    let result = Mirror::started("load", "files", r#"async="second""#).and_then(|mirror| {
        let report = overload(&mirror, Duration::from_secs(load.minutes.saturating_mul(60)), load.memory)?;
        println!("{}", serde_json::to_string(&report)?);
        if !report.good() {
            mirror.diagnose();
        }
        // What was given up under the load comes back when it ends.
        mirror.pair("node1", "node2").inspect_err(|_| mirror.diagnose())?;
        Ok(report.good())
    });
    match result {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(error) => {
            eprintln!("campaign: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn tested(test: &Selftest) -> ExitCode {
    selftest(test).unwrap_or_else(|error| {
        eprintln!("campaign: {error:#}");
        ExitCode::from(1)
    })
}

fn selftest(test: &Selftest) -> Result<ExitCode> {
    let name = test.mutation.to_possible_value().context("a mutation without a name")?.get_name().to_owned();
    let said = Command::new(test.bin.join("sk-replicate")).arg("--version").output().context("run sk-replicate")?;
    ensure!(
        String::from_utf8_lossy(&said.stdout).contains("mutations"),
        "{}: this sk-replicate breaks no rules",
        test.bin.display()
    );
    let mut caught = None;
    for trial in 0..test.trials {
        let began = Instant::now();
        let arena = Arena::make(&test.bin, r#"async="second""#, false).context("make the hosts")?;
        for node in NODES {
            let asked =
                format!("tr '\\0' '\\n' </proc/$(pgrep -o -f 'sk-replicate run')/environ | grep -x SK_MUTATE={name}");
            arena.mirror.lab.sh(node, &asked).with_context(|| format!("{node} does not know the mutation"))?;
        }
        let seed = trial_seed(test.seed, trial);
        let steps = test.mutation.plan(trial, &mut Random::new(seed));
        let outcome = arena.trial(seed, Work::Files, &steps).context("the trial could not be carried out")?;
        let by = found(&outcome);
        eprintln!("{name}, trial {trial}: {:.1} s, {}", began.elapsed().as_secs_f32(), by.unwrap_or("nothing found"));
        for line in describe(&outcome).iter().take(8) {
            eprintln!("  {line}");
        }
        if by.is_some() && test.mutation == Mutation::None {
            keep(&arena, &test.logs.join(format!("selftest-{trial}")), &Ok(outcome), &serde_json::to_string(&steps)?)?;
        }
        if let Some(by) = by {
            caught = Some((by, trial));
            break;
        }
    }
    let (by, trial) = caught.unzip();
    println!("{}", json!({"mutation": name, "caught": caught.is_some(), "by": by, "trial": trial}));
    Ok(ExitCode::from(u8::from(caught.is_some() == (test.mutation == Mutation::None))))
}

fn run(crash: &Crash, sum: &mut Sum) -> Result<()> {
    // What a switch to another process costs decides which races are met: on a virtual machine `cpulatency` decides that.
    const RFS: [&str; 4] = [
        r#"async="second""#,
        r#"async="none""#,
        r#"async="second" sync="write""#,
        r#"async="second" cpulatency="off""#,
    ];
    let mut arena: Option<Arena> = None;
    for number in crash.first..crash.first.saturating_add(crash.trials) {
        let seed = trial_seed(crash.seed, number);
        if (number - crash.first).is_multiple_of(crash.renew.max(1)) {
            arena = None;
        }
        let rfs = crash.rfs.as_deref().or_else(|| Random::new(seed).pick(&RFS).copied()).unwrap_or(RFS[0]);
        let began = Instant::now();
        let place = match arena.take() {
            Some(arena) => arena,
            None => Arena::make(&crash.bin, rfs, crash.load.is_none_or(|work| work == Work::Postgres))
                .context("make the hosts")?,
        };
        let work = crash.load.unwrap_or_else(|| Work::of(&mut Random::new(seed ^ 2)));
        let steps = plan(&mut Random::new(seed ^ 1), &crash.only, !crash.no_isolation);
        eprintln!("trial {number}: {work:?}, {} steps: {}", steps.len(), serde_json::to_string(&steps)?);
        let (making, begun) = (began.elapsed(), Instant::now());
        sum.trials += 1;
        let outcome = place.trial(seed, work, &steps);
        let good = tell(number, begun.elapsed(), &outcome, sum);
        sum.seconds += (making + begun.elapsed()).as_secs_f64();
        if good {
            arena = Some(place);
            continue;
        }
        let logs = crash.logs.join(format!("seed{}-trial{number}", crash.seed));
        keep(&place, &logs, &outcome, &serde_json::to_string_pretty(&steps)?)?;
        eprintln!("trial {number} FAILED: scripts/campaign crash --seed {} --first {number} --trials 1", crash.seed);
        eprintln!("logs: {}", logs.display());
        if crash.fail_fast {
            break;
        }
    }
    Ok(())
}

/// Prints and counts; whether all was well.
fn tell(number: u64, took: Duration, outcome: &Result<Outcome>, sum: &mut Sum) -> bool {
    let seconds = took.as_secs_f32();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            sum.failed += 1;
            eprintln!("trial {number}: {seconds:.1} s, could not be carried out: {error:#}");
            return false;
        }
    };
    let verdict = &outcome.verdict;
    sum.lost += verdict.lost.len();
    sum.diverged += u64::from(!outcome.diverged.is_empty());
    sum.stuck += u64::from(outcome.stuck.is_some());
    sum.acknowledged += verdict.acknowledged;
    sum.salvaged += verdict.salvaged;
    eprintln!(
        "trial {number}: {seconds:.1} s, {} acknowledged, {} lost, {} salvaged, {}recovered in {} ms, judged in {} ms, operator {:?}, errors {:?}",
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.salvaged,
        if outcome.diverged.is_empty() { "" } else { "DIVERGED, " },
        outcome.recovery_ms,
        outcome.judging_ms,
        outcome.operator,
        outcome.errors
    );
    if !outcome.good() {
        for line in describe(outcome) {
            eprintln!("  {line}");
        }
    }
    outcome.good()
}

fn describe(outcome: &Outcome) -> Vec<String> {
    let mut lines: Vec<String> = outcome.done.iter().map(|done| format!("done: {done}")).collect();
    lines.extend(outcome.verdict.lost.iter().take(20).map(|lost| format!("lost: {lost}")));
    lines.extend(outcome.diverged.iter().map(|difference| format!("differs: {difference}")));
    lines.extend(outcome.stuck.iter().map(|stuck| format!("stuck: {stuck}")));
    lines
}

fn keep(arena: &Arena, logs: &Path, outcome: &Result<Outcome>, plan: &str) -> Result<()> {
    let _ = std::fs::remove_dir_all(logs);
    std::fs::create_dir_all(logs).with_context(|| format!("make {}", logs.display()))?;
    let text = match outcome {
        Ok(outcome) => describe(outcome).join("\n") + "\n" + &outcome.verdict.lost.join("\n"),
        Err(error) => format!("{error:#}"),
    };
    std::fs::write(logs.join("outcome"), text)?;
    std::fs::write(logs.join("plan.json"), plan)?;
    arena.keep(logs)
}
