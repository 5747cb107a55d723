//! Which cluster keys does a node use and accept, while they are being renewed?
//!
//! The key file holds one key a line. The first one is used for everything the node says; the others are accepted too. A renewal
//! adds the new key as accepted on all nodes, then makes it the first on all nodes, then takes the old one away: at no time does a
//! node say something that another one refuses. Each step replaces the file in one rename.

use crate::key::{ClusterKey, KeyError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The key in use, the next one, the former one.
const KEYS_LIMIT: usize = 3;
const STORE: &str = "store ";

/// The keys of a key file: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    used: ClusterKey,
    accepted: Vec<ClusterKey>,
    /// The cluster's name in the arbiter's store, which outlives the key it was derived from.
    store: Option<String>,
}

/// Why a step of a renewal is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    #[error(
        "another renewal of the key is under way: end it with `sk-cluster key renew`, or take it back with `sk-cluster key withdraw`"
    )]
    Busy,
    #[error("this node was not offered that key")]
    NotOffered,
    #[error(
        "the key is in use on this node: it cannot be taken back any more; end the renewal with `sk-cluster key renew`"
    )]
    InUse,
}

impl KeyRing {
    /// A ring of one key.
    pub fn of(key: ClusterKey) -> Self {
        Self { used: key, accepted: Vec::new(), store: None }
    }

    /// Reads a key file; refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&crate::key::read(path)?).ok_or_else(|| KeyError::Malformed(path.to_owned()))
    }

    /// The content of a key file: one to three lines of 64 hexadecimal digits, and perhaps the name in the store.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut keys = Vec::new();
        let mut store = None;
        for line in text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()) {
            if let Some(name) = line.strip_prefix(STORE.as_bytes()) {
                let good = name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit);
                if !good || store.is_some() {
                    return None;
                }
                store = Some(String::from_utf8_lossy(name).into_owned());
                continue;
            }
            let key = ClusterKey::from_hex(line)?;
            if keys.len() == KEYS_LIMIT || keys.contains(&key) {
                return None;
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        Some(Self { used: keys.next()?, accepted: keys.collect(), store })
    }

    /// What [`KeyRing::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for key in self.keys() {
            text += &key.to_hex();
            text.push('\n');
        }
        if let Some(store) = &self.store {
            text += &format!("{STORE}{store}\n");
        }
        text
    }

    /// The key that this node uses.
    pub fn used(&self) -> &ClusterKey {
        &self.used
    }

    /// The keys that are accepted beside the one in use.
    pub fn accepted(&self) -> &[ClusterKey] {
        &self.accepted
    }

    /// All of them, the one in use first.
    pub fn keys(&self) -> impl Iterator<Item = &ClusterKey> {
        std::iter::once(&self.used).chain(&self.accepted)
    }

    /// The cluster's name in a store, the same before and after renewals.
    pub fn store_name(&self) -> String {
        self.store.clone().unwrap_or_else(|| self.used.store_name())
    }

    /// First step: another key is accepted. Done twice it is done once.
    pub fn offer(&self, key: &ClusterKey) -> Result<Self, StepError> {
        if self.keys().any(|k| k == key) {
            return Ok(self.clone());
        }
        if !self.accepted.is_empty() {
            return Err(StepError::Busy);
        }
        let mut ring = self.clone();
        ring.accepted.push(key.clone());
        Ok(ring)
    }

    /// Second step: the offered key is used, the former one is still accepted.
    pub fn switch(&self, fingerprint: &str) -> Result<Self, StepError> {
        if self.used.fingerprint() == fingerprint {
            return Ok(self.clone());
        }
        let next = self.accepted.iter().find(|k| k.fingerprint() == fingerprint).ok_or(StepError::NotOffered)?;
        Ok(Self { used: next.clone(), accepted: vec![self.used.clone()], store: Some(self.store_name()) })
    }

    /// Last step: nothing but the key in use is accepted, which must be this one.
    pub fn finish(&self, fingerprint: &str) -> Result<Self, StepError> {
        if self.used.fingerprint() != fingerprint {
            return Err(StepError::NotOffered);
        }
        Ok(Self { accepted: Vec::new(), ..self.clone() })
    }

    /// Takes the first step back.
    pub fn withdraw(&self, fingerprint: &str) -> Result<Self, StepError> {
        if self.used.fingerprint() == fingerprint {
            return Err(StepError::InUse);
        }
        let mut ring = self.clone();
        ring.accepted.retain(|k| k.fingerprint() != fingerprint);
        Ok(ring)
    }
}

/// A key file that is looked at again and again: a renewal reaches processes that run.
pub struct KeyFile {
    path: PathBuf,
    ring: KeyRing,
    stamp: Stamp,
    /// [`KeyFile::renewed`] looks again then.
    look_at: u64,
}

/// How often [`KeyFile::renewed`] looks at the file, at most; milliseconds.
const LOOK_MS: u64 = 1_000;

/// What changes when a file is replaced.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

impl KeyFile {
    /// Reads the file for the first time.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        // The stamp first: what changes between the two is noticed at the next look.
        let stamp = stamp(path);
        Ok(Self { path: path.to_owned(), ring: KeyRing::load(path)?, stamp, look_at: 0 })
    }

    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Whether the keys have changed since the last look. A file that cannot be read, or is gone, leaves the keys as they were, and
    /// says so once.
    pub fn look(&mut self) -> Result<bool, KeyError> {
        let now = stamp(&self.path);
        if now == self.stamp {
            return Ok(false);
        }
        self.stamp = now;
        let ring = KeyRing::load(&self.path)?;
        let changed = ring != self.ring;
        self.ring = ring;
        Ok(changed)
    }

    /// As [`KeyFile::look`], for loops that go round often: looks once a second at most. `now` in milliseconds of a clock that
    /// never goes back.
    pub fn renewed(&mut self, now: u64) -> Result<bool, KeyError> {
        if now < self.look_at {
            return Ok(false);
        }
        self.look_at = now.saturating_add(LOOK_MS);
        self.look()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> ClusterKey {
        ClusterKey::from_bytes([n; 32])
    }

    #[test]
    fn at_every_moment_of_a_renewal_each_node_accepts_what_the_others_use() {
        // Every order in which three nodes can take the steps, given that all have taken one before any takes the next.
        let new = key(2);
        let steps: [fn(&KeyRing, &ClusterKey) -> KeyRing; 3] = [
            |ring, new| ring.offer(new).unwrap(),
            |ring, new| ring.switch(&new.fingerprint()).unwrap(),
            |ring, new| ring.finish(&new.fingerprint()).unwrap(),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut nodes = vec![KeyRing::of(key(1)); 3];
            let store = nodes[0].store_name();
            for step in steps {
                for n in order {
                    nodes[n] = step(&nodes[n], &new);
                    // A command that was interrupted is given again.
                    assert_eq!(step(&nodes[n], &new), nodes[n]);
                    for (a, b) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                        let said = nodes[a].used();
                        assert!(nodes[b].keys().any(|k| k == said), "{nodes:?}");
                    }
                    assert!(nodes.iter().all(|ring| ring.store_name() == store));
                    assert_eq!(KeyRing::parse(nodes[n].to_text().as_bytes()), Some(nodes[n].clone()));
                }
            }
            assert!(nodes.iter().all(|ring| ring.used() == &new && ring.accepted().is_empty()));
        }
    }

    #[test]
    fn steps_out_of_turn_are_refused() {
        let ring = KeyRing::of(key(1));
        assert_eq!(ring.switch(&key(2).fingerprint()), Err(StepError::NotOffered));
        assert_eq!(ring.finish(&key(2).fingerprint()), Err(StepError::NotOffered));
        let offered = ring.offer(&key(2)).unwrap();
        assert_eq!(offered.offer(&key(3)), Err(StepError::Busy));
        assert_eq!(offered.finish(&key(2).fingerprint()), Err(StepError::NotOffered));
        assert_eq!(offered.withdraw(&key(2).fingerprint()), Ok(ring));
        let switched = offered.switch(&key(2).fingerprint()).unwrap();
        assert_eq!(switched.withdraw(&key(2).fingerprint()), Err(StepError::InUse));
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_a_bad_one_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        key(1).save(&path).unwrap();
        let mut file = KeyFile::open(&path).unwrap();
        assert!(!file.look().unwrap());
        let replace = |text: &str| {
            let fresh = dir.path().join("fresh");
            std::fs::write(&fresh, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&fresh, mode).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
        };
        let offered = file.ring().offer(&key(2)).unwrap();
        replace(&offered.to_text());
        assert!(file.look().unwrap() && !file.look().unwrap());
        assert_eq!(file.ring(), &offered);
        replace("half a ke");
        assert!(matches!(file.look(), Err(KeyError::Malformed(_))));
        assert!(!file.look().unwrap());
        assert_eq!(file.ring(), &offered);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(), Err(KeyError::Missing(_))));
        assert_eq!(file.ring(), &offered);
        replace(&offered.switch(&key(2).fingerprint()).unwrap().to_text());
        assert!(file.look().unwrap());
        assert_eq!(file.ring().used(), &key(2));
    }

    proptest! {
        #[test]
        fn garbage_is_no_ring(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(ring) = KeyRing::parse(&bytes) {
                prop_assert_eq!(KeyRing::parse(ring.to_text().as_bytes()), Some(ring));
            }
        }

        #[test]
        fn lines_of_keys(lines in prop::collection::vec("[0-9a-f]{64}|[0-9a-f]{63}|store [0-9a-f]{16}|", 0..5)) {
            if let Some(ring) = KeyRing::parse(lines.join("\n").as_bytes()) {
                prop_assert!(ring.keys().count() <= KEYS_LIMIT);
                prop_assert_eq!(KeyRing::parse(ring.to_text().as_bytes()), Some(ring));
            }
        }
    }
}
