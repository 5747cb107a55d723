//! How does the replication engine behave, as far as the core can tell: a model with a disk, a standing and one stream.

use automaton::{PeerMode, ReplicaOrder, ReplicaPeer, ReplicaReport, ReplicaRole};
use lineage::{EpochId, Lineage, Standing};
use std::collections::BTreeSet;

/// Deliberate mistakes, to show that the checks find them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    #[default]
    None,
    /// A primary that loses its stream goes on acknowledging alone without the order to.
    NoFreeze,
    /// `exclude_peer` and `promote` mint no epoch.
    NoMint,
    /// The primary acknowledges before the secondary has the write.
    AckEarly,
    /// Both count as paired and in sync from the beginning of a resynchronisation. (On the secondary alone it does no harm: it
    /// may take over only when the primary says the same.)
    PairedTooSoon,
    /// The loss of the stream is reported as the loss of all heartbeats.
    HastyDetector,
    /// `promote` of a paired secondary does not make durable what it received.
    PromoteWithoutSync,
    /// `promote` is accepted from any standing, and the snapshot says `paired` to the core whatever is on the disk.
    LiesAboutStanding,
    /// The arbiter's store makes every swap, whatever it was to compare with.
    BlindSwap,
    /// The engine asks for no lease before it acknowledges.
    AckUnlicensed,
    /// Nothing is put aside before a copy overwrites it.
    NoSalvage,
    /// Stopped as a secondary, the engine forgets that it holds content which it never shared.
    ForgetsUnshared,
    /// A rule of the core is left out.
    Rule(automaton::Weakness),
}

/// One node's replica.
#[derive(Clone, Debug)]
pub struct Engine {
    // On the disk.
    pub standing: Standing,
    pub lineage: Lineage,
    /// Numbers of the writes, in order.
    pub data: Vec<u64>,
    /// How much of `data` outlives a loss of power.
    pub durable: usize,
    /// It served, and did not end with everything shared.
    pub unshared: bool,
    /// What was put aside before copies took its place.
    pub salvage: BTreeSet<u64>,
    // In memory.
    pub running: bool,
    pub role: ReplicaRole,
    pub peer: ReplicaPeer,
    /// Secondary: connect to the primary.
    pub follow: bool,
    pub full: bool,
    /// Writes applied here whose acknowledgement the client waits for.
    pub pending: Vec<u64>,
}

/// The stream between a primary and a secondary.
#[derive(Clone, Debug)]
pub struct Stream {
    pub id: u64,
    /// Node index of the primary.
    pub primary: usize,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Copying,
    /// The end marker is under way: it covers this many writes.
    Marked(usize),
    Live,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            standing: Standing::Blank,
            lineage: Lineage::default(),
            data: Vec::new(),
            durable: 0,
            unshared: false,
            salvage: BTreeSet::new(),
            running: false,
            role: ReplicaRole::Idle,
            peer: ReplicaPeer::Absent,
            follow: false,
            full: false,
            pending: Vec::new(),
        }
    }
}

/// What an order did, beside the engine itself.
#[derive(Debug, Default)]
pub struct Effect {
    /// Writes that are acknowledged now.
    pub acked: Vec<u64>,
    /// The stream is closed; the other side sees this.
    pub close: Option<ReplicaPeer>,
    /// A service alone began, by force of the operator or not.
    pub serves_alone: Option<bool>,
    pub failed: Option<&'static str>,
    /// Asked again later.
    pub later: bool,
}

impl Engine {
    pub fn report(&self, mutation: Mutation) -> ReplicaReport {
        let standing = if mutation == Mutation::LiesAboutStanding && self.standing != Standing::Blank {
            if self.standing == Standing::Alone { Standing::Alone } else { Standing::Paired }
        } else {
            self.standing
        };
        ReplicaReport {
            role: self.role,
            standing,
            lineage: self.lineage.clone(),
            peer: self.peer,
            frozen: self.frozen(),
            position: self.data.len() as u64,
        }
    }

    /// Nothing is acknowledged.
    pub fn frozen(&self) -> bool {
        self.role == ReplicaRole::Primary && self.standing == Standing::Paired && self.peer != ReplicaPeer::InSync
    }

    fn mint(&mut self, id: EpochId, mutation: Mutation) {
        if self.standing != Standing::Alone && mutation != Mutation::NoMint {
            self.lineage.mint(id, self.data.len() as u64);
        }
        self.standing = Standing::Alone;
        self.unshared = true;
        self.durable = self.data.len();
    }

    /// Whether a copy from a primary with this lineage may overwrite what was never there.
    pub fn holds_unseen(&self, theirs: &Lineage, mutation: Mutation) -> bool {
        mutation != Mutation::NoSalvage && self.lineage.may_hold_unseen(theirs, self.unshared, self.full)
    }

    /// A copy takes the place of the first `part` of the content: what the primary does not have is put aside, or is returned.
    pub fn overwrite(&mut self, part: usize, theirs: &Engine, mutation: Mutation) -> Vec<u64> {
        let part = part.min(self.data.len());
        let has: BTreeSet<u64> = theirs.data.iter().copied().collect();
        let gone: Vec<u64> = self.data.drain(..part).filter(|w| !has.contains(w)).collect();
        self.durable = self.durable.min(self.data.len());
        if !self.holds_unseen(&theirs.lineage, mutation) {
            return gone;
        }
        self.salvage.extend(gone);
        Vec::new()
    }

    /// Carries an order out. `shared`: the stream is live and everything is acknowledged; `drained`: so it is, or it is not waited for any more.
    pub fn order(
        &mut self,
        order: &ReplicaOrder,
        epoch: EpochId,
        (shared, drained): (bool, bool),
        mutation: Mutation,
    ) -> Effect {
        let mut effect = Effect::default();
        let lawful = matches!(self.standing, Standing::Paired | Standing::Alone);
        match order {
            ReplicaOrder::Primary { peer: PeerMode::Excluded, force } => {
                if !force && self.standing != Standing::Alone {
                    effect.failed = Some("this replica may not serve unasked");
                    return effect;
                }
                self.mint(epoch, mutation);
                self.role = ReplicaRole::Primary;
                self.peer = ReplicaPeer::Absent;
                effect.serves_alone = Some(!lawful);
            }
            ReplicaOrder::Primary { peer: PeerMode::Paired, .. } | ReplicaOrder::Promote { peer: PeerMode::Paired } => {
                if self.standing != Standing::Paired {
                    effect.failed = Some("not paired");
                    return effect;
                }
                self.role = ReplicaRole::Primary;
                self.peer = ReplicaPeer::Absent;
                self.follow = false;
                self.unshared = true;
                if mutation != Mutation::PromoteWithoutSync {
                    self.durable = self.data.len();
                }
                effect.close = Some(ReplicaPeer::Lost);
            }
            ReplicaOrder::Secondary { full } => {
                self.role = ReplicaRole::Secondary;
                self.peer = ReplicaPeer::Absent;
                self.follow = true;
                self.full = *full;
                effect.close = Some(ReplicaPeer::Lost);
            }
            ReplicaOrder::ExcludePeer => {
                if self.role != ReplicaRole::Primary {
                    effect.failed = Some("not primary");
                    return effect;
                }
                if self.standing == Standing::Paired {
                    self.mint(epoch, mutation);
                    effect.acked = std::mem::take(&mut self.pending);
                    effect.close = Some(ReplicaPeer::Lost);
                    effect.serves_alone = Some(false);
                    self.peer = ReplicaPeer::Absent;
                }
            }
            ReplicaOrder::Promote { peer: PeerMode::Excluded } => {
                if !lawful && mutation != Mutation::LiesAboutStanding {
                    effect.failed = Some("not up to date");
                    return effect;
                }
                self.mint(epoch, mutation);
                self.role = ReplicaRole::Primary;
                self.peer = ReplicaPeer::Absent;
                self.follow = false;
                effect.close = Some(ReplicaPeer::Lost);
                effect.serves_alone = Some(false);
            }
            ReplicaOrder::Demote => {
                if !drained {
                    effect.later = true;
                    return effect;
                }
                self.role = ReplicaRole::Secondary;
                self.peer = ReplicaPeer::Absent;
                self.follow = true;
                self.unshared = false;
                self.durable = self.data.len();
                effect.close = Some(ReplicaPeer::Lost);
            }
            ReplicaOrder::Outdate => {
                if lawful {
                    self.standing = Standing::Outdated;
                }
                self.follow = false;
                self.peer = ReplicaPeer::Absent;
                effect.close = Some(ReplicaPeer::Lost);
            }
            ReplicaOrder::Abandon => self.pending.clear(),
            ReplicaOrder::Retire => {
                if self.role == ReplicaRole::Primary && self.peer == ReplicaPeer::InSync && !drained {
                    effect.later = true;
                    return effect;
                }
                let forgets = self.role == ReplicaRole::Secondary && mutation == Mutation::ForgetsUnshared;
                let shared = self.role == ReplicaRole::Primary && shared;
                self.unshared &= !(shared || forgets);
                self.role = ReplicaRole::Idle;
                self.peer = ReplicaPeer::Absent;
                self.follow = false;
                self.durable = self.data.len();
                self.pending.clear();
                effect.close = Some(ReplicaPeer::Left);
            }
        }
        effect
    }

    /// The process ends; `power`: with the host, so that what is not durable is lost. `keep`: how much of the rest survives.
    pub fn die(&mut self, power: bool, keep: usize) {
        self.running = false;
        self.role = ReplicaRole::Idle;
        self.peer = ReplicaPeer::Absent;
        self.follow = false;
        self.pending.clear();
        if power {
            self.data.truncate(self.durable.max(keep));
        }
        self.durable = self.durable.min(self.data.len());
    }
}
