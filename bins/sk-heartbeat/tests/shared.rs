//! Does one stream carry the heartbeats of all modules, each as safe as if it were alone?

#![allow(clippy::unwrap_used)] // Test code that clippy does not recognise as such, since it is in no #[test] function.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Node, PORT, Pair, TIMEOUT, kinds};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Modules M0… on both nodes, all of them up.
fn modules(pair: &Pair, count: usize, links: u8) -> [Vec<Node>; 2] {
    let mut sides =
        [1, 2].map(|node| (0..count).map(|m| pair.start_module(node, links, &format!("M{m}"))).collect::<Vec<_>>());
    for node in sides.iter_mut().flatten() {
        node.publish("HERE");
    }
    for node in sides.iter_mut().flatten() {
        node.expect_state("HERE", false);
        for _ in 0..links {
            let up = |seen: &[Value]| kinds(seen).iter().filter(|k| **k == "link_up").count();
            if up(&node.seen) < links.into() {
                node.expect_kind("link_up");
            }
        }
        node.seen.clear();
    }
    sides
}

/// Nothing that looks like a failure was said.
fn assert_calm(nodes: &mut [Node], span: Duration) {
    let deadline = Instant::now() + span;
    for node in nodes {
        let mut heard = std::mem::take(&mut node.seen);
        heard.extend(node.listen(deadline.saturating_duration_since(Instant::now()).max(ms(1))));
        assert!(kinds(&heard).iter().all(|k| *k == "peer_state"), "{heard:#?}");
        let states: Vec<_> = heard.iter().map(|e| &e["state"]).collect();
        assert!(states.windows(2).all(|two| two[0] != two[1]), "said twice: {heard:#?}");
    }
}

fn end(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn the_death_of_the_carrier_is_no_failure_of_any_module() {
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 8, 2);
    let mut former = pair.carrier_pid(1).unwrap();
    for round in 0..3 {
        end(former, Signal::SIGKILL);
        former = pair.wait_for_carrier(1, "a successor", |c| c.is_some_and(|c| c != former)).unwrap();
        let word = format!("ROUND{round}");
        a[round].publish(&word);
        b[round].expect_state(&word, false);
    }
    assert_calm(&mut a, ms(2 * TIMEOUT));
    assert_calm(&mut b, ms(1));
}

#[test]
fn a_carrier_that_hangs_is_replaced_before_anybody_misses_it() {
    let pair = Pair::new();
    // Room for a loaded test machine.
    let slow = |spec: &mut Value| {
        spec["links"][0]["timeout_ms"] = json!(3000);
    };
    let mut sides = [1, 2].map(|n| ["X", "Y"].map(|m| pair.start_with(n, 1, m, slow)));
    for node in sides.iter_mut().flatten() {
        node.publish("HERE");
        node.expect_kind("local_address");
    }
    for node in sides.iter_mut().flatten() {
        node.expect_state("HERE", false);
        node.seen.clear();
    }
    let hung = pair.carrier_pid(1).unwrap();
    let began = Instant::now();
    end(hung, Signal::SIGSTOP);
    pair.wait_for_carrier(1, "a successor", |c| c.is_some_and(|c| c != hung));
    assert!(began.elapsed() < ms(3000), "{:?}", began.elapsed());
    let [mut a, mut b] = sides;
    a[0].publish("AFTER");
    b[0].expect_state("AFTER", false);
    assert_calm(&mut a, ms(3500));
    assert_calm(&mut b, ms(1));
}

#[test]
fn a_module_that_hangs_is_silent_alone() {
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 3, 1);
    a[1].signal(Signal::SIGSTOP);
    b[1].expect_kind("peer_down");
    assert!(!kinds(&b[1].seen).contains(&"peer_gone"), "{:#?}", b[1].seen);
    a[1].signal(Signal::SIGCONT);
    b[1].expect_kind("peer_up");
    assert_calm(&mut b[..1], ms(1));
    assert_calm(&mut b[2..], ms(1));
    assert_calm(&mut a, ms(TIMEOUT));
}

#[test]
fn a_heartbeat_that_is_started_again_was_no_death_of_its_runner() {
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 2, 1);
    let before = pair.carrier_pid(1).unwrap();
    a[0].kill();
    a[0] = pair.start_module(1, 1, "M0");
    a[0].publish("AGAIN");
    b[0].expect_state("AGAIN", false);
    assert!(!kinds(&b[0].seen).contains(&"peer_gone"), "{:#?}", b[0].seen);
    assert_eq!(pair.carrier_pid(1), Some(before));
    assert_calm(&mut b, ms(TIMEOUT));
    assert_calm(&mut a[1..], ms(1));
}

/// A path that nobody uses any more is closed; whoever comes next must not begin with numbers that the peer has seen.
#[test]
fn a_module_that_stops_and_starts_while_its_carrier_lives_on_is_heard_at_once() {
    let pair = Pair::new();
    // Nothing is said for its own sake: what comes is what the start alone sends.
    let rare = |spec: &mut Value| {
        spec["links"][0]["pulse_ms"] = json!(60_000);
        spec["links"][0]["timeout_ms"] = json!(600_000);
    };
    let mut other = pair.start_with(2, 1, "AM", rare);
    other.publish("HERE");
    let mut first = pair.start_module(1, 1, "AM");
    // On a path of its own it keeps the carrier alive.
    let _keeper = pair.start_with(1, 1, "BM", |spec| spec["port"] = json!(PORT + 1));
    let carrier = pair.wait_for_carrier(1, "a carrier", |c| c.is_some());
    for count in 0..100 {
        let word = format!("STATE{count}");
        first.publish(&word);
        other.expect_state(&word, false);
    }
    first.order(&json!({"kind": "quit"}));
    first.child.wait().unwrap();
    let mut second = pair.start_with(1, 1, "AM", rare);
    second.publish("AGAIN");
    other.expect_state("AGAIN", false);
    second.expect_state("HERE", false);
    assert_eq!(pair.carrier_pid(1), carrier);
}

/// A shell in the place of a runner, which starts the heartbeat of a module and publishes a state.
fn runner(pair: &Pair, module: &str) -> std::process::Child {
    let mut spec = pair.spec(1, 1);
    spec["module"] = json!(module);
    let spec = pair.write(&format!("runner-{module}"), &spec);
    // The heartbeat's stdin stays open beyond the shell's end: only the end of the process tells.
    let line = "exec 3<>\"$1.pipe\"; echo '{\"kind\":\"publish\",\"state\":{\"word\":\"HERE\"}}' >&3; \
        \"$0\" run --spec \"$1\" <&3 >\"$1.out\" & echo started; wait";
    assert!(
        Command::new("mkfifo").arg(spec.with_file_name(format!("runner-{module}.pipe"))).status().unwrap().success()
    );
    let mut shell = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_sk-heartbeat")])
        .arg(&spec)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut said).unwrap();
    shell
}

#[test]
fn the_death_of_a_runner_is_known_before_the_timeout_and_for_its_module_only() {
    let pair = Pair::new();
    let long = |spec: &mut Value| spec["links"][0]["timeout_ms"] = json!(10_000);
    let mut other = pair.start_with(1, 1, "OTHER", long);
    other.publish("HERE");
    let mut dead = runner(&pair, "DEAD");
    let [mut b, mut c] = ["DEAD", "OTHER"].map(|m| pair.start_with(2, 1, m, long));
    b.publish("HERE");
    c.publish("HERE");
    b.expect_state("HERE", false);
    c.expect_state("HERE", false);
    let began = Instant::now();
    dead.kill().unwrap();
    dead.wait().unwrap();
    let event = b.expect_kind("peer_gone");
    assert_eq!(event["evidence"], "runner_dead");
    assert!(began.elapsed() < ms(5000), "{:?}", began.elapsed());
    assert!(!kinds(&b.seen).contains(&"peer_down"));
    c.seen.clear();
    assert_calm(std::slice::from_mut(&mut c), ms(TIMEOUT));
}

#[test]
fn a_host_on_which_nobody_listens_says_so_before_the_timeout() {
    let pair = Pair::new();
    let long = |spec: &mut Value| spec["links"][0]["timeout_ms"] = json!(10_000);
    let (mut a, mut b) = (pair.start_with(1, 1, "X", long), pair.start_with(2, 1, "X", long));
    a.publish("HERE");
    b.publish("HERE");
    b.expect_state("HERE", false);
    a.expect_state("HERE", false);
    let carrier = pair.carrier_pid(1).unwrap();
    a.signal(Signal::SIGSTOP);
    end(carrier, Signal::SIGKILL);
    a.kill();
    let began = Instant::now();
    let event = b.expect_kind("peer_gone");
    assert_eq!(event["evidence"], "port_unreachable");
    assert!(began.elapsed() < ms(5000) && !kinds(&b.seen).contains(&"peer_down"));
    // Once is enough.
    assert_eq!(kinds(&b.listen(ms(1000))), [""; 0]);
}

#[test]
fn a_goodbye_is_no_death() {
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 2, 1);
    a[0].order(&json!({"kind": "bye"}));
    a[0].expect_kind("done");
    a[0].close_stdin();
    a[0].child.wait().unwrap();
    b[0].expect_state("HERE", true);
    b[0].expect_kind("peer_down");
    assert!(!kinds(&b[0].seen).contains(&"peer_gone"), "{:#?}", b[0].seen);
    assert_calm(&mut b[1..], ms(1));
}

#[test]
fn the_carrier_ends_with_the_last_module_and_holds_nothing_of_theirs() {
    let pair = Pair::new();
    let mut a = pair.start(1, 1);
    a.publish("HERE");
    let carrier = pair.wait_for_carrier(1, "a carrier", |c| c.is_some()).unwrap();
    a.expect_kind("local_address");
    for number in 0..=2 {
        let target = std::fs::read_link(format!("/proc/{carrier}/fd/{number}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    let pipes = std::fs::read_dir(format!("/proc/{carrier}/fd")).unwrap().flatten();
    let pipes =
        pipes.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|t| t.to_string_lossy().starts_with("pipe:"));
    assert_eq!(pipes.count(), 0);
    a.order(&json!({"kind": "quit"}));
    assert!(a.child.wait().unwrap().success());
    pair.wait_for_carrier(1, "its end", |c| c.is_none());
}

#[test]
fn removed_files_are_made_again_without_a_failure() {
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 2, 1);
    let former = pair.carrier_pid(1).unwrap();
    std::fs::remove_dir_all(pair.carrier(1)).unwrap();
    pair.wait_for_carrier(1, "a successor", |c| c.is_some_and(|c| c != former));
    assert_calm(&mut a, ms(2 * TIMEOUT));
    assert_calm(&mut b, ms(1));
    assert!(pair.carrier(1).join("carrier").exists());
}

#[test]
fn a_full_disk_hinders_no_successor() {
    let pair = Pair::new();
    std::fs::create_dir(pair.carrier(1)).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "none"]).arg(pair.carrier(1)).status();
    assert!(mounted.unwrap().success());
    let [mut a, mut b] = modules(&pair, 2, 1);
    // To the last byte.
    assert!(std::fs::write(pair.carrier(1).join("fill"), vec![0; 1 << 20]).is_err());
    let former = pair.carrier_pid(1).unwrap();
    end(former, Signal::SIGKILL);
    pair.wait_for_carrier(1, "a successor", |c| c.is_some_and(|c| c != former));
    assert_calm(&mut a, ms(2 * TIMEOUT));
    assert_calm(&mut b, ms(1));
    drop((a, b));
    pair.wait_for_carrier(1, "its end", |c| c.is_none());
    assert!(Command::new("umount").arg(pair.carrier(1)).status().unwrap().success());
}

#[test]
fn a_second_process_of_a_module_waits_for_the_end_of_the_first() {
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 1, 1);
    let mut twin = pair.start_module(1, 1, "M0");
    twin.publish("TWIN");
    assert_calm(&mut b, ms(TIMEOUT));
    a[0].kill();
    b[0].expect_state("TWIN", false);
}

#[test]
fn modules_with_a_port_of_their_own_and_other_keys_do_not_meet() {
    let pair = Pair::new();
    let own = |spec: &mut Value| spec["port"] = json!(PORT + 1);
    let [mut a, mut b] = modules(&pair, 1, 1);
    let (mut c, mut d) = (pair.start_with(1, 1, "OWN", own), pair.start_with(2, 1, "OWN", own));
    c.publish("C");
    d.publish("D");
    c.expect_state("D", false);
    d.expect_state("C", false);
    assert_calm(&mut a, ms(1));
    // A module that one node has on another port is not heard.
    let mut shared = pair.start_module(2, 1, "HALF");
    let mut apart = pair.start_with(1, 1, "HALF", own);
    shared.publish("SHARED");
    apart.publish("APART");
    shared.expect_kind("peer_down");
    assert!(!kinds(&shared.seen).contains(&"link_up"));
    assert_calm(&mut b, ms(1));
}

#[test]
fn noise_on_the_network_and_on_the_local_socket_disturbs_nobody() {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 2, 1);
    let before = pair.carrier_pid(1).unwrap();
    let address = SocketAddrUnix::new(pair.carrier(1).join("carrier")).unwrap();
    let connect = || {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        socket
    };
    let long = vec![0xff; 20_000];
    let records: [&[u8]; 6] = [
        b"",
        b"noise",
        b"{\"kind\":\"publish\",\"version\":1,\"bye\":false,\"state\":\"{}\"}",
        b"{\"kind\":\"attach\"}",
        b"[[[[[[[[",
        &long,
    ];
    for record in records {
        let socket = connect();
        for _ in 0..50 {
            // A record that is too long for the carrier is cut by the kernel there.
            let _ = rustix::net::send(&socket, record, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
    // Connected and silent.
    let _silent: Vec<_> = (0..20).map(|_| connect()).collect();
    let noise = UdpSocket::bind((pair.address(2), 0)).unwrap();
    for length in [0, 1, 57, 58, 1400, 1401, 9000] {
        noise.send_to(&vec![2; length], (pair.address(1), PORT)).unwrap();
    }
    a[0].publish("STILL");
    b[0].expect_state("STILL", false);
    assert_calm(&mut a, ms(TIMEOUT));
    assert_calm(&mut b, ms(1));
    assert_eq!(pair.carrier_pid(1), Some(before));
}

#[test]
fn a_carrier_of_an_older_version_is_asked_to_end() {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
    let pair = Pair::new();
    std::fs::create_dir(pair.carrier(1)).unwrap();
    let lock = sys::lock::LockFile::open(&pair.carrier(1).join("lock")).unwrap();
    assert!(lock.try_exclusive().unwrap());
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(pair.carrier(1).join("carrier")).unwrap()).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    let mut a = pair.start(1, 1);
    let client = rustix::net::accept(&listener).unwrap();
    let mut buffer = vec![0; 16 * 1024];
    let mut record = || {
        let (length, _) = rustix::net::recv(&client, &mut buffer, RecvFlags::empty()).unwrap();
        serde_json::from_slice::<Value>(&buffer[..length]).unwrap()
    };
    assert_eq!(record()["kind"], "attach");
    rustix::net::send(&client, b"{\"kind\":\"older\",\"protocol\":0}", SendFlags::NOSIGNAL).unwrap();
    assert_eq!(record()["kind"], "yield");
    drop((client, listener, lock));
    a.expect_kind("local_address");
    let served = pair.wait_for_carrier(1, "a successor", |c| c.is_some()).unwrap();
    // And ours lets a later version take over.
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(pair.carrier(1).join("carrier")).unwrap()).unwrap();
    let attach = json!({"kind": "attach", "protocol": 3, "module": "N", "node": "node1", "peer": "node2", "port": 1, "keys": {"used": vec![0; 32], "accepted": []},
        "incarnation": 1, "links": [], "memory": {"links": [], "judged": false, "newest": null}, "statement": null});
    rustix::net::send(&socket, attach.to_string().as_bytes(), SendFlags::NOSIGNAL).unwrap();
    let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&buffer[..length]).unwrap(), json!({"kind": "older", "protocol": 2}));
    rustix::net::send(&socket, b"{\"kind\":\"yield\"}", SendFlags::NOSIGNAL).unwrap();
    pair.wait_for_carrier(1, "another one", |c| c.is_some_and(|c| c != served));
}

#[test]
fn a_cut_in_one_direction_is_seen_by_the_deaf_side_only_and_survives_new_carriers() {
    let pair = Pair::new();
    let [mut a, mut b] = modules(&pair, 2, 1);
    // Nobody at address 2 hears: its carrier is bound, and what comes is taken away before.
    let chain = format!("skhb{}", std::process::id());
    let nft = |words: &str| assert!(Command::new("nft").arg(words).status().unwrap().success(), "{words}");
    nft(&format!(
        "add table inet {chain}; add chain inet {chain} i {{ type filter hook input priority 0; }}; \
        add rule inet {chain} i ip daddr {} udp dport {PORT} drop",
        pair.address(2)
    ));
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for node in &mut b {
            node.expect_kind("peer_down");
        }
        // The side that hears is started anew, as is the deaf one: what the clocks vouch for is believed.
        for side in [1, 2] {
            let former = pair.carrier_pid(side).unwrap();
            end(former, Signal::SIGKILL);
            pair.wait_for_carrier(side, "a successor", |c| c.is_some_and(|c| c != former));
        }
        b[0].publish("ONE WAY");
        a[0].expect_state("ONE WAY", false);
        assert_calm(&mut a, ms(2 * TIMEOUT));
    }));
    nft(&format!("delete table inet {chain}"));
    if let Err(panic) = seen {
        std::panic::resume_unwind(panic);
    }
    for node in &mut b {
        node.expect_kind("peer_up");
    }
}
