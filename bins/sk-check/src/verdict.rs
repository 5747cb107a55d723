//! When do the outcomes of probes change the value of a resource, and when is the next probe due? Pure.

/// One failed probe is repeated this soon before it counts.
const CONFIRM_MS: u64 = 500;
/// Probes that fail before the first verdict are repeated at most this late.
const HURRY_MS: u64 = 1_000;

pub(crate) struct Verdict {
    interval_ms: u64,
    /// What was never up gets this long to come up: an application may need a moment after its start script.
    grace_ms: u64,
    /// Failures in a row that count.
    needed: u32,
    began: u64,
    value: Option<bool>,
    failures: u32,
}

/// What follows from one outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The new value, if it changed.
    pub report: Option<bool>,
    /// When to probe again.
    pub again_in_ms: u64,
}

impl Verdict {
    pub const fn new(interval_ms: u64, grace_ms: u64, needed: u32, now: u64) -> Self {
        Self { interval_ms, grace_ms, needed, began: now, value: None, failures: 0 }
    }

    pub const fn value(&self) -> Option<bool> {
        self.value
    }

    pub fn judge(&mut self, now: u64, good: bool) -> Judgement {
        if good {
            self.failures = 0;
            return Judgement { report: self.change(true), again_in_ms: self.interval_ms };
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.needed {
            return Judgement { report: None, again_in_ms: self.interval_ms.min(CONFIRM_MS) };
        }
        if self.value.is_none() && now < self.began.saturating_add(self.grace_ms) {
            let left = self.began.saturating_add(self.grace_ms) - now;
            return Judgement { report: None, again_in_ms: self.interval_ms.min(HURRY_MS).min(left) };
        }
        Judgement { report: self.change(false), again_in_ms: self.interval_ms }
    }

    fn change(&mut self, value: bool) -> Option<bool> {
        (self.value.replace(value) != Some(value)).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(v: &mut Verdict, now: u64, good: bool) -> (Option<bool>, u64) {
        let j = v.judge(now, good);
        (j.report, j.again_in_ms)
    }

    #[test]
    fn a_failure_counts_when_it_is_confirmed() {
        let mut v = Verdict::new(10_000, 0, 2, 0);
        assert_eq!(judge(&mut v, 0, true), (Some(true), 10_000));
        assert_eq!(judge(&mut v, 10_000, true), (None, 10_000));
        assert_eq!(judge(&mut v, 20_000, false), (None, 500));
        assert_eq!(judge(&mut v, 20_500, true), (None, 10_000), "it was nothing");
        assert_eq!(judge(&mut v, 30_500, false), (None, 500));
        assert_eq!(judge(&mut v, 31_000, false), (Some(false), 10_000));
        assert_eq!(judge(&mut v, 41_000, false), (None, 10_000));
        assert_eq!(judge(&mut v, 51_000, true), (Some(true), 10_000));
    }

    #[test]
    fn what_was_never_up_gets_its_grace() {
        let mut v = Verdict::new(10_000, 10_000, 2, 1_000);
        assert_eq!(judge(&mut v, 1_000, false), (None, 500));
        assert_eq!(judge(&mut v, 1_500, false), (None, 1_000));
        assert_eq!(judge(&mut v, 10_500, false), (None, 500));
        assert_eq!(judge(&mut v, 11_000, false), (Some(false), 10_000));
        let mut v = Verdict::new(10_000, 10_000, 2, 0);
        judge(&mut v, 0, false);
        assert_eq!(judge(&mut v, 500, true), (Some(true), 10_000), "up is told at once");
        judge(&mut v, 600, false);
        assert_eq!(judge(&mut v, 1_100, false), (Some(false), 10_000), "and the grace is over");
    }

    #[test]
    fn short_intervals_stay_short() {
        let mut v = Verdict::new(100, 0, 2, 0);
        assert_eq!(judge(&mut v, 0, false), (None, 100));
        assert_eq!(judge(&mut v, 100, false), (Some(false), 100));
        let mut v = Verdict::new(10_000, 0, 1, 0);
        assert_eq!(judge(&mut v, 0, false), (Some(false), 10_000));
    }
}
