//! What has the arbiter to do with the present state? In words; nothing is decided here.

use super::Refusal;
use crate::core::Core;
use crate::state::Arbiter;

impl Core {
    /// Facts, and what would change them.
    pub(in crate::core) fn arbiter_in_words(&self) -> (Vec<String>, Vec<String>) {
        let (mut facts, mut ways) = (Vec::new(), Vec::new());
        if self.settings.arbiter == Arbiter::None {
            return (facts, ways);
        }
        let arbitration = &self.arbitration;
        if let Some(tenure) = &arbitration.tenure {
            let left = tenure.until.saturating_sub(self.now);
            facts.push(format!("the arbiter's record names this node; its lease had {left} ms left at the last input"));
            ways.push("the end of the lease, when neither the arbiter nor the other node renews it".to_owned());
        }
        match arbitration.claim.as_ref().and_then(|claim| claim.refusal.as_ref()) {
            Some(Refusal::Unreachable(reason)) => {
                facts.push(format!("the arbiter cannot be asked: {reason}"));
                ways.push("an answer of the arbiter".to_owned());
            }
            Some(Refusal::Denied(reason)) => {
                facts.push(format!("the arbiter does not let this node serve: {reason}"));
                ways.push("a change of the arbiter's record".to_owned());
            }
            None if arbitration.asked.is_some() => {
                facts.push("a question to the arbiter is not answered yet".to_owned());
            }
            None => {}
        }
        if arbitration.hold {
            facts.push("no witness answered when the heartbeats of the other node were lost".to_owned());
            ways.push("a heartbeat of the other node; or stop and then prim here".to_owned());
        }
        (facts, ways)
    }
}
