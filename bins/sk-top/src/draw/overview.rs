//! How do all modules and nodes look at a glance?

use super::{Theme, bar, children, farm, heading, labelled, remark, section, up_down};
use crate::app::App;
use crate::snapshot::{Light, Snapshot, data_light, light};
use crate::text;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use std::collections::BTreeMap;

pub(super) fn draw(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    if app.modules.is_empty() {
        return empty(frame, area);
    }
    let [modules, nodes, details, log] = layout(app, area);
    draw_modules(frame, app, theme, modules);
    draw_nodes(frame, app, theme, nodes);
    draw_details(frame, app, theme, details);
    super::log::newest(frame, app, theme, log);
}

fn layout(app: &App, area: Rect) -> [Rect; 4] {
    let rows = u16::try_from(app.modules.len()).unwrap_or(u16::MAX);
    let details = details_height(app);
    let nodes = app.node_names().len() as u16 + 1;
    // The table may take a third, or more where the rest has room enough.
    let room = area.height.saturating_sub(details + nodes + 6).max(area.height / 3).max(2);
    let table = rows.saturating_add(1).clamp(2, room);
    // Nodes only where they leave some lines of the log.
    let nodes = if area.height >= table + details + nodes + 6 { nodes } else { 0 };
    Layout::vertical([
        Constraint::Length(table),
        Constraint::Length(nodes),
        Constraint::Length(details),
        Constraint::Min(0),
    ])
    .areas(area)
}

/// Which module, by its place in the list, is drawn in this row of the screen.
pub(super) fn module_at(app: &App, area: Rect, row: u16) -> Option<usize> {
    let [table, ..] = layout(app, area);
    let line = usize::from(row.checked_sub(table.y + 1)?);
    let visible = usize::from(table.height.saturating_sub(1));
    if line >= visible {
        return None;
    }
    // As the table scrolls: just so far that the selected module can be seen.
    let first = app.selected_position().unwrap_or(0).saturating_sub(visible.saturating_sub(1));
    Some(first + line).filter(|place| *place < app.modules.len())
}

fn empty(frame: &mut Frame, area: Rect) {
    let words = [
        "",
        " no modules on this node",
        "",
        " Take a template, edit it, apply it:",
        "   cp -r /opt/sk/templates/mirror /etc/sk/modules/AM",
        "   sk-module config -m AM",
        " It appears here by itself. The tutorial: docs/tutorial.md.",
    ];
    frame.render_widget(Paragraph::new(words.map(Line::raw).to_vec()), area);
}

fn draw_modules(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let (here, there) = app.nodes();
    let longest = app.modules.keys().map(|m| m.chars().count()).max().unwrap_or(0);
    // What a narrow terminal has no room for is left out, the least important first.
    let kept = match area.width {
        0..48 => 2,
        48..62 => 4,
        62..74 => 5,
        _ => 6,
    };
    let others = [0, 0, 17, 34, 47, 53, 73].get(kept).copied().unwrap_or(0);
    let widest = (longest as u16).clamp(11, area.width.saturating_sub(others + 1).clamp(11, 40));
    let header: Vec<String> = ["MODULE", &here, &there, "DATA", "HEART", "VIP"]
        .into_iter()
        .zip([widest, 16, 16, 12, 5, 40])
        .map(|(title, width)| text::short(title, usize::from(width)))
        .take(kept)
        .collect();
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = app.modules.iter().map(|(name, module)| {
        let s = &module.snapshot;
        let state = |text: String| {
            let (name, readiness) = text.split_once(' ').unwrap_or((&text, ""));
            let style = theme.style(if module.trouble.is_some() { Light::Grey } else { light(name, readiness) });
            Cell::new(text.clone()).style(style)
        };
        let data = text::data(s);
        let data_style = theme.style(data_light(&data));
        let cells = [
            Cell::new(text::short(name, usize::from(widest))),
            state(text::local(s)),
            state(text::remote(s)),
            Cell::new(data).style(data_style),
            Cell::new(text::heartbeats(s)).style(theme.style(heart_light(s))),
            Cell::new(text::vips(s)),
        ];
        Row::new(cells.into_iter().take(kept))
    });
    let widths = [
        Constraint::Length(widest),
        Constraint::Length(16),
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Length(5),
        Constraint::Fill(1),
    ];
    let table = Table::new(rows, widths.into_iter().take(kept))
        .header(header)
        .column_spacing(1)
        .highlight_symbol(">")
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
    let mut state = TableState::new().with_selected(app.selected_position());
    frame.render_stateful_widget(table, area, &mut state);
}

fn heart_light(s: &Snapshot) -> Light {
    let up = s.heartbeats.iter().filter(|h| h.value == "up").count();
    match (up, s.heartbeats.len()) {
        (_, 0) => Light::Grey,
        (0, _) => Light::Red,
        (up, all) if up == all => Light::Green,
        _ => Light::Orange,
    }
}

/// Each node with its modules by state: where is what, and who is silent.
fn draw_nodes(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let inner = section(frame, theme, area, Line::raw(" nodes "));
    let widest = app.node_names().iter().map(|n| n.chars().count()).max().unwrap_or(0).clamp(11, 24);
    for (node, row) in app.node_names().iter().zip(inner.rows()) {
        let mut spans = vec![Span::raw(format!(" {node:<widest$}  "))];
        for (state, count) in states_on(app, node) {
            let (name, readiness) = state.split_once(' ').unwrap_or((&state, ""));
            spans.push(Span::styled(format!("{count} {state}"), theme.style(light(name, readiness))));
            spans.push(Span::raw("   "));
        }
        frame.render_widget(Line::from(spans), row);
    }
}

/// How many modules are in which state on a node, as far as it is known here.
fn states_on(app: &App, node: &str) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for module in app.modules.values() {
        let s = &module.snapshot;
        let state = if s.node == node || s.node.is_empty() && app.nodes().0 == node {
            text::local(s)
        } else if s.peer.as_deref() == Some(node) {
            text::remote(s)
        } else if let Some(farm) = s.farm.as_ref().filter(|f| f.members.iter().any(|m| m == node)) {
            if farm.open.iter().any(|m| m == node) { "UP Ready".into() } else { "UP Transient".into() }
        } else {
            continue;
        };
        *states.entry(state).or_default() += 1;
    }
    states
}

/// A farm needs a line for each group, within reason.
fn details_height(app: &App) -> u16 {
    match app.selected_module().and_then(|m| m.snapshot.farm.as_ref()) {
        Some(farm) => 5 + farm::lines(farm),
        None => 8,
    }
}

fn draw_details(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let Some(module) = app.selected_module() else { return };
    let s = &module.snapshot;
    let inner = section(frame, theme, area, heading(s));
    let [parts, running, note] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(1), Constraint::Length(1)]).areas(inner);
    match &s.farm {
        Some(part) => farm::draw(frame, s, part, theme, parts),
        None => draw_mirror(frame, s, theme, parts),
    }
    frame.render_widget(children(s), running);
    if let Some(remark) = remark(theme, app) {
        frame.render_widget(remark, note);
    }
}

fn draw_mirror(frame: &mut Frame, s: &Snapshot, theme: &Theme, area: Rect) {
    let [heart, vip, stream, resync, progress_words] = Layout::vertical([Constraint::Length(1); 5]).areas(area);
    let hearts = s.heartbeats.iter().map(|h| (h.ident.as_str(), h.value.as_str())).collect();
    frame.render_widget(labelled("Heartbeats", up_down(theme, hearts)), heart);
    // An address that is down here is in order when the peer serves.
    frame.render_widget(labelled("Virtual IP", vec![Span::raw(text::vips(s))]), vip);
    frame.render_widget(labelled("Replication", vec![Span::raw(text::replication(s))]), stream);
    match s.resync() {
        Some(progress) => {
            let [label, gauge] = Layout::horizontal([Constraint::Length(13), Constraint::Fill(1)]).areas(resync);
            frame.render_widget(Line::raw(" Resync"), label);
            frame.render_widget(labelled("", vec![Span::raw(progress.words())]), progress_words);
            if let Some(ratio) = progress.ratio() {
                frame.render_widget(bar(ratio, theme.style(Light::Orange)), gauge);
            }
        }
        None => frame.render_widget(labelled("Resync", vec![Span::raw("-")]), resync),
    }
}
