//! Which role does this replica play: the orders of docs/architecture.md §3, carried out one at a time.
//!
//! Order of the steps in every order: first what makes the replica safe (gate, mount, durable standing), then what lets requests through. The gate
//! is closed from the start and is opened last. An order that fails half-way leaves the gate closed or the directory plain.

mod ack;
pub mod block;
mod changes;
pub mod choose;
mod core;
mod detail;
mod end;
pub mod estimate;
mod follow;
mod gate;
mod keys;
mod latency;
mod lease;
mod pairing;
mod place;
mod policy;
mod record;
mod repair;
pub mod report;
mod serve;
pub mod spec;
mod tick;
pub mod verify;
mod wakeful;
mod window;

use self::block::{Block, boot_id};
use self::changes::Changes;
use self::core::{Core, RING, lock, random};
use self::follow::{Ended, Follower, Making};
use self::keys::StreamKeys;
use self::report::{Peer, Report, Reporter, Role};
use self::serve::Server;
use self::spec::{Failure, Order, PeerMode, Spec};
use crate::activity::{Activity, Recovered};
use crate::change_map::DirtySet;
use crate::front::{self, FrontSession, FrontSpec, Keeper, Unmount, kept_prefixes};
use crate::mutation;
use crate::recorder::Front;
use crate::store::{PlaceFile, Store};
use crate::stream::memory::Mapped;
use crate::stream::message::{Place, StreamId};
use crate::stream::ring::{self, Ring};
use lineage::Standing;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, PoisonError};
use sys::store::StoreClient;

/// Name of the ring in the descriptor store.
const RING_NAME: &str = "ring";

/// The engine of one module.
pub struct Engine {
    core: Arc<Core>,
    server: Arc<Server>,
    keeper: Option<Arc<Kept>>,
    /// Descriptors of a former process that nobody has taken yet.
    kept: Vec<(String, OwnedFd)>,
    /// What the activity log of a former process says, until a role begins.
    recovered: Option<Recovered>,
    state: State,
}

enum State {
    Idle,
    Primary { fronts: Vec<FrontSession> },
    Secondary { follower: Follower, blocks: Vec<Block> },
}

/// What becomes of the directories of a secondary that is one no more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Plain,
    /// Until the next role, which follows at once.
    Blocked,
}

/// The descriptor store as the front sees it.
struct Kept {
    client: StoreClient,
    reporter: Reporter,
}

impl Keeper for Kept {
    fn keep(&self, name: &str, fd: BorrowedFd<'_>) {
        if let Err(e) = self.client.keep(name, fd) {
            (self.reporter)(&Report::Note { text: format!("descriptor {name} will not outlive this process: {e}") });
        }
    }

    fn drop(&self, name: &str) {
        // The runner is gone when this fails, and the descriptors with it.
        let _ = self.client.drop_name(name);
    }
}

impl Engine {
    /// Starts the threads; plays no role yet. `store`: the descriptor store and what it kept.
    pub fn start(
        spec: Spec,
        store: Option<(StoreClient, Vec<(String, OwnedFd)>)>,
        reporter: Reporter,
    ) -> Result<Self, Failure> {
        let keys = match &spec.key_file {
            Some(path) => Some(wire::KeyFile::open(path).map_err(|e| Failure::new(e, "see man 1 sk-cluster"))?),
            None => None,
        };
        let keys = Arc::new(StreamKeys::new(&spec.module, keys));
        let excludes = place::excludes(&spec.directories)?;
        let memory = Store::open(&spec.state_dir)?;
        let remembered = memory.now().clone();
        let (keeper, mut kept) = match store {
            Some((client, kept)) => (Some(Arc::new(Kept { client, reporter: reporter.clone() })), kept),
            None => (None, Vec::new()),
        };
        let floor = remembered.position.max(remembered.lineage.0.first().map_or(0, |e| e.start));
        let ring = Self::ring(&mut kept, keeper.as_deref(), floor, &reporter)?;
        let opened = Activity::open(&spec.state_dir, remembered.activity, StreamId(random()?));
        let (activity, recovered) = opened.map_err(|e| {
            Failure::new(format!("the activity log cannot be read: {e}"), "the state directory must be on a good disk")
        })?;
        let changes = Changes::unknown(StreamId(random()?));
        let core = Arc::new(Core::new(spec, memory, ring, changes, activity, reporter));
        core.followed.store(floor, SeqCst);
        if let Err(e) = place::reserve(&core.spec.directories, &core.state_file("blocked")) {
            core.note(format!("no room for a note of blocked directories: {e}"));
        }
        let server = Arc::new(Server::new(core.clone(), keys, excludes));
        let engine = Self { core, server, keeper, kept, recovered: Some(recovered), state: State::Idle };
        engine.threads()?;
        if let Some(rule) = mutation::announced() {
            engine.core.note(format!("this program breaks rule {rule} on purpose: never let it near data"));
        }
        engine.core.publish();
        Ok(engine)
    }

    fn ring(
        kept: &mut Vec<(String, OwnedFd)>,
        keeper: Option<&Kept>,
        position: u64,
        reporter: &Reporter,
    ) -> Result<Ring<Mapped>, Failure> {
        if let Some(at) = kept.iter().position(|(name, _)| name == RING_NAME) {
            let memory = ring::map(kept.swap_remove(at).1.as_fd(), RING).map_err(ring::RingError::Io);
            match memory.and_then(|memory| Ring::open(memory, RING)) {
                Ok(ring) => return Ok(ring),
                Err(e) => reporter(&Report::Note { text: format!("the ring of a former process cannot be used: {e}") }),
            }
        }
        let failed = |e: &dyn std::fmt::Display| {
            Failure::new(format!("no memory for the ring: {e}"), "free memory, then restart the module")
        };
        let file = ring::memory_file(RING).map_err(|e| failed(&e))?;
        let memory = ring::map(file.as_fd(), RING).map_err(|e| failed(&e))?;
        let ring = Ring::create(memory, RING, StreamId(random()?), position).map_err(|e| failed(&e))?;
        if let Some(keeper) = keeper {
            keeper.keep(RING_NAME, file.as_fd());
        }
        Ok(ring)
    }

    fn threads(&self) -> Result<(), Failure> {
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
            spawned.map(drop).map_err(|e| Failure::new(format!("no thread: {e}"), "raise the limit of processes"))
        };
        let server = self.server.clone();
        spawn("listen", Box::new(move || server.listen()))?;
        let core = self.core.clone();
        spawn("pump", Box::new(move || core.pump()))?;
        let core = self.core.clone();
        spawn("tick", Box::new(move || tick::run(&core)))?;
        let server = self.server.clone();
        spawn("checkpoint", Box::new(move || tick::checkpoints(&server.core, &server.roots)))
    }

    /// Carries out an order.
    pub fn order(&mut self, order: Order) -> Result<(), Failure> {
        let outcome = match order {
            Order::Primary { peer, force } => self.primary(peer, force),
            Order::Secondary { full, since } => self.secondary(full, since),
            Order::ExcludePeer => self.exclude_peer(),
            Order::Promote { peer } => self.promote(peer),
            Order::Demote => self.demote(),
            Order::Outdate => self.outdate(),
            Order::Abandon => self.abandon(),
            Order::Retire => self.retire(),
            Order::Lease { until_boottime_ms } => {
                self.core.extend_lease(until_boottime_ms);
                return Ok(());
            }
        };
        self.core.publish();
        outcome
    }

    /// Tells the present snapshot again.
    pub fn publish(&self) {
        self.core.publish_with(true);
    }

    /// What to call, from any thread, when the runner is gone, also while an order is being carried out: nothing is admitted or
    /// acknowledged any more, and whoever waits for the peer stops waiting. [`Engine::release`] does the rest.
    pub fn abandoner(&self) -> impl FnOnce() + Send + 'static {
        let core = self.core.clone();
        move || {
            core.gate.close();
            core.stopping.store(true, SeqCst);
            core.flow().link = None;
            core.outlet.detach();
            core.changed.notify_all();
        }
    }

    /// What extends the lease from any thread: a renewal must not wait for the end of an order.
    pub fn lessor(&self) -> impl Fn(u64) + Send + 'static {
        let core = self.core.clone();
        move |until_boottime_ms| core.extend_lease(until_boottime_ms)
    }

    fn primary(&mut self, peer: PeerMode, force: bool) -> Result<(), Failure> {
        match &self.state {
            State::Primary { .. } => {
                let paired = self.core.flow().paired;
                return match peer {
                    PeerMode::Excluded if paired => self.core.exclude(),
                    PeerMode::Paired if !paired => Err(not_paired()),
                    _ => Ok(()),
                };
            }
            State::Secondary { .. } => return self.promote(peer),
            State::Idle => {}
        }
        let standing = self.core.remembered().standing;
        // A mount of a former process: its role goes on.
        let continued = self.kept.iter().any(|(name, _)| name.starts_with("fuse:"));
        match (peer, standing) {
            (PeerMode::Excluded, Standing::Alone) | (PeerMode::Paired, Standing::Paired) => {}
            (PeerMode::Excluded, _) if force || (continued && standing == Standing::Paired) => {}
            (PeerMode::Excluded, _) => {
                let name = serde_json::to_string(&standing).unwrap_or_default();
                return Err(Failure::new(
                    format!("the data of this node is {}, its peer may have newer data", name.trim_matches('"')),
                    "start the node with the newer data first, or force this one with prim",
                ));
            }
            (PeerMode::Paired, _) => return Err(not_paired()),
        }
        self.serve(peer, None)
    }

    /// Mounts and serves. `from`: the place up to which a promoted secondary applied.
    fn serve(&mut self, peer: PeerMode, from: Option<Place>) -> Result<(), Failure> {
        let core = self.core.clone();
        let server = self.server.clone();
        // Nobody is let in before all is ready.
        let _door = server.close_door();
        core.gate.close();
        // The knowledge that all was shared ends here. Written before the directory is released, if a swap that was given up left it
        // blocked: what a program wrote between that and the mount would be on no other node.
        core.remember(|r| r.unshared = true)?;
        core.begin_policy()?;
        let mut roots = Vec::new();
        let mut kept = std::mem::take(&mut self.kept);
        if kept.iter().any(|(name, _)| name.starts_with("fuse:")) {
            place::unblock_stale(&core.state_file("blocked"));
        } else {
            // A mount whose engine died together with its keeper hides the directory: nobody can continue it.
            for directory in &core.spec.directories {
                front::clear_stale(&directory.path).map_err(|e| Failure::new(e, "unmount it by hand"))?;
            }
            // What a secondary blocked stays blocked, beneath the mount: the directory is plain for nobody, not for an instant.
            let file = core.state_file("blocked");
            let standing = place::blocked(&core.spec.directories, &file);
            if standing.is_none() {
                place::unblock_stale(&file);
            }
            // With a mount of ours in the way nothing could be checked; it was checked when that was made.
            place::check(&core.spec.directories, standing.is_some())?;
            roots = standing.map_or_else(Vec::new, |(roots, _)| roots);
        }
        {
            let mut flow = core.flow();
            if let Some(place) = from {
                let position = place.position.max(flow.ring.position());
                let origin = (peer == PeerMode::Paired).then_some((place.stream, place.position));
                let position = if origin.is_some() { place.position } else { position };
                flow.ring
                    .restart(StreamId(random()?), position, origin)
                    .map_err(|e| Failure::new(e, "restart the module"))?;
                core.emptied(&mut flow);
                flow.done = position;
                flow.sealed = position;
            }
            flow.role = Role::Primary;
            flow.paired = peer == PeerMode::Paired;
            flow.appending = flow.paired;
            flow.peer = if flow.paired { Peer::Lost } else { Peer::Absent };
            if core.remembered().standing == Standing::Paired {
                // Also when the peer will be excluded: until the epoch is minted its acknowledgement is what counts.
                flow.paired = true;
                flow.appending = true;
            }
        }
        let fronts = match self.mount(&mut kept, roots) {
            Ok(fronts) => fronts,
            Err(e) => {
                core.flow().role = Role::Idle;
                core.flow().paired = false;
                return Err(e);
            }
        };
        for (name, _) in kept {
            self.drop_kept(&name);
        }
        *core.fronts.write().unwrap_or_else(PoisonError::into_inner) =
            fronts.iter().map(|f| Arc::new(f.clone()) as Arc<dyn Front>).collect();
        let roots = fronts.iter().map(|f| place::reopen(f.root_fd())).collect::<Result<Vec<_>, _>>();
        self.state = State::Primary { fronts };
        let roots = roots?;
        self.know_changes(&roots, false)?;
        *lock(&self.server.roots) = roots;
        match (peer, core.remembered().standing) {
            (PeerMode::Paired, _) => {}
            (PeerMode::Excluded, Standing::Alone) => core.unpair()?,
            (PeerMode::Excluded, _) => core.exclude()?,
        }
        Ok(())
    }

    /// `roots`: the directories, opened, if they are blocked.
    fn mount(&mut self, kept: &mut Vec<(String, OwnedFd)>, roots: Vec<OwnedFd>) -> Result<Vec<FrontSession>, Failure> {
        let mut fronts: Vec<FrontSession> = Vec::new();
        let mut roots = roots.into_iter();
        for (index, directory) in self.core.spec.directories.iter().enumerate() {
            let (own, others) = std::mem::take(kept).into_iter().partition(|(name, _)| belongs(name, &directory.path));
            *kept = others;
            let exclude = self.server.excludes.get(index).cloned();
            let started = FrontSession::start(FrontSpec {
                dir_index: index as u16,
                path: directory.path.clone(),
                root: roots.next(),
                excludes: exclude
                    .filter(|e| !e.is_empty())
                    .map(|e| -> crate::front::Excludes { Arc::new(move |path| e.is_excluded(path.as_bytes(), false)) }),
                recorder: self.core.clone(),
                keeper: self.keeper.clone().map(|k| k as Arc<dyn Keeper>),
                kept: own,
            });
            match started {
                Ok(front) => fronts.push(front),
                Err(e) => {
                    for front in &fronts {
                        let _ = front.unmount(Unmount::Abort);
                    }
                    return Err(Failure::new(e, "then start the module again"));
                }
            }
        }
        Ok(fronts)
    }

    fn drop_kept(&self, name: &str) {
        if let Some(keeper) = &self.keeper {
            Keeper::drop(&**keeper, name);
        }
    }

    fn secondary(&mut self, full: bool, since: Option<i64>) -> Result<(), Failure> {
        match &self.state {
            State::Primary { .. } => return Err(Failure::new("this node serves", "order demote or retire first")),
            State::Secondary { .. } if !full && since.is_none() => return Ok(()),
            State::Secondary { .. } => {
                self.leave_secondary(false, Then::Blocked)?;
            }
            State::Idle => {}
        }
        let place = PlaceFile::open(&self.core.state_file("place"), &boot_id()).ok().and_then(|p| p.read());
        self.follow((full, since), place)
    }

    /// `wanted`: everything is compared; since when there are changes that the data of this node have not.
    fn follow(&mut self, wanted: (bool, Option<i64>), place: Option<Place>) -> Result<(), Failure> {
        let core = self.core.clone();
        // A mount that a dead primary of ours left must not hide the directory.
        for (name, descriptor) in std::mem::take(&mut self.kept) {
            drop(descriptor);
            self.drop_kept(&name);
        }
        for directory in &core.spec.directories {
            front::clear_stale(&directory.path).map_err(|e| Failure::new(e, "unmount it by hand"))?;
        }
        let file = core.state_file("blocked");
        // Left by the demotion of a moment ago, or by a secondary that died: not for an instant is the directory plain.
        let standing = place::blocked(&core.spec.directories, &file);
        if standing.is_none() {
            place::unblock_stale(&file);
        }
        place::check(&core.spec.directories, standing.is_some())?;
        let places = PlaceFile::open(&core.state_file("place"), &boot_id())
            .map_err(|e| Failure::new(format!("the state directory: {e}"), "it must be on a writable disk"))?;
        let (roots, blocks) = match standing {
            Some(standing) => standing,
            None => (
                core.spec.directories.iter().map(|d| place::open(&d.path)).collect::<Result<Vec<_>, _>>()?,
                place::block(&core.spec.directories, &file)?,
            ),
        };
        let started = self.start_follower(wanted, place, places, roots);
        match started {
            Ok(follower) => {
                self.state = State::Secondary { follower, blocks };
                Ok(())
            }
            Err(e) => {
                core.flow().role = Role::Idle;
                place::unblock(&blocks, &file)?;
                Err(e)
            }
        }
    }

    fn start_follower(
        &mut self,
        wanted: (bool, Option<i64>),
        place: Option<Place>,
        places: PlaceFile,
        roots: Vec<OwnedFd>,
    ) -> Result<Follower, Failure> {
        let core = self.core.clone();
        let standing = core.remembered().standing;
        {
            let mut flow = core.flow();
            flow.role = Role::Secondary;
            flow.peer = Peer::Absent;
            flow.paired = false;
            flow.appending = false;
        }
        if let Some(place) = place {
            core.followed.store(place.position, SeqCst);
        }
        self.know_changes(&roots, true)?;
        // After a demotion the place is known only to us until here.
        places
            .write(place)
            .map_err(|e| Failure::new(format!("the state directory: {e}"), "it must be on a writable disk"))?;
        let making = Making { excludes: self.server.excludes.clone(), roots };
        let inconsistent = matches!(standing, Standing::Inconsistent | Standing::Blank);
        let applier = making.applier(&core, inconsistent, false)?;
        Follower::start(core, self.server.keys.clone(), applier, making, places, place, wanted)
            .map_err(|e| Failure::new(format!("no thread: {e}"), "raise the limit of processes"))
    }

    /// Before a role begins: what a former process recorded, or what this one knows from another role, in terms of the trees; durable. `follows`:
    /// what comes is received.
    fn know_changes(&mut self, roots: &[OwnedFd], follows: bool) -> Result<(), Failure> {
        let core = &self.core;
        if let Some(recovered) = self.recovered.take() {
            let set = recovered.resolve(roots).unwrap_or_else(|e| {
                core.note(format!("the activity log cannot be used, everything will be compared: {e}"));
                DirtySet::all_of_it()
            });
            core.flow().changes.recover(&set, &recovered.header);
        } else {
            let mut flow = core.flow();
            if let Err(e) = flow.changes.localise(roots) {
                core.note(format!("the change map cannot be used, everything will be compared: {e}"));
                flow.changes.forget();
            }
        }
        let (worth, set) = {
            let mut flow = core.flow();
            flow.changes.set_foreign(follows);
            (flow.changes.worth(), flow.changes.dirty())
        };
        let log = core.activity.log();
        let written = core.activity.restart(worth, &set, !follows);
        let storage = |e: &dyn std::fmt::Display| {
            Failure::new(
                format!("the activity log: {e}"),
                "the state directory must be on a writable disk with free space",
            )
        };
        match written {
            Ok(()) => Ok(core.remember(|r| r.activity = Some(log))?),
            Err(e) => core.activity_failed(&e).map_err(|e| storage(&e)),
        }
    }

    /// Stops following and releases the directories. The place up to which was applied.
    fn leave_secondary(&mut self, goodbye: bool, then: Then) -> Result<Option<Place>, Failure> {
        let State::Secondary { follower, blocks } = std::mem::replace(&mut self.state, State::Idle) else {
            return Ok(None);
        };
        let mut durable = Ok(());
        let place = follower.stop(goodbye).and_then(|Ended { place, mut applier }| {
            applier.settle();
            // Whoever takes over is the only one who surely has what it acknowledged, also after a loss of both hosts.
            durable = applier.sync_everything();
            place
        });
        let mut flow = self.core.flow();
        flow.role = Role::Idle;
        flow.peer = Peer::Absent;
        drop(flow);
        // From now on somebody else may change the directory.
        let forgotten = PlaceFile::open(&self.core.state_file("place"), &boot_id()).and_then(|p| p.write(None));
        forgotten.map_err(|e| Failure::new(format!("the state directory: {e}"), "it must be on a writable disk"))?;
        if then == Then::Plain {
            place::unblock(&blocks, &self.core.state_file("blocked"))?;
        }
        durable.map_err(|e| {
            Failure::new(
                format!("a replicated directory cannot be made durable: {e}"),
                "look at the disk's errors in the kernel's log",
            )
        })?;
        Ok(place)
    }

    fn exclude_peer(&mut self) -> Result<(), Failure> {
        if !matches!(self.state, State::Primary { .. }) {
            return Err(Failure::new("this node does not serve", "order primary first"));
        }
        let paired = self.core.flow().paired;
        if paired { self.core.exclude() } else { Ok(()) }
    }

    fn promote(&mut self, peer: PeerMode) -> Result<(), Failure> {
        match &self.state {
            State::Primary { .. } => return self.primary(peer, false),
            State::Idle => return self.primary(peer, false),
            State::Secondary { .. } => {}
        }
        let standing = self.core.remembered().standing;
        if standing != Standing::Paired && !(standing == Standing::Alone && peer == PeerMode::Excluded) {
            return Err(Failure::new(
                "the data of this node is not up to date",
                "wait until the resynchronisation has ended",
            ));
        }
        let place = self.leave_secondary(false, Then::Blocked)?;
        if peer == PeerMode::Paired && place.is_none() {
            return Err(Failure::new(
                "this node was never in sync since it started",
                "wait until the resynchronisation has ended",
            ));
        }
        self.serve(peer, place)
    }
}

fn not_paired() -> Failure {
    Failure::new("the peer is not in sync", "start it and wait for the end of its resynchronisation")
}

/// Whether a kept descriptor belongs to the front of this directory.
fn belongs(name: &str, path: &Path) -> bool {
    let path = path.to_string_lossy();
    kept_prefixes().iter().filter_map(|prefix| name.strip_prefix(prefix)).any(|rest| {
        rest == path
            || rest
                .rsplit_once(':')
                .is_some_and(|(before, ino)| before == path && ino.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// The state directory of a module.
pub fn state_dir(roots: &sys::roots::Roots, module: &str) -> PathBuf {
    roots.module_var(module).join("replica")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_descriptors_belong_to_their_directory_only() {
        for (name, path, expected) in [
            ("fuse:/data", "/data", true),
            ("unlinked:/data:77", "/data", true),
            ("fuse:/data/sub", "/data", false),
            ("unlinked:/data/x:5", "/data", false),
            ("ring", "/data", false),
        ] {
            assert_eq!(belongs(name, Path::new(path)), expected, "{name} {path}");
        }
    }
}
