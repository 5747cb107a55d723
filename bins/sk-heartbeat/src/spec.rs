//! What does the runner want: which module, which peer, over which links?

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use sys::failure::Failure;

const SPEC_LIMIT: u64 = 1024 * 1024;
/// Names are part of every packet.
const NAME_LIMIT: usize = 64;
const LINKS_LIMIT: usize = 16;

#[derive(Debug, Deserialize)]
pub(crate) struct Spec {
    pub module: String,
    pub node: String,
    pub peer: String,
    /// UDP, the same on both nodes. Modules of the same port share one stream of packets.
    pub port: u16,
    /// Directory where the heartbeats of this node find each other; without it the place follows from `SK_RUN`.
    pub carrier: Option<PathBuf>,
    pub key_file: PathBuf,
    pub links: Vec<LinkSpec>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinkSpec {
    pub ident: String,
    pub local: IpAddr,
    pub peer: IpAddr,
    pub pulse_ms: u64,
    pub timeout_ms: u64,
}

impl Spec {
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let spec: Self = sys::failure::specification(path, SPEC_LIMIT)?;
        spec.check().map_err(|e| Failure::specification(format!("{}: {e}", path.display())))?;
        Ok(spec)
    }

    pub fn carrier_directory(&self) -> PathBuf {
        self.carrier.clone().unwrap_or_else(|| sys::roots::Roots::from_environment().heartbeat_run())
    }

    fn check(&self) -> Result<(), String> {
        if self.port == 0 {
            return Err("`port` is 0; give the UDP port that both nodes use".to_owned());
        }
        if self.node == self.peer {
            return Err(format!("`node` and `peer` are both `{}`", self.node));
        }
        for name in [&self.module, &self.node, &self.peer].into_iter().chain(self.links.iter().map(|l| &l.ident)) {
            if name.is_empty() || name.len() > NAME_LIMIT {
                return Err(format!("the name `{name}` is empty or longer than {NAME_LIMIT} bytes"));
            }
        }
        if self.links.is_empty() || self.links.len() > LINKS_LIMIT {
            return Err(format!("there must be 1 to {LINKS_LIMIT} links, not {}", self.links.len()));
        }
        let mut idents = BTreeSet::new();
        let mut locals = BTreeSet::new();
        for link in &self.links {
            let ident = &link.ident;
            if !idents.insert(ident) {
                return Err(format!("two links are called `{ident}`"));
            }
            if !locals.insert(link.local) {
                return Err(format!("link `{ident}`: {} is the local address of another link too", link.local));
            }
            if link.local.is_ipv4() != link.peer.is_ipv4() {
                return Err(format!("link `{ident}`: {} and {} are of different families", link.local, link.peer));
            }
            if link.local.is_unspecified() || link.peer.is_unspecified() {
                return Err(format!("link `{ident}`: the addresses of a link must be given"));
            }
            if link.pulse_ms == 0 || link.timeout_ms <= link.pulse_ms {
                return Err(format!(
                    "link `{ident}`: the timeout ({} ms) must be longer than the pulse ({} ms), and the pulse at least 1 ms",
                    link.timeout_ms, link.pulse_ms
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut serde_json::Value)) -> Result<Spec, Failure> {
        let mut value = serde_json::json!({"module": "AM", "node": "a", "peer": "b", "port": 4800, "key_file": "/k", "future": 1,
            "links": [{"ident": "default", "local": "10.0.0.1", "peer": "10.0.0.2", "pulse_ms": 700, "timeout_ms": 30000}]});
        change(&mut value);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), value.to_string()).unwrap();
        Spec::load(file.path())
    }

    #[test]
    fn wrong_specifications_are_refused_with_the_place() {
        assert!(spec(|_| ()).is_ok());
        type Change = fn(&mut serde_json::Value);
        let cases: [(Change, &str); 7] = [
            (|v| v["port"] = 0.into(), "`port` is 0"),
            (|v| v["peer"] = "a".into(), "are both `a`"),
            (|v| v["links"] = serde_json::json!([]), "1 to 16 links"),
            (|v| v["links"][0]["timeout_ms"] = 700.into(), "must be longer"),
            (|v| v["links"][0]["peer"] = "::1".into(), "different families"),
            (|v| v["links"][0]["local"] = "x".into(), "invalid IP address"),
            (|v| v["module"] = "m".repeat(65).into(), "longer than 64"),
        ];
        for (change, words) in cases {
            let failure = spec(change).unwrap_err();
            assert!(failure.message.contains(words) && failure.code == 1, "{}", failure.message);
        }
    }
}
