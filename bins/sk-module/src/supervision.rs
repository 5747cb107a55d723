//! What do the core and sk-check need to know of a module's checkers?

use crate::instance::Instance;
use crate::{Failure, exit};
use automaton::Supervision;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The failover rules and checkers of a module, for the core.
pub(crate) fn supervision(config: &config::Module) -> Supervision {
    let checkers = config.checks.resources().into_iter().map(|(name, when)| (name, when.as_str().to_owned()));
    let rules = config.rule_set();
    let published = rules.remote_names(&config.known_resources());
    Supervision { checkers: checkers.collect(), rules, published }
}

impl Instance {
    /// The class of a checker's resource.
    pub fn checker_class(&self, name: &str) -> Option<&'static str> {
        self.config().checks.resources().into_iter().find(|(own, _)| own == name).map(|(_, when)| when.as_str())
    }

    /// Resource and class of the custom checkers.
    pub fn custom_checkers(&self) -> impl Iterator<Item = (String, &'static str)> {
        self.config().checks.custom.iter().map(|c| (format!("custom.{}", c.ident), c.when.as_str()))
    }

    /// What `sk-check run` is told; `None` without checkers.
    pub fn check_spec(&self) -> Option<Value> {
        let checks = &self.config().checks;
        if !checks.any() {
            return None;
        }
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let mut checkers: Vec<Value> = Vec::new();
        for c in &checks.tcp {
            checkers.push(
                json!({"kind": "tcp", "name": format!("tcp.{}", c.ident), "class": c.when.as_str(), "host": c.host,
                "port": c.port, "interval_ms": ms(c.interval), "timeout_ms": ms(c.timeout)}),
            );
        }
        for c in &checks.ping {
            checkers.push(json!({"kind": "ping", "name": format!("ping.{}", c.ident), "class": c.when.as_str(),
                "host": c.host, "interval_ms": ms(c.interval), "timeout_ms": ms(c.timeout)}));
        }
        for c in &checks.intf {
            checkers.push(
                json!({"kind": "intf", "name": format!("intf.{}", c.ident), "class": "pre", "address": c.local_addr}),
            );
        }
        for c in &checks.ip {
            checkers.push(
                json!({"kind": "ip", "name": format!("ip.{}", c.ident), "class": c.when.as_str(), "address": c.addr,
                "interval_ms": ms(c.interval)}),
            );
        }
        for c in &checks.module {
            checkers.push(
                json!({"kind": "module", "name": format!("module.{}", c.ident), "class": "pre", "module": c.name,
                "host": c.host, "port": c.port, "interval_ms": ms(c.interval), "timeout_ms": ms(c.timeout)}),
            );
        }
        let environment: BTreeMap<String, String> = self.environment().into_iter().collect();
        for c in &checks.custom {
            let name = format!("custom.{}", c.ident);
            let mut argv =
                vec![executable(&self.active_bin(), &c.exec).display().to_string(), self.module.clone(), name.clone()];
            argv.extend(c.arg.split_whitespace().map(str::to_owned));
            let output = self.logs_scripts().then(|| self.user_var().join(format!("checker_{}.ulog", c.ident)));
            checkers.push(json!({"kind": "custom", "name": name, "class": c.when.as_str(), "argv": argv,
                "environment": environment, "directory": self.user_var(), "output": output}));
        }
        Some(json!({"module": self.module, "node": self.node, "checkers": checkers}))
    }
}

/// An executable of the configuration: absolute, or in the module's `bin`.
fn executable(bin: &Path, exec: &str) -> PathBuf {
    if exec.starts_with('/') { PathBuf::from(exec) } else { bin.join(exec) }
}

/// The executables that checkers and errd call: missing ones are better known before the module starts.
pub(crate) fn check_executables(config: &config::Module, bin: &Path) -> Result<(), Failure> {
    let custom = config.checks.custom.iter().map(|c| (format!("exec of <custom> {}", c.ident), c.exec.clone()));
    let handlers = config.errd.iter().flat_map(|e| &e.procs).filter_map(|p| match &p.action {
        config::ProcAction::Handler(path) => Some((format!("action of <proc> {}", p.name), path.clone())),
        _ => None,
    });
    let callback = config
        .rfs
        .as_ref()
        .filter(|rfs| rfs.scripts)
        .map(|_| ("<rfs scripts=\"on\"> calls it".to_owned(), automaton::CALLBACK.to_owned()));
    let wrong: Vec<String> = custom
        .chain(handlers)
        .chain(callback)
        .filter_map(|(what, exec)| {
            let path = executable(bin, &exec);
            let trouble = match std::fs::metadata(&path) {
                Err(error) => error.to_string(),
                Ok(m) if m.is_dir() => "it is a directory".to_owned(),
                Ok(m) if m.permissions().mode() & 0o111 == 0 => "it is not executable".to_owned(),
                Ok(_) => return None,
            };
            Some(format!("{what}: {}: {trouble}", path.display()))
        })
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit::BAD_CONFIGURATION, wrong.join("; "))
        .hint("put the executable there with chmod +x, or correct its name in userconfig.xml"))
}
