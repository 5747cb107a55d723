//! What can reach the runner's loop: lines and ends of children, ends of scripts, requests, signals.

use serde_json::Value;
use std::sync::mpsc::SyncSender;

/// The long-lived children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Heartbeat,
    Errd,
    /// All checkers of the module.
    Check,
    /// Holds the virtual addresses.
    Vip,
    /// The member of a farm: holds its addresses, shares its traffic.
    Farm,
    /// Watches the interfaces of the virtual addresses.
    VipWatch,
    Arbiter,
    Replicate,
}

impl Kind {
    pub fn program(self) -> &'static str {
        match self {
            Self::Heartbeat => "sk-heartbeat",
            Self::Errd => "sk-errd",
            Self::Check => "sk-check",
            Self::Vip | Self::VipWatch => "sk-vip",
            Self::Farm => "sk-farmfilter",
            Self::Arbiter => "sk-arbiter",
            Self::Replicate => "sk-replicate",
        }
    }

    /// Name in logs and in the `children` list.
    pub fn label(self) -> &'static str {
        match self {
            Self::VipWatch => "sk-vip watch",
            other => other.program(),
        }
    }
}

#[derive(Debug)]
pub(super) enum Input {
    /// A line of a child's stdout. `generation` tells a child from its successor.
    Line {
        kind: Kind,
        generation: u64,
        line: String,
    },
    /// A line of a child's stderr.
    Words {
        kind: Kind,
        line: String,
    },
    /// A child ended; everything it wrote has been delivered before.
    Ended {
        kind: Kind,
        generation: u64,
        how: String,
        code: Option<i32>,
    },
    ScriptEnded {
        id: u64,
        exit: Option<i32>,
    },
    /// The exit of a handler named by an errd action.
    HandlerEnded {
        name: String,
        exit: Option<i32>,
    },
    Request {
        request: Value,
        reply: SyncSender<String>,
    },
    Signal(nix::sys::signal::Signal),
}
