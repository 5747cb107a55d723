//! Every verb of every command, run for real on a node of its own: what changes something is in the log of commands with who and how
//! it ended, what asks is not; and none of them minds a reader that is gone, nor does half its work for it.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use sys::lock::LockFile;

/// No verb below may take longer.
const LONGEST: Duration = Duration::from_mins(1);

/// What changes something, in an order in which the later ones find what the earlier ones made. `@` is the node's directory, `&` stands
/// between the verb and its arguments, `=` before the whole command where they are mixed. The module `m` can be configured, `web` is installed on the way; neither ever runs.
const CHANGES: &[&str] = &[
    "sk-cluster create & node1=127.0.0.1 node2=127.0.0.2",
    "sk-cluster config & @/etc/cluster.xml lock",
    "sk-cluster config & unlock",
    "sk-cluster export &",
    "sk-cluster import &",
    "sk-cluster up &",
    "sk-cluster push &",
    "sk-cluster key renew &",
    "sk-cluster role add & ops control --output @/ops.key",
    "sk-cluster role remove & ops",
    "sk-module cluster-key & --output @/other.key",
    "sk-module init & --yes --template light -m light --process sleep",
    "sk-module install & -m web mirror",
    "sk-module config & -m m --id 7",
    "sk-module push & -m m",
    "sk-module errd & off -m m",
    "sk-module checker & off -m m",
    "sk-module failover & off -m m",
    "sk-module boot & on -m m",
    "sk-module set & -m m -r usersetting.errd -v on",
    "sk-module setgroups & none -m m",
    "sk-module resetloop & -m m",
    "sk-module incloop & -i me -m m",
    "sk-module update & -m m",
    "sk-module start & -m web --wait",
    "sk-module prim & -m web",
    "sk-module primforce & -m web",
    "sk-module second & -m web",
    "sk-module stop & -m m --wait",
    "sk-module forcestop & -m m",
    "sk-module restart & -m m",
    "sk-module stopstart & -m m",
    "sk-module swap & -m m",
    "sk-module shutdown &",
    "sk-module package & -m m @/m.safe",
    "sk-module logsave & -m m @/m.log",
    "sk-module snapshot & -m m @/m.tar.gz",
    "sk-module anonymise & @/m.tar.gz @/a.tar.gz",
    "safekit config & -m m",
    "safekit deconfig & -m m",
    "safekit config & -m m",
    "safekit boot & on -m m",
    "safekit start & -m web",
    "safekit prim & -m web",
    "safekit primforce & -m web",
    "safekit second & -m web",
    "safekit secondforce & -d 2026-01-01 -m web",
    "safekit rfssync & external prim backup-7 -m m",
    "safekit stop & -m m",
    "safekit forcestop & -m m",
    "safekit restart & -m m",
    "safekit stopstart & -m m",
    "safekit swap & -m m",
    "safekit update & -m m",
    "safekit shutdown &",
    "safekit set & -m m -r custom.x -v up",
    "safekit errd & enable prim -m m",
    "safekit errd & off -m m",
    "safekit checker & off -m m",
    "safekit failover & off -m m",
    "safekit resetloop & -m m",
    "safekit incloop & -i me -m m",
    "safekit kill & -name=no-such-name -level=terminate",
    "safekit logsave & -m m @/m2.log",
    "safekit snapshot & -m m @/m2.tar.gz",
    "safekit module install & -m three @/m.safe -M 30",
    "safekit module package & -m three @/three.safe",
    "safekit module uninstall & -m three",
    "safekit dump & -m m",
    "safekit clean & log -m m",
    "safekit webserver & restart",
    "safekit notification & enable",
    "sk-replicate salvage restore = sk-replicate salvage -m m restore 2026-01-02T030405Z/data/file --to @/back",
    "sk-replicate salvage prune = sk-replicate salvage -m m prune --all --yes",
    "sk-replicate policy external = sk-replicate policy -m m external second backup-7",
    "sk-replicate policy full = sk-replicate policy -m m full",
    "sk-replicate policy default = sk-replicate policy -m m default",
    "sk-arbiter release & -m m --owner node1",
    "sk-farmfilter clean & -m no-such-module",
    "sk-vip add & 192.0.2.77",
    "sk-vip remove & 192.0.2.77",
    "sk-module deconfig & -m m",
    "sk-module boot &",
    "sk-module uninstall & -m web",
    "sk-cluster deconfig &",
];

/// What only asks, or says what would be done.
const ASKS: &[&str] = &[
    "sk-module check & @/etc/modules/m/conf/userconfig.xml",
    "sk-module config & -m m --plan",
    "sk-module init & --check",
    "sk-module init & --dry-run --yes --template light -m other --process sleep",
    "sk-module boot & status",
    "sk-module errd & list -m m",
    "sk-module confcheck & -m m",
    "sk-module confinfo & -m m",
    "sk-module list &",
    "sk-module list & --available",
    "sk-module state &",
    "sk-module state & -m m -v",
    "sk-module state & -m m -q",
    "sk-module waitstate & -m m STOP",
    "sk-module waitstart & -m m",
    "sk-module waitstop & -m m",
    "sk-module log & -m m",
    // A checker reports; the module's log and the history have it.
    "sk-module set & -m m -r custom.x -v up -i checker",
    "sk-module get & -m m -r usersetting.errd",
    "sk-module checkloop & -m m",
    "sk-module history & -m m",
    "sk-module level &",
    "sk-module cmdlog &",
    "sk-module doctor & --offline",
    "sk-module rules & -m m",
    "sk-module plan & -m m STOP WAIT",
    "sk-module replay & @/etc/cluster.xml",
    "sk-module explain & -m m",
    "safekit print &",
    // Words of scripts for the module's log.
    "safekit printi & -m m hello",
    "safekit printe & -m m hello",
    "safekit printw & -m m hello",
    "safekit rfsverify & -m m",
    "safekit rfsdiff & -m m",
    "safekit confcheck & -m m",
    "safekit confinfo & -m m",
    "safekit level &",
    "safekit cmdlog &",
    "safekit waitstart & -m nothing",
    "safekit waitstop & -m m",
    "safekit waitstate & -m m STOP",
    "safekit state &",
    "safekit state & -m m -v",
    "safekit log & -m m",
    "safekit get & -m m -r usersetting.errd",
    "safekit checkloop & -m m",
    "safekit errd & list -m m",
    "safekit module list &",
    "safekit module listid &",
    "safekit module getports & -m m",
    "safekit module genkey & -m m",
    "safekit module delkey & -m m",
    "sk-cluster confcheck &",
    "sk-cluster confinfo &",
    "sk-cluster state &",
    "sk-cluster key status &",
    "sk-cluster role list &",
    "sk-cluster on & node2 sk-module state",
    "sk-check tcp & 127.0.0.1:1",
    "sk-check ping & 127.0.0.1",
    "sk-check intf & lo",
    "sk-check ip & 127.0.0.1",
    "sk-check module & m",
    "sk-check custom & --timeout 1s -- /bin/true",
    "sk-errd list & --name sleep",
    "sk-health check & m",
    "sk-health metrics &",
    "sk-notify test & --script /bin/true",
    "sk-top &",
    "sk-top & --json",
    "sk-replicate status & -m m",
    "sk-replicate lineage & -m m",
    "sk-replicate verify & -m m",
    "sk-replicate diff & -m m",
    "sk-replicate policy show = sk-replicate policy -m m show",
    "sk-replicate salvage list = sk-replicate salvage -m m list",
    "sk-replicate salvage prune = sk-replicate salvage -m m prune --all",
    "sk-arbiter show & -m m",
    "sk-arbiter test & -m m",
    "sk-farmfilter show &",
    "sk-farmfilter who & 192.0.2.1:1",
    "sk-farmfilter plan & --spec @/none",
    "sk-vip show &",
    "sk-vip probe & 127.0.0.1",
];

/// Verbs that go on until they are ended, or run what is named.
const ELSEWHERE: &[&str] = &[
    "safekit cluster",
    "safekit logview",
    "safekit run",
    "sk-arbiter run",
    "sk-check run",
    "sk-cluster serve",
    "sk-errd run",
    "sk-farmfilter run",
    "sk-health serve",
    "sk-heartbeat carry",
    "sk-heartbeat run",
    "sk-module guard",
    "sk-module run",
    "sk-notify run",
    "sk-replicate run",
    "sk-vip hold",
    "sk-vip watch",
];

/// Who reads what a command prints?
#[derive(Clone, Copy, PartialEq)]
enum Reader {
    Reads,
    Gone,
    /// Nothing can be written: a full disk.
    Full,
}

struct Node {
    root: PathBuf,
    /// As long as it is held, a daemon of this node seems to run; none is started.
    _daemon: LockFile,
}

struct Outcome {
    code: Option<i32>,
    pid: u32,
    said: String,
    complaints: String,
}

impl Node {
    fn new(root: &Path) -> Self {
        let module = root.join("etc/modules/m");
        for directory in ["conf", "bin"] {
            fs::create_dir_all(module.join(directory)).unwrap();
        }
        let xml = r#"<safe><service mode="mirror"><heart><heartbeat name="default"/></heart><user/></service></safe>"#;
        fs::write(module.join("conf/userconfig.xml"), xml).unwrap();
        for script in ["prestart", "start_prim", "stop_prim"] {
            let path = module.join("bin").join(script);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for date in ["2026-01-02T030405Z", "2026-01-03T030405Z"] {
            let salvaged = root.join("var/modules/m/salvage").join(date).join("data");
            fs::create_dir_all(&salvaged).unwrap();
            fs::write(salvaged.join("file"), b"precious").unwrap();
        }
        fs::create_dir_all(root.join("safe")).unwrap();
        std::os::unix::fs::symlink(
            docs::root().join("scripts/modules").canonicalize().unwrap(),
            root.join("safe/templates"),
        )
        .unwrap();
        fs::create_dir_all(root.join("run/.cluster")).unwrap();
        let daemon = LockFile::open(&root.join("run/.cluster/lock")).unwrap();
        assert!(daemon.try_exclusive().unwrap());
        Self { root: root.to_owned(), _daemon: daemon }
    }

    /// Runs a line of the tables above.
    fn run(&self, line: &str, reader: Reader) -> Outcome {
        let line = line.split(" = ").last().unwrap().replacen("& ", "", 1).replacen(" &", "", 1);
        let line = line.replace('@', self.root.to_str().unwrap());
        let words: Vec<&str> = line.split(' ').collect();
        let program = program(words[0]);
        let mut command = Command::new(program);
        command.args(&words[1..]).env("SK_NODE", "node1").env_remove("SAFEMODULE").env_remove("SK_ORIGIN");
        for (variable, part) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
            command.env(variable, self.root.join(part));
        }
        let said = self.root.join("said");
        let stdout = match reader {
            Reader::Reads => Stdio::from(fs::File::create(&said).unwrap()),
            Reader::Gone => {
                let (read, write) = std::io::pipe().unwrap();
                drop(read);
                Stdio::from(write)
            }
            Reader::Full => Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap()),
        };
        let complaints = self.root.join("complaints");
        command.stdin(Stdio::null()).stdout(stdout).stderr(fs::File::create(&complaints).unwrap());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > LONGEST {
                child.kill().unwrap();
                panic!("{line} did not end within {LONGEST:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let outcome =
            Outcome { code: status.code(), pid: child.id(), said: text(&said), complaints: text(&complaints) };
        for path in [&said, &complaints] {
            // The first is not there without a reader.
            let _ = fs::remove_file(path);
        }
        assert!(outcome.code.is_some_and(|c| c != 101), "{line}: {status} {}", outcome.complaints);
        assert!(!outcome.complaints.contains("panicked"), "{line}: {}", outcome.complaints);
        assert!(
            !outcome.said.contains('\u{1b}') && !outcome.complaints.contains('\u{1b}'),
            "{line}: escapes in a pipe"
        );
        outcome
    }

    /// Lines of the log of commands since the place given, which moves on.
    fn logged(&self, from: &mut usize) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("var/cmdlog")).unwrap_or_default();
        let lines: Vec<String> = text.lines().skip(*from).map(str::to_owned).collect();
        *from += lines.len();
        lines
    }

    /// Everything that is there but for what differs between two lives: names with a time in them.
    fn files(&self) -> BTreeSet<String> {
        fn walk(directory: &Path, root: &Path, found: &mut BTreeSet<String>) {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect());
                if entry.file_type().unwrap().is_dir() {
                    walk(&path, root, found);
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.root, &self.root, &mut found);
        found
    }
}

/// Built with the workspace, beside the directory of this test.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

fn verb_of(line: &str) -> &str {
    line.split(" = ").next().and_then(|l| l.split(" &").next()).unwrap_or_default()
}

#[test]
fn every_verb_is_known_to_change_something_or_not() {
    let all = docs::verbs();
    let known: BTreeSet<&str> =
        CHANGES.iter().chain(ASKS).map(|line| verb_of(line)).chain(ELSEWHERE.iter().copied()).collect();
    let unknown: Vec<&String> = all.iter().filter(|v| !known.contains(v.as_str())).collect();
    assert!(unknown.is_empty(), "are these in the log of commands? {unknown:#?}");
    let gone: Vec<&&str> = known.iter().filter(|v| !all.iter().any(|known| known == **v)).collect();
    assert!(gone.is_empty(), "no verbs any more: {gone:#?}");
}

/// Runs all of `CHANGES`, `ASKS` in between while there is most to see; the exit codes.
fn story(node: &Node, reader: Reader) -> Vec<(String, i32)> {
    let mut place = 0;
    let mut codes = Vec::new();
    for line in CHANGES {
        if *line == "sk-module deconfig & -m m" {
            for question in ASKS {
                let outcome = node.run(question, reader);
                assert_eq!(node.logged(&mut place), Vec::<String>::new(), "{question} changes nothing");
                codes.push(((*question).to_owned(), outcome.code.unwrap()));
            }
        }
        let outcome = node.run(line, reader);
        let code = outcome.code.unwrap();
        let log = node.logged(&mut place);
        let pid = format!("| {} |", outcome.pid);
        let own: Vec<&String> = log.iter().filter(|l| l.contains(&pid)).collect();
        let [start, end] = own[..] else {
            panic!("{line}: not two lines of {pid} in {log:#?}: {}", outcome.complaints)
        };
        assert!(start.contains(" | START | ") && start.contains(" -u ") && start.contains("(uid "), "{line}: {start}");
        assert!(end.ends_with(&format!("| END | {code}")), "{line} ended with {code}: {end}");
        codes.push(((*line).to_owned(), code));
    }
    codes
}

#[test]
fn what_changes_something_is_in_the_log_of_commands_whoever_reads_its_words() {
    let home = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (name, reader) in [("read", Reader::Reads), ("gone", Reader::Gone), ("full", Reader::Full)] {
        let node = Node::new(&home.path().join(name));
        let codes = story(&node, reader);
        seen.push((codes, node.files()));
    }
    let [(codes, files), gone, full] = &seen[..] else { panic!("three nodes") };
    assert_eq!(codes, &gone.0, "a reader that is gone changes an exit code");
    assert_eq!(files, &gone.1, "a reader that is gone changes what is done");
    assert_eq!(files, &full.1, "words that cannot be written change what is done");
    let changes = |codes: &[(String, i32)]| -> Vec<(String, i32)> {
        codes.iter().filter(|(line, _)| CHANGES.contains(&line.as_str())).cloned().collect()
    };
    // What prints its result, and cannot, has failed.
    let written = |(line, _): &(String, i32)| !line.starts_with("sk-cluster export");
    let (codes, full) = (changes(codes), changes(&full.0));
    assert!(codes.iter().zip(&full).filter(|(c, _)| written(c)).all(|(c, f)| c == f), "{codes:#?} {full:#?}");
    let good = codes.iter().filter(|(_, code)| *code == 0).count();
    assert!(good > 30, "only {good} did what they were asked: {codes:#?}");
}
