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

/// What one round measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub native: f64,
    pub mirror: f64,
    pub mount: Option<f64>,
    pub streaming: Option<f64>,
}

impl std::fmt::Display for Rates {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{:.0} {:.0}", self.native, self.mirror)?;
        [self.mount, self.streaming].into_iter().flatten().try_for_each(|rate| write!(to, " {rate:.0}"))
    }
}

/// One workload's result.
#[derive(Debug, Serialize)]
pub struct Row {
    pub workload: String,
    /// Median rates, in `unit`.
    pub native: f64,
    pub mirror: f64,
    /// The mount without replication, and the median of the rounds' ratios of the mirror to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_to_mount: Option<f64>,
    /// The database's own replication; what its commits waited for; and the median of the rounds' ratios of the mirror to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming_commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_to_streaming: Option<f64>,
    pub unit: &'static str,
    /// Median of the rounds' ratios: what both sides suffered from in a round cancels out.
    pub ratio: f64,
    /// Median time of one operation on the mirror, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_us: Option<f64>,
    /// Median of a TCP round trip before each round, relays that delay included.
    pub rtt_us: f64,
    pub rounds: usize,
    pub rfs: String,
}

impl Row {
    /// From the rates of each round. `commit`: what commits of the database's own replication waited for.
    pub fn new(workload: Workload, rounds: &[Rates], rtt_us: f64, rfs: &str, commit: Option<&str>) -> Self {
        let of = |pick: fn(&Rates) -> f64| median(&mut rounds.iter().map(pick).collect::<Vec<_>>());
        let (native, mirror) = (of(|r| r.native), of(|r| r.mirror));
        let some = |pick: fn(&Rates) -> Option<f64>| {
            let mut seen: Vec<f64> = rounds.iter().filter_map(pick).collect();
            (!seen.is_empty()).then(|| median(&mut seen))
        };
        let us = |rate| workload.latency(rate).map(|s| (s * 1e7).round() / 10.0);
        let round = |value: f64, digits: f64| (value * digits).round() / digits;
        Self {
            workload: workload.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
            native: round(native, 10.0),
            mirror: round(mirror, 10.0),
            mount: some(|r| r.mount).map(|rate| round(rate, 10.0)),
            mirror_to_mount: some(|r| Some(r.mirror / r.mount?)).map(|ratio| round(ratio, 1000.0)),
            streaming: some(|r| r.streaming).map(|rate| round(rate, 10.0)),
            streaming_commit: commit.map(str::to_owned),
            mirror_to_streaming: some(|r| Some(r.mirror / r.streaming?)).map(|ratio| round(ratio, 1000.0)),
            unit: workload.unit(),
            ratio: round(of(|r| r.mirror / r.native), 1000.0),
            mirror_us: us(mirror),
            native_us: us(native),
            rtt_us: round(rtt_us, 10.0),
            rounds: rounds.len(),
            rfs: rfs.to_owned(),
        }
    }

    /// The heading of [`Row::line`].
    pub fn heading(mount: bool, streaming: bool) -> String {
        let column =
            |there: bool, what: &str| if there { format!(" {what:>12} {:>6}", "ratio") } else { String::new() };
        let more = column(mount, "mount") + &column(streaming, "streaming");
        format!(
            "{:<16} {:>12} {:>12} {:<15} {:>6} {:>10} {:>10}{more}",
            "workload", "native", "mirror", "unit", "ratio", "native us", "mirror us"
        )
    }

    /// Aligned, for people.
    pub fn line(&self) -> String {
        let us = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
        let column = |rate: Option<f64>, ratio: Option<f64>| match (rate, ratio) {
            (Some(rate), Some(ratio)) => format!(" {rate:>12.0} {ratio:>6.2}"),
            _ => String::new(),
        };
        let more = column(self.mount, self.mirror_to_mount) + &column(self.streaming, self.mirror_to_streaming);
        format!(
            "{:<16} {:>12.0} {:>12.0} {:<15} {:>6.2} {:>10} {:>10}{more}",
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

    fn rates(native: f64, mirror: f64, streaming: Option<f64>) -> Rates {
        Rates { native, mirror, mount: streaming.map(|rate| rate * 2.0), streaming }
    }

    #[test]
    fn ratios_are_of_rounds_not_of_medians() {
        let rounds = [rates(100.0, 50.0, None), rates(1000.0, 400.0, None), rates(10.0, 6.0, None)];
        let row = Row::new(Workload::Fsync4k, &rounds, 12.0, "", None);
        assert!((row.ratio - 0.5).abs() < 1e-9);
        assert!((row.native - 100.0).abs() < 1e-9);
        assert!((row.mirror_us.unwrap_or_default() - 20_000.0).abs() < 1e-9);
        let text = serde_json::to_string(&row).unwrap();
        assert!(!text.contains("streaming") && !text.contains("mount"), "nothing was compared with: {text}");
    }

    #[test]
    fn own_replication_of_a_database() {
        let rounds = [rates(9.0, 6.0, Some(4.0)), rates(9.0, 6.0, Some(3.0)), rates(9.0, 4.0, Some(8.0))];
        let row = Row::new(Workload::Pgbench, &rounds, 12.0, "", Some("on"));
        assert!((row.streaming.unwrap_or_default() - 4.0).abs() < 1e-9);
        assert!((row.mirror_to_streaming.unwrap_or_default() - 1.5).abs() < 1e-9);
        assert!((row.mirror_to_mount.unwrap_or_default() - 0.75).abs() < 1e-9);
        assert_eq!(row.line().split_whitespace().count(), Row::heading(true, true).split_whitespace().count() - 2);
    }
}
