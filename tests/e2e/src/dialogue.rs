//! How do we talk to a server through its own command-line client? A request to its stdin, its answer from its stdout, line by line.

use crate::gauge::Gauge;
use crate::ledger::Ledger;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Lines of the client that are not waited for are shown in an error, the last few.
const SHOWN: usize = 3;
/// Numbers left out after those of an earlier run: they may have been tried without an acknowledgement.
const GAP: u64 = 1000;

/// What is said in a dialogue; `{id}` stands for the number of a record.
#[derive(Clone, Debug)]
pub struct Words {
    /// Program and arguments of the client.
    pub command: Vec<String>,
    /// Said first on each connection, not answered.
    pub first: String,
    /// Asks for a record to be stored.
    pub request: String,
    /// The line that acknowledges it.
    pub answer: String,
}

/// A running client. After any error it must be dropped.
#[derive(Debug)]
pub struct Dialogue {
    child: Child,
    lines: Receiver<String>,
}

impl Dialogue {
    /// Starts the client.
    pub fn start(command: &[String]) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {program}"))?;
        let (sender, lines) = channel();
        read_lines(child.stdout.take().context("no pipe")?, sender.clone());
        read_lines(child.stderr.take().context("no pipe")?, sender);
        Ok(Self { child, lines })
    }

    /// Says something without waiting.
    pub fn say(&mut self, words: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("no pipe")?;
        input.write_all(words.as_bytes()).and_then(|()| input.write_all(b"\n")).context("the client has ended")?;
        input.flush().context("the client has ended")
    }

    /// Waits for a line; what came before it. Blanks around a line do not count.
    pub fn until(&mut self, line: &str, deadline: Duration) -> Result<Vec<String>> {
        let began = Instant::now();
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_sub(began.elapsed())) {
                Ok(text) if text == line => return Ok(seen),
                Ok(text) => seen.push(text),
                Err(why) => {
                    let last = seen.split_off(seen.len().saturating_sub(SHOWN));
                    match why {
                        RecvTimeoutError::Timeout => {
                            bail!("no {line:?} in {} ms; last said: {last:?}", deadline.as_millis())
                        }
                        RecvTimeoutError::Disconnected => {
                            bail!("the client ended without {line:?}; last said: {last:?}")
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands on what a client says until it ends or nobody listens.
fn read_lines(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line.trim().to_owned()).is_err() {
                break;
            }
        }
    });
}

/// A client that has said what is said first.
fn introduced(words: &Words) -> Result<Dialogue> {
    let mut dialogue = Dialogue::start(&words.command)?;
    if !words.first.is_empty() {
        dialogue.say(&words.first)?;
    }
    Ok(dialogue)
}

/// What a writer saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Pauses between acknowledgements.
    pub gauge: Gauge,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Requests and connections that failed.
    pub failures: u64,
    /// Words of the last failure.
    pub last_failure: String,
}

/// Stores one record after the other until `stop`, each tried once, and remembers in the ledger which were acknowledged.
pub fn write(words: &Words, ledger: &Path, deadline: Duration, stop: &AtomicBool) -> Result<Seen> {
    let mut next = match Ledger::read(ledger) {
        Ok(ids) => ids.last().map_or(1, |last| last + GAP),
        Err(_) => 1,
    };
    let mut remembered = Ledger::append_to(ledger)?;
    let began = Instant::now();
    let mut seen = Seen::default();
    let mut client: Option<Dialogue> = None;
    while !stop.load(Ordering::Relaxed) {
        let id = next;
        next += 1;
        let filled = |text: &str| text.replace("{id}", &id.to_string());
        let attempt = (|| -> Result<()> {
            let dialogue = if let Some(dialogue) = &mut client { dialogue } else { client.insert(introduced(words)?) };
            dialogue.say(&filled(&words.request))?;
            dialogue.until(&filled(&words.answer), deadline).map(drop)
        })();
        match attempt {
            Ok(()) => {
                seen.gauge.mark(began.elapsed());
                seen.acknowledged += 1;
                remembered.acknowledged(id)?;
            }
            Err(error) => {
                client = None;
                seen.failures += 1;
                seen.last_failure = format!("{error:#}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    seen.gauge.finish(began.elapsed());
    Ok(seen)
}

/// The numbers that a client lists: every line that is one, until the line `end`.
pub fn list(words: &Words, request: &str, end: &str, deadline: Duration) -> Result<Vec<u64>> {
    let mut dialogue = introduced(words)?;
    dialogue.say(request)?;
    Ok(dialogue.until(end, deadline)?.iter().filter_map(|line| line.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn words(script: &str) -> Words {
        Words {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            first: "hello".to_owned(),
            request: "put {id}".to_owned(),
            answer: "acked {id}".to_owned(),
        }
    }

    #[test]
    fn only_the_right_answer_acknowledges() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger");
        // Answers every third request with the number before, and ends after a while.
        let script = "read first; while read verb n; do case $n in *3) echo acked $((n - 1)) ;; *9) exit ;; *) echo \" acked $n \" ;; esac; done";
        let stop = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&words(script), &ledger, Duration::from_millis(500), &stop));
            let began = Instant::now();
            while Ledger::read(&ledger).map_or(0, |ids| ids.len()) < 12 && began.elapsed() < LONG {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap().unwrap()
        });
        let ids = Ledger::read(&ledger).unwrap();
        assert!(ids.len() >= 12 && seen.acknowledged >= 12, "{ids:?}");
        assert!(ids.iter().all(|id| id % 10 != 3 && id % 10 != 9), "{ids:?}");
        assert!(seen.failures >= 2 && !seen.last_failure.is_empty(), "{seen:?}");
    }

    #[test]
    fn lists_end_where_they_are_said_to() {
        let script = "read first; read what; echo no number; echo 7; echo ' 8 '; echo end; echo 9";
        assert_eq!(list(&words(script), "list", "end", LONG).unwrap(), [7, 8]);
        let error = list(&words("echo away >&2"), "list", "end", LONG).unwrap_err().to_string();
        assert!(error.contains("end"), "{error}");
    }
}
