//! How does a configuration become the applied one as a whole: built beside it, completed by its scripts, exchanged in one step.

use super::{copy_tree, remove_tree};
use crate::instance::Instance;
use crate::{Failure, exit};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use sys::lock::LockFile;
use sys::roots::Roots;

/// Longest run of `config`, `postconfig`, `deconfig`, `confcheck`.
const SCRIPT_TIME: Duration = Duration::from_mins(5);
const SCRIPT_OUTPUT: u64 = 256 * 1024;
/// Applied configurations kept of each module.
const LAST_KEPT: usize = 3;

/// Where the next configuration is built.
pub(crate) fn staged(roots: &Roots, module: &str) -> PathBuf {
    roots.module_var(module).join("active.new")
}

fn replaced(roots: &Roots, module: &str) -> PathBuf {
    roots.module_var(module).join("active.old")
}

/// One configuration at a time.
pub(super) fn lock(roots: &Roots, module: &str) -> Result<LockFile, Failure> {
    let var = roots.module_var(module);
    let path = var.join("config.lock");
    fs::create_dir_all(&var).map_err(|e| Failure::system(var.display(), e))?;
    let lock = LockFile::open(&path).map_err(|e| Failure::system(path.display(), e))?;
    if lock.try_exclusive().map_err(|e| Failure::system(path.display(), e))? {
        return Ok(lock);
    }
    Err(Failure::new(exit::REFUSED, format!("module {module} is being configured by another command"))
        .hint("wait for its end"))
}

/// What an interrupted command left: the applied configuration is there, old or new, unless a file system without exchange was
/// between two renames.
pub(crate) fn recover(roots: &Roots, module: &str) {
    let (active, old) = (roots.module_active(module), replaced(roots, module));
    if !active.exists() && old.exists() {
        // Whoever needs the configuration says what is wrong when this fails.
        let _ = fs::rename(&old, &active);
    }
}

/// Builds the next configuration: the editable files, the full configuration, what is made of it, and what the module's own scripts do.
pub(super) fn build(
    roots: &Roots,
    instance: &Instance,
    expanded: &str,
    signature: &str,
    build: &str,
) -> Result<(), Failure> {
    let (source, fresh) = (roots.module_source(&instance.module), staged(roots, &instance.module));
    remove_tree(&fresh)?;
    for part in ["conf", "bin"] {
        fs::create_dir_all(fresh.join(part)).map_err(|e| Failure::system(fresh.display(), e))?;
        if source.join(part).is_dir() {
            copy_tree(&source.join(part), &fresh.join(part))?;
        }
    }
    script(instance, &fresh, "config")?;
    put(&fresh.join("conf/safeconf.xml"), expanded, 0o644)?;
    put(&fresh.join("id"), &format!("{}\n", instance.id), 0o644)?;
    put(&fresh.join("signature"), &format!("{signature}\n"), 0o644)?;
    put(&fresh.join("build"), build, 0o644)?;
    crate::wrappers::write(roots, instance, &fresh)?;
    script(instance, &fresh, "postconfig")
}

/// Whether the configuration in `root` was built by the command that asks.
pub(crate) fn is_build(root: &Path, build: &str) -> bool {
    sys::files::read_bounded(&root.join("build"), 256).is_ok_and(|bytes| bytes == build.as_bytes())
}

pub(crate) fn put(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|e| Failure::system(path.display(), e))
}

/// Runs a script of the configuration in `root` (with `bin` and `conf`), if it is there. Its failure is an error.
pub(super) fn script(instance: &Instance, root: &Path, name: &str) -> Result<(), Failure> {
    let path = root.join("bin").join(name);
    if !path.is_file() {
        return Ok(());
    }
    let mut command = Command::new(&path);
    command.envs(instance.environment());
    command.env("SAFEUSERBIN", root.join("bin")).env("SAFEUSERCONF", root.join("conf"));
    let outcome = sys::bounded::run(&mut command, SCRIPT_TIME, SCRIPT_OUTPUT)
        .map_err(|e| Failure::system(format!("script {}", path.display()), e))?;
    // Words of the script, for the operator who configures; nobody may be there to read them.
    if sys::outcome::is_wanted() {
        String::from_utf8_lossy(&outcome.output).lines().try_for_each(sys::failure::put)?;
    } else {
        let _ = std::io::stdout().write_all(&outcome.output);
    }
    match outcome.status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Failure::new(
            exit::BAD_CONFIGURATION,
            format!("the script {name} says no ({status}); nothing was applied"),
        )
        .hint(format!("its words are above; it is {}", path.display()))),
        None => Err(Failure::new(
            exit::BAD_CONFIGURATION,
            format!("the script {name} did not end within {SCRIPT_TIME:?} and was killed; nothing was applied"),
        )),
    }
}

/// The staged configuration becomes the applied one: on the disk first, then in one step.
pub(crate) fn exchange(roots: &Roots, module: &str) -> std::io::Result<()> {
    let (var, fresh, active) = (roots.module_var(module), staged(roots, module), roots.module_active(module));
    let old = replaced(roots, module);
    // A name that is durable before its content would be an empty module after a loss of power.
    sys::files::sync_file_system(&fresh)?;
    if !active.exists() {
        fs::rename(&fresh, &active)?;
    } else if renameat_with(CWD, &fresh, CWD, &active, RenameFlags::EXCHANGE).is_err() {
        // A file system without exchange: `recover` mends what a crash between the two leaves.
        let _ = fs::remove_dir_all(&old);
        fs::rename(&active, &old)?;
        fs::rename(&fresh, &active)?;
    }
    sys::files::sync_directory(&var)
}

/// The former configuration, wherever the exchange left it.
pub(super) fn clean(roots: &Roots, module: &str) -> Result<(), Failure> {
    remove_tree(&staged(roots, module))?;
    remove_tree(&replaced(roots, module))
}

/// Keeps a copy of what was applied, beside the two before it.
pub(super) fn keep_last(roots: &Roots, module: &str) -> Result<(), Failure> {
    let directory = roots.var.join("lastconfig");
    let stamp = sys::clock::local_time("%Y-%m-%d_%H%M%S");
    let target = directory.join(format!("{module}_{stamp}"));
    remove_tree(&target)?;
    for part in ["conf", "bin"] {
        let source = roots.module_source(module).join(part);
        if source.is_dir() {
            copy_tree(&source, &target.join(part))?;
        }
    }
    let mut kept: Vec<PathBuf> = fs::read_dir(&directory)
        .map_err(|e| Failure::system(directory.display(), e))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            // A date follows the module's name: AM_1 is not a copy of AM.
            name.strip_prefix(module).and_then(|rest| rest.strip_prefix('_')).is_some_and(|d| d.len() == stamp.len())
        })
        .collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(LAST_KEPT);
    for path in kept.iter().take(surplus) {
        remove_tree(path)?;
    }
    Ok(())
}
