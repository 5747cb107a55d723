//! What does each verb do?

use crate::cli::{Automatic, Errd, Failure, Full, Log, Message, OnOff, Verb};
use crate::paths::Place;
use crate::runner::{State, ask, origin, state};
use crate::waits;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

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
        Verb::Prim => delegate(place, &["prim"]),
        Verb::Primforce => delegate(place, &["primforce"]),
        Verb::Second { mode: None } => delegate(place, &["second"]),
        Verb::Second { mode: Some(Full::Fullsync) } => delegate(place, &["second", "--fullsync"]),
        Verb::Config => delegate(place, &["config"]),
        Verb::Shutdown => exec(place, &["shutdown".to_owned()]),
        Verb::Stop(automatic) => act(place, "stop", automatic.identity.as_deref()),
        Verb::Forcestop => act(place, "forcestop", None),
        Verb::Restart(automatic) => act(place, "restart", automatic.identity.as_deref()),
        Verb::Stopstart(automatic) => act(place, "stopstart", automatic.identity.as_deref()),
        Verb::Swap(automatic) => act(place, "swap", automatic.identity.as_deref()),
        Verb::Waitstart => waits::wait(&place.roots, place.module()?, waits::started),
        Verb::Waitstop => waits::wait(&place.roots, place.module()?, waits::stopped),
        Verb::Waitstate { state } => {
            let wanted = state.to_ascii_uppercase();
            waits::wait(&place.roots, place.module()?, |now| waits::reached(now, &wanted))
        }
        Verb::State { verbose, line, quiet } => show(place, *verbose, *line, *quiet),
        Verb::Log(log) => log_of(place, log, false),
        Verb::Logview(log) => log_of(place, log, true),
        Verb::Set { resource, value, automatic: Automatic { identity }, .. } => {
            need(place, &json!({"verb": "set", "resource": resource, "value": value, "identity": identity})).map(|_| 0)
        }
        Verb::Get { resource } => {
            let reply = need(place, &json!({"verb": "get", "resource": resource}))?;
            put(text(&reply, "value"))?;
            Ok(0)
        }
        Verb::Errd { action, class } => errd(place, *action, class.as_deref()),
        Verb::Failover { value } => {
            let value = if *value == OnOff::On { "on" } else { "off" };
            need(place, &json!({"verb": "failover", "value": value, "origin": origin()})).map(|_| 0)
        }
        Verb::Resetloop => need(place, &json!({"verb": "resetloop"})).map(|_| 0),
        Verb::Incloop { identity } => limit(place, &json!({"verb": "incloop", "identity": identity})),
        Verb::Checkloop => limit(place, &json!({"verb": "checkloop"})),
        // Both are taken care of before.
        Verb::Run { .. } | Verb::Unknown(_) => Err(Failure::usage("see: safekit --help")),
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

/// One line of output; a reader that went away ends the command without an error.
fn put(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::sys("cannot write the result", e)),
    }
}

fn print(place: &Place, level: &str, message: &Message) -> Result<u8, Failure> {
    let words = message.words.join(" ");
    need(place, &json!({"verb": "log", "level": level, "message": words, "identity": message.identity})).map(|_| 0)
}

/// A verb for a running module; a module without a runner is stopped already.
fn act(place: &Place, verb: &str, identity: Option<&str>) -> Result<u8, Failure> {
    let module = place.module()?;
    let request = json!({"verb": verb, "full": false, "identity": identity, "origin": origin()});
    match ask(&place.roots, module, &request)? {
        Some(_) => Ok(0),
        None if matches!(verb, "stop" | "forcestop") => Ok(0),
        None => Err(not_running(module)),
    }
}

/// Becomes `sk-module VERB -m AM`, which also brings up a runner.
fn delegate(place: &Place, verb: &[&str]) -> Result<u8, Failure> {
    let mut arguments: Vec<String> = verb.iter().map(|v| (*v).to_owned()).collect();
    arguments.extend(["-m".to_owned(), place.module()?.to_owned()]);
    exec(place, &arguments)
}

fn exec(place: &Place, arguments: &[String]) -> Result<u8, Failure> {
    let program = place.program("sk-module");
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
    let reply = need(place, &json!({"verb": "errd", "action": name, "class": class, "origin": origin()}))?;
    if action == Errd::List {
        for process in reply.get("processes").and_then(Value::as_array).into_iter().flatten() {
            put(&resource_line(process))?;
        }
    }
    Ok(0)
}

fn resource_line(resource: &Value) -> String {
    format!("{:<32} {:<16} {}", text(resource, "name"), text(resource, "value"), text(resource, "t"))
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
        summary = format!("{summary} {}", text(&state.reply, "data"));
        if let Some(remote) = state.reply.get("remote").filter(|r| !text(r, "state").is_empty()) {
            let (peer, name) = (text(&state.reply, "peer"), text(remote, "state"));
            summary = format!("{summary} | {peer}: {name} ({})", text(remote, "readiness"));
        }
    }
    put(summary.trim_end())?;
    if verbose {
        for resource in state.reply.get("resources").and_then(Value::as_array).into_iter().flatten() {
            put(&resource_line(resource))?;
        }
    }
    Ok(())
}
