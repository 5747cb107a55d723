//! What would a transition do? Prints the table behind the core, with the commands as they would be run.

use crate::instance::Instance;
use crate::{Failure, exit};
use automaton::{StateName, Step};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use serde_json::Value;
use sys::roots::Roots;

pub(crate) fn plan(
    roots: &Roots,
    module: &str,
    from: &str,
    to: &str,
    action: &str,
    as_json: bool,
) -> Result<u8, Failure> {
    if !["start", "prim", "primforce", "second", "stop", "stopstart", "stopwait", "restart", "swap"].contains(&action) {
        return Err(Failure::new(exit::USAGE, format!("unknown action {action:?}"))
            .hint("use start, prim, primforce, second, stop, stopstart, stopwait, restart or swap"));
    }
    let instance = Instance::load(roots, module)?;
    let (from_state, to_state) = (state(from)?, state(to)?);
    let steps = automaton::plan(from_state, to_state, action, &instance.settings());
    if steps.is_empty() {
        return Err(Failure::new(exit::REFUSED, format!("there is no transition from {from} to {to}")));
    }
    for step in &steps {
        if as_json {
            say!("{}", object(&instance, step)?);
        } else {
            say!("{}", line(&instance, step));
        }
    }
    Ok(0)
}

/// A step with what this node makes of it: the script's file and whether it is there, the addresses.
fn object(instance: &Instance, step: &Step) -> Result<Value, Failure> {
    let mut object = serde_json::to_value(step).map_err(|e| Failure::system("a step", e))?;
    match step {
        Step::Script { name, .. } => {
            let path = instance.active_bin().join(name);
            object["present"] = path.exists().into();
            object["path"] = path.display().to_string().into();
        }
        Step::Vip { .. } => object["addresses"] = instance.virtual_addresses().into(),
        _ => {}
    }
    Ok(object)
}

fn line(instance: &Instance, step: &Step) -> String {
    match step {
        Step::Script { name, args, .. } => {
            let path = instance.active_bin().join(name);
            let mark = if path.exists() { "" } else { "    # not there: skipped" };
            format!("{} {}{mark}", path.display(), args.join(" "))
        }
        Step::Vip { held } => {
            let verb = if *held { "hold" } else { "release" };
            format!("# addresses: {verb} {}", instance.virtual_addresses().join(" "))
        }
        other => format!("# {other}"),
    }
}

fn state(name: &str) -> Result<StateName, Failure> {
    let deserializer: StrDeserializer<'_, Error> = name.into_deserializer();
    StateName::deserialize(deserializer).map_err(|e| Failure::new(exit::USAGE, format!("{name}: {e}")))
}
