//! Which rules does a module have in all, and which of those that hold goes first?

use crate::evaluate::{Resources, Verdict};
use crate::expression::{Expression, Id, Resource, Scope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What a rule wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Stop,
    /// Stop the application and wait until no rule wants to wait.
    Wait,
    StopStart,
    Swap,
    Restart,
    /// `custom.ID = up` or `= down`, on this node.
    Assign {
        id: String,
        up: bool,
    },
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Every module has it.
    Default,
    /// Made of the `action` of a checker.
    Checker,
    /// Written in `<failover>`.
    Module,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub label: String,
    #[serde(rename = "if")]
    pub condition: Expression,
    #[serde(rename = "then")]
    pub action: Action,
    pub origin: Origin,
}

/// All rules of a module, and how they are applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    pub rules: Vec<Rule>,
    /// A rule that still holds after its action acts again after this time.
    pub period_ms: u64,
    /// The same action must be wanted for this long before it is taken. 0: at once.
    pub handle_ms: u64,
}

impl Default for RuleSet {
    fn default() -> Self {
        Self { rules: default_rules(), period_ms: 5_000, handle_ms: 0 }
    }
}

/// What is decided from data and peer, not from a table of resources: label, action, what it means. They cannot be removed.
pub const DECIDED: [(&str, &str, &str); 4] = [
    ("rfs_notuptodate_server", "wait()", "the data of this node may not be up to date"),
    ("degraded_server", "wait()", "replication failed on the other node"),
    ("rfs_syncat_wait", "wait()", "the other node serves, and the next date of syncat has not come"),
    ("splitbrain_failure", "wait()", "the other node is silent and the arbiter does not say that this one may serve"),
];

/// The rules that every module has, unless `extends="no"`.
pub fn default_rules() -> Vec<Rule> {
    [
        ("interface_failure", "intf", Action::Wait),
        ("module_failure", "module", Action::Wait),
        ("ip_failure", "ip", Action::StopStart),
    ]
    .into_iter()
    .map(|(label, class, action)| Rule {
        label: label.to_owned(),
        condition: Expression::is_down(Resource::local(class, Id::Any)),
        action,
        origin: Origin::Default,
    })
    .collect()
}

impl Action {
    /// The word of logs and commands; `None` for an assignment.
    pub const fn word(&self) -> Option<&'static str> {
        Some(match self {
            Self::Stop => "stop",
            Self::Wait => "wait",
            Self::StopStart => "stopstart",
            Self::Swap => "swap",
            Self::Restart => "restart",
            Self::Assign { .. } => return None,
        })
    }

    /// Assignments change facts and come first; of the others the one that takes most away.
    pub const fn priority(&self) -> u8 {
        match self {
            Self::Assign { .. } => 0,
            Self::Stop => 1,
            Self::Wait => 2,
            Self::StopStart => 3,
            Self::Swap => 4,
            Self::Restart => 5,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assign { id, up } => write!(f, "custom.{id} = {}", if *up { "up" } else { "down" }),
            action => write!(f, "{}()", action.word().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Rule {
    /// As it is written in `<failover>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: if ({}) then {};", self.label, self.condition, self.action)
    }
}

impl RuleSet {
    /// Every rule with its present truth, in the order of priority and then of the file.
    pub fn verdicts(&self, resources: &impl Resources) -> Vec<(&Rule, Verdict)> {
        let mut all: Vec<_> = self.rules.iter().map(|rule| (rule, rule.condition.evaluate(resources))).collect();
        all.sort_by_key(|(rule, _)| rule.action.priority());
        all
    }

    /// Which of the resources `known` on every node (`class.id`) rules test as `remote.`, and those they name: what each node
    /// tells its peer, in this order.
    pub fn remote_names(&self, known: &[String]) -> Vec<String> {
        let mut names = BTreeSet::new();
        let tested = self.rules.iter().flat_map(|r| r.condition.resources()).filter(|r| r.scope == Scope::Remote);
        for resource in tested {
            if let Id::Name(id) = &resource.id {
                names.insert(format!("{}.{id}", resource.class));
            } else {
                let all =
                    known.iter().filter(|n| n.split_once('.').is_some_and(|(class, id)| resource.covers(class, id)));
                names.extend(all.cloned());
            }
        }
        names.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    struct All(Value);

    impl Resources for All {
        fn value(&self, _: Scope, _: &str, _: &str) -> Option<Value> {
            Some(self.0)
        }
        fn class(&self, _: Scope, _: &str) -> Vec<(String, Value)> {
            vec![("x".to_owned(), self.0)]
        }
        fn cluster(&self) -> Value {
            Value::Up
        }
    }

    #[test]
    fn the_most_drastic_of_the_true_rules_goes_first() {
        let text = "a: if (tcp.x == down) then restart(); b: if (tcp.x == down) then swap(); c: if (tcp.x == down) then stopstart();\
             d: if (tcp.x == down) then wait(); e: if (tcp.x == down) then stop(); f: if (tcp.x == down) then custom.y = up;\
             g: if (tcp.x == down) then stop();";
        let rules = crate::parse(text).unwrap();
        let rules = rules
            .into_iter()
            .map(|p| Rule { label: p.label, condition: p.condition, action: p.action, origin: Origin::Module })
            .collect();
        let set = RuleSet { rules, ..RuleSet::default() };
        let order = |value| -> String {
            let found = set.verdicts(&All(value));
            found.iter().filter(|(_, v)| *v == Verdict::True).map(|(r, _)| r.label.as_str()).collect()
        };
        assert_eq!(order(Value::Down), "fegdcba");
        assert_eq!(order(Value::Up), "");
        assert_eq!(order(Value::Init), "");
    }

    #[test]
    fn a_set_survives_json() {
        let set = RuleSet::default();
        let text = serde_json::to_string(&set).unwrap();
        assert!(text.contains(r#""if":"intf.? == down","then":"wait""#), "{text}");
        assert_eq!(serde_json::from_str::<RuleSet>(&text).unwrap(), set);
    }
}
