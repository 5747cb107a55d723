//! What goes into the next datagram, and over which stream?

use super::member::Standing;
use super::{Carrier, MemberId, StreamId, member_mut};
use crate::beat::{BEAT_LENGTH, BEATS_HEAD, BeatWriter, QUESTION_LENGTH, STATE_HEAD, State, put_question, put_state};

impl Carrier {
    /// The next body that is due, of at most `limit` bytes, and its stream; `None` when nothing is due. Call it until then.
    pub fn transmit(&mut self, now: u64, limit: usize, body: &mut Vec<u8>) -> Option<StreamId> {
        let id = (0..self.streams.len()).find(|id| self.is_due(now, *id))?;
        body.clear();
        self.compose(now, id, limit, body);
        Some(id)
    }

    fn is_due(&self, now: u64, id: StreamId) -> bool {
        self.stream(id).is_some_and(|stream| {
            let paths = stream.members.values().filter_map(|m| self.member(*m)).flat_map(|m| &m.paths);
            stream.ready
                && (stream.question.is_some_and(|at| at <= now)
                    || paths.filter(|p| p.stream == id).any(|p| p.next_pulse <= now))
        })
    }

    fn compose(&mut self, now: u64, id: StreamId, limit: usize, body: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(id).and_then(Option::as_mut) else { return };
        if stream.question.take_if(|at| *at <= now).is_some() && QUESTION_LENGTH <= limit {
            put_question(body);
            if let Some(refused) = &mut stream.refused {
                refused.open = true;
            }
        }
        let Some(stream) = self.streams.get(id).and_then(Option::as_ref) else { return };
        let mut members = stream.members.values().copied();
        // States first, each with room for at least its own beat.
        for member in members.by_ref() {
            let Some(member) = member_mut(&mut self.members, member).filter(|m| m.standing == Standing::Attached)
            else {
                continue;
            };
            if !member.runs(now) {
                // A state is a sign of life. It is sent when the peer misses it in a later beat.
                if let Some(path) = member.path(id) {
                    path.state = false;
                }
                continue;
            }
            let (module, incarnation) = (member.module, member.incarnation);
            let Some(published) = &member.published else { continue };
            let fits = body.len() + STATE_HEAD + published.body.len() + BEATS_HEAD + BEAT_LENGTH <= limit;
            let Some(path) = member.paths.iter_mut().find(|p| p.stream == id).filter(|p| p.state) else { continue };
            if fits {
                path.state = false;
                put_state(
                    &State {
                        module,
                        incarnation,
                        version: published.version,
                        bye: published.bye,
                        body: &published.body,
                    },
                    body,
                );
            } else if body.len() <= QUESTION_LENGTH {
                // It would never fit; the peer goes on with what it has.
                path.state = false;
            }
        }
        let mut beats = BeatWriter::new(body);
        // Those that are due; then, while there is room, those that would be due soon.
        for due in [true, false] {
            for member in stream.members.values() {
                if !beats.has_room(limit) {
                    break;
                }
                put_beat(&mut self.members, *member, now, id, due, &mut beats);
            }
        }
        beats.finish();
    }
}

fn put_beat(
    members: &mut [Option<super::Member>],
    member: MemberId,
    now: u64,
    stream: StreamId,
    due: bool,
    beats: &mut BeatWriter,
) {
    let Some(member) = member_mut(members, member) else { return };
    let beat = member.beat(now);
    if let Some(path) = member.path(stream)
        && (path.next_pulse <= now) == due
        // It is in this datagram already.
        && path.next_pulse != now + path.pulse_ms
        // Its state did not fit: it comes with the next datagram, at once.
        && !path.state
    {
        path.next_pulse = now + path.pulse_ms;
        beats.put(&beat);
    }
}
