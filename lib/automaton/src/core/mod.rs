//! The decision core: one state machine a module, fed with events, answering with actions.
//!
//! Events only change the known facts. Transitions are chosen from the facts whenever nothing is under way (`rules`), and run
//! step by step from the table of `plan` (`run`). What must not wait for the end of a step (writers are blocked) goes beside it.

mod change;
mod commands;
mod explain;
mod facts;
mod failover;
mod lease;
mod resources;
mod rules;
mod run;
mod scheduled;
mod synced;
mod up;

use crate::action::Action;
use crate::decide::{Intent, Peer};
use crate::event::{Event, ReplicaPeer, ReplicaReport, ReplicaRole};
use crate::state::{Persisted, Published, Readiness, Settings, State, StateName};
use commands::Command;
pub use explain::Explanation;
use failover::Acting;
pub use failover::RuleView;
use lease::{Arbitration, Permission};
use lineage::{Lineage, Standing};
use run::{Job, StopRequest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Epochs told to the peer: the whole payload stays below 1100 bytes.
const EPOCHS_PUBLISHED: usize = 8;

/// How often a node tries again whose address was in use by somebody else.
const VIP_RETRY_MS: u64 = 10_000;

const WAIT_READY: State = State::new(StateName::Wait, Readiness::Transient);
const WAIT_BLOCKED: State = State::new(StateName::Wait, Readiness::NotReady);

/// A rule left out on purpose.
#[cfg_attr(not(feature = "mutations"), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// A secondary that was not in sync in this life takes over.
    TakesOverUnsynced,
    /// A node that was only paired starts without its peer.
    StartsPaired,
    /// The primary excludes its peer as soon as the stream is lost, without asking.
    ExcludesAtOnce,
    /// A primary whose peer is gone waits for ever.
    NeverExcludes,
    /// The arbiter is not asked.
    ServesUnasked,
    /// A claim does not wait for the end of the other node's lease.
    TakesOverEarly,
    /// A node serves on when its lease has ended.
    OutlivesItsLease,
    /// The lease is counted by the wall clock.
    TrustsWallClock,
    /// A claim is made whatever the record says of data.
    IgnoresTheRecord,
}

/// What is known of the peer node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reach {
    /// Nothing heard yet, and not yet given up.
    Unknown,
    Up,
    Down,
}

/// The decision core of one module on one node. See [`Core::handle`].
///
/// As JSON it is a line of the journal from which a replay goes on: a core read back decides as the one that was written.
/// A field missing from an older journal has the value of a new core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Core {
    settings: Settings,
    persisted: Persisted,
    incarnation: u64,
    now: u64,
    wall: u64,

    state: State,
    rule: Option<String>,
    intent: Intent,
    job: Option<Job>,
    stop_request: Option<StopRequest>,
    commands: VecDeque<Command>,
    next_id: u64,
    #[serde(skip)]
    out: Vec<Action>,

    // The peer.
    reach: Reach,
    peer: Option<Published>,
    /// The peer's host reported the death of the peer's runner, and nothing was heard of a successor.
    peer_died: bool,
    /// The peer joined us after having been primary (`defaultprim="lastprim"`).
    peer_was_primary: bool,

    // The replica.
    replica: Option<ReplicaReport>,
    /// A snapshot came since the engine was started.
    replica_fresh: bool,
    /// The engine was given a role.
    engaged: bool,
    /// In sync since this node became SECOND, and named as partner: only then is the standing `paired` enough to take over.
    synced: bool,
    /// A message of the peer came since both became paired: what it said before proves nothing.
    heard_since_paired: bool,
    /// The session to the primary was given up: order `secondary` again when the primary went on.
    must_follow: bool,
    /// An order beside the running step: excluding the peer, so that scripts are not blocked.
    exclusion: Option<u64>,
    /// The engine was told to answer with errors, once in a stop.
    abandoned: bool,
    /// See [`Self::note_overtaken`].
    overtaken: bool,
    degraded: bool,

    // What is told to the peer beside the state.
    publishing: bool,
    published: Option<Published>,
    leaving: bool,
    handover: bool,
    swap_wanted: bool,
    /// The latest order for a swap, by its moment: the peer tells one from another.
    swap_order: u64,
    /// The swap that the peer still asks for, by this order, was given up: the callback objected, the engine could not end its role, or the
    /// arbiter did not hear of it.
    swap_refused: Option<u64>,
    outdate_wanted: bool,
    outdate_done: bool,
    alone_from_prim: bool,
    partner: u64,
    /// Incarnation of the secondary to which the role was handed over: only the one that was named can take it.
    heir: u64,

    arbitration: Arbitration,

    // Deadlines, monotonic ms.
    stream_deadline: Option<u64>,
    swap_deadline: Option<u64>,
    vip_retry: Option<u64>,
    /// When the date of the last synchronisation is renewed (`syncdelta`).
    stamp_due: Option<u64>,
    /// The date of a synchronisation has come (`syncat`), and it has not ended yet.
    sync_due: bool,

    vip_held: bool,
    /// Swap as soon as PRIM with a ready secondary (`defaultprim`).
    auto_swap: bool,
    /// Values of resources as they were reported (`tcp.web` to `down`); what the core itself shows is in `resources`.
    reported: BTreeMap<String, String>,
    /// Classes of checkers and processes that are switched on.
    classes: BTreeSet<String>,
    acting: Acting,
    resources: BTreeMap<String, String>,
    remote: String,
    last_complaint: Option<String>,
    #[cfg(feature = "mutations")]
    #[serde(skip)]
    weakness: Option<Weakness>,
}

impl Default for Core {
    fn default() -> Self {
        Self::new(Settings::default(), Persisted::default(), 0)
    }
}

impl Core {
    /// A core in STOP. `incarnation`: random, new with each runner.
    pub fn new(settings: Settings, persisted: Persisted, incarnation: u64) -> Self {
        Self {
            settings,
            persisted,
            incarnation,
            now: 0,
            wall: 0,
            state: State::new(StateName::Stop, Readiness::NotReady),
            rule: None,
            intent: Intent::Start,
            job: None,
            stop_request: None,
            commands: VecDeque::new(),
            next_id: 1,
            out: Vec::new(),
            reach: Reach::Unknown,
            peer: None,
            peer_died: false,
            peer_was_primary: false,
            replica: None,
            replica_fresh: false,
            engaged: false,
            synced: false,
            heard_since_paired: false,
            must_follow: false,
            exclusion: None,
            abandoned: false,
            overtaken: false,
            degraded: false,
            publishing: false,
            published: None,
            leaving: false,
            handover: false,
            swap_wanted: false,
            swap_order: 0,
            swap_refused: None,
            outdate_wanted: false,
            outdate_done: false,
            alone_from_prim: false,
            partner: 0,
            heir: 0,
            arbitration: Arbitration::default(),
            stream_deadline: None,
            swap_deadline: None,
            vip_retry: None,
            stamp_due: None,
            sync_due: false,
            vip_held: false,
            auto_swap: false,
            reported: BTreeMap::new(),
            classes: BTreeSet::new(),
            acting: Acting::default(),
            resources: BTreeMap::new(),
            remote: String::new(),
            last_complaint: None,
            #[cfg(feature = "mutations")]
            weakness: None,
        }
    }

    /// Leaves a rule out.
    #[cfg(feature = "mutations")]
    pub fn weaken(&mut self, weakness: Weakness) {
        self.weakness = Some(weakness);
    }

    #[cfg(feature = "mutations")]
    fn weak(&self, weakness: Weakness) -> bool {
        self.weakness == Some(weakness)
    }

    #[cfg(not(feature = "mutations"))]
    #[allow(clippy::unused_self)] // same call as with the feature
    const fn weak(&self, _: Weakness) -> bool {
        false
    }

    /// Takes one event and answers with the actions to execute, in order.
    /// `now_ms`: monotonic clock; `wall_ms`: milliseconds since 1970, used for the interval of `maxloop` only.
    pub fn handle(&mut self, now_ms: u64, wall_ms: u64, event: Event) -> Vec<Action> {
        self.now = self.now.max(now_ms);
        self.wall = wall_ms;
        self.expire_tenure();
        self.learn(event);
        self.note_dead_peer();
        self.note_sync();
        self.note_overtaken();
        self.forget_due_sync();
        self.watch_stream();
        self.exclude_beside();
        // Each pass either starts a job or changes the state; the bound only guards against a mistake in the rules.
        for _ in 0..64 {
            if !self.advance() {
                break;
            }
        }
        self.watch_stream();
        self.exclude_beside();
        self.abandon_beside();
        self.arbitrate();
        self.stamp();
        self.stamp_sync();
        self.publish();
        self.show();
        std::mem::take(&mut self.out)
    }

    /// When [`Event::Tick`] must come at the latest (monotonic ms), and why.
    pub fn poll_timeout(&self) -> Option<(u64, &'static str)> {
        [
            (self.stream_deadline.filter(|_| !self.outdate_wanted), "lost replication stream"),
            (self.swap_deadline, "answer to the swap"),
            (self.rule_deadline(), "failover rule"),
            (self.vip_retry.filter(|_| self.state.name == StateName::Wait), "retry of the virtual address"),
            (self.sync_deadline(), "date of the last synchronisation"),
        ]
        .into_iter()
        .chain(self.arbitration_deadlines())
        .filter_map(|(at, why)| at.map(|at| (at, why)))
        // What has passed was considered in the last `handle`: only another event can make more of it.
        .filter(|(at, _)| *at > self.now)
        .min()
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Name of the rule that keeps the module in WAIT.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// What the peer is told.
    pub fn published(&self) -> Published {
        let report = self.replica.as_ref().filter(|_| self.settings.replicated);
        let mut lineage = report.map(|r| r.lineage.clone()).unwrap_or_default();
        lineage.0.truncate(EPOCHS_PUBLISHED);
        let mut published = Published {
            state: self.state,
            incarnation: self.incarnation,
            standing: report.map_or(Standing::Blank, |r| r.standing),
            lineage,
            position: report.map_or(0, |r| r.position),
            was_primary: self.persisted.was_primary,
            alone_from_prim: match self.state.name {
                StateName::Alone => self.alone_from_prim,
                // Both lost while they were isolated: the choice is the same as at its end.
                StateName::Wait => self.persisted.alone_from_prim,
                _ => false,
            },
            leaving: self.leaving,
            handover: self.handover,
            swap_wanted: self.swap_wanted,
            swap_order: if self.swap_wanted { self.swap_order } else { 0 },
            swap_refused: self.swap_refused.unwrap_or(0),
            outdate_wanted: self.outdate_wanted,
            outdate_done: self.outdate_done,
            partner: self.partner,
            store_revision: 0,
            lease_stamp: 0,
            lease_echo: 0,
            lease_to: 0,
            degraded: self.degraded,
            full_wanted: self.persisted.full_wanted && self.state.name.serves(),
            resources: self.published_resources(),
        };
        self.put_leases(&mut published);
        published
    }

    /// A transition runs, or an order waits for its end.
    pub fn is_busy(&self) -> bool {
        let swaps = self.swap_wanted || self.transfer_wanted();
        self.job.is_some() || self.stop_request.is_some() || !self.commands.is_empty() || swaps
    }

    pub fn persisted(&self) -> &Persisted {
        &self.persisted
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the peer last said; None while it is silent.
    pub fn peer(&self) -> Option<&Published> {
        self.peer.as_ref().filter(|_| self.reach == Reach::Up)
    }

    /// `uptodate`, `not uptodate`, `degraded`, or `none` for a module without replicated directories.
    pub fn data_state(&self) -> &'static str {
        if !self.settings.replicated {
            "none"
        } else if self.degraded {
            "degraded"
        } else if self.up_to_date() {
            "uptodate"
        } else {
            "not uptodate"
        }
    }

    /// Whether the limit of automatic actions is reached inside the present interval (`checkloop`).
    pub fn loop_reached(&self) -> bool {
        self.settings.loop_interval_ms > 0
            && self.loop_interval_running()
            && self.persisted.loop_count >= self.settings.max_loop
    }

    /// A stopped or waiting replica that is only `paired` cannot know whether its peer went on.
    fn up_to_date(&self) -> bool {
        match self.standing() {
            Standing::Alone => true,
            Standing::Paired => !matches!(self.state.name, StateName::Stop | StateName::Wait),
            _ => false,
        }
    }

    fn standing(&self) -> Standing {
        self.replica.as_ref().map_or(Standing::Blank, |r| r.standing)
    }

    fn own_lineage(&self) -> Lineage {
        self.replica.as_ref().map(|r| r.lineage.clone()).unwrap_or_default()
    }

    fn stream(&self) -> ReplicaPeer {
        self.replica.as_ref().map_or(ReplicaPeer::Absent, |r| r.peer)
    }

    /// The engine acknowledges only together with the peer.
    fn serves_paired(&self) -> bool {
        self.settings.replicated
            && !self.degraded
            && self.replica.as_ref().is_some_and(|r| r.role == ReplicaRole::Primary && r.standing == Standing::Paired)
    }

    /// Whether the peer has, or had when last heard of, an epoch that followed ours: it served without us, and what it acknowledged
    /// is not here. Remembered, since a peer that is not heard any more did it all the same.
    fn note_overtaken(&mut self) {
        self.overtaken = self.serves_paired() && (self.overtaken || self.peer_is_newer());
    }

    /// What was heard last of the peer names an epoch that followed ours.
    fn peer_is_newer(&self) -> bool {
        let newer = |p: &Published| self.own_lineage().compare(&p.lineage) == lineage::Relation::Older;
        self.settings.replicated && self.peer.as_ref().is_some_and(newer)
    }

    fn peer_view(&self) -> Peer<'_> {
        match (self.reach, &self.peer) {
            (Reach::Up, Some(peer)) => Peer::Present(peer),
            (Reach::Down, _) => Peer::Absent,
            _ => Peer::Unknown,
        }
    }

    /// A primary whose stream to its secondary is alive.
    fn is_followed(&self) -> bool {
        self.state.name.serves()
            && self.settings.replicated
            && matches!(self.stream(), ReplicaPeer::InSync | ReplicaPeer::Syncing)
    }

    /// Why the peer cannot be our partner any more, as the log says it; None while it may be.
    fn peer_gone(&self) -> Option<&'static str> {
        let Some(peer) = &self.peer else {
            let why = if self.peer_died { "remote runner dead" } else { "no heartbeat" };
            return (self.reach == Reach::Down).then_some(why);
        };
        match (self.reach, peer.state.name) {
            (Reach::Down, _) => Some("no heartbeat"),
            // Its engine follows in a new life of which no heartbeat has come yet: the goodbye was the former life's.
            _ if (peer.leaving || peer.state.name == StateName::Stop)
                && self.is_followed()
                && !self.heard_since_paired =>
            {
                None
            }
            _ if peer.leaving => Some("remote stop"),
            (_, StateName::Stop) => Some("remote stop"),
            (_, StateName::Wait) => {
                // A primary whose stream is alive has only not heard yet that the peer became SECOND.
                let following = self.is_followed()
                    || (self.state.name.serves() && self.settings.replicated && !self.heard_since_paired);
                (!following).then_some("remote stop")
            }
            _ => None,
        }
    }

    fn log(&mut self, level: char, from: &str, message: impl Into<String>) {
        self.out.push(Action::Log { level, from: from.to_owned(), message: message.into() });
    }

    /// The operator who waits for an answer gets it, and the log says the same.
    fn refuse(&mut self, error: impl Into<String>, hint: &str) {
        let error = error.into();
        self.log('C', "heart", error.clone());
        self.out.push(Action::Refuse { error, hint: hint.to_owned() });
    }

    fn persist(&mut self) {
        self.out.push(Action::Persist { core: self.persisted.clone() });
    }

    fn set_state(&mut self, state: State, rule: Option<&str>) {
        let rule = rule.map(str::to_owned);
        if self.state == state && self.rule == rule {
            return;
        }
        let was = self.state;
        self.state = state;
        self.rule = rule;
        self.forget_sync(was, state);
        match state.name {
            StateName::Alone if was.name != StateName::Alone => {
                self.alone_from_prim = was.name == StateName::Prim;
                if self.persisted.alone_from_prim != self.alone_from_prim {
                    self.persisted.alone_from_prim = self.alone_from_prim;
                    self.persist();
                }
            }
            StateName::Second if was.name != StateName::Second => self.synced = self.handover,
            _ => {}
        }
        if state.name != StateName::Prim {
            self.partner = 0;
        }
        if state.name != StateName::Second {
            self.handover = false;
            self.swap_wanted = false;
            self.swap_deadline = None;
            self.outdate_done = false;
        }
        if !state.name.serves() {
            self.outdate_wanted = false;
            self.stream_deadline = None;
        }
        let primary = match state.name {
            StateName::Alone | StateName::Prim => true,
            StateName::Second => false,
            StateName::Wait | StateName::Stop | StateName::Up => self.persisted.was_primary,
        };
        if primary != self.persisted.was_primary {
            self.persisted.was_primary = primary;
            self.persist();
        }
        self.out.push(Action::StateChanged { state, rule: self.rule.clone() });
        self.publish();
    }

    fn publish(&mut self) {
        // Before the engine's first snapshot our standing is unknown: saying "blank" could let an older peer serve.
        if !self.publishing || (self.settings.replicated && !self.replica_fresh) {
            return;
        }
        let state = self.published();
        if self.published.as_ref() != Some(&state) {
            self.published = Some(state.clone());
            self.out.push(Action::Publish { state });
        }
    }

    /// Resources that follow from the facts.
    fn show(&mut self) {
        let mut wanted = vec![("state.local", self.state.to_string())];
        if !self.remote.is_empty() {
            wanted.push(("state.remote", self.remote.clone()));
        }
        let word = |up: bool| if up { "up" } else { "down" }.to_owned();
        if self.settings.replicated && self.replica.is_some() {
            wanted.push(("rfs.uptodate", word(self.up_to_date())));
            wanted.push(("rfs.degraded", word(self.degraded)));
            wanted.extend(self.is_synced().map(|synced| ("rfs.synced", word(synced))));
        }
        wanted.extend(self.waits_for_dates().then(|| ("rfs.syncat", word(self.sync_due))));
        if let Some(up) = self.show_arbitration() {
            wanted.push(("splitbrain.uptodate", word(up)));
        }
        wanted.push(("heart.maxloop", self.loop_reached().to_string()));
        for (name, value) in wanted {
            if self.resources.get(name) != Some(&value) {
                self.resources.insert(name.to_owned(), value.clone());
                self.out.push(Action::Resource { name: name.to_owned(), value });
            }
        }
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn failover(&self) -> bool {
        self.persisted.failover_override.unwrap_or(self.settings.failover)
    }
}
