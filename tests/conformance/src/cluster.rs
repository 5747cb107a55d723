//! Hosts that know each other (one `cluster.xml`, one key), on which modules are configured as an administrator would.

use crate::{Module, Spec};
use anyhow::{Context, Result, ensure};
use e2e::lab::Lab;
use std::fmt::Write;
use std::path::PathBuf;

/// A lab whose nodes form a cluster with the networks `default` (prod) and `repl`. With more than two nodes, each pair has
/// its own, too, on the same cables: `default-1-3` and `repl-1-3` for node1 and node3.
#[derive(Debug)]
pub struct Cluster {
    /// The hosts.
    pub lab: Lab,
    nodes: Vec<String>,
    network: String,
}

impl Cluster {
    /// `nodes` hosts with `cluster.xml` and a common key; no module.
    pub fn up(purpose: &str, nodes: u32) -> Result<Self> {
        let lab = Lab::up(purpose, nodes)?;
        let nodes: Vec<String> = (1..=nodes).map(|number| format!("node{number}")).collect();
        let first = lab.address("node1", "prod")?;
        let (network, _) = first.rsplit_once('.').context("an address without dots")?;
        let mut lans = String::new();
        for (lan, net) in [("default", "prod"), ("repl", "repl")] {
            let elements: Vec<String> = nodes
                .iter()
                .map(|node| Ok(format!("<node name=\"{node}\" addr=\"{}\"/>", lab.address(node, net)?)))
                .collect::<Result<_>>()?;
            writeln!(lans, "<lan name=\"{lan}\">{}</lan>", elements.concat())?;
            if nodes.len() == 2 {
                continue;
            }
            for (one, first) in elements.iter().enumerate() {
                for (two, second) in elements.iter().enumerate().skip(one + 1) {
                    writeln!(lans, "<lan name=\"{lan}-{}-{}\">{first}{second}</lan>", one + 1, two + 1)?;
                }
            }
        }
        let xml = format!("<cluster><lans>\n{lans}</lans></cluster>\n");
        lab.exec("node1", &["sk-module", "cluster-key"])?;
        let key = lab.exec("node1", &["cat", "/etc/sk/cluster.key"])?;
        for node in &nodes {
            let line = "printf '%s' \"$1\" >/etc/sk/cluster.xml; umask 077; printf '%s' \"$2\" >/etc/sk/cluster.key";
            lab.exec(node, &["sh", "-c", line, "sh", &xml, &key])?;
        }
        Ok(Self { network: network.to_owned(), lab, nodes })
    }

    /// The first three numbers of the network `prod`, e.g. `10.101.0`.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Writes and applies a module's configuration on its nodes; does not start it. Where it was configured before, the
    /// new one replaces it.
    pub fn configure(&self, spec: &Spec) -> Result<Module<'_>> {
        let module = self.written(spec)?;
        for node in &spec.nodes {
            module.order(node, &["config", "--id", &spec.id.to_string()])?;
        }
        Ok(module)
    }

    /// Writes a module's editable configuration on its nodes without applying it.
    pub fn written(&self, spec: &Spec) -> Result<Module<'_>> {
        let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp").join(format!(
            "{}-{}",
            self.lab.name(),
            spec.name
        ));
        std::fs::create_dir_all(own.join("conf"))?;
        std::fs::create_dir_all(own.join("bin"))?;
        std::fs::write(own.join("conf/userconfig.xml"), spec.userconfig(&self.network))?;
        for (script, text) in &spec.scripts {
            std::fs::write(own.join("bin").join(script), text)?;
        }
        for node in &spec.nodes {
            self.lab.run(&["push", node, &own.to_string_lossy(), &format!("/etc/sk/modules/{}", spec.name)])?;
            let line = format!("chmod +x /etc/sk/modules/{0}/bin/*; mkdir -p /srv/{0}/data", spec.name);
            self.lab.sh(node, &line)?;
        }
        std::fs::remove_dir_all(&own)?;
        Ok(Module::new(self, spec))
    }

    /// A command that must end with this exit code; what it said on stderr.
    pub fn fails(&self, node: &str, command: &[&str], code: i32) -> Result<String> {
        let output = self.lab.try_exec(node, command)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code), "{command:?}: {} instead of {code}: {said}", output.status);
        Ok(said)
    }

    /// Nodes `node1`….
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(String::as_str)
    }

    /// Runs a scenario; prints what a person would look at first when it fails.
    pub fn scenario(&self, run: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        run(self).inspect_err(|_| self.diagnose())
    }

    fn diagnose(&self) {
        for node in self.nodes() {
            let line = "for m in /var/lib/sk/modules/*; do echo \"== $m\"; cat /run/sk/${m##*/}/state.json; echo; \
                        cat \"$m/core.json\"; echo; tail -n 60 \"$m/log\"; done 2>&1";
            match self.lab.sh(node, line) {
                Ok(text) => text.lines().for_each(|line| eprintln!("{node} {line}")),
                Err(error) => eprintln!("{node}: {error:#}"),
            }
        }
    }
}
