//! How do a node's daemon and those who ask it talk?
//!
//! One conversation a connection, inside the encrypted channel: the asker sends an [`Ask`], for an archive followed by `part`s; the
//! node sends [`Answer`]s, of which the last one ends the conversation. While something takes time it says `alive` every two seconds,
//! so a silent node is known to be gone. See [`frame`] for the form of a message.

pub mod call;
pub mod frame;
mod talk;

pub use call::{Peer, call};
pub use talk::{Talk, TalkError};

use crate::role::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A node that works says something at least this often.
pub const ALIVE: Duration = Duration::from_secs(2);
/// A node that said nothing for so long is gone. Generous: a host may be overloaded.
pub const SILENCE: Duration = Duration::from_secs(15);
/// Longest time for connection and handshake.
pub const GREETING: Duration = Duration::from_secs(8);
/// Largest archive that is taken, unpacked.
pub const ARCHIVE_LIMIT: u64 = 64 * 1024 * 1024;
/// Most words of a command line.
pub const WORDS_LIMIT: usize = 256;

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// What it is and has; which numbers these users have there.
    Facts {
        #[serde(default)]
        users: Vec<String>,
    },
    /// A command of sk. `origin`: who asks there, in words for the log of commands.
    Run { argv: Vec<String>, origin: String },
    /// A [`Bundle`] as payload becomes the cluster's configuration of the node.
    Cluster { origin: String },
    /// A step of a renewal of the cluster key.
    Key {
        step: KeyStep,
        fingerprint: String,
        /// With `offer`.
        #[serde(default)]
        key: Option<String>,
        origin: String,
    },
    /// An archive (tar) of `conf` and `bin` follows in parts and becomes the module's editable configuration; with `configure` it is
    /// applied, too.
    Module {
        module: String,
        #[serde(default)]
        id: Option<u16>,
        configure: bool,
        origin: String,
    },
    /// A piece of an archive as payload.
    Part { last: bool },
}

/// See [`crate::ring::KeyRing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStep {
    Offer,
    Switch,
    Finish,
    Withdraw,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is still at it.
    Alive,
    /// Output of the command, as payload.
    Out,
    /// Its words for people, as payload.
    Err,
    /// The command ended.
    End {
        exit: u8,
    },
    Facts(Box<Facts>),
    /// Done, with words for people.
    Done {
        #[serde(default)]
        words: Vec<String>,
    },
    Refused {
        error: String,
        #[serde(default)]
        hint: Option<String>,
        exit: u8,
    },
}

/// What a node is and has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Empty when the cluster's configuration does not say.
    #[serde(default)]
    pub node: String,
    #[serde(default)]
    pub version: String,
    /// Its clock, in milliseconds since 1970.
    #[serde(default)]
    pub wall_ms: u64,
    /// Of `cluster.xml` and the keys of operators; none: there is no configuration.
    #[serde(default)]
    pub cluster: Option<Stamp>,
    #[serde(default)]
    pub locked: bool,
    /// Fingerprint of the key in use.
    #[serde(default)]
    pub key: String,
    /// Fingerprints of the others that are accepted.
    #[serde(default)]
    pub accepted: Vec<String>,
    /// What the asker may do there.
    #[serde(default)]
    pub role: Option<Role>,
    #[serde(default)]
    pub modules: Vec<ModuleFact>,
    /// Number of user and group of those users that were asked for and are there.
    #[serde(default)]
    pub users: BTreeMap<String, (u32, u32)>,
}

/// What tells one configuration from another, and since when it is there (seconds since 1970).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub signature: String,
    pub date: u64,
}

/// A module of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleFact {
    pub module: String,
    #[serde(default)]
    pub id: Option<u16>,
    #[serde(default)]
    pub mode: String,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub readiness: String,
    /// Of the applied configuration.
    #[serde(default)]
    pub config: Option<Stamp>,
}

/// What all nodes of a cluster have in common, but for the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    pub cluster_xml: String,
    /// Lines of [`crate::role::parse_operators`].
    #[serde(default)]
    pub operators: String,
    /// Only in what `sk-cluster export` prints: the content of the key file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Bundle {
    /// What `sk-cluster confinfo` compares.
    pub fn signature(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.cluster_xml.len() as u64).to_be_bytes()).update(self.cluster_xml.as_bytes());
        hasher.update(self.operators.as_bytes());
        hasher.finalize().to_hex().chars().take(16).collect()
    }
}
