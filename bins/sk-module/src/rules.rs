//! Which failover rules does a module have, which of them hold now, and what do they wait for?

use crate::boot::applied_modules;
use crate::instance::Instance;
use crate::{Failure, client, exit};
use automaton::{Core, Persisted};
use serde_json::{Value, json};
use sys::failure::put;
use sys::roots::Roots;

/// Prints the rules of one module, or of all.
pub(crate) fn rules(roots: &Roots, module: Option<&str>, as_json: bool) -> Result<u8, Failure> {
    let modules = match module {
        Some(module) => vec![module.to_owned()],
        None => applied_modules(roots)?,
    };
    for (number, module) in modules.iter().enumerate() {
        let reply = ask(roots, module)?;
        let text = if as_json { lines(&reply) } else { table(&reply, number > 0) };
        for line in text.lines() {
            put(line)?;
        }
    }
    Ok(0)
}

/// The runner's answer; without a runner what the applied configuration says, where nothing has been reported.
fn ask(roots: &Roots, module: &str) -> Result<Value, Failure> {
    if let Some(reply) = client::ask(roots, module, &json!({"verb": "rules"}))? {
        return match reply["ok"].as_bool() {
            Some(true) => Ok(reply),
            _ => Err(Failure::new(exit::REFUSED, reply["error"].as_str().unwrap_or("no answer").to_owned())),
        };
    }
    let instance = Instance::load(roots, module)?;
    let core = Core::new(instance.settings(), Persisted::default(), 0);
    Ok(json!({"module": module, "node": instance.node, "state": core.state().to_string(), "rules": core.rules()}))
}

fn lines(reply: &Value) -> String {
    let mut out = String::new();
    for rule in reply["rules"].as_array().into_iter().flatten() {
        let mut rule = rule.clone();
        rule["module"] = reply["module"].clone();
        out.push_str(&format!("{rule}\n"));
    }
    out
}

fn table(reply: &Value, spaced: bool) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = if spaced { "\n".to_owned() } else { String::new() };
    out.push_str(&format!(
        "module {} on {}: {}\n",
        text(&reply["module"]),
        text(&reply["node"]),
        text(&reply["state"])
    ));
    let rules: Vec<&Value> = reply["rules"].as_array().into_iter().flatten().collect();
    let width = rules.iter().map(|r| text(&r["label"]).len()).max().unwrap_or(0).max(4);
    out.push_str(&format!("{:width$}  {:7}  {:8}  {:11}  CONDITION\n", "RULE", "TRUTH", "FROM", "ACTION"));
    for rule in rules {
        let truth = match (rule["truth"].as_bool(), rule["acting"].as_bool()) {
            (Some(true), Some(true)) => "acting",
            (Some(true), _) => "true",
            (Some(false), _) => "false",
            (None, _) => "waiting",
        };
        let origin = rule["origin"].as_str().unwrap_or("core");
        let mut condition = text(&rule["if"]);
        let waits: Vec<String> = rule["waits_for"].as_array().into_iter().flatten().map(text).collect();
        if !waits.is_empty() {
            condition.push_str(&format!(" (not evaluated: {} not reported yet)", waits.join(", ")));
        }
        let mut line = format!("{:width$}  {truth:7}  {origin:8}  {:11} ", text(&rule["label"]), text(&rule["then"]));
        // What does not fit into 80 columns goes on below itself.
        let indent = line.len();
        for word in condition.split_whitespace() {
            let column = line.len() - line.rfind('\n').map_or(0, |at| at + 1);
            if column > indent && column + 1 + word.len() > 80 {
                line.push_str(&format!("\n{:indent$}", ""));
            }
            line.push(' ');
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}
