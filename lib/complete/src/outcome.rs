//! Which verbs tell a program what became of them? Those that print nothing which has a form of its own: `--json` is their outcome.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

const ID: &str = "outcome";

/// Gives `--json` to each verb that has none. `without`: paths of verbs that need none (`key renew`).
#[must_use]
pub fn give(command: Command, without: &[&str]) -> Command {
    command.mut_subcommands(|child| to_verb(child, "", without))
}

fn to_verb(command: Command, before: &str, without: &[&str]) -> Command {
    let path = format!("{before}{}", command.get_name());
    if command.has_subcommands() {
        let before = format!("{path} ");
        return command.mut_subcommands(|child| to_verb(child, &before, without));
    }
    let has_one = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
    if has_one || path == "help" || without.contains(&path.as_str()) {
        return command;
    }
    let help =
        "The outcome as a JSON line: verb, module, code, said (what is printed without it), complaints, error, hint";
    command.arg(Arg::new(ID).long("json").action(ArgAction::SetTrue).help(help))
}

/// Whether an argument of a verb is the `--json` of its outcome.
pub fn is_outcome(argument: &Arg) -> bool {
    argument.get_id() == ID
}

/// A verb whose outcome is wanted as JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// `stop`, `key renew`.
    pub verb: String,
    pub module: Option<String>,
}

/// `None`: the verb speaks in words, or has a form of its own.
pub fn asked(matches: &ArgMatches) -> Option<Asked> {
    let (mut leaf, mut path) = (matches, Vec::new());
    let (mut named, mut takes_one) = (None, false);
    // The module may be named before the verb: policy -m AM full.
    while let Some((name, below)) = leaf.subcommand() {
        path.push(name);
        leaf = below;
        // Verbs that have no such argument concern no module, whatever the environment says.
        takes_one |= leaf.try_contains_id("module").is_ok();
        named = leaf.try_get_one::<String>("module").ok().flatten().or(named);
    }
    if !leaf.try_get_one::<bool>(ID).ok().flatten().copied().unwrap_or(false) {
        return None;
    }
    let module = named.cloned().or_else(|| std::env::var("SAFEMODULE").ok().filter(|_| takes_one));
    Some(Asked { verb: path.join(" "), module })
}

/// The arguments of the process, and whether the outcome is wanted as JSON.
pub fn parse<Cli: FromArgMatches>(command: Command) -> Result<(Cli, Option<Asked>), clap::Error> {
    let matches = command.try_get_matches()?;
    Ok((Cli::from_arg_matches(&matches)?, asked(&matches)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let module = Arg::new("module").short('m');
        let form = Arg::new("json").long("json").action(ArgAction::SetTrue);
        let policy = Command::new("policy").arg(module.clone()).subcommand(Command::new("full"));
        let key = Command::new("key").subcommand(Command::new("renew")).subcommand(Command::new("status").arg(form));
        let tool = Command::new("tool").subcommand(Command::new("stop").arg(module)).subcommand(key);
        give(tool.subcommand(policy).subcommand(Command::new("run")), &["run"])
    }

    #[test]
    fn verbs_without_a_form_of_their_own_tell_their_outcome() {
        command().debug_assert();
        let asked = |line: &str| command().try_get_matches_from(line.split(' ')).map(|matches| asked(&matches));
        let told = |verb: &str, module: Option<&str>| Asked { verb: verb.into(), module: module.map(str::to_owned) };
        assert_eq!(asked("tool stop -m web --json").unwrap(), Some(told("stop", Some("web"))));
        assert_eq!(asked("tool stop -m web").unwrap(), None);
        assert_eq!(asked("tool key renew --json").unwrap(), Some(told("key renew", None)));
        assert_eq!(asked("tool policy -m web full --json").unwrap(), Some(told("policy full", Some("web"))));
        assert_eq!(asked("tool key status --json").unwrap(), None);
        assert_eq!(asked("tool run").unwrap(), None);
        assert!(asked("tool run --json").is_err());
    }
}
