//! Is one configured process there, and when is its absence a fault? Decided from counts and times, without IO.

use crate::services::Unit;
use crate::spec::{Matcher, ProcessSpec};
use serde::Serialize;
use std::collections::BTreeSet;

/// Pids listed in an event: it must fit a line.
const PIDS_LIMIT: usize = 1000;

/// A start script enables a class while what its predecessor killed may still be dying and what it started may not bear its
/// name yet: an end this soon after the enabling is judged only when this time has passed.
const SETTLE_MS: u64 = 300;

pub(crate) struct Watch {
    pub spec: ProcessSpec,
    pub matcher: Matcher,
    /// Running as far as is known.
    pub pids: BTreeSet<i32>,
    value: Option<bool>,
    /// While watched: when an absence becomes a fault for a process not seen since the enabling.
    effective_at: Option<u64>,
    /// While watched: before this time an absence is no fault, even of a process that was seen.
    settled_at: u64,
}

/// What is reported.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub name: String,
    pub value: &'static str,
    pub running: usize,
    pub pids: Vec<i32>,
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restart_services: Vec<String>,
}

impl Watch {
    pub fn new(spec: ProcessSpec) -> Result<Self, String> {
        let matcher = Matcher::new(Some(&spec.name), spec.name_regex.as_deref(), spec.arg_regex.as_deref())
            .map_err(|e| format!("process {}: {e}", spec.name))?;
        Ok(Self { spec, matcher, pids: BTreeSet::new(), value: None, effective_at: None, settled_at: 0 })
    }

    /// Begins to watch. A process that is not there yet gets until the first effective check to appear.
    pub fn enable(&mut self, now: u64, poll_ms: u64) {
        if self.effective_at.is_none() {
            self.value = None;
            self.settled_at = now.saturating_add(SETTLE_MS.min(poll_ms));
            self.effective_at = Some(now.saturating_add(poll_ms.saturating_mul(self.spec.start_after.max(1))));
        }
    }

    /// What systemd says of the unit. An active unit without a main process counts by the number 0.
    pub fn see_unit(&mut self, unit: Option<Unit>) {
        self.pids = unit.filter(|u| u.active).map(|u| u.main_pid).into_iter().collect();
    }

    pub fn disable(&mut self) {
        self.effective_at = None;
        self.value = None;
        self.pids.clear();
    }

    pub fn is_enabled(&self) -> bool {
        self.effective_at.is_some()
    }

    pub fn value(&self) -> Option<bool> {
        self.value
    }

    fn too_few(&self) -> bool {
        i64::try_from(self.pids.len()).is_ok_and(|n| n < self.spec.atleast)
    }

    fn too_many(&self) -> bool {
        self.spec.atmax >= 0 && i64::try_from(self.pids.len()).is_ok_and(|n| n > self.spec.atmax)
    }

    /// A process ended. Whether the table must be read at once: only if too few are left, since others come and go all the time.
    pub fn lost(&mut self, pid: i32) -> bool {
        self.pids.remove(&pid) && self.is_enabled() && self.too_few()
    }

    /// Whether one more process would make a difference to what was reported.
    pub fn is_curious(&self) -> bool {
        self.is_enabled() && (self.value != Some(true) || self.spec.atmax >= 0)
    }

    /// What changed, now that `pids` is up to date.
    pub fn evaluate(&mut self, now: u64) -> Option<Change> {
        let effective_at = self.effective_at?;
        let holds = !self.too_few() && !self.too_many();
        // With `start_after` the application is known to come and go while it starts.
        let at_once = self.value.is_some() && self.spec.start_after <= 1 && now >= self.settled_at;
        if self.value == Some(holds) || !(holds || at_once || now >= effective_at) {
            return None;
        }
        self.value = Some(holds);
        let (name, running) = (&self.spec.name, self.pids.len());
        let reason = match (holds, self.too_few(), running) {
            (true, ..) => None,
            (false, true, 0) if self.spec.service => Some(format!("Service {name} not running")),
            (false, true, 0) => Some(format!("Process {name} not running")),
            (false, true, n) => {
                Some(format!("Process {name} not running often enough ({n}, at least {})", self.spec.atleast))
            }
            (false, false, n) => Some(format!("Process {name} running too often ({n}, at most {})", self.spec.atmax)),
        };
        Some(Change {
            name: name.clone(),
            value: if holds { "up" } else { "down" },
            running,
            pids: self.pids.iter().copied().filter(|pid| *pid > 0).take(PIDS_LIMIT).collect(),
            action: self.spec.action.clone(),
            restart_services: if holds { Vec::new() } else { self.spec.restart_services.clone() },
            reason,
        })
    }

    /// When an absence becomes a fault, if that is still to come.
    pub fn deadline(&self, now: u64) -> Option<u64> {
        let settled = self.effective_at.map(|_| self.settled_at);
        settled.into_iter().chain(self.effective_at).filter(|t| *t > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(atleast: i64, atmax: i64, start_after: u64) -> Watch {
        Watch::new(ProcessSpec {
            name: "x".to_owned(),
            service: false,
            restart_services: Vec::new(),
            name_regex: None,
            arg_regex: None,
            atleast,
            atmax,
            action: "restart".to_owned(),
            class: "prim".to_owned(),
            start_after,
        })
        .unwrap()
    }

    fn see(watch: &mut Watch, now: u64, count: i32) -> Option<&'static str> {
        watch.pids = (1..=count).collect();
        watch.evaluate(now).map(|c| c.value)
    }

    #[test]
    fn an_absence_counts_from_the_first_poll_or_after_it_was_there() {
        let mut w = watch(1, -1, 0);
        assert_eq!(see(&mut w, 0, 0), None, "not enabled");
        w.enable(0, 1000);
        assert_eq!(see(&mut w, 999, 0), None);
        assert_eq!(see(&mut w, 1000, 0), Some("down"));
        assert_eq!(see(&mut w, 2000, 0), None, "once");
        assert_eq!(see(&mut w, 2100, 1), Some("up"));
        w.disable();
        w.enable(3000, 1000);
        assert_eq!(see(&mut w, 3001, 1), Some("up"), "told again after each enabling");
        assert_eq!(see(&mut w, 3002, 0), None, "another one may be about to appear");
        assert_eq!(w.deadline(3002), Some(3300));
        assert_eq!(see(&mut w, 3300, 0), Some("down"));
        assert_eq!(see(&mut w, 3400, 1), Some("up"));
        assert_eq!(see(&mut w, 3401, 0), Some("down"), "at once");
    }

    #[test]
    fn a_successor_in_time_is_no_fault() {
        let mut w = watch(1, -1, 0);
        w.enable(0, 1000);
        assert_eq!(see(&mut w, 1, 1), Some("up"), "the old one is dying");
        assert_eq!(see(&mut w, 2, 0), None);
        assert_eq!(see(&mut w, 20, 1), None);
        assert_eq!(see(&mut w, 300, 1), None);
    }

    #[test]
    fn start_after_delays_the_first_fault() {
        let mut w = watch(1, -1, 3);
        w.enable(0, 1000);
        assert_eq!(see(&mut w, 10, 1), Some("up"));
        assert_eq!(see(&mut w, 2999, 0), None);
        assert_eq!(w.deadline(2999), Some(3000));
        assert_eq!(see(&mut w, 3000, 0), Some("down"));
    }

    #[test]
    fn limits_on_both_sides() {
        let mut w = watch(2, 3, 0);
        w.enable(0, 1000);
        for (count, expected) in [(2, Some("up")), (3, None), (4, Some("down")), (3, Some("up")), (1, Some("down"))] {
            assert_eq!(see(&mut w, 400, count), expected, "{count}");
        }
        let mut forbidden = watch(-1, 0, 0);
        forbidden.enable(0, 1000);
        assert_eq!(see(&mut forbidden, 1, 0), Some("up"));
        assert_eq!(see(&mut forbidden, 400, 1), Some("down"));
    }

    #[test]
    fn only_a_loss_below_the_limit_asks_for_a_scan() {
        let mut w = watch(1, -1, 0);
        w.enable(0, 1000);
        see(&mut w, 0, 2);
        assert!(!w.lost(1));
        assert!(!w.lost(1));
        assert!(w.lost(2));
    }
}
