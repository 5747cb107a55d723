//! How is a module's runner asked? One JSON line over its control socket, one back.

use crate::cli::Failure;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use sys::roots::Roots;

/// The runner answers between two events and never after a script; a longer silence is a fault.
const PATIENCE: Duration = Duration::from_secs(10);
const REPLY_LIMIT: u64 = 4 * 1024 * 1024;

/// One request, one reply; `None` when the module has no runner. A refusal is an error with the runner's exit code.
pub fn ask(roots: &Roots, module: &str, request: &Value) -> Result<Option<Value>, Failure> {
    let path = roots.control_socket(module);
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Failure::new(111, format!("the runner of module {module} did not answer within {} s", PATIENCE.as_secs()))
        }
        _ => Failure::sys(format!("cannot ask the runner of module {module} ({})", path.display()), e),
    };
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
    let mut line = String::new();
    match BufReader::new(stream).take(REPLY_LIMIT).read_line(&mut line) {
        // It ended while it was asked, as a module in STOP may do.
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let reply: Value = serde_json::from_str(&line)
        .map_err(|e| Failure::new(111, format!("the reply of the runner of module {module} is malformed: {e}")))?;
    if reply.get("ok") == Some(&json!(false)) {
        return Err(refusal(&reply));
    }
    Ok(Some(reply))
}

fn refusal(reply: &Value) -> Failure {
    let text = |name| reply.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut message = match text("error") {
        "" => "refused without a reason".to_owned(),
        error => error.to_owned(),
    };
    if !text("hint").is_empty() {
        message = format!("{message}; {}", text("hint"));
    }
    let code = reply.get("exit").and_then(Value::as_u64).and_then(|n| u8::try_from(n).ok()).filter(|n| *n != 0);
    Failure::new(code.unwrap_or(1), message)
}

/// A module's state as far as commands need it.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub name: String,
    pub readiness: String,
    /// A transition runs or is queued.
    pub busy: bool,
    /// The whole reply; null without a runner.
    pub reply: Value,
}

impl State {
    pub fn from_reply(reply: Option<Value>) -> Self {
        let Some(reply) = reply else {
            return Self { name: "STOP".into(), readiness: "NotReady".into(), busy: false, reply: Value::Null };
        };
        let text = |name: &str| reply.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let busy = reply.get("busy").and_then(Value::as_bool).unwrap_or(false);
        Self { name: text("state"), readiness: text("readiness"), busy, reply }
    }

    /// No transition runs.
    pub fn is_settled(&self) -> bool {
        !self.busy && self.readiness != "Transient"
    }

    /// Exit code of `state -lq`.
    pub fn code(&self) -> u8 {
        match self.name.as_str() {
            "WAIT" => 1,
            "ALONE" | "UP" => 2,
            "PRIM" => 3,
            "SECOND" => 4,
            _ => 0,
        }
    }
}

/// The state now; without a runner the module is in STOP.
pub fn state(roots: &Roots, module: &str) -> Result<State, Failure> {
    Ok(State::from_reply(ask(roots, module, &json!({"verb": "state"}))?))
}

/// Who asks, for the module's log.
pub fn origin() -> String {
    sys::commands::caller()
}
