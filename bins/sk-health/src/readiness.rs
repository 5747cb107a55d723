//! Does a module serve on this node? What its runner last wrote, if the runner is still there.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::unix::net::UnixStream;
use sys::roots::Roots;

/// Largest `state.json` read.
const STATE_MAX: u64 = 4 * 1024 * 1024;

/// What everybody may know of a module.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Module {
    pub module: String,
    pub mode: String,
    pub node: String,
    pub state: String,
    pub readiness: String,
    /// RFC 3339: since when it is in this state.
    pub since: String,
    /// Changes with every start of the application on this node.
    #[serde(default)]
    pub application: String,
}

impl Module {
    /// The module's present state; `None` when it has no runner, or is unknown here.
    pub fn look(roots: &Roots, name: &str) -> Option<Self> {
        serde_json::from_value(Self::look_raw(roots, name)?).ok()
    }

    /// Everything that its runner says; `None` as above.
    pub fn look_raw(roots: &Roots, name: &str) -> Option<Value> {
        let run = roots.module_run(name);
        // Children of a dead runner keep its lock until they have cleaned up, so the lock alone proves nothing: the control
        // socket is the runner's own. Unanswered connections (EAGAIN) and missing permission say that it is there.
        if !sys::lock::is_held(&run.join("lock")).unwrap_or(true) || !listens(roots, name) {
            return None;
        }
        let bytes = sys::files::read_bounded(&run.join("state.json"), STATE_MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Clients may come: it serves, and nothing is under way.
    pub fn is_ready(&self) -> bool {
        serves(&self.state, &self.readiness)
    }

    /// `PRIM Ready`.
    pub fn words(&self) -> String {
        format!("{} {}", self.state, self.readiness)
    }

    /// One JSON object.
    pub fn public(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Whether clients of a module in this state are served by this node.
pub fn serves(state: &str, readiness: &str) -> bool {
    matches!(state, "PRIM" | "ALONE" | "UP") && readiness == "Ready"
}

/// Whether a process listens on the control socket of this module.
fn listens(roots: &Roots, name: &str) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    // A full queue would block: the socket is nonblocking from its birth.
    match connect_at_once(&roots.control_socket(name)) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ConnectionRefused | NotFound),
    }
}

fn connect_at_once(path: &std::path::Path) -> std::io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use sys::lock::LockFile;

    /// A module as its runner would leave it in `run`: a lock held, a socket that listens, a state.
    pub struct Fake {
        _lock: LockFile,
        pub socket: UnixListener,
    }

    pub fn roots(dir: &tempfile::TempDir) -> Roots {
        Roots::from_variables(|name| (name == "SK_RUN").then(|| dir.path().to_owned()))
    }

    pub fn write(roots: &Roots, name: &str, state: &str, readiness: &str) {
        let run = roots.module_run(name);
        std::fs::create_dir_all(&run).unwrap();
        let text = serde_json::json!({
            "ok": true, "module": name, "mode": "farm", "node": "node1", "state": state, "readiness": readiness,
            "since": "2026-11-20T10:00:00Z", "application": "77.3", "resources": [{"name": "secret", "value": "x"}],
        });
        std::fs::write(run.join("state.json"), text.to_string()).unwrap();
    }

    pub fn fake(roots: &Roots, name: &str, state: &str, readiness: &str) -> Fake {
        write(roots, name, state, readiness);
        let run = roots.module_run(name);
        let lock = LockFile::open(&run.join("lock")).unwrap();
        assert!(lock.try_exclusive().unwrap());
        Fake { _lock: lock, socket: UnixListener::bind(run.join("control")).unwrap() }
    }

    #[test]
    fn ready_is_what_serves_and_rests() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let _life = fake(&roots, "web", "UP", "Ready");
        let table = [
            ("UP", "Ready", true),
            ("PRIM", "Ready", true),
            ("ALONE", "Ready", true),
            ("UP", "Transient", false),
            ("SECOND", "Ready", false),
            ("WAIT", "NotReady", false),
            ("STOP", "NotReady", false),
        ];
        for (state, readiness, ready) in table {
            write(&roots, "web", state, readiness);
            assert_eq!(Module::look(&roots, "web").unwrap().is_ready(), ready, "{state} {readiness}");
        }
        assert_eq!(Module::look(&roots, "other"), None);
    }

    #[test]
    fn what_a_dead_runner_wrote_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let Fake { _lock: lock, socket } = fake(&roots, "web", "UP", "Ready");
        assert!(Module::look(&roots, "web").is_some());
        drop(socket);
        assert_eq!(Module::look(&roots, "web"), None, "children hold the lock, nobody listens");
        std::fs::remove_file(roots.control_socket("web")).unwrap();
        let socket = UnixListener::bind(roots.control_socket("web")).unwrap();
        assert!(Module::look(&roots, "web").is_some());
        drop(lock);
        assert_eq!(Module::look(&roots, "web"), None, "nobody holds the lock");
        drop(socket);
    }

    #[test]
    fn a_runner_that_does_not_get_to_answer_is_there_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let _life = fake(&roots, "web", "UP", "Ready");
        for _ in 0..300 {
            assert!(Module::look(&roots, "web").is_some());
        }
    }

    #[test]
    fn a_torn_state_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let _life = fake(&roots, "web", "UP", "Ready");
        std::fs::write(roots.module_run("web").join("state.json"), b"{\"module\":").unwrap();
        assert_eq!(Module::look(&roots, "web"), None);
    }
}
