//! Two nodes on this machine's loopback addresses: what one asks the other does, for whoever may ask it, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on has failed

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_mins(1);

/// The daemon runs `sk-module` and `safekit` from the directory it is in itself.
fn build_others() {
    programs::build(env!("CARGO_BIN_EXE_sk-cluster"));
}

struct Node {
    name: &'static str,
    address: &'static str,
    root: PathBuf,
    daemon: Option<Child>,
}

impl Node {
    fn command(&self, program: &str) -> Command {
        let path = Path::new(env!("CARGO_BIN_EXE_sk-cluster")).with_file_name(program);
        let mut command = Command::new(path);
        for (name, part) in
            [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe"), ("SK_LOG_SOCKET", "log")]
        {
            command.env(name, self.root.join(part));
        }
        command.env("SK_NODE", self.name).env_remove("SK_KEY").env_remove("SSH_CONNECTION").env_remove("SUDO_USER");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command("sk-cluster").args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Exit code, stdout and stderr.
    fn told(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.told(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }

    fn fails(&self, arguments: &[&str], code: i32, words: &str) {
        let (got, out, err) = self.told(arguments);
        assert_eq!(got, code, "{arguments:?}: {out}{err}");
        assert!(err.contains(words), "{arguments:?}: {words:?} in {err}");
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.root.join("etc").join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.join("var/cmdlog")).unwrap_or_default()
    }

    fn serve(&mut self) {
        let mut command = self.command("sk-cluster");
        command.args(["serve", "--listen", self.address]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut words = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        words.read_line(&mut line).unwrap();
        assert!(line.contains("listening"), "{line}");
        // Read to the end, so that the daemon never waits for its words to be read.
        std::thread::spawn(move || words.lines().for_each(drop));
        self.daemon = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Pair {
    one: Node,
    two: Node,
    port: u16,
    _directory: tempfile::TempDir,
}

/// Two nodes of one cluster, with daemons that answer.
fn pair() -> Pair {
    build_others();
    let directory = tempfile::tempdir().unwrap();
    let node = |name: &'static str, address| {
        let root = directory.path().join(name);
        for part in ["etc", "var", "run"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        Node { name, address, root, daemon: None }
    };
    // Free on all of loopback a moment ago.
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let mut pair =
        Pair { one: node("node1", "127.0.0.1"), two: node("node2", "127.0.0.2"), port, _directory: directory };
    // There before the daemons, so that two tests never want the same port.
    for node in [&pair.one, &pair.two] {
        fs::write(node.etc("cluster.xml"), cluster_xml(port, "")).unwrap();
    }
    pair.one.serve();
    pair.two.serve();
    pair.one.ok(&["config"]);
    let exported = pair.one.run(&["export"]).stdout;
    let mut import = pair.two.command("sk-cluster").arg("import").stdin(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&exported).unwrap();
    assert!(import.wait().unwrap().success());
    pair.wait_for_port();
    pair
}

fn cluster_xml(port: u16, more: &str) -> String {
    format!(
        r#"<cluster><lans port="{port}"><lan name="default"><node name="node1" addr="127.0.0.1"/><node name="node2" addr="127.0.0.2"/></lan>{more}</lans></cluster>"#
    )
}

impl Pair {
    /// The daemons look at the file once a second.
    fn wait_for_port(&self) {
        let begun = Instant::now();
        for address in ["127.0.0.1", "127.0.0.2"] {
            while TcpStream::connect((address, self.port)).is_err() {
                assert!(begun.elapsed() < DEADLINE, "{address}:{} does not answer", self.port);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn a_command_runs_on_all_nodes_and_says_how_it_went_on_each() {
    let mut pair = pair();
    let out = pair.one.ok(&["on", "*", "sk-module", "level"]);
    assert_eq!(out.matches("---------------- Server=sk://127.0.0.").count(), 2, "{out}");
    assert_eq!(out.matches("License: Apache-2.0").count(), 2, "{out}");
    // The same in the words of the former product.
    let safekit = |arguments: &[&str]| pair.one.command("safekit").args(arguments).output().unwrap();
    let level = safekit(&["-H", "*", "level"]);
    assert_eq!(String::from_utf8_lossy(&level.stdout).matches("License: ").count(), 2);
    let module = pair.one.command("sk-module").args(["-H", "node2", "level"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&module.stdout).matches("License: ").count(), 1);
    // A failure on a host is told with its words and its exit code.
    let (code, out, err) = pair.one.told(&["on", "node2", "sk-module", "get", "-m", "none", "-r", "a.b"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("node2: sk-module: no resource") && err.contains("node2: exit code 1"), "{err}");
    let lines = pair.one.told(&["on", "*", "--json", "sk-module", "get", "-m", "none", "-r", "a.b"]).1;
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l["node"].as_str().unwrap()).collect::<Vec<_>>(), ["node1", "node2"]);
    assert!(lines.iter().all(|l| l["exit"] == 1 && l["stderr"].as_str().unwrap().contains("no resource")));
    // Nothing but commands of sk, and no shell.
    for bad in [&["sh", "-c", "true"][..], &["/bin/true"], &["safekit", "-r", "/bin/true"], &["sk-module", "log", "-f"]]
    {
        assert_eq!(pair.one.told(&[&["on", "*"], bad].concat()).0, 100);
    }
    // One node is gone: the other has done it all the same.
    pair.two.kill();
    let (code, out, err) = pair.one.told(&["on", "*", "sk-module", "level"]);
    assert_eq!(code, 2, "{err}");
    assert!(out.contains("License: ") && err.contains("node2: Error: nobody answers"), "{out}{err}");
    let (code, out, _) = pair.one.told(&["confinfo"]);
    assert!(code == 2 && out.contains("node2                not reached"), "{out}");
}

#[test]
fn a_node_that_hangs_or_lies_is_not_waited_for() {
    let mut pair = pair();
    pair.two.kill();
    let strange = TcpListener::bind(("127.0.0.2", pair.port)).unwrap();
    let silent = std::thread::spawn(move || {
        let held: Vec<_> = strange.incoming().take(2).flatten().collect();
        if let Some(mut second) = held.get(1) {
            let _ = second.write_all(&[0xff; 4096]);
        }
        held
    });
    let begun = Instant::now();
    // Says nothing: the handshake has a limit.
    pair.one.fails(&["on", "node2", "sk-module", "level"], 2, "node2");
    pair.one.fails(&["on", "node2", "sk-module", "level"], 2, "node2");
    assert!(begun.elapsed() < DEADLINE);
    drop(silent.join());
}

#[test]
fn strangers_and_garbage_do_not_keep_a_node_from_answering() {
    let pair = pair();
    let mut held = Vec::new();
    for n in 0..200_u8 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.2", pair.port)) else { continue };
        // Silence, noise, and a greeting without its end.
        let bytes: Vec<u8> = match n % 3 {
            0 => Vec::new(),
            1 => (0..=255).map(|b: u8| b.wrapping_mul(n)).collect(),
            _ => b"skst\x01\x01\xff\xff".to_vec(),
        };
        let _ = stream.write_all(&bytes);
        held.push(stream);
    }
    // Those who showed no key are sent away after some seconds at the latest.
    let begun = Instant::now();
    while pair.one.told(&["on", "node2", "sk-module", "level"]).0 != 0 {
        assert!(begun.elapsed() < DEADLINE);
    }
}

#[test]
fn each_key_does_what_its_role_allows_and_every_change_is_logged() {
    let mut pair = pair();
    let file = |name: &str| pair.one.root.join(name).to_str().unwrap().to_owned();
    let (monitor, control) = (file("mon.key"), file("ctl.key"));
    pair.one.ok(&["role", "add", "mon", "monitor", "--output", &monitor]);
    pair.one.ok(&["role", "add", "ctl", "control", "--output", &control]);
    for path in [pair.two.etc("operators.keys"), PathBuf::from(&monitor)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(pair.two.ok(&["role", "list", "--json"]).lines().count(), 2);
    let with = |key: &str, rest: &[&str]| pair.one.told(&[&["--key", key][..], rest].concat());
    assert_eq!(with(&monitor, &["on", "*", "sk-module", "level"]).0, 0);
    // Control may stop: the module is not there, which is another answer than being forbidden.
    for (key, words, code) in [
        (&monitor, &["sk-module", "stop", "-m", "web"][..], 3),
        (&monitor, &["safekit", "prim", "-m", "web"], 3),
        (&control, &["sk-module", "prim", "-m", "web"], 1),
        (&control, &["sk-module", "config", "-m", "web"], 3),
        (&control, &["safekit", "kill", "-name", "x", "-level", "test"], 3),
    ] {
        let (got, out, err) = with(key, &[&["on", "node2"], words].concat());
        assert_eq!(got, code, "{words:?}: {out}{err}");
    }
    assert_eq!(with(&control, &["push"]).0, 3);
    let before = fs::read(pair.two.etc("cluster.xml")).unwrap();
    assert_eq!(with(&monitor, &["push", "-H", "node2"]).0, 3);
    assert_eq!(fs::read(pair.two.etc("cluster.xml")).unwrap(), before);
    let log = pair.two.log();
    for words in [
        "| sk-cluster |  |",
        "START | sk-module stop -m web -u mon@node1 (key mon, role monitor, from 127.0.0.1;",
        "END | 3",
        "| sk-module | web |",
        "START | prim -m web -u ctl@node1 (key ctl, role control, from 127.0.0.1;",
        "START | push -u ",
        "(key of the cluster, role admin",
    ] {
        assert!(log.contains(words), "{words:?} in {log}");
    }
    // A key that was taken away is a stranger's at once; one of another cluster was never anything else.
    pair.one.ok(&["role", "remove", "ctl"]);
    assert_eq!(with(&control, &["on", "*", "sk-module", "level"]).0, 3);
    fs::write(&monitor, format!("mon monitor {}\n", "ab".repeat(32))).unwrap();
    assert_eq!(with(&monitor, &["on", "*", "sk-module", "level"]).0, 3);
    // A node that was away gets it later.
    pair.two.kill();
    assert_eq!(pair.one.told(&["role", "remove", "mon"]).0, 2);
    pair.two.serve();
    pair.wait_for_port();
    pair.one.ok(&["push"]);
    assert_eq!(pair.two.ok(&["role", "list", "--json"]), "");
}

#[test]
fn the_log_of_the_host_is_told_who_did_what() {
    let pair = pair();
    let socket = UnixDatagram::bind(pair.two.root.join("log")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    pair.one.told(&["on", "node2", "sk-module", "prim", "-m", "web"]);
    let mut bytes = [0; 4096];
    let count = socket.recv(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    assert!(text.starts_with("<30>") && text.contains(" safekit["), "{text}");
    assert!(text.contains("]: web | sk-module | Command prim -m web called by "), "{text}");
    let count = socket.recv(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    assert!(text.contains("]: web | sk-module | Command prim -m web ended with exit code "), "{text}");
}

#[test]
fn a_configuration_is_pushed_and_differences_are_told() {
    let pair = pair();
    assert_eq!(pair.one.ok(&["confinfo"]).lines().count(), 3);
    let more = r#"<lan name="second"><node name="node1" addr="127.0.1.1"/><node name="node2" addr="127.0.1.2"/></lan>"#;
    fs::write(pair.one.etc("cluster.xml"), cluster_xml(pair.port, more)).unwrap();
    pair.one.fails(&["confinfo"], 1, "node2 has another configuration than node1");
    pair.one.ok(&["push"]);
    pair.one.ok(&["confinfo"]);
    assert_eq!(fs::read(pair.one.etc("cluster.xml")).unwrap(), fs::read(pair.two.etc("cluster.xml")).unwrap());
    // Locked, refused; unlocked, taken.
    pair.two.ok(&["config", pair.two.etc("cluster.xml").to_str().unwrap(), "lock"]);
    fs::write(pair.one.etc("cluster.xml"), cluster_xml(pair.port, "")).unwrap();
    pair.one.fails(&["push"], 1, "locked");
    pair.two.ok(&["config", pair.two.etc("cluster.xml").to_str().unwrap(), "unlock"]);
    pair.one.ok(&["push"]);
    // A bad one is sent nowhere, a good one that does not name the receiver is refused there.
    fs::write(pair.one.etc("cluster.xml"), "<cluster>").unwrap();
    pair.one.fails(&["push", "-H", "127.0.0.2"], 1, "errors");
    let without = cluster_xml(pair.port, "").replace("node2", "node3");
    fs::write(pair.one.etc("cluster.xml"), without).unwrap();
    pair.one.fails(&["push", "-H", &format!("127.0.0.2:{}", pair.port)], 1, "nothing was applied");
    assert!(fs::read_to_string(pair.two.etc("cluster.xml")).unwrap().contains("node2"));
}

#[test]
fn a_module_is_edited_on_one_node_and_pushed() {
    let pair = pair();
    let source = pair.one.etc("modules/web");
    fs::create_dir_all(source.join("conf")).unwrap();
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::write(source.join("conf/userconfig.xml"), r#"<safe><service mode="light"><user/></service></safe>"#).unwrap();
    for script in ["prestart", "start_both"] {
        fs::write(source.join("bin").join(script), "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(source.join("bin").join(script), fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Not applied here: only the files go.
    let push = |node: &Node| node.command("sk-module").args(["push", "-m", "web"]).output().unwrap();
    let output = push(&pair.one);
    assert!(output.status.success(), "{output:?}");
    assert!(pair.two.etc("modules/web/bin/prestart").exists());
    assert!(!pair.two.root.join("var/modules/web/active").exists());
    let config = pair.one.command("sk-module").args(["config", "-m", "web", "--id", "7"]).output().unwrap();
    assert!(config.status.success(), "{config:?}");
    let output = push(&pair.one);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(pair.two.root.join("var/modules/web/active/id")).unwrap(), "7\n");
    let state = pair.one.ok(&["state", "--json"]);
    let lines: Vec<Value> = state.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{state}");
    assert_eq!(lines[0]["config"]["signature"], lines[1]["config"]["signature"]);
    // What the other node finds wrong is told with its words, and what it had applied stays.
    fs::set_permissions(source.join("bin/start_both"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = push(&pair.one);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not executable"), "{output:?}");
    assert!(
        pair.two.root.join("var/modules/web/active/bin/start_both").metadata().unwrap().permissions().mode() & 0o100
            != 0
    );
    let log = pair.two.log();
    assert!(log.contains("START | push -m web -u ") && log.contains("START | config -m web --id 7 -u "), "{log}");
}

#[test]
fn the_key_is_renewed_on_all_nodes_or_on_none() {
    let mut pair = pair();
    let keys = |pair: &Pair| [&pair.one, &pair.two].map(|n| fs::read_to_string(n.etc("cluster.key")).unwrap());
    let before = keys(&pair);
    assert_eq!(before[0], before[1]);
    // A node that is away: nothing changes anywhere.
    pair.two.kill();
    pair.one.fails(&["key", "renew"], 2, "nothing was changed");
    assert_eq!(keys(&pair), before);
    pair.two.serve();
    pair.wait_for_port();
    pair.one.ok(&["key", "renew"]);
    let after = keys(&pair);
    assert_eq!(after[0], after[1]);
    assert!(!after[0].contains(before[0].trim()) && after[0].lines().count() == 2, "one key and the name in the store");
    // Interrupted after the first node had switched: both keys are good, and giving the command again ends it.
    let ring = wire::KeyRing::parse(after[0].as_bytes()).unwrap();
    let next = wire::ClusterKey::generate().unwrap();
    let offered = ring.offer(&next).unwrap();
    let write = |node: &Node, ring: &wire::KeyRing| {
        sys::files::write_durably(&node.etc("cluster.key"), ring.to_text().as_bytes(), 0o600).unwrap();
    };
    write(&pair.one, &offered);
    write(&pair.two, &offered.switch(&next.fingerprint()).unwrap());
    pair.one.fails(&["confinfo"], 1, "another key");
    pair.one.ok(&["on", "*", "sk-module", "level"]);
    pair.two.ok(&["on", "*", "sk-module", "level"]);
    pair.one.ok(&["key", "renew"]);
    let last = keys(&pair);
    assert_eq!(last[0], last[1]);
    assert_eq!(wire::KeyRing::parse(last[0].as_bytes()).unwrap().store_name(), ring.store_name());
    assert_eq!(pair.two.ok(&["key", "status", "--json"]).lines().count(), 2);
    // A node with the key of before is none of us.
    fs::write(pair.two.etc("cluster.key"), &before[0]).unwrap();
    pair.one.fails(&["on", "node2", "sk-module", "level"], 3, "does not know this key");
}

#[test]
fn help_and_tables_fit_80_columns() {
    let pair = pair();
    for arguments in [
        &["--help"][..],
        &["on", "--help"],
        &["key", "--help"],
        &["role", "add", "--help"],
        &["confinfo"],
        &["state"],
        &["key", "status"],
    ] {
        let output = pair.one.command("sk-cluster").args(arguments).env("COLUMNS", "80").output().unwrap();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
        }
    }
}

/// The commands that `sk-module init` prints, as they are: ssh is a script that becomes the other node.
#[test]
fn the_commands_that_init_prints_bring_a_module_to_the_other_node() {
    let pair = pair();
    let (one, two) = (&pair.one, &pair.two);
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules").canonicalize().unwrap();
    let data = one.root.join("data");
    for directory in [&one.root.join("safe"), &one.root.join("bin"), &data] {
        fs::create_dir_all(directory).unwrap();
    }
    std::os::unix::fs::symlink(templates, one.root.join("safe/templates")).unwrap();
    let ssh = one.root.join("bin/ssh");
    let become_two: String = [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")]
        .map(|(name, part)| format!(" {name}='{}'", two.root.join(part).display()))
        .concat();
    let script =
        format!("#!/bin/sh\n[ \"$1\" = node2 ] || exit 99\nshift\nexec env SK_NODE=node2{become_two} \"$@\"\n");
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let data = data.display().to_string();
    let init = [
        "init",
        "-y",
        "-m",
        "shop",
        "--template",
        "mirror",
        "--vip",
        "192.0.2.50",
        "--dir",
        &data,
        "--process",
        "shopd",
    ];
    let output = one.command("sk-module").args(init).args(["--id", "9"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let steps: Vec<&str> =
        said.split("\nNext:").nth(1).unwrap().lines().filter_map(|l| l.strip_prefix("     ")).collect();
    let (prepare, start): (Vec<&str>, Vec<&str>) =
        steps.iter().partition(|s| ["push", "init --check", "config -m"].iter().any(|word| s.contains(word)));
    assert_eq!((prepare.len(), start.len()), (4, 5), "{steps:#?}");
    assert!(start.contains(&"sk-module prim -m shop --wait"), "{start:#?}");
    assert!(start.contains(&"sk-module -H node2 second -m shop --wait"), "{start:#?}");
    let programs = Path::new(env!("CARGO_BIN_EXE_sk-cluster")).parent().unwrap();
    let path = format!("{}:{}:{}", one.root.join("bin").display(), programs.display(), std::env::var("PATH").unwrap());
    for step in prepare {
        let mut command = Command::new("sh");
        command.args(["-c", step]).env("PATH", &path).env("SK_NODE", "node1");
        for (name, part) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
            command.env(name, one.root.join(part));
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if step.contains("--check") {
            // This machine may lack something; that the module is there is what counts.
            assert!(text.contains("this host is node2 of the cluster"), "{step}: {output:?}");
        } else {
            assert!(output.status.success(), "{step}: {output:?}");
        }
    }
    let state = one.ok(&["state"]);
    let lines: Vec<&str> = state.lines().filter(|l| l.contains(" shop ")).collect();
    let rest = |line: &&str| line.split_whitespace().skip(1).take(6).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines.len(), 2, "{state}");
    assert_eq!(rest(&lines[0]), rest(&lines[1]), "the same number and signature: {state}");
    assert!(lines[0].contains(" 9 "), "{state}");
}

/// What `sk-module doctor` says of two nodes that do not agree.
#[test]
fn nodes_that_differ_are_told_by_the_doctor() {
    let pair = pair();
    let doctor = || {
        let output = pair.one.command("sk-module").args(["doctor", "--json"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let complaint = |all: &[Value], check: &str| {
        let found =
            all.iter().find(|f| f["check"] == check && f["level"] != "ok" && f["words"].to_string().contains("node2"));
        found.map(|f| f["remedy"].as_str().unwrap().to_owned())
    };
    let all = doctor();
    assert!(all.iter().any(|f| f["check"] == "reach" && f["level"] == "ok"), "{all:#?}");
    assert_eq!((complaint(&all, "cluster"), complaint(&all, "key")), (None, None), "{all:#?}");
    fs::write(pair.two.etc("cluster.xml"), cluster_xml(pair.port, " ")).unwrap();
    let all = doctor();
    assert!(complaint(&all, "cluster").is_some_and(|r| r.contains("sk-cluster push")), "{all:#?}");
    fs::write(pair.two.etc("cluster.key"), "cd".repeat(32)).unwrap();
    let all = doctor();
    assert!(complaint(&all, "key").is_some_and(|r| r.contains("sk-cluster import --replace-key")), "{all:#?}");
}

/// Whoever waits at a terminal sees for whom; nothing of it remains.
#[test]
fn a_long_wait_for_a_node_is_shown_on_a_terminal() {
    use std::io::Read;
    let pair = pair();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = pair.one.command("sk-cluster");
    command.args(["on", "node2", "sk-module", "waitstate", "-m", "web", "PRIM", "--timeout", "3s"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::from(terminal.slave));
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut said = Vec::new();
    // The end of a terminal is an error; what was said until then counts.
    let _ = fs::File::from(terminal.master).read_to_end(&mut said);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("waiting for node2, ") && said.contains(" s\r\u{1b}[K"), "{said:?}");
}
