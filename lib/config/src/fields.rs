//! Which attributes and children may an element have, and what do the attributes say?

use crate::diagnostic::{At, Diagnostics, Span, quoted};
use crate::duration::{self, Unit};
use crate::tree::{Attribute, Node};
use std::time::Duration;

/// Values that templates leave to be filled in.
const PLACEHOLDERS: [&str; 8] = [
    "PROCESS_NAME",
    "SERVICE_NAME",
    "DIRECTORY_NAME",
    "INTERFACE_NAME",
    "VIRTUAL_IP",
    "VIRTUAL_IP_ADDRESS",
    "CHANGE_ME",
    "CHANGEME",
];

/// The attributes of one element, asked for one by one. What nobody asked for is unknown.
pub(crate) struct Fields<'a> {
    pub node: &'a Node,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub fn new(node: &'a Node) -> Self {
        Self { node, asked: Vec::new() }
    }

    /// The attribute as it stands, empty or not.
    pub fn raw(&mut self, name: &'static str) -> Option<&'a Attribute> {
        self.asked.push(name);
        self.node.attributes.iter().find(|a| a.name == name)
    }

    /// Trimmed; an empty value or one left from a template is an error.
    pub fn text(&mut self, name: &'static str, found: &mut Diagnostics) -> Option<(&'a str, Span)> {
        let attribute = self.raw(name).filter(|a| !a.broken)?;
        let value = attribute.value.trim();
        if value.is_empty() {
            // The quotes are shown too: nothing stands between them.
            let span = Span { start: attribute.span.start.saturating_sub(1), end: attribute.span.end + 1 };
            let message = format!("attribute '{name}' of <{}> is empty", self.node.name);
            found.error(span, message, "fill it in, or remove it");
            return None;
        }
        if placeholder(value) {
            let message =
                format!("attribute '{name}' of <{}> still holds the placeholder {}", self.node.name, quoted(value));
            found.error(attribute.span, message, "replace it by the value meant");
            return None;
        }
        Some((value, attribute.span))
    }

    /// Reports an attribute that is not there; its value is asked for by another method.
    pub fn demand(&self, name: &str, found: &mut Diagnostics) {
        if !self.node.attributes.iter().any(|a| a.name == name) {
            let message = format!("<{}> has no attribute '{name}'", self.node.name);
            found.error(self.node.span, message, format!("add {name}=\"…\""));
        }
    }

    pub fn mandatory(&mut self, name: &'static str, found: &mut Diagnostics) -> Option<(&'a str, Span)> {
        self.demand(name, found);
        self.text(name, found)
    }

    pub fn string(&mut self, name: &'static str, found: &mut Diagnostics) -> Option<String> {
        self.text(name, found).map(|(t, _)| t.to_owned())
    }

    pub fn place(&self, name: &str) -> At {
        At(self.node.attributes.iter().find(|a| a.name == name).map_or(self.node.span, |a| a.span))
    }

    pub fn duration(&mut self, name: &'static str, unit: Unit, found: &mut Diagnostics) -> Option<Duration> {
        let (text, span) = self.text(name, found)?;
        let value = duration::parse(text, unit);
        if value.is_none() {
            let message = format!(
                "invalid value {} for the attribute {name} (expected time unit: '{}')",
                quoted(text),
                unit.suffix()
            );
            let help =
                format!("write a whole number of '{}', bare or with one of the suffixes d h m s ms us", unit.suffix());
            found.error(span, message, help);
        }
        value
    }

    /// As `duration`, and 0 is an error.
    pub fn period(&mut self, name: &'static str, unit: Unit, found: &mut Diagnostics) -> Option<Duration> {
        let value = self.duration(name, unit, found)?;
        if value.is_zero() {
            let message = format!("attribute '{name}' of <{}> must not be 0", self.node.name);
            found.error(self.place(name).0, message, "");
            return None;
        }
        Some(value)
    }

    pub fn choice<T: Copy>(&mut self, name: &'static str, values: &[(&str, T)], found: &mut Diagnostics) -> Option<T> {
        let (text, span) = self.text(name, found)?;
        if let Some((_, value)) = values.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = values.iter().map(|(word, _)| *word).collect();
        let message = format!("invalid value {} for the attribute {name}", quoted(text));
        found.error(span, message, format!("write one of: {}", words.join(", ")));
        None
    }

    pub fn on_off(&mut self, name: &'static str, found: &mut Diagnostics) -> Option<bool> {
        self.choice(name, &[("on", true), ("off", false)], found)
    }

    pub fn integer(&mut self, name: &'static str, least: i64, most: i64, found: &mut Diagnostics) -> Option<i64> {
        let (text, span) = self.text(name, found)?;
        match text.parse::<i64>() {
            Ok(n) if (least..=most).contains(&n) => Some(n),
            _ => {
                let message = format!("invalid value {} for the attribute {name}", quoted(text));
                found.error(span, message, format!("write a whole number from {least} to {most}"));
                None
            }
        }
    }

    pub fn port(&mut self, name: &'static str, found: &mut Diagnostics) -> Option<u16> {
        self.integer(name, 1, 65535, found).and_then(|n| u16::try_from(n).ok())
    }

    /// Accepted and without effect; the reader is told why.
    pub fn without_effect(&mut self, name: &'static str, why: &str, found: &mut Diagnostics) {
        if let Some(attribute) = self.raw(name) {
            let message = format!("attribute '{name}' of <{}> has no effect here", self.node.name);
            found.warning(attribute.name_span, message, format!("{why}; it can be removed"));
        }
    }

    /// Reports what was not asked for.
    pub fn finish(self, found: &mut Diagnostics) {
        for attribute in &self.node.attributes {
            if !self.asked.contains(&attribute.name.as_str()) {
                let message = format!("unknown attribute '{}' in <{}>", attribute.name, self.node.name);
                let help = match suggestion(&attribute.name, &self.asked) {
                    Some(name) => format!("did you mean '{name}'?"),
                    None if self.asked.is_empty() => format!("<{}> has no attributes", self.node.name),
                    None => format!("known attributes: {}", self.asked.join(", ")),
                };
                found.error(attribute.name_span, message, help);
            }
        }
    }
}

/// An element where none of this name may stand.
pub(crate) fn unknown_child(parent: &Node, child: &Node, known: &[&str], found: &mut Diagnostics) {
    let message = format!("unknown element <{}> in <{}>", child.name, parent.name);
    let help = match suggestion(&child.name, known) {
        Some(name) => format!("did you mean <{name}>?"),
        None if known.is_empty() => format!("<{}> holds no elements", parent.name),
        None => format!("known elements: {}", known.join(", ")),
    };
    found.error(child.span, message, help);
}

pub(crate) fn no_children(node: &Node, found: &mut Diagnostics) {
    for child in &node.children {
        unknown_child(node, child, &[], found);
    }
}

/// The one child of this name, when there is one; a second is an error.
pub(crate) fn only<'a>(node: &'a Node, name: &str, found: &mut Diagnostics) -> Option<&'a Node> {
    let mut all = node.children.iter().filter(|c| c.name == name);
    let first = all.next();
    for again in all {
        let message = format!("<{name}> stands twice in <{}>", node.name);
        found.error(again.span, message, "put the contents of both into one");
    }
    first
}

/// Whether a value is one that a template leaves to be filled in.
pub fn placeholder(value: &str) -> bool {
    PLACEHOLDERS.contains(&value)
        || value.ends_with("TO_BE_DEFINED")
        || value.ends_with("TO_BE_CONFIGURED")
        || value.ends_with("TO_BE_FILLED")
}

/// The known word nearest to a wrong one, when it is near enough to be a slip.
pub(crate) fn suggestion<'k>(wrong: &str, known: &[&'k str]) -> Option<&'k str> {
    if wrong.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|k| (distance(&wrong.to_ascii_lowercase(), &k.to_ascii_lowercase()), *k))
        .filter(|(d, k)| *d <= 2 && *d < k.len())
        .min()
        .map(|(_, k)| k)
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((cb, above_left), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            next.push((left + 1).min(above + 1).min(above_left + usize::from(ca != *cb)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
