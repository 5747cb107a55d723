//! What do the rules `label: if (condition) then action();` of a text say, and what is wrong in them?

use crate::Fault;
use crate::expression::{Comparison, Expression, Id, Operand, Resource, Scope, Value};
use crate::lex::{Lexer, Located, Style, Token};
use crate::set::Action;

/// Longest text of rules, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;
/// Most rules in one text.
pub const MAX_RULES: usize = 500;
/// Deepest nesting of parentheses and negations.
pub const MAX_DEPTH: usize = 32;
/// Most comparisons in one rule.
const MAX_COMPARISONS: usize = 64;
/// What `Expression` writes nests deeper than what was read, by its own parentheses.
const WRITTEN_DEPTH: usize = 2 * MAX_DEPTH + 2 * MAX_COMPARISONS;
/// Most faults told of one text.
const MAX_FAULTS: usize = 20;
/// Longest label or name of a resource.
const MAX_NAME: usize = 128;

/// Classes of resources that can be tested.
const CLASSES: [&str; 11] =
    ["ping", "intf", "tcp", "ip", "custom", "splitbrain", "module", "heartbeat", "heartbeatlocaladdr", "rfs", "proc"];
const ACTIONS: &str = "stop(), stopstart(), wait(), restart(), swap(), or custom.NAME = up";

/// A rule with its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub label: String,
    pub condition: Expression,
    pub action: Action,
    /// Bytes of the label.
    pub start: usize,
    pub end: usize,
}

/// All rules of a text, or everything that is wrong in it.
pub fn parse(text: &str) -> Result<Vec<Parsed>, Vec<Fault>> {
    if text.len() > MAX_TEXT {
        return Err(vec![too_long(text)]);
    }
    let mut parser = Parser::new(text, MAX_DEPTH);
    let mut rules = Vec::new();
    let mut faults = Vec::new();
    loop {
        match parser.rule() {
            Ok(Some(rule)) if rules.len() < MAX_RULES => rules.push(rule),
            Ok(Some(rule)) => {
                let message = format!("more than {MAX_RULES} rules");
                faults.push(Fault { start: rule.start, end: rule.end, message, help: "remove some".to_owned() });
                break;
            }
            Ok(None) => break,
            Err(fault) => {
                faults.push(fault);
                if faults.len() >= MAX_FAULTS || !parser.skip_rule() {
                    break;
                }
            }
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// One condition alone.
pub(crate) fn condition(text: &str) -> Result<Expression, String> {
    if text.len() > MAX_TEXT {
        return Err("the condition is too long".to_owned());
    }
    let mut parser = Parser::new(text, WRITTEN_DEPTH);
    let whole = parser.any().and_then(Typed::condition).and_then(|condition| {
        let next = parser.next(true)?;
        match next.token {
            Token::End => Ok(condition),
            _ => Err(fault(&next, "the condition ends before this", "")),
        }
    });
    whole.map_err(|f| f.message)
}

/// `class.id`, with `local.` or `remote.` in front. The error says what is wrong with it.
pub(crate) fn resource(word: &str) -> Result<Resource, (String, String)> {
    let (scope, name) = match word.split_once('.') {
        Some(("local", name)) => (Scope::Local, name),
        Some(("remote", name)) => (Scope::Remote, name),
        _ => (Scope::Local, word),
    };
    let Some((class, id)) = name.split_once('.') else {
        return Err((
            format!("'{}' is neither a resource nor a state", short(word)),
            "a resource is written class.id, a state init, down, up or unknown".to_owned(),
        ));
    };
    if !CLASSES.contains(&class) {
        let help = format!("classes: {}", CLASSES.join(", "));
        return Err((format!("there is no class '{}' of resources", short(class)), help));
    }
    if id.is_empty() || id.len() > MAX_NAME {
        return Err((format!("'{}' has no id", short(word)), "write for instance tcp.web, tcp.? or tcp.*".to_owned()));
    }
    let id = match id {
        "?" => Id::Any,
        "*" => Id::All,
        name if name.contains(['?', '*']) => {
            let help = "? and * stand for the whole id: at least one, all of the class".to_owned();
            return Err((format!("'{}' is no id", short(name)), help));
        }
        name => Id::Name(name.to_owned()),
    };
    Ok(Resource { scope, class: class.to_owned(), id })
}

/// The action of this name.
pub(crate) fn action(word: &str) -> Option<Action> {
    Some(match word {
        "stop" => Action::Stop,
        "stopstart" => Action::StopStart,
        "wait" => Action::Wait,
        "restart" => Action::Restart,
        "swap" => Action::Swap,
        _ => return None,
    })
}

/// Whether a word can be the label of a rule.
pub(crate) fn is_label(word: &str) -> bool {
    word.len() <= MAX_NAME && !word.contains(['?', '*']) && word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

pub(crate) fn short(word: &str) -> String {
    let mut text: String = word.chars().take(60).collect();
    if text.len() < word.len() {
        text.push('…');
    }
    text
}

pub(crate) fn too_long(text: &str) -> Fault {
    let message = format!("the rules have {} bytes, more than {MAX_TEXT}", text.len());
    Fault { start: 0, end: 0, message, help: "remove some".to_owned() }
}

fn fault(at: &Located, message: impl Into<String>, help: &str) -> Fault {
    Fault { start: at.start, end: at.end, message: message.into(), help: help.to_owned() }
}

fn said(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("'{}'", short(word)),
        Token::Text(text) => format!("\"{}\"", short(text)),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::End => "the end of the rules".to_owned(),
    }
}

/// What stands before or behind an operator, with its place.
enum Typed {
    Value(Operand, Located),
    Condition(Expression, Located),
}

impl Typed {
    fn place(&self) -> &Located {
        match self {
            Self::Value(_, at) | Self::Condition(_, at) => at,
        }
    }

    fn condition(self) -> Result<Expression, Fault> {
        match self {
            Self::Condition(condition, _) => Ok(condition),
            Self::Value(operand, at) => {
                let message = format!("'{}' is no condition by itself", short(&operand.to_string()));
                Err(fault(&at, message, "compare it: tcp.web == down"))
            }
        }
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    depth: usize,
    max_depth: usize,
    comparisons: usize,
}

type Parse<T> = Result<T, Fault>;

impl<'a> Parser<'a> {
    const fn new(text: &'a str, max_depth: usize) -> Self {
        Self { lexer: Lexer::new(text, Style::Rules), depth: 0, max_depth, comparisons: 0 }
    }

    fn next(&mut self, colon: bool) -> Parse<Located> {
        self.lexer.next(colon)
    }

    /// Takes the sign if it is the next token.
    fn eat(&mut self, sign: &str) -> Parse<Option<Located>> {
        let at = self.lexer.at();
        let next = self.next(true)?;
        if matches!(next.token, Token::Sign(s) if s == sign) {
            return Ok(Some(next));
        }
        self.lexer.back(at);
        Ok(None)
    }

    fn expect(&mut self, sign: &str, why: &str) -> Parse<Located> {
        let next = self.next(true)?;
        match next.token {
            Token::Sign(s) if s == sign => Ok(next),
            ref other => Err(fault(&next, format!("'{sign}' is expected here, not {}", said(other)), why)),
        }
    }

    fn keyword(&mut self, word: &str) -> Parse<()> {
        let next = self.next(true)?;
        match &next.token {
            Token::Word(w) if w == word => Ok(()),
            other => {
                let help = "a rule is written: label: if (tcp.web == down) then restart();";
                Err(fault(&next, format!("'{word}' is expected here, not {}", said(other)), help))
            }
        }
    }

    fn rule(&mut self) -> Parse<Option<Parsed>> {
        (self.depth, self.comparisons) = (0, 0);
        let label = self.next(false)?;
        let name = match &label.token {
            Token::End => return Ok(None),
            Token::Word(word) if is_label(word) => word.clone(),
            other => {
                let help = "a rule begins with its label and a colon";
                return Err(fault(&label, format!("{} cannot be the label of a rule", said(other)), help));
            }
        };
        self.expect(":", "a rule begins with its label and a colon")?;
        self.keyword("if")?;
        self.expect("(", "the condition stands in parentheses")?;
        let condition = self.any()?.condition()?;
        self.expect(")", "close the condition, or join its parts with && or ||")?;
        self.keyword("then")?;
        let action = self.action()?;
        self.expect(";", "a rule ends with a semicolon")?;
        Ok(Some(Parsed { label: name, condition, action, start: label.start, end: label.end }))
    }

    fn action(&mut self) -> Parse<Action> {
        let next = self.next(true)?;
        let Token::Word(word) = &next.token else {
            return Err(fault(&next, format!("{} is no action", said(&next.token)), &format!("actions: {ACTIONS}")));
        };
        if let Some(action) = action(word) {
            self.expect("(", "an action is written with empty parentheses")?;
            self.expect(")", "an action is written with empty parentheses")?;
            return Ok(action);
        }
        if !word.contains('.') {
            let message = format!("'{}' is no action", short(word));
            return Err(fault(&next, message, &format!("actions: {ACTIONS}")));
        }
        let target = resource(word).map_err(|(message, help)| fault(&next, message, &help))?;
        let name = match target {
            Resource { scope: Scope::Local, class, id: Id::Name(id) } if class == "custom" => id,
            other => {
                let help =
                    "only resources custom.NAME of this node can be assigned; the others are what their checkers see";
                return Err(fault(&next, format!("'{other}' cannot be assigned by a rule"), help));
            }
        };
        self.expect("=", "an assignment is written custom.NAME = up")?;
        let next = self.next(true)?;
        match &next.token {
            Token::Word(word) if word == "up" => Ok(Action::Assign { id: name, up: true }),
            Token::Word(word) if word == "down" => Ok(Action::Assign { id: name, up: false }),
            other => Err(fault(&next, format!("{} cannot be assigned", said(other)), "write up or down")),
        }
    }

    /// Goes behind the next semicolon; whether there is one.
    fn skip_rule(&mut self) -> bool {
        loop {
            match self.lexer.next(true) {
                Ok(Located { token: Token::End, .. }) => return false,
                Ok(Located { token: Token::Sign(";"), .. }) => return true,
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn any(&mut self) -> Parse<Typed> {
        let mut left = self.all()?;
        while self.eat("||")?.is_some() {
            let at = left.place().clone();
            let right = self.all()?.condition()?;
            left = Typed::Condition(Expression::Or(Box::new(left.condition()?), Box::new(right)), at);
        }
        Ok(left)
    }

    fn all(&mut self) -> Parse<Typed> {
        let mut left = self.equality()?;
        while self.eat("&&")?.is_some() {
            let at = left.place().clone();
            let right = self.equality()?.condition()?;
            left = Typed::Condition(Expression::And(Box::new(left.condition()?), Box::new(right)), at);
        }
        Ok(left)
    }

    fn equality(&mut self) -> Parse<Typed> {
        let mut left = self.unary()?;
        loop {
            if let Some(sign) = self.eat("=")? {
                return Err(fault(&sign, "'=' stands where a comparison is expected", "a comparison is written =="));
            }
            let (equal, sign) = match (self.eat("==")?, self.eat("!=")?) {
                (Some(sign), _) => (true, sign),
                (_, Some(sign)) => (false, sign),
                (None, None) => return Ok(left),
            };
            let right = self.unary()?;
            left = self.join(left, equal, right, &sign)?;
        }
    }

    fn join(&mut self, left: Typed, equal: bool, right: Typed, sign: &Located) -> Parse<Typed> {
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            let message = format!("more than {MAX_COMPARISONS} comparisons in one rule");
            return Err(fault(sign, message, "divide it into several rules"));
        }
        match (left, right) {
            (Typed::Value(left, at), Typed::Value(right, _)) => {
                comparable(&left, &right).map_err(|(message, help)| fault(sign, message, help))?;
                Ok(Typed::Condition(Expression::Compare(Comparison { left, equal, right }), at))
            }
            (Typed::Condition(left, at), Typed::Condition(right, _)) => {
                let same = Expression::Same { left: Box::new(left), equal, right: Box::new(right) };
                Ok(Typed::Condition(same, at))
            }
            _ => Err(fault(
                sign,
                "a resource or state is compared with a condition",
                "as in C, ! binds tighter than ==, and == tighter than && and ||: use parentheses",
            )),
        }
    }

    fn deeper(&mut self, at: &Located) -> Parse<()> {
        self.depth += 1;
        if self.depth > self.max_depth {
            return Err(fault(at, format!("nested more than {} deep", self.max_depth), "divide it into several rules"));
        }
        Ok(())
    }

    fn unary(&mut self) -> Parse<Typed> {
        let next = self.next(true)?;
        match &next.token {
            Token::Sign("!") => {
                self.deeper(&next)?;
                let inner = self.unary()?;
                self.depth -= 1;
                let condition = match inner {
                    Typed::Condition(condition, _) => condition,
                    Typed::Value(..) => {
                        let help = "as in C, ! binds tighter than ==: write !(tcp.web == down), or tcp.web != down";
                        return Err(fault(&next, "'!' stands before something that is no condition", help));
                    }
                };
                Ok(Typed::Condition(Expression::Not(Box::new(condition)), next))
            }
            Token::Sign("(") => {
                self.deeper(&next)?;
                let inner = self.any()?;
                self.expect(")", "close the parenthesis, or join the parts with && or ||")?;
                self.depth -= 1;
                Ok(inner)
            }
            Token::Word(word) if word == "cluster" => {
                self.expect("(", "it is written cluster()")?;
                self.expect(")", "it is written cluster()")?;
                Ok(Typed::Value(Operand::Cluster, next))
            }
            Token::Word(word) => {
                let value = Value::of(word);
                let operand = if value == Value::Other {
                    Operand::Resource(resource(word).map_err(|(message, help)| fault(&next, message, &help))?)
                } else {
                    Operand::Value(value)
                };
                Ok(Typed::Value(operand, next))
            }
            other => {
                Err(fault(&next, format!("a resource is expected here, not {}", said(other)), "for instance tcp.web"))
            }
        }
    }
}

fn comparable(left: &Operand, right: &Operand) -> Result<(), (&'static str, &'static str)> {
    let many = |side: &Operand| matches!(side, Operand::Resource(Resource { id: Id::Any | Id::All, .. }));
    match (left, right) {
        (Operand::Value(_), Operand::Value(_)) => Err(("two states are compared", "compare a resource with a state")),
        _ if many(left) && many(right) => {
            Err(("both sides stand for several resources", "compare ? and * with a state or with one resource"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_every_layout() {
        let text = "/* all of them */ allip_failure: if (ip.* == down) then stopstart();\n c_x\n:\n  if(custom.x==down)then\n wait ( ) ;\
                    v6:if(ip.fd00::1 == down && remote.custom.a-b_c%1 != up) then custom.seen = down;/**/";
        let rules = parse(text).unwrap();
        let written: Vec<_> = rules.iter().map(|r| format!("{}: {} -> {}", r.label, r.condition, r.action)).collect();
        assert_eq!(
            written,
            [
                "allip_failure: ip.* == down -> stopstart()",
                "c_x: custom.x == down -> wait()",
                "v6: ip.fd00::1 == down && remote.custom.a-b_c%1 != up -> custom.seen = down",
            ]
        );
        assert_eq!(&text[rules[1].start..rules[1].end], "c_x");
        assert!(parse(" /* nothing */ ").unwrap().is_empty());
    }

    #[test]
    fn faults_name_the_place_and_the_mending() {
        let cases = [
            ("a: if (tcp.x == down) then restart()", "", "';' is expected here, not the end of the rules"),
            ("a if (tcp.x == down) then restart();", "if", "':' is expected"),
            ("a: if tcp.x == down then restart();", "tcp.x", "'(' is expected"),
            ("a: if (tcp.x) then restart();", "tcp.x", "'tcp.x' is no condition by itself"),
            ("a: if (!tcp.x == down) then restart();", "!", "'!' stands before something that is no condition"),
            ("a: if (tcp.x == down & tcp.y == down) then stop();", "&", "'&' has no meaning here"),
            ("a: if (tcp.x = down) then stop();", "=", "'=' stands where a comparison"),
            ("a: if (tcp.x == off) then stop();", "off", "'off' is neither a resource nor a state"),
            ("a: if (disk.x == down) then stop();", "disk.x", "there is no class 'disk'"),
            ("a: if (tcp.x? == down) then stop();", "?", "'?' has no meaning here"),
            ("a: if (tcp. == down) then stop();", "tcp.", "'tcp.' has no id"),
            ("a: if (tcp.? == ip.?) then stop();", "==", "both sides stand for several"),
            ("a: if (up == down) then stop();", "==", "two states are compared"),
            ("a: if (tcp.x == (ip.x == down)) then stop();", "==", "a resource or state is compared with a condition"),
            ("a: if (tcp.x == down) then reboot();", "reboot", "'reboot' is no action"),
            ("a: if (tcp.x == down) then rfs.uptodate = up;", "rfs.uptodate", "cannot be assigned by a rule"),
            ("a: if (tcp.x == down) then custom.y = init;", "init", "'init' cannot be assigned"),
            ("a: if (tcp.x == down) then stop(); /* open", "/*", "a comment that never ends"),
            ("if (tcp.x == down) then stop();", "(", "':' is expected here"),
            ("1a: if (tcp.x == down) then stop();", "1a", "cannot be the label"),
        ];
        for (text, place, message) in cases {
            let faults = parse(text).unwrap_err();
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert!(faults[0].message.contains(message), "{text}: {:?}", faults[0]);
            assert_eq!(&text[faults[0].start..faults[0].end], place, "{text}");
        }
    }

    #[test]
    fn every_rule_is_judged_after_a_fault() {
        let faults =
            parse("a: if (x) then stop(); b: if (tcp.x == down) then stop(); c: if () then stop();").unwrap_err();
        assert_eq!(faults.len(), 2);
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let deep = |n: usize| format!("a: if ({}tcp.x == down{}) then stop();", "(".repeat(n), ")".repeat(n));
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert!(parse(&deep(MAX_DEPTH + 1)).unwrap_err()[0].message.contains("nested"));
        assert!(parse(&deep(20_000)).is_err());
        let long = |n: usize| format!("a: if (tcp.x == down{}) then stop();", " || tcp.x == up".repeat(n - 1));
        assert!(parse(&long(MAX_COMPARISONS)).is_ok());
        assert!(parse(&long(MAX_COMPARISONS + 1)).is_err());
        let many = |n: usize| "a: if (tcp.x == down) then stop();".repeat(n);
        assert_eq!(parse(&many(MAX_RULES)).unwrap().len(), MAX_RULES);
        assert!(parse(&many(MAX_RULES + 1)).is_err());
        assert!(parse(&" ".repeat(MAX_TEXT + 1)).is_err());
    }
}
