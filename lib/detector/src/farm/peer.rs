//! What is known about one other node: is it alive, how does it hear us, does it flap?

use super::message::Record;
use std::collections::VecDeque;

/// Replaced incarnations that are remembered, so that late datagrams of a former life change nothing.
const RETIRED_LIMIT: usize = 64;
/// A node lost this often is admitted again only after it was heard without a gap.
const FLAPPING_LOSSES: u32 = 2;

/// Another node. All times are milliseconds of the farm's own clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Former incarnations and the last sequence of each.
    retired: VecDeque<(u64, u32)>,
    /// The newest of its present incarnation.
    pub record: Option<Record>,
    /// When something new of it came, by any path; moved by own pauses.
    pub heard_at: u64,
    /// The same, never moved.
    pub came_at: u64,
    /// By how much `heard_at` was moved since.
    extended: u64,
    /// When a datagram of its own came, and when the first of this incarnation did.
    pub direct_at: Option<u64>,
    pub first_at: u64,
    pub alive: bool,
    /// We hear it, and it hears us.
    pub mutual: bool,
    pub mutual_since: u64,
    /// When our newest datagram was sent that it has heard; and the newest of which it said so while it counted us as a member.
    pub heard_of_us: Option<u64>,
    pub acknowledged: Option<u64>,
    /// Its silence does not end its say about our lease: it must have heard a datagram sent after this time.
    pub strict_since: Option<u64>,
    /// It served in the view it was in before the present one.
    pub served: bool,
    contact_at: u64,
    losses: u32,
    lost_at: u64,
    steady_since: u64,
    /// Its record changed since it was last passed on.
    pub unrelayed: bool,
    pub unrelayed_news: bool,
}

/// What a record brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing new.
    Stale,
    Same,
    /// What it says differs from before.
    News,
}

impl Peer {
    pub fn incarnation(&self) -> Option<u64> {
        self.record.as_ref().map(|r| r.incarnation)
    }

    /// A record of this node came, from itself or passed on. `timeout`: after how long a silence it would be lost.
    pub fn hear(&mut self, now: u64, record: Record, direct: bool, timeout: u64) -> Heard {
        if let Some(place) = self.retired.iter().position(|(life, _)| *life == record.incarnation) {
            // What came late from the former one may have looked like a new one: the other then falls silent.
            let newer = |(_, seen): &(u64, u32)| record.sequence.wrapping_sub(*seen).cast_signed() > 0;
            if self.alive || !self.retired.get(place).is_some_and(newer) {
                return Heard::Stale;
            }
            self.retired.remove(place);
        }
        let mut news = true;
        let mut served = false;
        if let Some(last) = &self.record {
            if last.incarnation == record.incarnation {
                // Sequences may wrap after years.
                if record.sequence.wrapping_sub(last.sequence).cast_signed() <= 0 {
                    return Heard::Stale;
                }
                news = !last.says_the_same(&record);
                served = if last.view == record.view { self.served } else { last.serving };
            } else if self.alive && (!direct || record.incarnation < last.incarnation) {
                // Somebody has not heard of the present life yet, or this is late. After a clock was set back the former life must be lost first.
                return Heard::Stale;
            } else {
                let former = (last.incarnation, last.sequence);
                self.retire(former);
            }
        }
        let first = self.record.as_ref().is_none_or(|last| last.incarnation != record.incarnation);
        if first {
            (self.first_at, self.acknowledged, self.heard_of_us, self.direct_at) = (now, None, None, None);
        }
        if first || !self.alive {
            self.contact_at = now;
        }
        if first || !self.alive || now.saturating_sub(self.came_at) > timeout / 2 {
            self.steady_since = now;
        }
        self.served = served;
        (self.heard_at, self.came_at, self.extended) = (now, now, 0);
        if direct {
            self.direct_at = Some(now);
        }
        self.alive = !record.gone;
        if record.gone {
            self.mutual = false;
        }
        self.record = Some(record);
        self.unrelayed = true;
        self.unrelayed_news |= news;
        if news { Heard::News } else { Heard::Same }
    }

    /// It counts us as a member: what it has heard of us extends our lease.
    pub fn acknowledge(&mut self) {
        self.acknowledged = self.acknowledged.max(self.heard_of_us);
        if let (Some(at), Some(since)) = (self.acknowledged, self.strict_since)
            && at > since
        {
            self.strict_since = None;
        }
    }

    /// Since when it is heard without a gap of half its timeout.
    pub fn steady_since(&self) -> u64 {
        self.steady_since
    }

    /// Since when it is heard without having been lost.
    pub fn first_contact(&self) -> u64 {
        self.contact_at
    }

    fn retire(&mut self, life: (u64, u32)) {
        if self.retired.len() == RETIRED_LIMIT {
            self.retired.pop_front();
        }
        self.retired.push_back(life);
    }

    /// This node did not run for `gap`, until `now`: silence during it means nothing, up to `timeout` in all. After a pause as long as
    /// the timeout others have lost us, and everything begins anew.
    pub fn excuse(&mut self, now: u64, gap: u64, timeout: u64) {
        if gap >= timeout {
            (self.heard_at, self.extended) = (now, 0);
        } else {
            let more = gap.min(timeout.saturating_sub(self.extended));
            self.extended += more;
            self.heard_at += more;
        }
    }

    /// Says whether it was lost or became deaf to us just now. `me`: our bit.
    pub fn judge(&mut self, now: u64, timeout: u64, me: u32) -> bool {
        if self.alive && now >= self.heard_at.saturating_add(timeout) {
            self.alive = false;
            // What it said last is no longer true; a new datagram of the same life is news.
            self.acknowledged = None;
            self.strict_since = None;
        }
        let mutual = self.alive && self.record.as_ref().is_some_and(|r| r.hears & me != 0);
        let lost = self.mutual && !mutual;
        if mutual && !self.mutual {
            self.mutual_since = now;
        }
        self.mutual = mutual;
        if lost {
            let recent = now.saturating_sub(self.lost_at) < 10 * timeout;
            self.losses = if recent { self.losses.saturating_add(1) } else { 1 };
            self.lost_at = now;
        }
        lost
    }

    /// It was lost again and again, and was not heard without a gap for `timeout` since.
    pub fn flaps(&self, now: u64, timeout: u64) -> bool {
        self.losses >= FLAPPING_LOSSES
            && now.saturating_sub(self.lost_at) < 10 * timeout
            && now < self.steady_since.max(self.mutual_since).saturating_add(timeout)
    }

    /// Until when it flaps if it stays.
    pub fn steady_at(&self, timeout: u64) -> u64 {
        self.steady_since.max(self.mutual_since).saturating_add(timeout)
    }
}

impl Record {
    /// Apart from what every datagram changes.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation
            && self.configuration == other.configuration
            && (self.open, self.leaving, self.gone, self.released, self.serving)
                == (other.open, other.leaving, other.gone, other.released, other.serving)
            && self.yields == other.yields
            && (self.hears, self.held, self.view, self.members, self.accepted)
                == (other.hears, other.held, other.view, other.members, other.accepted)
    }
}
