//! How does a farm look: who takes clients, and which share of each group is ours.

use super::{Theme, bar, heading, labelled, no_module, remark, replication, section, state_span};
use crate::app::App;
use crate::snapshot::{Farm, Light, Snapshot};
use crate::text;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

/// Rows of the overview, a bar each; of more groups, the number.
const ROWS_SHOWN: usize = 8;
/// With the rows of all nodes.
const ROWS_WITH_NODES: usize = 12;

/// Name, share and words of each row: the groups, and with `each` its nodes below each. Without them the row of a group is
/// this node's.
fn rows(farm: &Farm, each: bool) -> Vec<(String, Option<f64>, String)> {
    let rows = farm.groups.iter().flat_map(|group| {
        let each = each && !group.nodes.is_empty();
        let (share, words) = if each { (None, String::new()) } else { (group.share(), group.words()) };
        let nodes = group.by_node().filter(move |_| each);
        std::iter::once((group.group.clone(), share, words))
            .chain(nodes.map(|(node, share, words)| (format!("  {node}"), share, words)))
    });
    rows.collect()
}

/// Whether the overview has room for the nodes of all groups.
fn shows_nodes(farm: &Farm) -> bool {
    let nodes: usize = farm.groups.iter().map(|g| g.nodes.len()).sum();
    nodes > 0 && farm.groups.len() + nodes <= ROWS_WITH_NODES
}

/// Lines that the groups take in the overview.
pub(super) fn lines(farm: &Farm) -> u16 {
    let rows = rows(farm, shows_nodes(farm)).len();
    if rows > farm.groups.len() { rows as u16 } else { rows.clamp(1, ROWS_SHOWN) as u16 }
}

/// The page of a farm: who takes clients, our share of each group, and what came in over the last minutes.
pub(super) fn page(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let Some(module) = app.selected_module() else { return no_module(frame, area) };
    let s = &module.snapshot;
    let Some(farm) = &s.farm else { return };
    let inner = section(frame, theme, area, heading(s));
    let note = remark(theme, app);
    // Half of the page for the shares at most: the rest of them is reached by scrolling.
    let all = rows(farm, true);
    let groups = (all.len().max(1) as u16).min((inner.height / 2).max(1));
    let [state, nodes, vip, shares, graphs, notes] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(groups + 1),
        Constraint::Fill(1),
        Constraint::Length(u16::from(note.is_some())),
    ])
    .areas(inner);
    let mut words = vec![state_span(theme, text::local(s))];
    if let Some(generation) = farm.generation {
        words.push(Span::raw(format!("   view {generation}")));
    }
    frame.render_widget(labelled(if s.node.is_empty() { "State" } else { &s.node }, words), state);
    frame.render_widget(labelled("Nodes", nodes_spans(farm, theme)), nodes);
    frame.render_widget(labelled("Virtual IP", vec![Span::raw(text::vips(s))]), vip);
    let first = app.scroll.min(all.len().saturating_sub(usize::from(groups)));
    draw_rows(frame, all.get(first..).unwrap_or_default(), usize::from(groups), theme, shares);
    replication::draw_farm_graphs(frame, module, theme, graphs);
    if let Some(note) = note {
        frame.render_widget(note, notes);
    }
}

pub(super) fn draw(frame: &mut Frame, s: &Snapshot, farm: &Farm, theme: &Theme, area: Rect) {
    let [nodes, vip, groups] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(labelled("Nodes", nodes_spans(farm, theme)), nodes);
    frame.render_widget(labelled("Virtual IP", vec![Span::raw(text::vips(s))]), vip);
    draw_rows(frame, &rows(farm, shows_nodes(farm)), usize::from(lines(farm)), theme, groups);
}

fn nodes_spans(farm: &Farm, theme: &Theme) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    for node in &farm.members {
        let (word, light) = if farm.open.contains(node) { ("open", Light::Green) } else { ("closed", Light::Orange) };
        spans.extend([Span::raw(format!("{node} ")), Span::styled(word, theme.style(light)), Span::raw("  ")]);
    }
    if spans.is_empty() {
        spans.push(Span::raw("-"));
    }
    spans
}

/// At most `room` rows; of more, the number.
fn draw_rows(frame: &mut Frame, rows: &[(String, Option<f64>, String)], room: usize, theme: &Theme, area: Rect) {
    if rows.is_empty() {
        frame.render_widget(labelled("Shares", vec![Span::raw("-")]), area);
        return;
    }
    let places: Vec<Rect> = area.rows().collect();
    let shown = if rows.len() > room { room.saturating_sub(1) } else { rows.len() };
    let widest = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0).clamp(11, 24);
    for ((label, share, text), row) in rows.iter().take(shown).zip(places.iter()) {
        let [_, name, gauge, words] = Layout::horizontal([
            Constraint::Length(1),
            Constraint::Length(widest as u16 + 1),
            Constraint::Fill(1),
            Constraint::Length(46),
        ])
        .areas(*row);
        frame.render_widget(Line::raw(text::short(label, widest)), name);
        if let Some(share) = share {
            frame.render_widget(bar(*share, theme.style(Light::Green)), gauge);
        }
        frame.render_widget(Line::raw(format!(" {text}")), words);
    }
    if let (true, Some(row)) = (rows.len() > shown, places.get(shown)) {
        frame.render_widget(Line::raw(format!(" {} more", rows.len() - shown)), *row);
    }
}
