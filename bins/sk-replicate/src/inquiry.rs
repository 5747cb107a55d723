//! Questions to a running engine: the socket `/run/sk/AM/replicate`, one JSON line in, JSON lines out.

use crate::Trouble;
use replica::engine::verify::Verifier;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use sys::roots::Roots;

/// Longest question in bytes.
const QUESTION: u64 = 4096;
/// Who asks has this long to say what, and to take each line of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const CLIENTS: usize = 8;

/// What may be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Question {
    /// Compare both replicas.
    Verify {
        /// KiB a second that may be read on each node; 0 or absent: no limit.
        #[serde(default)]
        bandwidth_kbs: Option<u64>,
    },
}

/// Where the engine of a module answers.
pub fn path(roots: &Roots, module: &str) -> PathBuf {
    roots.module_run(module).join("replicate")
}

/// Answers in threads of its own until the process ends.
pub fn serve(module: &str, verifier: Verifier) -> Result<(), Trouble> {
    let path = path(&Roots::from_environment(), module);
    let listener = listen(&path).map_err(|e| Trouble::new(111, format!("{}: {e}", path.display())))?;
    std::thread::Builder::new().name("inquiry".into()).spawn(move || accept(&listener, &verifier))?;
    Ok(())
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    // What a dead process left; a living one of this module cannot be: the runner has only one.
    sys::files::remove(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, verifier: &Verifier) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // No descriptor is free: not a reason to spin.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        if clients.fetch_add(1, SeqCst) >= CLIENTS {
            clients.fetch_sub(1, SeqCst);
            continue;
        }
        let (verifier, counted) = (verifier.clone(), clients.clone());
        let spawned = std::thread::Builder::new().name("inquiry".into()).spawn(move || {
            // Who asks may go away at any time.
            let _ = answer(&stream, &verifier);
            counted.fetch_sub(1, SeqCst);
        });
        if spawned.is_err() {
            clients.fetch_sub(1, SeqCst);
        }
    }
}

/// One line. False: nobody reads it.
fn say(mut stream: &UnixStream, kind: &str, body: impl Serialize) -> bool {
    let Ok(Value::Object(mut line)) = serde_json::to_value(body) else { return false };
    line.insert("kind".into(), kind.into());
    stream.write_all(format!("{}\n", Value::Object(line)).as_bytes()).is_ok()
}

fn answer(stream: &UnixStream, verifier: &Verifier) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(QUESTION)).read_line(&mut line)?;
    let failed = |reason: String, hint: &str| say(stream, "failed", json!({ "reason": reason, "hint": hint }));
    match serde_json::from_str::<Question>(&line) {
        Err(e) => {
            failed(format!("not a question: {e}"), "use the sk-replicate of the same version");
        }
        Ok(Question::Verify { bandwidth_kbs }) => {
            let bandwidth = bandwidth_kbs.filter(|k| *k > 0).map(|k| k.saturating_mul(1024));
            let outcome =
                verifier.run(bandwidth, &mut |d| say(stream, "difference", d), &mut |s| say(stream, "progress", s));
            match outcome {
                Ok(summary) => say(stream, "verified", summary),
                Err(e) => failed(e.reason, &e.hint),
            };
        }
    }
    Ok(())
}
