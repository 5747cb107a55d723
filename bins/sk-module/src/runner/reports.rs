//! What do the lines and the ends of children mean to the core.

use super::Runner;
use super::board::Keep;
use super::input::Kind;
use automaton::{Event, Evidence, Published, ReplicaReport, Verb};
use serde::Deserialize;
use serde_json::{Value, json};

impl Runner {
    pub(super) fn child_line(&mut self, kind: Kind, line: &str) {
        let message = match wire::lines::parse(line.as_bytes()) {
            Ok(message) => message,
            Err(error) => {
                self.facts.say('W', kind.program(), &format!("an unreadable line was skipped: {error}"));
                return;
            }
        };
        match kind {
            Kind::Heartbeat => self.heartbeat_line(&message.kind, &message.value),
            Kind::Errd => self.errd_line(&message.kind, &message.value),
            Kind::Check => self.check_line(&message.kind, &message.value),
            Kind::Farm => self.farm_line(&message.kind, &message.value),
            Kind::Vip | Kind::VipWatch => self.vip_line(&message.kind, &message.value),
            Kind::Arbiter => self.arbiter_line(&message.kind, &message.value),
            Kind::Replicate => self.replica_line(&message.kind, &message.value),
        }
    }

    fn heartbeat_line(&mut self, kind: &str, value: &Value) {
        let ident = value["ident"].as_str().unwrap_or_default().to_owned();
        match kind {
            "link_up" => self.resource(&format!("heartbeat.{ident}"), "up", "heart"),
            "link_down" => self.resource(&format!("heartbeat.{ident}"), "down", "heart"),
            "local_address" => {
                let value = if value["present"] == json!(true) { "up" } else { "down" };
                self.resource(&format!("heartbeatlocaladdr.{ident}"), value, "heart");
            }
            "peer_up" => self.tell(Event::PeerUp),
            "peer_down" => self.tell(Event::PeerDown),
            "peer_gone" => self.peer_gone(value),
            "peer_state" => match Published::deserialize(&value["state"]) {
                Ok(state) => self.tell(Event::PeerState { state, bye: value["bye"] == json!(true) }),
                Err(error) => {
                    self.facts.say('W', "heart", &format!("the peer published something else than a state: {error}"));
                }
            },
            "done" => self.bye_is_said(),
            "wrong_key" => {
                let from = value["from"].as_str().unwrap_or("?");
                self.facts.say(
                    'C',
                    "heart",
                    &format!(
                        "Heartbeats from {from} are signed with another key: copy the same cluster.key to every node"
                    ),
                );
            }
            _ => self.unknown(Kind::Heartbeat, kind),
        }
    }

    fn peer_gone(&mut self, value: &Value) {
        let evidence = Evidence::deserialize(&value["evidence"]).unwrap_or_default();
        let words = crate::journal::words::end_of_peer(evidence);
        self.facts.say('W', "heart", &format!("The module on the other node ended without a goodbye: {words}"));
        self.tell(Event::PeerGone { evidence });
    }

    fn errd_line(&mut self, kind: &str, value: &Value) {
        match kind {
            "proc" => {
                let name = value["name"].as_str().unwrap_or_default().to_owned();
                let state = value["value"].as_str().unwrap_or_default().to_owned();
                if state == "down" {
                    let reason =
                        value["reason"].as_str().map_or_else(|| format!("Process {name} not running"), str::to_owned);
                    self.facts.say('C', "errd", &reason);
                    let services: Vec<String> = Vec::deserialize(&value["restart_services"]).unwrap_or_default();
                    self.errd_action(&name, value["action"].as_str().unwrap_or("noaction"), services);
                } else {
                    self.resource(&format!("proc.{name}"), &state, "errd");
                }
            }
            "problem" => {
                let reason = value["reason"].as_str().unwrap_or("?").to_owned();
                self.facts.say('C', "errd", &reason);
            }
            "list" => self.facts.event(value),
            "pong" => self.links.signs.answered(Kind::Errd),
            _ => self.unknown(Kind::Errd, kind),
        }
    }

    /// The action comes first in the log, then the resource, then what follows from the action.
    fn errd_action(&mut self, process: &str, action: &str, services: Vec<String>) {
        let resource = format!("proc.{process}");
        let verb = match action {
            "restart" => Verb::Restart,
            "stopstart" => Verb::StopStart,
            "stop" => Verb::Stop,
            "noaction" => return self.resource(&resource, "down", "errd"),
            handler => {
                self.resource(&resource, "down", "errd");
                self.facts.say('E', "errd", &format!("Handler {handler} called by errd"));
                if let Err(error) = self.scripts.launch_handler(&self.instance, handler, process) {
                    self.facts.say('C', "errd", &format!("the handler cannot be run: {error}"));
                    self.automatic(Verb::StopStart, "errd");
                }
                return;
            }
        };
        let changed = self.facts.assign(&resource, "down");
        let words = changed.then(|| ('C', "errd", format!("Resource {resource} set to down by errd")));
        let event = if verb == Verb::Restart && !services.is_empty() {
            Event::RestartServices { services, identity: "errd".into() }
        } else {
            Event::Command { verb, full: false, identity: Some("errd".into()), origin: "errd".into() }
        };
        self.tell_and_say(event, words);
        if changed {
            self.tell(Event::Resource { name: resource, value: "down".into(), origin: "errd".into() });
        }
    }

    /// A handler's exit other than 0 asks for stopstart.
    pub(super) fn handler_ended(&mut self, name: &str, exit: Option<i32>) {
        if exit != Some(0) {
            self.facts.say(
                'C',
                "errd",
                &format!("Handler {name} failed ({})", exit.map_or("killed".into(), |e| e.to_string())),
            );
            self.automatic(Verb::StopStart, "errd");
        }
    }

    pub(super) fn automatic(&mut self, verb: Verb, who: &str) {
        self.tell(Event::Command { verb, full: false, identity: Some(who.into()), origin: who.into() });
    }

    pub(super) fn vip_line(&mut self, kind: &str, value: &Value) {
        let address = value["address"].as_str().unwrap_or_default().to_owned();
        match kind {
            "vip" => {
                let state = value["value"].as_str().unwrap_or("up");
                if state == "up" {
                    self.facts.say('I', "vipplug", &format!("Virtual IP {address} set"));
                    if self.instance.checks_address(&address) {
                        self.resource(&format!("ip.{address}"), "up", "ipcheck");
                    }
                }
                self.facts.vip.insert(address, state.to_owned());
            }
            "held" => {
                if let Some(id) = self.links.vip.claiming.take() {
                    self.tell(Event::VipDone { id });
                }
            }
            "released" => {
                self.facts.vip.clear();
                self.facts.unchecked("ip.");
            }
            "ip" => {
                let state = value["value"].as_str().unwrap_or("down").to_owned();
                self.facts.vip.insert(address.clone(), state.clone());
                self.resource(&format!("ip.{address}"), &state, "ipcheck");
            }
            "intf" => {
                let ident = value["ident"].as_str().unwrap_or_default();
                let state = value["value"].as_str().unwrap_or("down").to_owned();
                self.resource(&format!("intf.{ident}"), &state, "intfcheck");
            }
            "connections" => {
                let count = value["value"].as_u64().unwrap_or(0).to_string();
                // It changes all the time: the value, and no history.
                self.facts.assign_as(&format!("connections.{address}"), &count, Keep::Never);
            }
            "conflict" => {
                let mac = value["mac"].as_str().unwrap_or("?");
                self.links.vip.reason = Some(format!(
                    "virtual IP {address} is already used by the machine with MAC {mac}: remove it there, or choose another address"
                ));
            }
            _ => self.unknown(Kind::Vip, kind),
        }
    }

    fn replica_line(&mut self, kind: &str, value: &Value) {
        match kind {
            "replica" => match ReplicaReport::deserialize(value) {
                Ok(report) => {
                    self.facts.replica.snapshot = Some(value.clone());
                    self.replica_standing(report.standing);
                    self.tell(Event::Replica { report });
                }
                Err(error) => {
                    self.facts.say('W', "rfsplug", &format!("unreadable report of the replication engine: {error}"));
                }
            },
            "done" | "failed" => self.replica_answer(kind == "done", value),
            "progress" => self.resync_progress(value),
            "figures" => self.resync_figures(value),
            "copied" => self.file_is_copied(value),
            "traffic" => self.replica_traffic(value),
            "resync_begin" => {
                self.facts.event(value);
                let mode = value["mode"].as_str().unwrap_or("?");
                // One that is interrupted goes on by comparing.
                self.links.replica.since = None;
                self.show_policy();
                self.facts.replica.resumes = mode == "resume";
                if self.facts.replica.resumes {
                    return self.facts.say('I', "rfsplug", "Replication goes on where the stream had ended");
                }
                self.facts.replica.copies = true;
                self.resync_begins();
                for directory in self.instance.replicated_directories() {
                    self.facts.say('E', "reintegre", &format!("Updating directory tree from {directory}"));
                }
                self.facts.say('I', "reintegre", &format!("Reintegration mode: {mode}"));
            }
            "resync_end" => {
                self.facts.replica.resync = None;
                self.facts.event(value);
                if std::mem::take(&mut self.facts.replica.resumes) {
                    return;
                }
                let (files, bytes) = (value["files"].as_u64().unwrap_or(0), value["bytes"].as_u64().unwrap_or(0));
                let ms = value["ms"].as_u64().unwrap_or(0).max(1);
                if bytes > 0 {
                    let rate = bytes * 1000 / ms / 1024;
                    self.facts.say(
                        'E',
                        "reintegre",
                        &format!("Copied {bytes} bytes, {files} files in {ms} ms ({rate} KB/s)"),
                    );
                }
                self.resync_took(files, bytes, ms);
                self.facts.replica.copies = false;
                self.facts.assign("rfs.reintegre_failed", "false");
                self.show_policy();
                self.facts.say('E', "reintegre", "Reintegration ended (synchronize)");
                if self.core.state().name.serves() {
                    self.facts.say('E', "rfsplug", "Uptodate replicated file system");
                }
            }
            "stream_up" => self.facts.say('I', "rfsplug", "Replication stream up"),
            "stream_lost" => {
                self.facts.replica.resync = None;
                if std::mem::take(&mut self.facts.replica.copies) {
                    self.facts.assign("rfs.reintegre_failed", "true");
                }
                self.facts.say(
                    'W',
                    "rfsplug",
                    &format!("Replication stream lost: {}", value["reason"].as_str().unwrap_or("?")),
                );
            }
            "salvaged" => {
                let path = value["path"].as_str().unwrap_or("?");
                self.facts.say(
                    'W',
                    "rfsplug",
                    &format!("Content that never reached the other node was kept aside: {path}"),
                );
            }
            "fault" => {
                let reason = value["reason"].as_str().unwrap_or("?").to_owned();
                self.links.replica.faulty = true;
                self.show_policy();
                self.tell(Event::ReplicaFault { reason });
            }
            _ => self.unknown(Kind::Replicate, kind),
        }
    }

    fn replica_answer(&mut self, done: bool, value: &Value) {
        let id = value["id"].as_u64().unwrap_or(0);
        let link = &mut self.links.replica;
        let Some(at) = link.outstanding.iter().position(|(n, _)| *n == id) else {
            if !done {
                let reason = value["reason"].as_str().unwrap_or("?").to_owned();
                self.facts.say(
                    'C',
                    "rfsplug",
                    &format!("The replication engine could not take its role again: {reason}"),
                );
                self.children.kill(Kind::Replicate);
            }
            return;
        };
        let Some((_, order)) = link.outstanding.remove(at) else { return };
        if done {
            self.replica_role_after(&order);
            self.tell(Event::ReplicaDone { id });
        } else {
            let mut reason = value["reason"].as_str().unwrap_or("no reason given").to_owned();
            if let Some(hint) = value["hint"].as_str().filter(|h| !h.is_empty()) {
                reason = format!("{reason}; {hint}");
            }
            self.facts.refused = Some(reason.clone());
            self.tell(Event::ReplicaFailed { id, reason });
        }
    }

    /// Assigns a checker's resource; a change is logged and given to the core.
    pub(super) fn resource(&mut self, name: &str, value: &str, origin: &str) {
        self.resource_as(name, value, origin, Keep::Changes);
    }

    pub(super) fn resource_as(&mut self, name: &str, value: &str, origin: &str, keep: Keep) {
        if !self.core.hears(name) {
            // Switched off, or about a past life of its checker: the core keeps what it may need later.
            return self.tell(Event::Resource { name: name.into(), value: value.into(), origin: origin.into() });
        }
        if self.facts.assign_as(name, value, keep) {
            let level = if value == "down" { 'C' } else { 'I' };
            self.facts.say(level, origin, &format!("Resource {name} set to {value} by {origin}"));
            self.tell(Event::Resource { name: name.into(), value: value.into(), origin: origin.into() });
        }
    }

    pub(super) fn unknown(&mut self, from: Kind, kind: &str) {
        self.facts.say('D', from.program(), &format!("an event of unknown kind {kind} was skipped"));
    }

    pub(super) fn child_ended(&mut self, kind: Kind, generation: u64, how: &str, code: Option<i32>) {
        let Some(again) = self.children.ended(kind, generation, super::monotonic_ms()) else { return };
        self.changed = true;
        if !again {
            self.facts.say('D', kind.program(), &format!("ended ({how})"));
            if kind == Kind::Farm {
                self.farm_is_silent(true);
                if code != Some(0) {
                    self.clean_farm();
                }
            }
            if matches!(kind, Kind::Vip | Kind::Farm) {
                self.facts.vip.clear();
                if let Some(id) = self.links.vip.releasing.take() {
                    self.tell(Event::VipDone { id });
                }
                // Claimed again while the release went on.
                if self.links.vip.wanted {
                    self.children.want(kind);
                    self.start_child(kind);
                }
            }
            if kind == Kind::Heartbeat {
                self.bye_is_said();
            }
            if kind == Kind::Arbiter {
                self.arbiter_is_gone("sk-arbiter was dismissed");
                self.tell_pending();
            }
            if kind == Kind::Replicate {
                self.links.replica.store.clear();
                self.fail_outstanding("the replication engine was dismissed");
            }
            return;
        }
        if matches!(kind, Kind::Vip | Kind::Farm) && self.vip_claim_failed(kind, code, how) {
            return;
        }
        if kind == Kind::Farm {
            self.farm_is_silent(false);
        }
        if kind == Kind::Arbiter {
            self.arbiter_is_gone("sk-arbiter ended");
            self.tell_pending();
        }
        if self.children.was_renewed(kind) {
            return self.start_child(kind);
        }
        self.facts.say(
            'C',
            kind.program(),
            &format!("{} ended unexpectedly ({how}); it is started again", kind.label()),
        );
        if kind == Kind::Heartbeat {
            self.bye_is_said();
        }
        if kind == Kind::Replicate {
            self.replica_is_gone();
            if !self.children.had_lived(kind) {
                self.replica_died(how);
            }
        }
    }

    /// A holder that ends by itself while it claims could not get the addresses: that is an answer, not a death to repair.
    fn vip_claim_failed(&mut self, kind: Kind, code: Option<i32>, how: &str) -> bool {
        let Some(code) = code.filter(|c| *c != 0) else { return false };
        let Some(id) = self.links.vip.claiming.take() else { return false };
        self.children.dismiss(kind);
        self.links.vip.wanted = false;
        let reason = self.links.vip.reason.take().unwrap_or_else(|| {
            format!(
                "{} could not set the virtual addresses (exit {code}, {how}); its words are in the log (sk-module log -A)",
                kind.program()
            )
        });
        self.facts.refused = Some(reason.clone());
        self.tell(Event::VipFailed { id, reason });
        true
    }

    fn fail_outstanding(&mut self, reason: &str) {
        for (id, _) in std::mem::take(&mut self.links.replica.outstanding) {
            self.tell(Event::ReplicaFailed { id, reason: reason.into() });
        }
    }
}
