//! What do the nodes of farm and light modules decide? No peer and no role: the application runs wherever it may.

use super::Core;
use super::run::{StopRequest, Then, Wait};
use crate::action::{Action, Traffic};
use crate::event::Verb;
use crate::state::StateName;

impl Core {
    /// Nothing stands against it: from WAIT to UP.
    pub(super) fn go_up(&mut self) {
        self.wake();
        self.move_to(StateName::Up, "start");
    }

    /// Verbs about roles mean nothing here. Returns whether the verb was one, and refused.
    pub(super) fn refuse_roles(&mut self, verb: Verb) -> bool {
        let roles = matches!(verb, Verb::Prim | Verb::PrimForce | Verb::Second | Verb::Swap);
        if roles && self.settings.mode != crate::state::Mode::Mirror {
            let error = format!("a {} module has no primary and no secondary", self.settings.mode.as_str());
            self.refuse(error, "use start, stop or restart on each node");
            return true;
        }
        false
    }

    pub(super) fn ask_for_traffic(&mut self, traffic: Traffic) {
        // The addresses were lost on the way: what follows runs without traffic.
        if self.vip_held {
            let id = self.id();
            self.out.push(Action::Farm { id, traffic });
            self.wait_for(Wait::Farm { id });
        }
    }

    /// The filter cannot work: back to WAIT, where the reason is shown, and tried again later, as with addresses. A node that
    /// is stopping goes on with it.
    pub(super) fn farm_failed(&mut self, id: u64, reason: &str) {
        if self.job_wait() != Some(&Wait::Farm { id }) {
            return;
        }
        self.finish(|_| true);
        self.log('C', "heart", format!("Load balancing: {reason}"));
        if !self.is_stopping() {
            self.log('C', "heart", "Action wait from failover rule ip_failure");
            self.vip_retry = Some(self.now.saturating_add(super::VIP_RETRY_MS));
            self.request_stop(StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true });
        }
    }
}
