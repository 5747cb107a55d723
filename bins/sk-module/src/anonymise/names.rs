//! What tells where a text comes from: addresses, names of nodes, mail addresses. Each becomes a word that stands for it everywhere. Pure.

use regex::{Captures, Regex};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Replaces names, the same one always by the same word.
pub(super) struct Anonymiser {
    mail: Regex,
    mac: Regex,
    v6: Regex,
    v4: Regex,
    node: Regex,
    /// Names of nodes, and what stands for them; longest first.
    names: Vec<(Regex, String)>,
    /// Kind and original, to the word.
    words: BTreeMap<(&'static str, String), String>,
}

impl Anonymiser {
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            mail: Regex::new(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")?,
            mac: Regex::new(r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b")?,
            v6: Regex::new(r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4})")?,
            v4: Regex::new(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")?,
            node: Regex::new(r#"(?s)<node\b[^>]*?\bname\s*=\s*["']([^"']+)["']"#)?,
            names: Vec::new(),
            words: BTreeMap::new(),
        })
    }

    /// Notes the nodes of a cluster's configuration.
    pub fn learn(&mut self, text: &str) -> Result<(), regex::Error> {
        let found: Vec<String> =
            self.node.captures_iter(text).filter_map(|c| Some(c.get(1)?.as_str().to_owned())).collect();
        found.iter().try_for_each(|name| self.learn_name(name))
    }

    /// Notes the name of a host.
    pub fn learn_name(&mut self, name: &str) -> Result<(), regex::Error> {
        if name.is_empty() || self.words.contains_key(&("node", name.to_owned())) {
            return Ok(());
        }
        let word = self.word("node", name);
        // A low line separates names, too.
        let pattern = format!(r"(?P<a>^|[^0-9A-Za-z]){}(?P<b>[^0-9A-Za-z]|$)", regex::escape(name));
        self.names.push((Regex::new(&pattern)?, word));
        self.names.sort_by_key(|(regex, _)| std::cmp::Reverse(regex.as_str().len()));
        Ok(())
    }

    fn word(&mut self, kind: &'static str, original: &str) -> String {
        let next = self.words.keys().filter(|(k, _)| *k == kind).count() + 1;
        self.words.entry((kind, original.to_owned())).or_insert_with(|| format!("{kind}-{next}")).clone()
    }

    pub fn apply(&mut self, text: &str) -> String {
        let (mail, mac, v6, v4) = (self.mail.clone(), self.mac.clone(), self.v6.clone(), self.v4.clone());
        let text = mail.replace_all(text, |c: &Captures| self.word("mail", &c[0])).into_owned();
        let text = mac.replace_all(&text, |c: &Captures| self.word("mac", &c[0].to_ascii_lowercase())).into_owned();
        let text = v6.replace_all(&text, |c: &Captures| self.address(&c[0])).into_owned();
        let mut text = v4.replace_all(&text, |c: &Captures| self.address(&c[0])).into_owned();
        for (regex, word) in &self.names {
            let stands_for = |c: &Captures| format!("{}{word}{}", &c["a"], &c["b"]);
            // Twice: two of them may share what separates them.
            for _ in 0..2 {
                text = regex.replace_all(&text, stands_for).into_owned();
            }
        }
        text
    }

    fn address(&mut self, text: &str) -> String {
        match text.parse::<IpAddr>() {
            Ok(address) if !is_everywhere(address) => self.word("address", &address.to_string()),
            // A time, a version, a netmask, the host itself.
            _ => text.to_owned(),
        }
    }

    /// What stands for what, by kind.
    pub fn catalogue(&self) -> impl Iterator<Item = (&str, &str)> {
        self.words.iter().map(|((_, original), word)| (word.as_str(), original.as_str()))
    }
}

/// Addresses that say nothing about where they are used.
fn is_everywhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_loopback() || a.is_unspecified() || a == Ipv4Addr::BROADCAST || a.octets()[0] == 255,
        IpAddr::V6(a) => a.is_loopback() || a == Ipv6Addr::UNSPECIFIED || a.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taught() -> Anonymiser {
        let mut names = Anonymiser::new().unwrap();
        names.learn("<cluster><lans><lan><node name=\"db-paris\" addr=\"10.1.2.3\"/>\n<node addr='x' name='db'/></lan></lans>").unwrap();
        names
    }

    #[test]
    fn the_same_name_is_the_same_word_and_what_says_nothing_stays() {
        let mut names = taught();
        for (text, expected) in [
            ("db-paris is PRIM, db is SECOND, database stays", "node-1 is PRIM, node-2 is SECOND, database stays"),
            ("db db db_log db2", "node-2 node-2 node-2_log db2"),
            ("10.1.2.3:5600 and 10.1.2.4, 10.1.2.3 again", "address-1:5600 and address-2, address-1 again"),
            ("[::ffff:10.1.2.3]:80", "[address-3]:80"),
            ("fe80::1ff:fe23:4567:890a%eth0", "address-4%eth0"),
            ("link/ether 52:54:00:AB:cd:ef brd ff:ff:ff:ff:ff:ff", "link/ether mac-1 brd mac-2"),
            ("52:54:00:ab:cd:ef", "mac-1"),
            ("to ops@example.com", "to mail-1"),
            ("127.0.0.1 ::1 0.0.0.0 255.255.255.0", "127.0.0.1 ::1 0.0.0.0 255.255.255.0"),
            ("at 2026-11-20T10:00:00Z, 10:00:00", "at 2026-11-20T10:00:00Z, 10:00:00"),
        ] {
            assert_eq!(names.apply(text), expected);
        }
        let catalogue: Vec<_> = names.catalogue().collect();
        assert!(catalogue.contains(&("node-1", "db-paris")) && catalogue.contains(&("address-1", "10.1.2.3")));
    }

    proptest! {
        #[test]
        fn no_name_survives_and_twice_is_once(before in "[ a-z:.]{0,20}", after in "[ a-z:.]{0,20}") {
            let mut names = taught();
            let text = format!("{before} 10.1.2.3 db-paris {after}");
            let once = names.apply(&text);
            prop_assert!(!once.contains("10.1.2.3") && !once.contains("db-paris"));
            prop_assert_eq!(names.apply(&once), once);
        }
    }
}
