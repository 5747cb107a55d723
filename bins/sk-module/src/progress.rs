//! What does a person see while a command waits? One line on the terminal, renewed, gone at the end.

use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Nothing is shown of a wait that is shorter.
const QUIET: Duration = Duration::from_secs(1);

/// A wait for a module. Interrupting the command ends the wait only: the module goes on with what it was asked.
pub(crate) struct Progress {
    began: Instant,
    shown: String,
    terminal: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { began: Instant::now(), shown: String::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// `reply`: what the runner says of its module; null without one.
    pub fn show(&mut self, module: &str, state: &str, readiness: &str, reply: &Value) {
        if !self.terminal || self.began.elapsed() < QUIET {
            return;
        }
        let line = words(module, state, readiness, reply, self.began.elapsed().as_secs());
        if line != self.shown {
            put(&format!("\r\x1b[K{line}"));
            self.shown = line;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() {
            put("\r\x1b[K");
        }
    }
}

/// A terminal that is gone shows nothing.
fn put(text: &str) {
    let mut errors = std::io::stderr();
    let _ = errors.write_all(text.as_bytes()).and_then(|()| errors.flush());
}

fn words(module: &str, state: &str, readiness: &str, reply: &Value, seconds: u64) -> String {
    let mut line = format!("{module}: {state} {readiness}, {seconds} s");
    if let Some(rule) = reply["rule"].as_str() {
        line += &format!(", rule {rule}");
    }
    let resync = &reply["replica"]["resync"];
    let figure = |name: &str| resync[name].as_u64().unwrap_or(0);
    if resync.is_object() {
        line += ", resynchronisation";
        if let Some(percent) = (figure("bytes") * 100).checked_div(figure("bytes_total")) {
            line += &format!(" {} %", percent.min(100));
        }
        line += &format!(" {}/{} files", figure("files"), figure("files_total"));
        if let Some(left) = resync["left_s"].as_u64() {
            line += &format!(", {left} s left");
        }
    }
    // One line of any terminal, and nothing in it that could command one.
    line.replace(char::is_control, " ").chars().take(79).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wait_says_where_it_is() {
        assert_eq!(words("db", "STOP", "NotReady", &Value::Null, 2), "db: STOP NotReady, 2 s");
        let resync = json!({"files": 12, "files_total": 34, "bytes": 250, "bytes_total": 1000, "left_s": 80});
        let reply = json!({"rule": null, "replica": {"resync": resync}});
        assert_eq!(
            words("db", "SECOND", "Transient", &reply, 9),
            "db: SECOND Transient, 9 s, resynchronisation 25 % 12/34 files, 80 s left"
        );
        let odd = json!({"rule": "r\u{1b}[2J", "replica": {"resync": {"bytes": "many"}}});
        let line = words("db", "WAIT", "NotReady", &odd, 9);
        assert!(!line.contains(char::is_control) && line.chars().count() <= 79, "{line}");
    }
}
