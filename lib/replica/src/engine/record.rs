//! What does the front ask for: may a change go on, record it, answer when the secondary has it. See [`super::pairing`] for the rules.

use super::core::{Core, Reply};
use super::spec::Synchronous;
use super::window::Whose;
use crate::activity::Touch;
use crate::mutation;
use crate::op::Op;
use crate::recorder::{Admission, Position, Recorder, Round};
use crate::stream::frame;
use crate::stream::outlet::Source;
use std::cell::RefCell;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

/// The ring as the outlet sees it.
pub struct Frames<'a>(pub &'a Core);

impl Source for Frames<'_> {
    fn read(&self, from: u64, max: usize, out: &mut Vec<u8>) {
        let flow = self.0.flow();
        // Without a link, or after a restart of the ring, what the outlet asks for is not there.
        if flow.link.is_none() || flow.ring.read(from, max, out).is_err() {
            out.clear();
        }
    }
}

thread_local! {
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Recorder for Core {
    fn enter(&self, _bytes: usize) -> Admission {
        let Some(round) = self.gate.enter() else {
            if self.abandoned.load(SeqCst) {
                return Admission::Refuse;
            }
            self.parked.store(true, SeqCst);
            return Admission::Park;
        };
        if !self.lease.holds() {
            self.gate.leave(round);
            if self.abandoned.load(SeqCst) {
                return Admission::Refuse;
            }
            self.parked.store(true, SeqCst);
            return Admission::Park;
        }
        if self.used.load(SeqCst) >= self.limit.load(SeqCst) {
            self.parked.store(true, SeqCst);
            if self.used.load(SeqCst) >= self.limit.load(SeqCst) {
                self.gate.leave(round);
                return Admission::Park;
            }
        }
        Admission::Go(round)
    }

    fn leave(&self, round: Round) {
        self.gate.leave(round);
    }

    fn about_to(&self, touch: &Touch<'_>) -> std::io::Result<()> {
        self.activity.about_to(touch).or_else(|e| self.activity_failed(&e))
    }

    fn record(&self, op: &Op, payload: &[u8]) -> Position {
        self.activity.applied(op);
        let urgent = matches!(op, Op::Sync { .. } | Op::SyncDir { .. });
        let (n, sends, resync) = TEXT.with_borrow_mut(|text| {
            let encoded = frame::op_text(op, text);
            let mut flow = self.flow();
            flow.changes.record(op, payload.len());
            let n = self.append(&mut flow, Whose::Application, text, payload, encoded.is_ok());
            if encoded.is_err() && flow.appending {
                self.break_stream(&mut flow, n, "an operation's paths are too long for the stream");
            }
            if urgent && flow.paired {
                flow.latency.begin(n);
            }
            (n, flow.link.is_some(), flow.resync.clone())
        });
        // Still under the front's locks, as the walker demands, but not under ours: it emits while it holds its own.
        if let Some(resync) = resync {
            resync.note_live(op);
        }
        if sends {
            self.live_bytes.fetch_add(payload.len() as u64, SeqCst);
            if urgent || self.every_change_waits() {
                self.push();
            } else {
                self.outlet.hint();
            }
        }
        n
    }

    fn when_acknowledged(&self, position: Position, reply: Reply) {
        {
            let mut flow = self.flow();
            if flow.paired && flow.done < position && !mutation::answers_early(flow.link.is_some()) {
                if self.abandoned.load(SeqCst) {
                    // Dropped unanswered: the application is told that its change may be lost.
                    return;
                }
                if flow.waiting.is_empty() && flow.stalled.is_none() {
                    flow.stalled = Some(Instant::now());
                }
                flow.waiting.entry(position).or_default().push(reply);
                return;
            }
        }
        self.answer([(position, reply)]);
    }

    fn asked(&self) {
        self.wakeful.pass();
    }

    fn every_change_waits(&self) -> bool {
        self.spec.synchronous == Synchronous::Write
    }
}
