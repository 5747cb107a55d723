//! A node on this machine's loopback addresses: its own roots, the module `m`, a runner, and what it did.

#![allow(dead_code)] // not every test uses everything
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on has failed

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// The runner starts `sk-heartbeat` and `sk-errd` from the directory it is in itself.
fn build_children() {
    programs::build(env!("CARGO_BIN_EXE_sk-module"));
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub struct Node {
    pub name: &'static str,
    pub root: PathBuf,
    runner: Option<Child>,
}

impl Node {
    /// A node with its own roots and the module `m`. `port` keeps tests apart.
    pub fn new(directory: &Path, name: &'static str, port: u16, service: &str, user: &str, errd: &str) -> Self {
        build_children();
        let root = directory.join(name);
        let source = root.join("etc/modules/m");
        fs::create_dir_all(source.join("conf")).unwrap();
        fs::create_dir_all(source.join("bin")).unwrap();
        fs::write(
            root.join("etc/cluster.xml"),
            r#"<cluster><lans><lan name="default"><node name="node1" addr="127.0.0.1"/><node name="node2" addr="127.0.0.2"/></lan></lans></cluster>"#,
        )
        .unwrap();
        let key = root.join("etc/cluster.key");
        fs::write(&key, "ab".repeat(32)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(
            source.join("conf/userconfig.xml"),
            format!(
                r#"<safe><service mode="mirror" {service}><heart port="{port}" pulse="50ms" timeout="1000ms"><heartbeat name="default"/></heart><user {user}><var name="WORD" value="two words"/></user>{errd}</service></safe>"#
            ),
        )
        .unwrap();
        let node = Self { name, root, runner: None };
        for script in ["prestart", "start_prim", "stop_prim", "start_second", "stop_second", "poststop", "transition"] {
            node.script(script, "");
        }
        node
    }

    /// Every script notes its name and arguments; `more` follows.
    pub fn script(&self, name: &str, more: &str) {
        let path = self.root.join("etc/modules/m/bin").join(name);
        let text = format!("#!/bin/sh\necho \"{name} $*\" >>{}\n{more}\n", self.root.join("calls").display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-module"));
        command.args(args).env("SK_NODE", self.name).env("SAFEMODULE", "m").env("NO_COLOR", "1");
        for (variable, part) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
            command.env(variable, self.root.join(part));
        }
        command
    }

    pub fn sk(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.sk(args);
        assert!(output.status.success(), "{} {args:?}: {output:?}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn configure(&self) {
        self.ok(&["config", "--id", "7"]);
    }

    /// The runner itself, without a guard: its end is the test's business.
    pub fn run(&mut self) {
        let log = fs::File::create(self.root.join("runner.err")).unwrap();
        self.runner = Some(self.command(&["run", "m"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        wait_for("the runner answers", || {
            self.root.join("run/m/control").exists() && self.sk(&["get", "-r", "state.local"]).status.code() != Some(3)
        });
    }

    pub fn state(&self) -> String {
        let value: Value = serde_json::from_str(&self.ok(&["state", "--json"])).unwrap();
        format!("{} {}", value["state"].as_str().unwrap(), value["readiness"].as_str().unwrap())
    }

    pub fn wait(&self, state: &str) {
        wait_for(&format!("{} in {state}: {}", self.name, self.log()), || self.state() == state);
    }

    pub fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.root.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub fn forget_calls(&self) {
        fs::write(self.root.join("calls"), "").unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("var/modules/m/log")).unwrap_or_default()
    }

    pub fn kill_runner(&mut self) {
        let mut runner = self.runner.take().unwrap();
        runner.kill().unwrap();
        runner.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A runner that `prim` started for itself, with its guard: it ends when its configuration is applied again in STOP.
        let _ = self.sk(&["forcestop", "--wait"]);
        let _ = self.sk(&["config"]);
        let begun = Instant::now();
        while self.root.join("run/m/control").exists() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(mut runner) = self.runner.take() {
            // The children see the end of their input.
            let _ = runner.kill();
            let _ = runner.wait();
        }
    }
}

pub fn pair(directory: &Path, port: u16, service: &str, user: &str) -> (Node, Node) {
    let make = |name| {
        let mut node = Node::new(directory, name, port, service, user, "");
        node.configure();
        node.run();
        node
    };
    (make("node1"), make("node2"))
}
