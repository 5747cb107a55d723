//! The application of a campaign, as the module's scripts start it on the primary.

use clap::Parser;
use e2e::campaign::load::{Load, Work};
use std::path::PathBuf;

#[derive(Parser)]
#[command(version, about = "Works on a replicated directory until it is killed, and notes what was acknowledged", after_help = AFTER)]
struct Cli {
    /// The replicated directory
    #[arg(long)]
    directory: PathBuf,
    /// Directory of the notes, not on the node's disk
    #[arg(long)]
    notes: PathBuf,
    /// Name of this node
    #[arg(long)]
    node: String,
    /// Chooses the work
    #[arg(long)]
    seed: u64,
    /// What it does
    #[arg(long, value_enum)]
    work: Work,
}

const AFTER: &str = "\
Exit codes: 1 the notes cannot be written; 100 wrong usage
Example: campaign-load --directory /srv/data --notes /notes --node node1 --seed 1 --work files";

fn main() -> anyhow::Result<()> {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { 100 } else { 0 })
    });
    Load::new(&cli.directory, &cli.notes, &cli.node, cli.seed)?.run(cli.work)
}
