//! Is a link, is the peer alive? Decided from the packets that came, and when; `now` is always an argument (milliseconds).
//!
//! A link is up from its first packet until `timeout_ms` passes without another one. The peer is up while any link is.
//!
//! **Own pauses.** When this process was not scheduled (its own calls are more than three pulses apart), nothing is known
//! about the peer's silence in that time: packets may have been lost while nobody emptied the socket, or the whole host
//! stood still. All deadlines move by the length of the pause, so load on this host causes no failover. The sum of such
//! extensions between two packets of a link is at most the link's timeout: a dead peer is noticed after at most twice
//! the timeout, however much this host stutters.

pub mod beat;
pub mod carrier;
pub mod farm;

use std::collections::VecDeque;

/// Replaced incarnations of the peer that are remembered, so that late packets of a former life change nothing.
const RETIRED_LIMIT: usize = 256;
/// This many pulses without a call of ours are a pause of ours.
const PAUSE_PULSES: u64 = 3;

/// One heartbeat link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    pub pulse_ms: u64,
    pub timeout_ms: u64,
}

/// What changed. Links are named by their place in the list given to [`Detector::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    LinkUp(usize),
    LinkDown(usize),
    PeerUp,
    /// All links went down; or once when nothing has come for the longest timeout since the start.
    PeerDown,
    /// The state in this packet is news: another version, another life of the peer, or its first after `PeerUp`.
    PeerState,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    deadline: u64,
    timeout: u64,
    /// How much of `deadline` is due to own pauses.
    extended: u64,
}

impl Watch {
    fn new(now: u64, timeout: u64) -> Self {
        Self { deadline: now.saturating_add(timeout), timeout, extended: 0 }
    }

    fn extend(&mut self, pause: u64) {
        let more = pause.min(self.timeout.saturating_sub(self.extended));
        self.extended += more;
        self.deadline = self.deadline.saturating_add(more);
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    timeout: u64,
    /// Present while the link is up.
    watch: Option<Watch>,
}

/// What a former watcher of the same peer had found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// For each link whether it was up.
    pub links: Vec<bool>,
    /// A verdict was given: the peer was up once, or was said to be down.
    pub judged: bool,
    /// Incarnation and version of the newest state that was reported, while the peer is up.
    pub newest: Option<(u64, u64)>,
}

/// Watches one peer over its links.
#[derive(Clone, Debug)]
pub struct Detector {
    links: Vec<Link>,
    pulse: u64,
    last_call: u64,
    up: bool,
    /// Until the first packet, or the verdict that none came.
    start: Option<Watch>,
    /// Incarnation and version of the newest state, forgotten when the peer goes down.
    newest: Option<(u64, u64)>,
    incarnation: Option<u64>,
    retired: VecDeque<u64>,
}

impl Detector {
    /// Starts watching at `now`. Call [`Detector::tick`] at least once a pulse from here on.
    pub fn new(now: u64, links: &[LinkSpec]) -> Self {
        let longest = links.iter().map(|l| l.timeout_ms).max().unwrap_or(0);
        Self {
            links: links.iter().map(|l| Link { timeout: l.timeout_ms, watch: None }).collect(),
            pulse: links.iter().map(|l| l.pulse_ms).min().unwrap_or(0).max(1),
            last_call: now,
            up: false,
            start: Some(Watch::new(now, longest)),
            newest: None,
            incarnation: None,
            retired: VecDeque::new(),
        }
    }

    /// Goes on where a former watcher ended. Links that were up have their full timeout from `now`: how long the last
    /// packet is ago is not known.
    pub fn resume(now: u64, links: &[LinkSpec], known: &Known) -> Self {
        let mut detector = Self::new(now, links);
        for (link, up) in detector.links.iter_mut().zip(&known.links) {
            link.watch = up.then(|| Watch::new(now, link.timeout));
        }
        detector.up = detector.links.iter().any(|l| l.watch.is_some());
        if detector.up {
            detector.newest = known.newest;
            detector.incarnation = known.newest.map(|(life, _)| life);
        }
        if known.judged || detector.up {
            detector.start = None;
        }
        detector
    }

    /// Incarnation and version of the newest state that was reported; `None` while the peer is down.
    pub fn reported(&self) -> Option<(u64, u64)> {
        self.newest
    }

    /// Whether this life of the peer was replaced by another one.
    pub fn is_retired(&self, incarnation: u64) -> bool {
        self.retired.contains(&incarnation)
    }

    /// An authentic packet came over a link. `version` grows with every change of the state within one incarnation.
    /// Notices are appended to `notices`.
    pub fn packet(&mut self, now: u64, link: usize, incarnation: u64, version: u64, notices: &mut Vec<Notice>) {
        self.observe(now);
        if self.retired.contains(&incarnation) {
            return;
        }
        let Some(slot) = self.links.get_mut(link) else { return };
        let was_up = slot.watch.replace(Watch::new(now, slot.timeout)).is_some();
        if !was_up {
            notices.push(Notice::LinkUp(link));
        }
        self.start = None;
        if !std::mem::replace(&mut self.up, true) {
            notices.push(Notice::PeerUp);
        }
        if let Some(former) = self.incarnation.replace(incarnation)
            && former != incarnation
        {
            if self.retired.len() == RETIRED_LIMIT {
                self.retired.pop_front();
            }
            self.retired.push_back(former);
        }
        let news = self.newest.is_none_or(|(life, seen)| life != incarnation || version > seen);
        if news {
            self.newest = Some((incarnation, version));
            notices.push(Notice::PeerState);
        }
    }

    /// Time passed. Empty the sockets before, so that packets that waited count. Notices are appended to `notices`.
    pub fn tick(&mut self, now: u64, notices: &mut Vec<Notice>) {
        self.observe(now);
        for (number, link) in self.links.iter_mut().enumerate() {
            if link.watch.is_some_and(|w| w.deadline <= now) {
                link.watch = None;
                notices.push(Notice::LinkDown(number));
            }
        }
        if self.up && self.links.iter().all(|l| l.watch.is_none()) {
            self.up = false;
            self.newest = None;
            notices.push(Notice::PeerDown);
        }
        if self.start.is_some_and(|w| w.deadline <= now) {
            self.start = None;
            notices.push(Notice::PeerDown);
        }
    }

    /// When the next verdict falls due if nothing comes.
    pub fn deadline(&self) -> Option<u64> {
        self.links.iter().filter_map(|l| l.watch).chain(self.start).map(|w| w.deadline).min()
    }

    pub fn is_link_up(&self, link: usize) -> bool {
        self.links.get(link).is_some_and(|l| l.watch.is_some())
    }

    pub fn is_peer_up(&self) -> bool {
        self.up
    }

    fn observe(&mut self, now: u64) {
        let gap = now.saturating_sub(self.last_call);
        self.last_call = self.last_call.max(now);
        if gap > self.pulse.saturating_mul(PAUSE_PULSES) {
            for watch in self.links.iter_mut().filter_map(|l| l.watch.as_mut()).chain(self.start.as_mut()) {
                watch.extend(gap);
            }
        }
    }
}

#[cfg(test)]
mod tests;
