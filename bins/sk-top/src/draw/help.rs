//! What do keys, colours and words mean?

use super::{Theme, section};
use crate::app::App;
use crate::snapshot::Light;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

const KEYS: [(&str, &str); 12] = [
    ("1 … 5, tab", "the pages; enter: from the overview to a module; esc: back"),
    ("↑ ↓, k j", "choose a module or a resource, scroll"),
    ("← →, [ ]", "the module before, the next one"),
    ("s  t", "start the module; stop it: the peer takes over"),
    ("w  r", "swap primary and secondary; run the scripts again (restart)"),
    ("", "each is asked back: y does it, any other key does not"),
    ("/", "on the page Log: only lines with these words"),
    ("a  m  f", "there: all levels, all modules, follow the newest line"),
    ("PgUp PgDn", "scroll by ten; home, end (g, G): to the ends"),
    ("?  q", "this help; quit"),
    ("mouse", "with sk-top --mouse: click on pages and modules, wheel"),
    ("", ""),
];

pub(super) fn draw(frame: &mut Frame, _: &App, theme: &Theme, area: Rect) {
    let inner = section(frame, theme, area, Line::raw(" help "));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines: Vec<Line> = KEYS
        .iter()
        .map(|(key, words)| Line::from(vec![Span::styled(format!(" {key:<11} "), bold), Span::raw(*words)]))
        .collect();
    let coloured = |light, word: &'static str| Span::styled(word, theme.style(light));
    lines.push(Line::from(vec![
        Span::raw(" "),
        coloured(Light::Green, "ready"),
        Span::raw("   "),
        coloured(Light::Orange, "changing"),
        Span::raw("   "),
        coloured(Light::Red, "stopped, or waits for something"),
        Span::raw("   "),
        coloured(Light::Grey, "not known"),
    ]));
    lines.extend(
        [
            " (address)   held by the other node, or by nobody",
            " ALONE       serves without a second copy; PRIM: with one",
            " FROZEN      writes wait until it is decided which node goes on",
            " 2 of 3 open nodes of a farm that take clients, of those heard",
        ]
        .map(Line::raw),
    );
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inner);
}
