//! How are the questions of a page answered: one at a time, in a thread, again every few seconds.

use crate::app::{Answer, Past, Question, Update};
use crate::feed;
use crate::snapshot::Rule;
use serde::Deserialize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use sys::roots::Roots;

/// A page that stays is asked for again after this time.
const AGAIN: Duration = Duration::from_secs(2);
/// How much of the history is read, from its end.
const HISTORY: u64 = 512 * 1024;
/// Values of one resource that are shown.
const PAST_MAX: usize = 200;
/// `sk-module explain` may take this long and say this much.
const EXPLAIN_TIME: Duration = Duration::from_secs(10);
const EXPLAIN_MAX: u64 = 64 * 1024;

/// Asks, and never twice at the same time.
pub struct Asker {
    roots: Roots,
    updates: Sender<Update>,
    last: Option<(Question, Instant)>,
    busy: Arc<AtomicBool>,
}

impl Asker {
    pub fn new(roots: &Roots, updates: Sender<Update>) -> Self {
        Self { roots: roots.clone(), updates, last: None, busy: Arc::new(AtomicBool::new(false)) }
    }

    /// Asks when the question is a new one, or the answer may be old.
    pub fn ask(&mut self, question: Option<Question>) {
        let Some(question) = question else { return self.last = None };
        let known = self.last.as_ref().is_some_and(|(last, at)| *last == question && at.elapsed() < AGAIN);
        if known || self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        self.last = Some((question.clone(), Instant::now()));
        let (roots, updates, busy) = (self.roots.clone(), self.updates.clone(), self.busy.clone());
        std::thread::spawn(move || {
            let answer = answer(&roots, question);
            busy.store(false, Ordering::SeqCst);
            // Nobody listens any more when the screen was closed meanwhile.
            let _ = updates.send(Update::Answer(answer));
        });
    }
}

fn answer(roots: &Roots, question: Question) -> Answer {
    match question {
        Question::History { module, resource } => {
            let past = history(&roots.module_var(&module), &resource);
            Answer::History { module, resource, past }
        }
        Question::Rules { module } => {
            let why = explain(roots, &module);
            Answer::Rules { rules: rules(roots, &module), module, why }
        }
    }
}

/// Values of one resource, oldest first, from the files that the runner keeps. Damaged lines are skipped.
fn history(directory: &Path, resource: &str) -> Vec<Past> {
    #[derive(Deserialize)]
    struct Line {
        t: String,
        name: String,
        value: String,
        #[serde(default = "yes")]
        kept: bool,
        #[serde(default)]
        carried: bool,
    }
    fn yes() -> bool {
        true
    }
    let mut past = Vec::new();
    for name in ["resources.1.jsonl", "resources.jsonl"] {
        let (_, bytes) = sys::files::read_end(&directory.join(name), HISTORY).unwrap_or_default();
        let lines = bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        past.extend(
            lines.filter(|l| l.name == resource && l.kept && !l.carried).map(|l| Past { t: l.t, value: l.value }),
        );
    }
    past.split_off(past.len().saturating_sub(PAST_MAX))
}

/// What the runner says; without one there is nothing to hold.
fn rules(roots: &Roots, module: &str) -> Vec<Rule> {
    let Ok(Some(mut reader)) = feed::connect(roots, module, "rules") else { return Vec::new() };
    let Ok(Some(reply)) = feed::reply(&mut reader) else { return Vec::new() };
    let rules = reply["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

/// The words of `sk-module explain`.
fn explain(roots: &Roots, module: &str) -> Vec<String> {
    let program = roots.program("sk-module");
    let mut command = Command::new(&program);
    command.args(["explain", "-m", module]).stderr(Stdio::null());
    match sys::bounded::run(&mut command, EXPLAIN_TIME, EXPLAIN_MAX) {
        Ok(outcome) if outcome.status.is_none() => vec!["sk-module explain takes too long".to_owned()],
        Ok(outcome) if outcome.output.is_empty() => vec!["sk-module explain has nothing to say yet".to_owned()],
        Ok(outcome) => String::from_utf8_lossy(&outcome.output)
            .lines()
            .map(|line| line.replace('\t', "    ").replace(char::is_control, " "))
            .collect(),
        Err(error) => vec![format!("cannot run {}: {error}", program.display())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_of_one_resource_is_read_over_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let line = |name: &str, value: &str, more: &str| {
            format!("{{\"t\":\"T\",\"name\":\"{name}\",\"value\":\"{value}\"{more}}}\n")
        };
        std::fs::write(dir.path().join("resources.1.jsonl"), line("a.b", "up", "") + "torn").unwrap();
        let text = line("a.b", "up", ",\"carried\":true")
            + &line("a.c", "x", "")
            + &line("a.b", "hidden", ",\"kept\":false")
            + &line("a.b", "down", "");
        std::fs::write(dir.path().join("resources.jsonl"), text).unwrap();
        let values: Vec<String> = history(dir.path(), "a.b").into_iter().map(|p| p.value).collect();
        assert_eq!(values, ["up", "down"]);
        assert!(history(&dir.path().join("none"), "a.b").is_empty());
        let many: String = (0..1000).map(|n| line("a.b", &n.to_string(), "")).collect();
        std::fs::write(dir.path().join("resources.jsonl"), many).unwrap();
        let past = history(dir.path(), "a.b");
        assert_eq!((past.len(), past.last().map(|p| p.value.as_str())), (PAST_MAX, Some("999")));
    }
}
