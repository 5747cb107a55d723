//! The life of a configuration: its scripts, its signature, what may change while the module runs, and virtual host names.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod node;

use node::{Node, wait_for};
use std::fs;
use std::path::Path;
use std::process::Command;

const PORT: u16 = 18_140;

fn edit(node: &Node, from: &str, to: &str) {
    let file = node.root.join("etc/modules/m/conf/userconfig.xml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(&file, text.replace(from, to)).unwrap();
}

fn refused(node: &Node, arguments: &[&str], code: i32, words: &str) {
    let output = node.sk(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(words), "{arguments:?}: {words:?} in {text}");
}

fn alone(directory: &Path, port: u16, errd: &str) -> Node {
    let mut node = Node::new(directory, "node1", port, r#"maxloop="3""#, "", errd);
    node.script("update", "");
    node.configure();
    node.run();
    node.ok(&["prim", "--wait"]);
    node.wait("ALONE Ready");
    node.forget_calls();
    node
}

#[test]
fn scripts_of_the_configuration_are_called_and_may_say_no() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::new(directory.path(), "node1", PORT, "", "", "");
    let see = |name: &str, more: &str| {
        node.script(
            name,
            &format!(
                "[ -e \"$SAFEUSERCONF/safeconf.xml\" ] && echo full >>{}\ntrue\n{more}",
                node.root.join("calls").display()
            ),
        );
    };
    see("config", "");
    see("postconfig", "echo made by postconfig >\"$SAFEUSERBIN/made\"");
    see("deconfig", "");
    see("confcheck", "");
    node.ok(&["confcheck"]);
    assert_eq!(node.calls(), ["confcheck "]);
    assert!(!node.root.join("var/modules/m/active").exists(), "only checked");
    node.forget_calls();
    node.configure();
    assert_eq!(node.calls(), ["config ", "postconfig ", "full"]);
    let active = node.root.join("var/modules/m/active");
    assert!(active.join("bin/made").exists());
    node.ok(&["confinfo"]);

    see("postconfig", "echo no such service >&2; exit 1");
    edit(&node, "pulse=\"50ms\"", "pulse=\"60ms\"");
    refused(&node, &["config"], 2, "the script postconfig says no");
    assert!(!fs::read_to_string(active.join("conf/userconfig.xml")).unwrap().contains("60ms"), "the old one stays");
    assert!(!node.root.join("var/modules/m/active.new").exists(), "nothing is half applied");
    see("confcheck", "exit 3");
    refused(&node, &["confcheck"], 2, "the script confcheck says no");

    node.forget_calls();
    node.ok(&["deconfig"]);
    assert_eq!(node.calls(), ["deconfig ", "full"]);
    assert!(!active.exists());
    refused(&node, &["start"], 2, "no applied configuration");
    refused(&node, &["deconfig"], 1, "no applied configuration");
}

#[test]
fn signatures_tell_whether_the_configuration_is_applied_and_the_last_three_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::new(directory.path(), "node1", PORT + 1, "", "", "");
    node.configure();
    let info = || node.ok(&["confinfo", "--json"]);
    assert!(info().contains(r#""applied":true"#), "{}", info());
    node.script("start_prim", "true");
    assert!(info().contains(r#""applied":false"#), "{}", info());
    assert!(node.ok(&["confinfo"]).contains("is not the active one"));
    for _ in 0..4 {
        node.configure();
        // Copies are told by their second.
        std::thread::sleep(std::time::Duration::from_millis(1_050));
    }
    assert!(info().contains(r#""applied":true"#), "{}", info());
    let kept: Vec<_> = fs::read_dir(node.root.join("var/lastconfig")).unwrap().flatten().map(|e| e.path()).collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(kept[0].join("conf/userconfig.xml").exists() && kept[0].join("bin/start_prim").exists());
    refused(&node, &["confinfo", "-m", "absent"], 1, "there is no module");
}

#[test]
fn what_may_change_is_changed_while_the_module_runs() {
    let directory = tempfile::tempdir().unwrap();
    let node = alone(directory.path(), PORT + 2, "");
    edit(&node, "maxloop=\"3\"", "maxloop=\"1\"");
    edit(&node, "two words", "three words now");
    node.script("start_prim", &format!("env >{}", node.root.join("env").display()));
    node.ok(&["failover", "off"]);
    let plan = node.ok(&["config", "--plan"]);
    for line in [
        "service maxloop: \"3\" becomes \"1\"",
        "service/user/var WORD value: \"two words\" becomes \"three words now\"",
        "script start_prim: used from its next call on",
        "the script update is called",
    ] {
        assert!(plan.lines().any(|l| l == line), "{line:?} in {plan}");
    }
    assert_eq!(node.sk(&["incloop", "-i", "me"]).status.code(), Some(0), "nothing is applied by a plan");
    node.ok(&["config"]);
    assert_eq!(node.state(), "ALONE Ready");
    wait_for("update is called", || node.calls() == ["update ALONE ALONE update"]);
    assert_eq!(node.sk(&["checkloop"]).status.code(), Some(1), "maxloop is 1 now");
    assert_eq!(node.ok(&["get", "-r", "usersetting.failover"]), "on\n", "a configuration forgets the switches");
    node.ok(&["restart", "--wait"]);
    assert!(fs::read_to_string(node.root.join("env")).unwrap().contains("WORD=three words now"));
    assert!(node.log().contains("Action config called by"));
    assert!(node.ok(&["config", "--plan"]).contains("nothing would change"));
    let journal = node.root.join("var/modules/m/journal.jsonl");
    node.ok(&["replay", "-q", journal.to_str().unwrap()]);
}

#[test]
fn what_may_not_change_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let node = alone(directory.path(), PORT + 3, "");
    edit(&node, "maxloop=\"3\"", "maxloop=\"9\" failover=\"off\" defaultprim=\"lastprim\"");
    for arguments in [&["config"][..], &["config", "--id", "9"]] {
        refused(
            &node,
            arguments,
            1,
            "service defaultprim: \"alone\" becomes \"lastprim\"; service failover: \"on\" becomes \"off\"",
        );
    }
    refused(&node, &["config", "--id", "9"], 1, "id: 7 becomes 9");
    let plan = node.sk(&["config", "--plan"]);
    assert_eq!(plan.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&plan.stdout).contains("(only in STOP)"));
    assert!(node.calls().is_empty(), "no update: {:?}", node.calls());
    node.ok(&["stop", "--wait"]);
    node.ok(&["config"]);
    assert!(node.ok(&["config", "--plan"]).contains("nothing would change"));
}

/// What `sk-arbiter -m` asks is what was configured last, and not what a runner began with.
#[test]
fn an_arbiter_can_be_asked_as_soon_as_it_is_configured() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new(directory.path(), "node1", PORT + 12, "", "", "");
    let asked = |node: &Node| fs::read_to_string(node.root.join("run/m/arbiter.json"));
    let check = |witness: &str| format!("<check><splitbrain ident=\"w\" exec=\"ping\" arg=\"{witness}\"/></check>\n");
    let end = "</service>";
    edit(&node, end, &(check("10.9.9.1") + end));
    node.configure();
    assert!(asked(&node).unwrap().contains("10.9.9.1"), "without a runner");
    node.run();
    edit(&node, "10.9.9.1", "10.9.9.2");
    node.ok(&["config"]);
    assert!(asked(&node).unwrap().contains("10.9.9.2"), "with a runner in STOP");
    edit(&node, &check("10.9.9.2"), "");
    node.ok(&["config"]);
    assert_eq!(asked(&node).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_pair_takes_no_configuration_and_no_update() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = node::pair(directory.path(), PORT + 4, "", "");
    one.ok(&["prim", "--wait"]);
    two.ok(&["start", "--wait"]);
    one.wait("PRIM Ready");
    edit(&one, "<service mode=\"mirror\"", "<service maxloop=\"7\" mode=\"mirror\"");
    refused(&one, &["config"], 1, "cannot be deployed");
    refused(&one, &["update"], 1, "no update in PRIM");
    for node in [&two, &one] {
        node.ok(&["stop", "--wait"]);
    }
}

/// Heartbeats and process supervision are started again with what is new; classes that a script enabled stay enabled.
#[test]
fn processes_are_watched_as_before_after_a_change_of_errd() {
    let directory = tempfile::tempdir().unwrap();
    let number = format!("986{}", std::process::id());
    let process = |name: &str, class: &str, action: &str| {
        format!(
            r#"<proc name="{name}" nameregex="sleep" argregex=".*sleep {number}.*" class="{class}" action="{action}"/>"#
        )
    };
    let errd = format!(r#"<errd polltimer="1">{}</errd>"#, process("mine", "own", "noaction"));
    let mut node = alone(directory.path(), PORT + 5, &errd);
    let mut sleeper = Command::new("sleep").arg(&number).spawn().unwrap();
    node.ok(&["errd", "enable", "own"]);
    let value = |node: &Node, name: &str| String::from_utf8(node.sk(&["get", "-r", name]).stdout).unwrap();
    wait_for("errd sees it", || value(&node, "proc.mine") == "up\n");
    edit(&node, "</errd>", &format!("{}</errd>", process("second", "prim", "noaction")));
    edit(&node, "timeout=\"1000ms\"", "timeout=\"1100ms\"");
    let plan = node.ok(&["config", "--plan"]);
    for name in ["sk-errd", "sk-heartbeat"] {
        assert!(plan.contains(&format!("{name} is started again with its new configuration")), "{plan}");
    }
    node.ok(&["config"]);
    wait_for("the new process is watched", || value(&node, "proc.second") == "up\n");
    assert_eq!(node.state(), "ALONE Ready");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    wait_for("the class of the script is still watched", || value(&node, "proc.mine") == "down\n");
    assert!(!node.log().contains("ended unexpectedly"), "{}", node.log());

    // Without <errd> nothing is watched; the runner's death in between changes nothing.
    let file = node.root.join("etc/modules/m/conf/userconfig.xml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("<errd").unwrap();
    fs::write(&file, format!("{before}{}", rest.split_once("</errd>").unwrap().1)).unwrap();
    node.ok(&["config"]);
    wait_for("sk-errd is gone", || !node.ok(&["state", "--json"]).contains("sk-errd"));
    node.kill_runner();
    node.run();
    node.wait("ALONE Ready");
    assert!(!node.ok(&["state", "--json"]).contains("sk-errd"));
}

/// Whenever the command or the runner is killed, the applied configuration is whole: the old one or the new one.
#[test]
fn a_crash_leaves_the_old_or_the_new_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = alone(directory.path(), PORT + 6, "");
    let active = node.root.join("var/modules/m/active/conf");
    for round in 0_u64..12 {
        let (old, new) = (format!("maxloop=\"{}\"", round + 3), format!("maxloop=\"{}\"", round + 4));
        edit(&node, &old, &new);
        let mut command = node.command(&["config"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(round * 7));
        if round % 3 == 2 {
            node.kill_runner();
        }
        // It may have ended.
        let _ = command.kill();
        command.wait().unwrap();
        let written = fs::read_to_string(active.join("userconfig.xml")).unwrap();
        let full = fs::read_to_string(active.join("safeconf.xml")).unwrap();
        assert!(written.contains(&old) != written.contains(&new), "round {round}: {written}");
        assert_eq!(written.contains(&new), full.contains(&new), "round {round}: both are of one configuration");
        if round % 3 == 2 {
            node.run();
            node.wait("ALONE Ready");
        }
        node.ok(&["config"]);
        assert!(node.ok(&["config", "--plan"]).contains("nothing would change"));
    }
}

#[test]
fn an_application_sees_its_virtual_host_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::new(directory.path(), "node1", PORT + 7, "", "", "");
    edit(&node, "</service>", r#"<vhost><virtualhostname name="db.example" envfile="vhost.env"/></vhost></service>"#);
    let library = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("libvhost.so");
    if !library.exists() {
        refused(&node, &["config"], 2, "libvhost.so, which is not there");
    }
    build_library(&node);
    let names = node.root.join("names");
    node.script(
        "start_prim",
        &format!(
            ". \"$SAFEUSERBIN/vhost.env\"; uname -n >{0}; . \"$SAFEUSERBIN/vhost.env\"; uname -n >>{0}",
            names.display()
        ),
    );
    node.configure();
    node.run();
    node.ok(&["prim", "--wait"]);
    let truth = String::from_utf8(Command::new("uname").arg("-n").output().unwrap().stdout).unwrap();
    assert_eq!(fs::read_to_string(&names).unwrap(), format!("db.example\n{truth}"));
    // It is not dynamic.
    edit(&node, "db.example", "other.example");
    refused(&node, &["config"], 1, "service/vhost");
}

fn build_library(node: &Node) {
    let target = node.root.join("target");
    let mut cargo = programs::cargo();
    cargo.args(["build", "--quiet", "--locked", "-p", "vhost", "--target-dir"]).arg(&target);
    assert!(cargo.status().unwrap().success());
    let place = node.root.join("safe/private/lib");
    fs::create_dir_all(&place).unwrap();
    fs::copy(target.join("debug/libvhost.so"), place.join("libvhost.so")).unwrap();
}

#[test]
fn the_application_can_be_run_without_the_module() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::new(directory.path(), "node1", PORT + 8, "", "", "");
    node.configure();
    let run = |which: &str| {
        let wrapper = node.root.join(format!("var/modules/m/active/bin/m_{which}_wrapper.sh"));
        // The command's environment is that of a shell on the node.
        let command = node.command(&[]);
        let mut shell = Command::new("sh");
        shell.arg(wrapper);
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell.output().unwrap()
    };
    let output = run("start");
    assert!(output.status.success(), "{output:?}");
    let output = run("stop");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        node.calls(),
        ["start_prim STOP ALONE start", "stop_prim ALONE STOP stop", "stop_prim force ALONE STOP stop"]
    );
}

/// A checker that is added to a running module is run, its rule counts at once; one that is taken away is forgotten.
#[test]
fn checkers_come_and_go_while_the_module_runs() {
    let directory = tempfile::tempdir().unwrap();
    let node = alone(directory.path(), PORT + 9, "");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let check = format!(
        r#"<check><tcp ident="t" when="prim" action="restart"><to addr="127.0.0.1" port="{port}" interval="1s" timeout="1s"/></tcp></check>"#
    );
    edit(&node, "</service>", &format!("{check}</service>"));
    edit(&node, "maxloop=\"3\"", "maxloop=\"10000\"");
    assert!(node.ok(&["config", "--plan"]).contains("sk-check is started again"), "{}", node.ok(&["config", "--plan"]));
    node.ok(&["config"]);
    let value = |node: &Node| String::from_utf8(node.sk(&["get", "-r", "tcp.t"]).stdout).unwrap();
    wait_for("the port is tested", || value(&node) == "up\n");
    node.forget_calls();
    drop(listener);
    wait_for("its rule restarts the application", || node.calls().iter().any(|c| c.starts_with("start_prim")));
    assert!(node.log().contains("Action restart from failover rule t_t"), "{}", node.log());
    edit(&node, &check, "");
    wait_for("the configuration is taken between two restarts", || node.sk(&["config"]).status.success());
    wait_for("nobody tests it any more", || !node.ok(&["state", "--json"]).contains("sk-check"));
    wait_for("stable", || node.state() == "ALONE Ready");
}
