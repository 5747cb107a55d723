//! Command line of the simulator: many seeds, or one with every event shown.

use serde_json::json;
use sim::engine::Mutation;
use sim::{explore, farm, scenario};
use std::process::ExitCode;

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--world mirror|arbitrated|farm] [--events]
       sim --explore D [--states N]
  --seeds N    histories of each kind of world (default 1000; 1 when only --seed is given)
  --seed S     seed of the first one (default 0)
  --world W    only this kind of world; arbitrated: a mirror whose nodes ask a store
  --explore D  instead of seeds: every history of a mirror of at most D faults and commands, without an arbiter and with one
  --states N   give up after so many states of one kind of world (default 100000)
  --events     one line an event
The last line is a JSON object. exit: 0 all hold, 1 a violation or no convergence, 100 wrong usage";

#[derive(Default)]
struct Totals {
    violations: usize,
    stuck: usize,
}

impl Totals {
    fn report(&mut self, world: &str, seed: u64, violations: &[String], stuck: Option<&String>) {
        self.violations += violations.len();
        self.stuck += usize::from(stuck.is_some());
        for violation in violations {
            println!("{world} seed {seed}: {violation}");
        }
        if let Some(why) = stuck {
            println!("{world} seed {seed}: stuck: {why}");
        }
    }
}

struct Arguments {
    seeds: u64,
    first: u64,
    mirror: bool,
    arbitrated: bool,
    farm: bool,
    events: bool,
    explore: Option<usize>,
    states: usize,
}

fn arguments() -> Option<Arguments> {
    let (mut seeds, mut first, mut world, mut events) = (None, None, None, false);
    let (mut explore, mut states) = (None, 100_000);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--events" => events = true,
            "--explore" => explore = Some(args.next()?.parse().ok()?),
            "--states" => states = args.next()?.parse().ok()?,
            "--seeds" => seeds = Some(args.next()?.parse().ok()?),
            "--seed" => first = Some(args.next()?.parse().ok()?),
            "--world" => world = Some(args.next().filter(|w| ["mirror", "arbitrated", "farm"].contains(&w.as_str()))?),
            _ => return None,
        }
    }
    let is = |name: &str| world.as_deref().is_none_or(|w| w == name);
    Some(Arguments {
        seeds: seeds.unwrap_or(if first.is_some() { 1 } else { 1_000 }),
        first: first.unwrap_or(0),
        mirror: is("mirror"),
        arbitrated: is("arbitrated"),
        farm: is("farm"),
        events,
        explore,
        states,
    })
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(100);
    };
    if let Some(depth) = arguments.explore {
        return exhaust(&arguments, depth);
    }
    let mut totals = Totals::default();
    let mut summary = json!({"seeds": arguments.seeds, "first": arguments.first});
    let seeds = arguments.first..arguments.first.saturating_add(arguments.seeds);
    type Run = fn(u64, Mutation, bool) -> scenario::Outcome;
    let mirrors: [(&str, bool, Run); 2] =
        [("mirror", arguments.mirror, scenario::run), ("arbitrated", arguments.arbitrated, scenario::arbitrated)];
    for (world, _, run) in mirrors.iter().filter(|(_, wanted, _)| *wanted) {
        let (mut chosen, mut isolated, mut acked) = (0, 0, 0);
        for seed in seeds.clone() {
            let outcome = run(seed, Mutation::None, arguments.events);
            chosen += usize::from(outcome.chosen);
            isolated += usize::from(outcome.isolation);
            acked += outcome.acked;
            totals.report(world, seed, &outcome.violations, outcome.stuck.as_ref());
        }
        summary[world] = json!({"operator_chose": chosen, "isolated": isolated, "acked": acked});
    }
    if arguments.farm {
        let (mut datagrams, mut views, mut apart, mut slowest) = (0, 0, 0, 0);
        for seed in seeds {
            let outcome = farm::scenario::run(seed, None, arguments.events);
            datagrams += outcome.totals.datagrams;
            views += outcome.totals.views;
            apart += outcome.totals.twice_apart;
            slowest = slowest.max(outcome.slowest);
            totals.report("farm", seed, &outcome.violations, outcome.stuck.as_ref());
        }
        summary["farm"] = json!({"datagrams": datagrams, "views": views, "twice_while_apart": apart,
            "slowest_convergence_timeouts": slowest as f64 / 100.0});
    }
    summary["violations"] = json!(totals.violations);
    summary["stuck"] = json!(totals.stuck);
    println!("{summary}");
    ExitCode::from(u8::from(totals.violations + totals.stuck > 0))
}

fn exhaust(arguments: &Arguments, depth: usize) -> ExitCode {
    let mut failures = 0;
    let mut summary = json!({"depth": depth});
    let worlds = [("mirror", arguments.mirror, false), ("arbitrated", arguments.arbitrated, true)];
    for (world, _, arbitrated) in worlds.into_iter().filter(|(_, wanted, _)| *wanted) {
        let bounds = explore::Bounds { depth, states: arguments.states, arbitrated };
        let found = explore::explore(Mutation::None, bounds, false);
        for failure in &found.failures {
            println!("{world}: {failure}");
        }
        failures += found.failures.len();
        summary[world] = json!({"states": found.states, "transitions": found.transitions, "levels": found.levels,
            "complete": found.complete, "isolated": found.isolated, "salvaged": found.salvaged,
            "lone_owners": found.owners, "failures": found.failures.len()});
    }
    println!("{summary}");
    ExitCode::from(u8::from(failures > 0))
}
