//! A primary's side of a connection: who is let in, what does it get, what does it answer.

use super::choose::{Choice, Local, choose};
use super::core::{Core, lock, random};
use super::keys::StreamKeys;
use super::place::duplicate;
use super::policy::wall_s;
use super::report::{Peer, Report, Role};
use super::spec::Failure;
use crate::op::Op;
use crate::recorder::Front as _;
use crate::resync::{self, Gone, Link, Resync, ResyncError};
use crate::stream::frame::{self, Body, Decoder};
use crate::stream::message::{Control, Hello, Mode, Place, StreamId};
use crate::tree::Exclude;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wire::channel::{Channel, ChannelError, Opener, Sealer};

/// A peer that sends nothing for this long is gone; both sides send something each second.
pub const SILENCE: Duration = Duration::from_secs(3);
/// Connections that have not said hello yet.
const STRANGERS: u64 = 16;
/// Bytes of content from which on a synchronisation says something about the next one's speed.
const MEASURABLE: u64 = 16 << 20;
/// For the handshake and the hello.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// What a primary needs besides the core.
pub struct Server {
    pub core: Arc<Core>,
    pub keys: Arc<StreamKeys>,
    /// Directories beneath the mounts, while primary.
    pub roots: Mutex<Vec<OwnedFd>>,
    pub excludes: Vec<Arc<Exclude>>,
    /// One newcomer at a time is examined.
    door: Mutex<()>,
    links: AtomicU64,
    strangers: AtomicU64,
    refused: Mutex<String>,
}

/// A shaken connection.
pub struct Line {
    pub stream: TcpStream,
    pub opener: Opener,
    pub decoder: Decoder,
    buffer: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("nothing was heard for {} seconds", SILENCE.as_secs())]
    Silent,
    #[error("the other end closed the connection")]
    Closed,
    #[error("{0}")]
    Io(std::io::Error),
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    #[error("{0}")]
    Protocol(String),
}

impl Line {
    pub fn new(stream: TcpStream, opener: Opener) -> Self {
        Self { stream, opener, decoder: Decoder::default(), buffer: vec![0; 256 * 1024] }
    }

    /// Waits for more bytes, at most [`SILENCE`], and opens them. Returns how many arrived.
    pub fn fill(&mut self) -> Result<usize, LineError> {
        loop {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(LineError::Closed),
                Ok(n) => {
                    self.opener.feed(self.buffer.get(..n).unwrap_or_default(), self.decoder.tail())?;
                    return Ok(n);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Err(LineError::Silent);
                }
                Err(e) => return Err(LineError::Io(e)),
            }
        }
    }

    /// The next control message with its payload; operations are out of place here.
    pub fn control(&mut self) -> Result<(Control, Vec<u8>), LineError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return match frame.body {
                    Body::Control(control) => Ok((control, frame.payload.to_vec())),
                    Body::Op(_) => Err(LineError::Protocol("an operation where a control message was expected".into())),
                };
            }
            self.fill()?;
        }
    }
}

/// Options of every connection of the stream.
pub fn tune(stream: &TcpStream, user_timeout: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(user_timeout))
}

impl Server {
    pub fn new(core: Arc<Core>, keys: Arc<StreamKeys>, excludes: Vec<Arc<Exclude>>) -> Self {
        let (roots, door, refused) = (Mutex::new(Vec::new()), Mutex::new(()), Mutex::new(String::new()));
        Self { core, keys, roots, excludes, door, links: AtomicU64::new(0), strangers: AtomicU64::new(0), refused }
    }

    /// Accepts until the engine stops.
    pub fn listen(self: &Arc<Self>) {
        let mut complained = false;
        while !self.core.stopping.load(SeqCst) {
            match TcpListener::bind(self.core.spec.listen) {
                Ok(listener) => self.accept(&listener),
                Err(e) => {
                    if !complained {
                        complained = true;
                        self.core.note(format!("cannot listen on {}: {e}; trying again", self.core.spec.listen));
                    }
                    std::thread::sleep(Duration::from_millis(500));
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        // Only to notice the end of the engine.
        let timeout = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        while !self.core.stopping.load(SeqCst) {
            let mut set = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
            if !matches!(rustix::event::poll(&mut set, Some(&timeout)), Ok(1..)) {
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            if self.strangers.load(SeqCst) >= STRANGERS {
                continue;
            }
            self.strangers.fetch_add(1, SeqCst);
            let server = self.clone();
            let spawned = std::thread::Builder::new().name("peer".into()).spawn(move || server.welcome(stream));
            if let Err(e) = spawned {
                self.strangers.fetch_sub(1, SeqCst);
                self.core.note(format!("no thread for a connection: {e}"));
            }
        }
    }

    fn welcome(self: &Arc<Self>, stream: TcpStream) {
        let from = stream.peer_addr().map_or_else(|_| "?".into(), |a| a.ip().to_string());
        if let Err(e) = self.session(stream) {
            let text = format!("connection from {from}: {e}");
            // The peer tries again and again: once is enough.
            let mut last = lock(&self.refused);
            if *last != text {
                self.core.note(&text);
                *last = text;
            }
        }
    }

    fn session(self: &Arc<Self>, stream: TcpStream) -> Result<(), LineError> {
        let greeted = self.greet(stream);
        self.strangers.fetch_sub(1, SeqCst);
        let (mut line, sealer, hello) = greeted?;
        let Some(link) = self.admit(&hello, &line, sealer)? else { return Ok(()) };
        *lock(&self.refused) = String::new();
        let mut left = false;
        let reason = match self.hear(link, &mut line, &mut left) {
            Err(e) => e.to_string(),
            Ok(()) => "the secondary left".into(),
        };
        self.core.lost(link, &reason, left);
        Ok(())
    }

    fn greet(&self, stream: TcpStream) -> Result<(Line, Sealer, Hello), LineError> {
        let keys = self.keys.now(|text| self.core.note(text));
        let (channel, _) = Channel::accept(stream, &keys, Instant::now() + HANDSHAKE)?;
        let (stream, sealer, opener) = channel.split();
        tune(&stream, Duration::from_millis(self.core.spec.send_timeout_ms.max(1000))).map_err(LineError::Io)?;
        let mut line = Line::new(stream, opener);
        let (Control::Hello(hello), _) = line.control()? else {
            return Err(LineError::Protocol("no hello".into()));
        };
        Ok((line, sealer, hello))
    }

    /// Decides, and attaches the connection when it is accepted.
    fn admit(self: &Arc<Self>, hello: &Hello, line: &Line, mut sealer: Sealer) -> Result<Option<u64>, LineError> {
        let door = lock(&self.door);
        let core = &self.core;
        let remembered = core.remembered();
        let policy = core.policy();
        let (choice, stale) = {
            let flow = core.flow();
            let resumable = hello.place.is_some_and(|p| flow.ring.offset_after(p.stream, p.position).is_some());
            let local = Local {
                module: &core.spec.module,
                peer: &core.spec.peer,
                directories: core.spec.directories.len() as u16,
                lineage: &remembered.lineage,
                standing: remembered.standing,
                paired: flow.paired,
                resumable,
                map: flow.changes.covered(),
                policy: &policy,
                now: wall_s(),
            };
            // It did not adopt our epoch, and cannot any more: the end marker does not reach it on another connection.
            let never_adopted = flow.paired
                && !resumable
                && hello.standing == lineage::Standing::Inconsistent
                && remembered.lineage.head().is_some_and(|h| !hello.lineage.contains(h));
            if flow.role == Role::Primary {
                (choose(&local, hello), never_adopted)
            } else {
                (Choice::Refuse("this node does not serve".into()), false)
            }
        };
        if stale
            && hello.node == core.spec.peer
            && let Err(e) = core.unpair()
        {
            core.note(e.reason);
        }
        let refuse = |sealer: &mut Sealer, reason: &str, hopeless: bool| -> Result<Option<u64>, LineError> {
            use std::io::Write as _;
            let (mut plain, mut sealed) = (Vec::new(), Vec::new());
            frame::put_control(&mut plain, &Control::Refused { reason: reason.into(), hopeless }, &[])?;
            sealer.seal_into(&plain, &mut sealed)?;
            (&line.stream).write_all(&sealed).map_err(LineError::Io)?;
            Ok(None)
        };
        let choice = match choice {
            Choice::Refuse(reason) => return refuse(&mut sealer, &reason, false),
            Choice::Hopeless(reason) => return refuse(&mut sealer, &reason, true),
            other => other,
        };
        // A connection of the same peer that is still open is dead, or its other end is.
        let former = core.flow().link;
        if let Some(former) = former {
            core.outlet.detach();
            core.lost(former, "the secondary connected anew", false);
        }
        let link = self.links.fetch_add(1, SeqCst) + 1;
        let stream = line.stream.try_clone().map_err(LineError::Io)?;
        core.outlet.attach(stream, sealer);
        let prompt = core.spec.synchronous == super::spec::Synchronous::Write;
        match choice {
            Choice::Resume => {
                let Some((offset, place)) =
                    hello.place.and_then(|p| core.resume(link, p, hello.standing).map(|o| (o, p)))
                else {
                    core.outlet.detach();
                    return Err(LineError::Protocol("the secondary's place has gone meanwhile".into()));
                };
                let place = Place { stream: core.flow().ring.stream(), position: place.position };
                let welcome = Control::Welcome {
                    mode: Mode::Resume,
                    place,
                    covered_by: None,
                    prompt,
                    lineage: remembered.lineage,
                    changed: false,
                    salvage: false,
                };
                core.outlet.control(&welcome, &[]);
                // The welcome goes first: push before frames are allowed.
                core.push();
                core.outlet.start_at(offset);
                core.push();
                core.tell(&Report::StreamUp {});
                core.tell(&Report::ResyncBegin { mode: Mode::Resume, files: 0, bytes: 0 });
                core.tell(&Report::ResyncEnd { files: 0, bytes: 0, ms: 0 });
                core.open_gate();
                core.publish();
            }
            Choice::Resync { mode, covered, changed } => {
                self.resynchronise(link, (mode, None), covered.then_some(changed), prompt)?;
            }
            Choice::Since(moment) => self.resynchronise(link, (Mode::Since, Some(moment)), None, prompt)?,
            Choice::Refuse(_) | Choice::Hopeless(_) => {}
        }
        drop(door);
        Ok(Some(link))
    }

    /// `mode`: with its moment, if it has one. `covered`: by our change map, and whether also by the secondary's.
    fn resynchronise(
        self: &Arc<Self>,
        link: u64,
        (mode, moment): (Mode, Option<i64>),
        covered: Option<bool>,
        prompt: bool,
    ) -> Result<(), LineError> {
        let changed = covered == Some(true);
        let core = &self.core;
        let random = || random().map_err(|e| LineError::Protocol(e.reason));
        let stream = StreamId(random()?);
        let roots =
            lock(&self.roots).iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>().map_err(LineError::Io)?;
        let lineage = core.remembered().lineage;
        let (place, offset, covered_by, salvage, resync) = {
            let mut flow = core.flow();
            if flow.role != Role::Primary || flow.paired {
                return Err(LineError::Protocol("this node's role changed meanwhile".into()));
            }
            let position = flow.ring.position();
            flow.ring.restart(stream, position, None).map_err(|e| LineError::Protocol(e.to_string()))?;
            flow.done = position;
            flow.link = Some(link);
            flow.peer = Peer::Syncing;
            flow.appending = true;
            flow.stalled = None;
            flow.changes.begin_comparison();
            let config = resync::Config {
                mode: match (mode, moment) {
                    (_, Some(moment)) => resync::Mode::Since(moment),
                    (Mode::Incremental, _) => resync::Mode::Incremental(flow.changes.dirty()),
                    (Mode::Full, _) => resync::Mode::Full,
                    (Mode::Compare | Mode::Resume | Mode::Since, _) => resync::Mode::Compare,
                },
                roots,
                excludes: self.excludes.clone(),
                front: Arc::new(Fronts(core.all_fronts())),
                bandwidth: core.spec.resync_bandwidth_kbs.map(|k| k.saturating_mul(1024)),
                recent: flow.changes.is_recovered().then(|| core.activity.since()),
                session: link as u32,
                foreign: changed,
            };
            let resync = Resync::new(config);
            flow.resync = Some(resync.clone());
            core.emptied(&mut flow);
            let covered_by = covered.map(|_| flow.changes.covered().id);
            (Place { stream, position }, flow.ring.head(), covered_by, flow.repair, resync)
        };
        core.outlet.control(&Control::Welcome { mode, place, covered_by, prompt, lineage, changed, salvage }, &[]);
        core.push();
        core.outlet.start_at(offset);
        core.tell(&Report::StreamUp {});
        core.publish();
        let server = self.clone();
        let spawned = std::thread::Builder::new().name("resync".into()).spawn(move || server.walk(link, mode, &resync));
        spawned.map(drop).map_err(LineError::Io)
    }

    fn walk(&self, link: u64, mode: Mode, resync: &Resync) {
        let core = &self.core;
        if !self.settle(link) {
            return;
        }
        self.open_window();
        let begun = core.emit(link, &Op::ResyncBegin { full: mode != Mode::Incremental }, b"{}");
        if begun.is_none() {
            return;
        }
        let progress = resync.progress(sys::clock::monotonic());
        core.tell(&Report::ResyncBegin { mode, files: progress.files_total, bytes: progress.bytes_total });
        match resync.run(&Walk { core, link, refused: AtomicBool::new(false) }) {
            Ok(summary) => {
                let handled = resync.progress(sys::clock::monotonic()).bytes;
                if let Some(rate) = handled.saturating_mul(1000).checked_div(summary.ms)
                    && handled >= MEASURABLE
                {
                    core.resync_rate.store(rate, SeqCst);
                }
                core.tell(&Report::Figures(figures(resync)));
                core.tell(&Report::ResyncEnd { files: summary.files, bytes: summary.bytes, ms: summary.ms });
            }
            Err(ResyncError::Gone(_) | ResyncError::Cancelled) => {}
            Err(e) => {
                core.tell(&Report::Fault { reason: e.to_string() });
                core.outlet.detach();
            }
        }
    }

    /// Waits until the tree shows nothing that no operation has told of: it would be told of after it was listed. False: the connection is gone.
    fn settle(&self, link: u64) -> bool {
        let core = &self.core;
        let front = Fronts(core.all_fronts());
        while core.flow().link == Some(link) && !core.stopping.load(SeqCst) {
            if front.is_settled() {
                return true;
            }
            core.wait_change(Duration::from_millis(20));
        }
        false
    }

    /// What this node has not made durable when everything has been compared is what it changed from here on.
    fn open_window(&self) {
        let core = &self.core;
        if !core.activity.is_useless() {
            return;
        }
        core.activity.open_window();
        core.gate.pass();
        let roots = lock(&self.roots).iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>();
        let synced = roots.and_then(|roots| Ok(roots.iter().try_for_each(rustix::fs::syncfs)?));
        if let Err(e) = synced {
            core.activity.close_window();
            core.note(format!("a replicated directory cannot be made durable: {e}"));
        }
    }

    /// Duplicates, so that nobody waits for the lock as long as for the disk.
    pub fn root_descriptors(&self) -> Result<Vec<OwnedFd>, Failure> {
        duplicate(&lock(&self.roots))
    }

    /// Nobody is let in while the guard is held.
    pub fn close_door(&self) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.door)
    }

    /// Listens to the secondary until the connection ends.
    fn hear(&self, link: u64, line: &mut Line, left: &mut bool) -> Result<(), LineError> {
        let core = &self.core;
        loop {
            let received = line.fill()?;
            core.bytes_received.fetch_add(received as u64, SeqCst);
            let mut acknowledged = None;
            while let Some(frame) = line.decoder.next_frame()? {
                let Body::Control(control) = frame.body else {
                    return Err(LineError::Protocol("the secondary sent an operation".into()));
                };
                match control {
                    Control::Ack { done, settled } => acknowledged = Some((done, settled)),
                    Control::Answer => {
                        let (resync, verify) = {
                            let flow = core.flow();
                            (flow.resync.clone(), flow.verify.clone())
                        };
                        if !resync.is_some_and(|r| r.answer(frame.payload))
                            && let Some(verify) = verify
                        {
                            verify.answer(frame.payload);
                        }
                    }
                    Control::Changed { last } => {
                        let resync = core.flow().resync.clone();
                        if let Some(resync) = resync {
                            resync.add_foreign(frame.payload, last);
                        }
                    }
                    Control::Checkpointed { number } => core.checkpointed(number, true),
                    Control::CannotApply { position, reason } => {
                        return Err(LineError::Protocol(format!(
                            "the secondary cannot apply operation {position}: {reason}"
                        )));
                    }
                    Control::Leaving => {
                        *left = true;
                        return Ok(());
                    }
                    Control::Ping => {}
                    other => {
                        return Err(LineError::Protocol(format!("unexpected message from the secondary: {other:?}")));
                    }
                }
            }
            if let Some((done, settled)) = acknowledged {
                core.acknowledged(link, done, settled);
            }
            if core.flow().link != Some(link) {
                return Err(LineError::Closed);
            }
        }
    }
}

/// What a resynchronisation has taken in the end.
fn figures(resync: &Resync) -> resync::Progress {
    let phase = resync::Progress::DONE.to_owned();
    resync::Progress { phase, ..resync.progress(sys::clock::monotonic()) }
}

/// The walker's view of the stream.
struct Walk<'a> {
    core: &'a Core,
    link: u64,
    /// Its end could not be made durable.
    refused: AtomicBool,
}

impl Link for Walk<'_> {
    fn emit(&self, op: &Op, payload: &[u8]) -> Result<(), Gone> {
        self.core.emit(self.link, op, payload).ok_or(Gone)?;
        if matches!(op, Op::SyncData { .. }) {
            self.core.copied_bytes.fetch_add(payload.len() as u64, SeqCst);
        }
        Ok(())
    }

    fn wait_room(&self, bytes: usize) -> Result<(), Gone> {
        self.core.wait_room(self.link, bytes as u64).then_some(()).ok_or(Gone)
    }

    fn finish(&self) -> Result<bool, Gone> {
        // Before the end marker: the other node tells them with it. The flow is free meanwhile: who sends takes it under the outlet's lock.
        let resync = self.core.flow().resync.clone();
        if let Some(resync) = resync {
            self.core.outlet.remark(&Control::Ping, &figures(&resync).told());
        }
        match self.core.pair(self.link) {
            Ok(paired) => paired.then_some(true).ok_or(Gone),
            Err(e) => {
                // Each attempt until there is room on the disk again would say the same.
                if !self.refused.swap(true, SeqCst) {
                    self.core.note(format!("{}; the resynchronisation ends as soon as it can", e.reason));
                }
                Ok(false)
            }
        }
    }

    fn now(&self) -> Duration {
        sys::clock::monotonic()
    }
}

/// All directories as one front.
pub(super) struct Fronts(pub Vec<Arc<dyn crate::recorder::Front>>);

impl crate::recorder::Front for Fronts {
    fn resume(&self) {
        for front in &self.0 {
            front.resume();
        }
    }

    fn is_settled(&self) -> bool {
        self.0.iter().all(|front| front.is_settled())
    }

    fn with_names(&self, dir: u16, step: &mut dyn FnMut()) {
        if let Some(front) = self.0.get(usize::from(dir)) {
            front.with_names(dir, step);
        }
    }

    fn with_file(&self, dir: u16, ino: u64, step: &mut dyn FnMut()) {
        if let Some(front) = self.0.get(usize::from(dir)) {
            front.with_file(dir, ino, step);
        }
    }
}
