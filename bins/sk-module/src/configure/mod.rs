//! How does a configuration become the applied one: check, then replace as a whole.

mod change;
mod info;
mod stage;

use crate::instance::{self, Instance};
use crate::{Failure, client, exit};
pub(crate) use change::Plan;
use config::{Cluster, Diagnostics, Module};
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use sys::roots::Roots;

pub(crate) use info::{confcheck, confinfo, deconfig};
pub(crate) use stage::{exchange, is_build, put as put_file, recover, staged};

/// The signature of a configuration, as far as it can be read.
pub(crate) fn signature_of(root: &Path) -> Option<String> {
    root.join("conf/userconfig.xml").exists().then(|| info::signature(root).ok()).flatten()
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Prints findings on stderr: with the source lines on a terminal, one line each otherwise.
pub(crate) fn show(found: &Diagnostics) {
    let text = if std::io::stderr().is_terminal() {
        found.report(std::env::var_os("NO_COLOR").is_none())
    } else {
        found.plain()
    };
    // Nobody may be there to read it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Findings where the command was asked for: words on stderr, or JSON lines on stdout.
fn tell(found: &Diagnostics, json: bool) -> Result<(), Failure> {
    if !json {
        show(found);
        return Ok(());
    }
    let lines = found.json_lines();
    if lines.is_empty() { Ok(()) } else { sys::failure::put(lines.trim_end()) }
}

/// `sk-module check FILE`.
pub(crate) fn check(roots: &Roots, file: &Path, cluster_file: Option<&Path>, json: bool) -> Result<u8, Failure> {
    let default = roots.cluster_xml();
    let cluster_file = cluster_file.or_else(|| default.exists().then_some(default.as_path()));
    let mut bad = false;
    let mut cluster = None;
    if let Some(path) = cluster_file.filter(|path| *path != file) {
        let (read, found) = config::load_cluster(path);
        bad |= found.has_errors();
        tell(&found, json)?;
        cluster = read;
    }
    let found = config::check_file(file, &environment, cluster.as_ref());
    bad |= found.has_errors();
    tell(&found, json)?;
    if !bad && !json {
        say!("{}: no errors", file.display());
    }
    Ok(if bad { exit::BAD_CONFIGURATION } else { 0 })
}

/// Reads a module's file and the cluster's; findings are printed, errors fail.
pub(crate) fn read(roots: &Roots, path: &Path) -> Result<(Module, Cluster), Failure> {
    read_as(roots, path, false)
}

fn read_as(roots: &Roots, path: &Path, json: bool) -> Result<(Module, Cluster), Failure> {
    let cluster_file = roots.cluster_xml();
    if !cluster_file.exists() {
        return Err(Failure::new(exit::BAD_CONFIGURATION, format!("{} is missing", cluster_file.display()))
            .hint("it names the nodes and their networks: see man 5 sk-cluster"));
    }
    let (cluster, found) = config::load_cluster(&cluster_file);
    tell(&found, json)?;
    let (module, found) = config::load_module(path, &environment);
    tell(&found, json)?;
    let (Some(module), Some(cluster)) = (module, cluster) else {
        return Err(Failure::new(exit::BAD_CONFIGURATION, "the configuration has errors; nothing was applied"));
    };
    let found = config::check_module_against_cluster(&module, &cluster);
    tell(&found, json)?;
    if found.has_errors() {
        return Err(Failure::new(exit::BAD_CONFIGURATION, "the module does not fit the cluster; nothing was applied"));
    }
    Ok((module, cluster))
}

/// The file to edit; it must be there.
fn editable(roots: &Roots, module: &str) -> Result<PathBuf, Failure> {
    let file = roots.module_source(module).join("conf/userconfig.xml");
    if file.exists() {
        return Ok(file);
    }
    Err(Failure::new(exit::BAD_CONFIGURATION, format!("{} is missing", file.display()))
        .hint("install a module: sk-module install; sk-module list --available shows templates"))
}

/// `sk-module config`: the editable configuration becomes the applied one, at once or not at all. `dry`: only says what would change.
pub(crate) fn config(roots: &Roots, module: &str, id: Option<u16>, dry: bool, json: bool) -> Result<u8, Failure> {
    let source = roots.module_source(module);
    let file = editable(roots, module)?;
    let (parsed, cluster) = read(roots, &file)?;
    let id = id.or_else(|| crate::packages::known_id(roots, module)).unwrap_or(1);
    crate::neighbours::check(roots, module, id, &parsed)?;
    wire::key::ClusterKey::load(&roots.cluster_key()).map_err(|error| {
        Failure::new(exit::BAD_CONFIGURATION, error.to_string())
            .hint("make one with sk-module cluster-key, and copy it to every node")
    })?;
    let expanded = parsed.expanded_xml();
    let scripts = parsed.user.is_some();
    crate::supervision::check_executables(&parsed, &source.join("bin"))?;
    let new = Instance::assemble(roots, module, id, parsed, &cluster)?;
    if scripts {
        check_scripts(&source.join("bin"))?;
    }
    let (state, readiness, _) = client::state_pair(roots, module)?;
    let running = state != "STOP";
    // An applied configuration that this version cannot read is replaced, not compared.
    let plan = Instance::load_quietly(roots, module).map(|old| Plan::between(&old, &new, &source.join("bin")));
    if dry {
        return if json {
            plan_as_json(plan.as_ref(), module, &state, &readiness)
        } else {
            show_plan(plan.as_ref(), &state, &readiness)
        };
    }
    if running {
        if let Some(plan) = &plan {
            refuse_fixed(&plan.fixed(), module, &state)?;
        }
        if !may_change(&state, &readiness) {
            return Err(Failure::new(
                exit::REFUSED,
                format!("module {module} is in {state} {readiness}: the new configuration cannot be deployed"),
            )
            .hint(
                "apply it in STOP; or, where only dynamic attributes differ, in ALONE Ready, UP Ready or WAIT NotReady",
            ));
        }
    }
    let _lock = stage::lock(roots, module)?;
    stage::recover(roots, module);
    let build = format!("{}-{}", std::process::id(), sys::clock::wall_ms());
    let built = stage::build(roots, &new, &expanded, &info::signature(&source)?, &build)
        .and_then(|()| crate::wrappers::write_outside(roots, &new));
    if let Err(failure) = built {
        stage::clean(roots, module)?;
        return Err(failure);
    }
    let touched = hand_over(roots, module, &new, &build);
    if touched.is_err() {
        stage::clean(roots, module)?;
    }
    let touched = touched?;
    if !json {
        for line in &touched {
            say!("{line}");
        }
    }
    stage::clean(roots, module)?;
    stage::keep_last(roots, module)?;
    if json {
        say!("{}", serde_json::json!({"module": module, "id": id, "touched": touched}));
    } else {
        say!("module {module} (id {id}) is configured");
    }
    Ok(0)
}

/// States in which a running module takes a configuration.
pub(crate) fn may_change(state: &str, readiness: &str) -> bool {
    matches!((state, readiness), ("STOP" | "WAIT", "NotReady") | ("ALONE" | "UP", "Ready"))
}

fn refuse_fixed(fixed: &[String], module: &str, state: &str) -> Result<(), Failure> {
    if fixed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit::REFUSED, fixed_words(fixed, module, state)).hint(format!(
        "sk-module stop --wait -m {module}, then config, then start; sk-module config --plan shows all changes"
    )))
}

/// Why a configuration cannot be applied to a running module.
pub(crate) fn fixed_words(fixed: &[String], module: &str, state: &str) -> String {
    format!("module {module} is in {state}, and this can only change in STOP: {}", fixed.join("; "))
}

fn show_plan(plan: Option<&Plan>, state: &str, readiness: &str) -> Result<u8, Failure> {
    let Some(plan) = plan else {
        sys::failure::put("the module would be configured for the first time")?;
        return Ok(0);
    };
    if plan.is_empty() {
        sys::failure::put("nothing would change")?;
        return Ok(0);
    }
    for line in plan.lines(state != "STOP") {
        sys::failure::put(&line)?;
    }
    if !is_possible(plan, state, readiness) {
        sys::failure::put(&format!("not possible in {state} {readiness}"))?;
        return Ok(exit::REFUSED);
    }
    Ok(0)
}

/// Whether a plan can be carried out in this state.
fn is_possible(plan: &Plan, state: &str, readiness: &str) -> bool {
    state == "STOP" || plan.is_empty() || plan.fixed().is_empty() && may_change(state, readiness)
}

/// The same for programs. `possible`: whether it can be applied in the present state; exit code 1 when it cannot.
fn plan_as_json(plan: Option<&Plan>, module: &str, state: &str, readiness: &str) -> Result<u8, Failure> {
    let possible = plan.is_none_or(|plan| is_possible(plan, state, readiness));
    let plan = plan.map(Plan::json);
    say!(
        "{}",
        serde_json::json!({"module": module, "state": state, "readiness": readiness, "first": plan.is_none(),
            "possible": possible, "plan": plan})
    );
    Ok(if possible { 0 } else { exit::REFUSED })
}

/// The runner takes the staged configuration, between two events; without a runner it is exchanged here. What was touched, in words.
fn hand_over(roots: &Roots, module: &str, new: &Instance, build: &str) -> Result<Vec<String>, Failure> {
    let request = serde_json::json!({"verb": "reconfigure", "build": build, "origin": client::origin()});
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match client::ask(roots, module, &request) {
            Ok(Some(reply)) if reply["busy"] == serde_json::json!(true) => {
                if std::time::Instant::now() >= deadline {
                    return Err(Failure::new(exit::TIMEOUT, format!("module {module} is busy: nothing was applied"))
                        .hint("wait for the end of what it does (sk-module log), then apply it again"));
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
                continue;
            }
            Ok(Some(reply)) => {
                let lines = reply["touched"].as_array().into_iter().flatten();
                return Ok(lines.filter_map(|l| l.as_str().map(str::to_owned)).collect());
            }
            Err(failure) if failure.code != exit::NO_RUNNER => return Err(failure),
            // It ended while it was asked, with the old or the new configuration: the exchange below tells.
            Ok(None) | Err(_) => {}
        }
        if let Some(_idle) = crate::switches::lock_idle(roots, module)? {
            if stage::is_build(&stage::staged(roots, module), build) {
                stage::exchange(roots, module).map_err(|e| Failure::system("the applied configuration", e))?;
                // The next runner writes it again: without it, only sk-arbiter -m would ask a former arbiter until then.
                if let Err(error) = new.write_arbiter_spec() {
                    sys::warn!("sk-module: arbiter.json: {error}");
                }
            }
            forget_switches(roots, module)?;
            if new.config.service.boot != config::Boot::Ignore {
                crate::switches::forget_boot(&roots.module_var(module))
                    .map_err(|e| Failure::system("the switch boot", e))?;
            }
            return Ok(Vec::new());
        }
        if std::time::Instant::now() >= deadline {
            return Err(Failure::new(exit::TIMEOUT, format!("the runner of {module} neither answers nor ends")));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// `errd off`, `checker off` and `failover off` hold until the next configuration.
fn forget_switches(roots: &Roots, module: &str) -> Result<(), Failure> {
    let var = roots.module_var(module);
    let errd_off = var.join(instance::ERRD_OFF);
    sys::files::remove(&errd_off).map_err(|e| Failure::system(errd_off.display(), e))?;
    let mut core = instance::load_core(&var, &mut |message| sys::warn!("sk-module: {message}"));
    if core.failover_override.take().is_some() | std::mem::take(&mut core.checkers_off) {
        instance::save_core(&var, &core).map_err(|e| Failure::system(var.join("core.json").display(), e))?;
    }
    Ok(())
}

/// A runner in STOP ends, and is waited for.
fn dismiss_idle_runner(roots: &Roots, module: &str) -> Result<(), Failure> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let request = serde_json::json!({"verb": "leave"});
    loop {
        match client::ask(roots, module, &request) {
            Ok(None) => return Ok(()),
            // It ended before its answer was read: what was asked for.
            Err(failure) if failure.code != exit::NO_RUNNER => return Err(failure),
            Ok(Some(_)) | Err(_) => {}
        }
        if std::time::Instant::now() >= deadline {
            return Err(Failure::new(exit::TIMEOUT, format!("the runner of {module} does not end")));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
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

pub(crate) fn remove_tree(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::system(path.display(), error)),
        _ => Ok(()),
    }
}

/// Copies files, directories and links, with their modes.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), Failure> {
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
    make_cluster_key(&path)?;
    say!("{}", path.display());
    Ok(0)
}

/// Writes a new key where none is.
pub(crate) fn make_cluster_key(path: &Path) -> Result<(), Failure> {
    let key = wire::key::ClusterKey::generate().map_err(|e| Failure::system("random source", e))?;
    key.save(path).map_err(|e| Failure::new(exit::SYSTEM, e.to_string()))
}
