//! What shall be checked, how often, and by whom?

use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use sys::failure::Failure;

const SPEC_LIMIT: u64 = 4 * 1024 * 1024;

#[derive(Debug, Deserialize)]
pub(crate) struct Spec {
    pub module: String,
    #[serde(default)]
    pub node: String,
    pub checkers: Vec<CheckerSpec>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CheckerSpec {
    /// The resource: `tcp.web`.
    pub name: String,
    /// Runs while this class is enabled.
    pub class: String,
    #[serde(default = "ten_seconds")]
    pub interval_ms: u64,
    #[serde(default = "five_seconds")]
    pub timeout_ms: u64,
    #[serde(flatten)]
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Target {
    Tcp {
        host: String,
        port: u16,
    },
    Ping {
        host: String,
    },
    /// The link of the interface that has this address.
    Intf {
        address: IpAddr,
    },
    /// The address itself.
    Ip {
        address: IpAddr,
    },
    Module {
        module: String,
        host: String,
        port: u16,
    },
    Custom(CustomSpec),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct CustomSpec {
    /// The executable and its arguments.
    pub argv: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Where its output goes; nowhere without.
    #[serde(default)]
    pub output: Option<PathBuf>,
}

const fn ten_seconds() -> u64 {
    10_000
}

const fn five_seconds() -> u64 {
    5_000
}

impl Spec {
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let spec: Self = sys::failure::specification(path, SPEC_LIMIT)?;
        for checker in &spec.checkers {
            let wrong = if checker.interval_ms == 0 || checker.timeout_ms == 0 {
                "`interval_ms` and `timeout_ms` must be at least 1"
            } else if matches!(&checker.target, Target::Custom(custom) if custom.argv.is_empty()) {
                "`argv` must name an executable"
            } else {
                continue;
            };
            return Err(Failure::specification(format!("{}: {}: {wrong}", path.display(), checker.name)));
        }
        Ok(spec)
    }
}
