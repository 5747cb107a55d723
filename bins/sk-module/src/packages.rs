//! How does a module come to this node, and how does it leave it: packages, templates, and what is kept of what was there.

use crate::configure::{copy_tree, remove_tree, show};
use crate::{Failure, client, exit, instance};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use sys::failure::put;
use sys::roots::{Roots, is_module_name};

/// The number of a module that was not configured yet, in its directory.
const ID: &str = "id";
/// Packages kept of each module that was taken away or replaced.
const BACKUPS_KEPT: usize = 3;

/// Says what is wrong with a package in the words of this command.
fn refused(error: &package::Error) -> Failure {
    let code = if error.is_system() { exit::SYSTEM } else { exit::REFUSED };
    let failure = Failure::new(code, error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn system(path: &Path) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |error| Failure::system(path.display(), error)
}

fn templates(roots: &Roots) -> PathBuf {
    roots.safe.join("templates")
}

fn backup(roots: &Roots) -> PathBuf {
    roots.var.join("backup")
}

/// `sk-module list --available`: what `install` finds by name.
pub(crate) fn available(roots: &Roots, as_json: bool) -> Result<u8, Failure> {
    let templates = template_names(roots).into_iter().map(|name| ("template", name));
    let packages = packages_in(&backup(roots)).into_iter().map(|path| ("package", path.display().to_string()));
    for (kind, source) in templates.chain(packages) {
        put(&if as_json { json!({"kind": kind, "source": source}).to_string() } else { source })?;
    }
    Ok(0)
}

/// Templates of the product, by name.
pub(crate) fn template_names(roots: &Roots) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(templates(roots))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(package::CONFIGURATION).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_module_name(name))
        .collect();
    names.sort();
    names
}

fn packages_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "safe")).collect();
    found.sort();
    found
}

/// Where a module is installed from: a file, a directory, or the name of a template.
fn locate(roots: &Roots, named: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(named);
    if path.exists() {
        return Ok(path.to_owned());
    }
    if is_module_name(named) {
        let template = templates(roots).join(named);
        if template.join(package::CONFIGURATION).is_file() {
            return Ok(template);
        }
    }
    Err(Failure::new(exit::REFUSED, format!("there is neither a file nor a template {named}")).hint(format!(
        "name a .safe package, a directory with {}, or a template: {}",
        package::CONFIGURATION,
        template_names(roots).join(" ")
    )))
}

/// `sk-module install`: the editable configuration of a module, from a package or a template. What is applied stays as it is.
pub(crate) fn install(
    roots: &Roots,
    module: &str,
    source: Option<&str>,
    id: Option<u16>,
    again: bool,
) -> Result<u8, Failure> {
    let target = roots.module_source(module);
    if target.exists() && !again {
        return Err(Failure::new(exit::REFUSED, format!("there is a module {module} already: {}", target.display()))
            .hint(format!("sk-module install -m {module} --reinstall replaces its configuration and keeps a package of the old one")));
    }
    let from = locate(roots, source.unwrap_or(module))?;
    let modules = roots.etc.join("modules");
    fs::create_dir_all(&modules).map_err(system(&modules))?;
    let staged = modules.join(format!(".{module}.new-{}", std::process::id()));
    remove_tree(&staged)?;
    let placed = stage(&from, &staged).and_then(|packed| {
        let id = choose_id(roots, module, id, packed)?;
        fs::write(staged.join(ID), format!("{id}\n")).map_err(system(&staged))?;
        sys::files::sync_file_system(&staged).map_err(system(&staged))?;
        if target.exists() {
            keep(roots, module)?;
        }
        place(&staged, &target)?;
        Ok(id)
    });
    // After the exchange this is what was there before.
    remove_tree(&staged)?;
    let id = placed?;
    let file = target.join(package::CONFIGURATION);
    let cluster = roots.cluster_xml().exists().then(|| config::load_cluster(&roots.cluster_xml()).0).flatten();
    let found = config::check_file(&file, &|name| std::env::var(name).ok(), cluster.as_ref());
    show(&found);
    put(&format!("module {module} (id {id}) is installed in {}", target.display()))?;
    let edit = if found.has_errors() { format!("edit {}, then ", file.display()) } else { String::new() };
    put(&format!("next: {edit}sk-module config -m {module}"))?;
    Ok(0)
}

/// Brings the files into the new directory `staged`; the number the module had where it was packed.
fn stage(from: &Path, staged: &Path) -> Result<Option<u16>, Failure> {
    if from.is_dir() {
        if !from.join(package::CONFIGURATION).is_file() {
            return Err(Failure::new(exit::REFUSED, format!("{} has no {}", from.display(), package::CONFIGURATION))
                .hint("name the directory that holds conf and bin"));
        }
        fs::create_dir(staged).map_err(system(staged))?;
        for part in ["conf", "bin"] {
            if from.join(part).is_dir() {
                copy_tree(&from.join(part), &staged.join(part))?;
            }
        }
        if from.join("README.md").is_file() {
            fs::copy(from.join("README.md"), staged.join("README.md")).map_err(system(from))?;
        }
        return Ok(None);
    }
    let contents = package::unpack(from, staged).map_err(|e| refused(&e))?;
    if !contents.left_out.is_empty() {
        let shown: Vec<&str> = contents.left_out.iter().take(5).map(String::as_str).collect();
        let more = contents.left_out.len() - shown.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        put(&format!("left out, no part of a module: {}{more}", shown.join(" ")))?;
    }
    Ok(contents.id)
}

/// A staged directory becomes the module, in one step; what was there stands in its place afterwards.
pub(crate) fn place(staged: &Path, target: &Path) -> Result<(), Failure> {
    let done = if target.exists() {
        renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE)
    } else {
        renameat_with(CWD, staged, CWD, target, RenameFlags::NOREPLACE)
    };
    done.map_err(|e| Failure::system(target.display(), e))?;
    target.parent().map_or(Ok(()), |p| sys::files::sync_directory(p).map_err(system(p)))
}

/// The number a module was installed with.
fn installed_id(roots: &Roots, module: &str) -> Option<u16> {
    let bytes = sys::files::read_bounded(&roots.module_source(module).join(ID), 16).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok().filter(|id| (1..=1000).contains(id))
}

/// The number a module has: as it was applied, else as it was installed.
pub(crate) fn known_id(roots: &Roots, module: &str) -> Option<u16> {
    instance::applied_id(roots, module).or_else(|| installed_id(roots, module))
}

/// Numbers must be the same on all nodes: the one asked for, the one it was packed with, the one it has, or the lowest free one.
pub(crate) fn choose_id(roots: &Roots, module: &str, asked: Option<u16>, packed: Option<u16>) -> Result<u16, Failure> {
    let of = |name: &str| known_id(roots, name);
    let own = of(module);
    let others: Vec<(String, u16)> = crate::show::module_names(roots)?
        .into_iter()
        .filter(|name| name != module)
        .filter_map(|name| of(&name).map(|id| (name, id)))
        .collect();
    let wanted = asked.or(own).or(packed);
    if let Some(id) = wanted {
        if let Some((other, _)) = others.iter().find(|(_, taken)| *taken == id) {
            return Err(Failure::new(exit::REFUSED, format!("module {other} already has the id {id}"))
                .hint(format!("choose another, the same on all nodes: sk-module install -m {module} --id N")));
        }
        return Ok(id);
    }
    (1..=1000)
        .find(|id| others.iter().all(|(_, taken)| taken != id))
        .ok_or_else(|| Failure::new(exit::REFUSED, "all ids from 1 to 1000 are taken"))
}

/// `sk-module package`: the editable configuration as one file, for other nodes.
pub(crate) fn pack(roots: &Roots, module: &str, file: &Path) -> Result<u8, Failure> {
    let names = write(roots, module, file)?;
    put(&format!("{}: {} files of module {module}", file.display(), names.len()))?;
    put(&format!(
        "on another node: sk-module install -m {module} {}",
        file.file_name().unwrap_or_default().to_string_lossy()
    ))?;
    Ok(0)
}

fn write(roots: &Roots, module: &str, file: &Path) -> Result<Vec<String>, Failure> {
    let source = roots.module_source(module);
    if !source.exists() {
        return Err(Failure::new(exit::REFUSED, format!("there is no module {module} on this node"))
            .hint("sk-module list shows the modules"));
    }
    if file.symlink_metadata().is_ok() {
        return Err(Failure::new(exit::REFUSED, format!("{} exists already", file.display()))
            .hint("name a new file, or remove this one"));
    }
    let id = known_id(roots, module);
    package::pack(&source, id, file).map_err(|e| refused(&e))
}

/// Packs the present configuration beside the two kept before it.
fn keep(roots: &Roots, module: &str) -> Result<PathBuf, Failure> {
    let source = roots.module_source(module);
    for entry in fs::read_dir(&source).map_err(system(&source))?.flatten() {
        if !["conf", "bin", "README.md", ID].iter().any(|part| entry.file_name() == *part) {
            return Err(Failure::new(
                exit::REFUSED,
                format!("{} is no part of a module and would be lost", entry.path().display()),
            )
            .hint("move it away first"));
        }
    }
    let directory = backup(roots);
    fs::create_dir_all(&directory).map_err(system(&directory))?;
    let stamp = sys::clock::local_time("%Y-%m-%d_%H%M%S");
    let file = directory.join(format!("{module}_{stamp}.safe"));
    // A second one within a second.
    sys::files::remove(&file).map_err(system(&file))?;
    write(roots, module, &file)?;
    let own: Vec<PathBuf> = packages_in(&directory)
        .into_iter()
        .filter(|path| {
            let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            // A date follows the module's name: AM_1 is not a package of AM.
            name.strip_prefix(module).and_then(|rest| rest.strip_prefix('_')).is_some_and(|d| d.len() == stamp.len())
        })
        .collect();
    for old in own.iter().take(own.len().saturating_sub(BACKUPS_KEPT)) {
        fs::remove_file(old).map_err(system(old))?;
    }
    Ok(file)
}

/// `sk-module uninstall`: the module's configuration leaves the node, but for a package of it; replicas, logs and history stay.
pub(crate) fn uninstall(roots: &Roots, module: &str) -> Result<u8, Failure> {
    let source = roots.module_source(module);
    let applied = roots.module_active(module).exists();
    if !source.exists() && !applied {
        return Err(Failure::new(exit::REFUSED, format!("there is no module {module} on this node"))
            .hint("sk-module list shows the modules"));
    }
    let (state, _, _) = client::state_pair(roots, module)?;
    if state != "STOP" {
        return Err(Failure::new(exit::REFUSED, format!("module {module} is in {state}: stop it first"))
            .hint(format!("sk-module stop --wait -m {module}")));
    }
    let kept = if source.exists() { Some(keep(roots, module)?) } else { None };
    if applied {
        crate::configure::deconfig(roots, module)?;
    }
    if let Some(file) = kept {
        let gone = roots.etc.join("modules").join(format!(".{module}.gone"));
        remove_tree(&gone)?;
        fs::rename(&source, &gone).map_err(system(&source))?;
        remove_tree(&gone)?;
        put(&format!("module {module} is uninstalled; a package of it is {}", file.display()))?;
    }
    put(&format!("replicas, logs and history stay in {}", roots.module_var(module).display()))?;
    Ok(0)
}
