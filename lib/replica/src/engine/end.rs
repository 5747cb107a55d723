//! How does a role end: drained and handed over, saved for the next start, or given up at once.

use super::core::lock;
use super::place;
use super::report::{Peer, Role};
use super::spec::Failure;
use super::{Engine, State, Then};
use crate::front::{self, FrontError, FrontSession, Unmount};
use crate::op::Op;
use crate::stream::message::Place;
use lineage::Standing;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// How long programs may take to let go of the directory at an orderly end.
const LETTING_GO: Duration = Duration::from_secs(5);

impl Engine {
    /// Gives the directories back; what uses them is given some time to let go.
    fn unmount(&mut self) {
        let State::Primary { fronts } = std::mem::replace(&mut self.state, State::Idle) else { return };
        let frozen = self.core.gate.is_closed() || !self.core.lease.holds();
        let deadline = Instant::now() + LETTING_GO;
        for front in &fronts {
            let mut how = if frozen || self.core.stopping.load(SeqCst) { Unmount::Abort } else { Unmount::Orderly };
            loop {
                match front.unmount(how) {
                    Ok(()) => break,
                    Err(FrontError::Busy { .. })
                        if how == Unmount::Orderly && Instant::now() < deadline && !self.core.stopping.load(SeqCst) =>
                    {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    Err(e) => {
                        self.core.note(e);
                        if how == Unmount::Abort {
                            break;
                        }
                        how = Unmount::Abort;
                    }
                }
            }
        }
        self.core.fronts.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Ends service in good order: nothing is inside, everything is with the secondary if there is one. The place of the end, when the
    /// secondary has everything.
    fn drain(&mut self) -> Option<Place> {
        self.unmount();
        let core = &self.core;
        core.gate.close_and_drain();
        let (link, paired, stream) = {
            let flow = core.flow();
            (flow.link, flow.paired && flow.end.is_none(), flow.ring.stream())
        };
        let link = link?;
        let resync = core.flow().resync.take();
        if let Some(resync) = resync {
            resync.cancel();
        }
        core.end_verify();
        let position = core.emit(link, &Op::Goodbye, &[])?;
        core.push();
        // Never longer than the runner is willing to wait for a peer that is alive.
        let limit = Duration::from_millis(core.spec.send_timeout_ms.max(1000));
        if !core.wait_settled(position, limit) || !paired {
            return None;
        }
        // The secondary made everything durable at this place; so do we, and then there is nothing that one of both may lack.
        if lock(&self.server.roots).iter().all(|root| rustix::fs::syncfs(root).is_ok()) {
            let head = core.remembered().lineage.head();
            core.flow().changes.clear(head);
        }
        Some(Place { stream, position })
    }

    /// After [`Engine::drain`]: no role, no connection.
    fn rest(&mut self) {
        let core = &self.core;
        let waiting = {
            let mut flow = core.flow();
            flow.role = Role::Idle;
            flow.link = None;
            flow.peer = Peer::Absent;
            flow.paired = false;
            flow.appending = false;
            flow.checkpoint = None;
            flow.end = None;
            flow.repair = false;
            // Nobody is told that anything was acknowledged: the front has already ended these requests.
            std::mem::take(&mut flow.waiting)
        };
        // Outside of the lock: each takes the front's.
        drop(waiting);
        core.abandoned.store(false, SeqCst);
        core.outlet.detach();
        lock(&self.server.roots).clear();
    }

    pub(super) fn demote(&mut self) -> Result<(), Failure> {
        if !matches!(self.state, State::Primary { .. }) {
            return Err(Failure::new("this node does not serve", "order secondary"));
        }
        {
            let flow = self.core.flow();
            if !(flow.paired && flow.link.is_some() && flow.end.is_none()) {
                return Err(Failure::new(
                    "the peer is not in sync",
                    "wait for the end of the resynchronisation, then swap again",
                ));
            }
        }
        // Programs that did not end with the application would write into the plain directory, between the end of the mount and the
        // beginning of the role that blocks it. Where the kernel cannot do it, that is an instant.
        if let State::Primary { fronts } = &self.state {
            let beneath = fronts.iter().map(FrontSession::root_fd);
            let _ = place::block_beneath(&self.core.spec.directories, beneath, &self.core.state_file("blocked"));
        }
        let place = self.drain();
        self.rest();
        let Some(place) = place else {
            return Err(Failure::new(
                "the peer did not acknowledge everything",
                "this node is still up to date and takes its role back: look at the other node and the network, then swap again",
            ));
        };
        // Everything is shared, in this order: first durable, then the new role.
        self.core.remember(|r| {
            r.unshared = false;
            r.position = place.position;
        })?;
        self.follow((false, None), Some(place))
    }

    pub(super) fn abandon(&mut self) -> Result<(), Failure> {
        if !matches!(self.state, State::Primary { .. }) {
            return Err(Failure::new("this node does not serve", "nothing is to be abandoned"));
        }
        if !self.core.flow().paired && self.core.lease.holds() {
            return Err(Failure::new("this node serves alone and acknowledges by itself", "order retire"));
        }
        self.core.abandon();
        Ok(())
    }

    pub(super) fn outdate(&mut self) -> Result<(), Failure> {
        if matches!(self.state, State::Primary { .. }) {
            return Err(Failure::new("this node serves", "order retire first"));
        }
        // Acknowledge nothing from here on, then remember why.
        self.leave_secondary(false, Then::Plain)?;
        self.core.remember(|r| {
            if matches!(r.standing, Standing::Paired | Standing::Alone) {
                r.standing = Standing::Outdated;
            }
        })?;
        Ok(())
    }

    pub(super) fn retire(&mut self) -> Result<(), Failure> {
        match self.state {
            State::Idle => {
                // What a dead process of ours left.
                place::unblock_stale(&self.core.state_file("blocked"));
                for (name, descriptor) in std::mem::take(&mut self.kept) {
                    drop(descriptor);
                    self.drop_kept(&name);
                }
                for directory in &self.core.spec.directories {
                    front::clear_stale(&directory.path).map_err(|e| Failure::new(e, "unmount it by hand"))?;
                }
                place::unblock_stale(&self.core.state_file("blocked"));
                Ok(())
            }
            State::Secondary { .. } => {
                self.leave_secondary(true, Then::Plain)?;
                // What a former life did not share is shared only once a resynchronisation has ended.
                let unshared = self.core.remembered().unshared;
                self.save(unshared)
            }
            State::Primary { .. } => {
                let shared = self.drain().is_some();
                self.rest();
                // Of a demotion that was begun and did not end.
                place::unblock_stale(&self.core.state_file("blocked"));
                self.save(!shared)
            }
        }
    }

    /// Makes durable what a later start needs. `unshared`: a primary that ended without its peer, or what is left of one.
    fn save(&mut self, unshared: bool) -> Result<(), Failure> {
        let core = &self.core;
        let roots = core.spec.directories.iter().map(|d| place::open(&d.path)).collect::<Result<Vec<_>, _>>();
        for root in roots.iter().flatten() {
            let _ = rustix::fs::syncfs(root);
        }
        match roots {
            // In full detail, which the log does not have while it runs.
            Ok(roots) => self.know_changes(&roots, false)?,
            Err(e) => core.note(format!("the change map is kept as the activity log has it: {}", e.reason)),
        }
        let core = &self.core;
        let position = core.flow().ring.position();
        let secondary = core.followed.load(SeqCst);
        core.remember(|r| {
            r.unshared = r.unshared && unshared;
            if r.standing == Standing::Alone {
                r.position = position;
            } else if !unshared {
                r.position = position.max(secondary).max(r.position);
            }
        })?;
        Ok(())
    }

    /// The runner is gone, or we are: nothing is answered any more, and nothing can be written past us, at once.
    pub fn release(&mut self) {
        let served = matches!(self.state, State::Primary { .. });
        let mut covered = false;
        let core = &self.core;
        core.gate.close();
        core.stopping.store(true, SeqCst);
        core.outlet.detach();
        core.outlet.stop();
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => place::unblock_stale(&self.core.state_file("blocked")),
            State::Primary { fronts } => {
                // The application is still there until a new runner ends it, and opens its files again as soon as it can: it must not meet
                // the plain directory for an instant. The dead mount is covered; the next process removes both. It is broken off
                // first, since who waits for an answer holds locks that the kernel needs to cover it.
                let beneath = fronts.iter().map(FrontSession::root_fd);
                covered = fronts.iter().all(|front| front.break_off().is_ok())
                    && place::cover(&core.spec.directories, beneath, &core.state_file("blocked")).is_ok();
                for front in fronts.iter().filter(|_| !covered) {
                    if let Err(e) = front.unmount(Unmount::Abort) {
                        self.core.note(e);
                    }
                }
            }
            State::Secondary { follower, blocks } => {
                follower.stop(false);
                if let Err(e) = place::unblock(&blocks, &self.core.state_file("blocked")) {
                    self.core.note(e.reason);
                }
            }
        }
        for (name, descriptor) in std::mem::take(&mut self.kept) {
            drop(descriptor);
            self.drop_kept(&name);
        }
        if covered {
            return;
        }
        for directory in &self.core.spec.directories {
            let _ = front::clear_stale(&directory.path);
        }
        if served && let Err(e) = place::seal(&self.core.spec.directories, &self.core.state_file("blocked")) {
            self.core.note(e.reason);
        }
    }
}
