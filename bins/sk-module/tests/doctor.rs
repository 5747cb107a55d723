//! An installation with several faults at once: each is named, and each has its remedy.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An executable script.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    /// A node of two with one module that replicates and starts at boot, applied and stopped.
    fn new() -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        let module = host.path("etc/modules/m");
        for directory in ["etc/modules/m/conf", "etc/modules/m/bin", "data", "fake"] {
            fs::create_dir_all(host.path(directory)).unwrap();
        }
        let lan =
            r#"<lan name="default"><node name="node1" addr="127.0.0.1"/><node name="node2" addr="127.0.0.2"/></lan>"#;
        fs::write(host.path("etc/cluster.xml"), format!("<cluster><lans>{lan}</lans></cluster>")).unwrap();
        script(&module.join("bin/prestart"), "");
        let xml = format!(
            r#"<safe><service mode="mirror" boot="on"><heart><heartbeat name="default"/></heart><rfs><replicated dir="{}"/></rfs><user/></service></safe>"#,
            host.path("data").display()
        );
        fs::write(module.join("conf/userconfig.xml"), xml).unwrap();
        let key = host.path("etc/cluster.key").display().to_string();
        for arguments in [&["cluster-key", "--output", &key][..], &["config", "-m", "m", "--id", "7"]] {
            let output = host.command().args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn environment(&self, command: &mut Command) {
        command.env_remove("SAFEMODULE").env("SK_NODE", "node1");
        for (variable, part) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
            command.env(variable, self.path(part));
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-module"));
        self.environment(&mut command);
        command
    }

    /// `doctor` in a mount namespace of its own, after some preparation there. None: this machine gives no such namespaces.
    fn elsewhere(&self, preparation: &str) -> Option<Output> {
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = format!("set -e\n{preparation}\nexec {} doctor --offline --json", env!("CARGO_BIN_EXE_sk-module"));
        self.environment(&mut command);
        let output = command.args(["--mount", "sh", "-c", &script]).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        if words.starts_with("unshare: ") {
            eprintln!("NOT TESTED here: {words}");
            return None;
        }
        Some(output)
    }
}

fn findings(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(1), "something is wrong: {output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for finding in &all {
        let good = finding["level"] == "ok";
        assert_eq!(finding["remedy"].is_string(), !good, "whatever is not good has a remedy: {finding}");
    }
    all
}

/// The finding of this check is of this level, and says how to mend it.
fn expect(all: &[Value], check: &str, level: &str, words: &str, remedy: &str) {
    let fits = |f: &&Value| {
        let has = |key: &str, part: &str| f[key].as_str().is_some_and(|text| text.contains(part));
        f["check"] == check
            && f["level"] == level
            && has("words", words)
            && (remedy.is_empty() || has("remedy", remedy))
    };
    assert!(all.iter().any(|f| fits(&f)), "{check} {level} {words:?} {remedy:?} in {all:#?}");
}

#[test]
fn faults_of_files_are_found_with_their_remedies() {
    let host = Host::new();
    let key = host.path("etc/cluster.key");
    let doctor = || findings(&host.command().args(["doctor", "--offline", "--json"]).output().unwrap());
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    chmod(&key, 0o644);
    let text = fs::read_to_string(host.path("etc/modules/m/conf/userconfig.xml")).unwrap();
    fs::write(host.path("etc/modules/m/conf/userconfig.xml"), text + "\n").unwrap();
    fs::remove_dir(host.path("data")).unwrap();
    let all = doctor();
    expect(&all, "key", "error", "can be read by others (mode 0644)", &format!("chmod 600 {}", key.display()));
    expect(&all, "configuration", "warn", "what was edited is not applied", "sk-module config -m m");
    expect(&all, "replicated", "error", "is no directory", &format!("mkdir -p {}", host.path("data").display()));
    // Who reads it and not a program.
    let shown = String::from_utf8(host.command().args(["doctor", "--offline", "-q"]).output().unwrap().stdout).unwrap();
    assert!(
        shown.contains("[ERROR] key: ") && shown.contains(&format!("\n        chmod 600 {}\n", key.display())),
        "{shown}"
    );
    assert!(!shown.contains("[OK]"), "{shown}");

    chmod(&key, 0o600);
    fs::write(host.path("etc/operators.keys"), "somebody everything\n").unwrap();
    chmod(&host.path("etc/operators.keys"), 0o600);
    let all = doctor();
    expect(&all, "operators", "error", "line 1", "sk-cluster push");
    expect(&all, "daemon", "warn", "does not run", "sk-cluster up");

    fs::write(&key, "no key\n").unwrap();
    expect(&doctor(), "key", "error", "64 hexadecimal digits", "sk-cluster import --replace-key");
    fs::remove_file(&key).unwrap();
    expect(&doctor(), "key", "error", "does not exist", "sk-cluster export | sk-cluster import");
    fs::write(host.path("etc/cluster.xml"), "<cluster>").unwrap();
    let all = doctor();
    expect(&all, "cluster", "error", "", "sk-cluster confcheck");
    expect(&all, "configuration", "error", "module m", "sk-module confcheck -m m");
    fs::remove_file(host.path("etc/cluster.xml")).unwrap();
    expect(&doctor(), "cluster", "error", "does not exist", "sk-cluster create");
}

#[test]
fn faults_of_the_host_are_found_with_their_remedies() {
    let host = Host::new();
    // systemd rules, knows the unit, and it is neither enabled nor well.
    script(
        &host.path("fake/systemctl"),
        r#"case "$4" in LoadState) echo loaded ;; UnitFileState) echo disabled ;; ActiveState) echo failed ;; *) echo 1s ;; esac"#,
    );
    let (var, kept, fake) = (host.path("var"), host.path("kept"), host.path("fake"));
    let preparation = format!(
        "cp -a {var} {kept}
         mount -t tmpfs -o size=2m none {var}
         cp -a {kept}/. {var}/
         mount -t tmpfs none /dev
         touch /dev/null
         mount -t tmpfs none /run
         mkdir -p /run/systemd/system
         export PATH={fake}:$PATH",
        var = var.display(),
        kept = kept.display(),
        fake = fake.display()
    );
    let Some(output) = host.elsewhere(&preparation) else { return };
    let all = findings(&output);
    expect(&all, "fuse", "error", "/dev/fuse does not exist", "modprobe fuse");
    expect(&all, "space", "error", &var.display().to_string(), "make room");
    let unit = "sk-module@m.service";
    expect(&all, "systemd", "warn", "is not enabled", &format!("systemctl enable {unit}"));
    expect(&all, "systemd", "error", "has failed", &format!("journalctl -u {unit}"));
    expect(&all, "systemd", "warn", "is killed 1 s after its stop began", "TimeoutStopSec=");
}
