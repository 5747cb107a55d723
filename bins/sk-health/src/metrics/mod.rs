//! What can a monitoring system read of this node? The text format of Prometheus, version 0.0.4.

mod families;
mod module;

pub use families::{FAMILIES, Family, Kind, page};

use crate::readiness::Module;
use serde_json::Value;
use std::collections::BTreeMap;
use sys::roots::Roots;

/// `Content-Type` of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Lines for one family: a module that reports without end must not fill the memory of whoever reads.
const LINES_MAX: usize = 20_000;

/// Samples by family, in the order of [`FAMILIES`].
#[derive(Debug, Default)]
pub struct Exposition {
    lines: BTreeMap<usize, Vec<String>>,
}

impl Exposition {
    /// Adds a sample. A family that is not in [`FAMILIES`] is not exposed: a test of the documentation would not find it.
    pub fn add(&mut self, family: &str, labels: &[(&str, &str)], value: f64) {
        let Some(number) = FAMILIES.iter().position(|f| f.name == family) else {
            debug_assert!(false, "{family} is no family");
            return;
        };
        let lines = self.lines.entry(number).or_default();
        if !value.is_finite() || lines.len() >= LINES_MAX {
            return;
        }
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        lines.push(format!("{family}{braces} {value}\n"));
    }

    /// One of several words holds: 1 for it, 0 for the others.
    pub fn one_of(&mut self, family: &str, module: &str, label: &str, all: &[&str], holds: &str) {
        for word in all {
            self.add(family, &[("module", module), (label, word)], f64::from(u8::from(*word == holds)));
        }
    }

    /// The text that is served.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (number, lines) in &self.lines {
            let Some(family) = FAMILIES.get(*number) else { continue };
            out.push_str(&format!("# HELP {} {}\n", family.name, escaped(family.help)));
            out.push_str(&format!("# TYPE {} {}\n", family.name, family.kind.word()));
            out.extend(lines.iter().map(String::as_str));
        }
        out
    }
}

/// A label's value: backslash, quote and line feed are escaped, other control characters mean nothing to anybody.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// Everything about this node now.
pub fn text(roots: &Roots) -> String {
    let mut out = Exposition::default();
    out.add("sk_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let now_ms = sys::clock::monotonic_ms();
    for name in sys::modules::known(roots) {
        let state = Module::look_raw(roots, &name);
        module::collect(&mut out, &name, state.as_ref().unwrap_or(&Value::Null), now_ms);
    }
    out.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::tests::{fake, roots};

    #[test]
    fn values_of_labels_cannot_break_out() {
        let mut out = Exposition::default();
        out.add("sk_resource_up", &[("module", "m"), ("resource", "a\"} 1\nevil{x=\"\\\t")], 1.0);
        let text = out.text();
        let sample = text.lines().last().unwrap();
        assert_eq!(sample, r#"sk_resource_up{module="m",resource="a\"} 1\nevil{x=\"\\?"} 1"#);
        assert_eq!(text.lines().count(), 3);
        out.add("sk_resource_up", &[], f64::NAN);
        assert_eq!(out.text().lines().count(), 3, "what is no number is not said");
    }

    #[test]
    fn a_node_with_a_running_and_a_stopped_module() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(&dir);
        let _web = fake(&roots, "web", "UP", "Ready");
        let _life = fake(&roots, "broken", "UP", "Ready");
        std::fs::write(roots.module_run("broken").join("state.json"), "{\"module\":").unwrap();
        let text = text(&roots);
        for line in [
            "sk_build_info{version=\"0.1.0\"} 1",
            "sk_module_running{module=\"web\"} 1",
            "sk_module_serving{module=\"web\"} 1",
            "sk_module_state{module=\"web\",state=\"UP\"} 1",
            "sk_module_state{module=\"web\",state=\"STOP\"} 0",
            "sk_module_running{module=\"broken\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }
}
