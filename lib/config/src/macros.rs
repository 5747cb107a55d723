//! What does `%X%` stand for in an attribute?

use crate::diagnostic::{Diagnostics, Span, quoted};
use crate::fields::placeholder;
use crate::tree::Node;
use std::collections::BTreeMap;

/// Longest value after expansion, in bytes: macros of macros grow without end otherwise.
const LONGEST: usize = 16 * 1024;

/// Gives the value of a variable of the environment.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

pub(crate) struct Macros<'a> {
    /// `None`: something is wrong with it and reported; its uses are not judged.
    defined: BTreeMap<String, Option<String>>,
    environment: &'a Environment<'a>,
}

impl<'a> Macros<'a> {
    pub fn new(environment: &'a Environment<'a>) -> Self {
        Self { defined: BTreeMap::new(), environment }
    }

    /// Expands everything in the order of the file: a macro counts from its definition on.
    pub fn expand(&mut self, node: &mut Node, found: &mut Diagnostics) {
        for attribute in &mut node.attributes {
            // The name of a macro is not a value.
            if node.name == "macro" && attribute.name == "name" {
                continue;
            }
            match self.text(&attribute.value, attribute.span, found) {
                Some(value) => attribute.value = value,
                None => attribute.broken = true,
            }
        }
        if node.name == "macro" {
            self.define(node, found);
        }
        for words in &mut node.words {
            if let Some(text) = self.text(&words.text, words.span, found)
                && text != words.text
            {
                (words.text, words.moved) = (text, true);
            }
        }
        for child in &mut node.children {
            self.expand(child, found);
        }
    }

    fn define(&mut self, node: &Node, found: &mut Diagnostics) {
        let get = |name: &str| node.attributes.iter().find(|a| a.name == name);
        let (Some(name), Some(value)) = (get("name"), get("value")) else {
            let help = "write <macro name=\"X\" value=\"V\"/>";
            found.error(node.span, "a macro needs 'name' and 'value'", help);
            return;
        };
        for other in &node.attributes {
            if other.name != "name" && other.name != "value" {
                let message = format!("unknown attribute '{}' in <macro>", other.name);
                found.error(other.name_span, message, "a macro has 'name' and 'value'");
            }
        }
        for child in &node.children {
            found.error(child.span, "<macro> holds no other element", "");
        }
        if !is_name(&name.value) {
            let message = format!("{} is not the name of a macro", quoted(&name.value));
            found.error(name.span, message, "use letters, digits and '_', not beginning with a digit");
            return;
        }
        let content = if value.broken {
            None
        } else if placeholder(value.value.trim()) {
            let message = format!("macro '{}' still holds the placeholder {}", name.value, quoted(&value.value));
            found.error(value.span, message, "replace it by the value meant");
            None
        } else {
            Some(value.value.clone())
        };
        if self.defined.insert(name.value.clone(), content).is_some() {
            let message = format!("macro {} is defined twice", quoted(&name.value));
            found.error(name.span, message, "keep one definition");
        }
    }

    fn text(&self, text: &str, span: Span, found: &mut Diagnostics) -> Option<String> {
        let mut broken = false;
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            match after.split_once('%') {
                Some((name, tail)) if is_name(name) => {
                    let value = match self.defined.get(name) {
                        Some(value) => value.clone(),
                        None => (self.environment)(name),
                    };
                    broken |= value.is_none();
                    if let Some(value) = value {
                        out.push_str(&value);
                    } else if !self.defined.contains_key(name) {
                        let message = format!("macro {} is not defined", quoted(name));
                        let help = format!(
                            "add <macro name=\"{name}\" value=\"…\"/> before this place, or set the environment variable {name}"
                        );
                        found.error(span, message, help);
                    }
                    rest = tail;
                }
                _ => {
                    out.push('%');
                    rest = after;
                }
            }
            if out.len() > LONGEST {
                let message = format!("the value is longer than {LONGEST} bytes after its macros are expanded");
                found.error(span, message, "");
                return None;
            }
        }
        out.push_str(rest);
        (!broken).then_some(out)
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 128
        && name.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()))
        && !name.is_empty()
}
