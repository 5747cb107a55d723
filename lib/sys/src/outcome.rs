//! What became of a command that changes something, as one JSON line for a program that gave it?

use crate::failure::Failure;
use serde_json::json;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// What a command says whose outcome is told as JSON.
#[derive(Default)]
struct Said {
    lines: Vec<String>,
    complaints: Vec<String>,
}

/// `None` when the outcome is told in words.
static SAID: Mutex<Option<Said>> = Mutex::new(None);

fn said() -> std::sync::MutexGuard<'static, Option<Said>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on output is kept for the line that [`end`] prints.
pub fn begin() {
    said().get_or_insert_default();
}

/// Whether [`begin`] was called.
pub fn is_wanted() -> bool {
    said().is_some()
}

/// Takes a line of output; false when it must be printed.
pub(crate) fn keep(line: &str) -> bool {
    said().as_mut().is_some_and(|said| {
        said.lines.push(line.to_owned());
        true
    })
}

/// Notes a complaint, which is printed all the same: that a node was not reached, for one.
pub fn complain(words: &str) {
    if let Some(said) = said().as_mut() {
        said.complaints.push(words.to_owned());
    }
}

/// Prints the line. A reader that is gone does not change how the command ended.
pub fn end(verb: &str, module: Option<&str>, result: &Result<u8, Failure>) {
    let said = said().take().unwrap_or_default();
    let _ = writeln!(io::stdout(), "{}", line(verb, module, &said, result));
}

fn line(verb: &str, module: Option<&str>, said: &Said, result: &Result<u8, Failure>) -> String {
    let failure = result.as_ref().err();
    let code = result.as_ref().map_or_else(|failure| failure.code, |code| *code);
    json!({
        "verb": verb, "module": module, "code": code, "said": said.lines, "complaints": said.complaints,
        "error": failure.map(|f| &f.message), "hint": failure.and_then(|f| f.hint.as_ref()),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_says_how_the_command_ended() {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let said = Said { lines: vec!["web.safe".into()], complaints: vec!["node2: nobody answers".into()] };
        let good = parse(&line("package", Some("web"), &said, &Ok(0)));
        assert_eq!(
            good,
            json!({"verb": "package", "module": "web", "code": 0, "said": ["web.safe"],
                "complaints": ["node2: nobody answers"], "error": null, "hint": null})
        );
        let refused = Err(Failure::new(1, "it runs").hint("stop it"));
        let bad = parse(&line("key renew", None, &Said::default(), &refused));
        assert_eq!((&bad["code"], &bad["error"], &bad["hint"]), (&json!(1), &json!("it runs"), &json!("stop it")));
        assert_eq!(bad["module"], json!(null));
    }
}
