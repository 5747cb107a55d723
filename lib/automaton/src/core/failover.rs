//! Which failover rule holds, and what follows from it?
//!
//! Rules are looked at whenever nothing is under way. Of the rules that hold, the one with the highest priority acts: stop, wait,
//! stopstart, swap, restart. A rule that still holds after its action acts again after `period`, so that `maxloop` ends it.

use super::resources::View;
use super::run::{StopRequest, Then};
use super::{Core, WAIT_READY};
use crate::event::Verb;
use crate::state::{Readiness, State, StateName};
use rules::{Action as Wish, Id, Origin, Resource, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the core remembers of rules between two events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Acting {
    /// Rules that acted and may not act again before this time (monotonic ms); `None`: their action is under way.
    resting: BTreeMap<String, Option<u64>>,
    /// The action that is wanted (its priority), and since when.
    wanted: Option<(u8, u64)>,
    /// When the rules must be looked at again.
    deadline: Option<u64>,
    /// What a module in WAIT was last said to wait for.
    waiting_for: Vec<String>,
}

/// A rule with its present truth, for `sk-module rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleView {
    pub label: String,
    #[serde(rename = "if")]
    pub condition: String,
    #[serde(rename = "then")]
    pub action: String,
    /// `None`: decided from the data and the peer; every module has these.
    pub origin: Option<Origin>,
    /// `None`: not evaluated, since what is in `waits_for` is `init`.
    pub truth: Option<bool>,
    pub waits_for: Vec<String>,
    /// It holds, and its action was taken or keeps the module in WAIT.
    pub acting: bool,
}

impl Core {
    pub(super) fn rule_deadline(&self) -> Option<u64> {
        self.acting.deadline
    }

    pub(super) fn forget_rules(&mut self) {
        self.acting = Acting::default();
    }

    /// In an active state: takes the action of the rule that governs. Returns whether anything was done.
    pub(super) fn failover_rules(&mut self) -> bool {
        self.acting.deadline = None;
        // What is about to be mended is not judged.
        if self.commands.iter().any(|c| c.automatic) {
            return false;
        }
        let set = &self.settings.supervision.rules;
        let mut holding: Vec<(String, Wish)> = Vec::new();
        let mut over: Vec<String> = Vec::new();
        for (rule, verdict) in set.verdicts(&View(self)) {
            if verdict == Verdict::True {
                holding.push((rule.label.clone(), rule.action.clone()));
            } else if rule.action.word().is_some() {
                over.push(rule.label.clone());
            }
        }
        let (period, handle) = (set.period_ms, set.handle_ms);
        for label in over {
            self.acting.resting.remove(&label);
        }
        let mut governing = None;
        for (label, wish) in holding {
            let rests = self.rests(&label, period);
            if let Wish::Assign { id, up } = &wish {
                if !rests {
                    self.acting.resting.insert(label.clone(), Some(self.now.saturating_add(period)));
                    if self.assign_by_rule(&label, id, *up) {
                        return true;
                    }
                }
                continue;
            }
            if wish == Wish::Swap && !self.swap_possible() {
                continue;
            }
            governing = Some((label, wish, rests));
            break;
        }
        let Some((label, wish, rests)) = governing else {
            self.acting.wanted = None;
            return false;
        };
        let since = match self.acting.wanted {
            Some((priority, since)) if priority == wish.priority() => since,
            _ => self.now,
        };
        self.acting.wanted = Some((wish.priority(), since));
        let due = since.saturating_add(handle);
        if rests {
            return false;
        }
        if due > self.now {
            self.wake_rules(due);
            return false;
        }
        self.acting.resting.insert(label.clone(), None);
        self.acting.wanted = None;
        self.act(&label, &wish);
        true
    }

    /// Whether a rule that holds has acted a short while ago.
    fn rests(&mut self, label: &str, period: u64) -> bool {
        let now = self.now;
        let Some(until) = self.acting.resting.get_mut(label) else { return false };
        // The first look after its action: from now on it rests.
        let until = *until.get_or_insert(now.saturating_add(period));
        if until > now {
            self.wake_rules(until);
            return true;
        }
        false
    }

    fn wake_rules(&mut self, at: u64) {
        self.acting.deadline = Some(self.acting.deadline.map_or(at, |old| old.min(at)));
    }

    fn act(&mut self, label: &str, wish: &Wish) {
        match wish {
            Wish::Wait => self.rule_action(Verb::Wait, label),
            Wish::StopStart => self.rule_action(Verb::StopStart, label),
            Wish::Restart => self.rule_action(Verb::Restart, label),
            Wish::Swap => self.rule_action(Verb::Swap, label),
            Wish::Stop => self.rule_action(Verb::Stop, label),
            Wish::Assign { .. } => {}
        }
    }

    /// Whether the resource had another value.
    fn assign_by_rule(&mut self, label: &str, id: &str, up: bool) -> bool {
        let (name, value) = (format!("custom.{id}"), if up { "up" } else { "down" });
        if self.reported.get(&name).is_some_and(|old| old == value) {
            return false;
        }
        self.assign(&name, value);
        let level = if up { 'I' } else { 'C' };
        self.log(level, "heart", format!("Resource {name} set to {value} by failover rule {label}"));
        true
    }

    fn swap_possible(&self) -> bool {
        self.can_swap()
            || (self.state == State::new(StateName::Second, Readiness::Ready)
                && !self.swap_wanted
                && self.peer().is_some_and(|p| p.state.name == StateName::Prim))
    }

    /// In WAIT: whether a rule keeps the module there, or what a wait rule tests is not known yet.
    pub(super) fn held_by_rules(&mut self) -> bool {
        self.acting.deadline = None;
        let set = &self.settings.supervision.rules;
        let mut stop = None;
        let mut wait = None;
        let mut unknown: Vec<String> = Vec::new();
        let mut assignments = Vec::new();
        for (rule, verdict) in set.verdicts(&View(self)) {
            match (&rule.action, verdict) {
                (Wish::Assign { id, up }, Verdict::True) => assignments.push((rule.label.clone(), id.clone(), *up)),
                (Wish::Stop, Verdict::True) => stop = stop.or_else(|| Some(rule.label.clone())),
                (Wish::Wait, Verdict::True) => wait = wait.or_else(|| Some(rule.label.clone())),
                (Wish::Wait, Verdict::Pending(names)) => {
                    unknown.extend(names.iter().filter(|n| self.comes_in_wait(n)).map(ToString::to_string));
                }
                _ => {}
            }
        }
        let period = set.period_ms;
        for (label, id, up) in assignments {
            if !self.rests(&label, period) {
                self.acting.resting.insert(label.clone(), Some(self.now.saturating_add(period)));
                if self.assign_by_rule(&label, &id, up) {
                    // Seen from anew: another rule may hold now.
                    return self.held_by_rules();
                }
            }
        }
        if let Some(label) = stop {
            self.rule_action(Verb::Stop, &label);
            return true;
        }
        if let Some(label) = wait {
            self.acting.waiting_for.clear();
            self.block(&label, &[]);
            return true;
        }
        unknown.sort();
        unknown.dedup();
        if unknown.is_empty() {
            self.acting.waiting_for.clear();
            return false;
        }
        if self.acting.waiting_for != unknown {
            self.log('I', "heart", format!("Waiting for the first report of {}", unknown.join(", ")));
            self.acting.waiting_for = unknown;
        }
        self.set_state(WAIT_READY, None);
        true
    }

    /// Whether a resource in `init` will be reported while the module is in WAIT: its checker runs there, or a script may set it.
    fn comes_in_wait(&self, resource: &Resource) -> bool {
        if self.persisted.checkers_off {
            return false;
        }
        let Id::Name(id) = &resource.id else { return false };
        let name = format!("{}.{id}", resource.class);
        match self.settings.supervision.checkers.get(&name) {
            Some(class) => class == "pre",
            None => resource.class == "custom",
        }
    }

    /// The resources that keep a starting module in WAIT because nobody has reported them yet.
    pub fn waits_for(&self) -> &[String] {
        if self.state.name == StateName::Wait { &self.acting.waiting_for } else { &[] }
    }

    /// An action of a rule: counted like every automatic action.
    pub(super) fn rule_action(&mut self, verb: Verb, rule: &str) {
        let word = super::commands::name(verb);
        self.log('C', "heart", format!("Action {word} from failover rule {rule}"));
        match verb {
            Verb::Stop => {
                self.unwant();
                self.request_stop(StopRequest { action: "stop", then: Then::Nothing, forced: false, pause: false });
            }
            Verb::Swap => self.commands.push_back(super::commands::Command::new(verb, true)),
            _ => {
                if verb == Verb::Wait {
                    // Said already: the state WAIT that follows repeats nothing.
                    self.last_complaint = Some(format!("{rule} {:?}", [] as [&str; 0]));
                }
                self.automatic(verb);
            }
        }
    }

    /// All rules with their present truth: those of the module in order of priority, then those decided from data and peer.
    pub fn rules(&self) -> Vec<RuleView> {
        let stopped = self.state.name == StateName::Stop;
        let mut all: Vec<RuleView> = self
            .settings
            .supervision
            .rules
            .verdicts(&View(self))
            .into_iter()
            .map(|(rule, verdict)| {
                let held = self.rule.as_deref() == Some(&rule.label);
                let (truth, waits_for) = match verdict {
                    // An address that could not be had is a fact of the last try, not the value of a resource.
                    _ if held => (Some(true), Vec::new()),
                    Verdict::True => (Some(true), Vec::new()),
                    Verdict::False => (Some(false), Vec::new()),
                    Verdict::Pending(names) => (None, names.iter().map(ToString::to_string).collect()),
                };
                RuleView {
                    label: rule.label.clone(),
                    condition: rule.condition.to_string(),
                    action: rule.action.to_string(),
                    origin: Some(rule.origin),
                    truth,
                    waits_for,
                    acting: truth == Some(true) && !stopped && (held || self.acting.resting.contains_key(&rule.label)),
                }
            })
            .collect();
        for (label, action, meaning) in rules::DECIDED {
            if label == super::scheduled::RULE && !self.waits_for_dates() {
                continue;
            }
            let holds = self.rule.as_deref() == Some(label);
            all.push(RuleView {
                label: label.to_owned(),
                condition: meaning.to_owned(),
                action: action.to_owned(),
                origin: None,
                truth: Some(holds),
                waits_for: Vec::new(),
                acting: holds,
            });
        }
        all
    }
}
