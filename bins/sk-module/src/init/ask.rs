//! Who answers: a flag, or somebody at a terminal.

use crate::{Failure, exit};
use std::io::{BufRead, IsTerminal, Read, Write};

/// Longest answer, in bytes.
const LONGEST: usize = 4096;
/// Wrong answers to one question before the command gives up.
const PATIENCE: usize = 5;

pub(super) struct Ask {
    interactive: bool,
}

impl Ask {
    /// `silent`: nobody is asked, whatever the terminal.
    pub fn new(silent: bool) -> Self {
        Self { interactive: !silent && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() }
    }

    pub fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Words for whoever answers.
    pub fn say(words: &str) -> Result<(), Failure> {
        sys::failure::put(words)
    }

    pub fn needs_terminal(&self, flag: &str, what: &str) -> Result<(), Failure> {
        if self.interactive {
            return Ok(());
        }
        Err(Failure::new(exit::USAGE, format!("{flag} is missing: {what}"))
            .hint("give it, or run the command on a terminal without --yes, where it asks"))
    }

    /// The flag's value if there is one, else the answer to `question`; without a terminal, `default` or an error.
    pub fn text(
        &mut self,
        flag: &str,
        question: &str,
        given: Option<&str>,
        default: Option<&str>,
        check: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<String, Failure> {
        if let Some(given) = given {
            return check(given).map_err(|message| Failure::new(exit::USAGE, format!("{flag}: {message}")));
        }
        if !self.interactive {
            return match default {
                Some(default) => {
                    check(default).map_err(|message| Failure::new(exit::USAGE, format!("{flag}: {message}")))
                }
                None => self.needs_terminal(flag, question).map(|()| String::new()),
            };
        }
        for _ in 0..PATIENCE {
            let shown = default.filter(|d| !d.is_empty()).map_or(String::new(), |d| format!(" [{d}]"));
            let mut out = std::io::stdout();
            write!(out, "{question}{shown}: ").and_then(|()| out.flush()).map_err(|e| Failure::system("stdout", e))?;
            let mut line = Vec::new();
            let count = std::io::stdin()
                .lock()
                .take(LONGEST as u64)
                .read_until(b'\n', &mut line)
                .map_err(|e| Failure::system("stdin", e))?;
            if count == 0 {
                return Err(Failure::new(exit::REFUSED, "no more answers; nothing was written"));
            }
            let answer = String::from_utf8_lossy(&line).trim().to_owned();
            let answer = if answer.is_empty() { default.unwrap_or_default() } else { &answer };
            match check(answer) {
                Ok(good) => return Ok(good),
                Err(message) => Self::say(&format!("  {message}"))?,
            }
        }
        Err(Failure::new(exit::REFUSED, "no answer that fits; nothing was written")
            .hint(format!("or give it by {flag}")))
    }

    /// One of `choices`.
    pub fn choice(
        &mut self,
        flag: &str,
        question: &str,
        given: Option<&str>,
        choices: &[String],
        default: &str,
    ) -> Result<String, Failure> {
        let default = choices.iter().find(|c| *c == default).or(choices.first()).map(String::as_str);
        let question = format!("{question}: {}", choices.join(" "));
        self.text(flag, &question, given, default, &|text| {
            if choices.iter().any(|c| c == text) {
                Ok(text.to_owned())
            } else {
                Err(format!("{text:?} is none of: {}", choices.join(" ")))
            }
        })
    }
}
