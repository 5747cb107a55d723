//! How many threads read requests, and when does another one?
//!
//! The kernel wakes up those that wait for requests in turn: with several, each request wakes up one that sleeps, while the one that has just
//! answered is about to read again. So one thread reads and carries out, as long as it gets on. Another one reads, too,
//!
//! - when the first is about to wait for the disk, and says so ([`Readers::about_to_wait`]), and for a while afterwards;
//! - when it gets stuck without having said so: a deputy looks every [`LOOK`] while there is something to do;
//! - while requests are always waiting already, on a machine that has processors for it.
//!
//! All others are parked, and the deputy sleeps when there is nothing to do.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads that may exist at once; more than a few only while others wait for the disk.
const MOST: usize = 32;
/// How often the deputy looks.
const LOOK: Duration = Duration::from_millis(2);
/// After as many looks at a reader that waits for requests the deputy sleeps.
const QUIET_LOOKS: u32 = 25;
/// For as many requests after one that waited for the disk two threads read: the next one is not far.
const AFTERWARDS: u64 = 128;
/// A request that takes longer to be read was not there before.
const SOON: Duration = Duration::from_micros(5);
/// As many requests in a row that were there before somebody had time for them are more than one thread can do.
const BACKLOG: u32 = 16;
/// As many that were not, and one thread less is enough.
const NO_BACKLOG: u32 = 64;

/// Who reads.
pub struct Readers {
    state: Mutex<State>,
    wake: Condvar,
    wake_deputy: Condvar,
    /// Threads that wait for a request, or are about to.
    reading: AtomicUsize,
    /// Parked threads that nobody has called, as [`State`] has them.
    spare: AtomicUsize,
    /// Requests read so far.
    requests: AtomicU64,
    /// `requests` when somebody last waited for the disk.
    waited: AtomicU64,
    /// Threads wanted because of requests that are always there.
    more: AtomicUsize,
    at_once: AtomicU32,
    not_at_once: AtomicU32,
    /// The last request was read soon: the next one is perhaps there already.
    soon: AtomicBool,
    processors: usize,
    /// The deputy sleeps until somebody reads a request.
    asleep: AtomicBool,
}

#[derive(Default)]
struct State {
    threads: usize,
    parked: usize,
    /// Parked threads that are to read now, and have not noticed.
    called: usize,
    /// One of the parked threads watches.
    deputy: bool,
    ended: bool,
}

/// What a thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Read,
    /// Start another thread first, which is counted already: somebody must be parked.
    StartAndRead,
    End,
}

impl Readers {
    /// For a machine with this many processors.
    pub fn new(processors: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            wake_deputy: Condvar::new(),
            reading: AtomicUsize::new(0),
            spare: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            more: AtomicUsize::new(0),
            at_once: AtomicU32::new(0),
            not_at_once: AtomicU32::new(0),
            soon: AtomicBool::new(false),
            processors,
            asleep: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a thread that is being started. False: there are enough.
    pub fn begin(&self) -> bool {
        let mut state = self.state();
        let begins = state.threads < MOST && !state.ended;
        state.threads += usize::from(begins);
        begins
    }

    /// A thread that was counted is gone, or could not be started.
    pub fn gone(&self) {
        let mut state = self.state();
        state.threads = state.threads.saturating_sub(1);
    }

    /// Threads that exist.
    pub fn threads(&self) -> usize {
        self.state().threads
    }

    /// Nobody reads any more: there is nothing to read from.
    pub fn end(&self) {
        self.state().ended = true;
        self.wake.notify_all();
        self.wake_deputy.notify_all();
    }

    fn wanted(&self) -> usize {
        let afterwards = self.requests.load(SeqCst).wrapping_sub(self.waited.load(SeqCst)) < AFTERWARDS;
        1 + usize::from(afterwards) + self.more.load(SeqCst)
    }

    /// True: this thread counts as one that reads.
    fn is_wanted(&self) -> bool {
        let wanted = self.wanted();
        self.reading.fetch_update(SeqCst, SeqCst, |reading| (reading < wanted).then_some(reading + 1)).is_ok()
    }

    fn count_spare(&self, state: &State) {
        self.spare.store(state.parked.saturating_sub(state.called), SeqCst);
    }

    /// Waits until this thread is to read; [`Readers::read`] is next.
    pub fn turn(&self) -> Turn {
        // Not before somebody is parked, who can watch.
        if self.spare.load(SeqCst) > 0 && self.is_wanted() {
            return Turn::Read;
        }
        let mut state = self.state();
        // Looked at once more: two that come here at the same time, each of which saw the other read, must not both park.
        if (state.threads >= MOST || state.parked > state.called) && self.is_wanted() {
            return Turn::Read;
        }
        state.parked += 1;
        self.count_spare(&state);
        loop {
            if state.ended {
                return Turn::End;
            }
            if state.called > 0 {
                state.called -= 1;
                return self.leave(state);
            }
            if state.deputy {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.deputy = true;
            let (after, stuck) = self.watch(state);
            state = after;
            state.deputy = false;
            // Somebody else watches now, if only until this one is back.
            self.wake.notify_one();
            if stuck && !state.ended {
                return self.leave(state);
            }
        }
    }

    /// A parked thread goes to read. The last one is replaced.
    fn leave(&self, mut state: MutexGuard<'_, State>) -> Turn {
        state.parked -= 1;
        self.reading.fetch_add(1, SeqCst);
        let start = state.parked <= state.called && state.threads < MOST;
        state.threads += usize::from(start);
        self.count_spare(&state);
        if start { Turn::StartAndRead } else { Turn::Read }
    }

    /// The deputy's watch: until somebody is called, everything ends, or (true) nobody reads and nobody has read for a look.
    fn watch<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
        let (mut before, mut quiet) = (self.requests.load(SeqCst), 0);
        loop {
            if state.called > 0 || state.ended {
                return (state, false);
            }
            if quiet < QUIET_LOOKS {
                state = self.wake_deputy.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                // Said first, looked second; who reads a request does it the other way round, so one of us sees the other.
                self.asleep.store(true, SeqCst);
                if self.requests.load(SeqCst) == before && self.reading.load(SeqCst) > 0 {
                    state = self.wake_deputy.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                self.asleep.store(false, SeqCst);
            }
            let now = self.requests.load(SeqCst);
            let (same, idle) = (now == before, self.reading.load(SeqCst) > 0);
            if same && !idle {
                return (state, true);
            }
            quiet = if same && idle { quiet + 1 } else { 0 };
            before = now;
        }
    }

    /// Runs `read`, which waits for a request; `is_there` tells whether it will not have to.
    pub fn read<T>(&self, is_there: impl FnOnce() -> bool, read: impl FnOnce() -> T) -> T {
        // Asked only if need be: it costs a system call. That one was read soon proves nothing, since the application that has just been
        // answered may need no longer for its next one.
        let was_there = self.soon.load(SeqCst) && is_there();
        let begun = Instant::now();
        let result = read();
        let soon = begun.elapsed() < SOON;
        if soon != self.soon.load(SeqCst) {
            self.soon.store(soon, SeqCst);
        }
        self.reading.fetch_sub(1, SeqCst);
        self.requests.fetch_add(1, SeqCst);
        if self.asleep.load(SeqCst) {
            // The lock: the deputy may be on its way to sleep.
            drop(self.state());
            self.wake_deputy.notify_all();
        }
        self.weigh(soon && was_there);
        result
    }

    /// Whether requests wait for threads, rather than threads for requests.
    fn weigh(&self, at_once: bool) {
        if at_once {
            if self.at_once.fetch_add(1, SeqCst) + 1 >= BACKLOG {
                self.at_once.store(0, SeqCst);
                self.not_at_once.store(0, SeqCst);
                if self.more.load(SeqCst) + 1 < self.processors {
                    self.more.fetch_add(1, SeqCst);
                    self.call(&mut self.state());
                }
            }
        } else {
            if self.at_once.load(SeqCst) > 0 {
                self.at_once.store(0, SeqCst);
            }
            if self.more.load(SeqCst) > 0 && self.not_at_once.fetch_add(1, SeqCst) + 1 >= NO_BACKLOG {
                self.not_at_once.store(0, SeqCst);
                self.more.fetch_sub(1, SeqCst);
            }
        }
    }

    /// Calls a parked thread. False: there is none.
    fn call(&self, state: &mut State) -> bool {
        if state.called >= state.parked {
            return false;
        }
        // The deputy comes last: it would have to be replaced.
        if state.called < state.parked - usize::from(state.deputy) {
            self.wake.notify_one();
        } else {
            self.wake_deputy.notify_one();
        }
        state.called += 1;
        self.count_spare(state);
        true
    }

    /// To be called before waiting for the disk: somebody else reads meanwhile. True: start a thread, which is counted already.
    pub fn about_to_wait(&self) -> bool {
        self.waited.store(self.requests.load(SeqCst), SeqCst);
        if self.reading.load(SeqCst) > 0 {
            return false;
        }
        let mut state = self.state();
        if self.call(&mut state) || state.threads >= MOST || state.ended {
            return false;
        }
        state.threads += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;

    /// What a request does.
    enum Work {
        Nothing,
        /// Waits until it is let go.
        Stuck(Receiver<()>),
        Disk(Receiver<()>),
    }

    struct Served {
        readers: Arc<Readers>,
        send: Option<Sender<(u32, Work)>>,
        done: Receiver<(u32, ThreadId)>,
    }

    struct Server {
        readers: Arc<Readers>,
        requests: Mutex<Receiver<(u32, Work)>>,
        done: Sender<(u32, ThreadId)>,
    }

    fn start(server: &Arc<Server>) {
        let server = Arc::clone(server);
        std::thread::spawn(move || {
            loop {
                match server.readers.turn() {
                    Turn::Read => {}
                    Turn::StartAndRead => start(&server),
                    Turn::End => break,
                }
                let Ok((number, work)) = server.readers.read(|| false, || server.requests.lock().unwrap().recv())
                else {
                    break;
                };
                match work {
                    Work::Nothing => {}
                    Work::Stuck(until) => until.recv().unwrap_or_default(),
                    Work::Disk(until) => {
                        if server.readers.about_to_wait() {
                            start(&server);
                        }
                        until.recv().unwrap_or_default();
                    }
                }
                let _ = server.done.send((number, std::thread::current().id()));
            }
            server.readers.end();
            server.readers.gone();
        });
    }

    fn serve(threads: usize) -> Served {
        let (send, requests) = channel();
        let (told, done) = channel();
        let readers = Arc::new(Readers::new(2));
        let server = Arc::new(Server { readers: Arc::clone(&readers), requests: Mutex::new(requests), done: told });
        for _ in 0..threads {
            assert!(readers.begin());
            start(&server);
        }
        Served { readers, send: Some(send), done }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    impl Served {
        fn ask(&self, number: u32, work: Work) {
            self.send.as_ref().unwrap().send((number, work)).unwrap();
        }

        fn answer(&self) -> (u32, ThreadId) {
            self.done.recv_timeout(PATIENCE).expect("no answer")
        }

        fn until(what: &str, wanted: impl Fn() -> bool) {
            let deadline = Instant::now() + PATIENCE;
            while !wanted() {
                assert!(Instant::now() < deadline, "{what}: not in time");
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        fn end(mut self) {
            self.send = None;
            Self::until("all threads end", || self.readers.threads() == 0);
        }
    }

    #[test]
    fn one_thread_is_enough_for_one_caller() {
        let served = serve(3);
        let mut who = BTreeSet::new();
        for n in 0..1000 {
            served.ask(n, Work::Nothing);
            let (number, thread) = served.answer();
            assert_eq!(number, n);
            if u64::from(n) > AFTERWARDS + 8 {
                who.insert(format!("{thread:?}"));
            }
        }
        assert!(who.len() <= 2, "{who:?} answered in turn");
        served.end();
    }

    #[test]
    fn one_that_waits_for_the_disk_or_is_stuck_holds_nobody_up() {
        for stuck in [true, false] {
            let served = serve(3);
            let mut let_go = Vec::new();
            for n in 0..20 {
                let (go, until) = channel();
                let_go.push(go);
                served.ask(n, if stuck { Work::Stuck(until) } else { Work::Disk(until) });
                served.ask(1000 + n, Work::Nothing);
                assert_eq!(served.answer().0, 1000 + n, "stuck: {stuck}");
            }
            drop(let_go);
            let mut left: BTreeSet<u32> = (0..20).collect();
            while !left.is_empty() {
                left.remove(&served.answer().0);
            }
            served.ask(2000, Work::Nothing);
            assert_eq!(served.answer().0, 2000);
            served.end();
        }
    }

    #[test]
    fn of_those_that_come_to_park_at_the_same_time_one_reads() {
        for _ in 0..200 {
            let readers = Arc::new(Readers::new(2));
            let (told, turns) = channel();
            let arrived = Arc::new(std::sync::Barrier::new(3));
            // Nobody can park while this is held, so nobody sees that the others do.
            let mut held = readers.state();
            held.threads = 2;
            for _ in 0..2 {
                let (readers, told, arrived) = (Arc::clone(&readers), told.clone(), Arc::clone(&arrived));
                std::thread::spawn(move || {
                    arrived.wait();
                    let _ = told.send(readers.turn());
                });
            }
            arrived.wait();
            std::thread::yield_now();
            drop(held);
            let first = turns.recv_timeout(PATIENCE).expect("nobody reads");
            assert!(matches!(first, Turn::Read | Turn::StartAndRead), "{first:?}");
            readers.end();
            assert_eq!(turns.recv_timeout(PATIENCE), Ok(Turn::End));
        }
    }

    #[test]
    fn another_one_reads_while_requests_wait_and_not_because_they_come_soon() {
        let readers = Readers::new(2);
        let read = |times: u32, is_there: bool| {
            for _ in 0..times {
                readers.reading.fetch_add(1, SeqCst);
                readers.read(|| is_there, || ());
            }
            readers.more.load(SeqCst)
        };
        assert_eq!(read(1000, false), 0);
        // The first is not asked about; and a pause of this thread may hide some.
        let deadline = Instant::now() + PATIENCE;
        while read(BACKLOG + 1, true) == 0 {
            assert!(Instant::now() < deadline, "requests wait");
        }
        assert_eq!(read(NO_BACKLOG, false), 0);
    }

    #[test]
    fn who_has_nothing_to_do_sleeps_and_is_there_when_it_is_needed() {
        let served = serve(3);
        for n in 0..3 {
            Served::until("the deputy sleeps", || served.readers.asleep.load(SeqCst));
            let (go, until) = channel();
            served.ask(n, Work::Stuck(until));
            served.ask(10 + n, Work::Nothing);
            assert_eq!(served.answer().0, 10 + n);
            drop(go);
            assert_eq!(served.answer().0, n);
        }
        served.end();
    }

    #[test]
    fn there_is_a_limit() {
        let readers = Readers::new(2);
        for _ in 0..MOST {
            assert!(readers.begin());
        }
        assert!(!readers.begin());
        assert!(!readers.about_to_wait());
        readers.end();
        readers.gone();
        assert!(!readers.begin(), "everything ends");
    }
}
