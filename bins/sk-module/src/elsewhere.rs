//! What concerns other nodes goes to `sk-cluster`: `sk-module -H HOSTS VERB …`, `push`, the daemon of this node.

use crate::{Failure, exit};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use sys::roots::Roots;

/// `-H HOSTS …` and `--hosts HOSTS …` run on the hosts. None: the command is for this one.
pub(crate) fn pass_on() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words = translate(&arguments)?;
    let failure = match words {
        Ok(words) => become_cluster(&Roots::from_environment(), &words),
        Err(failure) => failure,
    };
    sys::warn!("sk-module: {}", failure.message);
    Some(ExitCode::from(failure.code))
}

fn translate(arguments: &[String]) -> Option<Result<Vec<String>, Failure>> {
    let (hosts, rest) = match arguments.split_first()? {
        (first, rest) if first == "-H" || first == "--hosts" => match rest.split_first() {
            Some((hosts, rest)) => (hosts.clone(), rest),
            None => return Some(Err(Failure::new(exit::USAGE, "-H needs hosts: \"*\", or node1,node2"))),
        },
        (first, rest) => (first.strip_prefix("--hosts=")?.to_owned(), rest),
    };
    if rest.is_empty() {
        return Some(Err(Failure::new(exit::USAGE, "nothing is asked of the hosts: sk-module -H HOSTS VERB …")));
    }
    Some(Ok(["on".to_owned(), hosts, "sk-module".to_owned()].into_iter().chain(rest.iter().cloned()).collect()))
}

/// `sk-module push`.
pub(crate) fn push(roots: &Roots, module: &str, hosts: Option<&str>, only_files: bool) -> Result<u8, Failure> {
    let mut words: Vec<String> = ["push", "-m", module].map(str::to_owned).into();
    words.extend(hosts.into_iter().flat_map(|h| ["-H".to_owned(), h.to_owned()]));
    words.extend(only_files.then(|| "--only-files".to_owned()));
    words.extend(sys::outcome::is_wanted().then(|| "--json".to_owned()));
    Err(become_cluster(roots, &words))
}

/// Becomes `sk-cluster WORDS`; returns only when that is not possible.
fn become_cluster(roots: &Roots, words: &[String]) -> Failure {
    let program = roots.program("sk-cluster");
    let error = Command::new(&program).args(words).exec();
    Failure::system(format!("cannot run {}", program.display()), error)
}

/// Starts the daemon of this node where the cluster is configured; what goes wrong is told and is no error.
pub(crate) fn daemon_up(roots: &Roots) {
    if !roots.cluster_key().exists() {
        return;
    }
    let program = roots.program("sk-cluster");
    match Command::new(&program).arg("up").stdin(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => sys::warn!("sk-module: sk-cluster up: {status}"),
        Err(error) => sys::warn!("sk-module: cannot run {}: {error}", program.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_before_the_verb_are_for_sk_cluster() {
        let line = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (typed, meant) in [
            ("-H * state", "on * sk-module state"),
            ("--hosts=node2 start -m web --wait", "on node2 sk-module start -m web --wait"),
        ] {
            assert_eq!(translate(&line(typed)).unwrap().ok().unwrap().join(" "), meant);
        }
        assert!(translate(&line("state -m web")).is_none());
        assert!(translate(&line("push -H node2 -m web")).is_none());
        assert!(translate(&line("-H")).unwrap().is_err() && translate(&line("-H *")).unwrap().is_err());
    }
}
