//! Which processes shall be watched, and how are they recognised?

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use std::path::Path;
use sys::failure::Failure;
use sys::table::Process;

const SPEC_LIMIT: u64 = 4 * 1024 * 1024;
/// The kernel keeps this much of a process's name.
const COMM_LENGTH: usize = 15;
/// Compiled size of one expression.
const REGEX_LIMIT: usize = 1024 * 1024;

#[derive(Debug, Deserialize)]
pub(crate) struct Spec {
    pub module: String,
    #[serde(default)]
    pub node: String,
    pub poll_ms: u64,
    /// Enabled from the start and for ever.
    #[serde(default)]
    pub classes: Vec<String>,
    pub processes: Vec<ProcessSpec>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ProcessSpec {
    /// Name of the resource; name of the process unless `name_regex` is given.
    pub name: String,
    /// `name` is a unit of systemd.
    #[serde(default)]
    pub service: bool,
    /// Passed on with a fault: what the scripts may restart alone.
    #[serde(default)]
    pub restart_services: Vec<String>,
    #[serde(default)]
    pub name_regex: Option<String>,
    #[serde(default)]
    pub arg_regex: Option<String>,
    /// Fewer than this is a fault; negative: never.
    #[serde(default = "one")]
    pub atleast: i64,
    /// More than this is a fault; negative: never.
    #[serde(default = "minus_one")]
    pub atmax: i64,
    pub action: String,
    pub class: String,
    /// The first effective check comes this many polls after the enabling; 0 counts as 1.
    #[serde(default)]
    pub start_after: u64,
}

fn one() -> i64 {
    1
}

fn minus_one() -> i64 {
    -1
}

impl Spec {
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let spec: Self = sys::failure::specification(path, SPEC_LIMIT)?;
        if spec.poll_ms == 0 {
            return Err(Failure::specification(format!("{}: `poll_ms` must be at least 1", path.display())));
        }
        Ok(spec)
    }
}

/// Recognises a process.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    comm: Option<String>,
    comm_regex: Option<Regex>,
    line_regex: Option<Regex>,
}

impl Matcher {
    /// `name_regex` replaces `name`. Absent conditions hold for every process.
    pub fn new(name: Option<&str>, name_regex: Option<&str>, arg_regex: Option<&str>) -> Result<Self, String> {
        let comm = match (name, name_regex) {
            // The kernel cuts between bytes; what remains of a cut letter is read back as U+FFFD, so cut likewise.
            (Some(name), None) => Some(
                String::from_utf8_lossy(name.as_bytes().get(..COMM_LENGTH).unwrap_or(name.as_bytes())).into_owned(),
            ),
            _ => None,
        };
        Ok(Self {
            comm,
            comm_regex: name_regex.map(expression).transpose()?,
            line_regex: arg_regex.map(expression).transpose()?,
        })
    }

    /// Whether a process of this name may fit.
    pub fn fits_name(&self, comm: &str) -> bool {
        self.comm.as_ref().is_none_or(|c| c == comm) && self.comm_regex.as_ref().is_none_or(|r| r.is_match(comm))
    }

    pub fn fits(&self, process: &Process) -> bool {
        self.fits_name(&process.comm) && self.line_regex.as_ref().is_none_or(|r| r.is_match(&process.command_line))
    }
}

fn expression(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(REGEX_LIMIT)
        .build()
        .map_err(|e| format!("the regular expression `{text}` is wrong: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(comm: &str, command_line: &str) -> Process {
        Process { pid: 1, parent: 0, comm: comm.to_owned(), command_line: command_line.to_owned(), start: 0 }
    }

    #[test]
    fn names_are_compared_as_the_kernel_keeps_them() {
        let fits = |name, comm| Matcher::new(Some(name), None, None).unwrap().fits(&process(comm, ""));
        assert!(fits("postgres", "postgres"));
        assert!(!fits("postgres", "postgresql"));
        assert!(fits("a-name-of-twenty-by", "a-name-of-twent"));
        assert!(fits("name-of-15-byté", "name-of-15-byt\u{fffd}"), "cut inside a letter");
    }

    #[test]
    fn expressions_replace_the_name_and_look_at_the_whole_line() {
        let m = Matcher::new(Some("oracle"), Some("^ora_.*"), None).unwrap();
        assert!(m.fits(&process("ora_pmon_X", "")) && !m.fits(&process("oracle", "")));
        let m = Matcher::new(Some("java"), None, Some("-jar [[:alpha:]]+\\.jar$")).unwrap();
        assert!(m.fits(&process("java", "/usr/bin/java -jar shop.jar")));
        assert!(!m.fits(&process("java", "/usr/bin/java -jar shop1.jar")));
        assert!(!m.fits(&process("sh", "-jar shop.jar")));
        assert!(Matcher::new(None, Some("("), None).unwrap_err().contains("`(`"));
    }
}
