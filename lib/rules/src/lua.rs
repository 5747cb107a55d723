//! What do the two known forms of Lua statements say? Anything else in Lua is refused: there is no Lua here.

use crate::Fault;
use crate::expression::{Comparison, Expression, Operand, Value};
use crate::lex::{Lexer, Located, Style, Token};
use crate::parse::{MAX_RULES, MAX_TEXT, Parsed, action, is_label, resource, short, too_long};
use crate::set::Action;

const ADVICE: &str = "only  Rules = Rules + { label=if_then(\"custom.foo\",\"down\",Action.restart),_group=\"checker\" }  and  Rules.disable(\"label\")  \
     are understood; write anything else in the language  label: if (custom.foo == down) then restart();";

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    Add(Parsed),
    /// `Rules.disable("label")`, with the bytes of the label.
    Disable {
        label: String,
        start: usize,
        end: usize,
    },
}

/// Whether a text is to be read as Lua: its first line is the comment `--Lua Rules`.
pub fn is_lua(text: &str) -> bool {
    text.trim_start().strip_prefix("--").is_some_and(|rest| {
        let mut words = rest.lines().next().unwrap_or_default().split_whitespace();
        words.next().is_some_and(|w| w.eq_ignore_ascii_case("lua"))
            && words.next().is_none_or(|w| w.eq_ignore_ascii_case("rules"))
    })
}

/// All statements of a text, or the first that is not understood.
pub fn parse_lua(text: &str) -> Result<Vec<Statement>, Fault> {
    if text.len() > MAX_TEXT {
        return Err(too_long(text));
    }
    let mut reader = Reader { lexer: Lexer::new(text, Style::Lua) };
    let mut statements = Vec::new();
    loop {
        let next = reader.lexer.next(false)?;
        match &next.token {
            Token::End => return Ok(statements),
            Token::Sign(";") => continue,
            Token::Word(word) if word == "Rules" => reader.additions(&mut statements)?,
            Token::Word(word) if word == "Rules.disable" => {
                reader.sign("(")?;
                let (label, at) = reader.text()?;
                reader.sign(")")?;
                statements.push(Statement::Disable { label, start: at.start, end: at.end });
            }
            _ => return Err(refused(&next)),
        }
        if statements.len() > MAX_RULES {
            let message = format!("more than {MAX_RULES} rules");
            return Err(Fault { start: next.start, end: next.end, message, help: "remove some".to_owned() });
        }
    }
}

fn refused(at: &Located) -> Fault {
    Fault { start: at.start, end: at.end, message: "this Lua is not understood".to_owned(), help: ADVICE.to_owned() }
}

struct Reader<'a> {
    lexer: Lexer<'a>,
}

impl Reader<'_> {
    fn sign(&mut self, sign: &str) -> Result<(), Fault> {
        let next = self.lexer.next(false)?;
        if matches!(next.token, Token::Sign(s) if s == sign) { Ok(()) } else { Err(refused(&next)) }
    }

    fn text(&mut self) -> Result<(String, Located), Fault> {
        let next = self.lexer.next(false)?;
        match &next.token {
            Token::Text(text) => Ok((text.clone(), next)),
            _ => Err(refused(&next)),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        let next = self.lexer.next(false)?;
        if next.token == Token::Word(word.to_owned()) { Ok(()) } else { Err(refused(&next)) }
    }

    /// Behind `Rules`: `= Rules + { label=if_then(…), _group="…" }`.
    fn additions(&mut self, statements: &mut Vec<Statement>) -> Result<(), Fault> {
        self.sign("=")?;
        self.word("Rules")?;
        self.sign("+")?;
        self.sign("{")?;
        loop {
            let next = self.lexer.next(false)?;
            let name = match &next.token {
                Token::Sign("}") => return Ok(()),
                Token::Word(name) => name.clone(),
                _ => return Err(refused(&next)),
            };
            self.sign("=")?;
            if name == "_group" {
                // Groups only sort the rules in a display that is not here.
                self.text()?;
            } else if is_label(&name) {
                statements.push(Statement::Add(self.rule(name, &next)?));
                if statements.len() > MAX_RULES {
                    return Ok(());
                }
            } else {
                return Err(refused(&next));
            }
            let next = self.lexer.next(false)?;
            match next.token {
                Token::Sign("," | ";") => {}
                Token::Sign("}") => return Ok(()),
                _ => return Err(refused(&next)),
            }
        }
    }

    fn rule(&mut self, label: String, at: &Located) -> Result<Parsed, Fault> {
        self.word("if_then")?;
        self.sign("(")?;
        let (name, place) = self.text()?;
        let fault = |place: &Located, message: String, help: String| Fault {
            start: place.start,
            end: place.end,
            message,
            help,
        };
        let resource = resource(&name).map_err(|(message, help)| fault(&place, message, help))?;
        self.sign(",")?;
        let (state, place) = self.text()?;
        let value = Value::of(&state);
        if value == Value::Other {
            let message = format!("'{}' is no state", short(&state));
            return Err(fault(&place, message, "write init, down, up or unknown".to_owned()));
        }
        self.sign(",")?;
        let place = self.lexer.next(false)?;
        let action: Action = match &place.token {
            Token::Word(word) => word.strip_prefix("Action.").and_then(action),
            _ => None,
        }
        .ok_or_else(|| {
            let help = "write Action.stop, stopstart, wait, restart or swap".to_owned();
            fault(&place, "no action is named here".to_owned(), help)
        })?;
        self.sign(")")?;
        let condition = Expression::Compare(Comparison {
            left: Operand::Resource(resource),
            equal: true,
            right: Operand::Value(value),
        });
        Ok(Parsed { label, condition, action, start: at.start, end: at.end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood() {
        let text = "\n--Lua Rules\nRules = Rules + { my_rule=if_then(\"custom.foo\",\"down\",Action.restart),_group=\"checker\"}\n\
                    -- no more of this one\nRules.disable('ip_failure')\nRules = Rules + {a=if_then('tcp.?','up',Action.stop), b=if_then('ip.x','down',Action.swap),}";
        assert!(is_lua(text));
        let statements = parse_lua(text).unwrap();
        let written: Vec<String> = statements
            .iter()
            .map(|s| match s {
                Statement::Add(rule) => format!("{}: {} -> {}", rule.label, rule.condition, rule.action),
                Statement::Disable { label, start, end } => format!("{label} {}", &text[*start..*end]),
            })
            .collect();
        assert_eq!(
            written,
            [
                "my_rule: custom.foo == down -> restart()",
                "ip_failure 'ip_failure'",
                "a: tcp.? == up -> stop()",
                "b: ip.x == down -> swap()",
            ]
        );
    }

    #[test]
    fn anything_else_is_refused_at_its_place() {
        let cases = [
            ("print(1)", "print"),
            ("Rules = {}", "{"),
            ("Rules = Rules + { f=function() end }", "function"),
            ("Rules = Rules + { a=if_then(\"custom.foo\",\"down\",Action.reboot)}", "Action.reboot"),
            ("Rules = Rules + { a=if_then(\"custom.foo\",\"off\",Action.stop)}", "\"off\""),
            ("Rules = Rules + { a=if_then(\"foo\",\"down\",Action.stop)}", "\"foo\""),
            ("Rules = Rules + { a=if_then(\"custom.foo\"..x)}", "."),
            ("Rules.enable(\"x\")", "Rules.enable"),
            ("Rules.disable(x)", "x"),
            ("Rules.disable(\"x)", "\""),
        ];
        for (text, place) in cases {
            let fault = parse_lua(text).unwrap_err();
            assert_eq!(&text[fault.start..fault.end], place, "{text}: {fault:?}");
            assert!(!fault.help.is_empty(), "{text}");
        }
        assert!(!is_lua("a: if (tcp.x == down) then stop();"));
    }
}
