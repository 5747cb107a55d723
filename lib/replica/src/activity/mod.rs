//! What may a crash of this node leave different from its peer?
//!
//! The change map lives in memory. This log says the same, more coarsely, on the disk: before a change touches the replicated
//! directory, a record that covers it is durable. After a crash the records since the last common checkpoint, and what the
//! file system itself tells by its change times (see [`tracker`]), are all that may differ; nothing else is compared.
//!
//! **Cost.** Only the first touch of an object since the last checkpoints waits for the disk; those that come meanwhile share one
//! write. A node that serves without ever having been in sync with its peer records nothing: everything will be compared.
//!
//! **A secondary** writes its records without waiting. They must survive its process, not its host: what it received is in the
//! primary's log. It makes its log durable before it serves. But where the primary's log says no more than the directory of a change, and the
//! change is on the disk of the secondary alone, only the times there tell of it. So one thing of a secondary's log counts even then: the time
//! of the last common checkpoint ([`Activity::since`]). A log that is some batches old says an older one, which is good, too.
//!
//! **Bounds.** Too many records, or a log that cannot be written: it ends, and that it ended is what is durable.

mod journal;
mod record;
mod recover;
mod tracker;

pub use record::{EXTENT, Extents, Record};
pub use recover::{Header, Recovered};
pub use tracker::{State, Touch};

use crate::change_map::{DirtySet, MAX_ENTRIES};
use crate::mutation;
use crate::op::{Kind, Op, RelPath, Time};
use crate::stream::message::StreamId;
use journal::Journal;
use lineage::EpochId;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tracker::{Tracker, earlier};

/// What the records are worth: identity of the change map, and the newest epochs of the peers that they cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    pub id: StreamId,
    pub base: Option<EpochId>,
    pub also: Option<EpochId>,
}

/// What is done with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing is recorded, and the log says "everything".
    Off,
    /// Known in memory, while the log still says "everything".
    Noted,
    /// Written, but not waited for.
    Loose,
    /// Durable before the change.
    Strict,
}

struct Inner {
    /// Of this log: whoever wrote the state directory without knowing of the log made it worthless.
    log: StreamId,
    mode: Mode,
    /// While nothing is recorded: what changed before this time is in the last common checkpoint.
    since: Time,
    /// Records are to be durable before the change.
    strict: bool,
    tracker: Tracker,
    /// Encoded records of the open batch.
    pending: Vec<u8>,
    durable: u64,
    /// Somebody has the journal.
    writing: bool,
    failed: bool,
    /// Noticed, and not durable yet.
    clock_set_back: bool,
}

/// The activity log of one module.
pub struct Activity {
    inner: Mutex<Inner>,
    written: Condvar,
    journal: Mutex<Journal>,
}

fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Time(now.tv_sec, now.tv_nsec as u32)
}

impl Inner {
    /// Nothing is covered by records any more; what changed since this time may be.
    fn forget(&mut self, since: Time) {
        // Batches go on: somebody may wait for one.
        let batch = self.tracker.batch;
        self.tracker = Tracker::new(since, self.strict, MAX_ENTRIES);
        self.tracker.batch = batch;
    }

    fn since(&self) -> Time {
        if matches!(self.mode, Mode::Off | Mode::Noted) { self.since } else { self.tracker.since() }
    }

    /// Everything may differ.
    fn end(&mut self) {
        self.mode = Mode::Off;
        self.since = Time::default();
    }

    /// Encodes what a change needs into the open batch. The batch that must be durable before it.
    fn note(&mut self, touch: &Touch<'_>) -> io::Result<u64> {
        let mut records = Vec::new();
        let needed = self.tracker.touch(touch, now(), &mut records)?;
        self.clock_set_back |= records.iter().any(|record| matches!(record, Record::Since(_)));
        if self.mode == Mode::Noted {
            if self.tracker.is_full() {
                self.end();
            }
            return Ok(0);
        }
        for record in &records {
            record.encode(&mut self.pending);
        }
        if self.tracker.is_full() && !records.is_empty() {
            Record::Everything.encode(&mut self.pending);
        }
        Ok(needed)
    }

    fn note_from_here(&mut self) {
        self.forget(earlier(now()));
        self.mode = Mode::Noted;
    }
}

impl Activity {
    /// Reads the log in this directory. `expected`: which log is to be believed; `new`: identity of another one.
    pub fn open(directory: &Path, expected: Option<StreamId>, new: StreamId) -> io::Result<(Self, Recovered)> {
        let (journal, found) = Journal::open(directory)?;
        let recovered = match (found, expected) {
            (Some(frames), Some(log)) => Recovered::read(&frames, log),
            _ => None,
        };
        let log = if recovered.is_some() { expected.unwrap_or(new) } else { new };
        let inner = Inner {
            log,
            mode: Mode::Off,
            since: recovered.as_ref().filter(|r| !r.header.everything).map(|r| r.header.since).unwrap_or_default(),
            strict: true,
            tracker: Tracker::new(earlier(now()), true, MAX_ENTRIES),
            pending: Vec::new(),
            durable: 0,
            writing: false,
            failed: false,
            clock_set_back: false,
        };
        let activity = Self { inner: Mutex::new(inner), written: Condvar::new(), journal: Mutex::new(journal) };
        Ok((activity, recovered.unwrap_or_else(|| Recovered::nothing_known(log))))
    }

    /// What changed here before this time is in the last common checkpoint, durable on both nodes; 1970: nobody knows.
    pub fn since(&self) -> Time {
        self.lock().since()
    }

    /// Which log is to be believed, once it was written.
    pub fn log(&self) -> StreamId {
        self.lock().log
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a change: what a crash may leave of it is recorded when this returns.
    pub fn about_to(&self, touch: &Touch<'_>) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.mode == Mode::Off || mutation::forgets_touch(touch) {
            return Ok(());
        }
        let needed = inner.note(touch)?;
        while inner.mode == Mode::Strict && inner.durable < needed {
            if inner.failed {
                return Err(io::Error::other("the activity log cannot be written"));
            }
            inner = if inner.writing {
                self.written.wait(inner).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.write(inner, true)?
            };
        }
        Ok(())
    }

    /// Writes the open batch.
    fn write<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, durable: bool) -> io::Result<MutexGuard<'a, Inner>> {
        let bytes = std::mem::take(&mut inner.pending);
        let batch = inner.tracker.batch;
        inner.tracker.batch += 1;
        inner.writing = true;
        // After the record that says so nothing more need be recorded.
        let full = inner.tracker.is_full();
        drop(inner);
        let outcome = self.journal.lock().unwrap_or_else(PoisonError::into_inner).append(&bytes, durable);
        let mut inner = self.lock();
        inner.writing = false;
        match outcome {
            Ok(()) => {
                inner.durable = inner.durable.max(batch);
                if full {
                    inner.end();
                }
            }
            Err(_) => inner.failed = true,
        }
        self.written.notify_all();
        outcome.map(|()| inner)
    }

    /// Waits until nobody writes, and keeps others from it.
    fn take(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        while inner.writing {
            inner = self.written.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.writing = true;
        inner
    }

    /// A secondary is about to apply this operation.
    pub fn follow(&self, op: &Op, payload: usize) -> io::Result<()> {
        let clock_set_back = {
            let mut inner = self.lock();
            if inner.mode == Mode::Off || mutation::forgets(op) {
                return Ok(());
            }
            touches_of(op, payload, &mut |touch| inner.note(touch).map(drop))?;
            std::mem::take(&mut inner.clock_set_back) && inner.mode == Mode::Loose
        };
        self.applied(op);
        if clock_set_back {
            // The one record of a secondary that nobody else has.
            let inner = self.take();
            drop(self.write(inner, true)?);
        }
        Ok(())
    }

    /// More may differ than what was changed, until the next comparison. Durable when it returns.
    pub fn add(&self, set: &DirtySet) -> io::Result<()> {
        let mut inner = self.take();
        if matches!(inner.mode, Mode::Off | Mode::Noted) {
            // It says "everything" already.
            inner.writing = false;
            self.written.notify_all();
            return Ok(());
        }
        Record::set(set).encode(&mut inner.pending);
        self.write(inner, true).map(drop)
    }

    /// What an operation made or removed.
    pub fn applied(&self, op: &Op) {
        match op {
            Op::Create { dir, ino, .. } | Op::Symlink { dir, ino, .. } => self.lock().tracker.born(*dir, *ino),
            Op::Unlink { dir, ino, .. } | Op::Rmdir { dir, ino, .. } => self.lock().tracker.gone(*dir, *ino),
            _ => {}
        }
    }

    /// Writes what [`Activity::follow`] noted.
    pub fn flush(&self) -> io::Result<()> {
        let inner = self.lock();
        if inner.pending.is_empty() || inner.writing || inner.mode != Mode::Loose {
            return Ok(());
        }
        self.write(inner, false).map(drop)
    }

    /// Ends a generation; its number, for [`Activity::retire`]. Changes that are under way must have ended before the checkpoint is made. A log
    /// that said "everything" is worth something again once the checkpoint is common.
    pub fn bump(&self) -> u64 {
        let mut inner = self.lock();
        if inner.mode == Mode::Off {
            inner.note_from_here();
        }
        inner.tracker.bump(now())
    }

    /// Everything up to this generation is durable on both nodes.
    pub fn retire(&self, generation: u64, worth: Worth) -> io::Result<()> {
        let mut inner = self.take();
        let mut records = Vec::new();
        inner.tracker.retire(generation, &mut records);
        if inner.mode == Mode::Off || worth.base.is_none() {
            inner.writing = false;
            self.written.notify_all();
            return Ok(());
        }
        let strict = inner.strict;
        inner.mode = if strict { Mode::Strict } else { Mode::Loose };
        self.snapshot(inner, worth, &records, strict)
    }

    /// The caller has the journal.
    fn snapshot(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        worth: Worth,
        records: &[Record],
        durable: bool,
    ) -> io::Result<()> {
        let header = Header {
            log: inner.log,
            id: worth.id,
            base: worth.base,
            also: worth.also,
            since: inner.tracker.since(),
            everything: inner.mode == Mode::Off,
        };
        // What is in the batch that is open is in these records.
        inner.pending.clear();
        let batch = inner.tracker.batch;
        inner.tracker.batch += 1;
        drop(inner);
        let mut bytes = header.encode();
        for record in records {
            record.encode(&mut bytes);
        }
        let outcome = self.journal.lock().unwrap_or_else(PoisonError::into_inner).snapshot(&bytes, durable);
        let mut inner = self.lock();
        inner.writing = false;
        if outcome.is_ok() {
            inner.durable = inner.durable.max(batch);
            inner.failed = false;
        } else {
            inner.failed = true;
        }
        self.written.notify_all();
        outcome
    }

    /// Begins anew: exactly this may differ. Durable when it returns. `strict`: changes from here on are durable before they are made. The time of
    /// the last common checkpoint stays.
    pub fn restart(&self, worth: Worth, set: &DirtySet, strict: bool) -> io::Result<()> {
        let mut inner = self.take();
        inner.strict = strict;
        let since = inner.since();
        inner.forget(since.min(earlier(now())));
        let useless = set.everything() || worth.base.is_none() && worth.also.is_none();
        inner.mode = match (useless, strict) {
            (true, _) => Mode::Off,
            (false, true) => Mode::Strict,
            (false, false) => Mode::Loose,
        };
        inner.since = if set.everything() { Time::default() } else { since };
        let records = if useless || set.is_empty() { Vec::new() } else { vec![Record::set(set)] };
        self.snapshot(inner, worth, &records, true)
    }

    /// Whether the log says "everything".
    pub fn is_useless(&self) -> bool {
        matches!(self.lock().mode, Mode::Off | Mode::Noted)
    }

    /// A comparison of everything begins: from here on changes are noted, so that the log is worth something when it has ended.
    pub fn open_window(&self) {
        let mut inner = self.lock();
        if matches!(inner.mode, Mode::Off | Mode::Noted) {
            inner.note_from_here();
        }
    }

    /// The peer is about to adopt this epoch, equal to us. Durable when it returns. Nothing is changed meanwhile.
    pub fn pair(&self, id: StreamId, head: Option<EpochId>) -> io::Result<()> {
        let Some(head) = head else { return Ok(()) };
        let mut inner = self.take();
        match inner.mode {
            Mode::Off => {
                inner.writing = false;
                self.written.notify_all();
                Ok(())
            }
            Mode::Noted => {
                inner.mode = Mode::Strict;
                let mut records = Vec::new();
                inner.tracker.records(&mut records);
                self.snapshot(inner, Worth { id, base: Some(head), also: None }, &records, true)
            }
            Mode::Loose | Mode::Strict => {
                Record::Also(head).encode(&mut inner.pending);
                self.write(inner, true).map(drop)
            }
        }
    }

    /// What was noted since [`Activity::open_window`] is worth nothing.
    pub fn close_window(&self) {
        let mut inner = self.lock();
        if inner.mode == Mode::Noted {
            inner.mode = Mode::Off;
        }
    }

    /// The log is given up: the caller has made durable that it is not to be believed. `next`: identity of the one that may follow.
    pub fn disable(&self, next: StreamId) {
        let mut inner = self.lock();
        inner.end();
        inner.failed = false;
        inner.log = next;
        inner.pending.clear();
        self.written.notify_all();
    }
}

/// What an operation touches, as far as the operation tells.
fn touches_of(op: &Op, payload: usize, touch: &mut dyn FnMut(&Touch<'_>) -> io::Result<()>) -> io::Result<()> {
    // How long the file was is not known: as if all of it lay within.
    let state = || Ok(State { size: u64::MAX, links: 1 });
    let names = |dir: u16, path: &RelPath, touch: &mut dyn FnMut(&Touch<'_>) -> io::Result<()>| {
        touch(&Touch::Names { dir, parent: 0, path: &path.parent() })
    };
    match op {
        Op::Write { dir, path, ino, offset, .. } => {
            let end = offset.saturating_add(payload as u64);
            touch(&Touch::Content { dir: *dir, ino: *ino, path, offset: *offset, end, state: &state })
        }
        Op::SetAttr { dir, path, ino, size, .. } => {
            if let Some(size) = size {
                let (offset, end) = (*size, u64::MAX);
                touch(&Touch::Content { dir: *dir, ino: *ino, path, offset, end, state: &state })?;
            }
            touch(&Touch::Attributes { dir: *dir, ino: *ino, path, links: 1 })
        }
        Op::SetXattr { dir, path, ino, .. } | Op::RemoveXattr { dir, path, ino, .. } => {
            touch(&Touch::Attributes { dir: *dir, ino: *ino, path, links: 1 })
        }
        Op::Fallocate { dir, path, ino, offset, .. } => {
            let (offset, end) = (*offset, u64::MAX);
            touch(&Touch::Content { dir: *dir, ino: *ino, path, offset, end, state: &state })
        }
        Op::Create { dir, path, kind, .. } => {
            names(*dir, path, touch)?;
            if *kind == Kind::Directory {
                return touch(&Touch::Renamed { dir: *dir, ino: 0, from: path, path, directory: true });
            }
            Ok(())
        }
        Op::Symlink { dir, path, .. } | Op::Unlink { dir, path, .. } | Op::Rmdir { dir, path, .. } => {
            names(*dir, path, touch)
        }
        Op::Link { dir, from, path, .. } => {
            names(*dir, from, touch)?;
            names(*dir, path, touch)
        }
        Op::Rename { dir, from, path, ino, .. } => {
            names(*dir, from, touch)?;
            names(*dir, path, touch)?;
            touch(&Touch::Renamed { dir: *dir, ino: *ino, from, path, directory: true })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
