//! Does a person learn what happened: once, together, also after failures, and without the modules noticing?
#![allow(clippy::unwrap_used)] // a test may panic

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_mins(1);

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in ["etc", "var/modules/db/active/bin", "run/db", "run/web"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("run/web/control"), "").unwrap();
        std::fs::write(dir.path().join("run/db/state.json"), r#"{"node":"node1"}"#).unwrap();
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Written by another process: a file this process still has open for writing in a forked child cannot be run.
    fn script(&self, path: &str, text: &str) {
        let shell = "printf '%s\\n' '#!/bin/sh' \"$1\" > \"$2.new\" && chmod 755 \"$2.new\" && mv \"$2.new\" \"$2\"";
        let mut command = Command::new("sh");
        assert!(command.args(["-c", shell, "sh", text]).arg(self.path(path)).status().unwrap().success());
    }

    fn says(&self, module: &str, event: &Value) {
        let path = self.path(&format!("run/{module}/events.jsonl"));
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{event}\n").as_bytes()).unwrap();
    }

    fn state(&self, module: &str, state: &str) {
        self.says(module, &json!({"t": "2026-11-20T10:00:00Z", "kind": "state", "state": state, "readiness": "Ready"}));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-notify"));
        for (name, directory) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run")] {
            command.env(name, self.path(directory));
        }
        command.args(arguments);
        command
    }

    /// Starts `run`, and waits until it follows.
    fn run(&self, arguments: &[&str]) -> Notifier {
        let mut command = self.command(&["run", "--gather", "300ms", "--pause", "200ms"]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert!(line.contains("following"), "{line}");
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
        Notifier { child }
    }

    /// Waits until the file has this many lines, and gives them.
    fn lines(&self, path: &str, count: usize) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.path(path)).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count && text.ends_with('\n') {
                return lines;
            }
            assert!(Instant::now() < end, "{path} has {lines:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Notifier {
    child: Child,
}

impl Notifier {
    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line for each call: subject and attempt.
fn noting(file: &Path) -> String {
    format!("cat >> {0}.events; echo \"$SK_SUBJECT|$SK_ATTEMPT\" >> {0}", file.display())
}

#[test]
fn events_are_told_together_and_after_a_restart_only_the_new_ones() {
    let node = Node::new();
    node.state("db", "OLD");
    node.script("etc/notification", &noting(&node.path("told")));
    node.script("var/modules/db/active/bin/notification", &noting(&node.path("told-db")));
    let notifier = node.run(&[]);
    node.state("db", "WAIT");
    node.state("db", "ALONE");
    node.state("web", "UP");
    node.says("db", &json!({"t": "t", "kind": "log", "level": "I", "from": "x", "message": "not worth telling"}));
    let events = node.lines("told.events", 3);
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(!events.concat().contains("OLD"), "what happened before the first start is old news");
    let last = node.lines("told", 1).last().unwrap().clone();
    assert!(last.starts_with("node1: ") && last.contains("web UP Ready"), "{last}");
    assert_eq!(node.lines("told-db.events", 2).len(), 2, "a module's own script gets its events only");
    // All is told, so the place is kept.
    node.lines("told-db", 1);
    let marks = || std::fs::read_to_string(node.path("var/notify.json")).unwrap_or_default();
    let size = std::fs::metadata(node.path("run/db/events.jsonl")).unwrap().len();
    let end = Instant::now() + PATIENCE;
    while !marks().contains(&format!("\"offset\":{size}")) {
        assert!(Instant::now() < end, "{}", marks());
        std::thread::sleep(Duration::from_millis(10));
    }
    notifier.end();
    node.state("db", "PRIM");
    let _notifier = node.run(&[]);
    let events = node.lines("told.events", 4);
    assert_eq!(events.len(), 4);
    assert!(events[3].contains("PRIM"), "{events:?}");
}

#[test]
fn failures_and_hanging_scripts_are_repeated() {
    let node = Node::new();
    // The first call hangs, the second fails, the third succeeds.
    let told = node.path("told");
    let script = format!("case $SK_ATTEMPT in 1) sleep 1000 ;; 2) exit 1 ;; esac\n{}", noting(&told));
    node.script("etc/notification", &script);
    let _notifier = node.run(&["--limit", "300ms", "--attempts", "3"]);
    node.state("db", "ALONE");
    let told = node.lines("told", 1);
    assert_eq!(told, ["node1: db ALONE Ready|3"]);
    assert_eq!(node.lines("told.events", 1).len(), 1);
}

#[test]
fn a_test_says_whether_the_script_works() {
    let node = Node::new();
    let test = |limit: &str| node.command(&["test", "--limit", limit]).output().unwrap();
    let output = test("10s");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("no executable file"), "{words}");
    node.script("etc/notification", &noting(&node.path("told")));
    assert!(test("30s").status.success());
    assert_eq!(node.lines("told", 1), ["node1: test|1"]);
    node.script("etc/notification", "exit 3");
    assert_eq!(test("30s").status.code(), Some(1));
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/notify").join(name)
}

fn copy_example(node: &Node, name: &str) {
    let target = node.path("etc/notification");
    let mut command = Command::new("install");
    assert!(command.args(["-m", "755"]).arg(example(name)).arg(target).status().unwrap().success());
}

#[test]
fn the_webhook_example_posts_json() {
    let node = Node::new();
    copy_example(&node, "webhook");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            head.push_str(&line);
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        (head, serde_json::from_slice::<Value>(&body).unwrap())
    });
    let output = node.command(&["test"]).env("SK_WEBHOOK_URL", &url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (head, body) = server.join().unwrap();
    assert!(head.starts_with("POST /hook"), "{head}");
    assert_eq!(body["text"], "node1: test");
    assert_eq!(body["events"][0]["from"], "sk-notify");
    // Nobody listens any more: a failure, so that it is called again.
    assert_eq!(node.command(&["test"]).env("SK_WEBHOOK_URL", &url).output().unwrap().status.code(), Some(1));
}

#[test]
fn the_mail_example_writes_a_mail() {
    let node = Node::new();
    copy_example(&node, "mail");
    node.script(
        "sendmail",
        &format!("cat > {}; echo \"$@\" > {}", node.path("mail").display(), node.path("to").display()),
    );
    let mut command = node.command(&["test"]);
    command.env("SENDMAIL", node.path("sendmail")).env("SK_MAIL_TO", "ops@example.org, root");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mail = std::fs::read_to_string(node.path("mail")).unwrap();
    assert!(mail.contains("\nSubject: [sk] node1: test\n"), "{mail}");
    assert!(mail.contains("To: ops@example.org, root\n") && mail.contains("This is a test"), "{mail}");
}
