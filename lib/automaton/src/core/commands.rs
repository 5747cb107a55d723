//! What operators, scripts and checkers may ask for, and how often automatic actions are allowed.

use super::Core;
use super::run::{JobKind, StopRequest, Then};
use crate::action::Action;
use crate::decide::Intent;
use crate::event::Verb;
use crate::plan::{Request, build};
use crate::state::{Readiness, State, StateName};
use serde::{Deserialize, Serialize};

/// A command that waits until nothing else is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Command {
    pub verb: Verb,
    pub automatic: bool,
    /// A restart of these services only; empty: of the whole application.
    #[serde(default)]
    pub services: Vec<String>,
}

impl Command {
    pub fn new(verb: Verb, automatic: bool) -> Self {
        Self { verb, automatic, services: Vec::new() }
    }
}

impl Core {
    pub(super) fn begin(&mut self, boot: bool) {
        self.out.push(Action::StateChanged { state: self.state, rule: None });
        if boot {
            self.start(Intent::Start, "Action start called at boot time");
        } else if self.persisted.wanted {
            self.start(Intent::Start, "Action start called automatically");
        }
    }

    pub(super) fn start(&mut self, intent: Intent, message: &str) {
        self.log('U', "heart", message);
        self.go(intent);
    }

    fn go(&mut self, intent: Intent) {
        if !self.persisted.wanted {
            self.persisted.wanted = true;
            self.persist();
        }
        self.intent = intent;
        self.forget_peer();
        self.forget_reports();
        self.forget_rules();
        self.forget_arbitration();
        let request =
            Request { from: StateName::Stop, to: StateName::Wait, action: "start", force: false, full: false };
        let steps = build(&request, &self.settings);
        self.start_job(JobKind::Start, steps);
    }

    pub(super) fn command(&mut self, verb: Verb, full: bool, identity: Option<String>, origin: String) {
        let automatic = identity.is_some();
        let who = identity.unwrap_or(origin);
        let (level, from) = if automatic { ('C', "heart") } else { ('U', "safekit") };
        self.log(level, from, format!("Action {} called by {who}", name(verb)));
        if !automatic {
            self.reset_loop();
        }
        if self.refuse_roles(verb) {
            return;
        }
        let idle_stop = self.state.name == StateName::Stop && self.job.is_none();
        let stopping = self.stop_request.is_some_and(|r| !r.pause)
            || self.job.as_ref().is_some_and(|j| matches!(j.kind, JobKind::Stop(_)));
        match verb {
            Verb::Start | Verb::Prim | Verb::PrimForce | Verb::Second => {
                let intent = match verb {
                    Verb::Prim => Intent::Prim,
                    Verb::PrimForce => Intent::PrimForce,
                    Verb::Second => Intent::Second { full },
                    _ => Intent::Start,
                };
                if full && !matches!(verb, Verb::Second | Verb::Prim) {
                    self.refuse(
                        "a full copy is asked for with prim or second",
                        "primforce makes one anyway; start this node without it",
                    );
                } else if idle_stop {
                    if verb != Verb::Start {
                        self.want_full_copy(verb == Verb::PrimForce || full && verb == Verb::Prim);
                    }
                    self.hold_for_old_primary(false);
                    self.go(intent);
                } else if stopping && verb == Verb::Start {
                    self.want_again();
                } else {
                    let hint = if stopping { "wait for the end of the stop" } else { "stop it first" };
                    self.refuse(format!("the module is not stopped, it is {}", self.state), hint);
                }
            }
            Verb::Stop | Verb::ForceStop | Verb::Shutdown => {
                if verb != Verb::Shutdown {
                    self.unwant();
                }
                if !idle_stop {
                    let forced = verb == Verb::ForceStop;
                    self.request_stop(StopRequest { action: "stop", then: Then::Nothing, forced, pause: false });
                }
            }
            Verb::StopStart | Verb::Wait | Verb::Restart if idle_stop => {
                self.refuse(format!("the module is {}", self.state), "start it first");
            }
            Verb::Restart if self.state.name == StateName::Wait && self.job.is_none() => {
                self.refuse("there is nothing to restart in WAIT", "the application does not run here");
            }
            Verb::StopStart | Verb::Wait | Verb::Restart if automatic => {
                // Two processes that die together are one fault; what is being stopped is being mended.
                let mending = stopping
                    || self.stop_request.is_some()
                    || self.commands.iter().any(|c| c.automatic && c.services.is_empty())
                    || self.job.as_ref().is_some_and(|j| match j.kind {
                        // A restart of some services does not mend the whole.
                        JobKind::Restart => j.services.is_empty(),
                        kind => kind == JobKind::Pause,
                    });
                if mending {
                    self.log('I', "heart", format!("Action {} is under way already", name(verb)));
                } else {
                    self.automatic(verb);
                }
            }
            Verb::StopStart => {
                self.request_stop(StopRequest { action: "stopstart", then: Then::Start, forced: false, pause: false });
            }
            Verb::Wait => {
                self.request_stop(StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true });
            }
            Verb::Update if idle_stop => {}
            Verb::Restart | Verb::Swap | Verb::Update => self.commands.push_back(Command::new(verb, automatic)),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.job.as_ref().is_some_and(|j| matches!(j.kind, JobKind::Stop(_) | JobKind::Pause))
    }

    /// `start` while stopping: start again afterwards.
    fn want_again(&mut self) {
        if !self.persisted.wanted {
            self.persisted.wanted = true;
            self.persist();
        }
        if let Some(request) = self.stop_request.as_mut() {
            request.then = Then::Start;
        } else if let Some(job) = self.job.as_mut()
            && let JobKind::Stop(then) = &mut job.kind
        {
            *then = Then::Start;
        }
    }

    /// An automatic action, unless there have been too many.
    pub(super) fn automatic(&mut self, verb: Verb) {
        if self.loop_reached() {
            self.log('C', "heart", "Action stop called by maxloop");
            return self.local_fault();
        }
        self.count_loop();
        match verb {
            Verb::StopStart => {
                let then = if self.settings.automatic_reboot { Then::Reboot } else { Then::Start };
                self.request_stop(StopRequest { action: "stopstart", then, forced: false, pause: false });
            }
            Verb::Wait => {
                self.request_stop(StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true });
            }
            _ => self.commands.push_back(Command::new(Verb::Restart, true)),
        }
    }

    /// Runs the next waiting command. Returns whether there was one.
    pub(super) fn next_command(&mut self) -> bool {
        let Some(command) = self.commands.pop_front() else { return false };
        let active = matches!(self.state.name, StateName::Alone | StateName::Prim | StateName::Second | StateName::Up);
        match command.verb {
            Verb::Restart if active => {
                let name = self.state.name;
                let request = Request { from: name, to: name, action: "restart", force: false, full: false };
                let steps = build(&request, &self.settings);
                self.start_restart(steps, command.services);
            }
            Verb::Update => self.run_update(),
            Verb::Swap if self.can_swap() => self.begin_swap(),
            Verb::Swap
                if self.state == State::new(StateName::Second, Readiness::Ready)
                    && self.peer().is_some_and(|p| p.state.name == StateName::Prim) =>
            {
                self.swap_wanted = true;
                // Two orders differ, also in one millisecond.
                self.swap_order = self.now.max(self.swap_order.saturating_add(1));
                self.swap_deadline = Some(self.now.saturating_add(self.settings.heartbeat_timeout_ms.max(10_000)));
            }
            Verb::Swap => {
                let remote = if self.remote.is_empty() { "UNKNOWN" } else { &self.remote };
                let error = format!("no swap from {} while the other node is {remote}", self.state);
                self.refuse(error, "a swap needs PRIM Ready here and SECOND Ready there, or the reverse");
            }
            _ if !command.automatic => {
                self.refuse(format!("nothing to restart, the module is {}", self.state), "start it first");
            }
            _ => self.log('I', "heart", "Action restart is not needed any more"),
        }
        true
    }

    pub(super) fn loop_interval_running(&self) -> bool {
        // A wall clock set back must not renew the allowance.
        self.persisted.loop_count > 0
            && self.wall.saturating_sub(self.persisted.loop_since_ms) < self.settings.loop_interval_ms
    }

    pub(super) fn count_loop(&mut self) {
        if self.settings.loop_interval_ms == 0 {
            return;
        }
        if !self.loop_interval_running() {
            self.persisted.loop_count = 0;
            self.persisted.loop_since_ms = self.wall;
        }
        self.persisted.loop_count = self.persisted.loop_count.saturating_add(1);
        self.persist();
        self.show_loop();
    }

    pub(super) fn reset_loop(&mut self) {
        if self.persisted.loop_count > 0 {
            self.persisted.loop_count = 0;
            self.persisted.loop_since_ms = self.wall;
            self.persist();
            self.show_loop();
        }
    }

    /// Assigned at each increment: its value is the beginning of the interval, its history shows the increments.
    fn show_loop(&mut self) {
        let value = (self.persisted.loop_since_ms / 1000).to_string();
        self.out.push(Action::Resource { name: "heart.stopstartloop".to_owned(), value });
    }
}

pub(super) fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "start",
        Verb::Prim => "prim",
        Verb::PrimForce => "primforce",
        Verb::Second => "second",
        Verb::Stop => "stop",
        Verb::ForceStop => "forcestop",
        Verb::Restart => "restart",
        Verb::StopStart => "stopstart",
        Verb::Wait => "wait",
        Verb::Swap => "swap",
        Verb::Shutdown => "shutdown",
        Verb::Update => "update",
    }
}
