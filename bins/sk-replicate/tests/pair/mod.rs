//! Two real engines on the loopback interface, each with its own directory and descriptor store.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use sys::store::Store;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// True when mounting is possible here.
pub fn possible() -> bool {
    let possible = nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !possible {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    possible
}

#[derive(Default)]
struct Log {
    events: Mutex<Vec<Value>>,
    more: Condvar,
}

pub struct Node {
    pub name: String,
    pub dir: PathBuf,
    spec: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    log: Arc<Log>,
    store: Store,
    next: u64,
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Two nodes, and the wire between them.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    /// From b (secondary) to a (primary).
    pub wire: Wire,
    _home: tempfile::TempDir,
}

impl Pair {
    pub fn new(extra: Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().canonicalize().unwrap();
        let key = base.join("key");
        std::fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let (port_a, port_b) = (port(), port());
        let wire = Wire::new(port_a);
        let disks = extra.get("disks").is_some();
        if disks {
            // Whoever makes a mount namespace of its own meanwhile would keep a disk that we gave up.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        }
        let spec = |name: &str, peer: &str, listen: String, to: String| {
            std::fs::create_dir(base.join(name)).unwrap();
            if disks {
                make_disk(&base.join(name));
            }
            let dir = base.join(name).join("data");
            std::fs::create_dir_all(&dir).unwrap();
            let mut spec = json!({
                "module": "pair", "node": name, "peer": peer, "directories": [{"path": dir, "read_only": true}],
                "listen": listen, "peer_address": to, "key_file": key, "state_dir": base.join(name).join("state"),
                "salvage_dir": base.join(name).join("salvage"), "send_timeout_ms": 10000,
            });
            for (k, v) in extra.as_object().unwrap() {
                spec[k] = v.clone();
            }
            if extra.get("two").is_some() {
                let second = base.join(name).join("second dir");
                std::fs::create_dir_all(&second).unwrap();
                let rules = json!([{"path": "skip"}, {"regex": "\\.tmp$"}]);
                spec["directories"] =
                    json!([{"path": dir, "read_only": true}, {"path": second, "read_only": true, "exclude": rules}]);
            }
            let path = base.join(format!("{name}.json"));
            std::fs::write(&path, spec.to_string()).unwrap();
            (path, dir)
        };
        let (spec_a, dir_a) = spec("a", "b", format!("127.0.0.1:{port_a}"), format!("127.0.0.2:{port_b}"));
        let (spec_b, dir_b) = spec("b", "a", format!("127.0.0.2:{port_b}"), format!("127.0.0.1:{}", wire.port));
        Self { a: Node::start("a", dir_a, spec_a), b: Node::start("b", dir_b, spec_b), wire, _home: home }
    }

    /// A serves and B follows, in sync.
    pub fn synced(extra: Value) -> Self {
        let mut pair = Self::new(extra);
        pair.follow();
        pair
    }

    /// The same, of nodes that have no role yet.
    pub fn follow(&mut self) {
        self.a.done(json!({"kind":"primary","peer":"excluded","force":true}));
        self.b.done(json!({"kind":"secondary"}));
        self.b.until_replica("b in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
        self.a.until_replica("a sees b in sync", |r| r["peer"] == "in_sync" && r["standing"] == "paired");
    }
}

impl Pair {
    /// Waits until the secondary remembers a checkpoint that both have.
    pub fn until_checkpoint(&self) {
        let deadline = Instant::now() + PATIENCE;
        let file = self.b.dir.parent().unwrap().join("state/lineage.json");
        loop {
            let known: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            if known["position"].as_u64() > Some(0) {
                return;
            }
            assert!(Instant::now() < deadline, "no checkpoint: {known}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Node {
    fn start(name: &str, dir: PathBuf, spec: PathBuf) -> Self {
        let store = Store::new();
        let log = Arc::new(Log::default());
        let (child, stdin) = spawn(&store, &spec, &log);
        Self { name: name.into(), dir, spec, child, stdin: Some(stdin), log, store, next: 0 }
    }

    /// The second directory, with `two`.
    pub fn second(&self) -> PathBuf {
        self.dir.parent().unwrap().join("second dir")
    }

    /// kill -9, and a successor with the kept descriptors.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let (child, stdin) = spawn(&self.store, &self.spec, &self.log);
        (self.child, self.stdin) = (child, Some(stdin));
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.events.lock().unwrap().clear();
    }

    /// The runner is gone.
    pub fn end_of_file(&mut self) {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.store.clear();
        self.log.events.lock().unwrap().clear();
    }

    /// SIGTERM; the process ends with code 0.
    pub fn terminate(&mut self) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                break;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.store.clear();
        self.log.events.lock().unwrap().clear();
    }

    /// A new process that knows nothing of the former one's memory.
    pub fn start_again(&mut self) {
        self.store.clear();
        self.log.events.lock().unwrap().clear();
        let (child, stdin) = spawn(&self.store, &self.spec, &self.log);
        (self.child, self.stdin) = (child, Some(stdin));
    }

    /// The directory that holds everything of this node.
    pub fn home(&self) -> &Path {
        self.dir.parent().unwrap()
    }

    /// With `disks`: the host is off at once, and what was not durable is gone. Its disk can be looked at.
    pub fn power_off(&mut self) {
        use nix::sys::signal::{Signal, kill};
        // Nothing of the process may react to what comes.
        kill(nix::unistd::Pid::from_raw(self.child.id() as i32), Signal::SIGSTOP).unwrap();
        let home = std::fs::File::open(self.home()).unwrap();
        // EXT4_IOC_SHUTDOWN without a flush of the journal.
        let how: u32 = 2;
        // SAFETY: the call reads one number through the pointer.
        let done = unsafe { nix::libc::ioctl(home.as_raw_fd(), 0x8004_587d, &raw const how) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        drop(home);
        self.kill();
        self.store.clear();
        for _ in 0..3 {
            let _ = nix::mount::umount2(&self.dir, nix::mount::MntFlags::MNT_DETACH);
        }
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = nix::mount::umount(self.home()) {
            assert!(Instant::now() < deadline, "{} keeps its disk: {e}", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
        mount_disk(self.home());
    }

    /// Everything of this node's disk is durable now.
    pub fn sync_disk(&self) {
        rustix::fs::syncfs(std::fs::File::open(self.home()).unwrap()).unwrap();
    }

    /// Sends an order; its `done` or `failed`.
    pub fn order(&mut self, order: Value) -> Value {
        let id = self.send(order);
        self.answer(id)
    }

    pub fn send(&mut self, mut order: Value) -> u64 {
        self.next += 1;
        order["id"] = self.next.into();
        writeln!(self.stdin.as_mut().unwrap(), "{order}").unwrap();
        self.next
    }

    pub fn answer(&self, id: u64) -> Value {
        self.until("an answer", |e| (e["kind"] == "done" || e["kind"] == "failed") && e["id"] == id)
    }

    pub fn done(&mut self, order: Value) {
        let answer = self.order(order.clone());
        assert_eq!(answer["kind"], "done", "{}: {order} → {answer}", self.name);
    }

    /// Waits for an event, also one that came already.
    pub fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.log.events.lock().unwrap();
        loop {
            if let Some(found) = events.iter().find(|e| wanted(e)) {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{}: waited for {what}; events: {:#?}",
                self.name,
                events.iter().map(ToString::to_string).collect::<Vec<_>>()
            );
            events = self.log.more.wait_timeout(events, left).unwrap().0;
        }
    }

    /// Waits until the last snapshot is as wanted.
    pub fn until_replica(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.log.events.lock().unwrap();
        loop {
            let last = events.iter().rev().find(|e| e["kind"] == "replica").cloned();
            if let Some(last) = last.filter(&wanted) {
                return last;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{}: waited for {what}; events: {:#?}",
                self.name,
                events.iter().map(ToString::to_string).collect::<Vec<_>>()
            );
            events = self.log.more.wait_timeout(events, left).unwrap().0;
        }
    }

    /// Compares both replicas: exit code and JSON lines.
    pub fn verify(&self, arguments: &[&str]) -> (i32, Vec<Value>, String) {
        let output = self.comparison(arguments).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        (output.status.code().unwrap(), lines, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The same with nobody there to read what is found: the exit code.
    pub fn verify_unread(&self, arguments: &[&str]) -> i32 {
        let (_, unread) = UnixStream::pair().unwrap();
        self.comparison(arguments).stdout(OwnedFd::from(unread)).status().unwrap().code().unwrap()
    }

    fn comparison(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-replicate"));
        command.env("SK_RUN", self.spec.with_extension("run"));
        command.args(["verify", "-m", "pair", "--json"]).args(arguments);
        command
    }

    /// Forgets events seen so far, but the last snapshot.
    pub fn forget(&self) {
        let mut events = self.log.events.lock().unwrap();
        let last = events.iter().rev().find(|e| e["kind"] == "replica").cloned();
        events.clear();
        events.extend(last);
    }

    pub fn has(&self, kind: &str) -> bool {
        self.log.events.lock().unwrap().iter().any(|e| e["kind"] == kind)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(12);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.store.clear();
        for dir in [self.dir.clone(), self.second()] {
            for _ in 0..3 {
                let _ = nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        if self.home().with_extension("disk").exists() {
            let _ = nix::mount::umount2(self.home(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// A disk of its own for everything in this directory.
fn make_disk(home: &Path) {
    let image = home.with_extension("disk");
    std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status().unwrap();
    assert!(made.success(), "mkfs.ext4: {made}");
    mount_disk(home);
}

fn mount_disk(home: &Path) {
    let mounted =
        Command::new("mount").args(["-o", "loop"]).arg(home.with_extension("disk")).arg(home).status().unwrap();
    assert!(mounted.success(), "mount: {mounted}");
}

fn spawn(store: &Store, spec: &Path, log: &Arc<Log>) -> (Child, ChildStdin) {
    let end = store.serve().unwrap();
    rustix::io::fcntl_setfd(&end, rustix::io::FdFlags::empty()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sk-replicate"))
        .env("SK_RUN", spec.with_extension("run"))
        .args(["run", "--store-fd", &end.as_raw_fd().to_string(), "--spec"])
        .arg(spec)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(end);
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let log = log.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            let event: Value = serde_json::from_str(&line).unwrap();
            log.events.lock().unwrap().push(event);
            log.more.notify_all();
        }
    });
    (child, stdin)
}

/// What a tree consists of, for comparison.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        // What the peer still applies may vanish between two looks at it.
        let Some(entries) = unless_gone(std::fs::read_dir(&dir)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let Some(described) = unless_gone(describe(&path)) else { continue };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), described.words);
            if described.is_dir {
                queue.push(path);
            }
        }
    }
    found
}

fn unless_gone<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.unwrap()),
    }
}

struct Described {
    words: String,
    is_dir: bool,
}

fn describe(path: &Path) -> std::io::Result<Described> {
    let meta = std::fs::symlink_metadata(path)?;
    let content = if meta.is_file() {
        format!("{:x?}", blake(&std::fs::read(path)?))
    } else if meta.is_symlink() {
        std::fs::read_link(path)?.display().to_string()
    } else {
        String::new()
    };
    let (owner, group) = (meta.uid(), meta.gid());
    let words = format!("{:o} {owner}:{group} {}.{:09} {content}", meta.mode(), meta.mtime(), meta.mtime_nsec());
    Ok(Described { words, is_dir: meta.is_dir() })
}

fn blake(bytes: &[u8]) -> (usize, u64) {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

/// Waits until both trees are equal.
pub fn until_equal(a: &Path, b: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (left, right) = (tree(a), tree(b));
        if left == right {
            return;
        }
        if Instant::now() > deadline {
            let differs: Vec<_> = left
                .iter()
                .filter(|(k, v)| right.get(*k) != Some(v))
                .map(|(k, v)| (k, v, right.get(k)))
                .take(5)
                .collect();
            let extra: Vec<_> = right.keys().filter(|k| !left.contains_key(*k)).take(5).collect();
            panic!("trees differ: {differs:#?}, extra: {extra:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Appends numbered records to files and makes each durable: what it returns from was acknowledged.
pub struct Writer {
    stop: Arc<AtomicBool>,
    pub acknowledged: Arc<Mutex<Vec<String>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub fn start(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (stopped, said, dir) = (stop.clone(), acknowledged.clone(), dir.to_owned());
        let thread = std::thread::spawn(move || {
            let mut n = 0_u64;
            while !stopped.load(SeqCst) {
                n += 1;
                let name = format!("journal-{}", n / 50);
                let mut file = std::fs::File::options().append(true).create(true).open(dir.join(&name)).expect("open");
                let record = format!("{n} {}\n", "x".repeat((n % 300) as usize));
                file.write_all(record.as_bytes()).expect("write");
                file.sync_data().expect("fdatasync");
                if n.is_multiple_of(7) {
                    std::fs::write(dir.join(format!("other-{}", n % 40)), record.as_bytes()).expect("write other");
                    std::fs::rename(dir.join(format!("other-{}", n % 40)), dir.join(format!("renamed-{}", n % 20)))
                        .expect("rename");
                }
                said.lock().unwrap().push(format!("{name}:{}", record.trim_end_matches('\n')));
            }
        });
        Self { stop, acknowledged, thread: Some(thread) }
    }

    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until this many more were acknowledged.
    pub fn until_more(&self, more: usize) {
        let (deadline, goal) = (Instant::now() + PATIENCE, self.count() + more);
        while self.count() < goal {
            assert!(Instant::now() < deadline, "the writer does not get on");
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the writer failed");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn finish(mut self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        self.thread.take().unwrap().join().expect("the application saw an error");
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

/// Every acknowledged record is in the directory.
pub fn check_acknowledged(dir: &Path, acknowledged: &[String]) {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for record in acknowledged {
        let (name, line) = record.split_once(':').unwrap();
        let content =
            files.entry(name.into()).or_insert_with(|| std::fs::read_to_string(dir.join(name)).unwrap_or_default());
        let numbers: Vec<_> = content.lines().map(|l| l.split(' ').next().unwrap_or_default()).collect();
        assert!(
            content.lines().any(|l| l == line),
            "acknowledged record lost: {name} {}; there are {numbers:?}, {} bytes, starts {:?}",
            &line[..line.len().min(20)],
            content.len(),
            content.bytes().take(40).collect::<Vec<_>>()
        );
    }
}

/// A wire that can be cut without either end being told.
pub struct Wire {
    pub port: u16,
    cut: Arc<AtomicBool>,
    /// Bytes a second that each direction carries; 0: as many as there are.
    rate: Arc<AtomicU64>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn new(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let rate = Arc::new(AtomicU64::new(0));
        let wire = Self { port, cut: cut.clone(), rate: rate.clone(), streams: streams.clone() };
        std::thread::spawn(move || {
            for incoming in listener.incoming() {
                let Ok(incoming) = incoming else { return };
                let Ok(outgoing) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (mut from, mut onto) in
                    [(incoming.try_clone().unwrap(), outgoing.try_clone().unwrap()), (outgoing, incoming)]
                {
                    streams.lock().unwrap().push(from.try_clone().unwrap());
                    from.set_nodelay(true).unwrap();
                    let (cut, rate) = (cut.clone(), rate.clone());
                    std::thread::spawn(move || {
                        let mut buffer = vec![0; 65536];
                        while let Ok(n @ 1..) = from.read(&mut buffer) {
                            while cut.load(SeqCst) {
                                std::thread::sleep(Duration::from_millis(5));
                            }
                            if onto.write_all(&buffer[..n]).is_err() {
                                break;
                            }
                            if let Some(us) = (n as u64 * 1_000_000).checked_div(rate.load(SeqCst)) {
                                std::thread::sleep(Duration::from_micros(us));
                            }
                        }
                        let _ = onto.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        wire
    }

    /// From now on it carries this many bytes a second.
    pub fn slow(&self, rate: u64) {
        self.rate.store(rate, SeqCst);
    }

    pub fn cut(&self) {
        self.cut.store(true, SeqCst);
    }

    /// Old connections do not come back.
    pub fn heal(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        self.cut.store(false, SeqCst);
    }
}
