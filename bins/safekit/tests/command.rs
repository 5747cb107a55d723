//! Does the command behave as scripts expect, against a control socket that answers like a runner?

#![allow(clippy::unwrap_used)] // a test may panic

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Node {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    /// A node with the module AM, without runner.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in ["var/modules/AM", "run/AM", "safe/private/bin"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        Self { dir, asked: Arc::default() }
    }

    /// A runner that gives this reply to everything.
    fn with_runner(reply: Value) -> Self {
        let node = Self::new();
        let listener = UnixListener::bind(node.dir.path().join("run/AM/control")).unwrap();
        let asked = node.asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                asked.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                stream.write_all(format!("{reply}\n").as_bytes()).unwrap();
            }
        });
        node
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_safekit"));
        command.args(arguments).env_remove("SAFEMODULE");
        for (name, directory) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
            command.env(name, self.dir.path().join(directory));
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        told(&self.command(arguments).output().unwrap())
    }

    fn last_request(&self) -> Value {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_module_without_a_runner_is_in_stop() {
    let node = Node::new();
    assert_eq!(node.run(&["state", "-m", "AM", "-lq"]), (0, "STOP (NotReady)\n".into(), String::new()));
    assert_eq!(node.run(&["state"]).1, "AM: STOP (NotReady)\n");
    assert_eq!(node.run(&["stop", "-m", "AM"]), (0, String::new(), String::new()));
    assert_eq!(node.run(&["waitstop", "-m", "AM"]).0, 0);
    let (code, _, words) = node.run(&["restart", "-m", "AM"]);
    assert!(code == 1 && words.contains("module AM is not running"), "{words}");
    let (code, _, words) = node.run(&["state", "-m", "other"]);
    assert!(code == 1 && words.contains("there is no module other"), "{words}");
}

#[test]
fn states_have_the_exit_codes_of_the_reference() {
    for (state, code) in [("STOP", 0), ("WAIT", 1), ("ALONE", 2), ("UP", 2), ("PRIM", 3), ("SECOND", 4)] {
        let node = Node::with_runner(json!({"state": state, "readiness": "Ready"}));
        assert_eq!(node.run(&["-m", "AM", "state", "-lq"]), (code, format!("{state} (Ready)\n"), String::new()));
        assert_eq!(node.run(&["state", "-m", "AM"]).0, 0);
    }
}

#[test]
fn requests_are_those_of_the_contract() {
    let node = Node::with_runner(json!({"ok": true, "value": "up"}));
    let asked = |arguments: &[&str]| {
        let (code, _, words) = node.run(arguments);
        assert_eq!(code, 0, "{words}");
        node.last_request()
    };
    let request = asked(&["printe", "-m", "AM", "-5", "rows lost"]);
    assert_eq!((&request["level"], &request["message"]), (&json!("E"), &json!("-5 rows lost")));
    let request = asked(&["stop", "-i", "start_prim", "-m", "AM"]);
    assert_eq!((&request["verb"], &request["identity"]), (&json!("stop"), &json!("start_prim")));
    let request = asked(&["-m", "AM", "errd", "disable", "mine"]);
    assert_eq!((&request["action"], &request["class"]), (&json!("disable"), &json!("mine")));
    let request = asked(&["set", "-r", "custom.x", "-v", "down", "-i", "me", "-m", "AM"]);
    assert_eq!(
        (&request["resource"], &request["value"], &request["identity"]),
        (&json!("custom.x"), &json!("down"), &json!("me"))
    );
    assert_eq!(asked(&["failover", "off", "-m", "AM"])["value"], "off");
    assert_eq!(node.run(&["get", "-r", "custom.x", "-m", "AM"]).1, "up\n");
    let output = node.command(&["restart"]).env("SAFEMODULE", "AM").output().unwrap();
    assert_eq!((output.status.code(), node.last_request()["verb"].clone()), (Some(0), json!("restart")));
}

#[test]
fn refusals_and_limits_reach_the_caller() {
    let node =
        Node::with_runner(json!({"ok": false, "error": "the peer is primary", "hint": "swap instead", "exit": 1}));
    let (code, _, words) = node.run(&["swap", "-m", "AM"]);
    assert_eq!((code, words.as_str()), (1, "safekit: the peer is primary; swap instead\n"));
    let node = Node::with_runner(json!({"ok": true, "reached": true}));
    assert_eq!(node.run(&["incloop", "-i", "me", "-m", "AM"]).0, 1);
    let node = Node::with_runner(json!({"ok": true, "reached": false}));
    assert_eq!(node.run(&["checkloop", "-m", "AM"]).0, 0);
}

#[test]
fn wrong_usage_is_told_clearly() {
    let node = Node::new();
    for (arguments, words) in [
        (&["webservercfg", "-unsecure"][..], "there is no web service"),
        (&["stop"], "no module named"),
        (&["errd", "enable", "-m", "AM"], "needs a class"),
        (&["stop", "-m", "../x"], "no module name"),
        (&["prim", "now", "-m", "AM"], "possible values: fullsync"),
        (&["-r", "../boundcmd"], "neither the name"),
        (&[], "Usage"),
    ] {
        let (code, _, text) = node.run(arguments);
        assert!(code == 100 && text.contains(words), "{arguments:?}: {code} {text}");
    }
}

#[test]
fn special_commands_see_the_environment() {
    let node = Node::new();
    let (code, text, _) = node.run(&["-m", "AM", "-p"]);
    assert_eq!(code, 0);
    assert!(text.contains(&format!("SAFE=\"{}\"\n", node.dir.path().join("safe").display())), "{text}");
    assert!(text.contains("SAFEBIN=\"") && text.contains("SAFEUSERVAR=\""), "{text}");
    let (code, text, _) = node.run(&["-m", "AM", "-r", "/bin/sh", "-c", "echo $SAFEMODULE $SAFEVAR; exit 7"]);
    assert_eq!((code, text), (7, format!("AM {}\n", node.dir.path().join("var").display())));
    assert_eq!(node.run(&["-r", "errdpoll_running"]).0, 0);
    let table = std::fs::read_to_string(node.dir.path().join("var/errdpoll_reserrd")).unwrap();
    let own = format!("{} ", std::process::id());
    assert!(table.lines().any(|l| l.starts_with(&own) && l.contains("(parent=")), "{table}");
    let (code, _, words) = node.run(&["-r", "xpathGet"]);
    assert!(code == 1 && words.contains("no special command xpathGet"), "{words}");
}

#[test]
fn boundcmd_gives_the_code_or_2_and_leaves_nothing_behind() {
    let node = Node::new();
    assert_eq!(node.run(&["-r", "boundcmd", "10", "sh", "-c", "exit 9"]).0, 9);
    assert_eq!(node.run(&["-r", "boundcmd", "10", "/nonexistent"]).0, 127);
    assert_eq!(node.run(&["-r", "boundcmd", "soon", "true"]).0, 100);
    let note = node.dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", note.display());
    let link = node.dir.path().join("boundcmd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_safekit"), &link).unwrap();
    let output = Command::new(&link).args(["0.5", "sh", "-c", &script]).output().unwrap();
    let (code, _, words) = told(&output);
    assert!(code == 2 && words.contains("took longer than 0.5 s"), "{words}");
    let pid = std::fs::read_to_string(&note).unwrap().trim().to_owned();
    let end = Instant::now() + Duration::from_secs(5);
    let is_alive = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
    while is_alive() {
        assert!(Instant::now() < end, "the command's child {pid} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_start_becomes_sk_module() {
    let node = Node::new();
    let bin = node.dir.path().join("safe/bin");
    std::fs::create_dir_all(&bin).unwrap();
    // A copy of the command, so that no real sk-module lies beside it.
    let copy = node.dir.path().join("safekit");
    // Written by another process: a file this process still has open for writing in a forked child cannot be run.
    let shell = format!(
        "cp {} {}; printf '#!/bin/sh\\necho \"$@\"; exit 5\\n' > {bin}; chmod 755 {bin}",
        env!("CARGO_BIN_EXE_safekit"),
        copy.display(),
        bin = bin.join("sk-module").display()
    );
    assert!(Command::new("sh").args(["-c", &shell]).status().unwrap().success());
    let run = |arguments: &[&str]| {
        let output = Command::new(&copy)
            .args(arguments)
            .env("SK_VAR", node.dir.path().join("var"))
            .env("SK_SAFE", node.dir.path().join("safe"))
            .output()
            .unwrap();
        told(&output)
    };
    assert_eq!(run(&["-m", "AM", "second", "fullsync"]), (5, "second --fullsync -m AM\n".into(), String::new()));
    assert_eq!(run(&["logview", "-m", "AM", "-A"]).1, "log -m AM -s 300 -A -f\n");
    let install = run(&["module", "install", "-m", "NEW", "-M", "3", "-r", "/new.safe"]);
    assert_eq!(install.1, "install --id 3 --reinstall /new.safe -m NEW\n", "a module that is not there yet");
    assert_eq!(run(&["-m", "AM", "module", "package", "/new.safe"]).1, "package /new.safe -m AM\n");
    assert_eq!(run(&["module", "uninstall", "-m", "AM"]).1, "uninstall -m AM\n");
    assert_eq!(run(&["module", "uninstall"]).0, 100);
    assert_eq!(run(&["module", "list"]), (0, "AM\n".into(), String::new()));
}

#[test]
fn farms_show_their_shares_and_take_traffic_from_scripts() {
    let node = Node::with_runner(
        json!({"ok": true, "module": "AM", "mode": "farm", "peer": null, "state": "UP", "readiness": "Ready",
        "data": "none", "farm": {"groups": [
            {"group": "FarmProto_0", "percent": 50, "bitmap": "ffffffff 00000000"}, {"group": "Api_1", "percent": 0, "bitmap": "0"}]}}),
    );
    assert_eq!(node.run(&["state", "-m", "AM"]).1, "AM: UP (Ready) FarmProto_0 50%, Api_1 0%\n");
    assert_eq!(node.run(&["state", "-m", "AM", "-lq"]), (2, "UP (Ready)\n".into(), String::new()));
    let list = node.run(&["-m", "AM", "-r", "vip_if_ctrl", "-l"]);
    assert_eq!(list, (0, "FarmProto_0:\n  ffffffff 00000000\nApi_1:\n  0\n".into(), String::new()));
    for value in ["all", "none"] {
        let mut command = node.command(&["-r", "saferpc_send", "vipd", "SETGROUPS", value, value, value]);
        assert_eq!(told(&command.env("SAFEMODULE", "AM").output().unwrap()).0, 0);
        assert_eq!(node.last_request(), json!({"verb": "setgroups", "value": value}));
    }
    let (code, _, words) = node.run(&["-m", "AM", "-r", "saferpc_send", "vipd", "SETGROUPS", "all", "none", "all"]);
    assert!(code == 100 && words.contains("none none none"), "{words}");
    assert_eq!(node.run(&["-m", "AM", "-r", "vip_if_ctrl"]).0, 100);
    let stopped = Node::new();
    assert_eq!(stopped.run(&["-m", "AM", "-r", "vip_if_ctrl", "-l"]).0, 1);
    assert_eq!(stopped.run(&["-m", "AM", "-r", "saferpc_send", "vipd", "SETGROUPS", "all", "all", "all"]).0, 1);
}

const MIRROR: &str = r#"<safe><service mode="mirror"><heart><heartbeat name="default"/></heart>
    <rfs><replicated dir="/srv/data"/></rfs></service></safe>"#;
const CLUSTER: &str = r#"<cluster><lans><lan name="default"><node name="node1" addr="10.0.0.1"/><node name="node2" addr="10.0.0.2"/></lan></lans></cluster>"#;

#[test]
fn ports_are_told_for_firewalls() {
    let node = Node::new();
    let (code, _, words) = node.run(&["module", "getports", "-m", "AM"]);
    assert!(code == 1 && words.contains("safekit config -m AM"), "{words}");
    let path = |name: &str| node.dir.path().join(name);
    std::fs::create_dir_all(path("var/modules/AM/active/conf")).unwrap();
    std::fs::create_dir_all(path("etc")).unwrap();
    std::fs::write(path("var/modules/AM/active/id"), "2\n").unwrap();
    std::fs::write(path("var/modules/AM/active/conf/userconfig.xml"), MIRROR).unwrap();
    let (code, _, words) = node.run(&["module", "getports", "-m", "AM"]);
    assert!(code == 1 && words.contains("cluster.xml"), "{words}");
    std::fs::write(path("etc/cluster.xml"), CLUSTER).unwrap();
    let expected =
        "safeadmin port TCP 4800\nwebconsole port TCP 9010\nheart port UDP 8888\nrfs safenfs_port TCP 5604\n";
    for arguments in [["-m", "AM"], ["-i", "2"]] {
        let told = node.run(&[&["module", "getports"], arguments.as_slice()].concat());
        assert_eq!(told, (0, expected.into(), String::new()));
    }
    let (code, _, words) = node.run(&["module", "getports", "-i", "7"]);
    assert!(code == 1 && words.contains("listid"), "{words}");
}

#[test]
fn keys_of_modules_are_the_key_of_the_cluster() {
    let node = Node::new();
    assert_eq!(node.run(&["module", "genkey", "-m", "AM"]).0, 1, "there is no key yet");
    std::fs::create_dir_all(node.dir.path().join("etc")).unwrap();
    wire::ClusterKey::generate().unwrap().save(&node.dir.path().join("etc/cluster.key")).unwrap();
    assert_eq!(node.run(&["module", "genkey", "-m", "AM"]).0, 0);
    let (code, _, words) = node.run(&["module", "delkey", "-m", "AM"]);
    assert!(code == 1 && words.contains("clear text"), "{words}");
}

#[test]
fn a_stopped_module_is_cleaned_and_a_running_one_is_not() {
    let node = Node::with_runner(json!({"ok": true, "state": "PRIM", "readiness": "Ready"}));
    let var = node.dir.path().join("var/modules/AM");
    let (logs, kept) = (["log", "log.1", "journal.jsonl", "x.ulog"], ["core.json", "boot"]);
    let fill = || {
        for name in logs.iter().chain(&kept).chain(&["resources.jsonl"]) {
            std::fs::write(var.join(name), "x").unwrap();
        }
    };
    fill();
    let (code, _, words) = node.run(&["clean", "log", "-m", "AM"]);
    assert!(code == 1 && words.contains("PRIM") && words.contains("safekit stop"), "{words}");
    assert!(logs.iter().all(|name| var.join(name).exists()));
    std::fs::remove_file(node.dir.path().join("run/AM/control")).unwrap();
    assert_eq!(node.run(&["clean", "log", "-m", "AM"]), (0, String::new(), String::new()));
    assert!(logs.iter().all(|name| !var.join(name).exists()) && var.join("resources.jsonl").exists());
    fill();
    assert_eq!(node.run(&["clean", "resource", "-m", "AM"]).0, 0);
    assert!(logs.iter().all(|name| var.join(name).exists()) && !var.join("resources.jsonl").exists());
    assert!(kept.iter().all(|name| var.join(name).exists()));
    let audited = std::fs::read_to_string(node.dir.path().join("var/cmdlog")).unwrap();
    assert!(audited.contains("| START | clean log ") && audited.matches("| END | 1").count() == 1, "{audited}");
}

#[test]
fn trees_of_processes_are_found_and_ended() {
    let node = Node::new();
    let mark = format!("{}", node.dir.path().display());
    let mut child = Command::new("sh").args(["-c", "sleep 600 & wait", &mark]).spawn().unwrap();
    let tree = |action: &str| node.run(&["-r", "processtree", action, "sh", &mark]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while tree("list").1.lines().count() < 2 {
        assert!(Instant::now() < deadline, "{:?}", tree("list"));
    }
    let (code, listed, _) = tree("list");
    let lines: Vec<&str> = listed.lines().collect();
    assert!(code == 0 && lines[0].contains(" sh ") && lines[1].contains(" sleep 600"), "{listed}");
    // The shell is our child: it is gone once we wait for it.
    let waiter = std::thread::spawn(move || child.wait().unwrap());
    assert_eq!(tree("kill").0, 0);
    waiter.join().unwrap();
    assert_eq!(tree("list").0, 1);
    let (code, _, words) = node.run(&["-r", "processtree", "kill", "all"]);
    assert!(code == 100 && words.contains("REGEX"), "{words}");
}

#[test]
fn jobs_of_cron_go_and_come() {
    let node = Node::new();
    let bin = node.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let table = node.dir.path().join("table");
    std::fs::write(&table, "0 1 * * * backup\n").unwrap();
    let script = format!("#!/bin/sh\ncase $1 in -l) cat {t};; *) cat >{t};; esac\n", t = table.display());
    std::fs::write(bin.join("crontab"), script).unwrap();
    std::fs::set_permissions(bin.join("crontab"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let run = |action: &str| {
        let arguments = ["-r", "gencron", action, "root", "all", "-c", "mirror"];
        told(&node.command(&arguments).env("PATH", &path).output().unwrap())
    };
    assert_eq!(run("del"), (0, String::new(), String::new()));
    assert_eq!(std::fs::read_to_string(&table).unwrap(), "#mirror# 0 1 * * * backup\n");
    assert_eq!(run("add").0, 0);
    assert_eq!(std::fs::read_to_string(&table).unwrap(), "0 1 * * * backup\n");
    assert_eq!(run("explode").0, 100);
}

#[test]
fn ports_are_opened_by_whatever_manages_the_firewall() {
    let node = Node::new();
    let path = |name: &str| node.dir.path().join(name);
    for directory in ["bin", "etc", "var/modules/AM/active/conf"] {
        std::fs::create_dir_all(path(directory)).unwrap();
    }
    std::fs::write(path("var/modules/AM/active/id"), "1\n").unwrap();
    std::fs::write(path("var/modules/AM/active/conf/userconfig.xml"), MIRROR).unwrap();
    std::fs::write(path("etc/cluster.xml"), CLUSTER).unwrap();
    let run = |arguments: &[&str]| {
        let words = [&["-r", "firewallcfg"], arguments].concat();
        told(&node.command(&words).env("PATH", path("bin")).output().unwrap())
    };
    let (code, _, words) = run(&["add"]);
    assert!(code == 1 && words.contains("udp dport 8888") && words.contains("tcp dport 4800"), "{words}");
    let told_to = path("told");
    let script =
        format!("#!/bin/sh\n[ $1 = status ] && echo 'Status: active' && exit\necho \"$@\" >>{}\n", told_to.display());
    std::fs::write(path("bin/ufw"), script).unwrap();
    std::fs::set_permissions(path("bin/ufw"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(run(&["add"]), (0, String::new(), String::new()));
    assert_eq!(run(&["del", "AM"]).0, 0);
    let all = std::fs::read_to_string(&told_to).unwrap();
    let opened = "allow 4800/tcp\nallow 9010/tcp\nallow 8888/udp\nallow 5600/tcp\n";
    assert_eq!(all, format!("{opened}delete allow 8888/udp\ndelete allow 5600/tcp\n"));
    assert_eq!((run(&["open"]).0, run(&["add", "other"]).0), (100, 1));
}
