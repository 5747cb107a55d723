//! What does `safekit -r COMMAND` run? A command built in, one in SAFEBIN, or an absolute path, with the environment.

use crate::bound;
use crate::cli::Failure;
use crate::farm;
use crate::paths::Place;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn run(place: &Place, arguments: &[String]) -> Result<u8, Failure> {
    let (name, rest) = match arguments {
        [] => return Err(Failure::usage("safekit -r needs a command: one of SAFEBIN, or an absolute path")),
        [name, rest @ ..] => (name, rest),
    };
    let path = locate(&place.roots.safe_bin(), name)?;
    if name == "boundcmd" {
        return bound::run(rest, &place.variables());
    }
    if name == "healthcheck.sh" && !path.is_file() {
        return crate::verbs::exec(place, &[&["doctor".to_owned()][..], rest].concat());
    }
    if name == "errdpoll_running" && rest.is_empty() && !path.is_file() {
        return crate::errdpoll::run(place);
    }
    if !path.is_file() {
        match name.as_str() {
            "anontool" => return anonymise(place, rest),
            "safeenc" => {
                return Err(Failure::usage(
                    "no configuration holds a password in disguise: what is secret is in files that only root reads, see man 5 sk-userconfig and man 5 sk-key",
                ));
            }
            "processtree" => return crate::tree::run(rest),
            "firewallcfg" => return crate::firewall::run(place, rest),
            "gencron" => return crate::crontab::run(rest),
            _ => {}
        }
    }
    // Scripts of farms say these; a file of SAFEBIN may replace them.
    if !path.is_file()
        && let Some(answer) = farm::run(place, name, rest)
    {
        return answer;
    }
    if !path.is_file() {
        return Err(Failure::new(1, format!("there is no special command {name} ({} is missing)", path.display())));
    }
    let error = Command::new(&path).args(rest).envs(place.variables()).exec();
    Err(Failure::sys(format!("cannot run {}", path.display()), error))
}

/// `anontool anonymize-snapshot SNAPSHOT [FILE]`, in the words of sk-module.
fn anonymise(place: &Place, arguments: &[String]) -> Result<u8, Failure> {
    let words = |snapshot: &str, file: &str| ["anonymise", snapshot, file].map(str::to_owned);
    match arguments {
        [verb, snapshot] if verb == "anonymize-snapshot" => {
            let bare = snapshot.strip_suffix(".tar.gz").unwrap_or(snapshot);
            crate::verbs::exec(place, &words(snapshot, &format!("{bare}.anonymous.tar.gz")))
        }
        [verb, snapshot, file] if verb == "anonymize-snapshot" => crate::verbs::exec(place, &words(snapshot, file)),
        _ => Err(Failure::usage("safekit -r anontool anonymize-snapshot SNAPSHOT [FILE]")),
    }
}

/// Names are plain file names of SAFEBIN; anything else must be absolute, so that the present directory never decides.
fn locate(safe_bin: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(name);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    if name.contains('/') || name.is_empty() || name == ".." || name == "." {
        return Err(Failure::usage(format!("{name:?} is neither the name of a special command nor an absolute path")));
    }
    Ok(safe_bin.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_and_absolute_paths_are_run() {
        let bin = Path::new("/opt/sk/private/bin");
        let found = |name| locate(bin, name).ok().map(|p| p.display().to_string());
        assert_eq!(found("gencron").as_deref(), Some("/opt/sk/private/bin/gencron"));
        assert_eq!(found("/bin/true").as_deref(), Some("/bin/true"));
        for refused in ["../x", "a/b", "..", ""] {
            assert_eq!(found(refused), None, "{refused}");
        }
    }
}
