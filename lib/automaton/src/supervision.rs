//! What a module watches: its failover rules, its checkers and when they run, and what its peer's rules must be told.

use rules::RuleSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The part of a module's configuration that the failover rules need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Supervision {
    pub rules: RuleSet,
    /// Resource (`tcp.web`) of each checker to the class that starts and stops it (`pre`, `prim`, `second`, `both`).
    pub checkers: BTreeMap<String, String>,
    /// Resources of this node that the rules of the peer test (`remote.`): the same list on both nodes.
    pub published: Vec<String>,
}

impl Supervision {
    /// A short name of the list: values are only taken from a peer that has the same one.
    fn fingerprint(&self) -> u32 {
        // FNV-1a: not against malice, the heartbeats are authenticated.
        let bytes = self.published.iter().flat_map(|name| name.bytes().chain([0]));
        bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// The values of the published resources, one letter each, in the order of the list. `None`: nobody asks for any.
    pub(crate) fn encode(&self, value: impl Fn(&str) -> rules::Value) -> Option<String> {
        if self.published.is_empty() {
            return None;
        }
        let letter = |name: &String| match value(name) {
            rules::Value::Init => 'i',
            rules::Value::Down => 'd',
            rules::Value::Up => 'u',
            rules::Value::Unknown | rules::Value::Other => 'o',
        };
        Some(format!("{:08x}:{}", self.fingerprint(), self.published.iter().map(letter).collect::<String>()))
    }

    /// What a peer's letters say; nothing when its list is another one.
    pub(crate) fn decode(&self, text: &str) -> Vec<(&str, rules::Value)> {
        let Some((fingerprint, letters)) = text.split_once(':') else { return Vec::new() };
        if fingerprint != format!("{:08x}", self.fingerprint()) {
            return Vec::new();
        }
        let value = |letter| match letter {
            'i' => rules::Value::Init,
            'd' => rules::Value::Down,
            'u' => rules::Value::Up,
            _ => rules::Value::Other,
        };
        self.published.iter().zip(letters.chars()).map(|(name, letter)| (name.as_str(), value(letter))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::Value;

    #[test]
    fn values_reach_a_peer_with_the_same_list_and_no_other() {
        let list = |names: &[&str]| Supervision {
            published: names.iter().map(|n| (*n).to_owned()).collect(),
            ..Supervision::default()
        };
        let one = list(&["tcp.a", "tcp.b"]);
        let text = one.encode(|name| if name == "tcp.a" { Value::Down } else { Value::Up }).unwrap();
        assert_eq!(one.decode(&text), [("tcp.a", Value::Down), ("tcp.b", Value::Up)]);
        assert!(list(&["tcp.a", "tcp.c"]).decode(&text).is_empty());
        assert!(list(&["tcp.at", "cp.b"]).decode(&text).is_empty());
        for garbage in ["", ":", "zz", "12345678", &text[..9]] {
            assert!(one.decode(garbage).is_empty(), "{garbage}");
        }
        assert_eq!(list(&[]).encode(|_| Value::Up), None);
    }
}
