//! How do recorded frames get from the ring to the socket without a hand-over between threads and without anybody waiting for the peer.
//!
//! Whoever records something urgent (a barrier) sends it from its own thread when nobody else is sending; otherwise the one who
//! sends looks again before it goes. Sending never blocks: what the socket does not take is left to the pump thread, which may wait. What is
//! not urgent is left to the pump too, which gathers it for a millisecond and sends it with one system call. Nobody wakes the pump
//! up for each operation: it looks every few milliseconds while there is something to do, and sleeps only after a pause. What a
//! barrier has taken along meanwhile is no work for it any more.

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
/// How long the pump gathers.
const GATHER: Duration = Duration::from_millis(1);
/// How long the pump waits at most before it looks again, while barriers take everything along.
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// After as many looks at nothing the pump sleeps until it is woken up.
const LOOKS: u32 = 6;

/// Where frames come from.
pub trait Source {
    /// Replaces `out` with frames from offset `from`, at most `max` bytes; nothing when there are none.
    fn read(&self, from: u64, max: usize, out: &mut Vec<u8>);
}

/// The sending half of the present connection.
pub struct Outlet {
    state: Mutex<Option<Conn>>,
    /// Somebody wanted to send while another one was sending.
    again: AtomicBool,
    sent: AtomicU64,
    /// Something was recorded that nobody has taken out of the ring yet.
    hinted: AtomicBool,
    /// The pump sleeps, or is about to look at `hinted` for the last time before it does.
    asleep: AtomicBool,
    pump: Mutex<Pump>,
    wake: Condvar,
}

#[derive(Default)]
struct Pump {
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
    /// Never shrinks: filling a quarter of a megabyte with zeros for each batch would cost as much as a copy.
    sealed: Vec<u8>,
    sealed_end: usize,
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
            hinted: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
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
        *state = Some(Conn { stream, sealer, next: None, control, plain, sealed, sealed_end: 0, at: 0, last });
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

    /// Queues a control message that is of no use before the welcome, and none at all to a connection that has not been welcomed.
    pub fn remark(&self, control: &Control, payload: &[u8]) {
        if let Some(conn) = lock(&self.state).as_mut().filter(|c| c.next.is_some()) {
            // One that cannot be encoded is not missed.
            let _ = frame::put_control(&mut conn.control, control, payload);
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
            // Before the ring is read: what is recorded later hints again.
            self.hinted.store(false, SeqCst);
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
        // Hint first, look second; the pump does it the other way round, so one of us sees the other.
        if !self.hinted.swap(true, SeqCst) && self.asleep.load(SeqCst) {
            let _pump = lock(&self.pump);
            self.wake.notify_one();
        }
    }

    /// The pump thread: returns after [`Outlet::stop`].
    pub fn pump(&self, source: &impl Source) {
        loop {
            let mut pump = lock(&self.pump);
            let (mut looks, mut pause) = (0, GATHER);
            let (blocked, stop) = loop {
                if pump.stop || pump.blocked {
                    break (std::mem::take(&mut pump.blocked), pump.stop);
                }
                if looks < LOOKS {
                    // Gather: what was hinted at before or during this pause, and is still there after it, is due.
                    let due = self.hinted.load(SeqCst);
                    let wait = if due { GATHER } else { pause };
                    pump = self.wake.wait_timeout(pump, wait).unwrap_or_else(PoisonError::into_inner).0;
                    if self.hinted.load(SeqCst) {
                        break (std::mem::take(&mut pump.blocked), pump.stop);
                    }
                    looks = if due { 0 } else { looks + 1 };
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
                self.asleep.store(true, SeqCst);
                if !self.hinted.load(SeqCst) {
                    pump = self.wake.wait(pump).unwrap_or_else(PoisonError::into_inner);
                }
                self.asleep.store(false, SeqCst);
                (looks, pause) = (0, GATHER);
            };
            drop(pump);
            if stop {
                return;
            }
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
            while conn.at < conn.sealed_end {
                let rest = conn.sealed.get(conn.at..conn.sealed_end).unwrap_or_default();
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
            (conn.at, conn.sealed_end) = (0, 0);
            match conn.next {
                Some(next) => {
                    source.read(next, BATCH, &mut conn.plain);
                    conn.next = Some(next + conn.plain.len() as u64);
                }
                None => conn.plain.clear(),
            }
            // A control message may not stand inside a frame: batches end anywhere, so it waits for the end of the backlog.
            let at_end = conn.plain.len() < BATCH;
            if at_end && !conn.control.is_empty() {
                conn.plain.append(&mut conn.control);
            }
            if conn.plain.is_empty() {
                return Progress::Drained;
            }
            match conn.sealer.seal_over(&conn.plain, &mut conn.sealed) {
                Ok(end) => conn.sealed_end = end,
                Err(_) => return Progress::Broken,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::Arc;

    /// Bytes that were recorded.
    #[derive(Default)]
    struct Recorded(Mutex<Vec<u8>>);

    impl Source for Recorded {
        fn read(&self, from: u64, max: usize, out: &mut Vec<u8>) {
            let all = lock(&self.0);
            out.clear();
            out.extend(all.iter().skip(from as usize).take(max));
        }
    }

    /// What arrives is opened in a thread; the total comes back when the connection ends.
    fn pair(outlet: &Outlet) -> std::thread::JoinHandle<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        outlet.attach(stream, Sealer::plain());
        outlet.start_at(0);
        std::thread::spawn(move || {
            let (mut opener, mut bytes, mut plain) = (wire::channel::Opener::plain(), vec![0; 65536], Vec::new());
            while let Ok(n @ 1..) = far.read(&mut bytes) {
                opener.feed(&bytes[..n], &mut plain).unwrap();
            }
            plain
        })
    }

    fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline, "not in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn every_hint_is_followed_by_a_send_whether_the_pump_sleeps_or_not() {
        let (outlet, source) = (Arc::new(Outlet::default()), Arc::new(Recorded::default()));
        let received = pair(&outlet);
        let pump = {
            let (outlet, source) = (outlet.clone(), source.clone());
            std::thread::spawn(move || outlet.pump(&*source))
        };
        for n in 0..300_u32 {
            let before = outlet.bytes_sent();
            lock(&source.0).extend_from_slice(&n.to_le_bytes());
            outlet.hint();
            until(|| outlet.bytes_sent() > before);
            if n % 100 == 99 {
                until(|| outlet.asleep.load(SeqCst));
            }
        }
        outlet.stop();
        pump.join().unwrap();
        outlet.detach();
        assert_eq!(received.join().unwrap(), *lock(&source.0));
    }

    #[test]
    fn what_several_threads_record_arrives_once_and_in_order() {
        let (outlet, source) = (Arc::new(Outlet::default()), Arc::new(Recorded::default()));
        let received = pair(&outlet);
        let pump = {
            let (outlet, source) = (outlet.clone(), source.clone());
            std::thread::spawn(move || outlet.pump(&*source))
        };
        let writers: Vec<_> = (0..4_u8)
            .map(|w| {
                let (outlet, source) = (outlet.clone(), source.clone());
                std::thread::spawn(move || {
                    for n in 0..2000_u32 {
                        lock(&source.0).extend(std::iter::repeat_n(w, 1 + (n as usize * 37) % 900));
                        if n % 5 == 0 { outlet.push(&*source) } else { outlet.hint() }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        let total = lock(&source.0).len();
        // The framing adds two bytes a record.
        until(|| outlet.bytes_sent() > total as u64 && !outlet.hinted.load(SeqCst) && outlet.asleep.load(SeqCst));
        outlet.stop();
        pump.join().unwrap();
        outlet.detach();
        assert!(received.join().unwrap() == *lock(&source.0));
    }
}
