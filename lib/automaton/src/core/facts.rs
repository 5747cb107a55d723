//! What an event teaches: facts change here, and nothing is decided.

use super::run::Wait;
use super::{Core, Reach};
use crate::action::{Action, ReplicaOrder};
use crate::event::{Event, Evidence, ReplicaPeer, ReplicaReport, ReplicaRole};
use crate::state::{Published, Readiness, State, StateName};
use lineage::Standing;

impl Core {
    pub(super) fn learn(&mut self, event: Event) {
        match event {
            Event::Begin { boot } => self.begin(boot),
            Event::Command { verb, full, identity, origin } => self.command(verb, full, identity, origin),
            Event::PeerState { state, bye } => self.hear(state, bye),
            Event::PeerDown => self.lose_peer(),
            // The state follows; until then nothing new is known.
            Event::PeerUp | Event::Tick => {}
            // Only what is authenticated; the rest is said in the log by the runner.
            Event::PeerGone { evidence } => self.peer_died |= evidence == Evidence::RunnerDead,
            Event::ScriptDone { id, exit } => self.script_done(id, exit),
            Event::Replica { report } => self.snapshot(report),
            Event::ReplicaDone { id } => self.replica_done(id),
            Event::ReplicaFailed { id, reason } => self.replica_failed(id, &reason),
            Event::ReplicaFault { reason } => self.fault(&reason),
            Event::VipDone { id } => self.vip_done(id),
            Event::VipFailed { id, reason } => self.vip_failed(id, &reason),
            Event::FarmDone { id } => self.finish(|w| *w == Wait::Farm { id }),
            Event::FarmFailed { id, reason } => self.farm_failed(id, &reason),
            Event::Arbiter { id, answer } => self.arbiter_answers(id, answer),
            Event::ByeDone => self.finish(|w| *w == Wait::Bye),
            Event::Resource { name, value, origin } if name == super::scheduled::RESOURCE => {
                self.schedule(value == "up", &origin);
            }
            Event::Resource { name, value, .. } => self.report(&name, &value),
            Event::SetCheckers { on, origin } => self.set_checkers(on, &origin),
            Event::SetFailover { on, origin } => {
                self.log(
                    'U',
                    "safekit",
                    format!("Action failover {} called by {origin}", if on { "on" } else { "off" }),
                );
                self.persisted.failover_override = Some(on);
                if on {
                    self.persisted.failover_hold = false;
                }
                self.persist();
                let value = if on { "on" } else { "off" }.to_owned();
                self.out.push(Action::Resource { name: "usersetting.failover".into(), value });
            }
            Event::ResetLoop => self.reset_loop(),
            Event::RestartServices { services, identity } => self.restart_services(services, &identity),
            Event::Settings { settings, origin } => self.change_settings(*settings, &origin),
            Event::IncLoop { identity } => {
                self.count_loop();
                self.log('D', "heart", format!("Automatic action counted by {identity}"));
            }
        }
    }

    fn hear(&mut self, mut state: Published, bye: bool) {
        if bye {
            state.state = State::new(StateName::Stop, Readiness::NotReady);
        }
        self.reach = Reach::Up;
        self.peer_died = false;
        self.heard_since_paired = true;
        self.hear_leases(&state);
        self.swap_refused = self.swap_refused.filter(|order| state.swap_wanted && state.swap_order == *order);
        if state.state.name == StateName::Wait {
            self.peer_was_primary = state.was_primary;
        }
        self.set_remote(state.state.to_string());
        if !state.outdate_wanted {
            self.outdate_done = false;
        }
        if self.handover && state.state.name.serves() {
            self.handover = false;
            self.swap_deadline = None;
        }
        self.peer = Some(state);
    }

    fn lose_peer(&mut self) {
        let stopped = self.peer.as_ref().is_some_and(|p| p.state.name == StateName::Stop);
        self.reach = Reach::Down;
        // A peer that said goodbye is known to be stopped; its silence is no news.
        if !stopped {
            self.set_remote("UNKNOWN".to_owned());
        }
        self.peer = None;
        self.outdate_done = false;
        self.lose_leases();
    }

    /// A peer whose runner is dead need not be waited for. Its children take the safe side at once; where there is a stream, its end says that the
    /// engine has. A successor serves nobody before it has heard of us, or the operator says so; that it is heard ends this.
    pub(super) fn note_dead_peer(&mut self) {
        let cut = !self.settings.replicated || !matches!(self.stream(), ReplicaPeer::InSync | ReplicaPeer::Syncing);
        if self.peer_died && cut && self.reach == Reach::Up {
            self.lose_peer();
        }
    }

    fn set_remote(&mut self, remote: String) {
        if self.remote != remote {
            self.log('E', "heart", format!("Remote state {remote}"));
            self.remote = remote;
        }
    }

    fn snapshot(&mut self, report: ReplicaReport) {
        let paired = |r: &ReplicaReport| r.role == ReplicaRole::Primary && r.standing == Standing::Paired;
        if paired(&report) && !self.replica.as_ref().is_some_and(paired) {
            self.heard_since_paired = false;
        }
        self.replica = Some(report);
        self.replica_fresh = true;
    }

    /// The right to take over: in sync, and the primary knows this life of ours. A primary that has not noticed our restart yet
    /// may be about to go on alone because of it.
    pub(super) fn note_sync(&mut self) {
        let in_sync = self.replica.as_ref().is_some_and(|r| {
            r.role == ReplicaRole::Secondary && r.peer == ReplicaPeer::InSync && r.standing == Standing::Paired
        });
        let named = self.peer().is_some_and(|p| p.state.name.serves() && p.partner == self.incarnation);
        if self.state.name == StateName::Second && in_sync && named && !self.must_follow {
            self.synced = true;
        }
    }

    /// An order was carried out. The snapshot usually came before; where it did not, the facts that the order implies are
    /// taken over, so that no rule fires twice on the old ones.
    fn replica_done(&mut self, id: u64) {
        let beside = self.exclusion == Some(id);
        let order = match &self.job_wait() {
            Some(Wait::Replica { id: waited, order }) if *waited == id => Some(order.clone()),
            _ if beside => Some(ReplicaOrder::ExcludePeer),
            _ => None,
        };
        let Some(order) = order else { return };
        if let Some(report) = self.replica.as_mut() {
            match order {
                ReplicaOrder::ExcludePeer if report.standing == Standing::Paired => {
                    report.standing = Standing::Alone;
                    report.peer = ReplicaPeer::Absent;
                    report.frozen = false;
                }
                ReplicaOrder::Outdate if report.standing.is_up_to_date() => {
                    report.standing = Standing::Outdated;
                    report.peer = ReplicaPeer::Absent;
                }
                ReplicaOrder::Retire => report.role = ReplicaRole::Idle,
                ReplicaOrder::Demote if report.role == ReplicaRole::Primary => {
                    report.role = ReplicaRole::Secondary;
                    report.peer = ReplicaPeer::Absent;
                }
                _ => {}
            }
        }
        match order {
            ReplicaOrder::Retire => self.engaged = false,
            ReplicaOrder::ExcludePeer => {
                self.partner = 0;
                self.outdate_wanted = false;
                self.stream_deadline = None;
            }
            ReplicaOrder::Outdate => {
                self.synced = false;
                self.outdate_done = self.peer.as_ref().is_some_and(|p| p.outdate_wanted);
            }
            _ => {}
        }
        if beside {
            self.exclusion = None;
        } else {
            self.finish(|w| matches!(w, Wait::Replica { id: i, .. } if *i == id));
        }
    }

    fn fault(&mut self, reason: &str) {
        self.log('C', "heart", format!("Replication cannot go on: {reason}"));
        self.exclusion = None;
        if self.state.name.serves() {
            self.degraded = true;
            self.log(
                'C',
                "heart",
                "Replicated directories are degraded: stop and start this module to replicate again",
            );
        } else if self.state.name != StateName::Stop {
            self.local_fault();
        }
        // An order under way will not be answered any more.
        if let Some(Wait::Replica { id, .. }) = self.job_wait() {
            let id = *id;
            self.finish(|w| matches!(w, Wait::Replica { id: i, .. } if *i == id));
        }
    }

    /// Keeps the deadline of a stream that is lost while heartbeats go on.
    pub(super) fn watch_stream(&mut self) {
        let lost = self.serves_paired()
            && self.state.name.serves()
            && !matches!(self.stream(), ReplicaPeer::InSync | ReplicaPeer::Syncing);
        if !lost {
            if self.stream_deadline.take().is_some() {
                self.outdate_wanted = false;
            }
            return;
        }
        let now = self.now;
        let deadline = *self.stream_deadline.get_or_insert(now.saturating_add(self.settings.stream_grace_ms));
        // The answer to an earlier question must have been withdrawn, or it would be taken for the answer to this one.
        let stale = self.peer.as_ref().is_some_and(|p| p.outdate_done);
        if now >= deadline && !self.outdate_wanted && !stale && self.reach == Reach::Up {
            self.log('C', "heart", "Replication stream lost: asking the secondary to count as not up to date");
            self.outdate_wanted = true;
        }
    }
}
