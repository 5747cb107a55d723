//! How is each action of the core carried out.

use super::board::Keep;
use super::check::CheckLink;
use super::children::Spawn;
use super::input::Kind;
use super::scripts::Launch;
use super::{Runner, monotonic_ms};
use crate::instance::Instance;
use automaton::{Action, CALLBACK, Event, Published, State, StateName};
use lineage::Standing;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsRawFd;

/// A goodbye that the heartbeat does not confirm is taken as said after this time.
const BYE_MS: u64 = 1_000;

/// What was said to the children and is not answered yet, and what must be said again to their successors.
pub(super) struct Links {
    /// The last `Action::Children`: heartbeat, errd, replicate.
    pub children_wanted: Option<(bool, bool, bool)>,
    pub published: Option<Published>,
    pub bye_deadline: Option<u64>,
    pub classes: BTreeSet<String>,
    pub errd_off: bool,
    pub checks: CheckLink,
    /// Signs of life that are owed.
    pub signs: super::alive::Signs,
    pub vip: VipLink,
    pub farm: super::farm::FarmLink,
    pub replica: super::replica::ReplicaLink,
    pub arbiter: super::arbiter::ArbiterLink,
    pub dates: super::dates::Dates,
}

#[derive(Default)]
pub(super) struct VipLink {
    /// The addresses should be held.
    pub wanted: bool,
    /// `Action::Vip` numbers waiting for an answer.
    pub claiming: Option<u64>,
    pub releasing: Option<u64>,
    /// The child's last words or its conflict event: the reason when a claim fails.
    pub reason: Option<String>,
}

impl Links {
    pub fn new() -> Self {
        Self {
            children_wanted: None,
            published: None,
            bye_deadline: None,
            classes: BTreeSet::new(),
            errd_off: false,
            checks: CheckLink::default(),
            signs: super::alive::Signs::default(),
            vip: VipLink::default(),
            farm: super::farm::FarmLink::default(),
            arbiter: super::arbiter::ArbiterLink::default(),
            dates: super::dates::Dates::default(),
            replica: super::replica::ReplicaLink {
                outstanding: VecDeque::new(),
                role: None,
                since: None,
                standing: Standing::Blank,
                deaths: VecDeque::new(),
                store: sys::store::Store::default(),
                faulty: false,
            },
        }
    }

    pub fn next_deadline(&self) -> Option<u64> {
        let (checks, signs) = (self.checks.next_deadline(), self.signs.next_deadline());
        [self.bye_deadline, checks, signs, self.farm.deadline, self.dates.next_deadline()].into_iter().flatten().min()
    }
}

/// Verb of a child, name of its specification in the run directory, and what it is told; None: the module needs no such child.
pub(super) fn specification(
    instance: &Instance,
    kind: Kind,
    lease_until: u64,
) -> (&'static str, &'static str, Option<Value>) {
    match kind {
        Kind::Heartbeat => ("run", "heartbeat.json", instance.heartbeat_spec()),
        Kind::Errd => ("run", "errd.json", instance.errd_spec()),
        Kind::Vip => ("hold", "vip.json", instance.vip_spec(lease_until)),
        Kind::Check => ("run", "check.json", instance.check_spec()),
        Kind::Farm => ("run", "farm.json", instance.farm_spec()),
        Kind::VipWatch => ("watch", "vipwatch.json", instance.vip_watch_spec()),
        Kind::Arbiter => ("run", "arbiter.json", instance.arbiter_spec()),
        Kind::Replicate => ("run", "replicate.json", instance.replicate_spec()),
    }
}

impl Runner {
    pub(super) fn execute(&mut self, action: Action) {
        match action {
            Action::Script { id, name, args, timeout_ms } => self.run_script(id, &name, &args, timeout_ms),
            Action::Replicate { id, order } => self.order_replica(id, order),
            Action::Vip { id, held: true } => self.claim_addresses(id),
            Action::Vip { id, held: false } => self.release_addresses(id),
            Action::Farm { id, traffic } => self.ask_for_traffic(id, traffic),
            Action::Arbitrate { id, request } => self.ask_arbiter(id, &request),
            Action::Lease { until_ms } => self.extend_lease(until_ms),
            Action::Children { heartbeat, errd, replicate } => self.set_children(heartbeat, errd, replicate),
            Action::ErrdClass { class, enabled } => self.errd_class(&class, enabled),
            Action::Publish { state } => self.publish(state),
            Action::Bye => self.say_goodbye(),
            Action::Persist { core } => self.persist(core),
            Action::StateChanged { state, .. } => self.state_changed(state),
            Action::Log { level, from, message } => self.facts.say(level, &from, &message),
            Action::Resource { name, value } => {
                // Its history shows each automatic action.
                let counter = name == "heart.stopstartloop";
                self.facts.assign_as(&name, &value, if counter { Keep::Always } else { Keep::Changes });
            }
            Action::Refuse { error, hint } => {
                self.facts.refused = Some(if hint.is_empty() { error } else { format!("{error}; {hint}") });
            }
            Action::Reboot => self.reboot(),
        }
    }

    fn run_script(&mut self, id: u64, name: &str, args: &[String], timeout_ms: Option<u64>) {
        if matches!(name, "start_prim" | "start_both") {
            self.facts.application.1 += 1;
        }
        let deadline = timeout_ms.map(|t| monotonic_ms() + t);
        match self.scripts.launch(&self.instance, id, name, args, deadline) {
            Launch::Running { userlog } => {
                let shown = match args.first().map(String::as_str) {
                    Some("force") => format!("Script {name} \"force\" > {userlog}"),
                    Some(word) if name == CALLBACK => format!("Script {name} \"{word}\" > {userlog}"),
                    _ if name == "prestart" => format!("Script {name} \"start\" > {userlog}"),
                    _ => format!("Script {name} > {userlog}"),
                };
                self.facts.say('S', "userplug", &shown);
                let argv = format!("{} {}", self.instance.active_bin().join(name).display(), args.join(" "));
                self.facts.say('D', "userplug", argv.trim_end());
            }
            Launch::Missing => self.pending.push_back(Event::ScriptDone { id, exit: Some(0) }),
            Launch::Impossible { exit, message } => {
                self.facts.say('C', "userplug", &message);
                self.facts.refused = Some(message);
                self.pending.push_back(Event::ScriptDone { id, exit: Some(exit) });
            }
        }
    }

    /// The module waits for the end of a script, and nothing else tells why it does not get on.
    pub(super) fn name_long_scripts(&mut self, now: u64) {
        for (name, seconds) in self.scripts.long(now) {
            let words = format!(
                "Script {name} has run for {seconds} s, and the module waits for its end: see its userlog, or end it with sk-module forcestop -m {}",
                self.instance.module
            );
            self.facts.say('C', "userplug", &words);
        }
    }

    // --- long-lived children ---

    pub(super) fn set_children(&mut self, heartbeat: bool, errd: bool, replicate: bool) {
        self.links.children_wanted = Some((heartbeat, errd, replicate));
        let has_watch = self.instance.vip_watch_spec().is_some();
        let wanted = [
            (Kind::Heartbeat, heartbeat),
            // Process supervision runs as long as the module does: in every state but STOP.
            (Kind::VipWatch, errd && has_watch),
            (Kind::Arbiter, heartbeat && self.instance.arbiter_spec().is_some()),
            (Kind::Errd, errd && self.instance.errd_spec().is_some()),
            (Kind::Check, errd && self.checkers_run()),
            (Kind::Replicate, replicate && self.instance.replicate_spec().is_some()),
        ];
        for (kind, wanted) in wanted {
            if wanted && !self.children.is_wanted(kind) {
                self.children.want(kind);
                self.start_child(kind);
            } else if !wanted && self.children.is_wanted(kind) {
                self.children.dismiss(kind);
                self.child_is_dismissed(kind);
            }
        }
    }

    fn child_is_dismissed(&mut self, kind: Kind) {
        match kind {
            Kind::Heartbeat => {
                self.links.published = None;
                self.facts.unchecked("heartbeat.");
                self.facts.unchecked("heartbeatlocaladdr.");
            }
            Kind::Errd => {
                self.links.classes.clear();
                self.links.signs.forget(Kind::Errd);
                self.facts.unchecked("proc.");
            }
            Kind::Replicate => {
                let link = &mut self.links.replica;
                link.role = None;
                link.faulty = false;
                link.deaths.clear();
                self.replica_is_gone();
                self.facts.replica = super::board::ReplicaView::default();
            }
            Kind::VipWatch => {
                self.facts.unchecked("intf.");
                self.facts.unchecked("connections.");
            }
            Kind::Arbiter => self.facts.unchecked("splitbrain."),
            Kind::Check => self.forget_checkers(),
            Kind::Vip | Kind::Farm => {}
        }
    }

    /// Starts a child and tells it what its predecessor knew.
    pub(super) fn start_child(&mut self, kind: Kind) {
        let now = monotonic_ms();
        let spawn = match self.prepare(kind) {
            Ok(spawn) => spawn,
            Err(message) => {
                self.facts.say('C', kind.program(), &message);
                Spawn { argv: vec!["false".into()], inherited: None }
            }
        };
        self.facts.say('D', "safekit", &spawn.argv.join(" "));
        if let Err(error) = self.children.start(kind, now, spawn) {
            self.facts.say('C', kind.program(), &format!("cannot be started: {error}"));
            return;
        }
        match kind {
            Kind::Heartbeat => {
                if let Some(state) = self.links.published.clone() {
                    self.publish(state);
                }
            }
            Kind::Errd => {
                self.links.signs.seen(Kind::Errd);
                if self.links.errd_off {
                    self.children.order(Kind::Errd, r#"{"kind":"off"}"#);
                }
                for class in self.links.classes.clone() {
                    self.children.order(Kind::Errd, &json!({"kind": "enable", "class": class}).to_string());
                }
            }
            Kind::Replicate => {
                self.tell_lease(kind);
                self.repeat_replica_orders();
            }
            Kind::Vip => self.tell_lease(kind),
            Kind::Check => self.enable_checkers(),
            Kind::Farm => self.repeat_farm_orders(),
            Kind::VipWatch | Kind::Arbiter => {}
        }
    }

    fn prepare(&mut self, kind: Kind) -> Result<Spawn, String> {
        let program = self.instance.program(kind.program());
        let (verb, file, spec) = specification(&self.instance, kind, self.links.arbiter.lease_until);
        let spec: Value = spec.ok_or_else(|| format!("the module has no configuration for {}", kind.label()))?;
        let path = self.instance.run_dir().join(file);
        std::fs::write(&path, format!("{spec}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut argv = vec![program, verb.into(), "--spec".into(), path.display().to_string()];
        let mut inherited = None;
        if kind == Kind::Replicate {
            let end = self.links.replica.store.serve().map_err(|e| format!("descriptor store: {e}"))?;
            argv.extend(["--store-fd".into(), end.as_raw_fd().to_string()]);
            inherited = Some(end);
        }
        Ok(Spawn { argv, inherited })
    }

    pub(super) fn link_timers(&mut self, now: u64) {
        if self.links.bye_deadline.is_some_and(|d| d <= now) {
            self.bye_is_said();
        }
        self.farm_timers(now);
        self.name_silent_checkers(now);
        self.watch_signs(now);
        self.name_long_scripts(now);
        self.look_at_dates(now);
    }

    // --- heartbeat ---

    fn publish(&mut self, state: Published) {
        let line = json!({"kind": "publish", "state": &state}).to_string();
        self.links.published = Some(state);
        self.children.order(Kind::Heartbeat, &line);
    }

    fn say_goodbye(&mut self) {
        if self.children.order(Kind::Heartbeat, r#"{"kind":"bye"}"#) {
            self.links.bye_deadline = Some(monotonic_ms() + BYE_MS);
        } else {
            self.pending.push_back(Event::ByeDone);
        }
    }

    pub(super) fn bye_is_said(&mut self) {
        if self.links.bye_deadline.take().is_some() {
            self.tell(Event::ByeDone);
        }
    }

    // --- errd ---

    /// Asked by the core, or by a script (`safekit errd enable "class"`).
    pub(super) fn errd_class(&mut self, class: &str, enabled: bool) {
        let changed =
            if enabled { self.links.classes.insert(class.to_owned()) } else { self.links.classes.remove(class) };
        if changed {
            let verb = if enabled { "enable" } else { "disable" };
            self.switch_checkers(class, enabled);
            self.children.order(Kind::Errd, &json!({"kind": verb, "class": class}).to_string());
        }
    }

    // --- addresses ---

    /// Who holds the module's addresses, when it has any.
    fn address_holder(&self) -> Option<Kind> {
        if self.instance.farm_spec().is_some() {
            Some(Kind::Farm)
        } else {
            self.instance.vip_spec(0).map(|_| Kind::Vip)
        }
    }

    fn claim_addresses(&mut self, id: u64) {
        let Some(holder) = self.address_holder() else {
            self.pending.push_back(Event::VipDone { id });
            return;
        };
        let link = &mut self.links.vip;
        link.wanted = true;
        link.reason = None;
        link.claiming = Some(id);
        self.children.want(holder);
        if !self.children.is_running(holder) {
            self.start_child(holder);
        }
        if holder == Kind::Farm {
            self.expect_farm();
        }
    }

    fn release_addresses(&mut self, id: u64) {
        self.links.vip.wanted = false;
        let holder = self.address_holder().unwrap_or(Kind::Vip);
        if self.children.is_running(holder) {
            self.links.vip.releasing = Some(id);
            self.children.order(holder, r#"{"kind":"release"}"#);
            self.children.dismiss(holder);
            if holder == Kind::Farm {
                self.expect_farm();
            }
        } else {
            self.children.dismiss(holder);
            if holder == Kind::Farm {
                self.farm_is_silent(true);
            }
            self.pending.push_back(Event::VipDone { id });
        }
    }

    // --- the rest ---

    fn persist(&mut self, core: automaton::Persisted) {
        if let Err(error) = self.instance.save_core(&core) {
            self.facts.say(
                'C',
                "heart",
                &format!("core.json cannot be written: {error}; what it says would be forgotten at a crash"),
            );
        }
        self.persisted = core;
    }

    fn state_changed(&mut self, state: State) {
        self.facts.since = wire::time::rfc3339_now();
        self.facts.say('E', "heart", &format!("Local state {state}"));
        self.facts.event(
            &json!({"t": self.facts.since.clone(), "kind": "state", "state": state.name, "readiness": state.readiness}),
        );
        self.facts.transitions.note(state.name);
        self.facts.assign("state.local", &state.to_string());
        self.state_files(state);
        self.state_changed = true;
        if state.name == StateName::Stop {
            self.facts.vip.clear();
        }
    }

    fn reboot(&mut self) {
        self.facts.say('C', "heart", "Reboot of the host (automatic_reboot)");
        // The init system stops everything in order; without one, the kernel does after a sync.
        let done = std::process::Command::new("shutdown").args(["-r", "now"]).status();
        if !done.is_ok_and(|s| s.success()) {
            self.facts.say('C', "heart", "shutdown -r now failed: reboot this host by hand");
        }
    }
}
