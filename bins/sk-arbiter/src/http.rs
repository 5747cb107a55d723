//! How does a question reach an HTTP server, and its answer us, within bounds?

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Longest body taken.
const BODY_MAX: u64 = 1 << 20;
const PEM_MAX: u64 = 1 << 20;
/// A connection that was idle for longer is not used again: it may be dead by now.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    agent: Agent,
}

/// Files in PEM form.
pub(crate) struct Credentials<'a> {
    pub ca: Option<&'a Path>,
    pub cert: Option<&'a PathBuf>,
    pub key: Option<&'a PathBuf>,
}

impl Client {
    /// `attempt`: time for one question, from the name to the last byte of the answer.
    pub fn new(credentials: &Credentials<'_>, attempt: Duration) -> Result<Self, String> {
        let roots = match credentials.ca {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        let own = match (credentials.cert, credentials.key) {
            (Some(cert), Some(key)) => Some(ClientCert::new_with_certs(&certificates(cert)?, private_key(key)?)),
            _ => None,
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(own)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            // Not from the environment: whose variables those are is not known.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_age(IDLE)
            .user_agent("sk-arbiter")
            .timeout_global(Some(attempt))
            // A host that is off must leave time for another.
            .timeout_connect(Some((attempt / 2).max(Duration::from_millis(100))))
            .build()
            .new_agent();
        Ok(Self { agent })
    }

    /// Status and body of the answer; a body that is no JSON is text.
    pub fn post(&self, url: &str, token: Option<&str>, body: &Value) -> Result<(u16, Value), String> {
        let mut request = self.agent.post(url).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let mut response = request.send(body.to_string()).map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let bytes = response.body_mut().with_config().limit(BODY_MAX).read_to_vec().map_err(|e| e.to_string())?;
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text())))
    }
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>, String> {
    let bytes = sys::files::read_bounded(path, PEM_MAX).map_err(|e| format!("{}: {e}", path.display()))?;
    parse_pem(&bytes).collect::<Result<_, _>>().map_err(|e| format!("{}: {e}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(format!("{} holds no certificate in PEM form", path.display())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, String> {
    let key = pem(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    key.ok_or_else(|| format!("{} holds no private key in PEM form", path.display()))
}
