//! Does the server answer whoever asks properly, while others do their worst?
#![allow(clippy::unwrap_used)] // Test code that clippy does not recognise as such, since it is in no #[test] function.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use sys::lock::LockFile;

struct Server {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sk-health"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("SK_RUN", dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        Self { child, address, dir }
    }

    /// A module as its runner leaves it, for as long as the answer lives.
    fn module(&self, name: &str, state: &str) -> (LockFile, UnixListener) {
        let run = self.dir.path().join(name);
        std::fs::create_dir_all(&run).unwrap();
        let text = serde_json::json!({
            "module": name, "mode": "farm", "node": "node1", "state": state, "readiness": "Ready", "since": "2026-11-20T10:00:00Z",
            "application": "1.1",
        });
        std::fs::write(run.join("state.json"), text.to_string()).unwrap();
        let lock = LockFile::open(&run.join("lock")).unwrap();
        assert!(lock.try_exclusive().unwrap());
        (lock, UnixListener::bind(run.join("control")).unwrap())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends these bytes and reads until the server closes.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may have answered and closed before all was sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: node1\r\n\r\n").as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn ready_modules_are_200() {
    let server = Server::start(&[]);
    let life = server.module("web", "UP");
    assert!(server.get("/var/modules/web/ready.txt").ends_with("UP Ready\n"));
    assert!(server.get("/var/modules/web/state.json").contains("\"application\":\"1.1\""));
    assert!(server.send(b"HEAD /var/modules/web/ready.txt HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK"));
    assert!(server.get("/var/modules/db/ready.txt").starts_with("HTTP/1.1 404"));
    drop(life);
    assert!(server.get("/var/modules/web/ready.txt").starts_with("HTTP/1.1 404"), "its runner is dead");
}

#[test]
fn a_question_in_pieces_is_answered_and_a_second_one_is_not() {
    let server = Server::start(&[]);
    let _life = server.module("web", "UP");
    let mut stream = server.connect();
    for piece in
        ["GE", "T /var/modules/we", "b/ready.txt HTTP/1.1\r", "\nHost: x\r\n", "\r", "\nGET / HTTP/1.1\r\n\r\n"]
    {
        stream.write_all(piece.as_bytes()).unwrap();
        stream.flush().unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);
}

#[test]
fn garbage_and_endless_heads_get_a_word_and_the_end() {
    let server = Server::start(&[]);
    assert!(server.send(&[0, 1, 2, 255, b'\r', b'\n', b'\r', b'\n']).starts_with("HTTP/1.1 400"));
    assert!(server.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").starts_with("HTTP/1.1 400"), "TLS");
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 1 << 20]].concat();
    let answer = server.send(&endless);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(
        server.send(b"POST /var/modules/web/ready.txt HTTP/1.1\r\nContent-Length: 9\r\n\r\n123456789").contains("405")
    );
}

#[test]
fn slow_clients_are_sent_away_and_cost_the_others_nothing() {
    let server = Server::start(&["--connections", "16", "--patience", "2"]);
    let _life = server.module("web", "UP");
    let mut slow: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for stream in &mut slow {
        // Those over the limit are closed already.
        let _ = stream.write_all(b"GET /var/mod");
    }
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(server.get("/var/modules/web/ready.txt").starts_with("HTTP/1.1 200"));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for stream in &mut slow {
        let mut answer = String::new();
        // Sent away with 408, or closed to make room.
        if stream.read_to_string(&mut answer).is_ok() {
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
    }
}

#[test]
fn clients_that_say_nothing_or_leave_are_forgotten() {
    let server = Server::start(&["--patience", "1"]);
    let _life = server.module("web", "UP");
    let mut silent = server.connect();
    for _ in 0..200 {
        drop(server.connect());
    }
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = silent.read_to_end(&mut answer);
    assert!(answer.is_empty());
    assert!(server.get("/var/modules/web/ready.txt").starts_with("HTTP/1.1 200"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(open < 20, "{open} descriptors are open");
}

#[test]
fn many_at_once_are_all_answered() {
    let server = Server::start(&[]);
    let _life = server.module("web", "UP");
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| (0..20).all(|_| server.get("/var/modules/web/ready.txt").starts_with("HTTP/1.1 200")))
            })
            .collect();
        assert!(askers.into_iter().all(|a| a.join().unwrap()));
    });
}

#[test]
fn check_answers_by_its_exit_code() {
    let server = Server::start(&[]);
    let check = |module: &str, json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sk-health"));
        command.args(["check", module]).env("SK_RUN", server.dir.path());
        let output = if json { command.arg("--json") } else { &mut command }.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let _life = server.module("web", "UP");
    assert_eq!(check("web", false), (Some(0), "web: UP Ready\n".into()));
    assert_eq!(check("db", false), (Some(1), "db: STOP NotReady\n".into()));
    assert!(check("web", true).1.contains("\"readiness\":\"Ready\""));
    assert_eq!(check("a/b", false).0, Some(100));
}

#[test]
fn a_port_in_use_is_one_clear_error() {
    let server = Server::start(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_sk-health"))
        .args(["serve", "--listen", &server.address.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("cannot listen on {}", server.address)));
}
