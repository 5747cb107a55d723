//! What do operators see beside states and logs: versions, output of the module's own scripts, the log of commands, saved logs.

use crate::instance::Instance;
use crate::{Failure, exit, log};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use sys::failure::put;
use sys::roots::Roots;

/// The scripts `state` and `level` print something about the application; they may take this long and say this much.
const SCRIPT_TIME: Duration = Duration::from_secs(10);
const SCRIPT_OUTPUT: u64 = 256 * 1024;

/// Prints what a script of the module says, if it has that script.
pub(crate) fn script_output(roots: &Roots, module: &str, name: &str) -> Result<(), Failure> {
    script_text(roots, module, name)?.map_or(Ok(()), |text| put(&text))
}

/// What a script of the module says, if it has that script and that says something.
fn script_text(roots: &Roots, module: &str, name: &str) -> Result<Option<String>, Failure> {
    let path = roots.module_active(module).join("bin").join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let instance = Instance::load(roots, module)?;
    let mut command = Command::new(&path);
    command.envs(instance.environment());
    match sys::bounded::run(&mut command, SCRIPT_TIME, SCRIPT_OUTPUT) {
        Ok(outcome) => {
            if outcome.status.is_none() {
                sys::warn!("sk-module: the script {name} did not end within {SCRIPT_TIME:?} and was killed");
            }
            let text = String::from_utf8_lossy(&outcome.output);
            Ok((!text.is_empty()).then(|| text.trim_end_matches('\n').to_owned()))
        }
        Err(error) => {
            sys::warn!("sk-module: the script {} cannot be run: {error}", path.display());
            Ok(None)
        }
    }
}

/// `sk-module level`.
pub(crate) fn level(roots: &Roots, module: Option<&str>, as_json: bool) -> Result<u8, Failure> {
    let host = nix::sys::utsname::uname().map_err(|e| Failure::system("host name", e))?;
    if as_json {
        let script = module.map(|module| script_text(roots, module, "level")).transpose()?.flatten();
        put(&json!({"host": host.nodename().to_string_lossy(), "system": operating_system(),
            "version": env!("CARGO_PKG_VERSION"), "module": module, "script": script})
        .to_string())?;
        return Ok(0);
    }
    put(&format!("Host: {}", host.nodename().to_string_lossy()))?;
    put(&format!("OS: {}", operating_system()))?;
    put(&format!("SafeKit: sk {}", env!("CARGO_PKG_VERSION")))?;
    put("License: Apache-2.0, no key is needed")?;
    if let Some(module) = module {
        script_output(roots, module, "level")?;
    }
    Ok(0)
}

fn operating_system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned());
    match nix::sys::utsname::uname() {
        Ok(kernel) => {
            format!("{name}, kernel {} {}", kernel.release().to_string_lossy(), kernel.machine().to_string_lossy())
        }
        Err(_) => name,
    }
}

/// `sk-module logsave`: the module's log in a file that did not exist.
pub(crate) fn logsave(roots: &Roots, module: &str, all: bool, target: &Path) -> Result<u8, Failure> {
    if !target.is_absolute() {
        return Err(Failure::new(exit::USAGE, format!("{} is not absolute", target.display()))
            .hint("name the file from the root directory on"));
    }
    let lines = log::lines(&roots.module_var(module).join("log"), all).map_err(|e| Failure::system("the log", e))?;
    let mut text = lines.join("\n");
    text.push('\n');
    new_file(target, 0o666, |mut file| file.write_all(text.as_bytes()))?;
    Ok(0)
}

/// A file that a person asked for and that did not exist, whole or not at all; see [`sys::files::create_new`].
pub(crate) fn new_file(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&std::fs::File) -> std::io::Result<()>,
) -> Result<(), Failure> {
    sys::files::create_new(path, mode, fill).map_err(|e| {
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::new(exit::REFUSED, format!("{} exists already", path.display())).hint("name a new file")
        } else {
            Failure::system(path.display(), e)
        }
    })
}

/// `sk-module cmdlog`: the commands that changed something on this node.
pub(crate) fn cmdlog(roots: &Roots, lines: usize, as_json: bool) -> Result<u8, Failure> {
    let path = sys::commands::path(roots);
    let mut all = Vec::new();
    for file in [path.with_extension("1"), path.clone()] {
        if let Ok(bytes) = std::fs::read(&file) {
            all.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned));
        }
    }
    if all.is_empty() {
        return Err(Failure::new(exit::REFUSED, format!("no command was logged yet ({})", path.display())));
    }
    for line in all.iter().skip(all.len().saturating_sub(lines)) {
        if as_json {
            put(&command_as_json(line).to_string())?;
        } else {
            put(line)?;
        }
    }
    Ok(0)
}

/// A line of the log of commands for programs: t, command, module, pid, event (start or end), then arguments and who, or exit.
fn command_as_json(line: &str) -> Value {
    let parts: Vec<&str> = line.trim_start_matches("| ").splitn(6, " | ").collect();
    let [date, command, module, pid, event, words] = parts[..] else { return json!({"line": line}) };
    let mut value = json!({"t": log::instant(date), "command": command, "pid": pid.parse::<u32>().ok(),
        "module": (!module.is_empty()).then_some(module), "event": event.to_lowercase()});
    if event == "START" {
        // Whoever is named comes last, whatever the arguments are.
        let (arguments, who) = words.rsplit_once(" -u ").unwrap_or((words, ""));
        value["arguments"] = arguments.into();
        value["who"] = who.into();
    } else {
        value["exit"] = words.parse::<u8>().ok().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_of_commands_are_taken_apart() {
        let start = command_as_json(
            "| 2026-11-20 10:00:00.000001 | sk-module | web | 12 | START | set -r a -u x | y -u root@10.0.0.1 (uid 0)",
        );
        assert_eq!(
            (&start["command"], &start["module"], &start["pid"]),
            (&"sk-module".into(), &"web".into(), &12.into())
        );
        assert_eq!((&start["event"], &start["arguments"]), (&"start".into(), &"set -r a -u x | y".into()));
        assert_eq!(start["who"], "root@10.0.0.1 (uid 0)");
        assert!(start["t"].as_str().is_some_and(|t| t.ends_with(".000001Z")), "{start}");
        let end = command_as_json("| 2026-11-20 10:00:00.000001 | sk-cluster |  | 12 | END | 3");
        assert_eq!((&end["module"], &end["exit"], &end["event"]), (&Value::Null, &3.into(), &"end".into()));
        assert_eq!(command_as_json("torn"), json!({"line": "torn"}));
    }
}
