//! What must not leave the host: passwords, keys and tokens are taken out of everything that goes into a snapshot. Pure.

use regex::{Captures, Regex};
use std::collections::BTreeSet;

/// What stands where a secret stood.
pub(crate) const HIDDEN: &str = "***";
/// Shorter values are no secrets worth their name, and would be found everywhere.
const VALUE_MIN: usize = 4;

/// Names whose values are secret.
const NAMES: &str =
    r"(?:pass(?:wd|word|phrase|code)?|pwd|secret|token|api_?key|private_?key|credential|auth(?:orization)?)";

/// Takes secrets out of texts: those that look like one, and the values of those that were seen somewhere.
pub(crate) struct Redactor {
    /// `<var name="DB_PASSWORD" value="…">`, in both orders.
    named: Vec<Regex>,
    /// `password="…"` of any element, `PGPASSWORD=…`, `password: …`.
    assigned: Regex,
    /// `scheme://user:secret@host`.
    url: Regex,
    /// Keys: long hexadecimal numbers, blocks of PEM.
    keys: Vec<Regex>,
    values: BTreeSet<String>,
}

impl Redactor {
    pub fn new() -> Result<Self, regex::Error> {
        let word = format!(r"[\w.-]*{NAMES}[\w.-]*");
        Ok(Self {
            named: vec![
                Regex::new(&format!(
                    r#"(?is)(?P<a>\bname\s*=\s*["']{word}["'][^<>]*?\bvalue\s*=\s*)(?P<v>"[^"]*"|'[^']*')"#
                ))?,
                Regex::new(&format!(
                    r#"(?is)(?P<a>\bvalue\s*=\s*)(?P<v>"[^"]*"|'[^']*')(?P<b>[^<>]*?\bname\s*=\s*["']{word}["'])"#
                ))?,
            ],
            assigned: Regex::new(&format!(
                r#"(?i)(?P<a>\b{word}["']?\s*[=:]\s*)(?P<v>"[^"\n]*"|'[^'\n]*'|[^\s"'<>;,&|)]+)"#
            ))?,
            url: Regex::new(r"(?P<a>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)(?P<v>[^\s/@]+)@")?,
            keys: vec![
                Regex::new(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)")?,
                Regex::new(r"\b[0-9a-fA-F]{64}\b")?,
            ],
            values: BTreeSet::new(),
        })
    }

    /// Notes the values of secrets in a configuration, so that they are found wherever else they stand.
    pub fn learn(&mut self, text: &str) {
        let found: Vec<String> = self
            .named
            .iter()
            .chain([&self.assigned])
            .flat_map(|r| r.captures_iter(text))
            .filter_map(|c| c.name("v").map(|v| v.as_str().trim_matches(['"', '\'']).to_owned()))
            // A macro or a variable of the shell is no value.
            .filter(|v| v.len() >= VALUE_MIN && !v.contains(['$', '%']) && !is_plain_word(v))
            .collect();
        self.values.extend(found);
    }

    pub fn redact(&self, text: &str) -> String {
        let quoted = |c: &Captures| {
            let part = |name| c.name(name).map_or("", |m| m.as_str());
            let quote =
                part("v").chars().next().filter(|q| matches!(q, '"' | '\'')).map(String::from).unwrap_or_default();
            format!("{}{quote}{HIDDEN}{quote}{}", part("a"), part("b"))
        };
        let mut text = text.to_owned();
        for value in &self.values {
            text = text.replace(value.as_str(), HIDDEN);
        }
        for regex in &self.named {
            text = regex.replace_all(&text, quoted).into_owned();
        }
        text = self
            .assigned
            .replace_all(&text, |c: &Captures| format!("{}{HIDDEN}", c.name("a").map_or("", |m| m.as_str())))
            .into_owned();
        text = self
            .url
            .replace_all(&text, |c: &Captures| format!("{}{HIDDEN}@", c.name("a").map_or("", |m| m.as_str())))
            .into_owned();
        for regex in &self.keys {
            text = regex.replace_all(&text, HIDDEN).into_owned();
        }
        text
    }
}

/// Words that settings have, and that stand everywhere.
fn is_plain_word(value: &str) -> bool {
    ["true", "false", "none", "null", "trust", "peer", "yes", "file", "prompt", "scram-sha-256", "md5"]
        .contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let redactor = Redactor::new().unwrap();
        for (text, secret) in [
            (r#"<macro name="DB_PASSWORD" value="hunter22"/>"#, "hunter22"),
            ("<var value='s3cr et!' name='api_key'/>", "s3cr et!"),
            (r#"<splitbrain user="sk" password="etcdpass"/>"#, "etcdpass"),
            ("export PGPASSWORD=topsecret\n", "topsecret"),
            ("password: abc123;", "abc123"),
            ("psql postgres://app:w0rd@10.0.0.1/db", "w0rd"),
            ("Authorization: Bearer-x.y.z", "Bearer-x.y.z"),
            (&format!("key {}", "0f".repeat(32)), "0f0f0f0f"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----", "MIIB"),
            ("-----BEGIN PRIVATE KEY-----\ncut off", "cut off"),
        ] {
            let out = redactor.redact(text);
            assert!(!out.contains(secret) && out.contains(HIDDEN), "{text} -> {out}");
        }
        for text in [
            r#"<heart pulse="700ms" timeout="30000ms"><heartbeat name="default"/></heart>"#,
            r#"<macro name="VIP" value="10.0.0.50"/>"#,
            "2026-11-20 10:00:00.123456 | heart | E | Local state PRIM Ready",
            "Passing the role on; bypass the check",
        ] {
            assert_eq!(redactor.redact(text), text);
        }
    }

    #[test]
    fn a_value_that_is_known_is_found_everywhere() {
        let mut redactor = Redactor::new().unwrap();
        redactor.learn(r#"<macro name="PASSWORD" value="hunter22"/><var name="PASSWD" value="%PASSWORD%"/><var name="AUTH" value="md5"/>"#);
        assert_eq!(redactor.redact("connect app hunter22 failed, md5"), "connect app *** failed, md5");
    }
}
