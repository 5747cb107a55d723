//! How does one module look: state, links, resources, and what each of them was?

use super::{Theme, children, heading, labelled, no_module, remark, section, state_span, up_down};
use crate::app::App;
use crate::snapshot::{Light, Resource, Snapshot, data_light, duration};
use crate::text;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

/// Lines of the summary without its title.
const SUMMARY: u16 = 5;

pub(super) fn draw(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let Some(module) = app.selected_module() else { return no_module(frame, area) };
    let s = &module.snapshot;
    let note = remark(theme, app);
    let [summary, rest] =
        Layout::vertical([Constraint::Length(SUMMARY + 1 + u16::from(note.is_some())), Constraint::Fill(1)])
            .areas(area);
    let inner = section(frame, theme, summary, heading(s));
    let lines: Vec<Line> = summary_lines(app, s, theme).into_iter().chain(note).collect();
    frame.render_widget(Paragraph::new(lines), inner);
    // Side by side where there is room, else one above the other.
    let [resources, history] = if area.width >= 110 {
        Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(rest)
    } else {
        Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(rest)
    };
    draw_resources(frame, app, s, theme, resources);
    draw_history(frame, app, theme, history);
}

fn summary_lines(app: &App, s: &Snapshot, theme: &Theme) -> Vec<Line<'static>> {
    let mut state = vec![state_span(theme, text::local(s))];
    if let Some(age) = text::age(&s.since, app.now_s) {
        state.push(Span::raw(format!(" for {}", duration(age))));
    }
    if let Some(peer) = &s.peer {
        state.push(Span::raw(format!("   {peer} ")));
        state.push(state_span(theme, text::remote(s)));
    }
    let data = text::data(s);
    let data_style = if s.farm.is_some() { Style::new() } else { theme.style(data_light(&data)) };
    let hearts = s.heartbeats.iter().map(|h| (h.ident.as_str(), h.value.as_str())).collect();
    let node = if s.node.is_empty() { "State" } else { s.node.as_str() };
    vec![
        labelled(node, state),
        labelled(if s.farm.is_some() { "Shares" } else { "Data" }, vec![Span::styled(data, data_style)]),
        labelled("Heartbeats", up_down(theme, hearts)),
        labelled("Virtual IP", vec![Span::raw(text::vips(s))]),
        children(s),
    ]
}

/// Of nearly all resources `up` is good; of this one, `down`.
fn value_light(name: &str, value: &str) -> Option<Light> {
    match value {
        "up" if name == "rfs.degraded" => Some(Light::Red),
        "down" if name == "rfs.degraded" => Some(Light::Green),
        "up" => Some(Light::Green),
        "down" => Some(Light::Red),
        "init" => Some(Light::Grey),
        _ => None,
    }
}

fn value_style(theme: &Theme, name: &str, value: &str) -> Style {
    value_light(name, value).map_or(Style::new(), |light| theme.style(light))
}

fn draw_resources(frame: &mut Frame, app: &App, s: &Snapshot, theme: &Theme, area: Rect) {
    let down = s.resources.iter().filter(|r| value_light(&r.name, &r.value) == Some(Light::Red)).count();
    let mut title = vec![Span::raw(format!(" {} resources ", s.resources.len()))];
    if down > 0 {
        title.push(Span::styled(format!("· {down} at fault "), theme.style(Light::Red)));
    }
    let inner = section(frame, theme, area, Line::from(title));
    if s.resources.is_empty() {
        let words = if s.state == "STOP" { " nothing is watched while the module is stopped" } else { " none" };
        return frame.render_widget(Line::styled(words, theme.faint()), inner);
    }
    let name = |r: &Resource| r.name.chars().count() as u16;
    let widest = s.resources.iter().map(name).max().unwrap_or(0).clamp(16, inner.width.saturating_sub(30).max(16));
    let rows = s.resources.iter().map(|r| {
        Row::new([
            Cell::new(r.name.clone()),
            Cell::new(r.value.clone()).style(value_style(theme, &r.name, &r.value)),
            Cell::new(text::moment(&r.t, app.now_s, &theme.zone)).style(theme.faint()),
            Cell::new(r.label.clone().unwrap_or_default()).style(theme.faint()),
        ])
    });
    let widths = [Constraint::Length(widest), Constraint::Length(16), Constraint::Length(10), Constraint::Fill(1)];
    let table = Table::new(rows, widths)
        .column_spacing(1)
        .highlight_symbol(">")
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
    let chosen = s.resources.iter().position(|r| Some(r.name.as_str()) == app.resource_name());
    frame.render_stateful_widget(table, inner, &mut TableState::new().with_selected(chosen));
}

fn draw_history(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let Some(name) = app.resource_name() else { return };
    let inner = section(frame, theme, area, Line::raw(format!(" history of {name} ")));
    let Some(past) = app.past() else {
        return frame.render_widget(Line::styled(" …", theme.faint()), inner);
    };
    if past.is_empty() {
        return frame.render_widget(Line::styled(" nothing is kept of it", theme.faint()), inner);
    }
    // The newest first: it is what one looks for.
    let lines: Vec<Line> = past
        .iter()
        .rev()
        .take(usize::from(inner.height))
        .map(|entry| {
            Line::from(vec![
                Span::styled(format!(" {:<19}  ", text::moment(&entry.t, 0, &theme.zone)), theme.faint()),
                Span::styled(entry.value.clone(), value_style(theme, name, &entry.value)),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}
