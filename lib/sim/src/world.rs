//! What happens to two nodes: hosts, runners, heartbeats, streams and clients around the real cores, in one thread.

use crate::engine::{Engine, Mutation, Phase, Stream};
use crate::rng::Rng;
use automaton::{
    Action, Core, DefaultPrimary, Event, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer, ReplicaRole,
    Settings, State, StateName, Verb,
};
use lineage::{EpochId, Relation, Standing};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const TIMEOUT_MS: u64 = 2_000;
pub const GRACE_MS: u64 = 1_500;
const PULSE_MS: u64 = 200;

/// A host with its module.
#[derive(Debug)]
pub struct Node {
    pub on: bool,
    pub paused: bool,
    pub engine: Engine,
    pub persisted: Persisted,
    pub runner: Option<Runner>,
    /// The application runs.
    pub app: bool,
    pub vip: bool,
    pub vip_conflict: bool,
    pub settings: Settings,
    /// Log lines and script calls, in order.
    pub log: Vec<String>,
    pub refusals: Vec<String>,
    life: u64,
    backlog: VecDeque<Ev>,
    fifo: u64,
    /// The stream this engine takes part in, as far as it knows.
    stream: u64,
}

#[derive(Debug)]
pub struct Runner {
    pub core: Core,
    heartbeat: bool,
    seq: u64,
    published: Option<Published>,
    heard: Option<(u64, u64, Published, bool)>,
    last_heard: u64,
    verdict: Option<bool>,
    tick: u64,
}

#[derive(Clone, Debug)]
enum Ev {
    Core { node: usize, life: u64, event: Event },
    Packet { to: usize, life: u64, seq: u64, state: Published, bye: bool },
    Pulse { node: usize, life: u64 },
    Order { node: usize, life: u64, id: u64, order: ReplicaOrder, tries: u32 },
    Script { node: usize, life: u64, id: u64, name: String },
    Vip { node: usize, life: u64, id: u64, held: bool },
    Streams,
    Marker { stream: u64 },
    Adopt { stream: u64, data: Vec<u64> },
    Live { stream: u64 },
    Apply { stream: u64, data: Vec<u64> },
    Ack { stream: u64, data: Vec<u64> },
    Lost { node: usize, stream: u64, as_peer: ReplicaPeer },
    Write,
    Restart { node: usize },
}

/// The whole.
#[derive(Debug)]
pub struct World {
    pub nodes: [Node; 2],
    pub now: u64,
    pub rng: Rng,
    /// Percent of heartbeats lost.
    pub loss: u64,
    /// Heartbeats from node i to the other pass.
    pub beats: [bool; 2],
    /// The replication network works.
    pub link: bool,
    pub slow_scripts: bool,
    pub mutation: Mutation,
    pub acked: BTreeSet<u64>,
    pub violations: Vec<String>,
    /// A node took a living peer for dead: the compromise of two nodes without an arbiter applies from here on.
    pub isolation: bool,
    /// One line an event.
    pub trace: bool,
    pub writing: bool,
    queue: BTreeMap<(u64, u64), Ev>,
    order: u64,
    stream: Option<Stream>,
    streams: u64,
    next_write: u64,
}

pub fn settings(node: usize) -> Settings {
    let names = ["node1", "node2"];
    Settings {
        node: names[node].to_owned(),
        peer: names[1 - node].to_owned(),
        replicated: true,
        has_vip: true,
        has_scripts: true,
        failover: true,
        default_primary: DefaultPrimary::Alone,
        max_loop: 3,
        loop_interval_ms: 86_400_000,
        automatic_reboot: false,
        nice_stop_timeout_ms: 300_000,
        force_stop_timeout_ms: 300_000,
        heartbeat_timeout_ms: TIMEOUT_MS,
        stream_grace_ms: GRACE_MS,
    }
}

impl World {
    pub fn new(seed: u64, mutation: Mutation) -> Self {
        let node = |i| Node {
            on: false,
            paused: false,
            engine: Engine::default(),
            persisted: Persisted::default(),
            runner: None,
            app: false,
            vip: false,
            vip_conflict: false,
            settings: settings(i),
            log: Vec::new(),
            refusals: Vec::new(),
            life: 0,
            backlog: VecDeque::new(),
            fifo: 0,
            stream: 0,
        };
        let mut world = Self {
            nodes: [node(0), node(1)],
            now: 0,
            rng: Rng::new(seed),
            loss: 0,
            beats: [true; 2],
            link: true,
            slow_scripts: false,
            mutation,
            acked: BTreeSet::new(),
            violations: Vec::new(),
            isolation: false,
            trace: false,
            writing: true,
            queue: BTreeMap::new(),
            order: 0,
            stream: None,
            streams: 0,
            next_write: 1,
        };
        world.at(0, Ev::Streams);
        world.at(5, Ev::Write);
        world
    }

    // Hosts.

    pub fn boot(&mut self, node: usize) {
        if !self.nodes[node].on {
            self.nodes[node].on = true;
            let boot = self.nodes[node].persisted.wanted;
            self.run(node, boot);
        }
    }

    pub fn power_off(&mut self, node: usize) {
        if !self.nodes[node].on {
            return;
        }
        self.say(node, "power off");
        let length = self.nodes[node].engine.data.len() as u64;
        let keep = self.rng.range(0, length) as usize;
        let n = &mut self.nodes[node];
        n.on = false;
        n.paused = false;
        n.backlog.clear();
        n.runner = None;
        n.life += 1;
        n.app = false;
        n.vip = false;
        n.engine.die(true, keep);
    }

    /// The runner dies; its children see the end of their input and take the safe side. It is started again soon.
    pub fn kill_runner(&mut self, node: usize) {
        if self.nodes[node].runner.is_none() {
            return;
        }
        self.say(node, "runner killed");
        let n = &mut self.nodes[node];
        n.runner = None;
        n.life += 1;
        n.vip = false;
        n.engine.die(false, 0);
        let wait = self.rng.range(50, 3_000);
        self.at(wait, Ev::Restart { node });
    }

    pub fn pause(&mut self, node: usize) {
        self.nodes[node].paused = self.nodes[node].on;
    }

    pub fn resume(&mut self, node: usize) {
        self.nodes[node].paused = false;
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for ev in backlog {
            self.at(0, ev);
        }
    }

    fn run(&mut self, node: usize, boot: bool) {
        let incarnation = self.rng.draw();
        let n = &mut self.nodes[node];
        n.life += 1;
        n.runner = Some(Runner {
            core: Core::new(n.settings.clone(), n.persisted.clone(), incarnation),
            heartbeat: false,
            seq: 0,
            published: None,
            heard: None,
            last_heard: self.now,
            verdict: None,
            tick: 0,
        });
        let life = n.life;
        self.at(0, Ev::Core { node, life, event: Event::Begin { boot } });
    }

    pub fn command(&mut self, node: usize, verb: Verb) {
        self.tell(node, Event::Command { verb, full: false, identity: None, origin: "root".to_owned() });
    }

    pub fn automatic(&mut self, node: usize, verb: Verb, identity: &str) {
        let event =
            Event::Command { verb, full: false, identity: Some(identity.to_owned()), origin: "root".to_owned() };
        self.tell(node, event);
    }

    pub fn tell(&mut self, node: usize, event: Event) {
        let life = self.nodes[node].life;
        self.at(0, Ev::Core { node, life, event });
    }

    // Views.

    pub fn state(&self, node: usize) -> Option<State> {
        self.nodes[node].runner.as_ref().map(|r| r.core.state())
    }

    pub fn is(&self, node: usize, name: StateName, readiness: Readiness) -> bool {
        self.state(node) == Some(State::new(name, readiness))
    }

    /// One PRIM Ready, one SECOND Ready.
    pub fn is_mirror(&self) -> bool {
        (0..2).any(|n| {
            self.is(n, StateName::Prim, Readiness::Ready) && self.is(1 - n, StateName::Second, Readiness::Ready)
        })
    }

    /// Runs for `ms`, or until `done`. Returns whether it was done.
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + ms;
        loop {
            if done(self) {
                return true;
            }
            match self.queue.first_key_value() {
                Some((&(at, _), _)) if at <= end => self.step(),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
    }

    pub fn run_for(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    fn at(&mut self, delay: u64, ev: Ev) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), ev);
    }

    fn say(&self, node: usize, what: impl std::fmt::Display) {
        if self.trace {
            println!("{:>8} node{} {what}", self.now, node + 1);
        }
    }

    pub fn violate(&mut self, what: impl Into<String>) {
        let what = format!("{} ms: {}", self.now, what.into());
        if self.trace {
            println!("VIOLATION {what}");
        }
        self.violations.push(what);
    }

    // Events.

    fn step(&mut self) {
        let Some(((at, _), ev)) = self.queue.pop_first() else { return };
        self.now = at;
        let owner = match &ev {
            Ev::Core { node, .. }
            | Ev::Pulse { node, .. }
            | Ev::Order { node, .. }
            | Ev::Script { node, .. }
            | Ev::Vip { node, .. }
            | Ev::Lost { node, .. }
            | Ev::Restart { node } => Some(*node),
            Ev::Packet { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(node) = owner
            && self.nodes[node].paused
        {
            self.nodes[node].backlog.push_back(ev);
            return;
        }
        match ev {
            Ev::Core { node, life, event } => self.core(node, life, event),
            Ev::Packet { to, life, seq, state, bye } => self.packet(to, life, seq, state, bye),
            Ev::Pulse { node, life } => self.pulse(node, life),
            Ev::Order { node, life, id, order, tries } => self.carry_out(node, life, id, order, tries),
            Ev::Script { node, life, id, name } => self.script_ends(node, life, id, &name),
            Ev::Vip { node, life, id, held } => self.vip(node, life, id, held),
            Ev::Restart { node } => {
                if self.nodes[node].on && self.nodes[node].runner.is_none() {
                    self.run(node, false);
                }
            }
            Ev::Streams => self.streams(),
            Ev::Marker { stream } => self.marker(stream),
            Ev::Adopt { stream, data } => self.adopt(stream, data),
            Ev::Live { stream } => self.live(stream),
            Ev::Apply { stream, data } => self.apply(stream, data),
            Ev::Ack { stream, data } => self.acknowledge(stream, data),
            Ev::Lost { node, stream, as_peer } => self.lose(node, stream, as_peer),
            Ev::Write => self.write(),
        }
    }

    fn core(&mut self, node: usize, life: u64, event: Event) {
        if self.nodes[node].life != life || self.nodes[node].runner.is_none() {
            return;
        }
        if self.trace && event != Event::Tick {
            self.say(node, format!("event {}", serde_json::to_string(&event).unwrap_or_default()));
        }
        let now = self.now;
        let Some(runner) = self.nodes[node].runner.as_mut() else { return };
        let actions = runner.core.handle(now, 1_700_000_000_000 + now, event);
        if let Some((at, _)) = runner.core.poll_timeout()
            && (runner.tick <= now || at < runner.tick)
        {
            let at = at.max(now + 1);
            runner.tick = at;
            self.at(at - now, Ev::Core { node, life, event: Event::Tick });
        }
        for action in actions {
            if self.trace {
                self.say(node, format!("  -> {}", serde_json::to_string(&action).unwrap_or_default()));
            }
            self.act(node, life, action);
        }
    }

    fn act(&mut self, node: usize, life: u64, action: Action) {
        match action {
            Action::Script { id, name, args, .. } => {
                let forced = if args.first().is_some_and(|a| a == "force") { " force" } else { "" };
                self.nodes[node].log.push(format!("Script {name}{forced}"));
                if name == "start_prim" {
                    let other = &self.nodes[1 - node];
                    if other.app && other.engine.role == ReplicaRole::Primary && !self.isolation {
                        self.violate(format!(
                            "node{}: start_prim while the application runs on the other node",
                            node + 1
                        ));
                    }
                }
                let most = if self.slow_scripts { 3_000 } else { 60 };
                let delay = self.rng.range(1, most);
                self.at(delay, Ev::Script { node, life, id, name });
            }
            Action::Replicate { id, order } => {
                self.start_engine(node, life);
                let delay = self.rng.range(1, 60);
                self.at(delay, Ev::Order { node, life, id, order, tries: 0 });
            }
            Action::Vip { id, held } => {
                let delay = self.rng.range(1, 40);
                self.at(delay, Ev::Vip { node, life, id, held });
            }
            Action::Children { heartbeat, replicate, .. } => self.children(node, life, heartbeat, replicate),
            Action::Publish { state } => {
                if let Some(runner) = self.nodes[node].runner.as_mut() {
                    runner.published = Some(state);
                }
                self.send(node, false);
            }
            Action::Bye => {
                for _ in 0..5 {
                    self.send(node, true);
                }
                if let Some(runner) = self.nodes[node].runner.as_mut() {
                    runner.published = None;
                }
                self.at(100, Ev::Core { node, life, event: Event::ByeDone });
            }
            Action::Persist { core } => self.nodes[node].persisted = core,
            Action::StateChanged { state, .. } => self.nodes[node].log.push(format!("Local state {state}")),
            Action::Log { message, .. } => self.nodes[node].log.push(message),
            Action::Resource { name, value } => self.nodes[node].log.push(format!("Resource {name} {value}")),
            Action::Refuse { error, .. } => self.nodes[node].refusals.push(error),
            Action::Reboot => self.nodes[node].log.push("reboot".to_owned()),
            Action::ErrdClass { .. } => {}
        }
    }

    fn children(&mut self, node: usize, life: u64, heartbeat: bool, replicate: bool) {
        let now = self.now;
        let Some(runner) = self.nodes[node].runner.as_mut() else { return };
        if heartbeat && !runner.heartbeat {
            runner.heartbeat = true;
            runner.last_heard = now;
            runner.verdict = None;
            runner.heard = None;
            self.at(PULSE_MS, Ev::Pulse { node, life });
        } else if !heartbeat {
            runner.heartbeat = false;
            runner.published = None;
        }
        if replicate {
            self.start_engine(node, life);
        } else if self.nodes[node].engine.running {
            self.nodes[node].engine.die(false, 0);
        }
    }

    fn start_engine(&mut self, node: usize, _life: u64) {
        if !self.nodes[node].engine.running {
            self.nodes[node].engine.running = true;
            self.report(node);
        }
    }

    /// A snapshot on its way to the core, in order.
    fn report(&mut self, node: usize) {
        let delay = self.rng.range(0, 8);
        let n = &mut self.nodes[node];
        let event = Event::Replica { report: n.engine.report(self.mutation) };
        n.fifo = n.fifo.max(self.now + delay);
        let (at, life) = (n.fifo, n.life);
        self.at(at - self.now, Ev::Core { node, life, event });
    }

    fn answer(&mut self, node: usize, event: Event) {
        let n = &mut self.nodes[node];
        n.fifo = n.fifo.max(self.now);
        let (at, life) = (n.fifo, n.life);
        self.at(at - self.now, Ev::Core { node, life, event });
    }

    fn script_ends(&mut self, node: usize, life: u64, id: u64, name: &str) {
        if self.nodes[node].life == life {
            match name {
                "start_prim" => self.nodes[node].app = true,
                "stop_prim" | "prestart" => self.nodes[node].app = false,
                _ => {}
            }
            self.core(node, life, Event::ScriptDone { id, exit: Some(0) });
        }
    }

    fn vip(&mut self, node: usize, life: u64, id: u64, held: bool) {
        if self.nodes[node].life != life {
            return;
        }
        if held && self.nodes[node].vip_conflict {
            let reason = "10.0.0.50 is in use by 02:00:00:00:00:01".to_owned();
            return self.core(node, life, Event::VipFailed { id, reason });
        }
        if held && self.nodes[1 - node].vip && !self.isolation {
            self.violate(format!("node{}: address taken while the other node holds it", node + 1));
        }
        self.nodes[node].vip = held;
        self.core(node, life, Event::VipDone { id });
    }

    // Heartbeats.

    fn send(&mut self, node: usize, bye: bool) {
        let Some(runner) = self.nodes[node].runner.as_mut() else { return };
        let Some(state) = runner.published.clone() else { return };
        runner.seq += 1;
        let seq = runner.seq;
        let life = self.nodes[node].life;
        if self.beats[node] && !self.rng.chance(self.loss) {
            let delay = self.rng.range(1, 30);
            self.at(delay, Ev::Packet { to: 1 - node, life, seq, state, bye });
        }
    }

    fn packet(&mut self, to: usize, life: u64, seq: u64, state: Published, bye: bool) {
        let now = self.now;
        let Some(runner) = self.nodes[to].runner.as_mut() else { return };
        if !runner.heartbeat || runner.heard.as_ref().is_some_and(|(l, s, ..)| (*l, *s) >= (life, seq)) {
            return;
        }
        runner.last_heard = now;
        let news = runner.verdict != Some(true)
            || runner.heard.as_ref().is_none_or(|(_, _, old, old_bye)| *old != state || *old_bye != bye);
        runner.heard = Some((life, seq, state.clone(), bye));
        let up = runner.verdict == Some(true);
        runner.verdict = Some(true);
        if !up {
            self.tell(to, Event::PeerUp);
        }
        if news {
            self.tell(to, Event::PeerState { state, bye });
        }
    }

    fn pulse(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life {
            return;
        }
        self.send(node, false);
        let now = self.now;
        let Some(runner) = self.nodes[node].runner.as_mut() else { return };
        if !runner.heartbeat {
            return;
        }
        if runner.verdict != Some(false) && now.saturating_sub(runner.last_heard) > TIMEOUT_MS {
            runner.verdict = Some(false);
            let other = &self.nodes[1 - node];
            let alive = other.runner.as_ref().is_some_and(|r| r.heartbeat && r.published.is_some());
            if alive {
                self.isolation = true;
            }
            self.tell(node, Event::PeerDown);
        }
        self.at(PULSE_MS, Ev::Pulse { node, life });
    }

    // Replication.

    fn epoch(&mut self) -> EpochId {
        EpochId((u128::from(self.rng.draw()) << 64) | u128::from(self.rng.draw()))
    }

    fn carry_out(&mut self, node: usize, life: u64, id: u64, order: ReplicaOrder, tries: u32) {
        if self.nodes[node].life != life || !self.nodes[node].engine.running {
            return;
        }
        let epoch = self.epoch();
        let mutation = self.mutation;
        let live = self.stream.as_ref().is_some_and(|s| s.phase == Phase::Live && self.nodes[node].stream == s.id);
        let engine = &mut self.nodes[node].engine;
        let drained = (live && engine.pending.is_empty()) || tries > 20;
        if tries > 20 && matches!(order, ReplicaOrder::Demote) {
            return self.answer(node, Event::ReplicaFailed { id, reason: "the stream is not drained".to_owned() });
        }
        let effect = engine.order(&order, epoch, drained, mutation);
        if effect.later {
            return self.at(50, Ev::Order { node, life, id, order, tries: tries + 1 });
        }
        if let Some(reason) = effect.failed {
            return self.answer(node, Event::ReplicaFailed { id, reason: reason.to_owned() });
        }
        if let Some(as_peer) = effect.close {
            self.close(Some(node), as_peer);
        }
        if let Some(forced) = effect.serves_alone {
            self.begins_alone(node, forced);
        }
        self.ack(&effect.acked);
        self.report(node);
        self.answer(node, Event::ReplicaDone { id });
    }

    /// R4: who begins to serve without its peer has everything that was acknowledged.
    fn begins_alone(&mut self, node: usize, forced: bool) {
        let has: BTreeSet<u64> = self.nodes[node].engine.data.iter().copied().collect();
        let missing = self.acked.difference(&has).count();
        if missing == 0 {
            return;
        }
        if forced || self.isolation {
            // Given up by the operator, or by the compromise of two nodes without an arbiter.
            self.acked.retain(|w| has.contains(w));
        } else {
            self.violate(format!("node{} serves without {missing} acknowledged writes", node + 1));
        }
    }

    fn close(&mut self, by: Option<usize>, as_peer: ReplicaPeer) {
        let Some(stream) = self.stream.as_ref().map(|s| s.id) else { return };
        if let Some(node) = by
            && self.nodes[node].stream != stream
        {
            return;
        }
        self.stream = None;
        for node in 0..2 {
            if Some(node) != by && self.nodes[node].stream == stream {
                let delay = self.rng.range(0, 300);
                self.at(delay, Ev::Lost { node, stream, as_peer });
            }
        }
    }

    fn lose(&mut self, node: usize, stream: u64, as_peer: ReplicaPeer) {
        let n = &mut self.nodes[node];
        if n.stream != stream || !n.engine.running || n.engine.peer == ReplicaPeer::Absent {
            return;
        }
        n.stream = 0;
        n.engine.peer = as_peer;
        self.report(node);
        if self.mutation == Mutation::HastyDetector {
            self.tell(node, Event::PeerDown);
        }
    }

    fn streams(&mut self) {
        self.at(50, Ev::Streams);
        let usable = |n: &Node| n.on && !n.paused && n.engine.running;
        let up = self.link && self.nodes.iter().all(usable);
        if let Some(stream) = &self.stream {
            let [primary, secondary] = [&self.nodes[stream.primary], &self.nodes[1 - stream.primary]];
            let alive = up
                && primary.engine.role == ReplicaRole::Primary
                && secondary.engine.role == ReplicaRole::Secondary
                && secondary.engine.follow
                && primary.stream == stream.id
                && secondary.stream == stream.id;
            if !alive {
                self.close(None, ReplicaPeer::Lost);
            }
            return;
        }
        if !up || self.rng.chance(50) {
            return;
        }
        let Some(primary) = (0..2).find(|n| self.nodes[*n].engine.role == ReplicaRole::Primary) else { return };
        let secondary = 1 - primary;
        if self.nodes[secondary].engine.role != ReplicaRole::Secondary || !self.nodes[secondary].engine.follow {
            return;
        }
        self.connect(primary, secondary);
    }

    fn connect(&mut self, primary: usize, secondary: usize) {
        let (p, s) = (&self.nodes[primary].engine, &self.nodes[secondary].engine);
        let prefix = p.data.starts_with(&s.data);
        let paired = s.standing == Standing::Paired && p.lineage.compare(&s.lineage) == Relation::Same && !s.full;
        let resume = p.standing == Standing::Paired && paired && prefix;
        if p.standing == Standing::Paired && !resume {
            // Service goes on alone first: a copy cannot be made while nothing may be acknowledged.
            return;
        }
        self.streams += 1;
        let id = self.streams;
        let phase = if resume { Phase::Marked(p.data.len()) } else { Phase::Copying };
        self.stream = Some(Stream { id, primary, phase });
        let data = p.data.clone();
        for node in [primary, secondary] {
            self.nodes[node].stream = id;
            self.nodes[node].engine.peer = ReplicaPeer::Syncing;
        }
        let delay = self.rng.range(5, 40);
        if resume {
            self.at(delay, Ev::Adopt { stream: id, data });
        } else {
            let early = self.mutation == Mutation::PairedTooSoon;
            let lineage = self.nodes[primary].engine.lineage.clone();
            let engine = &mut self.nodes[secondary].engine;
            engine.standing = if early { Standing::Paired } else { Standing::Inconsistent };
            if early {
                engine.lineage = lineage;
            }
            // A mixture: not even a prefix of what it was.
            engine.data.clear();
            engine.durable = 0;
            let delay = self.rng.range(100, 4_000);
            self.at(delay, Ev::Marker { stream: id });
        }
        self.report(primary);
        self.report(secondary);
    }

    fn ends(&self, stream: u64) -> Option<(usize, usize)> {
        let s = self.stream.as_ref().filter(|s| s.id == stream)?;
        Some((s.primary, 1 - s.primary))
    }

    /// The copy is complete: the primary is paired from here on, before the secondary knows.
    fn marker(&mut self, stream: u64) {
        let Some((primary, _)) = self.ends(stream) else { return };
        let engine = &mut self.nodes[primary].engine;
        engine.standing = Standing::Paired;
        let data = engine.data.clone();
        if let Some(s) = self.stream.as_mut() {
            s.phase = Phase::Marked(data.len());
        }
        self.report(primary);
        let delay = self.rng.range(5, 80);
        self.at(delay, Ev::Adopt { stream, data });
    }

    fn adopt(&mut self, stream: u64, data: Vec<u64>) {
        // What was received before a loss still counts, unless the engine was told to give it up.
        let node = self.ends(stream).map(|(_, s)| s).or_else(|| {
            (0..2).find(|n| self.nodes[*n].stream == stream && self.nodes[*n].engine.role == ReplicaRole::Secondary)
        });
        let Some(node) = node else { return };
        if !self.nodes[node].engine.follow || !self.nodes[node].engine.running || self.nodes[node].paused {
            return;
        }
        let lineage = self.nodes[1 - node].engine.lineage.clone();
        let engine = &mut self.nodes[node].engine;
        engine.data = data;
        engine.durable = engine.data.len();
        engine.full = false;
        engine.standing = Standing::Paired;
        engine.lineage = lineage;
        if self.stream.as_ref().is_some_and(|s| s.id == stream) {
            engine.peer = ReplicaPeer::InSync;
            let delay = self.rng.range(5, 40);
            self.at(delay, Ev::Live { stream });
        }
        self.report(node);
    }

    fn live(&mut self, stream: u64) {
        let Some((primary, secondary)) = self.ends(stream) else { return };
        if self.nodes[primary].paused || self.nodes[primary].stream != stream {
            return;
        }
        if let Some(s) = self.stream.as_mut() {
            s.phase = Phase::Live;
        }
        let engine = &mut self.nodes[primary].engine;
        engine.peer = ReplicaPeer::InSync;
        let pending = std::mem::take(&mut engine.pending);
        self.ack(&pending);
        let _ = secondary;
        self.report(primary);
    }

    fn write(&mut self) {
        let delay = self.rng.range(5, 40);
        self.at(delay, Ev::Write);
        if !self.writing {
            return;
        }
        let serves = |n: &Node| n.on && !n.paused && n.app && n.engine.running && n.engine.role == ReplicaRole::Primary;
        let alone = |n: &Node| serves(n) && n.engine.standing == Standing::Alone;
        if self.nodes.iter().all(alone) && !self.isolation {
            self.violate("both nodes acknowledge alone");
        }
        for node in 0..2 {
            if !serves(&self.nodes[node]) {
                continue;
            }
            let mutation = self.mutation;
            let engine = &mut self.nodes[node].engine;
            if engine.frozen() && mutation != Mutation::NoFreeze {
                continue;
            }
            let id = self.next_write;
            self.next_write += 1;
            engine.data.push(id);
            let frozen = engine.frozen();
            if engine.standing == Standing::Alone || mutation == Mutation::AckEarly || frozen {
                engine.durable = engine.data.len();
                self.ack(&[id]);
            } else {
                engine.pending.push(id);
            }
            if let Some(stream) = self.stream.as_ref().filter(|s| s.phase == Phase::Live && s.primary == node) {
                let (stream, data) = (stream.id, self.nodes[node].engine.data.clone());
                let delay = self.rng.range(1, 10);
                self.at(delay, Ev::Apply { stream, data });
            }
        }
    }

    fn apply(&mut self, stream: u64, data: Vec<u64>) {
        let Some((_, node)) = self.ends(stream) else { return };
        if !self.link || self.nodes[node].paused || !self.nodes[node].engine.follow {
            return;
        }
        let checkpoint = self.rng.chance(10);
        let engine = &mut self.nodes[node].engine;
        if data.len() > engine.data.len() {
            engine.data.clone_from(&data);
        }
        if checkpoint {
            engine.durable = engine.data.len();
        }
        let delay = self.rng.range(1, 10);
        self.at(delay, Ev::Ack { stream, data });
    }

    fn acknowledge(&mut self, stream: u64, data: Vec<u64>) {
        let Some((node, _)) = self.ends(stream) else { return };
        if !self.link || self.nodes[node].paused || self.nodes[node].stream != stream {
            return;
        }
        let has: BTreeSet<u64> = data.into_iter().collect();
        let engine = &mut self.nodes[node].engine;
        let acked: Vec<u64> = engine.pending.iter().copied().filter(|w| has.contains(w)).collect();
        engine.pending.retain(|w| !has.contains(w));
        engine.durable = engine.data.len();
        self.ack(&acked);
    }

    fn ack(&mut self, writes: &[u64]) {
        self.acked.extend(writes);
    }
}
