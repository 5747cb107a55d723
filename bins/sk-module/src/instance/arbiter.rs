//! What does `<splitbrain>` mean to the core, and to the child that asks?

use super::Instance;
use automaton::Arbiter;
use config::{ArbiterKind, Etcd};
use serde_json::{Value, json};
use std::time::Duration;

/// A lease that is not configured lasts three quarters of the heartbeat timeout, so that it does not delay a takeover, within these bounds: shorter
/// ones cost more questions than they save time, and longer ones are waited for after each isolation.
const LEASE_MS: std::ops::RangeInclusive<u64> = 3_000..=10_000;
/// What the kernel needs at most to remove an address after the end of a lease: it counts whole seconds and looks late (see `sk-vip`).
const LEASE_MARGIN_MS: u64 = 1_500;
/// Clocks of two hosts may differ in speed by one fiftieth; crystals keep to a ten-thousandth.
const DRIFT: u64 = 50;
/// Time for the witnesses' answers.
const PING_MS: u64 = 2_000;

impl Instance {
    fn lease_ms(&self, etcd: &Etcd) -> u64 {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let usual = millis(self.config.heartbeat_timeout()).saturating_mul(3) / 4;
        etcd.lease.map_or_else(|| usual.clamp(*LEASE_MS.start(), *LEASE_MS.end()), millis)
    }

    pub fn arbiter(&self) -> Arbiter {
        match self.config.checks.splitbrain.as_ref().map(|s| &s.exec) {
            None => Arbiter::None,
            Some(ArbiterKind::Ping { .. }) => Arbiter::Ping,
            Some(ArbiterKind::Etcd(etcd)) => {
                let lease_ms = self.lease_ms(etcd);
                Arbiter::Store { lease_ms, margin_ms: LEASE_MARGIN_MS + lease_ms / DRIFT }
            }
        }
    }

    /// Engine and addresses need a lease.
    pub fn needs_lease(&self) -> bool {
        matches!(self.arbiter(), Arbiter::Store { .. })
    }

    /// The resource is `splitbrain.IDENT`.
    pub fn arbiter_ident(&self) -> Option<String> {
        self.config.checks.splitbrain.as_ref().map(|s| s.ident.clone())
    }

    /// For `sk-arbiter`. None without `<splitbrain>`.
    pub fn arbiter_spec(&self) -> Option<Value> {
        let splitbrain = self.config.checks.splitbrain.as_ref()?;
        let mut spec = json!({"module": self.module, "node": self.node});
        let rest = match &splitbrain.exec {
            ArbiterKind::Ping { witnesses } => {
                json!({"arbiter": "ping", "witnesses": witnesses, "timeout_ms": PING_MS})
            }
            ArbiterKind::Etcd(etcd) => json!({
                "arbiter": "etcd", "key": self.store_key(), "endpoints": etcd.endpoints,
                // Two endpoints can be tried before a lease that is being renewed ends.
                "attempt_ms": (self.lease_ms(etcd) / 4).clamp(500, 3_000),
                "ca": etcd.ca, "cert": etcd.cert, "cert_key": etcd.key, "user": etcd.user, "password_file": etcd.password_file,
            }),
        };
        if let (Some(spec), Value::Object(rest)) = (spec.as_object_mut(), rest) {
            spec.extend(rest);
        }
        Some(spec)
    }

    /// One store may serve several clusters, whose modules have the same names: the cluster key tells them apart.
    fn store_key(&self) -> String {
        let cluster = wire::KeyRing::load(&self.roots.cluster_key()).map(|ring| ring.store_name());
        // Without a key the module does not start; nothing is asked before.
        format!("/sk/{}/{}", cluster.unwrap_or_else(|_| "no-key".to_owned()), self.module)
    }

    /// `sk-arbiter show -m AM` reads it, also while the module is stopped: an arbiter can be tried as soon as it is configured.
    pub fn write_arbiter_spec(&self) -> std::io::Result<()> {
        match self.arbiter_spec() {
            Some(spec) => std::fs::write(self.run_dir().join("arbiter.json"), format!("{spec}\n")),
            None => sys::files::remove(&self.run_dir().join("arbiter.json")),
        }
    }
}
