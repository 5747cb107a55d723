//! Which checkers run, what do their words mean to the core, and which of them say nothing?

use super::input::Kind;
use super::{Runner, monotonic_ms};
use automaton::Verb;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A custom checker that has not reported for this long since its start is named in the log, and again each time the time has
/// doubled.
const SILENCE_MS: u64 = 30_000;
const LONGEST_SILENCE_MS: u64 = 3_600_000;

/// What is known of the checkers' process.
#[derive(Default)]
pub(super) struct CheckLink {
    /// The present life of each class that is switched on.
    lives: BTreeMap<String, u64>,
    last_life: u64,
    /// When silent checkers of a class are named next (monotonic ms), and the time after that.
    silence: BTreeMap<String, (u64, u64)>,
}

impl CheckLink {
    pub fn next_deadline(&self) -> Option<u64> {
        self.silence.values().map(|(at, _)| *at).min()
    }
}

impl Runner {
    /// Whether there are checkers, and they are not switched off.
    pub(super) fn checkers_run(&self) -> bool {
        !self.core.persisted().checkers_off && self.instance.check_spec().is_some()
    }

    /// A class was switched: its checkers begin or end with it.
    pub(super) fn switch_checkers(&mut self, class: &str, enabled: bool) {
        if !enabled {
            self.links.checks.lives.remove(class);
            self.links.checks.silence.remove(class);
            self.children.order(Kind::Check, &json!({"kind": "disable", "class": class}).to_string());
            return;
        }
        let link = &mut self.links.checks;
        link.last_life += 1;
        let life = link.last_life;
        link.lives.insert(class.to_owned(), life);
        self.expect_reports(class);
        self.children.order(Kind::Check, &json!({"kind": "enable", "class": class, "life": life}).to_string());
    }

    /// A new process is told which classes run.
    pub(super) fn enable_checkers(&mut self) {
        self.links.signs.seen(Kind::Check);
        for (class, life) in self.links.checks.lives.clone() {
            self.children.order(Kind::Check, &json!({"kind": "enable", "class": class, "life": life}).to_string());
        }
    }

    /// The module goes to STOP.
    pub(super) fn forget_checkers(&mut self) {
        self.links.checks.lives.clear();
        self.links.checks.silence.clear();
        self.links.signs.forget(Kind::Check);
    }

    /// `checker on|off`: the core knows already.
    pub(super) fn checkers_are_switched(&mut self) {
        let running = self.children.is_wanted(Kind::Check);
        if self.core.persisted().checkers_off {
            self.links.checks.silence.clear();
            self.links.signs.forget(Kind::Check);
            self.children.dismiss(Kind::Check);
            return;
        }
        let module_runs = self.core.state().name != automaton::StateName::Stop || self.core.is_busy();
        if !running && module_runs && self.checkers_run() {
            let classes: Vec<String> = self.links.checks.lives.keys().cloned().collect();
            for class in &classes {
                // What the former process may still say is about the past.
                self.links.checks.last_life += 1;
                self.links.checks.lives.insert(class.clone(), self.links.checks.last_life);
                self.expect_reports(class);
            }
            self.children.want(Kind::Check);
            if !self.children.is_running(Kind::Check) {
                self.start_child(Kind::Check);
            }
        }
    }

    fn expect_reports(&mut self, class: &str) {
        let off = self.core.persisted().checkers_off;
        if !off && self.instance.custom_checkers().any(|(_, of)| of == class) {
            let at = monotonic_ms().saturating_add(SILENCE_MS);
            self.links.checks.silence.insert(class.to_owned(), (at, SILENCE_MS));
        }
    }

    /// A custom checker reports by itself, or never: nobody but the log can say so.
    pub(super) fn name_silent_checkers(&mut self, now: u64) {
        let due: Vec<(String, u64)> = self
            .links
            .checks
            .silence
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(class, (_, waited))| (class.clone(), *waited))
            .collect();
        for (class, waited) in due {
            let silent: Vec<String> = self
                .instance
                .custom_checkers()
                .filter(|(name, of)| *of == class && self.facts.value(name).is_none_or(|value| value == "init"))
                .map(|(name, _)| name)
                .collect();
            if silent.is_empty() {
                self.links.checks.silence.remove(&class);
                continue;
            }
            let again = (waited * 2).min(LONGEST_SILENCE_MS);
            self.links.checks.silence.insert(class, (now.saturating_add(again), again));
            for name in silent {
                let blocks = self.core.waits_for().contains(&name);
                let then = if blocks { "; the module stays in WAIT (Transient) until it does" } else { "" };
                self.facts.say(
                    'C',
                    "customcheck",
                    &format!(
                        "Custom checker {name} has not reported for {} s: it must run safekit set -r {name} -v up|down -i NAME{then}",
                        waited / 1000
                    ),
                );
            }
        }
    }

    pub(super) fn check_line(&mut self, kind: &str, value: &Value) {
        let name = value["name"].as_str().unwrap_or_default().to_owned();
        match kind {
            "check" | "restarted" | "custom" => {
                let class = self.instance.checker_class(&name);
                let life = class.and_then(|class| self.links.checks.lives.get(class));
                if life.is_none() || life.copied() != value["life"].as_u64() {
                    return;
                }
            }
            "list" => return self.facts.event(value),
            "pong" => return self.links.signs.answered(Kind::Check),
            _ => return self.unknown(Kind::Check, kind),
        }
        let origin = format!("{}check", name.split('.').next().unwrap_or_default());
        match kind {
            "check" => {
                if let Some(reason) = value["reason"].as_str() {
                    self.facts.say('I', &origin, &format!("{name}: {reason}"));
                }
                let state = if value["value"] == json!("up") { "up" } else { "down" };
                self.resource(&name, state, &origin);
            }
            "restarted" => self.automatic(Verb::StopStart, &origin),
            _ => self.custom_line(&name, value),
        }
    }

    fn custom_line(&mut self, name: &str, value: &Value) {
        let how = value["how"].as_str().unwrap_or("?");
        let again = value["again_in_ms"].as_u64().unwrap_or_default();
        match value["state"].as_str() {
            Some("started") => {
                let pid = value["pid"].as_i64().unwrap_or_default();
                self.facts.say('I', "customcheck", &format!("Custom checker {name} runs, process {pid}"));
            }
            Some("stopped") => self.facts.say(
                'C',
                "customcheck",
                &format!("Custom checker {name} was stopped by a signal and checks nothing: it is killed"),
            ),
            Some("ended") => self.facts.say(
                'C',
                "customcheck",
                &format!("Custom checker {name} ended by itself ({how}); it is started again in {again} ms"),
            ),
            _ => self.facts.say(
                'C',
                "customcheck",
                &format!("Custom checker {name} cannot be started ({how}); tried again in {again} ms"),
            ),
        }
    }

    /// All rules with their present truth.
    pub(super) fn answer_rules(&self) -> String {
        json!({"ok": true, "module": self.instance.module, "node": self.instance.node,
            "state": self.core.state().to_string(), "rules": self.core.rules()})
        .to_string()
    }
}
