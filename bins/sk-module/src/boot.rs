//! Which runners start at the boot of the host.

use crate::{Failure, client, exit};
use sys::roots::{Roots, is_module_name};

/// Starts the runner of every applied module; each runner decides by `boot="on|off|auto|ignore"` whether its module starts.
pub(crate) fn boot(roots: &Roots) -> Result<u8, Failure> {
    let modules = applied_modules(roots)?;
    // All at once: a module that cannot come up must not keep the others waiting.
    let codes = std::thread::scope(|scope| {
        let starts: Vec<_> = modules
            .iter()
            .map(|module| {
                scope.spawn(move || match begin(roots, module) {
                    Ok(()) => 0,
                    Err(failure) => {
                        sys::warn!("sk-module: {module}: {}", failure.message);
                        failure.code
                    }
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap_or(exit::SYSTEM)).max()
    });
    Ok(codes.unwrap_or(0))
}

/// A runner that is there already (after `shutdown` without a reboot) is told; otherwise one is started and knows.
fn begin(roots: &Roots, module: &str) -> Result<(), Failure> {
    match client::ask(roots, module, &serde_json::json!({"verb": "boot"})) {
        Ok(None) => client::ensure_runner(roots, module, true),
        Ok(Some(_)) => Ok(()),
        Err(failure) if failure.code == exit::NO_RUNNER => client::ensure_runner(roots, module, true),
        Err(failure) => Err(failure),
    }
}

/// Modules whose configuration was applied, by name.
pub(crate) fn applied_modules(roots: &Roots) -> Result<Vec<String>, Failure> {
    let directory = roots.var.join("modules");
    let mut names = Vec::new();
    match std::fs::read_dir(&directory) {
        Ok(entries) => {
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if is_module_name(&name) && roots.module_active(&name).join("conf/userconfig.xml").exists() {
                    names.push(name);
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::system(directory.display(), error)),
    }
    names.sort();
    Ok(names)
}
