//! Who may serve: the decision of a starting node, the choice between two starting nodes, the end of a split brain.

use crate::state::{Arbiter, DefaultPrimary, Published, Settings, StateName};
use lineage::{Relation, Standing};
use serde::{Deserialize, Serialize};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Intent {
    Start,
    Prim,
    PrimForce,
    Second { full: bool },
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer<'a> {
    /// Neither heard nor given up.
    Unknown,
    /// Silent for the heartbeat timeout, or stopped.
    Absent,
    Present(&'a Published),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Wait for a fact that comes by itself.
    Await,
    Alone {
        force: bool,
    },
    Second {
        full: bool,
        /// The peer went on without us: remember it before following.
        outdate: bool,
    },
    /// Blocked until a fact changes, with the reason for the operator.
    NotReady(Why),
    /// The operator's demand cannot be met: back to STOP.
    Refuse(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Perhaps the other node has newer data.
    NotUpToDate,
    /// Stopped during a resynchronisation.
    Inconsistent,
    /// Both changed separately.
    Diverged,
    /// Neither ever had data.
    NoData,
    /// The primary's replication engine failed.
    Degraded,
    /// `prim` while the peer serves.
    PeerIsPrimary,
    /// `second` while the peer does not serve.
    PeerIsNotPrimary,
}

/// The decision of a node in WAIT. `me` is what it would publish.
pub(crate) fn start(intent: Intent, me: &Published, peer: Peer<'_>, settings: &Settings) -> Decision {
    let peer = match peer {
        Peer::Unknown => return Decision::Await,
        Peer::Present(p) if p.state.name == StateName::Stop => Peer::Absent,
        other => other,
    };
    let serving = match peer {
        Peer::Present(p) if p.state.name.serves() => Some(p),
        _ => None,
    };
    match (intent, serving) {
        (Intent::Prim | Intent::PrimForce, Some(_)) => Decision::Refuse(Why::PeerIsPrimary),
        (Intent::Prim, None) if settings.replicated && me.standing == Standing::Inconsistent => {
            Decision::Refuse(Why::Inconsistent)
        }
        (Intent::Prim | Intent::PrimForce, None) => Decision::Alone { force: true },
        (Intent::Second { .. }, None) => Decision::Refuse(Why::PeerIsNotPrimary),
        // One that still says it serves while we are ahead of it has lost the right to, and is about to notice: it gives way as soon
        // as it hears us. Who followed it now would call the newest data outdated, and then nobody's would be good.
        (Intent::Start | Intent::Second { .. }, Some(p)) if lapsed(me, p, settings) => Decision::Await,
        (Intent::Second { full }, Some(p)) => follow(me, p, full, settings),
        (Intent::Start, Some(p)) => follow(me, p, false, settings),
        (Intent::Start, None) => match peer {
            Peer::Present(p) => with_idle_peer(me, p, settings),
            _ => without_peer(me, settings),
        },
    }
}

fn lapsed(me: &Published, peer: &Published, settings: &Settings) -> bool {
    let ours = match settings.arbiter {
        // Then no two nodes serve.
        Arbiter::Store { .. } => me.standing.is_up_to_date(),
        // A primary that excluded its peer does not give way to a node in WAIT.
        _ => me.standing == Standing::Alone && peer.standing != Standing::Alone,
    };
    ours && settings.replicated && me.lineage.compare(&peer.lineage) == Relation::Newer
}

fn follow(me: &Published, peer: &Published, full: bool, settings: &Settings) -> Decision {
    if settings.replicated && peer.degraded {
        return Decision::NotReady(Why::Degraded);
    }
    // What the primary has is the truth from now on, also when we have changes of our own (they are salvaged by the engine).
    let outdate = settings.replicated
        && me.standing.is_up_to_date()
        && (me.standing == Standing::Alone || me.lineage.compare(&peer.lineage) != Relation::Same);
    Decision::Second { full: full || peer.full_wanted, outdate }
}

fn without_peer(me: &Published, settings: &Settings) -> Decision {
    if !settings.replicated || me.standing == Standing::Alone {
        Decision::Alone { force: false }
    } else {
        Decision::NotReady(own_reason(me))
    }
}

fn own_reason(me: &Published) -> Why {
    match me.standing {
        Standing::Inconsistent => Why::Inconsistent,
        _ => Why::NotUpToDate,
    }
}

fn with_idle_peer(me: &Published, peer: &Published, settings: &Settings) -> Decision {
    // A secondary decides by itself soon: takes over, or stops waiting. A leaving node is no candidate and soon absent.
    if peer.state.name != StateName::Wait || peer.leaving {
        return Decision::Await;
    }
    match choose(me, peer, settings) {
        Choice::Me => Decision::Alone { force: true },
        Choice::Peer => Decision::Await,
        Choice::Nobody(why) => Decision::NotReady(why),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Me,
    Peer,
    Nobody(Why),
}

/// Which of two nodes in WAIT serves. Both compute it from the same two publications: the answers are mirror images.
pub(crate) fn choose(me: &Published, peer: &Published, settings: &Settings) -> Choice {
    if !settings.replicated {
        return tie(me, peer, settings);
    }
    // Who is not up to date by its own word knows that somebody was ahead of it: it never wins by itself.
    let nobody = |why| Choice::Nobody(why);
    match me.lineage.compare(&peer.lineage) {
        Relation::BothBlank => nobody(Why::NoData),
        Relation::Diverged => after_split(me, peer, settings),
        Relation::Newer if may_win(me, peer) => Choice::Me,
        Relation::Older if may_win(peer, me) => Choice::Peer,
        Relation::Newer | Relation::Older => nobody(own_reason(me)),
        Relation::Same => match (me.standing.is_up_to_date(), peer.standing.is_up_to_date()) {
            (false, false) => nobody(own_reason(me)),
            (true, false) => Choice::Me,
            (false, true) => Choice::Peer,
            (true, true) => match (me.standing == Standing::Alone, peer.standing == Standing::Alone) {
                (true, false) => Choice::Me,
                (false, true) => Choice::Peer,
                _ => tie(me, peer, settings),
            },
        },
    }
}

/// Both changed the data separately, and neither serves now. The owner of a newest epoch may serve unasked, and does so before a
/// node that has given its own up. Two owners with a common past choose as a split brain that heals while both serve; what only
/// the loser has is kept aside. Without a common past they were never a pair: the operator must say.
fn after_split(me: &Published, peer: &Published, settings: &Settings) -> Choice {
    match (me.standing == Standing::Alone, peer.standing == Standing::Alone) {
        (true, false) => Choice::Me,
        (false, true) => Choice::Peer,
        (true, true) if me.lineage.shares_past(&peer.lineage) => {
            if stays_after_split(me, peer, settings) {
                Choice::Me
            } else {
                Choice::Peer
            }
        }
        _ => Choice::Nobody(Why::Diverged),
    }
}

/// A node ahead of its peer wins when it is up to date. Against a peer that is blank (a new disk) being paired is no proof:
/// the old disk may have gone on alone.
fn may_win(ahead: &Published, behind: &Published) -> bool {
    match ahead.standing {
        Standing::Alone => true,
        Standing::Paired => behind.standing != Standing::Blank,
        _ => false,
    }
}

fn tie(me: &Published, peer: &Published, settings: &Settings) -> Choice {
    if me.was_primary != peer.was_primary {
        return if me.was_primary { Choice::Me } else { Choice::Peer };
    }
    if settings.replicated && me.position != peer.position {
        return if me.position > peer.position { Choice::Me } else { Choice::Peer };
    }
    if let DefaultPrimary::Node(name) = &settings.default_primary {
        if *name == settings.node {
            return Choice::Me;
        }
        if *name == settings.peer {
            return Choice::Peer;
        }
    }
    if settings.node < settings.peer { Choice::Me } else { Choice::Peer }
}

/// Both serve, or did, and hear each other again: whether this node is the one that stays.
pub(crate) fn stays_after_split(me: &Published, peer: &Published, settings: &Settings) -> bool {
    if settings.replicated {
        match me.lineage.compare(&peer.lineage) {
            // The other holds everything we acknowledged, and more: staying would lose it for nothing.
            Relation::Older => return false,
            Relation::Newer => return true,
            Relation::Same | Relation::Diverged | Relation::BothBlank => {}
        }
    }
    let from_prim = |p: &Published| p.state.name == StateName::Prim || p.alone_from_prim;
    match (from_prim(me), from_prim(peer)) {
        (true, false) => true,
        (false, true) => false,
        _ => settings.node < settings.peer,
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
