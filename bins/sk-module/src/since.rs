//! A date as operators write it, for `second --since`.

use crate::{Failure, exit};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Seconds since 1970. A date alone means its first moment; without a final `Z` (UTC), the time is that of this host's clocks.
pub(crate) fn parse(text: &str) -> Result<i64, Failure> {
    let wrong = || {
        Failure::new(exit::USAGE, format!("{text:?} is no date"))
            .hint("for example 2026-11-20, \"2026-11-20 10:00:00\" or 2026-11-20T10:00:00Z (UTC)")
    };
    let text = text.trim();
    let (civil, zone) = match text.strip_suffix('Z') {
        Some(rest) => (rest, TimeZone::UTC),
        None => (text, TimeZone::system()),
    };
    let time = match civil.parse::<DateTime>() {
        Ok(time) => time,
        Err(_) => civil.parse::<Date>().map_err(|_| wrong())?.to_datetime(jiff::civil::Time::midnight()),
    };
    let moment = time.to_zoned(zone).map_err(|_| wrong())?.timestamp();
    if moment > Timestamp::now() {
        return Err(Failure::new(exit::USAGE, format!("{text} lies in the future"))
            .hint("give the date at which the copy of the data was made, or an earlier one"));
    }
    Ok(moment.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_operators_write_them() {
        for (text, expected) in [
            ("2026-01-02Z", 1_767_312_000),
            ("2026-01-02 03:04:05Z", 1_767_323_045),
            ("2026-01-02T03:04:05Z", 1_767_323_045),
        ] {
            assert_eq!(parse(text).ok(), Some(expected), "{text}");
        }
        let midnight = Date::constant(2026, 1, 2).to_zoned(TimeZone::system()).unwrap().timestamp().as_second();
        assert_eq!(parse("2026-01-02").ok(), Some(midnight));
        assert_eq!(parse("2026-01-02 00:00:00").ok(), Some(midnight));
        for bad in ["", "Z", "yesterday", "2026-13-01", "02.01.2026", "9999-01-01", "2026-01-02 25:00:00"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
