//! Does a condition hold now, and which resources is it waiting for?

use crate::expression::{Comparison, Expression, Id, Operand, Resource, Scope, Value};

/// What is known of resources.
pub trait Resources {
    /// The value of one resource; `None`: nobody has assigned it.
    fn value(&self, scope: Scope, class: &str, id: &str) -> Option<Value>;

    /// All resources of a class with their values, in a fixed order.
    fn class(&self, scope: Scope, class: &str) -> Vec<(String, Value)>;

    /// `cluster()`.
    fn cluster(&self) -> Value;
}

/// Outcome of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    True,
    False,
    /// Not evaluated: these resources are `init`.
    Pending(Vec<Resource>),
}

impl Expression {
    /// A condition that tests a resource in `init` is not evaluated, unless the comparison itself names `init`.
    pub fn evaluate(&self, resources: &impl Resources) -> Verdict {
        let mut pending = Vec::new();
        self.visit(&mut |comparison| {
            let asks_init = [&comparison.left, &comparison.right].contains(&&Operand::Value(Value::Init));
            if !asks_init {
                waits(comparison, resources, &mut pending);
            }
        });
        if !pending.is_empty() {
            pending.sort();
            pending.dedup();
            return Verdict::Pending(pending);
        }
        if self.holds(resources) { Verdict::True } else { Verdict::False }
    }

    fn holds(&self, resources: &impl Resources) -> bool {
        match self {
            Self::Compare(comparison) => compare(comparison, resources),
            Self::Same { left, equal, right } => (left.holds(resources) == right.holds(resources)) == *equal,
            Self::Not(inner) => !inner.holds(resources),
            Self::And(left, right) => left.holds(resources) && right.holds(resources),
            Self::Or(left, right) => left.holds(resources) || right.holds(resources),
        }
    }
}

fn waits(comparison: &Comparison, resources: &impl Resources, pending: &mut Vec<Resource>) {
    for side in [&comparison.left, &comparison.right] {
        let Operand::Resource(resource) = side else { continue };
        match &resource.id {
            Id::Name(id) => {
                if one(resource, id, resources) == Value::Init {
                    pending.push(resource.clone());
                }
            }
            Id::Any | Id::All => {
                for (id, value) in resources.class(resource.scope, &resource.class) {
                    if value == Value::Init {
                        pending.push(Resource { id: Id::Name(id), ..resource.clone() });
                    }
                }
            }
        }
    }
}

/// What nobody assigned is not known yet; of the peer it is unknown.
fn one(resource: &Resource, id: &str, resources: &impl Resources) -> Value {
    let missing = if resource.scope == Scope::Remote { Value::Unknown } else { Value::Init };
    resources.value(resource.scope, &resource.class, id).unwrap_or(missing)
}

/// The values a side stands for, and whether one of them is enough.
fn side(operand: &Operand, resources: &impl Resources) -> (Vec<Value>, bool) {
    match operand {
        Operand::Value(value) => (vec![*value], true),
        Operand::Cluster => (vec![resources.cluster()], true),
        Operand::Resource(resource) => match &resource.id {
            Id::Name(id) => (vec![one(resource, id, resources)], true),
            many => {
                let values = resources.class(resource.scope, &resource.class).into_iter().map(|(_, v)| v).collect();
                (values, *many == Id::Any)
            }
        },
    }
}

fn compare(comparison: &Comparison, resources: &impl Resources) -> bool {
    let (left, left_any) = side(&comparison.left, resources);
    let (right, right_any) = side(&comparison.right, resources);
    let (many, any, single) =
        if left.len() == 1 && left_any { (right, right_any, left) } else { (left, left_any, right) };
    let Some(single) = single.first() else { return false };
    let is = |value: &Value| (value == single && *value != Value::Other) == comparison.equal;
    // Of no resource at all nothing is true.
    if any { many.iter().any(is) } else { !many.is_empty() && many.iter().all(is) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Table(BTreeMap<&'static str, Value>, Value);

    impl Resources for Table {
        fn value(&self, scope: Scope, class: &str, id: &str) -> Option<Value> {
            let prefix = if scope == Scope::Remote { "remote." } else { "" };
            self.0.get(format!("{prefix}{class}.{id}").as_str()).copied()
        }

        fn class(&self, scope: Scope, class: &str) -> Vec<(String, Value)> {
            let prefix = format!("{}{class}.", if scope == Scope::Remote { "remote." } else { "" });
            self.0.iter().filter_map(|(name, v)| Some((name.strip_prefix(&prefix)?.to_owned(), *v))).collect()
        }

        fn cluster(&self) -> Value {
            self.1
        }
    }

    #[test]
    fn conditions_hold_as_the_table_says() {
        use Value::{Down, Init, Other, Unknown, Up};
        let table = Table(
            BTreeMap::from([
                ("tcp.a", Down),
                ("tcp.b", Up),
                ("ip.x", Down),
                ("ip.y", Down),
                ("custom.i", Init),
                ("custom.u", Up),
                ("rfs.n", Other),
                ("rfs.m", Other),
                ("remote.tcp.a", Up),
                ("ping.10.0.0.1", Up),
            ]),
            Unknown,
        );
        let cases = [
            ("tcp.a == down", Some(true)),
            ("tcp.b == down", Some(false)),
            ("tcp.a != up", Some(true)),
            ("down == tcp.a", Some(true)),
            ("local.tcp.a == down", Some(true)),
            ("remote.tcp.a == up", Some(true)),
            ("remote.tcp.b == unknown", Some(true)),
            ("remote.tcp.a == tcp.a", Some(false)),
            ("tcp.? == down", Some(true)),
            ("tcp.* == down", Some(false)),
            ("ip.* == down", Some(true)),
            ("ip.? == up", Some(false)),
            ("tcp.? != down", Some(true)),
            ("tcp.* != down", Some(false)),
            ("module.? == down", Some(false)),
            ("module.* == down", Some(false)),
            ("ping.10.0.0.1 == up", Some(true)),
            ("custom.i == down", None),
            ("custom.? == down", None),
            ("custom.i == init", Some(true)),
            ("custom.u == up", Some(true)),
            ("custom.never == down", None),
            ("tcp.a == down || custom.i == down", None),
            ("rfs.n == rfs.m", Some(false)),
            ("rfs.n != up", Some(true)),
            ("cluster() == unknown", Some(true)),
            ("cluster() == down", Some(false)),
            // As in C: && binds tighter than ||, == tighter than &&, ! tighter than all.
            ("tcp.a == down || tcp.b == down && tcp.b == down", Some(true)),
            ("(tcp.a == down || tcp.b == down) && tcp.b == down", Some(false)),
            ("!(tcp.a == down) || tcp.b == up", Some(true)),
            ("!(tcp.a == down) && tcp.b == down", Some(false)),
            ("!!(tcp.a == down)", Some(true)),
            ("(tcp.a == down) == (tcp.b == down)", Some(false)),
            ("(tcp.a == down) != (tcp.b == down)", Some(true)),
            ("(tcp.a == down) == !(tcp.b == down)", Some(true)),
        ];
        for (text, want) in cases {
            let condition = Expression::try_from(text.to_owned()).unwrap_or_else(|e| panic!("{text}: {e}"));
            let got = match condition.evaluate(&table) {
                Verdict::True => Some(true),
                Verdict::False => Some(false),
                Verdict::Pending(_) => None,
            };
            assert_eq!(got, want, "{text}");
            let again = Expression::try_from(condition.to_string()).unwrap();
            assert_eq!(again, condition, "{text} is written as {condition}");
        }
        let pending = Expression::try_from("custom.? == down".to_owned()).unwrap().evaluate(&table);
        let Verdict::Pending(names) = pending else { panic!() };
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["custom.i"]);
    }
}
