//! What does a node of the farm do while its runner lives: listen, agree, filter, answer?

mod obey;

use crate::addresses::{Addresses, Layout};
use crate::classify::contents;
use crate::cli::Failure;
use crate::control::Control;
use crate::kernel::{Bucket, Contents, Hop, Kernel};
use crate::member::{Heard, Lans};
use crate::orders::{Order, Orders};
use crate::plan::Plan;
use crate::rates::Rates;
use crate::responder::Standing;
use crate::spec::{Any, Group, Mode, Spec};
use crate::status::{self, Share};
use detector::farm::{Config, Farm, Notice, Output};
use net::nft::Counter;
use net::rtnl::{Monitor, Rtnl};
use net::{Link, Mac};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::io::Write;
use std::os::fd::{AsFd, FromRawFd};
use std::path::Path;
use sys::clock::monotonic_ms;
use sys::realtime::{self, Children, Memory};
use sys::roots::Roots;
use wire::Emitter;

/// Packets taken from each lan before time is looked at again.
const BATCH: usize = 512;
const TRAFFIC_MS: u64 = 1000;
/// Between two attempts to give an interface that was made anew its rules.
const RESTORE_MS: u64 = 500;

/// What an order waits for before it is answered.
struct Pending {
    answer: Order,
    open: bool,
    /// Answered then in any case.
    until: u64,
}

pub struct Node {
    pub spec: Spec,
    /// The groups of the specification, or a nameless one when there is none: the core needs a table.
    groups: Vec<Group>,
    pub nodes: Vec<String>,
    pub me: u8,
    emitter: Emitter,
    lans: Lans,
    pub farm: Farm,
    rtnl: Rtnl,
    monitor: Monitor,
    layout: Option<Layout>,
    kernel: Option<Kernel>,
    addresses: Option<Addresses>,
    pub contents: Contents,
    hops: Vec<Hop>,
    own_hop: Option<(Hop, Mac)>,
    macs: Vec<Option<Mac>>,
    next_hop: u64,
    /// An interface that was made anew could not be given its rules: then it is tried again.
    restore_at: Option<u64>,
    /// `open` was ordered.
    pub open: bool,
    script_open: bool,
    /// Connections may go on here: from `open` to `release`.
    up: bool,
    pending: Option<Pending>,
    /// The kernel accepts until then.
    pub lease_until: u64,
    lease_told: bool,
    shares: Vec<Option<Share>>,
    pub counters: Vec<Counter>,
    next_traffic: u64,
    pub rates: Rates,
    rates_told: Vec<Value>,
    /// A directed node died: its clients must learn another MAC.
    must_announce: bool,
    left: bool,
    /// The last view whose changes are in the kernel.
    settled: u64,
}

/// `sk-farmfilter run`.
pub fn run(path: &Path, ready_fd: Option<i32>) -> Result<u8, Failure> {
    let spec = Spec::load(path)?;
    let mut orders = Orders::open()?;
    let directory = Roots::from_environment().module_run(&spec.module);
    let mut control = Control::open(&directory)?;
    // A former life of ours may have left rules and addresses behind.
    crate::oneshot::clean_up(&spec.module)?;
    for words in realtime::enter("this node", Memory::All, Children::Ordinary) {
        sys::warn!("sk-farmfilter: {words}");
    }
    let mut node = Node::new(spec)?;
    let result = node.serve(&mut orders, &mut control, ready_fd);
    // Whatever happened, nothing of ours remains.
    let released = node.release();
    node.farewell();
    result?;
    released?;
    match node.emitter.emit("released", &()) {
        Ok(()) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Bits of an incarnation that are random; above them stands the time of the beginning in milliseconds.
const RANDOM_BITS: u32 = 22;

/// Greater than that of the life before: what comes late from that one is not taken for a new life.
fn incarnation() -> Result<u64, Failure> {
    Ok((sys::clock::wall_ms() << RANDOM_BITS | crate::member::random()? >> (64 - RANDOM_BITS)).max(1))
}

/// The groups as the core must see them: one at least.
fn groups(spec: &Spec) -> Vec<Group> {
    if spec.groups.is_empty() {
        vec![Group { name: "farm".to_owned(), hosts: Vec::new(), rules: Vec::new() }]
    } else {
        spec.groups.clone()
    }
}

fn config(spec: &Spec) -> Result<Config, Failure> {
    let nodes = spec.nodes();
    let me = nodes.iter().position(|n| *n == spec.node).unwrap_or(0);
    let power = |group: &Group, node: &String| match group.hosts.as_slice() {
        [] => 1,
        hosts => hosts.iter().find(|h| h.node == *node).map_or(0, |h| h.power),
    };
    let groups = groups(spec)
        .iter()
        .map(|g| detector::farm::Group { name: g.name.clone(), powers: nodes.iter().map(|n| power(g, n)).collect() })
        .collect();
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Config {
        me: u8::try_from(me).unwrap_or(0),
        lans: spec.lans.len(),
        pulse_ms: spec.pulse_ms,
        leader_missed: count(spec.mlost_count),
        follower_missed: count(spec.slost_count),
        rules: rules_digest(spec),
        groups,
        nodes,
    })
}

/// Nodes with other rules must not share tables with us.
fn rules_digest(spec: &Spec) -> u64 {
    let modes: Vec<_> = spec.addresses.iter().map(|a| (a.address, a.mode, &a.mac)).collect();
    let rules: Vec<_> = spec.groups.iter().map(|g| &g.rules).collect();
    let text = format!("{modes:?} {rules:?}");
    let half = |seed| u64::from(net::jhash::jhash(text.as_bytes(), seed));
    half(1) << 32 | half(2)
}

impl Node {
    fn new(spec: Spec) -> Result<Self, Failure> {
        let config = config(&spec)?;
        let (nodes, me) = (config.nodes.clone(), config.me);
        let life = incarnation()?;
        let now = monotonic_ms();
        let farm = Farm::new(config, life, now).map_err(|e| Failure::Usage(e.to_string()))?;
        let groups = groups(&spec);
        let mut rtnl = Rtnl::open()?;
        let monitor = Monitor::open()?;
        // An interface may be missing now and be there at the first `hold`, which then says what is wrong.
        let layout = Layout::find(&spec, &mut rtnl).ok();
        let own_hop = layout.as_ref().and_then(|l| l.hop(&mut rtnl).transpose()).transpose()?;
        Ok(Self {
            emitter: Emitter::new("sk-farmfilter", &spec.node, &spec.module),
            lans: Lans::new(&spec)?,
            contents: vec![vec![Bucket::default(); share::BUCKETS]; groups.len()],
            hops: vec![Hop::default(); nodes.len()],
            macs: vec![None; nodes.len()],
            shares: vec![None; groups.len()],
            rates: Rates::new(nodes.len(), me),
            groups,
            nodes,
            me,
            farm,
            rtnl,
            monitor,
            layout,
            kernel: None,
            addresses: None,
            own_hop,
            next_hop: now,
            restore_at: None,
            open: false,
            script_open: false,
            up: false,
            pending: None,
            lease_until: 0,
            lease_told: true,
            counters: Vec::new(),
            next_traffic: now,
            rates_told: Vec::new(),
            must_announce: false,
            left: false,
            settled: 0,
            spec,
        })
    }

    fn serve(&mut self, orders: &mut Orders, control: &mut Control, ready_fd: Option<i32>) -> Result<(), Failure> {
        self.lans.open(monotonic_ms());
        announce_ready(ready_fd);
        loop {
            self.step()?;
            control.answer(|| status::status(self));
            if self.wait(Some((orders, control)), u64::MAX)? {
                return Ok(());
            }
            while let Some(order) = orders.next() {
                match order {
                    Order::Quit => return Ok(()),
                    order => self.order(order)?,
                }
            }
        }
    }

    /// Everything that can be done now.
    fn step(&mut self) -> Result<(), Failure> {
        let now = monotonic_ms();
        self.lans.open(now);
        self.listen(now)?;
        self.think()?;
        let now = monotonic_ms();
        self.answer_pending(now)?;
        self.watch_lease(now)?;
        if now >= self.next_hop {
            self.next_hop = now + 10 * self.spec.pulse_ms;
            let unknown = |m: &detector::farm::Member| self.macs.get(usize::from(m.node)).is_some_and(Option::is_none);
            let asks = self.farm.view().is_some_and(|v| v.members().iter().any(|m| m.node != self.me && unknown(m)));
            self.introduce(asks);
        }
        self.serve_neighbours(now)?;
        if !self.monitor.read()?.is_empty() || self.restore_at.is_some_and(|at| now >= at) {
            self.compare(now)?;
        }
        if let Some(addresses) = &mut self.addresses {
            addresses.renew(&mut self.rtnl, now)?;
        }
        self.count(now)
    }

    /// Tells all others where this node can be sent packets to, and asks them to `answer` with the same.
    fn introduce(&mut self, answer: bool) {
        if let Some((hop, mac)) = self.own_hop {
            self.lans.send_hop(hop, mac, answer);
        }
    }

    fn listen(&mut self, now: u64) -> Result<(), Failure> {
        let mut changed = false;
        let mut asked = false;
        let mut wrong = None;
        let (farm, hops, macs, rates) = (&mut self.farm, &mut self.hops, &mut self.macs, &mut self.rates);
        self.lans.receive(now, BATCH, |heard| match heard {
            Heard::Datagram(from, bytes) => farm.datagram(monotonic_ms(), from, &bytes),
            Heard::Hop(from, hop, mac, asks) => {
                asked |= asks;
                if let (Some(known), Some(at)) = (hops.get_mut(usize::from(from)), macs.get_mut(usize::from(from))) {
                    changed |= *known != hop;
                    (*known, *at) = (hop, Some(mac));
                }
            }
            Heard::Rates(from, bytes) => rates.hear(monotonic_ms(), from, &bytes),
            Heard::WrongKey(from) => wrong = Some(from),
        });
        if asked {
            self.introduce(false);
        }
        if let Some(from) = wrong {
            self.emitter.emit("wrong_key", &json!({"from": from}))?;
        }
        if changed && let Some(kernel) = &mut self.kernel {
            kernel.apply(&self.contents, &self.hops)?;
        }
        Ok(())
    }

    /// Lets the core decide until it has nothing more to say.
    fn think(&mut self) -> Result<(), Failure> {
        // Each order to the kernel that is confirmed may lead to the next; a handful in a row is the most there is.
        for _ in 0..16 {
            let outputs = self.farm.poll(monotonic_ms());
            let mut again = false;
            for output in outputs {
                again |= self.perform(output)?;
            }
            if !again {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Does what the core says. `true`: it must be asked again.
    fn perform(&mut self, output: Output) -> Result<bool, Failure> {
        match output {
            Output::Send { lan, bytes } => self.lans.send(lan, &bytes),
            Output::Apply { number, .. } => {
                self.fill()?;
                self.farm.applied(monotonic_ms(), number);
                return Ok(true);
            }
            Output::Lease { until_ms } => {
                self.lease_until = until_ms;
                self.lease()?;
            }
            Output::View(view) => {
                let names = |open: bool| {
                    let some = view.members().iter().filter(|m| m.open || !open);
                    some.filter_map(|m| self.nodes.get(usize::from(m.node))).collect::<Vec<_>>()
                };
                let event = json!({"generation": view.generation(), "members": names(false), "open": names(true)});
                self.emitter.emit("view", &event)?;
                self.fill()?;
            }
            Output::Settled { generation } => {
                self.settled = generation;
                self.fill()?;
                self.report_shares()?;
                self.announce();
            }
            Output::Notice(notice) => self.notice(&notice)?,
            Output::Left => self.left = true,
        }
        Ok(false)
    }

    /// Puts what the core wants into the kernel. Owners change with the view also where this node's own buckets do not:
    /// a directed node passes packets on to them.
    fn fill(&mut self) -> Result<(), Failure> {
        self.contents = contents(&self.farm, self.me);
        match &mut self.kernel {
            Some(kernel) => kernel.apply(&self.contents, &self.hops),
            None => Ok(()),
        }
    }

    fn notice(&mut self, notice: &Notice) -> Result<(), Failure> {
        let name = |n: &u8| self.nodes.get(usize::from(*n)).map_or("?", String::as_str);
        match notice {
            Notice::Up(n) => {
                self.emitter.emit("contact", &json!({"peer": name(n)}))?;
                // It will own buckets, and so will this node: each must know before where the other is.
                self.introduce(true);
            }
            Notice::Down(n) => {
                self.emitter.emit("lost", &json!({"peer": name(n)}))?;
                self.must_announce = true;
            }
            Notice::Deaf(n) => sys::warn!("sk-farmfilter: {} is heard but does not hear this node", name(n)),
            Notice::OtherConfiguration(n) => sys::warn!(
                "sk-farmfilter: the configuration of {} is different: apply the same one on all nodes; until then it serves alone",
                name(n)
            ),
            Notice::Flapping(n) => {
                sys::warn!("sk-farmfilter: {} comes and goes; it takes part again when it is steady", name(n));
            }
            Notice::Yields(n, reason) => {
                sys::warn!("sk-farmfilter: this node accepts nothing because of {}: {reason}", name(n));
            }
            Notice::Resumes => sys::warn!("sk-farmfilter: this node accepts again"),
        }
        Ok(())
    }

    /// Tells the kernel how long it may accept, as of this very moment.
    fn lease(&mut self) -> Result<(), Failure> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let longest = self.spec.lease_ms.unwrap_or(u64::MAX);
        let left = if self.up { self.lease_until.saturating_sub(monotonic_ms()).min(longest) } else { 0 };
        kernel.lease(left)
    }

    fn leased(&self, now: u64) -> bool {
        self.lease_until > now
    }

    fn watch_lease(&mut self, now: u64) -> Result<(), Failure> {
        let leased = self.leased(now) || !self.open;
        if std::mem::replace(&mut self.lease_told, leased) != leased {
            let value = if leased { "back" } else { "lost" };
            self.emitter.emit("lease", &json!({"value": value}))?;
        }
        Ok(())
    }

    fn report_shares(&mut self) -> Result<(), Failure> {
        for number in 0..self.spec.groups.len() {
            let share = status::share(self, number);
            if let Some(told) = self.shares.get_mut(number)
                && told.as_ref() != Some(&share)
            {
                self.emitter.emit("share", &share)?;
                *told = Some(share);
            }
        }
        Ok(())
    }

    /// Tells neighbours when this node begins to serve, or when the clients of a dead directed node need another.
    fn announce(&mut self) {
        let Some(view) = self.farm.view() else { return };
        let first = view.members().iter().find(|m| m.open).is_some_and(|m| m.node == self.me);
        let serves = view.member(self.me).is_some_and(|m| m.open);
        if std::mem::take(&mut self.must_announce)
            && serves
            && let Some(addresses) = &mut self.addresses
        {
            addresses.announce(monotonic_ms(), first);
        }
    }

    fn serve_neighbours(&mut self, now: u64) -> Result<(), Failure> {
        let leased = self.leased(now);
        let friends: Vec<Mac> = self.macs.iter().flatten().copied().collect();
        let Some(addresses) = &mut self.addresses else { return Ok(()) };
        let standing = Standing {
            open: self.open && leased,
            up: self.up && leased,
            groups: &self.spec.groups,
            contents: &self.contents,
            friends: &friends,
        };
        for responder in &mut addresses.responders {
            responder.serve(&standing)?;
        }
        if standing.open {
            addresses.announce_due(now);
        }
        Ok(())
    }

    fn compare(&mut self, now: u64) -> Result<(), Failure> {
        if let Some(addresses) = &mut self.addresses {
            let links = self.rtnl.links()?;
            addresses.compare(&links, &mut self.rtnl, &self.emitter, now)?;
            self.follow_interfaces(&links, now);
        }
        if let Some(layout) = &self.layout {
            // The link-local address may have come, or the interface another MAC.
            let hop = layout.hop(&mut self.rtnl)?;
            if self.own_hop != hop {
                (self.own_hop, self.next_hop) = (hop, 0);
            }
        }
        Ok(())
    }

    /// Rules and sockets for interfaces that were made anew. These may vanish again at any moment, so that a failure is no
    /// end: it is tried again until they are there to stay.
    fn follow_interfaces(&mut self, links: &[Link], now: u64) {
        if !self.layout.as_ref().is_some_and(|layout| layout.is_outdated(links)) {
            self.restore_at = None;
            return;
        }
        match self.restore(links) {
            Ok(()) => self.restore_at = None,
            Err(error) => {
                if self.restore_at.replace(now + RESTORE_MS).is_none() {
                    sys::warn!(
                        "sk-farmfilter: an interface was made anew, but has no rules yet: {error}; trying again"
                    );
                }
            }
        }
    }

    fn restore(&mut self, links: &[Link]) -> Result<(), Failure> {
        let (Some(layout), Some(kernel)) = (&self.layout, &mut self.kernel) else { return Ok(()) };
        let layout = layout.renewed(links, &mut self.rtnl)?;
        kernel.reload(&plan(&self.spec, &layout, self.nodes.len()), self.spec.early_drop)?;
        // First of all, since nothing is accepted without it; sockets take their time.
        self.lease()?;
        if let Some(addresses) = &mut self.addresses {
            addresses.move_to(&layout, monotonic_ms())?;
        }
        self.layout = Some(layout);
        Ok(())
    }

    fn count(&mut self, now: u64) -> Result<(), Failure> {
        let Some(kernel) = self.kernel.as_mut().filter(|_| now >= self.next_traffic) else { return Ok(()) };
        self.next_traffic = now + TRAFFIC_MS;
        // Somebody may have removed the rules; the next lease notices and loads them again.
        let Ok(counters) = kernel.counters() else { return Ok(()) };
        self.counters = counters;
        self.rates.count(now, status::traffic(self));
        if let Some(bytes) = self.rates.encode() {
            self.lans.send_rates(&bytes);
        }
        for number in 0..self.spec.groups.len() {
            let rates = json!({"group": self.group(number).map(|g| &g.name), "nodes": status::nodes(self, number)});
            if self.rates_told.get(number) != Some(&rates) {
                self.emitter.emit("rates", &rates)?;
                match self.rates_told.get_mut(number) {
                    Some(told) => *told = rates,
                    None => self.rates_told.push(rates),
                }
            }
        }
        Ok(())
    }

    /// Waits for anything to happen. `true`: let go.
    fn wait(&mut self, runner: Option<(&mut Orders, &mut Control)>, until: u64) -> Result<bool, Failure> {
        let now = monotonic_ms();
        let mut next = until.min(self.farm.poll_timeout().unwrap_or(u64::MAX));
        next = next.min(self.lans.deadline().unwrap_or(u64::MAX));
        next = next.min(self.pending.as_ref().map_or(u64::MAX, |p| p.until));
        if self.own_hop.is_some() {
            next = next.min(self.next_hop);
        }
        if let Some(addresses) = &self.addresses {
            next = next.min(addresses.deadline()).min(self.next_traffic);
            next = next.min(self.restore_at.unwrap_or(u64::MAX));
        }
        if self.open && self.leased(now) {
            next = next.min(self.lease_until);
        }
        let limit = next.saturating_sub(now).min(60_000);
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut ready: Vec<PollFd<'_>> = Vec::with_capacity(16);
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let (orders, control) = runner.unzip();
        if let Some(orders) = &orders {
            ready.extend(orders.descriptors().map(watch));
        }
        if let Some(control) = &control {
            ready.push(watch(control.as_fd()));
        }
        ready.push(watch(self.monitor.as_fd()));
        ready.extend(self.lans.descriptors().map(watch));
        if let Some(addresses) = &self.addresses {
            ready.extend(addresses.responders.iter().flat_map(crate::responder::Responder::descriptors).map(watch));
        }
        match poll(&mut ready, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Failure::Sys("cannot wait for events".to_owned(), e.into())),
        }
        let [input, signals] = match ready.as_slice() {
            [input, signals, ..] if orders.is_some() => [input, signals].map(|fd| fd.any().unwrap_or(true)),
            _ => [false, false],
        };
        if signals {
            return Ok(true);
        }
        match orders {
            Some(orders) if input => Ok(!orders.read()),
            _ => Ok(false),
        }
    }
}

fn plan<'a>(spec: &'a Spec, layout: &'a Layout, nodes: usize) -> Plan<'a> {
    Plan { module: &spec.module, addresses: &layout.placed, groups: &spec.groups, nodes }
}

/// The text of the rules for a specification on this host.
pub fn rules(spec: &Spec) -> Result<String, Failure> {
    let layout = Layout::find(spec, &mut Rtnl::open()?)?;
    Ok(plan(spec, &layout, spec.nodes().len()).text())
}

/// Whether some address is directed: the bitmap then names nodes.
pub fn is_directed(spec: &Spec, group: &Group) -> bool {
    spec.addresses.iter().any(|a| {
        a.mode == Mode::VmacDirected
            && group.rules.iter().any(|r| r.address == Any::All || r.address == Any::One(a.address))
    })
}

fn announce_ready(fd: Option<i32>) {
    if let Some(fd) = fd {
        // SAFETY: whoever passed this number on the command line gave the descriptor to us for this one use.
        let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
        // Nobody listens: not an error of ours.
        let _ = file.write_all(b"\n");
    }
}

impl Node {
    /// As words for people and other programs.
    pub fn describe(&self) -> Value {
        let now = monotonic_ms();
        let view = self.farm.view();
        let names = |open: bool| {
            let members = view.map(detector::farm::View::members).unwrap_or_default();
            let some = members.iter().filter(|m| m.open || !open);
            some.filter_map(|m| self.nodes.get(usize::from(m.node)).cloned()).collect::<Vec<_>>()
        };
        let yields = self
            .farm
            .yields()
            .map(|(n, reason)| json!({"node": self.nodes.get(usize::from(n)), "reason": reason.to_string()}));
        let (interfaces, reason) = self.kernel.as_ref().map(Kernel::early).unwrap_or_default();
        let early = json!({"interfaces": interfaces, "reason": reason});
        json!({"module": self.spec.module, "node": self.spec.node, "nodes": self.nodes, "early_drop": early, "held": self.addresses.is_some(),
            "open": self.open, "serves": self.serves(), "lease_ms": self.lease_until.saturating_sub(now),
            "generation": view.map_or(0, detector::farm::View::generation), "members": names(false),
            "open_members": names(true), "yields": yields})
    }

    pub fn group(&self, number: usize) -> Option<&Group> {
        self.groups.get(number)
    }
}
