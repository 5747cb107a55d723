//! How is a command of sk run for somebody on another host: its words go there as they come, and it ends when he goes away?

use crate::Failure;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use sys::roots::Roots;
use wire::node::{ALIVE, Answer, Talk, TalkError};

/// How often we look whether the command ended and the asker is still there.
const LOOK: Duration = Duration::from_millis(50);
/// What a grandchild that keeps the pipes still says after the command's end is not waited for.
const AFTER: Duration = Duration::from_secs(1);
/// Between SIGTERM and SIGKILL for a command whose asker is gone.
const GRACE: Duration = Duration::from_secs(5);

/// `argv` was found to be a command of sk that this asker may run.
pub fn run(roots: &Roots, talk: &mut Talk, argv: &[String], who: &str) -> Result<(), TalkError> {
    let (program, arguments) = argv.split_first().map_or(("", argv), |(p, a)| (p.as_str(), a));
    let mut command = Command::new(roots.program(program));
    command
        .args(arguments)
        .env("SK_ORIGIN", who)
        .env_remove("SK_KEY")
        .env_remove("SAFEMODULE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            let failure = Failure::system(format!("cannot run {program}"), e);
            return talk.send(&Answer::Refused { error: failure.message, hint: None, exit: failure.code }, &[]);
        }
    };
    // Little is kept here: a command that says more than the asker reads waits, as in a pipe.
    let (sender, receiver) = sync_channel(4);
    pump(child.stdout.take(), Answer::Out, &sender);
    pump(child.stderr.take(), Answer::Err, &sender);
    drop(sender);
    let result = pass_on(talk, &receiver, &mut child);
    if result.is_err() {
        end(&mut child);
    }
    result
}

fn pump(source: Option<impl Read + Send + 'static>, kind: Answer, sender: &SyncSender<(Answer, Vec<u8>)>) {
    let sender = sender.clone();
    std::thread::spawn(move || {
        let Some(mut source) = source else { return };
        let mut bytes = vec![0; 32 * 1024];
        loop {
            match source.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.send((kind.clone(), bytes.get(..count).unwrap_or_default().to_vec())).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}

fn pass_on(talk: &mut Talk, words: &Receiver<(Answer, Vec<u8>)>, child: &mut Child) -> Result<(), TalkError> {
    let mut spoke = Instant::now();
    let mut ended: Option<(u8, Instant)> = None;
    loop {
        match words.recv_timeout(LOOK) {
            Ok((kind, bytes)) => {
                talk.send(&kind, &bytes)?;
                spoke = Instant::now();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => {
                let code = match ended {
                    Some((code, _)) => Some(code),
                    None => child.try_wait().map_err(TalkError::Io)?.map(code_of),
                };
                if let Some(code) = code {
                    return talk.send(&Answer::End { exit: code }, &[]);
                }
                // It closed its outputs and goes on.
                std::thread::sleep(LOOK);
                speak(talk, &mut spoke)?;
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none()
            && let Some(status) = child.try_wait().map_err(TalkError::Io)?
        {
            ended = Some((code_of(status), Instant::now()));
        }
        if let Some((code, at)) = ended
            && at.elapsed() >= AFTER
        {
            return talk.send(&Answer::End { exit: code }, &[]);
        }
        speak(talk, &mut spoke)?;
    }
}

/// Says that we are there, and notices that the asker is not.
fn speak(talk: &mut Talk, spoke: &mut Instant) -> Result<(), TalkError> {
    if talk.is_closed() {
        return Err(TalkError::Closed);
    }
    if spoke.elapsed() >= ALIVE {
        talk.send(&Answer::Alive, &[])?;
        *spoke = Instant::now();
    }
    Ok(())
}

fn code_of(status: std::process::ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// As if somebody had pressed Ctrl-C there: what it asked a runner to do goes on.
fn end(child: &mut Child) {
    let group = Pid::from_raw(child.id().cast_signed());
    // Gone meanwhile is what is wanted.
    let _ = killpg(group, Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(LOOK);
    }
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
}
