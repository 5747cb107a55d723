//! What does a command say to whoever called it: lines of output, or why it could not do what it was asked, the remedy and an exit code.

use std::fmt::Display;
use std::io::{self, Write};

/// Exit code of a command when a system call failed.
const SYSTEM: u8 = 111;

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

    /// What was done, and why the system refused it.
    pub fn system(what: impl Display, error: impl Display) -> Self {
        Self::new(SYSTEM, format!("{what}: {error}"))
    }
}

/// One line of output; a reader that went away ends the command without an error.
pub fn put(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::system("stdout", e)),
    }
}
