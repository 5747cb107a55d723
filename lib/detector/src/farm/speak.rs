//! When is what sent: own records each pulse and at once on news, records passed on, parts of a proposed view?

use super::message::{self, Record};
use super::view::{View, bit};
use super::{Farm, Output, SENT_KEPT, Wrong};

impl Farm {
    pub(super) fn speak(&mut self) {
        let record = self.describe();
        let relays = self.relays();
        let news = self.last_record.as_ref().is_none_or(|last| !last.says_the_same(&record));
        let relay_news = relays.iter().any(|n| self.peer(*n).is_some_and(|p| p.unrelayed_news));
        let pulse = self.now >= self.next_pulse;
        let proposal = std::mem::take(&mut self.fresh_proposal);
        if !(pulse || news || relay_news || proposal || self.urgent) {
            return;
        }
        if pulse {
            self.next_pulse = (self.next_pulse + self.config.pulse_ms).max(self.now + self.config.pulse_ms / 2 + 1);
        }
        self.urgent = false;
        self.sequence = self.sequence.wrapping_add(1);
        let record = Record { sequence: self.sequence, ..record };
        if self.sent.len() == SENT_KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back((self.sequence, self.now));
        let mut records = vec![record.clone()];
        for node in relays {
            if let Some(peer) = self.peers.get_mut(usize::from(node)) {
                records.extend(peer.record.clone());
                (peer.unrelayed, peer.unrelayed_news) = (false, false);
            }
        }
        self.last_record = Some(record);
        let mut datagrams = message::datagrams(&records);
        if pulse || proposal {
            datagrams.extend(self.proposal_parts());
        }
        for bytes in datagrams {
            for lan in 0..self.config.lans {
                self.outputs.push(Output::Send { lan, bytes: bytes.clone() });
            }
        }
    }

    fn describe(&self) -> Record {
        let now = self.now;
        let recent = self.config.pulse_ms * 5 / 2;
        let mask = |f: &dyn Fn(&super::Peer) -> bool| {
            self.others().filter(|(_, p)| f(p)).fold(0, |mask, (n, _)| mask | bit(n))
        };
        let view = self.view.as_ref();
        Record {
            node: self.config.me,
            incarnation: self.incarnation,
            sequence: 0,
            configuration: self.digest,
            open: self.open,
            leaving: self.leaving.is_some(),
            gone: self.gone,
            released: view.is_some() && self.kernel.has_released(),
            // Until the kernel has confirmed, what the former view gave is still served.
            serving: view.is_some_and(|v| v.serves() || !self.kernel.has_released()),
            yields: self.kernel.yields.is_some(),
            hears: mask(&|p| p.alive),
            direct: mask(&|p| p.direct_at.is_some_and(|at| now <= at + recent)),
            held: self.held(),
            view: view.map(View::id).unwrap_or_default(),
            members: view.map_or(0, View::mask),
            accepted: self.accepted.as_ref().map(|(v, ..)| v.id()).unwrap_or_default(),
            heard: self.peers.iter().map(|p| p.record.as_ref().map_or(0, |r| r.sequence as u16)).collect(),
        }
    }

    /// Whose records are passed on: there is something new, and somebody does not hear them directly.
    fn relays(&self) -> Vec<u8> {
        if self.makes(Wrong::NeverRelays) {
            return Vec::new();
        }
        let settled = 3 * self.config.pulse_ms;
        let lacks = |node: u8| {
            self.others().any(|(n, p)| {
                n != node
                    && p.alive
                    && self.now >= p.first_at.saturating_add(settled)
                    && p.record.as_ref().is_some_and(|r| r.direct & bit(node) == 0)
            })
        };
        self.others().filter(|(n, p)| p.unrelayed && lacks(*n)).map(|(n, _)| n).collect()
    }

    /// The proposed view, while members lack it: from the proposer, and from others for those who do not hear the proposer directly.
    fn proposal_parts(&self) -> Vec<Vec<u8>> {
        let Some((view, by, _)) = &self.accepted else { return Vec::new() };
        let me = self.config.me;
        let incarnation =
            if *by == me { Some(self.incarnation) } else { self.peer(*by).and_then(super::Peer::incarnation) };
        let lacks = view.members().iter().filter(|m| m.node != me && m.node != *by).any(|m| {
            self.peer(m.node).and_then(|p| p.record.as_ref()).is_some_and(|r| {
                let has = r.accepted == view.id() || r.view == view.id();
                !has && (*by == me || r.direct & bit(*by) == 0)
            })
        });
        match incarnation {
            Some(incarnation) if lacks => view.parts(*by, incarnation).iter().map(message::Part::encode).collect(),
            _ => Vec::new(),
        }
    }
}
