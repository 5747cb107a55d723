//! What kinds of words do the arguments of verbs have: names of modules, states, switches?

use crate::{Failure, exit};
use clap::{Args, ValueEnum};
use sys::roots::module_name;

#[derive(Debug, Args)]
pub(crate) struct Module {
    /// Name of the module; default: the environment variable SAFEMODULE
    #[arg(short = 'm', long = "module", value_name = "AM")]
    module: Option<String>,
}

impl Module {
    pub fn is_named(&self) -> bool {
        self.module.is_some() || std::env::var_os("SAFEMODULE").is_some()
    }

    pub fn name(&self) -> Result<String, Failure> {
        let name = self.module.clone().or_else(|| std::env::var("SAFEMODULE").ok()).ok_or_else(|| {
            Failure::new(exit::USAGE, "which module?")
                .hint("name it with -m AM, or set SAFEMODULE; sk-module list shows them")
        })?;
        module_name(&name).map_err(|message| Failure::new(exit::USAGE, message))
    }
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Form {
    /// JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Automatic {
    /// Automatic origin: who asks. Counts for maxloop; without it the command is the administrator's and resets the counter
    #[arg(short = 'i', long = "identity", value_name = "NAME")]
    pub identity: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BootAction {
    On,
    Off,
    Status,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ErrdAction {
    Enable,
    Disable,
    On,
    Off,
    List,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Traffic {
    All,
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

/// The name of a state, in capitals.
pub(super) fn valid_state(name: &str) -> Result<String, String> {
    let upper = name.to_ascii_uppercase();
    if ["STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UP"].contains(&upper.as_str()) {
        Ok(upper)
    } else {
        Err(format!("{name:?} is no state of a module: STOP, WAIT, ALONE, PRIM, SECOND, UP"))
    }
}
