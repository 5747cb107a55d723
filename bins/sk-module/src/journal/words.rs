//! How are inputs and decisions of the core said in words?

use automaton::arbitration::Answer;
use automaton::{Action, Event, Evidence, ReplicaPeer, ReplicaRole};
use serde::Serialize;

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What says that the peer ended without a goodbye.
pub(crate) fn end_of_peer(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::RunnerDead => "its host reports the death of its runner",
        Evidence::PortUnreachable => "its host answers that nobody listens to heartbeats",
        Evidence::Unknown => "its host reports its end",
    }
}

/// An input, for people. `peer`: name of the other node.
pub(super) fn input(event: &Event, peer: &str) -> String {
    match event {
        Event::Begin { boot: true } => "the runner began at the boot of the host".into(),
        Event::Begin { boot: false } => "the runner began".into(),
        Event::Command { verb, full, identity, origin } => {
            let who = identity.as_ref().map_or_else(|| origin.clone(), |i| format!("{i} (automatic)"));
            let verb = json(verb);
            let full = if *full { " with a full copy" } else { "" };
            format!("{who} asked for {}{full}", verb.trim_matches('"'))
        }
        Event::PeerState { state, bye } => {
            let mut words = format!("{peer} said: {}, data {}", state.state, json(&state.standing).trim_matches('"'));
            for (said, meaning) in [
                (*bye, "goodbye"),
                (state.leaving, "leaving in good order"),
                (state.handover, "hands the primary role over"),
                (state.swap_wanted, "asks for a swap"),
                (state.swap_refused > 0, "has given our swap up"),
                (state.outdate_wanted, "asks us to count as not up to date"),
                (state.outdate_done, "counts as not up to date"),
                (state.degraded, "its replication is degraded"),
            ] {
                if said {
                    words = format!("{words}, {meaning}");
                }
            }
            words
        }
        Event::PeerDown => format!("no heartbeat of {peer}, or none any more"),
        Event::PeerUp => format!("a heartbeat of {peer} came after silence"),
        Event::PeerGone { evidence } => format!("{peer} ended without a goodbye: {}", end_of_peer(*evidence)),
        Event::ScriptDone { exit: Some(0), .. } => "a script ended".into(),
        Event::ScriptDone { exit: Some(code), .. } => format!("a script ended with exit code {code}"),
        Event::ScriptDone { exit: None, .. } => "a script was killed at the end of its time".into(),
        Event::Replica { report } => {
            let role = match report.role {
                ReplicaRole::Idle => "idle",
                ReplicaRole::Primary => "primary",
                ReplicaRole::Secondary => "secondary",
            };
            let stream = match report.peer {
                ReplicaPeer::Absent => "no stream",
                ReplicaPeer::Syncing => "synchronising",
                ReplicaPeer::InSync => "in sync",
                ReplicaPeer::Lost => "the stream is lost",
                ReplicaPeer::Left => "the secondary left",
            };
            let frozen = if report.frozen { ", writes wait" } else { "" };
            format!(
                "the replication engine reported: {role}, data {}, {stream}{frozen}",
                json(&report.standing).trim_matches('"')
            )
        }
        Event::ReplicaDone { .. } => "the replication engine carried out its order".into(),
        Event::ReplicaFailed { reason, .. } => format!("the replication engine failed: {reason}"),
        Event::ReplicaFault { reason } => format!("replication cannot go on: {reason}"),
        Event::VipDone { .. } => "the virtual addresses were set or released".into(),
        Event::VipFailed { reason, .. } => format!("the virtual addresses could not be set: {reason}"),
        Event::ByeDone => "the goodbye was said".into(),
        Event::Resource { name, value, origin } => format!("resource {name} became {value} (by {origin})"),
        Event::SetFailover { on, origin } => {
            format!("{origin} switched failover {}", if *on { "on" } else { "off" })
        }
        Event::SetCheckers { on, origin } => {
            format!("{origin} switched the checkers {}", if *on { "on" } else { "off" })
        }
        Event::FarmDone { .. } => "the farm's filter carried out its order".into(),
        Event::FarmFailed { reason, .. } => format!("the farm's filter failed: {reason}"),
        Event::Arbiter { answer, .. } => answered(answer),
        Event::ResetLoop => "the count of automatic actions was reset".into(),
        Event::IncLoop { identity } => format!("{identity} counted an automatic action of its own"),
        Event::RestartServices { services, identity } => {
            format!("{identity} found services missing that can be restarted alone: {}", services.join(", "))
        }
        Event::Settings { origin, .. } => format!("{origin} applied a configuration"),
        Event::Tick => "a deadline of the core passed".into(),
    }
}

fn answered(answer: &Answer) -> String {
    match answer {
        Answer::Reached => "a witness answered".into(),
        Answer::Unreachable { reason } => format!("the arbiter did not answer: {reason}"),
        Answer::Found { record: None, .. } => "the arbiter holds no record of the module".into(),
        Answer::Found { revision, record: Some(record) } => {
            format!("the arbiter holds, in revision {revision}, {}", spaced(record))
        }
        Answer::Strange { revision, reason } => {
            format!("the arbiter holds, in revision {revision}, something that is no record: {reason}")
        }
        Answer::Swapped { revision } => format!("the arbiter noted this node's record as revision {revision}"),
    }
}

/// JSON with blanks at which a line can be broken.
fn spaced(value: &impl Serialize) -> String {
    let (mut out, mut is_text, mut is_escaped) = (String::new(), false, false);
    for letter in json(value).chars() {
        out.push(letter);
        if is_text {
            (is_text, is_escaped) = (is_escaped || letter != '"', !is_escaped && letter == '\\');
        } else {
            is_text = letter == '"';
            if letter == ',' || letter == ':' {
                out.push(' ');
            }
        }
    }
    out
}

/// What an operator sees of a decision; None for what only machines need.
pub(super) fn decision(action: &Action) -> Option<String> {
    match action {
        Action::Log { level: 'U' | 'E' | 'C', message, .. } => Some(message.clone()),
        Action::StateChanged { state, rule } => Some(match rule {
            Some(rule) => format!("state {state}, rule {rule}"),
            None => format!("state {state}"),
        }),
        Action::Replicate { order, .. } => Some(format!("order to the replication engine: {}", spaced(order))),
        Action::Reboot => Some("reboot of the host".into()),
        Action::Refuse { error, hint } => Some(format!("refused: {error}; {hint}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use automaton::{PeerMode, ReplicaOrder};

    #[test]
    fn json_is_broken_outside_of_its_texts_only() {
        assert_eq!(spaced(&["a,b", "c\"d,e:", "\\"]), r#"["a,b", "c\"d,e:", "\\"]"#);
        assert_eq!(spaced(&(1, 2)), "[1, 2]");
        assert_eq!(spaced(&ReplicaOrder::Outdate), r#"{"kind": "outdate"}"#);
        let order = Action::Replicate { id: 7, order: ReplicaOrder::Primary { peer: PeerMode::Paired, force: true } };
        let said = decision(&order).unwrap_or_default();
        assert!(said.contains(r#""peer": "paired", "force": true"#), "{said}");
    }

    #[test]
    fn long_answers_of_an_arbiter_can_be_broken() {
        let reason =
            "https://[2001:db8:1234:5678:aaaa:bbbb:cccc:dddd]:2379: the certificate is for another name".to_owned();
        let said = input(&Event::Arbiter { id: 1, answer: Answer::Unreachable { reason } }, "node2");
        let lines = sys::lines::wrap(&format!("  2026-11-20T10:00:00.123456Z {said}"), 6);
        assert!(lines.lines().count() > 1 && lines.lines().all(|line| line.chars().count() <= 80), "{lines}");
    }
}
