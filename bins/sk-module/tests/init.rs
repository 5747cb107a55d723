//! From nothing to a module that can be applied: by flags, and by somebody who answers at a terminal.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    /// A node on which nothing is configured, with the templates of the product.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("safe")).unwrap();
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules").canonicalize().unwrap();
        std::os::unix::fs::symlink(templates, directory.path().join("safe/templates")).unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> String {
        self.path("data").display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-module"));
        command.args(arguments).env_remove("SAFEMODULE").env("NO_COLOR", "1").env("SK_NODE", "node1");
        for (variable, part) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
            command.env(variable, self.path(part));
        }
        command
    }

    fn sk(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.sk(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, arguments: &[&str], code: i32, words: &str) {
        let output = self.sk(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {words:?} in {text}");
        assert!(!self.path("etc/modules/shop").exists(), "nothing is half made");
    }

    /// A module of its own name with everything given; its address lies in no network of whatever host runs this.
    fn all(data: &str) -> Vec<&str> {
        vec![
            "init",
            "-m",
            "shop",
            "--node",
            "node1=127.0.0.1",
            "--node",
            "node2=127.0.0.2",
            "--vip",
            "2001:db8:5afe::50",
            "--dir",
            data,
            "--process",
            "shopd",
            "--service",
            "shop-db",
            "--service",
            "shop",
        ]
    }
}

#[test]
fn flags_make_a_module_that_can_be_applied() {
    let host = Host::new();
    let data = host.data();
    let dry = host.ok(&[Host::all(&data), vec!["--dry-run"]].concat());
    assert!(dry.contains("<lan name=\"default\">") && dry.contains("Nothing was written"), "{dry}");
    assert!(!host.path("etc").exists(), "a dry run writes nothing");

    let said = host.ok(&Host::all(&data));
    for words in [
        "sk-cluster export | ssh node2 sk-cluster import",
        "sk-module push -m shop --only-files",
        "ssh node2 sk-module init --check -m shop",
        "sk-module push -m shop\n",
        "sk-module config -m shop",
        "systemctl disable --now shop-db shop",
        "sk-module -H node2 second -m shop --wait",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert_eq!(fs::metadata(host.path("etc/cluster.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(host.path("etc/modules/shop/conf/userconfig.xml")).unwrap();
    assert!(text.contains("value=\"shop-db,shop\"") && text.contains("value=\"2001:db8:5afe::50\""), "{text}");
    // What it wrote is good, as it is.
    host.ok(&["config", "-m", "shop"]);
    assert!(host.ok(&["list"]).starts_with("shop "), "{}", host.ok(&["list"]));
    let again = host.sk(&["init", "-m", "shop"]);
    assert_eq!(again.status.code(), Some(1));

    // A second one in the same cluster has a number of its own, and the key stays.
    let key = fs::read(host.path("etc/cluster.key")).unwrap();
    fs::create_dir(host.path("more")).unwrap();
    let more = host.path("more").display().to_string();
    let arguments = ["init", "-m", "second", "--vip", "192.0.2.51", "--dir", &more, "--process", "x"];
    host.ok(&arguments);
    assert_eq!(fs::read_to_string(host.path("etc/modules/second/id")).unwrap(), "2\n");
    assert_eq!(fs::read(host.path("etc/cluster.key")).unwrap(), key);
    assert_eq!(fs::read_dir(host.path("etc/modules")).unwrap().count(), 2);
}

#[test]
fn wrong_answers_are_named_and_nothing_is_written() {
    let host = Host::new();
    let data = host.data();
    let all = Host::all(&data);
    let without = |flag: &str| {
        let at = all.iter().position(|a| *a == flag).unwrap();
        [&all[..at], &all[at + 2..]].concat()
    };
    let with = |flag: &str, value: &'static str| {
        [
            without(flag),
            vec![
                match flag {
                    "--vip" => "--vip",
                    "--dir" => "--dir",
                    _ => "--process",
                },
                value,
            ],
        ]
        .concat()
    };
    host.fails(&without("--vip"), 100, "--vip is missing");
    host.fails(&without("--dir"), 100, "--dir is missing");
    host.fails(&without("--process"), 100, "--process is missing");
    host.fails(&with("--vip", "10.0.0.0/24"), 100, "is no address");
    host.fails(&with("--dir", "relative"), 100, "no absolute path");
    host.fails(&with("--process", "%X%"), 100, "without %");
    host.fails(&["init", "-m", "shop", "--template", "absent"], 100, "is none of");
    host.fails(&["init", "-m", "shop"], 100, "--node is missing");
    host.fails(
        &["init", "-m", "shop", "--node", "a=1.2.3.4", "--node", "b=1.2.3.5,1.2.3.6"],
        100,
        "node b has 2 addresses",
    );
    for node in ["a", "=1.2.3.4", "a=", "a=999.1.1.1", "a b=1.2.3.4", "a=x y"] {
        host.fails(&["init", "-m", "shop", "--node", node, "--node", "b=1.2.3.5"], 100, "--node");
    }
    host.fails(&[all.clone(), vec!["--set", "ABSENT=1"]].concat(), 100, "no such macro");
    host.fails(&[all.clone(), vec!["--service", "a b"]].concat(), 100, "no name of a systemd unit");
    host.fails(
        &[
            "init",
            "--template",
            "postgresql",
            "-m",
            "shop",
            "--node",
            "node1=127.0.0.1",
            "--node",
            "node2=127.0.0.2",
            "--vip",
            "192.0.2.1",
            "--dir",
            "/x",
        ],
        100,
        "no macro DIR",
    );
    host.fails(&["init", "--check", "--owner", "root"], 100, "USER=UID:GID");
    // One node is no cluster for a mirror: the checks of the configuration say so.
    let one =
        ["init", "-m", "shop", "--node", "node1=127.0.0.1", "--vip", "192.0.2.1", "--dir", "/x", "--process", "x"];
    assert_ne!(host.sk(&one).status.code(), Some(0));
    assert!(!host.path("etc").exists(), "nothing was written by any of them");
}

#[test]
fn the_host_is_looked_at() {
    let host = Host::new();
    let data = host.data();
    let said = host.ok(&Host::all(&data));
    assert!(
        said.contains("[OK]    kernel: ")
            && said.contains("this host is node1 of the cluster")
            && said.contains("no interface of this host"),
        "{said}"
    );
    assert!(said.contains("udp 8888, tcp 5600") || said.contains("8888/udp"), "{said}");
    let check = host.sk(&["init", "--check", "-m", "shop", "--owner", "root=0:0", "--owner", "no-such-user=1:2"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains("[OK]    users: root has uid 0") && text.contains("there is no user no-such-user"), "{text}");
}

/// Somebody answers, the first time wrongly.
#[test]
fn answers_at_a_terminal() {
    let host = Host::new();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let slave = File::from(terminal.slave);
    let mut command = host.command(&["init"]);
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    drop((command, slave));
    let mut master = File::from(terminal.master);
    let answers = format!(
        "absent\nmirror\nshop\nnode1\n127.0.0.1\nnode2\n127.0.0.2\n\nnonsense/\n192.0.2.9\n{}\nshopd\nshop db\n",
        host.data()
    );
    master.write_all(answers.as_bytes()).unwrap();
    let mut said = Vec::new();
    // The end of a terminal is an error; what was said until then counts.
    let _ = master.read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(
        said.contains("is none of")
            && said.contains("is no address")
            && said.contains("The address clients connect to"),
        "{said}"
    );
    let text = fs::read_to_string(host.path("etc/modules/shop/conf/userconfig.xml")).unwrap();
    assert!(text.contains("value=\"192.0.2.9\"") && text.contains("value=\"shop,db\""), "{text}");
    host.ok(&["config", "-m", "shop"]);
}

#[test]
fn a_farm_and_a_single_server_are_made_too() {
    let host = Host::new();
    let nodes = ["--node", "node1=127.0.0.1", "--node", "node2=127.0.0.2", "--node", "node3=127.0.0.3"];
    let farm = [
        &["init", "--template", "farm", "-m", "web", "--vip", "192.0.2.80", "--process", "httpd", "--set", "PORT=8080"]
            [..],
        &nodes,
    ]
    .concat();
    let said = host.ok(&farm);
    assert!(
        said.contains("sk-module -H '*' start -m web --wait") && said.contains("ssh node3 sk-cluster import"),
        "{said}"
    );
    host.ok(&["config", "-m", "web"]);
    let said = host.ok(&["init", "--template", "light", "-m", "one", "--process", "x"]);
    assert!(said.contains("talks to no other node"), "{said}");
    host.ok(&["config", "-m", "one"]);
}
