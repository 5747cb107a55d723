//! What happens to two nodes: hosts, runners, heartbeats, streams and clients around the real cores, in one thread.

mod beats;
mod digest;
mod store;
mod stream;

use crate::engine::{Engine, Mutation, Stream};
use crate::rng::Rng;
use automaton::arbitration::Request;
use automaton::{
    Action, Core, Event, Persisted, Published, Readiness, ReplicaOrder, ReplicaPeer, ReplicaRole, Settings, State,
    StateName, Verb,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
pub use store::{Clock, Store};

pub const TIMEOUT_MS: u64 = 2_000;
pub const GRACE_MS: u64 = 1_500;
const PULSE_MS: u64 = 200;

/// A host with its module.
#[derive(Clone, Debug)]
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
    pub clock: Clock,
    /// End of the lease, own clock; as engine and addresses know it.
    pub lease: u64,
    life: u64,
    backlog: VecDeque<Ev>,
    fifo: u64,
    /// The stream this engine takes part in, as far as it knows.
    stream: u64,
}

#[derive(Clone, Debug)]
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
    Store { node: usize, life: u64, id: u64, request: Request },
}

/// The whole.
#[derive(Clone, Debug)]
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
    /// Percent of scripts that hang until they are killed, and of orders to the engine that fail.
    pub hangs: u64,
    pub failures: u64,
    pub mutation: Mutation,
    /// Acknowledged, and not given up since by the operator or by the compromise of two nodes without an arbiter.
    pub acked: BTreeSet<u64>,
    /// Ever acknowledged.
    pub told: BTreeSet<u64>,
    pub violations: Vec<String>,
    /// Those of the violations that nothing excuses: content that is nowhere any more.
    pub erased: Vec<String>,
    /// A node took a living peer for dead: the compromise of two nodes without an arbiter applies from here on.
    pub isolation: bool,
    /// One line an event.
    pub trace: bool,
    pub writing: bool,
    /// The arbiter's, if there is one.
    pub store: Option<Store>,
    queue: BTreeMap<(u64, u64), Ev>,
    order: u64,
    stream: Option<Stream>,
    streams: u64,
    next_write: u64,
}

pub fn settings(node: usize) -> Settings {
    let names = ["node1", "node2"];
    Settings {
        mode: automaton::Mode::Mirror,
        script_control: false,
        node: names[node].to_owned(),
        peer: names[1 - node].to_owned(),
        replicated: true,
        has_vip: true,
        has_scripts: true,
        heartbeat_timeout_ms: TIMEOUT_MS,
        stream_grace_ms: GRACE_MS,
        ..Settings::default()
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
            clock: Clock::default(),
            lease: 0,
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
            hangs: 0,
            failures: 0,
            mutation,
            acked: BTreeSet::new(),
            told: BTreeSet::new(),
            violations: Vec::new(),
            erased: Vec::new(),
            isolation: false,
            trace: false,
            writing: true,
            store: None,
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
        n.lease = 0;
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
        let mut core = Core::new(n.settings.clone(), n.persisted.clone(), incarnation);
        if let Mutation::Rule(weakness) = self.mutation {
            core.weaken(weakness);
        }
        n.runner = Some(Runner {
            core,
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
            Ev::Store { node, life, id, request } => self.store_takes(node, life, id, request),
        }
        self.judge_leases();
    }

    fn core(&mut self, node: usize, life: u64, event: Event) {
        if self.nodes[node].life != life || self.nodes[node].runner.is_none() {
            return;
        }
        if self.trace && event != Event::Tick {
            self.say(node, format!("event {}", serde_json::to_string(&event).unwrap_or_default()));
        }
        let (now, clock) = (self.now, self.nodes[node].clock);
        let Some(runner) = self.nodes[node].runner.as_mut() else { return };
        let wall = 1_700_000_000_000 + now + clock.wall_jump;
        let actions = runner.core.handle(clock.local(now), wall, event);
        let deadline = runner.core.poll_timeout().map(|(at, _)| clock.truly(at));
        if let Some(at) = deadline
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
            Action::Arbitrate { .. } => self.ask_store(node, life, action),
            Action::Lease { until_ms } => self.nodes[node].lease = self.nodes[node].lease.max(until_ms),
            Action::Script { id, name, args, .. } => {
                let forced = if args.first().is_some_and(|a| a == "force") { " force" } else { "" };
                self.nodes[node].log.push(format!("Script {name}{forced}"));
                if name == "start_prim" {
                    let other = &self.nodes[1 - node];
                    let serves = other.app && other.engine.role == ReplicaRole::Primary && self.licensed(1 - node);
                    if serves && !self.isolation {
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
            // Mirrors only.
            Action::Farm { .. } => {}
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
            let was = self.nodes[node].app;
            match name {
                "start_prim" => self.nodes[node].app = true,
                "stop_prim" | "prestart" => self.nodes[node].app = false,
                _ => {}
            }
            // A killed stop script leaves the application running; the forced one must end it.
            let hangs = name.starts_with("stop_") && self.rng.chance(self.hangs);
            if hangs && name == "stop_prim" {
                self.nodes[node].app = was;
            }
            let exit = (!hangs).then_some(0);
            self.core(node, life, Event::ScriptDone { id, exit });
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
        if held && self.nodes[1 - node].vip && self.licensed(1 - node) && !self.isolation {
            self.violate(format!("node{}: address taken while the other node holds it", node + 1));
        }
        self.nodes[node].vip = held;
        self.core(node, life, Event::VipDone { id });
    }
}
