//! Which elements and attributes does an XML text hold, and at which bytes? The only user of quick-xml.
//!
//! quick-xml's reader is lenient; what XML 1.0 forbids and it lets pass is refused here, and so is everything a configuration
//! file does not need: document types with content, entities, processing of anything but elements and attributes.

use crate::diagnostic::{Diagnostics, Span, quoted};
use crate::quotes;
use quick_xml::events::attributes::AttrError;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Error, Reader};

/// Deepest nesting of elements.
pub(crate) const DEPTH: usize = 64;
/// Longest file, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub name: String,
    pub name_span: Span,
    pub value: String,
    /// What stands between the quotes.
    pub span: Span,
    /// Its macros could not be expanded; the error is reported, the value means nothing.
    pub broken: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub name: String,
    /// The start tag.
    pub span: Span,
    pub attributes: Vec<Attribute>,
    pub children: Vec<Node>,
    /// Text between the tags, of the elements that may hold some.
    pub words: Vec<Words>,
}

/// One piece of text, or one CDATA section without its brackets.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub text: String,
    pub span: Span,
    /// Macros were expanded in it: places inside of it are no longer those of the file.
    pub moved: bool,
}

/// Elements whose text is a language of its own.
const WITH_WORDS: [&str; 1] = ["failover"];

/// All elements at the top of the text: a well-formed file has one. `None` when the text cannot be followed to its end;
/// some error is then in `found`.
pub(crate) fn parse(text: &str, found: &mut Diagnostics) -> Option<Vec<Node>> {
    if text.len() > MAX_FILE {
        let all = Span::default();
        let message = format!("the file has {} bytes, more than {MAX_FILE}", text.len());
        found.error(all, message, "a configuration file is a few kilobytes of XML");
        return None;
    }
    if let Some((at, c)) = text.char_indices().find(|(_, c)| forbidden(*c)) {
        let span = Span { start: at, end: at + c.len_utf8() };
        let message = format!("character U+{:04X} is not allowed in XML", c as u32);
        found.error(span, message, "remove it; the file may be binary or in another encoding than UTF-8");
        return None;
    }
    let mended = quotes::mend(text);
    typographic(text, &mended.values, found);
    Builder { text: &mended.text, found, stack: Vec::new(), roots: Vec::new() }.run()
}

/// One warning a line that has such quotes, with the line as it should be.
fn typographic(text: &str, values: &[Span], found: &mut Diagnostics) {
    let mut values = values.iter().peekable();
    while let Some(first) = values.next() {
        let line_start = text.get(..first.start).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        let line_end = text.get(first.end..).and_then(|t| t.find('\n')).map_or(text.len(), |i| first.end + i);
        let mut corrected = String::new();
        let mut at = line_start;
        let mut next = Some(first);
        while let Some(value) = next {
            let inner = text.get(value.start..value.end).unwrap_or_default();
            let inner = inner.strip_prefix(quotes::typographic).unwrap_or(inner);
            let inner = inner.strip_suffix(|c| quotes::typographic(c) || c == '"').unwrap_or(inner);
            corrected.push_str(text.get(at..value.start).unwrap_or_default());
            corrected.push('"');
            corrected.push_str(inner);
            corrected.push('"');
            at = value.end;
            next = values.next_if(|v| v.end <= line_end);
        }
        corrected.push_str(text.get(at..line_end).unwrap_or_default());
        let shown: String = corrected.trim().chars().take(300).collect();
        found.warning(*first, "typographic quotes around attribute values", format!("write {shown}"));
    }
}

fn forbidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{80}'..='\u{9f}')) || matches!(c, '\u{fffe}' | '\u{ffff}')
}

struct Builder<'a, 'd> {
    text: &'a str,
    found: &'d mut Diagnostics,
    stack: Vec<Node>,
    roots: Vec<Node>,
}

impl<'a> Builder<'a, '_> {
    fn run(mut self) -> Option<Vec<Node>> {
        let mut reader = Reader::from_str(self.text);
        let config = reader.config_mut();
        // Both are checked here, with the place of the start tag.
        config.allow_unmatched_ends = true;
        config.check_end_names = false;
        config.allow_dangling_amp = true;
        config.check_comments = false;
        loop {
            let start = reader.buffer_position() as usize;
            let event = reader.read_event();
            let span = Span { start, end: reader.buffer_position() as usize };
            match event {
                Err(error) => {
                    self.syntax(span, &error);
                    return None;
                }
                Ok(Event::Eof) => break,
                Ok(Event::Start(tag)) => {
                    let node = self.element(&tag, span);
                    self.stack.push(node);
                    if self.stack.len() > DEPTH {
                        let message = format!("elements are nested more than {DEPTH} deep");
                        self.found.error(span, message, "");
                        return None;
                    }
                }
                Ok(Event::Empty(tag)) => {
                    let node = self.element(&tag, span);
                    self.add(node);
                }
                Ok(Event::End(tag)) => {
                    let name: &str = tag.name().0;
                    match self.stack.pop() {
                        Some(node) if node.name == name => self.add(node),
                        Some(node) => {
                            let message = format!(
                                "</{name}> stands where </{}> is expected (opened in line {})",
                                node.name,
                                self.found.line_of(node.span)
                            );
                            let help = format!("close <{}> first, or write <{} …/>", node.name, node.name);
                            self.found.error(span, message, help);
                            return None;
                        }
                        None => {
                            let message = format!("</{name}> closes an element that was not opened");
                            self.found.error(span, message, "remove it");
                            return None;
                        }
                    }
                }
                Ok(Event::Text(words)) => self.words(&words, span),
                Ok(Event::CData(section)) => {
                    let text: &str = &section;
                    let start = span.start + "<![CDATA[".len();
                    if !self.keep(text, Span { start, end: start + text.len() }) {
                        self.found.error(span, "text between elements", "values are written as attributes");
                    }
                }
                Ok(Event::GeneralRef(_)) => {
                    let help = if self.may_hold_words() {
                        "put the rules into <![CDATA[ … ]]>, where & stands for itself"
                    } else {
                        "values are written as attributes"
                    };
                    self.found.error(span, "text between elements", help);
                }
                Ok(Event::DocType(content)) => self.doctype(&content, span),
                Ok(Event::Decl(declaration)) => self.declaration(&declaration, span),
                Ok(Event::Comment(_) | Event::PI(_)) => {}
            }
        }
        for node in &self.stack {
            let message = format!("<{}> is never closed", node.name);
            let help = format!("add </{}>", node.name);
            self.found.error(node.span, message, help);
        }
        if !self.stack.is_empty() {
            return None;
        }
        if self.roots.is_empty() {
            let help = "the file must hold one element, <safe> for a module or <cluster> for a cluster";
            self.found.error(Span::default(), "no element in the file", help);
            return None;
        }
        Some(self.roots)
    }

    fn may_hold_words(&self) -> bool {
        self.stack.last().is_some_and(|n| WITH_WORDS.contains(&n.name.as_str()))
    }

    /// Keeps a text that its element may hold; whether it may.
    fn keep(&mut self, text: &str, span: Span) -> bool {
        if !self.may_hold_words() {
            return false;
        }
        if let Some(node) = self.stack.last_mut() {
            node.words.push(Words { text: text.to_owned(), span, moved: false });
        }
        true
    }

    fn add(&mut self, node: Node) {
        match self.stack.last_mut() {
            Some(parent) => parent.children.push(node),
            None => self.roots.push(node),
        }
    }

    fn syntax(&mut self, span: Span, error: &Error) {
        let rest = self.text.get(span.start..).unwrap_or_default();
        // quick-xml has consumed everything to the end of the text: point at the start of what it could not read.
        let here = Span { start: span.start, end: span.start + rest.find(['\n', '>']).map_or(rest.len(), |i| i + 1) };
        let (message, help) = match error {
            Error::Syntax(what) => (
                format!("not well-formed XML: {what}"),
                if rest.starts_with("<!\u{2013}") || rest.starts_with("<!\u{2014}") {
                    "a comment begins with <!-- and ends with -->, written with plain hyphens"
                } else {
                    "look for a missing quote, > or --> from here on"
                },
            ),
            other => (format!("not well-formed XML: {other}"), "look for a missing quote, > or --> from here on"),
        };
        self.found.error(here, message, help);
    }

    fn words(&mut self, words: &str, span: Span) {
        let trimmed = words.trim();
        if trimmed.is_empty() {
            return;
        }
        if self.keep(words, span) {
            return;
        }
        let lead = words.len() - words.trim_start().len();
        let span = Span { start: span.start + lead, end: span.start + lead + trimmed.len() };
        let message = format!("text {} between elements", quoted(trimmed));
        self.found.error(span, message, "values are written as attributes; comments as <!-- … -->");
    }

    fn doctype(&mut self, content: &str, span: Span) {
        if content.contains('[') {
            let help = "write <!DOCTYPE safe> or nothing; use <macro> for text that repeats";
            self.found.error(span, "a document type with declarations is refused", help);
        } else if content.split_whitespace().count() > 1 {
            let help = "write <!DOCTYPE safe> or nothing";
            self.found.error(span, "an external document type is refused", help);
        }
    }

    fn declaration(&mut self, declaration: &str, span: Span) {
        let lower = declaration.to_ascii_lowercase();
        let Some(at) = lower.find("encoding") else {
            return;
        };
        let value = lower.get(at..).and_then(|t| t.split(['"', '\'']).nth(1)).unwrap_or_default();
        if !matches!(value, "utf-8" | "utf8" | "us-ascii") {
            let message = format!("encoding {} is not supported", quoted(value));
            self.found.error(span, message, "save the file as UTF-8 and say so, or leave the encoding out");
        }
    }

    fn element(&mut self, tag: &BytesStart<'a>, span: Span) -> Node {
        // `<` stands before the tag's own bytes.
        let base = span.start + 1;
        let inner: &str = tag;
        let offset_of = |part: &str| {
            let at = (part.as_ptr() as usize).wrapping_sub(inner.as_ptr() as usize);
            Span { start: base + at, end: base + at + part.len() }
        };
        let name = tag.name().0.to_owned();
        self.check_name(&name, span);
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            match attribute {
                Ok(a) => {
                    let name_span = offset_of(a.key.0);
                    let raw: &str = &a.value;
                    let span = offset_of(raw);
                    self.check_name(a.key.0, name_span);
                    let value = self.value(raw, span);
                    attributes.push(Attribute { name: a.key.0.to_owned(), name_span, value, span, broken: false });
                }
                Err(error) => {
                    let (at, message, help) = describe(&error);
                    let start = base + at;
                    self.found.error(Span { start, end: start + 1 }, message, help);
                }
            }
        }
        Node { name, span, attributes, children: Vec::new(), words: Vec::new() }
    }

    fn check_name(&mut self, name: &str, span: Span) {
        let good = name
            .chars()
            .enumerate()
            .all(|(i, c)| c.is_alphabetic() || "_:".contains(c) || (i > 0 && (c.is_numeric() || "-.".contains(c))));
        if !good || name.is_empty() {
            let message = format!("{} is not a name", quoted(name));
            self.found.error(span, message, "look for a missing blank or quote before it");
        }
    }

    /// The value meant: references resolved, line ends and tabulators as blanks.
    fn value(&mut self, raw: &str, span: Span) -> String {
        let mut out = String::with_capacity(raw.len());
        let mut at = 0;
        while let Some(c) = raw.get(at..).and_then(|r| r.chars().next()) {
            let here = Span { start: span.start + at, end: span.start + at + c.len_utf8() };
            match c {
                '<' => {
                    let help = "write &lt; for it, or look for a quote that is missing before it";
                    self.found.error(here, "raw '<' inside an attribute value", help);
                }
                '\n' | '\r' | '\t' => out.push(' '),
                '&' => {
                    let rest = raw.get(at + 1..).unwrap_or_default();
                    let name = rest.split(';').next().unwrap_or_default();
                    match (name.len() < rest.len()).then(|| resolve(name)).flatten() {
                        Some(c) => {
                            out.push(c);
                            at += name.len() + 2;
                            continue;
                        }
                        None => self.found.error(
                            here,
                            "'&' does not begin a known reference",
                            "write &amp; for the character itself; only &amp; &lt; &gt; &quot; &apos; and &#number; are known",
                        ),
                    }
                }
                c => out.push(c),
            }
            at += c.len_utf8();
        }
        out
    }
}

fn resolve(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok()?,
                None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok()?,
                _ => return None,
            };
            return char::from_u32(code).filter(|c| !forbidden(*c));
        }
    })
}

fn describe(error: &AttrError) -> (usize, &'static str, &'static str) {
    match error {
        AttrError::ExpectedEq(at) => {
            (*at, "'=' and a value are missing after an attribute's name", "write name=\"value\"")
        }
        AttrError::ExpectedValue(at) => (*at, "the value of an attribute is missing", "write name=\"value\""),
        AttrError::UnquotedValue(at) => (*at, "the value of an attribute has no quotes", "write name=\"value\""),
        AttrError::ExpectedQuote(at, _) => {
            (*at, "the closing quote of an attribute is missing", "write name=\"value\"")
        }
        AttrError::Duplicated(at, _) => (*at, "the attribute stands twice in this element", "keep one of them"),
    }
}
