//! Which variables does a script see, and where are the other programs?

use crate::cli::Failure;
use std::path::PathBuf;
use sys::roots::{Roots, is_module_name, module_name};

/// The node, and the module named by `-m` or `SAFEMODULE`.
pub struct Place {
    pub roots: Roots,
    module: Option<String>,
}

impl Place {
    pub fn new(roots: Roots, named: Option<String>) -> Result<Self, Failure> {
        let module = named.or_else(|| std::env::var("SAFEMODULE").ok().filter(|m| !m.is_empty()));
        let module = module.map(|name| module_name(&name)).transpose().map_err(Failure::usage)?;
        Ok(Self { roots, module })
    }

    /// The module if one is named.
    pub fn named(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// The module a verb needs; it must exist on this node.
    pub fn module(&self) -> Result<&str, Failure> {
        let name = self
            .module
            .as_deref()
            .ok_or_else(|| Failure::usage("no module named: add -m AM, or set the environment variable SAFEMODULE"))?;
        if self.roots.module_var(name).exists() || self.roots.module_source(name).exists() {
            Ok(name)
        } else {
            Err(Failure::new(1, format!("there is no module {name} on this node; `sk-module list` shows the modules")))
        }
    }

    /// Modules of this node, by name.
    pub fn modules(&self) -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        for directory in [self.roots.var.join("modules"), self.roots.etc.join("modules")] {
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Failure::sys(format!("cannot read {}", directory.display()), e)),
            };
            names.extend(
                entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|n| is_module_name(n)),
            );
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The variables of `safekit -p` and of commands run by `-r`.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: PathBuf| path.display().to_string();
        let roots = &self.roots;
        let mut variables = vec![
            ("SAFE", text(roots.safe.clone())),
            ("SAFEVAR", text(roots.var.clone())),
            ("SAFEBIN", text(roots.safe_bin())),
        ];
        if let Some(module) = &self.module {
            variables.extend([
                ("SAFEMODULE", module.clone()),
                ("SAFEUSERBIN", text(roots.module_active(module).join("bin"))),
                ("SAFEUSERCONF", text(roots.module_active(module).join("conf"))),
                ("SAFEUSERVAR", text(roots.module_var(module))),
            ]);
        }
        variables
    }

    /// Another command of the product: beside this program, in the product's directory, or wherever PATH says.
    pub fn program(&self, name: &str) -> PathBuf {
        self.roots.program(name)
    }
}
