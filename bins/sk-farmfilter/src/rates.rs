//! How much does each node take at present? The own counters by the second, and what the others say of theirs. Pure.

use serde::Serialize;

/// What a node counts of a group; of all since the rules were loaded, or a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// TCP connections begun.
    #[serde(rename = "connections_s")]
    pub connections: u64,
    #[serde(rename = "accepted_packets_s")]
    pub packets: u64,
    #[serde(rename = "accepted_bytes_s")]
    pub bytes: u64,
    #[serde(rename = "dropped_packets_s")]
    pub dropped: u64,
}

/// What another node said holds for so long.
const VALID_MS: u64 = 3_500;
/// Of the datagram; a later version may append to it.
const VERSION: u8 = 1;
const LENGTH: usize = 32;

impl Traffic {
    /// The growth since `before` in so many milliseconds, by the second.
    fn rate(self, before: Self, ms: u64) -> Self {
        let rate = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1000) / ms.max(1);
        Self {
            connections: rate(self.connections, before.connections),
            packets: rate(self.packets, before.packets),
            bytes: rate(self.bytes, before.bytes),
            dropped: rate(self.dropped, before.dropped),
        }
    }
}

/// Rates of all nodes, by number of node and group.
pub struct Rates {
    me: usize,
    /// Own counters, and when they were read.
    last: Option<(u64, Vec<Traffic>)>,
    /// When a node said so, and what.
    said: Vec<Option<(u64, Vec<Traffic>)>>,
}

impl Rates {
    pub fn new(nodes: usize, me: u8) -> Self {
        Self { me: usize::from(me), last: None, said: vec![None; nodes] }
    }

    /// Own counters, of each group.
    pub fn count(&mut self, now: u64, seen: Vec<Traffic>) {
        let rates = match &self.last {
            Some((at, last)) if last.len() == seen.len() => {
                seen.iter().zip(last).map(|(seen, last)| seen.rate(*last, now.saturating_sub(*at))).collect()
            }
            _ => vec![Traffic::default(); seen.len()],
        };
        self.last = Some((now, seen));
        if let Some(own) = self.said.get_mut(self.me) {
            *own = Some((now, rates));
        }
    }

    /// Nothing is counted any more.
    pub fn stop(&mut self) {
        self.last = None;
        if let Some(own) = self.said.get_mut(self.me) {
            *own = None;
        }
    }

    /// Another node's datagram.
    pub fn hear(&mut self, now: u64, node: u8, bytes: &[u8]) {
        if let (Some(rates), Some(said)) = (decode(bytes), self.said.get_mut(usize::from(node)))
            && usize::from(node) != self.me
        {
            *said = Some((now, rates));
        }
    }

    /// What a node takes of a group; `None`: it says nothing.
    pub fn of(&self, now: u64, node: u8, group: usize) -> Option<Traffic> {
        let (at, rates) = self.said.get(usize::from(node))?.as_ref()?;
        rates.get(group).copied().filter(|_| now < at + VALID_MS)
    }

    /// The datagram that tells the others, if there is something to tell.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let (_, rates) = self.said.get(self.me)?.as_ref()?;
        let mut out = vec![VERSION, u8::try_from(rates.len()).ok()?];
        for t in rates {
            for number in [t.connections, t.packets, t.bytes, t.dropped] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Some(out)
    }
}

fn decode(bytes: &[u8]) -> Option<Vec<Traffic>> {
    let [version, count, rest @ ..] = bytes else { return None };
    if *version < VERSION {
        return None;
    }
    let groups = rest.get(..usize::from(*count) * LENGTH)?;
    let number = |part: &[u8]| part.first_chunk().map(|b| u64::from_be_bytes(*b));
    groups
        .chunks_exact(LENGTH)
        .map(|part| {
            Some(Traffic {
                connections: number(part.get(..8)?)?,
                packets: number(part.get(8..16)?)?,
                bytes: number(part.get(16..24)?)?,
                dropped: number(part.get(24..)?)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(connections: u64, bytes: u64) -> Traffic {
        Traffic { connections, bytes, ..Traffic::default() }
    }

    #[test]
    fn rates_are_the_growth_of_counters() {
        let mut rates = Rates::new(2, 0);
        assert_eq!(rates.of(0, 0, 0), None);
        rates.count(10_000, vec![taken(500, 10)]);
        assert_eq!(rates.of(10_000, 0, 0), Some(taken(0, 0)), "what was before is no rate");
        rates.count(11_000, vec![taken(620, 10)]);
        assert_eq!(rates.of(11_000, 0, 0), Some(taken(120, 0)));
        rates.count(11_500, vec![taken(650, 1010)]);
        assert_eq!(rates.of(11_500, 0, 0), Some(taken(60, 2000)));
        // The rules were loaded anew.
        rates.count(12_500, vec![taken(3, 0)]);
        assert_eq!(rates.of(12_500, 0, 0), Some(taken(0, 0)));
        rates.stop();
        assert_eq!((rates.of(12_500, 0, 0), rates.encode()), (None, None));
    }

    #[test]
    fn what_a_node_says_is_heard_by_the_others_and_forgotten_when_it_falls_silent() {
        let (mut a, mut b) = (Rates::new(2, 0), Rates::new(2, 1));
        a.count(0, vec![taken(0, 0), taken(0, 0)]);
        a.count(1000, vec![taken(7, 1 << 40), taken(9, 0)]);
        let said = a.encode().unwrap();
        b.hear(50_000, 0, &said);
        assert_eq!((b.of(50_000, 0, 0), b.of(50_000, 0, 1)), (Some(taken(7, 1 << 40)), Some(taken(9, 0))));
        assert_eq!((b.of(50_000, 0, 2), b.of(50_000, 1, 0), b.of(50_000, 9, 0)), (None, None, None));
        assert_eq!(b.of(50_000 + VALID_MS, 0, 0), None);
        // Nobody speaks for this node; a later version says more.
        b.hear(50_000, 1, &said);
        assert_eq!(b.of(50_000, 1, 0), None);
        let mut later = said;
        later[0] = 2;
        later.extend_from_slice(b"more");
        b.hear(60_000, 0, &later);
        assert!(b.of(60_000, 0, 1).is_some());
    }

    proptest! {
        #[test]
        fn garbage_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
            if let Some(rates) = decode(&bytes) {
                prop_assert_eq!(rates.len(), usize::from(bytes[1]));
            }
        }
    }
}
