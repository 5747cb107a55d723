//! The runner of one module: what happens, in which order, and who is told. The decisions are `automaton`'s.

mod act;
mod alive;
mod arbiter;
mod board;
mod check;
mod children;
mod control;
mod dates;
mod farm;
mod input;
mod measures;
mod policy;
mod renew;
mod replica;
mod reports;
mod requests;
mod scripts;

use crate::instance::{BootPolicy, Instance};
use crate::{Failure, client, exit};
use act::Links;
use automaton::{Core, Event, Persisted, State, StateName};
use board::Facts;
use children::Children;
use control::Board;
use input::Input;
use nix::sys::signal::{SigSet, Signal};
pub(crate) use renew::child_specs;
use scripts::Scripts;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::roots::Roots;

/// How long a new runner waits for the children of a former life to end.
const FORMER_LIFE: Duration = Duration::from_secs(40);
/// Snapshots for watchers are made at most this often when only figures changed.
const FIGURES_EVERY_MS: u64 = 200;

pub(crate) struct Runner {
    instance: Instance,
    core: Core,
    persisted: Persisted,
    children: Children,
    scripts: Scripts,
    facts: Facts,
    links: Links,
    board: Arc<Board>,
    /// Ends of scripts that completed without running, and other facts known at once: given to the core after the present actions.
    pending: VecDeque<Event>,
    /// When the core begins (monotonic ms: `boot_delay`), and whether the boot of the host starts the module.
    begin_at: Option<(u64, bool)>,
    /// SIGTERM: leave once in STOP.
    ending: bool,
    changed: bool,
    /// The state is another one since the last snapshot.
    state_changed: bool,
    figures_at: u64,
    /// `state` as it should read, when it could not be written.
    unwritten: Option<String>,
    /// The last snapshot could not be written.
    run_full: bool,
}

pub(crate) fn run(roots: &Roots, module: &str, ready_fd: Option<i32>, boot: bool) -> Result<u8, Failure> {
    let instance = Instance::load(roots, module)?;
    for directory in [instance.run_dir(), instance.user_var()] {
        std::fs::create_dir_all(&directory).map_err(|e| Failure::system(directory.display(), e))?;
    }
    if client::connect(roots, module)?.is_some() {
        return Err(already_running(module));
    }
    let signals = block_signals()?;
    let lock = sys::lock::LockFile::open(&instance.run_dir().join("lock"))
        .map_err(|e| Failure::system(instance.run_dir().join("lock").display(), e))?;
    wait_for_former_life(roots, &instance, &lock)?;

    let (inputs, received) = channel();
    let board = Arc::new(Board::default());
    let mut facts = Facts::new(&instance).map_err(|e| Failure::system("the module's log", e))?;
    let mut persisted = instance.load_core(&mut |message| facts.say('W', "heart", message));
    let starts = boot_decision(&instance, &mut persisted, boot);
    let settings = instance.settings();
    let incarnation = incarnation()?;
    facts.application.0 = incarnation;
    facts.journal.begin(&settings, &persisted, incarnation);
    instance.tidy_userlogs();
    if let Err(error) = instance.write_arbiter_spec() {
        // Only sk-arbiter show -m would miss it.
        facts.say('W', "heart", &format!("arbiter.json: {error}"));
    }
    let mut runner = Runner {
        core: Core::new(settings, persisted.clone(), incarnation),
        children: Children::new(inputs.clone(), lock.as_raw_fd()),
        scripts: Scripts::new(inputs.clone()),
        links: Links::new(),
        pending: VecDeque::new(),
        begin_at: None,
        ending: false,
        changed: true,
        state_changed: false,
        figures_at: 0,
        unwritten: None,
        run_full: false,
        instance,
        persisted,
        facts,
        board: board.clone(),
    };
    let socket = roots.control_socket(module);
    control::serve(&socket, inputs.clone(), board).map_err(|e| Failure::system(socket.display(), e))?;
    watch_signals(signals, inputs.clone());
    runner.state_files(runner.core.state());
    runner.recall_switches();
    let delay = if starts { runner.instance.boot_delay() } else { Duration::ZERO };
    runner.begin_at = Some((monotonic_ms() + delay.as_millis() as u64, starts));
    runner.run_timers(monotonic_ms());
    runner.publish_snapshot(true);
    announce_ready(ready_fd);
    runner.serve(&received);
    // Best effort: a stale socket refuses connections just as well as a missing one.
    let _ = std::fs::remove_file(&socket);
    Ok(0)
}

fn already_running(module: &str) -> Failure {
    Failure::new(exit::ALREADY_RUNNING, format!("module {module} already has a runner"))
        .hint(format!("ask it: sk-module state -m {module}"))
}

/// SIGTERM and SIGINT are taken by one thread; blocked before any other thread exists.
fn block_signals() -> Result<SigSet, Failure> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.add(Signal::SIGHUP);
    set.thread_block().map_err(|e| Failure::system("signal mask", e))?;
    Ok(set)
}

fn watch_signals(set: SigSet, inputs: Sender<Input>) {
    std::thread::spawn(move || {
        while let Ok(signal) = set.wait() {
            if inputs.send(Input::Signal(signal)).is_err() {
                return;
            }
        }
    });
}

/// The children of a runner that died hold its lock until they have taken the safe side. Nothing is published before.
fn wait_for_former_life(roots: &Roots, instance: &Instance, lock: &sys::lock::LockFile) -> Result<(), Failure> {
    let deadline = monotonic_ms() + FORMER_LIFE.as_millis() as u64;
    loop {
        match lock.try_exclusive() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(Failure::system("the module's lock", error)),
        }
        if client::connect(roots, &instance.module)?.is_some() {
            return Err(already_running(&instance.module));
        }
        if monotonic_ms() >= deadline {
            return Err(Failure::new(
                exit::SYSTEM,
                format!(
                    "processes of a former runner of {} still hold {}/lock",
                    instance.module,
                    instance.run_dir().display()
                ),
            )
            .hint("list them with: fuser -v on that file; they end by themselves once their disk answers"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the attribute `boot` makes of the first start after a boot; `wanted` decides otherwise.
fn boot_decision(instance: &Instance, persisted: &mut Persisted, boot: bool) -> bool {
    if !boot {
        return false;
    }
    let starts = match instance.boot_policy() {
        BootPolicy::On => true,
        BootPolicy::Auto => persisted.wanted,
        BootPolicy::Off => false,
    };
    persisted.wanted = starts;
    starts
}

fn incarnation() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Failure::system("random source", e))?;
    // JSON numbers are exact up to 2^53 everywhere.
    Ok(u64::from_ne_bytes(bytes) >> 11)
}

fn announce_ready(fd: Option<i32>) {
    if let Some(fd) = fd {
        // SAFETY: the caller passed this descriptor for this one use and gave up its ownership.
        let file = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        // Nobody listens: not an error of ours.
        let _ = std::io::Write::write_all(&mut &file, b"\n");
    }
}

impl Runner {
    fn serve(&mut self, received: &Receiver<Input>) {
        loop {
            let now = monotonic_ms();
            self.run_timers(now);
            if self.ending && self.core.state().name == StateName::Stop && !self.children.any_running() {
                self.facts.say('I', "heart", "The runner ends");
                return;
            }
            match received.recv_timeout(self.until_next(monotonic_ms())) {
                Ok(input) => {
                    self.take(input);
                    // What has already arrived is taken before the snapshot is made.
                    for _ in 0..64 {
                        match received.try_recv() {
                            Ok(input) => self.take(input),
                            Err(_) => break,
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.publish_snapshot(false);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Line { kind, generation, line } => {
                if self.children.is_current(kind, generation) {
                    self.child_line(kind, &line);
                }
            }
            Input::Words { kind, line } => self.facts.say('W', kind.program(), &line),
            Input::Ended { kind, generation, how, code } => self.child_ended(kind, generation, &how, code),
            Input::ScriptEnded { id, exit } => {
                if let Some(overdue) = self.scripts.ended(id) {
                    self.tell(Event::ScriptDone { id, exit: exit.filter(|_| !overdue) });
                }
            }
            Input::HandlerEnded { name, exit } => self.handler_ended(&name, exit),
            Input::Request { request, reply } if request["verb"] == "setgroups" => self.set_groups(&request, reply),
            Input::Request { request, reply } => {
                let answer = self.answer(&request);
                // The asker went away: the answer concerns nobody.
                let _ = reply.try_send(answer);
            }
            Input::Signal(signal) => {
                if !self.ending {
                    self.facts.say('I', "heart", &format!("The runner got {signal}"));
                    self.ending = true;
                    self.tell(Event::Command {
                        verb: automaton::Verb::Shutdown,
                        full: false,
                        identity: None,
                        origin: "SYSTEM/root".into(),
                    });
                }
            }
        }
    }

    /// Gives an event to the core, writes both into the journal, and executes what it decides.
    pub(super) fn tell(&mut self, event: Event) {
        self.tell_and_say(event, None);
    }

    /// The same, with a message (level, origin, words) that belongs right behind the first thing the core says.
    pub(super) fn tell_and_say(&mut self, event: Event, mut then: Option<(char, &str, String)>) {
        self.pending.push_back(event);
        self.tell_all(&mut then);
    }

    /// What was put aside while no event was being given.
    pub(super) fn tell_pending(&mut self) {
        self.tell_all(&mut None);
    }

    fn tell_all(&mut self, then: &mut Option<(char, &str, String)>) {
        while let Some(event) = self.pending.pop_front() {
            let (now, wall) = (monotonic_ms(), sys::clock::wall_ms());
            self.facts.journal.prepare(&self.core);
            let actions = self.core.handle(now, wall, event.clone());
            self.facts.journal.event(now, wall, &event, &actions);
            if let Some(news) = self.facts.journal.news() {
                self.facts.say('W', "safekit", &news);
            }
            for action in actions {
                self.execute(action);
                if let Some((level, from, message)) = then.take() {
                    self.facts.say(level, from, &message);
                }
            }
            self.changed = true;
        }
        // Before anybody is answered: who was told that the module has stopped must not read that it serves.
        if self.state_changed {
            self.publish_snapshot(true);
        }
    }

    /// What `errd` and `failover` were switched to by command outlives the runner.
    fn recall_switches(&mut self) {
        self.links.errd_off = self.instance.errd_is_off();
        let failover = self.persisted.failover_override.unwrap_or(self.core.settings().failover);
        let word = |on| if on { "on" } else { "off" };
        self.facts.assign("usersetting.errd", word(!self.links.errd_off));
        if self.instance.peer.is_some() {
            self.facts.assign("usersetting.failover", word(failover));
        }
        self.facts.assign("usersetting.checker", word(!self.persisted.checkers_off));
        // The traffic between the nodes is always encrypted and authenticated.
        self.facts.assign("usersetting.encryption", "on");
        self.show_boot();
        self.show_policy();
    }

    pub(super) fn show_boot(&mut self) {
        let value = match self.instance.boot_policy() {
            BootPolicy::On => "on",
            BootPolicy::Auto => "auto",
            BootPolicy::Off => "off",
        };
        self.facts.assign("usersetting.boot", value);
    }

    fn run_timers(&mut self, now: u64) {
        if let Some((_, boot)) = self.begin_at.take_if(|(at, _)| *at <= now) {
            self.begin(boot);
        }
        if self.core.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.tell(Event::Tick);
        }
        self.scripts.kill_overdue(now);
        self.link_timers(now);
        for kind in self.children.due(now) {
            self.start_child(kind);
        }
    }

    /// Starts by itself what must start. Without a usable key the module stays in STOP until the operator starts it.
    fn begin(&mut self, boot: bool) {
        match self.instance.check_key() {
            Err(reason) if boot || self.persisted.wanted => {
                self.facts.say('C', "heart", &format!("The module is not started: {reason}"));
                self.facts.refused = Some(reason);
            }
            _ => self.tell(Event::Begin { boot }),
        }
    }

    fn until_next(&self, now: u64) -> Duration {
        let mut next = [
            self.begin_at.map(|(at, _)| at),
            self.core.poll_timeout().map(|(at, _)| at),
            self.scripts.next_deadline(),
            self.children.next_due(),
            self.links.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min();
        if self.changed {
            next = Some(next.unwrap_or(u64::MAX).min(self.figures_at + FIGURES_EVERY_MS));
        }
        next.map_or(Duration::from_mins(1), |at| Duration::from_millis(at.saturating_sub(now).max(1)))
    }

    /// Makes the snapshot for watchers and `/run/sk/AM/state.json`. What is not a change of state is shown a few times a second at most.
    fn publish_snapshot(&mut self, now_please: bool) {
        let now = monotonic_ms();
        if !self.changed || !now_please && now < self.figures_at + FIGURES_EVERY_MS {
            return;
        }
        (self.changed, self.state_changed) = (false, false);
        self.figures_at = now;
        let snapshot = self.snapshot().to_string();
        let state = self.unwritten.take();
        let mut written = self.write_run_file("state.json", &snapshot);
        if let Some(state) = state.filter(|state| !self.write_run_file("state", state)) {
            self.unwritten = Some(state);
            written = false;
        }
        // Tried again until there is room: who reads an old state would believe in a service that is gone.
        self.changed = !written;
        self.run_full = !written;
        self.board.post(snapshot);
    }

    pub(super) fn state_files(&mut self, state: State) {
        let text = state.to_string();
        self.unwritten = if self.write_run_file("state", &text) { None } else { Some(text) };
    }

    /// Whether it was written. The first failure of several is told.
    fn write_run_file(&mut self, name: &str, text: &str) -> bool {
        let path = self.instance.run_dir().join(name);
        let temporary = self.instance.run_dir().join(format!(".{name}.new"));
        // Lost at power-off anyway: no fsync. A full /run costs the file, never the module.
        let written = std::fs::write(&temporary, format!("{text}\n")).and_then(|()| std::fs::rename(&temporary, &path));
        if let Err(error) = &written
            && !self.run_full
        {
            sys::warn!("sk-module: {}: {error}", path.display());
        }
        written.is_ok()
    }
}
