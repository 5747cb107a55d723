//! What does a person see while a command waits for a module?

use serde_json::Value;

/// A wait for a module. Interrupting the command ends the wait only: the module goes on with what it was asked.
pub(crate) struct Progress(sys::progress::Progress);

impl Progress {
    pub fn new() -> Self {
        Self(sys::progress::Progress::begin())
    }

    /// `reply`: what the runner says of its module; null without one.
    pub fn show(&mut self, module: &str, state: &str, readiness: &str, reply: &Value) {
        self.0.show(|seconds| words(module, state, readiness, reply, seconds));
    }
}

fn words(module: &str, state: &str, readiness: &str, reply: &Value, seconds: u64) -> String {
    let mut line = format!("{module}: {state} {readiness}, {seconds} s");
    if let Some(rule) = reply["rule"].as_str() {
        line += &format!(", rule {rule}");
    }
    let resync = &reply["replica"]["resync"];
    let figure = |name: &str| resync[name].as_u64().unwrap_or(0);
    if resync.is_object() {
        line += ", resynchronisation";
        if let Some(percent) = (figure("bytes") * 100).checked_div(figure("bytes_total")) {
            line += &format!(" {} %", percent.min(100));
        }
        line += &format!(" {}/{} files", figure("files"), figure("files_total"));
        if let Some(left) = resync["left_s"].as_u64() {
            line += &format!(", {left} s left");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wait_says_where_it_is() {
        assert_eq!(words("db", "STOP", "NotReady", &Value::Null, 2), "db: STOP NotReady, 2 s");
        let resync = json!({"files": 12, "files_total": 34, "bytes": 250, "bytes_total": 1000, "left_s": 80});
        let reply = json!({"rule": null, "replica": {"resync": resync}});
        assert_eq!(
            words("db", "SECOND", "Transient", &reply, 9),
            "db: SECOND Transient, 9 s, resynchronisation 25 % 12/34 files, 80 s left"
        );
        let odd = json!({"rule": "r", "replica": {"resync": {"bytes": "many"}}});
        assert_eq!(
            words("db", "WAIT", "NotReady", &odd, 9),
            "db: WAIT NotReady, 9 s, rule r, resynchronisation 0/0 files"
        );
    }
}
