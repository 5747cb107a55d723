//! What does a secondary say to its primary, and when: acknowledged is what was applied, up to the first barrier that the disk has not confirmed.

use super::core::{Core, lock};
use super::serve::LineError;
use crate::recorder::Position;
use crate::stream::frame;
use crate::stream::message::Control;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use wire::channel::Sealer;

/// Work for the pool: barriers and checkpoints.
pub enum Job {
    Sync { connection: u64, n: Position, target: Option<OwnedFd>, data_only: bool },
    Checkpoint { number: u64, roots: Vec<OwnedFd> },
}

/// Says to the primary what is done. Shared by the applier, the pool and the ticker.
#[derive(Default)]
pub struct Acker {
    state: Mutex<AckState>,
}

#[derive(Default)]
struct AckState {
    writer: Option<Writer>,
    /// Counts connections: a barrier of a former one says nothing about this one.
    connection: u64,
    applied: Position,
    /// Barriers that the disk has not confirmed.
    pending: BTreeSet<Position>,
    sent: Option<(Position, Position)>,
}

/// The way to the primary.
pub struct Writer {
    stream: TcpStream,
    sealer: Sealer,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Writer {
    pub fn new(stream: TcpStream, sealer: Sealer) -> Self {
        Self { stream, sealer, plain: Vec::new(), sealed: Vec::new() }
    }

    pub fn send(&mut self, control: &Control, payload: &[u8]) -> Result<(), LineError> {
        self.plain.clear();
        self.sealed.clear();
        frame::put_control(&mut self.plain, control, payload)?;
        self.sealer.seal_into(&self.plain, &mut self.sealed)?;
        self.stream.write_all(&self.sealed).map_err(LineError::Io)
    }
}

impl Acker {
    /// Speaks on this connection from now on; `applied`: the place from which it goes on.
    pub fn attach(&self, writer: Writer, applied: Position) {
        let mut state = lock(&self.state);
        state.connection += 1;
        state.applied = applied;
        state.writer = Some(writer);
        state.sent = None;
        state.pending.clear();
    }

    /// Says nothing any more.
    pub fn detach(&self) {
        lock(&self.state).writer = None;
    }

    pub fn send(&self, control: &Control, payload: &[u8]) {
        let mut state = lock(&self.state);
        let failed = state.writer.as_mut().is_some_and(|w| w.send(control, payload).is_err());
        if failed && let Some(writer) = state.writer.take() {
            // The reading thread notices.
            let _ = writer.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Acknowledges when there is something new to say. True: something was sent.
    pub fn acknowledge(&self) -> bool {
        let (done, settled) = {
            let mut state = lock(&self.state);
            let done = state.pending.first().map_or(state.applied, |first| first.saturating_sub(1).min(state.applied));
            let now = (done, state.applied);
            if state.sent == Some(now) || state.writer.is_none() {
                return false;
            }
            state.sent = Some(now);
            now
        };
        self.send(&Control::Ack { done, settled }, &[]);
        true
    }

    /// Everything up to this place is applied.
    pub fn applied(&self, n: Position) {
        lock(&self.state).applied = n;
    }

    /// The barrier at this place waits for the disk. The connection that it belongs to, for its job.
    pub fn awaits(&self, n: Position) -> u64 {
        let mut state = lock(&self.state);
        state.pending.insert(n);
        state.connection
    }
}

/// Body of a thread that waits for the disk.
pub fn pool(work: &Mutex<Receiver<Job>>, core: &Core, acker: &Acker) {
    loop {
        let job = lock(work).recv();
        match job {
            Err(_) => return,
            Ok(Job::Sync { connection, n, target, data_only }) => {
                let outcome = target
                    .map_or(Ok(()), |fd| if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) });
                match outcome {
                    Ok(()) => {
                        {
                            let mut state = lock(&acker.state);
                            if state.connection == connection {
                                state.pending.remove(&n);
                            }
                        }
                        acker.acknowledge();
                    }
                    Err(e) => {
                        core.note(format!("the disk of the secondary cannot make operation {n} durable: {e}"));
                        acker.send(&Control::CannotApply { position: n, reason: e.to_string() }, &[]);
                    }
                }
            }
            Ok(Job::Checkpoint { number, roots }) => match roots.iter().try_for_each(rustix::fs::syncfs) {
                Ok(()) => acker.send(&Control::Checkpointed { number }, &[]),
                Err(e) => core.note(format!("a replicated directory cannot be made durable: {e}")),
            },
        }
    }
}
