//! Does it notice real processes come and go?
#![allow(clippy::unwrap_used)] // Test code that clippy does not recognise as such, since it is in no #[test] function.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(15);

/// A program with a name that no other process has, so that parallel tests do not see each other's.
struct Program {
    dir: tempfile::TempDir,
    name: String,
}

impl Program {
    fn new() -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let name = format!("skt{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        assert!(name.len() <= 15);
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy("/bin/sleep", dir.path().join(&name)).unwrap();
        Self { dir, name }
    }

    fn start(&self, seconds: &str) -> Process {
        Process(Command::new(self.dir.path().join(&self.name)).arg(seconds).spawn().unwrap())
    }

    fn spec(&self, processes: &Value, poll_ms: u64) -> PathBuf {
        let path = self.dir.path().join("errd.json");
        let spec =
            json!({"module": "AM", "node": "node1", "poll_ms": poll_ms, "classes": ["both"], "processes": processes});
        std::fs::write(&path, spec.to_string()).unwrap();
        path
    }
}

struct Process(Child);

impl Process {
    fn kill(&mut self) {
        self.0.kill().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Errd {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<(Instant, Value)>,
    seen: Vec<Value>,
}

impl Errd {
    fn start(spec: &PathBuf) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sk-errd"))
            .args(["run", "--spec"])
            .arg(spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), serde_json::from_str(&line).unwrap())).is_err() {
                    break;
                }
            }
        });
        Self { stdin: child.stdin.take(), child, events, seen: Vec::new() }
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    fn class(&mut self, verb: &str) {
        self.order(&json!({"kind": verb, "class": "prim"}));
    }

    fn next(&mut self) -> (Instant, Value) {
        match self.events.recv_timeout(PATIENCE) {
            Ok((at, event)) => {
                self.seen.push(event.clone());
                (at, event)
            }
            Err(error) => panic!("nothing came ({error}); seen: {:#?}", self.seen),
        }
    }

    fn value(&mut self, expected: &str) -> (Instant, Value) {
        let (at, event) = self.next();
        assert!(event["kind"] == "proc" && event["value"] == expected, "{expected} expected: {event:#}");
        (at, event)
    }

    /// Orders are handled in turn: when `list` is answered, everything before it is done.
    fn list(&mut self) -> Value {
        self.order(&json!({"kind": "list"}));
        let (_, event) = self.next();
        assert_eq!(event["kind"], "list", "{event:#}");
        event
    }
}

impl Drop for Errd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn one(program: &Program) -> Value {
    json!([{"name": program.name, "name_regex": null, "arg_regex": null, "atleast": 1, "atmax": -1, "action": "restart", "class": "prim", "start_after": 0}])
}

#[test]
fn a_killed_process_is_reported_within_milliseconds() {
    let program = Program::new();
    // With this period nothing but the descriptor can tell in time.
    let mut errd = Errd::start(&program.spec(&one(&program), 600_000));
    let mut times = Vec::new();
    for _ in 0..20 {
        let mut process = program.start("600");
        errd.class("enable");
        let (_, up) = errd.value("up");
        assert_eq!(up["pids"], json!([process.0.id()]));
        let killed = Instant::now();
        process.kill();
        let (at, down) = errd.value("down");
        times.push(at - killed);
        assert_eq!(down["reason"], format!("Process {} not running", program.name));
        assert_eq!((&down["action"], &down["running"], &down["node"]), (&json!("restart"), &json!(0), &json!("node1")));
        errd.class("disable");
        // Else what is started next may still be reported to the former enabling.
        errd.list();
    }
    times.sort();
    println!("detection of kill -9: median {:?}, worst {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(500), "{times:?}");
}

#[test]
fn a_restarted_process_is_up_again_and_a_missing_one_gets_until_the_first_check() {
    let program = Program::new();
    let mut errd = Errd::start(&program.spec(&one(&program), 1000));
    let enabled = Instant::now();
    errd.class("enable");
    let (at, _) = errd.value("down");
    assert!(at - enabled >= Duration::from_secs(1), "{:?}", at - enabled);
    let mut process = program.start("600");
    errd.value("up");
    process.kill();
    errd.value("down");
    let _again = program.start("600");
    errd.value("up");
    assert_eq!(errd.list()["processes"][0]["running"], 1);
}

#[test]
fn enough_of_many_is_enough_and_too_many_are_too_many() {
    let program = Program::new();
    let mut processes = one(&program);
    processes[0]["atleast"] = 2.into();
    processes[0]["atmax"] = 3.into();
    let (mut a, mut b, c) = (program.start("600"), program.start("600"), program.start("600"));
    let mut errd = Errd::start(&program.spec(&processes, 200));
    errd.class("enable");
    assert_eq!(errd.value("up").1["running"], 3);
    let d = program.start("600");
    assert_eq!(errd.value("down").1["running"], 4);
    a.kill();
    assert_eq!(errd.value("up").1["running"], 3);
    b.kill();
    drop(c);
    let (_, down) = errd.value("down");
    assert_eq!((&down["running"], &down["pids"]), (&json!(1), &json!([d.0.id()])));
}

#[test]
fn an_appearance_is_noticed_at_once_where_the_kernel_tells() {
    // The kernel's own first thread is visible in the first process namespace only, and lives in the first network namespace.
    let network = |process| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let first = std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n");
    if !first || network("self") != network("2") {
        eprintln!("skipped: the kernel tells about processes in the first network namespace only");
        return;
    }
    let program = Program::new();
    let mut processes = one(&program);
    processes[0]["atleast"] = (-1).into();
    processes[0]["atmax"] = 0.into();
    // What must not run does not run: there are no fast scans, and the next slow one is far away.
    let mut errd = Errd::start(&program.spec(&processes, 600_000));
    errd.class("enable");
    errd.value("up");
    let begun = Instant::now();
    let mut process = program.start("600");
    let (at, down) = errd.value("down");
    println!("detection of an appearance: {:?}", at - begun);
    assert!(down["reason"].as_str().unwrap().contains("at most 0"), "{down}");
    process.kill();
}

#[test]
fn expressions_select_and_classes_switch() {
    let program = Program::new();
    let processes = json!([
        {"name": "by_name_regex", "name_regex": format!("^{}$", program.name), "action": "stop", "class": "both"},
        {"name": program.name, "arg_regex": " 60[1]$", "action": "noaction", "class": "prim"},
    ]);
    let (_other, mut meant) = (program.start("600"), program.start("601"));
    let mut errd = Errd::start(&program.spec(&processes, 300));
    let (_, first) = errd.value("up");
    assert_eq!((&first["name"], &first["running"]), (&json!("by_name_regex"), &json!(2)));
    errd.class("enable");
    let (_, second) = errd.value("up");
    assert_eq!(second["pids"], json!([meant.0.id()]));
    errd.order(&json!({"kind": "off"}));
    let list = errd.list();
    assert_eq!((&list["off"], &list["processes"][1]["enabled"]), (&json!(true), &json!(false)));
    meant.kill();
    errd.class("disable");
    errd.order(&json!({"kind": "on"}));
    assert_eq!(errd.value("up").1["name"], "by_name_regex");
    errd.class("enable");
    assert_eq!(errd.value("down").1["action"], "noaction");
}

#[test]
fn it_ends_with_its_stdin_and_by_order() {
    let program = Program::new();
    for quit in [false, true] {
        let mut errd = Errd::start(&program.spec(&one(&program), 1000));
        errd.order(&json!({"kind": "unknown"}));
        errd.order(&json!([1]));
        assert_eq!(errd.list()["classes"], json!(["both"]));
        if quit {
            errd.order(&json!({"kind": "quit"}));
        } else {
            errd.stdin = None;
        }
        assert!(errd.child.wait().unwrap().success());
    }
}

#[test]
fn the_one_shot_list_finds_and_says_so() {
    let program = Program::new();
    let process = program.start("777");
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sk-errd")).arg("list").args(words).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(&["--name", &program.name, "--arg-regex", "777", "--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["pid"]), (0, &json!(process.0.id())));
    let (code, text) = run(&["--name-regex", &program.name]);
    assert!(code == 0 && text.contains("PID") && text.contains(" 777\n"), "{text}");
    assert_eq!(run(&["--name", &program.name, "--arg-regex", "778"]), (1, String::new()));
    assert_eq!(run(&["--arg-regex", "("]).0, 100);
    assert_eq!(run(&["--nonsense"]).0, 100);
}

#[test]
fn a_wrong_specification_is_refused() {
    let program = Program::new();
    let mut processes = one(&program);
    processes[0]["arg_regex"] = "(".into();
    let output = Command::new(env!("CARGO_BIN_EXE_sk-errd"))
        .args(["run", "--spec"])
        .arg(program.spec(&processes, 1000))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && words.contains(&program.name) && words.contains("`(`"), "{words}");
}
