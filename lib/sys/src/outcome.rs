//! What became of a command that changes something, as one JSON line for a program that gave it?

use crate::failure::Failure;
use serde_json::json;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// The lines of output of a command whose outcome is told as JSON; `None` when it is told in words.
static SAID: Mutex<Option<Vec<String>>> = Mutex::new(None);

fn said() -> std::sync::MutexGuard<'static, Option<Vec<String>>> {
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
    said().as_mut().is_some_and(|lines| {
        lines.push(line.to_owned());
        true
    })
}

/// Prints the line. A reader that is gone does not change how the command ended.
pub fn end(verb: &str, module: Option<&str>, result: &Result<u8, Failure>) {
    let lines = said().take().unwrap_or_default();
    let _ = writeln!(io::stdout(), "{}", line(verb, module, &lines, result));
}

fn line(verb: &str, module: Option<&str>, said: &[String], result: &Result<u8, Failure>) -> String {
    let failure = result.as_ref().err();
    let code = result.as_ref().map_or_else(|failure| failure.code, |code| *code);
    json!({
        "verb": verb, "module": module, "code": code, "said": said,
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
        let good = parse(&line("package", Some("web"), &["web.safe".into()], &Ok(0)));
        assert_eq!(
            good,
            json!({"verb": "package", "module": "web", "code": 0, "said": ["web.safe"], "error": null, "hint": null})
        );
        let refused = Err(Failure::new(1, "it runs").hint("stop it"));
        let bad = parse(&line("key renew", None, &[], &refused));
        assert_eq!((&bad["code"], &bad["error"], &bad["hint"]), (&json!(1), &json!("it runs"), &json!("stop it")));
        assert_eq!(bad["module"], json!(null));
    }
}
