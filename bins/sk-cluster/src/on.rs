//! How does a command run on several nodes at the same time, and what is printed of it?

use crate::cli::On;
use crate::hosts::{Hosts, Target};
use crate::nodes::{self, Outcome};
use crate::{Failure, exit, put};
use serde_json::json;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use wire::node::{Answer, Ask};

/// Most output kept of one host; more is counted and not kept.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// What a host said until now.
#[derive(Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
    dropped: usize,
    late: bool,
}

impl Said {
    fn take(&mut self, answer: &Answer, bytes: &[u8]) {
        let room = OUTPUT_LIMIT.saturating_sub(self.out.len() + self.err.len());
        let (kept, lost) = bytes.split_at(bytes.len().min(room));
        self.dropped += lost.len();
        match answer {
            Answer::Out => self.out.extend_from_slice(kept),
            Answer::Err => self.err.extend_from_slice(kept),
            _ => {}
        }
    }
}

pub fn on(hosts: &Hosts, asked: &On) -> Result<u8, Failure> {
    // Better said once here than by every node.
    wire::role::needed(&asked.command).map_err(|e| Failure::new(exit::USAGE, e.to_string()))?;
    let targets = hosts.named(Some(&asked.hosts))?;
    let psk = hosts.psk()?;
    let question = Ask::Run { argv: asked.command.clone(), origin: sys::commands::who() };
    let until = asked.timeout.map(|t| (Instant::now() + Duration::from(t), Duration::from(t)));
    let said: Vec<Mutex<Said>> = targets.iter().map(|_| Mutex::new(Said::default())).collect();
    let lock = |number: usize| said.get(number).map(|m| m.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let outcomes = nodes::ask(&targets, &psk, &question, &[], |number| {
        let lock = &lock;
        move |answer: &Answer, bytes: &[u8]| {
            let Some(mut said) = lock(number) else { return false };
            said.take(answer, bytes);
            said.late = until.is_some_and(|(end, _)| Instant::now() >= end);
            !said.late
        }
    });
    let mut code = 0;
    for (number, (target, outcome)) in targets.iter().zip(outcomes).enumerate() {
        let Some(said) = lock(number) else { continue };
        let outcome = match (outcome, until) {
            (Err(_), Some((_, limit))) if said.late => Err(Failure::new(
                exit::UNREACHED,
                format!("{} did not end within {}", target.name, humantime::format_duration(limit)),
            )),
            (outcome, _) => outcome,
        };
        code = nodes::worst(code, print(target, &outcome, &said, asked.json)?);
    }
    Ok(code)
}

/// What one host said and how it ended; its part of the exit code.
fn print(target: &Target, outcome: &Outcome, said: &Said, as_json: bool) -> Result<u8, Failure> {
    let code = match outcome {
        Ok(Answer::End { exit: 0 }) => 0,
        Ok(_) => exit::REFUSED,
        Err(failure) => nodes::worst(0, failure.code).max(exit::REFUSED),
    };
    let (out, err) = (String::from_utf8_lossy(&said.out), String::from_utf8_lossy(&said.err));
    if as_json {
        let (ended, error) = match outcome {
            Ok(Answer::End { exit }) => (Some(*exit), None),
            Ok(other) => (None, Some(format!("it answered something else: {other:?}"))),
            Err(failure) => (None, Some(failure.message.clone())),
        };
        put(&json!({"node": target.name, "address": target.peer.host, "exit": ended, "stdout": out, "stderr": err,
            "error": error, "dropped_bytes": said.dropped})
        .to_string())?;
        return Ok(code);
    }
    put(&format!("---------------- Server={} ({}) ----------------", target.url(), target.name))?;
    if !out.is_empty() {
        put(out.trim_end_matches('\n'))?;
    }
    for line in err.lines() {
        sys::warn!("{}: {line}", target.name);
    }
    if said.dropped > 0 {
        sys::warn!("{}: {} more bytes of output were dropped", target.name, said.dropped);
    }
    match outcome {
        Ok(Answer::End { exit: 0 }) => {}
        Ok(Answer::End { exit }) => sys::warn!("{}: exit code {exit}", target.name),
        Ok(other) => sys::warn!("{}: it answered something else: {other:?}", target.name),
        Err(failure) => {
            sys::warn!("{}: Error: {}", target.name, failure.message);
            if let Some(hint) = &failure.hint {
                sys::warn!("  {hint}");
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded() {
        let mut said = Said::default();
        for _ in 0..20 {
            said.take(&Answer::Out, &vec![b'x'; 1 << 20]);
        }
        assert_eq!((said.out.len(), said.dropped), (OUTPUT_LIMIT, 4 << 20));
    }
}
