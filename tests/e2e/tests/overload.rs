//! Does overload look like a failure? The short form of `scripts/campaign load`.

use anyhow::{Result, ensure};
use e2e::mirror::Mirror;
use e2e::overload::{MEMORY, overload};
use std::time::Duration;

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn overloaded_hosts_and_lossy_networks_are_no_failure() -> Result<()> {
    let mirror = Mirror::started("overload", "files", r#"async="second""#)?;
    mirror.scenario(|mirror| {
        let report = overload(mirror, Duration::from_secs(30), MEMORY)?;
        eprintln!("{report:#?}");
        ensure!(report.good(), "{report:#?}");
        // Everything is as it was, or comes back to it.
        mirror.pair("node1", "node2")
    })
}
