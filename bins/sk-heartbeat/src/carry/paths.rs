//! Which network paths are used, by whom, and how do packets get through them?

use super::{Carry, PORTS, PORTS_LIMIT};
use crate::local::{Attach, Keys, ToMember};
use crate::port::{Arrival, Port};
use crate::spec::LinkSpec;
use detector::carrier::StreamId;
use mio::Token;
use std::net::SocketAddr;
use sys::clock::{monotonic_ms, wall_ms};
use wire::path::{BODY_LIMIT, Direction, Opener, PACKET_LIMIT, Refused, Sealer, random_incarnation};

/// Packets taken from one port before the others and the timers have their turn.
const BATCH: usize = 64;

/// So many packets in a row that may be old are no matter.
const STALE: u32 = 20;

/// One path with the keys of one cluster.
pub(super) struct Stream {
    port: usize,
    node: String,
    peer: String,
    keys: Keys,
    sealer: Sealer,
    opener: Opener,
    /// Packets in a row that may be old.
    stale: u32,
}

impl Carry {
    /// The stream of a link, opened when there is none.
    pub(super) fn stream(&mut self, attach: &Attach, link: &LinkSpec) -> Result<StreamId, String> {
        let (local, remote) = (SocketAddr::new(link.local, attach.port), SocketAddr::new(link.peer, attach.port));
        let same = |s: &Stream| {
            s.node == attach.node
                && s.peer == attach.peer
                && s.keys.are_related(&attach.keys)
                && self.port(s.port).is_some_and(|p| p.local == local && p.peer == remote)
        };
        if let Some(id) = self.streams.iter().position(|s| s.as_ref().is_some_and(same)) {
            self.renew_keys(id, &attach.keys);
            return Ok(id);
        }
        let port = self.port_of(local, remote)?;
        let there = Direction { from: (&attach.node, link.local), to: (&attach.peer, link.peer) };
        let back = Direction { from: there.to, to: there.from };
        // A life of its own: the peer goes on refusing the numbers that a former stream of this path used up.
        let incarnation = random_incarnation().map_err(|e| format!("the kernel gives no random bytes: {e}"))?;
        let mut opener = Opener::new(attach.keys.used, &back, incarnation);
        opener.set_keys(&attach.keys.all());
        let stream = Stream {
            port,
            node: attach.node.clone(),
            peer: attach.peer.clone(),
            keys: attach.keys.clone(),
            sealer: Sealer::new(attach.keys.used, &there, incarnation),
            opener,
            stale: 0,
        };
        let id = self.core.open();
        let ready = self.port(port).is_some_and(|p| p.present == Some(true));
        self.core.set_ready(monotonic_ms(), id, ready);
        if self.streams.len() <= id {
            self.streams.resize_with(id + 1, || None);
        }
        if let Some(slot) = self.streams.get_mut(id) {
            *slot = Some(stream);
        }
        Ok(id)
    }

    /// The modules of a node read the same file of keys: what one of them says is true for the stream.
    pub(super) fn renew_keys(&mut self, id: StreamId, keys: &Keys) {
        if let Some(stream) = self.streams.get_mut(id).and_then(Option::as_mut)
            && stream.keys != *keys
        {
            stream.sealer.set_key(keys.used);
            stream.opener.set_keys(&keys.all());
            stream.keys = keys.clone();
        }
    }

    fn port_of(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<usize, String> {
        let same = |p: &Port| p.local == local && p.peer == remote;
        if let Some(number) = self.ports.iter().position(|p| p.as_ref().is_some_and(same)) {
            return Ok(number);
        }
        let number = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if number >= PORTS_LIMIT {
            return Err(format!("more than {PORTS_LIMIT} network paths"));
        }
        let port = Port::new(local, remote, Token(PORTS + number));
        if number == self.ports.len() {
            self.ports.push(Some(port));
        } else if let Some(slot) = self.ports.get_mut(number) {
            *slot = Some(port);
        }
        Ok(number)
    }

    fn port(&self, number: usize) -> Option<&Port> {
        self.ports.get(number).and_then(Option::as_ref)
    }

    /// Whether the local address of a stream is there, as far as it is known.
    pub(super) fn presence(&self, stream: StreamId) -> Option<bool> {
        let stream = self.streams.get(stream)?.as_ref()?;
        self.port(stream.port)?.present
    }

    fn streams_of(&self, port: usize) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.streams
            .iter()
            .enumerate()
            .filter_map(|(id, s)| Some((id, s.as_ref()?)))
            .filter(move |(_, s)| s.port == port)
    }

    pub(super) fn receive(&mut self, number: usize) {
        let mut buffer = [0; PACKET_LIMIT + 1];
        for _ in 0..BATCH {
            let Some(port) = self.ports.get_mut(number).and_then(Option::as_mut) else { return };
            match port.receive(&mut buffer) {
                Arrival::Packet(length) => self.packet(number, buffer.get(..length).unwrap_or_default()),
                Arrival::Refused => self.refused(number),
                Arrival::Nothing => return,
            }
        }
        self.backlog = true;
    }

    fn packet(&mut self, number: usize, packet: &[u8]) {
        let now = monotonic_ms();
        let mut verdict = None;
        for (id, stream) in self.streams.iter_mut().enumerate() {
            let Some(stream) = stream.as_mut().filter(|s| s.port == number) else { continue };
            match stream.opener.open(wall_ms(), packet) {
                Ok(body) => {
                    stream.stale = 0;
                    self.core.received(now, id, body);
                    return;
                }
                // Two nodes with different clocks need a moment to get to know each other.
                Err(Refused::Stale) if stream.stale < STALE => {
                    stream.stale += 1;
                    return;
                }
                // Replays, foreign nodes, noise: dropped. One key of several that fits is enough.
                Err(reason) => {
                    if verdict != Some(Refused::Replay) {
                        verdict = Some(reason);
                    }
                }
            }
        }
        let Some(port) = self.ports.get_mut(number).and_then(Option::as_mut) else { return };
        let from = port.peer.ip();
        let record = match verdict {
            Some(Refused::WrongKey) => ToMember::WrongKey { from },
            Some(reason @ (Refused::Version(_) | Refused::Stale)) => {
                ToMember::Words { text: format!("packets of {from} are dropped: {reason}") }
            }
            _ => return,
        };
        if port.may_complain(now) {
            self.say_on(number, &record);
        }
    }

    fn refused(&mut self, number: usize) {
        let now = monotonic_ms();
        for (id, stream) in self.streams.iter().enumerate() {
            if stream.as_ref().is_some_and(|s| s.port == number) {
                self.core.unreachable(now, id);
            }
        }
    }

    /// Tells all modules with a link over this port.
    fn say_on(&self, number: usize, record: &ToMember) {
        for client in self.clients.iter().flatten() {
            if client.links.iter().any(|id| self.streams_of(number).any(|(other, _)| other == *id)) {
                // One that does not read misses it; that is no reason to cut it off.
                client.say(record);
            }
        }
    }

    pub(super) fn transmit(&mut self, now: u64) {
        let mut body = std::mem::take(&mut self.body);
        while let Some(id) = self.core.transmit(now, BODY_LIMIT, &mut body) {
            let Some(stream) = self.streams.get_mut(id).and_then(Option::as_mut) else { continue };
            stream.sealer.seal(stream.opener.echo(), wall_ms(), &body, &mut self.packet);
            let number = stream.port;
            let Some(port) = self.ports.get_mut(number).and_then(Option::as_mut) else { continue };
            if port.send(&self.packet) {
                self.refused(number);
            }
        }
        self.body = body;
    }

    /// Opens sockets, and notices addresses that come and go.
    pub(super) fn open_ports(&mut self, now: u64) {
        for number in 0..self.ports.len() {
            let Some(port) = self.ports.get_mut(number).and_then(Option::as_mut) else { continue };
            let opened = port.open(now, self.poll.registry());
            if let Some(text) = opened.words {
                self.say_on(number, &ToMember::Words { text });
            }
            let Some(present) = opened.present else { continue };
            let streams: Vec<StreamId> = self.streams_of(number).map(|(id, _)| id).collect();
            for id in &streams {
                self.core.set_ready(now, *id, present);
            }
            for client in self.clients.iter().flatten() {
                for (link, _) in client.links.iter().enumerate().filter(|(_, id)| streams.contains(id)) {
                    client.say(&ToMember::Address { link, present });
                }
            }
        }
        // What has just become possible is not put off.
        self.transmit(now);
    }

    /// Forgets what nobody uses.
    pub(super) fn tidy(&mut self, now: u64) {
        self.judge_all(now);
        for id in 0..self.streams.len() {
            if self.streams.get(id).is_some_and(Option::is_some) && !self.core.is_used(id) {
                self.core.close(id);
                if let Some(slot) = self.streams.get_mut(id) {
                    *slot = None;
                }
            }
        }
        for number in 0..self.ports.len() {
            if self.streams_of(number).next().is_none()
                && let Some(slot) = self.ports.get_mut(number)
            {
                *slot = None;
            }
        }
    }
}
