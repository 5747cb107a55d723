//! What does a replica durably know about itself.
//!
//! One small file, replaced atomically (`lineage.json` in the state directory). A file that cannot be read is an error, never a blank
//! replica: forgetting an epoch could let an old replica serve.

use crate::recorder::Position;
use crate::stream::message::{Place, StreamId};
use lineage::{Lineage, Standing};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path} cannot be read: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "{path} is damaged: {error}; restore it from a backup, or remove it to make this replica blank (its data will be replaced by the peer's)"
    )]
    Damaged { path: PathBuf, error: serde_json::Error },
    #[error("{path} cannot be written: {error}")]
    Write { path: PathBuf, error: io::Error },
}

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub lineage: Lineage,
    pub standing: Standing,
    /// A position that was reached; the true one may be greater. A secondary never remembers more than its primary does.
    #[serde(default)]
    pub position: Position,
    /// This replica may hold changes that no peer received: it serves, or it served and did not end in good order.
    #[serde(default)]
    pub unshared: bool,
    /// While inconsistent: the primary's change map that covers all differences.
    #[serde(default)]
    pub covered_by: Option<StreamId>,
    /// The activity log that is to be believed. Another program that wrote this file knows of none.
    #[serde(default)]
    pub activity: Option<StreamId>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            lineage: Lineage::default(),
            standing: Standing::Blank,
            position: 0,
            unshared: false,
            covered_by: None,
            activity: None,
        }
    }
}

/// The store of one module.
pub struct Store {
    directory: PathBuf,
    now: Remembered,
}

impl Store {
    /// Reads what is remembered; a new directory is a blank replica.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Write { path: directory.to_owned(), error };
        std::fs::create_dir_all(directory).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), now: read(directory)? })
    }

    pub fn now(&self) -> &Remembered {
        &self.now
    }

    /// Changes what is remembered. Durable when it returns; on an error the former content is what counts.
    pub fn change(&mut self, change: impl FnOnce(&mut Remembered)) -> Result<(), StoreError> {
        let mut next = self.now.clone();
        change(&mut next);
        if next == self.now {
            return Ok(());
        }
        let path = file(&self.directory);
        let bytes =
            serde_json::to_vec_pretty(&next).map_err(|error| StoreError::Damaged { path: path.clone(), error })?;
        sys::files::write_durably(&path, &bytes, 0o600).map_err(|error| StoreError::Write { path, error })?;
        self.now = next;
        Ok(())
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a file of this name lies in the state directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("lineage.json")
}

/// What a module's replica remembers, without opening it for change.
pub fn read(directory: &Path) -> Result<Remembered, StoreError> {
    let path = file(directory);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| StoreError::Damaged { path, error }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Remembered::default()),
        Err(error) => Err(StoreError::Read { path, error }),
    }
}

/// Up to where a secondary applied. Survives the death of the process (it is in the page cache), and is worthless after a reboot.
pub struct PlaceFile {
    file: File,
    boot: u128,
}

const PLACE_MAGIC: u64 = 0x736b_706c_6163_6531;

impl PlaceFile {
    /// `boot`: the host's boot identity.
    pub fn open(path: &Path, boot: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(32).collect();
        Ok(Self { file, boot: u128::from_str_radix(&digits, 16).unwrap_or_default() })
    }

    /// None: unknown.
    pub fn read(&self) -> Option<Place> {
        let mut bytes = [0; 48];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let wide = |at: usize| bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map(u128::from_le_bytes);
        let good = word(0)? == PLACE_MAGIC && self.boot != 0 && wide(8)? == self.boot;
        good.then_some(Place { stream: StreamId(wide(24)?), position: word(40)? })
    }

    /// One write: a killed process leaves the old place or the new one.
    pub fn write(&self, place: Option<Place>) -> io::Result<()> {
        let mut bytes = [0; 48];
        if let Some(place) = place {
            let parts = [
                &PLACE_MAGIC.to_le_bytes()[..],
                &self.boot.to_le_bytes(),
                &place.stream.0.to_le_bytes(),
                &place.position.to_le_bytes(),
            ];
            for (to, from) in bytes.iter_mut().zip(parts.concat()) {
                *to = from;
            }
        }
        self.file.write_all_at(&bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lineage::EpochId;

    #[test]
    fn what_was_changed_is_read_again_and_damage_is_not_blank() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        assert_eq!(store.now().standing, Standing::Blank);
        store
            .change(|r| {
                r.lineage.mint(EpochId(7), 12);
                r.standing = Standing::Alone;
            })
            .unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().now(), store.now());
        std::fs::write(dir.path().join("lineage.json"), b"{\"lineage\":").unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_place_counts_in_the_same_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("place");
        let place = Place { stream: StreamId(3), position: 9 };
        let file = PlaceFile::open(&path, "9d6cf2a5-0000-4000-8000-000000000001").unwrap();
        assert_eq!(file.read(), None);
        file.write(Some(place)).unwrap();
        assert_eq!(PlaceFile::open(&path, "9d6cf2a5-0000-4000-8000-000000000001").unwrap().read(), Some(place));
        assert_eq!(PlaceFile::open(&path, "9d6cf2a5-0000-4000-8000-000000000002").unwrap().read(), None);
        assert_eq!(PlaceFile::open(&path, "").unwrap().read(), None);
        file.write(None).unwrap();
        assert_eq!(file.read(), None);
    }
}
