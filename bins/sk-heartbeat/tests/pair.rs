//! Do two heartbeats find each other, tell each other the truth, and notice each other's end?

mod support;

use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Node, PATIENCE, PORT, PULSE, Pair, TIMEOUT, kinds};
use sys::pidfd::PidFd;
use wire::ClusterKey;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Gives the child a duplicate of `fd` under the number 3.
fn with_descriptor_3<'a>(command: &'a mut Command, fd: &impl AsRawFd) -> &'a mut Command {
    let fd = fd.as_raw_fd();
    // SAFETY: dup2 and fcntl are async-signal-safe; `fd` stays open in the parent until after the spawn.
    unsafe {
        command.pre_exec(move || {
            // dup2 onto itself would leave close-on-exec set.
            let done = if fd == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(fd, 3) };
            if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        })
    }
}

#[test]
fn states_cross_and_a_farewell_is_heard() {
    let pair = Pair::new();
    let (mut a, mut b) = (pair.start(1, 2), pair.start(2, 2));
    a.expect("address", |e| e["kind"] == "local_address" && e["ident"] == "link1" && e["present"] == true);
    a.publish("WAIT");
    b.publish("ALONE");
    a.expect_state("ALONE", false);
    let event = b.expect_state("WAIT", false);
    assert_eq!(event["module"], "AM");
    assert_eq!(event["node"], "node2");
    b.expect("second link", |e| e["kind"] == "link_up" && e["ident"] == "link1");
    assert_eq!(kinds(&a.seen).iter().filter(|k| **k == "peer_up").count(), 1);
    a.publish("SECOND");
    let again = b.expect_state("SECOND", false);
    assert_eq!(again["incarnation"], event["incarnation"]);
    a.order(&json!({"kind": "bye"}));
    a.expect_kind("done");
    b.expect_state("SECOND", true);
    b.expect_kind("peer_down");
    a.publish("WAIT");
    b.expect_kind("peer_up");
    b.expect_state("WAIT", false);
}

#[test]
fn a_killed_peer_is_down_after_the_timeout_and_not_before() {
    let pair = Pair::new();
    let (mut a, mut b) = (pair.start(1, 2), pair.start(2, 2));
    a.publish("PRIM");
    b.publish("SECOND");
    b.expect_state("PRIM", false);
    b.expect("second link", |e| e["kind"] == "link_up" && e["ident"] == "link1");
    let killed = Instant::now();
    a.kill();
    b.expect_kind("peer_down");
    let took = killed.elapsed();
    // The last packet was sent up to one pulse before. The upper bound leaves room for a loaded test machine.
    assert!(took >= ms(TIMEOUT - 2 * PULSE), "{took:?}");
    assert!(took <= ms(2 * TIMEOUT), "{took:?}");
    assert_eq!(kinds(&b.seen).iter().filter(|k| **k == "link_down").count(), 2);
    // Back again.
    let mut a = pair.start(1, 2);
    a.publish("WAIT");
    b.expect_kind("peer_up");
    b.expect_state("WAIT", false);
}

#[test]
fn a_restart_within_the_timeout_is_another_incarnation_and_no_failure() {
    let pair = Pair::new();
    let (mut a, mut b) = (pair.start(1, 1), pair.start(2, 1));
    a.publish("PRIM");
    b.publish("SECOND");
    let before = b.expect_state("PRIM", false);
    a.kill();
    let mut a = pair.start(1, 1);
    a.publish("PRIM");
    let after = b.expect_state("PRIM", false);
    assert_ne!(before["incarnation"], after["incarnation"]);
    assert_eq!(kinds(&b.listen(ms(2 * TIMEOUT))), [""; 0]);
    assert!(!kinds(&b.seen).contains(&"peer_down"));
}

#[test]
fn a_silent_peer_is_reported_down_once() {
    let pair = Pair::new();
    let mut a = pair.start(1, 1);
    a.publish("WAIT");
    a.expect_kind("peer_down");
    assert_eq!(kinds(&a.listen(ms(2 * TIMEOUT))), [""; 0]);
}

#[test]
fn another_key_is_reported_rarely_and_never_believed() {
    let pair = Pair::new();
    let foreign = pair.dir.path().join("foreign.key");
    ClusterKey::generate().unwrap().save(&foreign).unwrap();
    let mut spec = pair.spec(1, 1);
    spec["key_file"] = json!(foreign);
    let (mut a, mut b) = (Node::start(&[], &pair.write("foreign", &spec)), pair.start(2, 1));
    a.publish("PRIM");
    let event = b.expect_kind("wrong_key");
    assert_eq!(event["from"], pair.address(1).to_string());
    b.expect_kind("peer_down");
    let later = b.listen(ms(TIMEOUT));
    let all: Vec<_> = b.seen.iter().chain(&later).cloned().collect();
    assert_eq!(kinds(&all).iter().filter(|k| **k == "wrong_key").count(), 1);
    assert!(!kinds(&all).contains(&"link_up"));
}

#[test]
fn replayed_packets_keep_no_link_up() {
    let pair = Pair::new();
    // We listen in place of node 2 to record what node 1 says.
    let tap = UdpSocket::bind((pair.address(2), PORT)).unwrap();
    tap.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut a = pair.start(1, 1);
    a.publish("PRIM");
    let mut packets = Vec::new();
    for _ in 0..3 {
        let mut packet = vec![0; 2000];
        let length = tap.recv(&mut packet).unwrap();
        packet.truncate(length);
        packets.push(packet);
    }
    a.kill();
    if let Some(carrier) = pair.carrier_pid(1) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(carrier), Signal::SIGKILL).unwrap();
    }
    pair.wait_for_carrier(1, "the carrier goes", |c| c.is_none());
    drop(tap);
    let mut b = pair.start(2, 1);
    b.expect_kind("local_address");
    let attacker = UdpSocket::bind((pair.address(1), PORT)).unwrap();
    let started = Instant::now();
    while b.child.try_wait().unwrap().is_none() && started.elapsed() < ms(3 * TIMEOUT) {
        for packet in &packets {
            // The error that an earlier packet brought is no matter.
            let _ = attacker.send_to(packet, (pair.address(2), PORT));
        }
        std::thread::sleep(ms(PULSE));
    }
    b.expect_kind("link_up");
    b.expect_kind("peer_down");
    assert_eq!(kinds(&b.seen).iter().filter(|k| **k == "link_up").count(), 1, "recorded packets work once at most");
    assert_eq!(kinds(&b.listen(ms(TIMEOUT))), [""; 0]);
}

#[test]
fn an_own_pause_longer_than_the_timeout_is_not_the_peers_death() {
    let pair = Pair::new();
    let (mut a, mut b) = (pair.start(1, 1), pair.start(2, 1));
    a.publish("PRIM");
    b.publish("SECOND");
    b.expect_state("PRIM", false);
    a.expect_state("SECOND", false);
    b.signal(Signal::SIGSTOP);
    a.expect_kind("peer_down");
    b.signal(Signal::SIGCONT);
    a.expect_kind("peer_up");
    assert_eq!(kinds(&b.listen(ms(TIMEOUT))), [""; 0]);
}

#[test]
fn a_missing_address_is_waited_for_and_its_loss_is_told() {
    let pair = Pair::new();
    let mut spec = pair.spec(1, 1);
    spec["links"][0]["local"] = json!("192.0.2.1");
    spec["links"][0]["peer"] = json!("192.0.2.2");
    // Without any interface up the kernel has no table of local addresses yet, and lets anybody bind anything.
    let wrapper = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];
    let mut a = Node::start(&wrapper, &pair.write("away", &spec));
    a.publish("WAIT");
    a.expect("absence", |e| e["kind"] == "local_address" && e["present"] == false);
    let namespace = a.child.id().to_string();
    let inside = |words: &[&str]| {
        let status = Command::new("nsenter").args(["-t", &namespace, "-n", "ip"]).args(words).status().unwrap();
        assert!(status.success(), "{words:?}");
    };
    inside(&["address", "add", "192.0.2.1/24", "dev", "lo"]);
    a.expect("presence", |e| e["kind"] == "local_address" && e["present"] == true);
    // No way to the peer is no missing address.
    inside(&["route", "add", "unreachable", "192.0.2.2/32"]);
    let calm = a.listen(ms(1500));
    assert!(!kinds(&calm).contains(&"local_address"), "{calm:#?}");
    inside(&["address", "del", "192.0.2.1/24", "dev", "lo"]);
    a.expect("absence", |e| e["kind"] == "local_address" && e["present"] == false);
}

#[test]
fn it_ends_in_silence_when_its_runner_is_gone() {
    let pair = Pair::new();
    let (mut a, mut b) = (pair.start(1, 1), pair.start(2, 1));
    a.publish("PRIM");
    b.expect_state("PRIM", false);
    a.close_stdin();
    let closed = Instant::now();
    assert!(a.child.wait().unwrap().success());
    assert!(closed.elapsed() < ms(TIMEOUT), "{:?}", closed.elapsed());
    b.expect_kind("peer_down");
    assert!(!b.seen.iter().any(|e| e["bye"] == true), "no farewell: the runner died");
    b.order(&json!({"kind": "quit"}));
    assert!(b.child.wait().unwrap().success());
}

#[test]
fn it_dies_with_its_runner_even_if_somebody_else_holds_its_stdin() {
    let pair = Pair::new();
    let spec = pair.write("spec", &pair.spec(1, 1));
    let mut runner = Command::new("sh");
    runner
        .args(["-c", "\"$0\" run --spec \"$1\" <&3 >\"$2.out\" & echo $!; wait", env!("CARGO_BIN_EXE_sk-heartbeat")])
        .args([&spec, &spec])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let (reader, _writer) = std::io::pipe().unwrap();
    let mut runner = with_descriptor_3(&mut runner, &reader).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(runner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let heartbeat = PidFd::open(line.trim().parse().unwrap()).unwrap().unwrap();
    // It speaks only after it has asked to die with its parent.
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(pair.dir.path().join("spec.out")).is_ok_and(|t| t.contains("local_address")) {
        assert!(Instant::now() < deadline, "it does not start");
        std::thread::sleep(ms(10));
    }
    assert!(!heartbeat.wait(Duration::ZERO).unwrap());
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(heartbeat.wait(PATIENCE).unwrap());
}

#[test]
fn readiness_is_announced_once() {
    let pair = Pair::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sk-heartbeat"));
    command.args(["run", "--ready-fd", "3", "--spec"]).arg(pair.write("spec", &pair.spec(1, 1)));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = with_descriptor_3(&mut command, &writer).spawn().unwrap();
    drop(writer);
    let mut text = String::new();
    // Ends because the descriptor is closed after the announcement, while the process goes on.
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\n");
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn garbage_orders_change_nothing() {
    let pair = Pair::new();
    let (mut a, mut b) = (pair.start(1, 1), pair.start(2, 1));
    a.publish("PRIM");
    b.expect_state("PRIM", false);
    a.order(&json!("not an object"));
    a.order(&json!({"kind": "dance"}));
    a.order(&json!({"kind": "publish", "state": 7}));
    a.order(&json!({"kind": "publish", "state": {"word": "x".repeat(1200)}}));
    a.order(&json!({"kind": "publish", "padding": "x".repeat(100_000)}));
    a.publish("ALONE");
    b.expect_state("ALONE", false);
}

#[test]
fn bad_input_has_its_exit_codes() {
    let pair = Pair::new();
    let code = |words: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_sk-heartbeat")).args(words).stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let spec = pair.write("spec", &pair.spec(1, 1));
    let spec = spec.to_str().unwrap();
    assert_eq!(code(&["--help"]).0, 0);
    assert_eq!(code(&[]).0, 100);
    assert_eq!(code(&["run"]).0, 100);
    assert_eq!(code(&["run", "--spec", spec, "--ready-fd", "1"]).0, 100);
    let (exit, words) = code(&["run", "--spec", "/nonexistent/spec"]);
    assert!(exit == 1 && words.contains("/nonexistent/spec"), "{exit} {words}");
    std::fs::set_permissions(pair.key(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (exit, words) = code(&["run", "--spec", spec]);
    assert!(exit == 2 && words.contains("chmod 600"), "{exit} {words}");
}
