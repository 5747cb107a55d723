//! How are the module's scripts run: arguments, environment, output files, deadlines.

use super::input::Input;
use crate::instance::Instance;
use automaton::CALLBACK;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use sys::clock::local_time;

/// Exit status the shell uses for a command that cannot be executed, and for one that is not there.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// A script that was asked for.
pub(super) enum Launch {
    /// Runs; its end arrives as `Input::ScriptEnded`. `userlog`: name of its output file.
    Running { userlog: String },
    /// Not there: nothing to do.
    Missing,
    /// Cannot be run; the message says why and what to do.
    Impossible { exit: i32, message: String },
}

/// A script without a time limit is named in the log when it has run for this long, and again each time that time has doubled.
const LONG_MS: u64 = 60_000;

struct Running {
    group: Pid,
    began: u64,
    deadline: Option<u64>,
    /// When it is named in the log.
    named_at: u64,
    /// Killed at its deadline: its end has no exit status.
    overdue: bool,
    name: String,
}

impl Running {
    fn kill(&mut self) {
        self.deadline = None;
        // ESRCH: it ended at the same moment.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

pub(super) struct Scripts {
    running: BTreeMap<u64, Running>,
    inputs: Sender<Input>,
}

impl Scripts {
    pub fn new(inputs: Sender<Input>) -> Self {
        Self { running: BTreeMap::new(), inputs }
    }

    pub fn launch(
        &mut self,
        instance: &Instance,
        id: u64,
        name: &str,
        args: &[String],
        deadline: Option<u64>,
    ) -> Launch {
        let path = instance.active_bin().join(name);
        let mode = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.permissions().mode(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name == "prestart" => {
                return Launch::Impossible {
                    exit: NOT_FOUND,
                    message: format!("Script prestart is missing: every module needs {}", path.display()),
                };
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name == CALLBACK => {
                return Launch::Impossible {
                    exit: NOT_FOUND,
                    message: format!("Script {name} is missing, and <rfs scripts=\"on\"> calls {}", path.display()),
                };
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Launch::Missing,
            Err(error) => {
                return Launch::Impossible {
                    exit: NOT_EXECUTABLE,
                    message: format!("Script {name}: {}: {error}", path.display()),
                };
            }
        };
        if mode & 0o111 == 0 {
            return Launch::Impossible {
                exit: NOT_EXECUTABLE,
                message: format!(
                    "Script {name} is not executable: chmod +x {} on this node, then apply with sk-module config -m {}",
                    instance.source_bin().join(name).display(),
                    instance.module
                ),
            };
        }
        let stamp = local_time("%Y-%m-%dT%H%M%S");
        let userlog = format!("userlog_{stamp}_{name}.ulog");
        let (output, errors) = open_output(instance, &userlog, name).unwrap_or_else(|error| {
            // A full disk must not keep an application running on a node that gives its role away.
            sys::warn!("sk-module: the output of {name} is lost, its file {userlog} cannot be written: {error}");
            (Stdio::null(), Stdio::null())
        });
        let mut command = command(instance, &path, name, (output, errors));
        match command.args(args).spawn() {
            Ok(mut child) => {
                let (group, began) = (Pid::from_raw(child.id().cast_signed()), sys::clock::monotonic_ms());
                self.running.insert(
                    id,
                    Running {
                        group,
                        began,
                        deadline,
                        named_at: began + LONG_MS,
                        overdue: false,
                        name: name.to_owned(),
                    },
                );
                let inputs = self.inputs.clone();
                std::thread::spawn(move || {
                    // As shells say it: 128 and the number of the signal.
                    let exit = child.wait().ok().and_then(|s| s.code().or_else(|| s.signal().map(|n| 128 + n)));
                    // A closed channel: the runner itself is ending.
                    let _ = inputs.send(Input::ScriptEnded { id, exit });
                });
                Launch::Running { userlog }
            }
            Err(error) => Launch::Impossible {
                exit: NOT_EXECUTABLE,
                message: format!("Script {name}: {}: {error}{}", path.display(), interpreter_hint(&path)),
            },
        }
    }

    /// An errd handler: an executable in `bin` or an absolute path.
    pub fn launch_handler(&self, instance: &Instance, handler: &str, process: &str) -> Result<(), String> {
        let path = if handler.starts_with('/') { PathBuf::from(handler) } else { instance.active_bin().join(handler) };
        let name = path.file_name().map_or_else(|| handler.to_owned(), |n| n.to_string_lossy().into_owned());
        let userlog = format!("userlog_{}_{name}.ulog", local_time("%Y-%m-%dT%H%M%S"));
        let (output, errors) = open_output(instance, &userlog, &name).map_err(|e| e.to_string())?;
        let mut command = command(instance, &path, &name, (output, errors));
        let mut child = command.arg(process).spawn().map_err(|e| format!("{}: {e}", path.display()))?;
        let inputs = self.inputs.clone();
        std::thread::spawn(move || {
            let exit = child.wait().ok().and_then(|status| status.code());
            // A closed channel: the runner itself is ending.
            let _ = inputs.send(Input::HandlerEnded { name, exit });
        });
        Ok(())
    }

    /// Notes an end: whether the script was killed at its deadline. None for one that was not running.
    pub fn ended(&mut self, id: u64) -> Option<bool> {
        self.running.remove(&id).map(|script| script.overdue)
    }

    /// Kills the process groups whose time is over. Their ends arrive as usual, without exit status.
    pub fn kill_overdue(&mut self, now: u64) {
        for script in self.running.values_mut() {
            if script.deadline.is_some_and(|d| d <= now) {
                script.overdue = true;
                script.kill();
            }
        }
    }

    /// Kills every running script (forcestop); returns their names.
    pub fn kill_all(&mut self) -> Vec<String> {
        self.running
            .values_mut()
            .map(|script| {
                script.kill();
                script.name.clone()
            })
            .collect()
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.running.values().filter(|s| !s.overdue).map(|s| s.deadline.unwrap_or(s.named_at)).min()
    }

    /// Scripts that nobody limits and that have run for long, with the seconds since they began.
    pub fn long(&mut self, now: u64) -> Vec<(String, u64)> {
        let mut long = Vec::new();
        for script in self.running.values_mut().filter(|s| s.deadline.is_none() && s.named_at <= now && !s.overdue) {
            let ran = now.saturating_sub(script.began);
            script.named_at = now.saturating_add(ran.max(LONG_MS));
            long.push((script.name.clone(), ran / 1000));
        }
        long
    }
}

/// An executable of the module: its environment and place, a process group of its own, no signal blocked.
fn command(instance: &Instance, path: &Path, name: &str, (output, errors): (Stdio, Stdio)) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(output).stderr(errors).current_dir(instance.user_var()).process_group(0);
    command.envs(instance.environment()).env("SAFESCRIPT", name);
    // SAFETY: sigprocmask is async-signal-safe; nothing of the parent's memory is changed.
    unsafe {
        command.pre_exec(|| SigSet::all().thread_unblock().map_err(std::io::Error::from));
    }
    command
}

fn open_output(instance: &Instance, userlog: &str, name: &str) -> std::io::Result<(Stdio, Stdio)> {
    if !instance.logs_scripts() {
        return Ok((Stdio::null(), Stdio::null()));
    }
    let path = instance.user_var().join(userlog);
    let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "----------- {} {name}", local_time("%Y-%m-%dT%H:%M:%S"))?;
    let twin = file.try_clone()?;
    Ok((file.into(), twin.into()))
}

fn interpreter_hint(path: &Path) -> String {
    let first = std::fs::read(path).ok().map(|bytes| bytes.split(|b| *b == b'\n').next().unwrap_or_default().to_vec());
    match first {
        Some(line) if line.starts_with(b"#!") => {
            format!(" (is its interpreter {} installed?)", String::from_utf8_lossy(&line[2..]).trim())
        }
        _ => " (a script needs a first line such as #!/bin/sh)".into(),
    }
}
