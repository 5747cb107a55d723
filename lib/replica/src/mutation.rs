//! Rules that are broken on purpose, so that the campaign of random faults can prove that it would notice.
//!
//! Only a build with the feature `mutations`, which nothing but `scripts/campaign selftest` makes, reads the environment variable
//! `SK_MUTATE`. In every other build each question here is a constant "no", and what would follow from a "yes" is not in the program.

use crate::activity::Touch;
use crate::op::Op;
use crate::recorder::Position;

#[cfg(feature = "mutations")]
mod broken {
    use std::sync::OnceLock;

    /// Which rule; empty: none.
    pub fn rule() -> &'static str {
        static RULE: OnceLock<String> = OnceLock::new();
        RULE.get_or_init(|| std::env::var("SK_MUTATE").unwrap_or_default())
    }
}

#[cfg(not(feature = "mutations"))]
mod broken {
    #[inline]
    pub const fn rule() -> &'static str {
        ""
    }
}

#[inline]
fn is(rule: &str) -> bool {
    cfg!(feature = "mutations") && broken::rule() == rule
}

/// The rule that is broken, for the log.
#[inline]
pub fn announced() -> Option<&'static str> {
    (cfg!(feature = "mutations") && !broken::rule().is_empty()).then(broken::rule)
}

/// R1, R3: what must wait for the secondary is answered at once: always, or when there is none.
#[inline]
pub fn answers_early(connected: bool) -> bool {
    is("r1") || (!connected && is("r3"))
}

/// R3: the loss of the stream freezes nothing.
#[inline]
pub fn ignores_loss() -> bool {
    is("r3")
}

/// R2: the secondary leaves this operation out, and acknowledges it.
#[inline]
pub fn skips(n: Position, op: &Op) -> bool {
    is("r2") && n.is_multiple_of(61) && matches!(op, Op::Write { .. })
}

/// R5: neither the change map nor the activity log has this operation. Content only: a name that is missing on the other node soon makes
/// an operation fail there, and then everything is compared.
#[inline]
pub fn forgets(op: &Op) -> bool {
    is("r5") && matches!(op, Op::Write { .. })
}

/// R5: the activity log does not have this change.
#[inline]
pub fn forgets_touch(touch: &Touch<'_>) -> bool {
    is("r5") && matches!(touch, Touch::Content { .. })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;
    use crate::op::{RelPath, Time};

    #[test]
    fn no_rule_is_broken_unless_somebody_asks_for_it() {
        let op = Op::Write { dir: 0, path: RelPath::new(b"f").unwrap(), ino: 1, offset: 0, mtime: Time(0, 0) };
        assert_eq!(announced(), None);
        assert!(!answers_early(false) && !answers_early(true) && !ignores_loss());
        assert!(!skips(61, &op) && !forgets(&op));
    }
}
