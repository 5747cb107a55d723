//! Would this module share with another one on this node what only one can have: ports, a virtual address, a directory?

use crate::{Failure, exit, instance};
use config::Module;
use std::path::{Path, PathBuf};
use sys::roots::Roots;

/// Compares with the applied configuration of every other module. Those that cannot be read are no reason to refuse.
pub(crate) fn check(roots: &Roots, module: &str, id: u16, parsed: &Module) -> Result<(), Failure> {
    for other in crate::boot::applied_modules(roots)?.into_iter().filter(|other| other != module) {
        if instance::applied_id(roots, &other) == Some(id) {
            return Err(Failure::new(exit::BAD_CONFIGURATION, format!("module {other} already has the id {id}"))
                .hint(format!("choose another, the same on all nodes: sk-module config -m {module} --id N")));
        }
        let file = roots.module_active(&other).join("conf/userconfig.xml");
        let (Some(theirs), _) = config::load_module(&file, &|name| std::env::var(name).ok()) else { continue };
        if let Some(address) = addresses(parsed).find(|address| addresses(&theirs).any(|a| a == *address)) {
            let message = format!("virtual address {address} belongs to module {other} already");
            return Err(
                Failure::new(exit::BAD_CONFIGURATION, message).hint("choose an address of its own for each module")
            );
        }
        for own in directories(parsed) {
            if let Some(taken) = directories(&theirs).find(|taken| overlap(&own, taken)) {
                let message = format!(
                    "the replicated directory {} overlaps with {} of module {other}",
                    own.display(),
                    taken.display()
                );
                return Err(Failure::new(exit::BAD_CONFIGURATION, message)
                    .hint("a directory is replicated by one module: give each its own"));
            }
        }
    }
    Ok(())
}

fn addresses(module: &Module) -> impl Iterator<Item = &str> {
    let interfaces = module.vip.iter().flat_map(|vip| vip.interfaces.iter());
    interfaces.flat_map(|interface| interface.addresses.iter()).map(|address| address.addr.as_str())
}

/// Where the directories really are, when they exist already.
fn directories(module: &Module) -> impl Iterator<Item = PathBuf> {
    module
        .rfs
        .iter()
        .flat_map(|rfs| rfs.replicated.iter())
        .map(|replicated| std::fs::canonicalize(&replicated.dir).unwrap_or_else(|_| PathBuf::from(&replicated.dir)))
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
