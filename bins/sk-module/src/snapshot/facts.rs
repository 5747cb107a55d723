//! What is known of the host: system, network, file systems, processes, what its own log says.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use sys::roots::Roots;

/// Of each program that is asked; a host in trouble answers slowly.
const TIME: Duration = Duration::from_secs(10);
const OUTPUT: u64 = 4 * 1024 * 1024;

/// Files of the kernel.
const FILES: [&str; 10] = [
    "/etc/os-release",
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/self/mountinfo",
    "/proc/net/sockstat",
    "/proc/net/dev",
    "/proc/modules",
    "/proc/sys/fs/file-nr",
];

/// Programs; those that are not there are not asked.
const PROGRAMS: [(&str, &[&str]); 12] = [
    ("ip", &["-d", "address"]),
    ("ip", &["route", "show", "table", "all"]),
    ("ip", &["neighbour"]),
    ("ip", &["-s", "link"]),
    ("nft", &["list", "ruleset"]),
    ("df", &["-hT"]),
    ("ps", &["-eo", "pid,ppid,user,stat,rss,etimes,comm"]),
    ("ss", &["-tulnp"]),
    ("systemctl", &["--no-pager", "list-units", "sk-*"]),
    ("journalctl", &["--no-pager", "-n", "3000", "-t", "safekit"]),
    ("timedatectl", &["--no-pager", "show"]),
    ("dmesg", &["--time-format", "iso"]),
];

/// Names of files in the snapshot, and their content.
pub(super) fn facts(roots: &Roots) -> Vec<(String, String)> {
    let mut facts = vec![("versions.txt".to_owned(), versions(roots))];
    for path in FILES {
        if let Ok(bytes) = sys::files::read_bounded(std::path::Path::new(path), OUTPUT) {
            facts.push((
                path.trim_start_matches('/').replace('/', "_") + ".txt",
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
    }
    for (program, arguments) in PROGRAMS {
        let mut command = Command::new(program);
        command.args(arguments).stderr(Stdio::null());
        let Ok(outcome) = sys::bounded::run(&mut command, TIME, OUTPUT) else { continue };
        let mut text = format!("$ {program} {}\n{}", arguments.join(" "), String::from_utf8_lossy(&outcome.output));
        if outcome.status.is_none() {
            let _ = writeln!(text, "(did not end within {TIME:?})");
        }
        let name: String = [&[program][..], arguments]
            .concat()
            .join("_")
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        facts.push((format!("{name}.txt"), text));
    }
    let mut doctor = String::new();
    for finding in crate::doctor::findings(roots, true) {
        let _ = writeln!(doctor, "{}", finding.line());
    }
    facts.push(("healthcheck.txt".to_owned(), doctor));
    facts
}

fn versions(roots: &Roots) -> String {
    let mut text = format!("sk-module {}\n", env!("CARGO_PKG_VERSION"));
    for program in crate::doctor::PROGRAMS {
        let path = roots.program(program);
        let mut command = Command::new(&path);
        command.arg("--version").stderr(Stdio::null());
        match sys::bounded::run(&mut command, TIME, 4096) {
            Ok(outcome) => text += &String::from_utf8_lossy(&outcome.output),
            Err(error) => {
                let _ = writeln!(text, "{}: {error}", path.display());
            }
        }
    }
    text
}
