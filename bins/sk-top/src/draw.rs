//! How does the model look on a terminal? Pure: the same model gives the same frame.

use crate::app::App;
use crate::snapshot::{Light, Snapshot, data_light, light};
use crate::text;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, LineGauge, Paragraph, Row, Table, TableState};

const HELP: [&str; 12] = [
    "Up, Down (k, j)   choose a module",
    "s   start         t   stop: the peer takes over",
    "w   swap          r   restart: scripts only",
    "",
    "Each is asked back: y does it, any other key",
    "does not.",
    "",
    "Green: ready. Orange: changing. Red: stopped or",
    "blocked. (address): held by the peer or nobody.",
    "FROZEN: writes wait for the peer.",
    "",
    "?   this help     q   quit",
];

/// With or without colours (`NO_COLOR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    pub colour: bool,
}

impl Theme {
    fn style(self, light: Light) -> Style {
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
}

pub fn draw(frame: &mut Frame, app: &App, theme: Theme) {
    let area = frame.area();
    let rows = u16::try_from(app.modules.len()).unwrap_or(u16::MAX);
    // The table may take a third; the details and the log share the rest.
    let table = rows.saturating_add(1).clamp(2, (area.height / 3).max(2));
    let [title, modules, details, log, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(table),
        Constraint::Length(8),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(frame, app, title);
    draw_modules(frame, app, theme, modules);
    draw_details(frame, app, theme, details);
    draw_log(frame, app, theme, log);
    draw_keys(frame, app, theme, keys);
    if app.help {
        draw_help(frame, area);
    }
}

fn draw_title(frame: &mut Frame, app: &App, area: Rect) {
    let (here, _) = app.nodes();
    let count = match app.modules.len() {
        1 => "1 module".to_owned(),
        n => format!("{n} modules"),
    };
    let line = format!(" sk-top · {here} · {count}");
    frame.render_widget(Paragraph::new(line).style(Style::new().add_modifier(Modifier::REVERSED)), area);
}

fn draw_modules(frame: &mut Frame, app: &App, theme: Theme, area: Rect) {
    if app.modules.is_empty() {
        frame.render_widget(Paragraph::new(" no modules on this node"), area);
        return;
    }
    let (here, there) = app.nodes();
    let header = Row::new(["MODULE".to_owned(), here, there, "DATA".into(), "HEART".into(), "VIP".into()])
        .style(Style::new().add_modifier(Modifier::BOLD));
    let rows = app.modules.iter().map(|(name, module)| {
        let s = &module.snapshot;
        let state = |text: String| {
            let (name, readiness) = text.split_once(' ').unwrap_or((&text, ""));
            let style = theme.style(if module.trouble.is_some() { Light::Grey } else { light(name, readiness) });
            Cell::new(text.clone()).style(style)
        };
        let data = text::data(s);
        let data_style = theme.style(data_light(&data));
        Row::new([
            Cell::new(name.clone()),
            state(text::local(s)),
            state(text::remote(s)),
            Cell::new(data).style(data_style),
            Cell::new(text::heartbeats(s)).style(theme.style(heart_light(s))),
            Cell::new(text::vips(s)),
        ])
    });
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(16),
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Length(5),
        Constraint::Fill(4),
    ];
    let table = Table::new(rows, widths)
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

fn draw_details(frame: &mut Frame, app: &App, theme: Theme, area: Rect) {
    let Some(module) = app.selected_module() else { return };
    let s = &module.snapshot;
    let block = Block::new().borders(Borders::TOP).title(format!(" {} ", s.module));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [heart, vip, stream, resync, progress_words, children, note] =
        Layout::vertical([Constraint::Length(1); 7]).areas(inner);
    let up_down = |pairs: Vec<(&str, &str)>| {
        let mut spans = Vec::new();
        for (name, value) in pairs {
            let style = theme.style(if value == "up" { Light::Green } else { Light::Red });
            spans.extend([Span::raw(format!("{name} ")), Span::styled(value.to_owned(), style), Span::raw("  ")]);
        }
        if spans.is_empty() { vec![Span::raw("-")] } else { spans }
    };
    let labelled = |label: &str, spans: Vec<Span<'static>>| {
        [Span::raw(format!(" {label:<12}"))].into_iter().chain(spans).collect::<Line>()
    };
    let hearts = s.heartbeats.iter().map(|h| (h.ident.as_str(), h.value.as_str())).collect();
    frame.render_widget(labelled("Heartbeats", up_down(hearts)), heart);
    // An address that is down here is in order when the peer serves.
    let vips = text::vips(s);
    frame.render_widget(labelled("Virtual IP", vec![Span::raw(vips)]), vip);
    frame.render_widget(labelled("Replication", vec![Span::raw(text::replication(s))]), stream);
    match s.resync() {
        Some(progress) => {
            let [label, gauge] = Layout::horizontal([Constraint::Length(13), Constraint::Fill(1)]).areas(resync);
            frame.render_widget(Line::raw(" Resync"), label);
            frame.render_widget(labelled("", vec![Span::raw(progress.words())]), progress_words);
            if let Some(ratio) = progress.ratio() {
                let bar = LineGauge::default()
                    .ratio(ratio)
                    .label("")
                    .filled_style(theme.style(Light::Orange))
                    .filled_symbol("█")
                    .unfilled_symbol("░");
                frame.render_widget(bar, gauge);
            }
        }
        None => frame.render_widget(labelled("Resync", vec![Span::raw("-")]), resync),
    }
    let mut words: Vec<String> = Vec::new();
    for child in &s.children {
        let again = child.restarts.filter(|n| *n > 0).map_or(String::new(), |n| format!(" ({n} restarts)"));
        words.push(format!("{}{again}", child.name));
    }
    let text = if words.is_empty() { "-".to_owned() } else { words.join("  ") };
    frame.render_widget(labelled("Running", vec![Span::raw(text)]), children);
    let remark =
        module.trouble.clone().or_else(|| s.refused.clone()).or_else(|| s.rule.clone().map(|r| format!("rule {r}")));
    if let Some(remark) = remark {
        frame.render_widget(labelled("Note", vec![Span::styled(remark, theme.style(Light::Orange))]), note);
    }
}

fn draw_log(frame: &mut Frame, app: &App, theme: Theme, area: Rect) {
    let block = Block::new().borders(Borders::TOP).title(" log ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let Some(module) = app.selected_module() else { return };
    let fit = usize::from(inner.height);
    let lines: Vec<Line> = module
        .lines
        .iter()
        .skip(module.lines.len().saturating_sub(fit))
        .map(|line| {
            let (level, words) = text::log_line(line);
            let style = match level {
                "C" => theme.style(Light::Red),
                "U" => Style::new().add_modifier(Modifier::BOLD),
                _ => Style::new(),
            };
            Line::styled(format!(" {words}"), style)
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_keys(frame: &mut Frame, app: &App, theme: Theme, area: Rect) {
    let line = if let Some((module, verb)) = &app.question {
        Line::styled(format!(" {} {module}? y/n", verb.word()), theme.style(Light::Orange))
    } else if let Some((message, failed)) = &app.message {
        let style = if *failed { theme.style(Light::Red) } else { Style::new() };
        Line::styled(format!(" {message}"), style)
    } else {
        Line::raw(" s start  t stop  w swap  r restart  ? help  q quit")
    };
    frame.render_widget(line, area);
}

fn draw_help(frame: &mut Frame, area: Rect) {
    let width = 52.min(area.width);
    let height = 14.min(area.height);
    let window = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, window);
    let lines: Vec<Line> = HELP.iter().map(|l| Line::raw(format!(" {l}"))).collect();
    let block = Block::bordered().title(" help ").title_alignment(Alignment::Center);
    frame.render_widget(Paragraph::new(lines).block(block), window);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Update;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};
    use serde_json::json;

    fn app() -> App {
        let mut app = App::default();
        let replies = [
            json!({"module": "postgresql", "node": "node1", "peer": "node2", "state": "PRIM", "readiness": "Ready",
                "remote": {"state": "SECOND", "readiness": "Transient"}, "data": "uptodate",
                "heartbeats": [{"ident": "default", "value": "up"}, {"ident": "replication", "value": "down"}],
                "vip": [{"address": "10.0.0.50", "value": "up"}],
                "replica": {"peer": "syncing", "frozen": false, "out_bytes_s": 12_900_000, "in_bytes_s": 0, "lag_bytes": 4096,
                    "resync": {"phase": "copy", "files": 120, "files_total": 480, "bytes": 250_000_000, "bytes_total": 1_000_000_000,
                        "rate_bytes_s": 25_000_000, "left_s": 30}},
                "children": [{"name": "sk-heartbeat", "pid": 10, "restarts": 0}, {"name": "sk-errd", "pid": 11, "restarts": 2}]}),
            json!({"module": "files", "node": "node1", "peer": "node2", "state": "WAIT", "readiness": "NotReady",
                "remote": {"state": null}, "data": "not uptodate", "refused": "data are not up to date",
                "vip": [{"address": "10.0.0.51", "value": "down"}]}),
        ];
        for reply in replies {
            app.update(Update::Module(Box::new(Snapshot::read(reply).unwrap())));
        }
        app.update(Update::Module(Box::new(Snapshot::stopped("spare"))));
        for n in 0..30 {
            app.update(Update::Line {
                module: "postgresql".into(),
                line: format!("2026-11-20 10:00:{n:02}.000000 | heart | E | message {n}"),
            });
        }
        app.selected = Some("postgresql".into());
        app
    }

    fn frame(app: &App, width: u16, height: u16, colour: bool) -> (String, Buffer) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|f| draw(f, app, Theme { colour })).unwrap();
        let text = terminal.backend().to_string();
        (text, terminal.backend().buffer().clone())
    }

    /// Style of the first cell of a text on the screen.
    fn style_of(text: &str, app: &App, colour: bool) -> Style {
        let (_, buffer) = frame(app, 80, 24, colour);
        for y in 0..buffer.area.height {
            let row: String = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect();
            if let Some(at) = row.find(text) {
                let x = row[..at].chars().count() as u16;
                return buffer[(x, y)].style();
            }
        }
        panic!("{text} is not on the screen");
    }

    #[test]
    fn a_frame_of_80_by_24() {
        insta::assert_snapshot!(frame(&app(), 80, 24, true).0);
    }

    #[test]
    fn help_covers_the_frame() {
        let mut app = app();
        app.key(KeyEvent::from(KeyCode::Char('?')));
        insta::assert_snapshot!(frame(&app, 80, 24, true).0);
    }

    #[test]
    fn states_have_their_colours() {
        let app = app();
        for (text, colour) in [
            ("PRIM Ready", Color::Green),
            ("SECOND Transient", Color::Yellow),
            ("WAIT NotReady", Color::Red),
            ("STOP NotReady", Color::Red),
            ("UNKNOWN", Color::DarkGray),
            ("uptodate", Color::Green),
            ("1/2", Color::Yellow),
        ] {
            // `not uptodate` comes first on the screen, in the row of `files`.
            let text = if text == "uptodate" { "uptodate     1/2" } else { text };
            assert_eq!(style_of(text, &app, true).fg, Some(colour), "{text}");
        }
    }

    #[test]
    fn without_colours_trouble_is_underlined_and_nothing_is_coloured() {
        let app = app();
        let (_, buffer) = frame(&app, 80, 24, false);
        assert!(buffer.content.iter().all(|c| c.fg == Color::Reset && c.bg == Color::Reset));
        assert!(style_of("WAIT NotReady", &app, false).add_modifier.contains(Modifier::UNDERLINED));
        assert!(!style_of("PRIM Ready", &app, false).add_modifier.contains(Modifier::UNDERLINED));
    }

    #[test]
    fn the_question_stands_in_the_last_line() {
        let mut app = app();
        app.key(KeyEvent::from(KeyCode::Char('w')));
        let (text, _) = frame(&app, 80, 24, true);
        assert!(text.lines().last().unwrap().contains("swap postgresql? y/n"), "{text}");
    }

    #[test]
    fn no_size_makes_it_fail() {
        let mut app = app();
        for help in [false, true] {
            app.help = help;
            for (width, height) in [(1, 1), (10, 3), (40, 12), (80, 5), (300, 100)] {
                frame(&app, width, height, true);
                frame(&App::default(), width, height, true);
            }
        }
    }

    #[test]
    fn a_plain_frame_says_the_same() {
        insta::assert_snapshot!(text::frame(&app()).join("\n"));
    }
}
