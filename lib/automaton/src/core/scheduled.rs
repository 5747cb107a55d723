//! When does a secondary that is synchronised at dates (`syncat`) follow, and when does it wait?
//!
//! Between two dates it is in WAIT (NotReady) by the rule `rfs_syncat_wait`, and the primary serves alone. Its data are old and it knows:
//! `outdated` is durable before it waits, so that the death of the primary never makes it serve what is a date old. Who computes the dates
//! says so by the resource `rfs.syncat`; the operator may, too.

use super::run::{StopRequest, Then};
use super::{Core, WAIT_BLOCKED};
use crate::decide::Intent;
use crate::plan::Step;
use crate::state::{DefaultPrimary, Readiness, State, StateName};

/// The resource that is up while a synchronisation is due or runs.
pub(super) const RESOURCE: &str = "rfs.syncat";
pub(super) const RULE: &str = "rfs_syncat_wait";

impl Core {
    pub(super) fn waits_for_dates(&self) -> bool {
        self.settings.replicated && self.settings.sync_at
    }

    /// The date has come, or the operator says so; or it is called off.
    pub(super) fn schedule(&mut self, due: bool, origin: &str) {
        let waits = matches!(self.state.name, StateName::Wait | StateName::Second);
        // Who serves is synchronised with nobody.
        if !self.waits_for_dates() || due == self.sync_due || (due && !waits) {
            return;
        }
        self.sync_due = due;
        let word = if due { "up" } else { "down" };
        self.log('E', "heart", format!("Resource {RESOURCE} set to {word} by {origin}"));
    }

    /// A date is for the life that it came in, and for a node that does not serve.
    pub(super) fn forget_due_sync(&mut self) {
        let waits = matches!(self.state.name, StateName::Wait | StateName::Second);
        self.sync_due &= self.waits_for_dates() && waits;
    }

    /// A node in WAIT beside a primary: whether it stays there until the next date. `outdate`: its own record says that it is up to date,
    /// and it is not.
    pub(super) fn waits_for_date(&mut self, outdate: bool) -> bool {
        let ordered = matches!(self.intent, Intent::Second { .. });
        if !self.waits_for_dates() || self.sync_due || ordered {
            return false;
        }
        if outdate {
            self.start_job(
                super::run::JobKind::Move,
                vec![Step::Replicate { order: crate::action::ReplicaOrder::Outdate }],
            );
        } else {
            self.block(RULE, &[]);
        }
        true
    }

    /// In SECOND: the synchronisation has ended, and the primary knows it.
    pub(super) fn end_scheduled_sync(&mut self) {
        let ready = |name| State::new(name, Readiness::Ready);
        let ended = self.state == ready(StateName::Second)
            && self.synced
            && self.peer().is_some_and(|p| p.state == ready(StateName::Prim) && !p.outdate_wanted && !p.degraded);
        // It is about to become primary.
        let needed = self.swap_wanted
            || self.handover
            || matches!(&self.settings.default_primary, DefaultPrimary::Node(name) if *name == self.settings.node);
        if !self.waits_for_dates() || !ended || needed {
            return;
        }
        self.schedule(false, "reintegre");
        self.log('E', "heart", format!("Action wait from failover rule {RULE}"));
        // Said already. It is no fault: `maxloop` does not count it.
        self.last_complaint = Some(format!("{RULE} {:?}", [] as [&str; 0]));
        self.request_stop(StopRequest { action: "stopwait", then: Then::Nothing, forced: false, pause: true });
    }

    /// Whether the module waits for the next date.
    pub(super) fn is_held_by_date(&self) -> bool {
        self.state == WAIT_BLOCKED && self.rule.as_deref() == Some(RULE)
    }
}
