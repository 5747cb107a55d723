//! Whose acknowledgement is needed: how service becomes paired, how it freezes when the stream is lost, and how it ends.
//!
//! # Why nothing acknowledged is lost, and nothing unowned is acknowledged
//!
//! *Paired service.* An answer to a barrier at position p leaves only through [`Core::acknowledged`] (the secondary said so) or after
//! [`Core::exclude`] made an epoch durable that the secondary does not have. Both are decided under the lock of [`Flow`], where `paired` lives.
//! The loss of the stream closes the gate at once: requests that come later are parked; those already inside are local work
//! which is recorded in the ring, and their barriers wait. A process that is killed leaves the ring, the slots of the requests, and
//! the durable standing `paired`, from which the next process starts frozen.
//!
//! *Order at an exclusion*: gate closed and empty → connection shut (the secondary can acknowledge nothing more) → epoch minted and
//! `alone` durable → `paired` cleared → barriers answered → gate open. Killed before the mint: the next process is frozen as before. Killed after
//! it: the next process reads `alone` and serves; requests not yet answered are replayed from their slots.
//!
//! *Order at the end of a resynchronisation* ([`Core::pair`]): `paired` durable → end marker into the ring and `paired` set in one step under the lock.
//! From then on barriers wait, because the secondary may adopt the lineage from that moment. Killed (or stream lost) before the marker was in
//! the ring: nobody else has this epoch, so the standing goes back to `alone`. Killed after it: the marker is in the ring and
//! is sent again to the secondary that resumes; a secondary that lost its place and says that it is still inconsistent never adopted, which
//! also lets us go back ([`Core::unpair`]).

use super::core::{Core, Flow, random};
use super::report::{Peer, Report, Role};
use super::spec::Failure;
use super::window::Whose;
use crate::mutation;
use crate::op::Op;
use crate::policy::Policy;
use crate::recorder::Position;
use crate::stream::frame;
use crate::stream::message::{Place, StreamId};
use lineage::{EpochId, Standing};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

impl Core {
    /// The end of a resynchronisation, called under all namespace locks. See the module's text for the order. False: the connection is gone. An
    /// error: it cannot be made durable, and nothing was done.
    pub fn pair(&self, link: u64) -> Result<bool, Failure> {
        if self.flow().link != Some(link) {
            return Ok(false);
        }
        self.remember(|r| r.standing = Standing::Paired)?;
        let head = self.remembered().lineage.head();
        let id = self.flow().changes.covered().id;
        // What this node may lose in a crash is on record for a peer that has this epoch, before there is one.
        if let Err(e) = self.activity.pair(id, head)
            && let Err(e) = self.activity_failed(&e)
        {
            self.note(e);
        }
        let lineage = serde_json::to_vec(&self.remembered().lineage).unwrap_or_default();
        let mut text = Vec::new();
        let encoded = frame::op_text(&Op::ResyncEnd, &mut text).is_ok();
        let mut flow = self.flow();
        if flow.link == Some(link) && encoded {
            let n = self.append(&mut flow, Whose::Walker, &text, &lineage, true);
            if flow.link == Some(link) {
                flow.paired = true;
                flow.end = Some(n);
                flow.resync = None;
                self.admit(&flow);
                drop(flow);
                self.push();
                return Ok(true);
            }
        }
        drop(flow);
        if let Err(e) = self.remember(|r| r.standing = Standing::Alone) {
            self.note(e);
        }
        Ok(false)
    }

    /// The secondary proved that it never adopted our epoch: serve alone again.
    pub fn unpair(&self) -> Result<(), Failure> {
        self.remember(|r| r.standing = Standing::Alone)?;
        self.serve_alone(None)
    }

    /// What the secondary acknowledged.
    pub fn acknowledged(&self, link: u64, done: Position, settled: Position) {
        let mut replies = Vec::new();
        let mut in_sync = false;
        {
            let mut flow = self.flow();
            if flow.link != Some(link) {
                return;
            }
            let last = flow.ring.position();
            let (done, settled) = (done.min(last), settled.min(last));
            let progress = done > flow.done || settled > flow.ring.settled();
            flow.done = flow.done.max(done);
            flow.latency.acknowledged(done);
            if let Err(e) = flow.ring.settle(settled) {
                self.note(e);
            }
            flow.window.settled(settled);
            self.admit(&flow);
            let done = flow.done;
            while let Some(entry) = flow.waiting.first_entry() {
                if *entry.key() > done {
                    break;
                }
                let position = *entry.key();
                replies.extend(entry.remove().into_iter().map(|reply| (position, reply)));
            }
            if progress {
                flow.stalled = (!flow.waiting.is_empty() || flow.ring.used() > 0).then(Instant::now);
            }
            if flow.end.is_some_and(|end| end <= done) {
                flow.end = None;
                flow.peer = Peer::InSync;
                let head = self.remembered().lineage.head();
                flow.changes.end_comparison(head);
                flow.checkpoint_due = true;
                flow.repair = false;
                in_sync = true;
            }
        }
        self.answer(replies);
        if in_sync && let Some(thread) = self.checkpointer.get() {
            thread.unpark();
        }
        self.changed.notify_all();
        if self.used.load(SeqCst) < self.limit.load(SeqCst) / 2 && self.parked.load(SeqCst) {
            self.resume_parked();
        }
        if in_sync {
            self.set_policy(&Policy::Default);
            self.publish();
        }
    }

    /// A connection is gone. Freezes in paired service.
    pub fn lost(&self, link: u64, reason: &str, left: bool) {
        let mut early = BTreeMap::new();
        let resync = {
            let mut flow = self.flow();
            // `break_stream` and `exclude` clear the link themselves, and then it is still for us to tell. Another link, or
            // another role, has nothing to do with this connection any more.
            if flow.role != Role::Primary || flow.link.is_some_and(|l| l != link) {
                return;
            }
            flow.link = None;
            flow.checkpoint = None;
            flow.stalled = None;
            flow.latency.forget();
            if flow.paired {
                if mutation::ignores_loss() {
                    early = std::mem::take(&mut flow.waiting);
                } else {
                    self.gate.close();
                }
                flow.peer = if left { Peer::Left } else { Peer::Lost };
            } else {
                flow.peer = if left { Peer::Left } else { Peer::Absent };
                self.forget_frames(&mut flow);
            }
            let resync = flow.resync.take();
            self.admit(&flow);
            resync
        };
        self.answer(early.into_iter().flat_map(|(n, replies): (_, Vec<_>)| replies.into_iter().map(move |r| (n, r))));
        if let Some(resync) = resync {
            resync.cancel();
        }
        self.changed.notify_all();
        self.tell(&Report::StreamLost { reason: reason.to_owned() });
        self.publish();
        self.resume_parked();
    }

    /// Nobody will continue from the ring: begin another stream. Not in paired service.
    pub fn forget_frames(&self, flow: &mut Flow) {
        flow.appending = false;
        let position = flow.ring.position();
        match random() {
            Ok(id) => {
                if let Err(e) = flow.ring.restart(StreamId(id), position, None) {
                    self.note(e);
                }
            }
            Err(e) => self.note(e.reason),
        }
        flow.done = position;
        flow.stalled = None;
        self.emptied(flow);
    }

    /// A secondary continues from the ring. None: it cannot any more.
    pub fn resume(&self, link: u64, place: Place, standing: Standing) -> Option<u64> {
        let mut flow = self.flow();
        if flow.role != Role::Primary || !flow.paired {
            return None;
        }
        let offset = flow.ring.offset_after(place.stream, place.position)?;
        flow.link = Some(link);
        if standing == Standing::Inconsistent && flow.end.is_none() {
            // The end marker is in the ring, this process just does not know where: at the last operation at the latest.
            flow.end = Some(flow.ring.position());
        }
        flow.peer = if flow.end.is_some() { Peer::Syncing } else { Peer::InSync };
        flow.stalled = (flow.ring.used() > 0).then(Instant::now);
        Some(offset)
    }

    /// Makes an epoch that the peer does not have, durably, and goes on alone. See the module's text for the order.
    pub fn exclude(&self) -> Result<(), Failure> {
        self.gate.close_and_drain();
        self.outlet.detach();
        let old = {
            let mut flow = self.flow();
            flow.link = None;
            flow.ring.position()
        };
        let (id, stream) = (EpochId(random()?), StreamId(random()?));
        self.remember(|r| {
            r.lineage.mint(id, old);
            r.standing = Standing::Alone;
            r.position = old;
            r.unshared = true;
            r.covered_by = None;
        })?;
        self.serve_alone(Some(stream))
    }

    fn serve_alone(&self, stream: Option<StreamId>) -> Result<(), Failure> {
        let stream = stream.map_or_else(|| random().map(StreamId), Ok)?;
        let waiting = {
            let mut flow = self.flow();
            flow.paired = false;
            flow.end = None;
            flow.appending = false;
            flow.checkpoint = None;
            flow.stalled = None;
            flow.peer = Peer::Absent;
            let position = flow.ring.position();
            flow.ring.restart(stream, position, None).map_err(|e| Failure::new(e, "restart the module"))?;
            flow.done = position;
            self.emptied(&mut flow);
            std::mem::take(&mut flow.waiting)
        };
        self.answer(waiting.into_iter().flat_map(|(n, replies)| replies.into_iter().map(move |r| (n, r))));
        self.changed.notify_all();
        self.open_gate();
        self.publish();
        Ok(())
    }
}
