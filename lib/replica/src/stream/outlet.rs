//! How do recorded frames get from the ring to the socket without a hand-over between threads and without anybody waiting for the peer.
//!
//! Whoever records something urgent (a barrier) sends it from its own thread when nobody else is sending; otherwise the one who
//! sends looks again before it goes. Sending never blocks: what the socket does not take is left to the pump thread, which may wait. What is
//! not urgent is left to the pump too, which gathers it for a millisecond and sends it with one system call.

use super::frame;
use super::message::Control;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use wire::channel::Sealer;

/// Most plain bytes taken out of the ring for one system call.
const BATCH: usize = 256 * 1024;

/// Where frames come from.
pub trait Source {
    /// Copies frames from offset `from`, at most `max` bytes, into `out`; nothing when there are none.
    fn read(&self, from: u64, max: usize, out: &mut Vec<u8>);
}

/// The sending half of the present connection.
pub struct Outlet {
    state: Mutex<Option<Conn>>,
    /// Somebody wanted to send while another one was sending.
    again: AtomicBool,
    sent: AtomicU64,
    pump: Mutex<Pump>,
    wake: Condvar,
}

#[derive(Default)]
struct Pump {
    hinted: bool,
    blocked: bool,
    stop: bool,
}

struct Conn {
    stream: TcpStream,
    sealer: Sealer,
    /// Offset of the next byte to take out of the ring; None: no frames yet, only control messages.
    next: Option<u64>,
    control: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    at: usize,
    last: Instant,
}

enum Progress {
    Drained,
    Blocked,
    Broken,
}

impl Default for Outlet {
    fn default() -> Self {
        Self {
            state: Mutex::new(None),
            again: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            pump: Mutex::new(Pump::default()),
            wake: Condvar::new(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outlet {
    /// A new connection replaces the former one, which is shut down.
    pub fn attach(&self, stream: TcpStream, sealer: Sealer) {
        let mut state = lock(&self.state);
        if let Some(old) = state.take() {
            let _ = old.stream.shutdown(std::net::Shutdown::Both);
        }
        let last = Instant::now();
        let (control, plain, sealed) = (Vec::new(), Vec::new(), Vec::new());
        *state = Some(Conn { stream, sealer, next: None, control, plain, sealed, at: 0, last });
    }

    /// Frames from this offset of the ring on may be sent.
    pub fn start_at(&self, offset: u64) {
        if let Some(conn) = lock(&self.state).as_mut() {
            conn.next = Some(offset);
        }
        self.hint();
    }

    /// Shuts the connection down; its reader notices.
    pub fn detach(&self) {
        if let Some(conn) = lock(&self.state).take() {
            let _ = conn.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Whether a connection is attached to which frames may be sent.
    pub fn is_receiving(&self) -> bool {
        lock(&self.state).as_ref().is_some_and(|c| c.next.is_some())
    }

    /// Bytes given to sockets so far.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(SeqCst)
    }

    /// Queues a control message.
    pub fn control(&self, control: &Control, payload: &[u8]) {
        if let Some(conn) = lock(&self.state).as_mut()
            && frame::put_control(&mut conn.control, control, payload).is_err()
        {
            // Ours are small; a message that cannot be encoded would be lost silently otherwise.
            let _ = conn.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// A ping, when nothing was sent for `idle`.
    pub fn ping_if_idle(&self, idle: Duration) {
        // When somebody is sending, the connection is not idle.
        if let Ok(mut state) = self.state.try_lock()
            && let Some(conn) = state.as_mut()
            && conn.last.elapsed() >= idle
        {
            let _ = frame::put_control(&mut conn.control, &Control::Ping, &[]);
        }
    }

    /// Sends what there is, as far as the socket takes it, unless somebody else is sending.
    pub fn push(&self, source: &impl Source) {
        // Set before the attempt: a holder that made us fail looks at it after it let go.
        self.again.store(true, SeqCst);
        loop {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(e)) => e.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.again.store(false, SeqCst);
            let progress = state.as_mut().map(|conn| self.drain(conn, source));
            match progress {
                Some(Progress::Broken) => {
                    // The connection's reader wakes up from this and reports the loss.
                    if let Some(conn) = state.take() {
                        let _ = conn.stream.shutdown(std::net::Shutdown::Both);
                    }
                }
                Some(Progress::Blocked) => {
                    lock(&self.pump).blocked = true;
                    self.wake.notify_one();
                    return;
                }
                Some(Progress::Drained) | None => {}
            }
            drop(state);
            if !self.again.load(SeqCst) {
                return;
            }
        }
    }

    /// Something that is not urgent was recorded.
    pub fn hint(&self) {
        let mut pump = lock(&self.pump);
        if !pump.hinted {
            pump.hinted = true;
            self.wake.notify_one();
        }
    }

    /// The pump thread: returns after [`Outlet::stop`].
    pub fn pump(&self, source: &impl Source) {
        loop {
            let mut pump = lock(&self.pump);
            while !pump.hinted && !pump.blocked && !pump.stop {
                pump = self.wake.wait(pump).unwrap_or_else(PoisonError::into_inner);
            }
            if pump.stop {
                return;
            }
            let blocked = std::mem::take(&mut pump.blocked);
            if !blocked {
                // Gather.
                pump = self.wake.wait_timeout(pump, Duration::from_millis(1)).unwrap_or_else(PoisonError::into_inner).0;
            }
            pump.hinted = false;
            drop(pump);
            if blocked {
                self.wait_writable();
            }
            self.push(source);
        }
    }

    pub fn stop(&self) {
        lock(&self.pump).stop = true;
        self.wake.notify_all();
    }

    fn wait_writable(&self) {
        let stream = lock(&self.state).as_ref().and_then(|c| c.stream.try_clone().ok());
        let Some(stream) = stream else { return };
        let mut set = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::OUT)];
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _ = rustix::event::poll(&mut set, Some(&timeout));
    }

    fn drain(&self, conn: &mut Conn, source: &impl Source) -> Progress {
        loop {
            while conn.at < conn.sealed.len() {
                let rest = conn.sealed.get(conn.at..).unwrap_or_default();
                let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
                match rustix::net::send(conn.stream.as_fd(), rest, flags) {
                    Ok(n) => {
                        conn.at += n;
                        conn.last = Instant::now();
                        self.sent.fetch_add(n as u64, SeqCst);
                    }
                    Err(rustix::io::Errno::AGAIN) => return Progress::Blocked,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return Progress::Broken,
                }
            }
            conn.sealed.clear();
            conn.at = 0;
            conn.plain.clear();
            if let Some(next) = conn.next {
                source.read(next, BATCH, &mut conn.plain);
                conn.next = Some(next + conn.plain.len() as u64);
            }
            // A control message may not stand inside a frame: batches end anywhere, so it waits for the end of the backlog.
            let at_end = conn.plain.len() < BATCH;
            if at_end && !conn.control.is_empty() {
                conn.plain.append(&mut conn.control);
            }
            if conn.plain.is_empty() {
                return Progress::Drained;
            }
            if conn.sealer.seal_into(&conn.plain, &mut conn.sealed).is_err() {
                return Progress::Broken;
            }
        }
    }
}
