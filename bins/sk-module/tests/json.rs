//! What programs read: each line that a verb prints with `--json` is a JSON object with the fields that are promised.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod node;

use node::Node;
use serde_json::Value;
use std::fs;

const PORT: u16 = 18_320;

/// The objects that a command prints.
fn objects(node: &Node, code: i32, arguments: &[&str]) -> Vec<Value> {
    let output = node.sk(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {line}"));
    let all: Vec<Value> = text.lines().map(parse).collect();
    assert!(all.iter().all(Value::is_object), "{arguments:?}: {text}");
    all
}

#[test]
fn configurations_and_what_they_would_change() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::new(directory.path(), "node1", PORT, "", "", "");
    let file = node.root.join("etc/modules/m/conf/userconfig.xml");
    let check = |code| objects(&node, code, &["check", file.to_str().unwrap()]);
    assert_eq!(check(0), Vec::<Value>::new());
    assert_eq!(objects(&node, 0, &["confcheck"]), Vec::<Value>::new());
    assert_eq!(objects(&node, 0, &["config", "--plan"])[0]["first"], true);
    let done = &objects(&node, 0, &["config", "--id", "7"])[0];
    assert_eq!((&done["module"], &done["id"]), (&"m".into(), &7.into()));
    let plan = &objects(&node, 0, &["config", "--plan"])[0];
    assert_eq!((&plan["possible"], &plan["first"]), (&true.into(), &false.into()));
    assert_eq!(plan["plan"]["changes"], Value::Array(vec![]), "{plan}");

    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("two words", "three words").replace("1000ms", "2000ms")).unwrap();
    let plan = &objects(&node, 0, &["config", "--plan"])[0];
    let changes = plan["plan"]["changes"].as_array().unwrap();
    assert!(changes.iter().any(|c| c["attribute"] == "timeout" && c["new"] == "2000ms"), "{plan}");

    fs::write(&file, good.replace("mode=\"mirror\"", "mode=\"mirror\" unheard=\"of\"")).unwrap();
    for found in [check(2), objects(&node, 2, &["confcheck"])] {
        let error = found.iter().find(|d| d["severity"] == "error").unwrap();
        assert!(error["line"] == 1 && error["message"].as_str().unwrap().contains("unheard"), "{error}");
    }
}

#[test]
fn logs_plans_resources_and_decisions() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new(directory.path(), "node1", PORT + 1, "", "", "");
    node.configure();
    node.script("level", "echo application 1.2");
    node.ok(&["config"]);
    node.run();
    node.ok(&["prim", "--wait"]);
    node.ok(&["checker", "off"]);

    let log = objects(&node, 0, &["log", "-A"]);
    let state = log.iter().find(|l| l["message"].as_str().unwrap().contains("ALONE Ready")).unwrap();
    assert!(state["t"].as_str().unwrap().ends_with('Z') && state["level"] == "E", "{state}");
    assert_eq!(objects(&node, 0, &["log", "-s", "2"]).len(), 2);

    let commands = objects(&node, 0, &["cmdlog"]);
    let begun = commands.iter().find(|c| c["arguments"] == "prim --wait").unwrap();
    assert_eq!((&begun["event"], &begun["module"]), (&"start".into(), &"m".into()), "{begun}");
    let ended = commands.iter().find(|c| c["event"] == "end" && c["pid"] == begun["pid"]).unwrap();
    assert_eq!(ended["exit"], 0, "{ended}");

    let resource = &objects(&node, 0, &["get", "-r", "usersetting.checker"])[0];
    assert_eq!((&resource["resource"], &resource["value"]), (&"usersetting.checker".into(), &"off".into()));
    let level = &objects(&node, 0, &["level"])[0];
    assert!(level["version"].is_string() && level["script"].as_str().unwrap().contains("application 1.2"), "{level}");

    let plan = objects(&node, 0, &["plan", "STOP", "WAIT"]);
    let script = plan.iter().find(|s| s["name"] == "prestart").unwrap();
    assert_eq!((&script["step"], &script["present"]), (&"script".into(), &true.into()), "{script}");
    assert!(script["path"].as_str().unwrap().ends_with("/bin/prestart"), "{script}");

    let journal = node.root.join("var/modules/m/journal.jsonl");
    let journal = journal.to_str().unwrap();
    let replayed = objects(&node, 0, &["replay", journal]);
    assert_eq!(replayed[0]["kind"], "begin");
    let decided = |r: &&Value| r["kind"] == "event" && r["actions"].as_array().is_some_and(|a| !a.is_empty());
    assert!(replayed.iter().any(|r| decided(&r)), "{replayed:#?}");
    let verdict = replayed.last().unwrap();
    assert_eq!((&verdict["kind"], &verdict["same"], &verdict["missing"]), (&"verdict".into(), &true.into(), &0.into()));
    assert_eq!(objects(&node, 0, &["replay", "-q", journal]).len(), 1);

    // A decision that is not taken again.
    let text = fs::read_to_string(journal).unwrap();
    let forged = node.root.join("forged.jsonl");
    fs::write(&forged, text.replacen("\"actions\":[", "\"actions\":[{\"unheard\":\"of\"},", 1)).unwrap();
    let replayed = objects(&node, 1, &["replay", "-q", forged.to_str().unwrap()]);
    assert_eq!((&replayed[0]["kind"], &replayed[1]["same"]), (&"difference".into(), &false.into()), "{replayed:#?}");
    assert_eq!(replayed[0]["recorded"][0]["unheard"], "of");
    node.ok(&["stop", "--wait"]);
}

#[test]
fn what_can_be_installed_and_what_a_host_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::new(directory.path(), "node1", PORT + 2, "", "", "");
    fs::create_dir_all(node.root.join("safe/templates/one/conf")).unwrap();
    fs::write(node.root.join("safe/templates/one/conf/userconfig.xml"), "<safe/>").unwrap();
    let available = objects(&node, 0, &["list", "--available"]);
    assert_eq!((&available[0]["kind"], &available[0]["source"]), (&"template".into(), &"one".into()));
    let found = objects(&node, 1, &["init", "--check", "--owner", "no-such-user=1:1"]);
    assert!(
        found.iter().any(|f| f["check"] == "users" && f["level"] == "error" && f["remedy"].is_string()),
        "{found:#?}"
    );
}
