//! What does the mount alone cost? A directory served by the front, with nothing recorded, sent or waited for.

use anyhow::{Context, Result};
use e2e::lab::Lab;
use e2e::wait;
use replica::activity::Touch;
use replica::front::{FrontSession, FrontSpec};
use replica::op::Op;
use replica::recorder::{Admission, Position, Recorder, Round};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::hosts::Helper;

/// Lets everything through and remembers nothing.
struct Alone;

impl Recorder for Alone {
    fn enter(&self, _bytes: usize) -> Admission {
        Admission::Go(Round(0))
    }

    fn leave(&self, _round: Round) {}

    fn about_to(&self, _touch: &Touch<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn record(&self, _op: &Op, _payload: &[u8]) -> Position {
        0
    }

    fn when_acknowledged(&self, _position: Position, reply: Box<dyn FnOnce() + Send>) {
        reply();
    }

    fn every_change_waits(&self) -> bool {
        false
    }
}

/// Serves a directory until the process is ended.
pub fn serve(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let _front = FrontSession::start(FrontSpec {
        dir_index: 0,
        root: None,
        path: dir.canonicalize()?,
        excludes: None,
        recorder: Arc::new(Alone),
        keeper: None,
        kept: Vec::new(),
    })?;
    loop {
        std::thread::park();
    }
}

/// Serves a directory of a host.
pub fn start(lab: &Lab, host: &str, dir: &str) -> Result<Helper> {
    let helper = Helper::start(lab, host, &["mount", dir])?;
    wait::until("the directory is mounted", Duration::from_secs(20), || {
        lab.exec(host, &["mountpoint", "-q", dir]).map(drop).map_err(|e| format!("{e:#}"))
    })
    .context("bench-load mount")?;
    Ok(helper)
}
