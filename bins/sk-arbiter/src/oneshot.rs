//! What can an operator ask of the arbiter?

use crate::arbiter::{self, Arbiter};
use crate::spec::Spec;
use crate::{ARBITER, OTHERS, Which};
use automaton::arbitration::{Answer, Record, Request};
use serde_json::json;
use std::io::Write as _;
use sys::failure::Failure;

fn spec(which: &Which) -> Result<Spec, Failure> {
    let path = match (&which.spec, &which.module) {
        (Some(path), _) => path.clone(),
        (None, Some(module)) => sys::roots::Roots::from_environment().module_run(module).join("arbiter.json"),
        (None, None) => return Err(Failure::usage("name a module with -m, or a specification with --spec")),
    };
    if which.spec.is_none() && !path.exists() {
        let module = which.module.as_deref().unwrap_or_default();
        return Err(Failure::usage(format!(
            "{} is not there: module {module} has no <splitbrain>, or was neither configured nor started since this host has booted",
            path.display()
        )));
    }
    Spec::load(&path)
}

/// A closed output is nobody's fault.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn read(arbiter: &mut dyn Arbiter) -> Result<(u64, Option<Record>), Failure> {
    match arbiter.ask(&Request::Read) {
        Answer::Found { revision, record } => Ok((revision, record)),
        Answer::Unreachable { reason } => Err(Failure::new(ARBITER, reason)),
        Answer::Strange { reason, .. } => Err(Failure::new(ARBITER, format!("the record is unreadable: {reason}"))),
        Answer::Reached | Answer::Swapped { .. } => Err(Failure::new(ARBITER, "an answer to another question")),
    }
}

/// `sk-arbiter show`.
pub(crate) fn show(which: &Which, as_json: bool) -> Result<u8, Failure> {
    let spec = spec(which)?;
    let (revision, record) = read(&mut *arbiter::open(&spec)?)?;
    let Some(record) = record else {
        if as_json {
            say(&json!({"module": spec.module, "revision": revision, "record": null}).to_string());
        } else {
            say(&format!("module    {}\nowner     there is no record", spec.module));
        }
        return Ok(1);
    };
    if as_json {
        say(&json!({"module": spec.module, "revision": revision, "record": record}).to_string());
    } else {
        let owner = if record.owner.is_empty() { "nobody (released)" } else { &record.owner };
        let epoch = record.epoch.map_or_else(|| "none".to_owned(), |e| e.to_string());
        let alone =
            if record.alone { "yes: the other node may not have its data" } else { "no: in sync with the other node" };
        say(&format!(
            "module    {}\nowner     {owner}\nalone     {alone}\nepoch     {epoch}\nlease     {} ms\nwritten   by {}, revision {revision}",
            spec.module, record.lease_ms, record.by
        ));
    }
    Ok(0)
}

/// `sk-arbiter test`.
pub(crate) fn test(which: &Which, as_json: bool) -> Result<u8, Failure> {
    let spec = spec(which)?;
    let parts = arbiter::open(&spec)?.parts();
    let width = parts.iter().map(|p| p.name.len()).max().unwrap_or(0);
    for part in &parts {
        if as_json {
            say(&json!({"name": part.name, "usable": part.trouble.is_none(), "trouble": part.trouble}).to_string());
        } else {
            say(&format!("{:width$}  {}", part.name, part.trouble.as_deref().unwrap_or("usable")));
        }
    }
    Ok(u8::from(!parts.iter().any(|p| p.trouble.is_none())))
}

/// `sk-arbiter release`.
pub(crate) fn release(which: &Which, owner: &str, as_json: bool) -> Result<u8, Failure> {
    let spec = spec(which)?;
    let mut arbiter = arbiter::open(&spec)?;
    let (expect, record) = read(&mut *arbiter)?;
    let Some(record) = record.filter(|r| r.owner == owner) else {
        let reason = format!("the record does not name {owner} as the owner of {}; look at it with show", spec.module);
        return Err(Failure::new(OTHERS, reason));
    };
    // Leases that the owner may still hold are waited for, as with any record.
    let record = Record { owner: String::new(), by: "operator".to_owned(), life: 0, turn: 0, ..record };
    match arbiter.ask(&Request::Swap { expect, record }) {
        Answer::Swapped { revision } => {
            if as_json {
                say(&json!({"module": spec.module, "revision": revision, "released": owner}).to_string());
            } else {
                say(&format!("{}: nobody owns it now; start it with prim where its data are", spec.module));
            }
            Ok(0)
        }
        Answer::Unreachable { reason } => Err(Failure::new(ARBITER, reason)),
        _ => Err(Failure::new(
            OTHERS,
            format!("the record of {} was changed meanwhile: it runs somewhere; stop it on both nodes", spec.module),
        )),
    }
}
