//! How does the replication of a module go: now, in the last minutes, and how long will the copy take?

use super::{Theme, bar, heading, no_module, section, state_span};
use crate::app::{App, Module, Sample};
use crate::snapshot::{Light, Replica, Snapshot, brief, bytes};
use crate::text;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, Wrap};

/// Words of a figure over time, how it is shown, and where it is.
struct Graph {
    title: &'static str,
    now: String,
    show: fn(f64) -> String,
    figure: fn(&Sample) -> u64,
}

pub(super) fn page(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let Some(module) = app.selected_module() else { return no_module(frame, area) };
    let s = &module.snapshot;
    let inner = section(frame, theme, area, heading(s));
    let Some(replica) = &s.replica else {
        let words = match (s.mode.as_deref(), s.state.as_str()) {
            (Some("farm" | "light"), _) => " this module replicates nothing",
            (_, "STOP") => " nothing is replicated while the module is stopped",
            _ => " this module replicates nothing, or its replication does not run",
        };
        return frame.render_widget(Line::styled(words, theme.faint()), inner);
    };
    let resync = if s.resync().is_some() { 3 } else { 0 };
    let [pair, copy, graphs] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(resync), Constraint::Fill(1)]).areas(inner);
    frame.render_widget(Paragraph::new(vec![ends(s, replica, theme), standing(s, replica, theme)]), pair);
    draw_resync(frame, s, theme, copy);
    draw_graphs(frame, module, replica, theme, graphs);
}

/// ` node1 PRIM Ready ──▶ node2 SECOND Ready`
fn ends(s: &Snapshot, replica: &Replica, theme: &Theme) -> Line<'static> {
    let here = [Span::styled(format!(" {} ", s.node), bold()), state_span(theme, text::local(s))];
    let peer = s.peer.clone().unwrap_or_else(|| "?".to_owned());
    let there = [Span::styled(format!(" {peer} "), bold()), state_span(theme, text::remote(s))];
    let receives = s.state == "SECOND";
    let (stream, light) = match replica.peer.as_deref() {
        Some("in_sync") => (if receives { " ◀── in sync ── " } else { " ── in sync ──▶ " }, Light::Green),
        Some("syncing") => (if receives { " ◀── copying ── " } else { " ── copying ──▶ " }, Light::Orange),
        Some("lost") => (" ──   lost   ── ", Light::Red),
        _ => (" ──   none   ── ", Light::Grey),
    };
    let arrow = [Span::styled(stream, theme.style(light))];
    here.into_iter().chain(arrow).chain(there).collect()
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn standing(s: &Snapshot, replica: &Replica, theme: &Theme) -> Line<'static> {
    let mut spans = vec![Span::raw(format!(" data {}", text::data(s)))];
    if let Some(standing) = &s.standing {
        spans.push(Span::raw(format!(" · {standing}")));
    }
    if let Some(position) = replica.position {
        spans.push(Span::raw(format!(" · position {position:.0}")));
    }
    if replica.frozen == Some(true) {
        spans.push(Span::styled(" · FROZEN: writes wait for a decision", theme.style(Light::Red)));
    }
    Line::from(spans)
}

fn draw_resync(frame: &mut Frame, s: &Snapshot, theme: &Theme, area: Rect) {
    let Some(progress) = s.resync() else { return };
    let [gap, gauge, words] = Layout::vertical([Constraint::Length(1); 3]).areas(area);
    frame.render_widget(Line::styled(" resynchronisation", bold()), gap);
    let gauge = Layout::horizontal([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).split(gauge);
    if let (Some(ratio), Some(area)) = (progress.ratio(), gauge.get(1)) {
        frame.render_widget(bar(ratio, theme.style(Light::Orange)), *area);
    }
    frame.render_widget(Paragraph::new(format!(" {}", progress.words())).wrap(Wrap { trim: false }), words);
}

fn draw_graphs(frame: &mut Frame, module: &Module, replica: &Replica, theme: &Theme, area: Rect) {
    let rate = |figure: Option<f64>| format!("{}/s", bytes(figure.unwrap_or(0.0)));
    let ack = match (replica.ack_us, replica.ack_worst_us) {
        (Some(mean), Some(worst)) => format!("{}, worst {}", brief(mean), brief(worst)),
        (Some(mean), None) => brief(mean),
        (None, _) => "-".to_owned(),
    };
    let graphs = [
        Graph {
            title: "sent",
            now: rate(replica.out_bytes_s),
            show: |n| format!("{}/s", bytes(n)),
            figure: |s| s.sent,
        },
        Graph { title: "acknowledged after", now: ack, show: brief, figure: |s| s.ack_us },
        Graph {
            title: "not acknowledged",
            now: bytes(replica.lag_bytes.unwrap_or(0.0)),
            show: bytes,
            figure: |s| s.lag,
        },
        Graph {
            title: "received",
            now: rate(replica.in_bytes_s),
            show: |n| format!("{}/s", bytes(n)),
            figure: |s| s.received,
        },
    ];
    draw_all(frame, module, &graphs, theme, area);
}

/// One above the other, two beside each other where there is room; those that do not fit are left out.
fn draw_all(frame: &mut Frame, module: &Module, graphs: &[Graph], theme: &Theme, area: Rect) {
    let columns: u16 = if area.width >= 120 { 2 } else { 1 };
    let lines = (graphs.len() as u16).div_ceil(columns);
    // A line of words, and at least one of the curve.
    let fit = (area.height / 2).min(lines);
    if fit == 0 {
        return;
    }
    let rows = Layout::vertical(vec![Constraint::Fill(1); usize::from(fit)]).split(area);
    let mut graphs = graphs.iter();
    for row in rows.iter() {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); usize::from(columns)]).split(*row);
        for cell in cells.iter() {
            if let Some(graph) = graphs.next() {
                draw_graph(frame, module, graph, theme, *cell);
            }
        }
    }
}

fn draw_graph(frame: &mut Frame, module: &Module, graph: &Graph, theme: &Theme, area: Rect) {
    let [words, curve] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let [_, curve, _] =
        Layout::horizontal([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(curve);
    let values = module.samples.last(usize::from(curve.width), graph.figure);
    let peak = values.iter().copied().max().unwrap_or(0);
    let mut spans = vec![Span::styled(format!(" {:<19}", graph.title), bold()), Span::raw(graph.now.clone())];
    if peak > 0 {
        let peak = format!("   at most {} in {} s", (graph.show)(peak as f64), curve.width);
        spans.push(Span::styled(peak, theme.faint()));
    }
    frame.render_widget(Line::from(spans), words);
    // Without a maximum of its own an empty curve would be drawn full.
    frame.render_widget(Sparkline::default().data(values).max(peak.max(1)).style(theme.graph()), curve);
}

/// New connections and bytes of a farm, drawn in the same way.
pub(super) fn draw_farm_graphs(frame: &mut Frame, module: &Module, theme: &Theme, area: Rect) {
    let newest = module.samples.last(1, |s| s.connections).first().copied().unwrap_or(0);
    let volume = module.samples.last(1, |s| s.accepted).first().copied().unwrap_or(0);
    let graphs = [
        Graph {
            title: "new connections",
            now: format!("{newest}/s"),
            show: |n| format!("{n:.0}/s"),
            figure: |s| s.connections,
        },
        Graph {
            title: "accepted",
            now: format!("{}/s", bytes(volume as f64)),
            show: |n| format!("{}/s", bytes(n)),
            figure: |s| s.accepted,
        },
    ];
    draw_all(frame, module, &graphs, theme, area);
}
