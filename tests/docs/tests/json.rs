//! Can a program read what each verb of each command prints?

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeSet;

/// Verbs without `--json`, and why none is needed. A word alone stands for the whole command.
const WITHOUT: [(&str, &[&str]); 5] = [
    ("keeps the verbs and the output of SafeKit, which scripts know; sk-module says the same as JSON", &["safekit"]),
    (
        "speaks JSON lines with the runner, always",
        &[
            "sk-arbiter run",
            "sk-check run",
            "sk-errd run",
            "sk-farmfilter run",
            "sk-heartbeat run",
            "sk-replicate run",
            "sk-heartbeat carry",
            "sk-vip hold",
            "sk-vip watch",
        ],
    ),
    (
        "runs in the foreground until it is ended; what it finds is in files and logs",
        &["sk-cluster serve", "sk-health serve", "sk-module guard", "sk-module run", "sk-notify run"],
    ),
    ("prints the text format of Prometheus", &["sk-health metrics"]),
    ("prints what another node imports, which is JSON already", &["sk-cluster export"]),
];

fn walk(command: &clap::Command, path: &str, json: bool, verbs: &mut Vec<(String, bool)>) {
    let path = if path.is_empty() { command.get_name().to_owned() } else { format!("{path} {}", command.get_name()) };
    let has =
        |global: bool| command.get_arguments().any(|a| a.get_long() == Some("json") && (!global || a.is_global_set()));
    let mut children = command.get_subcommands().filter(|c| c.get_name() != "help").peekable();
    if children.peek().is_none() {
        verbs.push((path, json || has(false)));
        return;
    }
    for child in children {
        walk(child, &path, json || has(true), verbs);
    }
}

#[test]
fn every_verb_that_prints_can_print_json() {
    let mut verbs = Vec::new();
    for command in docs::commands() {
        walk(&command, "", false, &mut verbs);
    }
    assert!(verbs.len() > 100, "{verbs:?}");
    let without: BTreeSet<&str> = WITHOUT.iter().flat_map(|(_, names)| *names).copied().collect();
    let is_excused = |path: &str| without.contains(path) || path.split(' ').next().is_some_and(|c| without.contains(c));
    let silent: Vec<&String> = verbs.iter().filter(|(path, json)| !json && !is_excused(path)).map(|(p, _)| p).collect();
    assert!(silent.is_empty(), "neither --json nor a reason why not: {silent:#?}");
    // A reason that nobody needs any more is taken away.
    let idle: Vec<&str> = without
        .into_iter()
        .filter(|name| !verbs.iter().any(|(p, json)| !json && (p == name || p.starts_with(&format!("{name} ")))))
        .collect();
    assert!(idle.is_empty(), "have --json, or are no verbs: {idle:#?}");
}
