//! The failover language: which rules are there, which of them hold, and what do they want done? Pure.
//!
//! `parse` reads the rules of a module (`label: if (condition) then action();`), `lua` the two forms of Lua statements that real
//! modules use, `set` joins them with the rules that every module has, and `evaluate` says what holds now.

mod evaluate;
mod expression;
mod lex;
mod lua;
mod parse;
mod set;

pub use evaluate::{Resources, Verdict};
pub use expression::{Comparison, Expression, Id, Operand, Resource, Scope, Value};
pub use lua::{Statement, is_lua, parse_lua};
pub use parse::{MAX_DEPTH, MAX_RULES, MAX_TEXT, Parsed, parse};
pub use set::{Action, DECIDED, Origin, Rule, RuleSet, default_rules};

/// Something wrong in a text of rules. `start..end` are bytes of that text, on character boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub start: usize,
    pub end: usize,
    /// What is wrong, without a full stop.
    pub message: String,
    /// How to mend it; may be empty.
    pub help: String,
}
