//! The seam between the FUSE front (what the application does) and the engine (what the peer must know).

use crate::activity::Touch;
use crate::op::Op;

/// Number of an operation in the stream, since the replica's first epoch.
pub type Position = u64;

/// Since which checkpoint a change is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round(pub usize);

/// Whether a request that changes something may go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The change is inside; to be handed back when it leaves.
    Go(Round),
    /// Frozen, or the ring is full: park the request; [`Front::resume`] will be called.
    Park,
    /// This node lost its role for good: the request fails with EIO.
    Refuse,
}

/// What the engine offers to the front. Every method is called from several threads and none waits for the peer.
pub trait Recorder: Send + Sync {
    /// A request of whatever kind is here.
    fn asked(&self) {}

    /// Asked before a change touches the disk, with the payload's size. `Go` also holds back a freeze until the matching
    /// [`Recorder::leave`]: between the two, the change is applied and recorded, or failed and not recorded.
    fn enter(&self, bytes: usize) -> Admission;
    fn leave(&self, round: Round);

    /// Called inside, before the change touches the disk: what a crash may leave of it is on record when this returns. An error is the
    /// request's answer.
    fn about_to(&self, touch: &Touch<'_>) -> std::io::Result<()>;

    /// Appends the operation to the stream (when a peer receives) and to the change map. Called after the local change succeeded,
    /// still under the locks that order it. Returns its position.
    fn record(&self, op: &Op, payload: &[u8]) -> Position;

    /// Runs `reply` once everything up to `position` is acknowledged as the policy demands; at once when serving alone; later, when frozen.
    fn when_acknowledged(&self, position: Position, reply: Box<dyn FnOnce() + Send>);

    /// `sync="write"`: every change is answered through `when_acknowledged`.
    fn every_change_waits(&self) -> bool;
}

/// What the front offers to the engine.
pub trait Front: Send + Sync {
    /// Parked requests may be tried again (each calls [`Recorder::enter`] again, in the order of arrival).
    fn resume(&self);

    /// Whether every change that a former process made is recorded. Until then the tree may show one that no operation has told of.
    fn is_settled(&self) -> bool;

    /// Runs `step` with the namespace lock of directory number `dir` held exclusively: no name changes meanwhile.
    fn with_names(&self, dir: u16, step: &mut dyn FnMut());

    /// Runs `step` with the lock of this inode held, and the namespace lock shared: neither its content and attributes nor any
    /// path changes meanwhile.
    fn with_file(&self, dir: u16, ino: u64, step: &mut dyn FnMut());
}
