//! Does the page that starts from the message know every message that people are shown in red?

#![allow(clippy::unwrap_used)] // a test may panic

use std::path::{Path, PathBuf};

/// Not messages of their own: remedies, and parts of others.
const PARTS: [&str; 4] = [
    "the data of this node are a mixture",
    "copy the cluster key of the other node",
    "order to the replication engine",
    "restart_services",
];

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains("test")) {
            continue;
        }
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// String literals of a statement that says something at level C, up to its end.
fn messages(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("'C',") {
        let statement = text[at..].split(";\n").next().unwrap_or_default();
        let statement: String = statement.chars().take(400).collect();
        found.extend(statement.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    found.retain(|m| m.contains(' ') && m.len() > 12 && m.starts_with(|c: char| c.is_alphanumeric() || c == '{'));
    found
}

/// The first piece between `{…}` that says enough, else the longest.
fn fixed_part(message: &str) -> &str {
    let pieces: Vec<&str> = message
        .split('{')
        .map(|piece| piece.split_once('}').map_or(piece, |(_, rest)| rest))
        .flat_map(|piece| piece.split(['(', ';', ':']))
        .map(|piece| piece.trim().trim_end_matches([',', ')']))
        .collect();
    let enough = pieces.iter().find(|piece| piece.len() >= 12);
    enough.or_else(|| pieces.iter().max_by_key(|piece| piece.len())).copied().unwrap_or_default()
}

#[test]
fn every_critical_message_has_an_entry() {
    let page = std::fs::read_to_string(docs::root().join("docs/troubleshooting.md")).unwrap();
    let mut files = Vec::new();
    for directory in ["bins/sk-module/src/runner", "lib/automaton/src"] {
        sources(&docs::root().join(directory), &mut files);
    }
    let mut missing = Vec::new();
    let mut seen = 0;
    for file in files {
        for message in messages(&std::fs::read_to_string(&file).unwrap()) {
            if PARTS.iter().any(|part| message.starts_with(part)) {
                continue;
            }
            seen += 1;
            let fixed = fixed_part(&message);
            if !page.contains(fixed) {
                missing.push(format!("{}: {message:?} (looked for {fixed:?})", file.display()));
            }
        }
    }
    assert!(seen > 25, "only {seen} messages were found: does the code say them in another way now?");
    assert!(missing.is_empty(), "not in docs/troubleshooting.md: {missing:#?}");
}

#[test]
fn messages_are_found_in_the_code() {
    let code = r#"self.say('C', "heart", &format!("The thing {x} broke: {y}"));
        let other = "not this one at all";"#;
    assert_eq!(messages(code), ["The thing {x} broke: {y}"]);
    assert_eq!(fixed_part("The thing {x} broke: {y}"), "The thing");
    assert_eq!(fixed_part("{n} fell over at last: {y} and much more of it"), "fell over at last");
}
