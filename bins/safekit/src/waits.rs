//! When is a start, a stop or a state reached?

use crate::cli::Failure;
use crate::runner::{State, state};
use std::time::Duration;
use sys::roots::Roots;

/// How often the runner is asked while waiting.
const PERIOD: Duration = Duration::from_millis(100);

/// What `waitstart`, `waitstop` and `waitstate` say about a state: `None` means that waiting goes on.
type Verdict = Option<Result<(), String>>;

pub fn wait(roots: &Roots, module: &str, verdict: impl Fn(&State) -> Verdict) -> Result<u8, Failure> {
    loop {
        let now = state(roots, module)?;
        match verdict(&now) {
            Some(Ok(())) => return Ok(0),
            Some(Err(reason)) => return Err(Failure::new(1, format!("module {module} {reason}"))),
            None => std::thread::sleep(PERIOD),
        }
    }
}

/// The end of a start: serving or following. A module that stopped again is an error; one that waits for a resource or
/// its peer is waited for.
pub fn started(state: &State) -> Verdict {
    match state.name.as_str() {
        "STOP" if state.is_settled() => Some(Err("is in STOP: it was not started, or it stopped again".to_owned())),
        "STOP" | "WAIT" => None,
        _ => (state.is_settled() && state.readiness == "Ready").then_some(Ok(())),
    }
}

pub fn stopped(state: &State) -> Verdict {
    (state.name == "STOP" && state.is_settled()).then_some(Ok(()))
}

/// The named state, stable.
pub fn reached(state: &State, wanted: &str) -> Verdict {
    let stable = state.is_settled() && (state.readiness == "Ready" || matches!(wanted, "STOP" | "WAIT"));
    (state.name == wanted && stable).then_some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(name: &str, readiness: &str, busy: bool) -> State {
        State::from_reply(Some(json!({"state": name, "readiness": readiness, "busy": busy})))
    }

    #[test]
    fn a_start_ends_when_ready_and_fails_in_stop() {
        assert_eq!(started(&at("PRIM", "Ready", false)), Some(Ok(())));
        assert_eq!(started(&at("SECOND", "Transient", false)), None);
        assert_eq!(started(&at("PRIM", "Ready", true)), None);
        assert_eq!(started(&at("WAIT", "NotReady", false)), None);
        assert!(matches!(started(&at("STOP", "NotReady", false)), Some(Err(_))));
        assert_eq!(started(&at("STOP", "NotReady", true)), None);
    }

    #[test]
    fn a_missing_runner_is_stop() {
        assert_eq!(stopped(&State::from_reply(None)), Some(Ok(())));
        assert_eq!(stopped(&at("WAIT", "NotReady", false)), None);
        assert_eq!(reached(&at("ALONE", "Ready", false), "ALONE"), Some(Ok(())));
        assert_eq!(reached(&at("ALONE", "Transient", false), "ALONE"), None);
        assert_eq!(reached(&at("WAIT", "NotReady", false), "WAIT"), Some(Ok(())));
    }
}
