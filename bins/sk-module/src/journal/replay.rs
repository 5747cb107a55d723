//! Would the core decide the same again? Takes the decisions of journals a second time, on any machine.

use super::read::{Entry, Reader};
use super::{Line, words};
use crate::{Failure, exit};
use automaton::{Action, Core, Event};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A core that follows a journal.
#[derive(Default)]
pub(super) struct Replayer {
    /// None before the first head line, and after damage until the next one.
    pub core: Option<Core>,
    /// Inputs taken again.
    pub events: u64,
    /// Inputs that could not be taken: damaged, never written, or behind such a one.
    pub missing: u64,
}

/// What a line was.
pub(super) enum Taken {
    Begin {
        t: String,
        node: String,
        peer: String,
    },
    /// `same`: whether the core that was followed until here is the recorded one; None when none was followed.
    Snapshot {
        t: String,
        same: Option<bool>,
        lost: u64,
    },
    Event {
        t: String,
        input: Box<Event>,
        again: Vec<Action>,
    },
    /// An input without a core to take it.
    Unfollowed,
}

impl Replayer {
    pub fn take(&mut self, line: Line) -> Taken {
        match line {
            Line::Begin { t, settings, persisted, incarnation } => {
                let (node, peer) = (settings.node.clone(), settings.peer.clone());
                self.core = Some(Core::new(*settings, persisted, incarnation));
                Taken::Begin { t, node, peer }
            }
            Line::Snapshot { t, core, lost } => {
                let same = self.core.as_ref().filter(|_| lost == 0).map(|followed| *followed == *core);
                self.missing += lost;
                self.core = Some(*core);
                Taken::Snapshot { t, same, lost }
            }
            Line::Event { t, now, wall, input } => {
                let Some(core) = self.core.as_mut() else {
                    self.missing += 1;
                    return Taken::Unfollowed;
                };
                self.events += 1;
                let again = core.handle(now, wall, input.clone());
                Taken::Event { t, input: Box::new(input), again }
            }
        }
    }

    /// A line was unreadable: what follows it cannot be trusted until the next head.
    pub fn lose_track(&mut self) {
        self.core = None;
    }
}

/// The first decision that is not the recorded one.
struct Difference {
    place: String,
    t: String,
    input: String,
    recorded: Vec<String>,
    again: Vec<String>,
}

/// `sk-module replay FILE...`.
pub(crate) fn replay(paths: &[PathBuf], quiet: bool, as_json: bool) -> Result<u8, Failure> {
    let mut replayer = Replayer::default();
    let view = match (quiet, as_json) {
        (true, _) => View::Verdict,
        (false, true) => View::Json,
        (false, false) => View::Words,
    };
    for path in paths {
        if let Some(difference) = replay_file(&mut replayer, path, view)? {
            if as_json {
                let lines = |all: &[String]| all.iter().map(|line| parsed(line)).collect::<Vec<Value>>();
                say!(
                    "{}",
                    json!({"kind": "difference", "place": difference.place, "t": difference.t,
                        "input": parsed(&difference.input), "recorded": lines(&difference.recorded),
                        "again": lines(&difference.again)})
                );
                say!("{}", verdict(&replayer, false));
                return Ok(exit::REFUSED);
            }
            say!("{}: decided differently", difference.place);
            say!("  at       {}", difference.t);
            say!("  input    {}", difference.input);
            for (title, lines) in [("recorded", &difference.recorded), ("again", &difference.again)] {
                for line in lines {
                    say!("  {title:<8} {line}");
                }
                if lines.is_empty() {
                    say!("  {title:<8} nothing");
                }
            }
            say!("{} events, the last one decided differently", replayer.events);
            return Ok(exit::REFUSED);
        }
    }
    if as_json {
        say!("{}", verdict(&replayer, true));
    } else {
        say!("{} events decided the same, {} could not be replayed", replayer.events, replayer.missing);
    }
    let whole = replayer.missing == 0 && replayer.core.is_some();
    Ok(if whole { 0 } else { exit::BAD_CONFIGURATION })
}

/// What is printed beside the verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Verdict,
    Words,
    Json,
}

fn verdict(replayer: &Replayer, same: bool) -> Value {
    json!({"kind": "verdict", "same": same, "events": replayer.events, "missing": replayer.missing})
}

/// JSON as JSON, words as words.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// An input and what was decided, as it is replayed.
fn show_event(view: View, t: &str, input: &Event, again: &[Action]) -> Result<(), Failure> {
    match view {
        View::Verdict => {}
        View::Json => say!("{}", json!({"kind": "event", "t": t, "input": input, "actions": again})),
        View::Words => {
            say!("{t} {}", words::json(input));
            for action in again {
                say!("    -> {}", words::json(action));
            }
        }
    }
    Ok(())
}

fn replay_file(replayer: &mut Replayer, path: &Path, view: View) -> Result<Option<Difference>, Failure> {
    let mut reader = Reader::open(path)?;
    while let Some(entry) = reader.next()? {
        let place = format!("{}:{}", path.display(), reader.number);
        let Entry { line, actions } = match entry {
            Ok(entry) => entry,
            Err(reason) => {
                // The last line of a host that lost power may be torn.
                sys::warn!("{place}: not a line of a journal: {reason}");
                replayer.lose_track();
                continue;
            }
        };
        match replayer.take(line) {
            Taken::Begin { t, node, peer } => match view {
                View::Verdict => {}
                View::Json => say!("{}", json!({"kind": "begin", "t": t, "node": node, "peer": peer})),
                View::Words => say!("{t} begin: node {node}, peer {peer}"),
            },
            Taken::Snapshot { t, same: Some(false), .. } => {
                return Ok(Some(Difference {
                    place,
                    t,
                    input: "the core recorded here is not the one followed until here".into(),
                    recorded: vec![],
                    again: vec![],
                }));
            }
            Taken::Snapshot { t, lost, .. } => {
                if lost > 0 {
                    sys::warn!("{place}: {lost} inputs could not be written before this line");
                }
                match view {
                    View::Verdict => {}
                    View::Json => say!("{}", json!({"kind": "snapshot", "t": t, "lost": lost})),
                    View::Words => say!("{t} the journal goes on"),
                }
            }
            Taken::Event { t, input, again } => {
                show_event(view, &t, &input, &again)?;
                // Compared as written: a field that this version does not know is a difference, too.
                if serde_json::to_value(&again).ok().as_ref() != Some(&actions) {
                    return Ok(Some(Difference {
                        place,
                        t,
                        input: words::json(&*input),
                        recorded: each(&actions),
                        again: again.iter().map(words::json).collect(),
                    }));
                }
            }
            Taken::Unfollowed => {}
        }
    }
    Ok(None)
}

fn each(actions: &Value) -> Vec<String> {
    match actions.as_array() {
        Some(actions) => actions.iter().map(Value::to_string).collect(),
        None => vec![actions.to_string()],
    }
}
