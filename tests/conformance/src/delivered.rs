//! The modules as they are delivered, filled in as an administrator would.

use crate::{Cluster, Module, Spec};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// The directory of a delivered module.
pub fn template(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules").join(name)
}

/// A delivered module on nodes, checked and applied, with `changes` made to its userconfig.xml as an administrator would.
pub fn delivered<'a>(
    cluster: &'a Cluster,
    name: &str,
    id: u32,
    nodes: &[&str],
    changes: &[(&str, &str)],
) -> Result<Module<'a>> {
    let source = template(name);
    let mut xml = std::fs::read_to_string(source.join("conf/userconfig.xml"))?;
    for (from, to) in changes {
        ensure!(xml.contains(from), "{name}: no {from:?} in its userconfig.xml");
        xml = xml.replace(from, to);
    }
    let mut spec = Spec::whole(name, nodes, &xml, &[]).id(id);
    for entry in std::fs::read_dir(source.join("bin"))? {
        let path = entry?.path();
        let script = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
        spec = spec.script(&script, &std::fs::read_to_string(&path)?);
    }
    let module = cluster.written(&spec)?;
    for node in nodes {
        for entry in std::fs::read_dir(source.join("conf"))? {
            let path = entry?.path();
            let file = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            if file != "userconfig.xml" {
                let text = std::fs::read_to_string(&path)?;
                let target = format!("/etc/sk/modules/{name}/conf/{file}");
                cluster.lab.exec(node, &["sh", "-c", "printf '%s' \"$1\" >\"$2\"", "sh", &text, &target])?;
            }
        }
        let file = format!("/etc/sk/modules/{name}/conf/userconfig.xml");
        cluster.lab.exec(node, &["sk-module", "check", &file])?;
        module.order(node, &["config", "--id", &id.to_string()])?;
    }
    Ok(module)
}
