//! How do the messages that matter reach the host's own log?

use jiff::Zoned;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Longest message sent.
const MESSAGE_MAX: usize = 1024;
/// After a failure the socket is looked for again this much later.
const AGAIN_MS: u64 = 1_000;

/// Sends to `/dev/log` (syslog or journald) as `safekit[pid]: module | origin | message`. Never blocks; where nobody listens,
/// or where he does not read, messages are lost.
pub struct Syslog {
    path: PathBuf,
    module: String,
    socket: Option<UnixDatagram>,
    next_try_ms: u64,
}

impl Syslog {
    pub fn new(module: &str) -> Self {
        let path = std::env::var_os("SK_LOG_SOCKET").map_or_else(|| PathBuf::from("/dev/log"), PathBuf::from);
        Self::at(&path, module)
    }

    /// The same with another socket; `SK_LOG_SOCKET` names one for tests.
    pub fn at(path: &Path, module: &str) -> Self {
        Self { path: path.to_owned(), module: module.to_owned(), socket: None, next_try_ms: 0 }
    }

    /// `level`: one of those shown by default.
    pub fn send(&mut self, level: char, from: &str, message: &str) {
        let now = crate::clock::monotonic_ms();
        if self.socket.is_none() && now < self.next_try_ms {
            return;
        }
        // Facility daemon; critical as error, states as notice, the rest as information.
        let priority = 3 * 8
            + if level == 'C' {
                3
            } else if level == 'E' {
                5
            } else {
                6
            };
        let date = Zoned::now().strftime("%b %e %H:%M:%S").to_string();
        let mut text = format!(
            "<{priority}>{date} safekit[{}]: {} | {from} | {}",
            std::process::id(),
            self.module,
            message.replace(['\n', '\r', '\0'], " ")
        );
        if text.len() > MESSAGE_MAX {
            let end = (0..=MESSAGE_MAX).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
            text.truncate(end);
        }
        if self.socket.is_none() {
            self.socket = self.connect();
        }
        let sent = self.socket.as_ref().map(|socket| socket.send(text.as_bytes()));
        match sent {
            Some(Ok(_)) => {}
            Some(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => {
                self.socket = None;
                self.next_try_ms = now + AGAIN_MS;
            }
        }
    }

    fn connect(&self) -> Option<UnixDatagram> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(&self.path).ok()?;
        Some(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_form_that_operators_filter_on() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("log");
        let host = UnixDatagram::bind(&path)?;
        let mut syslog = Syslog::at(&path, "mirror");
        syslog.send('E', "heart", "Local state PRIM\nReady");
        let mut buffer = [0; 2_000];
        let n = host.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        let tag = format!("safekit[{}]: mirror | heart | Local state PRIM Ready", std::process::id());
        assert!(text.starts_with("<29>") && text.ends_with(&tag), "{text}");
        Ok(())
    }

    #[test]
    fn a_host_that_does_not_read_or_is_not_there_blocks_nobody() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("log");
        let mut syslog = Syslog::at(&path, "mirror");
        syslog.send('C', "heart", "nobody listens");
        let host = UnixDatagram::bind(&path)?;
        let mut syslog = Syslog::at(&path, "mirror");
        for _ in 0..100_000 {
            syslog.send('C', "heart", &"é".repeat(2_000));
        }
        drop(host);
        syslog.send('C', "heart", "nobody listens any more");
        Ok(())
    }
}
