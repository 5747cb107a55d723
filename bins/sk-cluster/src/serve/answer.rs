//! What does a node do with what it is asked, and who may ask it?

use super::{Asker, facts, run};
use crate::{Failure, bundle, exit, modules};
use std::sync::mpsc::channel;
use sys::commands::Command;
use sys::roots::Roots;
use wire::node::{ALIVE, ARCHIVE_LIMIT, Answer, Ask, Bundle, KeyStep, SILENCE, Talk, TalkError, WORDS_LIMIT};
use wire::role::Role;
use wire::{ClusterKey, KeyRing};

/// Answers one question.
pub fn answer(roots: &Roots, asker: &Asker, talk: &mut Talk, ask: Ask, payload: Vec<u8>) -> Result<(), TalkError> {
    match ask {
        Ask::Facts { users } => {
            let facts = facts::facts(roots, asker.role, &users);
            talk.send(&Answer::Facts(Box::new(facts)), &[])
        }
        Ask::Run { argv, origin } => {
            let who = asker.words(roots, &origin);
            match may_run(asker, &argv) {
                Ok(()) => run::run(roots, talk, &argv, &who),
                Err(failure) => {
                    note(roots, "", &argv, &who, failure.code);
                    refuse(talk, failure)
                }
            }
        }
        Ask::Cluster { origin } => {
            let words = asker.words(roots, &origin);
            let roots = roots.clone();
            changing(talk, asker, &roots.clone(), "", &["push".to_owned()], &words, move || {
                let bundle: Bundle = serde_json::from_slice(&payload)
                    .map_err(|_| Failure::new(exit::REFUSED, "what came is no configuration of a cluster"))?;
                bundle::apply(&roots, &bundle)
            })
        }
        Ask::Key { step, fingerprint, key, origin } => {
            let words = asker.words(roots, &origin);
            let line = [format!("key {step:?}").to_lowercase(), fingerprint.chars().take(16).collect()];
            let roots = roots.clone();
            changing(talk, asker, &roots.clone(), "", &line, &words, move || {
                renew(&roots, step, &fingerprint, key.as_deref())
            })
        }
        Ask::Module { module, id, configure, origin } => {
            let words = asker.words(roots, &origin);
            // An archive of somebody who may not send one is not taken in.
            let bytes = if asker.role == Role::Admin { archive(talk)? } else { Vec::new() };
            let line = ["push".to_owned(), "-m".to_owned(), module.chars().take(64).collect()];
            let (roots, who, name) = (roots.clone(), words.clone(), module.clone());
            changing(talk, asker, &roots.clone(), &name, &line, &words, move || {
                modules::take(&roots, &module, id, configure, &bytes, &who)
            })
        }
        Ask::Part { .. } => refuse(talk, Failure::new(exit::USAGE, "a part of an archive came without its beginning")),
    }
}

fn refuse(talk: &mut Talk, failure: Failure) -> Result<(), TalkError> {
    talk.send(&Answer::Refused { error: failure.message, hint: failure.hint, exit: failure.code }, &[])
}

fn note(roots: &Roots, module: &str, words: &[String], who: &str, code: u8) {
    Command::start_for(roots, "sk-cluster", module, words, who).end(code);
}

fn forbidden(asker: &Asker, needed: Role) -> Failure {
    Failure::new(
        exit::FORBIDDEN,
        format!(
            "the key of {} has the role {}; this needs {needed}",
            asker.operator.as_deref().unwrap_or("the cluster"),
            asker.role
        ),
    )
    .hint("sk-cluster role list, on a node, shows who may do what")
}

fn may_run(asker: &Asker, argv: &[String]) -> Result<(), Failure> {
    if argv.len() > WORDS_LIMIT {
        return Err(Failure::new(exit::USAGE, format!("a command has at most {WORDS_LIMIT} words")));
    }
    let needed = wire::role::needed(argv).map_err(|e| Failure::new(exit::USAGE, e.to_string()))?;
    if asker.role < needed { Err(forbidden(asker, needed)) } else { Ok(()) }
}

/// Something that needs the role Admin, is logged, and may take a while.
fn changing(
    talk: &mut Talk,
    asker: &Asker,
    roots: &Roots,
    module: &str,
    words: &[String],
    who: &str,
    work: impl FnOnce() -> Result<Vec<String>, Failure> + Send + 'static,
) -> Result<(), TalkError> {
    if asker.role < Role::Admin {
        let failure = forbidden(asker, Role::Admin);
        note(roots, module, words, who, failure.code);
        return refuse(talk, failure);
    }
    let logged = Command::start_for(roots, "sk-cluster", module, words, who);
    let (sender, receiver) = channel();
    let worker = std::thread::Builder::new().name("work".into()).spawn(move || sender.send(work()));
    if let Err(e) = worker {
        logged.end(exit::SYSTEM);
        return refuse(talk, Failure::system("no thread for this", e));
    }
    let mut heard = true;
    let done = loop {
        match receiver.recv_timeout(ALIVE) {
            Ok(done) => break done,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                // What was begun is done to its end, also when nobody waits for it any more.
                heard = heard && talk.send(&Answer::Alive, &[]).is_ok();
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                break Err(Failure::new(exit::SYSTEM, "the thread of this work died"));
            }
        }
    };
    logged.end(done.as_ref().map_or_else(|failure| failure.code, |_| 0));
    match done {
        Ok(words) => talk.send(&Answer::Done { words }, &[]),
        Err(failure) => refuse(talk, failure),
    }
}

/// The parts that follow, as a whole.
fn archive(talk: &mut Talk) -> Result<Vec<u8>, TalkError> {
    // With names and padding, a tar is a little larger than what is in it.
    const LIMIT: usize = ARCHIVE_LIMIT as usize + 16 * 1024 * 1024;
    let mut bytes = Vec::new();
    loop {
        let (ask, part) = talk.receive::<Ask>(SILENCE)?;
        let Ask::Part { last } = ask else { return Err(TalkError::Closed) };
        if bytes.len() + part.len() > LIMIT {
            return Err(TalkError::Closed);
        }
        bytes.extend_from_slice(&part);
        if last {
            return Ok(bytes);
        }
    }
}

/// A step of a renewal; see `wire::ring`.
fn renew(roots: &Roots, step: KeyStep, fingerprint: &str, key: Option<&str>) -> Result<Vec<String>, Failure> {
    let path = roots.cluster_key();
    let failed = |e: &dyn std::fmt::Display| Failure::new(exit::REFUSED, e.to_string());
    let lock_path = roots.cluster_run().join("key.lock");
    let lock = sys::lock::LockFile::open(&lock_path).map_err(|e| Failure::system(lock_path.display(), e))?;
    if !lock.try_exclusive().map_err(|e| Failure::system(lock_path.display(), e))? {
        return Err(failed(&"the key is being changed by somebody else"));
    }
    let ring = KeyRing::load(&path).map_err(|e| failed(&e))?;
    let next = match step {
        KeyStep::Offer => {
            let key = key.and_then(|k| ClusterKey::from_hex(k.as_bytes())).filter(|k| k.fingerprint() == fingerprint);
            ring.offer(&key.ok_or_else(|| failed(&"no key came with the offer"))?)
        }
        KeyStep::Switch => ring.switch(fingerprint),
        KeyStep::Finish => ring.finish(fingerprint),
        KeyStep::Withdraw => ring.withdraw(fingerprint),
    }
    .map_err(|e| failed(&e))?;
    if next != ring {
        sys::files::write_durably(&path, next.to_text().as_bytes(), 0o600)
            .map_err(|e| Failure::system(path.display(), e))?;
    }
    Ok(Vec::new())
}
