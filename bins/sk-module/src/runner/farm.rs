//! What do the runner and the member of a farm (`sk-farmfilter`) say to each other?

use super::Runner;
use super::control::refuse;
use super::input::Kind;
use automaton::{Event, Traffic};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;

/// What was asked of the member, and what must be said again to its successor.
#[derive(Default)]
pub(super) struct FarmLink {
    /// What the core asked for last. None: no traffic.
    pub traffic: Option<Traffic>,
    /// Number of `Action::Farm` that waits for an answer.
    pub asked: Option<u64>,
    /// What the scripts said last (`scriptcontrol`).
    pub groups: Option<&'static str>,
    /// The kernel refuses the traffic at present.
    pub refused: bool,
    /// When an answer to what was asked must be there (monotonic ms).
    pub deadline: Option<u64>,
    /// How often the member died since it last answered.
    deaths: u32,
    /// Scripts that wait until it is done.
    pub waiting: Vec<SyncSender<String>>,
}

/// A member that dies this often without an answer will not give one.
const DEATHS_MAX: u32 = 3;
/// Least time for an answer. Nodes agree within a few times the time after which one counts as absent.
const ANSWER_MS: u64 = 15_000;
const AGREEMENTS: u64 = 5;

/// What the member last said.
#[derive(Default)]
pub(super) struct FarmView {
    pub view: Option<Value>,
    /// By group.
    pub shares: BTreeMap<String, Value>,
    /// What each node of a group owns and takes, by group.
    pub rates: BTreeMap<String, Value>,
}

/// What a node takes of a group, as the member says it a second.
const RATES: [&str; 4] = ["connections_s", "accepted_packets_s", "accepted_bytes_s", "dropped_packets_s"];
/// Nodes of all groups together that a snapshot lists: it must fit into a line of the control socket.
const NODES_SHOWN: usize = 256;

impl Runner {
    pub(super) fn ask_for_traffic(&mut self, id: u64, traffic: Traffic) {
        let before = self.links.farm.traffic.replace(traffic);
        if before == Some(Traffic::Open) && traffic == Traffic::Standby && !self.others_are_open() {
            // Nobody to leave the clients to: they stay here until the addresses go.
            self.pending.push_back(Event::FarmDone { id });
            return;
        }
        self.links.farm.asked = Some(id);
        // A member that is being started again is told when it is there.
        self.send_traffic();
        self.expect_farm();
    }

    /// Whether the core waits for the member.
    fn farm_is_awaited(&self) -> bool {
        let vip = &self.links.vip;
        self.links.farm.asked.is_some() || vip.claiming.is_some() || vip.releasing.is_some()
    }

    /// An answer is due from now on.
    pub(super) fn expect_farm(&mut self) {
        let patience = ANSWER_MS.max(self.instance.farm_absence_ms().saturating_mul(AGREEMENTS));
        self.links.farm.deadline = self.farm_is_awaited().then(|| super::monotonic_ms() + patience);
    }

    /// A member that stands still is ended, or nobody could ever stop the module. The kernel has stopped accepting long before.
    pub(super) fn farm_timers(&mut self, now: u64) {
        if self.links.farm.deadline.take_if(|at| *at <= now).is_some() && self.farm_is_awaited() {
            self.facts.say('C', "vipd", "sk-farmfilter does not answer: it is killed");
            self.children.kill(Kind::Farm);
        }
    }

    /// It died, or was killed, and is started again: not for ever while somebody waits for its answer.
    fn count_farm_death(&mut self) {
        self.links.farm.deaths += 1;
        if self.links.farm.deaths < DEATHS_MAX {
            return self.expect_farm();
        }
        let reason = format!(
            "sk-farmfilter died {DEATHS_MAX} times without an answer; its words are in the log (sk-module log -A)"
        );
        let claiming = self.links.vip.claiming.take();
        let asked = self.links.farm.asked.take();
        if claiming.is_some() || asked.is_some() {
            self.links.farm.deaths = 0;
            self.facts.refused = Some(reason.clone());
        }
        if let Some(id) = claiming {
            self.children.dismiss(Kind::Farm);
            self.links.vip.wanted = false;
            self.tell(Event::VipFailed { id, reason: reason.clone() });
        }
        if let Some(id) = asked {
            self.tell(Event::FarmFailed { id, reason });
        }
    }

    /// What a member that had to be killed could not remove itself.
    pub(super) fn clean_farm(&self) {
        let program = self.instance.program(Kind::Farm.program());
        let module = self.instance.module.clone();
        std::thread::spawn(move || {
            // The addresses have a lifetime: what is not removed now goes by itself.
            let _ = std::process::Command::new(program)
                .args(["clean", "-m", &module])
                .env("SK_ORIGIN", format!("runner of {module}"))
                .stdout(std::process::Stdio::null())
                .status();
        });
    }

    fn others_are_open(&self) -> bool {
        let open = self.facts.farm.view.as_ref().and_then(|v| v["open"].as_array());
        open.into_iter().flatten().any(|node| node != self.instance.node.as_str())
    }

    fn send_traffic(&mut self) {
        if let Some(traffic) = self.links.farm.traffic {
            self.children.order(Kind::Farm, &json!({"kind": words(traffic).0}).to_string());
        }
    }

    /// A new member is told what its predecessor was.
    pub(super) fn repeat_farm_orders(&mut self) {
        self.children.order(Kind::Farm, r#"{"kind":"hold"}"#);
        if let Some(value) = self.links.farm.groups {
            self.children.order(Kind::Farm, &json!({"kind": "setgroups", "value": value}).to_string());
        }
        self.send_traffic();
    }

    /// `SETGROUPS` of a script: answered when the filter has it.
    pub(super) fn set_groups(&mut self, request: &Value, reply: SyncSender<String>) {
        let value = match request["value"].as_str() {
            Some("all") => "all",
            Some("none") => "none",
            _ => return answer(&reply, &refuse("setgroups takes all or none", "", 100)),
        };
        if !self.instance.is_script_controlled() {
            let hint = "write <vip scriptcontrol=\"on\">, or leave it to the module";
            return answer(&reply, &refuse("traffic is not controlled by scripts in this module", hint, 1));
        }
        self.facts.say('I', "safekit", &format!("Traffic {value} set by script"));
        self.links.farm.groups = Some(value);
        if self.children.order(Kind::Farm, &json!({"kind": "setgroups", "value": value}).to_string()) {
            self.links.farm.waiting.push(reply);
        } else {
            // Said to the member when it is there.
            answer(&reply, &json!({"ok": true}).to_string());
        }
    }

    pub(super) fn farm_line(&mut self, kind: &str, value: &Value) {
        if matches!(kind, "held" | "opened" | "closed" | "failed") {
            self.links.farm.deaths = 0;
        }
        match kind {
            "opened" | "closed" => {
                // The answer to an order that another one followed is not waited for.
                if self.links.farm.traffic.is_some_and(|t| words(t).1 == kind)
                    && let Some(id) = self.links.farm.asked.take()
                {
                    self.tell(Event::FarmDone { id });
                }
            }
            "setgroups" => self.groups_are_set(&json!({"ok": true}).to_string()),
            "failed" => self.farm_order_failed(value),
            "view" => {
                self.facts.event(value);
                self.facts.farm.view = Some(value.clone());
                self.changed = true;
            }
            "share" => self.share(value),
            "rates" => {
                if let Some(group) = value["group"].as_str() {
                    self.facts.farm.rates.insert(group.to_owned(), value["nodes"].clone());
                    self.changed = true;
                }
            }
            "lost" => {
                let node = value["peer"].as_str().unwrap_or("?");
                self.facts.say('W', "vipd", &format!("Lost contact from {node}"));
            }
            "contact" => {
                let node = value["peer"].as_str().unwrap_or("?");
                self.facts.say('I', "vipd", &format!("Contact with {node}"));
            }
            "lease" => self.lease(value["value"] == json!("back")),
            "wrong_key" => {
                let from = value["from"].as_str().unwrap_or("?");
                let words =
                    format!("Packets from {from} are signed with another key: copy the same cluster.key to every node");
                self.facts.say('C', "vipd", &words);
            }
            other => self.vip_line(other, value),
        }
    }

    /// The kernel refuses what the member is too late to allow. Before the first table it had nothing to allow yet.
    fn lease(&mut self, back: bool) {
        let begun = self.links.farm.traffic == Some(Traffic::Open) && self.links.farm.asked.is_none();
        if back && std::mem::take(&mut self.links.farm.refused) {
            self.facts.say('E', "vipd", "Traffic is accepted again");
        } else if !back && begun {
            self.links.farm.refused = true;
            let words = "Traffic was refused by the kernel for a while: sk-farmfilter did not come to run in time, or too few nodes answered it";
            self.facts.say('C', "vipd", words);
        }
    }

    fn share(&mut self, value: &Value) {
        self.facts.event(value);
        let Some(group) = value["group"].as_str().map(str::to_owned) else { return };
        let members: Vec<&str> = value["members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let before = self.facts.farm.shares.insert(group.clone(), value.clone()).unwrap_or_default();
        if before["members"] != value["members"] {
            self.facts.say('I', "vipd", &format!("farm membership: {} (group {group})", members.join(" ")));
        }
        if before["owned"] != value["owned"] {
            let load = format!("farm load: {}/{} (group {group})", value["owned"], value["of"]);
            self.facts.say('I', "vipd", &load);
        }
        self.facts.assign(&format!("farm.{group}"), &format!("{}%", value["percent"]));
        self.changed = true;
    }

    fn groups_are_set(&mut self, words: &str) {
        for reply in std::mem::take(&mut self.links.farm.waiting) {
            answer(&reply, words);
        }
    }

    fn farm_order_failed(&mut self, value: &Value) {
        let mut reason = value["reason"].as_str().unwrap_or("no reason given").to_owned();
        // Some reasons bring their remedy along.
        if let Some(hint) = value["hint"].as_str().filter(|h| !h.is_empty() && !reason.contains(';')) {
            reason = format!("{reason}; {hint}");
        }
        match value["order"].as_str() {
            Some("setgroups") => {
                self.facts.say('C', "vipd", &format!("Traffic could not be set: {reason}"));
                self.groups_are_set(&refuse(&reason, "", 1));
            }
            Some("hold") => {
                self.facts.refused = Some(reason.clone());
                self.children.dismiss(Kind::Farm);
                self.links.vip.wanted = false;
                match self.links.vip.claiming.take() {
                    Some(id) => self.tell(Event::VipFailed { id, reason }),
                    None => self.facts.say('C', "vipd", &reason),
                }
            }
            _ => match self.links.farm.asked.take() {
                Some(id) => {
                    self.facts.refused = Some(reason.clone());
                    self.tell(Event::FarmFailed { id, reason });
                }
                None => self.facts.say('C', "vipd", &reason),
            },
        }
    }

    /// The member is gone: what it last said is not true any more, and who waits for it waits no longer.
    pub(super) fn farm_is_silent(&mut self, for_good: bool) {
        self.facts.farm = FarmView::default();
        self.facts.vip.clear();
        self.facts.unchecked("farm.");
        if for_good {
            self.links.farm.traffic = None;
            self.links.farm.groups = None;
            self.groups_are_set(&refuse("the module is stopping", "", 1));
            if let Some(id) = self.links.farm.asked.take() {
                self.tell(Event::FarmDone { id });
            }
        } else {
            self.groups_are_set(&json!({"ok": true}).to_string());
            self.count_farm_death();
        }
    }

    /// Part `farm` of the snapshot.
    pub(super) fn farm_view(&self) -> Value {
        if self.instance.farm_spec().is_none() {
            return Value::Null;
        }
        let farm = &self.facts.farm;
        let list = |name: &str| farm.view.as_ref().map_or_else(|| json!([]), |v| v[name].clone());
        let shows_nodes = farm.rates.values().filter_map(Value::as_array).map(Vec::len).sum::<usize>() <= NODES_SHOWN;
        let groups: Vec<Value> = farm
            .shares
            .iter()
            .map(|(group, s)| {
                let mut shown = json!({
                    "group": group, "owned": s["owned"], "of": s["of"], "percent": s["percent"], "bitmap": s["bitmap"],
                    "members": s["members"],
                });
                let nodes = farm.rates.get(group).and_then(Value::as_array).cloned().unwrap_or_default();
                let own = nodes.iter().find(|n| n["node"] == self.instance.node.as_str());
                for name in RATES {
                    shown[name] = json!(own.and_then(|n| n[name].as_u64()).unwrap_or(0));
                }
                if shows_nodes {
                    shown["nodes"] = Value::Array(nodes);
                }
                shown
            })
            .collect();
        json!({
            "generation": farm.view.as_ref().map(|v| v["generation"].clone()),
            "members": list("members"),
            "open": list("open"),
            "traffic": self.links.farm.traffic,
            "scripts": self.links.farm.groups,
            "groups": groups,
        })
    }
}

/// The order that asks for it, and its answer.
const fn words(traffic: Traffic) -> (&'static str, &'static str) {
    match traffic {
        Traffic::Standby => ("close", "closed"),
        Traffic::Open => ("open", "opened"),
    }
}

fn answer(reply: &SyncSender<String>, words: &str) {
    // The asker went away: the answer concerns nobody.
    let _ = reply.try_send(words.to_owned());
}
