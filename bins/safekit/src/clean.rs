//! What can be taken away of a module that stands still: its logs, the history of its resources, a runner that hangs.

use crate::cli::{Clean, Failure};
use crate::paths::Place;
use crate::runner::state;
use crate::verbs::noted;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// Takes away what `what` says. The data, their lineage and the configuration are never touched.
pub fn run(place: &Place, what: Clean) -> Result<u8, Failure> {
    let module = place.module()?;
    let words = ["clean".to_owned(), what.word().to_owned()];
    let logged = sys::commands::Command::start(&place.roots, "safekit", module, &words);
    noted(logged, || clean(place, module, what).map(|()| 0))
}

fn clean(place: &Place, module: &str, what: Clean) -> Result<(), Failure> {
    if matches!(what, Clean::All | Clean::Process) {
        end(place, module)?;
    }
    if what == Clean::Process {
        return Ok(());
    }
    let now = state(&place.roots, module)?;
    if now.name != "STOP" {
        return Err(Failure::new(
            1,
            format!("module {module} is {}, and its log is in use; stop it first: safekit stop -m {module}", now.name),
        ));
    }
    for file in files(place, module)? {
        if belongs(what, file.file_name().unwrap_or_default()) {
            sys::files::remove(&file).map_err(|e| Failure::sys(format!("cannot remove {}", file.display()), e))?;
        }
    }
    Ok(())
}

/// Ends the module's processes; one that answers is asked to, so that the peer takes over in order.
fn end(place: &Place, module: &str) -> Result<(), Failure> {
    let program = place.program("sk-module");
    let status = Command::new(&program)
        .args(["forcestop", "-m", module, "--wait"])
        .status()
        .map_err(|e| Failure::sys(format!("cannot run {}", program.display()), e))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        1,
        format!(
            "module {module} does not end; `sk-module doctor` and `safekit kill -name sk-module -level test` show what is left"
        ),
    ))
}

/// Plain files of the module's directory.
fn files(place: &Place, module: &str) -> Result<Vec<PathBuf>, Failure> {
    let directory = place.roots.module_var(module);
    let failed = |e| Failure::sys(format!("cannot read {}", directory.display()), e);
    let entries = match std::fs::read_dir(&directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Whether a file is one of those meant.
fn belongs(what: Clean, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    // `log`, `journal.jsonl` and their older parts `log.1`, `journal.2.jsonl`.
    let series = |base: &str, ending: &str| {
        name.strip_prefix(base).and_then(|rest| rest.strip_suffix(ending)).is_some_and(|middle| {
            middle.is_empty()
                || middle.strip_prefix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    let log = series("log", "") || series("journal", ".jsonl") || name.strip_suffix(".ulog").is_some();
    let resource = series("resources", ".jsonl");
    match what {
        Clean::All => log || resource,
        Clean::Log => log,
        Clean::Resource => resource,
        Clean::Process => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_and_histories_are_taken() {
        let taken = |what, names: &[&'static str]| -> Vec<&'static str> {
            names.iter().copied().filter(|name| belongs(what, OsStr::new(name))).collect()
        };
        let logs = ["log", "log.1", "journal.jsonl", "journal.2.jsonl", "userlog_2026-01-01T000000_start_prim.ulog"];
        let history = ["resources.jsonl", "resources.1.jsonl"];
        let kept = ["core.json", "boot", "errd.off", "replica", "logs.tar", "log.x", "journal.x.jsonl", "lineage"];
        let all: Vec<&str> = logs.iter().chain(&history).chain(&kept).copied().collect();
        assert_eq!(taken(Clean::Log, &all), logs);
        assert_eq!(taken(Clean::Resource, &all), history);
        assert_eq!(taken(Clean::All, &all).len(), logs.len() + history.len());
        assert_eq!(taken(Clean::Process, &all), [""; 0]);
    }
}
