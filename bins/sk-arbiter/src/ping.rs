//! Witnesses that answer to ping: whoever reaches one of them is not the isolated node.

use crate::arbiter::{Arbiter, Part, unreachable};
use crate::spec::Ping;
use automaton::arbitration::{Answer, Request};
use std::net::ToSocketAddrs;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Echo requests to each witness.
const ATTEMPTS: u32 = 4;

pub(crate) struct Witnesses {
    names: Vec<String>,
    timeout: Duration,
}

impl Witnesses {
    pub fn new(spec: &Ping) -> Self {
        Self { names: spec.witnesses.clone(), timeout: Duration::from_millis(spec.timeout_ms) }
    }

    /// Asks all at once. Ends with the first answer when `first` is wanted. What each said so far.
    fn all(&self, first: bool) -> Vec<Part> {
        let (sender, answers) = channel();
        for (number, name) in self.names.iter().enumerate() {
            let (sender, name, timeout) = (sender.clone(), name.clone(), self.timeout);
            let started = std::thread::Builder::new().spawn(move || {
                // Nobody waits any more: another witness was quicker.
                let _ = sender.send((number, one(&name, timeout)));
            });
            drop(started);
        }
        drop(sender);
        let silent = || Some("no answer in time".to_owned());
        let mut parts: Vec<Part> = self.names.iter().map(|n| Part { name: n.clone(), trouble: silent() }).collect();
        // Names are resolved within this time, too.
        let deadline = Instant::now() + self.timeout + Duration::from_millis(500);
        while let Ok((number, trouble)) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            let reached = trouble.is_none();
            if let Some(part) = parts.get_mut(number) {
                part.trouble = trouble;
            }
            if reached && first {
                break;
            }
        }
        parts
    }
}

/// What is wrong with a witness.
fn one(name: &str, timeout: Duration) -> Option<String> {
    let address = match name.parse() {
        Ok(address) => address,
        Err(_) => match (name, 0).to_socket_addrs().map(|mut all| all.next()) {
            Ok(Some(found)) => found.ip(),
            Ok(None) => return Some("the name has no address".to_owned()),
            Err(e) => return Some(format!("the name cannot be resolved: {e}")),
        },
    };
    let mut token = [0; 16];
    if let Err(e) = getrandom::fill(&mut token) {
        return Some(format!("no random numbers: {e}"));
    }
    match net::echo::echo(address, ATTEMPTS, timeout, token) {
        Ok(true) => None,
        Ok(false) => Some("it does not answer to ping".to_owned()),
        Err(e) => Some(e.to_string()),
    }
}

impl Arbiter for Witnesses {
    fn ask(&mut self, request: &Request) -> Answer {
        if *request != Request::Test {
            return unreachable("witnesses keep no records");
        }
        let parts = self.all(true);
        if parts.iter().any(|p| p.trouble.is_none()) {
            return Answer::Reached;
        }
        let words: Vec<String> =
            parts.iter().map(|p| format!("{}: {}", p.name, p.trouble.as_deref().unwrap_or_default())).collect();
        unreachable(words.join("; "))
    }

    fn parts(&mut self) -> Vec<Part> {
        self.all(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witnesses(names: &[&str]) -> Witnesses {
        let witnesses = names.iter().map(|n| (*n).to_owned()).collect();
        Witnesses::new(&Ping { witnesses, timeout_ms: 400 })
    }

    #[test]
    fn one_witness_of_several_is_enough_and_none_is_named() {
        // Without the right to ping, there is nothing to see here.
        if one("127.0.0.1", Duration::from_millis(400)).is_some_and(|t| t.contains("not permitted")) {
            return;
        }
        assert_eq!(witnesses(&["240.0.0.1", "127.0.0.1"]).ask(&Request::Test), Answer::Reached);
        let answer = witnesses(&["240.0.0.1", "no name"]).ask(&Request::Test);
        let Answer::Unreachable { reason } = answer else { panic!("{answer:?}") };
        assert!(reason.contains("240.0.0.1: ") && reason.contains("no name: "), "{reason}");
    }
}
