//! What is a view: who is in it, who serves, and the table of each group that follows from it?

use super::message::{Cursor, PART_BYTES, Part, ViewId};
use share::{Powers, Table};

/// One life of one node in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: u8,
    pub incarnation: u64,
    /// Takes a share.
    pub open: bool,
}

/// What all members agreed on. Each carries the tables, so that the next view's tables can follow from them anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    id: ViewId,
    members: Vec<Member>,
    tables: Vec<Table>,
}

impl View {
    /// The view that follows `base` (or the first one). `powers`: of each group, per node. `foreign`: bit n set when node n
    /// comes from a view other than `base`.
    pub(super) fn next(
        base: Option<&Self>,
        generation: u64,
        members: Vec<Member>,
        powers: &[Vec<u32>],
        foreign: u32,
    ) -> Self {
        let stays =
            |m: &&Member| base.is_some_and(|b| b.member(m.node).is_some_and(|was| was.incarnation == m.incarnation));
        let alive = members.iter().filter(stays).fold(0, |mask, m| mask | bit(m.node));
        let tables = powers
            .iter()
            .enumerate()
            .map(|(group, powers)| {
                let open: Powers = members
                    .iter()
                    .filter(|m| m.open)
                    .map(|m| (m.node, powers.get(usize::from(m.node)).copied().unwrap_or(0)))
                    .collect();
                let before = base.and_then(|b| b.tables.get(group)).cloned().unwrap_or_default();
                before.next(&open, alive, foreign)
            })
            .collect();
        let mut view = Self { id: ViewId { generation, hash: 0 }, members, tables };
        view.id.hash = digest(&view.encode());
        view
    }

    pub fn id(&self) -> ViewId {
        self.id
    }

    pub fn generation(&self) -> u64 {
        self.id.generation
    }

    /// Ascending by number.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn member(&self, node: u8) -> Option<&Member> {
        self.members.iter().find(|m| m.node == node)
    }

    pub fn contains(&self, node: u8, incarnation: u64) -> bool {
        self.member(node).is_some_and(|m| m.incarnation == incarnation)
    }

    /// One table a group, in the order of the configuration.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub(super) fn mask(&self) -> u32 {
        self.members.iter().fold(0, |mask, m| mask | bit(m.node))
    }

    pub(super) fn serves(&self) -> bool {
        self.members.iter().any(|m| m.open)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.id.generation.to_be_bytes().to_vec();
        out.push(self.members.len() as u8);
        for member in &self.members {
            out.push(member.node);
            out.extend_from_slice(&member.incarnation.to_be_bytes());
            out.push(u8::from(member.open));
        }
        out.push(self.tables.len() as u8);
        self.tables.iter().for_each(|table| table.encode(&mut out));
        out
    }

    /// `None`: not the bytes of a view with this many groups.
    fn decode(bytes: &[u8], groups: usize) -> Option<Self> {
        let mut c = Cursor(bytes);
        let generation = c.u64()?;
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..c.u8()? {
            let member = Member { node: c.node()?, incarnation: c.u64()?, open: c.u8()? == 1 };
            if members.last().is_some_and(|last| last.node >= member.node) {
                return None;
            }
            members.push(member);
        }
        if usize::from(c.u8()?) != groups || members.is_empty() {
            return None;
        }
        let mut tables = Vec::new();
        let mut rest = c.0;
        for _ in 0..groups {
            let table;
            (table, rest) = Table::decode(rest)?;
            tables.push(table);
        }
        let view = Self { id: ViewId { generation, hash: digest(bytes) }, members, tables };
        let open = |node| view.member(node).is_some_and(|m| m.open);
        let lawful = view.tables.iter().all(|t| (0..=u8::MAX).filter_map(|b| t.owner(b)).all(open));
        (rest.is_empty() && lawful).then_some(view)
    }

    pub(super) fn parts(&self, proposer: u8, incarnation: u64) -> Vec<Part> {
        let bytes = self.encode();
        let count = bytes.len().div_ceil(PART_BYTES) as u8;
        let part = |(index, bytes): (usize, &[u8])| Part {
            proposer,
            incarnation,
            view: self.id,
            index: index as u8,
            count,
            bytes: bytes.to_vec(),
        };
        bytes.chunks(PART_BYTES).enumerate().map(part).collect()
    }
}

/// Collects the parts of a view.
#[derive(Clone, Debug)]
pub(super) struct Assembly {
    pub proposer: u8,
    pub incarnation: u64,
    pub view: ViewId,
    parts: Vec<Option<Vec<u8>>>,
}

impl Assembly {
    pub fn new(first: &Part) -> Self {
        Self {
            proposer: first.proposer,
            incarnation: first.incarnation,
            view: first.view,
            parts: vec![None; usize::from(first.count)],
        }
    }

    /// The view, when this was the last part that lacked and all is consistent.
    pub fn add(&mut self, part: Part, groups: usize) -> Option<View> {
        let count = self.parts.len();
        let slot = self.parts.get_mut(usize::from(part.index))?;
        if usize::from(part.count) != count || slot.is_some() {
            return None;
        }
        *slot = Some(part.bytes);
        let bytes = self.parts.iter().map(|p| p.as_deref()).collect::<Option<Vec<_>>>()?.concat();
        View::decode(&bytes, groups).filter(|view| view.id == self.view)
    }
}

pub(super) fn bit(node: u8) -> u32 {
    1_u32.checked_shl(u32::from(node)).unwrap_or(0)
}

/// FNV-1a. Tells views and configurations apart that came about by accident; malice is the authentication's matter.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use share::NODES;

    fn view(groups: usize, members: u8) -> View {
        let members = (0..members).map(|node| Member { node, incarnation: 5, open: node != 1 }).collect();
        View::next(None, 3, members, &vec![vec![1; NODES]; groups], 0)
    }

    #[test]
    fn parts_in_any_order_and_twice_make_the_view() {
        for (groups, members) in [(1, 1), (4, 3), (32, 32)] {
            let view = view(groups, members);
            let mut parts = view.parts(0, 5);
            parts.reverse();
            let mut assembly = Assembly::new(&parts[0]);
            let made: Vec<View> = parts.iter().chain(&parts).filter_map(|p| assembly.add(p.clone(), groups)).collect();
            assert_eq!(made, [view]);
        }
    }

    #[test]
    fn the_largest_view_fits() {
        let mut view = view(32, 32);
        for table in &mut view.tables {
            *table = table.next(&[(0, 1)].into(), u32::MAX, u32::MAX);
        }
        assert!(view.encode().len().div_ceil(PART_BYTES) <= super::super::message::PARTS_LIMIT);
    }

    #[test]
    fn a_view_whose_tables_and_members_disagree_is_refused() {
        let mut bad = view(1, 3);
        bad.members[2].open = false;
        assert_eq!(View::decode(&bad.encode(), 1), None);
        assert_eq!(View::decode(&view(2, 3).encode(), 1), None, "another number of groups");
    }

    proptest! {
        #[test]
        fn garbage_is_no_view(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(View::decode(&bytes, 1).is_none());
        }

        #[test]
        fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), by in 1..=u8::MAX) {
            let view = view(1, 3);
            let mut parts = view.parts(0, 5);
            let at = at.index(parts[0].bytes.len());
            parts[0].bytes[at] ^= by;
            let mut assembly = Assembly::new(&parts[0]);
            prop_assert_eq!(assembly.add(parts.remove(0), 1), None);
        }
    }
}
