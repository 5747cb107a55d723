//! Questions to a running engine: the socket `/run/sk/AM/replicate`, one JSON line in, JSON lines out.

use crate::Trouble;
use replica::engine::verify::Verifier;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::ops::ControlFlow;
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
        /// What differs is put right.
        #[serde(default)]
        repair: bool,
    },
    /// What would the next synchronisation look at and send?
    Estimate,
}

/// The engine says something each second.
const SILENCE: Duration = Duration::from_mins(1);

/// Asks the engine of a module, and hands each line of its answer over, with its kind, until told to stop. An answer that breaks off is an error.
pub fn ask(
    roots: &Roots,
    module: &str,
    question: &Question,
    mut take: impl FnMut(&str, Value, &str) -> Result<ControlFlow<()>, Trouble>,
) -> Result<(), Trouble> {
    let path = path(roots, module);
    let stream = UnixStream::connect(&path).map_err(|e| {
        let text = format!("module {module} does not replicate on this node ({}: {e}); start it first", path.display());
        Trouble::new(3, text)
    })?;
    stream.set_read_timeout(Some(SILENCE))?;
    let question = serde_json::to_string(question).map_err(std::io::Error::from)?;
    writeln!(&stream, "{question}")?;
    for line in BufReader::new(&stream).lines() {
        let line = line.map_err(|e| Trouble::new(3, format!("the engine of module {module} does not answer: {e}")))?;
        let event: Value = serde_json::from_str(&line).map_err(std::io::Error::from)?;
        let kind = event.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if kind == "failed" {
            let word = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
            return Err(Trouble::new(3, format!("{}; {}", word("reason"), word("hint"))));
        }
        if take(&kind, event, &line)?.is_break() {
            return Ok(());
        }
    }
    Err(Trouble::new(3, format!("the engine of module {module} ended before it had answered; ask again")))
}

/// How far something is, for who watches a terminal.
pub struct Meter {
    shown: bool,
    width: usize,
}

impl Meter {
    /// `wanted`: and the standard error is a terminal.
    pub fn new(wanted: bool) -> Self {
        Self { shown: wanted && std::io::stderr().is_terminal(), width: 0 }
    }

    pub fn show(&mut self, text: &str) {
        if self.shown {
            self.clear();
            eprint!("\r{text}");
            self.width = text.len();
        }
    }

    pub fn clear(&mut self) {
        if self.width > 0 {
            eprint!("\r{:1$}\r", "", self.width);
            self.width = 0;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
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
        Ok(Question::Estimate) => {
            match verifier.estimate(&mut |so_far| say(stream, "progress", so_far)) {
                Ok(estimate) => say(stream, "estimate", estimate),
                Err(e) => failed(e.reason, &e.hint),
            };
        }
        Ok(Question::Verify { bandwidth_kbs, repair }) => {
            let bandwidth = bandwidth_kbs.filter(|k| *k > 0).map(|k| k.saturating_mul(1024));
            let (mut found, mut progress) = (|d| say(stream, "difference", d), |s| say(stream, "progress", s));
            let summary = match verifier.run(bandwidth, repair, &mut found, &mut progress) {
                Ok(summary) => summary,
                Err(e) => {
                    failed(e.reason, &e.hint);
                    return Ok(());
                }
            };
            say(stream, "verified", summary);
            if repair && summary.differences > 0 {
                match verifier.wait_in_sync(&mut |resync| say(stream, "repairing", json!({ "resync": resync }))) {
                    Ok(()) => say(stream, "repaired", json!({ "differences": summary.differences })),
                    Err(e) => failed(e.reason, &e.hint),
                };
            }
        }
    }
    Ok(())
}
