//! What happens by itself while time passes: signs of life, deadlines, checkpoints, figures.

use super::core::Core;
use super::report::{Report, Role};
use crate::stream::message::Control;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(250);
/// Longest sleep of the thread that makes checkpoints: it is woken when one is due at once.
const IDLE: Duration = Duration::from_secs(1);
/// Activity between two checkpoints.
const CHECKPOINT: Duration = Duration::from_secs(5);

/// Figures of the last second.
struct Traffic {
    at: Instant,
    received: u64,
    sent: u64,
    live: u64,
    copied: u64,
    quiet: bool,
}

/// Body of the thread that ticks.
pub fn run(core: &Core) {
    let mut traffic = Traffic { at: Instant::now(), received: 0, sent: 0, live: 0, copied: 0, quiet: true };
    let mut position = 0;
    let mut progress = None;
    let mut held = core.lease.holds();
    while !core.stopping.load(SeqCst) {
        std::thread::sleep(TICK);
        core.outlet.ping_if_idle(Duration::from_millis(800));
        core.wakeful.look();
        core.push();
        core.resume_parked();
        deadline(core);
        if held != core.lease.holds() {
            held = !held;
            core.publish();
        }
        if traffic.at.elapsed() >= Duration::from_secs(1) {
            figures(core, &mut traffic);
            let now = core.flow().ring.position().max(core.followed.load(SeqCst));
            if now != position {
                position = now;
                core.publish_with(true);
            }
        }
        let resync = core.flow().resync.clone();
        if let Some(now) = resync.map(|r| r.progress(sys::clock::monotonic()))
            && progress.as_ref() != Some(&now)
            && traffic.at.elapsed() < Duration::from_millis(600)
        {
            core.tell(&Report::Progress(now.clone()));
            core.outlet.remark(&Control::Ping, &now.told());
            progress = Some(now);
        }
    }
}

/// A secondary that is alive but does not get on is as good as lost.
fn deadline(core: &Core) {
    let limit = Duration::from_millis(core.spec.send_timeout_ms);
    let (broken, late) = {
        let flow = core.flow();
        let late = flow.link.filter(|_| flow.stalled.is_some_and(|s| s.elapsed() > limit));
        (flow.link.is_none() && flow.role == Role::Primary, late)
    };
    if let Some(link) = late {
        core.outlet.detach();
        core.lost(link, &format!("the secondary acknowledged nothing for {} s", limit.as_secs()), false);
    } else if broken && core.outlet.is_receiving() {
        // The ring was given up: its connection must not stay.
        core.outlet.detach();
    }
}

fn figures(core: &Core, last: &mut Traffic) {
    let (received, sent) = (core.bytes_received.load(SeqCst), core.outlet.bytes_sent());
    let ms = (last.at.elapsed().as_millis() as u64).max(1);
    let rate = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1000) / ms;
    let (lag, seen) = {
        let mut flow = core.flow();
        (flow.ring.used(), flow.latency.take())
    };
    let (live, copied) = (core.live_bytes.load(SeqCst), core.copied_bytes.load(SeqCst));
    let (rep_bytes_s, rei_bytes_s) = (rate(live, last.live), rate(copied, last.copied));
    let (input, output) = (rate(received, last.received), rate(sent, last.sent));
    // Signs of life alone are below this.
    let quiet = input < 512 && output < 512 && lag == 0 && seen.is_none();
    if !quiet {
        let (ack_us, ack_worst_us) = (seen.map(|s| s.mean_us), seen.map(|s| s.worst_us));
        core.tell(&Report::Traffic {
            in_bytes_s: input,
            out_bytes_s: output,
            lag_bytes: lag,
            rep_bytes_s,
            rei_bytes_s,
            ack_us,
            ack_worst_us,
        });
    } else if !last.quiet {
        core.tell(&Report::Traffic {
            in_bytes_s: 0,
            out_bytes_s: 0,
            lag_bytes: 0,
            rep_bytes_s: 0,
            rei_bytes_s: 0,
            ack_us: None,
            ack_worst_us: None,
        });
    }
    *last = Traffic { at: Instant::now(), received, sent, live, copied, quiet };
}

/// Body of the thread that makes checkpoints: it waits for the disk, and signs of life must go on meanwhile.
pub fn checkpoints(core: &Core, roots: &Mutex<Vec<OwnedFd>>) {
    let mut last = Instant::now();
    // Set once: there is one such thread.
    let _ = core.checkpointer.set(std::thread::current());
    while !core.stopping.load(SeqCst) {
        std::thread::park_timeout(IDLE);
        if last.elapsed() < CHECKPOINT && !core.flow().checkpoint_due {
            continue;
        }
        last = Instant::now();
        let Some(number) = core.begin_checkpoint() else { continue };
        core.push();
        // Duplicates, so that nobody waits for the lock as long as for the disk.
        let Ok(roots) = super::core::lock(roots).iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>() else {
            continue;
        };
        match roots.iter().try_for_each(rustix::fs::syncfs) {
            Ok(()) => core.checkpointed(number, false),
            Err(e) => core.note(format!("a replicated directory cannot be made durable: {e}")),
        }
    }
}

impl Core {
    /// One side has made a checkpoint durable. When both have, what came before needs no longer be remembered.
    pub fn checkpointed(&self, number: u64, remote: bool) {
        let (position, generation) = {
            let mut flow = self.flow();
            let Some(mut pending) = flow.checkpoint.filter(|c| c.number == number) else { return };
            pending.remote |= remote;
            pending.local |= !remote;
            flow.checkpoint = Some(pending);
            if !(pending.local && pending.remote) {
                return;
            }
            flow.checkpoint = None;
            (pending.position, pending.generation)
        };
        // Remembered here before the secondary is told: it must never remember more than we do.
        if let Err(e) = self.remember(|r| r.position = position) {
            self.note(e);
            return;
        }
        let head = self.remembered().lineage.head();
        let worth = {
            let mut flow = self.flow();
            if flow.paired {
                flow.changes.retire(number, head);
            }
            flow.paired.then(|| flow.changes.worth())
        };
        if let Some(worth) = worth {
            self.retire_activity(generation, worth);
            self.outlet.control(&Control::Common { number, position }, &[]);
        }
    }
}
