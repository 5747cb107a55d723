//! What does a person see while a command takes its time? One line on the terminal, renewed, gone at the end.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing is shown of what is done sooner.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks at what is to be shown.
const RENEWED: Duration = Duration::from_millis(250);
/// One line of any terminal.
const WIDTH: usize = 79;

/// A line on stderr, where that is a terminal, from a second on.
pub struct Progress {
    began: Instant,
    shown: String,
    terminal: bool,
}

impl Progress {
    pub fn begin() -> Self {
        Self { began: Instant::now(), shown: String::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// Shows what `words` makes of the seconds that have passed.
    pub fn show(&mut self, words: impl FnOnce(u64) -> String) {
        if !self.terminal || self.began.elapsed() < QUIET {
            return;
        }
        let line = plain(&words(self.began.elapsed().as_secs()));
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

/// Nothing in it that could command a terminal.
fn plain(line: &str) -> String {
    line.replace(char::is_control, " ").chars().take(WIDTH).collect()
}

/// A terminal that is gone shows nothing.
fn put(text: &str) {
    let mut errors = std::io::stderr();
    let _ = errors.write_all(text.as_bytes()).and_then(|()| errors.flush());
}

/// A line that is shown beside the work, until this is dropped.
pub struct Beside(Option<(Sender<()>, JoinHandle<()>)>);

/// Shows what `words` says now, and for how many seconds the work has gone on, while something is done that cannot show it itself.
pub fn beside(words: impl Fn() -> String + Send + 'static) -> Beside {
    let mut progress = Progress::begin();
    if !progress.terminal {
        return Beside(None);
    }
    let (end, ended) = channel::<()>();
    let work = move || {
        while matches!(ended.recv_timeout(RENEWED), Err(RecvTimeoutError::Timeout)) {
            progress.show(|seconds| format!("{}, {seconds} s", words()));
        }
    };
    // Without a thread nothing is shown.
    Beside(std::thread::Builder::new().name("progress".into()).spawn(work).ok().map(|thread| (end, thread)))
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.0.take() {
            drop(end);
            // The line is taken back before anything else is printed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_commands_nothing() {
        let line = plain(&format!("a\x1b[2Jb\n{}", "x".repeat(200)));
        assert!(line.starts_with("a [2Jb x") && line.chars().count() == WIDTH, "{line}");
    }
}
