//! Who commanded what, from where, and how did it end: the node's log of commands that change something.
//!
//! Lines as operators know them: `| date | type | module | pid | START | arguments -u who@where` and `| date | type | module |
//! pid | END | exit code`. The file is bounded, and a log that cannot be written never keeps a command from running. The log of the host
//! is told the same.

use crate::lock::LockFile;
use crate::roots::Roots;
use crate::syslog::Syslog;
use jiff::Zoned;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes after which the log becomes `cmdlog.1`.
const ROTATE_AT: u64 = 1024 * 1024;
/// Longest argument list kept.
const ARGUMENTS_MAX: usize = 1000;

/// Whether this process carries out a command that changes something.
static CHANGING: AtomicBool = AtomicBool::new(false);

/// Whether this process carries out a command that changes something: its words are not its result.
pub fn is_changing() -> bool {
    CHANGING.load(Ordering::Relaxed)
}

/// Where the log is; the older half is beside it with the ending `.1`.
pub fn path(roots: &Roots) -> PathBuf {
    roots.var.join("cmdlog")
}

/// A command that began.
pub struct Command {
    path: PathBuf,
    kind: &'static str,
    module: String,
    words: String,
}

impl Command {
    /// Notes the beginning. `kind`: the program; `module`: its module, or empty.
    pub fn start(roots: &Roots, kind: &'static str, module: &str, arguments: &[String]) -> Self {
        CHANGING.store(true, Ordering::Relaxed);
        Self::start_for(roots, kind, module, arguments, &who())
    }

    /// The same with the arguments that this process was called with.
    pub fn start_own(roots: &Roots, kind: &'static str, module: &str) -> Self {
        let arguments: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
        Self::start(roots, kind, module, &arguments)
    }

    /// The same for somebody else than who runs this process.
    pub fn start_for(roots: &Roots, kind: &'static str, module: &str, arguments: &[String], who: &str) -> Self {
        let mut text: String = arguments.join(" ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Some((end, _)) = text.char_indices().nth(ARGUMENTS_MAX) {
            text.truncate(end);
        }
        let command = Self { path: path(roots), kind, module: module.to_owned(), words: text };
        command.note("START", &format!("{} -u {who}", command.words));
        command.tell(&format!("Command {} called by {who}", command.words));
        command
    }

    /// Notes the end.
    pub fn end(self, code: u8) {
        self.note("END", &code.to_string());
        if code != 0 {
            self.tell(&format!("Command {} ended with exit code {code}", self.words));
        }
    }

    /// The same in the log of the host, which an intruder on this host cannot take back where it is sent elsewhere.
    fn tell(&self, words: &str) {
        let module = if self.module.is_empty() { "-" } else { &self.module };
        Syslog::new(module).send('U', self.kind, words);
    }

    fn note(&self, event: &str, words: &str) {
        let date = Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
        let line = format!("| {date} | {} | {} | {} | {event} | {words}\n", self.kind, self.module, std::process::id());
        // A log of convenience: a full disk or a missing right costs the line.
        let _ = append(&self.path, &line);
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|m| m.len() > ROTATE_AT) {
        // Who does not get the lock appends to the long file: another one is renaming it.
        let lock = LockFile::open(&path.with_extension("lock"))?;
        if lock.try_exclusive()? && std::fs::metadata(path).is_ok_and(|m| m.len() > ROTATE_AT) {
            std::fs::rename(path, path.with_extension("1"))?;
        }
    }
    if let Some(directory) = path.parent() {
        // The first command of a node may be the one that makes its files.
        std::fs::create_dir_all(directory)?;
    }
    // One write in append mode: lines of several commands do not mix.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)?.write_all(line.as_bytes())
}

/// Who asks, for the module's log: the user, or what `SK_ORIGIN` says of a command that came from another host.
pub fn caller() -> String {
    from_elsewhere().and_then(|words| words.split(' ').next().map(str::to_owned)).unwrap_or_else(user)
}

/// Who asks and from where: user and address of a remote session, then what else is known (the user behind `sudo`, the one who logged
/// in, the terminal). `SK_ORIGIN` says it for a command that came from another host: the node's daemon sets it.
pub fn who() -> String {
    if let Some(words) = from_elsewhere() {
        return words;
    }
    let uid = rustix::process::getuid().as_raw();
    let sudo = variable("SUDO_USER");
    let login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    let login = login.filter(|id| *id != u32::MAX && *id != uid);
    // An address and a port each.
    let ssh = std::env::var("SSH_CONNECTION").ok();
    let ssh = ssh.as_deref().and_then(|c| c.split(' ').next()).filter(|a| is_plain(a));
    let name = sudo.clone().unwrap_or_else(user);
    let place = ssh.map_or_else(|| name.clone(), |address| format!("{name}@{address}"));
    let mut details = vec![format!("uid {uid}")];
    details.extend(sudo.map(|name| format!("sudo by {name}")));
    details.extend(login.map(|id| format!("login {}", user_name(id))));
    details.extend(terminal().map(|name| format!("tty {name}")));
    details.extend(ssh.map(|address| format!("ssh {address}")));
    format!("{place} ({})", details.join(", "))
}

/// What the node's daemon says of a command that it runs for somebody.
fn from_elsewhere() -> Option<String> {
    let words: String =
        std::env::var("SK_ORIGIN").ok()?.chars().filter(|c| !c.is_control() && *c != '|').take(300).collect();
    (!words.is_empty()).then_some(words)
}

fn user() -> String {
    user_name(rustix::process::getuid().as_raw())
}

fn user_name(uid: u32) -> String {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| is_plain(text))
}

/// The terminal of stdin, stdout or stderr.
fn terminal() -> Option<String> {
    (0..3).find_map(|fd| {
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        let name = path.to_str()?.strip_prefix("/dev/")?.to_owned();
        (name.starts_with("pts/") || name.starts_with("tty")).then_some(name)
    })
}

fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-:%".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_leaves_two_lines_and_the_log_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::from_variables(|_| Some(dir.path().to_owned()));
        let arguments = ["prim".to_owned(), "-m".to_owned(), "mirror\n| forged".to_owned()];
        Command::start(&roots, "safekit", "mirror", &arguments).end(3);
        let text = std::fs::read_to_string(path(&roots)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains(&format!("| safekit | mirror | {} | START | prim -m mirror", std::process::id())));
        assert!(lines[1].ends_with("| END | 3"));
        assert!(is_changing(), "words that cannot be written do not end it");
        let long = vec!["x".repeat(5_000)];
        for _ in 0..3_000 {
            Command::start(&roots, "safekit", "", &long).end(0);
        }
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("cmdlog") <= ROTATE_AT + 2_000 && size("cmdlog.1") <= ROTATE_AT + 2_000);
    }
}
