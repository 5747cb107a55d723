//! When is the secondary of a module to be synchronised (`syncat`)? The dates are looked for here, by the clock and the time zone of this
//! host; the core is told that one has come.

use super::control::refuse;
use super::{Runner, monotonic_ms};
use automaton::{Event, StateName};
use config::Schedule;
use jiff::Zoned;
use serde_json::json;

/// The clock of the host may be set, and the host may sleep: it is looked at this often at least.
const LOOK_MS: u64 = 30_000;

#[derive(Default)]
pub(super) struct Dates {
    /// Up to when dates were looked for; None: nothing that came before counts.
    until: Option<Zoned>,
    /// When to look again (monotonic ms).
    look_at: Option<u64>,
}

impl Dates {
    pub fn next_deadline(&self) -> Option<u64> {
        self.look_at
    }

    /// Whether a date has come since the last look. A clock that was set back begins anew.
    fn look(&mut self, schedule: &Schedule, now: u64, here: Zoned) -> bool {
        let come = self.until.as_ref().is_some_and(|until| schedule.passed(until, &here));
        let left =
            schedule.after(&here).map(|date| date.timestamp().as_millisecond() - here.timestamp().as_millisecond());
        let left = left.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(LOOK_MS);
        self.look_at = Some(now.saturating_add(left.clamp(1, LOOK_MS)));
        self.until = Some(here);
        come
    }
}

impl Runner {
    fn schedule(&self) -> Option<&Schedule> {
        self.instance.config.rfs.as_ref().and_then(|rfs| rfs.sync_at.as_ref())
    }

    pub(super) fn look_at_dates(&mut self, now: u64) {
        let Some(schedule) = self.schedule().cloned() else {
            self.links.dates = Dates::default();
            return;
        };
        let dates = &mut self.links.dates;
        if dates.look_at.is_some_and(|at| at > now) {
            return;
        }
        // What comes while the module is stopped is not made up for.
        if dates.look(&schedule, now, Zoned::now()) && self.core.state().name != StateName::Stop {
            self.say_due(true, "syncat");
        }
    }

    fn say_due(&mut self, due: bool, origin: &str) {
        let value = if due { "up" } else { "down" };
        self.tell(Event::Resource { name: "rfs.syncat".into(), value: value.into(), origin: origin.into() });
    }

    /// `set -r rfs.syncat`: now, instead of at the next date.
    pub(super) fn answer_syncat(&mut self, value: &str, origin: &str) -> String {
        if self.schedule().is_none() {
            let error = "this module has no dates of synchronisation: its secondary follows all the time";
            return refuse(error, "give <rfs> the attribute syncat", 1);
        }
        let state = self.core.state().name;
        let waits = matches!(state, StateName::Wait | StateName::Second);
        match value {
            "up" if !waits => {
                let peer = self.instance.peer.clone().unwrap_or_default();
                let error = format!("a synchronisation is asked for on the node that waits; this one is {state}");
                let hint =
                    format!("safekit set -r rfs.syncat -v up -m {} on {peer}, while it is WAIT", self.instance.module);
                refuse(&error, &hint, 1)
            }
            "up" | "down" => {
                self.say_due(value == "up", origin);
                self.links.dates.look_at = Some(monotonic_ms());
                json!({"ok": true}).to_string()
            }
            _ => refuse("rfs.syncat is up or down", "", 100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse::<jiff::Timestamp>().unwrap().to_zoned(jiff::tz::TimeZone::UTC)
    }

    #[test]
    fn a_date_is_noticed_once_and_never_slept_through() {
        let schedule = Schedule::parse("5 * * * *").unwrap();
        let mut dates = Dates::default();
        assert!(!dates.look(&schedule, 1_000, at("2026-05-01T10:05:00Z")), "what came before the runner");
        assert_eq!(dates.next_deadline(), Some(1_000 + LOOK_MS));
        assert!(!dates.look(&schedule, 2_000, at("2026-05-01T11:04:59Z")));
        assert_eq!(dates.next_deadline(), Some(3_000));
        assert!(dates.look(&schedule, 3_000, at("2026-05-01T11:05:00Z")));
        assert!(!dates.look(&schedule, 4_000, at("2026-05-01T11:05:01Z")));
        // The host slept over two of them.
        assert!(dates.look(&schedule, 5_000, at("2026-05-01T13:30:00Z")));
        assert!(!dates.look(&schedule, 6_000, at("2026-05-01T13:30:01Z")));
        // Its clock was set back.
        assert!(!dates.look(&schedule, 7_000, at("2026-05-01T13:00:00Z")));
        assert!(dates.look(&schedule, 8_000, at("2026-05-01T13:05:00Z")));
    }
}
