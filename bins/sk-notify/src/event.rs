//! Which lines of a module's `events.jsonl` are worth telling, and how do they look to the script? Pure.

use serde_json::{Value, json};

/// Something to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub module: String,
    /// `C` critical, `E` event, `U` user action, `S` script, `I`, `W`, `D`. States are events.
    pub level: char,
    /// What the subject says of it: `ALONE Ready`, or nothing.
    pub state: Option<String>,
    /// The line for the script.
    pub line: Value,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Levels of messages.
    pub levels: String,
    /// Changes of resources, too.
    pub resources: bool,
}

/// Longest line believed.
pub const LINE_MAX: usize = 64 * 1024;

/// Reads a line. `None`: not chosen, or nothing that a runner writes.
pub fn read(node: &str, module: &str, line: &[u8], choice: &Choice) -> Option<Event> {
    if line.len() > LINE_MAX {
        return None;
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let t = text("t")?;
    let event = |level, state: Option<String>, line| Some(Event { module: module.to_owned(), level, state, line });
    match value["kind"].as_str()? {
        "state" => {
            let (state, readiness) = (text("state")?, text("readiness")?);
            let line = json!({"t": t, "node": node, "module": module, "kind": "state", "state": state, "readiness": readiness});
            event('E', Some(format!("{state} {readiness}")), line)
        }
        "log" => {
            let level = value["level"].as_str()?.chars().next()?;
            if !choice.levels.contains(level) {
                return None;
            }
            let line = json!({"t": t, "node": node, "module": module, "kind": "message", "level": level.to_string(),
                "from": text("from").unwrap_or_default(), "message": text("message")?});
            event(level, None, line)
        }
        "resource" if choice.resources => {
            let line = json!({"t": t, "node": node, "module": module, "kind": "resource", "resource": text("name")?,
                "value": text("value")?});
            event('I', None, line)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choice(levels: &str) -> Choice {
        Choice { levels: levels.into(), resources: false }
    }

    #[test]
    fn states_are_told_and_messages_by_level() {
        let read = |line: Value, choice: &Choice| read("node1", "db", line.to_string().as_bytes(), choice);
        let t = "2026-11-20T10:00:00.000000Z";
        let state = json!({"t": t, "kind": "state", "state": "ALONE", "readiness": "Ready"});
        let event = read(state, &choice("C")).unwrap();
        assert_eq!((event.level, event.state.as_deref()), ('E', Some("ALONE Ready")));
        assert_eq!(event.line["node"], "node1");
        let message = json!({"t": t, "kind": "log", "from": "heart", "level": "E", "message": "Remote state UNKNOWN"});
        assert_eq!(read(message.clone(), &choice("C")), None);
        assert_eq!(read(message, &choice("CE")).unwrap().line["message"], "Remote state UNKNOWN");
        let resource = json!({"t": t, "kind": "resource", "name": "tcp.web", "value": "down"});
        assert_eq!(read(resource.clone(), &choice("CEI")), None);
        let all = Choice { resources: true, ..choice("C") };
        assert_eq!(read(resource, &all).unwrap().line["resource"], "tcp.web");
        assert_eq!(read(json!({"t": t, "kind": "resync_begin"}), &all), None);
    }

    proptest! {
        #[test]
        fn garbage_is_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read("n", "m", &bytes, &choice("C")), None);
        }
    }
}
