//! What may come next on the command line: verbs, options, and the names of what is on this node.
//!
//! A shell asks the command itself, with the variable [`VARIABLE`] set; the files in `completions` only tell shells to do so.

mod names;
pub mod outcome;

use clap::{Arg, Command, Parser};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use sys::roots::Roots;

/// Set by shells that ask.
pub const VARIABLE: &str = "SK_COMPLETE";

/// Answers a shell and ends the process; returns when no shell asks.
pub fn answer(command: impl Fn() -> Command) {
    CompleteEnv::with_factory(|| with_names(with_hosts(command()))).var(VARIABLE).complete();
}

/// The arguments of the process, after a shell that asks was answered. An error is the exit code of a line that is no order.
pub fn arguments<Cli: Parser>() -> Result<Cli, ExitCode> {
    answer(Cli::command);
    Cli::try_parse().map_err(|error| told(&error))
}

/// Prints why there is no order: the line is wrong, or wants the help or the version, which are no errors.
pub fn told(error: &clap::Error) -> ExitCode {
    // Nobody reads our words: the exit code still tells.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(sys::failure::USAGE) } else { ExitCode::SUCCESS }
}

/// What a shell must know of the command called `name`: by the shell's directory in `completions`, its file, and its content.
pub fn registrations(name: &str) -> io::Result<[(&'static str, String, Vec<u8>); 3]> {
    let text = |shell: &dyn EnvCompleter| {
        let mut text = Vec::new();
        shell.write_registration(VARIABLE, name, name, name, &mut text)?;
        Ok::<_, io::Error>(text)
    };
    Ok([
        ("bash", name.to_owned(), text(&Bash)?),
        ("zsh", format!("_{name}"), text(&Zsh)?),
        ("fish", format!("{name}.fish"), text(&Fish)?),
    ])
}

/// `-H HOSTS` before the verb is passed on before the command reads its line, and so is in no definition but the one for shells.
fn with_hosts(command: Command) -> Command {
    let hosts = Arg::new("hosts").short('H').value_name("HOSTS").help("On these nodes: \"*\", or node1,node2");
    match command.get_name() {
        "safekit" => command.arg(hosts),
        "sk-module" => command.arg(hosts.long("hosts")),
        _ => command,
    }
}

/// Tells each argument, by what it is called, which names it may have.
fn with_names(command: Command) -> Command {
    command.mut_args(with_candidates).mut_subcommands(with_names)
}

fn with_candidates(argument: Arg) -> Arg {
    // Each name of a list is completed.
    let argument = if argument.get_id() == "hosts" { argument.value_delimiter(',') } else { argument };
    let names: fn() -> Vec<String> = match argument.get_id().as_str() {
        "module" => || names::modules(&Roots::from_environment()),
        "node" | "nodes" | "peer" | "hosts" => || names::nodes(&Roots::from_environment().cluster_xml()),
        "resource" => || names::resources(&Roots::from_environment(), named_module().as_deref()),
        "source" => || names::templates(&Roots::from_environment()),
        "state" | "from" | "to" => || ["STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UP"].map(str::to_owned).into(),
        _ => return argument,
    };
    argument.add(ArgValueCandidates::new(move || names().into_iter().map(CompletionCandidate::new).collect()))
}

/// The module that is named elsewhere on the line, which the shell passes on after `--`.
fn named_module() -> Option<String> {
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    let named =
        words.iter().position(|word| word == "-m" || word == "--module").and_then(|at| words.get(at + 1).cloned());
    named.or_else(|| std::env::var("SAFEMODULE").ok()).filter(|name| sys::roots::is_module_name(name))
}

/// A small file, or nothing: completion never complains.
fn text(path: &Path) -> String {
    const LONGEST: u64 = 4 << 20;
    let bytes = sys::files::read_bounded(path, LONGEST).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_is_told_to_ask_the_command() {
        for (shell, file, text) in registrations("sk-module").unwrap() {
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.contains(VARIABLE) && text.contains("sk-module") && text.len() < 4_000,
                "{shell} {file}: {text}"
            );
        }
    }

    #[test]
    fn verbs_follow_the_hosts() {
        let offered = |name: &'static str, words: &[&str]| -> Vec<String> {
            let mut command = with_names(with_hosts(Command::new(name).subcommand(Command::new("start"))));
            let words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
            let last = words.len() - 1;
            let found = clap_complete::engine::complete(&mut command, words, last, None).unwrap();
            found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(offered("sk-module", &["sk-module", "-H", "node1,node2", "st"]), ["start"]);
        assert_eq!(offered("safekit", &["safekit", "-H", "*", "st"]), ["start"]);
        assert!(offered("sk-module", &["sk-module", "--h"]).contains(&"--hosts".to_owned()));
        assert!(!offered("sk-top", &["sk-top", "-"]).contains(&"-H".to_owned()));
    }

    #[test]
    fn arguments_are_told_their_names_in_subcommands_too() {
        let command =
            with_names(Command::new("x").subcommand(Command::new("y").arg(Arg::new("module")).arg(Arg::new("other"))));
        let verb = command.find_subcommand("y").unwrap();
        let has =
            |id: &str| verb.get_arguments().find(|a| a.get_id() == id).unwrap().get::<ArgValueCandidates>().is_some();
        assert!(has("module") && !has("other"));
    }
}
