//! Does the real binary see real sockets, echoes, addresses, servers and executables, and leave nothing behind?
#![allow(clippy::unwrap_used)] // Test code that clippy does not recognise as such, since it is in no #[test] function.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(checkers: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spec = directory.path().join("spec.json");
        std::fs::write(&spec, json!({"module": "m", "node": "n", "checkers": checkers}).to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sk-check"))
            .args(["run", "--spec"])
            .arg(&spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap_or_default()).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, _directory: directory }
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    /// The next line of this kind about this resource.
    fn next(&self, kind: &str, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {kind} of {name}"));
            if line["kind"] == kind && line["name"] == name {
                return line;
            }
        }
    }

    fn value(&self, name: &str) -> String {
        self.next("check", name)["value"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn script(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_port_is_seen_to_open_and_to_close_and_only_while_its_class_is_enabled() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = |name: &str, class: &str, host: &str| json!({"kind": "tcp", "name": name, "class": class, "host": host, "port": port, "interval_ms": 200, "timeout_ms": 2000});
    let mut run = Running::start(&json!([tcp("tcp.web", "prim", "127.0.0.1"), tcp("tcp.name", "pre", "localhost")]));
    run.order(&json!({"kind": "enable", "class": "prim", "life": 3}));
    let line = run.next("check", "tcp.web");
    assert_eq!((&line["value"], &line["life"]), (&json!("up"), &json!(3)));
    run.order(&json!({"kind": "enable", "class": "pre", "life": 1}));
    assert_eq!(run.value("tcp.name"), "up", "names are resolved");
    drop(listener);
    let line = run.next("check", "tcp.web");
    assert_eq!((&line["value"], &line["reason"]), (&json!("down"), &json!("connection refused")));
    let again = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_eq!(run.value("tcp.web"), "up");
    run.order(&json!({"kind": "disable", "class": "prim"}));
    drop(again);
    run.order(&json!({"kind": "list"}));
    let list = loop {
        let line = run.lines.recv_timeout(PATIENCE).unwrap();
        if line["kind"] == "list" {
            break line;
        }
    };
    assert_eq!(list["classes"], json!(["pre"]));
    assert_eq!(list["checkers"][0]["value"], Value::Null);
}

#[test]
fn what_was_never_up_is_down_after_its_grace_only() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tcp = |name: &str, class: &str| json!({"kind": "tcp", "name": name, "class": class, "host": "127.0.0.1", "port": closed, "interval_ms": 2000, "timeout_ms": 500});
    let mut run = Running::start(&json!([tcp("tcp.app", "prim"), tcp("tcp.outside", "pre")]));
    let began = Instant::now();
    run.order(&json!({"kind": "enable", "class": "prim", "life": 1}));
    run.order(&json!({"kind": "enable", "class": "pre", "life": 2}));
    assert_eq!(run.value("tcp.outside"), "down");
    assert_eq!(run.value("tcp.app"), "down");
    assert!(began.elapsed() >= Duration::from_millis(1_950));
}

#[test]
fn own_addresses_and_links_are_known() {
    let mut run = Running::start(&json!([
        {"kind": "ip", "name": "ip.here", "class": "prim", "address": "127.0.0.1", "interval_ms": 500},
        {"kind": "ip", "name": "ip.there", "class": "prim", "address": "198.51.100.77", "interval_ms": 500},
        {"kind": "intf", "name": "intf.lo", "class": "prim", "address": "127.0.0.1"},
    ]));
    run.order(&json!({"kind": "enable", "class": "prim", "life": 1}));
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 3 {
        let line = run.lines.recv_timeout(PATIENCE).unwrap();
        seen.insert(line["name"].as_str().unwrap_or_default().to_owned(), line["value"].clone());
    }
    assert_eq!((&seen["ip.here"], &seen["ip.there"], &seen["intf.lo"]), (&json!("up"), &json!("down"), &json!("up")));
}

#[test]
fn another_module_is_asked_and_its_restart_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (say, said) = channel::<(u16, &'static str)>();
    std::thread::spawn(move || {
        let mut answer = (200, r#"{"state":"ALONE","readiness":"Ready","application":"1.1"}"#);
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 1024];
            let _ = stream.read(&mut head);
            for next in said.try_iter() {
                answer = next;
            }
            let (code, body) = answer;
            let _ = write!(stream, "HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    let mut run = Running::start(&json!([{"kind": "module", "name": "module.db", "class": "pre", "module": "db",
        "host": "127.0.0.1", "port": port, "interval_ms": 100, "timeout_ms": 5000}]));
    run.order(&json!({"kind": "enable", "class": "pre", "life": 1}));
    assert_eq!(run.value("module.db"), "up");
    say.send((200, r#"{"state":"ALONE","readiness":"Ready","application":"1.2"}"#)).unwrap();
    run.next("restarted", "module.db");
    say.send((200, r#"{"state":"WAIT","readiness":"NotReady","application":"1.2"}"#)).unwrap();
    assert_eq!(run.next("check", "module.db")["reason"], "module db is WAIT NotReady there");
    say.send((200, r#"{"state":"UP","readiness":"Ready","application":"2.1"}"#)).unwrap();
    assert_eq!(run.next("check", "module.db")["value"], "up");
    run.order(&json!({"kind": "list"}));
    let mut after = Vec::new();
    loop {
        let line = run.lines.recv_timeout(PATIENCE).unwrap();
        if line["kind"] == "list" {
            break;
        }
        after.push(line);
    }
    assert!(after.is_empty(), "a new life after being down is no restart: {after:?}");
    say.send((404, "")).unwrap();
    assert_eq!(run.value("module.db"), "down");
}

#[test]
fn custom_checkers_are_kept_alive_and_end_with_everything_they_started() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let loops = script(directory.path(), "loops", &format!("sleep 1000 &\necho $$ $! >> {}\nwait", pids.display()));
    let stubborn = script(directory.path(), "stubborn", "trap '' TERM\nwhile :; do sleep 0.1; done");
    let ends = script(directory.path(), "ends", "echo \"$@\" $WORD; exit 3");
    let output = directory.path().join("output");
    let mut run = Running::start(&json!([
        {"kind": "custom", "name": "custom.loops", "class": "prim", "argv": [loops, "m", "custom.loops"]},
        {"kind": "custom", "name": "custom.stubborn", "class": "both", "argv": [stubborn]},
        {"kind": "custom", "name": "custom.ends", "class": "pre", "argv": [ends, "m", "custom.ends", "a b"],
            "environment": {"WORD": "word"}, "output": output},
        {"kind": "custom", "name": "custom.missing", "class": "pre", "argv": ["/nonexistent/checker"]},
    ]));
    run.order(&json!({"kind": "enable", "class": "pre", "life": 1}));
    let failed = run.next("custom", "custom.missing");
    assert_eq!((&failed["state"], &failed["again_in_ms"]), (&json!("failed"), &json!(1000)));
    assert!(failed["how"].as_str().unwrap().contains("/nonexistent/checker"));
    run.order(&json!({"kind": "disable", "class": "pre"}));
    run.order(&json!({"kind": "enable", "class": "pre", "life": 2}));
    let second = |run: &Running| loop {
        let line = run.next("custom", "custom.ends");
        if line["life"] == 2 {
            return line;
        }
    };
    assert_eq!(second(&run)["state"], "started");
    let ended = second(&run);
    assert_eq!((&ended["state"], &ended["how"]), (&json!("ended"), &json!("exit 3")));
    assert_eq!(second(&run)["state"], "started", "again");
    assert!(std::fs::read_to_string(&output).unwrap().contains("m custom.ends a b word\n"));
    run.order(&json!({"kind": "disable", "class": "pre"}));

    run.order(&json!({"kind": "enable", "class": "prim", "life": 3}));
    run.order(&json!({"kind": "enable", "class": "both", "life": 4}));
    let one = i32::try_from(run.next("custom", "custom.loops")["pid"].as_i64().unwrap()).unwrap();
    let hard = i32::try_from(run.next("custom", "custom.stubborn")["pid"].as_i64().unwrap()).unwrap();
    wait("the checker runs", || std::fs::read_to_string(&pids).is_ok_and(|t| t.lines().count() == 1));
    // A new life at once: the old process is gone before the new one starts.
    run.order(&json!({"kind": "enable", "class": "prim", "life": 5}));
    let two = i32::try_from(run.next("custom", "custom.loops")["pid"].as_i64().unwrap()).unwrap();
    assert_ne!(one, two);
    assert!(!alive(one));
    wait("the new one runs", || std::fs::read_to_string(&pids).is_ok_and(|t| t.lines().count() == 2));
    assert!(alive(hard));
    drop(run);
    let all: Vec<i32> =
        std::fs::read_to_string(&pids).unwrap().split_whitespace().map(|p| p.parse().unwrap()).collect();
    assert_eq!(all.len(), 4);
    for pid in all.into_iter().chain([hard]) {
        wait("everything ends", || !alive(pid));
    }
}

#[test]
fn one_shots_answer_with_exit_codes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_sk-check")).args(args).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let open = format!("127.0.0.1:{port}");
    assert_eq!(run(&["tcp", &open]), (Some(0), format!("tcp {open} up\n"), String::new()));
    let (code, out, err) = run(&["tcp", &format!("127.0.0.1:{closed}"), "--json"]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &line["value"], &line["reason"]), (Some(1), &json!("down"), &json!("connection refused")));
    assert!(err.contains("connection refused"));
    assert_eq!(run(&["ip", "127.0.0.1"]).0, Some(0));
    assert_eq!(run(&["ip", "198.51.100.77"]).0, Some(1));
    assert_eq!(run(&["intf", "lo"]).0, Some(0));
    assert_eq!(run(&["intf", "127.0.0.1"]).0, Some(0));
    assert_eq!(run(&["intf", "no-such-0"]).0, Some(1));
    assert_eq!(run(&["module", "x", "--at", &format!("127.0.0.1:{closed}")]).0, Some(1));
    assert_eq!(run(&["tcp", "no port"]).0, Some(100));
    assert_eq!(run(&["tcp", "x:1", "--timeout", "0s"]).0, Some(100));
    assert_eq!(run(&["run", "--spec", "/nonexistent"]).0, Some(1));
    // A server that accepts and says nothing.
    let began = Instant::now();
    let (code, _, err) = run(&["module", "x", "--at", &open, "--timeout", "300ms"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("no answer within 300 ms") && began.elapsed() >= Duration::from_millis(300), "{err}");
}

#[test]
fn echoes_are_answered_by_this_host() {
    for host in ["127.0.0.1", "::1"] {
        let out = Command::new(env!("CARGO_BIN_EXE_sk-check")).args(["ping", host]).output().unwrap();
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        if words.contains("ICMP socket") || (host == "::1" && !Path::new("/proc/net/if_inet6").exists()) {
            // Not permitted here, and said so.
            assert!(matches!(out.status.code(), Some(1 | 111)));
            continue;
        }
        assert_eq!(out.status.code(), Some(0), "{host}: {words}");
    }
    // Class E: nobody answers, and most kernels refuse to send.
    let out = Command::new(env!("CARGO_BIN_EXE_sk-check"))
        .args(["ping", "240.0.0.1", "--timeout", "300ms"])
        .output()
        .unwrap();
    assert!(matches!(out.status.code(), Some(1 | 111)));
}

#[test]
fn a_host_without_descriptors_says_nothing_about_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut run = Running::start(&json!([{"kind": "tcp", "name": "tcp.web", "class": "pre", "host": "127.0.0.1",
        "port": port, "interval_ms": 50, "timeout_ms": 2000}]));
    run.order(&json!({"kind": "enable", "class": "pre", "life": 1}));
    assert_eq!(run.value("tcp.web"), "up");
    let limit = |files: &str| {
        let pid = run.child.id().to_string();
        Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:4096")]).status().unwrap();
    };
    limit("3");
    std::thread::sleep(Duration::from_millis(800));
    limit("4096");
    run.order(&json!({"kind": "list"}));
    loop {
        let line = run.lines.recv_timeout(PATIENCE).unwrap();
        if line["kind"] == "list" {
            assert_eq!(line["checkers"][0]["value"], "up");
            return;
        }
        assert_ne!(line["value"], "down", "{line}");
    }
}
