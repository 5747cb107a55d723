//! What do the two engines say to each other besides operations.

use crate::recorder::Position;
use lineage::{EpochId, Lineage, Standing};
use serde::{Deserialize, Serialize};

/// Version of the stream's language; both sides must speak the same.
pub const VERSION: u32 = 2;

/// Identity of a stream: a ring of frames and the numbering in it. New whenever a ring begins anew, so that a position alone can never be
/// taken for a place in another history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(#[serde(with = "hex")] pub u128);

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub stream: StreamId,
    pub position: Position,
}

/// How the secondary becomes equal to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing to do but the frames after its place.
    Resume,
    /// What the change map says.
    Incremental,
    /// Everything is compared, what differs is copied.
    Compare,
    /// As compare; the operator asked for it or the receiver was empty.
    Full,
    /// As compare, but the content of files that did not change since a moment is vouched for by the operator.
    Since,
}

/// What the operator vouches for: the secondary's copy holds everything that the primary had at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vouched {
    /// Seconds since 1970 by the primary's clock.
    Since(i64),
    /// When the primary was marked with this identifier.
    Mark(String),
}

/// The secondary introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub module: String,
    pub node: String,
    /// How many directories it replicates.
    pub directories: u16,
    pub lineage: Lineage,
    pub standing: Standing,
    /// Up to where it applied, when it knows (not after a reboot).
    #[serde(default)]
    pub place: Option<Place>,
    /// It may hold changes that nobody received: it was primary and did not end in good order.
    pub unshared: bool,
    /// While inconsistent: the change map that covers all its differences.
    #[serde(default)]
    pub covered_by: Option<StreamId>,
    /// The operator wants everything copied.
    pub full: bool,
    /// Epochs in which its change map begins: it can tell what it changed since. Empty: it cannot.
    #[serde(default)]
    pub changed: Vec<EpochId>,
    /// The operator copied the data by other means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched: Option<Vouched>,
}

/// Control messages. The first two open a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ctl", rename_all = "snake_case")]
pub enum Control {
    /// Secondary → primary, first.
    Hello(Hello),
    /// Primary → secondary: frames after `place` follow. `covered_by`: a resynchronisation that is interrupted may go on from this
    /// change map. `prompt`: acknowledge every batch, not only barriers.
    Welcome {
        mode: Mode,
        place: Place,
        #[serde(default)]
        covered_by: Option<StreamId>,
        prompt: bool,
        lineage: Lineage,
        /// The secondary is to say what it changed, first of all.
        #[serde(default)]
        changed: bool,
        /// What the secondary has and the primary has not is put aside, whatever the lineages say: nobody knows where it comes from.
        #[serde(default)]
        salvage: bool,
    },
    /// Either: this connection is of no use; why. `hopeless`: what was vouched for cannot be relied on, and trying again does not help.
    Refused {
        reason: String,
        #[serde(default)]
        hopeless: bool,
    },
    /// Either: alive.
    Ping,
    /// Secondary → primary. `done`: everything up to here is acknowledged as the policy demands. `settled`: a new process of the
    /// secondary continues here, frames up to it may be forgotten.
    Ack { done: Position, settled: Position },
    /// Secondary → primary: everything before this checkpoint is on its disk.
    Checkpointed { number: u64 },
    /// Primary → secondary: both have this checkpoint, made at this position; forget what came before.
    Common { number: u64, position: Position },
    /// Secondary → primary: a part of its change map, in the payload.
    Changed { last: bool },
    /// Secondary → primary: the answer to a question of the resynchronisation, in the payload.
    Answer,
    /// Secondary → primary: it cannot apply what it received (disk full, trees differ).
    CannotApply { position: Position, reason: String },
    /// Secondary → primary: it leaves in good order.
    Leaving,
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{value:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = String::deserialize(d)?;
        if text.len() > 32 {
            return Err(serde::de::Error::custom("a stream's identity is at most 32 hexadecimal digits"));
        }
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}
