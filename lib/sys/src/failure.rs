//! What does a command say to whoever called it: lines of output, or why it could not do what it was asked, the remedy and an exit code.

use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

/// Exit code of a command when a system call failed.
pub const SYSTEM: u8 = 111;
/// Of a service whose specification cannot be used.
const SPECIFICATION: u8 = 1;
/// Of arguments that cannot be used.
pub const USAGE: u8 = 100;

/// An error with its exit code and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
    pub hint: Option<String>,
    pub code: u8,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The specification of a service cannot be used.
    pub fn specification(reason: impl Display) -> Self {
        Self::new(SPECIFICATION, reason.to_string())
    }

    /// The arguments cannot be used.
    pub fn usage(reason: impl Display) -> Self {
        Self::new(USAGE, reason.to_string())
    }

    /// What was done, and why the system refused it.
    pub fn system(what: impl Display, error: impl Display) -> Self {
        Self::new(SYSTEM, format!("{what}: {error}"))
    }
}

/// What a service is told when it starts: a file of at most `limit` bytes with one JSON object.
pub fn specification<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, Failure> {
    let text = crate::files::read_bounded(path, limit)
        .map_err(|e| Failure::specification(format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_slice(&text).map_err(|e| Failure::specification(format!("{}: {e}", path.display())))
}

/// One line of output. Nobody may be there to read it (`| head`): that is no error, and the command goes on to its end, since its exit
/// code tells what became of it. For a command that changes something this is so whatever is wrong with its output: half a change would
/// be worse than words that are lost.
pub fn put(line: &str) -> Result<(), Failure> {
    if crate::outcome::keep(line) {
        return Ok(());
    }
    match writeln!(io::stdout(), "{line}") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe && !crate::commands::is_changing() => {
            Err(Failure::system("stdout", e))
        }
        _ => Ok(()),
    }
}

/// The same for what goes on until it is interrupted (`log -f`): it ends with its reader.
pub fn put_live(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::system("stdout", e)),
    }
}
