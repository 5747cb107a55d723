//! With which keys are connections of the stream made? Looked up for each: a renewal of the cluster key needs no restart, and a
//! connection that was made goes on with keys of its own.

use super::core::lock;
use std::sync::Mutex;
use wire::{ClusterKey, KeyFile};

/// The keys of one module's stream.
pub struct StreamKeys {
    module: String,
    /// None: the stream is not encrypted.
    file: Option<Mutex<KeyFile>>,
}

impl StreamKeys {
    pub fn new(module: &str, file: Option<KeyFile>) -> Self {
        Self { module: module.to_owned(), file: file.map(Mutex::new) }
    }

    /// The key in use, then the others that are accepted; empty without encryption. A file that cannot be read leaves what was read
    /// before, and why is told once.
    pub fn now(&self, note: impl FnOnce(String)) -> Vec<[u8; 32]> {
        let Some(file) = &self.file else { return Vec::new() };
        let mut file = lock(file);
        if let Err(error) = file.look() {
            note(format!("{error}; the keys read before are used"));
        }
        file.ring().keys().map(|key: &ClusterKey| key.stream_psk(&self.module)).collect()
    }
}
