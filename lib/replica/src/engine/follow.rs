//! A secondary's side: connect, tell where we are, apply in order, acknowledge.
//!
//! # Crash windows
//! *Place.* Written after the operations before it were applied, and before they are acknowledged: a new process applies at most some operations
//! again (they may be), and never misses one. It belongs to the present boot: after a reboot the page cache is gone and so is the place.
//! *Begin of a resynchronisation*: `inconsistent` is durable before anything of it is applied. *Its end*: everything is on the disk, then lineage and
//! `paired` are durable, then it is acknowledged. Killed in between, the end marker comes again, to the same effect.
//! *Barriers* with `async="none"`: acknowledged up to the operation before the oldest barrier that the disk has not confirmed. A process that
//! continues somewhere makes everything durable first, since it does not know what its predecessor's barriers still waited for.
//! *End*: after [`Follower::stop`] returned nothing is acknowledged any more: whoever takes over may rely on it.

use super::ack::{Acker, Job, Writer, pool};
use super::core::{Core, lock};
use super::detail::Detail;
use super::keys::StreamKeys;
use super::report::{Peer, Report};
use super::serve::{HANDSHAKE, Line, LineError, tune};
use super::spec::{Asynchronous, Failure};
use crate::activity::Activity;
use crate::apply::{Applied, Applier, Options};
use crate::change_map::DirtySet;
use crate::mutation;
use crate::op::Op;
use crate::policy::{Policy, Side};
use crate::recorder::Position;
use crate::resync::Progress;
use crate::salvage::Salvage;
use crate::store::PlaceFile;
use crate::stream::frame::Body;
use crate::stream::message::{Control, Hello, Mode, Place, StreamId, VERSION, Vouched};
use crate::tree::Exclude;
use lineage::{Lineage, Standing};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use wire::channel::Channel;

const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Without a barrier, acknowledge after this many bytes.
const ACK_BYTES: usize = 1024 * 1024;
/// Pause after something could not be applied (a full disk, say): the next attempt begins with comparing everything.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
/// Bytes of the change map in one message.
const PART: usize = 1 << 20;
/// Share of the free space that one resynchronisation may fill with what it puts aside: rescuing old content must not end in a full disk.
const SALVAGE_SHARE: u64 = 4;

/// A running secondary.
pub struct Follower {
    shared: Arc<Shared>,
    thread: JoinHandle<Option<Ended>>,
}

/// What is left of a secondary.
pub struct Ended {
    pub place: Option<Place>,
    pub applier: Applier,
}

/// What an applier is made of.
pub struct Making {
    pub excludes: Vec<Arc<Exclude>>,
    pub roots: Vec<OwnedFd>,
}

/// Space left for us where `path` is, or will be once it is made.
fn free_bytes(path: &Path) -> u64 {
    path.ancestors().find_map(|p| rustix::fs::statvfs(p).ok()).map_or(0, |fs| fs.f_frsize.saturating_mul(fs.f_bavail))
}

impl Making {
    /// `salvage`: what is overwritten or removed never reached the other node, and is put aside first.
    pub fn applier(&self, core: &Core, inconsistent: bool, salvage: bool) -> Result<Applier, Failure> {
        let spec = &core.spec;
        let paths: Vec<_> = spec.directories.iter().map(|d| d.path.clone()).collect();
        let directory = spec.salvage_dir.as_ref().filter(|_| salvage);
        let salvage = directory.map(|d| Salvage::new(d, SystemTime::now(), &paths, free_bytes(d) / SALVAGE_SHARE));
        let options = Options { excludes: self.excludes.clone(), salvage, inconsistent, since: core.activity.since() };
        Ok(Applier::new(super::place::duplicate(&self.roots)?, options))
    }
}

struct Shared {
    stop: AtomicBool,
    /// To wake up the thread that reads.
    socket: Mutex<Option<TcpStream>>,
    acker: Arc<Acker>,
}

impl Follower {
    /// Starts to follow.
    pub fn start(
        core: Arc<Core>,
        keys: Arc<StreamKeys>,
        applier: Applier,
        making: Making,
        places: PlaceFile,
        place: Option<Place>,
        (full, since): (bool, Option<i64>),
    ) -> std::io::Result<Self> {
        let acker = Arc::new(Acker::default());
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), socket: Mutex::new(None), acker: acker.clone() });
        let (jobs, work) = channel();
        let work = Arc::new(Mutex::new(work));
        for _ in 0..3 {
            let (work, core, acker) = (work.clone(), core.clone(), acker.clone());
            std::thread::Builder::new().name("disk".into()).spawn(move || pool(&work, &core, &acker))?;
        }
        let detail = core.spec.resync_detail.then(|| Detail::new(&core.spec.directories, Instant::now()));
        let ticker = shared.clone();
        std::thread::Builder::new().name("alive".into()).spawn(move || alive(&ticker))?;
        let mut session = Session {
            core,
            keys,
            applier,
            making,
            places,
            place,
            full,
            vouched: since.map(Vouched::Since),
            failed: false,
            shared: shared.clone(),
            jobs,
            generations: BTreeMap::new(),
            detail,
        };
        let thread = std::thread::Builder::new().name("follow".into()).spawn(move || {
            session.run();
            Some(Ended { place: session.place, applier: session.applier })
        })?;
        Ok(Self { shared, thread })
    }

    /// Stops receiving; complete frames that were received are applied. Nothing is acknowledged after the return.
    pub fn stop(self, goodbye: bool) -> Option<Ended> {
        if goodbye {
            self.shared.acker.send(&Control::Leaving, &[]);
        }
        self.shared.stop.store(true, SeqCst);
        self.shared.acker.detach();
        if let Some(socket) = lock(&self.shared.socket).as_ref() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        self.thread.join().ok().flatten()
    }
}

/// The ticker: signs of life, also while the applier waits for its disk.
fn alive(shared: &Shared) {
    while !shared.stop.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(500));
        if !shared.acker.acknowledge() {
            shared.acker.send(&Control::Ping, &[]);
        }
    }
}

struct Session {
    core: Arc<Core>,
    keys: Arc<StreamKeys>,
    applier: Applier,
    making: Making,
    places: PlaceFile,
    place: Option<Place>,
    full: bool,
    /// Good for one synchronisation: one that is interrupted goes on by comparing.
    vouched: Option<Vouched>,
    /// The last connection ended because something could not be applied.
    failed: bool,
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    /// Generations of the activity log by the checkpoints that ended them.
    generations: BTreeMap<u64, u64>,
    /// `reidetail`.
    detail: Option<Detail>,
}

/// What one connection agreed upon.
struct Agreed {
    prompt: bool,
    lineage: Lineage,
    begun: Instant,
    files: u64,
    bytes: u64,
}

impl Session {
    fn run(&mut self) {
        let mut pause = BACK_OFF.0;
        let mut said = String::new();
        while !self.stopped() {
            let mut up = false;
            let outcome = self.connection(&mut up);
            self.shared.acker.detach();
            *lock(&self.shared.socket) = None;
            let reason = match outcome {
                Ok(()) => "the primary left".to_owned(),
                Err(e) => e.to_string(),
            };
            if up {
                let synced = self.core.remembered().standing == Standing::Paired;
                {
                    let mut flow = self.core.flow();
                    if flow.peer != Peer::Left {
                        flow.peer = if synced { Peer::Lost } else { Peer::Absent };
                    }
                }
                self.core.tell(&Report::StreamLost { reason: reason.clone() });
                self.core.publish();
                pause = BACK_OFF.0;
                said.clear();
            } else if said != reason {
                self.core.note(format!("not connected to {}: {reason}", self.core.spec.peer_address));
                said = reason;
            }
            if std::mem::take(&mut self.failed) {
                pause = AFTER_FAILURE;
            }
            let until = Instant::now() + pause;
            while !self.stopped() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(SeqCst) || self.core.stopping.load(SeqCst)
    }

    fn connection(&mut self, up: &mut bool) -> Result<(), LineError> {
        let stream =
            TcpStream::connect_timeout(&self.core.spec.peer_address, Duration::from_secs(2)).map_err(LineError::Io)?;
        let channel =
            Channel::connect(stream, self.keys.now(|text| self.core.note(text)).first(), Instant::now() + HANDSHAKE)?;
        let (stream, sealer, opener) = channel.split();
        tune(&stream, Duration::from_millis(self.core.spec.send_timeout_ms.max(1000))).map_err(LineError::Io)?;
        *lock(&self.shared.socket) = Some(stream.try_clone().map_err(LineError::Io)?);
        if self.stopped() {
            return Ok(());
        }
        let mut writer = Writer::new(stream.try_clone().map_err(LineError::Io)?, sealer);
        let remembered = self.core.remembered();
        let covered = self.core.flow().changes.covered();
        let policy = self.core.policy();
        let marked = match &policy {
            Policy::External { role: Side::Second, uid, refused: false, .. } => Some(Vouched::Mark(uid.clone())),
            _ => None,
        };
        let hello = Hello {
            version: VERSION,
            module: self.core.spec.module.clone(),
            node: self.core.spec.node.clone(),
            directories: self.core.spec.directories.len() as u16,
            lineage: remembered.lineage,
            standing: remembered.standing,
            place: self.place,
            unshared: remembered.unshared,
            covered_by: remembered.covered_by,
            full: self.full || policy == Policy::Full,
            vouched: self.vouched.clone().or(marked),
            changed: [covered.base, covered.also].into_iter().flatten().collect(),
        };
        writer.send(&Control::Hello(hello), &[])?;
        let mut line = Line::new(stream, opener);
        match line.control()?.0 {
            Control::Welcome { mode, place, covered_by, prompt, lineage, changed, salvage } => {
                let agreed = Agreed { prompt, lineage, begun: Instant::now(), files: 0, bytes: 0 };
                self.agree(mode, place, covered_by, (&agreed.lineage, salvage))?;
                self.vouched = None;
                if matches!(policy, Policy::External { .. }) {
                    self.core.set_policy(&Policy::Default);
                }
                *up = true;
                self.shared.acker.attach(writer, place.position);
                if changed {
                    self.tell_changes();
                }
                self.core.tell(&Report::StreamUp {});
                self.core.publish();
                self.core.tell(&Report::ResyncBegin { mode, files: 0, bytes: 0 });
                if mode == Mode::Resume {
                    self.core.tell(&Report::ResyncEnd { files: 0, bytes: 0, ms: 0 });
                    self.shared.acker.acknowledge();
                }
                self.receive(&mut line, agreed)
            }
            Control::Refused { reason, hopeless } => {
                if hopeless {
                    if let Policy::External { role, uid, since, .. } = policy {
                        self.core.set_policy(&Policy::External { role, uid, since, refused: true });
                    }
                    self.failed = true;
                    self.core.tell(&Report::Fault { reason: reason.clone() });
                }
                Err(LineError::Protocol(format!("the primary refuses: {reason}")))
            }
            other => Err(LineError::Protocol(format!("unexpected answer of the primary: {other:?}"))),
        }
    }

    /// What this node changed and the primary may not know.
    fn tell_changes(&self) {
        let bytes = self.core.flow().changes.dirty().to_bytes();
        let mut parts = bytes.chunks(PART).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            self.shared.acker.send(&Control::Changed { last }, part);
        }
    }

    /// Makes durable what the welcome changes.
    fn agree(
        &mut self,
        mode: Mode,
        place: Place,
        covered_by: Option<StreamId>,
        (theirs, salvage): (&Lineage, bool),
    ) -> Result<(), LineError> {
        let storage = |e: crate::store::StoreError| LineError::Protocol(e.to_string());
        if mode == Mode::Resume {
            if self.place.is_none_or(|p| p.position != place.position) {
                return Err(LineError::Protocol("the primary resumes at another place than ours".into()));
            }
            self.applier.set_replaying(true);
            if self.core.spec.asynchronous == Asynchronous::None {
                self.applier.sync_everything().map_err(LineError::Io)?;
            }
        } else {
            let remembered = self.core.remembered();
            let unseen = salvage || remembered.lineage.may_hold_unseen(theirs, remembered.unshared, self.full);
            let made = self.making.applier(&self.core, true, unseen);
            self.applier = made.map_err(|e| LineError::Protocol(e.reason))?;
            self.core
                .remember(|r| {
                    r.standing = Standing::Inconsistent;
                    r.covered_by = covered_by;
                })
                .map_err(storage)?;
        }
        self.generations.clear();
        self.put_place(Some(place)).map_err(LineError::Io)?;
        let paired = self.core.remembered().standing == Standing::Paired;
        self.core.flow().peer = if paired { Peer::InSync } else { Peer::Syncing };
        Ok(())
    }

    fn put_place(&mut self, place: Option<Place>) -> std::io::Result<()> {
        if self.place != place {
            self.places.write(place)?;
            self.place = place;
        }
        if let Some(place) = place {
            self.core.followed.store(place.position, SeqCst);
        }
        Ok(())
    }

    fn receive(&mut self, line: &mut Line, mut agreed: Agreed) -> Result<(), LineError> {
        let Some(mut place) = self.place else { return Ok(()) };
        let mut unacknowledged = 0;
        loop {
            let mut barrier = false;
            let mut goodbye = false;
            let outcome = loop {
                let Some(frame) = line.decoder.next_frame()? else { break Ok(()) };
                unacknowledged += frame.payload.len() + 128;
                match frame.body {
                    Body::Op(op) => {
                        if frame.n != place.position + 1 {
                            break Err(LineError::Protocol(format!(
                                "operation {} follows {}",
                                frame.n, place.position
                            )));
                        }
                        match self.apply(frame.n, &op, frame.payload, &mut agreed) {
                            Ok(()) => place.position = frame.n,
                            Err(e) => break Err(e),
                        }
                        match op {
                            Op::Goodbye => goodbye = true,
                            Op::Sync { .. } | Op::SyncDir { .. } | Op::ResyncEnd => barrier = true,
                            _ => {}
                        }
                    }
                    Body::Control(Control::Ping) => {
                        barrier = true;
                        self.hear_progress(frame.payload);
                    }
                    Body::Control(Control::Common { number, position }) => {
                        self.retire(number);
                        if let Err(e) = self.core.remember(|r| r.position = position) {
                            self.core.note(e);
                        }
                    }
                    Body::Control(other) => {
                        break Err(LineError::Protocol(format!("unexpected message of the primary: {other:?}")));
                    }
                }
            };
            self.log(Activity::flush);
            // Applied, then placed, then acknowledged.
            self.put_place(Some(place)).map_err(LineError::Io)?;
            self.shared.acker.applied(place.position);
            if barrier || goodbye || agreed.prompt || unacknowledged >= ACK_BYTES || outcome.is_err() {
                self.shared.acker.acknowledge();
                unacknowledged = 0;
            }
            outcome?;
            if goodbye {
                self.core.flow().peer = Peer::Left;
                return Ok(());
            }
            if self.stopped() {
                return Ok(());
            }
            let received = line.fill()?;
            self.core.wakeful.pass();
            self.core.bytes_received.fetch_add(received as u64, SeqCst);
        }
    }

    /// How far the primary is with our resynchronisation; one that is not ours any more is old news.
    fn hear_progress(&self, payload: &[u8]) {
        match Progress::heard(payload) {
            Some(figures) if figures.phase == Progress::DONE => self.core.tell(&Report::Figures(figures)),
            Some(progress) if self.core.remembered().standing == Standing::Inconsistent => {
                self.core.tell(&Report::Progress(progress));
            }
            _ => {}
        }
    }

    fn apply(&mut self, n: Position, op: &Op, payload: &[u8], agreed: &mut Agreed) -> Result<(), LineError> {
        match op {
            Op::Sync { data_only, .. } => self.barrier(n, op, *data_only)?,
            Op::SyncDir { .. } => self.barrier(n, op, false)?,
            Op::Checkpoint { number } => {
                self.core.flow().changes.seal(*number);
                self.generations.insert(*number, self.core.activity.bump());
                let roots = self
                    .making
                    .roots
                    .iter()
                    .map(OwnedFd::try_clone)
                    .collect::<Result<_, _>>()
                    .map_err(LineError::Io)?;
                let _ = self.jobs.send(Job::Checkpoint { number: *number, roots });
            }
            Op::Goodbye => self.applier.sync_everything().map_err(LineError::Io)?,
            Op::ResyncEnd => {
                self.change(n, op, payload)?;
                self.adopt(payload, agreed)?;
            }
            _ => {
                let length = payload.len() as u64;
                match op {
                    Op::SyncData { .. } => {
                        agreed.bytes += length;
                        self.core.copied_bytes.fetch_add(length, SeqCst);
                    }
                    Op::SyncMeta { .. } => agreed.files += 1,
                    Op::Write { .. } => {
                        self.core.live_bytes.fetch_add(length, SeqCst);
                    }
                    _ => {}
                }
                // Until both are equal the primary's map counts, and this node's is what it changed itself.
                if !self.applier.is_inconsistent() {
                    self.core.flow().changes.record(op, payload.len());
                    self.log(|activity| activity.follow(op, payload.len()));
                }
                self.change(n, op, payload)?;
                if let Some(report) = self.detail.as_mut().and_then(|d| d.note(op, payload.len(), Instant::now())) {
                    self.core.tell(&report);
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, n: Position, op: &Op, payload: &[u8]) -> Result<(), LineError> {
        if mutation::skips(n, op) {
            return Ok(());
        }
        match self.applier.apply(op, payload) {
            Ok(Applied::Answer(answer)) => self.shared.acker.send(&Control::Answer, &answer),
            Ok(_) => {}
            Err(e) => {
                let reason = e.to_string();
                self.shared.acker.send(&Control::CannotApply { position: n, reason: reason.clone() }, &[]);
                self.diverged();
                return Err(LineError::Protocol(format!("operation {n} cannot be applied: {reason}")));
            }
        }
        for saved in self.applier.salvaged() {
            self.core.tell(&Report::Salvaged { path: saved.path.display().to_string(), bytes: saved.bytes });
        }
        Ok(())
    }

    /// What we have is not what the primary has: everything must be compared, and we must not serve.
    fn diverged(&mut self) {
        self.failed = true;
        let outcome = self.core.remember(|r| {
            // Consistent still, a prefix of the primary's history, but it will not get on.
            if r.standing == Standing::Paired {
                r.standing = Standing::Outdated;
            }
            r.covered_by = None;
            r.unshared = true;
        });
        if let Err(e) = outcome {
            self.core.tell(&Report::Fault { reason: e.to_string() });
        }
        self.core.flow().changes.forget();
        let worth = self.core.flow().changes.worth();
        self.log(|activity| activity.restart(worth, &DirtySet::all_of_it(), false));
        if let Err(e) = self.put_place(None) {
            self.core.note(e);
        }
        self.core.publish();
    }

    /// Both nodes have this checkpoint.
    fn retire(&mut self, number: u64) {
        let head = self.core.remembered().lineage.head();
        let worth = {
            let mut flow = self.core.flow();
            flow.changes.retire(number, head);
            flow.changes.worth()
        };
        if let Some(generation) = self.generations.remove(&number) {
            self.core.retire_activity(generation, worth);
        }
        self.generations = self.generations.split_off(&number);
    }

    /// Does something with the activity log; one that cannot be written is given up.
    fn log(&self, step: impl FnOnce(&Activity) -> std::io::Result<()>) {
        if let Err(e) = step(&self.core.activity)
            && let Err(e) = self.core.activity_failed(&e)
        {
            self.core.note(e);
        }
    }

    fn barrier(&mut self, n: Position, op: &Op, data_only: bool) -> Result<(), LineError> {
        if self.core.spec.asynchronous == Asynchronous::None {
            let target = self.applier.sync_target(op).map_err(|e| LineError::Protocol(e.to_string()))?;
            let connection = self.shared.acker.awaits(n);
            let _ = self.jobs.send(Job::Sync { connection, n, target, data_only });
        }
        Ok(())
    }

    /// Both trees are equal here.
    fn adopt(&mut self, payload: &[u8], agreed: &Agreed) -> Result<(), LineError> {
        let lineage: Lineage = serde_json::from_slice(payload).unwrap_or_else(|_| agreed.lineage.clone());
        if lineage.head().is_none() {
            return Err(LineError::Protocol("the end of the resynchronisation names no epoch".into()));
        }
        self.applier.sync_everything().map_err(LineError::Io)?;
        let head = lineage.head();
        self.core
            .remember(|r| {
                r.lineage = lineage;
                r.standing = Standing::Paired;
                r.unshared = false;
                r.covered_by = None;
            })
            .map_err(|e| LineError::Protocol(e.to_string()))?;
        self.full = false;
        self.core.set_policy(&Policy::Default);
        {
            let mut flow = self.core.flow();
            flow.peer = Peer::InSync;
            flow.changes.clear(head);
        }
        let worth = self.core.flow().changes.worth();
        self.log(|activity| activity.restart(worth, &DirtySet::default(), false));
        let ms = agreed.begun.elapsed().as_millis() as u64;
        self.core.tell(&Report::ResyncEnd { files: agreed.files, bytes: agreed.bytes, ms });
        self.core.publish();
        Ok(())
    }
}
