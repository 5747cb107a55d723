//! Does what is printed for people fit a terminal of 80 columns?

use crate::node::{MODULE, Node, Reader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const COLUMNS: usize = 80;

/// What prints something else than words of its own.
const NOT_OURS: [(&str, &str); 7] = [
    ("sk-module log", "lines of a log"),
    ("sk-module cmdlog", "lines of a log"),
    ("safekit log", "lines of a log"),
    ("safekit cmdlog", "lines of a log"),
    ("sk-module init --dry-run", "the files that it would write"),
    ("sk-health metrics", "the format of Prometheus"),
    ("sk-module replay", "lines of the journal"),
];

/// Lines that are too wide.
pub fn too_wide(line: &str, said: &str, root: &Path) -> Vec<String> {
    let for_programs = line.contains("--json") || line.starts_with("sk-cluster export");
    if for_programs
        || NOT_OURS
            .iter()
            .any(|(verb, _)| line.strip_prefix(verb).is_some_and(|r| !r.starts_with(|c: char| c.is_alphanumeric())))
    {
        return Vec::new();
    }
    let root = root.to_str().unwrap_or_default();
    let wide = said.lines().filter(|text| programs::columns(text) > COLUMNS);
    wide.map(|text| format!("{line}: {}", text.replace(root, ""))).collect()
}

/// What can be asked while a module runs.
const ASKS: &[&str] = &[
    "sk-module state",
    "sk-module state -m databases-01",
    "sk-module state -m databases-01 -v",
    "safekit state -m databases-01 -v",
    "sk-module list",
    "sk-module level -m databases-01",
    "sk-module rules -m databases-01",
    "sk-module explain -m databases-01",
    "sk-module history -m databases-01",
    "sk-module checkloop -m databases-01",
    "sk-module errd list -m databases-01",
    "sk-module get -m databases-01 -r state.local",
    "sk-module confinfo -m databases-01",
    "sk-module config --plan -m databases-01",
    "sk-module replay @/var/modules/databases-01/journal.jsonl",
    "sk-module doctor --offline",
    "sk-module boot status",
    // Others may run, with longer lines.
    "sk-errd list --name sk-module --arg-regex databases-01",
    "sk-check module databases-01",
    "sk-health check databases-01",
    "sk-top",
    "safekit checkloop -m databases-01",
    "safekit errd list -m databases-01",
    "safekit module listid",
];

/// The node's module runs, with children; killed at the end, which its children notice.
struct Runner(std::process::Child);

impl Drop for Runner {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_running_module_shows_fits_80_columns() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::new(home.path());
    let done = |line: &str| {
        let outcome = node.run(line, Reader::Reads);
        assert_eq!(outcome.code, Some(0), "{line}: {}{}", outcome.said, outcome.complaints);
        outcome.said
    };
    done("sk-cluster create server-north=127.0.0.1 server-south=127.0.0.2");
    done("sk-module config -m databases-01 --id 7");
    let mut run = node.command(&format!("sk-module run {MODULE}"));
    let _runner = Runner(run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let begun = Instant::now();
    while node.run("sk-module prim --wait -m databases-01", Reader::Reads).code != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the module does not run");
    }
    done("sk-module failover off -m databases-01");
    let state = done("sk-module state -m databases-01");
    assert!(state.contains("ALONE (Ready)"), "{state}");
    for line in ASKS {
        let outcome = node.run(line, Reader::Reads);
        assert!(!outcome.said.is_empty() || outcome.code == Some(0), "{line}: {}", outcome.complaints);
    }
    done("sk-module stop --wait -m databases-01");
    let too_wide = node.too_wide.take();
    assert!(too_wide.is_empty(), "{too_wide:#?}");
}

#[test]
fn wide_lines_are_found() {
    let root = Path::new("/tmp/x");
    let wide = "w".repeat(81);
    let path = format!("is in /tmp/x/{}/file", "d".repeat(90));
    for (line, said, found) in [
        ("sk-module state", wide.as_str(), 1),
        ("sk-module logsave", &wide, 1),
        ("sk-module log -m m", &wide, 0),
        ("sk-module state --json", &wide, 0),
        ("sk-module state", &wide[1..], 0),
        ("sk-module state", &path, 0),
    ] {
        assert_eq!(too_wide(line, said, root).len(), found, "{line}: {said}");
    }
}
