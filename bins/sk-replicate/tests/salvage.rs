//! What was put aside, as an administrator sees it.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn run(var: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sk-replicate"))
        .env("SK_VAR", var)
        .env("SK_RUN", var.join("run"))
        .args(["salvage", "-m", "mirror"])
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn listed_restored_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let var = home.path();
    let (code, _, words) = said(&run(var, &["list"]));
    assert_eq!(code, 2, "{words}");
    let salvage = var.join("modules/mirror/salvage");
    let file = salvage.join("2026-01-02T030405Z/data/a file");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, b"precious").unwrap();
    let (code, lines, _) = said(&run(var, &["list", "--json"]));
    assert_eq!(code, 0);
    let listed: serde_json::Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!((&listed["bytes"], listed["date"].as_str()), (&8.into(), Some("2026-01-02T030405Z")));
    let id = listed["id"].as_str().unwrap();
    let to = var.join("back");
    let to = to.to_str().unwrap();
    let (code, words, _) = said(&run(var, &["restore", id, "--to", to]));
    assert_eq!((code, words.contains("1 file restored")), (0, true), "{words}");
    assert_eq!(std::fs::read(var.join("back/a file")).unwrap(), b"precious");
    assert_eq!(said(&run(var, &["restore", id, "--to", to])).0, 5);
    assert_eq!(said(&run(var, &["restore", "nothing", "--to", to])).0, 4);
    assert_eq!(said(&run(var, &["restore", id, "--to", salvage.to_str().unwrap()])).0, 100);
    assert_eq!(said(&run(var, &["prune"])).0, 100);
    assert_eq!(said(&run(var, &["prune", "--all", "--older-than", "1d"])).0, 100);
    let (code, words, _) = said(&run(var, &["prune", "--all"]));
    assert_eq!((code, words.contains("would remove 2026-01-02T030405Z: 1 file")), (3, true), "{words}");
    assert!(file.exists());
    // While content may be put aside, nothing is removed.
    std::fs::create_dir_all(var.join("run/mirror")).unwrap();
    std::fs::write(var.join("run/mirror/state.json"), br#"{"replica":{"resync":{"phase":"data"}}}"#).unwrap();
    assert_eq!(said(&run(var, &["prune", "--all", "--yes"])).0, 3);
    std::fs::write(var.join("run/mirror/state.json"), br#"{"replica":{"resync":null}}"#).unwrap();
    assert!(file.exists());
    assert_eq!(said(&run(var, &["prune", "--older-than", "10000d", "--yes"])).0, 0);
    assert!(file.exists());
    assert_eq!(said(&run(var, &["prune", "--all", "--yes"])).0, 0);
    assert!(!salvage.join("2026-01-02T030405Z").exists());
    assert_eq!(said(&run(var, &["list"])).0, 0);
}
