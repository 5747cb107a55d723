//! How do all nodes get a new key while everything runs?
//!
//! The new key is accepted everywhere, then used everywhere, then the old one is accepted nowhere. Between two steps the processes of
//! all nodes have time to look at their file, which they do once a second. A node that does not take a step ends the renewal where it
//! is: both keys are good then, nothing stops, and the command is given again.

use crate::hosts::{Hosts, Target};
use crate::nodes;
use crate::{Failure, exit, put};
use serde_json::json;
use std::time::Duration;
use wire::ClusterKey;
use wire::node::{Ask, Facts, KeyStep};

/// Three looks at the file of keys, for hosts that are busy. A process that is later than this heals itself at its next look.
const PAUSE: Duration = Duration::from_secs(3);

/// `sk-cluster key status`.
pub fn status(hosts: &Hosts, as_json: bool) -> Result<u8, Failure> {
    let targets = hosts.all()?;
    let mut code = 0;
    let mut used = Vec::new();
    if !as_json {
        put(&format!("{:<20} {:<16} ALSO ACCEPTED", "NODE", "KEY IN USE"))?;
    }
    for (target, outcome) in targets.iter().zip(nodes::facts(&targets, &hosts.psk()?)) {
        match outcome {
            Ok(facts) if as_json => {
                put(&json!({"node": target.name, "key": facts.key, "accepted": facts.accepted}).to_string())?;
                used.push(facts.key);
            }
            Ok(facts) => {
                put(format!("{:<20} {:<16} {}", target.name, facts.key, facts.accepted.join(" ")).trim_end())?;
                used.push(facts.key);
            }
            Err(failure) => {
                if as_json {
                    put(&json!({"node": target.name, "error": failure.message}).to_string())?;
                }
                sys::warn!("sk-cluster: {}: {}", target.name, failure.message);
                code = nodes::worst(code, failure.code);
            }
        }
    }
    let differ = used.first().is_some_and(|first| used.iter().any(|k| k != first));
    Ok(if differ { code.max(exit::REFUSED) } else { code })
}

/// `sk-cluster key renew`.
pub fn renew(hosts: &Hosts) -> Result<u8, Failure> {
    if hosts.key.is_some() {
        return Err(Failure::new(exit::USAGE, "the key is renewed from a node, by its administrator")
            .hint("on a node: sk-cluster key renew"));
    }
    let own = hosts.own()?;
    let mut targets = hosts.all()?;
    // This node last: as long as it uses the former key, an interrupted renewal is known by the others being ahead.
    targets.sort_by_key(|t| t.name == own);
    let facts: Vec<Facts> = nodes::facts(&targets, &hosts.psk()?)
        .into_iter()
        .zip(&targets)
        .map(|(outcome, target)| {
            outcome
                .map_err(|e| Failure { message: format!("{}: {}; nothing was changed", target.name, e.message), ..e })
        })
        .collect::<Result<_, _>>()?;
    if let Some(key) = unfinished(&facts) {
        put("an earlier renewal is ended first")?;
        step(hosts, &targets, KeyStep::Switch, &key, None)?;
        std::thread::sleep(PAUSE);
        step(hosts, &targets, KeyStep::Finish, &key, None)?;
    }
    let key = ClusterKey::generate().map_err(|e| Failure::system("the new key", e))?;
    let fingerprint = key.fingerprint();
    if let Err(failure) = step(hosts, &targets, KeyStep::Offer, &fingerprint, Some(&key)) {
        let question = Ask::Key { step: KeyStep::Withdraw, fingerprint, key: None, origin: sys::commands::who() };
        // A node that cannot be told keeps a key that nobody uses until the next renewal.
        let _ = nodes::ask_quietly(&targets, &hosts.psk()?, &question, &[]);
        return Err(Failure { message: format!("{}; the key stays as it was", failure.message), ..failure });
    }
    put(&format!("1/3 all nodes accept the key {fingerprint}"))?;
    std::thread::sleep(PAUSE);
    step(hosts, &targets, KeyStep::Switch, &fingerprint, None)?;
    put("2/3 all nodes use it")?;
    std::thread::sleep(PAUSE);
    step(hosts, &targets, KeyStep::Finish, &fingerprint, None)?;
    put("3/3 no node accepts the former one any more")?;
    Ok(0)
}

/// The key with which an interrupted renewal is ended, when there is one: that of a node that is ahead of us. `facts`: this node last.
fn unfinished(facts: &[Facts]) -> Option<String> {
    let own = facts.last()?;
    if let Some(ahead) = facts.iter().find(|f| f.key != own.key) {
        return Some(ahead.key.clone());
    }
    facts.iter().any(|f| !f.accepted.is_empty()).then(|| own.key.clone())
}

/// One step, on all nodes; the last one alone, after the others.
fn step(
    hosts: &Hosts,
    targets: &[Target],
    step: KeyStep,
    fingerprint: &str,
    key: Option<&ClusterKey>,
) -> Result<(), Failure> {
    let question = Ask::Key {
        step,
        fingerprint: fingerprint.to_owned(),
        key: key.map(ClusterKey::to_hex),
        origin: sys::commands::who(),
    };
    let others = targets.len().saturating_sub(1);
    let (others, own) = targets.split_at(others);
    for group in [others, own] {
        // Looked up each time: the step before may have changed it.
        let outcomes = nodes::ask_quietly(group, &hosts.psk()?, &question, &[]);
        let failed: Vec<String> = group
            .iter()
            .zip(&outcomes)
            .filter_map(|(target, outcome)| outcome.as_ref().err().map(|e| format!("{}: {}", target.name, e.message)))
            .collect();
        if let Some(failure) = outcomes.into_iter().find_map(Result::err) {
            return Err(Failure::new(failure.code, failed.join("; ")).hint(
                "everything runs on: where two keys are known both are accepted. Mend it and give the command again; sk-cluster key status shows where each node is",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(key: &str, accepted: &[&str]) -> Facts {
        Facts { key: key.into(), accepted: accepted.iter().map(|k| (*k).to_owned()).collect(), ..Facts::default() }
    }

    #[test]
    fn an_interrupted_renewal_is_recognised_at_every_step() {
        let (old, new) = ("old", "new");
        for (facts, expected) in [
            (vec![node(old, &[]), node(old, &[])], None),
            (vec![node(old, &[new]), node(old, &[])], Some(old)),
            (vec![node(old, &[new]), node(old, &[new])], Some(old)),
            (vec![node(new, &[old]), node(old, &[new])], Some(new)),
            (vec![node(new, &[old]), node(new, &[old])], Some(new)),
            (vec![node(new, &[]), node(new, &[old])], Some(new)),
            (vec![node(new, &[]), node(new, &[])], None),
        ] {
            assert_eq!(unfinished(&facts).as_deref(), expected, "{facts:?}");
        }
    }
}
