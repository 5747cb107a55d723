//! How long is `30s`, `30000ms` or a bare `30`, given the attribute's own unit?

use std::time::Duration;

/// The unit of a bare number, and the smallest part a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

const SUFFIXES: [(&str, u64); 6] = [
    // "ms" and "us" before "s" and "m".
    ("ms", 1_000),
    ("us", 1),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
];

impl Unit {
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Hours => "h",
            Self::Minutes => "m",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
        }
    }

    const fn microseconds(self) -> u64 {
        match self {
            Self::Hours => 3_600_000_000,
            Self::Minutes => 60_000_000,
            Self::Seconds => 1_000_000,
            Self::Milliseconds => 1_000,
        }
    }

    /// As it is written in a file: `30s`.
    pub fn write(self, value: Duration) -> String {
        let whole = value.as_micros() / u128::from(self.microseconds());
        format!("{whole}{}", self.suffix())
    }
}

/// `None`: no duration, one finer than the unit, or one beyond 64 bits of microseconds.
pub(crate) fn parse(text: &str, unit: Unit) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at_checked(digits)?;
    let scale = if suffix.is_empty() { unit.microseconds() } else { SUFFIXES.iter().find(|(s, _)| *s == suffix)?.1 };
    let micros = number.parse::<u64>().ok()?.checked_mul(scale)?;
    micros.is_multiple_of(unit.microseconds()).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let s = Duration::from_secs;
        let ms = Duration::from_millis;
        for (text, unit, expected) in [
            ("30", Unit::Seconds, Some(s(30))),
            ("30", Unit::Milliseconds, Some(ms(30))),
            ("24", Unit::Hours, Some(s(86_400))),
            ("1d", Unit::Hours, Some(s(86_400))),
            ("5m", Unit::Milliseconds, Some(s(300))),
            ("30000ms", Unit::Seconds, Some(s(30))),
            ("500ms", Unit::Seconds, None),
            ("2000us", Unit::Milliseconds, Some(ms(2))),
            ("1500us", Unit::Milliseconds, None),
            ("90s", Unit::Minutes, None),
            ("0", Unit::Hours, Some(s(0))),
            ("", Unit::Seconds, None),
            ("s", Unit::Seconds, None),
            ("-1", Unit::Seconds, None),
            ("1.5s", Unit::Milliseconds, None),
            ("1 s", Unit::Seconds, None),
            ("1h30m", Unit::Seconds, None),
            ("1S", Unit::Seconds, None),
            ("18446744073709551615d", Unit::Seconds, None),
        ] {
            assert_eq!(parse(text, unit), expected, "{text} in {unit:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(n in 0u64..1_000_000) {
            for unit in [Unit::Hours, Unit::Minutes, Unit::Seconds, Unit::Milliseconds] {
                let value = Duration::from_micros(n * unit.microseconds());
                prop_assert_eq!(parse(&unit.write(value), unit), Some(value));
            }
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,20}") {
            let _ = parse(&text, Unit::Seconds);
        }
    }
}
