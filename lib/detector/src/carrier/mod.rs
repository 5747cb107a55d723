//! How do the heartbeats of all modules of a node travel in one stream of datagrams a network path? Pure: packets, orders
//! and times in; datagram bodies and notices out.
//!
//! **Members** are the modules' heartbeats on this node, **streams** the paths (a local and a remote address of one peer). A
//! datagram carries a [`Beat`] for each member that is due, and for others while there is room: 40 modules cost as many
//! packets as one. A full state is sent when it changes, and again, ever less often, until the peer's beat for the same
//! module says that it holds it (`held`): nothing else acknowledges, so nothing about acknowledgements can get lost.
//! Whoever sees a beat with a version that it does not hold answers at once, and is sent the state.
//!
//! **A pulse that is missing is asked for.** When a quarter of a pulse more has passed, the peer is asked for an answer, and
//! again twenty times in a timeout. So a link that loses every fifth packet is up whatever its pulse is, at no cost while it loses none.
//!
//! **Silence is per module.** A beat counts as a sign of life only with `alive`, which needs a member that has published,
//! has not said goodbye, and whose process renews its lease ([`Carrier::renew`]). A member whose runner died is listed as
//! `gone` for a while: the peer then knows before its timeout.
//!
//! **Nobody there.** ICMP errors say that the peer's host is up and nobody listens. They can be forged by anybody who can
//! guess two addresses and one port, so they are a hint at most: on every link of the member that is up, three questions in
//! a row, each after the other, must be answered in this way, without one genuine packet in between; a peer that lives
//! answers a question at once.

mod member;
mod receive;
mod send;

use crate::{Detector, Known, LinkSpec, Notice as Verdict};
use member::{Member, Path, Peer, Published, Standing};
use std::collections::{BTreeMap, VecDeque};

/// First pause before a state is sent again; doubled each time up to the last one.
const RESEND_FIRST_MS: u64 = 30;
const RESEND_LAST_MS: u64 = 480;
/// After this many times a state is sent again only to a peer that asks.
const RESEND_TIMES: u32 = 8;
/// A goodbye that is not acknowledged is said this often, this far apart.
const BYE_TIMES: u32 = 5;
const BYE_MS: u64 = 20;
/// How long a death is listed.
const LINGER_MS: u64 = 3_000;
/// Times, after a death, at which it is said beside the pulses.
const DEATH_MS: [u64; 4] = [20, 60, 140, 300];
/// A peer that missed a pulse is asked so many times in a timeout.
const ASKED_IN_TIMEOUT: u64 = 20;
/// Answers to one member's beats are at least this far apart.
const ANSWER_MS: u64 = 20;
/// Distance of questions to a peer whose host says that nobody listens, and how many there must be.
const QUESTION_MS: u64 = 100;
const QUESTIONS: u32 = 3;

/// Number of a member, given by [`Carrier::attach`]. Used again after the member is gone.
pub type MemberId = usize;
/// Number of a stream, given by [`Carrier::open`]. Used again after [`Carrier::close`].
pub type StreamId = usize;

/// What a module's heartbeat is, when it attaches.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Tag of the module, the same on both nodes.
    pub module: u64,
    /// Random, new with each life of the module's heartbeat.
    pub incarnation: u64,
    /// Its links: the stream, and how fast.
    pub links: Vec<(StreamId, LinkSpec)>,
    /// What it knows of its peer, when it comes from another carrier.
    pub known: Known,
}

/// Why a member leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Silence from now on, and nothing to say about it.
    Silent,
    /// Its runner died. Told to the peer unless the member had said goodbye, or had never said anything.
    RunnerDied,
}

/// What else than silence says that the peer's module ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    RunnerDead,
    PortUnreachable,
}

/// What a member must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Links are named by their place in [`Attachment::links`].
    LinkUp(usize),
    LinkDown(usize),
    PeerUp,
    PeerDown,
    /// Read it with [`Carrier::peer_state`].
    PeerState,
    /// The goodbye was heard, or was said often enough.
    ByeDone,
    PeerGone(Evidence),
}

#[derive(Debug, Default)]
struct Stream {
    /// Members by the tag of their module.
    members: BTreeMap<u64, MemberId>,
    /// The local address is there.
    ready: bool,
    /// When to ask for an answer.
    question: Option<u64>,
    /// Errors came since the last genuine packet.
    refused: Option<Refused>,
}

/// "Nobody listens", answered by the peer's host.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    /// How many questions were answered so.
    questions: u32,
    /// The last question was not answered yet.
    open: bool,
}

/// All heartbeats of a node.
#[derive(Debug, Default)]
pub struct Carrier {
    members: Vec<Option<Member>>,
    streams: Vec<Option<Stream>>,
    notices: VecDeque<(MemberId, Notice)>,
    verdicts: Vec<Verdict>,
}

impl Carrier {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path. Nothing is sent over it before [`Carrier::set_ready`].
    pub fn open(&mut self) -> StreamId {
        put(&mut self.streams, Stream::default())
    }

    /// Removes a path that no member uses any more; `false` when one does.
    pub fn close(&mut self, id: StreamId) -> bool {
        let unused = self.streams.get(id).is_some_and(|s| s.as_ref().is_none_or(|s| s.members.is_empty()));
        if unused && let Some(slot) = self.streams.get_mut(id) {
            *slot = None;
        }
        unused
    }

    /// Whether any member uses the path.
    pub fn is_used(&self, id: StreamId) -> bool {
        self.stream(id).is_some_and(|s| !s.members.is_empty())
    }

    /// The local address of a path came or went.
    pub fn set_ready(&mut self, now: u64, id: StreamId, ready: bool) {
        let Some(stream) = self.streams.get_mut(id).and_then(Option::as_mut) else { return };
        if !std::mem::replace(&mut stream.ready, ready) && ready {
            for member in stream.members.values() {
                if let Some(path) = member_mut(&mut self.members, *member).and_then(|m| m.path(id)) {
                    path.next_pulse = now;
                }
            }
        }
    }

    /// A module's heartbeat comes. `None`: one of the same module is attached on one of its streams already.
    pub fn attach(&mut self, now: u64, attachment: Attachment) -> Option<MemberId> {
        let module = attachment.module;
        for (stream, _) in &attachment.links {
            let other = *self.stream(*stream)?.members.get(&module).unwrap_or(&usize::MAX);
            if self.member(other).is_some_and(|m| m.standing == Standing::Attached) {
                return None;
            }
        }
        for (stream, _) in &attachment.links {
            // A new life says more than the end of the former one.
            if let Some(former) = self.stream(*stream).and_then(|s| s.members.get(&module)).copied() {
                self.remove(former);
            }
        }
        let specs: Vec<LinkSpec> = attachment.links.iter().map(|(_, spec)| *spec).collect();
        let mut paths: Vec<Path> =
            attachment.links.iter().map(|(stream, spec)| Path::new(*stream, spec, now)).collect();
        for (path, _) in paths.iter_mut().zip(&attachment.known.links).filter(|(_, up)| **up) {
            path.heard(now);
        }
        let id = put(
            &mut self.members,
            Member {
                module,
                incarnation: attachment.incarnation,
                standing: Standing::Attached,
                paths,
                lease: 0,
                published: None,
                acknowledged: false,
                resend: None,
                detector: Detector::resume(now, &specs, &attachment.known),
                tick_by: now,
                peer: Peer::default(),
                answered: None,
            },
        );
        for (stream, _) in &attachment.links {
            if let Some(stream) = self.streams.get_mut(*stream).and_then(Option::as_mut) {
                stream.members.insert(module, id);
            }
        }
        Some(id)
    }

    /// A member goes.
    pub fn detach(&mut self, now: u64, id: MemberId, departure: Departure) {
        let Some(member) = member_mut(&mut self.members, id) else { return };
        match (departure, &member.published) {
            (Departure::RunnerDied, Some(published)) if !published.bye => {
                member.standing = Standing::Gone { since: now, said: 0 };
                member.resend = None;
                member.speak(now);
                self.notices.retain(|(to, _)| *to != id);
            }
            _ => self.remove(id),
        }
    }

    /// The member's process was seen to run: it counts as alive until `until`.
    pub fn renew(&mut self, now: u64, id: MemberId, until: u64) {
        let Some(member) = member_mut(&mut self.members, id) else { return };
        let ran = member.runs(now);
        member.lease = until;
        if !ran && member.runs(now) && !member.acknowledged {
            member.send_state(now);
        }
    }

    /// The member's state is `body` from now on. `version` must grow with each change, from 1.
    pub fn publish(&mut self, now: u64, id: MemberId, version: u32, bye: bool, body: &[u8]) {
        let Some(member) = member_mut(&mut self.members, id).filter(|m| m.standing == Standing::Attached) else {
            return;
        };
        if member.published.as_ref().is_some_and(|p| p.bye && !p.bye_done) {
            self.notices.push_back((id, Notice::ByeDone));
        }
        member.published = Some(Published { version, bye, bye_done: false, body: body.to_vec() });
        member.acknowledged = false;
        member.resend = None;
        member.send_state(now);
    }

    /// The newest state of the member's peer: incarnation, version, whether it said goodbye, and the state.
    pub fn peer_state(&self, id: MemberId) -> Option<(u64, u32, bool, &[u8])> {
        let peer = &self.member(id)?.peer;
        (peer.version > 0).then_some((peer.incarnation, peer.version, peer.bye, peer.body.as_slice()))
    }

    /// The next notice, and for whom.
    pub fn next_notice(&mut self) -> Option<(MemberId, Notice)> {
        self.notices.pop_front()
    }

    /// Whether members, or news of dead ones, remain.
    pub fn is_idle(&self) -> bool {
        self.members.iter().all(Option::is_none)
    }

    /// Time passed. Empty the sockets before, so that packets that waited count.
    pub fn tick(&mut self, now: u64) {
        for id in 0..self.members.len() {
            let Some(member) = member_mut(&mut self.members, id) else { continue };
            match &mut member.standing {
                Standing::Gone { since, said } => {
                    let age = now.saturating_sub(*since);
                    if age >= LINGER_MS {
                        self.remove(id);
                    } else if DEATH_MS.get(*said).is_some_and(|at| age >= *at) {
                        *said += 1;
                        member.speak(now);
                    }
                }
                Standing::Attached => {
                    member.tick_by = now + member.fastest();
                    member.detector.tick(now, &mut self.verdicts);
                    for (link, path) in member.paths.iter_mut().enumerate() {
                        if !member.detector.is_link_up(link) {
                            path.ask_at = None;
                        } else if path.asks(now)
                            && let Some(stream) = self.streams.get_mut(path.stream).and_then(Option::as_mut)
                        {
                            stream.question.get_or_insert(now);
                        }
                    }
                    self.pass_verdicts(id);
                    self.resend(now, id);
                }
            }
        }
    }

    /// When [`Carrier::tick`] and [`Carrier::transmit`] are due if nothing comes.
    pub fn deadline(&self) -> Option<u64> {
        let members = self.members.iter().flatten().flat_map(|m| {
            let paths = m.paths.iter().filter(|p| self.stream(p.stream).is_some_and(|s| s.ready));
            let standing = match m.standing {
                Standing::Gone { since, said } => {
                    [Some(since + DEATH_MS.get(said).copied().unwrap_or(LINGER_MS)), None, None]
                }
                Standing::Attached => [Some(m.tick_by), m.resend.as_ref().map(|r| r.at), m.detector.deadline()],
            };
            let asked = m.paths.iter().filter(|_| m.standing == Standing::Attached).filter_map(|p| p.ask_at);
            paths.map(|p| p.next_pulse).chain(asked).chain(standing.into_iter().flatten())
        });
        members.chain(self.streams.iter().flatten().filter(|s| s.ready).filter_map(|s| s.question)).min()
    }

    /// Gives the member what its detector found.
    fn pass_verdicts(&mut self, id: MemberId) {
        for verdict in self.verdicts.drain(..) {
            let notice = match verdict {
                Verdict::LinkUp(n) => Notice::LinkUp(n),
                Verdict::LinkDown(n) => Notice::LinkDown(n),
                Verdict::PeerUp => Notice::PeerUp,
                Verdict::PeerDown => Notice::PeerDown,
                Verdict::PeerState => Notice::PeerState,
            };
            self.notices.push_back((id, notice));
        }
    }

    fn resend(&mut self, now: u64, id: MemberId) {
        let Some(member) = member_mut(&mut self.members, id) else { return };
        if member.resend.as_ref().is_none_or(|r| r.at > now) {
            return;
        }
        let wanted = !member.acknowledged && member.runs(now);
        let Some(published) = member.published.as_mut().filter(|p| wanted || p.bye && !member.acknowledged) else {
            member.resend = None;
            return;
        };
        let times = if published.bye { BYE_TIMES } else { RESEND_TIMES };
        if member.resend.as_ref().is_some_and(|r| r.times >= times) {
            member.resend = None;
            if published.bye && !std::mem::replace(&mut published.bye_done, true) {
                self.notices.push_back((id, Notice::ByeDone));
            }
        } else {
            member.send_state(now);
        }
    }

    fn remove(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(id).and_then(Option::take) else { return };
        for path in &member.paths {
            if let Some(stream) = self.streams.get_mut(path.stream).and_then(Option::as_mut)
                && stream.members.get(&member.module) == Some(&id)
            {
                stream.members.remove(&member.module);
            }
        }
        self.notices.retain(|(to, _)| *to != id);
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(id).and_then(Option::as_ref)
    }

    fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(id).and_then(Option::as_ref)
    }
}

fn member_mut(members: &mut [Option<Member>], id: MemberId) -> Option<&mut Member> {
    members.get_mut(id).and_then(Option::as_mut)
}

fn put<T>(slots: &mut Vec<Option<T>>, value: T) -> usize {
    if let Some(free) = slots.iter().position(Option::is_none) {
        if let Some(slot) = slots.get_mut(free) {
            *slot = Some(value);
        }
        free
    } else {
        slots.push(Some(value));
        slots.len() - 1
    }
}

#[cfg(test)]
mod tests;
