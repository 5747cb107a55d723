//! An etcd cluster behind its JSON gateway: one key a module, changed by compare-and-swap on its revision.
//!
//! Facts: <https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>. Keys, values and 64-bit numbers are strings there (base64, decimal), and members
//! with the value of a type's default are left out. A range request is linearizable unless it says otherwise.

use crate::ARBITER;
use crate::arbiter::{Arbiter, Part, unreachable};
use crate::http::{Client, Credentials};
use crate::spec::Etcd;
use automaton::arbitration::{Answer, Record, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use sys::failure::Failure;

/// A record is some hundred bytes.
const RECORD_MAX: usize = 16 * 1024;
const PASSWORD_MAX: u64 = 4096;

pub(crate) struct Store {
    client: Client,
    endpoints: Vec<String>,
    /// The endpoint that answered last.
    good: usize,
    key: String,
    login: Option<(String, PathBuf)>,
    /// etcd's word for a login; forgotten when it is refused.
    token: Option<String>,
    attempt: Duration,
}

impl Store {
    pub fn open(spec: &Etcd) -> Result<Self, Failure> {
        let credentials = Credentials { ca: spec.ca.as_deref(), cert: spec.cert.as_ref(), key: spec.cert_key.as_ref() };
        let attempt = Duration::from_millis(spec.attempt_ms);
        Ok(Self {
            client: Client::new(&credentials, attempt).map_err(|e| Failure::new(ARBITER, e))?,
            endpoints: spec.endpoints.iter().map(|e| e.trim_end_matches('/').to_owned()).collect(),
            good: 0,
            key: BASE64.encode(&spec.key),
            login: spec.user.clone().zip(spec.password_file.clone()),
            token: None,
            attempt,
        })
    }

    fn range(&self) -> Value {
        json!({"key": self.key})
    }

    fn swap(&self, expect: u64, record: &Record) -> Result<Value, String> {
        let value = serde_json::to_vec(record).map_err(|e| e.to_string())?;
        // A key that is not there has the revision 0.
        Ok(json!({
            "compare": [{"result": "EQUAL", "target": "MOD", "key": self.key, "mod_revision": expect.to_string()}],
            "success": [{"request_put": {"key": self.key, "value": BASE64.encode(value)}}],
            "failure": [{"request_range": {"key": self.key}}],
        }))
    }

    /// Asks one endpoint after the other until one answers in good order, beginning with the one that did last.
    fn call<T>(&mut self, path: &str, body: &Value, read: impl Fn(&Value) -> Result<T, String>) -> Result<T, String> {
        let mut troubles = Vec::new();
        for step in 0..self.endpoints.len() {
            let number = (self.good + step) % self.endpoints.len();
            let Some(endpoint) = self.endpoints.get(number).cloned() else { continue };
            match self.call_one(&endpoint, path, body).and_then(|answer| read(&answer)) {
                Ok(answer) => {
                    self.good = number;
                    return Ok(answer);
                }
                Err(trouble) => troubles.push(format!("{endpoint}: {trouble}")),
            }
        }
        Err(troubles.join("; "))
    }

    fn call_one(&mut self, endpoint: &str, path: &str, body: &Value) -> Result<Value, String> {
        let began = Instant::now();
        let mut logged_in = false;
        // A kept connection may have died meanwhile, and a login may have expired: each is tried anew once, when that was said quickly.
        for last in [false, true] {
            if self.token.is_none() && self.login.is_some() {
                self.token = Some(self.log_in(endpoint)?);
                logged_in = true;
            }
            let hasty = began.elapsed() < self.attempt / 2;
            match self.client.post(&format!("{endpoint}{path}"), self.token.as_deref(), body) {
                Ok((200, answer)) if answer.is_object() => return Ok(answer),
                Ok((200, _)) => return Err("the answer is not JSON: is this etcd?".to_owned()),
                Ok((401, _)) if self.login.is_some() && !logged_in && !last => self.token = None,
                Ok((status, answer)) => return Err(refusal(status, &answer)),
                Err(_) if hasty && !last && began.elapsed() < self.attempt / 2 => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err("no answer".to_owned())
    }

    fn log_in(&self, endpoint: &str) -> Result<String, String> {
        let Some((user, path)) = &self.login else { return Err("no user is configured".to_owned()) };
        let file = |e: &dyn std::fmt::Display| format!("the password file {}: {e}", path.display());
        // Read each time: it can be changed while this runs.
        let bytes = sys::files::read_bounded(path, PASSWORD_MAX).map_err(|e| file(&e))?;
        let text = String::from_utf8(bytes).map_err(|e| file(&e))?;
        let body = json!({"name": user, "password": text.trim_end_matches(['\r', '\n'])});
        match self.client.post(&format!("{endpoint}/v3/auth/authenticate"), None, &body)? {
            (200, answer) => answer["token"]
                .as_str()
                .filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()))
                .map(str::to_owned)
                .ok_or_else(|| "the login was answered without a token".to_owned()),
            (status, answer) => Err(format!("login of {user}: {}", refusal(status, &answer))),
        }
    }
}

fn refusal(status: u16, answer: &Value) -> String {
    let words = answer["message"].as_str().or_else(|| answer["error"].as_str()).or_else(|| answer.as_str());
    let words = words.unwrap_or("no reason given");
    let words: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("HTTP {status}: {words}")
}

/// A 64-bit number, as text or not. Absent: 0, as the gateway leaves defaults out.
fn number(value: &Value) -> Result<u64, String> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => text.parse().map_err(|_| format!("`{text:.40}` is not a number")),
        other => other.as_u64().ok_or_else(|| "a number is expected".to_owned()),
    }
}

/// What a range answered.
fn found(range: &Value) -> Result<Answer, String> {
    let kvs = match &range["kvs"] {
        Value::Null => return Ok(Answer::Found { revision: 0, record: None }),
        Value::Array(kvs) => kvs,
        _ => return Err("`kvs` is not a list".to_owned()),
    };
    let Some(kv) = kvs.first() else { return Ok(Answer::Found { revision: 0, record: None }) };
    let revision = number(&kv["mod_revision"])?;
    if revision == 0 {
        return Err("a key without a revision".to_owned());
    }
    let text = kv["value"].as_str().unwrap_or_default();
    if text.len() > RECORD_MAX {
        return Ok(Answer::Strange { revision, reason: "it is too long".to_owned() });
    }
    let record = BASE64
        .decode(text)
        .map_err(|e| e.to_string())
        .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).map_err(|e| e.to_string()));
    Ok(match record {
        Ok(record) => Answer::Found { revision, record: Some(record) },
        Err(reason) => Answer::Strange { revision, reason },
    })
}

/// What a transaction answered.
fn swapped(answer: &Value) -> Result<Answer, String> {
    // Everything etcd answers has a header with its revision: what has none is not an answer of etcd.
    let revision = number(&answer["header"]["revision"])?;
    if revision == 0 {
        return Err("an answer without a revision: is this etcd?".to_owned());
    }
    match &answer["succeeded"] {
        Value::Bool(true) => Ok(Answer::Swapped { revision }),
        Value::Null | Value::Bool(false) => {
            let range = &answer["responses"][0]["response_range"];
            if range.is_object() { found(range) } else { Err("a refused swap without the present record".to_owned()) }
        }
        _ => Err("`succeeded` is neither true nor false".to_owned()),
    }
}

fn ranged(answer: &Value) -> Result<Answer, String> {
    if number(&answer["header"]["revision"])? == 0 {
        return Err("an answer without a revision: is this etcd?".to_owned());
    }
    found(answer)
}

impl Arbiter for Store {
    fn ask(&mut self, request: &Request) -> Answer {
        let answer = match request {
            Request::Test => return unreachable("a store is not tested: it is asked"),
            Request::Read => {
                let body = self.range();
                self.call("/v3/kv/range", &body, ranged)
            }
            Request::Swap { expect, record } => {
                self.swap(*expect, record).and_then(|body| self.call("/v3/kv/txn", &body, swapped))
            }
        };
        answer.unwrap_or_else(unreachable)
    }

    fn parts(&mut self) -> Vec<Part> {
        let body = self.range();
        let endpoints = self.endpoints.clone();
        endpoints
            .into_iter()
            .map(|endpoint| {
                let trouble = self.call_one(&endpoint, "/v3/kv/range", &body).and_then(|a| ranged(&a)).err();
                Part { name: endpoint, trouble }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(revision: &str, value: &str) -> Value {
        json!({"header": {"revision": "9"}, "kvs": [{"key": "eA==", "mod_revision": revision, "value": value}], "count": "1"})
    }

    #[test]
    fn answers_of_etcd_are_read() {
        let record = json!({"owner": "node1", "by": "node1", "lease_ms": 3000}).to_string();
        let Answer::Found { revision: 7, record: Some(read) } = ranged(&kv("7", &BASE64.encode(record))).unwrap()
        else {
            panic!("not found")
        };
        assert_eq!(read.owner, "node1");
        let none = Answer::Found { revision: 0, record: None };
        assert_eq!(ranged(&json!({"header": {"revision": "4"}})).unwrap(), none);
        assert_eq!(
            swapped(&json!({"header": {"revision": "8"}, "succeeded": true})).unwrap(),
            Answer::Swapped { revision: 8 }
        );
        let refused =
            json!({"header": {"revision": "8"}, "responses": [{"response_range": {"header": {"revision": "8"}}}]});
        assert_eq!(swapped(&refused).unwrap(), none);
        assert!(matches!(ranged(&kv("7", "bm90IGpzb24=")).unwrap(), Answer::Strange { revision: 7, .. }));
        assert!(matches!(ranged(&kv("7", "***")).unwrap(), Answer::Strange { revision: 7, .. }));
    }

    #[test]
    fn what_is_not_an_answer_of_etcd_is_none() {
        let garbage = [
            json!({}),
            json!({"succeeded": true}),
            json!({"header": {"revision": "0"}, "succeeded": true}),
            json!({"header": {"revision": "-1"}, "succeeded": true}),
            json!({"header": {"revision": "x"}, "succeeded": true}),
            json!({"header": {"revision": "8"}, "succeeded": "yes"}),
            json!({"header": {"revision": "8"}}),
            json!({"header": {"revision": "8"}, "responses": [{"response_put": {}}]}),
            json!({"header": 5, "responses": "x"}),
        ];
        for answer in garbage {
            assert!(swapped(&answer).is_err(), "{answer}");
        }
        for answer in [json!({}), json!({"header": {"revision": "8"}, "kvs": 7}), kv("0", ""), kv("none", "")] {
            assert!(ranged(&answer).is_err(), "{answer}");
        }
    }
}
