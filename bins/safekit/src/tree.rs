//! Which processes of a name are there with all that they started? `-r processtree list|kill NAME|all [REGEX]`.

use crate::cli::Failure;
use crate::kill;
use crate::verbs::put;
use regex::Regex;
use sys::table::{self, Process};

const USAGE: &str = "usage: safekit -r processtree list|kill NAME|all [REGEX]";

/// Prints the trees, or ends them: first politely, then for good. Exit code 1 when there is none.
pub fn run(arguments: &[String]) -> Result<u8, Failure> {
    let (action, name, pattern) = match arguments {
        [action, name] => (action.as_str(), name.as_str(), None),
        [action, name, pattern] => (action.as_str(), name.as_str(), Some(pattern.as_str())),
        _ => return Err(Failure::usage(USAGE)),
    };
    if !matches!(action, "list" | "kill") {
        return Err(Failure::usage(format!("processtree has no action {action:?}; {USAGE}")));
    }
    if action == "kill" && name == "all" && pattern.is_none() {
        return Err(Failure::usage("processtree kill all needs a REGEX: it would end every process of this host"));
    }
    let pattern = pattern
        .map(Regex::new)
        .transpose()
        .map_err(|e| Failure::usage(format!("processtree: the regular expression is wrong: {e}")))?;
    let own = kill::ancestors();
    let named = table::scan_named(|comm| name == "all" || comm == name)
        .map_err(|e| Failure::sys("cannot read the process table", e))?;
    let mut family: Vec<i32> = Vec::new();
    for root in named.iter().filter(|p| pattern.as_ref().is_none_or(|r| r.is_match(&p.command_line))) {
        if root.pid == 1 || own.contains(&root.pid) {
            continue;
        }
        for pid in table::descendants(root.pid) {
            if !family.contains(&pid) && !own.contains(&pid) {
                family.push(pid);
            }
        }
    }
    let found: Vec<Process> = family.iter().filter_map(|pid| table::read(*pid)).collect();
    if action == "list" {
        for process in &found {
            put(&format!("{:>7} {:>7} {:<15} {}", process.pid, process.parent, process.comm, process.command_line))?;
        }
    } else {
        kill::terminate(&found)?;
    }
    Ok(u8::from(found.is_empty()))
}
