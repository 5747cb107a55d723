//! How does a command reach a module's runner: the control socket, from the asking side.

use crate::boot::applied_modules;
use crate::progress::Progress;
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
/// Where a verb leads that is only to be carried out.
const NOT_STOPPED: &[&str] = &["WAIT", "ALONE", "PRIM", "SECOND", "UP"];

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
        } else if matches!(e.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe) {
            Failure::new(exit::NO_RUNNER, format!("the runner of {module} ended while it was asked"))
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

/// Who asks.
pub(crate) fn origin() -> String {
    sys::commands::caller()
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
    crate::guard::remember_boot(roots, module, !boot)?;
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
    let program = sys::program::own().map_err(|e| Failure::system("own program file", e))?;
    let mut command = Command::new(program);
    command.args(["guard", module]);
    if boot {
        command.arg("--boot");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).current_dir("/");
    // Who starts the runner is not who acts when a script of the module does, days later.
    for variable in ["SK_ORIGIN", "SUDO_USER", "SSH_CONNECTION"] {
        command.env_remove(variable);
    }
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    command.spawn().map_err(|e| Failure::system("sk-module guard", e))?;
    Ok(())
}

/// `start`, `prim`, `primforce`, `second`. What is wanted of the synchronisation: everything is copied; seconds since 1970 up to which the data
/// are vouched for.
pub(crate) fn start(
    roots: &Roots,
    module: &str,
    verb: &str,
    (full, since): (bool, Option<i64>),
    wait: bool,
) -> Result<u8, Failure> {
    ensure_runner(roots, module, false)?;
    let request = json!({"verb": verb, "full": full, "since": since, "identity": null, "origin": origin()});
    if ask(roots, module, &request)?.is_none() {
        return Err(no_runner(module));
    }
    let leads_to: &[&str] = match verb {
        "prim" | "primforce" => &["ALONE", "PRIM"],
        "second" => &["SECOND"],
        _ => NOT_STOPPED,
    };
    if wait { wait_stable(roots, module, verb, leads_to) } else { Ok(0) }
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
    let leads_to: &[&str] = match verb {
        "stop" | "forcestop" => &["STOP"],
        "swap" if wait && state_pair(roots, module)?.0 == "SECOND" => &["PRIM", "ALONE"],
        "swap" => &["SECOND"],
        _ => NOT_STOPPED,
    };
    match ask(roots, module, &request)? {
        Some(_) if wait => wait_stable(roots, module, verb, leads_to),
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
        worst = worst.max(wait_stable(roots, &module, "shutdown", &["STOP"])?);
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

/// Waits until the verb's work is done: no transition runs and none is queued. `leads_to`: the states one of which it should end in.
fn wait_stable(roots: &Roots, module: &str, verb: &str, leads_to: &[&str]) -> Result<u8, Failure> {
    let mut progress = Progress::new();
    loop {
        let (state, readiness, reply) = state_pair(roots, module)?;
        let busy = reply["busy"].as_bool().unwrap_or(false);
        if readiness != "Transient" && !busy {
            drop(progress);
            say!("{state} {readiness}");
            if !leads_to.contains(&state.as_str()) {
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
        progress.show(module, &state, &readiness, &reply);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for a stable state by name.
pub(crate) fn wait_state(roots: &Roots, module: &str, wanted: &str, limit: Option<Duration>) -> Result<u8, Failure> {
    let deadline = limit.map(|l| Instant::now() + l);
    let mut progress = Progress::new();
    loop {
        let (state, readiness, reply) = state_pair(roots, module)?;
        if state == wanted && readiness != "Transient" && (readiness == "Ready" || matches!(wanted, "STOP" | "WAIT")) {
            return Ok(0);
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Failure::new(
                exit::TIMEOUT,
                format!("module {module} is in {state} {readiness}, not in {wanted}, at the end of the time given"),
            ));
        }
        progress.show(module, &state, &readiness, &reply);
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn set(roots: &Roots, module: &str, request: &Value) -> Result<u8, Failure> {
    ask(roots, module, request)?.map(|_| 0).ok_or_else(|| no_runner(module))
}

/// The value now; without a runner, the last one that was kept.
pub(crate) fn get(roots: &Roots, module: &str, resource: &str, as_json: bool) -> Result<u8, Failure> {
    let value = match ask(roots, module, &json!({"verb": "get", "resource": resource}))? {
        Some(reply) => reply["value"].as_str().unwrap_or_default().to_owned(),
        None => match crate::history::latest(&roots.module_var(module)).remove(resource) {
            Some(kept) => kept.value,
            None => {
                return Err(Failure::new(exit::REFUSED, format!("no resource {resource:?}"))
                    .hint("list them with: sk-module state -v"));
            }
        },
    };
    if as_json {
        say!("{}", json!({"module": module, "resource": resource, "value": value}));
    } else {
        say!("{value}");
    }
    Ok(0)
}

/// A request that only a runner can answer; exit code 1 when `reached` is true in its reply (`incloop`, `checkloop`).
pub(crate) fn order(roots: &Roots, module: &str, request: &Value) -> Result<u8, Failure> {
    let reply = ask(roots, module, request)?.ok_or_else(|| no_runner(module))?;
    Ok(u8::from(reply["reached"] == json!(true)))
}

/// `errd list`.
pub(crate) fn errd_list(roots: &Roots, module: &str, as_json: bool) -> Result<u8, Failure> {
    let reply = ask(roots, module, &json!({"verb": "errd", "action": "list"}))?.ok_or_else(|| no_runner(module))?;
    if as_json {
        return sys::failure::put(&reply.to_string()).map(|()| 0);
    }
    if reply["off"] == json!(true) {
        sys::failure::put("errd is off")?;
    }
    let classes: Vec<&str> = reply["classes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    sys::failure::put(&sys::lines::wrap(&format!("classes enabled: {}", classes.join(" ")), 2))?;
    for process in reply["processes"].as_array().into_iter().flatten() {
        let text = |name: &str| process[name].as_str().unwrap_or_default();
        sys::failure::put(&crate::history::columns(text("name"), text("value"), text("t")))?;
    }
    Ok(0)
}

/// Whether a start or stop has come to its end.
pub(crate) enum End {
    /// Serving or following; a module that stopped again is an error, one that waits for something is waited for.
    Start,
    Stop,
}

/// `waitstart`, `waitstop`.
pub(crate) fn wait_end(roots: &Roots, module: &str, end: &End, limit: Option<Duration>) -> Result<u8, Failure> {
    let deadline = limit.map(|l| Instant::now() + l);
    let mut progress = Progress::new();
    loop {
        let (state, readiness, reply) = state_pair(roots, module)?;
        let settled = readiness != "Transient" && reply["busy"] != json!(true);
        match end {
            End::Stop if state == "STOP" && settled => return Ok(0),
            End::Start if state == "STOP" && settled => {
                return Err(Failure::new(
                    exit::REFUSED,
                    format!("module {module} is in STOP: it was not started, or it stopped again"),
                ));
            }
            End::Start if !matches!(state.as_str(), "STOP" | "WAIT") && settled && readiness == "Ready" => {
                return Ok(0);
            }
            _ => {}
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Failure::new(exit::TIMEOUT, format!("module {module} is still in {state} {readiness}")));
        }
        progress.show(module, &state, &readiness, &reply);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `SETGROUPS`: answered when the filter has it.
pub(crate) fn set_groups(roots: &Roots, module: &str, value: crate::cli::Traffic) -> Result<u8, Failure> {
    let value = match value {
        crate::cli::Traffic::All => "all",
        crate::cli::Traffic::None => "none",
    };
    ask(roots, module, &json!({"verb": "setgroups", "value": value}))?.map(|_| 0).ok_or_else(|| no_runner(module))
}
