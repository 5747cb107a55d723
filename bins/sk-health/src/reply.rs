//! What is the answer to the head of a request?

use crate::metrics;
use crate::readiness::Module;
use sys::roots::{Roots, is_module_name};

/// Longest head of a request, bytes.
pub const HEAD_MAX: usize = 8 * 1024;
/// Most header fields.
const FIELDS_MAX: usize = 64;

/// What is answered on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The health of modules, for everybody.
    Health,
    /// Metrics, which name what is inside.
    Metrics,
}

/// The bytes to send for what was received so far; `None`: the head is not complete.
pub fn reply(roots: &Roots, purpose: Purpose, received: &[u8]) -> Option<Vec<u8>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(received) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if received.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(answer(
                431,
                "Request Header Fields Too Large",
                "",
                "the head of the request is too large\n",
                true,
            ));
        }
        Err(_) => return Some(bad()),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else { return Some(bad()) };
    let with_body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => {
            return Some(answer(
                405,
                "Method Not Allowed",
                "Allow: GET, HEAD\r\n",
                "only GET and HEAD are answered\n",
                true,
            ));
        }
    };
    Some(match purpose {
        Purpose::Health => health(roots, target, with_body),
        Purpose::Metrics => all_metrics(roots, target, with_body),
    })
}

/// For a client whose question did not come in time.
pub fn too_slow() -> Vec<u8> {
    answer(408, "Request Timeout", "", "the request did not come in time\n", true)
}

fn bad() -> Vec<u8> {
    answer(400, "Bad Request", "", "this is no HTTP request\n", true)
}

fn all_metrics(roots: &Roots, target: &str, with_body: bool) -> Vec<u8> {
    if target.split(['?', '#']).next() != Some("/metrics") {
        return answer(404, "Not Found", "", "there is /metrics\n", with_body);
    }
    let kind = format!("Content-Type: {}\r\n", metrics::CONTENT_TYPE);
    answer(200, "OK", &kind, &metrics::text(roots), with_body)
}

fn health(roots: &Roots, target: &str, with_body: bool) -> Vec<u8> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let not_found = |words: &str| answer(404, "Not Found", "", words, with_body);
    let Some((name, file)) = path.strip_prefix("/var/modules/").and_then(|rest| rest.split_once('/')) else {
        return not_found("there is /var/modules/AM/ready.txt and /var/modules/AM/state.json\n");
    };
    if !is_module_name(name) || !matches!(file, "ready.txt" | "state.json") {
        return not_found("there is /var/modules/AM/ready.txt and /var/modules/AM/state.json\n");
    }
    match (Module::look(roots, name), file) {
        (Some(module), "ready.txt") if module.is_ready() => {
            answer(200, "OK", "", &format!("{}\n", module.words()), with_body)
        }
        (Some(module), "ready.txt") => not_found(&format!("{}\n", module.words())),
        (Some(module), _) => {
            answer(200, "OK", "Content-Type: application/json\r\n", &format!("{}\n", module.public()), with_body)
        }
        (None, _) => not_found("STOP NotReady\n"),
    }
}

fn answer(code: u16, reason: &str, fields: &str, body: &str, with_body: bool) -> Vec<u8> {
    let kind = if fields.contains("Content-Type") { "" } else { "Content-Type: text/plain; charset=utf-8\r\n" };
    let mut out = format!(
        "HTTP/1.1 {code} {reason}\r\n{kind}{fields}Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if with_body {
        out.push_str(body);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::tests::{fake, roots};
    use proptest::prelude::*;

    fn ask(roots: &Roots, text: &str) -> String {
        String::from_utf8(reply(roots, Purpose::Health, text.as_bytes()).expect("complete")).unwrap()
    }

    #[test]
    fn ready_is_200_and_everything_else_404() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let _web = fake(&roots, "web", "UP", "Ready");
        let _db = fake(&roots, "db", "SECOND", "Ready");
        let get = |path: &str| ask(&roots, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let ready = get("/var/modules/web/ready.txt");
        assert!(ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.ends_with("\r\n\r\nUP Ready\n"), "{ready}");
        assert!(get("/var/modules/web/ready.txt?probe=1").starts_with("HTTP/1.1 200"));
        for path in [
            "/var/modules/db/ready.txt",
            "/var/modules/none/ready.txt",
            "/",
            "/var/modules/",
            "/var/modules/web",
            "/var/modules/web/",
            "/var/modules/web/lock",
            "/var/modules/../web/ready.txt",
            "/var/modules/web/../web/ready.txt",
            "//var/modules/web/ready.txt",
            "/var/modules/%77eb/ready.txt",
            "*",
            "http://x/var/modules/web/ready.txt",
        ] {
            assert!(get(path).starts_with("HTTP/1.1 404"), "{path}");
        }
        let state = get("/var/modules/db/state.json");
        let body: serde_json::Value = serde_json::from_str(state.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((&body["state"], &body["application"]), (&"SECOND".into(), &"77.3".into()));
        assert!(body.get("resources").is_none(), "only what everybody may know");
    }

    #[test]
    fn metrics_are_answered_on_their_own_sockets_only() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let _web = fake(&roots, "web", "UP", "Ready");
        let get = |purpose, path: &str| {
            let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            String::from_utf8(reply(&roots, purpose, head.as_bytes()).expect("complete")).unwrap()
        };
        let metrics = get(Purpose::Metrics, "/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\nsk_module_serving{module=\"web\"} 1\n"), "{metrics}");
        assert!(get(Purpose::Health, "/metrics").starts_with("HTTP/1.1 404"));
        assert!(get(Purpose::Metrics, "/var/modules/web/ready.txt").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn head_has_the_same_fields_and_no_body() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let _web = fake(&roots, "web", "UP", "Ready");
        let get = ask(&roots, "GET /var/modules/web/ready.txt HTTP/1.0\r\n\r\n");
        let head = ask(&roots, "HEAD /var/modules/web/ready.txt HTTP/1.0\r\n\r\n");
        assert_eq!(get.split_inclusive("\r\n\r\n").next().unwrap(), head);
    }

    #[test]
    fn wrong_requests_are_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        assert!(ask(&roots, "POST / HTTP/1.1\r\n\r\n").contains("405"));
        assert!(ask(&roots, "\u{1}\u{2}\u{3} hello\r\n\r\n").contains("400"));
        assert!(ask(&roots, &format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(HEAD_MAX))).contains("431"));
        let many: String = "A: b\r\n".repeat(FIELDS_MAX + 1);
        assert!(ask(&roots, &format!("GET / HTTP/1.1\r\n{many}\r\n")).contains("431"));
        assert_eq!(reply(&roots, Purpose::Health, b"GET / HT"), None);
        assert!(String::from_utf8(too_slow()).unwrap().starts_with("HTTP/1.1 408"));
    }

    proptest! {
        /// Any bytes, in any pieces: no panic, an answer for whatever is complete or too long, and never 200.
        #[test]
        fn garbage_is_answered_or_waited_for(bytes in proptest::collection::vec(any::<u8>(), 0..HEAD_MAX + 64)) {
            let dir = tempfile::tempdir().unwrap();
            let roots = roots(&dir);
            for purpose in [Purpose::Health, Purpose::Metrics] {
                match reply(&roots, purpose, &bytes) {
                    None => prop_assert!(bytes.len() < HEAD_MAX),
                    Some(answer) => prop_assert!(answer.starts_with(b"HTTP/1.1 4")),
                }
            }
        }

        /// Any target after a good beginning stays inside the modules' directory.
        #[test]
        fn any_target_is_answered(target in "[ -~]{0,200}") {
            let dir = tempfile::tempdir().unwrap();
            let roots = roots(&dir);
            if let Some(answer) = reply(&roots, Purpose::Health, format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()) {
                prop_assert!(answer.starts_with(b"HTTP/1.1 40"));
            }
        }
    }
}
