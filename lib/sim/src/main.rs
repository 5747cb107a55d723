//! Command line of the simulator: many seeds, or one with every event shown.

use sim::engine::Mutation;
use sim::scenario;
use std::process::ExitCode;

const USAGE: &str =
    "usage: sim [--seeds N] [--from S] | --seed S\nexit: 0 all hold, 1 a violation or no convergence, 100 wrong usage";

fn main() -> ExitCode {
    let mut seeds = 1_000;
    let mut from = 0;
    let mut one = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let number = args.next().and_then(|v| v.parse::<u64>().ok());
        match (arg.as_str(), number) {
            ("--seeds", Some(n)) => seeds = n,
            ("--from", Some(n)) => from = n,
            ("--seed", Some(n)) => one = Some(n),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(100);
            }
        }
    }
    let (mut violations, mut stuck, mut chosen, mut isolated, mut acked) = (0, 0, 0, 0, 0);
    let range = one.map_or(from..from + seeds, |s| s..s + 1);
    let count = range.end - range.start;
    for seed in range {
        let outcome = scenario::run(seed, Mutation::None, one.is_some());
        violations += outcome.violations.len();
        stuck += usize::from(outcome.stuck.is_some());
        chosen += usize::from(outcome.chosen);
        isolated += usize::from(outcome.isolation);
        acked += outcome.acked;
        for violation in &outcome.violations {
            println!("seed {seed}: {violation}");
        }
        if let Some(why) = outcome.stuck {
            println!("seed {seed}: stuck: {why}");
        }
    }
    println!(
        "{}",
        serde_json::json!({"seeds": count, "violations": violations, "stuck": stuck, "operator_chose": chosen,
            "isolated": isolated, "acked": acked})
    );
    ExitCode::from(u8::from(violations + stuck > 0))
}
