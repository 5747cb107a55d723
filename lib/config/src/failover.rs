//! What does `<failover>` say, and which rules does a module have in all?

use crate::check::{Checks, When};
use crate::diagnostic::{Diagnostics, Span, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, suggestion};
use crate::tree::{Node, Words};
use rules::{Action, Id, Origin, Rule, RuleSet, Scope, Statement};
use std::collections::BTreeSet;
use std::time::Duration;

/// More `remote.` resources would not fit into a heartbeat.
const MAX_REMOTE: usize = 64;

/// `<failover>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Whether the default rules are kept.
    pub extends: bool,
    /// A rule that still holds after its action acts again after this time.
    pub period: Duration,
    /// The same action must be wanted for this long. Zero: at once.
    pub handle_time: Duration,
    /// The module's own rules.
    pub rules: Vec<Rule>,
    /// Labels of `Rules.disable`.
    pub disabled: Vec<String>,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            extends: true,
            period: Duration::from_secs(5),
            handle_time: Duration::ZERO,
            rules: Vec::new(),
            disabled: Vec::new(),
        }
    }
}

impl Failover {
    /// All rules: the default ones, those made of checkers, the module's own.
    pub fn rule_set(&self, checks: &Checks) -> RuleSet {
        let own: BTreeSet<&str> = self.rules.iter().map(|r| r.label.as_str()).collect();
        let mut all = if self.extends { rules::default_rules() } else { Vec::new() };
        all.extend(checks.rules());
        all.retain(|r| !own.contains(r.label.as_str()) && !self.disabled.contains(&r.label));
        all.extend(self.rules.iter().filter(|r| !self.disabled.contains(&r.label)).cloned());
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        RuleSet { rules: all, period_ms: millis(self.period), handle_ms: millis(self.handle_time) }
    }
}

/// What rules may name, beside the checkers.
pub(crate) struct Surroundings<'a> {
    pub mirror: bool,
    pub checks: &'a Checks,
    pub heartbeats: Vec<&'a str>,
    pub processes: Vec<&'a str>,
}

pub(crate) fn read(element: &Node, around: &Surroundings<'_>, found: &mut Diagnostics) -> Failover {
    no_children(element, found);
    let mut f = Fields::new(element);
    let yes_no = [("yes", true), ("no", false)];
    let period = f.period("period", Unit::Milliseconds, found).unwrap_or(Duration::from_secs(5));
    let mut failover = Failover {
        extends: f.choice("extends", &yes_no, found).unwrap_or(true),
        period,
        handle_time: f.duration("handle_time", Unit::Milliseconds, found).unwrap_or_default(),
        ..Failover::default()
    };
    let rest = failover.handle_time.as_millis().checked_rem(period.as_millis());
    if rest.is_some_and(|r| r != 0) {
        let message = format!(
            "handle_time {}ms is no multiple of period {}ms",
            failover.handle_time.as_millis(),
            period.as_millis()
        );
        found.error(
            f.place("handle_time").0,
            message,
            "choose one, or leave handle_time out: actions are then taken at once",
        );
    }
    if !failover.extends {
        let message = "extends=\"no\" removes the default rules: interface_failure, module_failure, ip_failure";
        let help = "to remove one of them only, write extends=\"yes\" and Rules.disable(\"…\") in a Lua section";
        found.warning(f.place("extends").0, message, help);
    }
    f.finish(found);

    let mut reader = Reader { failover: &mut failover, around, places: Vec::new() };
    for words in &element.words {
        reader.section(words, found);
    }
    reader.overrides(found);
    remote(&failover, around, found, element.span);
    failover
}

struct Reader<'a> {
    failover: &'a mut Failover,
    around: &'a Surroundings<'a>,
    /// Labels read, and labels disabled with their places.
    places: Vec<(String, Span)>,
}

/// A place inside a section, as a place of the file.
fn place(words: &Words, start: usize, end: usize) -> Span {
    if words.moved {
        return words.span;
    }
    Span { start: words.span.start + start, end: words.span.start + end }
}

impl Reader<'_> {
    fn section(&mut self, words: &Words, found: &mut Diagnostics) {
        if rules::is_lua(&words.text) {
            match rules::parse_lua(&words.text) {
                Ok(statements) => {
                    for statement in statements {
                        match statement {
                            Statement::Add(rule) => self.add(rule, words, found),
                            Statement::Disable { label, start, end } => {
                                self.places.push((label.clone(), place(words, start, end)));
                                self.failover.disabled.push(label);
                            }
                        }
                    }
                }
                Err(fault) => found.error(place(words, fault.start, fault.end), fault.message, fault.help),
            }
            return;
        }
        match rules::parse(&words.text) {
            Ok(rules) => {
                for rule in rules {
                    self.add(rule, words, found);
                }
            }
            Err(faults) => {
                for fault in faults {
                    found.error(place(words, fault.start, fault.end), fault.message, fault.help);
                }
            }
        }
    }

    fn add(&mut self, parsed: rules::Parsed, words: &Words, found: &mut Diagnostics) {
        let span = place(words, parsed.start, parsed.end);
        if self.failover.rules.iter().any(|r| r.label == parsed.label) {
            let message = format!("two rules have the label {}", quoted(&parsed.label));
            found.error(span, message, "give each its own label");
        }
        if rules::DECIDED.iter().any(|(label, ..)| *label == parsed.label) || parsed.label == "Implicit_wakeup" {
            let message = format!("the rule {} cannot be replaced", quoted(&parsed.label));
            found.error(span, message, "it keeps the data safe; choose another label");
        }
        if !self.around.mirror && parsed.action == Action::Swap {
            found.error(span, "swap() in a module without primary", "write restart(), stopstart(), wait() or stop()");
        }
        for resource in parsed.condition.resources() {
            self.resource(resource, &parsed.action, span, found);
        }
        let Action::Assign { id, .. } = &parsed.action else { return self.keep(parsed) };
        if self.around.checks.custom.iter().any(|c| c.ident == *id) {
            let message = format!("the rule assigns custom.{id}, which belongs to a checker");
            found.error(span, message, "assign a resource that no <custom> reports");
        }
        self.keep(parsed);
    }

    fn keep(&mut self, parsed: rules::Parsed) {
        let rule =
            Rule { label: parsed.label, condition: parsed.condition, action: parsed.action, origin: Origin::Module };
        self.failover.rules.push(rule);
    }

    /// A resource that nobody sets would keep its rule, or the module, waiting for ever.
    fn resource(&self, resource: &rules::Resource, action: &Action, span: Span, found: &mut Diagnostics) {
        if resource.scope == Scope::Remote && !self.around.mirror {
            let message = format!("{resource} in a module that has no peer");
            found.error(span, message, "rules of farm and light modules see the resources of their own node only");
        }
        let Id::Name(id) = &resource.id else { return };
        let checks = self.around.checks;
        let name = format!("{}.{id}", resource.class);
        let known = checks.resources();
        let all: Vec<&str> = match resource.class.as_str() {
            "tcp" | "ping" | "module" | "custom" => known.iter().map(|(name, _)| name.as_str()).collect(),
            "heartbeat" | "heartbeatlocaladdr" => self.around.heartbeats.clone(),
            "proc" => self.around.processes.clone(),
            _ => return,
        };
        let is_checker = matches!(resource.class.as_str(), "tcp" | "ping" | "module" | "custom");
        if is_checker && let Some((_, when)) = known.iter().find(|(known, _)| *known == name) {
            if *action == Action::Wait && *when != When::Pre && resource.scope == Scope::Local {
                let message = format!("a wait rule tests {name}, which is checked only while the application runs");
                let help = "in WAIT its value is init and the rule is not evaluated; use a checker with when=\"pre\"";
                found.warning(span, message, help);
            }
            return;
        }
        if all.contains(&if is_checker { name.as_str() } else { id.as_str() }) {
            return;
        }
        let message = format!("no checker of this module sets {name}");
        let near = suggestion(if is_checker { &name } else { id }, &all).map(|near| format!("did you mean '{near}'?"));
        if resource.class == "custom" {
            let help = near.unwrap_or_else(|| {
                "a script may set it; until then it is init, its rule is not evaluated, and a wait rule keeps the module waiting".to_owned()
            });
            found.warning(span, message, help);
        } else {
            let help = near.unwrap_or_else(|| {
                format!("add the checker, or remove the rule (it would never be evaluated); there are: {}", list(&all))
            });
            found.error(span, message, help);
        }
    }

    fn overrides(&self, found: &mut Diagnostics) {
        let generated = self.around.checks.rules();
        let defaults = if self.failover.extends { rules::default_rules() } else { Vec::new() };
        for (label, span) in &self.places {
            if rules::DECIDED.iter().any(|(decided, ..)| decided == label) || label == "Implicit_wakeup" {
                found.error(*span, format!("the rule {} cannot be disabled", quoted(label)), "it keeps the data safe");
                continue;
            }
            let all: Vec<&str> =
                defaults.iter().chain(&generated).chain(&self.failover.rules).map(|r| r.label.as_str()).collect();
            if !all.contains(&label.as_str()) {
                let help = suggestion(label, &all)
                    .map_or_else(|| format!("rules: {}", list(&all)), |near| format!("did you mean '{near}'?"));
                found.error(*span, format!("there is no rule {} to disable", quoted(label)), help);
            }
        }
    }
}

fn list(all: &[&str]) -> String {
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// What the peer must be told has to fit into a heartbeat.
fn remote(failover: &Failover, around: &Surroundings<'_>, found: &mut Diagnostics, span: Span) {
    let names = failover.rule_set(around.checks).remote_names(&around.names());
    if names.len() > MAX_REMOTE {
        let message = format!("the rules test {} remote resources, more than {MAX_REMOTE}", names.len());
        found.error(span, message, "test fewer: every heartbeat carries their values");
    }
}

impl Surroundings<'_> {
    /// All resources that are known beforehand.
    pub fn names(&self) -> Vec<String> {
        let mut all: Vec<String> = self.checks.resources().into_iter().map(|(name, _)| name).collect();
        all.extend(self.heartbeats.iter().map(|ident| format!("heartbeat.{ident}")));
        all.extend(self.processes.iter().map(|name| format!("proc.{name}")));
        all
    }
}
