//! What is the secret all nodes of a cluster share, and which keys follow from it?

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const STREAM_CONTEXT: &str = "sk 2026 replication stream psk";
const PATH_CONTEXT: &str = "sk 2026 heartbeat path mac";
const STORE_CONTEXT: &str = "sk 2026 arbiter store name";
const NODE_CONTEXT: &str = "sk 2026 node channel psk";
const FINGERPRINT_CONTEXT: &str = "sk 2026 key fingerprint";
/// Longest file of keys that is read: a thousand operators.
const FILE_LIMIT: u64 = 256 * 1024;
const DATAGRAM_CONTEXT: &str = "sk 2026 heartbeat datagram mac";

/// Why there is no usable key. Each message says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "the cluster key {0} does not exist; make one with `sk-cluster create`, or bring it from a node that has it: sk-cluster export | ssh HERE sk-cluster import"
    )]
    Missing(PathBuf),
    #[error("the cluster key {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "the cluster key {path} belongs to user {owner}, not to root or to the user who runs this; run: chown root {path}"
    )]
    ForeignOwner { path: PathBuf, owner: u32 },
    #[error(
        "the cluster key {0} is not one to three lines of 64 hexadecimal digits; copy it again from a node that works"
    )]
    Malformed(PathBuf),
    #[error("the cluster key {0} exists already; remove it first if all nodes shall get a new one")]
    Exists(PathBuf),
    #[error("cannot use the cluster key {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}: expected `NAME monitor|control|admin KEY`, each name once")]
    Line { path: PathBuf, line: usize },
    #[error("the kernel gives no random bytes: {0}")]
    Random(String),
}

/// 32 secret bytes, the same on all nodes of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| KeyError::Random(e.to_string()))?;
        Ok(Self(bytes))
    }

    /// Reads the key in use from a key file; refuses one that others may read. See [`crate::ring::KeyRing`] for all keys of the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        crate::ring::KeyRing::load(path).map(|ring| ring.used().clone())
    }

    /// Writes a new key file with mode 0600; never replaces one.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let fail = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
            _ => KeyError::Io { path: path.to_owned(), source },
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
        file.write_all(format!("{}\n", self.to_hex()).as_bytes()).and_then(|()| file.sync_all()).map_err(fail)
    }

    /// 64 hexadecimal digits, with blanks around them allowed.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let digits = text.trim_ascii();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0_u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                *byte = (*byte << 4) | char::from(*digit).to_digit(16)? as u8;
            }
        }
        Some(Self(bytes))
    }

    pub fn to_hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// A key for one purpose (`context`, a constant of the program) and one module.
    pub fn derive(&self, context: &str, module: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0).update(module.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// What tells one key from another and may be shown: 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        hex8(&self.derive(FINGERPRINT_CONTEXT, ""))
    }

    /// Pre-shared key of the channel between nodes and their operators, see `node`.
    pub fn node_psk(&self) -> [u8; 32] {
        self.derive(NODE_CONTEXT, "")
    }

    /// Pre-shared key of a module's replication stream, see `channel`.
    pub fn stream_psk(&self, module: &str) -> [u8; 32] {
        self.derive(STREAM_CONTEXT, module)
    }

    /// Name of the cluster in a store that several clusters may use: 16 hexadecimal digits that say nothing of the key.
    pub fn store_name(&self) -> String {
        hex8(&self.derive(STORE_CONTEXT, ""))
    }

    /// Authentication key of what the nodes of a farm say to each other about one module, see `path`.
    pub fn datagram_key(&self, module: &str) -> [u8; 32] {
        self.derive(DATAGRAM_CONTEXT, module)
    }

    /// Authentication key of what two nodes say to each other about all their modules, see `path`.
    pub fn path_key(&self) -> [u8; 32] {
        self.derive(PATH_CONTEXT, "")
    }
}

/// The content of a key file; refuses one that others may read, since its content must then be taken as known.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
        _ => KeyError::Io { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.mode() & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    // /proc/self belongs to the effective user, which std offers no call for.
    let own = std::fs::metadata("/proc/self").map_err(fail)?.uid();
    if meta.uid() != 0 && meta.uid() != own {
        return Err(KeyError::ForeignOwner { path: path.to_owned(), owner: meta.uid() });
    }
    let mut text = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut text).map_err(fail)?;
    Ok(text)
}

fn hex8(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Debug for ClusterKey {
    /// Never shows the key: it would end in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_saved_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        assert!(matches!(ClusterKey::load(&path), Err(KeyError::Missing(_))));
        let key = ClusterKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(ClusterKey::load(&path).unwrap(), key);
        assert!(matches!(key.save(&path), Err(KeyError::Exists(_))));
    }

    #[test]
    fn a_readable_key_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        ClusterKey::generate().unwrap().save(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = ClusterKey::load(&path).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn purposes_and_modules_have_different_keys() {
        let key = ClusterKey::from_bytes([7; 32]);
        assert_ne!(key.stream_psk("a"), key.stream_psk("b"));
        assert_ne!(key.stream_psk("a"), key.datagram_key("a"));
        assert_eq!(format!("{key:?}"), "ClusterKey(…)");
    }

    proptest! {
        #[test]
        fn hex_round_trip_and_garbage(bytes in any::<[u8; 32]>(), garbage in proptest::collection::vec(any::<u8>(), 0..100)) {
            let key = ClusterKey::from_bytes(bytes);
            prop_assert_eq!(ClusterKey::from_hex(key.to_hex().as_bytes()), Some(key));
            let hex = garbage.trim_ascii().len() == 64 && garbage.trim_ascii().iter().all(u8::is_ascii_hexdigit);
            prop_assert_eq!(ClusterKey::from_hex(&garbage).is_some(), hex);
        }
    }
}
