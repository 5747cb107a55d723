//! How does the model look on a terminal? Pure: the same model gives the same frame.

mod farm;
mod help;
mod log;
mod module;
mod overview;
mod replication;
mod rules;

use crate::app::{App, Page};
use crate::snapshot::{Light, Snapshot, light};
use crate::text::Level;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, LineGauge};

/// With or without colours (`NO_COLOR`), and in which time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theme {
    pub colour: bool,
    pub zone: jiff::tz::TimeZone,
}

impl Theme {
    fn style(&self, light: Light) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match (self.colour, light) {
            (true, Light::Green) => bold.fg(Color::Green),
            // The orange of terminals with sixteen colours.
            (true, Light::Orange) => bold.fg(Color::Yellow),
            (true, Light::Red) => bold.fg(Color::Red),
            (true, Light::Grey) => Style::new().fg(Color::DarkGray),
            // Without colours what needs attention is underlined.
            (false, Light::Orange | Light::Red) => bold.add_modifier(Modifier::UNDERLINED),
            (false, _) => Style::new(),
        }
    }

    /// What only structures the screen.
    fn faint(&self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    /// Figures over time.
    fn graph(&self) -> Style {
        if self.colour { Style::new().fg(Color::Cyan) } else { Style::new() }
    }

    fn level(&self, level: Level) -> Style {
        match level {
            Level::Critical => self.style(Light::Red),
            Level::Warning => self.style(Light::Orange).remove_modifier(Modifier::BOLD),
            Level::User => Style::new().add_modifier(Modifier::BOLD),
            Level::Other => self.faint(),
            Level::Event | Level::Script => Style::new(),
        }
    }
}

pub fn draw(frame: &mut Frame, app: &App, theme: &Theme) {
    let [title, page, keys] = shell(frame.area());
    draw_tabs(frame, app, title);
    draw_keys(frame, app, theme, keys);
    if app.help {
        return help::draw(frame, app, theme, page);
    }
    match app.page {
        Page::Overview => overview::draw(frame, app, theme, page),
        Page::Module => module::draw(frame, app, theme, page),
        Page::Rules => rules::draw(frame, app, theme, page),
        Page::Data => match app.selected_module().map(|m| &m.snapshot) {
            Some(s) if s.farm.is_some() => farm::page(frame, app, theme, page),
            _ => replication::page(frame, app, theme, page),
        },
        Page::Log => log::page(frame, app, theme, page),
    }
}

fn shell(area: Rect) -> [Rect; 3] {
    Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area)
}

/// What a click on this place means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    Tab(Page),
    /// A module of the overview, by its place in the list.
    Module(usize),
}

/// What is drawn at this place.
pub fn hit(app: &App, area: Rect, column: u16, row: u16) -> Option<Hit> {
    let [title, page, _] = shell(area);
    let place = Position { x: column, y: row };
    if title.contains(place) {
        let mut x = title.x;
        for (page, words) in tabs(app, title.width) {
            let width = words.chars().count() as u16;
            if let Some(page) = page.filter(|_| (x..x.saturating_add(width)).contains(&column)) {
                return Some(Hit::Tab(page));
            }
            x = x.saturating_add(width);
        }
        return None;
    }
    if app.page == Page::Overview && !app.help && page.contains(place) {
        return overview::module_at(app, page, row).map(Hit::Module);
    }
    None
}

/// The title line in pieces; those that lead to a page say so.
fn tabs(app: &App, width: u16) -> Vec<(Option<Page>, String)> {
    let mut pieces = vec![(None, " sk-top ".to_owned())];
    for (number, page) in Page::ALL.into_iter().enumerate() {
        let name = match page {
            Page::Overview => "Overview",
            Page::Module => "Module",
            Page::Rules => "Rules",
            Page::Data if app.selected_module().is_some_and(|m| m.snapshot.farm.is_some()) => "Farm",
            Page::Data => "Replication",
            Page::Log => "Log",
        };
        let words = if width >= 64 || page == app.page {
            format!(" {} {name} ", number + 1)
        } else {
            format!(" {} ", number + 1)
        };
        pieces.push((Some(page), words));
    }
    pieces
}

fn draw_tabs(frame: &mut Frame, app: &App, area: Rect) {
    let bar = Style::new().add_modifier(Modifier::REVERSED);
    let spans: Vec<Span> = tabs(app, area.width)
        .into_iter()
        .map(|(page, words)| {
            let style = if page == Some(app.page) {
                Style::new().add_modifier(Modifier::BOLD)
            } else if page.is_none() {
                bar.add_modifier(Modifier::BOLD)
            } else {
                bar
            };
            Span::styled(words, style)
        })
        .collect();
    let used: usize = spans.iter().map(Span::width).sum();
    frame.buffer_mut().set_style(area, bar);
    frame.render_widget(Line::from(spans), area);
    // At the right: where we are, when there is room.
    let (node, _) = app.nodes();
    let place = format!("{node} ");
    let free = usize::from(area.width).saturating_sub(used + 1);
    if place.chars().count() <= free {
        let width = place.chars().count() as u16;
        let corner = Rect { x: area.right() - width, width, ..area };
        frame.render_widget(Line::styled(place, bar), corner);
    }
}

fn draw_keys(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let line = if let Some((module, verb)) = &app.question {
        Line::styled(format!(" {} {module}? y/n", verb.word()), theme.style(Light::Orange))
    } else if let Some((message, failed)) = &app.message {
        let style = if *failed { theme.style(Light::Red) } else { Style::new() };
        Line::styled(format!(" {message}"), style)
    } else if app.help {
        Line::raw(" any key: back")
    } else {
        Line::raw(match app.page {
            Page::Overview => " s start  t stop  w swap  r restart  enter module  ? help  q quit",
            Page::Module => " ↑↓ resource  ←→ module  s start  t stop  w swap  r restart  ? help  q quit",
            Page::Rules => " ↑↓ scroll  ←→ module  ? help  q quit",
            Page::Data => " ←→ module  s start  t stop  w swap  r restart  ? help  q quit",
            Page::Log if app.log.editing => " type words to look for; enter: keep, esc: all lines again",
            Page::Log => " / filter  a all levels  m all modules  f follow  ↑↓ scroll  ←→ module  ? help",
        })
    };
    frame.render_widget(line, area);
}

/// A line across the screen with a title, and the room below it.
fn section(frame: &mut Frame, theme: &Theme, area: Rect, title: Line<'static>) -> Rect {
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(theme.faint())
        .title_style(Style::new().fg(Color::Reset))
        .title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

/// Title of a page about one module: its name, and what it is.
fn heading(s: &Snapshot) -> Line<'static> {
    let mut rest = s.mode.as_deref().map_or(String::new(), |mode| format!(" · {mode}"));
    if let Some(id) = s.id {
        rest += &format!(" · id {id}");
    }
    Line::from(vec![
        Span::raw(" "),
        Span::styled(s.module.clone(), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{rest} ")),
    ])
}

/// What a page about one module shows when there is none.
fn no_module(frame: &mut Frame, area: Rect) {
    frame.render_widget(Line::raw(" no modules on this node"), area);
}

fn labelled(label: &str, spans: Vec<Span<'static>>) -> Line<'static> {
    [Span::raw(format!(" {label:<12}"))].into_iter().chain(spans).collect()
}

/// A state in its colour.
fn state_span(theme: &Theme, words: String) -> Span<'static> {
    let (name, readiness) = words.split_once(' ').unwrap_or((&words, ""));
    let style = theme.style(light(name, readiness));
    Span::styled(words, style)
}

/// Names, each with `up` or another word in its colour.
fn up_down(theme: &Theme, pairs: Vec<(&str, &str)>) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    for (name, value) in pairs {
        let style = theme.style(if value == "up" { Light::Green } else { Light::Red });
        spans.extend([Span::raw(format!("{name} ")), Span::styled(value.to_owned(), style), Span::raw("  ")]);
    }
    if spans.is_empty() { vec![Span::raw("-")] } else { spans }
}

/// What sk runs for the module.
fn children(s: &Snapshot) -> Line<'static> {
    let mut words: Vec<String> = Vec::new();
    for child in &s.children {
        let again = child.restarts.filter(|n| *n > 0).map_or(String::new(), |n| format!(" ({n} restarts)"));
        words.push(format!("{}{again}", child.name));
    }
    labelled("Running", vec![Span::raw(if words.is_empty() { "-".to_owned() } else { words.join("  ") })])
}

/// What needs attention.
fn remark(theme: &Theme, app: &App) -> Option<Line<'static>> {
    let module = app.selected_module()?;
    let s = &module.snapshot;
    let words =
        module.trouble.clone().or_else(|| s.refused.clone()).or_else(|| s.rule.clone().map(|r| format!("rule {r}")))?;
    Some(labelled("Note", vec![Span::styled(words, theme.style(Light::Orange))]))
}

/// A line that is filled from the left.
fn bar(ratio: f64, style: Style) -> LineGauge<'static> {
    let ratio = if ratio.is_finite() { ratio.clamp(0.0, 1.0) } else { 0.0 };
    LineGauge::default().ratio(ratio).label("").filled_style(style).filled_symbol("█").unfilled_symbol("░")
}

#[cfg(test)]
mod tests;
