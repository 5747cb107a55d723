//! Which words and signs does a text of rules hold, and at which bytes?

use crate::Fault;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Letters, digits and `_ . - % @`, and what stands in names of resources: `:` and a final `?` or `*` after a dot.
    Word(String),
    /// One of `( ) { } ! && || == != = ; : , +`.
    Sign(&'static str),
    /// Between quotes (Lua).
    Text(String),
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub token: Token,
    pub start: usize,
    pub end: usize,
}

/// Comments: `/* … */` of the rules, or `-- …` of Lua.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Rules,
    Lua,
}

pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    style: Style,
}

/// Longer signs first.
const SIGNS: [&str; 16] = ["&&", "||", "==", "!=", "(", ")", "{", "}", "!", "=", ";", ":", ",", "+", ".", "#"];

impl<'a> Lexer<'a> {
    pub const fn new(text: &'a str, style: Style) -> Self {
        Self { text, at: 0, style }
    }

    pub const fn at(&self) -> usize {
        self.at
    }

    /// Goes back to a place that was reported before.
    pub const fn back(&mut self, at: usize) {
        self.at = at;
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next token. `colon`: a word may hold colons (a name of a resource may be an IPv6 address; a label ends at one).
    pub fn next(&mut self, colon: bool) -> Result<Located, Fault> {
        self.skip()?;
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Located { token: Token::End, start, end: start });
        };
        if is_word(first) {
            let word = word(rest, colon);
            self.at += word.len();
            return Ok(Located { token: Token::Word(word.to_owned()), start, end: self.at });
        }
        if self.style == Style::Lua && matches!(first, '"' | '\'') {
            let inner = rest.get(1..).unwrap_or_default();
            let Some(length) = inner.find([first, '\n', '\\']).filter(|i| inner[*i..].starts_with(first)) else {
                return Err(fault(
                    start,
                    first.len_utf8(),
                    "a text without its closing quote",
                    "close it in the same line",
                ));
            };
            self.at += length + 2;
            return Ok(Located { token: Token::Text(inner[..length].to_owned()), start, end: self.at });
        }
        if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            self.at += sign.len();
            return Ok(Located { token: Token::Sign(sign), start, end: self.at });
        }
        let help = if matches!(first, '&' | '|') { "write && or ||" } else { "" };
        self.at += first.len_utf8();
        Err(fault(start, first.len_utf8(), &format!("'{}' has no meaning here", first.escape_default()), help))
    }

    fn skip(&mut self) -> Result<(), Fault> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let rest = self.rest();
            if self.style == Style::Lua && rest.starts_with("--") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if self.style == Style::Rules && rest.starts_with("/*") {
                let Some(end) = rest.find("*/") else {
                    let start = self.at;
                    self.at = self.text.len();
                    return Err(fault(start, 2, "a comment that never ends", "close it with */"));
                };
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }
}

fn fault(start: usize, length: usize, message: &str, help: &str) -> Fault {
    Fault { start, end: start + length, message: message.to_owned(), help: help.to_owned() }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(rest: &str, colon: bool) -> &str {
    let mut end = 0;
    let mut dotted = false;
    let mut before = '\0';
    for c in rest.chars() {
        let quantifier = before == '.' && matches!(c, '?' | '*');
        let part = is_word(c) || matches!(c, '.' | '-' | '%' | '@') || (colon && dotted && c == ':');
        if !(part || quantifier) {
            break;
        }
        end += c.len_utf8();
        if quantifier {
            break;
        }
        dotted |= c == '.';
        before = c;
    }
    rest.get(..end).unwrap_or_default()
}
