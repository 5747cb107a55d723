//! What do the pages of a node say: the application's, and the health page that balancers ask?

use crate::{Cluster, Module, SOON, wait};
use anyhow::Result;

/// HTTP status of a page, asked for from a host; 0 without an answer.
pub fn status(cluster: &Cluster, from: &str, url: &str) -> Result<u32> {
    let output =
        cluster.lab.try_exec(from, &["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url])?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0))
}

/// A page that must be there.
pub fn page(cluster: &Cluster, from: &str, url: &str) -> Result<String> {
    Ok(cluster.lab.exec(from, &["curl", "-sf", "-m", "5", url])?.trim().to_owned())
}

/// Starts `sk-health` on every node, as its unit would.
pub fn health(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        cluster.lab.sh(node, "setsid sk-health serve </dev/null >/dev/null 2>&1 &")?;
    }
    Ok(())
}

/// Waits until the health page of a module on a node answers with a status.
pub fn ready(cluster: &Cluster, module: &Module<'_>, node: &str, wanted: u32) -> Result<()> {
    let url = format!("http://{node}:9010/var/modules/{}/ready.txt", module.name());
    wait::until(&format!("{url} {wanted}"), SOON, || match status(cluster, "client", &url) {
        Ok(seen) if seen == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
}
