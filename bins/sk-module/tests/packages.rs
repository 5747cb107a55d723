//! A module packed on one node is installed on another and runs there unchanged; what is there is never lost.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod node;

use node::Node;
use std::fs;
use std::path::Path;

const PORT: u16 = 18_240;

fn fails(node: &Node, arguments: &[&str], code: i32, words: &str) {
    let output = node.sk(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(words), "{arguments:?}: {words:?} in {text}");
}

fn kept(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.root.join("var/backup")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A node without the module `m`, but with a template of that name.
fn other(directory: &Path) -> Node {
    let node = Node::new(directory, "node2", PORT + 1, "", "", "");
    fs::create_dir_all(node.root.join("safe/templates")).unwrap();
    fs::rename(node.root.join("etc/modules/m"), node.root.join("safe/templates/m")).unwrap();
    node
}

#[test]
fn a_packed_module_runs_on_another_node() {
    let directory = tempfile::tempdir().unwrap();
    let one = Node::new(directory.path(), "node1", PORT, "", "", "");
    one.configure();
    let file = directory.path().join("m.safe");
    let file = file.to_str().unwrap();
    one.ok(&["package", file]);
    fails(&one, &["package", file], 1, "exists already");
    fails(&one, &["package", "-m", "absent", "/nowhere.safe"], 1, "there is no module absent");

    let mut two = other(directory.path());
    let said = two.ok(&["install", file]);
    assert!(said.contains("module m (id 7) is installed") && said.contains("next: sk-module config -m m"), "{said}");
    two.ok(&["config"]);
    assert!(two.ok(&["list"]).contains("m                           7  STOP"), "the number came with the package");
    two.run();
    two.ok(&["prim", "--wait"]);
    two.wait("ALONE Ready");
    // Its scripts write where they did at home.
    assert!(one.calls().iter().any(|call| call.starts_with("start_prim")), "{:?}", one.calls());
    fails(&two, &["uninstall"], 1, "is in ALONE: stop it first");
    two.ok(&["stop", "--wait"]);
    let said = two.ok(&["uninstall"]);
    assert!(said.contains("is uninstalled") && said.contains("stay in"), "{said}");
    assert!(!two.root.join("etc/modules/m").exists() && !two.root.join("var/modules/m/active").exists());
    assert!(two.root.join("var/modules/m/log").exists());
    let package = two.root.join("var/backup").join(&kept(&two)[0]);
    two.ok(&["install", package.to_str().unwrap()]);
    two.ok(&["config"]);
    fails(&two, &["uninstall", "-m", "absent"], 1, "there is no module absent");
}

#[test]
fn what_is_there_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let node = other(directory.path());
    assert_eq!(node.ok(&["list", "--available"]), "m\n");
    node.ok(&["install"]);
    node.ok(&["install", "-m", "second", "m"]);
    node.ok(&["install", "-m", "third", "m", "--id", "9"]);
    fails(&node, &["install"], 1, "there is a module m already");
    fails(&node, &["install", "-m", "fourth", "m", "-M", "9"], 1, "module third already has the id 9");
    fails(&node, &["install", "-m", "fourth", "absent"], 1, "neither a file nor a template absent");
    fails(&node, &["install", "-m", "fourth", "m", "-M", "1001"], 100, "1001");
    assert!(!node.root.join("etc/modules/fourth").exists());
    let id = |module: &str| fs::read_to_string(node.root.join("etc/modules").join(module).join("id")).unwrap();
    assert_eq!((id("m"), id("second"), id("third")), ("1\n".into(), "2\n".into(), "9\n".into()));

    let configuration = node.root.join("etc/modules/m/conf/userconfig.xml");
    fs::write(&configuration, "<!-- mine -->").unwrap();
    let note = node.root.join("etc/modules/m/note");
    fs::write(&note, "mine").unwrap();
    for arguments in [&["install", "--reinstall"][..], &["uninstall"]] {
        fails(&node, arguments, 1, "note is no part of a module");
    }
    fs::remove_file(note).unwrap();
    node.ok(&["install", "-r"]);
    assert!(fs::read_to_string(&configuration).unwrap().contains("<safe>"));
    assert_eq!(id("m"), "1\n");
    // The old one is in the package that was kept.
    let package = node.root.join("var/backup").join(&kept(&node)[0]);
    fs::write(node.root.join("bad.safe"), b"PK garbage").unwrap();
    fails(&node, &["install", "-r", node.root.join("bad.safe").to_str().unwrap()], 1, "no zip archive");
    assert!(fs::read_to_string(&configuration).unwrap().contains("<safe>"), "a bad package changes nothing");
    node.ok(&["install", "-r", package.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&configuration).unwrap(), "<!-- mine -->");
    let left = fs::read_dir(node.root.join("etc/modules")).unwrap().count();
    assert_eq!(left, 3, "nothing staged stays");
    let log = node.ok(&["cmdlog"]);
    assert!(log.contains("install -r") && !log.contains("package"), "{log}");
}

#[test]
fn backups_are_bounded_for_each_module() {
    let directory = tempfile::tempdir().unwrap();
    let node = other(directory.path());
    node.ok(&["install"]);
    fs::create_dir_all(node.root.join("var/backup")).unwrap();
    let dates = ["2020-01-01_000001", "2020-01-01_000002", "2020-01-01_000003", "2020-01-01_000004"];
    for date in dates {
        fs::write(node.root.join(format!("var/backup/m_{date}.safe")), "old").unwrap();
        fs::write(node.root.join(format!("var/backup/m_1_{date}.safe")), "another module's").unwrap();
    }
    node.ok(&["uninstall"]);
    let names = kept(&node);
    assert_eq!(names.iter().filter(|n| n.starts_with("m_1_")).count(), 4, "{names:?}");
    assert_eq!(names.iter().filter(|n| n.starts_with("m_2")).count(), 3, "{names:?}");
    assert!(
        !names.contains(&format!("m_{}.safe", dates[0])) && names.contains(&format!("m_{}.safe", dates[3])),
        "{names:?}"
    );
}
