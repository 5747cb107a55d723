//! Questions from the standard input, answers to the standard output, one after the other.

use crate::arbiter::{self, unreachable};
use crate::spec::Spec;
use automaton::arbitration::{Answer, Request};
use serde::Serialize;
use std::path::Path;
use sys::failure::Failure;
use wire::Emitter;
use wire::lines::{EmitError, Messages};

#[derive(Serialize)]
struct Answered<'a> {
    id: u64,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// `sk-arbiter run`. It only asks others: when the runner dies there is nothing to clean up, so dying with it is the safe side.
pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    sys::signals::die_with_parent().map_err(|e| Failure::system("prctl(PR_SET_PDEATHSIG)", e))?;
    let spec = Spec::load(path)?;
    let emitter = Emitter::new("sk-arbiter", &spec.node, &spec.module);
    // What is wrong with certificates or the password is the answer to every question: it can be mended while this runs.
    let mut opened = arbiter::open(&spec);
    if let Err(failure) = &opened {
        sys::warn!("sk-arbiter: {}", failure.message);
    }
    for message in Messages::new(std::io::stdin()) {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                sys::warn!("sk-arbiter: a question was skipped: {error}");
                continue;
            }
        };
        if message.kind == "quit" {
            break;
        }
        let (Some(id), Ok(request)) = (message.id(), message.body::<Request>()) else {
            sys::warn!("sk-arbiter: a question of unknown kind `{}` was skipped", message.kind);
            continue;
        };
        if opened.is_err() {
            opened = arbiter::open(&spec);
        }
        let answer = match opened.as_mut() {
            Ok(arbiter) => arbiter.ask(&request),
            Err(failure) => unreachable(&failure.message),
        };
        match emitter.emit("answer", &Answered { id, answer: &answer }) {
            Err(EmitError::Closed) => break,
            Err(e) => return Err(Failure::system("stdout", e)),
            Ok(()) => {}
        }
    }
    Ok(())
}
