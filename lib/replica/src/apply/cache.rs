//! Which descriptors of replicated files stay open between operations?

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Open files by (replicated directory, the primary's inode number); the least recently used is closed first.
#[derive(Debug)]
pub(super) struct Cache {
    slots: HashMap<(u16, u64), Slot>,
    limit: usize,
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    fd: Arc<OwnedFd>,
    /// This node's inode number.
    local: u64,
    used: u64,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: HashMap::new(), limit, clock: 0 }
    }

    pub(super) fn get(&mut self, key: (u16, u64)) -> Option<Arc<OwnedFd>> {
        self.clock += 1;
        let slot = self.slots.get_mut(&key)?;
        slot.used = self.clock;
        Some(Arc::clone(&slot.fd))
    }

    pub(super) fn put(&mut self, key: (u16, u64), fd: Arc<OwnedFd>, local: u64) {
        if self.slots.len() >= self.limit
            && !self.slots.contains_key(&key)
            && let Some(oldest) = self.slots.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| *key)
        {
            self.slots.remove(&oldest);
        }
        self.clock += 1;
        self.slots.insert(key, Slot { fd, local, used: self.clock });
    }

    pub(super) fn forget(&mut self, key: (u16, u64)) {
        self.slots.remove(&key);
    }

    /// Forgets `key` unless it is this local inode.
    pub(super) fn keep_only(&mut self, key: (u16, u64), local: u64) {
        if self.slots.get(&key).is_some_and(|slot| slot.local != local) {
            self.slots.remove(&key);
        }
    }

    /// Forgets whatever is this local inode: its last name may be going away, and an open descriptor would keep its blocks.
    pub(super) fn forget_local(&mut self, dir: u16, local: u64) {
        self.slots.retain(|(d, _), slot| *d != dir || slot.local != local);
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }
}
