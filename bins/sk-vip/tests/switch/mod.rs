//! Three hosts on a switch, each a network namespace of its own; everything disappears with the value.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub const VIP: &str = "10.0.0.50";
pub const VIP6: &str = "fd00::50";

/// Hosts `a` (10.0.0.1), `b` (10.0.0.2) and `c` (10.0.0.3), each with `eth0` on a bridge in a namespace of its own.
pub struct Switch {
    prefix: String,
    pub dir: tempfile::TempDir,
}

impl Switch {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
        let prefix = format!("skv{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let switch = Self { prefix, dir: tempfile::tempdir().unwrap() };
        for name in ["s", "a", "b", "c"] {
            run(&format!("ip netns add {}", switch.ns(name)));
            run(&format!("ip -n {} link set lo up", switch.ns(name)));
        }
        run(&format!("ip -n {} link add sw0 type bridge", switch.ns("s")));
        run(&format!("ip -n {} link set sw0 up", switch.ns("s")));
        for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let host = switch.ns(name);
            switch.cable(name);
            run(&format!("ip -n {host} link set eth0 address 02:00:00:00:00:0{number} up"));
            run(&format!("ip -n {host} address add 10.0.0.{number}/24 dev eth0"));
            run(&format!("ip -n {host} address add fd00::{number}/64 dev eth0 nodad"));
        }
        switch
    }

    /// A new `eth0`, which is down, in a host that has none.
    pub fn cable(&self, host: &str) {
        let (sw, ns) = (self.ns("s"), self.ns(host));
        run(&format!("ip -n {sw} link add p{host} type veth peer name eth0 netns {ns}"));
        run(&format!("ip -n {sw} link set p{host} master sw0 up"));
    }

    pub fn ns(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// A shell command in a host; gives its output.
    pub fn on(&self, host: &str, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.ns(host)))
    }

    /// Runs `sk-vip` in a host to its end.
    pub fn vip(&self, host: &str, arguments: &str) -> Output {
        self.command(host).args(arguments.split_whitespace()).output().unwrap()
    }

    /// The same with nobody there to read what it says.
    pub fn vip_unread(&self, host: &str, arguments: &str) -> ExitStatus {
        let (_, unread) = UnixStream::pair().unwrap();
        self.command(host).args(arguments.split_whitespace()).stdout(OwnedFd::from(unread)).status().unwrap()
    }

    fn command(&self, host: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns(host), env!("CARGO_BIN_EXE_sk-vip")]);
        command
    }

    /// Starts `sk-vip hold` or `watch` with a specification whose addresses are given as JSON.
    pub fn start(&self, host: &str, verb: &str, addresses: &str, rest: &str) -> Life {
        let file: PathBuf = self.dir.path().join(format!("{host}-{}.json", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&file, format!(r#"{{"module":"m","addresses":[{addresses}]{rest}}}"#)).unwrap();
        let mut child = self
            .command(host)
            .args([verb, "--spec"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Life { stdin: child.stdin.take(), child, events }
    }

    pub fn has_address(&self, host: &str, ip: &str) -> bool {
        self.on(host, "ip -o address show dev eth0").contains(&format!(" {ip}/"))
    }

    /// Runs something in a thread that lives in a host's namespace.
    pub fn inside<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let file = std::fs::File::open(format!("/run/netns/{}", self.ns(host))).unwrap();
        std::thread::spawn(move || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for name in ["a", "b", "c", "s"] {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(name)]).status();
        }
    }
}

/// A running `sk-vip`. Killed with the value.
pub struct Life {
    pub stdin: Option<ChildStdin>,
    pub child: Child,
    events: Receiver<Value>,
}

impl Life {
    /// The next event that is of this kind, within 5 s; others before it are passed over.
    pub fn event(&self, kind: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|e| panic!("no event `{kind}`: {e}"));
            if event["kind"] == kind {
                return event;
            }
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn order(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of sk-vip", || self.child.try_wait().unwrap())
    }

    pub fn words(&mut self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut text).unwrap();
        text
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition, at most 8 s.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(8);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
