//! What has the replication engine been told, and what is a new one told after its death?

use super::input::Kind;
use super::{Runner, monotonic_ms};
use automaton::{Event, PeerMode, ReplicaOrder};
use lineage::Standing;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Number of an order that only repeats a role to a successor; its answer is nobody's.
const REPEATED: u64 = 0;

/// Early deaths of the replication engine within [`DEATHS_WINDOW_MS`] after which replication counts as failed for good.
const DEATHS_MAX: usize = 8;
const DEATHS_WINDOW_MS: u64 = 30_000;

pub(super) struct ReplicaLink {
    /// Orders not answered yet, oldest first.
    pub outstanding: VecDeque<(u64, ReplicaOrder)>,
    /// The role to repeat to a successor; None while idle.
    pub role: Option<ReplicaOrder>,
    /// Since when there may be changes that the data of this node have not, by the operator's word (seconds since 1970): for one synchronisation.
    pub since: Option<i64>,
    /// Latest standing reported: tells whether a primary serves alone or paired.
    pub standing: Standing,
    pub deaths: VecDeque<u64>,
    pub store: sys::store::Store,
    pub faulty: bool,
}

impl Runner {
    pub(super) fn order_replica(&mut self, id: u64, order: ReplicaOrder) {
        if !self.children.is_wanted(Kind::Replicate) {
            self.children.want(Kind::Replicate);
            self.start_child(Kind::Replicate);
        }
        self.links.replica.outstanding.push_back((id, order.clone()));
        self.send_replica_order(id, &order);
    }

    fn send_replica_order(&mut self, id: u64, order: &ReplicaOrder) {
        let Ok(Value::Object(mut line)) = serde_json::to_value(order) else { return };
        line.insert("id".into(), json!(id));
        if matches!(order, ReplicaOrder::Secondary { .. }) {
            line.insert("since".into(), json!(self.links.replica.since));
        }
        let line = Value::Object(line).to_string();
        self.facts.say('D', "safekit", &format!("sk-replicate <- {line}"));
        self.children.order(Kind::Replicate, &line);
    }

    /// A new engine is told the role of its predecessor, then what the predecessor did not answer.
    pub(super) fn repeat_replica_orders(&mut self) {
        let link = &self.links.replica;
        for (id, order) in repeated(link.role.as_ref(), &link.outstanding) {
            self.send_replica_order(id, &order);
        }
    }

    /// An order was carried out: remember the role a successor must take.
    pub(super) fn replica_role_after(&mut self, order: &ReplicaOrder) {
        let role = &mut self.links.replica.role;
        let primary = |peer| Some(ReplicaOrder::Primary { peer, force: false });
        match order {
            ReplicaOrder::Primary { peer, .. } | ReplicaOrder::Promote { peer } => *role = primary(*peer),
            ReplicaOrder::ExcludePeer => *role = primary(PeerMode::Excluded),
            // A resynchronisation that began in full is found again by the marks on disk: not asked for a second time.
            ReplicaOrder::Secondary { .. } | ReplicaOrder::Demote => {
                *role = Some(ReplicaOrder::Secondary { full: false });
            }
            ReplicaOrder::Retire => *role = None,
            ReplicaOrder::Outdate | ReplicaOrder::Abandon => {}
        }
    }

    /// A primary whose peer came in sync, or left, is repeated in that mode.
    pub(super) fn replica_standing(&mut self, standing: Standing) {
        let link = &mut self.links.replica;
        link.standing = standing;
        if let Some(ReplicaOrder::Primary { peer, .. }) = &mut link.role {
            match standing {
                Standing::Paired => *peer = PeerMode::Paired,
                Standing::Alone => *peer = PeerMode::Excluded,
                Standing::Blank | Standing::Inconsistent | Standing::Outdated => {}
            }
        }
    }

    /// Counts an early death of the engine; too many in a short time are a fault that a restart does not mend.
    pub(super) fn replica_died(&mut self, how: &str) {
        let now = monotonic_ms();
        let link = &mut self.links.replica;
        link.deaths.push_back(now);
        while link.deaths.front().is_some_and(|t| now.saturating_sub(*t) > DEATHS_WINDOW_MS) {
            link.deaths.pop_front();
        }
        if link.deaths.len() > DEATHS_MAX && !link.faulty {
            link.faulty = true;
            let reason = format!(
                "the replication engine died {DEATHS_MAX} times in {} s, each time soon after its start, the last time with {how}",
                DEATHS_WINDOW_MS / 1000
            );
            self.tell(Event::ReplicaFault { reason });
        }
    }
}

/// What a successor of the engine is told, in this order. `role`: the last one that was answered for; `outstanding`: the orders after
/// it, which the predecessor may have carried out, wholly or in part, or never read.
fn repeated(role: Option<&ReplicaOrder>, outstanding: &VecDeque<(u64, ReplicaOrder)>) -> Vec<(u64, ReplicaOrder)> {
    let excludes = outstanding.iter().any(|(_, order)| *order == ReplicaOrder::ExcludePeer);
    let role = role.map(|role| match role {
        // The exclusion may be on disk already, and with it nobody serves paired any more.
        ReplicaOrder::Primary { peer: PeerMode::Paired, force } if excludes => {
            ReplicaOrder::Primary { peer: PeerMode::Excluded, force: *force }
        }
        other => other.clone(),
    });
    role.map(|role| (REPEATED, role)).into_iter().chain(outstanding.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRED: ReplicaOrder = ReplicaOrder::Primary { peer: PeerMode::Paired, force: false };
    const ALONE: ReplicaOrder = ReplicaOrder::Primary { peer: PeerMode::Excluded, force: false };

    fn told(role: Option<&ReplicaOrder>, outstanding: &[ReplicaOrder]) -> Vec<ReplicaOrder> {
        let outstanding = (7..).zip(outstanding.iter().cloned()).collect();
        repeated(role, &outstanding).into_iter().map(|(_, order)| order).collect()
    }

    #[test]
    fn a_successor_takes_the_role_and_then_what_was_not_answered() {
        assert_eq!(told(None, &[]), []);
        assert_eq!(told(None, &[PAIRED]), [PAIRED]);
        assert_eq!(told(Some(&PAIRED), &[]), [PAIRED]);
        assert_eq!(told(Some(&PAIRED), &[ReplicaOrder::Retire]), [PAIRED, ReplicaOrder::Retire]);
        let second = ReplicaOrder::Secondary { full: false };
        let promote = ReplicaOrder::Promote { peer: PeerMode::Excluded };
        assert_eq!(told(Some(&second), std::slice::from_ref(&promote)), [second, promote]);
        assert_eq!(repeated(Some(&PAIRED), &VecDeque::from([(7, ReplicaOrder::Retire)]))[0].0, REPEATED);
    }

    /// The engine that died may have made the exclusion durable without saying so: asked to serve paired its successor would refuse.
    #[test]
    fn a_successor_is_not_asked_to_serve_with_a_peer_that_may_be_excluded() {
        let exclude = ReplicaOrder::ExcludePeer;
        assert_eq!(told(Some(&PAIRED), std::slice::from_ref(&exclude)), [ALONE, exclude.clone()]);
        assert_eq!(
            told(Some(&PAIRED), &[exclude.clone(), ReplicaOrder::Retire]),
            [ALONE, exclude.clone(), ReplicaOrder::Retire]
        );
        assert_eq!(told(Some(&ALONE), std::slice::from_ref(&exclude)), [ALONE, exclude]);
    }
}
