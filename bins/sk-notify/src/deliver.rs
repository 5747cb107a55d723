//! How is the script called: its environment, its time, and what counts as a failure?

use crate::batch::Call;
use nix::unistd::{AccessFlags, access};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Output of the script that is kept for the message about its failure.
const OUTPUT_MAX: u64 = 4096;

/// Whether there is a script to call.
pub fn is_script(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// Runs the script with the events as JSON lines on its stdin. `Err`: why the call failed, in words.
pub fn deliver(script: &Path, node: &str, call: &Call, limit: Duration) -> Result<(), String> {
    let mut input = Vec::new();
    for line in &call.lines {
        input.extend_from_slice(format!("{line}\n").as_bytes());
    }
    let modules: Vec<&str> = call.modules.iter().map(String::as_str).collect();
    let mut command = Command::new(script);
    command
        .current_dir("/")
        .env("SK_NODE", node)
        .env("SK_SUBJECT", &call.subject)
        .env("SK_MODULES", modules.join(" "))
        .env("SK_EVENTS", call.lines.len().to_string())
        .env("SK_LOST", call.lost.to_string())
        .env("SK_WORST", call.worst.to_string())
        .env("SK_ATTEMPT", call.attempt.to_string());
    // SAFETY: only changes the signal mask, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(sys::signals::unblock_all);
    }
    let outcome = sys::bounded::run_with(&mut command, input, limit, OUTPUT_MAX).map_err(|e| {
        format!("it cannot be run: {e}; the first line of a script names its interpreter, as in #!/bin/sh")
    })?;
    let said = String::from_utf8_lossy(&outcome.output).split_whitespace().collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { said } else { format!(": {said}") };
    match outcome.status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("it ended with {status}{said}")),
        None => Err(format!("it did not end within {limit:?} and was killed{said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::rehearsal;
    use std::path::PathBuf;

    /// Written by another process: a file this process still has open for writing in a forked child cannot be run.
    fn script(dir: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = dir.path().join("notification");
        let shell = "printf '%s\\n' '#!/bin/sh' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        assert!(Command::new("sh").args(["-c", shell, "sh", text]).arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn the_script_gets_events_and_a_summary() {
        let dir = tempfile::tempdir().unwrap();
        let seen = dir.path().join("seen");
        let path =
            script(&dir, &format!("(cat; echo \"$SK_NODE|$SK_SUBJECT|$SK_EVENTS|$SK_WORST\") > {}", seen.display()));
        deliver(&path, "node1", &rehearsal("node1", "2026-11-20T10:00:00Z"), Duration::from_secs(30)).unwrap();
        let text = std::fs::read_to_string(seen).unwrap();
        let (event, summary) = text.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(event).unwrap()["from"], "sk-notify");
        assert_eq!(summary, "node1|node1: test|1|E");
    }

    #[test]
    fn a_script_that_fails_or_hangs_is_told_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let call = rehearsal("n", "t");
        let failed = deliver(&script(&dir, "echo no route; exit 7"), "n", &call, Duration::from_secs(30)).unwrap_err();
        assert!(failed.contains("exit status: 7: no route"), "{failed}");
        let late = deliver(&script(&dir, "sleep 1000"), "n", &call, Duration::from_millis(300)).unwrap_err();
        assert!(late.contains("killed"), "{late}");
        let nothing = deliver(&dir.path().join("none"), "n", &call, Duration::from_secs(1)).unwrap_err();
        assert!(nothing.contains("cannot be run"), "{nothing}");
        assert!(!is_script(&dir.path().join("none")) && !is_script(dir.path()) && is_script(&script(&dir, "")));
    }
}
