//! Who may do what on a node: roles, the keys of operators, and the role that a command needs. Pure but for one reader.
//!
//! A key of the cluster is a node's and may do everything. An operator has a key of his own, with a role; the file of these keys is
//! the same on all nodes. What is not known to need less needs Admin.

use crate::key::{ClusterKey, KeyError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// What the holder of a key may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read states, logs and configurations.
    Monitor,
    /// Start, stop and switch.
    Control,
    /// Change configurations and keys.
    Admin,
}

impl Role {
    /// `monitor`, `control` or `admin`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "monitor" => Some(Self::Monitor),
            "control" => Some(Self::Control),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Monitor => "monitor",
            Self::Control => "control",
            Self::Admin => "admin",
        })
    }
}

/// The key of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    pub name: String,
    pub role: Role,
    pub key: ClusterKey,
}

/// More operators than this are refused: each costs every stranger's handshake a few microseconds.
pub const OPERATORS_LIMIT: usize = 256;

/// Whether an operator may have this name.
pub fn is_operator_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@'))
        && !name.starts_with(['.', '-'])
}

impl Operator {
    /// The line of a key file: `NAME ROLE KEY`.
    pub fn to_line(&self) -> String {
        format!("{} {} {}\n", self.name, self.role, self.key.to_hex())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (name, role, key) = (words.next()?, words.next()?, words.next()?);
        let whole = words.next().is_none() && is_operator_name(name);
        Some(Self { name: name.to_owned(), role: Role::parse(role)?, key: ClusterKey::from_hex(key.as_bytes())? })
            .filter(|_| whole)
    }
}

/// Reads lines of `NAME ROLE KEY`; empty lines and those that begin with `#` are skipped. The error is the number of the bad line.
pub fn parse_operators(text: &str) -> Result<Vec<Operator>, usize> {
    let mut operators: Vec<Operator> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let operator = Operator::parse(line).ok_or(number + 1)?;
        if operators.len() == OPERATORS_LIMIT || operators.iter().any(|o| o.name == operator.name) {
            return Err(number + 1);
        }
        operators.push(operator);
    }
    Ok(operators)
}

/// Reads a file of operators, which only its owner may read; a missing one holds nobody.
pub fn load_operators(path: &Path) -> Result<Vec<Operator>, KeyError> {
    match crate::key::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| KeyError::Line { path: path.to_owned(), line: 1 })?;
            parse_operators(&text).map_err(|line| KeyError::Line { path: path.to_owned(), line })
        }
        Err(KeyError::Missing(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Why a command is not run for somebody on another host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("no command was given")]
    Nothing,
    #[error("{0} is no command of sk; it is not run for others")]
    Foreign(String),
    #[error("`{0}` is for the host itself: run it there")]
    Local(String),
    #[error("`{0}` does not end by itself; ask again and again instead")]
    Endless(String),
}

/// Verbs that change nothing.
const READ: [&str; 21] = [
    "state",
    "list",
    "log",
    "history",
    "explain",
    "rules",
    "confinfo",
    "level",
    "get",
    "cmdlog",
    "plan",
    "waitstate",
    "waitstart",
    "waitstop",
    "checkloop",
    "doctor",
    "show",
    "who",
    "status",
    "lineage",
    "test",
];
/// Verbs that change what runs, and nothing that was configured.
const SWITCH: [&str; 31] = [
    "start",
    "stop",
    "prim",
    "primforce",
    "second",
    "secondforce",
    "swap",
    "restart",
    "stopstart",
    "forcestop",
    "errd",
    "checker",
    "failover",
    "boot",
    "setgroups",
    "set",
    "resetloop",
    "incloop",
    "update",
    "shutdown",
    "printi",
    "printe",
    "printw",
    "verify",
    "diff",
    "clean",
    "rfsverify",
    "rfsdiff",
    "rfssync",
    "policy",
    "check",
];
/// Programs that may be run for others. What they read they read from the directories of sk.
const PROGRAMS: [&str; 9] = [
    "safekit",
    "sk-module",
    "sk-cluster",
    "sk-replicate",
    "sk-vip",
    "sk-errd",
    "sk-arbiter",
    "sk-farmfilter",
    "sk-health",
];

/// The role that a command line needs. `argv` begins with the program's name, without a path.
pub fn needed(argv: &[String]) -> Result<Role, Unfit> {
    let Some((program, arguments)) = argv.split_first() else { return Err(Unfit::Nothing) };
    if !PROGRAMS.contains(&program.as_str()) {
        return Err(Unfit::Foreign(program.clone()));
    }
    let has = |words: &[&str]| arguments.iter().any(|a| words.contains(&a.as_str()));
    let mut rest = arguments.iter();
    let verb = loop {
        match rest.next().map(String::as_str) {
            None => return Ok(Role::Monitor),
            Some("-h" | "--help" | "-V" | "--version") => return Ok(Role::Monitor),
            // safekit takes these before the verb.
            Some("-m" | "--module" | "-i") if program == "safekit" => drop(rest.next()),
            Some(option @ ("-p" | "-r")) if program == "safekit" => {
                return Err(Unfit::Local(format!("{program} {option}")));
            }
            Some(option) if option.starts_with('-') => return Err(Unfit::Local(format!("{program} {option}"))),
            Some(verb) => break verb,
        }
    };
    let line = format!("{program} {verb}");
    match (program.as_str(), verb) {
        (_, "run" | "guard" | "serve" | "hold" | "carry" | "print" | "export" | "import" | "join" | "init") => {
            return Err(Unfit::Local(line));
        }
        // They ask others in turn, or become commands on this host alone.
        ("sk-cluster", "confinfo" | "state" | "role" | "key" | "push" | "on" | "create" | "config" | "deconfig") => {
            return Err(Unfit::Local(line));
        }
        (_, "logview" | "watch") => return Err(Unfit::Endless(line)),
        _ => {}
    }
    if verb == "log" && has(&["-f", "--follow"]) || has(&["--watch"]) {
        return Err(Unfit::Endless(line));
    }
    Ok(match (program.as_str(), verb) {
        (_, "errd") if has(&["list"]) && !has(&["on", "off", "enable", "disable"]) => Role::Monitor,
        (_, "boot") if has(&["status"]) && !has(&["on", "off"]) => Role::Monitor,
        // It begins modules as at a boot.
        (_, "boot") if !has(&["on", "off"]) => Role::Admin,
        // It writes what an operator may have deleted.
        ("sk-replicate", "verify") if has(&["--repair"]) => Role::Admin,
        ("sk-replicate", "policy") if has(&["show"]) && !has(&["default", "full", "external"]) => Role::Monitor,
        ("sk-replicate", "salvage") if has(&["list"]) && !has(&["prune", "restore"]) => Role::Monitor,
        ("safekit", "module") if has(&["list", "listid", "getports"]) && !has(&["install", "uninstall", "package"]) => {
            Role::Monitor
        }
        ("safekit" | "sk-farmfilter", "clean") => Role::Admin,
        // It reads a file that the caller names.
        ("sk-module", "check") => Role::Admin,
        (_, verb) if READ.contains(&verb) => Role::Monitor,
        (_, verb) if SWITCH.contains(&verb) => Role::Control,
        _ => Role::Admin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn role(line: &str) -> Result<Role, Unfit> {
        needed(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_command_needs_its_role() {
        for (line, expected) in [
            ("safekit state", Role::Monitor),
            ("safekit -m AM state -v", Role::Monitor),
            ("safekit -m stop state", Role::Monitor),
            ("safekit level", Role::Monitor),
            ("safekit --help", Role::Monitor),
            ("safekit -m state stop", Role::Control),
            ("safekit prim fullsync -m AM", Role::Control),
            ("safekit module listid", Role::Monitor),
            ("safekit module uninstall -m list", Role::Admin),
            ("safekit kill -name x -level 9", Role::Admin),
            ("safekit config -m AM", Role::Admin),
            ("safekit boot status", Role::Monitor),
            ("safekit boot off -m status", Role::Control),
            ("sk-module errd list -m AM", Role::Monitor),
            ("sk-module errd disable list -m AM", Role::Control),
            ("sk-module boot", Role::Admin),
            ("sk-module check /etc/shadow", Role::Admin),
            ("sk-module replay /etc/shadow", Role::Admin),
            ("sk-module logsave -m AM /etc/passwd", Role::Admin),
            ("sk-module snapshot -m AM /x", Role::Admin),
            ("sk-module something-new", Role::Admin),
            ("sk-replicate verify -m AM", Role::Control),
            ("sk-replicate verify --repair -m AM", Role::Admin),
            ("sk-replicate salvage list -m prune", Role::Admin),
            ("sk-replicate policy -m AM show", Role::Monitor),
            ("sk-replicate policy -m show full", Role::Control),
            ("safekit rfssync external prim u -m AM", Role::Control),
            ("sk-vip add 10.0.0.1", Role::Admin),
            ("sk-health check web", Role::Control),
        ] {
            assert_eq!(role(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_belongs_to_the_host_is_not_run_for_others() {
        for line in ["", "sh -c x", "/opt/sk/bin/safekit state", "../safekit state"] {
            assert!(matches!(role(line), Err(Unfit::Nothing | Unfit::Foreign(_))), "{line}");
        }
        for line in [
            "safekit -p",
            "safekit -r /bin/sh",
            "safekit -m AM -r sh",
            "safekit run sh",
            "safekit -H x state",
            "sk-module run AM",
            "sk-module guard AM",
            "sk-cluster export",
            "sk-cluster on -H x y",
            "sk-replicate run --spec x",
            "sk-vip hold",
        ] {
            assert!(matches!(role(line), Err(Unfit::Local(_))), "{line}");
        }
        for line in ["safekit logview -m AM", "sk-module log -f -m AM", "sk-module state --watch -m AM"] {
            assert!(matches!(role(line), Err(Unfit::Endless(_))), "{line}");
        }
    }

    #[test]
    fn operators_are_read_back_and_bad_lines_are_named() {
        let ops = Operator { name: "ops".into(), role: Role::Control, key: ClusterKey::from_bytes([7; 32]) };
        let text = format!("# who may do what\n\n{}", ops.to_line());
        assert_eq!(parse_operators(&text), Ok(vec![ops.clone()]));
        assert_eq!(parse_operators(&format!("{text}{}", ops.to_line())), Err(4));
        assert_eq!(parse_operators("ops king 00"), Err(1));
        assert_eq!(parse_operators(&format!("-x admin {}", ops.key.to_hex())), Err(1));
        assert!(Role::Monitor < Role::Control && Role::Control < Role::Admin);
    }

    proptest! {
        #[test]
        fn garbage_is_no_operator(text in "\\PC{0,200}") {
            if let Ok(operators) = parse_operators(&text) {
                let again: String = operators.iter().map(Operator::to_line).collect();
                prop_assert_eq!(parse_operators(&again), Ok(operators));
            }
        }

        // Whatever is put around it, a verb that changes something is not had for less than its role.
        #[test]
        fn no_words_around_a_verb_make_it_cheaper(before in prop::collection::vec("-m|-i|AM|list|status|--json|state", 0..3), after in prop::collection::vec("-m|list|status|AM|--help", 0..3)) {
            for (program, verb, least) in [("safekit", "stop", Role::Control), ("sk-module", "config", Role::Admin), ("safekit", "kill", Role::Admin)] {
                // A word that stands where the verb is expected is the verb.
                let options_only = before.chunks(2).all(|c| matches!(c, [o, _] if o == "-m" || o == "-i")) && program == "safekit";
                if !before.is_empty() && !options_only {
                    continue;
                }
                let argv: Vec<String> = [program.to_owned()].into_iter().chain(before.clone()).chain([verb.to_owned()]).chain(after.clone()).collect();
                prop_assert!(needed(&argv).map_or(true, |role| role >= least), "{:?}", argv);
            }
        }
    }
}
