//! What does the user see and mean? The model: updates and keys in, effects out. Pure.

use crate::snapshot::Snapshot;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::{BTreeMap, VecDeque};

/// Log lines kept for each module.
const LINES_KEPT: usize = 200;

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
        }
        true
    }

    pub fn key(&mut self, key: KeyEvent) -> Effect {
        self.touched = true;
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Effect::Quit;
        }
        if let Some((module, verb)) = self.question.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => {
                    self.message = Some((format!("{} {module} …", verb.word()), false));
                    Effect::Command { module, verb }
                }
                _ => Effect::Nothing,
            };
        }
        if std::mem::take(&mut self.help) {
            return Effect::Nothing;
        }
        self.message = None;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Effect::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Char('s') => self.propose(Verb::Start),
            KeyCode::Char('t') => self.propose(Verb::Stop),
            KeyCode::Char('w') => self.propose(Verb::Swap),
            KeyCode::Char('r') => self.propose(Verb::Restart),
            _ => {}
        }
        Effect::Nothing
    }

    fn propose(&mut self, verb: Verb) {
        self.question = self.selected.clone().map(|module| (module, verb));
    }

    fn step(&mut self, by: isize) {
        let names: Vec<&String> = self.modules.keys().collect();
        let present = self.selected_position().unwrap_or(0);
        let next = present.saturating_add_signed(by).min(names.len().saturating_sub(1));
        self.selected = names.get(next).map(|name| (*name).clone());
    }

    pub fn selected_position(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.modules.keys().position(|name| name == selected)
    }

    pub fn selected_module(&self) -> Option<&Module> {
        self.modules.get(self.selected.as_ref()?)
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
        (agreed(|s| &s.node, "this node"), agreed(|s| &s.peer, "peer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(names: &[&str]) -> App {
        let mut app = App::default();
        for name in names {
            app.update(Update::Module(Box::new(Snapshot::stopped(name))));
        }
        app
    }

    fn press(app: &mut App, keys: &str) -> Effect {
        keys.chars().map(|c| app.key(KeyEvent::from(KeyCode::Char(c)))).last().unwrap()
    }

    #[test]
    fn a_command_needs_a_yes() {
        let mut app = app(&["a", "b"]);
        assert_eq!(press(&mut app, "js"), Effect::Nothing);
        assert_eq!(app.question, Some(("b".into(), Verb::Start)));
        assert_eq!(press(&mut app, "n"), Effect::Nothing);
        assert_eq!(app.question, None);
        assert_eq!(press(&mut app, "ty"), Effect::Command { module: "b".into(), verb: Verb::Stop });
        assert_eq!(press(&mut app, "wq"), Effect::Nothing, "q answers the question, it does not quit");
        assert_eq!(press(&mut app, "q"), Effect::Quit);
    }

    #[test]
    fn the_question_keeps_its_module_when_the_list_changes() {
        let mut app = app(&["b"]);
        press(&mut app, "t");
        app.update(Update::Module(Box::new(Snapshot::stopped("a"))));
        assert_eq!(press(&mut app, "y"), Effect::Command { module: "b".into(), verb: Verb::Stop });
    }

    #[test]
    fn the_selection_stays_in_the_list() {
        let mut app = app(&["a", "b", "c"]);
        press(&mut app, "jjjjj");
        assert_eq!(app.selected.as_deref(), Some("c"));
        app.update(Update::Removed { module: "c".into() });
        assert_eq!(app.selected.as_deref(), Some("a"));
        press(&mut app, "kkk");
        assert_eq!(app.selected_position(), Some(0));
        let mut empty = App::default();
        assert_eq!(press(&mut empty, "jks"), Effect::Nothing);
        assert_eq!(empty.question, None);
    }

    #[test]
    fn before_the_first_key_the_first_module_is_selected() {
        let mut app = app(&["b"]);
        app.update(Update::Module(Box::new(Snapshot::stopped("a"))));
        assert_eq!(app.selected.as_deref(), Some("a"));
        app.key(KeyEvent::from(KeyCode::F(1)));
        app.update(Update::Module(Box::new(Snapshot::stopped("Z"))));
        assert_eq!(app.selected.as_deref(), Some("a"));
    }

    #[test]
    fn log_lines_are_bounded() {
        let mut app = app(&["a"]);
        for n in 0..1000 {
            app.update(Update::Line { module: "a".into(), line: n.to_string() });
        }
        let lines = &app.modules["a"].lines;
        assert_eq!((lines.len(), lines.back().map(String::as_str)), (LINES_KEPT, Some("999")));
    }
}
