//! Why is a package refused?

use std::io;
use std::path::PathBuf;

/// Each names what, and the hint how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no zip archive, or a damaged one: {reason}", path.display())]
    NoArchive { path: PathBuf, reason: String },
    #[error("the entry {name} {reason}")]
    Entry { name: String, reason: String },
    #[error("the package has no {}{}", crate::CONFIGURATION, enclosing.as_ref().map_or_else(String::new, |d| format!(", but {d}/{}", crate::CONFIGURATION)))]
    NoConfiguration { enclosing: Option<String> },
    #[error("the package is too big: {0}")]
    TooBig(String),
}

impl Error {
    pub(crate) fn file(path: &std::path::Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    pub(crate) fn entry(name: &str, reason: impl Into<String>) -> Self {
        Self::Entry { name: format!("{name:?}"), reason: reason.into() }
    }

    /// How to mend it, where that is not obvious.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => None,
            Self::NoArchive { .. } => Some("copy it again; a package is made by: sk-module package -m AM FILE.safe"),
            Self::Entry { .. } => {
                Some("a package holds plain files below conf and bin, and nothing that leads out of it")
            }
            Self::NoConfiguration { enclosing: Some(_) } => {
                Some("pack what is in the directory, not the directory itself")
            }
            Self::NoConfiguration { enclosing: None } => {
                Some("it is the configuration of the module; see sk-userconfig(5)")
            }
            Self::TooBig(_) => {
                Some("a package holds configuration and scripts; install the application itself by other means")
            }
        }
    }

    /// Whether a system call failed, not the package.
    pub fn is_system(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}
