//! What differs between two configurations of a module, and what of it may change while the module runs?

use crate::Module;
use crate::diagnostic::{Diagnostics, Source};
use crate::tree::{self, Node};
use std::collections::BTreeMap;
use std::fmt;

/// One attribute, or one piece of text, that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Elements from `service` on, each with its name where it has one: `errd/proc postgres`.
    pub element: String,
    /// Empty: the element itself, or its text.
    pub attribute: String,
    /// None: not there.
    pub old: Option<String>,
    pub new: Option<String>,
    /// May change while the module runs.
    pub dynamic: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.attribute.is_empty() {
            self.element.clone()
        } else {
            format!("{} {}", self.element, self.attribute)
        };
        match (&self.old, &self.new) {
            (Some(_), None) if self.attribute.is_empty() => write!(f, "{place} is removed"),
            (None, Some(_)) if self.attribute.is_empty() => write!(f, "{place} is added"),
            (Some(_), Some(_)) if self.attribute.is_empty() => write!(f, "{place} is changed"),
            (old, new) => {
                let word = |value: &Option<String>| value.as_ref().map_or("nothing".to_owned(), |v| format!("\"{v}\""));
                write!(f, "{place}: {} becomes {}", word(old), word(new))
            }
        }
    }
}

/// Elements below `<service>` whose whole content is dynamic.
const DYNAMIC: [&str; 4] = ["heart", "user", "errd", "check"];
const DYNAMIC_SERVICE: [&str; 5] = ["boot", "boot_delay", "maxloop", "loop_interval", "automatic_reboot"];
const DYNAMIC_RFS: [&str; 5] = ["async", "nbrei", "reitimeout", "reidetail", "cpulatency"];

/// All differences, with macros expanded and defaults filled in. Order of elements of one kind is a difference, too.
pub fn changes(old: &Module, new: &Module) -> Vec<Change> {
    let store = [old, new]
        .iter()
        .any(|m| m.checks.splitbrain.as_ref().is_some_and(|s| matches!(s.exec, crate::ArbiterKind::Etcd(_))));
    let (old, new) = (flat(old), flat(new));
    let mut found = Vec::new();
    let mut keys: Vec<&Key> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (before, after) = (old.get(key), new.get(key));
        if before == after {
            continue;
        }
        // The attributes of an element that comes or goes say nothing more.
        let itself = Key { attribute: String::new(), ..key.clone() };
        if !key.attribute.is_empty() && old.contains_key(&itself) != new.contains_key(&itself) {
            continue;
        }
        found.push(Change {
            element: key.element.clone(),
            attribute: key.attribute.clone(),
            old: before.cloned(),
            new: after.cloned(),
            dynamic: is_dynamic(&key.element, &key.attribute, store),
        });
    }
    found
}

/// `store`: one of both configurations has a store as its arbiter.
fn is_dynamic(element: &str, attribute: &str, store: bool) -> bool {
    let below = element.split('/').nth(1).unwrap_or_default();
    let kind = below.split(' ').next().unwrap_or_default();
    match kind {
        "" => DYNAMIC_SERVICE.contains(&attribute),
        "rfs" => {
            (element.matches('/').count() == 1 && DYNAMIC_RFS.contains(&attribute))
                || element.split('/').nth(2).is_some_and(|e| e.split(' ').next() == Some("flow"))
        }
        // Leases are promises between both nodes, which a running one cannot take back.
        "check" if element.contains("/splitbrain") => !store,
        kind => DYNAMIC.contains(&kind),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    element: String,
    attribute: String,
}

/// Every attribute by its place.
fn flat(module: &Module) -> BTreeMap<Key, String> {
    let text = module.expanded_xml();
    let mut nothing = Diagnostics::new(Source::new("safeconf.xml", &text));
    let mut all = BTreeMap::new();
    for safe in tree::parse(&text, &mut nothing).unwrap_or_default() {
        for service in &safe.children {
            collect(service, "service", &mut all);
        }
    }
    all
}

fn collect(node: &Node, place: &str, all: &mut BTreeMap<Key, String>) {
    let text: String = node.words.iter().map(|w| w.text.trim()).collect::<Vec<_>>().join("\n");
    all.insert(Key { element: place.to_owned(), attribute: String::new() }, text);
    for attribute in &node.attributes {
        let key = Key { element: place.to_owned(), attribute: attribute.name.clone() };
        all.insert(key, attribute.value.clone());
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for child in &node.children {
        let named = ["ident", "name", "dir", "addr", "path", "regexpath"]
            .iter()
            .find_map(|wanted| child.attributes.iter().find(|a| a.name == *wanted).map(|a| a.value.clone()));
        let mut label = named.map_or_else(|| child.name.clone(), |name| format!("{} {name}", child.name));
        let count = seen.entry(label.clone()).or_default();
        *count += 1;
        if *count > 1 {
            label = format!("{label} #{count}");
        }
        collect(child, &format!("{place}/{label}"), all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_module;

    fn module(service: &str, inner: &str) -> Module {
        let text = format!(
            "<safe><service mode=\"mirror\" {service}><heart><heartbeat name=\"default\"/></heart>{inner}</service></safe>"
        );
        let (module, found) = parse_module("userconfig.xml", &text, &|_| None);
        module.unwrap_or_else(|| panic!("{}", found.plain()))
    }

    fn words(old: &Module, new: &Module) -> Vec<String> {
        changes(old, new).iter().map(|c| format!("{}{c}", if c.dynamic { "" } else { "! " })).collect()
    }

    const PLAIN: &str = "<user/><rfs><replicated dir=\"/a\"/></rfs>";

    #[test]
    fn the_same_configuration_differs_in_nothing() {
        let old = module("maxloop=\"3\"", PLAIN);
        assert!(words(&old, &module("", PLAIN)).is_empty(), "a default written out is no difference");
    }

    #[test]
    fn dynamic_and_fixed_attributes_are_told_apart() {
        let old = module("", PLAIN);
        let table = [
            ("maxloop=\"5\"", PLAIN, "service maxloop: \"3\" becomes \"5\""),
            ("boot=\"on\"", PLAIN, "service boot: \"ignore\" becomes \"on\""),
            ("failover=\"off\"", PLAIN, "! service failover: \"on\" becomes \"off\""),
            ("defaultprim=\"lastprim\"", PLAIN, "! service defaultprim: \"alone\" becomes \"lastprim\""),
            (
                "",
                "<user/><rfs async=\"none\"><replicated dir=\"/a\"/></rfs>",
                "service/rfs async: \"second\" becomes \"none\"",
            ),
            (
                "",
                "<user/><rfs reidetail=\"on\"><replicated dir=\"/a\"/></rfs>",
                "service/rfs reidetail: nothing becomes \"on\"",
            ),
            (
                "",
                "<user/><rfs syncdelta=\"5m\"><replicated dir=\"/a\"/></rfs>",
                "! service/rfs syncdelta: nothing becomes \"5m\"",
            ),
            (
                "",
                "<user/><rfs syncat=\"1 0 * * *\"><replicated dir=\"/a\"/></rfs>",
                "! service/rfs syncat: nothing becomes \"1 0 * * *\"",
            ),
            (
                "",
                "<user/><rfs scripts=\"on\"><replicated dir=\"/a\"/></rfs>",
                "! service/rfs scripts: nothing becomes \"on\"",
            ),
            (
                "",
                "<user/><rfs cpulatency=\"off\"><replicated dir=\"/a\"/></rfs>",
                "service/rfs cpulatency: nothing becomes \"off\"",
            ),
            ("", "<user/><rfs><replicated dir=\"/b\"/></rfs>", "! service/rfs/replicated /a is removed"),
            (
                "",
                "<user/><rfs><replicated dir=\"/a\" mode=\"read_only\"/></rfs>",
                "! service/rfs/replicated /a mode: nothing becomes \"read_only\"",
            ),
            (
                "",
                "<user nicestoptimeout=\"10s\"/><rfs><replicated dir=\"/a\"/></rfs>",
                "service/user nicestoptimeout: \"300s\" becomes \"10s\"",
            ),
            (
                "",
                "<user><var name=\"X\" value=\"1\"/></user><rfs><replicated dir=\"/a\"/></rfs>",
                "service/user/var X is added",
            ),
            ("", "<user/>", "! service/rfs is removed"),
            (
                "",
                "<user/><rfs><replicated dir=\"/a\"/></rfs><check><splitbrain ident=\"w\" exec=\"ping\" arg=\"10.0.0.9\"/></check>",
                "service/check/splitbrain w is added",
            ),
            (
                "",
                "<user/><rfs><replicated dir=\"/a\"/></rfs><check><splitbrain ident=\"w\" exec=\"etcd\" arg=\"http://10.0.0.9:2379\"/></check>",
                "! service/check/splitbrain w is added",
            ),
        ];
        for (service, inner, expected) in table {
            let found = words(&old, &module(service, inner));
            assert!(found.iter().any(|w| w == expected), "{expected}\nin {found:#?}");
        }
    }

    #[test]
    fn processes_are_told_by_their_names() {
        let errd = |action: &str, more: &str| {
            module("", &format!("<user/><errd><proc name=\"x\" class=\"prim\" action=\"{action}\"/>{more}</errd>"))
        };
        assert_eq!(
            words(&errd("restart", ""), &errd("stop", "<proc name=\"y\" class=\"mine\"/>")),
            ["service/errd/proc x action: \"restart\" becomes \"stop\"", "service/errd/proc y is added"]
        );
    }
}
