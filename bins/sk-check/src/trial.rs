//! What does a custom checker report when no module runs? Its `safekit set` is answered here, by a control socket of a module
//! that exists only for the trial.

use crate::cli::Custom as Arguments;
use crate::custom::{Custom, Happened};
use crate::spec::CustomSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::failure::{Failure, SYSTEM, put};
use sys::roots::Roots;

const MODULE: &str = "trial";
const RESOURCE: &str = "custom.trial";
/// Longest request read.
const REQUEST_MAX: u64 = 64 * 1024;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A directory that is gone with its value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What remains of a trial harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let roots = Roots::from_environment();
    let (scratch, listener) = socket().map_err(|e| Failure::system("the control socket of the trial", e))?;
    let mut argv = arguments.command.clone();
    argv.splice(1..1, [MODULE.to_owned(), RESOURCE.to_owned()]);
    let text = |path: &Path| path.display().to_string();
    let environment = BTreeMap::from([
        ("SAFE".to_owned(), text(&roots.safe)),
        ("SAFEVAR".to_owned(), text(&roots.var)),
        ("SAFEBIN".to_owned(), text(&roots.safe_bin())),
        ("SAFEMODULE".to_owned(), MODULE.to_owned()),
        ("SAFEUSERVAR".to_owned(), text(&scratch.0)),
        ("SK_RUN".to_owned(), text(&scratch.0)),
    ]);
    let spec = CustomSpec { argv, environment, directory: None, output: Some(PathBuf::from("/dev/stderr")) };
    let mut custom = Custom::new(spec);
    custom.want(monotonic_ms());
    let result = watch(arguments, &mut custom, &listener);
    custom.dismiss(monotonic_ms());
    custom.end_now();
    result
}

fn socket() -> std::io::Result<(Scratch, UnixListener)> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let name = format!("sk-check-{:016x}", u64::from_ne_bytes(random));
    let scratch = Scratch(std::env::temp_dir().join(name));
    let run = scratch.0.join(MODULE);
    std::fs::create_dir_all(&run)?;
    let listener = UnixListener::bind(run.join("control"))?;
    listener.set_nonblocking(true)?;
    Ok((scratch, listener))
}

fn watch(arguments: &Arguments, custom: &mut Custom, listener: &UnixListener) -> Result<u8, Failure> {
    let began = monotonic_ms();
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let end = began.saturating_add(millis(arguments.lasting.unwrap_or(arguments.timeout)));
    let mut last = None;
    loop {
        let now = monotonic_ms();
        if let Some(Happened::Failed { how, .. }) = custom.tick(now) {
            return Err(Failure::new(SYSTEM, how));
        }
        if custom.end_fd().is_some() && custom.has_ended() {
            let how = match custom.ended(now) {
                Some(Happened::Ended { how, .. }) => how,
                _ => "ended".to_owned(),
            };
            sys::warn!("sk-check: the checker ended by itself ({how}); it must loop for ever");
            return Ok(outcome(last));
        }
        while let Ok((stream, _)) = listener.accept() {
            let Some((value, who)) = answer(&stream) else { continue };
            let up = value == "up";
            let line = if arguments.json {
                json!({"kind": "custom", "value": value, "identity": who, "ms": now - began}).to_string()
            } else {
                format!("{:>8} ms  {RESOURCE} {value}", now - began)
            };
            put(&line)?;
            if who.is_none() {
                sys::warn!("sk-check: it reports without -i: such a call counts as the administrator's");
            }
            last = Some(up);
        }
        if (last.is_some() && arguments.lasting.is_none()) || now >= end {
            if last.is_none() {
                sys::warn!(
                    "sk-check: it has reported nothing: it must run  safekit set -r {RESOURCE} -v up|down -i NAME"
                );
            }
            return Ok(outcome(last));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

const fn outcome(last: Option<bool>) -> u8 {
    match last {
        Some(true) => 0,
        Some(false) => 1,
        None => 2,
    }
}

/// Answers one request; what a `set` of our resource says.
fn answer(stream: &UnixStream) -> Option<(String, Option<String>)> {
    let second = Some(Duration::from_secs(1));
    stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(second)).ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_MAX)).read_line(&mut line).ok()?;
    let request: Value = serde_json::from_str(&line).ok()?;
    let text = |name: &str| request[name].as_str().map(str::to_owned);
    let set = request["verb"] == "set" && request["resource"] == RESOURCE;
    let reply = if set {
        json!({"ok": true})
    } else {
        let error = format!("a trial answers only: safekit set -r {RESOURCE} -v up|down -i NAME");
        json!({"ok": false, "error": error, "hint": "", "exit": 1})
    };
    let mut out = stream;
    writeln!(out, "{reply}").ok()?;
    if !set {
        sys::warn!("sk-check: the checker asked for {}", text("verb").unwrap_or_default());
        return None;
    }
    Some((text("value")?, text("identity")))
}
