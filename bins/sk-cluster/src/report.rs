//! Have all nodes the same configuration, and what do their modules do?

use crate::hosts::Hosts;
use crate::{Failure, exit, nodes, put};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use wire::node::{Facts, Stamp};

/// `sk-cluster confinfo`.
pub fn confinfo(hosts: &Hosts, as_json: bool) -> Result<u8, Failure> {
    let targets = hosts.all()?;
    let mut code = 0;
    let mut seen: Vec<(&str, String, String)> = Vec::new();
    if !as_json {
        put(&format!("{:<20} {:<16} {:<19} {:<4} KEY", "Node", "Signature", "Date", "Lock"))?;
    }
    for (target, outcome) in targets.iter().zip(nodes::facts(&targets, &hosts.psk()?)) {
        match outcome {
            Ok(facts) => {
                let stamp = facts.cluster.clone().unwrap_or_default();
                if as_json {
                    put(&json!({"node": target.name, "signature": stamp.signature, "date": stamp.date, "lock": facts.locked,
                        "key": facts.key, "version": facts.version})
                    .to_string())?;
                } else {
                    put(&format!(
                        "{:<20} {:<16} {:<19} {:<4} {}",
                        target.name,
                        or_dash(&stamp.signature),
                        date(Some(&stamp)),
                        u8::from(facts.locked),
                        or_dash(&facts.key)
                    ))?;
                }
                seen.push((&target.name, stamp.signature, facts.key));
            }
            Err(failure) => {
                if as_json {
                    put(&json!({"node": target.name, "error": failure.message}).to_string())?;
                } else {
                    put(&format!("{:<20} not reached", target.name))?;
                }
                sys::warn!("sk-cluster: {}: {}", target.name, failure.message);
                if let Some(hint) = failure.hint {
                    sys::warn!("  {hint}");
                }
                code = nodes::worst(code, failure.code);
            }
        }
    }
    let own = hosts.own().ok();
    let reference = seen.iter().find(|(name, ..)| Some(*name) == own.as_deref()).or(seen.first()).cloned();
    if let Some((reference, signature, key)) = reference {
        for (name, other, other_key) in &seen {
            if *other != signature {
                sys::warn!(
                    "sk-cluster: {name} has another configuration than {reference}; bring it with: sk-cluster push"
                );
                code = code.max(exit::REFUSED);
            }
            if *other_key != key {
                sys::warn!(
                    "sk-cluster: {name} uses another key than {reference}; end the renewal with: sk-cluster key renew"
                );
                code = code.max(exit::REFUSED);
            }
        }
    }
    Ok(code)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn date(stamp: Option<&Stamp>) -> String {
    let seconds = stamp.filter(|s| !s.signature.is_empty()).and_then(|s| i64::try_from(s.date).ok());
    seconds
        .and_then(|s| Timestamp::from_second(s).ok())
        .map_or_else(|| "-".to_owned(), |t| t.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `sk-cluster state`.
pub fn state(hosts: &Hosts, as_json: bool) -> Result<u8, Failure> {
    let targets = hosts.all()?;
    let mut code = 0;
    if !as_json {
        put(&format!(
            "{:<10} {:<14} {:<6} {:>3} {:<15} {:<12} CONFIGURED",
            "NODE", "MODULE", "MODE", "ID", "STATE", "SIGNATURE"
        ))?;
    }
    for (target, outcome) in targets.iter().zip(nodes::facts(&targets, &hosts.psk()?)) {
        match outcome {
            Ok(facts) => modules(&target.name, &facts, as_json)?,
            Err(failure) => {
                if as_json {
                    put(&json!({"node": target.name, "error": failure.message}).to_string())?;
                } else {
                    put(&format!("{:<10} not reached", target.name))?;
                }
                sys::warn!("sk-cluster: {}: {}", target.name, failure.message);
                code = nodes::worst(code, failure.code);
            }
        }
    }
    Ok(code)
}

fn modules(node: &str, facts: &Facts, as_json: bool) -> Result<(), Failure> {
    for module in &facts.modules {
        if as_json {
            let config = module.config.as_ref().map(|c| json!({"signature": c.signature, "date": c.date}));
            put(&json!({"node": node, "module": module.module, "mode": module.mode, "id": module.id, "state": module.state,
                "readiness": module.readiness, "config": config})
            .to_string())?;
            continue;
        }
        let state = format!("{} {}", or_dash(&module.state), module.readiness);
        let signature = module.config.as_ref().map_or("-", |c| or_dash(&c.signature));
        let id = module.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        // 80 columns with names of usual length.
        put(&format!(
            "{node:<10} {:<14} {:<6} {id:>3} {:<15} {:<12} {}",
            module.module,
            or_dash(&module.mode),
            state.trim_end(),
            signature.get(..12).unwrap_or(signature),
            date(module.config.as_ref()).get(..10).unwrap_or("-")
        ))?;
    }
    Ok(())
}
