//! When is the process table read, and who is told what was found?

use crate::births::{Births, News};
use crate::services::{Services, unit};
use crate::spec::Spec;
use crate::watch::Watch;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::failure::Failure;
use sys::pidfd::PidFd;
use wire::lines::{EmitError, LineBuffer, LineError};
use wire::{Emitter, Message};

const STDIN: Token = Token(usize::MAX);
const BIRTHS: Token = Token(usize::MAX - 1);
const SERVICES: Token = Token(usize::MAX - 2);
/// Period of the scans while something may be about to appear.
const FAST_MS: u64 = 200;
/// Delay of a scan that is repeated because a process ended during the former one.
const AGAIN_MS: u64 = 5;
/// How long after an enabling or a death scans are fast.
const FAST_SPAN_MS: u64 = 30_000;

/// Why the loop ends before its time.
enum End {
    /// Nobody listens.
    Orderly,
    Failed(Failure),
}

impl From<EmitError> for End {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Closed => Self::Orderly,
            other => Self::Failed(Failure::system("stdout", other)),
        }
    }
}

struct Watcher {
    emitter: Emitter,
    watches: Vec<Watch>,
    always: BTreeSet<String>,
    enabled: BTreeSet<String>,
    off: bool,
    poll_ms: u64,
    next_scan: u64,
    last_scan: u64,
    fast_until: u64,
    /// One descriptor for each process that any watch counts.
    ends: BTreeMap<i32, PidFd>,
    /// Descriptors ran out: told once.
    told: bool,
    /// With services to watch, and a systemd.
    services: Option<Services>,
    /// systemd does not answer: told once.
    unanswered: bool,
}

pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    sys::signals::die_with_parent().map_err(|e| Failure::system("prctl(PR_SET_PDEATHSIG)", e))?;
    let spec = Spec::load(path)?;
    let watches: Result<Vec<_>, _> = spec.processes.into_iter().map(Watch::new).collect();
    let mut watcher = Watcher {
        emitter: Emitter::new("sk-errd", &spec.node, &spec.module),
        watches: watches.map_err(|e| Failure::specification(format!("{}: {e}", path.display())))?,
        always: spec.classes.into_iter().collect(),
        enabled: BTreeSet::new(),
        off: false,
        poll_ms: spec.poll_ms,
        next_scan: 0,
        last_scan: 0,
        fast_until: 0,
        ends: BTreeMap::new(),
        told: false,
        services: None,
        unanswered: false,
    };
    if let Err(End::Failed(failure)) = watcher.find_services() {
        return Err(failure);
    }
    watcher.apply_classes();
    match watcher.serve() {
        Ok(()) | Err(End::Orderly) => Ok(()),
        Err(End::Failed(failure)) => Err(failure),
    }
}

impl Watcher {
    fn serve(&mut self) -> Result<(), End> {
        let failed = |what, error| End::Failed(Failure::system(what, error));
        let mut poll = Poll::new().map_err(|e| failed("epoll", e))?;
        watch_stdin(&poll).map_err(|e| failed("stdin must be a pipe, socket or terminal", e))?;
        let mut events = Events::with_capacity(256);
        let mut orders = LineBuffer::new();
        // Where it is not permitted, scans alone find what appears.
        let births = Births::subscribe()
            .ok()
            .filter(|b| poll.registry().register(&mut SourceFd(&b.as_raw_fd()), BIRTHS, Interest::READABLE).is_ok());
        loop {
            let timeout = self.deadline().map(|t| Duration::from_millis(t.saturating_sub(monotonic_ms())));
            match poll.poll(&mut events, timeout) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(failed("epoll", e)),
                _ => {}
            }
            let mut ordered = false;
            for event in &events {
                match event.token() {
                    STDIN => ordered = true,
                    BIRTHS => {
                        if let Some(births) = &births {
                            self.appeared(&births.read());
                        }
                    }
                    SERVICES => self.services_answer(&poll)?,
                    Token(pid) => self.ended(&poll, i32::try_from(pid).unwrap_or_default()),
                }
            }
            if ordered && !self.orders(&mut orders)? {
                return Ok(());
            }
            let now = monotonic_ms();
            if let Some(why) = self.services.as_mut().and_then(|s| s.expire(&poll, now)) {
                self.complain(&why);
            }
            if self.watches.iter().any(Watch::is_enabled) && self.next_scan <= now {
                self.scan(&poll)?;
            }
        }
    }

    /// When the table must be read again; `None` while nothing is watched.
    fn deadline(&self) -> Option<u64> {
        let scan = self.watches.iter().any(Watch::is_enabled).then_some(self.next_scan);
        scan.into_iter().chain(self.services.as_ref().and_then(Services::deadline)).min()
    }

    fn ended(&mut self, poll: &Poll, pid: i32) {
        let Some(fd) = self.ends.remove(&pid) else { return };
        // Closing would do; an error can only mean that it was not registered.
        let _ = poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        let mut short = false;
        for watch in &mut self.watches {
            short |= watch.lost(pid);
        }
        if short {
            self.scan_soon();
        }
    }

    /// Asks for a scan if what appeared can change a value.
    fn appeared(&mut self, news: &News) {
        let wanted = match news {
            News::Overrun => self.watches.iter().any(Watch::is_curious),
            News::Changed(pids) if self.watches.iter().any(Watch::is_curious) => pids
                .iter()
                .filter_map(|pid| sys::table::read(*pid))
                .any(|p| self.watches.iter().any(|w| w.is_curious() && !w.pids.contains(&p.pid) && w.matcher.fits(&p))),
            News::Changed(_) => false,
        };
        if wanted {
            // Not faster than this, however many of its kind start and end.
            self.next_scan = self.next_scan.min(self.last_scan + AGAIN_MS);
        }
    }

    fn scan_soon(&mut self) {
        let now = monotonic_ms();
        self.next_scan = now;
        self.fast_until = now + FAST_SPAN_MS;
    }

    fn scan(&mut self, poll: &Poll) -> Result<(), End> {
        let watched = |w: &&Watch| w.is_enabled() && !w.spec.service;
        let table =
            sys::table::scan_named(|comm| self.watches.iter().filter(watched).any(|w| w.matcher.fits_name(comm)))
                .map_err(|e| End::Failed(Failure::system("/proc", e)))?;
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let mut counted = BTreeSet::new();
        for watch in self.watches.iter_mut().filter(|w| w.is_enabled()) {
            if watch.spec.service {
                counted.extend(watch.pids.iter().copied());
                continue;
            }
            watch.pids = table.iter().filter(|p| p.pid != own && watch.matcher.fits(p)).map(|p| p.pid).collect();
            counted.extend(watch.pids.iter().copied());
        }
        self.ends.retain(|pid, fd| {
            let keep = counted.contains(pid);
            if !keep {
                // As in `ended`.
                let _ = poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
            }
            keep
        });
        let mut again = false;
        for process in table.iter().filter(|p| counted.contains(&p.pid)) {
            if !self.ends.contains_key(&process.pid) {
                again |= !self.follow(poll, process.pid, process.start);
            }
        }
        let now = monotonic_ms();
        self.last_scan = now;
        if self.watches.iter().any(|w| w.is_enabled() && w.spec.service)
            && let Some(services) = &mut self.services
            && let Err(error) = services.ask(poll, SERVICES, now)
        {
            self.complain(&error.to_string());
        }
        for watch in self.watches.iter_mut().filter(|w| !w.spec.service) {
            if let Some(change) = watch.evaluate(now) {
                self.emitter.emit("proc", &change)?;
            }
        }
        let fast = now < self.fast_until && self.watches.iter().any(|w| w.is_enabled() && w.value() != Some(true));
        let period = if again {
            AGAIN_MS
        } else if fast {
            FAST_MS.min(self.poll_ms)
        } else {
            self.poll_ms
        };
        let due = self.watches.iter().filter_map(|w| w.deadline(now)).min();
        self.next_scan = due.into_iter().chain([now + period]).min().unwrap_or(now);
        Ok(())
    }

    /// Services are watched where there is a systemd; elsewhere that is said, once.
    fn find_services(&mut self) -> Result<(), End> {
        let names: Vec<String> = self.watches.iter().filter(|w| w.spec.service).map(|w| w.spec.name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        match Services::new(names.into_iter()) {
            Ok(services) => self.services = Some(services),
            Err(reason) => self.emitter.emit("problem", &json!({"reason": reason}))?,
        }
        Ok(())
    }

    /// systemd's answer: values change with it, and main processes are followed.
    fn services_answer(&mut self, poll: &Poll) -> Result<(), End> {
        let Some(answer) = self.services.as_mut().and_then(|s| s.read(poll)) else { return Ok(()) };
        let units = match answer {
            Ok(units) => units,
            Err(why) => {
                self.complain(&why);
                return Ok(());
            }
        };
        self.unanswered = false;
        let now = monotonic_ms();
        let mut followed = Vec::new();
        for watch in self.watches.iter_mut().filter(|w| w.spec.service && w.is_enabled()) {
            watch.see_unit(units.get(&unit(&watch.spec.name)).copied());
            followed.extend(watch.pids.iter().copied().filter(|pid| *pid > 0));
            if let Some(change) = watch.evaluate(now) {
                self.emitter.emit("proc", &change)?;
            }
        }
        for pid in followed {
            if !self.ends.contains_key(&pid)
                && let Some(process) = sys::table::read(pid)
                && !self.follow(poll, pid, process.start)
            {
                self.scan_soon();
            }
        }
        let due = self.watches.iter().filter_map(|w| w.deadline(now)).min();
        self.next_scan = due.into_iter().chain([self.next_scan]).min().unwrap_or(now);
        Ok(())
    }

    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.unanswered, true) {
            sys::warn!("sk-errd: services cannot be asked for: {why}; what was known of them is kept");
        }
    }

    /// Watches for the end of a process. `false` when it has ended since the table was read.
    fn follow(&mut self, poll: &Poll, pid: i32, start: u64) -> bool {
        let registered = PidFd::open(pid).and_then(|fd| {
            let Some(fd) = fd else { return Ok(None) };
            // The pid may have passed to another process between the scan and the opening.
            if sys::table::read(pid).is_none_or(|p| p.start != start) {
                return Ok(None);
            }
            let token = Token(usize::try_from(pid).unwrap_or_default());
            poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
            Ok(Some(fd))
        });
        match registered {
            Ok(Some(fd)) => {
                self.ends.insert(pid, fd);
                true
            }
            Ok(None) => false,
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    sys::warn!(
                        "sk-errd: cannot follow process {pid} ({error}); ends are noticed every {} ms only",
                        self.poll_ms
                    );
                }
                true
            }
        }
    }

    /// Takes the orders that wait; `false` at the end of stdin or after `quit`.
    fn orders(&mut self, buffer: &mut LineBuffer) -> Result<bool, End> {
        let failed = |e| End::Failed(Failure::system("stdin", e));
        buffer.take_waiting(&mut io::stdin().lock(), failed, |order| self.order(order))
    }

    fn order(&mut self, order: Result<Message, LineError>) -> Result<bool, End> {
        let order = match order {
            Ok(order) => order,
            Err(error) => {
                sys::warn!("sk-errd: order refused: {error}");
                return Ok(true);
            }
        };
        match (order.kind.as_str(), order.text("class")) {
            ("enable", Some(class)) => {
                self.enabled.insert(class.to_owned());
            }
            ("disable", Some(class)) => {
                self.enabled.remove(class);
            }
            ("enable" | "disable", None) => sys::warn!("sk-errd: order `{}` refused: it has no `class`", order.kind),
            ("off", _) => self.off = true,
            ("on", _) => self.off = false,
            ("list", _) => self.list()?,
            // Orders are taken between scans: an answer says that the loop goes round.
            ("ping", _) => self.emitter.emit("pong", &json!({}))?,
            ("quit", _) => return Ok(false),
            (other, _) => sys::warn!("sk-errd: unknown order `{other}` skipped"),
        }
        self.apply_classes();
        Ok(true)
    }

    /// Begins and ends watching according to classes and the switch.
    fn apply_classes(&mut self) {
        let now = monotonic_ms();
        let mut begun = false;
        for watch in &mut self.watches {
            let class = &watch.spec.class;
            let wanted = !self.off && (self.enabled.contains(class) || self.always.contains(class));
            if wanted && !watch.is_enabled() {
                watch.enable(now, self.poll_ms);
                begun = true;
            } else if !wanted && watch.is_enabled() {
                watch.disable();
            }
        }
        if begun {
            self.scan_soon();
        }
    }

    fn list(&self) -> Result<(), EmitError> {
        let processes: Vec<_> = self
            .watches
            .iter()
            .map(|w| {
                json!({"name": w.spec.name, "class": w.spec.class, "enabled": w.is_enabled(), "running": w.pids.len(),
                    "value": w.value().map(|up| if up { "up" } else { "down" }), "action": w.spec.action})
            })
            .collect();
        let classes: Vec<_> = self.always.union(&self.enabled).collect();
        self.emitter.emit("list", &json!({"off": self.off, "classes": classes, "processes": processes}))
    }
}

fn watch_stdin(poll: &Poll) -> io::Result<()> {
    let stdin = io::stdin();
    let flags = rustix::fs::fcntl_getfl(stdin.as_fd())?;
    rustix::fs::fcntl_setfl(stdin.as_fd(), flags | rustix::fs::OFlags::NONBLOCK)?;
    poll.registry().register(&mut SourceFd(&stdin.as_raw_fd()), STDIN, Interest::READABLE)
}
