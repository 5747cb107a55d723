//! Why is the module in its state, and what would change it? The present facts in words; nothing is decided here.

use super::run::{JobKind, Wait};
use super::{Core, Reach};
use crate::decide::{self, Decision, Why};
use crate::event::{ReplicaPeer, ReplicaRole};
use crate::state::{Mode, Readiness, StateName};
use lineage::{Relation, Standing};
use serde::Serialize;

/// An answer for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The facts that hold the module in its state.
    pub because: Vec<String>,
    /// Events and commands that would move it.
    pub would_change: Vec<String>,
}

impl Explanation {
    fn because(&mut self, line: impl Into<String>) {
        self.because.push(line.into());
    }

    fn would(&mut self, line: impl Into<String>) {
        self.would_change.push(line.into());
    }
}

impl Core {
    /// The present state in words.
    pub fn explain(&self) -> Explanation {
        let mut words = Explanation::default();
        self.explain_work(&mut words);
        match self.state.name {
            StateName::Stop => self.explain_stop(&mut words),
            StateName::Wait => self.explain_wait(&mut words),
            StateName::Alone | StateName::Prim => self.explain_serving(&mut words),
            StateName::Second => self.explain_second(&mut words),
            StateName::Up => Self::explain_up(&mut words),
        }
        let mirror = self.settings.mode == Mode::Mirror;
        if mirror {
            let (facts, ways) = self.arbiter_in_words();
            words.because.extend(facts);
            words.would_change.extend(ways);
            words.because(self.peer_in_words());
        }
        if self.settings.replicated && self.state.name != StateName::Stop {
            words.because(self.data_in_words());
        }
        let (count, limit) = (self.persisted.loop_count, self.settings.max_loop);
        if self.settings.loop_interval_ms > 0 && self.loop_interval_running() {
            words.because(format!("{count} of {limit} automatic actions were taken in the present interval (maxloop)"));
        }
        if mirror && !self.failover() {
            words.because("failover is off: this node does not take over by itself");
            words.would("failover on");
        }
        if words.would_change.is_empty() {
            words.would("a command of the operator, or a change of one of these facts");
        }
        words
    }

    fn explain_work(&self, words: &mut Explanation) {
        if let Some(job) = &self.job {
            let what = match job.kind {
                JobKind::Start => "the start",
                JobKind::Stop(_) => "the stop",
                JobKind::Pause => "the way back to WAIT",
                JobKind::Restart => "the restart of the application",
                JobKind::Move => "a change of role",
            };
            let on = match &job.wait {
                Some(Wait::Script { name, force, since, .. }) => {
                    let seconds = self.now.saturating_sub(*since) / 1000;
                    let force = if *force { " force" } else { "" };
                    format!("the end of the script {name}{force}, which began {seconds} s before the last input")
                }
                Some(Wait::Replica { order, .. }) => format!("the replication engine to carry out {order:?}"),
                Some(Wait::Vip { held: true, .. }) => "the virtual addresses to be set".to_owned(),
                Some(Wait::Vip { held: false, .. }) => "the virtual addresses to be released".to_owned(),
                Some(Wait::Farm { .. }) => "the nodes of the farm to agree who has which clients".to_owned(),
                Some(Wait::Bye) => "the goodbye to the other node".to_owned(),
                None => "its next step".to_owned(),
            };
            words.because(format!("{what} is under way and waits for {on}"));
            words.would(on);
        }
        if let Some(request) = self.stop_request {
            words.because(format!("a {} was asked for and begins after the running step", request.action));
        }
        if !self.commands.is_empty() {
            words.because(format!("{} commands wait for the end of what is under way", self.commands.len()));
        }
    }

    fn explain_stop(&self, words: &mut Explanation) {
        if self.job.is_none() {
            words.because(if self.persisted.wanted {
                "it is wanted, and its start has not begun"
            } else {
                "it was stopped, or gave up, and nobody has started it since"
            });
            let mirror = self.settings.mode == Mode::Mirror;
            words.would(if mirror { "start, prim or second" } else { "start" });
        }
    }

    fn explain_wait(&self, words: &mut Explanation) {
        let peer = &self.settings.peer;
        if self.settings.replicated && !self.replica_fresh {
            words.because("the replication engine has not yet said what the data of this node are");
            words.would("its first report");
        }
        self.explain_rules(words);
        if let Some(at) = self.vip_retry.filter(|at| *at > self.now) {
            words.because(if self.settings.mode == Mode::Farm {
                "the virtual address or its traffic could not be had"
            } else {
                "the virtual address is in use by another machine"
            });
            words.would(format!("the next try, {} ms after the last input", at - self.now));
        }
        if self.persisted.failover_hold {
            words.because("the primary went away while failover is off");
            words.would(format!("start of {peer}, or stop and then prim here"));
        }
        if self.job.is_some() {
            return;
        }
        if self.settings.mode == Mode::Mirror {
            self.explain_choice(words);
        }
        if let Some(rule) = self.rule.as_deref().filter(|_| words.because.is_empty()) {
            words.because(format!("the failover rule {rule} is true"));
            words.would(format!("the rule {rule} no longer true"));
        }
    }

    fn explain_choice(&self, words: &mut Explanation) {
        let peer = &self.settings.peer;
        if self.is_held_by_date() {
            words.because(format!("{peer} serves alone until the next date of syncat (rule rfs_syncat_wait)"));
            words.would("that date, or at once: set -r rfs.syncat -v up");
        }
        match decide::start(self.intent, &self.published(), self.peer_view(), &self.settings) {
            Decision::Await if self.reach == Reach::Unknown => {
                let limit = self.settings.heartbeat_timeout_ms;
                words.because(format!("nothing was heard of {peer} yet, and its time of {limit} ms is not over"));
                words.would(format!("a heartbeat of {peer}, or its silence for {limit} ms"));
            }
            Decision::Await => {
                words.because(format!("{peer} is about to decide first"));
                words.would(format!("the next state of {peer}"));
            }
            Decision::NotReady(why) => self.explain_refusal(why, words),
            Decision::Alone { .. } | Decision::Second { .. } | Decision::Refuse(_) => {}
        }
    }

    /// The rules that hold, and what rules wait for.
    fn explain_rules(&self, words: &mut Explanation) {
        for rule in self.rules().into_iter().filter(|r| r.origin.is_some() && r.truth == Some(true)) {
            words.because(format!(
                "the failover rule {} holds: if ({}) then {}",
                rule.label, rule.condition, rule.action
            ));
            let tested = |name: &str| {
                name.split_once('.').is_some_and(|(class, _)| rule.condition.contains(&format!("{class}.")))
            };
            for (name, _) in self.reported.iter().filter(|(name, value)| *value == "down" && tested(name)) {
                words.because(format!("resource {name} is down"));
            }
            if self.state.name == StateName::Wait && rule.action == "wait()" {
                words.would(format!("({}) no longer true", rule.condition));
            }
        }
        for name in self.waits_for() {
            words.because(format!("a wait rule tests {name}, which was not reported yet"));
            words.would(format!("the first report of {name}"));
        }
    }

    fn explain_refusal(&self, why: Why, words: &mut Explanation) {
        let peer = &self.settings.peer;
        let start = format!("start of {peer}");
        match why {
            Why::NotUpToDate => {
                words.because(format!("{peer} may have newer data than this node (rule rfs_notuptodate_server)"));
                words.would(start);
                words.would("prim here, if these data are the ones to keep");
            }
            Why::NoData => {
                words.because("no node has ever served these directories: the data to keep must be named");
                words.would("prim on the node whose data are good");
            }
            Why::Inconsistent => {
                words.because("a resynchronisation of this node did not end: its directories are a mixture");
                words.would(format!("{start} as primary, which ends it"));
                words.would("primforce here, to serve the mixture all the same");
            }
            Why::Diverged => {
                words.because("both nodes changed the directories separately");
                words.would("stop and then prim on the node whose data must be kept");
            }
            Why::Degraded => {
                words.because(format!("replication failed on {peer}, which serves without it"));
                words.would(format!("stop and start of {peer}"));
            }
            Why::PeerIsPrimary | Why::PeerIsNotPrimary => {}
        }
    }

    fn explain_serving(&self, words: &mut Explanation) {
        let peer = &self.settings.peer;
        self.explain_rules(words);
        if self.degraded {
            words.because("replication failed here for good (rfs.degraded)");
            words.would("stop and start of this module");
        }
        if self.peer_serves() {
            words.because(format!("{peer} serves too: both were isolated, and this one stays"));
        }
        if self.state.name == StateName::Prim {
            words.because(format!("{peer} follows"));
            words.would(format!("stop or silence of {peer} (ALONE), or a swap (SECOND)"));
        } else if let Some(gone) = self.peer_gone() {
            words.because(format!("{peer} is no secondary: {gone}"));
            words.would(format!("start of {peer}"));
        } else {
            words.would(format!("{peer} becoming SECOND Ready"));
        }
        if self.outdate_wanted {
            words.because(format!("the replication stream is lost, and {peer} was asked to count as not up to date"));
        }
    }

    fn explain_up(words: &mut Explanation) {
        words.because("the application runs here, whatever other nodes do");
        words.would("stop, stopstart or restart, or a resource that a failover rule looks at");
    }

    fn explain_second(&self, words: &mut Explanation) {
        let peer = &self.settings.peer;
        words.because(format!("{peer} serves, and this node follows it"));
        if self.must_follow {
            words.because(format!("{peer} went on without this node, which must be synchronised again"));
        }
        if self.state.readiness == Readiness::Transient {
            words.would("the end of the synchronisation (Ready)");
        }
        if self.settings.replicated && !(self.synced && self.standing() == Standing::Paired) {
            words.because("it may not take over: it was not in sync with a primary that knows it");
            words.would(format!("stop or silence of {peer} (WAIT)"));
        } else {
            words.would(format!("stop or silence of {peer} (takeover), or a swap"));
        }
    }

    fn peer_in_words(&self) -> String {
        let peer = &self.settings.peer;
        match (self.reach, &self.peer) {
            (Reach::Up, Some(p)) => {
                let data = if self.settings.replicated { format!(", data {:?}", p.standing) } else { String::new() };
                format!("{peer} last said: {}{data}", p.state)
            }
            (Reach::Up, None) => format!("{peer} is heard, its state is not known yet"),
            (Reach::Unknown, _) => format!("{peer} is not watched, or was not heard yet"),
            (Reach::Down, _) => format!("{peer} is silent on every network"),
        }
    }

    fn data_in_words(&self) -> String {
        let Some(report) = &self.replica else { return "the replication engine has reported nothing".to_owned() };
        let role = match report.role {
            ReplicaRole::Idle => "idle",
            ReplicaRole::Primary => "primary",
            ReplicaRole::Secondary => "secondary",
        };
        let stream = match report.peer {
            ReplicaPeer::Absent => "without a stream",
            ReplicaPeer::Syncing => "synchronising",
            ReplicaPeer::InSync => "in sync",
            ReplicaPeer::Lost => "stream lost",
            ReplicaPeer::Left => "the secondary left",
        };
        let relation = self.peer.as_ref().map_or("", |p| match report.lineage.compare(&p.lineage) {
            Relation::Same => "; same epoch as the other node",
            Relation::Newer => "; ahead of the other node",
            Relation::Older => "; behind the other node",
            Relation::Diverged => "; both have epochs that the other lacks",
            Relation::BothBlank => "; neither has any history",
        });
        format!("replication here is {role}, {stream}, data {:?}{relation}", report.standing)
    }
}
