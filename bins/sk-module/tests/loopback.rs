//! Two runners on this machine's loopback addresses, with real heartbeats and scripts; no replication, no virtual address.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on has failed

mod node;

use node::{Node, pair, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[test]
fn scripts_run_in_the_documented_order_with_arguments_and_environment() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = pair(directory.path(), 18_101, "", "");
    one.script("start_prim", &format!("env >{}", one.root.join("env").display()));
    // Edited, not applied: the running module keeps what was applied.
    one.ok(&["prim", "--wait"]);
    one.wait("ALONE Ready");
    assert!(!one.root.join("env").exists());
    two.ok(&["start", "--wait"]);
    one.wait("PRIM Ready");
    two.wait("SECOND Ready");
    assert_eq!(
        one.calls(),
        [
            "transition STOP WAIT start",
            "prestart STOP WAIT start",
            "transition WAIT ALONE start",
            "start_prim WAIT ALONE start",
            "transition ALONE PRIM start"
        ]
    );
    two.forget_calls();
    one.forget_calls();
    one.ok(&["stop", "--wait"]);
    two.wait("ALONE Ready");
    assert_eq!(
        two.calls(),
        ["stop_second SECOND ALONE start", "transition SECOND ALONE start", "start_prim SECOND ALONE start"]
    );
    let stopped = one.calls();
    assert_eq!(stopped.first().map(String::as_str), Some("stop_prim PRIM WAIT stop"));
    assert!(stopped.iter().any(|c| c.starts_with("stop_prim force")), "{stopped:?}");
    assert!(two.log().contains("Action alone called by heart: remote stop"), "{}", two.log());

    one.configure();
    one.ok(&["prim"]);
    wait_for("prim is refused while the peer serves", || one.log().contains("Requested prim start aborted"));
    one.wait("STOP NotReady");
    two.ok(&["stop", "--wait"]);
    one.ok(&["prim", "--wait"]);
    let environment = fs::read_to_string(one.root.join("env")).unwrap();
    for line in ["SAFEMODULE=m", "WORD=two words", &format!("SAFEVAR={}", one.root.join("var").display())] {
        assert!(environment.lines().any(|l| l == line), "{line} in {environment}");
    }
    let userlog = fs::read_dir(one.root.join("var/modules/m"))
        .unwrap()
        .flatten()
        .find(|e| e.file_name().to_string_lossy().ends_with("_start_prim.ulog"))
        .expect("an output file");
    let first = fs::read_to_string(userlog.path()).unwrap();
    assert!(first.starts_with("----------- 20") && first.lines().next().unwrap().ends_with(" start_prim"), "{first}");
    one.ok(&["stop", "--wait"]);
    // The decisions are taken again, bit for bit.
    for node in [&one, &two] {
        let journal = node.root.join("var/modules/m/journal.jsonl");
        let verdict = node.ok(&["replay", "--quiet", journal.to_str().unwrap()]);
        assert!(verdict.contains(" decided the same, 0 could not be replayed"), "{verdict}");
    }
}

#[test]
fn a_dead_runner_is_a_failover_and_its_successor_joins() {
    let directory = tempfile::tempdir().unwrap();
    let (mut one, two) = pair(directory.path(), 18_102, "", "");
    one.ok(&["prim", "--wait"]);
    two.ok(&["start", "--wait"]);
    one.wait("PRIM Ready");
    two.wait("SECOND Ready");
    one.kill_runner();
    two.wait("ALONE Ready");
    // The carrier there reports the death, unless its own end was nearer: then silence does.
    let evident = ["remote runner dead", "no heartbeat"];
    let known = |why: &&str| two.log().contains(&format!("Action alone called by heart: {why}"));
    assert!(evident.iter().any(known), "{}", two.log());
    // It was wanted: it starts by itself.
    one.run();
    one.wait("SECOND Ready");
    two.wait("PRIM Ready");
    two.ok(&["swap", "--wait"]);
    one.wait("PRIM Ready");
    two.wait("SECOND Ready");
    for node in [&two, &one] {
        node.ok(&["stop", "--wait"]);
    }
}

#[test]
fn a_hanging_stop_script_is_killed_and_the_forced_one_follows() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = Node::new(directory.path(), "node1", 18_103, "", r#"nicestoptimeout="1s" forcestoptimeout="1s""#, "");
    one.script("stop_prim", "[ \"$1\" = force ] || sleep 1000");
    one.configure();
    one.run();
    one.ok(&["prim", "--wait"]);
    one.forget_calls();
    let begun = Instant::now();
    one.ok(&["stop", "--wait"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(one.state(), "STOP NotReady");
    assert!(one.log().contains("Script stop_prim did not end in time and was killed"), "{}", one.log());
    assert!(one.calls().iter().any(|c| c.starts_with("stop_prim force")), "{:?}", one.calls());
}

#[test]
fn forcestop_ends_a_hanging_start_script() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = Node::new(directory.path(), "node1", 18_106, "", "", "");
    one.script("start_prim", "sleep 1000");
    one.configure();
    one.run();
    one.ok(&["prim"]);
    wait_for("start_prim runs", || one.calls().iter().any(|c| c.starts_with("start_prim")));
    one.ok(&["forcestop", "--wait"]);
    assert_eq!(one.state(), "STOP NotReady");
    assert!(one.log().contains("Script start_prim was killed by forcestop"), "{}", one.log());
}

#[test]
fn who_was_told_that_it_stopped_does_not_read_that_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = Node::new(directory.path(), "node1", 18_115, "", "", "");
    one.configure();
    one.run();
    let published = || {
        let text = fs::read(one.root.join("run/m/state.json")).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        value["state"].as_str().unwrap().to_owned()
    };
    for _ in 0..5 {
        one.ok(&["prim", "--wait"]);
        assert_eq!(published(), "ALONE");
        one.ok(&["stop", "--wait"]);
        assert_eq!(published(), "STOP");
    }
}

#[test]
fn errd_restarts_the_application_and_maxloop_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let marker = format!("sk-loop-{}", std::process::id());
    let errd = format!(
        r#"<errd polltimer="1"><proc name="sleep" argregex=".*sleep 987{}.*" class="prim" action="restart"/></errd>"#,
        std::process::id()
    );
    let mut one = Node::new(directory.path(), "node1", 18_104, r#"maxloop="2""#, "", &errd);
    let pid = one.root.join("pid");
    one.script(
        "start_prim",
        &format!("setsid sleep 987{} >/dev/null 2>&1 & echo $! >{}", std::process::id(), pid.display()),
    );
    one.script("stop_prim", &format!("kill $(cat {}) 2>/dev/null; true # {marker}", pid.display()));
    one.configure();
    one.run();
    one.ok(&["prim", "--wait"]);
    for round in 1..=3 {
        // The process is seen before it is killed: its class is watched.
        wait_for("errd sees the process", || one.sk(&["get", "-r", "proc.sleep"]).stdout.starts_with(b"up"));
        let before = one.calls().iter().filter(|c| c.starts_with("start_prim")).count();
        let victim: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), nix::sys::signal::Signal::SIGKILL).unwrap();
        if round <= 2 {
            wait_for("restarted", || one.calls().iter().filter(|c| c.starts_with("start_prim")).count() > before);
            one.wait("ALONE Ready");
        }
    }
    one.wait("STOP NotReady");
    let log = one.log();
    for message in ["Process sleep not running", "Action restart called by errd", "Action stop called by maxloop"] {
        assert!(log.contains(message), "{message} in {log}");
    }
}

#[test]
fn bad_input_is_one_clear_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let one = Node::new(directory.path(), "node1", 18_105, "", "", "");
    let refused = |args: &[&str], code: i32, words: &str| {
        let output = one.sk(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {words:?} in {text}");
    };
    refused(&["start", "-m", "absent"], 2, "no applied configuration");
    refused(&["stop", "-m", "a/b"], 100, "no module name");
    refused(&["swap"], 3, "is not running");
    refused(&["config", "-m", "absent"], 2, "is missing");
    fs::set_permissions(one.root.join("etc/modules/m/bin/start_prim"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&["config"], 2, "not executable");
    one.script("start_prim", "");
    fs::write(one.root.join("etc/cluster.key"), "abc").unwrap();
    refused(&["config"], 2, "cluster.key");
    fs::write(one.root.join("etc/cluster.key"), "ab".repeat(32)).unwrap();
    one.configure();
    let file = one.root.join("etc/modules/m/conf/userconfig.xml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("pulse=", "puls=")).unwrap();
    refused(&["config"], 2, "puls");
    refused(&["check", file.to_str().unwrap()], 2, "puls");
    assert!(!one.root.join("var/modules/m/active.new").exists(), "nothing is half applied");
    refused(&["plan", "PRIM", "PRIM", "--action", "fly"], 100, "unknown action");
    assert!(one.ok(&["plan", "PRIM", "ALONE", "--action", "start"]).contains("transition PRIM ALONE start"));
}
