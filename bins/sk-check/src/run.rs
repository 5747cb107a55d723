//! Which checkers run now, when is each probed, and who is told?

use crate::custom::{Custom, Happened};
use crate::probe::{Outcome, Prober, local};
use crate::spec::{Spec, Target};
use crate::verdict::Verdict;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use net::rtnl::{Monitor, Rtnl};
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::failure::Failure;
use wire::lines::{EmitError, LineBuffer, LineError};
use wire::{Emitter, Message};

const STDIN: Token = Token(0);
const MONITOR: Token = Token(1);
/// The end of custom checker number n is `CUSTOM + n`.
const CUSTOM: usize = 16;

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

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<net::NetError> for End {
    fn from(error: net::NetError) -> Self {
        Self::Failed(Failure::system("links and addresses", error))
    }
}

struct Checker {
    name: String,
    class: String,
    interval_ms: u64,
    timeout_ms: u64,
    target: Target,
    /// While its class is enabled.
    verdict: Option<Verdict>,
    due: Option<u64>,
    /// In which life of its application the other module was last seen ready.
    application: Option<String>,
    custom: Option<Custom>,
    /// The descriptor in the poll.
    watched: Option<RawFd>,
    /// That this host cannot ask was said.
    told: bool,
}

struct Supervisor {
    emitter: Emitter,
    checkers: Vec<Checker>,
    /// Enabled classes, and the number of their present life.
    classes: BTreeMap<String, u64>,
    prober: Prober,
    poll: Poll,
    /// Open while some checker looks at links or addresses.
    rtnl: Option<(Rtnl, Monitor)>,
}

pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let spec = Spec::load(path)?;
    let poll = Poll::new().map_err(|e| Failure::system("epoll", e))?;
    let emitter = Emitter::new("sk-check", &spec.node, &spec.module);
    let checkers: Vec<Checker> = spec
        .checkers
        .into_iter()
        .map(|spec| Checker {
            custom: match &spec.target {
                Target::Custom(custom) => Some(Custom::new(custom.clone())),
                _ => None,
            },
            name: spec.name,
            class: spec.class,
            interval_ms: spec.interval_ms,
            timeout_ms: spec.timeout_ms,
            target: spec.target,
            verdict: None,
            due: None,
            application: None,
            watched: None,
            told: false,
        })
        .collect();
    let local = checkers.iter().any(|c| matches!(c.target, Target::Intf { .. } | Target::Ip { .. }));
    let rtnl = if local {
        let failed = |e| Failure::system("links and addresses", e);
        let monitor = Monitor::open().map_err(failed)?;
        poll.registry()
            .register(&mut SourceFd(&monitor.as_fd().as_raw_fd()), MONITOR, Interest::READABLE)
            .map_err(|e| Failure::system("epoll", e))?;
        Some((Rtnl::open().map_err(failed)?, monitor))
    } else {
        None
    };
    let prober = Prober::new(poll.registry())?;
    let mut supervisor = Supervisor { emitter, checkers, classes: BTreeMap::new(), prober, poll, rtnl };
    let result = supervisor.serve();
    supervisor.end();
    match result {
        Ok(()) | Err(End::Orderly) => Ok(()),
        Err(End::Failed(failure)) => Err(failure),
    }
}

impl Supervisor {
    fn serve(&mut self) -> Result<(), End> {
        let failed = |what, error| End::Failed(Failure::system(what, error));
        watch_stdin(&self.poll).map_err(|e| failed("stdin must be a pipe, socket or terminal", e))?;
        let mut events = Events::with_capacity(256);
        let mut orders = LineBuffer::new();
        loop {
            let timeout = self.deadline().map(|t| Duration::from_millis(t.saturating_sub(monotonic_ms())));
            match self.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(failed("epoll", e)),
                _ => {}
            }
            let mut ordered = false;
            let mut outcomes = Vec::new();
            for event in &events {
                match event.token() {
                    STDIN => ordered = true,
                    MONITOR => self.local_change()?,
                    token if Prober::owns(token) => outcomes.extend(self.prober.ready(event, monotonic_ms())),
                    Token(token) => self.custom_ended(token.saturating_sub(CUSTOM))?,
                }
            }
            for (number, outcome) in outcomes {
                self.judge(number, outcome)?;
            }
            if ordered && !self.take_orders(&mut orders)? {
                return Ok(());
            }
            self.timers()?;
        }
    }

    fn deadline(&self) -> Option<u64> {
        let probes = self.checkers.iter().filter_map(|c| c.due);
        let customs = self.checkers.iter().filter_map(|c| c.custom.as_ref()?.deadline());
        probes.chain(customs).chain(self.prober.deadline()).min()
    }

    fn timers(&mut self) -> Result<(), End> {
        let now = monotonic_ms();
        for (number, outcome) in self.prober.expire(now) {
            self.judge(number, outcome)?;
        }
        for number in 0..self.checkers.len() {
            let Some(checker) = self.checkers.get_mut(number) else { continue };
            if checker.due.is_some_and(|at| at <= now) {
                checker.due = None;
                let (target, timeout) = (checker.target.clone(), checker.timeout_ms);
                let outcome = match &target {
                    Target::Intf { .. } | Target::Ip { .. } => self.look(&target)?,
                    _ => self.prober.start(number, &target, timeout, now),
                };
                if let Some(outcome) = outcome {
                    self.judge(number, outcome)?;
                }
            }
            self.custom_tick(number, now)?;
        }
        Ok(())
    }

    /// What the kernel says of this host's own links and addresses.
    fn look(&mut self, target: &Target) -> Result<Option<Outcome>, End> {
        let Some((rtnl, _)) = &mut self.rtnl else { return Ok(None) };
        let found = match target {
            Target::Intf { address } => local::interface(rtnl, *address)?,
            Target::Ip { address } => local::address(rtnl, *address)?,
            _ => return Ok(None),
        };
        Ok(Some(found.map(|()| None).map_err(Into::into)))
    }

    /// A link or address changed: whoever looks at one looks again.
    fn local_change(&mut self) -> Result<(), End> {
        let Some((_, monitor)) = &mut self.rtnl else { return Ok(()) };
        monitor.read()?;
        let now = monotonic_ms();
        for checker in &mut self.checkers {
            if checker.verdict.is_some() && matches!(checker.target, Target::Intf { .. } | Target::Ip { .. }) {
                checker.due = Some(now);
            }
        }
        Ok(())
    }

    fn judge(&mut self, number: usize, outcome: Outcome) -> Result<(), End> {
        let Some(checker) = self.checkers.get_mut(number) else { return Ok(()) };
        let Some(verdict) = &mut checker.verdict else { return Ok(()) };
        let now = monotonic_ms();
        if let Err(trouble) = &outcome
            && trouble.own
        {
            // A host that cannot ask knows nothing: its own trouble must not end an application.
            if !std::mem::replace(&mut checker.told, true) {
                sys::warn!("sk-check: {} cannot be checked: {}", checker.name, trouble.reason);
            }
            checker.due = Some(now.saturating_add(checker.interval_ms));
            return Ok(());
        }
        checker.told = false;
        let was = verdict.value();
        let judgement = verdict.judge(now, outcome.is_ok());
        checker.due = Some(now.saturating_add(judgement.again_in_ms));
        let life = self.classes.get(&checker.class).copied().unwrap_or_default();
        if let Some(up) = judgement.report {
            let value = if up { "up" } else { "down" };
            let reason = outcome.as_ref().err().map(|t| &t.reason);
            self.emitter
                .emit("check", &json!({"name": checker.name, "value": value, "reason": reason, "life": life}))?;
        }
        match outcome {
            Ok(Some(application)) => {
                let known = checker.application.replace(application.clone());
                if was == Some(true) && known.is_some_and(|known| known != application) {
                    self.emitter.emit("restarted", &json!({"name": checker.name, "life": life}))?;
                }
            }
            // While it is down a new life is expected.
            Err(_) if judgement.report == Some(false) => checker.application = None,
            _ => {}
        }
        Ok(())
    }

    // --- custom checkers ---

    fn custom_tick(&mut self, number: usize, now: u64) -> Result<(), End> {
        let Some(checker) = self.checkers.get_mut(number) else { return Ok(()) };
        let Some(happened) = checker.custom.as_mut().and_then(|c| c.tick(now)) else { return Ok(()) };
        self.tell(number, &happened)?;
        self.watch_end(number)
    }

    fn watch_end(&mut self, number: usize) -> Result<(), End> {
        let Some(checker) = self.checkers.get_mut(number) else { return Ok(()) };
        let Some(fd) = checker.custom.as_ref().and_then(Custom::end_fd) else { return Ok(()) };
        if checker.watched == Some(fd) {
            return Ok(());
        }
        checker.watched = Some(fd);
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), Token(CUSTOM + number), Interest::READABLE)
            .map_err(|e| End::Failed(Failure::system("epoll", e)))
    }

    fn custom_ended(&mut self, number: usize) -> Result<(), End> {
        let Some(checker) = self.checkers.get_mut(number) else { return Ok(()) };
        let Some(custom) = &mut checker.custom else { return Ok(()) };
        if let Some(fd) = checker.watched.take() {
            // Closing would do; an error can only mean that it was not registered.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        match custom.ended(monotonic_ms()) {
            Some(happened) => self.tell(number, &happened),
            None => Ok(()),
        }
    }

    fn tell(&self, number: usize, happened: &Happened) -> Result<(), End> {
        let Some(checker) = self.checkers.get(number) else { return Ok(()) };
        let life = self.classes.get(&checker.class).copied().unwrap_or_default();
        let mut body = serde_json::to_value(happened).unwrap_or_default();
        body["name"] = json!(checker.name);
        body["life"] = json!(life);
        Ok(self.emitter.emit("custom", &body)?)
    }

    /// Nothing that was started here is left behind.
    fn end(&mut self) {
        let now = monotonic_ms();
        let mut all: Vec<&mut Custom> = self.checkers.iter_mut().filter_map(|c| c.custom.as_mut()).collect();
        for custom in &mut all {
            custom.dismiss(now);
        }
        for custom in all {
            custom.end_now();
        }
    }

    // --- orders ---

    /// Takes the orders that wait; `false` at the end of stdin or after `quit`.
    fn take_orders(&mut self, buffer: &mut LineBuffer) -> Result<bool, End> {
        let failed = |e| End::Failed(Failure::system("stdin", e));
        buffer.take_waiting(&mut io::stdin().lock(), failed, |order| self.order(order))
    }

    fn order(&mut self, order: Result<Message, LineError>) -> Result<bool, End> {
        let order = match order {
            Ok(order) => order,
            Err(error) => {
                sys::warn!("sk-check: order refused: {error}");
                return Ok(true);
            }
        };
        match (order.kind.as_str(), order.text("class")) {
            ("enable", Some(class)) => {
                let life = order.value["life"].as_u64().unwrap_or_default();
                // A new life of a class that was not disabled begins anew all the same.
                self.switch(class, false);
                self.classes.insert(class.to_owned(), life);
                self.switch(class, true);
            }
            ("disable", Some(class)) => {
                self.classes.remove(class);
                self.switch(class, false);
            }
            ("enable" | "disable", None) => sys::warn!("sk-check: order `{}` refused: it has no `class`", order.kind),
            ("list", _) => self.list()?,
            ("ping", _) => self.emitter.emit("pong", &json!({}))?,
            ("quit", _) => return Ok(false),
            (other, _) => sys::warn!("sk-check: unknown order `{other}` skipped"),
        }
        Ok(true)
    }

    fn switch(&mut self, class: &str, on: bool) {
        let now = monotonic_ms();
        for (number, checker) in self.checkers.iter_mut().enumerate().filter(|(_, c)| c.class == class) {
            match (on, &mut checker.custom) {
                (true, Some(custom)) => custom.want(now),
                (false, Some(custom)) => custom.dismiss(now),
                (true, None) => {
                    // Links and addresses are facts; a service may need a moment, and a packet may be lost.
                    let (grace, needed) = match checker.target {
                        Target::Intf { .. } => (0, 1),
                        Target::Ip { .. } => (0, 2),
                        _ if checker.class == "pre" => (0, 2),
                        _ => (checker.interval_ms, 2),
                    };
                    checker.verdict = Some(Verdict::new(checker.interval_ms, grace, needed, now));
                    checker.due = Some(now);
                    checker.application = None;
                }
                (false, None) => {
                    checker.verdict = None;
                    checker.due = None;
                    self.prober.cancel(number);
                }
            }
        }
    }

    fn list(&self) -> Result<(), EmitError> {
        let checkers: Vec<_> = self
            .checkers
            .iter()
            .map(|c| {
                let value = c.verdict.as_ref().and_then(Verdict::value).map(|up| if up { "up" } else { "down" });
                let running = c.custom.as_ref().and_then(Custom::end_fd).is_some();
                json!({"name": c.name, "class": c.class, "enabled": self.classes.contains_key(&c.class),
                    "value": value, "running": running})
            })
            .collect();
        let classes: Vec<_> = self.classes.keys().collect();
        self.emitter.emit("list", &json!({"classes": classes, "checkers": checkers}))
    }
}

fn watch_stdin(poll: &Poll) -> io::Result<()> {
    let stdin = io::stdin();
    let flags = rustix::fs::fcntl_getfl(stdin.as_fd())?;
    rustix::fs::fcntl_setfl(stdin.as_fd(), flags | rustix::fs::OFlags::NONBLOCK)?;
    poll.registry().register(&mut SourceFd(&stdin.as_raw_fd()), STDIN, Interest::READABLE)
}
