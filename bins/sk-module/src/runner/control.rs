//! Who may ask the runner something, and how do requests reach its loop: the control socket, from the serving side.

use super::input::Input;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longest request line.
const REQUEST_MAX: u64 = 64 * 1024;
/// Connections served at the same time; one more waits in the listen queue's place and is closed.
const CONNECTIONS_MAX: usize = 64;
/// A client that neither speaks nor listens for this long is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// A watcher sees a snapshot at least this often, so that a dead connection is noticed.
const WATCH_AT_LEAST: Duration = Duration::from_secs(1);

/// The latest snapshot, for watchers.
#[derive(Default)]
pub(super) struct Board {
    latest: Mutex<(u64, Arc<str>)>,
    changed: Condvar,
}

impl Board {
    pub fn post(&self, snapshot: String) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if *latest.1 != *snapshot {
            *latest = (latest.0 + 1, snapshot.into());
            self.changed.notify_all();
        }
    }

    /// Waits for a snapshot newer than `seen`, or for the time to pass.
    fn newer(&self, seen: u64) -> (u64, Arc<str>) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let (latest, _) = self
            .changed
            .wait_timeout_while(latest, WATCH_AT_LEAST, |l| l.0 == seen)
            .unwrap_or_else(PoisonError::into_inner);
        (latest.0, latest.1.clone())
    }
}

/// Opens the socket and serves it from threads. Root and the socket's group may connect (mode 0660).
pub(super) fn serve(path: &Path, inputs: Sender<Input>, board: Arc<Board>) -> std::io::Result<()> {
    sys::files::remove(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    std::thread::spawn(move || {
        let serving = Arc::new(());
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            if Arc::strong_count(&serving) > CONNECTIONS_MAX {
                continue;
            }
            let (inputs, board, token) = (inputs.clone(), board.clone(), serving.clone());
            std::thread::spawn(move || {
                // A client that went away concerns nobody.
                let _ = converse(stream, &inputs, &board);
                drop(token);
            });
        }
    });
    Ok(())
}

fn converse(mut stream: UnixStream, inputs: &Sender<Input>, board: &Board) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).take(REQUEST_MAX).read_line(&mut line)?;
    let mut request: Value = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let refusal = refuse(&format!("the request is not a JSON object on one line: {error}"), "", 100);
            return stream.write_all(format!("{refusal}\n").as_bytes());
        }
    };
    if request["verb"] == "watch" {
        let mut seen = 0;
        loop {
            let (number, snapshot) = board.newer(seen);
            seen = number;
            if !snapshot.is_empty() {
                stream.write_all(snapshot.as_bytes())?;
                stream.write_all(b"\n")?;
            }
        }
    }
    if let Ok(who) = getsockopt(&stream, PeerCredentials) {
        request["uid"] = json!(who.uid());
    }
    let (reply, answer) = sync_channel(1);
    let gone = || std::io::Error::other("the runner is ending");
    inputs.send(Input::Request { request, reply }).map_err(|_| gone())?;
    let answer = answer.recv().map_err(|_| gone())?;
    stream.write_all(format!("{answer}\n").as_bytes())
}

/// A reply that says no.
pub(super) fn refuse(error: &str, hint: &str, exit: u8) -> String {
    let hint = if hint.is_empty() { Value::Null } else { json!(hint) };
    json!({"ok": false, "error": error, "hint": hint, "exit": exit}).to_string()
}
