//! What would the next secondary have to receive? Read from the change map; nothing is asked of the other node.

use super::report::{Peer, Role};
use super::spec::Failure;
use super::verify::Verifier;
use crate::change_map::DirtySet;
use crate::op::{Kind, RelPath};
use crate::tree::{self, BLOCK};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

/// Objects between two signs of life.
const STEP: u64 = 4096;

/// What the next synchronisation would look at and, at most, send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Nothing is known about what the other node has: all of it is compared.
    pub everything: bool,
    /// Directories to list.
    pub directories: u64,
    /// Files to compare, or whose attributes are set.
    pub files: u64,
    /// Bytes of content to compare; what differs of them is sent.
    pub bytes: u64,
    /// Bytes of content a second that the last synchronisation handled, or that its limit allows. None: there was none yet.
    pub rate_bytes_s: Option<u64>,
    /// At this rate.
    pub seconds: Option<u64>,
}

/// Counts what is in the trees.
struct Count<'a> {
    roots: &'a [OwnedFd],
    seen: HashSet<(u16, u64)>,
    estimate: Estimate,
    looked_at: u64,
    progress: &'a mut dyn FnMut(&Estimate) -> bool,
}

impl Count<'_> {
    fn tell(&mut self) -> Result<(), Failure> {
        self.looked_at += 1;
        if self.looked_at.is_multiple_of(STEP) && !(self.progress)(&self.estimate) {
            return Err(Failure::new("nobody waits for the result any more", "ask again"));
        }
        Ok(())
    }

    /// A path whole, with everything beneath it.
    fn whole(&mut self, dir: u16, path: &RelPath) -> Result<(), Failure> {
        let Some(root) = self.roots.get(usize::from(dir)) else { return Ok(()) };
        let mut directories = Vec::new();
        match tree::stat(root.as_fd(), path) {
            Ok(stat) if tree::kind_of(&stat) == Some(Kind::Directory) => directories.push(path.clone()),
            Ok(stat) => self.file(dir, stat.st_ino, stat.st_size as u64),
            Err(_) => return Ok(()),
        }
        while let Some(path) = directories.pop() {
            // Moved or removed meanwhile: an estimate.
            let Ok(here) = tree::open_dir(root.as_fd(), &path) else { continue };
            let Ok(names) = tree::names(&here) else { continue };
            self.estimate.directories += 1;
            for name in names {
                let Ok(stat) = tree::stat_at(&here, &name) else { continue };
                match tree::kind_of(&stat) {
                    Some(Kind::Directory) => directories.push(path.join(&name)),
                    Some(_) => self.file(dir, stat.st_ino, stat.st_size as u64),
                    None => {}
                }
                self.tell()?;
            }
        }
        Ok(())
    }

    fn file(&mut self, dir: u16, ino: u64, bytes: u64) {
        if self.seen.insert((dir, ino)) {
            self.estimate.files += 1;
            self.estimate.bytes += bytes;
        }
    }

    fn changes(&mut self, set: &DirtySet) -> Result<(), Failure> {
        if set.everything() {
            self.estimate.everything = true;
            return (0..self.roots.len() as u16).try_for_each(|dir| self.whole(dir, &RelPath::default()));
        }
        for ((dir, path), _) in set.moved() {
            self.whole(*dir, path)?;
        }
        self.estimate.directories += set.names().count() as u64;
        for ((dir, ino), change) in set.files() {
            let size = self
                .roots
                .get(usize::from(*dir))
                .and_then(|root| tree::stat(root.as_fd(), &change.path).ok())
                .filter(|stat| stat.st_ino == *ino)
                .map_or(0, |stat| stat.st_size as u64);
            let runs = change.blocks.runs(size.div_ceil(BLOCK));
            let bytes = runs.iter().map(|(first, count)| (count * BLOCK).min(size.saturating_sub(first * BLOCK))).sum();
            self.file(*dir, *ino, bytes);
            self.tell()?;
        }
        Ok(())
    }
}

impl Verifier {
    /// What the secondary that comes next would have to receive. `progress`: now and then, how far the counting is; false ends it.
    pub fn estimate(&self, progress: &mut dyn FnMut(&Estimate) -> bool) -> Result<Estimate, Failure> {
        let server = self.server();
        let core = &server.core;
        let set = {
            let flow = core.flow();
            if flow.role != Role::Primary {
                return Err(Failure::new(
                    "this node does not serve",
                    "ask the node that does, or start this one: what a stopped node changed is known when it serves",
                ));
            }
            if flow.paired && flow.peer == Peer::InSync && flow.end.is_none() {
                DirtySet::default()
            } else {
                flow.changes.dirty()
            }
        };
        let roots = server.root_descriptors()?;
        let mut count =
            Count { roots: &roots, seen: HashSet::new(), estimate: Estimate::default(), looked_at: 0, progress };
        count.changes(&set)?;
        let mut estimate = count.estimate;
        let measured = Some(core.resync_rate.load(SeqCst)).filter(|rate| *rate > 0);
        let limit = core.spec.resync_bandwidth_kbs.map(|k| k.saturating_mul(1024));
        estimate.rate_bytes_s = match (measured, limit) {
            (Some(rate), Some(limit)) => Some(rate.min(limit)),
            (rate, limit) => rate.or(limit),
        };
        estimate.seconds = estimate.rate_bytes_s.map(|rate| estimate.bytes.div_ceil(rate.max(1)));
        Ok(estimate)
    }
}
