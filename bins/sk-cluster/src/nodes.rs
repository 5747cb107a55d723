//! How are several nodes asked the same at the same time?

use crate::hosts::Target;
use crate::{Failure, exit};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::channel::ChannelError;
use wire::node::{Answer, Ask, Facts, TalkError, call};

/// What a node answered.
pub type Outcome = Result<Answer, Failure>;

/// Asks all nodes at once. Each has its own `hear`, made by `hearing`.
pub fn ask<H>(
    targets: &[Target],
    psk: &[u8; 32],
    ask: &Ask,
    payload: &[u8],
    hearing: impl Fn(usize) -> H,
) -> Vec<Outcome>
where
    H: FnMut(&Answer, &[u8]) -> bool + Send,
{
    let silent: Arc<Mutex<Vec<String>>> = Arc::new(Mutex::new(targets.iter().map(|t| t.name.clone()).collect()));
    let waited_for = silent.clone();
    let shown = sys::progress::beside(move || format!("waiting for {}", locked(&waited_for).join(", ")));
    let answers: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = targets
            .iter()
            .enumerate()
            .map(|(number, target)| {
                let hear = hearing(number);
                let silent = &silent;
                scope.spawn(move || {
                    let outcome = call(&target.peer, psk, ask, payload, hear).map_err(|e| unreached(target, &e));
                    locked(silent).retain(|name| *name != target.name);
                    outcome
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(Failure::new(exit::SYSTEM, "the thread that asked died"))))
            .collect()
    });
    drop(shown);
    answers.into_iter().map(|outcome| outcome.and_then(refused)).collect()
}

/// A thread that died while it held the list has left it as it was.
fn locked(names: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same where nothing is heard but the last answer.
pub fn ask_quietly(targets: &[Target], psk: &[u8; 32], question: &Ask, payload: &[u8]) -> Vec<Outcome> {
    ask(targets, psk, question, payload, |_| |_: &Answer, _: &[u8]| true)
}

fn refused(answer: Answer) -> Outcome {
    match answer {
        Answer::Refused { error, hint, exit } => Err(Failure { message: error, hint, code: exit }),
        other => Ok(other),
    }
}

fn unreached(target: &Target, error: &TalkError) -> Failure {
    let (host, port) = (&target.peer.host, target.peer.port);
    match error {
        TalkError::Channel(ChannelError::WrongKey) => {
            Failure::new(exit::FORBIDDEN, format!("{host} does not know this key"))
                .hint("the key of the cluster or of the operator is another one there: sk-cluster key status")
        }
        TalkError::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Failure::new(
            exit::UNREACHED,
            format!("nobody answers at TCP {host}:{port}"),
        )
        .hint(format!(
            "start the daemon there: sk-cluster up (or systemctl start sk-cluster); {port} may be closed by a firewall"
        )),
        TalkError::Io(e) => Failure::new(exit::UNREACHED, format!("{host} is not reached at TCP port {port}: {e}")),
        other => Failure::new(exit::UNREACHED, format!("{host}: {other}")),
    }
}

/// What all these nodes are and have.
pub fn facts(targets: &[Target], psk: &[u8; 32]) -> Vec<Result<Facts, Failure>> {
    ask_quietly(targets, psk, &Ask::Facts { users: Vec::new() }, &[])
        .into_iter()
        .map(|outcome| match outcome? {
            Answer::Facts(facts) => Ok(*facts),
            other => Err(Failure::new(exit::UNREACHED, format!("it answered something else: {other:?}"))),
        })
        .collect()
}

/// Prints what each node said, and returns the exit code of all together.
pub fn print(targets: &[Target], outcomes: &[Outcome]) -> Result<u8, Failure> {
    let mut code = 0;
    for (target, outcome) in targets.iter().zip(outcomes) {
        match outcome {
            Ok(Answer::Done { words }) => {
                crate::put(&format!("{}: done", target.name))?;
                for line in words {
                    crate::put(&format!("  {line}"))?;
                }
            }
            Ok(_) => crate::put(&format!("{}: done", target.name))?,
            Err(failure) => {
                sys::warn!("sk-cluster: {}: {}", target.name, failure.message);
                if let Some(hint) = &failure.hint {
                    sys::warn!("  {hint}");
                }
                code = worst(code, failure.code);
            }
        }
    }
    Ok(code)
}

/// The documented codes are 1 to 3; whatever else a node gives is a failure there.
pub fn worst(code: u8, other: u8) -> u8 {
    code.max(if other > exit::FORBIDDEN { exit::REFUSED } else { other })
}
