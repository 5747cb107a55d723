//! What does the runner say on the standard input?

use crate::cli::Failure;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use wire::Message;
use wire::lines::LineBuffer;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Hold,
    Open,
    Close,
    /// `all` or `none`.
    SetGroups(bool),
    Release,
    Quit,
}

impl Order {
    fn parse(message: &Message) -> Result<Self, String> {
        Ok(match message.kind.as_str() {
            "hold" => Self::Hold,
            "open" => Self::Open,
            "close" => Self::Close,
            "release" => Self::Release,
            "quit" => Self::Quit,
            "setgroups" => match message.text("value") {
                Some("all") => Self::SetGroups(true),
                Some("none") => Self::SetGroups(false),
                other => return Err(format!("`setgroups` needs a `value`, all or none, not {other:?}")),
            },
            other => return Err(format!("an order of unknown kind `{other}`")),
        })
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Open => "open",
            Self::Close => "close",
            Self::SetGroups(_) => "setgroups",
            Self::Release => "release",
            Self::Quit => "quit",
        }
    }

    /// The event that answers it.
    pub fn answer(&self) -> (&'static str, Value) {
        match self {
            Self::Hold => ("held", json!({})),
            Self::Open => ("opened", json!({})),
            Self::Close => ("closed", json!({})),
            Self::SetGroups(all) => ("setgroups", json!({"value": if *all { "all" } else { "none" }})),
            Self::Release | Self::Quit => ("released", json!({})),
        }
    }
}

/// The standard input, and the signals that end us.
pub struct Orders {
    input: File,
    lines: LineBuffer,
    signals: SignalFd,
    waiting: VecDeque<Order>,
}

impl Orders {
    pub fn open() -> Result<Self, Failure> {
        let signals = sys::signals::take(&[Signal::SIGTERM, Signal::SIGINT])
            .map_err(|e| Failure::Sys("cannot take signals".to_owned(), e))?;
        let input = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Failure::Sys("cannot use the standard input".to_owned(), e))?;
        Ok(Self { input: File::from(input), lines: LineBuffer::new(), signals, waiting: VecDeque::new() })
    }

    /// The input first, then the signals.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.input.as_fd(), self.signals.as_fd()].into_iter()
    }

    /// Reads what is there; `false` at the end.
    pub fn read(&mut self) -> bool {
        // An input that cannot be read is as good as closed: the safe side is to let go.
        if !self.lines.read_from(&mut self.input).is_ok_and(|count| count > 0) {
            return false;
        }
        while let Some(message) = self.lines.next_message() {
            match message.map_err(|e| e.to_string()).and_then(|m| Order::parse(&m)) {
                Ok(order) => self.waiting.push_back(order),
                Err(words) => sys::warn!("sk-farmfilter: an order was skipped: {words}"),
            }
        }
        true
    }

    pub fn next(&mut self) -> Option<Order> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_nonsense_is_named() {
        let parse = |text: &str| Order::parse(&wire::lines::parse(text.as_bytes()).unwrap());
        assert_eq!(parse(r#"{"kind":"open"}"#), Ok(Order::Open));
        assert_eq!(parse(r#"{"kind":"setgroups","value":"none"}"#), Ok(Order::SetGroups(false)));
        assert!(parse(r#"{"kind":"setgroups","value":"some"}"#).unwrap_err().contains("all or none"));
        assert!(parse(r#"{"kind":"dance"}"#).unwrap_err().contains("dance"));
    }
}
