//! How do the lines of the logs look?

use super::{Theme, no_module, section};
use crate::app::App;
use crate::snapshot::Light;
use crate::text;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// The end of the selected module's log, below the overview.
pub(super) fn newest(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let inner = section(frame, theme, area, Line::raw(" log "));
    let Some(module) = app.selected_module() else { return };
    let mut lines: Vec<Line> = module
        .lines
        .iter()
        .rev()
        .filter(|line| text::is_shown(line))
        .take(usize::from(inner.height))
        .map(|line| {
            let (level, words) = text::log_line(line);
            Line::styled(format!(" {words}"), theme.level(level))
        })
        .collect();
    lines.reverse();
    frame.render_widget(Paragraph::new(lines), inner);
}

pub(super) fn page(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let Some(selected) = &app.selected else { return no_module(frame, area) };
    let height = usize::from(area.height.saturating_sub(1));
    let lines = app.log_lines(height);
    let inner = section(frame, theme, area, title(app, theme, selected));
    if lines.is_empty() {
        let words = if app.log.filter.is_empty() { " nothing is logged yet" } else { " no line has these words" };
        return frame.render_widget(Line::styled(words, theme.faint()), inner);
    }
    let widest = app.modules.keys().map(|m| m.chars().count()).max().unwrap_or(0).min(16);
    let lines: Vec<Line> = lines
        .iter()
        .map(|line| {
            let style = theme.level(line.level);
            let mut spans = vec![Span::raw(" ")];
            let mut rest = line.words.as_str();
            if app.log.all_modules {
                let (time, words) = rest.split_once(' ').unwrap_or(("", rest));
                spans.push(Span::styled(format!("{time} "), style));
                spans.push(Span::styled(format!("{:<widest$} ", line.module), theme.faint()));
                rest = words;
            }
            spans.extend(marked(rest, &app.log.filter, style));
            Line::from(spans)
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

fn title(app: &App, theme: &Theme, selected: &str) -> Line<'static> {
    let log = &app.log;
    let whose = if log.all_modules { "all modules".to_owned() } else { selected.to_owned() };
    let mut spans = vec![Span::raw(" log of "), Span::styled(whose, Style::new().add_modifier(Modifier::BOLD))];
    spans.push(Span::raw(if log.all_levels { " · all levels " } else { " " }));
    if log.editing || !log.filter.is_empty() {
        let cursor = if log.editing { "▏" } else { "" };
        spans.push(Span::styled(format!("· /{}{cursor} ", log.filter), theme.style(Light::Orange)));
    }
    if log.back > 0 {
        spans.push(Span::styled(format!("· {} newer lines below ", log.back), theme.style(Light::Orange)));
    } else {
        spans.push(Span::raw("· follows "));
    }
    Line::from(spans)
}

/// The words of the filter stand out.
fn marked(line: &str, filter: &str, style: Style) -> Vec<Span<'static>> {
    let plain = |text: &str| Span::styled(text.to_owned(), style);
    // Lower case may have another length in some scripts: then nothing is marked.
    let lower = line.to_lowercase();
    let needle = filter.to_lowercase();
    if needle.is_empty() || lower.len() != line.len() {
        return vec![plain(line)];
    }
    let mut spans = Vec::new();
    let mut begin = 0;
    while let Some(at) = lower.get(begin..).and_then(|rest| rest.find(&needle)) {
        let (from, to) = (begin + at, begin + at + needle.len());
        let (Some(before), Some(found)) = (line.get(begin..from), line.get(from..to)) else { return vec![plain(line)] };
        spans.push(plain(before));
        spans.push(Span::styled(found.to_owned(), style.add_modifier(Modifier::REVERSED)));
        begin = to;
    }
    spans.extend(line.get(begin..).map(plain));
    spans
}
