//! How do threads share one /dev/fuse, who answers, and what happens to requests that must wait?
//!
//! All threads read one descriptor: requests read through a clone of it would die with this process. A request that may not go on is
//! parked with its slot, so no thread waits for the peer; [`Session::resume`] hands the parked ones to one thread that tries them again
//! in the order of their arrival.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::abi::{self, Body, Call, Header, flag};
use super::mount;
use super::readers::{Readers, Turn};
use super::slots::{Pool, Progress, Slot};
use super::umask;

const OLDEST_MINOR: u32 = 31;
/// The version that this implementation speaks.
const OUR_MINOR: u32 = 40;

/// A request with its slot.
pub struct Request {
    slot: Slot,
    pub header: Header,
    /// Read by a former worker, which may have applied it.
    pub replayed: bool,
}

impl Request {
    pub fn progress(&self) -> Progress {
        if self.replayed { self.slot.progress() } else { Progress::Fresh }
    }

    /// A former worker began to apply the request, and perhaps did.
    pub fn perhaps_applied(&self) -> bool {
        matches!(self.progress(), Progress::Noted(_))
    }

    /// A former worker perhaps applied another change, which has yet to be recorded: what this one finds on the disk is not what the peer has.
    pub fn must_wait(&self) -> bool {
        self.slot.unsettled_before() && !self.perhaps_applied()
    }

    /// Remembers that the change begins and what is there before, for a successor. Only one request at a time may be noted and not done.
    pub fn note(&self, notes: [u64; 2]) {
        self.slot.note(notes);
    }

    /// Remembers that the change was applied and recorded.
    pub fn done(&self, position: u64) {
        self.slot.done(position);
    }
}

/// What becomes of a request.
pub enum Outcome {
    Reply(Body),
    /// The reply is this many bytes at the beginning of the scratch buffer.
    Scratch(usize),
    Error(i32),
    /// The kernel expects no answer.
    Silent,
    /// Not now; nothing was changed.
    Park,
    /// The answer is given through [`Handler::when_acknowledged`].
    After(u64, Body),
}

/// Who executes the requests.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, session: &Arc<Session>, request: &Request, call: Call<'_>, scratch: &mut Vec<u8>) -> Outcome;
    fn when_acknowledged(&self, position: u64, reply: Box<dyn FnOnce() + Send>);
    /// The kernel did not take this reply: a former worker had answered already. References it would have given do not exist.
    fn refused(&self, header: &Header, body: &[u8]);
}

#[derive(Default)]
struct Parking {
    queue: VecDeque<Request>,
    resumes: u64,
    due: bool,
    closed: bool,
}

/// One mount being served.
pub struct Session {
    fuse: Arc<OwnedFd>,
    pool: Arc<Pool>,
    handler: Arc<dyn Handler>,
    parking: Mutex<Parking>,
    unparked: Condvar,
    readers: Readers,
    ended: AtomicBool,
    refused: Mutex<Option<(u32, u32)>>,
}

impl Session {
    /// Does not read yet; see [`Session::serve`].
    pub fn new(fuse: OwnedFd, pool: Arc<Pool>, handler: Arc<dyn Handler>) -> Arc<Self> {
        Arc::new(Self {
            fuse: Arc::new(fuse),
            pool,
            handler,
            parking: Mutex::default(),
            unparked: Condvar::new(),
            readers: Readers::new(std::thread::available_parallelism().map_or(1, usize::from)),
            ended: AtomicBool::new(false),
            refused: Mutex::default(),
        })
    }

    pub fn fuse(&self) -> BorrowedFd<'_> {
        self.fuse.as_fd()
    }

    /// The mount is gone and all threads that read requests have ended.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) && self.readers.threads() == 0
    }

    /// Answers what a former worker left, then starts the threads. Returns when the left requests were tried.
    pub fn serve(self: &Arc<Self>, left: Vec<Slot>, threads: usize) -> io::Result<()> {
        let session = Arc::clone(self);
        let replay = std::thread::Builder::new().name("fuse-replay".into()).spawn(move || {
            umask::own();
            let mut scratch = Vec::new();
            for slot in left {
                session.take_up(slot, true, &mut scratch);
            }
        })?;
        if replay.join().is_err() {
            return Err(io::Error::other("a thread died"));
        }
        let session = Arc::clone(self);
        std::thread::Builder::new().name("fuse-parked".into()).spawn(move || session.retry_loop())?;
        for _ in 0..threads {
            if self.readers.begin() {
                self.spawn_reader()?;
            }
        }
        Ok(())
    }

    /// Starts a thread that is counted already.
    fn spawn_reader(self: &Arc<Self>) -> io::Result<()> {
        let session = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("fuse".into()).spawn(move || session.read_loop());
        if spawned.is_err() {
            self.readers.gone();
        }
        spawned.map(drop)
    }

    /// To be called before waiting for the disk: makes sure that somebody still reads requests.
    pub fn about_to_wait(self: &Arc<Self>) {
        if self.readers.about_to_wait() {
            // Without another thread, requests wait a little longer.
            let _ = self.spawn_reader();
        }
    }

    fn read_loop(self: &Arc<Self>) {
        umask::own();
        let mut scratch = Vec::new();
        loop {
            match self.readers.turn() {
                Turn::Read => {}
                Turn::StartAndRead => drop(self.spawn_reader()),
                Turn::End => break,
            }
            let mut slot = self.pool.take();
            match self.readers.read(|| mount::has_request(self.fuse()), || slot.fill(self.fuse())) {
                Ok(n) if n > 0 => self.take_up(slot, false, &mut scratch),
                // Interrupted: by a signal, or because the application gave up before we saw the request.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => slot.unused(),
                // One request could not be handed over, and the kernel has answered it with EIO; those that wait here are none the worse.
                Err(Errno::FAULT | Errno::NOMEM | Errno::IO) => slot.unused(),
                // ENODEV: unmounted. ECONNABORTED: aborted.
                _ => {
                    slot.unused();
                    break;
                }
            }
        }
        self.ended.store(true, Ordering::Release);
        let mut parking = self.parking();
        parking.closed = true;
        self.readers.end();
        self.readers.gone();
        drop(parking);
        self.unparked.notify_all();
    }

    fn parking(&self) -> MutexGuard<'_, Parking> {
        self.parking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_up(self: &Arc<Self>, slot: Slot, replayed: bool, scratch: &mut Vec<u8>) {
        match abi::parse_header(slot.bytes()) {
            Ok(header) => self.attempt(Request { slot, header, replayed }, scratch),
            // Not even a number to answer to.
            Err(abi::Malformed) => slot.unused(),
        }
    }

    fn attempt(self: &Arc<Self>, request: Request, scratch: &mut Vec<u8>) {
        let token = self.parking().resumes;
        let perhaps_applied = request.perhaps_applied();
        let outcome = match (request.progress(), abi::parse(request.slot.bytes(), self.setxattr_ext())) {
            (Progress::Failed(errno), _) => Outcome::Error(errno),
            (_, Ok((_, Call::Init { major, minor, max_readahead, flags }))) => {
                self.init(major, minor, max_readahead, flags)
            }
            (_, Ok((_, call))) => self.handler.handle(self, &request, call, scratch),
            (_, Err(abi::Malformed)) => Outcome::Error(libc::EINVAL),
        };
        // The others, which have waited for it, are tried again.
        if perhaps_applied && !matches!(outcome, Outcome::Park) && self.pool.settled() {
            self.resume();
        }
        let Request { slot, header, .. } = &request;
        match outcome {
            Outcome::Reply(body) => {
                if !answer(&self.fuse, header.unique, 0, &body.0) {
                    self.handler.refused(header, &body.0);
                }
            }
            Outcome::Scratch(length) => {
                answer(&self.fuse, header.unique, 0, scratch.get(..length).unwrap_or_default());
            }
            Outcome::Error(errno) => {
                slot.failed(errno);
                answer(&self.fuse, header.unique, errno, &[]);
            }
            Outcome::Silent => {}
            Outcome::Park => return self.park(request, token),
            Outcome::After(position, body) => {
                let (fuse, handler) = (Arc::clone(&self.fuse), Arc::clone(&self.handler));
                let owed = Owed { fuse, handler, body, request: Some(request) };
                return self.handler.when_acknowledged(position, Box::new(move || owed.pay()));
            }
        }
        request.slot.free();
    }

    fn setxattr_ext(&self) -> bool {
        self.pool.negotiated().is_some_and(|flags| flags & flag::SETXATTR_EXT != 0)
    }

    fn init(&self, major: u32, minor: u32, max_readahead: u32, flags: u32) -> Outcome {
        if major != 7 || minor < OLDEST_MINOR {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((major, minor));
            return Outcome::Error(libc::EPROTO);
        }
        let flags = flags & flag::WANTED;
        self.pool.set_negotiated(flags);
        let mut body = Body::new();
        // The kernel takes the lesser of this and of what [`mount::mount`] allowed it.
        body.init_out(minor.min(OUR_MINOR), max_readahead.max(mount::READ_AHEAD), flags);
        Outcome::Reply(body)
    }

    fn park(&self, request: Request, token: u64) {
        let mut parking = self.parking();
        parking.queue.push_back(request);
        // Resumed between the refusal and now: nobody else would try this one again.
        if parking.resumes != token {
            parking.due = true;
            self.unparked.notify_all();
        }
    }

    /// The kernel's protocol version, if it was refused.
    pub fn refused(&self) -> Option<(u32, u32)> {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every change that a former worker perhaps applied is recorded.
    pub fn is_settled(&self) -> bool {
        !self.pool.unsettled()
    }

    /// Number of parked requests.
    pub fn parked(&self) -> usize {
        self.parking().queue.len()
    }

    /// Parked requests are tried again, by a thread of the session.
    pub fn resume(&self) {
        let mut parking = self.parking();
        parking.resumes += 1;
        parking.due = !parking.queue.is_empty();
        if parking.due {
            self.unparked.notify_all();
        }
    }

    fn retry_loop(self: &Arc<Self>) {
        umask::own();
        let mut scratch = Vec::new();
        loop {
            let mut parking = self.parking();
            while !parking.due && !parking.closed {
                parking = self.unparked.wait(parking).unwrap_or_else(PoisonError::into_inner);
            }
            parking.due = false;
            let (queue, closed) = (std::mem::take(&mut parking.queue), parking.closed);
            drop(parking);
            for request in queue {
                if closed {
                    // The kernel has answered for us.
                    request.slot.free();
                } else {
                    self.attempt(request, &mut scratch);
                }
            }
            if closed {
                break;
            }
        }
    }
}

/// An answer that waits for the peer. Dropped, it is an error: nobody will ever acknowledge the change.
struct Owed {
    fuse: Arc<OwnedFd>,
    handler: Arc<dyn Handler>,
    body: Body,
    request: Option<Request>,
}

impl Owed {
    fn pay(mut self) {
        let Some(request) = self.request.take() else { return };
        if !answer(&self.fuse, request.header.unique, 0, &self.body.0) {
            self.handler.refused(&request.header, &self.body.0);
        }
        request.slot.free();
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        request.slot.failed(libc::EIO);
        answer(&self.fuse, request.header.unique, libc::EIO, &[]);
        self.handler.refused(&request.header, &self.body.0);
        request.slot.free();
    }
}

/// False: the kernel did not take it.
fn answer(fuse: &OwnedFd, unique: u64, errno: i32, body: &[u8]) -> bool {
    let header = abi::out_header(unique, errno, body.len());
    // ENOENT: answered by a former worker, or interrupted. ENODEV and the like: unmounted. Nobody is left to be told.
    rustix::io::writev(fuse, &[IoSlice::new(&header), IoSlice::new(body)]).is_ok()
}
