//! How are the module's own checkers kept running, and ended with everything they started?

use crate::spec::CustomSpec;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use sys::pidfd::PidFd;

const FIRST_DELAY_MS: u64 = 1_000;
const LONGEST_DELAY_MS: u64 = 60_000;
/// A checker that lived this long is started again without back-off.
const LONG_LIFE_MS: u64 = 60_000;
/// How often it is looked whether a signal has stopped one. What is found twice in a row is meant to stay so.
const LOOK_MS: u64 = 10_000;
/// Between SIGTERM and SIGKILL.
const PATIENCE_MS: u64 = 2_000;
/// Its output file is emptied at a start from this size on.
const OUTPUT_MAX: u64 = 2 * 1024 * 1024;

/// One executable that reports by itself.
pub(crate) struct Custom {
    spec: CustomSpec,
    wanted: bool,
    running: Option<Running>,
    delay_ms: u64,
    start_at: Option<u64>,
}

struct Running {
    child: Child,
    group: Pid,
    end: PidFd,
    began: u64,
    kill_at: Option<u64>,
    look_at: u64,
    /// The last look found it stopped.
    stopped: bool,
}

/// What happened to it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(crate) enum Happened {
    Started {
        pid: i32,
    },
    /// A signal had stopped it, so that it checked nothing: it is killed, and its end is told as any other.
    Stopped {
        pid: i32,
    },
    /// By itself; it is started again after `again_in_ms`.
    Ended {
        how: String,
        again_in_ms: u64,
    },
    /// It cannot be started; tried again after `again_in_ms`.
    Failed {
        how: String,
        again_in_ms: u64,
    },
}

impl Custom {
    pub const fn new(spec: CustomSpec) -> Self {
        Self { spec, wanted: false, running: None, delay_ms: FIRST_DELAY_MS, start_at: None }
    }

    pub fn want(&mut self, now: u64) {
        self.wanted = true;
        self.delay_ms = FIRST_DELAY_MS;
        self.start_at = Some(now);
    }

    /// Ends it with its process group: politely first.
    pub fn dismiss(&mut self, now: u64) {
        self.wanted = false;
        self.start_at = None;
        if let Some(running) = &mut self.running
            && running.kill_at.is_none()
        {
            running.signal(Signal::SIGTERM);
            running.kill_at = Some(now + PATIENCE_MS);
        }
    }

    pub fn end_fd(&self) -> Option<RawFd> {
        self.running.as_ref().map(|r| r.end.as_raw_fd())
    }

    /// Whether its end waits to be taken (see `ended`).
    pub fn has_ended(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.end.wait(Duration::ZERO).unwrap_or(true))
    }

    pub fn deadline(&self) -> Option<u64> {
        // One that is being ended must be gone before its successor starts.
        match &self.running {
            Some(running) => Some(running.kill_at.unwrap_or(running.look_at)),
            None => self.start_at,
        }
    }

    /// Does what is due. Returns whether something worth telling happened; after `Started` the end must be watched.
    pub fn tick(&mut self, now: u64) -> Option<Happened> {
        match &mut self.running {
            Some(running) => {
                if running.kill_at.is_some_and(|at| at <= now) {
                    running.kill_at = None;
                    running.signal(Signal::SIGKILL);
                }
                running.look(now).then(|| Happened::Stopped { pid: running.group.as_raw() })
            }
            None if self.start_at.is_some_and(|at| at <= now) => {
                self.start_at = None;
                match Running::start(&self.spec, now) {
                    Ok(running) => {
                        let pid = running.group.as_raw();
                        self.running = Some(running);
                        Some(Happened::Started { pid })
                    }
                    Err(how) => {
                        let again_in_ms = self.back_off(now);
                        Some(Happened::Failed { how, again_in_ms })
                    }
                }
            }
            None => None,
        }
    }

    /// Its end was seen.
    pub fn ended(&mut self, now: u64) -> Option<Happened> {
        let mut running = self.running.take()?;
        // Before it is waited for: until then its number cannot belong to another group.
        running.signal(Signal::SIGKILL);
        let how = match running.child.wait() {
            Ok(status) => status
                .code()
                .map(|code| format!("exit {code}"))
                .or_else(|| status.signal().map(|signal| format!("signal {signal}")))
                .unwrap_or_else(|| status.to_string()),
            Err(error) => error.to_string(),
        };
        if !self.wanted {
            return None;
        }
        // Dismissed and wanted again meanwhile: its successor starts at once.
        if self.start_at.is_some() {
            return None;
        }
        if now.saturating_sub(running.began) >= LONG_LIFE_MS {
            self.delay_ms = FIRST_DELAY_MS;
        }
        let again_in_ms = self.back_off(now);
        Some(Happened::Ended { how, again_in_ms })
    }

    fn back_off(&mut self, now: u64) -> u64 {
        let delay = self.delay_ms;
        self.start_at = Some(now + delay);
        self.delay_ms = (delay * 2).min(LONGEST_DELAY_MS);
        delay
    }

    /// For the end of this process: nothing is left behind.
    pub fn end_now(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        // An error says that it cannot be waited for: killed all the same.
        let gone = running.end.wait(Duration::from_millis(PATIENCE_MS)).unwrap_or(false);
        if !gone {
            running.signal(Signal::SIGKILL);
        }
        // Its last descendants.
        running.signal(Signal::SIGKILL);
        let _ = running.child.wait();
    }
}

impl Running {
    fn start(spec: &CustomSpec, now: u64) -> Result<Self, String> {
        let program = spec.argv.first().ok_or("no executable is named")?;
        let mut command = Command::new(program);
        command.args(spec.argv.iter().skip(1)).stdin(Stdio::null()).process_group(0).envs(&spec.environment);
        let (out, err) = output(spec).unwrap_or_else(|error| {
            // A full disk must not end the checking.
            sys::warn!("sk-check: the output of {program} is lost: {error}");
            (Stdio::null(), Stdio::null())
        });
        command.stdout(out).stderr(err);
        if let Some(directory) = &spec.directory {
            command.current_dir(directory);
        }
        // SAFETY: prctl and sigprocmask are async-signal-safe; nothing of the parent's memory is changed.
        unsafe {
            command.pre_exec(|| {
                sys::signals::unblock_all()?;
                // If this process is killed, the checker does not go on alone.
                sys::signals::die_with_parent()
            });
        }
        let child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        let group = Pid::from_raw(child.id().cast_signed());
        let end = open(group).map_err(|e| format!("{program}: {e}"))?;
        Ok(Self { end, child, group, began: now, kill_at: None, look_at: now + LOOK_MS, stopped: false })
    }

    /// Kills one that is found stopped twice; says whether it did.
    fn look(&mut self, now: u64) -> bool {
        if self.look_at > now || self.kill_at.is_some() {
            return false;
        }
        self.look_at = now + LOOK_MS;
        let before = std::mem::replace(&mut self.stopped, sys::table::is_stopped(self.group.as_raw()));
        let kill = before && self.stopped;
        if kill {
            self.signal(Signal::SIGKILL);
        }
        kill
    }

    fn signal(&self, signal: Signal) {
        // ESRCH: nothing of the group is left.
        let _ = killpg(self.group, signal);
    }
}

fn open(process: Pid) -> io::Result<PidFd> {
    PidFd::open(process.as_raw())?.ok_or_else(|| io::Error::other("it ended at once"))
}

fn output(spec: &CustomSpec) -> io::Result<(Stdio, Stdio)> {
    let Some(path) = &spec.output else { return Ok((Stdio::null(), Stdio::null())) };
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() >= OUTPUT_MAX {
        File::create(path)?;
    }
    let stamp = wire::time::rfc3339_now();
    io::Write::write_all(&mut file, format!("----------- {stamp}\n").as_bytes())?;
    let twin = file.try_clone()?;
    Ok((file.into(), twin.into()))
}
