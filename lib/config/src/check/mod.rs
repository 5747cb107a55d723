//! What does `<check>` say: what is probed, how often, and what follows from it?

mod kinds;
mod model;
mod splitbrain;

pub use model::{CheckAction, Checks, CustomCheck, IntfCheck, IpCheck, ModuleCheck, PingCheck, TcpCheck, When};
pub use splitbrain::{ArbiterKind, Etcd, Splitbrain};

use crate::diagnostic::{Diagnostics, Span, quoted};
use crate::fields::{Fields, unknown_child};
use crate::tree::Node;
use std::collections::BTreeSet;

const KINDS: [&str; 7] = ["tcp", "ping", "intf", "ip", "module", "custom", "splitbrain"];

/// Joins all `<check>` of a `<service>`. `mirror`: the module is one (otherwise it runs on every node at once).
pub(crate) fn read(service: &Node, mirror: bool, found: &mut Diagnostics) -> Checks {
    let mut reader = Reader { checks: Checks::default(), names: BTreeSet::new(), mirror };
    let mut all = service.children.iter().filter(|c| c.name == "check");
    if let Some(first) = all.next() {
        reader.check(first, found);
    }
    for again in all {
        found.warning(again.span, "<check> stands twice in <service>", "put the contents of both into one");
        reader.check(again, found);
    }
    reader.checks
}

struct Reader {
    checks: Checks,
    /// Resources taken: `tcp.web`.
    names: BTreeSet<String>,
    mirror: bool,
}

impl Reader {
    fn check(&mut self, element: &Node, found: &mut Diagnostics) {
        Fields::new(element).finish(found);
        for child in &element.children {
            match child.name.as_str() {
                "check" => {
                    found.warning(child.span, "<check> inside <check>", "put its contents into the outer one");
                    self.check(child, found);
                }
                "tcp" => {
                    let read = kinds::tcp(child, self.mirror, found);
                    let read = self.named("tcp", child.span, read, |c| &c.ident, found);
                    self.checks.tcp.extend(read);
                }
                "ping" => {
                    let read = kinds::ping(child, self.mirror, found);
                    let read = self.named("ping", child.span, read, |c| &c.ident, found);
                    self.checks.ping.extend(read);
                }
                "intf" => {
                    let read = kinds::intf(child, found);
                    let read = self.named("intf", child.span, read, |c| &c.ident, found);
                    self.checks.intf.extend(read);
                }
                "ip" => {
                    let read = kinds::ip(child, self.mirror, found);
                    let read = self.named("ip", child.span, read, |c| &c.ident, found);
                    self.checks.ip.extend(read);
                }
                "module" => {
                    let read = kinds::module(child, found);
                    let read = self.named("module", child.span, read, |c| &c.ident, found);
                    self.checks.module.extend(read);
                }
                "custom" => {
                    let read = kinds::custom(child, self.mirror, found);
                    let read = self.named("custom", child.span, read, |c| &c.ident, found);
                    self.checks.custom.extend(read);
                }
                "splitbrain" => {
                    if self.checks.splitbrain.is_some() {
                        found.error(child.span, "two <splitbrain> in one module", "keep one of them");
                    }
                    self.checks.splitbrain = splitbrain::read(child, self.mirror, found);
                }
                _ => unknown_child(element, child, &KINDS, found),
            }
        }
    }

    /// The checker, unless its resource exists already.
    fn named<T>(
        &mut self,
        class: &str,
        span: Span,
        read: Option<T>,
        ident: impl Fn(&T) -> &str,
        found: &mut Diagnostics,
    ) -> Option<T> {
        let checker = read?;
        let ident = ident(&checker);
        if !self.names.insert(format!("{class}.{ident}")) {
            let message = format!("two <{class}> have the ident {}", quoted(ident));
            found.error(span, message, "give each its own ident=\"…\"");
            return None;
        }
        Some(checker)
    }
}

/// A name that can stand in `class.id`.
pub(crate) fn ident(text: &str, span: Span, found: &mut Diagnostics) {
    let good = |c: char| c.is_alphanumeric() || "_.-:%@".contains(c);
    if text.len() > 64 || !text.starts_with(|c: char| c.is_alphanumeric() || c == '_') || !text.chars().all(good) {
        let message = format!("{} cannot be an ident", quoted(text));
        found.error(span, message, "use at most 64 letters, digits and _ . - : beginning with a letter or digit");
    }
}
