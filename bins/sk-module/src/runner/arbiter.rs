//! How does the core reach its arbiter, and how do leases reach those who must keep them?

use super::Runner;
use super::input::Kind;
use automaton::Event;
use automaton::arbitration::{Answer, Request};
use serde::Deserialize;
use serde_json::{Value, json};

/// What was asked and is not answered yet, and the lease that a new child must be told.
#[derive(Default)]
pub(super) struct ArbiterLink {
    outstanding: Option<u64>,
    /// End of the lease, monotonic milliseconds.
    pub lease_until: u64,
}

impl Runner {
    pub(super) fn ask_arbiter(&mut self, id: u64, request: &Request) {
        let Ok(Value::Object(mut line)) = serde_json::to_value(request) else { return };
        line.insert("kind".into(), json!("ask"));
        line.insert("id".into(), json!(id));
        let line = Value::Object(line).to_string();
        // Not in the log: a lease is renewed every second or so. The journal has it.
        self.links.arbiter.outstanding = Some(id);
        if !self.children.order(Kind::Arbiter, &line) {
            self.arbiter_is_gone("sk-arbiter does not run");
        }
    }

    pub(super) fn arbiter_line(&mut self, kind: &str, value: &Value) {
        if kind != "answer" {
            return self.facts.say(
                'D',
                Kind::Arbiter.program(),
                &format!("an event of unknown kind {kind} was skipped"),
            );
        }
        let id = value["id"].as_u64().unwrap_or(0);
        let answer = Answer::deserialize(value)
            .unwrap_or_else(|error| Answer::Unreachable { reason: format!("sk-arbiter answered strangely: {error}") });
        self.links.arbiter.outstanding.take_if(|o| *o == id);
        let reached = !matches!(answer, Answer::Unreachable { .. });
        if let Some(ident) = self.instance.arbiter_ident() {
            self.resource(&format!("splitbrain.{ident}"), if reached { "up" } else { "down" }, "splitbraincheck");
        }
        self.tell(Event::Arbiter { id, answer });
    }

    /// The child ended, or was never there: what was asked is not answered any more.
    pub(super) fn arbiter_is_gone(&mut self, reason: &str) {
        if let Some(id) = self.links.arbiter.outstanding.take() {
            // After the present actions: the core is in the middle of one answer.
            self.pending.push_back(Event::Arbiter { id, answer: Answer::Unreachable { reason: reason.to_owned() } });
        }
    }

    pub(super) fn extend_lease(&mut self, until_ms: u64) {
        self.links.arbiter.lease_until = until_ms;
        for kind in [Kind::Replicate, Kind::Vip] {
            self.tell_lease(kind);
        }
    }

    /// End of the lease on the clock of `sys::clock::monotonic_ms`; `None` where no store gives leases, or before the first.
    pub(super) fn lease_until_ms(&self) -> Option<u64> {
        Some(self.links.arbiter.lease_until).filter(|until| *until > 0)
    }

    /// Before any other order, so that a new child need not wait for the next renewal.
    pub(super) fn tell_lease(&mut self, kind: Kind) {
        let until = self.links.arbiter.lease_until;
        if until > 0 && self.children.is_running(kind) {
            self.children.order(kind, &json!({"kind": "lease", "until_boottime_ms": until}).to_string());
        }
    }
}
