//! What is wrong in a configuration file, where, and how to mend it?

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Longest piece of the user's text repeated inside a message, in characters.
const QUOTED: usize = 60;

/// More errors, or more warnings, than this in one file help nobody.
const MOST: usize = 200;

/// Bytes `start..end` of a source text. Always on character boundaries, `start <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// A place remembered beside a value. Two values are the same wherever they stand, so places compare equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct At(pub Span);

impl PartialEq for At {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for At {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing of the file may be applied.
    Error,
    /// The file can be applied; something in it is old, useless or doubtful.
    Warning,
}

/// A file as it was read.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub name: Arc<str>,
    pub text: Arc<str>,
}

impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Source {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, counted in characters.
    pub column: usize,
    pub span: Span,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Everything found in one file.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    source: Source,
    items: Vec<Diagnostic>,
    /// Errors beyond [`MOST`], not kept.
    unlisted: usize,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: error: message`, and the help on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.severity, self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The nearest span that lies inside the text and on character boundaries.
    fn clamp(&self, span: Span) -> Span {
        let floor = |mut at: usize| {
            at = at.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start);
        Span { start, end: floor(span.end).max(start) }
    }

    /// Line and column, both from 1, of a byte offset.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let at = self.clamp(Span { start: offset, end: offset });
        let before = self.text.get(..at.start).unwrap_or_default();
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

impl Diagnostics {
    pub fn new(source: Source) -> Self {
        Self { source, items: Vec::new(), unlisted: 0 }
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, span, message.into(), help.into());
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Warning, span, message.into(), help.into());
    }

    fn push(&mut self, severity: Severity, span: Span, message: String, help: String) {
        // Counted apart: warnings must not displace errors.
        if self.items.iter().filter(|d| d.severity == severity).count() >= MOST {
            self.unlisted += usize::from(severity == Severity::Error);
            return;
        }
        let span = self.source.clamp(span);
        let (line, column) = self.source.position(span.start);
        let item = Diagnostic {
            severity,
            file: self.source.name.to_string(),
            line,
            column,
            span,
            message,
            help: (!help.is_empty()).then_some(help),
        };
        if !self.items.contains(&item) {
            self.items.push(item);
        }
    }

    /// Adds what was found in the same file by another step.
    pub fn append(&mut self, other: Self) {
        for item in other.items {
            if !self.items.contains(&item) {
                self.items.push(item);
            }
        }
        self.unlisted += other.unlisted;
    }

    /// Puts them in the order of the file.
    pub(crate) fn sort(&mut self) {
        self.items.sort_by_key(|d| (d.span.start, d.span.end));
    }

    pub(crate) fn line_of(&self, span: Span) -> usize {
        self.source.position(span.start).0
    }

    pub fn has_errors(&self) -> bool {
        self.unlisted > 0 || self.items.iter().any(|d| d.severity == Severity::Error)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// Plain text, for logs and pipes: `file:line:col: error: message`.
    pub fn plain(&self) -> String {
        let mut out = String::new();
        for d in &self.items {
            out.push_str(&d.to_string());
            out.push('\n');
        }
        out.push_str(&self.remainder());
        out
    }

    fn remainder(&self) -> String {
        match self.unlisted {
            0 => String::new(),
            n => format!("{}: {n} more errors are not listed\n", self.source.name),
        }
    }

    /// One JSON object a line.
    pub fn json_lines(&self) -> String {
        self.items.iter().filter_map(|d| serde_json::to_string(d).ok()).map(|line| line + "\n").collect()
    }

    /// With the lines of the file and carets, for a terminal.
    pub fn report(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for d in &self.items {
            let level = match d.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            // Only the lines concerned are handed over: the renderer would otherwise look through the whole file each time.
            let (line_start, piece, range) = self.excerpt(d.span);
            let snippet = Snippet::source(piece)
                .path(d.file.as_str())
                .line_start(line_start)
                .annotation(AnnotationKind::Primary.span(range));
            let mut group: Group<'_> = level.primary_title(visible(&d.message)).element(snippet);
            if let Some(help) = &d.help {
                group = group.element(Level::HELP.message(visible(help)));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out.push_str(&self.remainder());
        out
    }

    fn excerpt(&self, span: Span) -> (usize, &str, Range<usize>) {
        let text: &str = &self.source.text;
        let from = text.get(..span.start).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        // A span over many lines (an element never closed) is shown by its first line.
        let to = text.get(span.start..).and_then(|t| t.find('\n')).map_or(text.len(), |i| span.start + i);
        let line = self.source.position(span.start).0;
        let end = span.end.min(to).max(span.start);
        (line, text.get(from..to).unwrap_or_default(), span.start - from..end - from)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Control characters of a file must not reach a terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A piece of the user's text, safe and short enough to stand in a message.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(QUOTED).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("'{}{dots}'", visible(&short))
}
