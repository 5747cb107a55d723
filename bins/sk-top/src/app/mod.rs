//! What does the user see and mean? The model: updates and keys in, effects out. Pure.

mod keys;
mod log;
mod samples;

pub use log::LogView;
pub use samples::{Sample, Samples};

use crate::snapshot::{Rule, Snapshot};
use std::collections::{BTreeMap, VecDeque};

/// Log lines kept for each module.
const LINES_KEPT: usize = 1000;

/// What fills the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    #[default]
    Overview,
    Module,
    Rules,
    /// Replication of a mirror, shares of a farm.
    Data,
    Log,
}

impl Page {
    pub const ALL: [Self; 5] = [Self::Overview, Self::Module, Self::Rules, Self::Data, Self::Log];
}

/// What a page needs beyond the state of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What a resource was, and when.
    History { module: String, resource: String },
    /// The failover rules, and why the module is as it is.
    Rules { module: String },
}

/// A value that a resource had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// RFC 3339.
    pub t: String,
    pub value: String,
}

/// The last answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    History { module: String, resource: String, past: Vec<Past> },
    Rules { module: String, rules: Vec<Rule>, why: Vec<String> },
}

/// News for the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A module is there; what it does is not known yet.
    Added { module: String },
    /// What the runner of a module says, or `Snapshot::stopped` without one.
    Module(Box<Snapshot>),
    /// The runner answered something unreadable, or nothing.
    Trouble { module: String, reason: String },
    /// The module was removed from this node.
    Removed { module: String },
    /// A line of the module's log.
    Line { module: String, line: String },
    /// What became of a command.
    Outcome { message: String, failed: bool },
    /// To what a page asked.
    Answer(Answer),
}

/// A command that can be given by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Swap,
    Restart,
}

impl Verb {
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Swap => "swap",
            Self::Restart => "restart",
        }
    }
}

/// What the loop has to do after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    Quit,
    /// Run the verb on the module.
    Command {
        module: String,
        verb: Verb,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Module {
    pub snapshot: Snapshot,
    /// Why the snapshot may be old.
    pub trouble: Option<String>,
    pub lines: VecDeque<String>,
    /// One a second while this program runs.
    pub samples: Samples,
}

#[derive(Clone, Debug, Default)]
pub struct App {
    pub modules: BTreeMap<String, Module>,
    /// By name, so that a module coming or going does not move the selection.
    pub selected: Option<String>,
    /// A key was pressed: from then on only the user moves the selection. Before, it is the first module.
    touched: bool,
    /// A command that waits for y or n.
    pub question: Option<(String, Verb)>,
    pub help: bool,
    pub message: Option<(String, bool)>,
    pub page: Page,
    pub log: LogView,
    /// On the page of the module, by name.
    pub resource: Option<String>,
    /// First line shown of what is longer than the page.
    pub scroll: usize,
    pub answer: Option<Answer>,
    /// Seconds since 1970; 0 while it is not known.
    pub now_s: i64,
}

impl App {
    /// Takes news in. Gives whether anything that is shown changed.
    pub fn update(&mut self, update: Update) -> bool {
        let changed = self.take(update);
        if !self.touched || self.selected.as_ref().is_none_or(|name| !self.modules.contains_key(name)) {
            self.selected = self.modules.keys().next().cloned();
        }
        changed
    }

    fn take(&mut self, update: Update) -> bool {
        match update {
            Update::Added { module } => {
                let entry = self.modules.entry(module.clone()).or_default();
                entry.snapshot.module = module;
            }
            Update::Module(snapshot) => {
                let module = self.modules.entry(snapshot.module.clone()).or_default();
                if module.snapshot == *snapshot && module.trouble.is_none() {
                    return false;
                }
                module.snapshot = *snapshot;
                module.trouble = None;
            }
            Update::Trouble { module, reason } => {
                let entry = self.modules.entry(module.clone()).or_default();
                entry.snapshot.module = module;
                entry.trouble = Some(reason);
            }
            Update::Removed { module } => {
                self.modules.remove(&module);
            }
            Update::Line { module, line } => {
                // A line that comes after its module was removed must not bring it back.
                let Some(entry) = self.modules.get_mut(&module) else { return false };
                entry.lines.push_back(line);
                if entry.lines.len() > LINES_KEPT {
                    entry.lines.pop_front();
                }
            }
            Update::Outcome { message, failed } => self.message = Some((message, failed)),
            Update::Answer(answer) => {
                let answer = Some(answer);
                if self.answer == answer {
                    return false;
                }
                self.answer = answer;
            }
        }
        true
    }

    /// A second has passed. Gives whether anything that is shown changed.
    pub fn tick(&mut self, now_s: i64) -> bool {
        self.now_s = now_s;
        for module in self.modules.values_mut() {
            module.samples.take(&module.snapshot);
        }
        matches!(self.page, Page::Module | Page::Data)
    }

    /// What the present page has to ask.
    pub fn asks(&self) -> Option<Question> {
        let module = self.selected.clone()?;
        match self.page {
            Page::Module => Some(Question::History { module, resource: self.resource_name()?.to_owned() }),
            Page::Rules => Some(Question::Rules { module }),
            Page::Overview | Page::Data | Page::Log => None,
        }
    }

    /// The resource whose history is shown: the one chosen, else the first.
    pub fn resource_name(&self) -> Option<&str> {
        let resources = &self.selected_module()?.snapshot.resources;
        let chosen = resources.iter().find(|r| Some(&r.name) == self.resource.as_ref());
        chosen.or_else(|| resources.first()).map(|r| r.name.as_str())
    }

    /// Rules and reasons of the selected module, as far as they are known.
    pub fn rules(&self) -> Option<(&[Rule], &[String])> {
        match &self.answer {
            Some(Answer::Rules { module, rules, why }) if Some(module) == self.selected.as_ref() => Some((rules, why)),
            _ => None,
        }
    }

    /// History of the resource that is chosen.
    pub fn past(&self) -> Option<&[Past]> {
        match &self.answer {
            Some(Answer::History { module, resource, past })
                if Some(module) == self.selected.as_ref() && Some(resource.as_str()) == self.resource_name() =>
            {
                Some(past)
            }
            _ => None,
        }
    }

    pub fn selected_position(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.modules.keys().position(|name| name == selected)
    }

    pub fn selected_module(&self) -> Option<&Module> {
        self.modules.get(self.selected.as_ref()?)
    }

    /// Every node that a module speaks of, this one first.
    pub fn node_names(&self) -> Vec<String> {
        let (here, _) = self.nodes();
        let mut others = std::collections::BTreeSet::new();
        for module in self.modules.values() {
            let s = &module.snapshot;
            others.extend(s.peer.clone());
            others.extend(s.farm.iter().flat_map(|f| f.members.clone()));
            others.extend(Some(s.node.clone()).filter(|n| !n.is_empty()));
        }
        others.remove(&here);
        std::iter::once(here).chain(others).collect()
    }

    /// Titles of the two node columns: the nodes' names when all modules agree.
    pub fn nodes(&self) -> (String, String) {
        let agreed = |name: fn(&Snapshot) -> &str, otherwise: &str| {
            let mut names: Vec<&str> =
                self.modules.values().map(|m| name(&m.snapshot)).filter(|n| !n.is_empty()).collect();
            names.dedup();
            match names.as_slice() {
                [one] => (*one).to_owned(),
                _ => otherwise.to_owned(),
            }
        };
        (agreed(|s| &s.node, "this node"), agreed(|s| s.peer.as_deref().unwrap_or_default(), "others"))
    }
}

#[cfg(test)]
mod tests;
