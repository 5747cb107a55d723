//! A node of its own for commands: directories, a module, and the commands run there.

use crate::width::too_wide;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use sys::lock::LockFile;

/// A name of usual length.
pub const MODULE: &str = "databases-01";

/// No verb may take longer.
const LONGEST: Duration = Duration::from_mins(1);

/// Who reads what a command prints?
#[derive(Clone, Copy, PartialEq)]
pub enum Reader {
    Reads,
    Gone,
    /// Nothing can be written: a full disk.
    Full,
}

pub struct Node {
    pub root: PathBuf,
    /// As long as it is held, a daemon of this node seems to run; none is started.
    _daemon: LockFile,
    /// Lines for people that no usual terminal shows whole, with the command that prints them.
    pub too_wide: RefCell<Vec<String>>,
}

pub struct Outcome {
    pub code: Option<i32>,
    pub pid: u32,
    pub said: String,
    pub complaints: String,
}

impl Node {
    pub fn new(root: &Path) -> Self {
        let module = root.join("etc/modules").join(MODULE);
        for directory in ["conf", "bin"] {
            fs::create_dir_all(module.join(directory)).unwrap();
        }
        let xml = r#"<safe><service mode="mirror"><heart port="18390" pulse="50ms" timeout="1s"><heartbeat name="default"/></heart><user/></service></safe>"#;
        fs::write(module.join("conf/userconfig.xml"), xml).unwrap();
        for script in ["prestart", "start_prim", "stop_prim"] {
            let path = module.join("bin").join(script);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for date in ["2026-01-02T030405Z", "2026-01-03T030405Z"] {
            let salvaged = root.join("var/modules").join(MODULE).join("salvage").join(date).join("data");
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
        Self { root: root.to_owned(), _daemon: daemon, too_wide: RefCell::default() }
    }

    /// A line of words, on this node.
    pub fn command(&self, line: &str) -> Command {
        let line = line.replace('@', self.root.to_str().unwrap());
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = Command::new(programs::built(words[0]));
        command.args(&words[1..]).env("SK_NODE", "server-north").env_remove("SAFEMODULE").env_remove("SK_ORIGIN");
        for (variable, part) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
            command.env(variable, self.root.join(part));
        }
        command.env("COLUMNS", "80");
        command
    }

    /// Runs a line of the tables.
    pub fn run(&self, line: &str, reader: Reader) -> Outcome {
        let line = line.split(" = ").last().unwrap().replacen("& ", "", 1).replacen(" &", "", 1);
        let mut command = self.command(&line);
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
        self.too_wide.borrow_mut().extend(too_wide(&line, &outcome.said, &self.root));
        outcome
    }

    /// Lines of the log of commands since the place given, which moves on.
    pub fn logged(&self, from: &mut usize) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("var/cmdlog")).unwrap_or_default();
        let lines: Vec<String> = text.lines().skip(*from).map(str::to_owned).collect();
        *from += lines.len();
        lines
    }

    /// Everything that is there but for what differs between two lives: names with a time in them.
    pub fn files(&self) -> BTreeSet<String> {
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
