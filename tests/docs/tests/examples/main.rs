//! Can everything be given as it is written, that the documents show: each command of ours, each configuration?

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod shell;
mod text;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use text::{Example, examples};

/// What begins like a command and is none, and why.
const NO_COMMANDS: [(&str, &str); 3] = [
    ("sk-farmfilter does not answer: it is killed", "a message"),
    ("safekit -H", "an option by its name"),
    ("safekit -H HOSTS", "an option by its name"),
];

/// Words that stand for what is no name: numbers, times, addresses.
const STAND_FOR: [(&str, &str); 5] = [
    ("VERB", "state"),
    ("N", "7"),
    ("DATE", "2026-11-20"),
    ("TIME", "2026-11-20 10:00:00"),
    ("ADDRESS:PORT", "10.0.0.11:80"),
];

/// Words before a command that run it; the second: how many words of their own follow.
const RUNS: [(&str, usize); 4] = [("ssh", 1), ("setsid", 0), ("sudo", 0), ("exec", 0)];

/// Programs to which the name of a command of ours is a word like others: a unit, a package, an identifier.
const SPEAK_OF_OURS: [&str; 7] = ["systemctl", "journalctl", "apt", "man", "install", "editor", "cp"];

/// Elements that are shown without the others: what is before and after them in a whole file.
const FRAMES: [(&str, &str, &str); 4] = [
    ("<vip>", MIRROR, "<user/></service></safe>"),
    ("<check>", MIRROR, "<user/></service></safe>"),
    ("<vhost>", MIRROR, "<user/></service></safe>"),
    (
        "<replicated ",
        "<safe><service mode=\"mirror\"><heart><heartbeat name=\"default\"/></heart><rfs>",
        "</rfs><user/></service></safe>",
    ),
];
const MIRROR: &str = "<safe><service mode=\"mirror\"><heart><heartbeat name=\"default\"/></heart>";

/// Every document that is written by hand, and the examples of `--help`.
fn all() -> Vec<Example> {
    let root = docs::root();
    let mut paths = vec![PathBuf::from("README.md")];
    for (directory, endings) in [("docs", ["md", ""]), ("man", ["5", "7"])] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = PathBuf::from(directory).join(name);
            let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            if !ending.is_empty() && endings.contains(&ending.as_str()) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    assert!(paths.len() > 25, "{paths:?}");
    let mut found: Vec<Example> =
        paths.iter().flat_map(|path| examples(&root.join(path), &path.display().to_string())).collect();
    for mut command in docs::commands() {
        helps(&mut command, &mut found);
    }
    found
}

/// Lines of a help that begin with a command.
fn helps(command: &mut clap::Command, found: &mut Vec<Example>) {
    let place = format!("{} --help", command.get_name());
    for help in [command.get_after_help(), command.get_after_long_help()].into_iter().flatten() {
        let text = help.to_string();
        // What it does stands beside it.
        let lines = text.lines().filter_map(|l| l.trim().split("  ").next()).map(|l| l.trim_end_matches([' ', '…']));
        let lines = lines.filter(|l| l.split(' ').next().is_some_and(is_ours) && l.contains(' '));
        found.extend(lines.map(|l| Example { place: place.clone(), text: l.to_owned(), alone: true }));
    }
    for sub in command.get_subcommands_mut() {
        helps(sub, found);
    }
}

/// The name of a command of the product, with or without its directory.
pub fn is_ours(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or_default();
    (name == "safekit" || name.starts_with("sk-")) && docs::commands().iter().any(|c| c.get_name() == name)
}

/// The command of ours that these words run, from its name on. An error: they name one, and what is done with it is not known.
fn ours(words: &[String]) -> Result<Option<&[String]>, String> {
    let mut words = words;
    loop {
        let Some(first) = words.first() else { return Ok(None) };
        let follow = RUNS.iter().find(|(name, _)| name == first).map(|(_, count)| 1 + count);
        if let Some(count) = follow.or_else(|| is_assignment(first).then_some(1)) {
            words = words.get(count..).unwrap_or_default();
        } else if is_ours(first) {
            return Ok(Some(words));
        } else if words.iter().any(|w| is_ours(w)) && !SPEAK_OF_OURS.contains(&first.as_str()) {
            return Err(format!("what does {first} with it?"));
        } else {
            return Ok(None);
        }
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// Gives the words to the parser of their command. `named`: a verb may stand without its arguments, as the name of itself.
fn parse(words: &[String], named: bool) -> Result<(), String> {
    let (program, rest) = words.split_first().ok_or("no words")?;
    let program = program.rsplit('/').next().unwrap_or_default();
    let rest: Vec<String> = rest
        .iter()
        .map(|w| STAND_FOR.iter().find(|(name, _)| name == w).map_or(w.as_str(), |(_, value)| value).to_owned())
        .collect();
    let (program, rest) = match (program, rest.as_slice()) {
        ("sk-module", [option, _, inner @ ..]) if ["-H", "--hosts"].contains(&option.as_str()) => {
            ("sk-module", inner.to_vec())
        }
        ("safekit", _) => safekit::understood(rest).map_err(|e| e.to_string())?,
        (program, _) => (program, rest),
    };
    let mut command = docs::commands().into_iter().find(|c| c.get_name() == program).ok_or("no command of ours")?;
    command.build();
    let mut place = &command;
    let is_name = rest.iter().all(|w| match place.find_subcommand(w) {
        Some(sub) => {
            place = sub;
            true
        }
        None => false,
    });
    if named && is_name {
        return Ok(());
    }
    if let ("sk-cluster", [verb, _, inner @ ..]) = (program, rest.as_slice())
        && verb == "on"
        && inner.first().is_some_and(|w| is_ours(w))
    {
        parse(inner, named)?;
    }
    let known: Vec<String> = command.get_subcommands().map(|s| s.get_name().to_owned()).collect();
    let line = std::iter::once(program.to_owned()).chain(rest);
    match command.try_get_matches_from(line) {
        Ok(matches) => match matches.subcommand_name() {
            Some(verb) if !known.iter().any(|k| k == verb) => Err(format!("{program} has no verb {verb}")),
            _ => Ok(()),
        },
        Err(e) if !e.use_stderr() => Ok(()),
        Err(e) => Err(e.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// The commands of ours in an example that cannot be given.
fn faults(example: &Example, seen: &mut usize) -> Vec<String> {
    let mut found = Vec::new();
    for words in shell::split(&example.text) {
        let fault = match ours(&words) {
            Ok(None) => continue,
            // In a sentence other words may stand beside a name.
            Err(_) if !example.alone => continue,
            Err(fault) => Some(fault),
            Ok(Some(words)) => {
                *seen += 1;
                shell::alternatives(words).iter().find_map(|words| parse(words, !example.alone).err())
            }
        };
        found.extend(fault.map(|fault| format!("{}: {}: {fault}", example.place, example.text.trim())));
    }
    found
}

fn is_command(example: &Example) -> bool {
    !is_xml(example) && !NO_COMMANDS.iter().any(|(text, _)| *text == example.text)
}

fn is_xml(example: &Example) -> bool {
    example.text.starts_with('<')
}

#[test]
fn every_command_that_is_shown_can_be_given() {
    let mut seen = 0;
    let all = all();
    let faults: Vec<String> = all.iter().filter(|e| is_command(e)).flat_map(|e| faults(e, &mut seen)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 250, "only {seen} commands were found");
    for (text, _) in NO_COMMANDS {
        assert!(all.iter().any(|e| e.text == text), "nowhere any more: {text}");
    }
}

#[test]
fn what_cannot_be_given_is_found() {
    let example = |text: &str, alone| Example { place: "x:1".into(), text: text.into(), alone };
    for (text, alone, wrong) in [
        ("sk-module stop --wait -m AM", true, false),
        ("sk-module stop --weight -m AM", true, true),
        ("sk-module second -m AM --since DATE", false, false),
        ("sk-module push", false, false),
        ("sk-module pull", false, true),
        ("sk-cluster role add", false, false),
        ("sk-cluster role add", true, true),
        ("sk-module checker on|off|often -m AM", false, true),
        ("ssh node2 /opt/sk/bin/sk-cluster import --all", true, true),
        ("sk-module -H '*' state --all-of-it", true, true),
        ("sk-cluster on '*' sk-module sate", true, true),
        ("safekit -m AM stop -i me", true, false),
        ("safekit -m AM halt", true, true),
        ("safekit -H '*' stop", true, false),
        ("perhaps sk-module stop", true, true),
        ("systemctl enable --now sk-notify", true, false),
    ] {
        let found = faults(&example(text, alone), &mut 0);
        assert_eq!(!found.is_empty(), wrong, "{text}: {found:?}");
    }
}

/// Whole files as they are, elements in a file that has nothing else. What is left out is `…` or `...`.
#[test]
fn every_configuration_that_is_shown_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let program = programs::built("sk-module");
    let (mut faults, mut seen) = (Vec::new(), 0);
    for example in all().iter().filter(|e| is_xml(e) && !e.text.contains("…") && !e.text.contains("...")) {
        let text = example.text.trim();
        let text = text.strip_prefix("<!DOCTYPE safe>\n").unwrap_or(text);
        let frame = FRAMES.iter().find(|(begin, ..)| text.starts_with(begin));
        let (name, whole) = match frame {
            _ if text.starts_with("<cluster>\n") => ("cluster.xml", text.to_owned()),
            _ if text.starts_with("<safe>\n") => ("userconfig.xml", text.to_owned()),
            Some((_, before, after)) if text.ends_with('>') => ("userconfig.xml", format!("{before}{text}{after}")),
            // The beginning of an element, in a sentence.
            _ if !example.alone => continue,
            _ => {
                faults.push(format!("{}: in which element is it? {text}", example.place));
                continue;
            }
        };
        // Said of an element as such.
        if !example.alone && FRAMES.iter().any(|(begin, ..)| text == *begin) {
            continue;
        }
        seen += 1;
        let file = home.path().join(name);
        fs::write(&file, whole).unwrap();
        let output = Command::new(&program).arg("check").arg(&file).output().unwrap();
        if !output.status.success() {
            let words = [output.stdout, output.stderr].concat();
            faults.push(format!("{}: {}", example.place, String::from_utf8_lossy(&words)));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen >= 9, "only {seen} configurations were found");
}
