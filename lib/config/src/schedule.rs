//! When is something to be done, said as in crontab(5)? No clock is read here: the caller says from when on.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;
use jiff::civil::date;
use jiff::tz::TimeZone;
use std::fmt;

/// A longer text is no date that anybody wrote.
const TEXT_MAX: usize = 256;

/// Dates by five fields: minute, hour, day of the month, month, day of the week.
///
/// When clocks are put forward, a date of a fixed hour that does not exist comes right behind the gap; when they are put back, it comes
/// once, at the first of the two. Dates with `*` or a step in minute or hour follow the clock: none in the gap, each in both hours.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

impl Schedule {
    /// Reads the five fields; the error says what is wrong with them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(format!("it is longer than {TEXT_MAX} characters"));
        }
        // Nicknames (`@daily`) have no fields.
        let fields = text.split_ascii_whitespace().count();
        if fields != 5 && !text.starts_with('@') {
            return Err(format!("it has {fields} fields and not five"));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| error.to_string())?;
        let schedule = Self { text: text.to_owned(), cron };
        // Any day will do: what does not come in the years behind it (a 30th of February) never comes.
        let start = date(2024, 1, 1).to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
        if schedule.after(&start).is_none() {
            return Err("there is no such day".to_owned());
        }
        Ok(schedule)
    }

    /// The first date after `from`, in the time zone of `from`. None: none that could be expressed.
    pub fn after(&self, from: &Zoned) -> Option<Zoned> {
        self.cron.find_next_occurrence(from, false).ok()
    }

    /// Whether there was a date after `from`, up to and including `until`.
    pub fn passed(&self, from: &Zoned, until: &Zoned) -> bool {
        from < until && self.after(from).is_some_and(|date| date <= *until)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Dates after `from`, as far as they are asked for, in the rules of central Europe.
    fn dates(text: &str, from: &str, count: usize) -> Vec<String> {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let schedule = Schedule::parse(text).unwrap();
        let mut at = from.parse::<jiff::Timestamp>().unwrap().to_zoned(zone);
        let mut dates = Vec::new();
        for _ in 0..count {
            at = schedule.after(&at).unwrap();
            dates.push(at.timestamp().to_string());
        }
        dates
    }

    #[test]
    fn dates_are_those_of_crontab() {
        assert_eq!(dates("01 0 * * *", "2026-01-10T12:00:00Z", 2), ["2026-01-10T23:01:00Z", "2026-01-11T23:01:00Z"]);
        assert_eq!(
            dates("*/20 3 * * *", "2026-01-10T02:10:30Z", 3),
            ["2026-01-10T02:20:00Z", "2026-01-10T02:40:00Z", "2026-01-11T02:00:00Z"]
        );
        // A Sunday is 0 and 7; a day of the month or of the week, as crontab(5) has it.
        assert_eq!(dates("0 5 * * 7", "2026-01-10T12:00:00Z", 1), dates("0 5 * * 0", "2026-01-10T12:00:00Z", 1));
        assert_eq!(
            dates("0 5 13 * fri", "2026-01-10T12:00:00Z", 3),
            ["2026-01-13T04:00:00Z", "2026-01-16T04:00:00Z", "2026-01-23T04:00:00Z"]
        );
        // A date that is now is not after now.
        assert_eq!(dates("0 4 * * *", "2026-01-10T03:00:00Z", 1), ["2026-01-11T03:00:00Z"]);
    }

    #[test]
    fn clocks_put_forward_skip_no_daily_date() {
        // From 02:00 to 03:00 on 29 March: at 01:00 UTC.
        assert_eq!(
            dates("30 2 * * *", "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            dates("30 * * * *", "2026-03-29T00:00:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"]
        );
    }

    #[test]
    fn clocks_put_back_double_no_daily_date() {
        // From 03:00 to 02:00 on 25 October: at 01:00 UTC.
        assert_eq!(dates("30 2 * * *", "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        assert_eq!(
            dates("30 * * * *", "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    #[test]
    fn a_date_passes_once() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().to_zoned(TimeZone::UTC);
        let daily = Schedule::parse("1 0 * * *").unwrap();
        let (before, date) = (at("2026-05-01T00:00:59Z"), at("2026-05-01T00:01:00Z"));
        assert!(daily.passed(&before, &date));
        assert!(!daily.passed(&date, &at("2026-05-01T23:59:59Z")));
        assert!(!daily.passed(&date, &date));
        // A clock that was set back, and one that jumped over several.
        assert!(!daily.passed(&date, &before));
        assert!(daily.passed(&date, &at("2026-06-01T00:00:00Z")));
    }

    #[test]
    fn what_never_comes_is_refused() {
        for text in ["", "1 0 * *", "1 0 * * * *", "0 0 30 2 *", "60 0 * * *", "1 24 * * *", "daily", "1-0 * * * *"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
        assert!(Schedule::parse(&"1".repeat(300)).is_err());
        assert!(Schedule::parse("0 0 29 2 *").is_ok());
        assert_eq!(Schedule::parse("  1 0 * * *  ").unwrap().to_string(), "1 0 * * *");
    }

    proptest! {
        #[test]
        fn garbage_does_not_panic(text in "[-0-9*/,#LWa-z@ ]{0,40}") {
            let _ = Schedule::parse(&text);
        }
    }
}
