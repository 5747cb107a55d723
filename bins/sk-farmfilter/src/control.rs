//! Who may ask a running node what it does? Whoever connects to its socket is told once.

use crate::cli::Failure;
use serde_json::Value;
use socket2::SockRef;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "farmfilter";
/// Of a whole status: 32 groups of 256 owners.
const LIMIT: usize = 256 * 1024;

/// The listening socket; removed with the value.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(NAME);
        let failed = |e| Failure::Sys(format!("cannot listen on {}", path.display()), e);
        fs::create_dir_all(directory).map_err(failed)?;
        if UnixStream::connect(&path).is_ok() {
            return Err(Failure::Running(path));
        }
        sys::files::remove(&path).map_err(failed)?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, path })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers everybody who waits.
    pub fn answer(&self, status: impl Fn() -> Value) {
        for _ in 0..16 {
            let Ok((mut stream, _)) = self.listener.accept() else { return };
            // Never waited for: it fits into the buffer, or is lost.
            let _ = stream.set_nonblocking(true);
            let _ = SockRef::from(&stream).set_send_buffer_size(LIMIT);
            let _ = stream.write_all(format!("{}\n", status()).as_bytes());
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What a running node says; `None`: no node of this module runs here.
pub fn ask(directory: &Path) -> Result<Option<Value>, Failure> {
    let path = directory.join(NAME);
    let failed = |e| Failure::Sys(format!("cannot ask {}", path.display()), e);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
    let mut text = String::new();
    stream.take(LIMIT as u64).read_to_string(&mut text).map_err(failed)?;
    serde_json::from_str(&text).map(Some).map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))
}
