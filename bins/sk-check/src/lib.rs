//! `sk-check`: says whether what an application needs, and the application itself, answer.

mod cli;
mod custom;
mod oneshot;
mod probe;
mod run;
mod spec;
mod trial;
mod verdict;

pub use cli::{command, main};

/// Why the command ends with another status than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn spec(text: impl ToString) -> Self {
        Self { code: 1, text: text.to_string() }
    }

    fn system(what: &str, error: impl std::fmt::Display) -> Self {
        Self { code: 111, text: format!("{what}: {error}") }
    }
}
