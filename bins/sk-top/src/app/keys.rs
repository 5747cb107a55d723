//! What does a key, or the mouse, mean?

use super::{App, Effect, Page, Verb};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Lines of a turn of the page keys.
const PAGE: isize = 10;
/// Longest filter.
const FILTER_MAX: usize = 64;

impl App {
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
        if self.log.editing && self.page == Page::Log {
            self.edit_filter(key.code);
            return Effect::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Esc => return self.back(),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char(digit @ '1'..='5') => {
                let number = digit as usize - '1' as usize;
                self.go(Page::ALL.get(number).copied().unwrap_or_default());
            }
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(-1),
            KeyCode::Enter if self.page == Page::Overview => self.go(Page::Module),
            KeyCode::Left | KeyCode::Char('[') => self.choose_module(-1),
            KeyCode::Right | KeyCode::Char(']') => self.choose_module(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN / 2),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX / 2),
            KeyCode::Char('s') => self.propose(Verb::Start),
            KeyCode::Char('t') => self.propose(Verb::Stop),
            KeyCode::Char('w') => self.propose(Verb::Swap),
            KeyCode::Char('r') => self.propose(Verb::Restart),
            code if self.page == Page::Log => self.log_key(code),
            _ => {}
        }
        Effect::Nothing
    }

    /// The wheel, and clicks: what was hit is told by `draw::hit`.
    pub fn wheel(&mut self, by: isize) {
        self.touched = true;
        self.step(by);
    }

    pub fn go(&mut self, page: Page) {
        self.touched = true;
        if self.page != page {
            self.page = page;
            self.scroll = 0;
        }
    }

    /// Chooses a module by its place in the list.
    pub fn choose(&mut self, place: usize) {
        self.touched = true;
        if let Some(name) = self.modules.keys().nth(place) {
            self.select(name.clone());
        }
    }

    fn select(&mut self, name: String) {
        if self.selected.as_ref() != Some(&name) {
            self.selected = Some(name);
            self.resource = None;
            self.scroll = 0;
            self.log.back = 0;
        }
    }

    /// Escape: out of what is open, one thing at a time.
    fn back(&mut self) -> Effect {
        if self.page == Page::Log && !self.log.filter.is_empty() {
            self.log.filter.clear();
            self.log.back = 0;
        } else if self.page == Page::Overview {
            return Effect::Quit;
        } else {
            self.go(Page::Overview);
        }
        Effect::Nothing
    }

    fn turn(&mut self, by: isize) {
        let present = Page::ALL.iter().position(|p| *p == self.page).unwrap_or(0) as isize;
        let next = (present + by).rem_euclid(Page::ALL.len() as isize) as usize;
        self.go(Page::ALL.get(next).copied().unwrap_or_default());
    }

    fn propose(&mut self, verb: Verb) {
        self.question = self.selected.clone().map(|module| (module, verb));
    }

    fn step(&mut self, by: isize) {
        match self.page {
            Page::Overview => self.choose_module(by),
            Page::Module => self.choose_resource(by),
            // What is drawn knows where the end is.
            Page::Rules | Page::Data => self.scroll = self.scroll.saturating_add_signed(by).min(self.scroll_end()),
            Page::Log => {
                let end = self.log_lines(usize::MAX).len();
                self.log.back = self.log.back.saturating_add_signed(by.saturating_neg()).min(end.saturating_sub(1));
            }
        }
    }

    fn scroll_end(&self) -> usize {
        match self.page {
            Page::Rules => self.rules().map_or(0, |(rules, why)| (rules.len() + why.len()).saturating_sub(1)),
            _ => self
                .selected_module()
                .and_then(|m| m.snapshot.farm.as_ref())
                .map_or(0, |f| f.groups.iter().map(|g| 1 + g.nodes.len()).sum::<usize>().saturating_sub(1)),
        }
    }

    fn choose_module(&mut self, by: isize) {
        let present = self.selected_position().unwrap_or(0);
        let next = present.saturating_add_signed(by).min(self.modules.len().saturating_sub(1));
        self.choose(next);
    }

    fn choose_resource(&mut self, by: isize) {
        let Some(module) = self.selected_module() else { return };
        let resources = &module.snapshot.resources;
        let present = resources.iter().position(|r| Some(&r.name) == self.resource.as_ref()).unwrap_or(0);
        let next = present.saturating_add_signed(by).min(resources.len().saturating_sub(1));
        self.resource = resources.get(next).map(|r| r.name.clone());
    }

    fn log_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char('/') => self.log.editing = true,
            KeyCode::Char('a') => self.log.all_levels = !self.log.all_levels,
            KeyCode::Char('m') => self.log.all_modules = !self.log.all_modules,
            KeyCode::Char('f') => self.log.back = 0,
            _ => return,
        }
        self.log.back = 0;
    }

    fn edit_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.log.editing = false,
            KeyCode::Esc => {
                self.log.editing = false;
                self.log.filter.clear();
            }
            KeyCode::Backspace => {
                self.log.filter.pop();
            }
            KeyCode::Char(c) if !c.is_control() && self.log.filter.chars().count() < FILTER_MAX => {
                self.log.filter.push(c);
            }
            _ => {}
        }
        self.log.back = 0;
    }
}
