//! How does a running module take a new configuration: all of it between two events, its processes started again where they must be.

use super::Runner;
use super::act::specification;
use super::control::refuse;
use super::input::Kind;
use crate::configure::{self, Plan};
use crate::exit;
use crate::instance::Instance;
use automaton::{Event, Readiness, StateName};
use serde_json::{Value, json};

/// Children that can be started again while the module runs. The holders of addresses cannot: what they are told is not dynamic.
const RENEWABLE: [Kind; 5] = [Kind::Heartbeat, Kind::Errd, Kind::Check, Kind::Replicate, Kind::Arbiter];

/// What the renewable children of a module are told, by name: the difference between two says which are touched.
pub(crate) fn child_specs(instance: &Instance) -> Vec<(&'static str, Option<Value>)> {
    RENEWABLE.iter().map(|kind| (kind.label(), specification(instance, *kind, 0).2)).collect()
}

impl Runner {
    /// The staged configuration becomes the applied one. In STOP the runner then ends: the next one reads it.
    pub(super) fn answer_reconfigure(&mut self, request: &Value) -> String {
        let state = self.core.state();
        let stopped = state.name == StateName::Stop;
        let readiness = format!("{:?}", state.readiness);
        let may_change = !self.ending && configure::may_change(state.name.as_str(), &readiness);
        if may_change && self.core.is_busy() {
            // A script of the change before, say: it passes.
            return json!({"ok": true, "busy": true}).to_string();
        }
        if !may_change {
            return refuse(
                &format!("module {} is in {state}: the new configuration cannot be deployed", self.instance.module),
                "apply it in STOP; or, where only dynamic attributes differ, in ALONE Ready, UP Ready or WAIT NotReady",
                exit::REFUSED,
            );
        }
        let (roots, module) = (self.instance.roots.clone(), self.instance.module.clone());
        let root = configure::staged(&roots, &module);
        if !configure::is_build(&root, request["build"].as_str().unwrap_or_default()) {
            return refuse("there is no such configuration to apply", "run sk-module config again", exit::REFUSED);
        }
        let Some(new) = Instance::load_staged(&roots, &module) else {
            return refuse(
                "the configuration to apply cannot be read",
                "see: sk-module confcheck",
                exit::BAD_CONFIGURATION,
            );
        };
        let plan = Plan::between(&self.instance, &new, &root.join("bin"));
        let fixed = plan.fixed();
        if !stopped && !fixed.is_empty() {
            let words = configure::fixed_words(&fixed, &module, state.name.as_str());
            return refuse(&words, "stop the module, then apply it", exit::REFUSED);
        }
        if let Err(error) = configure::exchange(&roots, &module) {
            return refuse(&format!("the configuration cannot be exchanged: {error}"), "mend the disk", exit::SYSTEM);
        }
        // The new one is applied, whatever happens from here on: a successor of this runner reads it.
        let old = std::mem::replace(&mut self.instance, new);
        if let Err(error) = self.instance.switch_errd(true) {
            self.facts.say('C', "safekit", &format!("errd cannot be switched on again: {error}"));
        }
        if !self.instance.ignores_boot()
            && let Err(error) = crate::switches::forget_boot(&self.instance.user_var())
        {
            self.facts.say('C', "safekit", &format!("what was said of the boot cannot be forgotten: {error}"));
        }
        let origin = request["origin"].as_str().unwrap_or("root").to_owned();
        let settings = Box::new(self.instance.settings());
        self.tell(Event::Settings { settings, origin });
        self.recall_switches();
        self.children.order(Kind::Errd, r#"{"kind":"on"}"#);
        if let Err(error) = self.instance.write_arbiter_spec() {
            self.facts.say('W', "heart", &format!("arbiter.json: {error}"));
        }
        if stopped {
            self.ending = true;
            return json!({"ok": true, "touched": []}).to_string();
        }
        self.renew_children(&old);
        let touched = plan.lines(true);
        for line in &touched {
            self.facts.say('I', "safekit", line);
        }
        json!({"ok": true, "touched": touched}).to_string()
    }

    /// Starts again what must be told something else; begins what is new, ends what is no longer there.
    fn renew_children(&mut self, old: &Instance) -> Vec<&'static str> {
        let mut renewed = Vec::new();
        for kind in RENEWABLE {
            let (before, after) = (specification(old, kind, 0).2, specification(&self.instance, kind, 0).2);
            if before == after {
                continue;
            }
            renewed.push(kind.label());
            if after.is_some() && self.children.is_running(kind) {
                // The replication engine would release the directories at the end of its input: it dies instead, and its successor
                // takes them over as they are.
                self.children.renew(kind, kind == Kind::Replicate);
            }
        }
        if let Some((heartbeat, errd, replicate)) = self.links.children_wanted {
            self.set_children(heartbeat, errd, replicate);
        }
        renewed
    }

    /// `update`: names and addresses of the cluster are read again; then the script of that name is called.
    pub(super) fn answer_update(&mut self, request: &Value) -> String {
        let state = self.core.state();
        let lawful = match state.name {
            StateName::Stop => return json!({"ok": true}).to_string(),
            StateName::Wait => true,
            StateName::Alone | StateName::Up => state.readiness == Readiness::Ready,
            StateName::Prim | StateName::Second => false,
        };
        if !lawful || self.core.is_busy() {
            return refuse(
                &format!("no update in {state}"),
                "it is for ALONE Ready, UP Ready and WAIT; the other states read the cluster at their next start",
                exit::REFUSED,
            );
        }
        let Some(new) = Instance::load_quietly(&self.instance.roots, &self.instance.module) else {
            return refuse(
                "the applied configuration does not fit the cluster any more",
                "see: sk-module confcheck",
                exit::BAD_CONFIGURATION,
            );
        };
        if new.node != self.instance.node || new.peer != self.instance.peer {
            return refuse("the nodes of the module have changed", "stop it, apply it again, start it", exit::REFUSED);
        }
        let old = std::mem::replace(&mut self.instance, new);
        for name in self.renew_children(&old) {
            self.facts.say('I', "safekit", &format!("{name} is started again: addresses have changed"));
        }
        let origin = request["origin"].as_str().unwrap_or("root").to_owned();
        self.tell(Event::Command { verb: automaton::Verb::Update, full: false, identity: None, origin });
        json!({"ok": true}).to_string()
    }
}
