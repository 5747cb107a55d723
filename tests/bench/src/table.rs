//! What comes out: medians, JSON lines, a table.

use crate::load::Workload;
use clap::ValueEnum;
use serde::Serialize;

/// The middle of what was seen; 0 when nothing was.
pub fn median(seen: &mut [f64]) -> f64 {
    seen.sort_by(f64::total_cmp);
    let middle = seen.len() / 2;
    match (seen.get(middle), middle.checked_sub(1).and_then(|m| seen.get(m))) {
        (Some(high), Some(low)) if seen.len().is_multiple_of(2) => f64::midpoint(*high, *low),
        (Some(value), _) => *value,
        (None, _) => 0.0,
    }
}

/// One workload's result.
#[derive(Debug, Serialize)]
pub struct Row {
    pub workload: String,
    /// Median rates, in `unit`.
    pub native: f64,
    pub mirror: f64,
    pub unit: &'static str,
    /// Median of the rounds' ratios: what both sides suffered from in a round cancels out.
    pub ratio: f64,
    /// Median time of one operation on the mirror, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_us: Option<f64>,
    pub rtt_us: f64,
    pub rounds: usize,
    pub rfs: String,
}

impl Row {
    /// From the rates of each round: (native, mirror).
    pub fn new(workload: Workload, rounds: &[(f64, f64)], rtt_us: f64, rfs: &str) -> Self {
        let of = |pick: fn(&(f64, f64)) -> f64| median(&mut rounds.iter().map(pick).collect::<Vec<_>>());
        let (native, mirror) = (of(|r| r.0), of(|r| r.1));
        let us = |rate| workload.latency(rate).map(|s| (s * 1e7).round() / 10.0);
        let round = |value: f64, digits: f64| (value * digits).round() / digits;
        Self {
            workload: workload.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
            native: round(native, 10.0),
            mirror: round(mirror, 10.0),
            unit: workload.unit(),
            ratio: round(of(|r| r.1 / r.0), 1000.0),
            mirror_us: us(mirror),
            native_us: us(native),
            rtt_us: round(rtt_us, 10.0),
            rounds: rounds.len(),
            rfs: rfs.to_owned(),
        }
    }

    /// The heading of [`Row::line`].
    pub fn heading() -> String {
        format!(
            "{:<16} {:>12} {:>12} {:<15} {:>6} {:>10} {:>10}",
            "workload", "native", "mirror", "unit", "ratio", "native us", "mirror us"
        )
    }

    /// Aligned, for people.
    pub fn line(&self) -> String {
        let us = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
        format!(
            "{:<16} {:>12.0} {:>12.0} {:<15} {:>6.2} {:>10} {:>10}",
            self.workload,
            self.native,
            self.mirror,
            self.unit,
            self.ratio,
            us(self.native_us),
            us(self.mirror_us)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&mut []).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_of_rounds_not_of_medians() {
        let row = Row::new(Workload::Fsync4k, &[(100.0, 50.0), (1000.0, 400.0), (10.0, 6.0)], 12.0, "");
        assert!((row.ratio - 0.5).abs() < 1e-9);
        assert!((row.native - 100.0).abs() < 1e-9);
        assert!((row.mirror_us.unwrap_or_default() - 20_000.0).abs() < 1e-9);
    }
}
