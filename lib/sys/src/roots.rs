//! Where do files live: the roots of configuration, working data, run time and product, each relocatable by environment.

use std::path::PathBuf;

/// The four roots. `SK_ETC`, `SK_VAR`, `SK_RUN` and `SK_SAFE` replace the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/etc/sk`: cluster and editable modules.
    pub etc: PathBuf,
    /// `/var/lib/sk`: applied modules, logs, lineages (`SAFEVAR`).
    pub var: PathBuf,
    /// `/run/sk`: sockets and snapshots, gone after a reboot.
    pub run: PathBuf,
    /// `/opt/sk`: the product (`SAFE`).
    pub safe: PathBuf,
}

impl Roots {
    /// Reads the environment.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// The same from any source of variables; empty values count as absent.
    pub fn from_variables(get: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let root = |name: &str, default: &str| {
            get(name).filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from(default))
        };
        Self {
            etc: root("SK_ETC", "/etc/sk"),
            var: root("SK_VAR", "/var/lib/sk"),
            run: root("SK_RUN", "/run/sk"),
            safe: root("SK_SAFE", "/opt/sk"),
        }
    }

    pub fn cluster_xml(&self) -> PathBuf {
        self.etc.join("cluster.xml")
    }

    pub fn cluster_key(&self) -> PathBuf {
        self.etc.join("cluster.key")
    }

    /// Keys of operators, see `wire::role`.
    pub fn operators(&self) -> PathBuf {
        self.etc.join("operators.keys")
    }

    /// There while the cluster's configuration may not change.
    pub fn cluster_lock(&self) -> PathBuf {
        self.etc.join("cluster.lock")
    }

    /// Run-time files of the node's daemon. No module can have this name.
    pub fn cluster_run(&self) -> PathBuf {
        self.run.join(".cluster")
    }

    /// Another command of the product: beside this program, in the product's directory, or wherever PATH says.
    pub fn program(&self, name: &str) -> PathBuf {
        crate::program::beside(name)
            .into_iter()
            .chain([self.safe.join("bin").join(name)])
            .find(|p| p.is_file())
            .unwrap_or_else(|| PathBuf::from(name))
    }

    /// Editable configuration of a module.
    pub fn module_source(&self, module: &str) -> PathBuf {
        self.etc.join("modules").join(module)
    }

    /// Working data of a module (`SAFEUSERVAR`).
    pub fn module_var(&self, module: &str) -> PathBuf {
        self.var.join("modules").join(module)
    }

    /// Applied configuration of a module.
    pub fn module_active(&self, module: &str) -> PathBuf {
        self.module_var(module).join("active")
    }

    /// Run-time directory of a module.
    pub fn module_run(&self, module: &str) -> PathBuf {
        self.run.join(module)
    }

    /// Where the heartbeats of all modules of this node find each other. No module can have this name.
    pub fn heartbeat_run(&self) -> PathBuf {
        self.run.join(".heartbeat")
    }

    pub fn control_socket(&self, module: &str) -> PathBuf {
        self.module_run(module).join("control")
    }

    /// `SAFEBIN`: special commands.
    pub fn safe_bin(&self) -> PathBuf {
        self.safe.join("private/bin")
    }
}

/// Whether a module's name is safe as a file name: letters, digits, `_`, `-`, `.`, not starting with a dot or dash, at most 64 bytes.
pub fn is_module_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && !name.starts_with(['.', '-'])
}

/// The name of a module on a command line, or what names look like: a parser of values for clap.
pub fn module_name(text: &str) -> Result<String, String> {
    if is_module_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no module name: use at most 64 letters, digits, '_', '-' and '.'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_replace_the_defaults_and_empty_ones_do_not() {
        let roots = Roots::from_variables(|n| match n {
            "SK_VAR" => Some("/srv/sk".into()),
            "SK_RUN" => Some("".into()),
            _ => None,
        });
        assert_eq!(roots.module_active("AM"), PathBuf::from("/srv/sk/modules/AM/active"));
        assert_eq!(roots.control_socket("AM"), PathBuf::from("/run/sk/AM/control"));
    }

    #[test]
    fn module_names_are_plain_file_names() {
        for good in ["mirror", "a.b-c_1"] {
            assert!(is_module_name(good), "{good}");
        }
        for bad in ["", ".", "..", "-m", "a/b", "é", &"x".repeat(65)] {
            assert!(!is_module_name(bad), "{bad}");
        }
    }
}
