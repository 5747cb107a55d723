//! What does sk-arbiter make of servers that are slow, absent, lie, or are no etcd at all?

#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Answer = dyn Fn(&str, &str) -> Option<Vec<u8>> + Send + Sync;

/// A server that answers each request as it was told: path and body in, the whole answer out. None: silence.
struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
}

fn server(answer: impl Fn(&str, &str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let (answer, counted): (Arc<Answer>, _) = (Arc::new(answer), requests.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (answer, counted) = (answer.clone(), counted.clone());
            std::thread::spawn(move || talk(stream, &*answer, &counted));
        }
    });
    Server { url, requests }
}

fn talk(stream: TcpStream, answer: &Answer, counted: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        match answer(&path, &String::from_utf8_lossy(&body)) {
            Some(bytes) if writer.write_all(&bytes).is_ok() => {}
            Some(_) => return,
            None => std::thread::sleep(Duration::from_secs(30)),
        }
    }
}

fn http(status: &str, body: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

const EMPTY: &str = r#"{"header":{"revision":"3"}}"#;

/// `sk-arbiter run` with these endpoints.
struct Asker {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    _spec: tempfile::TempDir,
}

impl Asker {
    fn new(endpoints: &[&str], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("arbiter.json");
        let endpoints = serde_json::to_string(endpoints).unwrap();
        let begin = r#"{"module":"m","node":"n","arbiter":"etcd","key":"/sk/m","attempt_ms":1000"#;
        std::fs::write(&path, format!(r#"{begin},"endpoints":{endpoints}{more}}}"#)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sk-arbiter"))
            .args(["run", "--spec", path.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers, _spec: dir }
    }

    fn ask(&mut self, question: &str) -> serde_json::Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn read(&mut self) -> serde_json::Value {
        self.ask(r#"{"kind":"ask","id":7,"ask":"read"}"#)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn an_endpoint_that_is_down_or_silent_leaves_time_for_another() {
    let good = server(|_, _| http("200 OK", EMPTY));
    let silent = server(|_, _| None);
    // A port that nobody listens on.
    let gone = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut asker = Asker::new(&[&gone, &silent.url, &good.url], "");
    let began = Instant::now();
    let answer = asker.read();
    assert_eq!((answer["answer"].as_str(), answer["id"].as_u64()), (Some("found"), Some(7)), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(15));
    // From now on it begins with the one that answers.
    let before = silent.requests.load(Ordering::SeqCst);
    assert_eq!(asker.read()["answer"], "found");
    assert_eq!(silent.requests.load(Ordering::SeqCst), before);
}

#[test]
fn nothing_but_an_answer_of_etcd_is_taken_for_one() {
    let garbage: [Option<Vec<u8>>; 9] = [
        http("200 OK", "<html>Welcome</html>"),
        http("200 OK", "[]"),
        http("200 OK", "{}"),
        http("200 OK", r#"{"succeeded":true}"#),
        http("200 OK", r#"{"header":{"revision":"x"},"kvs":[]}"#),
        http("500 Internal Server Error", r#"{"message":"etcdserver: no leader"}"#),
        http("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nshort".to_vec()),
        Some(vec![0xff; 4096]),
    ];
    for bytes in garbage {
        let shown: String = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).chars().take(60).collect();
        let liar = server(move |_, _| bytes.clone());
        let mut asker = Asker::new(&[&liar.url], "");
        for question in [
            r#"{"kind":"ask","id":1,"ask":"read"}"#,
            r#"{"kind":"ask","id":1,"ask":"swap","expect":3,"record":{"owner":"n","by":"n"}}"#,
        ] {
            let answer = asker.ask(question);
            assert_eq!(answer["answer"], "unreachable", "{shown:?} {answer}");
            assert!(!answer["reason"].as_str().unwrap().is_empty());
        }
    }
}

#[test]
fn a_body_without_end_is_not_kept() {
    let endless = server(|_, _| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec();
        bytes.extend(vec![b' '; 3_000_000]);
        Some(bytes)
    });
    assert_eq!(Asker::new(&[&endless.url], "").read()["answer"], "unreachable");
}

#[test]
fn a_swap_says_what_it_expects_and_an_expired_login_is_renewed_once() {
    let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let (log, logins) = (seen.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = logins.clone();
    let etcd = server(move |path, body| {
        log.lock().unwrap().push((path.to_owned(), body.to_owned()));
        match path {
            "/v3/auth/authenticate" => {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                http("200 OK", &format!(r#"{{"header":{{"revision":"3"}},"token":"token{number}"}}"#))
            }
            // The first token is refused, as one that has expired.
            "/v3/kv/txn" if counter.load(Ordering::SeqCst) < 2 => {
                http("401 Unauthorized", r#"{"message":"etcdserver: invalid auth token"}"#)
            }
            "/v3/kv/txn" => http("200 OK", r#"{"header":{"revision":"9"},"succeeded":true}"#),
            _ => http("200 OK", EMPTY),
        }
    });
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "not told\n").unwrap();
    let login = format!(r#","user":"sk","password_file":"{}""#, password.path().display());
    let mut asker = Asker::new(&[&etcd.url], &login);
    assert_eq!(asker.read()["answer"], "found");
    let swap = r#"{"kind":"ask","id":2,"ask":"swap","expect":3,"record":{"owner":"n","by":"n","lease_ms":3000}}"#;
    let answer = asker.ask(swap);
    assert_eq!((answer["answer"].as_str(), answer["revision"].as_u64()), (Some("swapped"), Some(9)), "{answer}");
    assert_eq!(logins.load(Ordering::SeqCst), 2);
    let seen = seen.lock().unwrap();
    assert!(seen[0].1.contains(r#""password":"not told""#), "{seen:?}");
    let txn: serde_json::Value = serde_json::from_str(&seen.last().unwrap().1).unwrap();
    let compare = &txn["compare"][0];
    assert_eq!((&compare["mod_revision"], &compare["target"]), (&"3".into(), &"MOD".into()));
    assert_eq!(compare["result"], "EQUAL");
}

#[test]
fn nonsense_on_stdin_is_skipped_and_its_end_ends_it() {
    let good = server(|_, _| http("200 OK", EMPTY));
    let mut asker = Asker::new(&[&good.url], "");
    for nonsense in ["{}", "not json", r#"{"kind":"ask","id":1,"ask":"fly"}"#, r#"{"kind":"ask","ask":"read"}"#] {
        writeln!(asker.child.stdin.as_mut().unwrap(), "{nonsense}").unwrap();
    }
    assert_eq!(asker.read()["id"], 7);
    drop(asker.child.stdin.take());
    assert!(asker.child.wait().unwrap().success());
}

#[test]
fn certificates_that_cannot_be_used_are_an_answer_in_words() {
    let answer = Asker::new(&["https://127.0.0.1:1"], r#","ca":"/does/not/exist""#).read();
    assert!(answer["reason"].as_str().unwrap().contains("/does/not/exist"), "{answer}");
}
