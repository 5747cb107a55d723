//! No arbiter: nobody objects, and nobody knows anything.

use crate::arbiter::{Arbiter, Part, unreachable};
use automaton::arbitration::{Answer, Request};

pub(crate) struct Nobody;

impl Arbiter for Nobody {
    fn ask(&mut self, request: &Request) -> Answer {
        match request {
            Request::Test => Answer::Reached,
            Request::Read | Request::Swap { .. } => unreachable("the module has no store"),
        }
    }

    fn parts(&mut self) -> Vec<Part> {
        Vec::new()
    }
}
