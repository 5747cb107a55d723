//! Which value has each resource that a rule may test: what checkers and scripts reported, what the core itself knows, and what the
//! peer published.

use super::{Core, Reach};
use crate::action::Action;
use crate::state::StateName;
use crate::supervision::Supervision;
use rules::{Scope, Value};

/// Classes that `checker off` silences.
const CHECKED: [&str; 7] = ["tcp.", "ping.", "intf.", "ip.", "module.", "custom.", "splitbrain."];

/// The core as the rules see it.
pub(super) struct View<'a>(pub &'a Core);

impl rules::Resources for View<'_> {
    fn value(&self, scope: Scope, class: &str, id: &str) -> Option<Value> {
        let name = format!("{class}.{id}");
        match scope {
            Scope::Local => self.0.local(&name),
            Scope::Remote => self.0.remote_values().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value),
        }
    }

    fn class(&self, scope: Scope, class: &str) -> Vec<(String, Value)> {
        let of_class = |name: &str| name.split_once('.').filter(|(c, _)| *c == class).map(|(_, id)| id.to_owned());
        match scope {
            Scope::Local => {
                let mut names: Vec<&String> =
                    self.0.reported.keys().chain(self.0.resources.keys()).filter(|n| of_class(n).is_some()).collect();
                names.sort();
                names.dedup();
                names.into_iter().filter_map(|n| Some((of_class(n)?, self.0.local(n)?))).collect()
            }
            Scope::Remote => {
                let values = self.0.remote_values();
                let known = values.iter().find_map(|(name, _)| of_class(name)).is_some();
                let silent = self.0.settings.supervision.published.iter().map(|name| (name.as_str(), Value::Unknown));
                let all: Vec<(&str, Value)> = if known { values } else { silent.collect() };
                all.into_iter().filter_map(|(name, value)| Some((of_class(name)?, value))).collect()
            }
        }
    }

    fn cluster(&self) -> Value {
        match self.0.reach {
            Reach::Unknown => Value::Init,
            Reach::Up => Value::Up,
            Reach::Down => Value::Down,
        }
    }
}

impl Core {
    fn local(&self, name: &str) -> Option<Value> {
        let word = |up: bool| if up { Value::Up } else { Value::Down };
        match name {
            // What is shown of these follows at the end of an event only.
            "rfs.uptodate" | "rfs.degraded" if self.settings.replicated && self.replica.is_none() => Some(Value::Init),
            "rfs.uptodate" if self.settings.replicated => Some(word(self.up_to_date())),
            "rfs.degraded" if self.settings.replicated => Some(word(self.degraded)),
            _ if self.persisted.checkers_off && is_checked(name) => Some(Value::Init),
            _ => self.reported.get(name).or_else(|| self.resources.get(name)).map(|text| Value::of(text)),
        }
    }

    /// The peer's resources as it published them; nothing while it is stopped or unreachable.
    fn remote_values(&self) -> Vec<(&str, Value)> {
        let peer = self.peer().filter(|p| p.state.name != StateName::Stop);
        let text = peer.and_then(|p| p.resources.as_deref());
        text.map(|text| self.settings.supervision.decode(text)).unwrap_or_default()
    }

    /// What the peer is told of our resources, when its rules ask for any.
    pub(super) fn published_resources(&self) -> Option<String> {
        self.settings.supervision.encode(|name| self.local(name).unwrap_or(Value::Init))
    }

    /// A checker, a script or the runner says what a resource is.
    pub(super) fn report(&mut self, name: &str, value: &str) {
        // The last words of a checker that was just stopped are about the past.
        if let Some(class) = self.settings.supervision.checkers.get(name)
            && (self.persisted.checkers_off || !self.classes.contains(class))
        {
            return;
        }
        self.reported.insert(name.to_owned(), value.to_owned());
    }

    /// Whether a report about this resource counts now: its checker is not switched off, and runs.
    pub fn hears(&self, name: &str) -> bool {
        !(self.persisted.checkers_off && is_checked(name))
            && self.settings.supervision.checkers.get(name).is_none_or(|class| self.classes.contains(class))
    }

    /// A class of checkers and watched processes begins or ends: its resources are not known until they are reported anew.
    pub(super) fn switch_class(&mut self, class: &str, enabled: bool) {
        let changed = if enabled { self.classes.insert(class.to_owned()) } else { self.classes.remove(class) };
        if changed {
            self.forget_checkers(|own| own == class);
        }
    }

    fn forget_checkers(&mut self, is: impl Fn(&str) -> bool) {
        let checkers = self.settings.supervision.checkers.iter();
        let names: Vec<String> = checkers.filter(|(_, class)| is(class)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.assign(&name, "init");
        }
    }

    /// Sets a resource and shows it.
    pub(super) fn assign(&mut self, name: &str, value: &str) {
        if self.reported.insert(name.to_owned(), value.to_owned()).as_deref() != Some(value) {
            self.out.push(Action::Resource { name: name.to_owned(), value: value.to_owned() });
        }
    }

    /// The virtual addresses are given back: nobody checks them any more.
    pub(super) fn forget_addresses(&mut self) {
        let checkers = &self.settings.supervision.checkers;
        self.reported.retain(|name, _| !name.starts_with("ip.") || checkers.contains_key(name));
    }

    /// A new life of the module: everything is reported anew, except what only scripts and operators assign.
    pub(super) fn forget_reports(&mut self) {
        let checkers = &self.settings.supervision.checkers;
        self.reported.retain(|name, _| name.starts_with("custom.") && !checkers.contains_key(name));
        self.classes.clear();
        self.forget_checkers(|_| true);
    }

    /// The configuration changed: new checkers have not reported, and those that are gone say nothing any more.
    pub(super) fn supervise_anew(&mut self, old: &Supervision) {
        let gone: Vec<String> = old
            .checkers
            .keys()
            .filter(|name| !self.settings.supervision.checkers.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.assign(&name, "init");
            self.reported.remove(&name);
        }
        let new: Vec<String> = self
            .settings
            .supervision
            .checkers
            .iter()
            .filter(|(name, class)| old.checkers.get(*name) != Some(class) && self.classes.contains(*class))
            .map(|(name, _)| name.clone())
            .collect();
        for name in new {
            self.assign(&name, "init");
        }
    }

    /// `checker on|off`.
    pub(super) fn set_checkers(&mut self, on: bool, origin: &str) {
        let word = if on { "on" } else { "off" };
        self.log('U', "safekit", format!("Action checker {word} called by {origin}"));
        self.persisted.checkers_off = !on;
        self.persist();
        self.out.push(Action::Resource { name: "usersetting.checker".into(), value: word.to_owned() });
        self.forget_checkers(|_| true);
        // What others than the checkers' own process look at goes on behind the mask.
        let masked: Vec<(String, String)> =
            self.reported.iter().filter(|(name, _)| is_checked(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        for (name, value) in masked {
            let value = if on { value } else { "init".to_owned() };
            self.out.push(Action::Resource { name, value });
        }
    }
}

pub(super) fn is_checked(name: &str) -> bool {
    CHECKED.iter().any(|class| name.starts_with(class))
}
