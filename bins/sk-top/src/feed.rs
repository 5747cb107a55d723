//! Where do the news come from: control sockets, log files, the list of modules. Threads that send [`Update`]s.

use crate::app::{Update, Verb};
use crate::snapshot::Snapshot;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;
use sys::modules;
use sys::roots::Roots;

/// How often the list of modules is read.
const LIST_PERIOD: Duration = Duration::from_secs(1);
/// How often a missing runner is looked for, and a log read.
const RETRY: Duration = Duration::from_millis(300);
/// A runner repeats its state at least every second; a longer silence is a fault.
const PATIENCE: Duration = Duration::from_secs(5);
const REPLY_LIMIT: u64 = 4 * 1024 * 1024;
/// How much of an old log is shown at the start.
const LOG_TAIL: u64 = 128 * 1024;

/// Starts following everything; ends with the process, or when the receiver is gone.
pub fn follow(roots: &Roots, updates: Sender<Update>) {
    let roots = roots.clone();
    thread::spawn(move || {
        let mut known = BTreeSet::new();
        loop {
            let present = modules::known(&roots);
            for module in present.difference(&known) {
                if updates.send(Update::Added { module: module.clone() }).is_err() {
                    return;
                }
                watch(roots.clone(), module.clone(), updates.clone());
            }
            for module in known.difference(&present) {
                if updates.send(Update::Removed { module: module.clone() }).is_err() {
                    return;
                }
            }
            known = present;
            thread::sleep(LIST_PERIOD);
        }
    });
}

/// Follows one module until it is removed.
fn watch(roots: Roots, module: String, updates: Sender<Update>) {
    let (log_roots, log_module, log_updates) = (roots.clone(), module.clone(), updates.clone());
    thread::spawn(move || {
        let mut log = LogTail::new(log_roots.module_var(&log_module).join("log"));
        while exists(&log_roots, &log_module) {
            for line in log.read() {
                if log_updates.send(Update::Line { module: log_module.clone(), line }).is_err() {
                    return;
                }
            }
            thread::sleep(RETRY);
        }
    });
    thread::spawn(move || {
        while exists(&roots, &module) {
            let update = match stream(&roots, &module, &updates) {
                Ok(true) => return,
                Ok(false) => Update::Module(Box::new(Snapshot::stopped(&module))),
                Err(reason) => Update::Trouble { module: module.clone(), reason },
            };
            if updates.send(update).is_err() {
                return;
            }
            thread::sleep(RETRY);
        }
    });
}

fn exists(roots: &Roots, module: &str) -> bool {
    roots.control_socket(module).exists() || roots.module_var(module).is_dir() || roots.module_source(module).is_dir()
}

pub(crate) fn connect(roots: &Roots, module: &str, verb: &str) -> io::Result<Option<BufReader<UnixStream>>> {
    let mut stream = match UnixStream::connect(roots.control_socket(module)) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(e),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", json!({ "verb": verb })).as_bytes())?;
    Ok(Some(BufReader::new(stream)))
}

/// One line of a runner; `None` at the end of the stream.
pub(crate) fn reply(reader: &mut BufReader<UnixStream>) -> Result<Option<Value>, String> {
    let mut line = Vec::new();
    match reader.by_ref().take(REPLY_LIMIT).read_until(b'\n', &mut line) {
        Ok(0) => Ok(None),
        Ok(_) => serde_json::from_slice(&line).map(Some).map_err(|e| format!("the runner's words are malformed: {e}")),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(format!("the runner was silent for {} s", PATIENCE.as_secs()))
        }
        Err(e) => Err(format!("cannot read from the runner: {e}")),
    }
}

/// Passes on what the runner says; `Ok(true)` when nobody listens any more, `Ok(false)` when there is no runner.
fn stream(roots: &Roots, module: &str, updates: &Sender<Update>) -> Result<bool, String> {
    let Some(mut reader) = connect(roots, module, "watch").map_err(|e| format!("cannot ask the runner: {e}"))? else {
        return Ok(false);
    };
    while let Some(value) = reply(&mut reader)? {
        let mut snapshot = Snapshot::read(value)?;
        // The place of the socket, not its words, names the module.
        module.clone_into(&mut snapshot.module);
        if updates.send(Update::Module(Box::new(snapshot))).is_err() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The state of a module once: the runner's reply, or that of a stopped module.
pub fn once(roots: &Roots, module: &str) -> Result<Value, String> {
    let stopped = || json!({"module": module, "state": "STOP", "readiness": "NotReady"});
    match connect(roots, module, "state").map_err(|e| format!("cannot ask the runner: {e}"))? {
        Some(mut reader) => Ok(reply(&mut reader)?.unwrap_or_else(stopped)),
        None => Ok(stopped()),
    }
}

/// New lines of a log file, across its rotation.
struct LogTail {
    path: PathBuf,
    /// Inode and position.
    place: Option<(u64, u64)>,
    rest: Vec<u8>,
}

impl LogTail {
    fn new(path: PathBuf) -> Self {
        Self { path, place: None, rest: Vec::new() }
    }

    /// New whole lines. A log that cannot be read has no lines.
    fn read(&mut self) -> Vec<String> {
        self.bytes().unwrap_or_default();
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end().replace(char::is_control, " "));
        }
        // A line without end must not grow for ever.
        if self.rest.len() as u64 > LOG_TAIL {
            self.rest.clear();
        }
        lines
    }

    fn bytes(&mut self) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        let (inode, size) = (metadata.ino(), metadata.len());
        let begin = match self.place {
            Some((known, position)) if known == inode && position <= size => position,
            // Rotated or truncated: from the beginning.
            Some(_) => 0,
            None => size.saturating_sub(LOG_TAIL),
        };
        file.seek(SeekFrom::Start(begin))?;
        let count = file.take(1024 * 1024).read_to_end(&mut self.rest)? as u64;
        if self.place.is_none() && begin > 0 {
            // The first line is most likely cut.
            let cut = self.rest.iter().position(|b| *b == b'\n').map_or(0, |end| end + 1);
            self.rest.drain(..cut);
        }
        self.place = Some((inode, begin + count));
        Ok(())
    }
}

/// Runs `sk-module VERB -m AM` and tells what became of it.
pub fn command(roots: &Roots, module: String, verb: Verb, updates: Sender<Update>) {
    let program = roots.program("sk-module");
    thread::spawn(move || {
        let word = verb.word();
        let mut command = Command::new(&program);
        command.args([word, "-m", &module]).stdin(Stdio::null());
        // SAFETY: only changes the signal mask, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(sys::signals::unblock_all);
        }
        let (message, failed) = match command.output() {
            Ok(output) if output.status.success() => (format!("{word} {module}: asked"), false),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr);
                let words: Vec<&str> = words.split_whitespace().collect();
                (format!("{word} {module}: {}", words.join(" ")), true)
            }
            Err(e) => (format!("cannot run {}: {e}", program.display()), true),
        };
        // Nobody listens any more when the screen was closed meanwhile.
        let _ = updates.send(Update::Outcome { message, failed });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_followed_across_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = |level: &str, text: &str| format!("2026-11-20 10:00:00 | heart | {level} | {text}\n");
        let mut tail = LogTail::new(path.clone());
        assert!(tail.read().is_empty(), "no file yet");
        std::fs::write(&path, line("E", "one") + &line("D", "two") + "2026-11-20 | half").unwrap();
        assert_eq!(tail.read(), [line("E", "one").trim_end(), line("D", "two").trim_end()]);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b" | E | done\n").unwrap();
        assert_eq!(tail.read(), ["2026-11-20 | half | E | done"]);
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        std::fs::write(&path, line("U", "new")).unwrap();
        assert_eq!(tail.read(), [line("U", "new").trim_end()]);
        assert!(tail.read().is_empty());
    }
}
