//! How the secondary is synchronised next: shown, and changed by the operator.

use crate::show::{live, module_name};
use crate::{PolicyCommand, Trouble, logged};
use replica::engine::state_dir;
use replica::policy::{self, Policy, Side};
use serde_json::Value;
use std::path::Path;
use sys::failure::put;
use sys::roots::Roots;

/// `sk-replicate policy`. Changes belong into the log of commands.
pub fn policy(module: &str, command: &PolicyCommand) -> Result<(), Trouble> {
    module_name(module)?;
    let roots = Roots::from_environment();
    let changes = !matches!(command, PolicyCommand::Show(_));
    logged(&roots, module, changes, || act(&roots, module, command))
}

fn act(roots: &Roots, module: &str, command: &PolicyCommand) -> Result<(), Trouble> {
    let known = roots.module_var(module);
    if !known.is_dir() {
        let text = format!("module {module} is not configured on this node ({} does not exist)", known.display());
        return Err(Trouble::new(2, text));
    }
    let directory = state_dir(roots, module);
    let next = match command {
        PolicyCommand::Show(show) => return print(&directory, module, show.json),
        PolicyCommand::Default => Policy::Default,
        PolicyCommand::Full => Policy::Full,
        PolicyCommand::External(order) => {
            if !policy::is_uid(&order.uid) {
                let text = format!(
                    "{:?} is no identifier: letters, digits, '_', '-' and '.', at most {} characters",
                    order.uid,
                    policy::UID_MAX
                );
                return Err(Trouble::new(100, text));
            }
            let role = Side::from(order.role);
            if order.from_start && role == Side::Second {
                return Err(Trouble::new(100, "--from-start is for the node whose data are copied: external prim UID"));
            }
            // The kernel's time of changes may lag behind ours by a tick of its clock.
            let moment = (sys::clock::wall_ms() / 1000) as i64 - 1;
            let waits = role == Side::Second || order.from_start && !serves(roots, module);
            Policy::External { role, uid: order.uid.clone(), since: (!waits).then_some(moment), refused: false }
        }
    };
    std::fs::create_dir_all(&directory)?;
    policy::write(&directory, &next).map_err(|e| Trouble::new(111, e))
}

/// Whether this node serves the module now.
fn serves(roots: &Roots, module: &str) -> bool {
    live(roots, module).get("role").and_then(Value::as_str) == Some("primary")
}

fn print(directory: &Path, module: &str, as_json: bool) -> Result<(), Trouble> {
    let policy = policy::read(directory).map_err(|e| Trouble::new(2, e))?;
    if as_json {
        let mut line = serde_json::to_value(&policy).map_err(std::io::Error::from)?;
        if let Value::Object(fields) = &mut line {
            fields.insert("module".into(), module.into());
        }
        return Ok(put(&line.to_string())?);
    }
    Ok(put(words(&policy).as_str())?)
}

fn words(policy: &Policy) -> String {
    match policy {
        Policy::Default => "default: what follows from the data".into(),
        Policy::Full => "full: the next synchronisation compares and copies everything".into(),
        Policy::External { role: Side::Prim, uid, since: Some(since), .. } => {
            let at = jiff::Timestamp::from_second(*since).map_or_else(|_| since.to_string(), |t| t.to_string());
            format!("external prim {uid}: the next synchronisation copies what changed since {at}")
        }
        Policy::External { role: Side::Prim, uid, since: None, .. } => {
            format!("external prim {uid}: the next synchronisation copies what changes from the next start on")
        }
        Policy::External { role: Side::Second, uid, refused: false, .. } => {
            format!(
                "external second {uid}: the data were copied by other means, what changed since the primary's mark is copied next"
            )
        }
        Policy::External { role: Side::Second, uid, refused: true, .. } => {
            format!("external second {uid}: refused by the primary, see the module's log; set another policy")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_in_words() {
        let mark = |role, since, refused| Policy::External { role, uid: "t1".into(), since, refused };
        for (policy, expected) in [
            (Policy::Default, "default: "),
            (Policy::Full, "full: "),
            (
                mark(Side::Prim, Some(0), false),
                "external prim t1: the next synchronisation copies what changed since 1970-01-01T00:00:00Z",
            ),
            (
                mark(Side::Prim, None, false),
                "external prim t1: the next synchronisation copies what changes from the next start on",
            ),
            (mark(Side::Second, None, false), "external second t1: the data were"),
            (mark(Side::Second, None, true), "external second t1: refused"),
        ] {
            let said = words(&policy);
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
