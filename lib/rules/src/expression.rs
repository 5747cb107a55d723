//! What can a condition say, and how is it written?

use serde::{Deserialize, Serialize};
use std::fmt;

/// Value of a resource as far as rules tell values apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Not known yet: its checker has not reported.
    Init,
    Down,
    Up,
    /// Of a remote resource while the remote module is stopped or unreachable.
    Unknown,
    /// Anything else (a number, a state): equal to nothing.
    Other,
}

/// Whose resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Local,
    Remote,
}

/// Which resources of a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// `?`: at least one.
    Any,
    /// `*`: all of them, and there is one.
    All,
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    pub scope: Scope,
    pub class: String,
    pub id: Id,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    Resource(Resource),
    Value(Value),
    /// `cluster()`: whether the peer node is there.
    Cluster,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub left: Operand,
    /// `==` rather than `!=`.
    pub equal: bool,
    pub right: Operand,
}

/// A condition. At most one side of a comparison stands for several resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Expression {
    Compare(Comparison),
    /// Two conditions that hold together or not at all (`equal`), or exactly one of which holds.
    Same {
        left: Box<Self>,
        equal: bool,
        right: Box<Self>,
    },
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

impl Value {
    /// The value that a resource's text stands for.
    pub fn of(text: &str) -> Self {
        match text {
            "init" => Self::Init,
            "down" => Self::Down,
            "up" => Self::Up,
            "unknown" => Self::Unknown,
            _ => Self::Other,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Down => "down",
            Self::Up => "up",
            Self::Unknown => "unknown",
            Self::Other => "other",
        }
    }
}

impl Resource {
    /// `class.id` of this node.
    pub fn local(class: &str, id: Id) -> Self {
        Self { scope: Scope::Local, class: class.to_owned(), id }
    }

    /// Whether it stands for the resource `class.name`, of whichever node.
    pub fn covers(&self, class: &str, name: &str) -> bool {
        self.class == class
            && match &self.id {
                Id::Any | Id::All => true,
                Id::Name(own) => own == name,
            }
    }
}

impl Expression {
    /// `class.id == down`, the condition of most rules.
    pub fn is_down(resource: Resource) -> Self {
        let (left, right) = (Operand::Resource(resource), Operand::Value(Value::Down));
        Self::Compare(Comparison { left, equal: true, right })
    }

    /// All resources named, in the order of the text.
    pub fn resources(&self) -> Vec<&Resource> {
        let mut found = Vec::new();
        self.visit(&mut |comparison| {
            for side in [&comparison.left, &comparison.right] {
                if let Operand::Resource(resource) = side {
                    found.push(resource);
                }
            }
        });
        found
    }

    pub(crate) fn visit<'a>(&'a self, each: &mut impl FnMut(&'a Comparison)) {
        match self {
            Self::Compare(comparison) => each(comparison),
            Self::Not(inner) => inner.visit(each),
            Self::Same { left, right, .. } | Self::And(left, right) | Self::Or(left, right) => {
                left.visit(each);
                right.visit(each);
            }
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scope == Scope::Remote {
            f.write_str("remote.")?;
        }
        match &self.id {
            Id::Any => write!(f, "{}.?", self.class),
            Id::All => write!(f, "{}.*", self.class),
            Id::Name(name) => write!(f, "{}.{name}", self.class),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => resource.fmt(f),
            Self::Value(value) => f.write_str(value.as_str()),
            Self::Cluster => f.write_str("cluster()"),
        }
    }
}

impl fmt::Display for Expression {
    /// As the language is written: reading it again gives the same condition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |equal: bool| if equal { "==" } else { "!=" };
        // What stands on the left of its own operator needs no parentheses: chains stay flat.
        let bare = |inner: &Self, and: bool| match inner {
            Self::Compare(_) | Self::Not(_) => true,
            Self::And(..) => and,
            Self::Or(..) => !and,
            Self::Same { .. } => false,
        };
        let left_of = |inner: &Self, and: bool| if bare(inner, and) { inner.to_string() } else { format!("({inner})") };
        let right_of = |inner: &Self| match inner {
            Self::Compare(_) | Self::Not(_) => inner.to_string(),
            _ => format!("({inner})"),
        };
        match self {
            Self::Compare(Comparison { left, equal, right }) => write!(f, "{left} {} {right}", sign(*equal)),
            Self::Same { left, equal, right } => write!(f, "({left}) {} ({right})", sign(*equal)),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::And(left, right) => write!(f, "{} && {}", left_of(left, true), right_of(right)),
            Self::Or(left, right) => write!(f, "{} || {}", left_of(left, false), right_of(right)),
        }
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.to_string()
    }
}

impl TryFrom<String> for Expression {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        crate::parse::condition(&text)
    }
}
