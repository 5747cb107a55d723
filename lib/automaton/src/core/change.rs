//! What changes while the module runs: its settings, a full copy that is wanted, the services that are restarted.

use super::Core;
use super::commands::Command;
use super::run::JobKind;
use crate::action::Action;
use crate::event::Verb;
use crate::plan::Step;
use crate::state::{Arbiter, Settings, StateName};

impl Core {
    /// A configuration was applied. What is fixed while a module runs is what its peer and its children were told at the start.
    pub(super) fn change_settings(&mut self, new: Settings, origin: &str) {
        self.log('U', "safekit", format!("Action config called by {origin}"));
        let running = self.state.name != StateName::Stop || self.job.is_some();
        let old = std::mem::take(&mut self.settings);
        // Leases are promises between both nodes: with a store nothing changes while one of them may live by it.
        let store = |arbiter: &Arbiter| matches!(arbiter, Arbiter::Store { .. });
        let former = old.arbiter.clone();
        self.settings = if running {
            Settings {
                mode: old.mode,
                script_control: old.script_control,
                node: old.node,
                peer: old.peer,
                replicated: old.replicated,
                has_vip: old.has_vip,
                failover: old.failover,
                default_primary: old.default_primary,
                sync_at: old.sync_at,
                rfs_scripts: old.rfs_scripts,
                arbiter: if store(&old.arbiter) || store(&new.arbiter) {
                    old.arbiter.clone()
                } else {
                    new.arbiter.clone()
                },
                ..new
            }
        } else {
            new
        };
        if self.settings.arbiter != former {
            self.forget_arbitration();
        }
        self.supervise_anew(&old.supervision);
        if self.persisted.checkers_off {
            self.set_checkers(true, origin);
        }
        if self.persisted.failover_override.take().is_some() {
            self.persist();
        }
        let failover = if self.settings.failover { "on" } else { "off" };
        self.out.push(Action::Resource { name: "usersetting.failover".into(), value: failover.into() });
        if running {
            self.commands.push_back(Command::new(Verb::Update, true));
        }
    }

    /// The script `update`, with the same state twice and the action `update`.
    pub(super) fn run_update(&mut self) {
        let state = self.state.name.to_string();
        if self.settings.has_scripts && self.state.name != StateName::Stop {
            let args = vec![state.clone(), state, "update".to_owned()];
            self.start_job(JobKind::Move, vec![Step::Script { name: "update".to_owned(), args, force: false }]);
        }
    }

    pub(super) fn want_full_copy(&mut self, wanted: bool) {
        if self.persisted.full_wanted != wanted {
            self.persisted.full_wanted = wanted;
            self.persist();
        }
    }

    /// The secondary holds everything: the wish is fulfilled.
    pub(super) fn full_copy_is_done(&mut self) {
        self.want_full_copy(false);
    }

    /// Missing services that scripts can restart alone. A restart of the whole application includes them.
    pub(super) fn restart_services(&mut self, services: Vec<String>, identity: &str) {
        self.log('C', "heart", format!("Action restart called by {identity}"));
        let inside = |list: &[String]| list.is_empty() || services.iter().all(|s| list.contains(s));
        let running = self.job.as_ref().is_some_and(|j| match j.kind {
            JobKind::Restart => inside(&j.services),
            kind => matches!(kind, JobKind::Pause | JobKind::Stop(_)),
        });
        let waiting = self.commands.iter_mut().find(|c| c.verb == Verb::Restart && c.automatic);
        match waiting {
            _ if running || self.stop_request.is_some() => {
                self.log('I', "heart", "Action restart is under way already");
            }
            Some(command) if inside(&command.services) => {
                self.log('I', "heart", "Action restart is under way already");
            }
            // Not begun yet: one restart mends both.
            Some(command) => {
                for service in services {
                    if !command.services.contains(&service) {
                        command.services.push(service);
                    }
                }
            }
            None => {
                self.automatic(Verb::Restart);
                if let Some(command) = self.commands.back_mut().filter(|c| c.verb == Verb::Restart && c.automatic) {
                    command.services = services;
                }
            }
        }
    }

    /// Begins a restart; scripts are told the services, if not all are meant.
    pub(super) fn start_restart(&mut self, mut steps: Vec<Step>, services: Vec<String>) {
        if !services.is_empty() {
            for step in &mut steps {
                if let Step::Script { args, .. } = step {
                    args.extend(["-Services".to_owned(), services.join(", ")]);
                }
            }
        }
        self.start_job(JobKind::Restart, steps);
        if let Some(job) = self.job.as_mut() {
            job.services = services;
        }
    }
}
