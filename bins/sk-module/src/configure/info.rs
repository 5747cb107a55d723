//! Is the editable configuration good, is it the applied one, and how is the applied one taken away?

use super::{read_as, stage};
use crate::instance::{self, Instance};
use crate::{Failure, client, exit};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;
use sys::failure::put;
use sys::roots::Roots;

/// `sk-module confcheck`: everything that `config` checks, and the module's own script of that name; nothing is applied.
pub(crate) fn confcheck(roots: &Roots, module: &str, as_json: bool) -> Result<u8, Failure> {
    let source = roots.module_source(module);
    let (parsed, cluster) = read_as(roots, &super::editable(roots, module)?, as_json)?;
    let scripts = parsed.user.is_some();
    let id = instance::applied_id(roots, module).unwrap_or(1);
    let instance = Instance::assemble(roots, module, id, parsed, &cluster)?;
    if scripts {
        super::check_scripts(&source.join("bin"))?;
    }
    stage::script(&instance, &source, "confcheck")?;
    if !as_json {
        put(&format!("module {module}: no errors"))?;
    }
    Ok(0)
}

/// What tells one configuration from another: all files of `conf` and `bin` with their modes.
pub(super) fn signature(root: &Path) -> Result<String, Failure> {
    let mut all = BTreeMap::new();
    for part in ["conf", "bin"] {
        collect(&root.join(part), part, &mut all)?;
    }
    let mut hasher = blake3::Hasher::new();
    for (name, (mode, content)) in &all {
        hasher.update(format!("{name}\0{mode:o}\0{}\0", content.len()).as_bytes()).update(content);
    }
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

fn collect(directory: &Path, name: &str, all: &mut BTreeMap<String, (u32, Vec<u8>)>) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::system(directory.display(), e);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let metadata = fs::metadata(&path).map_err(|e| Failure::system(path.display(), e))?;
        if metadata.is_dir() {
            collect(&path, &name, all)?;
        } else if metadata.is_file() {
            let content = fs::read(&path).map_err(|e| Failure::system(path.display(), e))?;
            all.insert(name, (metadata.permissions().mode() & 0o111, content));
        }
    }
    Ok(())
}

/// Seconds since 1970 of the newest change of a file.
fn date(path: &Path) -> u64 {
    let modified = fs::metadata(path).and_then(|m| m.modified()).ok();
    modified.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs())
}

/// `sk-module confinfo`: signature and date of the editable ("current") and of the applied ("active") configuration.
pub(crate) fn confinfo(roots: &Roots, module: &str, as_json: bool) -> Result<u8, Failure> {
    let (source, active) = (roots.module_source(module), roots.module_active(module));
    let current = source.join("conf/userconfig.xml").exists().then(|| signature(&source)).transpose()?;
    let applied = sys::files::read_bounded(&active.join("signature"), 256).ok();
    let applied = applied.and_then(|bytes| String::from_utf8(bytes).ok()).map(|s| s.trim().to_owned());
    if current.is_none() && applied.is_none() {
        return Err(Failure::new(exit::REFUSED, format!("there is no module {module} on this node"))
            .hint("sk-module list shows the modules"));
    }
    let (current_date, applied_date) = (date(&source.join("conf/userconfig.xml")), date(&active.join("signature")));
    if as_json {
        let part = |signature: &Option<String>, date| signature.as_ref().map(|s| json!({"signature": s, "date": date}));
        put(&json!({
            "module": module, "applied": current == applied,
            "current": part(&current, current_date), "active": part(&applied, applied_date),
        })
        .to_string())?;
        return Ok(0);
    }
    for (name, signature, date) in [("current", &current, current_date), ("active", &applied, applied_date)] {
        let text = signature.as_ref().map_or("none".to_owned(), |s| format!("{s} {date}"));
        put(&format!("{name:<8} {text}"))?;
    }
    if current != applied {
        put("the current configuration is not the active one")?;
    }
    Ok(0)
}

/// `sk-module deconfig`: the module is no longer configured on this node. Its replicas, logs and history stay.
pub(crate) fn deconfig(roots: &Roots, module: &str) -> Result<u8, Failure> {
    let active = roots.module_active(module);
    if !active.exists() {
        return Err(Failure::new(exit::REFUSED, format!("module {module} has no applied configuration")));
    }
    let _lock = stage::lock(roots, module)?;
    let (state, _, _) = client::state_pair(roots, module)?;
    if state != "STOP" {
        return Err(Failure::new(exit::REFUSED, format!("module {module} is in {state}: stop it first"))
            .hint(format!("sk-module stop --wait -m {module}")));
    }
    let instance = Instance::load(roots, module)?;
    stage::script(&instance, &active, "deconfig")?;
    super::dismiss_idle_runner(roots, module)?;
    let idle = crate::switches::lock_idle(roots, module)?;
    if idle.is_none() {
        return Err(Failure::new(exit::REFUSED, format!("module {module} was started meanwhile")));
    }
    let gone = roots.module_var(module).join("active.gone");
    super::remove_tree(&gone)?;
    fs::rename(&active, &gone).map_err(|e| Failure::system(active.display(), e))?;
    sys::files::sync_directory(&roots.module_var(module)).map_err(|e| Failure::system(active.display(), e))?;
    super::remove_tree(&gone)?;
    super::forget_switches(roots, module)?;
    crate::switches::forget_boot(&roots.module_var(module)).map_err(|e| Failure::system("the switch boot", e))?;
    put(&format!("module {module} is no longer configured"))?;
    Ok(0)
}
