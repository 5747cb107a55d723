//! What is the next table, when members or their powers change?

use crate::{BUCKETS, Buckets, CHAIN_RATIO, NODES};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Power of each node that serves, by its number. Numbers from [`NODES`] on are ignored.
pub type Powers = BTreeMap<u8, u32>;

const NOBODY: u8 = u8::MAX;

/// Who owns each bucket of one group, and who may still hold connections in it from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    owner: [u8; BUCKETS],
    /// Bit n: node n owned the bucket earlier, gave it away in good order and lives: it may still serve old connections.
    former: [u32; BUCKETS],
}

impl Default for Table {
    fn default() -> Self {
        Self { owner: [NOBODY; BUCKETS], former: [0; BUCKETS] }
    }
}

/// How many buckets each serving node gets: (node, fewest, one more possible, remainder of the division).
struct Quota {
    node: u8,
    floor: usize,
    remainder: u64,
}

fn quotas(powers: &Powers) -> Vec<Quota> {
    let present = || powers.iter().filter(|(node, _)| usize::from(**node) < NODES);
    let strongest = present().map(|(_, power)| u64::from(*power)).max().unwrap_or(0);
    let counted = || present().filter(|(_, power)| u64::from(**power) * CHAIN_RATIO > strongest);
    let total: u64 = counted().map(|(_, power)| u64::from(*power)).sum();
    if total == 0 {
        return Vec::new();
    }
    counted()
        .map(|(node, power)| {
            let exact = u64::from(*power) * BUCKETS as u64;
            Quota { node: *node, floor: (exact / total) as usize, remainder: exact % total }
        })
        .collect()
}

impl Table {
    /// The table of the next view.
    ///
    /// `powers`: of the nodes that serve in it. `alive`: bit n set for members of the next view that still are in the life in which
    /// they owned what this table says (serving or not): only they can still hold old connections. `foreign`: members that come from another view, with a
    /// table of their own: they may hold connections in every bucket.
    #[must_use]
    pub fn next(&self, powers: &Powers, alive: u32, foreign: u32) -> Self {
        let quotas = quotas(powers);
        let mut wanted = [0_usize; NODES];
        let mut spare = BUCKETS;
        for q in &quotas {
            if let Some(w) = wanted.get_mut(usize::from(q.node)) {
                *w = q.floor;
            }
            spare -= q.floor.min(spare);
        }
        let mut rounded: Vec<&Quota> = quotas.iter().filter(|q| q.remainder > 0).collect();
        rounded.sort_by_key(|q| (self.count(q.node) <= q.floor, std::cmp::Reverse(q.remainder), q.node));
        for q in rounded.into_iter().take(spare) {
            if let Some(w) = wanted.get_mut(usize::from(q.node)) {
                *w += 1;
            }
        }

        let mut next = Self::default();
        for ((new, old), (former, was)) in
            next.owner.iter_mut().zip(self.owner).zip(next.former.iter_mut().zip(self.former))
        {
            *former = (was & alive) | foreign;
            if let Some(w) = wanted.get_mut(usize::from(old))
                && *w > 0
            {
                *w -= 1;
                *new = old;
            } else {
                *former |= bit(old) & alive;
            }
        }
        for (owner, former) in next.owner.iter_mut().zip(next.former.iter_mut()) {
            if *owner == NOBODY {
                // Who still has connections here gets them back, else who lacks most.
                let best =
                    wanted.iter().enumerate().filter(|(_, lacks)| **lacks > 0).max_by_key(|(node, lacks)| {
                        (bit(*node as u8) & *former != 0, **lacks, std::cmp::Reverse(*node))
                    });
                if let Some((node, _)) = best {
                    *owner = node as u8;
                    if let Some(w) = wanted.get_mut(node) {
                        *w -= 1;
                    }
                }
            }
            *former &= !bit(*owner);
        }
        next
    }

    pub fn owner(&self, bucket: u8) -> Option<u8> {
        self.owner.get(usize::from(bucket)).copied().filter(|owner| *owner != NOBODY)
    }

    /// Bit n: node n may still hold connections in this bucket, which it does not own.
    pub fn former(&self, bucket: u8) -> u32 {
        self.former.get(usize::from(bucket)).copied().unwrap_or(0)
    }

    pub fn count(&self, node: u8) -> usize {
        self.owner.iter().filter(|owner| **owner == node && node != NOBODY).count()
    }

    /// What a node owns.
    pub fn owned(&self, node: u8) -> Buckets {
        (0..=u8::MAX).filter(|bucket| self.owner(*bucket) == Some(node)).collect()
    }

    /// What a node may still hold connections in.
    pub fn draining(&self, node: u8) -> Buckets {
        (0..=u8::MAX).filter(|bucket| self.former(*bucket) & bit(node) != 0).collect()
    }

    /// What other nodes may still hold connections in.
    pub fn draining_elsewhere(&self, node: u8) -> Buckets {
        (0..=u8::MAX).filter(|bucket| self.former(*bucket) & !bit(node) != 0).collect()
    }

    /// The form of a directing node: eight groups of 32 entries of two digits, `ff` for own ones, `00` for those of nobody, otherwise
    /// the number of the owner counted from 1.
    pub fn directed(&self, node: u8) -> String {
        let mut text = String::new();
        for bucket in 0..=u8::MAX {
            if bucket > 0 && bucket % 32 == 0 {
                text.push(' ');
            }
            let entry = match self.owner(bucket) {
                Some(owner) if owner == node => 0xff,
                Some(owner) => owner + 1,
                None => 0,
            };
            let _ = write!(text, "{entry:02x}");
        }
        text
    }

    /// Appends the table in bytes: an owner a bucket (255: nobody), which buckets have former owners (32 bytes), those (4 each).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.owner);
        for chunk in self.former.chunks(8) {
            out.push(chunk.iter().fold(0, |byte, former| byte << 1 | u8::from(*former != 0)));
        }
        out.extend(self.former.iter().filter(|former| **former != 0).flat_map(|former| former.to_be_bytes()));
    }

    /// Takes a table off the front. `None`: these are not the bytes of a table.
    pub fn decode<'a>(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut table = Self::default();
        let (owner, rest) = bytes.split_at_checked(BUCKETS)?;
        if owner.iter().any(|o| *o != NOBODY && usize::from(*o) >= NODES) {
            return None;
        }
        table.owner = owner.try_into().ok()?;
        let (present, mut rest) = rest.split_at_checked(BUCKETS / 8)?;
        for (number, former) in table.former.iter_mut().enumerate() {
            if present.get(number / 8)? >> (7 - number % 8) & 1 == 1 {
                let (value, tail): (&'a [u8], _) = rest.split_at_checked(4)?;
                *former = u32::from_be_bytes(value.try_into().ok()?);
                rest = tail;
            }
        }
        Some((table, rest))
    }
}

fn bit(node: u8) -> u32 {
    1_u32.checked_shl(u32::from(node)).unwrap_or(0)
}
