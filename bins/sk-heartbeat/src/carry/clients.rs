//! Which modules are attached, are they alive, and how did they end?

use super::{CLIENTS, CLIENTS_LIMIT, Carry};
use crate::local::{
    Attach, Channel, MEMBER_ROUNDS, MEMBER_WORD, PROTOCOL, Received, Statement, ToCarrier, ToMember, round_ms,
};
use detector::carrier::{Attachment, Departure, MemberId, Notice, StreamId};
use detector::{Known, LinkSpec};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::pidfd::PidFd;
use sys::words::SharedWords;

/// Records taken from one client before the others have their turn.
const BATCH: usize = 16;
/// A heartbeat that ended counts as its runner's death when the runner ends within this time.
const VERDICT_MS: u64 = 300;

/// One module's heartbeat.
pub(super) struct Client {
    channel: Option<Channel>,
    pub words: SharedWords,
    words_fd: OwnedFd,
    pub round: u64,
    pub member: Option<MemberId>,
    module: String,
    runner: Option<PidFd>,
    /// The streams of its links.
    pub links: Vec<StreamId>,
    /// Its end of the channel was closed then.
    ended: Option<u64>,
    pub ready: bool,
}

impl Client {
    /// When it was last seen to run, plus what it may take.
    pub fn lease(&self, now: u64) -> u64 {
        if self.is_gone() {
            return 0;
        }
        self.words.get(MEMBER_WORD).min(now) + MEMBER_ROUNDS * self.round
    }

    pub fn is_gone(&self) -> bool {
        self.ended.is_some()
    }

    /// When the end of its runner is not waited for any longer.
    pub fn verdict_at(&self) -> Option<u64> {
        self.ended.map(|at| at + VERDICT_MS)
    }

    fn runner_is_dead(&self) -> bool {
        self.runner.as_ref().is_some_and(|r| r.wait(Duration::ZERO).unwrap_or(false))
    }

    /// `false`: it does not read, or is gone.
    pub fn say(&self, record: &ToMember) -> bool {
        self.channel.as_ref().is_none_or(|c| c.send(record, None).is_ok())
    }
}

impl Carry {
    pub(super) fn accept(&mut self) {
        loop {
            match Channel::accept(&self.listener) {
                Ok(channel) => {
                    if let Err(error) = self.admit(channel) {
                        self.words.push(format!("a module's heartbeat could not attach: {error}"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No descriptor left, or it has gone already; whoever needs us comes again.
                Err(_) => {
                    self.backlog = false;
                    return;
                }
            }
        }
    }

    fn admit(&mut self, channel: Channel) -> io::Result<()> {
        if !channel.is_ours()? {
            return Ok(());
        }
        let number = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        if number >= CLIENTS_LIMIT {
            let _ = channel.send(&ToMember::Refused { reason: format!("more than {CLIENTS_LIMIT} modules") }, None);
            return Ok(());
        }
        let (words, words_fd) = SharedWords::create()?;
        let token = Token(CLIENTS + 2 * number);
        self.poll.registry().register(&mut SourceFd(&channel.as_raw_fd()), token, Interest::READABLE)?;
        let client = Client {
            channel: Some(channel),
            words,
            words_fd,
            round: super::ROUND_MS,
            member: None,
            module: String::new(),
            runner: None,
            links: Vec::new(),
            ended: None,
            ready: true,
        };
        if number == self.clients.len() {
            self.clients.push(Some(client));
        } else if let Some(slot) = self.clients.get_mut(number) {
            *slot = Some(client);
        }
        Ok(())
    }

    /// Takes what they say, and notices who is gone.
    pub(super) fn listen_to_clients(&mut self, now: u64) {
        for number in 0..self.clients.len() {
            if self.client(number).is_some_and(|c| c.ready) {
                self.listen_to(now, number);
            }
        }
    }

    fn client(&self, number: usize) -> Option<&Client> {
        self.clients.get(number).and_then(Option::as_ref)
    }

    fn client_mut(&mut self, number: usize) -> Option<&mut Client> {
        self.clients.get_mut(number).and_then(Option::as_mut)
    }

    fn listen_to(&mut self, now: u64, number: usize) {
        for _ in 0..BATCH {
            let Some(client) = self.client_mut(number) else { return };
            let Some(channel) = &client.channel else { break };
            match channel.receive::<ToCarrier>() {
                Ok(Received::Nothing) => {
                    client.ready = false;
                    break;
                }
                Ok(Received::Record(record, fd)) => self.record(now, number, record, fd),
                Ok(Received::Noise) => {}
                Ok(Received::Closed) | Err(_) => self.end(now, number),
            }
        }
        let Some(client) = self.client_mut(number) else { return };
        if client.channel.is_none() {
            client.ready = false;
        } else if client.ready {
            self.backlog = true;
        }
        self.judge(now, number);
    }

    fn record(&mut self, now: u64, number: usize, record: ToCarrier, fd: Option<OwnedFd>) {
        match record {
            ToCarrier::Attach(attach) => {
                if let Err(reason) = self.attach(now, number, *attach, fd) {
                    self.answer(number, &ToMember::Refused { reason });
                }
            }
            ToCarrier::Publish(statement) => {
                if let Some(member) = self.client(number).and_then(|c| c.member) {
                    self.publish(now, member, &statement);
                }
            }
            ToCarrier::Keys(keys) => {
                for id in self.client(number).map(|c| c.links.clone()).unwrap_or_default() {
                    self.renew_keys(id, &keys);
                }
            }
            ToCarrier::Leave => self.drop_client(now, number, Departure::Silent),
            ToCarrier::Yield => self.yields = true,
            ToCarrier::Unknown => {}
        }
    }

    fn answer(&self, number: usize, record: &ToMember) {
        if let Some(client) = self.client(number) {
            client.say(record);
        }
    }

    fn publish(&mut self, now: u64, member: MemberId, statement: &Statement) {
        self.core.publish(now, member, statement.version, statement.bye, statement.state.as_bytes());
    }

    fn attach(&mut self, now: u64, number: usize, attach: Attach, runner: Option<OwnedFd>) -> Result<(), String> {
        if attach.protocol > PROTOCOL {
            self.answer(number, &ToMember::Older { protocol: PROTOCOL });
            return Ok(());
        }
        if self.client(number).is_none_or(|c| c.member.is_some()) {
            return Err("it is attached already".to_owned());
        }
        // A former process of the module may have ended without our having noticed yet.
        for other in (0..self.clients.len()).filter(|n| *n != number) {
            if self.client(other).is_some_and(|c| c.module == attach.module) {
                self.listen_to(now, other);
                if self.client(other).is_some_and(Client::is_gone) {
                    self.drop_client(now, other, Departure::Silent);
                }
            }
        }
        let mut links = Vec::new();
        for link in &attach.links {
            let stream = self.stream(&attach, link)?;
            links.push((stream, LinkSpec { pulse_ms: link.pulse_ms.max(1), timeout_ms: link.timeout_ms }));
        }
        let streams: Vec<StreamId> = links.iter().map(|(stream, _)| *stream).collect();
        let known = Known::from(attach.memory);
        let module = wire::path::module_tag(&attach.module);
        let attachment = Attachment { module, incarnation: attach.incarnation, links, known };
        let member = self.core.attach(now, attachment).ok_or_else(|| {
            format!("another process carries the heartbeats of module {} on the same links", attach.module)
        })?;
        if self.owners.len() <= member {
            self.owners.resize(member + 1, None);
        }
        if let Some(owner) = self.owners.get_mut(member) {
            *owner = Some(number);
        }
        let registry = self.poll.registry().try_clone().map_err(|e| e.to_string())?;
        let words = std::mem::take(&mut self.words);
        let presences: Vec<Option<bool>> = streams.iter().map(|s| self.presence(*s)).collect();
        let Some(client) = self.client_mut(number) else { return Ok(()) };
        client.member = Some(member);
        client.module = attach.module;
        client.round = round_ms(&attach.links);
        client.words.set(MEMBER_WORD, now);
        client.words.set(crate::local::CARRIER_WORD, now);
        client.links = streams;
        client.runner = runner.map(PidFd::from);
        if let Some(runner) = &client.runner {
            let token = Token(CLIENTS + 2 * number + 1);
            // Without it, the end of the heartbeat itself is still seen.
            let _ = registry.register(&mut SourceFd(&runner.as_raw_fd()), token, Interest::READABLE);
        }
        let lease = client.lease(now);
        if let Some(channel) = &client.channel {
            // One that is gone again is noticed when its channel is read.
            let _ = channel.send(&ToMember::Attached { protocol: PROTOCOL }, Some(client.words_fd.as_fd()));
        }
        for (link, present) in presences.into_iter().enumerate() {
            if let Some(present) = present {
                client.say(&ToMember::Address { link, present });
            }
        }
        for text in words {
            client.say(&ToMember::Words { text });
        }
        self.core.renew(now, member, lease);
        if let Some(statement) = attach.statement {
            self.publish(now, member, &statement);
        }
        Ok(())
    }

    /// Its channel is closed. Whether its runner is dead, too, may be known in a moment.
    fn end(&mut self, now: u64, number: usize) {
        if let Some(client) = self.client_mut(number) {
            client.channel = None;
            client.ended.get_or_insert(now);
            if client.member.is_none() {
                self.drop_client(now, number, Departure::Silent);
            }
        }
    }

    fn judge(&mut self, now: u64, number: usize) {
        let Some(client) = self.client(number) else { return };
        if client.runner_is_dead() {
            self.drop_client(now, number, Departure::RunnerDied);
        } else if client.verdict_at().is_some_and(|at| at <= now) {
            self.drop_client(now, number, Departure::Silent);
        }
    }

    fn drop_client(&mut self, now: u64, number: usize, departure: Departure) {
        let Some(client) = self.clients.get_mut(number).and_then(Option::take) else { return };
        if let Some(member) = client.member {
            self.core.detach(now, member, departure);
            if let Some(owner) = self.owners.get_mut(member) {
                *owner = None;
            }
        }
    }

    /// Passes on what the core found.
    pub(super) fn tell(&mut self) {
        while let Some((member, notice)) = self.core.next_notice() {
            let Some(record) = self.words_for(member, notice) else { continue };
            let Some(client) = self.owner(member) else { continue };
            if !client.say(&record)
                && let Some(Some(number)) = self.owners.get(member).copied()
            {
                // It does not read. It would miss this: let it come back and learn everything anew.
                self.end(monotonic_ms(), number);
            }
        }
    }

    fn words_for(&self, member: MemberId, notice: Notice) -> Option<ToMember> {
        Some(match notice {
            Notice::LinkUp(link) => ToMember::LinkUp { link },
            Notice::LinkDown(link) => ToMember::LinkDown { link },
            Notice::PeerUp => ToMember::PeerUp,
            Notice::PeerDown => ToMember::PeerDown,
            Notice::PeerState => {
                let (incarnation, version, bye, body) = self.core.peer_state(member)?;
                let state = String::from_utf8_lossy(body).into_owned();
                ToMember::PeerState { incarnation, version: version.into(), bye, state }
            }
            Notice::ByeDone => ToMember::ByeDone,
            Notice::PeerGone(evidence) => ToMember::PeerGone { evidence: evidence.as_str().to_owned() },
        })
    }

    /// Those who are gone are judged when it is time.
    pub(super) fn judge_all(&mut self, now: u64) {
        for number in 0..self.clients.len() {
            if self.client(number).is_some_and(Client::is_gone) {
                self.judge(now, number);
            }
        }
    }
}
