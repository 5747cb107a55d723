//! What does the runner ask to hold?

use crate::cli::Failure;
use net::announce::Reroute;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::Path;

/// With less than this left of a lease an address is not renewed; this process removes it at the end.
const SHORTEST_MS: u64 = 500;

/// `hold --spec` and `watch --spec`; unknown members are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct Spec {
    #[serde(default)]
    pub node: String,
    pub module: String,
    pub addresses: Vec<Wanted>,
    #[serde(default = "yes")]
    pub tcp_reset: bool,
    #[serde(default = "lifetime")]
    pub lifetime_ms: u64,
    #[serde(default = "yes")]
    pub probe: bool,
    /// The addresses may be held until then (`CLOCK_BOOTTIME`, milliseconds), which orders extend. Absent: as long as the runner lives.
    #[serde(default)]
    pub lease_until_ms: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Wanted {
    pub address: IpAddr,
    #[serde(default)]
    pub prefix: Option<u8>,
    #[serde(default)]
    pub interface: Option<String>,
    #[serde(default, rename = "where")]
    pub place: Where,
    /// Report `ip` when somebody else removes it; otherwise it is put back.
    #[serde(default = "yes")]
    pub check: bool,
    /// Report `intf`.
    #[serde(default = "yes")]
    pub interface_check: bool,
    /// `watch` reports `connections`.
    #[serde(default)]
    pub connections: bool,
    #[serde(default)]
    pub arp_reroute: bool,
    #[serde(default = "arp_interval")]
    pub arp_interval_ms: u64,
    #[serde(default = "arp_elapse")]
    pub arp_elapse_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    #[default]
    #[serde(alias = "alias")]
    OneSideAlias,
    /// Also the source address of outgoing connections.
    OneSide,
}

fn yes() -> bool {
    true
}

fn lifetime() -> u64 {
    6000
}

fn arp_interval() -> u64 {
    60_000
}

fn arp_elapse() -> u64 {
    1_200_000
}

impl Spec {
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read(path).map_err(|e| Failure::Sys(format!("cannot read {}", path.display()), e))?;
        let spec: Self = serde_json::from_slice(&text)
            .map_err(|e| Failure::Usage(format!("{} is malformed: {e}", path.display())))?;
        spec.checked().map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
    }

    fn checked(self) -> Result<Self, String> {
        if self.lifetime_ms < 1000 {
            return Err("lifetime_ms must be at least 1000: the kernel counts in seconds".to_owned());
        }
        for (position, wanted) in self.addresses.iter().enumerate() {
            let longest = if wanted.address.is_ipv4() { 32 } else { 128 };
            if wanted.prefix.is_some_and(|p| p > longest) {
                return Err(format!("the prefix of {} must be at most {longest}", wanted.address));
            }
            if self.addresses.iter().take(position).any(|w| w.address == wanted.address) {
                return Err(format!("{} is there twice", wanted.address));
            }
        }
        Ok(self)
    }

    /// The lifetime to give to the kernel now, in seconds; None: the addresses may not be held any more. The kernel counts whole seconds, and looks up
    /// to one second late: what exceeds the lease by that is part of the margin that a rival waits (`LEASE_MARGIN_MS`).
    pub fn lifetime_s(&self, now_ms: u64) -> Option<u32> {
        let usual = self.lifetime_ms.div_ceil(1000);
        let seconds = match self.lease_until_ms {
            None => usual,
            Some(until) => match until.saturating_sub(now_ms) {
                left if left < SHORTEST_MS => return None,
                left => usual.min((left / 1000).max(1)),
            },
        };
        Some(u32::try_from(seconds).unwrap_or(u32::MAX - 1))
    }
}

impl Wanted {
    pub fn reroute(&self) -> Option<Reroute> {
        self.arp_reroute.then_some(Reroute { interval_ms: self.arp_interval_ms, elapse_ms: self.arp_elapse_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Spec, String> {
        serde_json::from_str::<Spec>(text).map_err(|e| e.to_string()).and_then(Spec::checked)
    }

    #[test]
    fn defaults_are_those_of_the_configuration() {
        let spec = read(r#"{"module":"m","addresses":[{"address":"10.0.0.50"}],"later":1}"#).unwrap();
        assert!(spec.tcp_reset && spec.probe);
        assert_eq!(spec.lifetime_s(0), Some(6));
        let [wanted] = spec.addresses.as_slice() else { panic!("one address") };
        assert!(wanted.check && wanted.interface_check && wanted.reroute().is_none());
        assert_eq!(wanted.place, Where::OneSideAlias);
    }

    #[test]
    fn the_kernel_is_never_given_more_than_is_left_of_the_lease_and_half_a_second() {
        let mut spec = read(r#"{"module":"m","addresses":[],"lease_until_ms":100000}"#).unwrap();
        for (now, wanted) in [
            (90_000, Some(6)),
            (94_001, Some(5)),
            (98_500, Some(1)),
            (99_001, Some(1)),
            (99_500, Some(1)),
            (99_501, None),
            (100_000, None),
            (200_000, None),
        ] {
            assert_eq!(spec.lifetime_s(now), wanted, "{now}");
            assert!(wanted.is_none_or(|s| now + u64::from(s) * 1000 <= 100_500));
        }
        spec.lease_until_ms = None;
        assert_eq!(spec.lifetime_s(200_000), Some(6));
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |address: &str, rest: &str| read(&format!(r#"{{"module":"m","addresses":[{address}]{rest}}}"#));
        assert!(with(r#"{"address":"10.0.0.50","prefix":33}"#, "").unwrap_err().contains("at most 32"));
        assert!(with(r#"{"address":"10.0.0.50"},{"address":"10.0.0.50"}"#, "").unwrap_err().contains("twice"));
        assert!(with(r#"{"address":"10.0.0.50"}"#, r#","lifetime_ms":999"#).unwrap_err().contains("1000"));
        assert!(with(r#"{"address":"ten"}"#, "").is_err());
    }
}
