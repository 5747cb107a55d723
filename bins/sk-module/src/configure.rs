//! How does a configuration become the applied one: check, then replace as a whole.

use crate::instance::{self, Instance};
use crate::{Failure, client, exit};
use config::{Cluster, Diagnostics, Module};
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use sys::roots::Roots;

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Prints findings on stderr: with the source lines on a terminal, one line each otherwise.
fn show(found: &Diagnostics) {
    let terminal = std::io::stderr().is_terminal();
    if terminal {
        eprint!("{}", found.report(std::env::var_os("NO_COLOR").is_none()));
    } else {
        eprint!("{}", found.plain());
    }
}

/// `sk-module check FILE`.
pub(crate) fn check(roots: &Roots, file: &Path, cluster_file: Option<&Path>) -> Result<u8, Failure> {
    let default = roots.cluster_xml();
    let cluster_file = cluster_file.or_else(|| default.exists().then_some(default.as_path()));
    let mut bad = false;
    let mut cluster = None;
    if let Some(path) = cluster_file.filter(|path| *path != file) {
        let (read, found) = config::load_cluster(path);
        bad |= found.has_errors();
        show(&found);
        cluster = read;
    }
    let found = config::check_file(file, &environment, cluster.as_ref());
    bad |= found.has_errors();
    show(&found);
    if !bad {
        println!("{}: no errors", file.display());
    }
    Ok(if bad { exit::BAD_CONFIGURATION } else { 0 })
}

/// Reads a module's file and the cluster's; findings are printed, errors fail.
pub(crate) fn read(roots: &Roots, path: &Path) -> Result<(Module, Cluster), Failure> {
    let cluster_file = roots.cluster_xml();
    if !cluster_file.exists() {
        return Err(Failure::new(exit::BAD_CONFIGURATION, format!("{} is missing", cluster_file.display()))
            .hint("it names the nodes and their networks: see man 5 sk-cluster"));
    }
    let (cluster, found) = config::load_cluster(&cluster_file);
    show(&found);
    let (module, found) = config::load_module(path, &environment);
    show(&found);
    let (Some(module), Some(cluster)) = (module, cluster) else {
        return Err(Failure::new(exit::BAD_CONFIGURATION, "the configuration has errors; nothing was applied"));
    };
    let found = config::check_module_against_cluster(&module, &cluster);
    show(&found);
    if found.has_errors() {
        return Err(Failure::new(exit::BAD_CONFIGURATION, "the module does not fit the cluster; nothing was applied"));
    }
    Ok((module, cluster))
}

/// `sk-module config`: the editable configuration becomes the applied one, at once or not at all.
pub(crate) fn config(roots: &Roots, module: &str, id: Option<u16>) -> Result<u8, Failure> {
    let source = roots.module_source(module);
    let file = source.join("conf/userconfig.xml");
    if !file.exists() {
        return Err(Failure::new(exit::BAD_CONFIGURATION, format!("{} is missing", file.display()))
            .hint("copy a module there, with its conf and bin"));
    }
    let (state, _, _) = client::state_pair(roots, module)?;
    if state != "STOP" {
        return Err(Failure::new(
            exit::REFUSED,
            format!("module {module} is in {state}: its configuration is applied in STOP only"),
        )
        .hint(format!("sk-module stop --wait -m {module}")));
    }
    let (parsed, cluster) = read(roots, &file)?;
    let id = id.or_else(|| instance::applied_id(roots, module)).unwrap_or(1);
    ports_are_free(roots, module, id)?;
    wire::key::ClusterKey::load(&roots.cluster_key()).map_err(|error| {
        Failure::new(exit::BAD_CONFIGURATION, error.to_string())
            .hint("make one with sk-module cluster-key, and copy it to every node")
    })?;
    let expanded = parsed.expanded_xml();
    let scripts = parsed.user.is_some();
    Instance::assemble(roots, module, id, parsed, &cluster)?;
    if scripts {
        check_scripts(&source.join("bin"))?;
    }

    let var = roots.module_var(module);
    let fresh = var.join("active.new");
    let old = var.join("active.old");
    remove_tree(&fresh)?;
    for part in ["conf", "bin"] {
        if source.join(part).is_dir() {
            copy_tree(&source.join(part), &fresh.join(part))?;
        }
    }
    let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(|e| Failure::system(path.display(), e));
    write(fresh.join("conf/safeconf.xml"), &expanded)?;
    write(fresh.join("id"), &format!("{id}\n"))?;
    remove_tree(&old)?;
    let active = roots.module_active(module);
    let exchange = || -> std::io::Result<()> {
        if active.exists() {
            fs::rename(&active, &old)?;
        }
        fs::rename(&fresh, &active)?;
        sys::files::sync_directory(&var)
    };
    exchange().map_err(|e| Failure::system(active.display(), e))?;
    remove_tree(&old)?;
    // Before the runner ends: its successor reads them at once.
    forget_switches(roots, module)?;
    restart_idle_runner(roots, module);
    println!("module {module} (id {id}) is configured");
    Ok(0)
}

/// `errd off` and `failover off` hold until the next configuration.
fn forget_switches(roots: &Roots, module: &str) -> Result<(), Failure> {
    let var = roots.module_var(module);
    match fs::remove_file(var.join(instance::ERRD_OFF)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::system(var.join(instance::ERRD_OFF).display(), error));
        }
        _ => {}
    }
    let mut core = instance::load_core(&var, &mut |message| sys::warn!("sk-module: {message}"));
    if core.failover_override.take().is_some() {
        instance::save_core(&var, &core).map_err(|e| Failure::system(var.join("core.json").display(), e))?;
    }
    Ok(())
}

/// A runner in STOP has read the former configuration: it is told to end, the next start reads the new one.
fn restart_idle_runner(roots: &Roots, module: &str) {
    let request = serde_json::json!({"verb": "leave"});
    if let Err(failure) = client::ask(roots, module, &request)
        // It ended before its answer was read: what was asked for.
        && failure.code != exit::NO_RUNNER
    {
        sys::warn!("sk-module: the runner of {module} still has the former configuration: {}", failure.message);
    }
}

/// Two modules with one id would share ports.
fn ports_are_free(roots: &Roots, module: &str, id: u16) -> Result<(), Failure> {
    for other in crate::boot::applied_modules(roots)? {
        if other != module && instance::applied_id(roots, &other) == Some(id) {
            return Err(Failure::new(exit::BAD_CONFIGURATION, format!("module {other} already has the id {id}"))
                .hint(format!("choose another, the same on all nodes: sk-module config -m {module} --id N")));
        }
    }
    Ok(())
}

/// The scripts that the core calls must be executable: better known now than at a failover.
fn check_scripts(bin: &Path) -> Result<(), Failure> {
    const CALLED: [&str; 12] = [
        "prestart",
        "start_prim",
        "stop_prim",
        "start_both",
        "stop_both",
        "start_second",
        "stop_second",
        "start_sec",
        "stop_sec",
        "poststop",
        "transition",
        "update",
    ];
    if !bin.join("prestart").exists() {
        return Err(Failure::new(exit::BAD_CONFIGURATION, format!("{} is missing", bin.join("prestart").display()))
            .hint("every module with <user> has a prestart; by convention it calls the stop scripts"));
    }
    let plain: Vec<String> = CALLED
        .iter()
        .map(|name| bin.join(name))
        .filter(|path| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o111 == 0))
        .map(|path| path.display().to_string())
        .collect();
    if plain.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit::BAD_CONFIGURATION, format!("not executable: {}", plain.join(", ")))
        .hint(format!("chmod +x {}", plain.join(" "))))
}

fn remove_tree(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::system(path.display(), error)),
        _ => Ok(()),
    }
}

/// Copies files, directories and links, with their modes.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Failure::system(path, error)
    };
    fs::create_dir_all(to).map_err(failed(to))?;
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed(&source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(failed(&source))?;
            std::os::unix::fs::symlink(link, &target).map_err(failed(&target))?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(failed(&source))?;
        }
    }
    Ok(())
}

/// `sk-module cluster-key`.
pub(crate) fn cluster_key(roots: &Roots, output: Option<&Path>) -> Result<u8, Failure> {
    let path = output.map_or_else(|| roots.cluster_key(), Path::to_owned);
    if path.exists() {
        return Err(Failure::new(exit::REFUSED, format!("{} exists already", path.display()))
            .hint("remove it first if you mean to replace it, on every node"));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| Failure::system(parent.display(), e))?;
    }
    let key = wire::key::ClusterKey::generate().map_err(|e| Failure::system("random source", e))?;
    key.save(&path).map_err(|e| Failure::new(exit::SYSTEM, e.to_string()))?;
    println!("{}", path.display());
    Ok(0)
}
