//! Which commands belong into the node's log of commands, and of which module are they?

use super::{BootAction, ErrdAction, Verb};

impl Verb {
    /// Commands that belong into the command log.
    pub fn changes_something(&self) -> bool {
        match self {
            Self::Boot { action, .. } => !matches!(action, Some(BootAction::Status)),
            Self::Errd { action, .. } => !matches!(action, ErrdAction::List),
            Self::Config { plan, .. } => !plan,
            Self::Init(answers) => answers.writes(),
            // What checkers assign every few seconds would drown the rest; the module's log and the history have it.
            Self::Set { automatic, .. } => automatic.identity.is_none(),
            Self::Deconfig { .. }
            | Self::Install { .. }
            | Self::Package { .. }
            | Self::Uninstall { .. }
            | Self::ClusterKey { .. }
            | Self::Start { .. }
            | Self::Prim { .. }
            | Self::Primforce { .. }
            | Self::Second { .. }
            | Self::Stop { .. }
            | Self::Forcestop { .. }
            | Self::Restart { .. }
            | Self::Stopstart { .. }
            | Self::Swap { .. }
            | Self::Shutdown
            | Self::Snapshot { .. }
            | Self::Anonymise { .. }
            | Self::Failover { .. }
            | Self::Checker { .. }
            | Self::Resetloop { .. }
            | Self::Incloop { .. }
            | Self::Setgroups { .. }
            | Self::Logsave { .. }
            | Self::Update { .. } => true,
            // Questions, what runs in the foreground, and `push`, which becomes a command of its own.
            _ => false,
        }
    }

    /// The module meant, for the command log.
    pub fn module_name(&self) -> Option<String> {
        match self {
            Self::Boot { module, .. }
            | Self::Errd { module, .. }
            | Self::Config { module, .. }
            | Self::Deconfig { module }
            | Self::Install { module, .. }
            | Self::Uninstall { module }
            | Self::Start { module, .. }
            | Self::Prim { module, .. }
            | Self::Primforce { module, .. }
            | Self::Second { module, .. }
            | Self::Stop { module, .. }
            | Self::Forcestop { module, .. }
            | Self::Restart { module, .. }
            | Self::Stopstart { module, .. }
            | Self::Swap { module, .. }
            | Self::Snapshot { module, .. }
            | Self::Failover { module, .. }
            | Self::Checker { module, .. }
            | Self::Package { module, .. }
            | Self::Set { module, .. }
            | Self::Setgroups { module, .. }
            | Self::Resetloop { module, .. }
            | Self::Incloop { module, .. }
            | Self::Logsave { module, .. }
            | Self::Update { module, .. } => module.name().ok(),
            Self::Init(answers) => answers.module().map(str::to_owned),
            _ => None,
        }
    }
}
