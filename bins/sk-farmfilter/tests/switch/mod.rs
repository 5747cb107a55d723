//! Three servers and a client on a switch, each a network namespace of its own; everything disappears with the value.

#![allow(dead_code)] // each test program uses its own part

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub const VIP: &str = "10.0.0.50";
pub const VIP6: &str = "fd00::50";
pub const SERVERS: [&str; 3] = ["a", "b", "c"];
const HOSTS: [&str; 4] = ["a", "b", "c", "d"];

/// Hosts `a`, `b`, `c` (servers) and `d` (client), 10.0.0.1 to 10.0.0.4 and fd00::1 to fd00::4 on `eth0`.
pub struct Switch {
    prefix: String,
    pub dir: tempfile::TempDir,
}

impl Switch {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
        let prefix = format!("skf{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let switch = Self { prefix, dir: tempfile::tempdir().unwrap() };
        for name in HOSTS.iter().chain(&["s"]) {
            run(&format!("ip netns add {}", switch.ns(name)));
            run(&format!("ip -n {} link set lo up", switch.ns(name)));
        }
        run(&format!("ip -n {} link add sw0 type bridge mcast_snooping 0", switch.ns("s")));
        run(&format!("ip -n {} link set sw0 up", switch.ns("s")));
        for (number, name) in (1..).zip(HOSTS) {
            switch.cable(name);
            switch.address(name, &format!("02:00:00:00:00:0{number}"), number);
        }
        let key = switch.dir.path().join("key");
        std::fs::write(&key, "5a".repeat(32)).unwrap();
        run(&format!("chmod 600 {}", key.display()));
        switch
    }

    /// A new `eth0`, which is down, in a host that has none.
    pub fn cable(&self, host: &str) {
        let (sw, ns) = (self.ns("s"), self.ns(host));
        run(&format!("ip -n {sw} link add p{host} type veth peer name eth0 netns {ns}"));
        run(&format!("ip -n {sw} link set p{host} master sw0 up"));
    }

    /// Gives `eth0` its MAC and the addresses of a host, and sets it up.
    pub fn address(&self, host: &str, mac: &str, number: u8) {
        // Without the kernel's duplicate detection, which would take a second.
        self.on(host, "sysctl -qw net.ipv6.conf.eth0.accept_dad=0");
        self.on(host, &format!("ip link set eth0 address {mac} up"));
        self.on(host, &format!("ip address add 10.0.0.{number}/24 dev eth0"));
        self.on(host, &format!("ip address add fd00::{number}/64 dev eth0 nodad"));
    }

    pub fn ns(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// A command in a host; gives its output.
    pub fn on(&self, host: &str, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.ns(host)))
    }

    /// Runs `sk-farmfilter` in a host to its end.
    pub fn farmfilter(&self, host: &str, arguments: &str) -> Output {
        self.command(host).args(arguments.split_whitespace()).output().unwrap()
    }

    fn command(&self, host: &str) -> Command {
        let file = std::fs::File::open(format!("/run/netns/{}", self.ns(host))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-farmfilter"));
        command.env("SK_RUN", self.dir.path().join(format!("run-{host}")));
        let enter = move || Ok(nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)?);
        // SAFETY: only a system call is made between fork and exec.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// The specification of a farm of the three servers for one host, changed as wanted. A node is lost after a second: the machine is busy.
    pub fn spec(&self, host: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let nodes: Vec<Value> =
            (1..).zip(SERVERS).map(|(n, name)| json!({"node": name, "addr": format!("10.0.0.{n}")})).collect();
        let mut spec = json!({"module": "AM", "node": host, "key_file": self.dir.path().join("key"), "port": 4803,
            "pulse_ms": 100, "mlost_count": 10, "slost_count": 10, "lans": [{"ident": "default", "nodes": nodes}],
            "addresses": [{"address": VIP, "mode": "vmac_invisible"}, {"address": VIP6, "mode": "vmac_invisible"}],
            "groups": [{"name": "web_0", "rules": [{"port": 8000, "proto": "tcp", "filter": "on_port"}]}]});
        change(&mut spec);
        let file = self.dir.path().join(format!("{host}-{}.json", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&file, spec.to_string()).unwrap();
        file
    }

    /// Starts `sk-farmfilter run`.
    pub fn start(&self, host: &str, change: impl FnOnce(&mut Value)) -> Node {
        let mut child = self
            .command(host)
            .args(["run", "--spec"])
            .arg(self.spec(host, change))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Node { stdin: child.stdin.take(), child, events }
    }

    /// Starts nodes on all servers and opens them; waits until each has a share.
    pub fn farm(&self, change: impl Fn(&mut Value)) -> Vec<Node> {
        let mut nodes: Vec<Node> = SERVERS.iter().map(|host| self.start(host, &change)).collect();
        for node in &mut nodes {
            node.order(r#"{"kind":"open"}"#);
        }
        for node in &nodes {
            node.event("opened");
        }
        self.settled(&SERVERS);
        nodes
    }

    /// Waits until these servers, and no others, share everything.
    pub fn settled(&self, hosts: &[&str]) {
        for host in hosts {
            eventually("one view with a whole table", || {
                let status = self.status(host)?;
                (status["open_members"] == json!(hosts) && status["lease_ms"].as_u64() > Some(0)).then_some(())
            });
        }
        eventually("each bucket owned once", || {
            let owned = hosts.iter().map(|h| self.status(h)?["groups"][0]["owned"].as_u64()).sum::<Option<u64>>()?;
            (owned == 256).then_some(())
        });
    }

    pub fn status(&self, host: &str) -> Option<Value> {
        let output = self.farmfilter(host, "show -m AM --json");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Serves TCP on a port of a host, until the test ends: each connection is told the host's name, and again for each byte it sends.
    pub fn serve(&self, host: &'static str, bind: &str) {
        let bind: SocketAddr = bind.parse().unwrap();
        let listener = self.inside(host, move || TcpListener::bind(bind).unwrap()).join().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.write_all(host.as_bytes()).is_ok() && matches!(stream.read(&mut byte), Ok(1)) {}
                });
            }
        });
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

    /// Connects from `d`, once for each number; gives the client's own address and who answered, and how long that took.
    pub fn connect(&self, to: &str, count: usize) -> Vec<(SocketAddr, String, Duration)> {
        let to: IpAddr = to.parse().unwrap();
        self.inside("d", move || {
            (0..count).map(|_| Talk::begin(SocketAddr::new(to, 8000)).unwrap()).map(Talk::seen).collect()
        })
        .join()
        .unwrap()
    }

    /// Opens connections from `d` and keeps them.
    pub fn talks(&self, to: &str, count: usize) -> Vec<Talk> {
        let to: IpAddr = to.parse().unwrap();
        self.inside("d", move || (0..count).map(|_| Talk::begin(SocketAddr::new(to, 8000)).unwrap()).collect())
            .join()
            .unwrap()
    }

    /// What a host's kernel still has of the farm.
    pub fn traces(&self, host: &str) -> String {
        let mut text = self.on(host, "nft list ruleset");
        for line in self.on(host, "ip -o address show").lines().filter(|l| l.contains(VIP) || l.contains(VIP6)) {
            text.push_str(line);
        }
        text
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for name in HOSTS.iter().chain(&["s"]) {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(name)]).status();
        }
    }
}

/// A connection, and who answers on it.
pub struct Talk {
    pub stream: TcpStream,
    pub host: String,
    took: Duration,
}

impl Talk {
    pub fn begin(to: SocketAddr) -> std::io::Result<Self> {
        let begun = Instant::now();
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(Self { stream, host: String::from_utf8_lossy(&byte).into_owned(), took: begun.elapsed() })
    }

    /// Says something and hears the same host again.
    pub fn go_on(&mut self) -> std::io::Result<()> {
        self.stream.write_all(b"x")?;
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        assert_eq!(byte, self.host.as_bytes(), "another host answers on the same connection");
        Ok(())
    }

    fn seen(self) -> (SocketAddr, String, Duration) {
        (self.stream.local_addr().unwrap(), self.host, self.took)
    }
}

/// A running `sk-farmfilter`. Killed with the value.
pub struct Node {
    pub stdin: Option<ChildStdin>,
    pub child: Child,
    events: Receiver<Value>,
}

impl Node {
    /// The next event that is of this kind, within 20 s; others before it are passed over.
    pub fn event(&self, kind: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|e| panic!("no event `{kind}`: {e}"));
            if event["kind"] == kind {
                return event;
            }
            assert!(event["kind"] != "failed", "no event `{kind}` but {event}");
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn order(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of sk-farmfilter", || self.child.try_wait().unwrap())
    }

    pub fn words(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition, at most 20 s.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The text given to `nft -f -` in a host.
pub fn nft(switch: &Switch, host: &str, text: &str) {
    let file = switch.dir.path().join("nft");
    std::fs::write(&file, text).unwrap();
    switch.on(host, &format!("nft -f {}", file.display()));
}
