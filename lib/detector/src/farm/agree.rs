//! Which view comes next: who proposes it, who accepts it, when is it in use?

use super::message::{Part, Record, ViewId};
use super::view::{Assembly, Member, View, bit};
use super::{Farm, Notice, Output, Wrong};
use std::cmp::Reverse;

/// A proposal of somebody else is given this many pulses before one of our own takes its place, and a view as many to reach its members.
const PATIENCE_PULSES: u64 = 5;

/// Whose view counts more: of more members, then the younger one.
pub(super) type Rank = (u32, ViewId);

pub(super) fn rank(record: &Record) -> Rank {
    (record.members.count_ones(), record.view)
}

impl Farm {
    pub(super) fn own_rank(&self) -> Rank {
        self.view.as_ref().map_or((0, ViewId::default()), |v| (v.mask().count_ones(), v.id()))
    }

    /// The others with which a view can be shared: they hear us, we hear them, the configuration is the same.
    fn partners(&self) -> impl Iterator<Item = (u8, &Record)> {
        self.others()
            .filter(|(_, p)| p.mutual)
            .filter_map(|(n, p)| Some((n, p.record.as_ref()?)))
            .filter(|(_, r)| r.configuration == self.digest && !r.gone)
    }

    /// Who proposes.
    fn coordinator(&self) -> u8 {
        let best = self.partners().map(|(n, r)| (rank(r), Reverse(n))).max();
        match best {
            Some((rank, Reverse(node))) if (rank, Reverse(node)) > (self.own_rank(), Reverse(self.config.me)) => node,
            _ => self.config.me,
        }
    }

    pub(super) fn part(&mut self, part: Part) {
        let proposer = part.proposer;
        let known = self.peer(proposer).and_then(super::Peer::incarnation) == Some(part.incarnation);
        let Some(slot) = self.assembly.get_mut(usize::from(proposer)).filter(|_| known) else { return };
        let newer =
            slot.as_ref().is_none_or(|a| a.incarnation != part.incarnation || a.view.generation < part.view.generation);
        if newer {
            *slot = Some(Assembly::new(&part));
        }
        let Some(assembly) = slot.as_mut().filter(|a| a.view == part.view && a.proposer == proposer) else { return };
        if let Some(view) = assembly.add(part, self.config.groups.len())
            && let Some(offer) = self.offers.get_mut(usize::from(proposer))
        {
            *offer = Some(view);
        }
    }

    pub(super) fn agree(&mut self) {
        if self.gone {
            return;
        }
        self.accept();
        self.adopt();
        if self.coordinator() == self.config.me {
            self.propose();
        }
    }

    /// Takes the best offer that may be taken.
    fn accept(&mut self) {
        let coordinator = self.coordinator();
        let Some(offer) = self.offers.get(usize::from(coordinator)).and_then(Option::as_ref) else { return };
        let newest = self.accepted.as_ref().map(|(v, by, _)| (v.generation(), *by));
        let used = self.view.as_ref().map_or(0, View::generation);
        let lawful = offer.contains(self.config.me, self.incarnation)
            && offer.generation() > used
            && newest.is_none_or(|newest| (offer.generation(), coordinator) > newest);
        // The coordinator may not hear for a moment whom we hear: such a one still serves, and would not be told.
        let leaves_out = self.partners().any(|(n, r)| {
            r.serving
                && !offer.contains(n, r.incarnation)
                && self.view.as_ref().is_some_and(|v| v.contains(n, r.incarnation))
        });
        if lawful && !leaves_out {
            self.accepted = Some((offer.clone(), coordinator, self.now));
        }
    }

    /// Uses the accepted view when everybody accepted it, or somebody knows that.
    fn adopt(&mut self) {
        let Some((view, by, _)) = &self.accepted else { return };
        let id = view.id();
        let record = |m: &Member| {
            self.peer(m.node).filter(|p| p.alive)?.record.as_ref().filter(|r| r.incarnation == m.incarnation)
        };
        let mut others = view.members().iter().filter(|m| m.node != self.config.me);
        let known = others.clone().filter_map(record).any(|r| r.view == id);
        let all = *by == self.config.me
            && (self.makes(Wrong::CommitsAlone)
                || others.all(|m| record(m).is_some_and(|r| r.accepted == id || r.view == id)));
        if (known || all)
            && let Some((view, ..)) = self.accepted.take()
        {
            self.commit(view);
        }
    }

    fn propose(&mut self) {
        let me = self.config.me;
        if let Some((_, by, since)) = &self.accepted
            && *by != me
            && self.now < since + PATIENCE_PULSES * self.config.pulse_ms
            && self.peer(*by).is_some_and(|p| p.mutual)
        {
            return;
        }
        if self.view.is_none() {
            let everybody = self.partners().count() + 1 == self.config.nodes.len();
            let listened = self.now >= self.viewless_since.saturating_add(self.config.listen_ms());
            if !everybody && !listened && !self.makes(Wrong::ServesAtOnce) {
                return;
            }
        }
        let members = self.candidates();
        let ours = self.accepted.as_ref().is_some_and(|(_, by, _)| *by == me);
        if ours && self.view.as_ref().is_some_and(|v| v.members() == members) && self.has_arrived() {
            // What called for another view has passed.
            self.accepted = None;
        }
        let pending = self.accepted.as_ref().filter(|(_, by, _)| *by == me).map(|(v, ..)| v);
        if let Some(latest) = pending.or(self.view.as_ref())
            && latest.members() == members
            && (pending.is_some_and(|p| !self.is_outbid(p)) || pending.is_none() && self.has_arrived())
        {
            return;
        }
        let base = self.view.as_ref();
        let foreign = self
            .partners()
            .filter(|(n, r)| !r.view.is_none() && !base.is_some_and(|b| b.contains(*n, r.incarnation)))
            .fold(0, |mask, (n, _)| mask | bit(n));
        let seen = self.partners().map(|(_, r)| r.view.generation.max(r.accepted.generation)).max().unwrap_or(0);
        let own = self.accepted.as_ref().map(|(v, ..)| v.generation()).max(base.map(View::generation)).unwrap_or(0);
        let powers: Vec<Vec<u32>> = self.config.groups.iter().map(|g| g.powers.clone()).collect();
        self.proposed = seen.max(own).max(self.proposed).saturating_add(1);
        let view = View::next(base, self.proposed, members, &powers, foreign);
        self.accepted = Some((view, me, self.now));
        self.fresh_proposal = true;
        self.adopt();
    }

    /// Somebody agreed to another proposal, as young or younger, of a node that is not the coordinator any more, and will not accept this one.
    fn is_outbid(&self, proposal: &View) -> bool {
        let rivals = |id: ViewId| id != proposal.id() && id.generation >= proposal.generation();
        self.partners().any(|(n, r)| proposal.contains(n, r.incarnation) && (rivals(r.accepted) || rivals(r.view)))
    }

    /// Whether the present view had the time to reach its members, or has reached them.
    fn has_arrived(&self) -> bool {
        let Some(view) = &self.view else { return true };
        self.now < self.committed_at + PATIENCE_PULSES * self.config.pulse_ms
            || self.partners().all(|(n, r)| !view.contains(n, r.incarnation) || r.view == view.id())
    }

    /// Members of the view that should be.
    fn candidates(&self) -> Vec<Member> {
        let me = Member { node: self.config.me, incarnation: self.incarnation, open: self.open };
        let timeout = self.long_timeout();
        let mut members: Vec<Member> = self
            .partners()
            .filter(|(n, r)| {
                let is_member = self.view.as_ref().is_some_and(|v| v.contains(*n, r.incarnation));
                is_member || !self.peer(*n).is_some_and(|p| p.flaps(self.now, timeout))
            })
            .map(|(n, r)| Member { node: n, incarnation: r.incarnation, open: r.open })
            .chain([me])
            .collect();
        members.sort_by_key(|m| m.node);
        members
    }

    /// Who is kept out for flapping.
    pub(super) fn held(&self) -> u32 {
        let timeout = self.long_timeout();
        self.partners()
            .filter(|(n, r)| !self.view.as_ref().is_some_and(|v| v.contains(*n, r.incarnation)))
            .filter(|(n, _)| self.peer(*n).is_some_and(|p| p.flaps(self.now, timeout)))
            .fold(0, |mask, (n, _)| mask | bit(n))
    }

    fn commit(&mut self, view: View) {
        let former = self.view.take();
        self.kernel.begin(&view, former.as_ref(), self.config.me, |node, incarnation| {
            // Who says goodbye has closed before, but what it served is as lost as with a death.
            !view.contains(node, incarnation)
        });
        self.begin_to_serve(&view, former.as_ref());
        let now = self.now;
        for member in view.members() {
            if let Some(peer) = self.peers.get_mut(usize::from(member.node)) {
                let agreed = peer.record.as_ref().is_some_and(|r| r.accepted == view.id() || r.view == view.id());
                if agreed {
                    peer.acknowledge();
                }
                peer.strict_since = Some(now);
            }
        }
        self.committed_at = now;
        self.outputs.push(Output::View(view.clone()));
        self.view = Some(view);
    }

    /// The view went on without us: nothing of it is ours any more.
    pub(super) fn drop_view(&mut self, by: u8) {
        self.view = None;
        self.accepted = None;
        self.viewless_since = self.now;
        self.kernel.drop_all();
        self.outputs.push(Output::Notice(Notice::Yields(by, super::Reason::LeftOut)));
    }
}
