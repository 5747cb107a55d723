//! What happens to the nodes of a farm: hosts, daemons, kernels and networks around the real cores, in one thread.

pub mod scenario;

use crate::rng::Rng;
use detector::farm::{Config, Farm, Group, Mistake, Output, Sets, View, ViewId};
use share::Buckets;
use std::collections::BTreeMap;

/// What the kernel of one host accepts.
#[derive(Debug, Default)]
struct Kernel {
    sets: Vec<Sets>,
    /// In true time.
    lease_until: u64,
}

/// What one node knew of another one that is alive for it; in true time.
#[derive(Clone, Copy, Debug)]
struct Contact {
    /// Heard without a gap since, and last.
    since: u64,
    last: u64,
    /// It serves in another view.
    apart: bool,
}

/// One host.
#[derive(Debug)]
pub struct Node {
    pub on: bool,
    pub paused: bool,
    /// What its clock says more than the true time.
    pub clock: u64,
    pub farm: Option<Farm>,
    pub wants_open: bool,
    kernel: Kernel,
    life: u64,
    backlog: Vec<(u8, Vec<u8>)>,
    /// The time of the last order to the kernel: they are carried out one after the other.
    order_at: u64,
    wake_at: u64,
    pub left: bool,
    leaving: bool,
    pub settled: bool,
    /// When this life of its daemon began, and the views it was in since.
    started: u64,
    views: Vec<ViewId>,
    /// The last view beyond whose share its kernel accepted nothing.
    released_in: Option<ViewId>,
    /// What it knew of each other node when it decided last.
    knows: Vec<Option<Contact>>,
}

#[derive(Debug)]
enum Ev {
    Datagram { from: u8, to: u8, bytes: Vec<u8> },
    Wake { node: u8 },
    Applied { node: u8, life: u64, number: u64, sets: Vec<Sets> },
    Restart { node: u8, life: u64 },
}

/// Totals of one history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub datagrams: u64,
    pub views: u64,
    /// Moments at which a bucket was accepted twice by nodes of two partitions (or that just met).
    pub twice_apart: u64,
}

/// The whole.
#[derive(Debug)]
pub struct World {
    pub nodes: Vec<Node>,
    pub now: u64,
    pub rng: Rng,
    pub lans: usize,
    /// Percent of datagrams lost, doubled, late.
    pub loss: u64,
    pub doubled: u64,
    pub late: u64,
    /// Cut from one node to another, per lan.
    pub cut: Vec<Vec<Vec<bool>>>,
    /// The last daemon that was killed is there again then.
    pub restarts_until: u64,
    /// The clock of a host was set back before a daemon began: it is let in when its former life counts as lost.
    pub set_back: bool,
    pub mistake: Option<Mistake>,
    pub violations: Vec<String>,
    pub totals: Totals,
    /// One line an event.
    pub trace: bool,
    template: Config,
    queue: BTreeMap<(u64, u64), Ev>,
    order: u64,
}

/// How much longer than one timeout two partitions that met may take until they have one table, or know that one of them is deaf: three
/// pulses until the last that it may have heard through others, and one until it has told that this was the last.
const MEETING_PULSES: u64 = 4;

/// A farm of `nodes` nodes with these times.
pub fn config(nodes: usize, lans: usize, pulse_ms: u64, leader_missed: u32, follower_missed: u32) -> Config {
    let group = |name: &str, power: &dyn Fn(usize) -> u32| Group {
        name: name.to_owned(),
        powers: (0..nodes).map(power).collect(),
    };
    Config {
        me: 0,
        nodes: (1..=nodes).map(|n| format!("node{n}")).collect(),
        lans,
        pulse_ms,
        leader_missed,
        follower_missed,
        groups: vec![group("FarmProto_0", &|_| 1), group("FarmProto_1", &|n| n as u32 % 3 + 1)],
        rules: 0,
    }
}

impl World {
    pub fn new(seed: u64, template: Config, mistake: Option<Mistake>) -> Self {
        let count = template.nodes.len();
        let node = |_| Node {
            on: false,
            paused: false,
            clock: 1_000_000,
            farm: None,
            wants_open: true,
            kernel: Kernel::default(),
            life: 0,
            backlog: Vec::new(),
            order_at: 0,
            wake_at: u64::MAX,
            left: false,
            leaving: false,
            settled: false,
            started: 0,
            views: Vec::new(),
            released_in: None,
            knows: Vec::new(),
        };
        Self {
            nodes: (0..count).map(node).collect(),
            now: 0,
            rng: Rng::new(seed),
            lans: template.lans,
            loss: 0,
            doubled: 0,
            late: 0,
            cut: vec![vec![vec![false; count]; count]; template.lans],
            restarts_until: 0,
            set_back: false,
            mistake,
            violations: Vec::new(),
            totals: Totals::default(),
            trace: false,
            template,
            queue: BTreeMap::new(),
            order: 0,
        }
    }

    /// How long a follower may be silent.
    pub fn timeout(&self) -> u64 {
        self.template.follower_timeout_ms()
    }

    pub fn pulse(&self) -> u64 {
        self.template.pulse_ms
    }

    pub fn count(&self) -> u8 {
        self.nodes.len() as u8
    }

    fn node(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    // Hosts.

    /// The host boots, or its daemon starts again: whatever the kernel accepted is taken away first.
    pub fn boot(&mut self, node: u8) {
        if self.node(node).farm.is_some() {
            return;
        }
        // Now and then the clock was set back.
        let set_back = self.rng.chance(5);
        let begun = if set_back { self.rng.range(0, self.now) } else { self.now };
        self.set_back |= set_back;
        let incarnation = (begun + 1) << 22 | self.rng.range(0, (1 << 22) - 1);
        let (now, template, mistake) = (self.now, self.template.clone(), self.mistake);
        let n = self.node(node);
        let Ok(mut farm) = Farm::new(Config { me: node, ..template }, incarnation, now + n.clock) else { return };
        if let Some(mistake) = mistake {
            farm.weaken(mistake);
        }
        farm.set_open(now + n.clock, n.wants_open);
        n.farm = Some(farm);
        n.kernel = Kernel::default();
        n.on = true;
        (n.left, n.leaving) = (false, false);
        n.settled = false;
        n.started = now;
        n.released_in = None;
        n.knows.clear();
        n.views.clear();
        n.life += 1;
        self.say(node, "starts");
        self.wake(node, now);
    }

    pub fn power_off(&mut self, node: u8) {
        self.say(node, "power off");
        let n = self.node(node);
        n.kernel = Kernel::default();
        n.farm = None;
        n.on = false;
        n.paused = false;
        n.backlog.clear();
        n.life += 1;
    }

    /// The daemon dies, the kernel stays as it is.
    pub fn kill(&mut self, node: u8) {
        self.say(node, "killed");
        let n = self.node(node);
        n.farm = None;
        n.paused = false;
        n.backlog.clear();
        n.life += 1;
    }

    /// Killed, and started again by its supervisor.
    pub fn restart(&mut self, node: u8, after: u64) {
        self.kill(node);
        let life = self.node(node).life;
        self.restarts_until = self.restarts_until.max(self.now + after);
        self.at(after, Ev::Restart { node, life });
    }

    pub fn pause(&mut self, node: u8) {
        self.say(node, "pause");
        self.node(node).paused = true;
    }

    pub fn resume(&mut self, node: u8) {
        if std::mem::take(&mut self.node(node).paused) {
            self.say(node, "resume");
            let now = self.now;
            let n = self.node(node);
            let backlog = std::mem::take(&mut n.backlog);
            let clock = now + n.clock;
            if let Some(farm) = n.farm.as_mut() {
                for (from, bytes) in &backlog {
                    farm.datagram(clock, *from, bytes);
                }
            }
            self.wake(node, now);
        }
    }

    /// The clock of a node jumps; its daemon sees it at once.
    pub fn jump(&mut self, node: u8, by: u64, ahead: bool) {
        let clock = &mut self.node(node).clock;
        *clock = if ahead { *clock + by } else { clock.saturating_sub(by) };
        self.poll(node);
    }

    pub fn open(&mut self, node: u8, open: bool) {
        let now = self.now;
        let n = self.node(node);
        n.wants_open = open;
        let clock = now + n.clock;
        if let Some(farm) = n.farm.as_mut() {
            farm.set_open(clock, open);
        }
        self.wake(node, now);
    }

    pub fn leave(&mut self, node: u8) {
        self.say(node, "leaves");
        let now = self.now;
        let n = self.node(node);
        let clock = now + n.clock;
        n.leaving = true;
        if let Some(farm) = n.farm.as_mut() {
            farm.leave(clock);
        }
        self.wake(node, now);
    }

    /// Everything from `from` to `to` is lost on all lans, or no longer.
    pub fn cut(&mut self, from: u8, to: u8, cut: bool) {
        let (from, to) = (usize::from(from), usize::from(to));
        for lan in &mut self.cut {
            lan[from][to] = cut;
        }
    }

    pub fn heal_network(&mut self) {
        let pairs: Vec<(u8, u8)> = (0..self.count()).flat_map(|a| (0..self.count()).map(move |b| (a, b))).collect();
        for (a, b) in pairs {
            self.cut(a, b, false);
        }
        (self.loss, self.doubled, self.late) = (0, 0, 0);
    }

    // Time.

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

    fn wake(&mut self, node: u8, at: u64) {
        self.node(node).wake_at = at;
        let delay = at.saturating_sub(self.now);
        self.at(delay, Ev::Wake { node });
    }

    fn say(&self, node: u8, what: impl std::fmt::Display) {
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

    fn step(&mut self) {
        let Some(((at, _), ev)) = self.queue.pop_first() else { return };
        self.now = at;
        match ev {
            Ev::Datagram { from, to, bytes } => {
                self.totals.datagrams += 1;
                let n = self.node(to);
                let clock = at + n.clock;
                if n.paused {
                    // The socket's buffer is not endless.
                    if n.backlog.len() < 200 {
                        n.backlog.push((from, bytes));
                    }
                } else if let Some(farm) = n.farm.as_mut() {
                    farm.datagram(clock, from, &bytes);
                    // Once for all that come in this millisecond.
                    if n.wake_at != at {
                        self.wake(to, at);
                    }
                }
            }
            Ev::Wake { node } => {
                if self.node(node).wake_at == at {
                    self.poll(node);
                }
            }
            Ev::Applied { node, life, number, sets } => {
                let n = self.node(node);
                if n.life != life || !n.on {
                    return;
                }
                if n.paused {
                    // The order was given: it takes effect, only its confirmation waits.
                    n.kernel.sets.clone_from(&sets);
                    self.at(10, Ev::Applied { node, life, number, sets });
                    self.check();
                    return;
                }
                n.kernel.sets = sets;
                let clock = at + n.clock;
                if let Some(farm) = n.farm.as_mut() {
                    farm.applied(clock, number);
                }
                self.check();
                self.poll(node);
            }
            Ev::Restart { node, life } => {
                if self.node(node).on && self.node(node).life == life {
                    self.boot(node);
                }
            }
        }
    }

    fn poll(&mut self, node: u8) {
        let now = self.now;
        let n = self.node(node);
        if n.paused {
            return;
        }
        let clock = now + n.clock;
        let Some(farm) = n.farm.as_mut() else { return };
        let outputs = farm.poll(clock);
        let timeout = farm.poll_timeout();
        let contact = |other| {
            let (since, last) = farm.heard(other)?;
            let [since, last] = [since, last].map(|at| now.saturating_sub(clock.saturating_sub(at)));
            Some(Contact { since, last, apart: farm.knows_apart(other) })
        };
        n.released_in = farm.view().filter(|_| farm.has_released()).map(View::id).or(n.released_in);
        n.knows = (0..farm.config().nodes.len() as u8).map(contact).collect();
        let life = n.life;
        for output in outputs {
            self.carry_out(node, life, clock, output);
        }
        if let Some(at) = timeout {
            let at = now + at.saturating_sub(clock).max(1);
            if self.node(node).farm.is_some() && self.node(node).wake_at != at {
                self.wake(node, at);
            }
        }
    }

    fn carry_out(&mut self, node: u8, life: u64, clock: u64, output: Output) {
        match output {
            Output::Send { lan, bytes } => self.send(node, lan, &bytes),
            Output::Apply { number, groups } => {
                let delay = self.rng.range(0, 3);
                let at = (self.now + delay).max(self.node(node).order_at);
                self.node(node).order_at = at;
                self.node(node).settled = false;
                self.say(
                    node,
                    format!("applies {number}: {:?}", groups.iter().map(|s| s.mine.len()).collect::<Vec<_>>()),
                );
                self.at(at - self.now, Ev::Applied { node, life, number, sets: groups });
            }
            Output::Lease { until_ms } => {
                let until = self.now + until_ms.saturating_sub(clock);
                let before = self.node(node).kernel.lease_until;
                self.node(node).kernel.lease_until = until;
                if self.trace && (before <= self.now || until <= self.now) {
                    self.say(node, if until > self.now { "opens" } else { "closes" });
                }
                self.check();
            }
            Output::View(view) => {
                self.totals.views += 1;
                let n = self.node(node);
                n.settled = false;
                n.views.push(view.id());
                let members: Vec<u8> = view.members().iter().map(|m| m.node + 1).collect();
                self.say(node, format!("view {} {members:?}", view.generation()));
            }
            Output::Settled { generation } => {
                self.node(node).settled = true;
                self.say(node, format!("settled {generation}"));
            }
            Output::Notice(notice) => self.say(node, format!("{notice:?}")),
            Output::Left => {
                self.say(node, "left");
                let n = self.node(node);
                n.left = true;
                n.farm = None;
                n.kernel = Kernel::default();
                n.life += 1;
            }
        }
    }

    fn send(&mut self, from: u8, lan: usize, bytes: &[u8]) {
        if bytes.len() > detector::farm::DATAGRAM_LIMIT {
            self.violate("a datagram is too long");
        }
        for to in (0..self.count()).filter(|to| *to != from) {
            let copies = 1 + u64::from(self.rng.chance(self.doubled));
            for _ in 0..copies {
                if self.cut[lan][usize::from(from)][usize::from(to)] || self.rng.chance(self.loss) {
                    continue;
                }
                let far = if self.rng.chance(self.late) { 2 * self.pulse() } else { 2 };
                let delay = self.rng.range(0, far);
                self.at(delay, Ev::Datagram { from, to, bytes: bytes.to_vec() });
            }
        }
    }

    // Checks.

    /// What the kernel of a host accepts as new connections of a group at this moment.
    pub fn accepts(&self, node: u8, group: usize) -> Buckets {
        let n = &self.nodes[usize::from(node)];
        let open = n.on && n.kernel.lease_until > self.now;
        n.kernel.sets.get(group).filter(|_| open).map_or(Buckets::NONE, |s| s.mine)
    }

    /// How often each bucket of a group is accepted: (by nobody, more than once).
    pub fn coverage(&self, group: usize) -> (usize, usize) {
        let (mut once, mut twice) = (Buckets::NONE, Buckets::NONE);
        for node in 0..self.count() {
            let accepts = self.accepts(node, group);
            twice = twice.or(once.and(accepts));
            once = once.or(accepts);
        }
        (Buckets::ALL.without(once).len(), twice.len())
    }

    /// Does no kernel accept what another one does, beyond what partitions must allow?
    fn check(&mut self) {
        if (0..self.template.groups.len()).all(|g| self.coverage(g).1 == 0) {
            return;
        }
        self.totals.twice_apart += 1;
        for a in 0..self.count() {
            for b in a + 1..self.count() {
                let twice =
                    (0..self.template.groups.len()).any(|g| !self.accepts(a, g).and(self.accepts(b, g)).is_empty());
                if twice && let Some(why) = self.unlawful(a, b) {
                    let why = format!("node{} and node{} accept the same bucket: {why}", a + 1, b + 1);
                    self.violate(why);
                }
            }
        }
    }

    /// Why these two may not accept the same bucket.
    fn unlawful(&self, a: u8, b: u8) -> Option<String> {
        let [x, y] = [a, b].map(|n| &self.nodes[usize::from(n)]);
        let [view, other] = [x, y].map(|n| n.farm.as_ref().and_then(|f| f.view().map(View::id)));
        if view.is_some() && view == other {
            // Two partitions have just met: each kernel still has what a view of its own gave it, until it has released.
            let both_released = [x, y].iter().all(|n| n.farm.as_ref().is_some_and(Farm::has_released));
            let met = x.released_in.is_some() && y.released_in.is_some() && x.released_in != y.released_in;
            return (!met || both_released || x.settled || y.settled).then(|| "they are in one view".to_owned());
        }
        // Otherwise each may serve its own side, while neither hears the other.
        let has_gone_on = |from: Option<ViewId>, n: &Node| from.is_some_and(|view| n.views.contains(&view));
        let parted = has_gone_on(view, y) || has_gone_on(other, x);
        [(x, b), (y, a)].into_iter().filter(|(n, _)| !n.paused).find_map(|(n, of)| {
            let Contact { since, last, apart } = n.knows.get(usize::from(of)).copied().flatten()?;
            let (known, silent) = (self.now - since, self.now - last);
            // Those that met are given time to agree, but not who heard the other from its beginning on and serves alone.
            let alone = n.farm.as_ref().and_then(Farm::view).is_some_and(|v| v.members().len() == 1);
            let from_the_beginning = alone && known + 2 * self.pulse() >= self.now - n.started;
            let meeting = if from_the_beginning { 0 } else { self.timeout() + MEETING_PULSES * self.pulse() };
            // Where one view went on without the other one, that one's lease has ended even if it was told nothing.
            let informed = apart || (parted && !from_the_beginning);
            let unlawful = silent <= 2 * self.pulse() && known > meeting && informed;
            unlawful.then(|| format!("one has heard the other for {known} ms"))
        })
    }

    /// One view of exactly the living daemons, and each bucket accepted once (or by nobody, when nobody is open).
    pub fn converged(&self) -> bool {
        let living: Vec<u8> = (0..self.count()).filter(|n| self.nodes[usize::from(*n)].farm.is_some()).collect();
        let views: Vec<_> =
            living.iter().map(|n| self.nodes[usize::from(*n)].farm.as_ref().and_then(|f| f.view())).collect();
        let Some(first) = views.first().copied().flatten() else { return living.is_empty() };
        let members: Vec<u8> = first.members().iter().map(|m| m.node).collect();
        let as_wanted = first.members().iter().all(|m| {
            let n = &self.nodes[usize::from(m.node)];
            m.open == n.wants_open && !n.leaving
        });
        if members != living || !as_wanted || !views.iter().all(|v| v.is_some_and(|v| v.id() == first.id())) {
            return false;
        }
        let open = living.iter().any(|n| self.nodes[usize::from(*n)].wants_open);
        let free = if open { 0 } else { share::BUCKETS };
        living.iter().all(|n| self.nodes[usize::from(*n)].settled)
            && (0..self.template.groups.len()).all(|g| self.coverage(g) == (free, 0))
    }

    pub fn describe(&self) -> String {
        let one = |(n, node): (usize, &Node)| {
            let view = node.farm.as_ref().and_then(|f| f.view());
            let members: Vec<u8> = view.iter().flat_map(|v| v.members().iter().map(|m| m.node + 1)).collect();
            let state = match &node.farm {
                None => "down".to_owned(),
                Some(farm) => format!(
                    "view {} {members:?} settled {} yields {:?}",
                    view.map_or(0, detector::farm::View::generation),
                    node.settled,
                    farm.yields()
                ),
            };
            format!("node{} {state} accepts {}", n + 1, self.accepts(n as u8, 0).len())
        };
        self.nodes.iter().enumerate().map(one).collect::<Vec<_>>().join("; ")
    }
}
