//! How are the module's scripts run: arguments, environment, output files, deadlines.

use super::input::Input;
use crate::instance::Instance;
use crate::log::local_time;
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

struct Running {
    group: Pid,
    deadline: Option<u64>,
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
        let mut command = Command::new(&path);
        command.args(args).stdin(Stdio::null()).stdout(output).stderr(errors).current_dir(instance.user_var());
        command.process_group(0);
        for (variable, value) in instance.environment() {
            command.env(variable, value);
        }
        // SAFETY: sigprocmask is async-signal-safe; nothing of the parent's memory is changed.
        unsafe {
            command.pre_exec(|| SigSet::all().thread_unblock().map_err(std::io::Error::from));
        }
        match command.spawn() {
            Ok(mut child) => {
                let group = Pid::from_raw(child.id().cast_signed());
                self.running.insert(id, Running { group, deadline, overdue: false, name: name.to_owned() });
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
        let mut command = Command::new(&path);
        command.arg(process).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        for (variable, value) in instance.environment() {
            command.env(variable, value);
        }
        // SAFETY: sigprocmask is async-signal-safe; nothing of the parent's memory is changed.
        unsafe {
            command.pre_exec(|| SigSet::all().thread_unblock().map_err(std::io::Error::from));
        }
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", path.display()))?;
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
        self.running.values().filter_map(|s| s.deadline).min()
    }
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
