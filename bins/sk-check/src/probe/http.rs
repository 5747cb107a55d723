//! What does a server say about a module? The question and the reading of the answer; pure.

use serde::Deserialize;

/// Longest answer read, bytes.
pub(crate) const ANSWER_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 64;

/// The two resources a server has of each module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    State,
    /// Of servers that do not have the first: only whether it is ready.
    Ready,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Ready, and in which life the application is, when that is told.
    Up {
        application: Option<String>,
    },
    Down {
        reason: String,
    },
    /// The server has no such resource: ask the other question.
    Absent,
}

pub(crate) fn request(question: Question, module: &str, host: &str) -> Vec<u8> {
    let file = match question {
        Question::State => "state.json",
        Question::Ready => "ready.txt",
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!(
        "GET /var/modules/{module}/{file} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: sk-check\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

#[derive(Deserialize)]
struct State {
    state: String,
    readiness: String,
    #[serde(default)]
    application: Option<String>,
}

/// Reads everything that a server sent before it closed.
pub(crate) fn answer(question: Question, module: &str, received: &[u8]) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(received) else {
        return Answer::Down { reason: "the answer is no HTTP".to_owned() };
    };
    let code = response.code.unwrap_or(0);
    let body = received.get(head..).unwrap_or_default();
    match (question, code) {
        (Question::State, 404) => Answer::Absent,
        (Question::Ready, 404) => Answer::Down { reason: format!("module {module} is not ready there") },
        (Question::Ready, 200) => Answer::Up { application: None },
        (Question::State, 200) => match serde_json::from_slice::<State>(body) {
            Ok(s) if s.readiness == "Ready" && matches!(s.state.as_str(), "PRIM" | "ALONE" | "UP") => {
                Answer::Up { application: s.application.filter(|a| !a.is_empty()) }
            }
            Ok(s) => {
                let word = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).take(16).collect::<String>();
                Answer::Down { reason: format!("module {module} is {} {} there", word(&s.state), word(&s.readiness)) }
            }
            Err(_) => Answer::Down { reason: "the answer is no state of a module".to_owned() },
        },
        (_, code) => Answer::Down { reason: format!("the server answered {code}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn down(reason: &str) -> Answer {
        Answer::Down { reason: reason.to_owned() }
    }

    #[test]
    fn answers_are_read_as_they_mean() {
        let reply =
            |code: u16, body: &str| format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let state = |state: &str, readiness: &str| {
            reply(200, &format!(r#"{{"module":"a","state":"{state}","readiness":"{readiness}","application":"7.1"}}"#))
        };
        let table = [
            (Question::State, state("PRIM", "Ready"), Answer::Up { application: Some("7.1".into()) }),
            (Question::State, state("UP", "Ready"), Answer::Up { application: Some("7.1".into()) }),
            (Question::State, state("UP", "Transient"), down("module a is UP Transient there")),
            (Question::State, state("SECOND", "Ready"), down("module a is SECOND Ready there")),
            (Question::State, reply(200, "{}"), down("the answer is no state of a module")),
            (Question::State, reply(404, ""), Answer::Absent),
            (Question::State, reply(500, ""), down("the server answered 500")),
            (Question::Ready, reply(200, "x"), Answer::Up { application: None }),
            (Question::Ready, reply(404, ""), down("module a is not ready there")),
            (Question::Ready, "SSH-2.0".into(), down("the answer is no HTTP")),
            (Question::Ready, String::new(), down("the answer is no HTTP")),
        ];
        for (question, text, want) in table {
            assert_eq!(answer(question, "a", text.as_bytes()), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_never_up(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(!bytes.starts_with(b"HTTP/1"));
            let up = matches!(answer(Question::State, "a", &bytes), Answer::Up { .. });
            prop_assert!(!up);
        }

        #[test]
        fn any_body_is_judged(body in "\\PC{0,200}", code in 100..600_u16) {
            let text = format!("HTTP/1.1 {code} X\r\n\r\n{body}");
            answer(Question::State, "a", text.as_bytes());
        }
    }
}
