//! Which switches outlive the runner, and how are they set with one and without?
//!
//! `errd`, `checker`, `failover` and `boot` hold until the opposite command or the next `config`. A runner is asked; without one the files that
//! its successor reads are changed under the runner's lock, so that neither misses the other.

use crate::boot::applied_modules;
use crate::history::{Assignment, History, latest};
use crate::log::ModuleLog;
use crate::{Failure, client, exit, instance};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use sys::lock::LockFile;
use sys::roots::Roots;

/// How long a runner that comes up or goes down is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The command `boot on|off`, in the module's working directory.
const BOOT: &str = "boot";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    Errd,
    Checker,
    Failover,
    Boot,
}

impl Switch {
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Errd, Self::Checker, Self::Failover, Self::Boot].into_iter().find(|s| s.name() == name)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Errd => "errd",
            Self::Checker => "checker",
            Self::Failover => "failover",
            Self::Boot => "boot",
        }
    }
}

pub(crate) const fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Sets a switch, whether the module has a runner or not.
pub(crate) fn set(roots: &Roots, module: &str, switch: Switch, on: bool) -> Result<u8, Failure> {
    let origin = client::origin();
    let request =
        json!({"verb": "usersetting", "name": switch.name(), "value": word(on), "origin": origin, "identity": null});
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client::ask(roots, module, &request) {
            Ok(Some(_)) => return Ok(0),
            // It ended while it was asked.
            Err(failure) if failure.code != exit::NO_RUNNER => return Err(failure),
            Ok(None) | Err(_) => {}
        }
        if !roots.module_active(module).join("conf/userconfig.xml").exists() {
            return Err(Failure::new(exit::BAD_CONFIGURATION, format!("module {module} has no applied configuration"))
                .hint(format!("apply it with: sk-module config -m {module}")));
        }
        if let Some(_lock) = lock_idle(roots, module)? {
            store(&roots.module_var(module), switch, on)?;
            note(roots, module, switch, on, &origin);
            return Ok(0);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(exit::TIMEOUT, format!("the runner of {module} neither answers nor ends"))
                .hint(format!("see {}/log", roots.module_var(module).display())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The lock of a module that has no runner and no child of a former one.
pub(crate) fn lock_idle(roots: &Roots, module: &str) -> Result<Option<LockFile>, Failure> {
    let run = roots.module_run(module);
    let path = run.join("lock");
    std::fs::create_dir_all(&run).map_err(|e| Failure::system(run.display(), e))?;
    let lock = LockFile::open(&path).map_err(|e| Failure::system(path.display(), e))?;
    let free = lock.try_exclusive().map_err(|e| Failure::system(path.display(), e))?;
    Ok(free.then_some(lock))
}

/// Changes what the next runner reads.
fn store(user_var: &Path, switch: Switch, on: bool) -> Result<(), Failure> {
    let failed =
        |e: std::io::Error| Failure::system(format!("the switch {} of {}", switch.name(), user_var.display()), e);
    match switch {
        Switch::Errd => instance::switch_errd(user_var, on).map_err(failed),
        Switch::Boot => store_boot(user_var, on).map_err(failed),
        Switch::Failover | Switch::Checker => {
            let mut core = instance::load_core(user_var, &mut |message| sys::warn!("sk-module: {message}"));
            if switch == Switch::Checker {
                core.checkers_off = !on;
            } else {
                core.failover_override = Some(on);
            }
            instance::save_core(user_var, &core).map_err(failed)
        }
    }
}

/// Log and history say what was done, as a runner would have written it.
fn note(roots: &Roots, module: &str, switch: Switch, on: bool, origin: &str) {
    let user_var = roots.module_var(module);
    match ModuleLog::open(&user_var.join("log")) {
        Ok(mut log) => {
            log.write('U', "safekit", &format!("Action {} {} called by {origin}", switch.name(), word(on)));
        }
        Err(error) => sys::warn!("sk-module: {}/log: {error}", user_var.display()),
    }
    let assignment = Assignment {
        t: wire::time::rfc3339_now(),
        name: format!("usersetting.{}", switch.name()),
        value: word(on).to_owned(),
        kept: true,
        carried: false,
    };
    History::open(&user_var).note(&assignment, latest(&user_var).into_values());
}

/// What `boot on|off` said last; None when the attribute decides.
pub(crate) fn stored_boot(user_var: &Path) -> Option<bool> {
    match sys::files::read_bounded(&user_var.join(BOOT), 16).ok()?.as_slice() {
        b"on\n" => Some(true),
        b"off\n" => Some(false),
        _ => None,
    }
}

pub(crate) fn store_boot(user_var: &Path, on: bool) -> std::io::Result<()> {
    sys::files::write_durably(&user_var.join(BOOT), format!("{}\n", word(on)).as_bytes(), 0o644)
}

/// A configuration whose attribute `boot` says something else than `ignore` replaces what was commanded.
pub(crate) fn forget_boot(user_var: &Path) -> std::io::Result<()> {
    sys::files::remove(&user_var.join(BOOT))
}

/// `sk-module boot status`.
pub(crate) fn boot_status(roots: &Roots, module: Option<&str>, as_json: bool) -> Result<u8, Failure> {
    let modules = match module {
        Some(module) => vec![module.to_owned()],
        None => applied_modules(roots)?,
    };
    for module in modules {
        let file = roots.module_active(&module).join("conf/userconfig.xml");
        let (parsed, _) = config::load_module(&file, &|name| std::env::var(name).ok());
        let Some(parsed) = parsed else {
            return Err(Failure::new(exit::BAD_CONFIGURATION, format!("module {module} has no applied configuration"))
                .hint(format!("apply it with: sk-module config -m {module}")));
        };
        let commanded = stored_boot(&roots.module_var(&module));
        let (value, by) = match (commanded, parsed.service.boot) {
            (Some(on), _) => (word(on), "command"),
            (None, config::Boot::On) => ("on", "configuration"),
            (None, config::Boot::Auto) => ("auto", "configuration"),
            (None, config::Boot::Off) => ("off", "configuration"),
            (None, config::Boot::Ignore) => ("off", "default"),
        };
        sys::failure::put(&if as_json {
            json!({"module": module, "boot": value, "by": by}).to_string()
        } else {
            format!("{module:<24} {value:<5} ({by})")
        })?;
    }
    Ok(0)
}
