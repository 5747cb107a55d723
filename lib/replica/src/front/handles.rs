//! Which files and directories does the application have open?

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// An open file or directory. Descriptors for writing are open for reading too.
pub struct Handle {
    pub ino: u64,
    pub fd: OwnedFd,
    /// Serialises {seek, read} on directories.
    pub reading: Mutex<()>,
}

/// Handles by number. Numbers of different workers differ, so a number that is not here was given out by a former worker.
pub struct Handles {
    next: AtomicU64,
    map: RwLock<HashMap<u64, Arc<Handle>>>,
}

impl Handles {
    pub fn new(generation: u64) -> Self {
        Self { next: AtomicU64::new(generation << 40 | 1), map: RwLock::default() }
    }

    pub fn insert(&self, ino: u64, fd: OwnedFd) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        self.restore(fh, ino, fd);
        fh
    }

    /// A handle of a former worker, open again; and whether it is new here: two requests may restore it at once.
    pub fn restore(&self, fh: u64, ino: u64, fd: OwnedFd) -> (Arc<Handle>, bool) {
        let handle = Arc::new(Handle { ino, fd, reading: Mutex::default() });
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let there = map.entry(fh).or_insert_with(|| Arc::clone(&handle));
        (Arc::clone(there), Arc::ptr_eq(there, &handle))
    }

    pub fn get(&self, fh: u64) -> Option<Arc<Handle>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(&fh).cloned()
    }

    pub fn remove(&self, fh: u64) -> Option<Arc<Handle>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner).remove(&fh)
    }
}
