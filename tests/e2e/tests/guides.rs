//! Do the guides say what happens? Their commands, on the hosts of a lab, in their order.

use anyhow::{Context, Result};
use e2e::guide;
use e2e::lab::{Lab, scripts};

/// One lab for guides that follow each other.
fn guides(purpose: &str, nodes: u32, names: &[&str]) -> Result<()> {
    let lab = Lab::up(purpose, nodes)?;
    for name in names {
        let text = std::fs::read_to_string(scripts().join("../docs").join(name)).context("read the guide")?;
        guide::run(&lab, name, &text).inspect_err(|_| {
            for node in ["node1", "node2"] {
                for module in ["www", "web"] {
                    let log = lab.read(node, &format!("/var/lib/sk/modules/{module}/log")).unwrap_or_default();
                    for line in log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev() {
                        eprintln!("{node} {module}: {line}");
                    }
                }
            }
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_tutorial_the_drill_and_what_uses_their_module() -> Result<()> {
    let names = ["tutorial.md", "disaster-drill.md", "split-brain.md", "databases.md", "notifications.md"];
    guides("tutorial", 2, &names)
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_farm_guide() -> Result<()> {
    guides("farmguide", 3, &["farm.md"])
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_migration_from_keepalived() -> Result<()> {
    guides("keepalived", 2, &["migrating-from-keepalived.md"])
}
