//! Which typographic quotes delimit attribute values, and how does the text read with straight ones?
//!
//! Web pages turn `"` into `“` and `”`. Each such quote takes three bytes; a straight quote padded with two blanks takes its
//! place (outside of the value), so every byte offset of the mended text is one of the original.

use crate::diagnostic::Span;

const OPEN: &str = "  \"";
const CLOSE: &str = "\"  ";

/// The mended text, as long as the original, and where an attribute value with typographic quotes stands.
pub(crate) struct Mended {
    pub text: String,
    pub values: Vec<Span>,
}

pub(crate) fn typographic(c: char) -> bool {
    matches!(
        c,
        '\u{201c}'
            | '\u{201d}'
            | '\u{201e}'
            | '\u{201f}'
            | '\u{2033}'
            | '\u{2036}'
            | '\u{2018}'
            | '\u{2019}'
            | '\u{201a}'
    )
}

#[derive(Clone, Copy)]
enum Place {
    Text,
    /// Inside a tag; `after_equal`: a value is due.
    Tag {
        after_equal: bool,
    },
    Straight(char),
    Typographic {
        start: usize,
    },
}

pub(crate) fn mend(text: &str) -> Mended {
    let mut out = String::with_capacity(text.len());
    let mut values = Vec::new();
    let mut place = Place::Text;
    let mut rest = text;
    // A byte order mark says nothing in UTF-8.
    if let Some(r) = rest.strip_prefix('\u{feff}') {
        out.push_str("   ");
        rest = r;
    }
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match place {
            Place::Text => {
                let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">")]
                    .iter()
                    .find(|(open, _)| rest.starts_with(open));
                if let Some((open, close)) = skipped {
                    taken = rest
                        .get(open.len()..)
                        .and_then(|r| r.find(close))
                        .map_or(rest.len(), |i| open.len() + i + close.len());
                } else if c == '<' {
                    place = Place::Tag { after_equal: false };
                }
                out.push_str(rest.get(..taken).unwrap_or_default());
            }
            Place::Tag { after_equal } => {
                let mut shown = c;
                let mut curly = false;
                place = match c {
                    '>' => Place::Text,
                    '=' => Place::Tag { after_equal: true },
                    '"' | '\'' => Place::Straight(c),
                    // A no-break space between attributes comes from web pages too; it is two bytes long.
                    '\u{a0}' => {
                        shown = ' ';
                        place
                    }
                    _ if after_equal && typographic(c) => {
                        curly = true;
                        Place::Typographic { start: out.len() }
                    }
                    _ if c.is_whitespace() => place,
                    _ => Place::Tag { after_equal: false },
                };
                if curly {
                    out.push_str(OPEN);
                } else if c == '\u{a0}' {
                    out.push_str("  ");
                } else {
                    out.push(shown);
                }
            }
            Place::Straight(quote) => {
                if c == quote {
                    place = Place::Tag { after_equal: false };
                }
                out.push(c);
            }
            Place::Typographic { start } => {
                if typographic(c) {
                    out.push_str(CLOSE);
                    values.push(Span { start, end: out.len() });
                    place = Place::Tag { after_equal: false };
                } else {
                    out.push(c);
                    if c == '"' {
                        values.push(Span { start, end: out.len() });
                        place = Place::Tag { after_equal: false };
                    }
                }
            }
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    Mended { text: out, values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn typographic_quotes_become_straight_and_offsets_stay() {
        let original = "<a b=“x y” c='“kept”' d = ″z″/> “text”";
        let m = mend(original);
        assert_eq!(m.text, "<a b=  \"x y\"   c='“kept”' d =   \"z\"  /> “text”");
        assert_eq!(m.text.find("x y"), original.find("x y"));
        assert_eq!(m.values.len(), 2);
    }

    #[test]
    fn comments_are_left_alone() {
        let text = "<!-- <a b=“x”> --><a/>";
        assert_eq!(mend(text).text, text);
    }

    proptest! {
        #[test]
        fn length_never_changes(text in "[<>=\"'“”„″a !\\-\\?\u{a0}\u{feff}é]{0,60}") {
            let m = mend(&text);
            prop_assert_eq!(m.text.len(), text.len());
            // Whoever finds a character boundary in one text finds one in the other, except inside a replaced quote.
            for v in m.values {
                prop_assert!(text.is_char_boundary(v.start) && text.is_char_boundary(v.end));
            }
        }
    }
}
