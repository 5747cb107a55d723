//! What was put aside, as an administrator sees it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn command(var: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sk-replicate"));
    command.env("SK_VAR", var).env("SK_RUN", var.join("run")).args(["salvage", "-m", "mirror"]).args(arguments);
    command
}

fn run(var: &Path, arguments: &[&str]) -> Output {
    command(var, arguments).output().unwrap()
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
    let (code, words, _) = said(&run(var, &["restore", id, "--to", to]));
    assert_eq!((code, words.contains("1 there already")), (0, true), "{words}");
    std::fs::write(var.join("back/a file"), b"mine").unwrap();
    assert_eq!(said(&run(var, &["restore", id, "--to", to])).0, 5);
    assert_eq!(std::fs::read(var.join("back/a file")).unwrap(), b"mine");
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

/// Files beneath a directory; none where there is no such directory.
fn names(top: &Path) -> Vec<PathBuf> {
    let (mut found, mut queue) = (Vec::new(), vec![top.to_path_buf()]);
    while let Some(directory) = queue.pop() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let (directories, files): (Vec<_>, Vec<_>) = entries.map(|e| e.path()).partition(|path| path.is_dir());
        queue.extend(directories);
        found.extend(files);
    }
    found
}

/// These files with what they contain.
fn files(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let content = |path: &Path| std::fs::read(path).unwrap();
    names(top).iter().map(|path| (path.strip_prefix(top).unwrap().to_path_buf(), content(path))).collect()
}

#[test]
fn a_restoration_that_was_killed_is_given_again() {
    let home = tempfile::tempdir().unwrap();
    let var = home.path();
    let data = var.join("modules/mirror/salvage/2026-01-02T030405Z/data");
    for n in 0..400_u32 {
        let directory = data.join(format!("d{}", n % 7));
        std::fs::create_dir_all(&directory).unwrap();
        // Some are long enough to be interrupted within.
        let length = if n % 50 == 0 { 8 << 20 } else { 10_000 + n as usize };
        std::fs::write(directory.join(format!("f{n}")), vec![n as u8 | 1; length]).unwrap();
    }
    let wanted = files(&data);
    let to = var.join("back");
    let order = ["restore", "2026-01-02T030405Z/data", "--to", to.to_str().unwrap()];
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut kills = 0;
    while kills < 3 {
        let before = names(&to.join("data")).len();
        let mut child = command(var, &order).stdout(Stdio::null()).spawn().unwrap();
        while names(&to.join("data")).len() < before + 20 && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "nothing is restored");
        }
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // It was faster than this test.
            std::fs::remove_dir_all(&to).unwrap();
            continue;
        }
        kills += 1;
        for (path, content) in files(&to.join("data")) {
            assert!(wanted.get(&path) == Some(&content), "half of it, or none of ours: {}", path.display());
        }
    }
    let (code, words, complaints) = said(&run(var, &order));
    assert_eq!(
        (code, words.contains("400 files restored") && words.contains("there already")),
        (0, true),
        "{words}{complaints}"
    );
    assert!(files(&to.join("data")) == wanted, "what was restored is not what was put aside");
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
}
