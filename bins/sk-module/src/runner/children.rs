//! Which children run, how are they started, spoken to and started again.

use super::input::{Input, Kind};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;

const FIRST_DELAY_MS: u64 = 50;
const LONGEST_DELAY_MS: u64 = 5_000;
/// A child that lived this long starts again without back-off.
const LONG_LIFE_MS: u64 = 10_000;
/// The same for the replication engine, for whose return applications wait: it had continued its predecessor's work, so it can live, and
/// what killed it is not what it found there.
const ENGINE_LIFE_MS: u64 = 500;
/// Longest line taken from a child.
const LINE_MAX: u64 = 64 * 1024;

struct Child {
    generation: u64,
    pid: Pid,
    stdin: Option<ChildStdin>,
    begun_ms: u64,
}

/// What a child needs beyond its arguments.
pub(super) struct Spawn {
    pub argv: Vec<String>,
    /// Descriptor kept open in the child under its present number.
    pub inherited: Option<OwnedFd>,
}

#[derive(Default)]
struct Slot {
    child: Option<Child>,
    wanted: bool,
    /// It was asked to end and is started again at once: no death.
    renewing: bool,
    delay_ms: u64,
    retry_at: Option<u64>,
    restarts: u32,
    /// The last child lived long enough to show that it can.
    lived: bool,
}

pub(super) struct Children {
    slots: BTreeMap<Kind, Slot>,
    generations: u64,
    inputs: Sender<Input>,
    /// Every child holds this descriptor open: a new runner can lock it only when all of them are gone.
    lock: RawFd,
}

impl Children {
    pub fn new(inputs: Sender<Input>, lock: RawFd) -> Self {
        Self { slots: BTreeMap::new(), generations: 0, inputs, lock }
    }

    pub fn is_running(&self, kind: Kind) -> bool {
        self.slots.get(&kind).is_some_and(|s| s.child.is_some())
    }

    pub fn is_wanted(&self, kind: Kind) -> bool {
        self.slots.get(&kind).is_some_and(|s| s.wanted)
    }

    /// Whether a line or an end belongs to the child that runs now.
    pub fn is_current(&self, kind: Kind, generation: u64) -> bool {
        self.slots.get(&kind).and_then(|s| s.child.as_ref()).is_some_and(|c| c.generation == generation)
    }

    /// Name, pid and restarts of the running children.
    pub fn list(&self) -> Vec<(Kind, i32, u32)> {
        self.slots.iter().filter_map(|(k, s)| s.child.as_ref().map(|c| (*k, c.pid.as_raw(), s.restarts))).collect()
    }

    pub fn want(&mut self, kind: Kind) {
        let slot = self.slots.entry(kind).or_default();
        if !slot.wanted {
            slot.wanted = true;
            slot.delay_ms = FIRST_DELAY_MS;
            slot.restarts = 0;
        }
    }

    /// Starts the child; its failure to start counts as a death (retried with back-off).
    pub fn start(&mut self, kind: Kind, now: u64, spawn: Spawn) -> Result<(), String> {
        self.generations += 1;
        let generation = self.generations;
        let result = self.spawn(kind, generation, now, spawn);
        let slot = self.slots.entry(kind).or_default();
        slot.retry_at = None;
        match result {
            Ok(child) => {
                slot.child = Some(child);
                Ok(())
            }
            Err(error) => {
                slot.retry_at = Some(now + slot.delay_ms.max(FIRST_DELAY_MS));
                slot.delay_ms = (slot.delay_ms.max(FIRST_DELAY_MS) * 2).min(LONGEST_DELAY_MS);
                Err(error)
            }
        }
    }

    fn spawn(&self, kind: Kind, generation: u64, now: u64, spawn: Spawn) -> Result<Child, String> {
        let program = spawn.argv.first().ok_or("empty command")?;
        let lock = self.lock;
        let inherited = spawn.inherited.as_ref().map(AsRawFd::as_raw_fd);
        let mut command = Command::new(program);
        command.args(&spawn.argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        // SAFETY: fcntl and sigprocmask are async-signal-safe; nothing of the parent's memory is changed.
        unsafe {
            command.pre_exec(move || {
                SigSet::all().thread_unblock()?;
                keep_open(lock)?;
                inherited.map_or(Ok(()), keep_open)
            });
        }
        let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|e| e.to_string())?);
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            // A child that does not read must not stop the runner.
            fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| e.to_string())?;
        }
        let words = child.stderr.take().map(|stderr| {
            let inputs = self.inputs.clone();
            std::thread::spawn(move || read_lines(stderr, |line| inputs.send(Input::Words { kind, line }).is_ok()))
        });
        let stdout = child.stdout.take();
        let inputs = self.inputs.clone();
        std::thread::spawn(move || {
            if let Some(stdout) = stdout {
                read_lines(stdout, |line| inputs.send(Input::Line { kind, generation, line }).is_ok());
            }
            let (how, code) = match child.wait() {
                Ok(status) => (describe(status), status.code()),
                Err(error) => (error.to_string(), None),
            };
            if let Some(words) = words {
                // Its last words explain the end: deliver them first.
                let _ = words.join();
            }
            // A closed channel: the runner itself is ending.
            let _ = inputs.send(Input::Ended { kind, generation, how, code });
        });
        Ok(Child { generation, pid, stdin, begun_ms: now })
    }

    /// Sends one order. A child that cannot take it (gone, or not reading) is killed and started again.
    pub fn order(&mut self, kind: Kind, line: &str) -> bool {
        let Some(child) = self.slots.get_mut(&kind).and_then(|s| s.child.as_mut()) else { return false };
        let Some(stdin) = child.stdin.as_mut() else { return false };
        let sent = stdin.write_all(format!("{line}\n").as_bytes()).is_ok();
        if !sent {
            // ESRCH: it is gone already; its end is on the way.
            let _ = kill(child.pid, Signal::SIGKILL);
        }
        sent
    }

    /// Closes the child's stdin: it cleans up and ends. It is not started again.
    pub fn dismiss(&mut self, kind: Kind) {
        if let Some(slot) = self.slots.get_mut(&kind) {
            slot.wanted = false;
            slot.retry_at = None;
            if let Some(child) = slot.child.as_mut() {
                child.stdin = None;
            }
        }
    }

    /// Ends a child that is to be started again with a new specification: by the end of its input, or, where that means more to it,
    /// by a signal that it cannot answer.
    pub fn renew(&mut self, kind: Kind, kill_it: bool) {
        let Some(slot) = self.slots.get_mut(&kind) else { return };
        let Some(child) = slot.child.as_mut() else { return };
        slot.renewing = true;
        if kill_it {
            // ESRCH: it is gone already; its end is on the way.
            let _ = kill(child.pid, Signal::SIGKILL);
        } else {
            child.stdin = None;
        }
    }

    /// Whether the end that was just noted had been asked for by [`Self::renew`].
    pub fn was_renewed(&mut self, kind: Kind) -> bool {
        self.slots.get_mut(&kind).is_some_and(|slot| std::mem::take(&mut slot.renewing))
    }

    /// Notes an end. Returns whether it was the present child and whether it will be started again.
    pub fn ended(&mut self, kind: Kind, generation: u64, now: u64) -> Option<bool> {
        if !self.is_current(kind, generation) {
            return None;
        }
        let slot = self.slots.get_mut(&kind)?;
        let child = slot.child.take()?;
        if !slot.wanted {
            return Some(false);
        }
        let long = if kind == Kind::Replicate { ENGINE_LIFE_MS } else { LONG_LIFE_MS };
        slot.lived = now.saturating_sub(child.begun_ms) > long;
        if slot.lived {
            slot.delay_ms = FIRST_DELAY_MS;
        }
        slot.restarts += 1;
        slot.retry_at = Some(now + slot.delay_ms);
        slot.delay_ms = (slot.delay_ms.max(FIRST_DELAY_MS) * 2).min(LONGEST_DELAY_MS);
        Some(true)
    }

    /// Whether the child that ended last lived long enough to show that it can.
    pub fn had_lived(&self, kind: Kind) -> bool {
        self.slots.get(&kind).is_some_and(|slot| slot.lived)
    }

    pub fn kill(&self, kind: Kind) {
        if let Some(child) = self.slots.get(&kind).and_then(|s| s.child.as_ref()) {
            // ESRCH: it is gone already.
            let _ = kill(child.pid, Signal::SIGKILL);
        }
    }

    /// Children whose back-off is over.
    pub fn due(&self, now: u64) -> Vec<Kind> {
        self.slots
            .iter()
            .filter(|(_, s)| s.wanted && s.child.is_none() && s.retry_at.is_some_and(|t| t <= now))
            .map(|(k, _)| *k)
            .collect()
    }

    pub fn next_due(&self) -> Option<u64> {
        self.slots.values().filter(|s| s.wanted && s.child.is_none()).filter_map(|s| s.retry_at).min()
    }

    pub fn any_running(&self) -> bool {
        self.slots.values().any(|s| s.child.is_some())
    }
}

fn keep_open(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: the descriptor is open in the parent for as long as the child is being started.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::empty())).map(|_| ()).map_err(std::io::Error::from)
}

fn describe(status: std::process::ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}

/// Delivers lines of bounded length until the end of the stream or until `deliver` says no.
fn read_lines(stream: impl Read, mut deliver: impl FnMut(String) -> bool) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if !text.is_empty() && !deliver(text) {
                    return;
                }
            }
        }
    }
}
