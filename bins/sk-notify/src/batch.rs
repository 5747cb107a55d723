//! When is the script called, with what, and how often after failures? Pure: time is an argument.

use crate::event::Event;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Rules of one destination.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long events are collected after the first one.
    pub gather: Duration,
    /// Calls for one batch, the first included.
    pub attempts: u32,
    /// Pause after the first failure; doubled after each further one.
    pub pause: Duration,
    /// Events kept; of more, the number.
    pub keep: usize,
}

const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What one call of the script gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub lines: Vec<Value>,
    /// Events that there was no room for.
    pub lost: u64,
    /// 1 for the first call for this batch.
    pub attempt: u32,
    pub subject: String,
    pub modules: BTreeSet<String>,
    /// The most serious level: C before E before U before the rest.
    pub worst: char,
}

/// What became of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made again after this time.
    Again(Duration),
    /// The batch is given up: this many events.
    GivenUp(usize),
}

/// The events of one destination that are not delivered yet.
#[derive(Debug)]
pub struct Batch {
    policy: Policy,
    node: String,
    waiting: VecDeque<Event>,
    lost: u64,
    /// Since when the first of the waiting ones waits; time as the caller counts it.
    since: Option<Duration>,
    /// Events of the present call.
    calling: Vec<Event>,
    called_lost: u64,
    attempt: u32,
    not_before: Duration,
    running: bool,
}

impl Batch {
    pub fn new(node: &str, policy: Policy) -> Self {
        Self {
            policy,
            node: node.to_owned(),
            waiting: VecDeque::new(),
            lost: 0,
            since: None,
            calling: Vec::new(),
            called_lost: 0,
            attempt: 0,
            not_before: Duration::ZERO,
            running: false,
        }
    }

    pub fn add(&mut self, now: Duration, event: Event) {
        if self.waiting.len() >= self.policy.keep {
            // The newest says how things are; the oldest what began. What came between is counted.
            self.waiting.remove(self.policy.keep / 2);
            self.lost += 1;
        }
        self.waiting.push_back(event);
        self.since.get_or_insert(now);
    }

    /// When something is to be done; `None`: when an event or the end of a call comes.
    pub fn due(&self) -> Option<Duration> {
        if self.running {
            return None;
        }
        if !self.calling.is_empty() {
            return Some(self.not_before);
        }
        self.since.map(|since| since + self.policy.gather)
    }

    /// The call that is to be made now. Its end is told by [`Batch::done`] or [`Batch::failed`].
    pub fn call(&mut self, now: Duration) -> Option<Call> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        if self.calling.is_empty() {
            self.calling = self.waiting.drain(..).collect();
            self.called_lost = std::mem::take(&mut self.lost);
            self.since = None;
            self.attempt = 0;
        }
        self.attempt += 1;
        self.running = true;
        Some(Call {
            lines: self.calling.iter().map(|e| e.line.clone()).collect(),
            lost: self.called_lost,
            attempt: self.attempt,
            subject: subject(&self.node, &self.calling),
            modules: self.calling.iter().map(|e| e.module.clone()).collect(),
            worst: worst(&self.calling),
        })
    }

    pub fn done(&mut self) {
        self.running = false;
        self.calling.clear();
    }

    pub fn failed(&mut self, now: Duration) -> Verdict {
        self.running = false;
        if self.attempt >= self.policy.attempts {
            let count = self.calling.len();
            self.calling.clear();
            return Verdict::GivenUp(count);
        }
        let pause = self.policy.pause.saturating_mul(1 << (self.attempt - 1).min(16)).min(LONGEST_PAUSE);
        self.not_before = now + pause;
        Verdict::Again(pause)
    }

    /// Nothing waits and nothing runs.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.calling.is_empty() && !self.running
    }
}

fn worst(events: &[Event]) -> char {
    ['C', 'E', 'U', 'S', 'W', 'I', 'D']
        .into_iter()
        .find(|level| events.iter().any(|e| e.level == *level))
        .unwrap_or('I')
}

/// `node1: db ALONE Ready, 2 critical messages; web UP Ready`
fn subject(node: &str, events: &[Event]) -> String {
    let mut modules: BTreeMap<&str, (Option<&str>, usize)> = BTreeMap::new();
    for event in events {
        let (state, critical) = modules.entry(&event.module).or_default();
        if let Some(now) = &event.state {
            *state = Some(now);
        }
        *critical += usize::from(event.level == 'C');
    }
    const SHOWN: usize = 4;
    let mut words: Vec<String> = modules
        .iter()
        .take(SHOWN)
        .map(|(module, (state, critical))| {
            let mut parts: Vec<String> = state.iter().map(|s| (*s).to_owned()).collect();
            match critical {
                0 => {}
                1 => parts.push("1 critical message".into()),
                n => parts.push(format!("{n} critical messages")),
            }
            if parts.is_empty() { (*module).to_owned() } else { format!("{module} {}", parts.join(", ")) }
        })
        .collect();
    if modules.len() > SHOWN {
        words.push(format!("{} more modules", modules.len() - SHOWN));
    }
    format!("{node}: {}", words.join("; "))
}

/// The batch that `sk-notify test` sends.
pub fn rehearsal(node: &str, t: &str) -> Call {
    let message = "This is a test of the notifications of sk";
    Call {
        lines: vec![json!({"t": t, "node": node, "module": "-", "kind": "message", "level": "E", "from": "sk-notify",
            "message": message})],
        lost: 0,
        attempt: 1,
        subject: format!("{node}: test"),
        modules: BTreeSet::new(),
        worst: 'E',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn policy() -> Policy {
        Policy { gather: 10 * S, attempts: 3, pause: 5 * S, keep: 4 }
    }

    fn event(module: &str, level: char, state: Option<&str>) -> Event {
        Event { module: module.into(), level, state: state.map(str::to_owned), line: json!({"m": module}) }
    }

    #[test]
    fn events_of_some_seconds_are_told_together() {
        let mut batch = Batch::new("n1", policy());
        assert_eq!((batch.due(), batch.call(99 * S)), (None, None));
        batch.add(100 * S, event("db", 'E', Some("ALONE Transient")));
        batch.add(105 * S, event("db", 'C', None));
        batch.add(106 * S, event("db", 'E', Some("ALONE Ready")));
        batch.add(109 * S, event("web", 'U', None));
        assert_eq!(batch.call(109 * S), None);
        let call = batch.call(110 * S).unwrap();
        assert_eq!((call.lines.len(), call.attempt, call.worst), (4, 1, 'C'));
        assert_eq!(call.subject, "n1: db ALONE Ready, 1 critical message; web");
        batch.add(111 * S, event("db", 'C', None));
        assert_eq!(batch.call(200 * S), None, "one call at a time");
        batch.done();
        assert_eq!(batch.call(200 * S).unwrap().lines.len(), 1);
        batch.done();
        assert!(batch.is_empty());
    }

    #[test]
    fn failures_are_repeated_with_growing_pauses_and_not_for_ever() {
        let mut batch = Batch::new("n1", policy());
        batch.add(Duration::ZERO, event("db", 'C', None));
        assert_eq!(batch.call(10 * S).unwrap().attempt, 1);
        assert_eq!(batch.failed(12 * S), Verdict::Again(5 * S));
        assert_eq!(batch.call(16 * S), None);
        assert_eq!(batch.call(17 * S).unwrap().attempt, 2);
        batch.add(18 * S, event("db", 'C', None));
        assert_eq!(batch.failed(20 * S), Verdict::Again(10 * S));
        let third = batch.call(30 * S).unwrap();
        assert_eq!((third.attempt, third.lines.len()), (3, 1), "a repeated batch does not grow");
        assert_eq!(batch.failed(31 * S), Verdict::GivenUp(1));
        assert_eq!(batch.call(31 * S).unwrap().attempt, 1, "the next batch has waited long enough");
    }

    #[test]
    fn a_flood_keeps_its_beginning_and_its_end() {
        let mut batch = Batch::new("n1", policy());
        for n in 0..100 {
            batch.add(S, Event { line: json!(n), ..event("db", 'C', None) });
        }
        let call = batch.call(20 * S).unwrap();
        assert_eq!((call.lines, call.lost), (vec![json!(0), json!(1), json!(98), json!(99)], 96));
    }

    #[test]
    fn a_subject_is_short() {
        let events: Vec<Event> = (0..40).map(|n| event(&format!("m{n:02}"), 'C', Some("STOP NotReady"))).collect();
        let subject = subject("n1", &events);
        assert!(subject.ends_with("; 36 more modules") && subject.len() < 250, "{subject}");
    }
}
