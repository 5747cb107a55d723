//! What does the control socket answer.

use super::Runner;
use super::board::Keep;
use super::control::refuse;
use super::input::Kind;
use crate::history::label;
use crate::switches::{Switch, word};
use automaton::{Event, Readiness, Verb};
use serde::Deserialize;
use serde_json::{Value, json};

/// Classes whose resources belong to the product: not assignable from outside.
const OWN_CLASSES: [&str; 8] =
    ["state.", "rfs.", "heart.", "heartbeat.", "heartbeatlocaladdr.", "ip.", "intf.", "farm."];

impl Runner {
    pub(super) fn answer(&mut self, request: &Value) -> String {
        let verb = request["verb"].as_str().unwrap_or_default();
        if matches!(verb, "state" | "get") {
            self.show_policy();
        }
        match verb {
            "state" => self.snapshot().to_string(),
            "set" => self.answer_set(request),
            "get" => self.answer_get(request),
            "log" => self.answer_log(request),
            "errd" => self.answer_errd(request),
            "failover" => self.answer_failover(request),
            "rules" => self.answer_rules(),
            "usersetting" => self.answer_usersetting(request),
            "reconfigure" => self.answer_reconfigure(request),
            "update" => self.answer_update(request),
            "leave" => self.answer_leave(),
            "boot" => self.answer_boot(),
            "resetloop" => {
                self.tell(Event::ResetLoop);
                ok()
            }
            "incloop" | "checkloop" => self.answer_loop(verb, request),
            _ => match Verb::deserialize(&request["verb"]) {
                Ok(verb) => self.answer_verb(verb, request),
                Err(_) => refuse(&format!("unknown verb {verb:?}"), "see: sk-module --help", 100),
            },
        }
    }

    fn answer_verb(&mut self, verb: Verb, request: &Value) -> String {
        if self.ending && !matches!(verb, Verb::ForceStop) {
            return refuse("the runner is shutting down", "", 1);
        }
        if matches!(verb, Verb::Start | Verb::Prim | Verb::PrimForce | Verb::Second)
            && let Err(reason) = self.instance.check_key()
        {
            self.facts.say('C', "heart", &reason);
            return refuse(
                &reason,
                "copy the cluster key of the other node to this one",
                crate::exit::BAD_CONFIGURATION,
            );
        }
        self.facts.refused = None;
        let stopped = self.core.state().name == automaton::StateName::Stop && !self.core.is_busy();
        if stopped && matches!(verb, Verb::Start | Verb::Prim | Verb::PrimForce | Verb::Second) {
            self.links.replica.since = request["since"].as_i64().filter(|_| verb == Verb::Second);
            if let Some(since) = self.links.replica.since {
                self.facts.say(
                    'U',
                    "rfsplug",
                    &format!("Content unchanged since {since} s is vouched for by the operator"),
                );
            }
        }
        if matches!(verb, Verb::ForceStop) {
            for name in self.scripts.kill_all() {
                self.facts.say('C', "userplug", &format!("Script {name} was killed by forcestop"));
            }
        }
        self.tell(Event::Command {
            verb,
            full: request["full"] == json!(true),
            identity: text(request, "identity"),
            origin: text(request, "origin").unwrap_or_else(|| "root".into()),
        });
        // What is refused at once is refused here; what turns out later is in the log and in `refused`.
        match &self.facts.refused {
            Some(reason) => {
                let (error, hint) = reason.split_once("; ").unwrap_or((reason, ""));
                refuse(error, hint, 1)
            }
            None => ok(),
        }
    }

    /// A runner in STOP ends: its configuration was replaced, and the next start reads the new one.
    fn answer_leave(&mut self) -> String {
        if self.core.state().name != automaton::StateName::Stop || self.core.is_busy() {
            return refuse("the module is not in STOP", "stop it first", 1);
        }
        self.ending = true;
        ok()
    }

    /// What the boot of the host does, for a runner that is there already; a module that runs goes on.
    fn answer_boot(&mut self) -> String {
        if self.core.state().name == automaton::StateName::Stop && !self.core.is_busy() && !self.ending {
            let mut persisted = self.persisted.clone();
            self.links.replica.since = None;
            if super::boot_decision(&self.instance, &mut persisted, true) {
                self.begin(true);
            }
        }
        ok()
    }

    fn answer_set(&mut self, request: &Value) -> String {
        let (Some(name), Some(value)) = (text(request, "resource"), text(request, "value")) else {
            return refuse("set needs a resource and a value", "safekit set -r custom.x -v up", 100);
        };
        if !is_resource_name(&name) || value.len() > 256 || value.contains(char::is_control) {
            return refuse(&format!("{name:?} is no resource (class.id), or the value is not one short line"), "", 100);
        }
        if let Some(switch) = name.strip_prefix("usersetting.") {
            let mut request = request.clone();
            request["name"] = json!(switch);
            return self.answer_usersetting(&request);
        }
        let origin = text(request, "identity").unwrap_or_else(|| "safekit".into());
        if name == "rfs.syncat" {
            return self.answer_syncat(&value, &origin);
        }
        if OWN_CLASSES.iter().any(|class| name.starts_with(class)) {
            return refuse(&format!("{name} belongs to the product and cannot be assigned"), "use the class custom", 1);
        }
        let keep = match request["history"].as_str() {
            Some("never") => Keep::Never,
            Some("always") => Keep::Always,
            _ => Keep::Changes,
        };
        self.resource_as(&name, &value, &origin, keep);
        ok()
    }

    fn answer_get(&mut self, request: &Value) -> String {
        let name = text(request, "resource").unwrap_or_default();
        match self.facts.value(&name) {
            Some(value) => json!({"ok": true, "resource": name, "value": value}).to_string(),
            None => refuse(&format!("no resource {name:?}"), "list them with: sk-module state -v", 1),
        }
    }

    fn answer_log(&mut self, request: &Value) -> String {
        let level = match request["level"].as_str() {
            Some("E") => 'E',
            Some("W") => 'W',
            Some("I") => 'I',
            _ => return refuse("the level is one of E, I, W", "", 100),
        };
        let message = text(request, "message").unwrap_or_default();
        let from = text(request, "identity").unwrap_or_else(|| "safekit".into());
        self.facts.say(level, &from, &message);
        ok()
    }

    fn answer_errd(&mut self, request: &Value) -> String {
        let class = text(request, "class");
        match (request["action"].as_str(), class) {
            (Some(action @ ("enable" | "disable")), Some(class)) if !class.is_empty() => {
                self.errd_class(&class, action == "enable");
                ok()
            }
            (Some("on"), _) => self.switch_errd(true, request),
            (Some("off"), _) => self.switch_errd(false, request),
            (Some("list"), _) => {
                let resources = self.facts.resources.iter().filter(|(name, _)| name.starts_with("proc."));
                let list: Vec<Value> =
                    resources.map(|(name, r)| json!({"name": name, "value": r.value, "t": r.t})).collect();
                json!({"ok": true, "classes": self.links.classes, "off": self.links.errd_off, "processes": list})
                    .to_string()
            }
            _ => refuse(
                "errd needs enable or disable with a class, or on, off, list",
                "safekit errd enable \"class\"",
                100,
            ),
        }
    }

    fn switch_errd(&mut self, on: bool, request: &Value) -> String {
        let origin = text(request, "origin").unwrap_or_else(|| "root".into());
        if let Err(error) = self.instance.switch_errd(on) {
            return refuse(
                &format!("the switch cannot be kept in {}: {error}", self.instance.user_var().display()),
                "mend the disk, then say it again",
                crate::exit::SYSTEM,
            );
        }
        self.facts.say('U', "safekit", &format!("Action errd {} called by {origin}", if on { "on" } else { "off" }));
        self.links.errd_off = !on;
        self.facts.assign("usersetting.errd", if on { "on" } else { "off" });
        self.children.order(Kind::Errd, if on { r#"{"kind":"on"}"# } else { r#"{"kind":"off"}"# });
        ok()
    }

    /// The persistent switches by name: `errd`, `checker`, `failover`, `boot`.
    fn answer_usersetting(&mut self, request: &Value) -> String {
        let on = request["value"] == json!("on");
        if !on && request["value"] != json!("off") {
            return refuse("a switch is on or off", "", 100);
        }
        match request["name"].as_str().and_then(Switch::parse) {
            Some(Switch::Errd) => self.switch_errd(on, request),
            Some(Switch::Failover) => self.answer_failover(request),
            Some(Switch::Checker) => {
                let origin = text(request, "origin").unwrap_or_else(|| "root".into());
                self.tell(Event::SetCheckers { on, origin });
                self.checkers_are_switched();
                ok()
            }
            Some(Switch::Boot) => self.switch_boot(on, request),
            None => refuse(&format!("there is no switch {}", request["name"]), "", 100),
        }
    }

    fn switch_boot(&mut self, on: bool, request: &Value) -> String {
        if let Err(error) = crate::switches::store_boot(&self.instance.user_var(), on) {
            return refuse(
                &format!("the switch cannot be kept in {}: {error}", self.instance.user_var().display()),
                "mend the disk, then say it again",
                crate::exit::SYSTEM,
            );
        }
        let origin = text(request, "origin").unwrap_or_else(|| "root".into());
        self.facts.say('U', "safekit", &format!("Action boot {} called by {origin}", word(on)));
        self.show_boot();
        ok()
    }

    fn answer_failover(&mut self, request: &Value) -> String {
        if self.instance.peer.is_none() {
            return refuse(&format!("a {} module has no failover", self.instance.mode()), "it is for mirrors", 1);
        }
        let on = match request["value"].as_str() {
            Some("on") => true,
            Some("off") => false,
            _ => return refuse("failover is on or off", "", 100),
        };
        self.facts.assign("usersetting.failover", if on { "on" } else { "off" });
        self.tell(Event::SetFailover { on, origin: text(request, "origin").unwrap_or_else(|| "root".into()) });
        ok()
    }

    /// `incloop` counts one more automatic action and `checkloop` only looks; `reached` says whether the limit is.
    fn answer_loop(&mut self, verb: &str, request: &Value) -> String {
        if verb == "incloop" {
            let identity = text(request, "identity").unwrap_or_else(|| "safekit".into());
            self.tell(Event::IncLoop { identity });
        }
        json!({"ok": true, "reached": self.core.loop_reached()}).to_string()
    }

    /// The content of `state.json` and of the `state` reply.
    pub(super) fn snapshot(&self) -> Value {
        let state = self.core.state();
        let resources: Vec<Value> = self
            .facts
            .resources
            .iter()
            .map(|(name, r)| json!({"name": name, "value": r.value, "t": r.t, "label": label(name)}))
            .collect();
        let heartbeats: Vec<Value> = self
            .facts
            .resources
            .iter()
            .filter(|(_, r)| r.value != "init")
            .filter_map(|(name, r)| {
                name.strip_prefix("heartbeat.").map(|ident| json!({"ident": ident, "value": r.value}))
            })
            .collect();
        let vip: Vec<Value> = self
            .instance
            .virtual_addresses()
            .into_iter()
            .map(|address| {
                let value = self.facts.vip.get(&address).map_or("down", String::as_str);
                json!({"address": address, "value": value})
            })
            .collect();
        let children: Vec<Value> = self
            .children
            .list()
            .into_iter()
            .map(|(kind, pid, restarts)| json!({"name": kind.label(), "pid": pid, "restarts": restarts}))
            .collect();
        json!({
            "ok": true,
            "module": self.instance.module,
            "node": self.instance.node,
            "peer": self.instance.peer,
            "mode": self.instance.mode(),
            "id": self.instance.id,
            "state": state.name,
            "readiness": state.readiness,
            "busy": self.core.is_busy() || state.readiness == Readiness::Transient,
            "remote": self.remote(),
            "since": self.facts.since,
            "application": format!("{}.{}", self.facts.application.0, self.facts.application.1),
            "data": self.core.data_state(),
            "standing": self.facts.replica.snapshot.as_ref().map(|s| s["standing"].clone()),
            "rule": self.core.rule(),
            "refused": self.facts.refused,
            "heartbeats": heartbeats,
            "vip": vip,
            "replica": self.replica_view(),
            "farm": self.farm_view(),
            "resources": resources,
            "children": children,
            "transitions": self.facts.transitions.view(),
            "lease_until_ms": self.lease_until_ms(),
        })
    }

    fn remote(&self) -> Value {
        match self.core.peer() {
            Some(peer) => json!({"state": peer.state.name, "readiness": peer.state.readiness}),
            None => json!({"state": null, "readiness": null}),
        }
    }

    fn replica_view(&self) -> Value {
        let Some(snapshot) = &self.facts.replica.snapshot else { return Value::Null };
        let traffic = |name: &str| self.facts.replica.traffic.as_ref().map_or(json!(0), |t| t[name].clone());
        json!({
            "role": snapshot["role"],
            "peer": snapshot["peer"],
            "frozen": snapshot["frozen"],
            "position": snapshot["position"],
            "in_bytes_s": traffic("in_bytes_s"),
            "out_bytes_s": traffic("out_bytes_s"),
            "lag_bytes": traffic("lag_bytes"),
            "ack_us": self.facts.replica.traffic.as_ref().map(|t| t["ack_us"].clone()),
            "ack_worst_us": self.facts.replica.traffic.as_ref().map(|t| t["ack_worst_us"].clone()),
            "resync": self.facts.replica.resync,
        })
    }
}

fn ok() -> String {
    json!({"ok": true}).to_string()
}

fn text(request: &Value, name: &str) -> Option<String> {
    request[name].as_str().map(str::to_owned)
}

fn is_resource_name(name: &str) -> bool {
    name.len() <= 128
        && name.split_once('.').is_some_and(|(class, id)| !class.is_empty() && !id.is_empty())
        && !name.contains(|c: char| c.is_control() || c.is_whitespace())
}
