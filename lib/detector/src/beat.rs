//! What do the heartbeats of all modules look like inside one datagram? Bytes to records and back, without IO.
//!
//! A body is a row of records: kind u8, length u16, payload; all numbers big endian. A receiver skips kinds that it does not
//! know, and ignores what follows the known part of a payload: versions may differ between nodes while they are upgraded.
//!
//! - kind 1, beats: length of one beat u8, then beats: module u64, incarnation u64, version u32, flags u8 (1 alive, 2 bye,
//!   4 gone), held incarnation u32 (its low half), held version u32;
//! - kind 2, a full state: module u64, incarnation u64, version u32, flags u8 (2 bye), then the state;
//! - kind 3, a question, without payload: answer at once with beats.

/// Bytes of one beat in this version.
pub const BEAT_LENGTH: usize = 29;
/// Bytes around the beats of one datagram: kind, length, length of a beat.
pub const BEATS_HEAD: usize = 4;
/// Bytes of a state record without the state itself.
pub const STATE_HEAD: usize = 3 + 21;
/// Bytes of a question.
pub const QUESTION_LENGTH: usize = 3;

const BEATS: u8 = 1;
const STATE: u8 = 2;
const QUESTION: u8 = 3;

const ALIVE: u8 = 1;
const BYE: u8 = 2;
const GONE: u8 = 4;

/// Which state of the other side somebody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The low half of the incarnation.
    pub incarnation: u32,
    /// 0: none. States are counted from 1.
    pub version: u32,
}

impl Held {
    /// The state `version` of `incarnation`.
    pub fn of(incarnation: u64, version: u32) -> Self {
        Self { incarnation: incarnation as u32, version }
    }
}

/// One module, in few bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The module's tag.
    pub module: u64,
    /// Random, new with each life of the module's heartbeat.
    pub incarnation: u64,
    /// Of the module's state; grows with each change within an incarnation.
    pub version: u32,
    /// The module's heartbeat runs and has something to say. Without it the beat is only an acknowledgement.
    pub alive: bool,
    /// It has said goodbye.
    pub bye: bool,
    /// Its runner has died without a goodbye.
    pub gone: bool,
    /// What the sender holds of the receiver's module of the same tag.
    pub held: Held,
}

/// A module's state in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State<'a> {
    pub module: u64,
    pub incarnation: u64,
    pub version: u32,
    pub bye: bool,
    /// Opaque here.
    pub body: &'a [u8],
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Beats(Beats<'a>),
    State(State<'a>),
    Question,
}

/// The beats of a record, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beats<'a> {
    rest: &'a [u8],
    length: usize,
}

impl Iterator for Beats<'_> {
    type Item = Beat;

    fn next(&mut self) -> Option<Beat> {
        let (one, rest) = self.rest.split_at_checked(self.length)?;
        self.rest = rest;
        let mut cursor = Cursor(one);
        let (module, incarnation, version) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
        let flags = cursor.u8()?;
        let held = Held { incarnation: cursor.u32()?, version: cursor.u32()? };
        let flag = |bit: u8| flags & bit != 0;
        Some(Beat { module, incarnation, version, alive: flag(ALIVE), bye: flag(BYE), gone: flag(GONE), held })
    }
}

/// The records of a body; ends at the first one that is malformed.
#[derive(Clone, Debug)]
pub struct Records<'a>(Cursor<'a>);

/// Reads a body.
pub fn records(body: &[u8]) -> Records<'_> {
    Records(Cursor(body))
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            let kind = self.0.u8()?;
            let length = usize::from(self.0.u16()?);
            let mut payload = Cursor(self.0.take(length)?);
            match kind {
                BEATS => {
                    let length = usize::from(payload.u8()?);
                    return (length >= BEAT_LENGTH).then_some(Record::Beats(Beats { rest: payload.0, length }));
                }
                STATE => {
                    let (module, incarnation, version) = (payload.u64()?, payload.u64()?, payload.u32()?);
                    let bye = payload.u8()? & BYE != 0;
                    return Some(Record::State(State { module, incarnation, version, bye, body: payload.0 }));
                }
                QUESTION => return Some(Record::Question),
                _ => {}
            }
        }
    }
}

/// Appends a question.
pub fn put_question(body: &mut Vec<u8>) {
    body.extend_from_slice(&[QUESTION, 0, 0]);
}

/// Appends a state. One longer than a record can be is left out; the caller has checked the room before.
pub fn put_state(state: &State, body: &mut Vec<u8>) {
    let Ok(length) = u16::try_from(STATE_HEAD - 3 + state.body.len()) else { return };
    body.push(STATE);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(&state.module.to_be_bytes());
    body.extend_from_slice(&state.incarnation.to_be_bytes());
    body.extend_from_slice(&state.version.to_be_bytes());
    body.push(if state.bye { BYE } else { 0 });
    body.extend_from_slice(state.body);
}

/// Collects beats into one record at the end of a body.
pub struct BeatWriter<'a> {
    body: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> BeatWriter<'a> {
    /// Begins the record.
    pub fn new(body: &'a mut Vec<u8>) -> Self {
        let start = body.len();
        body.extend_from_slice(&[BEATS, 0, 0, BEAT_LENGTH as u8]);
        Self { body, start }
    }

    /// Whether another beat leaves the body at `limit` bytes or less.
    pub fn has_room(&self, limit: usize) -> bool {
        self.body.len() + BEAT_LENGTH <= limit && u16::try_from(self.body.len() - self.start + BEAT_LENGTH - 3).is_ok()
    }

    pub fn put(&mut self, beat: &Beat) {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        self.body.extend_from_slice(&beat.module.to_be_bytes());
        self.body.extend_from_slice(&beat.incarnation.to_be_bytes());
        self.body.extend_from_slice(&beat.version.to_be_bytes());
        self.body.push(flag(beat.alive, ALIVE) | flag(beat.bye, BYE) | flag(beat.gone, GONE));
        self.body.extend_from_slice(&beat.held.incarnation.to_be_bytes());
        self.body.extend_from_slice(&beat.held.version.to_be_bytes());
    }

    /// Ends the record; one without beats is taken back.
    pub fn finish(self) {
        let length = self.body.len() - self.start - 3;
        if length == 1 {
            self.body.truncate(self.start);
        } else if let (Ok(length), Some(place)) =
            (u16::try_from(length), self.body.get_mut(self.start + 1..self.start + 3))
        {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

#[derive(Clone, Debug)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat() -> impl Strategy<Value = Beat> {
        (any::<(u64, u64, u32)>(), any::<[bool; 3]>(), any::<(u32, u32)>()).prop_map(|(n, [alive, bye, gone], held)| {
            Beat {
                module: n.0,
                incarnation: n.1,
                version: n.2,
                alive,
                bye,
                gone,
                held: Held { incarnation: held.0, version: held.1 },
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(beats in prop::collection::vec(beat(), 0..60), state in prop::collection::vec(any::<u8>(), 0..1100), n in any::<(u64, u64, u32, bool)>(), unknown in 4..=255_u8) {
            let mut body = Vec::new();
            put_question(&mut body);
            body.extend_from_slice(&[unknown, 0, 2, 7, 7]);
            let written = State { module: n.0, incarnation: n.1, version: n.2, bye: n.3, body: &state };
            put_state(&written, &mut body);
            prop_assert_eq!(body.len(), QUESTION_LENGTH + 5 + STATE_HEAD + state.len());
            let mut writer = BeatWriter::new(&mut body);
            for beat in &beats {
                writer.put(beat);
            }
            writer.finish();
            let mut seen = records(&body);
            prop_assert_eq!(seen.next(), Some(Record::Question));
            prop_assert_eq!(seen.next(), Some(Record::State(written)));
            match seen.next() {
                Some(Record::Beats(read)) => prop_assert_eq!(read.collect::<Vec<_>>(), beats),
                other => prop_assert!(other.is_none() && beats.is_empty()),
            }
            prop_assert_eq!(seen.next(), None);
        }

        #[test]
        fn garbage_ends(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            for record in records(&bytes) {
                if let Record::Beats(beats) = record {
                    prop_assert!(beats.count() <= bytes.len() / BEAT_LENGTH);
                }
            }
        }

        #[test]
        fn longer_beats_of_a_later_version_are_read(beats in prop::collection::vec(beat(), 1..20), more in 1..40_usize) {
            let (mut plain, mut body) = (Vec::new(), Vec::new());
            let mut writer = BeatWriter::new(&mut plain);
            for beat in &beats {
                writer.put(beat);
            }
            writer.finish();
            body.extend_from_slice(&[BEATS]);
            let length = BEAT_LENGTH + more;
            body.extend_from_slice(&((1 + beats.len() * length) as u16).to_be_bytes());
            body.push(length as u8);
            for one in plain[BEATS_HEAD..].chunks(BEAT_LENGTH) {
                body.extend_from_slice(one);
                body.extend(std::iter::repeat_n(9, more));
            }
            let Some(Record::Beats(read)) = records(&body).next() else { panic!("no beats") };
            prop_assert_eq!(read.collect::<Vec<_>>(), beats);
        }
    }
}
