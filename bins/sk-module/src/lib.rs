//! `sk-module`: the runner of a module and the operator's verbs.

/// A line on stdout; see `put` for a reader that went away.
macro_rules! say {
    ($($word:tt)*) => {
        sys::failure::put(&format!($($word)*))?
    };
}

mod anonymise;
mod boot;
mod cli;
mod client;
mod configure;
mod doctor;
mod elsewhere;
mod farm;
mod guard;
mod history;
mod init;
mod instance;
mod journal;
mod kernel;
mod log;
mod neighbours;
mod packages;
mod plan;
mod progress;
mod rules;
mod runner;
mod show;
mod since;
mod snapshot;
mod supervision;
mod support;
mod switches;
mod tail;
mod wrappers;

use cli::{BootAction, Cli, ErrdAction, OnOff, Verb};
use std::process::ExitCode;

pub use cli::command;
use switches::Switch;
use sys::failure::Failure;
use sys::roots::Roots;

/// Outcomes of the command, documented in its help.
pub(crate) mod exit {
    pub const REFUSED: u8 = 1;
    pub const BAD_CONFIGURATION: u8 = 2;
    pub const NO_RUNNER: u8 = 3;
    pub const TIMEOUT: u8 = 4;
    pub const ALREADY_RUNNING: u8 = 5;
    pub const USAGE: u8 = 100;
    pub const SYSTEM: u8 = 111;
}

pub fn main() -> ExitCode {
    complete::answer(command);
    if let Some(code) = elsewhere::pass_on() {
        return code;
    }
    let (cli, asked) = match cli::parse() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    if asked.is_some() {
        sys::outcome::begin();
    }
    let result = run(cli);
    if let Some(asked) = asked {
        sys::outcome::end(&asked.verb, asked.module.as_deref(), &result);
    }
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            sys::warn!("sk-module: {}", failure.message);
            if let Some(hint) = &failure.hint {
                sys::warn!("  {hint}");
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let roots = Roots::from_environment();
    let logged = cli
        .verb
        .changes_something()
        .then(|| sys::commands::Command::start_own(&roots, "sk-module", &cli.verb.module_name().unwrap_or_default()));
    let result = dispatch(&roots, cli.verb);
    if let Some(logged) = logged {
        logged.end(result.as_ref().map_or_else(|failure| failure.code, |code| *code));
    }
    result
}

fn errd(roots: &Roots, module: &str, action: ErrdAction, class: Option<String>, json: bool) -> Result<u8, Failure> {
    let verb = match (action, &class) {
        (ErrdAction::On, None) => return switches::set(roots, module, Switch::Errd, true),
        (ErrdAction::Off, None) => return switches::set(roots, module, Switch::Errd, false),
        (ErrdAction::List, None) => return client::errd_list(roots, module, json),
        (ErrdAction::Enable, Some(_)) => "enable",
        (ErrdAction::Disable, Some(_)) => "disable",
        _ => {
            return Err(Failure::new(exit::USAGE, "a class is named with enable and disable, and only there")
                .hint("sk-module errd enable CLASS -m AM"));
        }
    };
    client::order(roots, module, &serde_json::json!({"verb": "errd", "action": verb, "class": class}))
}

fn dispatch(roots: &Roots, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Run { module, ready_fd, boot } => runner::run(roots, &module, ready_fd, boot),
        Verb::Guard { module, boot } => guard::guard(roots, &module, boot),
        Verb::Boot { action: None, .. } => {
            // Without it other nodes cannot give commands here; the modules start all the same.
            elsewhere::daemon_up(roots);
            boot::boot(roots)
        }
        Verb::Push { module, hosts, only_files } => {
            elsewhere::push(roots, &module.name()?, hosts.as_deref(), only_files)
        }
        Verb::Boot { action: Some(BootAction::Status), module, json } => {
            let module = if module.is_named() { Some(module.name()?) } else { None };
            switches::boot_status(roots, module.as_deref(), json)
        }
        Verb::Boot { action: Some(action), module, .. } => {
            switches::set(roots, &module.name()?, Switch::Boot, matches!(action, BootAction::On))
        }
        Verb::Check { file, cluster, json } => configure::check(roots, &file, cluster.as_deref(), json),
        Verb::Config { module, id, plan, json } => configure::config(roots, &module.name()?, id, plan, json),
        Verb::Deconfig { module } => configure::deconfig(roots, &module.name()?),
        Verb::Confcheck { module, json } => configure::confcheck(roots, &module.name()?, json),
        Verb::Confinfo { module, json } => configure::confinfo(roots, &module.name()?, json),
        Verb::List { available: true, json } => packages::available(roots, json),
        Verb::List { json, .. } => show::list(roots, json),
        Verb::Init(answers) => init::init(roots, &answers),
        Verb::Install { module, source, id, reinstall } => {
            packages::install(roots, &module.name()?, source.as_deref(), id, reinstall)
        }
        Verb::Uninstall { module } => packages::uninstall(roots, &module.name()?),
        Verb::Package { module, file } => packages::pack(roots, &module.name()?, &file),
        Verb::ClusterKey { output } => configure::cluster_key(roots, output.as_deref()),
        Verb::Start { module, wait } => client::start(roots, &module.name()?, "start", (false, None), wait),
        Verb::Prim { module, wait, fullsync } => client::start(roots, &module.name()?, "prim", (fullsync, None), wait),
        Verb::Primforce { module, wait } => client::start(roots, &module.name()?, "primforce", (false, None), wait),
        Verb::Second { module, wait, fullsync, since } => {
            let since = since.as_deref().map(since::parse).transpose()?;
            client::start(roots, &module.name()?, "second", (fullsync, since), wait)
        }
        Verb::Stop { module, automatic, wait } => client::act(roots, &module.name()?, "stop", automatic.identity, wait),
        Verb::Forcestop { module, wait } => client::act(roots, &module.name()?, "forcestop", None, wait),
        Verb::Restart { module, automatic, wait } => {
            client::act(roots, &module.name()?, "restart", automatic.identity, wait)
        }
        Verb::Stopstart { module, automatic, wait } => {
            client::act(roots, &module.name()?, "stopstart", automatic.identity, wait)
        }
        Verb::Swap { module, automatic, wait } => client::act(roots, &module.name()?, "swap", automatic.identity, wait),
        Verb::Shutdown => client::shutdown(roots),
        Verb::State { module, verbose, quiet, watch, json, .. } => {
            let view = show::StateView { verbose, quiet, watch, json };
            if !module.is_named() && !quiet && !watch {
                return show::states(roots, &view);
            }
            show::state(roots, &module.name()?, &view)
        }
        Verb::Waitstate { module, state, timeout } => {
            client::wait_state(roots, &module.name()?, &state, timeout.map(Into::into))
        }
        Verb::Log { module, lines, all, follow, form } => {
            show::log(roots, &module.name()?, lines, all, follow, form.json)
        }
        Verb::Set { module, resource, value, no_history, history, automatic } => {
            let module = module.name()?;
            // A switch can be set without a runner.
            if let Some(switch) = resource.strip_prefix("usersetting.").and_then(Switch::parse)
                && let Some(on) = match value.as_str() {
                    "on" => Some(true),
                    "off" => Some(false),
                    _ => None,
                }
            {
                return switches::set(roots, &module, switch, on);
            }
            let history = if no_history {
                "never"
            } else if history {
                "always"
            } else {
                "changes"
            };
            let request = serde_json::json!({"verb": "set", "resource": resource, "value": value, "history": history,
                "identity": automatic.identity, "origin": client::origin()});
            client::set(roots, &module, &request)
        }
        Verb::Get { module, resource, json } => client::get(roots, &module.name()?, &resource, json),
        Verb::Setgroups { module, value } => client::set_groups(roots, &module.name()?, value),
        Verb::Failover { module, value } => {
            switches::set(roots, &module.name()?, Switch::Failover, matches!(value, OnOff::On))
        }
        Verb::Checker { module, value } => {
            switches::set(roots, &module.name()?, Switch::Checker, matches!(value, OnOff::On))
        }
        Verb::Errd { action, class, module, json } => errd(roots, &module.name()?, action, class, json),
        Verb::Resetloop { module, .. } => {
            client::order(roots, &module.name()?, &serde_json::json!({"verb": "resetloop"}))
        }
        Verb::Incloop { module, identity } => {
            client::order(roots, &module.name()?, &serde_json::json!({"verb": "incloop", "identity": identity}))
        }
        Verb::Checkloop { module } => client::order(roots, &module.name()?, &serde_json::json!({"verb": "checkloop"})),
        Verb::Update { module } => client::act(roots, &module.name()?, "update", None, false),
        Verb::Waitstart { module, timeout } => {
            client::wait_end(roots, &module.name()?, &client::End::Start, timeout.map(Into::into))
        }
        Verb::Waitstop { module, timeout } => {
            client::wait_end(roots, &module.name()?, &client::End::Stop, timeout.map(Into::into))
        }
        Verb::History { module, resource, lines, json } => {
            history::show(&roots.module_var(&module.name()?), resource.as_deref(), lines, json)
        }
        Verb::Level { module, json } => {
            let module = if module.is_named() { Some(module.name()?) } else { None };
            support::level(roots, module.as_deref(), json)
        }
        Verb::Logsave { module, all, file } => support::logsave(roots, &module.name()?, all, &file),
        Verb::Cmdlog { lines, form } => support::cmdlog(roots, lines, form.json),
        Verb::Doctor { json, quiet, offline } => doctor::doctor(roots, json, quiet, offline),
        Verb::Snapshot { module, file } => {
            let modules = if module.is_named() { vec![module.name()?] } else { boot::applied_modules(roots)? };
            snapshot::snapshot(roots, &modules, &file)
        }
        Verb::Anonymise { snapshot, file } => anonymise::anonymise(&snapshot, &file),
        Verb::Rules { module, json } => {
            let module = if module.is_named() { Some(module.name()?) } else { None };
            rules::rules(roots, module.as_deref(), json)
        }
        Verb::Plan { module, from, to, action, form } => {
            plan::plan(roots, &module.name()?, &from, &to, &action, form.json)
        }
        Verb::Replay { files, quiet, form } => journal::replay(&files, quiet, form.json),
        Verb::Explain { module, files, at, json } => {
            let module = if files.is_empty() { Some(module.name()?) } else { None };
            journal::explain(roots, module.as_deref(), &files, at.as_deref(), json)
        }
    }
}
