//! The loop: read what modules say, collect it, have it told. Nothing here can hold up a module: it only reads files.

use crate::batch::{Batch, Policy, Verdict};
use crate::cli::{Failure, Run};
use crate::deliver::{deliver, is_script};
use crate::event::{self, Choice};
use crate::follow::{Begin, Follower, Mark};
use crate::place;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use sys::roots::Roots;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// Events kept for one script.
const KEEP: usize = 1000;
/// Largest `state.json` believed.
const STATE_MAX: u64 = 4 * 1024 * 1024;

/// End of a call.
struct Ended {
    script: PathBuf,
    result: Result<(), String>,
}

struct Notifier<'a> {
    roots: &'a Roots,
    options: &'a Run,
    node: String,
    followers: BTreeMap<String, Follower>,
    batches: BTreeMap<PathBuf, Batch>,
    saved: BTreeMap<String, Mark>,
    ends: Sender<Ended>,
    /// The place could not be saved: told once.
    unsaved: bool,
}

/// Until SIGTERM or SIGINT. What waits then is told by the next life.
pub fn run(roots: &Roots, options: &Run) -> Result<(), Failure> {
    let signals = sys::signals::take(&[Signal::SIGTERM, Signal::SIGINT])
        .map_err(|e| Failure::new("signals cannot be taken", e))?;
    let (ends, ended) = channel();
    let node = node_name(roots);
    let mut notifier = Notifier {
        roots,
        options,
        node,
        followers: BTreeMap::new(),
        batches: BTreeMap::new(),
        saved: BTreeMap::new(),
        ends,
        unsaved: false,
    };
    notifier.begin();
    loop {
        if signals.read_signal().map_err(|e| Failure::new("signals cannot be read", e.into()))?.is_some() {
            return Ok(());
        }
        notifier.turn(&ended);
    }
}

/// The name of this node as its modules know it, else that of the host.
pub fn node_name(roots: &Roots) -> String {
    let of_module = sys::modules::known(roots).iter().find_map(|module| {
        let bytes = sys::files::read_bounded(&roots.module_run(module).join("state.json"), STATE_MAX).ok()?;
        let state: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        state["node"].as_str().map(str::to_owned)
    });
    of_module.unwrap_or_else(|| {
        nix::sys::utsname::uname().map_or_else(|_| "?".into(), |u| u.nodename().to_string_lossy().into_owned())
    })
}

impl Notifier<'_> {
    /// At the very first start what happened before is old news.
    fn begin(&mut self) {
        let known = place::load(self.roots);
        let begin = if known.is_some() { Begin::Start } else { Begin::End };
        self.saved = known.unwrap_or_default();
        self.look_for_modules(begin);
        let script = &self.options.script;
        let words = if is_script(script) { "" } else { ", which is no executable yet" };
        sys::warn!("sk-notify: following {} modules for {}{words}", self.followers.len(), script.display());
        self.save();
    }

    fn look_for_modules(&mut self, begin: Begin) {
        let present = sys::modules::known(self.roots);
        self.followers.retain(|module, _| present.contains(module));
        for module in present {
            if !self.followers.contains_key(&module) {
                let path = self.roots.module_run(&module).join("events.jsonl");
                let mark = self.saved.get(&module).copied();
                self.followers.insert(module, Follower::new(&path, mark, begin, event::LINE_MAX));
            }
        }
    }

    fn turn(&mut self, ended: &Receiver<Ended>) {
        self.look_for_modules(Begin::Start);
        self.read();
        self.call();
        // The sender lives as long as this struct.
        match ended.recv_timeout(PERIOD) {
            Ok(end) => self.ended(&end),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if self.batches.values().all(Batch::is_empty) {
            self.batches.clear();
            self.save();
        }
    }

    fn read(&mut self) {
        let now = sys::clock::monotonic();
        let choice = Choice { levels: self.options.levels.clone(), resources: self.options.resources };
        let mut events = Vec::new();
        for (module, follower) in &mut self.followers {
            let lines = follower.lines();
            events.extend(lines.iter().filter_map(|line| event::read(&self.node, module, line, &choice)));
        }
        if events.is_empty() {
            return;
        }
        // The name in cluster.xml may have become known, or another one, since the last events.
        self.node = node_name(self.roots);
        for event in events {
            let own = self.roots.module_active(&event.module).join("bin/notification");
            for script in [self.options.script.clone(), own].into_iter().filter(|script| is_script(script)) {
                let (node, policy) = (&self.node, self.options.policy(KEEP));
                self.batches.entry(script).or_insert_with(|| Batch::new(node, policy)).add(now, event.clone());
            }
        }
    }

    fn call(&mut self) {
        let now = sys::clock::monotonic();
        for (script, batch) in &mut self.batches {
            let Some(call) = batch.call(now) else { continue };
            let (script, node, limit, ends) =
                (script.clone(), self.node.clone(), self.options.limit.into(), self.ends.clone());
            std::thread::spawn(move || {
                let result = deliver(&script, &node, &call, limit);
                // Nobody listens any more: the process is ending.
                let _ = ends.send(Ended { script, result });
            });
        }
    }

    fn ended(&mut self, end: &Ended) {
        let Some(batch) = self.batches.get_mut(&end.script) else { return };
        match &end.result {
            Ok(()) => batch.done(),
            Err(reason) => {
                let what = match batch.failed(sys::clock::monotonic()) {
                    Verdict::Again(pause) => format!("it is called again in {} s", pause.as_secs()),
                    Verdict::GivenUp(count) => format!("{count} events are given up"),
                };
                sys::warn!("sk-notify: {}: {reason}; {what}", end.script.display());
            }
        }
    }

    /// Nothing waits: all that was read is told.
    fn save(&mut self) {
        let marks: BTreeMap<String, Mark> =
            self.followers.iter().filter_map(|(module, f)| Some((module.clone(), f.mark()?))).collect();
        if marks == self.saved && !self.is_first(&marks) {
            return;
        }
        match place::save(self.roots, &marks) {
            Ok(()) => {
                self.saved = marks;
                self.unsaved = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unsaved, true) {
                    sys::warn!(
                        "sk-notify: the place in the events cannot be kept: {error}; after a restart some may be told again"
                    );
                }
            }
        }
    }

    /// No module yet: that this node is known is kept all the same, so that its first module's news are news.
    fn is_first(&self, marks: &BTreeMap<String, Mark>) -> bool {
        marks.is_empty() && !place::exists(self.roots)
    }
}

/// `sk-notify test`: one call, now.
pub fn test(roots: &Roots, script: &Path, limit: Duration) -> Result<(), String> {
    if !is_script(script) {
        let examples = roots.safe.join("notify");
        return Err(format!("{} is no executable file; examples are in {}", script.display(), examples.display()));
    }
    let node = node_name(roots);
    let call = crate::batch::rehearsal(&node, &wire::time::rfc3339_now());
    deliver(script, &node, &call, limit).map_err(|reason| format!("{}: {reason}", script.display()))
}

impl Run {
    fn policy(&self, keep: usize) -> Policy {
        Policy { gather: self.gather.into(), attempts: self.attempts, pause: self.pause.into(), keep }
    }
}
