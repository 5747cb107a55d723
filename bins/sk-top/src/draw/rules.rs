//! Which failover rules are there, which of them hold, and why is the module as it is?

use super::{Theme, heading, no_module, section};
use crate::app::App;
use crate::snapshot::{Light, Rule};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

pub(super) fn draw(frame: &mut Frame, app: &App, theme: &Theme, area: Rect) {
    let Some(module) = app.selected_module() else { return no_module(frame, area) };
    let Some((rules, why)) = app.rules() else {
        let inner = section(frame, theme, area, heading(&module.snapshot));
        return frame.render_widget(Line::styled(" …", theme.faint()), inner);
    };
    let height = (rules.len() as u16).saturating_add(1).clamp(2, (area.height / 2).max(2));
    let [top, bottom] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    let inner = section(frame, theme, top, heading(&module.snapshot));
    draw_rules(frame, app, rules, theme, inner);
    let inner = section(frame, theme, bottom, Line::raw(" why "));
    // Scrolled together: the rules first, then the reasons.
    let hidden = rules.len().saturating_sub(usize::from(height) - 1);
    let first = app.scroll.saturating_sub(hidden).min(why.len().saturating_sub(1));
    let lines: Vec<Line> = why.iter().skip(first).map(|line| Line::raw(format!(" {line}"))).collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inner);
}

fn draw_rules(frame: &mut Frame, app: &App, rules: &[Rule], theme: &Theme, area: Rect) {
    if rules.is_empty() {
        return frame.render_widget(Line::styled(" the module has no failover rules", theme.faint()), area);
    }
    let widest = rules.iter().map(|r| r.label.chars().count()).max().unwrap_or(0).clamp(8, 28);
    let first = app.scroll.min(rules.len().saturating_sub(usize::from(area.height)));
    for (rule, row) in rules.iter().skip(first).zip(area.rows()) {
        let (word, light) = match rule.truth {
            Some(true) if rule.acting => ("acting", Light::Red),
            Some(true) => ("true", Light::Orange),
            Some(false) => ("false", Light::Grey),
            None => ("waiting", Light::Grey),
        };
        let mut spans = vec![
            Span::raw(format!(" {:<widest$} ", rule.label)),
            Span::styled(format!("{word:<8}"), theme.style(light)),
            Span::raw(format!("{:<10} ", rule.action)),
            Span::styled(rule.condition.clone(), theme.faint()),
        ];
        if !rule.waits_for.is_empty() {
            spans.push(Span::raw(format!("  (not reported yet: {})", rule.waits_for.join(", "))));
        }
        frame.render_widget(Line::from(spans), row);
    }
}
