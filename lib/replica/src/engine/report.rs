//! What does the engine tell: events of docs/architecture.md §3.

use crate::recorder::Position;
use crate::resync::Progress;
use crate::stream::message::Mode;
use lineage::{Lineage, Standing};
use serde::Serialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    #[default]
    Idle,
    Primary,
    Secondary,
}

/// What is seen of the other engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    #[default]
    Absent,
    Syncing,
    InSync,
    /// The stream broke while in sync.
    Lost,
    /// It said goodbye.
    Left,
}

/// The `replica` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub role: Role,
    pub standing: Standing,
    pub lineage: Lineage,
    pub peer: Peer,
    pub frozen: bool,
    pub position: Position,
}

/// Everything that is told besides answers to orders.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Report {
    Replica(Snapshot),
    ResyncBegin {
        mode: Mode,
        files: u64,
        bytes: u64,
    },
    Progress(Progress),
    /// What a resynchronisation that ended has taken, as the primary measured it.
    Figures(Progress),
    /// One file of a resynchronisation is here (`reidetail`), and `more` others that are not named: there are too many.
    Copied {
        path: String,
        bytes: u64,
        more: u64,
    },
    ResyncEnd {
        files: u64,
        bytes: u64,
        ms: u64,
    },
    StreamUp {},
    StreamLost {
        reason: String,
    },
    Traffic {
        in_bytes_s: u64,
        out_bytes_s: u64,
        lag_bytes: u64,
        /// Content of live operations, and of a resynchronisation, that went through the stream.
        rep_bytes_s: u64,
        rei_bytes_s: u64,
        /// How long barriers waited for the secondary's acknowledgement in the last second, mean and worst. None: no barrier.
        ack_us: Option<u64>,
        ack_worst_us: Option<u64>,
    },
    Fault {
        reason: String,
    },
    Salvaged {
        path: String,
        bytes: u64,
    },
    /// For people: printed on the standard error.
    Note {
        text: String,
    },
}

impl Report {
    /// The event's `kind`. None: words for people.
    pub fn kind(&self) -> Option<&'static str> {
        Some(match self {
            Self::Replica(_) => "replica",
            Self::ResyncBegin { .. } => "resync_begin",
            Self::Progress(_) => "progress",
            Self::Figures(_) => "figures",
            Self::Copied { .. } => "copied",
            Self::ResyncEnd { .. } => "resync_end",
            Self::StreamUp {} => "stream_up",
            Self::StreamLost { .. } => "stream_lost",
            Self::Traffic { .. } => "traffic",
            Self::Fault { .. } => "fault",
            Self::Salvaged { .. } => "salvaged",
            Self::Note { .. } => return None,
        })
    }
}

/// Where reports go. Called from several threads; must not call back into the engine.
pub type Reporter = std::sync::Arc<dyn Fn(&Report) + Send + Sync>;
