//! How does a command reach a module's runner: the control socket, from the asking side.

use crate::boot::applied_modules;
use crate::cli::OnOff;
use crate::{Failure, exit};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use sys::roots::Roots;

/// Longest wait for a runner's answer: it answers between two events, never after a script.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a runner may take to come up. It may have to wait until the children of a former life are gone.
const RUNNER_START: Duration = Duration::from_secs(45);
/// Longest reply line accepted.
const REPLY_MAX: u64 = 4 * 1024 * 1024;

/// Opens the control socket; `None` when the module has no runner.
pub(crate) fn connect(roots: &Roots, module: &str) -> Result<Option<UnixStream>, Failure> {
    let path = roots.control_socket(module);
    match UnixStream::connect(&path) {
        Ok(stream) => {
            stream
                .set_read_timeout(Some(ANSWER))
                .and_then(|()| stream.set_write_timeout(Some(ANSWER)))
                .map_err(|e| Failure::system(path.display(), e))?;
            Ok(Some(stream))
        }
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(Failure::system(path.display(), error)),
    }
}

/// One request, one reply. `Ok(None)`: no runner.
pub(crate) fn ask(roots: &Roots, module: &str, request: &Value) -> Result<Option<Value>, Failure> {
    let Some(mut stream) = connect(roots, module)? else { return Ok(None) };
    let failed = |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::WouldBlock {
            Failure::new(exit::TIMEOUT, format!("the runner of {module} does not answer"))
                .hint(format!("see {}/log", roots.module_var(module).display()))
        } else {
            Failure::system(format!("the runner of {module}"), e)
        }
    };
    stream.write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream).take(REPLY_MAX).read_line(&mut line).map_err(failed)?;
    let reply: Value = serde_json::from_str(&line)
        .map_err(|_| Failure::new(exit::NO_RUNNER, format!("the runner of {module} ended while it was asked")))?;
    if reply["ok"] == json!(false) {
        let mut failure = Failure::new(
            reply["exit"].as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or(exit::REFUSED),
            reply["error"].as_str().unwrap_or("refused").to_owned(),
        );
        failure.hint = reply["hint"].as_str().map(str::to_owned);
        return Err(failure);
    }
    Ok(Some(reply))
}

fn origin() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
        .map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name)
}

/// Makes sure that the module has a runner: by systemd where it rules, else by a detached guard.
pub(crate) fn ensure_runner(roots: &Roots, module: &str, boot: bool) -> Result<(), Failure> {
    if connect(roots, module)?.is_some() {
        return Ok(());
    }
    if !roots.module_active(module).join("conf/userconfig.xml").exists() {
        return Err(Failure::new(exit::BAD_CONFIGURATION, format!("module {module} has no applied configuration"))
            .hint(format!("apply it with: sk-module config -m {module}")));
    }
    if Path::new("/run/systemd/system").exists() && unit_is_known(module) {
        let status = Command::new("systemctl")
            .args(["start", &format!("sk-module@{module}.service")])
            .status()
            .map_err(|e| Failure::system("systemctl", e))?;
        if !status.success() {
            return Err(Failure::new(exit::SYSTEM, format!("systemctl could not start sk-module@{module}.service"))
                .hint(format!("see: journalctl -u sk-module@{module}")));
        }
    } else {
        spawn_guard(roots, module, boot)?;
    }
    let deadline = Instant::now() + RUNNER_START;
    let mut pause = Duration::from_millis(5);
    while Instant::now() < deadline {
        if connect(roots, module)?.is_some() {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Err(Failure::new(exit::TIMEOUT, format!("the runner of {module} did not come up within {RUNNER_START:?}"))
        .hint(format!("see {}/runner.err", roots.module_run(module).display())))
}

fn unit_is_known(module: &str) -> bool {
    Command::new("systemctl")
        .args(["cat", &format!("sk-module@{module}.service")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn spawn_guard(roots: &Roots, module: &str, boot: bool) -> Result<(), Failure> {
    let run = roots.module_run(module);
    std::fs::create_dir_all(&run).map_err(|e| Failure::system(run.display(), e))?;
    let errors = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(run.join("runner.err"))
        .map_err(|e| Failure::system(run.join("runner.err").display(), e))?;
    let program = std::env::current_exe().map_err(|e| Failure::system("own program file", e))?;
    let mut command = Command::new(program);
    command.args(["guard", module]);
    if boot {
        command.arg("--boot");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).current_dir("/");
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    command.spawn().map_err(|e| Failure::system("sk-module guard", e))?;
    Ok(())
}

/// `start`, `prim`, `primforce`, `second`.
pub(crate) fn start(roots: &Roots, module: &str, verb: &str, full: bool, wait: bool) -> Result<u8, Failure> {
    ensure_runner(roots, module, false)?;
    let request = json!({"verb": verb, "full": full, "identity": null, "origin": origin()});
    if ask(roots, module, &request)?.is_none() {
        return Err(no_runner(module));
    }
    if wait { wait_stable(roots, module, verb, None) } else { Ok(0) }
}

/// Verbs on a running module.
pub(crate) fn act(
    roots: &Roots,
    module: &str,
    verb: &str,
    identity: Option<String>,
    wait: bool,
) -> Result<u8, Failure> {
    let request = json!({"verb": verb, "full": false, "identity": identity, "origin": origin()});
    match ask(roots, module, &request)? {
        Some(_) if wait => wait_stable(roots, module, verb, None),
        Some(_) => Ok(0),
        // Without a runner the module is in STOP already.
        None if verb == "stop" || verb == "forcestop" => Ok(0),
        None => Err(no_runner(module)),
    }
}

fn no_runner(module: &str) -> Failure {
    Failure::new(exit::NO_RUNNER, format!("module {module} is not running"))
        .hint(format!("start it with: sk-module start -m {module}"))
}

/// Stops every module that has a runner, at the shutdown of the host, and waits until all are in STOP.
pub(crate) fn shutdown(roots: &Roots) -> Result<u8, Failure> {
    let modules = applied_modules(roots)?;
    let mut asked = Vec::new();
    for module in modules {
        match ask(
            roots,
            &module,
            &json!({"verb": "shutdown", "full": false, "identity": null, "origin": "SYSTEM/root"}),
        ) {
            Ok(Some(_)) => asked.push(module),
            Ok(None) => {}
            Err(failure) => sys::warn!("sk-module: {module}: {}", failure.message),
        }
    }
    let mut worst = 0;
    for module in asked {
        worst = worst.max(wait_stable(roots, &module, "shutdown", None)?);
    }
    Ok(worst)
}

/// `name readiness` of the runner's state; a module without a runner is in STOP.
pub(crate) fn state_pair(roots: &Roots, module: &str) -> Result<(String, String, Value), Failure> {
    Ok(match ask(roots, module, &json!({"verb": "state"}))? {
        Some(reply) => (
            reply["state"].as_str().unwrap_or("?").to_owned(),
            reply["readiness"].as_str().unwrap_or("?").to_owned(),
            reply,
        ),
        None => ("STOP".into(), "NotReady".into(), Value::Null),
    })
}

/// Waits until the verb's work is done: no transition runs and none is queued.
fn wait_stable(roots: &Roots, module: &str, verb: &str, limit: Option<Duration>) -> Result<u8, Failure> {
    let deadline = limit.map(|l| Instant::now() + l);
    loop {
        let (state, readiness, reply) = state_pair(roots, module)?;
        let busy = reply["busy"].as_bool().unwrap_or(false);
        if readiness != "Transient" && !busy {
            println!("{state} {readiness}");
            let wanted = match verb {
                "stop" | "forcestop" | "shutdown" => state == "STOP",
                "prim" | "primforce" => state == "ALONE" || state == "PRIM",
                "second" => state == "SECOND",
                _ => state != "STOP",
            };
            if !wanted {
                let mut failure =
                    Failure::new(exit::REFUSED, format!("{verb}: module {module} is in {state} {readiness}"));
                failure.hint = reply["refused"].as_str().map_or_else(
                    || Some(format!("the reasons are in: sk-module log -m {module}")),
                    |reason| Some(reason.to_owned()),
                );
                return Err(failure);
            }
            return Ok(0);
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Failure::new(exit::TIMEOUT, format!("module {module} is still in {state} {readiness}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for a stable state by name.
pub(crate) fn wait_state(roots: &Roots, module: &str, wanted: &str, limit: Option<Duration>) -> Result<u8, Failure> {
    let deadline = limit.map(|l| Instant::now() + l);
    loop {
        let (state, readiness, _) = state_pair(roots, module)?;
        if state == wanted && readiness != "Transient" && (readiness == "Ready" || matches!(wanted, "STOP" | "WAIT")) {
            return Ok(0);
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Failure::new(
                exit::TIMEOUT,
                format!("module {module} is in {state} {readiness}, not in {wanted}, at the end of the time given"),
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn set(
    roots: &Roots,
    module: &str,
    resource: &str,
    value: &str,
    identity: Option<String>,
) -> Result<u8, Failure> {
    let request = json!({"verb": "set", "resource": resource, "value": value, "identity": identity});
    ask(roots, module, &request)?.map(|_| 0).ok_or_else(|| no_runner(module))
}

pub(crate) fn get(roots: &Roots, module: &str, resource: &str) -> Result<u8, Failure> {
    let reply = ask(roots, module, &json!({"verb": "get", "resource": resource}))?.ok_or_else(|| no_runner(module))?;
    println!("{}", reply["value"].as_str().unwrap_or_default());
    Ok(0)
}

pub(crate) fn failover(roots: &Roots, module: &str, value: OnOff) -> Result<u8, Failure> {
    let value = match value {
        OnOff::On => "on",
        OnOff::Off => "off",
    };
    ask(roots, module, &json!({"verb": "failover", "value": value, "origin": origin()}))?
        .map(|_| 0)
        .ok_or_else(|| no_runner(module))
}
