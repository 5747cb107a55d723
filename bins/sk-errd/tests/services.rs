//! Are systemd's units watched, with a `systemctl` that says what the test wants; and is it said where there is no systemd?
#![allow(clippy::unwrap_used)] // Test code that clippy does not recognise as such, since it is in no #[test] function.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_mins(1);

struct Errd {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    dir: tempfile::TempDir,
}

impl Errd {
    fn start(processes: &Value, poll_ms: u64, with_systemd: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = dir.path().join("errd.json");
        std::fs::write(
            &spec,
            json!({"module": "AM", "node": "node1", "poll_ms": poll_ms, "processes": processes}).to_string(),
        )
        .unwrap();
        let systemctl = dir.path().join("systemctl");
        let script = format!("#!/bin/sh\necho \"$@\" >>{0}/asked\nexec cat {0}/answer\n", dir.path().display());
        std::fs::write(&systemctl, script).unwrap();
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-errd"));
        command.args(["run", "--spec"]).arg(&spec).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env_remove("SK_SYSTEMCTL");
        if with_systemd {
            command.env("SK_SYSTEMCTL", &systemctl);
            say(dir.path(), "inactive", 0);
        }
        let mut child = command.spawn().unwrap();
        let (send, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, dir }
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    fn next(&self, kind: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {kind}"));
            if line["kind"] == kind {
                return line;
            }
        }
    }
}

impl Drop for Errd {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `systemctl show` says from now on.
fn say(dir: &Path, state: &str, pid: u32) {
    let text = format!("MainPID={pid}\nId=db@1.service\nLoadState=loaded\nActiveState={state}\nSubState=x\n");
    let fresh = dir.join("answer.new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, dir.join("answer")).unwrap();
}

fn service(start_after: u64) -> Value {
    json!([{"name": "db@1", "service": true, "action": "restart", "restart_services": ["db@1", "pool"], "class": "prim",
        "start_after": start_after}])
}

#[test]
fn a_unit_is_seen_to_come_and_its_main_process_to_end_at_once() {
    // Polls are far apart: what is noticed in time is noticed by the end of the process.
    let mut errd = Errd::start(&service(0), 100_000, true);
    let mut main = Command::new("sleep").arg("1000").spawn().unwrap();
    say(errd.dir.path(), "active", main.id());
    errd.order(&json!({"kind": "enable", "class": "prim"}));
    let line = errd.next("proc");
    assert_eq!((&line["name"], &line["value"], &line["pids"]), (&json!("db@1"), &json!("up"), &json!([main.id()])));
    assert!(line.get("restart_services").is_none());
    say(errd.dir.path(), "failed", 0);
    std::thread::sleep(Duration::from_millis(400)); // The first 300 ms after an enabling are not judged.
    let began = Instant::now();
    main.kill().unwrap();
    main.wait().unwrap();
    let line = errd.next("proc");
    assert!(began.elapsed() < Duration::from_secs(50), "not by a poll");
    assert_eq!(line["value"], "down");
    assert_eq!(line["reason"], "Service db@1 not running");
    assert_eq!(line["restart_services"], json!(["db@1", "pool"]));
    let asked = std::fs::read_to_string(errd.dir.path().join("asked")).unwrap();
    assert!(asked.lines().all(|l| l.ends_with("-- db@1.service")), "{asked}");
}

#[test]
fn a_unit_without_a_main_process_is_polled() {
    let mut errd = Errd::start(&service(0), 300, true);
    say(errd.dir.path(), "active", 0);
    errd.order(&json!({"kind": "enable", "class": "prim"}));
    let line = errd.next("proc");
    assert_eq!((&line["value"], &line["running"], &line["pids"]), (&json!("up"), &json!(1), &json!([])));
    say(errd.dir.path(), "deactivating", 0);
    assert_eq!(errd.next("proc")["value"], "down");
    say(errd.dir.path(), "active", 0);
    assert_eq!(errd.next("proc")["value"], "up");
    // An answer that is none changes nothing.
    std::fs::remove_file(errd.dir.path().join("answer")).unwrap();
    errd.order(&json!({"kind": "disable", "class": "prim"}));
    errd.order(&json!({"kind": "list"}));
    assert_eq!(errd.next("list")["processes"][0]["value"], Value::Null);
}

#[test]
fn a_unit_that_never_starts_is_a_fault_after_its_time() {
    let mut errd = Errd::start(&service(3), 200, true);
    let began = Instant::now();
    errd.order(&json!({"kind": "enable", "class": "prim"}));
    assert_eq!(errd.next("proc")["value"], "down");
    assert!(began.elapsed() >= Duration::from_millis(600));
}

#[test]
fn without_systemd_it_is_said_and_processes_are_watched_all_the_same() {
    if Path::new("/run/systemd/system").exists() {
        return;
    }
    let mut errd = Errd::start(&service(0), 200, false);
    let reason = errd.next("problem")["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("no systemd here") && reason.contains("db@1.service"), "{reason}");
    errd.order(&json!({"kind": "enable", "class": "prim"}));
    errd.order(&json!({"kind": "list"}));
    assert_eq!(errd.next("list")["processes"][0]["value"], Value::Null, "nothing is claimed about it");
}
