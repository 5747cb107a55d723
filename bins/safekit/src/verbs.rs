//! What does each verb do?

use crate::cli::{Automatic, Boot, Errd, Failure, Full, Log, Message, NoSync, OnOff, Switch, Verb};
use crate::kill;
use crate::paths::Place;
use crate::runner::{State, ask, origin, state};
use crate::units;
use crate::waits;
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::process::Command;
use sys::roots::Roots;

pub fn run(place: &Place, verb: &Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Print => {
            for (name, value) in place.variables() {
                put(&format!("{name}=\"{value}\""))?;
            }
            Ok(0)
        }
        Verb::Printi(message) => print(place, "I", message),
        Verb::Printe(message) => print(place, "E", message),
        Verb::Printw(message) => print(place, "W", message),
        Verb::Start => delegate(place, &["start"]),
        Verb::Prim { mode: None } => delegate(place, &["prim"]),
        Verb::Prim { mode: Some(Full::Fullsync) } => delegate(place, &["prim", "--fullsync"]),
        Verb::Primforce => delegate(place, &["primforce"]),
        Verb::Second { mode: None } => delegate(place, &["second"]),
        Verb::Second { mode: Some(Full::Fullsync) } => delegate(place, &["second", "--fullsync"]),
        Verb::Config => delegate(place, &["config"]),
        Verb::Deconfig => delegate(place, &["deconfig"]),
        Verb::Confcheck => delegate(place, &["confcheck"]),
        Verb::Confinfo => delegate(place, &["confinfo"]),
        Verb::Update => delegate(place, &["update"]),
        Verb::Secondforce { date } => delegate(place, &["second", "--since", date]),
        Verb::Boot { action } => {
            let action = match action {
                Boot::On => "on",
                Boot::Off => "off",
                Boot::Status => "status",
                Boot::Webon => return units::boot(place, Switch::Enable),
                Boot::Weboff => return units::boot(place, Switch::Disable),
                Boot::Webstatus => return units::boot(place, Switch::Status),
            };
            with_module_if_named(place, &["boot", action])
        }
        Verb::Module { what } => crate::modules::run(place, what, put),
        Verb::Level => with_module_if_named(place, &["level"]),
        Verb::Logsave { all: true, file, .. } => delegate(place, &["logsave", "-A", file]),
        Verb::Logsave { file, .. } => delegate(place, &["logsave", file]),
        Verb::Snapshot { file } => delegate(place, &["snapshot", file]),
        Verb::Dump => crate::dump::run(place),
        Verb::Clean { what } => crate::clean::run(place, *what),
        Verb::Webserver { action } => units::webserver(place, *action),
        Verb::Notification { action } => units::notification(place, *action),
        Verb::Cmdlog => exec(place, &["cmdlog".to_owned()]),
        Verb::Kill { name, argregex, level } if level == "test" => kill::kill(name, argregex.as_deref(), level),
        Verb::Kill { name, argregex, level } => logged(place, || kill::kill(name, argregex.as_deref(), level)),
        Verb::Shutdown => exec(place, &["shutdown".to_owned()]),
        Verb::Stop(automatic) => act(place, "stop", automatic.identity.as_deref()),
        Verb::Forcestop => act(place, "forcestop", None),
        Verb::Restart(automatic) => act(place, "restart", automatic.identity.as_deref()),
        Verb::Stopstart(automatic) => act(place, "stopstart", automatic.identity.as_deref()),
        // Both nodes are in sync, so that nothing is ever copied after a swap: that is what `nosync` asks for.
        Verb::Swap { mode: None | Some(NoSync::Nosync), automatic } => {
            act(place, "swap", automatic.identity.as_deref())
        }
        Verb::Rfsverify => replicate(place, "verify", &[]),
        Verb::Rfsdiff => replicate(place, "diff", &[]),
        Verb::Rfssync { from_start, words } => replicate(place, "policy", &policy(*from_start, words)?),
        Verb::Waitstart => waits::wait(&place.roots, place.module()?, waits::started),
        Verb::Waitstop => waits::wait(&place.roots, place.module()?, waits::stopped),
        Verb::Waitstate { state } => {
            let wanted = state.to_ascii_uppercase();
            waits::wait(&place.roots, place.module()?, |now| waits::reached(now, &wanted))
        }
        Verb::State { verbose, line, quiet } => show(place, *verbose, *line, *quiet),
        Verb::Log(log) => log_of(place, log, false),
        Verb::Logview(log) => log_of(place, log, true),
        Verb::Set { resource, value, no_history, history, automatic: Automatic { identity } } => {
            // A switch can be set on a stopped module, too.
            if resource.starts_with("usersetting.") {
                return delegate(place, &["set", "-r", resource, "-v", value]);
            }
            let history = if *no_history {
                "never"
            } else if *history {
                "always"
            } else {
                "changes"
            };
            let request =
                json!({"verb": "set", "resource": resource, "value": value, "identity": identity, "history": history});
            let set = || need(place, &request).map(|_| 0);
            // What checkers assign every few seconds would drown the log of commands.
            if identity.is_some() { set() } else { logged(place, set) }
        }
        Verb::Get { resource } => {
            match ask(&place.roots, place.module()?, &json!({"verb": "get", "resource": resource}))? {
                Some(reply) => put(text(&reply, "value")).map(|()| 0),
                // The last value that was kept.
                None => delegate(place, &["get", "-r", resource]),
            }
        }
        Verb::Errd { action, class } => errd(place, *action, class.as_deref()),
        Verb::Checker { value } => delegate(place, &["checker", if *value == OnOff::On { "on" } else { "off" }]),
        Verb::Failover { value } => delegate(place, &["failover", if *value == OnOff::On { "on" } else { "off" }]),
        Verb::Resetloop { .. } => logged(place, || need(place, &json!({"verb": "resetloop"})).map(|_| 0)),
        Verb::Incloop { identity } => logged(place, || limit(place, &json!({"verb": "incloop", "identity": identity}))),
        Verb::Checkloop => limit(place, &json!({"verb": "checkloop"})),
        // Both are taken care of before.
        Verb::Run { .. } | Verb::Cluster { .. } | Verb::Unknown(_) => Err(Failure::usage("see: safekit --help")),
    }
}

/// Asks a runner that must be there.
fn need(place: &Place, request: &Value) -> Result<Value, Failure> {
    let module = place.module()?;
    ask(&place.roots, module, request)?.ok_or_else(|| not_running(module))
}

fn not_running(module: &str) -> Failure {
    Failure::new(1, format!("module {module} is not running; start it with `safekit start -m {module}`"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// One line of output; see `sys::failure::put` for a reader that went away.
pub fn put(line: &str) -> Result<(), Failure> {
    sys::failure::put(line).map_err(|failure| Failure::new(failure.code, failure.message))
}

fn replicate(place: &Place, verb: &str, rest: &[&str]) -> Result<u8, Failure> {
    let words = [&[verb, "-m", place.module()?], rest].concat().into_iter().map(str::to_owned);
    become_program(&place.roots, "sk-replicate", &words.collect::<Vec<_>>())
}

/// `rfssync` in the words of `sk-replicate policy`.
fn policy(from_start: bool, words: &[String]) -> Result<Vec<&str>, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] if !from_start => Ok(vec!["show"]),
        [word @ ("full" | "default")] if !from_start => Ok(vec![*word]),
        ["external", role @ ("prim" | "second"), uid] => Ok(external(from_start, role, uid)),
        [role @ ("prim" | "second"), uid] if from_start => Ok(external(from_start, role, uid)),
        _ => Err(Failure::usage(
            "rfssync is followed by nothing, full, default, external prim UID, external second UID, or -d prim UID",
        )),
    }
}

fn external<'a>(from_start: bool, role: &'a str, uid: &'a str) -> Vec<&'a str> {
    let mut words = vec!["external", role, uid];
    // Who received the copy has nothing to mark.
    if from_start && role == "prim" {
        words.push("--from-start");
    }
    words
}

fn print(place: &Place, level: &str, message: &Message) -> Result<u8, Failure> {
    let words = message.words.join(" ");
    need(place, &json!({"verb": "log", "level": level, "message": words, "identity": message.identity})).map(|_| 0)
}

/// Becomes `sk-module VERB`, for the module that is named, or for the node.
fn with_module_if_named(place: &Place, verb: &[&str]) -> Result<u8, Failure> {
    if place.named().is_some() {
        return delegate(place, verb);
    }
    exec(place, &verb.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>())
}

/// A verb for a running module; a module without a runner is stopped already.
fn act(place: &Place, verb: &str, identity: Option<&str>) -> Result<u8, Failure> {
    let module = place.module()?;
    let request = json!({"verb": verb, "full": false, "identity": identity, "origin": origin()});
    logged(place, || match ask(&place.roots, module, &request)? {
        None if !matches!(verb, "stop" | "forcestop") => Err(not_running(module)),
        _ => Ok(0),
    })
}

/// Does something that belongs into the log of commands.
pub fn logged(place: &Place, work: impl FnOnce() -> Result<u8, Failure>) -> Result<u8, Failure> {
    noted(sys::commands::Command::start_own(&place.roots, "safekit", place.named().unwrap_or_default()), work)
}

/// The same for one whose beginning was noted in other words.
pub fn noted(logged: sys::commands::Command, work: impl FnOnce() -> Result<u8, Failure>) -> Result<u8, Failure> {
    let result = work();
    logged.end(result.as_ref().map_or_else(|failure| failure.code, |code| *code));
    result
}

/// Becomes `sk-module VERB -m AM`, which also brings up a runner.
fn delegate(place: &Place, verb: &[&str]) -> Result<u8, Failure> {
    let mut arguments: Vec<String> = verb.iter().map(|v| (*v).to_owned()).collect();
    arguments.extend(["-m".to_owned(), place.module()?.to_owned()]);
    exec(place, &arguments)
}

pub fn exec(place: &Place, arguments: &[String]) -> Result<u8, Failure> {
    become_program(&place.roots, "sk-module", arguments)
}

/// Becomes another command of the product.
pub fn become_program(roots: &Roots, name: &str, arguments: &[String]) -> Result<u8, Failure> {
    let program = roots.program(name);
    let error = Command::new(&program).args(arguments).exec();
    Err(Failure::sys(format!("cannot run {}", program.display()), error))
}

fn log_of(place: &Place, log: &Log, follow: bool) -> Result<u8, Failure> {
    let mut arguments =
        vec!["log".to_owned(), "-m".to_owned(), place.module()?.to_owned(), "-s".to_owned(), log.lines.to_string()];
    if log.all {
        arguments.push("-A".to_owned());
    }
    if follow {
        arguments.push("-f".to_owned());
    }
    exec(place, &arguments)
}

fn errd(place: &Place, action: Errd, class: Option<&str>) -> Result<u8, Failure> {
    let name = match action {
        Errd::Enable => "enable",
        Errd::Disable => "disable",
        Errd::On => "on",
        Errd::Off => "off",
        Errd::List => "list",
    };
    let takes_class = matches!(action, Errd::Enable | Errd::Disable);
    match (takes_class, class) {
        (true, None) => {
            return Err(Failure::usage(format!("errd {name} needs a class: safekit errd {name} \"class\"")));
        }
        (false, Some(class)) => return Err(Failure::usage(format!("errd {name} takes no class ({class:?})"))),
        _ => {}
    }
    // Both hold on a stopped module, too.
    if matches!(action, Errd::On | Errd::Off) {
        return delegate(place, &["errd", name]);
    }
    let request = json!({"verb": "errd", "action": name, "class": class, "origin": origin()});
    if takes_class {
        return logged(place, || need(place, &request).map(|_| 0));
    }
    let reply = need(place, &request)?;
    if action == Errd::List {
        for process in reply.get("processes").and_then(Value::as_array).into_iter().flatten() {
            put(&resource_line(process))?;
        }
    }
    Ok(0)
}

fn resource_line(resource: &Value) -> String {
    let line = format!("{:<32} {:<16} {}", text(resource, "name"), text(resource, "value"), text(resource, "t"));
    sys::lines::wrap(&line, 4)
}

/// `incloop` and `checkloop`: 1 when the limit is reached.
fn limit(place: &Place, request: &Value) -> Result<u8, Failure> {
    let reply = need(place, request)?;
    Ok(u8::from(reply.get("reached").and_then(Value::as_bool).unwrap_or(false)))
}

fn show(place: &Place, verbose: bool, line: bool, quiet: bool) -> Result<u8, Failure> {
    let Some(module) = place.named() else {
        if quiet {
            return Err(Failure::usage("state -q needs one module: add -m AM"));
        }
        for module in place.modules()? {
            report(&module, &state(&place.roots, &module)?, verbose, line)?;
        }
        return Ok(0);
    };
    place.module()?;
    let now = state(&place.roots, module)?;
    report(module, &now, verbose, line)?;
    Ok(if quiet { now.code() } else { 0 })
}

fn report(module: &str, state: &State, verbose: bool, line: bool) -> Result<(), Failure> {
    if line {
        return put(&format!("{} ({})", state.name, state.readiness));
    }
    let mut summary = format!("{module}: {} ({})", state.name, state.readiness);
    if !state.reply.is_null() {
        match crate::farm::shares(&state.reply) {
            Some(shares) => summary = format!("{summary} {shares}"),
            None if !text(&state.reply, "peer").is_empty() => {
                summary = format!("{summary} {}", text(&state.reply, "data"));
            }
            None => {}
        }
        if let Some(remote) = state.reply.get("remote").filter(|r| !text(r, "state").is_empty()) {
            let (peer, name) = (text(&state.reply, "peer"), text(remote, "state"));
            summary = format!("{summary} | {peer}: {name} ({})", text(remote, "readiness"));
        }
    }
    put(&sys::lines::wrap(summary.trim_end(), 2))?;
    if verbose {
        for resource in state.reply.get("resources").and_then(Value::as_array).into_iter().flatten() {
            put(&resource_line(resource))?;
        }
    }
    Ok(())
}
