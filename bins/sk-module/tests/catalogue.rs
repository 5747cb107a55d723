//! Are the messages, resources and file names there that operators' monitoring of SafeKit knows? What is not, is on the page of differences.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fs;
use std::path::{Path, PathBuf};

/// What operators filter on, and the words of the source that say it (placeholders as they stand there).
const MESSAGES: [(&str, &str); 39] = [
    ("Action start|stop|… called by root", "Action {} called by {who}"),
    ("Action failover on|off called by …", "Action failover {} called by {origin}"),
    ("Action config called by …", "Action config called by {origin}"),
    ("Action shutdown called by SYSTEM/root", "SYSTEM/root"),
    ("Action start called at boot time", "Action start called at boot time"),
    ("Action start called automatically", "Action start called automatically"),
    ("Action alone called by heart: remote stop", "remote stop"),
    ("Action alone called by heart: no heartbeat", "no heartbeat"),
    ("Action alone called by heart: …", "Action alone called by heart: {why}"),
    ("Action stop called by maxloop", "Action stop called by maxloop"),
    ("Action stop called by heart : local fault", "Action stop called by heart : local fault"),
    ("Action stopstart called by failover-off", "Action stopstart called by failover-off"),
    ("Action … from failover rule …", "from failover rule {"),
    ("Action wakeup from failover rule Implicit_wakeup", "Action wakeup from failover rule Implicit_wakeup"),
    ("Transition STOPSTART from failover-off", "Transition STOPSTART from failover-off"),
    ("Transition SWAP from defaultprim", "Transition SWAP from defaultprim"),
    ("Begin of Swap", "Begin of Swap"),
    ("Local state … …", "Local state {state}"),
    ("Local internal state …", "Local internal state {from}_TO_{to}_{begun}"),
    ("Remote state … …", "Remote state {remote}"),
    ("Remote state UNKNOWN", "\"UNKNOWN\""),
    ("Resource … set to … by …", "set to {value} by {origin}"),
    ("Script … > userlog_….ulog", "Script {name} > {userlog}"),
    ("Script … \"force\" > userlog_….ulog", "Script {name} \\\"force\\\" > {userlog}"),
    ("Script prestart \"start\" > userlog_….ulog", "Script {name} \\\"start\\\" > {userlog}"),
    (
        "Data may be not uptodate …",
        "Data may be not uptodate for replicated directories (wait for the start of the remote server)",
    ),
    (
        "If you are sure …, run safekit prim …",
        "If you are sure that this server has valid data, run safekit prim to force start as primary",
    ),
    (
        "Data may be inconsistent …",
        "Data may be inconsistent for replicated directories (stopped during reintegration)",
    ),
    ("… run safekit primforce …", "run safekit primforce to force start as primary"),
    ("Requested prim start aborted", "Requested prim start aborted"),
    ("Updating directory tree from …", "Updating directory tree from {directory}"),
    ("…MB copied", "{reached}MB copied"),
    ("Copied …", "Copied {bytes} bytes"),
    ("Reintegration ended (synchronize)", "Reintegration ended (synchronize)"),
    ("Uptodate replicated file system", "Uptodate replicated file system"),
    ("Failover-off configured", "Failover-off configured"),
    ("Split brain recovery: staying alone", "Split brain recovery: staying alone"),
    ("Split brain recovery: exiting alone", "Split brain recovery: exiting alone"),
    ("Virtual IP … set", "Virtual IP {address} set"),
];

const PROCESSES: [(&str, &str); 2] = [("Process … not running", "Process {"), ("Service … not running", "Service {")];

/// Names of resources.
const RESOURCES: [&str; 38] = [
    "state.local",
    "state.remote",
    "usersetting.boot",
    "usersetting.checker",
    "usersetting.encryption",
    "usersetting.errd",
    "usersetting.failover",
    "usersetting.rfssyncmode",
    "usersetting.rfssyncrole",
    "usersetting.rfssyncuid",
    "rfs.rfssync",
    "rfs.uptodate",
    "rfs.degraded",
    "rfs.reintegre_failed",
    "rfs.syncat",
    "rfs.netin_bandwidth",
    "rfs.netout_bandwidth",
    "rfs.rep_bandwidth",
    "rfs.rei_bandwidth",
    "rfs.rei_scan_count_metric",
    "rfs.rei_scan_time_metric",
    "rfs.rei_syncdir_count_metric",
    "rfs.rei_copy_count_metric",
    "rfs.rei_copy_size_metric",
    "rfs.rei_copy_time_metric",
    "heart.stopstartloop",
    "heart.maxloop",
    "heartbeat.{ident}",
    "heartbeatlocaladdr.{ident}",
    "intf.{ident}",
    "ip.{address}",
    "proc.{",
    "tcp.",
    "ping.",
    "custom.",
    "module.",
    "splitbrain.",
    "connections.{address}",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("history.rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The source of what writes the log and assigns resources, long strings joined.
fn source(parts: &[&str]) -> String {
    let mut text = String::new();
    for part in parts {
        read(&root().join(part), &mut text);
    }
    text
}

#[test]
fn every_message_of_a_mirror_is_said() {
    let text = source(&["lib/automaton/src", "bins/sk-module/src"]);
    let missing: Vec<&str> =
        MESSAGES.iter().filter(|(_, words)| !text.contains(words)).map(|(name, _)| *name).collect();
    assert!(missing.is_empty(), "nobody says {missing:#?}");
    let errd = source(&["bins/sk-errd/src"]);
    for (name, words) in PROCESSES {
        assert!(errd.contains(words), "nobody says {name}");
    }
}

#[test]
fn every_resource_has_its_name() {
    let text = source(&["lib/automaton/src", "bins/sk-module/src", "lib/config/src", "lib/rules/src"]);
    // `usersetting.` and the rest of some names are put together.
    let made = |name: &str| {
        text.contains(name)
            || name.rsplit_once('.').is_some_and(|(c, id)| c == "usersetting" && text.contains(&format!("\"{id}\"")))
    };
    let missing: Vec<&str> = RESOURCES.into_iter().filter(|name| !made(name)).collect();
    assert!(missing.is_empty(), "nobody assigns {missing:#?}");
}

#[test]
fn output_files_have_the_names_that_tools_look_for() {
    let text = source(&["bins/sk-module/src"]);
    assert!(text.contains("userlog_{stamp}_{name}.ulog") && text.contains("%Y-%m-%dT%H%M%S"));
}
