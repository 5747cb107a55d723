//! Where are examples in a document: code of Markdown, and what the macros of a man page set apart?

use std::path::Path;

/// What a document shows as code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// File and line.
    pub place: String,
    pub text: String,
    /// A block or a line of its own, given as it is; not words in a sentence.
    pub alone: bool,
}

/// The examples of a document, by the kind of its file.
pub fn examples(path: &Path, name: &str) -> Vec<Example> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    if path.extension().is_some_and(|e| e == "md") { markdown(name, &text) } else { manual(name, &text) }
}

/// Fences, and what stands between backquotes in a paragraph. The lines of a fence of no language count when they begin with a command: it
/// may be a drawing. What a program prints (`text`, `json`) is no example.
pub fn markdown(name: &str, text: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut lines = text.lines().zip(1..);
    let mut paragraph: Vec<(&str, usize)> = Vec::new();
    while let Some((line, number)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if line.trim().is_empty() {
                inline(name, &std::mem::take(&mut paragraph), &mut found);
            } else {
                paragraph.push((line, number));
            }
            continue;
        };
        inline(name, &std::mem::take(&mut paragraph), &mut found);
        let body: Vec<(&str, usize)> =
            lines.by_ref().take_while(|(line, _)| !line.trim_start().starts_with("```")).collect();
        let begins_with_command = |line: &str| line.split_whitespace().next().is_some_and(super::is_ours);
        match info.split_whitespace().next() {
            Some("sh") => commands(name, &body, &mut found),
            Some("xml") => {
                let text: Vec<&str> = body.iter().map(|(line, _)| *line).collect();
                found.push(Example { place: format!("{name}:{number}"), text: text.join("\n"), alone: true });
            }
            None => {
                let lines: Vec<(&str, usize)> =
                    body.into_iter().filter(|(line, _)| begins_with_command(line)).collect();
                commands(name, &lines, &mut found);
            }
            Some(_) => {}
        }
    }
    inline(name, &paragraph, &mut found);
    found
}

/// Each command line of a script, those that go on after a backslash as one.
fn commands(name: &str, body: &[(&str, usize)], found: &mut Vec<Example>) {
    let mut begun: Option<(String, usize)> = None;
    for (line, number) in body {
        let (mut text, first) = begun.take().unwrap_or((String::new(), *number));
        text.push_str(line);
        if let Some(before) = text.strip_suffix('\\') {
            begun = Some((before.to_owned(), first));
        } else {
            found.push(Example { place: format!("{name}:{first}"), text, alone: true });
        }
    }
}

fn inline(name: &str, paragraph: &[(&str, usize)], found: &mut Vec<Example>) {
    let mut open: Option<(String, usize)> = None;
    for (line, number) in paragraph {
        for (turn, piece) in line.split('`').enumerate() {
            if turn > 0 {
                open = match open.take() {
                    Some((text, first)) => {
                        // A table needs the backslash.
                        let text = text.replace("\\|", "|");
                        found.push(Example { place: format!("{name}:{first}"), text, alone: false });
                        None
                    }
                    None => Some((String::new(), *number)),
                };
            }
            if let Some((text, _)) = &mut open {
                text.push_str(piece);
            }
        }
        if let Some((text, _)) = &mut open {
            text.push(' ');
        }
    }
}

/// Literal displays, and the words of the macros for commands and literals.
pub fn manual(name: &str, text: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let place = format!("{name}:{number}");
        if line.starts_with(".Bd -literal") {
            let body = lines.by_ref().take_while(|(line, _)| *line != ".Ed").map(|(line, _)| plain(line));
            found.push(Example { place, text: body.collect::<Vec<_>>().join("\n"), alone: true });
        } else if let Some(line) = line.strip_prefix(".Dl ") {
            let text = plain(line);
            found.push(Example { place, text: text.trim_start_matches("# ").to_owned(), alone: true });
        } else if line.starts_with('.') {
            for mark in ["Ic ", "Ql ", "Li "] {
                let at = line.find(mark).filter(|at| line[..*at].ends_with(['.', ' ']));
                if let Some(at) = at {
                    let text = plain(&line[at + mark.len()..]);
                    let text = text.trim_end_matches([' ', ',', '.', ';', ':', ')']).to_owned();
                    found.push(Example { place: place.clone(), text, alone: false });
                }
            }
        }
    }
    found
}

/// Without the escapes of the language.
fn plain(text: &str) -> String {
    text.replace("\\(dq", "\"").replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(found: Vec<Example>) -> Vec<(String, String, bool)> {
        found.into_iter().map(|e| (e.place, e.text, e.alone)).collect()
    }

    #[test]
    fn code_of_markdown_is_found() {
        let text = "Say `sk-module stop\n--wait`.\n\n```sh run=node1\nsk-top \\\n  --json\n```\n```text\nsk-top: no\n```\n\
            ```\n| sk-top |\nsk-vip show\n```\n| `a\\|b` |\n";
        let seen = [
            ("x:1", "sk-module stop --wait", false),
            ("x:5", "sk-top   --json", true),
            ("x:13", "sk-vip show", true),
            ("x:15", "a|b", false),
        ];
        assert_eq!(all(markdown("x", text)), seen.map(|(p, t, a)| (p.to_owned(), t.to_owned(), a)));
    }

    #[test]
    fn code_of_a_manual_is_found() {
        let text = ".Sh X\n.Dl # sk-module log -s \\(dq1\\(dq\n.Pq Ic sk-cluster key renew .\n.Bd -literal\n<safe>\n</safe>\n.Ed\n";
        let seen = [
            ("x:2", "sk-module log -s \"1\"", true),
            ("x:3", "sk-cluster key renew", false),
            ("x:4", "<safe>\n</safe>", true),
        ];
        assert_eq!(all(manual("x", text)), seen.map(|(p, t, a)| (p.to_owned(), t.to_owned(), a)));
    }
}
