//! How do the tests start a heartbeat, talk to it, and wait for what it says?
#![allow(dead_code)] // No test uses everything.
#![allow(clippy::unwrap_used)] // Test code that clippy does not recognise as such, since it is in no #[test] function.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use wire::ClusterKey;

pub const PULSE: u64 = 50;
pub const TIMEOUT: u64 = 600;
pub const PATIENCE: Duration = Duration::from_secs(15);
pub const PORT: u16 = 4801;

/// Two nodes with loopback addresses of their own: tests and test runs do not meet.
pub struct Pair {
    pub dir: tempfile::TempDir,
    net: (u8, u8),
}

impl Pair {
    pub fn new() -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let net = (
            (std::process::id() % 200 + 20) as u8,
            (std::process::id() / 200 % 12) as u8 * 20 + COUNT.fetch_add(1, Ordering::Relaxed),
        );
        let pair = Self { dir: tempfile::tempdir().unwrap(), net };
        ClusterKey::generate().unwrap().save(&pair.key()).unwrap();
        pair
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("cluster.key")
    }

    pub fn address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.net.0, self.net.1, node)
    }

    /// Where the heartbeats of a node meet.
    pub fn carrier(&self, node: u8) -> PathBuf {
        self.dir.path().join(format!("carrier{node}"))
    }

    /// Specification of node 1 or 2. A second link uses addresses 11 and 12.
    pub fn spec(&self, node: u8, links: u8) -> Value {
        let links: Vec<_> = (0..links)
            .map(|n| {
                json!({"ident": format!("link{n}"), "local": self.address(node + 10 * n), "peer": self.address(3 - node + 10 * n),
                    "pulse_ms": PULSE, "timeout_ms": TIMEOUT})
            })
            .collect();
        json!({"module": "AM", "node": format!("node{node}"), "peer": format!("node{}", 3 - node), "port": PORT,
            "key_file": self.key(), "carrier": self.carrier(node), "links": links})
    }

    pub fn write(&self, name: &str, spec: &Value) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, spec.to_string()).unwrap();
        path
    }

    /// One of several modules of a node.
    pub fn start_module(&self, node: u8, links: u8, module: &str) -> Node {
        self.start_with(node, links, module, |_| ())
    }

    /// The same with a changed specification.
    pub fn start_with(&self, node: u8, links: u8, module: &str, change: impl FnOnce(&mut Value)) -> Node {
        let mut spec = self.spec(node, links);
        spec["module"] = json!(module);
        change(&mut spec);
        Node::start(&[], &self.write(&format!("spec{node}{module}"), &spec))
    }

    /// The carrier of a node, when there is exactly one.
    pub fn carrier_pid(&self, node: u8) -> Option<i32> {
        let place = self.carrier(node);
        let mut found = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = line.split(|b| *b == 0).map(String::from_utf8_lossy);
            (words.any(|w| w == "carry") && words.any(|w| w == place.to_string_lossy())).then_some(pid)
        });
        found.next().filter(|_| found.next().is_none())
    }

    /// Waits until a node has a carrier that fits.
    pub fn wait_for_carrier(&self, node: u8, what: &str, fits: impl Fn(Option<i32>) -> bool) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let carrier = self.carrier_pid(node);
            if fits(carrier) {
                return carrier;
            }
            assert!(Instant::now() < deadline, "{what}: {carrier:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn start(&self, node: u8, links: u8) -> Node {
        Node::start(&[], &self.write(&format!("spec{node}"), &self.spec(node, links)))
    }
}

pub struct Node {
    pub child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    pub seen: Vec<Value>,
}

impl Node {
    pub fn start(wrapper: &[&str], spec: &Path) -> Self {
        let program = env!("CARGO_BIN_EXE_sk-heartbeat");
        let mut words: Vec<&str> = wrapper.to_vec();
        words.extend([program, "run", "--spec"]);
        let mut child = Command::new(words[0])
            .args(&words[1..])
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
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { stdin: child.stdin.take(), child, events, seen: Vec::new() }
    }

    pub fn order(&mut self, order: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    pub fn publish(&mut self, state: &str) {
        self.order(&json!({"kind": "publish", "state": {"word": state}}));
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for an event that fits; all events on the way are kept in `seen`.
    pub fn expect(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if fits(&event) {
                        return event;
                    }
                }
                Err(error) => panic!("no {what} ({error}); seen: {:#?}", self.seen),
            }
        }
    }

    pub fn expect_kind(&mut self, kind: &str) -> Value {
        self.expect(kind, |e| e["kind"] == kind)
    }

    pub fn expect_state(&mut self, word: &str, bye: bool) -> Value {
        self.expect(&format!("state {word}"), |e| {
            e["kind"] == "peer_state" && e["state"]["word"] == word && e["bye"] == bye
        })
    }

    /// Everything said within `span`.
    pub fn listen(&mut self, span: Duration) -> Vec<Value> {
        let deadline = Instant::now() + span;
        let mut heard = Vec::new();
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => heard.push(event),
                Err(RecvTimeoutError::Timeout) => return heard,
                Err(RecvTimeoutError::Disconnected) => panic!("it ended; heard: {heard:#?}"),
            }
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for node in [1, 2] {
            if let Some(pid) = self.carrier_pid(node) {
                // It may have ended by itself.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

pub fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|e| e["kind"].as_str()).collect()
}
