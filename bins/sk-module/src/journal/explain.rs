//! Why is the module in its state? The journal is replayed up to a time, and the core and its last decisive inputs are put into words.

use super::read::Entry;
use super::replay::{Replayer, Taken};
use super::{files, read::Reader, words};
use crate::{Failure, exit};
use automaton::Action;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::json;
use std::collections::VecDeque;
use std::path::PathBuf;
use sys::lines::wrap;
use sys::roots::Roots;

/// Decisive inputs shown.
const CHAIN: usize = 12;

/// An input that changed the state, or began or refused something.
#[derive(Serialize)]
struct Decisive {
    t: String,
    input: String,
    decided: Vec<String>,
}

/// `sk-module explain`: of the module's own journal, or of the files given.
pub(crate) fn explain(
    roots: &Roots,
    module: Option<&str>,
    given: &[PathBuf],
    at: Option<&str>,
    as_json: bool,
) -> Result<u8, Failure> {
    let until = at.map(parse_time).transpose()?;
    let paths = match module {
        Some(module) if given.is_empty() => files(&roots.module_var(module)),
        _ => given.to_vec(),
    };
    let mut replayer = Replayer::default();
    let mut chain: VecDeque<Decisive> = VecDeque::new();
    let mut since = String::new();
    let mut peer = String::from("the other node");
    'files: for path in &paths {
        let mut reader = Reader::open(path)?;
        while let Some(entry) = reader.next()? {
            let Ok(Entry { line, .. }) = entry else {
                replayer.lose_track();
                continue;
            };
            if until.is_some_and(|until| time_of(&line).is_some_and(|t| t > until)) {
                break 'files;
            }
            match replayer.take(line) {
                Taken::Begin { t, peer: name, .. } => {
                    since = t;
                    peer = name;
                }
                Taken::Snapshot { lost, .. } => {
                    if let Some(core) = &replayer.core {
                        peer.clone_from(&core.settings().peer);
                    }
                    if lost > 0 {
                        chain.clear();
                    }
                }
                Taken::Event { t, input, again } => {
                    if again.iter().any(|a| matches!(a, Action::StateChanged { .. })) {
                        since.clone_from(&t);
                    }
                    note(&mut chain, t, words::input(&input, &peer), &again);
                }
                Taken::Unfollowed => {}
            }
        }
    }
    let Some(core) = replayer.core else {
        return Err(Failure::new(exit::REFUSED, "there is no journal to explain from, or it begins after that time")
            .hint(format!("looked at: {}", names(&paths))));
    };
    let explanation = core.explain();
    if as_json {
        say!(
            "{}",
            json!({
                "node": core.settings().node, "state": core.state().name, "readiness": core.state().readiness,
                "rule": core.rule(), "since": since, "because": explanation.because,
                "would_change": explanation.would_change, "decisive": chain,
            })
        );
        return Ok(0);
    }
    let rule = core.rule().map_or(String::new(), |rule| format!(", rule {rule}"));
    let head = format!("{}: {}{rule}, since {since}", core.settings().node, core.state());
    say!("{}", wrap(&head, 2));
    say!("Because");
    print_list(&explanation.because)?;
    say!("What would change it");
    print_list(&explanation.would_change)?;
    say!("How it came");
    for decisive in &chain {
        say!("{}", wrap(&format!("  {} {}", decisive.t, decisive.input), 6));
        for line in &decisive.decided {
            say!("{}", wrap(&format!("      -> {line}"), 9));
        }
    }
    if replayer.missing > 0 {
        sys::warn!("sk-module: {} inputs could not be replayed: what is said may miss their effect", replayer.missing);
    }
    Ok(0)
}

fn note(chain: &mut VecDeque<Decisive>, t: String, input: String, again: &[Action]) {
    let decided: Vec<String> = again.iter().filter_map(words::decision).collect();
    if decided.is_empty() {
        return;
    }
    chain.push_back(Decisive { t, input, decided });
    if chain.len() > CHAIN {
        chain.pop_front();
    }
}

fn print_list(lines: &[String]) -> Result<(), Failure> {
    for line in lines {
        say!("{}", wrap(&format!("  - {line}"), 4));
    }
    Ok(())
}

fn names(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "nothing".into();
    }
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn time_of(line: &super::Line) -> Option<Timestamp> {
    let (super::Line::Begin { t, .. } | super::Line::Snapshot { t, .. } | super::Line::Event { t, .. }) = line;
    t.parse().ok()
}

/// RFC 3339, or a date and time, or a time of today, as clocks show it here.
fn parse_time(text: &str) -> Result<Timestamp, Failure> {
    let wrong = || {
        Failure::new(exit::USAGE, format!("{text:?} is no time"))
            .hint("for example 2026-11-20T10:00:00Z, \"2026-11-20 10:00:00\" or 10:00:00 (of today)")
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let here = |time: DateTime| time.to_zoned(TimeZone::system()).map(|z| z.timestamp()).map_err(|_| wrong());
    if let Ok(time) = text.parse::<DateTime>()
        && text.contains(':')
    {
        return here(time);
    }
    let time: jiff::civil::Time = text.parse().map_err(|_| wrong())?;
    here(Timestamp::now().to_zoned(TimeZone::system()).date().to_datetime(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for good in ["2026-11-20T10:00:00Z", "2026-11-20 10:00:00", "2026-11-20T10:00:00.123", "10:00:00", "23:59"] {
            assert!(parse_time(good).is_ok(), "{good}");
        }
        for bad in ["", "yesterday", "2026-11-20", "25:00:00", "10:00:00 2026-11-20"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
