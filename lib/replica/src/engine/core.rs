//! What happens to an operation between the application and the answer: recorded, sent, acknowledged. Whose acknowledgement is needed: [`super::pairing`].
//!
//! *Change map.* Every operation is entered, before anybody can see it acknowledged. Entries go only when both sides have made a common checkpoint
//! durable. The activity log says the same on the disk, before a change is made. A process that finds no log knows nothing and says so (`base`
//! is None) until the next common checkpoint.

use super::changes::Changes;
use super::gate::Gate;
use super::latency::Latency;
use super::lease::Lease;
use super::report::{Peer, Report, Reporter, Role, Snapshot};
use super::spec::{CpuLatency, Failure, Spec};
use super::wakeful::Wakeful;
use super::window::{Whose, Window};
use crate::activity::{Activity, Worth};
use crate::op::Op;
use crate::recorder::{Front, Position};
use crate::resync::Resync;
use crate::store::{Remembered, Store, StoreError};
use crate::stream::frame;
use crate::stream::memory::Mapped;
use crate::stream::message::StreamId;
use crate::stream::outlet::Outlet;
use crate::stream::ring::{HEADROOM, Ring, WINDOW};
use crate::verify::Verify;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Bytes of frames a ring can hold.
pub const RING: u64 = WINDOW + HEADROOM;

pub type Reply = Box<dyn FnOnce() + Send>;

/// Everything that orders operations.
pub struct Flow {
    pub ring: Ring<Mapped>,
    pub window: Window,
    pub changes: Changes,
    pub role: Role,
    pub peer: Peer,
    /// Number of the connection that receives frames.
    pub link: Option<u64>,
    /// Operations go into the ring: paired, or a resynchronisation runs.
    pub appending: bool,
    /// The secondary's acknowledgement is needed.
    pub paired: bool,
    /// Acknowledged by the secondary as the policy demands.
    pub done: Position,
    /// Place of the end marker that the secondary has not acknowledged yet.
    pub end: Option<Position>,
    pub waiting: BTreeMap<Position, Vec<Reply>>,
    /// Since when the oldest answer waits, or the ring is not empty, without progress.
    pub stalled: Option<Instant>,
    pub latency: Latency,
    pub resync: Option<Arc<Resync>>,
    pub verify: Option<Arc<Verify>>,
    pub checkpoint: Option<Checkpoint>,
    pub checkpoints: u64,
    /// The next checkpoint should not wait: until there is one, the change maps are worth nothing.
    pub checkpoint_due: bool,
    /// Position of the last sealed checkpoint.
    pub sealed: Position,
    /// The secondary differs from what it was sent: what it has is put aside before it is replaced.
    pub repair: bool,
}

impl Flow {
    fn wants_checkpoint(&self) -> bool {
        self.paired
            && self.peer == Peer::InSync
            && self.end.is_none()
            && self.checkpoint.is_none()
            && self.link.is_some()
            && (self.ring.position() > self.sealed || self.checkpoint_due)
    }
}

/// A checkpoint that is not common yet.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    pub number: u64,
    pub position: Position,
    /// The generation of the activity log that it ends.
    pub generation: u64,
    pub local: bool,
    pub remote: bool,
}

/// Shared by all threads of the engine.
pub struct Core {
    pub spec: Spec,
    pub gate: Gate,
    pub lease: Lease,
    pub outlet: Outlet,
    pub activity: Activity,
    pub wakeful: Wakeful,
    flow: Mutex<Flow>,
    /// Acknowledgements, room in the ring, losses.
    pub changed: Condvar,
    /// The thread that makes checkpoints, to wake it.
    pub checkpointer: std::sync::OnceLock<std::thread::Thread>,
    pub(super) store: Mutex<Store>,
    pub fronts: RwLock<Vec<Arc<dyn Front>>>,
    reporter: Reporter,
    last: Mutex<Option<Snapshot>>,
    /// Bytes of the application in the ring, and up to how many it is admitted.
    pub used: AtomicU64,
    pub limit: AtomicU64,
    /// Somebody was told to park.
    pub parked: AtomicBool,
    /// Position of a secondary.
    pub followed: AtomicU64,
    pub bytes_received: AtomicU64,
    /// Bytes of content a second that the last long synchronisation handled; 0: there was none.
    pub resync_rate: AtomicU64,
    /// Content of live operations that went through the stream, and of resynchronisations.
    pub live_bytes: AtomicU64,
    pub copied_bytes: AtomicU64,
    pub stopping: AtomicBool,
    /// The peer took over from this primary: nothing that waits will be acknowledged, ever.
    pub abandoned: AtomicBool,
}

/// A lock whose content is valid at every moment, also after a panic of its holder.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 128 random bits.
pub fn random() -> Result<u128, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(format!("no random numbers: {e}"), "the kernel's random source must be available"))?;
    Ok(u128::from_le_bytes(bytes))
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error, "the module's state directory must be on a writable disk with free space")
    }
}

impl Core {
    pub fn new(
        spec: Spec,
        store: Store,
        ring: Ring<Mapped>,
        changes: Changes,
        activity: Activity,
        reporter: Reporter,
    ) -> Self {
        let done = ring.settled();
        let used = ring.used();
        let flow = Flow {
            window: Window::new(ring.position(), used),
            changes,
            role: Role::Idle,
            peer: Peer::Absent,
            link: None,
            appending: false,
            paired: false,
            done,
            end: None,
            waiting: BTreeMap::new(),
            stalled: None,
            latency: Latency::default(),
            resync: None,
            verify: None,
            checkpoint: None,
            checkpoints: 0,
            checkpoint_due: false,
            sealed: ring.position(),
            repair: false,
            ring,
        };
        Self {
            lease: Lease::new(spec.lease),
            wakeful: Wakeful::new(spec.cpu_latency == CpuLatency::Auto),
            spec,
            gate: Gate::closed(),
            outlet: Outlet::default(),
            activity,
            flow: Mutex::new(flow),
            changed: Condvar::new(),
            checkpointer: std::sync::OnceLock::new(),
            store: Mutex::new(store),
            fronts: RwLock::new(Vec::new()),
            reporter,
            last: Mutex::new(None),
            used: AtomicU64::new(used),
            limit: AtomicU64::new(WINDOW),
            parked: AtomicBool::new(false),
            followed: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            resync_rate: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    pub fn flow(&self) -> MutexGuard<'_, Flow> {
        lock(&self.flow)
    }

    /// What is durable.
    pub fn remembered(&self) -> Remembered {
        lock(&self.store).now().clone()
    }

    /// Durable when it returns.
    pub fn remember(&self, change: impl FnOnce(&mut Remembered)) -> Result<(), StoreError> {
        lock(&self.store).change(change)
    }

    pub fn state_file(&self, name: &str) -> std::path::PathBuf {
        lock(&self.store).file(name)
    }

    pub fn tell(&self, report: &Report) {
        (self.reporter)(report);
    }

    pub fn note(&self, text: impl ToString) {
        self.tell(&Report::Note { text: text.to_string() });
    }

    /// The `replica` event, when something changed but the position.
    pub fn publish(&self) {
        self.publish_with(false);
    }

    /// The `replica` event, also when only the position changed.
    pub fn publish_with(&self, position: bool) {
        let mut last = lock(&self.last);
        let remembered = self.remembered();
        let flow = self.flow();
        let primary = flow.role == Role::Primary;
        let snapshot = Snapshot {
            role: flow.role,
            standing: remembered.standing,
            lineage: remembered.lineage,
            peer: flow.peer,
            frozen: primary && (self.gate.is_closed() || !self.lease.holds()),
            position: match flow.role {
                Role::Primary => flow.ring.position(),
                Role::Secondary => self.followed.load(SeqCst),
                Role::Idle => flow.ring.position().max(self.followed.load(SeqCst)).max(remembered.position),
            },
        };
        drop(flow);
        let same = last.as_ref().is_some_and(|l| {
            *l == Snapshot { position: if position { snapshot.position } else { l.position }, ..snapshot.clone() }
        });
        if !same {
            self.tell(&Report::Replica(snapshot.clone()));
            *last = Some(snapshot);
        }
    }

    /// Sends what is in the ring, from this thread if nobody else does.
    pub fn push(&self) {
        self.outlet.push(&super::record::Frames(self));
    }

    /// Body of the pump thread.
    pub fn pump(&self) {
        self.outlet.pump(&super::record::Frames(self));
    }

    /// The fronts of all directories; none unless this node serves.
    pub fn all_fronts(&self) -> Vec<Arc<dyn Front>> {
        self.fronts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn resume_fronts(&self) {
        for front in self.all_fronts() {
            front.resume();
        }
    }

    /// Ends all waiting for the peer with errors. What is inside the gate is local work and ends by itself.
    pub fn abandon(&self) {
        self.gate.close();
        self.abandoned.store(true, SeqCst);
        self.gate.close_and_drain();
        self.outlet.detach();
        let waiting = {
            let mut flow = self.flow();
            flow.link = None;
            std::mem::take(&mut flow.waiting)
        };
        drop(waiting);
        self.changed.notify_all();
        self.parked.store(false, SeqCst);
        self.resume_fronts();
    }

    /// Lets requests go on, unless this node does not serve, or serves in paired service without its peer.
    pub fn open_gate(&self) {
        {
            // Under the lock: a loss of the stream closes the gate under it too.
            let flow = self.flow();
            if self.stopping.load(SeqCst)
                || self.abandoned.load(SeqCst)
                || flow.role != Role::Primary
                || (flow.paired && flow.link.is_none())
            {
                return;
            }
            self.gate.open();
        }
        self.parked.store(false, SeqCst);
        self.resume_fronts();
    }

    /// Called now and then: a request may have been parked between a check and its queue.
    pub fn resume_parked(&self) {
        let open = !self.gate.is_closed() && self.lease.holds();
        if open && self.used.load(SeqCst) < self.limit.load(SeqCst) && self.parked.swap(false, SeqCst) {
            self.resume_fronts();
        }
    }

    /// Appends `op` under the lock; None when it cannot be, and then the stream is of no use any more.
    pub fn append(&self, flow: &mut Flow, whose: Whose, text: &[u8], payload: &[u8], counted: bool) -> Position {
        let n = flow.ring.position() + 1;
        let before = flow.ring.used();
        let written = if flow.appending && counted {
            let mut header = Vec::with_capacity(text.len() + 48);
            frame::put_header(&mut header, n, payload.len(), text);
            if flow.ring.used() == 0 {
                flow.stalled = Some(Instant::now());
            }
            flow.ring.append(n, &header, payload)
        } else {
            flow.ring.advance(n)
        };
        flow.window.appended(whose, n, flow.ring.used().saturating_sub(before));
        self.admit(flow);
        if let Err(e) = written {
            self.break_stream(flow, n, &e.to_string());
        }
        n
    }

    /// Who has how much of the window has changed, or what there is to share.
    pub fn admit(&self, flow: &Flow) {
        self.used.store(flow.window.application(), SeqCst);
        self.limit.store(Window::limit(flow.resync.is_some()), SeqCst);
    }

    /// Nothing of what was in the ring is there any more.
    pub fn emptied(&self, flow: &mut Flow) {
        flow.window.clear();
        self.admit(flow);
    }

    /// The ring misses an operation: no secondary may continue from it. The connection is shut down, its reader reports the loss.
    pub fn break_stream(&self, flow: &mut Flow, n: Position, reason: &str) {
        self.note(format!("the stream cannot be continued: {reason}"));
        if flow.paired {
            self.gate.close();
        }
        let id = random().map_or(StreamId(0), StreamId);
        if flow.ring.restart(id, n, None).is_err() {
            self.tell(&Report::Fault { reason: format!("the ring of unacknowledged operations is lost: {reason}") });
        }
        self.emptied(flow);
        // Not under the outlet's lock here: the connection is closed by whoever polls next.
        flow.link = None;
        self.changed.notify_all();
    }

    /// An operation of the resynchronisation or of the stream itself: sent, not entered in the change map. None: the connection is gone.
    pub fn emit(&self, link: u64, op: &Op, payload: &[u8]) -> Option<Position> {
        let mut text = Vec::new();
        if frame::op_text(op, &mut text).is_err() || payload.len() > frame::MAX_PAYLOAD {
            self.note(format!("an operation is too long for the stream: {} bytes", payload.len()));
            return None;
        }
        let mut flow = self.flow();
        if flow.link != Some(link) {
            return None;
        }
        let n = self.append(&mut flow, Whose::Walker, &text, payload, true);
        let held = flow.link == Some(link);
        drop(flow);
        self.outlet.hint();
        held.then_some(n)
    }

    /// Puts a checkpoint into the stream when there was activity since the last one and no other is under way. Its number.
    pub fn begin_checkpoint(&self) -> Option<u64> {
        if !self.flow().wants_checkpoint() {
            return None;
        }
        // Whoever relied on a record of the generation that ends here has made its change before the checkpoint.
        let generation = self.activity.bump();
        self.gate.pass();
        let mut text = Vec::new();
        let mut flow = self.flow();
        if !flow.wants_checkpoint() {
            return None;
        }
        let number = flow.checkpoints + 1;
        frame::op_text(&Op::Checkpoint { number }, &mut text).ok()?;
        flow.checkpoints = number;
        flow.checkpoint_due = false;
        flow.changes.seal(number);
        let position = self.append(&mut flow, Whose::Walker, &text, &[], true);
        flow.sealed = position;
        flow.checkpoint = Some(Checkpoint { number, position, generation, local: false, remote: false });
        flow.link.map(|_| number)
    }

    /// Waits until the ring has room. False: the connection is gone.
    pub fn wait_room(&self, link: u64, bytes: u64) -> bool {
        let mut flow = self.flow();
        loop {
            if flow.link != Some(link) || self.stopping.load(SeqCst) {
                return false;
            }
            if flow.window.has_room(bytes) {
                return true;
            }
            flow =
                self.changed.wait_timeout(flow, Duration::from_millis(200)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The activity log cannot be written: from now on a crash means comparing everything, and that is made durable. An error: not even that.
    pub fn activity_failed(&self, error: &std::io::Error) -> std::io::Result<()> {
        let next = random().map_err(|e| std::io::Error::other(e.reason))?;
        self.remember(|r| r.activity = None).map_err(std::io::Error::other)?;
        self.activity.disable(StreamId(next));
        self.note(format!("the activity log cannot be written, after a crash everything will be compared: {error}"));
        Ok(())
    }

    /// Both nodes have a checkpoint: the activity log need not go back further.
    pub fn retire_activity(&self, generation: u64, worth: Worth) {
        let outcome = self.activity.retire(generation, worth).and_then(|()| {
            // It may have been given up, and is worth something again.
            let log = self.activity.log();
            self.remember(|r| r.activity = Some(log)).map_err(std::io::Error::other)
        });
        if let Err(e) = outcome
            && let Err(e) = self.activity_failed(&e)
        {
            self.note(e);
        }
    }

    /// Waits until something in the flow changed, at most this long.
    pub fn wait_change(&self, most: Duration) {
        let flow = self.flow();
        let _ = self.changed.wait_timeout(flow, most).unwrap_or_else(PoisonError::into_inner);
    }

    /// Waits until the secondary acknowledged and settled everything up to `n`. False: not in time, or the stream is lost.
    pub fn wait_settled(&self, n: Position, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut flow = self.flow();
        loop {
            if flow.done >= n && flow.ring.settled() >= n {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if flow.link.is_none() || left.is_zero() {
                return false;
            }
            flow = self.changed.wait_timeout(flow, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
