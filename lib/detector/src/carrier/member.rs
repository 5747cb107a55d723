//! What does a carrier remember of each module?

use super::{ANSWER_MS, ASKED_IN_TIMEOUT, BYE_MS, Evidence, RESEND_FIRST_MS, RESEND_LAST_MS, StreamId};
use crate::beat::{Beat, Held};
use crate::{Detector, LinkSpec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Attached,
    /// Its runner died then; so many times this was said beside the pulses.
    Gone {
        since: u64,
        said: usize,
    },
}

#[derive(Debug)]
pub(super) struct Published {
    pub version: u32,
    pub bye: bool,
    /// The end of the goodbye was reported.
    pub bye_done: bool,
    pub body: Vec<u8>,
}

/// What is known of the module of the same tag on the other side.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub incarnation: u64,
    /// 0: no state is held.
    pub version: u32,
    pub bye: bool,
    pub body: Vec<u8>,
    /// The life whose end was reported before its silence.
    pub told: Option<u64>,
}

/// One link of a member.
#[derive(Debug)]
pub(super) struct Path {
    pub stream: StreamId,
    pub pulse_ms: u64,
    /// When the next beat is due at the latest.
    pub next_pulse: u64,
    /// The state goes with it.
    pub state: bool,
    /// The link is up, and its peer is asked then unless it speaks before.
    pub ask_at: Option<u64>,
    ask_ms: u64,
}

impl Path {
    pub fn new(stream: StreamId, spec: &LinkSpec, now: u64) -> Self {
        let ask_ms = (spec.timeout_ms / ASKED_IN_TIMEOUT).max(ANSWER_MS);
        Self { stream, pulse_ms: spec.pulse_ms, next_pulse: now, state: false, ask_at: None, ask_ms }
    }

    /// A sign of life came. A pulse that is missing is asked for.
    pub fn heard(&mut self, now: u64) {
        self.ask_at = Some(now + self.pulse_ms + self.pulse_ms / 4);
    }

    /// Whether the peer must be asked now.
    pub fn asks(&mut self, now: u64) -> bool {
        let due = self.ask_at.is_some_and(|at| at <= now);
        if due {
            self.ask_at = Some(now + self.ask_ms);
        }
        due
    }
}

#[derive(Debug)]
pub(super) struct Resend {
    pub at: u64,
    pub times: u32,
}

#[derive(Debug)]
pub(super) struct Member {
    pub module: u64,
    pub incarnation: u64,
    pub standing: Standing,
    pub paths: Vec<Path>,
    /// It counts as alive until then.
    pub lease: u64,
    pub published: Option<Published>,
    /// The peer holds the published state.
    pub acknowledged: bool,
    /// When the state is sent again.
    pub resend: Option<Resend>,
    pub detector: Detector,
    /// When the detector must be asked again.
    pub tick_by: u64,
    pub peer: Peer,
    /// When a beat of the peer was last answered at once.
    pub answered: Option<u64>,
}

impl Member {
    pub fn path(&mut self, stream: StreamId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|p| p.stream == stream)
    }

    /// Beats are due on every link.
    pub fn speak(&mut self, now: u64) {
        for path in &mut self.paths {
            path.next_pulse = now;
        }
    }

    /// A sign of life of the peer came over a stream.
    pub fn heard(&mut self, now: u64, stream: StreamId) {
        if let Some(path) = self.path(stream) {
            path.heard(now);
        }
    }

    pub fn link(&self, stream: StreamId) -> Option<usize> {
        self.paths.iter().position(|p| p.stream == stream)
    }

    /// The shortest pulse.
    pub fn fastest(&self) -> u64 {
        self.paths.iter().map(|p| p.pulse_ms).min().unwrap_or(1000).max(1)
    }

    /// The published state goes out on every link, now and again after a while.
    pub fn send_state(&mut self, now: u64) {
        let times = self.resend.take().map_or(0, |r| r.times);
        let pause = match &self.published {
            None => return,
            Some(published) if published.bye => BYE_MS,
            Some(_) => RESEND_FIRST_MS.saturating_mul(1 << times.min(8)).min(RESEND_LAST_MS),
        };
        self.resend = Some(Resend { at: now + pause, times: times + 1 });
        for path in &mut self.paths {
            path.next_pulse = now;
            path.state = true;
        }
    }

    pub fn beat(&self, now: u64) -> Beat {
        let published = self.published.as_ref();
        let bye = published.is_some_and(|p| p.bye);
        let gone = self.standing != Standing::Attached;
        Beat {
            module: self.module,
            incarnation: self.incarnation,
            version: published.map_or(0, |p| p.version),
            alive: published.is_some() && !bye && !gone && self.runs(now),
            bye,
            gone,
            held: Held::of(self.peer.incarnation, self.peer.version),
        }
    }

    /// Its process was seen to run not long ago.
    pub fn runs(&self, now: u64) -> bool {
        now < self.lease
    }

    /// Whether this is news, to be told now.
    pub fn news_of_end(&mut self, incarnation: u64) -> bool {
        let news = self.detector.is_peer_up()
            && self.peer.version > 0
            && self.peer.incarnation == incarnation
            && !self.peer.bye
            && self.peer.told != Some(incarnation);
        if news {
            self.peer.told = Some(incarnation);
        }
        news
    }
}

impl Evidence {
    /// As events and journals call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunnerDead => "runner_dead",
            Self::PortUnreachable => "port_unreachable",
        }
    }
}
