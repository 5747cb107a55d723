//! What does a packet, or the error that came instead of one, say about each module?

use super::{ANSWER_MS, Carrier, Evidence, MemberId, Notice, QUESTION_MS, QUESTIONS, Refused, StreamId, member_mut};
use crate::beat::{Beat, Held, Record, State, records};
use crate::carrier::member::Standing;

impl Carrier {
    /// A genuine packet came over a stream. Records of modules that are not attached are passed over.
    pub fn received(&mut self, now: u64, stream: StreamId, body: &[u8]) {
        let Some(heard) = self.streams.get_mut(stream).and_then(Option::as_mut) else { return };
        heard.refused = None;
        heard.question = None;
        for record in records(body) {
            match record {
                Record::Question => self.answer_all(now, stream),
                Record::State(state) => self.state(now, stream, &state),
                Record::Beats(beats) => beats.for_each(|beat| self.beat(now, stream, &beat)),
            }
        }
    }

    /// The host of the peer answered a packet of this stream with "nobody listens".
    pub fn unreachable(&mut self, now: u64, stream: StreamId) {
        let Some(heard) = self.streams.get_mut(stream).and_then(Option::as_mut) else { return };
        let Some(refused) = &mut heard.refused else {
            // Perhaps the peer is just being started again: it is asked.
            heard.refused = Some(Refused::default());
            heard.question = Some(now);
            return;
        };
        // Errors that answer no question, as forged ones may, say nothing.
        if !std::mem::take(&mut refused.open) {
            return;
        }
        refused.questions = refused.questions.saturating_add(1);
        if refused.questions < QUESTIONS {
            heard.question = Some(now + QUESTION_MS);
            return;
        }
        let members: Vec<MemberId> = heard.members.values().copied().collect();
        for id in members {
            self.nobody_listens(now, id);
        }
    }

    /// Every link that is up must have said so; those that were not asked yet are asked now.
    fn nobody_listens(&mut self, now: u64, id: MemberId) {
        let Some(member) = member_mut(&mut self.members, id) else { return };
        let mut all = true;
        let up = |(link, _): &(usize, _)| member.detector.is_link_up(*link);
        for (_, path) in member.paths.iter().enumerate().filter(up) {
            let Some(stream) = self.streams.get_mut(path.stream).and_then(Option::as_mut) else { continue };
            if stream.refused.is_none_or(|r| r.questions < QUESTIONS) {
                all = false;
                if stream.refused.is_none() {
                    stream.question.get_or_insert(now);
                }
            }
        }
        let life = member.peer.incarnation;
        if all && member.standing == Standing::Attached && member.news_of_end(life) {
            self.notices.push_back((id, Notice::PeerGone(Evidence::PortUnreachable)));
        }
    }

    fn find(&self, stream: StreamId, module: u64) -> Option<MemberId> {
        let id = *self.stream(stream)?.members.get(&module)?;
        self.member(id).filter(|m| m.standing == Standing::Attached).map(|_| id)
    }

    fn beat(&mut self, now: u64, stream: StreamId, beat: &Beat) {
        let Some(id) = self.find(stream, beat.module) else { return };
        let Some(member) = member_mut(&mut self.members, id) else { return };
        let Some(link) = member.link(stream) else { return };
        // What the peer holds of us.
        let runs = member.runs(now);
        if let Some(published) = &mut member.published {
            if beat.held == Held::of(member.incarnation, published.version) {
                member.acknowledged = true;
                member.resend = None;
                if published.bye && !std::mem::replace(&mut published.bye_done, true) {
                    self.notices.push_back((id, Notice::ByeDone));
                }
            } else if member.resend.is_none() && !beat.gone && runs {
                member.acknowledged = false;
                member.send_state(now);
            }
        }
        // What it says of itself.
        if member.detector.is_retired(beat.incarnation) {
            return;
        }
        if beat.gone {
            if member.news_of_end(beat.incarnation) {
                self.notices.push_back((id, Notice::PeerGone(Evidence::RunnerDead)));
            }
            return;
        }
        let held = member.peer.version > 0 && member.peer.incarnation == beat.incarnation;
        if beat.version > 0 && !(held && member.peer.version >= beat.version) {
            self.answer(now, stream, id);
        }
        // A life of which nothing is known yet counts from its first state on, which is on its way. What a former carrier
        // reported of this life is known.
        let Some(member) = member_mut(&mut self.members, id).filter(|_| beat.alive) else { return };
        let reported =
            member.detector.reported().filter(|(life, _)| *life == beat.incarnation).map(|(_, version)| version);
        if let Some(version) = held.then_some(u64::from(member.peer.version)).or(reported) {
            member.heard(now, stream);
            member.detector.packet(now, link, beat.incarnation, version, &mut self.verdicts);
            self.pass_verdicts(id);
        }
    }

    fn state(&mut self, now: u64, stream: StreamId, state: &State) {
        let Some(id) = self.find(stream, state.module) else { return };
        let Some(member) = member_mut(&mut self.members, id) else { return };
        let Some(link) = member.link(stream) else { return };
        if state.version == 0 || member.detector.is_retired(state.incarnation) {
            return;
        }
        let peer = &mut member.peer;
        if peer.incarnation != state.incarnation || state.version > peer.version {
            peer.incarnation = state.incarnation;
            peer.version = state.version;
            peer.bye = state.bye;
            peer.body.clear();
            peer.body.extend_from_slice(state.body);
        }
        let version = u64::from(peer.version);
        member.heard(now, stream);
        member.detector.packet(now, link, state.incarnation, version, &mut self.verdicts);
        self.pass_verdicts(id);
        // Acknowledged also when it was known: the sender is waiting for it.
        if let Some(path) = member_mut(&mut self.members, id).and_then(|m| m.path(stream)) {
            path.next_pulse = now;
        }
    }

    fn answer(&mut self, now: u64, stream: StreamId, id: MemberId) {
        let Some(member) = member_mut(&mut self.members, id) else { return };
        if member.answered.is_none_or(|at| now >= at + ANSWER_MS) {
            member.answered = Some(now);
            if let Some(path) = member.path(stream) {
                path.next_pulse = now;
            }
        }
    }

    fn answer_all(&mut self, now: u64, stream: StreamId) {
        let Some(asked) = self.stream(stream) else { return };
        let members: Vec<MemberId> = asked.members.values().copied().collect();
        for id in members {
            self.answer(now, stream, id);
        }
    }
}
