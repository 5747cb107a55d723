//! Which systemd units are active? Asked of `systemctl show`, all in one question, without waiting for the answer.
//!
//! The end of a unit's main process is seen at once by its descriptor (see `run`); everything else at the next question.

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Where systemd says that it runs this system (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// A question that is not answered within this time is given up.
const PATIENCE_MS: u64 = 10_000;
/// Longest answer read.
const ANSWER_MAX: usize = 1024 * 1024;
/// Suffixes of units; a name without one means a service.
const SUFFIXES: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".mount",
    ".automount",
    ".path",
    ".slice",
    ".scope",
    ".swap",
    ".device",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub active: bool,
    /// 0: none.
    pub main_pid: i32,
}

pub(crate) struct Services {
    program: PathBuf,
    units: Vec<String>,
    question: Option<Question>,
}

struct Question {
    child: Child,
    stdout: ChildStdout,
    answer: Vec<u8>,
    deadline: u64,
}

/// The unit that a name of the configuration means.
pub(crate) fn unit(name: &str) -> String {
    if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) { name.to_owned() } else { format!("{name}.service") }
}

impl Services {
    /// `Err`: why services cannot be watched here.
    pub fn new(names: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut units: Vec<String> = names.map(|name| unit(&name)).collect();
        units.sort();
        units.dedup();
        let own = std::env::var_os("SK_SYSTEMCTL").map(PathBuf::from);
        if own.is_none() && !Path::new(BOOTED).exists() {
            return Err(format!(
                "no systemd here ({BOOTED} is missing): the services {} are not watched; watch their processes by name instead",
                units.join(", ")
            ));
        }
        Ok(Self { program: own.unwrap_or_else(|| PathBuf::from("systemctl")), units, question: None })
    }

    /// Asks, unless a question is under way.
    pub fn ask(&mut self, poll: &Poll, token: Token, now: u64) -> io::Result<()> {
        if self.question.is_some() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.args(["show", "--property=Id,Names,LoadState,ActiveState,SubState,MainPID", "--"]).args(&self.units);
        command.env("SYSTEMD_PAGER", "").env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // SAFETY: sigprocmask is async-signal-safe; nothing of the parent's memory is changed.
        unsafe {
            command.pre_exec(|| SigSet::all().thread_unblock().map_err(io::Error::from));
        }
        let mut child = command.spawn()?;
        let Some(stdout) = child.stdout.take() else { return Ok(()) };
        let flags = rustix::fs::fcntl_getfl(stdout.as_fd())?;
        rustix::fs::fcntl_setfl(stdout.as_fd(), flags | rustix::fs::OFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&stdout.as_raw_fd()), token, Interest::READABLE)?;
        self.question = Some(Question { child, stdout, answer: Vec::new(), deadline: now + PATIENCE_MS });
        Ok(())
    }

    pub fn deadline(&self) -> Option<u64> {
        self.question.as_ref().map(|q| q.deadline)
    }

    /// Reads what has come: every unit, once the answer is complete.
    pub fn read(&mut self, poll: &Poll) -> Option<Result<BTreeMap<String, Unit>, String>> {
        let question = self.question.as_mut()?;
        let mut piece = [0; 4096];
        loop {
            match question.stdout.read(&mut piece) {
                Ok(0) => break,
                Ok(n) if question.answer.len() + n <= ANSWER_MAX => {
                    question.answer.extend_from_slice(piece.get(..n).unwrap_or_default());
                }
                Ok(_) => return Some(Err(self.give_up(poll, "its answer is too long"))),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Some(Err(self.give_up(poll, &e.to_string()))),
            }
        }
        let mut question = self.question.take()?;
        // Closing would do; an error can only mean that it was not registered.
        let _ = poll.registry().deregister(&mut SourceFd(&question.stdout.as_raw_fd()));
        Some(match question.child.wait() {
            Ok(status) if status.success() => Ok(units(&String::from_utf8_lossy(&question.answer))),
            Ok(status) => Err(format!("{} failed ({status})", self.program.display())),
            Err(error) => Err(format!("{}: {error}", self.program.display())),
        })
    }

    /// A question whose time is over.
    pub fn expire(&mut self, poll: &Poll, now: u64) -> Option<String> {
        self.question.as_ref().filter(|q| q.deadline <= now)?;
        Some(self.give_up(poll, "no answer in time"))
    }

    fn give_up(&mut self, poll: &Poll, why: &str) -> String {
        if let Some(mut question) = self.question.take() {
            let _ = poll.registry().deregister(&mut SourceFd(&question.stdout.as_raw_fd()));
            if let Ok(pid) = i32::try_from(question.child.id()) {
                // ESRCH: it ended at the same moment.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = question.child.wait();
        }
        format!("{}: {why}", self.program.display())
    }
}

/// The blocks of `systemctl show`, by unit. A unit that is not known is not active. One that was asked for by an alias (`mysql` for
/// `mariadb`) answers with its own `Id`, and with the alias among its `Names`.
fn units(answer: &str) -> BTreeMap<String, Unit> {
    let mut found = BTreeMap::new();
    for block in answer.split("\n\n") {
        let value = |name: &str| {
            block.lines().find_map(|line| line.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v.trim()))
        };
        let names = value("Names").unwrap_or_default().split_whitespace();
        for name in value("Id").into_iter().chain(names) {
            let active = matches!(value("ActiveState"), Some("active" | "reloading" | "refreshing"));
            let main_pid = value("MainPID").and_then(|pid| pid.parse().ok()).unwrap_or(0);
            found.insert(name.to_owned(), Unit { active, main_pid });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_services_unless_they_say_otherwise() {
        assert_eq!(unit("postgresql"), "postgresql.service");
        assert_eq!(unit("postgresql@15-main.service"), "postgresql@15-main.service");
        assert_eq!(unit("docker.socket"), "docker.socket");
        assert_eq!(unit("v1.2"), "v1.2.service");
    }

    #[test]
    fn blocks_are_read_and_anything_else_is_passed_over() {
        let text = "MainPID=7\nId=a.service\nNames=a.service alias.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\n\
                    MainPID=0\nId=b.service\nActiveState=activating\nSubState=auto-restart\n\n\
                    Id=c.service\nLoadState=not-found\nActiveState=inactive\n\nId=d.mount\nActiveState=active\n\ngarbage\n=\n";
        let found = units(text);
        assert_eq!(found["a.service"], Unit { active: true, main_pid: 7 });
        assert_eq!(found["alias.service"], found["a.service"]);
        assert_eq!(found["b.service"], Unit { active: false, main_pid: 0 });
        assert_eq!(found["c.service"], Unit { active: false, main_pid: 0 });
        assert_eq!(found["d.mount"], Unit { active: true, main_pid: 0 });
        assert_eq!(found.len(), 5);
    }
}
