//! Serves a directory through the FUSE front without replication: `passthrough DIR`, until Enter or end of file on stdin.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use replica::activity::Touch;
use replica::front::{FrontSession, FrontSpec, Unmount};
use replica::op::Op;
use replica::recorder::{Admission, Position, Recorder, Round};

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err("usage: passthrough DIR".into());
    };
    let front = FrontSession::start(FrontSpec {
        dir_index: 0,
        path: path.canonicalize()?,
        excludes: None,
        recorder: Arc::new(Alone),
        keeper: None,
        kept: Vec::new(),
    })?;
    eprintln!("serving {}; Enter ends", path.display());
    let _ = std::io::stdin().read(&mut [0])?;
    front.unmount(Unmount::Orderly)?;
    Ok(())
}
