//! How is a moment written: RFC 3339 in UTC with microseconds.

use std::time::SystemTime;

/// Now, as `2026-11-20T10:00:00.123456Z`.
pub fn rfc3339_now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// Any moment, in the same form; `None` when it lies outside years −9999 to 9999.
pub fn rfc3339(moment: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(moment).ok().map(|t| format!("{t:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn microseconds_are_always_written() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH).unwrap(), "1970-01-01T00:00:00.000000Z");
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(rfc3339(moment).unwrap(), "1970-01-01T00:00:01.500000Z");
        assert_eq!(rfc3339_now().len(), 27);
    }
}
