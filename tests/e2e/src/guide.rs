//! Are the commands of a guide true? Marked blocks of its Markdown are run on the hosts of a lab, in their order.
//!
//! - a fence ```` ```sh run=node1,node2 ```` is run by a shell on each of these hosts, and must succeed; with the word `wait` it is run
//!   again until it does and shows what is expected;
//! - ```` ```text expect ````: what the block before must print: these lines, in this order, anything between them; `…` is anything
//!   within a line;
//! - ```` ```xml file=/path run=node1 mode=755 ````: a file with this content on these hosts;
//! - ```` ```xml element=/path run=node1 ````: an edited `userconfig.xml`: this element in the place of the one of its name, else as
//!   the last one of `<service>`;
//! - `<!-- lab: poweroff node1 -->`: what a person does with hands: `poweroff`, `boot`, `cut`, `heal` of `scripts/lab`, `copy HOST FILE
//!   HOST [TARGET]` for scp, `template NAME HOST…` for what an installation brings along, `service HOST PROGRAM` for a unit of Debian that
//!   `systemctl` would start: with the variables of `/etc/default/PROGRAM`.
//!
//! Fences without `run` are not run. The addresses of the guides, 10.0.0.x and 10.0.1.x, become those of the lab: 11 to 19 are the
//! nodes, 1 is the client, 9 the witness.

use crate::lab::{Lab, scripts};
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// One step of a guide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A shell script on each host, and what it prints.
    Run { line: usize, hosts: Vec<String>, script: String, wait: bool, expect: Vec<String> },
    /// A file on each host.
    File { line: usize, hosts: Vec<String>, path: String, mode: String, content: String },
    /// An element of a file on each host.
    Element { line: usize, hosts: Vec<String>, path: String, content: String },
    /// Hands, as words.
    Lab { line: usize, words: Vec<String> },
}

/// Longest wait for a block with `wait`.
const PATIENCE: Duration = Duration::from_mins(2);

/// Reads the steps of a guide. An error names the line.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
    while let Some((number, line)) = lines.next() {
        if let Some(words) = line.strip_prefix("<!-- lab: ").and_then(|rest| rest.strip_suffix(" -->")) {
            steps.push(Step::Lab { line: number, words: words.split_whitespace().map(str::to_owned).collect() });
            continue;
        }
        ensure!(!line.contains("<!-- lab"), "line {number}: a step of the lab is a line of its own");
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let mut body = Vec::new();
        loop {
            let (_, line) = lines.next().with_context(|| format!("line {number}: the fence is not closed"))?;
            if line.trim_start().starts_with("```") {
                break;
            }
            body.push(line.to_owned());
        }
        block(number, info, body, &mut steps)?;
    }
    Ok(steps)
}

fn block(line: usize, info: &str, body: Vec<String>, steps: &mut Vec<Step>) -> Result<()> {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or_default();
    let (mut hosts, mut file, mut element, mut mode) = (Vec::new(), None, None, "644".to_owned());
    let (mut wait, mut expects) = (false, false);
    for word in words {
        match word.split_once('=') {
            Some(("run", list)) => hosts = list.split(',').map(str::to_owned).collect(),
            Some(("file", path)) => file = Some(path.to_owned()),
            Some(("element", path)) => element = Some(path.to_owned()),
            Some(("mode", digits)) => digits.clone_into(&mut mode),
            None if word == "wait" => wait = true,
            None if word == "expect" => expects = true,
            _ => bail!("line {line}: {word:?} is no word for a fence: run=, file=, element=, mode=, wait, expect"),
        }
    }
    if expects {
        return match steps.last_mut() {
            Some(Step::Run { expect, .. }) if expect.is_empty() => {
                *expect = body;
                Ok(())
            }
            _ => bail!("line {line}: there is no block before this one whose output it could be"),
        };
    }
    ensure!((file.is_none() && element.is_none()) || !hosts.is_empty(), "line {line}: a file needs run=HOSTS");
    let content = body.join("\n") + "\n";
    match (file, element) {
        _ if hosts.is_empty() => ensure!(!wait, "line {line}: wait needs run=HOSTS"),
        (Some(path), None) => steps.push(Step::File { line, hosts, path, mode, content }),
        (None, Some(path)) => steps.push(Step::Element { line, hosts, path, content }),
        (Some(_), Some(_)) => bail!("line {line}: file= or element="),
        (None, None) => {
            ensure!(language == "sh", "line {line}: only sh is run");
            steps.push(Step::Run { line, hosts, script: content, wait, expect: Vec::new() });
        }
    }
    Ok(())
}

/// Whether the output has these lines, in this order. `Err`: the first that is missing.
pub fn shows(output: &str, expect: &[String]) -> Result<(), String> {
    let mut lines = output.lines();
    for pattern in expect {
        if !lines.any(|line| matches(line, pattern)) {
            return Err(format!("{pattern:?} is not in {output:?}"));
        }
    }
    Ok(())
}

/// The pieces of the pattern between `…` are found in the line, one after the other.
fn matches(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('…').map(str::trim).all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = rest.get(at + piece.len()..).unwrap_or_default();
            true
        }
        None => false,
    })
}

/// Runs the steps of a guide in a lab.
pub fn run(lab: &Lab, name: &str, text: &str) -> Result<()> {
    let steps = parse(text)?;
    let addresses = Addresses::of(lab)?;
    for step in steps {
        let line = match &step {
            Step::Run { line, .. } | Step::File { line, .. } | Step::Element { line, .. } | Step::Lab { line, .. } => {
                *line
            }
        };
        eprintln!("{name}:{line}");
        run_step(lab, &addresses, step).with_context(|| format!("docs/{name}, line {line}"))?;
    }
    Ok(())
}

fn run_step(lab: &Lab, addresses: &Addresses, step: Step) -> Result<()> {
    match step {
        Step::Run { hosts, script, wait, expect, .. } => {
            let script = addresses.replace(&script);
            let expect: Vec<String> = expect.iter().map(|line| addresses.replace(line)).collect();
            for host in hosts {
                let once = || -> Result<(), String> {
                    let output = lab.try_exec(&host, &["sh", "-ec", &script]).map_err(|error| format!("{error:#}"))?;
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    let words = String::from_utf8_lossy(&output.stderr).into_owned();
                    if !output.status.success() {
                        return Err(format!("{}: {said}{words}", output.status));
                    }
                    shows(&said, &expect)
                };
                if wait {
                    wait::until(&format!("{host}: {script}"), PATIENCE, once)?;
                } else {
                    once().map_err(|seen| anyhow::anyhow!("{host}: {script}: {seen}"))?;
                }
            }
        }
        Step::File { hosts, path, mode, content, .. } => {
            for host in hosts {
                write(lab, &host, &path, &mode, addresses.replace(&content).as_bytes())?;
            }
        }
        Step::Element { hosts, path, content, .. } => {
            for host in hosts {
                let edited = edited(&lab.exec(&host, &["cat", &path])?, &addresses.replace(&content));
                write(lab, &host, &path, "644", edited.with_context(|| path.clone())?.as_bytes())?;
            }
        }
        Step::Lab { words, .. } => hands(lab, &words)?,
    }
    Ok(())
}

/// The file with the element in the place of the one of its name, or else as the last one of `<service>`.
fn edited(file: &str, element: &str) -> Result<String> {
    let name = element.trim_start().strip_prefix('<').and_then(|rest| rest.split([' ', '>', '/', '\n']).next());
    let name = name.filter(|name| !name.is_empty()).context("no element")?;
    let (first, last) = (format!("<{name}>"), format!("</{name}>"));
    let lines: Vec<&str> = file.lines().collect();
    let begin = lines.iter().position(|line| line.trim_start().starts_with(&first));
    let (begin, end) = if let Some(begin) = begin {
        let length = lines.iter().skip(begin).position(|line| line.trim_end().ends_with(&last));
        (begin, begin + length.with_context(|| format!("no {last}"))? + 1)
    } else {
        let end = lines.iter().position(|line| line.trim() == "</service>").context("no line </service>")?;
        (end, end)
    };
    let (before, after) = (lines.iter().take(begin), lines.iter().skip(end));
    let lines: Vec<&str> = before.copied().chain(element.lines()).chain(after.copied()).collect();
    Ok(lines.join("\n") + "\n")
}

fn hands(lab: &Lab, words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["copy", from, path, to] => copy(lab, from, path, to, path),
        ["copy", from, path, to, target] => copy(lab, from, path, to, target),
        ["template", name, hosts @ ..] => {
            let template = scripts().join("modules").join(name);
            for host in hosts {
                lab.run(&["push", host, &template.to_string_lossy(), &format!("/opt/sk/templates/{name}")])?;
            }
            Ok(())
        }
        ["service", host, program] => {
            // Among the processes of the host, for as long as it has power.
            let script = "set -a; . \"/etc/default/$1\"; exec setsid \"$1\" >\"/var/log/$1.log\" 2>&1";
            lab.exec(host, &["sh", "-ec", &format!("({script}) &"), "sh", program]).map(drop)
        }
        ["poweroff" | "boot" | "cut" | "heal", ..] => lab.run(&words).map(drop),
        _ => bail!("{words:?} is nothing that hands can do here"),
    }
}

fn copy(lab: &Lab, from: &str, path: &str, to: &str, target: &str) -> Result<()> {
    let content = lab.exec(from, &["cat", path])?;
    let mode = lab.exec(from, &["stat", "-c", "%a", path])?;
    write(lab, to, target, mode.trim(), content.as_bytes())
}

fn write(lab: &Lab, host: &str, path: &str, mode: &str, content: &[u8]) -> Result<()> {
    let script = "mkdir -p \"$(dirname \"$1\")\" && cat >\"$1\" && chmod \"$2\" \"$1\"";
    let mut command = lab.command(&["exec", host, "sh", "-ec", script, "sh", path, mode]);
    let mut child = command.stdin(Stdio::piped()).spawn().context("run scripts/lab")?;
    child.stdin.take().context("no pipe")?.write_all(content)?;
    let status = child.wait()?;
    ensure!(status.success(), "{host}: {path} cannot be written: {status}");
    Ok(())
}

/// From the networks of the guides to those of a lab: prefixes, and what has another last number there.
struct Addresses {
    prefixes: Vec<(&'static str, String)>,
    hosts: Vec<(u32, String)>,
}

impl Addresses {
    fn of(lab: &Lab) -> Result<Self> {
        let split = |address: &str| -> Result<(String, String)> {
            let (prefix, last) = address.rsplit_once('.').context("an address without dots")?;
            Ok((format!("{prefix}."), last.to_owned()))
        };
        let mut prefixes = Vec::new();
        for (network, guides) in [("prod", "10.0.0."), ("repl", "10.0.1.")] {
            prefixes.push((guides, split(&lab.address("node1", network)?)?.0));
        }
        let mut hosts = Vec::new();
        for (number, host) in [(1, "client"), (9, "witness")] {
            hosts.push((number, split(&lab.address(host, "prod")?)?.1));
        }
        for number in 1..=9 {
            let Ok(address) = lab.address(&format!("node{number}"), "prod") else { break };
            hosts.push((10 + number, split(&address)?.1));
        }
        Ok(Self { prefixes, hosts })
    }

    /// In one turn, so that an address of the lab is not taken for one of the guides.
    fn replace(&self, text: &str) -> String {
        let mut said = String::new();
        let mut rest = text;
        let next = |rest: &str| {
            self.prefixes.iter().filter_map(|(from, to)| Some((rest.find(from)?, *from, to))).min_by_key(|p| p.0)
        };
        while let Some((at, from, to)) = next(rest) {
            let (before, after) = rest.split_at(at);
            let after = after.strip_prefix(from).unwrap_or_default();
            let (last, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
            let host = last.parse().ok().and_then(|number: u32| self.hosts.iter().find(|(n, _)| *n == number));
            said.extend([before, to.as_str(), host.map_or(last, |(_, last)| last.as_str())]);
            rest = after;
        }
        said + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_guide_is_read_in_its_order() {
        let text = "# T\n```sh run=node1,node2 wait\nuptime\n```\nprose\n```text expect\n… users\n```\n\
            ```sh\nnot run\n```\n```xml file=/etc/x mode=600 run=node1\n<x/>\n```\n<!-- lab: poweroff node1 -->\n";
        let steps = parse(text).unwrap();
        assert_eq!(
            steps,
            [
                Step::Run {
                    line: 2,
                    hosts: words("node1 node2"),
                    script: "uptime\n".into(),
                    wait: true,
                    expect: vec!["… users".into()]
                },
                Step::File {
                    line: 12,
                    hosts: words("node1"),
                    path: "/etc/x".into(),
                    mode: "600".into(),
                    content: "<x/>\n".into()
                },
                Step::Lab { line: 15, words: words("poweroff node1") },
            ]
        );
    }

    #[test]
    fn mistakes_are_found_with_their_line() {
        for (text, line) in [
            ("```sh run=node1\nuptime\n", "line 1"),
            ("\n```sh ran=node1\n```\n", "line 2"),
            ("```text expect\nx\n```\n", "line 1"),
            ("```xml run=node1\n```\n", "line 1"),
            ("```xml file=/x\n```\n", "line 1"),
            ("```sh wait\n```\n", "line 1"),
            ("text <!-- lab: heal -->\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(line), "{text:?}: {error}");
        }
    }

    #[test]
    fn expected_lines_come_in_order_and_dots_are_anything() {
        let output = "www: PRIM (Ready) | node2 SECOND\nnews\n";
        assert!(shows(output, &["PRIM (Ready) | … SECOND".into(), "news".into()]).is_ok());
        assert!(shows(output, &["news".into(), "PRIM".into()]).is_err());
        assert!(shows(output, &["SECOND … PRIM".into()]).is_err());
    }

    #[test]
    fn addresses_become_those_of_the_lab() {
        let prefixes = vec![("10.0.0.", "10.1.0.".to_owned()), ("10.0.1.", "10.0.0.".to_owned())];
        let addresses = Addresses { prefixes, hosts: vec![(1, "100".into()), (11, "101".into())] };
        assert_eq!(
            addresses.replace("10.0.0.11 10.0.0.50 10.0.1.7 10.0.0.1: 10.0.0.0/24 10.0.0.111 10.0.0.…"),
            "10.1.0.101 10.1.0.50 10.0.0.7 10.1.0.100: 10.1.0.0/24 10.1.0.111 10.1.0.…"
        );
    }

    #[test]
    fn an_element_is_replaced_or_added_to_the_service() {
        let file = "<safe>\n  <service mode=\"mirror\">\n    <user/>\n  </service>\n</safe>\n";
        let once = edited(file, "<check>\n  <one/>\n</check>\n").unwrap();
        assert_eq!(once, file.replace("  </service>", "<check>\n  <one/>\n</check>\n  </service>"));
        let twice = edited(&once, "<check><two/></check>").unwrap();
        assert_eq!(twice, file.replace("  </service>", "<check><two/></check>\n  </service>"));
        let third = edited(&twice, "<check><three/></check>\n").unwrap();
        assert_eq!(third, file.replace("  </service>", "<check><three/></check>\n  </service>"));
        for (file, element) in [("<safe>\n", "<check/>"), (file, "check"), ("<check>\n</service>\n", "<check/>")] {
            assert!(edited(file, element).is_err(), "{file:?} {element:?}");
        }
    }

    /// Every guide can be read, and those that have something to run are run by a test.
    #[test]
    fn all_guides_are_well_formed_and_run() {
        let docs = scripts().join("../docs");
        let mut with_steps = Vec::new();
        for entry in std::fs::read_dir(docs).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "md") {
                let steps = parse(&std::fs::read_to_string(&path).unwrap());
                let steps = steps.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                if !steps.is_empty() {
                    with_steps.push(path.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        with_steps.sort();
        let test = std::fs::read_to_string(scripts().join("../tests/e2e/tests/guides.rs")).unwrap();
        for name in &with_steps {
            assert!(test.contains(&format!("\"{name}\"")), "{name} has commands that no test runs");
        }
        assert!(with_steps.len() >= 3, "{with_steps:?}");
    }
}
