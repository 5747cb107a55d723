//! The commands around a module: switches that outlive the runner, resources and their history, levels, logs, explanations.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod node;

use node::{Node, wait_for};
use std::fs;

const PORT: u16 = 18_120;

/// A module that can be served by one node alone.
fn single(directory: &std::path::Path, port: u16, service: &str) -> Node {
    let node = Node::new(directory, "node1", port, service, "", "");
    node.configure();
    node
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn switches_are_set_with_and_without_a_runner_and_outlive_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = single(directory.path(), PORT, "");
    one.ok(&["errd", "off"]);
    one.ok(&["checker", "off"]);
    one.ok(&["failover", "off"]);
    one.ok(&["boot", "on"]);
    assert_eq!(one.ok(&["get", "-r", "usersetting.errd"]), "off\n", "known without a runner");
    assert!(one.log().contains("Action errd off called by"), "{}", one.log());
    one.run();
    for (name, value) in
        [("errd", "off"), ("checker", "off"), ("failover", "off"), ("boot", "on"), ("encryption", "on")]
    {
        assert_eq!(one.ok(&["get", "-r", &format!("usersetting.{name}")]).trim(), value, "{name}");
    }
    one.ok(&["set", "-r", "usersetting.errd", "-v", "on"]);
    one.ok(&["failover", "on"]);
    one.ok(&["checker", "on"]);
    one.ok(&["boot", "off"]);
    one.kill_runner();
    one.run();
    for (name, value) in [("errd", "on"), ("checker", "on"), ("failover", "on"), ("boot", "off")] {
        assert_eq!(one.ok(&["get", "-r", &format!("usersetting.{name}")]).trim(), value, "{name}");
    }
    // Commands of all three are there, whoever carried them out.
    let log = one.log();
    for message in ["Action failover off called by", "Action failover on called by", "Action boot off called by"] {
        assert!(log.contains(message), "{message} in {log}");
    }
}

#[test]
fn boot_says_what_the_command_or_the_attribute_decides() {
    let directory = tempfile::tempdir().unwrap();
    let one = single(directory.path(), PORT + 1, r#"boot="auto""#);
    let status = || one.ok(&["boot", "status"]);
    assert!(status().contains("auto  (configuration)"), "{}", status());
    one.ok(&["boot", "on"]);
    assert!(status().contains("on    (command)"), "{}", status());
    // A configuration with the attribute is newer than the command.
    one.configure();
    assert!(status().contains("auto  (configuration)"), "{}", status());
    let file = one.root.join("etc/modules/m/conf/userconfig.xml");
    let written = fs::read_to_string(&file).unwrap();
    fs::write(&file, written.replace(r#"boot="auto""#, "")).unwrap();
    one.configure();
    assert!(status().contains("off   (default)"), "{}", status());
    one.ok(&["boot", "on"]);
    // Without the attribute the command stays.
    one.configure();
    assert!(status().contains("on    (command)"), "{}", status());
    assert_eq!(one.sk(&["boot", "status", "-m", "absent"]).status.code(), Some(2));
}

#[test]
fn resources_have_a_history_that_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = single(directory.path(), PORT + 2, "");
    one.run();
    let set = |value: &str, more: &[&str]| {
        one.ok(&[&["set", "-r", "custom.x", "-v", value, "-i", "me"], more].concat());
    };
    set("up", &[]);
    set("up", &[]);
    set("down", &["-n"]);
    set("up", &["-n"]);
    set("up", &["-l"]);
    let history = |one: &Node| one.ok(&["history", "-r", "custom.x"]).lines().count();
    assert_eq!(history(&one), 2, "changes, and what was forced: {}", one.ok(&["history", "-r", "custom.x"]));
    let verbose = one.ok(&["state", "-v"]);
    let line = verbose.lines().find(|l| l.starts_with("custom.x ")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("up"), "{line}");
    assert!(line.split_whitespace().nth(2).unwrap().starts_with("20"), "a date: {line}");
    one.kill_runner();
    assert_eq!(one.ok(&["get", "-r", "custom.x"]), "up\n", "kept without a runner");
    assert_eq!(history(&one), 2);
    assert!(one.ok(&["state", "-v"]).contains("custom.x"));
    assert_eq!(one.sk(&["history", "-r", "custom.absent"]).status.code(), Some(1));
    assert!(text(&one.sk(&["set", "-r", "custom.x", "-v", "up"])).contains("is not running"));
}

#[test]
fn the_counter_of_automatic_actions_can_be_asked_and_reset() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = single(directory.path(), PORT + 3, r#"maxloop="2""#);
    one.run();
    assert_eq!(one.sk(&["checkloop"]).status.code(), Some(0));
    assert_eq!(one.sk(&["incloop", "-i", "handler"]).status.code(), Some(0));
    assert_eq!(one.sk(&["incloop", "-i", "handler"]).status.code(), Some(1));
    assert_eq!(one.sk(&["checkloop"]).status.code(), Some(1));
    assert_eq!(one.ok(&["get", "-r", "heart.maxloop"]), "true\n");
    assert!(one.ok(&["history", "-r", "heart.stopstartloop"]).lines().count() >= 2, "each increment");
    one.ok(&["resetloop"]);
    assert_eq!(one.sk(&["checkloop"]).status.code(), Some(0));
}

#[test]
fn operators_see_levels_states_of_the_application_logs_and_commands() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = Node::new(directory.path(), "node1", PORT + 4, "", "", "");
    one.script("state", "echo application is fine");
    one.script("level", "echo application 1.2");
    one.configure();
    one.run();
    let level = one.ok(&["level"]);
    for word in ["Host: ", "OS: ", "SafeKit: ", "License: ", "application 1.2"] {
        assert!(level.contains(word), "{word} in {level}");
    }
    assert!(one.ok(&["state", "-v"]).ends_with("application is fine\n"));
    one.ok(&["prim", "--wait"]);
    one.ok(&["waitstart", "--timeout", "30s"]);
    one.ok(&["update"]);
    one.ok(&["stop"]);
    one.ok(&["waitstop", "--timeout", "30s"]);
    assert_eq!(one.sk(&["waitstart", "--timeout", "5s"]).status.code(), Some(1));
    let saved = one.root.join("saved");
    one.ok(&["logsave", "-A", saved.to_str().unwrap()]);
    assert!(fs::read_to_string(&saved).unwrap().contains("Action prim called by"));
    assert_eq!(one.sk(&["logsave", saved.to_str().unwrap()]).status.code(), Some(1), "an existing file stays");
    assert_eq!(one.sk(&["logsave", "saved"]).status.code(), Some(100));
    let commands = one.ok(&["cmdlog"]);
    assert!(commands.contains("| sk-module | m |") && commands.contains("| START | prim --wait -u "), "{commands}");
    assert!(commands.contains("| END | 0"), "{commands}");
    assert!(!commands.contains("waitstart"), "questions change nothing: {commands}");
}

#[test]
fn a_state_is_explained_now_and_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = single(directory.path(), PORT + 5, "");
    one.run();
    one.ok(&["prim", "--wait"]);
    let words = one.ok(&["explain"]);
    for expected in ["node1: ALONE Ready", "node2 is silent on every network", "start of node2", "asked for prim"] {
        assert!(words.contains(expected), "{expected} in {words}");
    }
    let then = wait_time();
    one.ok(&["stop", "--wait"]);
    let words = one.ok(&["explain"]);
    assert!(words.contains("node1: STOP NotReady") && words.contains("nobody has started it"), "{words}");
    let words = one.ok(&["explain", "--at", &then]);
    assert!(words.contains("node1: ALONE Ready"), "{words}");
    // A reader that goes away is no error.
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            &format!(
                "{} replay {} | true; {0} explain {1} | head -1",
                env!("CARGO_BIN_EXE_sk-module"),
                one.root.join("var/modules/m/journal.jsonl").display()
            ),
        ])
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", text(&output));
    // Anywhere, from the files alone.
    let journal = one.root.join("var/modules/m/journal.jsonl");
    let value: serde_json::Value =
        serde_json::from_str(&one.ok(&["explain", "--json", journal.to_str().unwrap()])).unwrap();
    assert_eq!(value["state"], "STOP");
    assert_eq!(one.sk(&["explain", "-m", "absent"]).status.code(), Some(1));
    assert_eq!(one.sk(&["explain", "--at", "then"]).status.code(), Some(100));
    assert_eq!(one.sk(&["explain", "--at", "2001-01-01 00:00:00"]).status.code(), Some(1));
}

/// This moment, once it lies between two lines of a journal.
fn wait_time() -> String {
    std::thread::sleep(std::time::Duration::from_millis(5));
    let now = wire::time::rfc3339_now();
    std::thread::sleep(std::time::Duration::from_millis(5));
    now
}

#[test]
fn the_runner_reports_a_journal_that_cannot_be_written_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = single(directory.path(), PORT + 6, "");
    // A directory in its place: not even root can write there.
    fs::create_dir_all(one.root.join("var/modules/m/journal.jsonl")).unwrap();
    one.run();
    one.ok(&["prim", "--wait"]);
    assert_eq!(one.state(), "ALONE Ready");
    wait_for("the log tells it", || one.log().contains("journal.jsonl cannot be written"));
    fs::remove_dir(one.root.join("var/modules/m/journal.jsonl")).unwrap();
    one.ok(&["restart", "--wait"]);
    wait_for("the log tells the end", || one.log().contains("The journal is written again"));
    one.ok(&["stop", "--wait"]);
    let journal = one.root.join("var/modules/m/journal.jsonl");
    let output = one.sk(&["replay", "-q", journal.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "inputs are missing, the others are the same: {}", text(&output));
}

#[test]
fn an_interrupted_snapshot_leaves_nothing_under_its_name() {
    use std::os::unix::process::ExitStatusExt as _;
    let directory = tempfile::tempdir().unwrap();
    let one = single(directory.path(), PORT + 9, "");
    let (var, out) = (one.root.join("var/modules/m"), one.root.join("out"));
    fs::create_dir_all(&out).unwrap();
    // Enough to pack for a while.
    let line = "0123456789 abcdefghijklmnopqrstuvwxyz\n".repeat(200_000);
    for name in ["log", "log.1", "resources.jsonl", "journal.jsonl", "journal.1.jsonl"] {
        fs::write(var.join(name), &line).unwrap();
    }
    let target = out.join("snapshot.tar.gz");
    let arguments = ["snapshot", target.to_str().unwrap()];
    let mut child = one.command(&arguments).spawn().unwrap();
    let descriptors = format!("/proc/{}/fd", child.id());
    wait_for("a file in the directory of the snapshot", || {
        let open = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        open.filter_map(|e| fs::read_link(e.path()).ok()).any(|path| path.starts_with(&out))
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert!(!target.exists(), "half a snapshot looks like a whole one");
    one.ok(&arguments);
    let listed = std::process::Command::new("tar").arg("-tzf").arg(&target).output().unwrap();
    assert!(listed.status.success() && text(&listed).contains("/m/journal.1.jsonl"), "{listed:?}");
    // Given again it replaces nothing.
    let again = one.sk(&arguments);
    assert_eq!((again.status.code(), text(&again).contains("exists already")), (Some(1), true), "{again:?}");
}
