//! What is an arbiter? Each kind is one file beside this one.

use crate::spec::{Kind, Spec};
use crate::{etcd, none, ping};
use automaton::arbitration::{Answer, Request};
use sys::failure::Failure;

/// One witness or endpoint, for people.
pub(crate) struct Part {
    pub name: String,
    /// None: it can be used.
    pub trouble: Option<String>,
}

/// Somebody both nodes can ask. Every answer comes within the specification's time; none of the methods panics on what comes from outside.
pub(crate) trait Arbiter {
    /// Answers a question of the core. A question that this kind does not know is one without an answer.
    fn ask(&mut self, request: &Request) -> Answer;

    /// Tries each part by itself, changing nothing.
    fn parts(&mut self) -> Vec<Part>;
}

pub(crate) fn open(spec: &Spec) -> Result<Box<dyn Arbiter>, Failure> {
    Ok(match &spec.kind {
        Kind::None => Box::new(none::Nobody),
        Kind::Ping(ping) => Box::new(ping::Witnesses::new(ping)),
        Kind::Etcd(etcd) => Box::new(etcd::Store::open(etcd)?),
    })
}

pub(crate) fn unreachable(reason: impl ToString) -> Answer {
    Answer::Unreachable { reason: reason.to_string() }
}
