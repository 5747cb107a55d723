//! Cases M1–M29 of the conformance list: a mirror, each case on hosts of its own.

mod attack;
mod copies;
mod data;
mod ends;
mod loss;
mod orders;
mod policy;
mod roles;

use anyhow::{Context, Result, ensure};
use conformance::{Cluster, Module, Spec};

/// The ordinary mirror, configured and not started.
fn mirror(cluster: &Cluster) -> Result<Module<'_>> {
    cluster.configure(&Spec::mirror("mir"))
}

/// The same, started: node1 PRIM, node2 SECOND.
fn pair(cluster: &Cluster) -> Result<Module<'_>> {
    paired(cluster, &Spec::mirror("mir"))
}

/// A mirror of another configuration, started.
fn paired<'a>(cluster: &'a Cluster, spec: &Spec) -> Result<Module<'a>> {
    let module = cluster.configure(spec)?;
    module.start_pair()?;
    Ok(module)
}

/// Writes a file durably beneath the replicated directory.
fn write(cluster: &Cluster, module: &Module<'_>, node: &str, file: &str, text: &str) -> Result<()> {
    let path = format!("{}/{file}", module.directory());
    cluster.lab.sh(node, &format!("printf %s '{text}' >{path} && sync {path}")).map(drop)
}

/// A file beneath the replicated directory; nothing when there is none.
fn read(cluster: &Cluster, module: &Module<'_>, node: &str, file: &str) -> Option<String> {
    cluster.lab.read(node, &format!("{}/{file}", module.directory()))
}

/// The one process of the module's application on a node.
fn application(module: &Module<'_>, node: &str) -> Result<u32> {
    let pids = module.application(node)?;
    ensure!(pids.len() == 1, "{node}: processes of the application: {pids:?}");
    pids.first().copied().context("no process")
}

/// The application runs on one node and not on the other.
fn runs_only(module: &Module<'_>, here: &str, not_here: &str) -> Result<()> {
    application(module, here)?;
    ensure!(module.application(not_here)?.is_empty(), "the application runs on {not_here} too");
    Ok(())
}

/// `node1` was stopped by its script before the start on `node2` began: at no time did both run.
fn handed_over(module: &Module<'_>, from: &str, to: &str) -> Result<()> {
    let (stopped, started) = (module.last(from, "end", "stop_prim")?, module.last(to, "begin", "start_prim")?);
    ensure!(
        stopped < started,
        "start_prim on {to} began {} ms before stop_prim on {from} ended",
        (stopped - started) / 1_000_000
    );
    Ok(())
}
