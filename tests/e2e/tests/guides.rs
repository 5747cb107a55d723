//! Do the guides say what happens? Their commands, on the hosts of a lab, in their order.

use anyhow::{Context, Result};
use e2e::guide;
use e2e::lab::{Lab, checked, scripts};

/// One lab for guides that follow each other.
fn guides(purpose: &str, nodes: u32, names: &[&str]) -> Result<()> {
    let lab = Lab::up(purpose, nodes)?;
    names.iter().try_for_each(|name| follow(&lab, name, &text_of(name)?))
}

fn text_of(name: &str) -> Result<String> {
    std::fs::read_to_string(scripts().join("../docs").join(name)).with_context(|| format!("read docs/{name}"))
}

/// Runs what is left of a guide; where it fails, prints what a person would look at first.
fn follow(lab: &Lab, name: &str, text: &str) -> Result<()> {
    guide::run(lab, name, text).inspect_err(|_| {
        for node in ["node1", "node2"] {
            let modules = lab.sh(node, "cd /var/lib/sk/modules && ls").unwrap_or_default();
            for module in modules.lines() {
                let log = lab.read(node, &format!("/var/lib/sk/modules/{module}/log")).unwrap_or_default();
                for line in log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev() {
                    eprintln!("{node} {module}: {line}");
                }
            }
        }
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_tutorial_the_drill_and_what_uses_their_module() -> Result<()> {
    let names =
        ["tutorial.md", "disaster-drill.md", "split-brain.md", "databases.md", "notifications.md", "metrics.md"];
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

/// What other guides begin with: the cluster alone (`## 2.`), or its module, complete (`## 4.`).
fn tutorial_until(lab: &Lab, heading: &str) -> Result<()> {
    let tutorial = text_of("tutorial.md")?;
    let (begin, _) = tutorial.split_once(heading).with_context(|| format!("the tutorial has no {heading:?}"))?;
    follow(lab, "tutorial.md", begin)
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_arbiters() -> Result<()> {
    let lab = Lab::up("arbiters", 2)?;
    tutorial_until(&lab, "\n## 4. ")?;
    follow(&lab, "arbiter.md", &text_of("arbiter.md")?)
}

/// A module as SafeKit's users write them, made for this test, runs unchanged. SafeKit itself is not here: its own last commands are not run.
#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_migration_from_safekit() -> Result<()> {
    let lab = Lab::up("fromsafekit", 2)?;
    follow(&lab, "what there is before", include_str!("before/safekit.md"))?;
    follow(&lab, "migrating-from-safekit.md", &text_of("migrating-from-safekit.md")?)
}

/// The guest is that of `scripts/lab-guest`: its recorder is the program that the guide speaks to. Bridges, libvirt and KVM are not run: not every
/// machine that tests has a processor to give away.
#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn a_virtual_machine() -> Result<()> {
    let guest = scripts().join("../target/tmp/guest");
    let mut make = std::process::Command::new(scripts().join("lab-guest"));
    make.arg(&guest).arg(scripts().join("../tests/conformance/fixtures/recorder.sh"));
    checked(make, &["lab-guest"])?;
    let lab = Lab::up("guest", 2)?;
    for node in ["node1", "node2"] {
        lab.run(&["push", node, &guest.to_string_lossy(), "/srv/guest"])?;
    }
    tutorial_until(&lab, "\n## 2. ")?;
    follow(&lab, "virtual-machines.md", &text_of("virtual-machines.md")?)
}

/// The nodes have what the guide finds after its step 3. What DRBD and Pacemaker do is not run: not every kernel has DRBD's module.
#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn the_migration_from_drbd_and_pacemaker() -> Result<()> {
    let lab = Lab::up("fromdrbd", 2)?;
    follow(&lab, "what there is before", include_str!("before/drbd.md"))?;
    tutorial_until(&lab, "\n## 2. ")?;
    follow(&lab, "migrating-from-drbd-pacemaker.md", &text_of("migrating-from-drbd-pacemaker.md")?)
}
