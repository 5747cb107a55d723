//! Who is in the farm, who serves which buckets, and when may this node's kernel accept them?
//!
//! A pure core: the shell hands in datagrams and the time (milliseconds of a clock that does not stop in suspend) and carries out
//! what [`Farm::poll`] returns, in that order.
//!
//! **Alive.** Every node sends a record about itself each pulse, on every lan, and passes on the records of nodes that somebody does
//! not hear directly. A node is alive while new records of its own making arrive, by whatever path: so "hear each other" is the same
//! for all, even when single links are cut in one direction. A follower is lost after `follower_missed` pulses, the leader (lowest
//! number in the view) after `leader_missed`. Silence while this process did not run does not count (up to one timeout).
//!
//! **View.** The coordinator proposes the members that hear it and that it hears, with the tables that follow from its own
//! ([`share::Table::next`]). It is the lowest node among those with the view of most members (then the highest generation), so that a
//! loner that comes back does not shuffle the tables of the many. A view is in use once all its members accepted it.
//!
//! **Losers release before gainers take.** With a new view a node first takes away from its kernel what it lost. When the shell has
//! confirmed that ([`Farm::applied`]), it says `released`. It takes what it gained only after *all* other members said so.
//!
//! **Lease.** The kernel accepts only until [`Output::Lease`], which is renewed by acknowledgements: it ends [`Config::lease_ms`] after this
//! node *sent* the datagram that the least informed member has heard. That is before any member can count this node as lost, so whoever
//! takes over a dead, frozen or cut node's share finds it closed. A member that is silent itself has no say after a short while: it
//! is dead, or the farm is partitioned and each side serves. After a pause of its own a node accepts only when all members of
//! its view have confirmed that it still is one.
//!
//! **Yielding.** A node that hears another one serve outside its own view accepts nothing when that one does not hear it (a cut in
//! one direction: the deaf side cannot know better), when that one's view has left it out, or a member of its own view is in that
//! one's view without it, when it flaps (lost twice within ten timeouts: it must be heard for one timeout without a gap first), when
//! the two have different configurations and the other view ranks higher, or when they could not agree for one timeout. A view that
//! begins to serve, and a node that resumes, say so for a little more than a pulse before they accept anything, when nodes are left
//! out that may hear them: so these yield first.
//!
//! What this adds up to: two nodes never accept the same bucket while one of them hears the other and knows that it serves, except
//! while two partitions that met agree on one table, and for [`Config::grace_ms`] of a first contact in one direction. In one view
//! they do only while one of them, come from another partition, has not released what its former view gave it.
//!
//! **Contract of the shell**: the kernel accepts nothing when [`Farm::new`] is called, and nothing after the process has left in good order; one
//! incarnation a life, see [`Farm::new`]; it empties its sockets before it polls; it computes the remaining lease from a fresh clock
//! immediately before it tells the kernel.

mod agree;
mod message;
mod peer;
mod serve;
mod speak;
#[cfg(test)]
mod tests;
mod view;

pub use message::{DATAGRAM_LIMIT, ViewId};
pub use view::{Member, View};

use message::{Message, Record};
use peer::{Heard, Peer};
use serve::Kernel;
use share::{Buckets, NODES, Table};
use std::collections::VecDeque;
use std::fmt;
use view::{Assembly, bit, digest};

/// Most groups of a farm.
pub const GROUPS_LIMIT: usize = 32;
/// Own datagrams whose time of sending is remembered.
const SENT_KEPT: usize = 256;

/// A load-balancing group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Of each node, in the order of [`Config::nodes`]; all 1 when the configuration says nothing.
    pub powers: Vec<u32>,
}

/// The same on all nodes, but for `me`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's place in `nodes`.
    pub me: u8,
    /// Names, in an order that is the same everywhere: a node's number is its place here.
    pub nodes: Vec<String>,
    /// How many lans.
    pub lans: usize,
    pub pulse_ms: u64,
    /// `mlost_count`: pulses missed before a new leader is elected.
    pub leader_missed: u32,
    /// `slost_count`: pulses missed before a follower is offline.
    pub follower_missed: u32,
    pub groups: Vec<Group>,
    /// Digest of whatever else must be the same on all nodes, such as the rules of the filter.
    pub rules: u64,
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A farm has 2 to 32 nodes; a single one is accepted.
    Nodes(usize),
    Me(u8),
    Groups(usize),
    /// The group has another number of powers than there are nodes.
    Powers(String),
    NoLan,
    /// Pulses and counts must not be 0, and at least 3 pulses must be missed.
    Timing,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(n) => write!(f, "a farm has at most {NODES} nodes, not {n}"),
            Self::Me(n) => write!(f, "this node's number {n} is not in the list of nodes"),
            Self::Groups(n) => write!(f, "a farm has 1 to {GROUPS_LIMIT} groups, not {n}"),
            Self::Powers(group) => write!(f, "the group {group} must have one power for each node"),
            Self::NoLan => f.write_str("a farm needs a <lan>"),
            Self::Timing => f.write_str("pulse must be at least 1 ms; mlost_count and slost_count at least 3"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if self.nodes.is_empty() || self.nodes.len() > NODES {
            return Err(ConfigError::Nodes(self.nodes.len()));
        }
        if usize::from(self.me) >= self.nodes.len() {
            return Err(ConfigError::Me(self.me));
        }
        if self.groups.is_empty() || self.groups.len() > GROUPS_LIMIT {
            return Err(ConfigError::Groups(self.groups.len()));
        }
        if let Some(group) = self.groups.iter().find(|g| g.powers.len() != self.nodes.len()) {
            return Err(ConfigError::Powers(group.name.clone()));
        }
        if self.lans == 0 {
            return Err(ConfigError::NoLan);
        }
        if self.pulse_ms == 0 || self.leader_missed < 3 || self.follower_missed < 3 {
            return Err(ConfigError::Timing);
        }
        Ok(())
    }

    /// After this silence a node that is not the leader is lost.
    pub fn follower_timeout_ms(&self) -> u64 {
        self.pulse_ms.saturating_mul(u64::from(self.follower_missed))
    }

    /// After this silence the leader is lost.
    pub fn leader_timeout_ms(&self) -> u64 {
        self.pulse_ms.saturating_mul(u64::from(self.leader_missed))
    }

    /// No node is lost after a shorter silence.
    fn shortest_timeout(&self) -> u64 {
        self.follower_timeout_ms().min(self.leader_timeout_ms())
    }

    /// How long a kernel may accept after the sending of an acknowledged datagram: five sixths of the shortest timeout.
    pub fn lease_ms(&self) -> u64 {
        let timeout = self.shortest_timeout();
        timeout - timeout.div_ceil(6)
    }

    /// A silent member's say about the lease ends after this time: before the lease, later than its next pulse.
    fn quiet(&self) -> u64 {
        (self.lease_ms().saturating_sub(self.pulse_ms) * 4 / 5).max(self.pulse_ms * 6 / 5)
    }

    /// How long a first contact may last in one direction only, before the one that hears yields.
    pub fn grace_ms(&self) -> u64 {
        (3 * self.pulse_ms).min(self.shortest_timeout() / 2)
    }

    /// A node without a view listens this long before it begins one without the nodes it does not hear.
    pub fn listen_ms(&self) -> u64 {
        2 * self.shortest_timeout()
    }

    /// How long a node says that it will serve before it does, to those that may hear it and are not heard.
    fn notice_ms(&self) -> u64 {
        self.pulse_ms * 5 / 4
    }

    /// What must be equal for nodes to share tables.
    pub fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        let numbers = [self.pulse_ms, u64::from(self.leader_missed), u64::from(self.follower_missed), self.rules];
        bytes.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
        for name in &self.nodes {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
        }
        for group in &self.groups {
            bytes.push(1);
            bytes.extend_from_slice(group.name.as_bytes());
            bytes.push(0);
            bytes.extend(group.powers.iter().flat_map(|p| p.to_be_bytes()));
        }
        digest(&bytes)
    }
}

/// The buckets of one group in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// New connections are accepted.
    pub mine: Buckets,
    /// Given away: established connections go on here.
    pub legacy: Buckets,
    /// Part of `mine`, taken over from a node that died: connections that this kernel does not know are answered by a reset.
    pub dead: Buckets,
}

/// Something worth a line in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Up(u8),
    Down(u8),
    /// It is heard but does not hear us.
    Deaf(u8),
    /// Its configuration differs: no tables are shared with it.
    OtherConfiguration(u8),
    /// It comes and goes, and is not admitted until it is steady.
    Flapping(u8),
    /// This node accepts nothing, because of that one and for this reason.
    Yields(u8, Reason),
    Resumes,
}

/// Why a node yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It serves and does not hear us.
    NotHeard,
    LeftOut,
    /// A member of our view is in its view, and we are not.
    Overtaken,
    Flapping,
    OtherConfiguration,
    NoAgreement,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHeard => "it serves and does not hear this node",
            Self::LeftOut => "its view goes on without this node",
            Self::Overtaken => "this node's view goes on with it and without this node",
            Self::Flapping => "the connection comes and goes",
            Self::OtherConfiguration => "its configuration is different",
            Self::NoAgreement => "no agreement on one view",
        })
    }
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To all other nodes on this lan.
    Send {
        lan: usize,
        bytes: Vec<u8>,
    },
    /// Put these sets into the kernel in one transaction, one of each group in order, then call [`Farm::applied`] with this number.
    Apply {
        number: u64,
        groups: Vec<Sets>,
    },
    /// The kernel may accept until this time of the clock that was handed in; a time that has passed: not any more, at once.
    Lease {
        until_ms: u64,
    },
    /// A new view is in use.
    View(View),
    /// All of this view's changes are in the kernel.
    Settled {
        generation: u64,
    },
    Notice(Notice),
    /// After [`Farm::leave`]: nothing new comes here any more and the others have been told. Poll and send once more, then end.
    Left,
}

/// A deliberate mistake, to show that the simulator finds it.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    TakesBeforeRelease,
    /// Also `released` is said before the kernel has confirmed.
    ReleasesBeforeKernel,
    LeaseBeyondTakeover,
    /// The lease is renewed without acknowledgements.
    LeaseUnacknowledged,
    NeverYields,
    /// A view is used before all members accepted it.
    CommitsAlone,
    /// A new node serves before it has listened.
    ServesAtOnce,
    /// Records are not passed on.
    NeverRelays,
}

/// One node's part of the farm.
#[derive(Clone, Debug)]
pub struct Farm {
    config: Config,
    digest: u64,
    incarnation: u64,
    /// The shell's clock may jump back: what must be added to it.
    offset: u64,
    now: u64,
    peers: Vec<Peer>,
    open: bool,
    leaving: Option<u64>,
    gone: bool,
    left_said: bool,
    view: Option<View>,
    /// Agreed to (or proposed by us), not yet in use; by whom, since when.
    accepted: Option<(View, u8, u64)>,
    /// Since when this node has no view.
    viewless_since: u64,
    /// Per proposer: parts of a view that came, and the newest whole one.
    assembly: Vec<Option<Assembly>>,
    offers: Vec<Option<View>>,
    committed_at: u64,
    /// The last generation this node proposed: none comes twice, others would take it for the older proposal.
    proposed: u64,
    /// A proposal of ours was not sent yet.
    fresh_proposal: bool,
    kernel: Kernel,
    sequence: u32,
    sent: VecDeque<(u32, u64)>,
    last_record: Option<Record>,
    next_pulse: u64,
    urgent: bool,
    outputs: Vec<Output>,
    #[cfg(feature = "mutations")]
    mistake: Option<Mistake>,
}

impl Farm {
    /// A new life. `incarnation`: not 0, different from that of every other life, and greater than those of the lives before as far as
    /// clocks allow: a time and random bits.
    pub fn new(config: Config, incarnation: u64, now_ms: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let nodes = config.nodes.len();
        Ok(Self {
            digest: config.digest(),
            incarnation,
            offset: 0,
            now: now_ms,
            peers: vec![Peer::default(); nodes],
            open: false,
            leaving: None,
            gone: false,
            left_said: false,
            view: None,
            accepted: None,
            viewless_since: now_ms,
            assembly: vec![None; nodes],
            offers: vec![None; nodes],
            committed_at: now_ms,
            proposed: 0,
            fresh_proposal: false,
            kernel: Kernel::new(config.groups.len()),
            sequence: 0,
            sent: VecDeque::new(),
            last_record: None,
            next_pulse: now_ms,
            urgent: true,
            outputs: Vec::new(),
            #[cfg(feature = "mutations")]
            mistake: None,
            config,
        })
    }

    #[cfg(feature = "mutations")]
    pub fn weaken(&mut self, mistake: Mistake) {
        self.mistake = Some(mistake);
    }

    /// An authentic datagram of node `from` came.
    pub fn datagram(&mut self, now_ms: u64, from: u8, bytes: &[u8]) {
        self.advance(now_ms);
        if from == self.config.me || usize::from(from) >= self.peers.len() {
            return;
        }
        match message::decode(bytes) {
            Some(Message::Records(records)) if records.first().is_some_and(|r| r.node == from) => {
                for (place, record) in records.into_iter().enumerate() {
                    self.record(record, place == 0);
                }
            }
            Some(Message::Part(part)) => self.part(part),
            _ => {}
        }
    }

    /// Whether this node takes a share.
    pub fn set_open(&mut self, now_ms: u64, open: bool) {
        self.advance(now_ms);
        if self.leaving.is_none() {
            self.open = open;
        }
    }

    /// The shell put the sets of [`Output::Apply`] into the kernel.
    pub fn applied(&mut self, now_ms: u64, number: u64) {
        self.advance(now_ms);
        self.kernel.confirm(number);
    }

    /// Give the share away, then end: see [`Output::Left`].
    pub fn leave(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.open = false;
        self.leaving.get_or_insert(self.now);
    }

    /// What must be done now. Call it after datagrams and orders, and at [`Farm::poll_timeout`].
    pub fn poll(&mut self, now_ms: u64) -> Vec<Output> {
        self.advance(now_ms);
        self.judge();
        self.agree();
        self.serve();
        self.end();
        self.speak();
        std::mem::take(&mut self.outputs)
    }

    /// When to poll next, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<u64> {
        let timeouts = (0..self.peers.len() as u8).filter_map(|n| {
            let peer = self.peer(n)?;
            let lost = peer.heard_at + self.timeout(n);
            peer.alive
                .then(|| lost.min(Some(peer.steady_at(self.long_timeout())).filter(|t| *t > self.now).unwrap_or(lost)))
        });
        let first =
            Some(self.viewless_since + self.config.listen_ms()).filter(|t| self.view.is_none() && *t > self.now);
        let next = timeouts.chain(first).chain(self.waits_until()).chain([self.next_pulse]).min()?;
        Some(next.max(self.now).saturating_sub(self.offset))
    }

    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The table of a group in the present view.
    pub fn table(&self, group: usize) -> Option<&Table> {
        self.view.as_ref()?.tables().get(group)
    }

    /// What the kernel was last told, one of each group.
    pub fn sets(&self) -> &[Sets] {
        self.kernel.told()
    }

    /// Whether another node is alive.
    pub fn is_alive(&self, node: u8) -> bool {
        node == self.config.me || self.peer(node).is_some_and(|p| p.alive)
    }

    /// When a datagram of that node's own came last, by the clock that was handed in.
    pub fn heard_directly(&self, node: u8) -> Option<u64> {
        Some(self.peer(node)?.direct_at?.saturating_sub(self.offset))
    }

    /// Since when that node is heard by any path without a gap of half its timeout, and when something new of it came last, by the
    /// clock that was handed in.
    pub fn heard(&self, node: u8) -> Option<(u64, u64)> {
        let peer = self.peer(node).filter(|p| p.alive)?;
        Some((peer.steady_since().saturating_sub(self.offset), peer.came_at.saturating_sub(self.offset)))
    }

    /// Whether this node was told that the other one serves in another view.
    pub fn knows_apart(&self, node: u8) -> bool {
        let own = self.view.as_ref().map(View::id);
        let record = self.peer(node).filter(|p| p.alive).and_then(|p| p.record.as_ref());
        record.is_some_and(|r| r.serving && Some(r.view) != own)
    }

    /// Whether the kernel accepts nothing beyond this node's share of the present view.
    pub fn has_released(&self) -> bool {
        self.view.is_some() && self.kernel.has_released()
    }

    /// Why this node accepts nothing although it is in a view.
    pub fn yields(&self) -> Option<(u8, Reason)> {
        self.kernel.yields
    }

    fn peer(&self, node: u8) -> Option<&Peer> {
        self.peers.get(usize::from(node)).filter(|_| node != self.config.me)
    }

    /// The others, with their numbers.
    fn others(&self) -> impl Iterator<Item = (u8, &Peer)> {
        self.peers.iter().enumerate().map(|(n, p)| (n as u8, p)).filter(|(n, _)| *n != self.config.me)
    }

    fn timeout(&self, node: u8) -> u64 {
        let leader = self.view.as_ref().and_then(|v| v.members().first()).is_some_and(|m| m.node == node);
        if leader { self.config.leader_timeout_ms() } else { self.config.follower_timeout_ms() }
    }

    fn long_timeout(&self) -> u64 {
        self.config.follower_timeout_ms()
    }

    /// Time passed; it may have jumped back, and this process may have stood still.
    fn advance(&mut self, now_ms: u64) {
        let mut now = now_ms.saturating_add(self.offset);
        if now < self.now {
            self.offset += self.now - now;
            now = self.now;
        }
        let gap = now - self.now;
        self.now = now;
        if gap > (3 * self.config.pulse_ms).min(self.config.lease_ms() / 2) {
            self.viewless_since = self.viewless_since.saturating_add(gap);
            for node in 0..self.peers.len() as u8 {
                let timeout = self.timeout(node);
                if let Some(peer) = self.peers.get_mut(usize::from(node)) {
                    peer.excuse(now, gap, timeout);
                }
            }
            self.doubt();
        }
    }

    fn record(&mut self, record: Record, direct: bool) {
        let node = record.node;
        let me = self.config.me;
        let timeout = self.timeout(node);
        let includes_me = record.view.is_none() || record.members & bit(me) != 0;
        let heard = record.heard.get(usize::from(me)).copied();
        let now = self.now;
        let Some(peer) = self.peers.get_mut(usize::from(node)).filter(|_| node != me) else { return };
        let (was_alive, incarnation) = (peer.alive, record.incarnation);
        if peer.hear(now, record, direct, timeout) == Heard::Stale {
            if direct && peer.incarnation() == Some(incarnation) {
                // It came by another way before.
                peer.direct_at = Some(now);
            }
            return;
        }
        let sent_at = heard
            .and_then(|low| self.sent.iter().rev().find(|(sequence, _)| *sequence as u16 == low).map(|(_, at)| *at));
        peer.heard_of_us = sent_at.or(peer.heard_of_us);
        if includes_me {
            peer.acknowledge();
        }
        let (alive, other) = (peer.alive, peer.record.as_ref().is_some_and(|r| r.configuration != self.digest));
        if alive && !was_alive {
            self.outputs.push(Output::Notice(Notice::Up(node)));
            if other {
                self.outputs.push(Output::Notice(Notice::OtherConfiguration(node)));
            }
        } else if was_alive && !alive {
            self.outputs.push(Output::Notice(Notice::Down(node)));
        }
    }

    fn judge(&mut self) {
        let (now, me) = (self.now, bit(self.config.me));
        for node in (0..self.peers.len() as u8).filter(|n| *n != self.config.me) {
            let timeout = self.timeout(node);
            let Some(peer) = self.peers.get_mut(usize::from(node)) else { continue };
            let was_alive = peer.alive;
            let lost = peer.judge(now, timeout, me);
            let alive = peer.alive;
            if was_alive && !alive {
                self.outputs.push(Output::Notice(Notice::Down(node)));
            } else if lost && alive {
                self.outputs.push(Output::Notice(Notice::Deaf(node)));
            }
        }
    }

    #[cfg(feature = "mutations")]
    fn makes(&self, wrong: Wrong) -> bool {
        self.mistake == Some(wrong)
    }

    #[cfg(not(feature = "mutations"))]
    #[allow(clippy::unused_self)] // the same call with and without the feature
    fn makes(&self, _: Wrong) -> bool {
        false
    }
}

#[cfg(feature = "mutations")]
use Mistake as Wrong;

/// Stands for the mistakes where none can be made.
#[cfg(not(feature = "mutations"))]
#[derive(Clone, Copy)]
enum Wrong {
    TakesBeforeRelease,
    ReleasesBeforeKernel,
    LeaseBeyondTakeover,
    LeaseUnacknowledged,
    NeverYields,
    CommitsAlone,
    ServesAtOnce,
    NeverRelays,
}
