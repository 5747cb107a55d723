//! What does the runner say about the arbiter?

use serde::Deserialize;
use std::path::{Path, PathBuf};
use sys::failure::Failure;

const LIMIT: u64 = 1 << 20;

/// The file behind `--spec`; unknown members are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Spec {
    #[serde(default)]
    pub node: String,
    pub module: String,
    #[serde(flatten)]
    pub kind: Kind,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "arbiter", rename_all = "snake_case")]
pub(crate) enum Kind {
    None,
    Ping(Ping),
    Etcd(Etcd),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Ping {
    /// Addresses or host names.
    pub witnesses: Vec<String>,
    /// Time for all of them together.
    pub timeout_ms: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Etcd {
    /// Name of the record in the store.
    pub key: String,
    pub endpoints: Vec<String>,
    /// Longest wait for one endpoint.
    pub attempt_ms: u64,
    #[serde(default)]
    pub ca: Option<PathBuf>,
    #[serde(default)]
    pub cert: Option<PathBuf>,
    #[serde(default)]
    pub cert_key: Option<PathBuf>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

impl Spec {
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text =
            sys::files::read_bounded(path, LIMIT).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        let spec: Self =
            serde_json::from_slice(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        spec.check().map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), &'static str> {
        match &self.kind {
            Kind::None => Ok(()),
            Kind::Ping(p) if p.witnesses.is_empty() => Err("`witnesses` is empty"),
            Kind::Ping(p) if !(100..=60_000).contains(&p.timeout_ms) => Err("`timeout_ms` must be from 100 to 60000"),
            Kind::Etcd(e) if e.endpoints.is_empty() => Err("`endpoints` is empty"),
            Kind::Etcd(e) if e.key.is_empty() => Err("`key` is empty"),
            Kind::Etcd(e) if !(100..=60_000).contains(&e.attempt_ms) => Err("`attempt_ms` must be from 100 to 60000"),
            Kind::Etcd(e) if e.cert.is_some() != e.cert_key.is_some() => Err("`cert` and `cert_key` belong together"),
            Kind::Etcd(e) if e.user.is_some() != e.password_file.is_some() => {
                Err("`user` and `password_file` belong together")
            }
            Kind::Ping(_) | Kind::Etcd(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_are_read_and_nonsense_is_not() {
        let read = |text: &str| {
            let spec: Spec = serde_json::from_str(text).map_err(|e| e.to_string())?;
            spec.check().map(|()| spec).map_err(str::to_owned)
        };
        assert!(read(r#"{"module":"m","arbiter":"none"}"#).is_ok());
        assert!(
            read(r#"{"module":"m","node":"n","arbiter":"ping","witnesses":["w"],"timeout_ms":2000,"x":1}"#).is_ok()
        );
        let etcd = r#"{"module":"m","arbiter":"etcd","key":"/sk/1/m","endpoints":["https://w:2379"],"attempt_ms":1000,"ca":"/c"}"#;
        assert!(matches!(read(etcd).unwrap().kind, Kind::Etcd(e) if e.ca.is_some() && e.user.is_none()));
        for wrong in [
            r#"{"module":"m"}"#,
            r#"{"module":"m","arbiter":"quorum"}"#,
            r#"{"module":"m","arbiter":"ping","witnesses":[],"timeout_ms":2000}"#,
            r#"{"module":"m","arbiter":"ping","witnesses":["w"],"timeout_ms":0}"#,
            r#"{"module":"m","arbiter":"etcd","key":"","endpoints":["http://w:1"],"attempt_ms":1000}"#,
            r#"{"module":"m","arbiter":"etcd","key":"k","endpoints":[],"attempt_ms":1000}"#,
            r#"{"module":"m","arbiter":"etcd","key":"k","endpoints":["http://w:1"],"attempt_ms":1000,"cert":"/c"}"#,
            r#"{"module":"m","arbiter":"etcd","key":"k","endpoints":["http://w:1"],"attempt_ms":1000,"user":"u"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
