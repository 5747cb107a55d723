//! Can a program read what every verb says with `--json`, also when the verb fails?

use crate::node::{Node, Reader};
use crate::{ASKS, CHANGES};
use serde_json::Value;

/// The command with `--json` where it belongs; `None`: the verb has none.
fn as_json(line: &str) -> Option<(String, bool)> {
    let verb = crate::verb_of(line);
    let (is_json, is_outcome) = docs::form_of(verb)?;
    let line = match line.split_once(" = ") {
        Some((_, whole)) => whole.to_owned(),
        None => line.to_owned(),
    };
    let line = if line.contains("--json") {
        line
    } else if line.contains(" & ") {
        line.replacen(" & ", " & --json ", 1)
    } else {
        format!("{} --json", line.trim_end_matches(" &"))
    };
    is_json.then_some((line, is_outcome))
}

#[test]
fn every_verb_speaks_json_whether_it_succeeds_or_fails() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::new(home.path());
    let (mut outcomes, mut forms) = (0, 0);
    let mut wrong = Vec::new();
    // Questions first, while there is nothing; then what changes something, and questions again before it is taken away.
    let last = CHANGES.iter().position(|line| *line == "sk-module deconfig & -m databases-01").unwrap();
    let (make, take) = CHANGES.split_at(last);
    for line in ASKS.iter().chain(make).chain(ASKS).chain(take) {
        let Some((asked, is_outcome)) = as_json(line) else {
            // What the others make is needed all the same.
            node.run(line, Reader::Reads);
            continue;
        };
        let outcome = node.run(&asked, Reader::Reads);
        let lines: Vec<Result<Value, _>> = outcome.said.lines().map(serde_json::from_str).collect();
        // A whole document may be on several lines.
        let readable = lines.iter().all(Result::is_ok) || serde_json::from_str::<Value>(&outcome.said).is_ok();
        if !readable {
            wrong.push(format!("{asked}: {}", outcome.said));
        }
        if is_outcome {
            outcomes += 1;
            let code = lines.first().and_then(|l| l.as_ref().ok()).and_then(|l| l["code"].as_i64());
            if lines.len() != 1 || code != outcome.code.map(i64::from) {
                wrong.push(format!("{asked}: exit code {:?}: {}", outcome.code, outcome.said));
            }
        } else {
            forms += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(outcomes > 40 && forms > 60, "only {outcomes} outcomes and {forms} forms");
}
