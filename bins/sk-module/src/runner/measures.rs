//! What do the figures of the replication engine say as resources and lines of the log, and how often? They change all the time, so
//! they are shown every three seconds at most, and nothing of them reaches the core.

use super::board::Keep;
use super::{Runner, monotonic_ms};
use serde_json::Value;

const EVERY_MS: u64 = 3_000;
/// Seconds of which bandwidths are the average.
const AVERAGE_OF: usize = 3;
const MB: u64 = 1 << 20;

/// Figures of the engine's `traffic` and the resources they are.
const BANDWIDTHS: [(&str, &str); 4] = [
    ("in_bytes_s", "rfs.netin_bandwidth"),
    ("out_bytes_s", "rfs.netout_bandwidth"),
    ("rep_bytes_s", "rfs.rep_bandwidth"),
    ("rei_bytes_s", "rfs.rei_bandwidth"),
];

/// Figures of a resynchronisation, the resources they are, and by what they are divided.
const RESYNC: [(&str, &str, u64); 6] = [
    ("files", "rfs.rei_scan_count_metric", 1),
    ("scan_ms", "rfs.rei_scan_time_metric", 1000),
    ("sent_files", "rfs.rei_copy_count_metric", 1),
    ("sent", "rfs.rei_copy_size_metric", 1024),
    ("copy_ms", "rfs.rei_copy_time_metric", 1000),
    ("directories", "rfs.rei_syncdir_count_metric", 1),
];

/// What was shown, and what is shown next.
#[derive(Default)]
pub(super) struct Measures {
    bandwidths: Bandwidths,
    /// When figures of a resynchronisation may be shown again (monotonic ms).
    resync_at: u64,
    /// The engine told the figures of the resynchronisation that is about to end: one of an earlier version does not.
    measured: bool,
    copied: Copied,
}

/// Averages of the last seconds, in KB a second.
#[derive(Default)]
struct Bandwidths {
    samples: Vec<[u64; 4]>,
    flows: bool,
}

impl Bandwidths {
    /// Takes bytes of a second. Averages when there are enough of them; at once when nothing flows any more, since then nothing more
    /// will come.
    fn add(&mut self, sample: [u64; 4]) -> Option<[u64; 4]> {
        if sample == [0; 4] {
            return self.end();
        }
        self.flows = true;
        self.samples.push(sample);
        if self.samples.len() < AVERAGE_OF {
            return None;
        }
        let sums = self.samples.drain(..).fold([0_u64; 4], |sums, sample| {
            let mut sums = sums;
            for (sum, one) in sums.iter_mut().zip(sample) {
                *sum = sum.saturating_add(one);
            }
            sums
        });
        Some(sums.map(|sum| sum / AVERAGE_OF as u64 / 1024))
    }

    fn end(&mut self) -> Option<[u64; 4]> {
        self.samples.clear();
        std::mem::take(&mut self.flows).then_some([0; 4])
    }
}

/// Megabytes that were named in the log: nine lines for each further digit.
#[derive(Default)]
struct Copied(u64);

impl Copied {
    /// The line that is due, once.
    fn line(&mut self, bytes: u64) -> Option<String> {
        let mb = bytes / MB;
        let step = 10_u64.saturating_pow(mb.checked_ilog10()?);
        let reached = mb / step * step;
        if reached <= self.0 {
            return None;
        }
        self.0 = reached;
        Some(format!("{reached}MB copied"))
    }
}

impl Runner {
    pub(super) fn replica_traffic(&mut self, value: &Value) {
        let sample = BANDWIDTHS.map(|(field, _)| value[field].as_u64().unwrap_or(0));
        if let Some(averages) = self.facts.replica.measures.bandwidths.add(sample) {
            self.show_bandwidths(averages);
        }
        self.facts.replica.traffic = Some(value.clone());
        self.changed = true;
    }

    fn show_bandwidths(&mut self, averages: [u64; 4]) {
        for ((_, name), value) in BANDWIDTHS.iter().zip(averages) {
            self.facts.assign_as(name, &value.to_string(), Keep::Never);
        }
    }

    /// The engine is gone: nothing flows, and nothing is being resynchronised.
    pub(super) fn replica_is_gone(&mut self) {
        if let Some(nothing) = self.facts.replica.measures.bandwidths.end() {
            self.show_bandwidths(nothing);
        }
        self.facts.replica.resync = None;
    }

    pub(super) fn resync_begins(&mut self) {
        let measures = &mut self.facts.replica.measures;
        (measures.copied, measures.measured) = (Copied::default(), false);
    }

    pub(super) fn resync_progress(&mut self, value: &Value) {
        let now = monotonic_ms();
        if now >= self.facts.replica.measures.resync_at {
            self.facts.replica.measures.resync_at = now.saturating_add(EVERY_MS);
            self.show_resync(value, Keep::Never);
        }
        // The node that receives says so, as the original does.
        if !self.core.state().name.serves()
            && let Some(line) = self.facts.replica.measures.copied.line(value["sent"].as_u64().unwrap_or(0))
        {
            self.facts.say('I', "reintegre", &line);
        }
        self.facts.replica.resync = Some(value.clone());
        self.changed = true;
    }

    /// What the resynchronisation that is about to end has taken.
    pub(super) fn resync_figures(&mut self, value: &Value) {
        self.facts.replica.measures.measured = true;
        self.show_resync(value, Keep::Changes);
    }

    fn show_resync(&mut self, value: &Value, keep: Keep) {
        for (field, name, unit) in RESYNC {
            let figure = value[field].as_u64().unwrap_or(0) / unit;
            self.facts.assign_as(name, &figure.to_string(), keep);
        }
    }

    /// The same from the words of an engine that has measured no more than these.
    pub(super) fn resync_took(&mut self, files: u64, bytes: u64, ms: u64) {
        if !std::mem::take(&mut self.facts.replica.measures.measured) {
            self.facts.assign("rfs.rei_copy_size_metric", &(bytes / 1024).to_string());
            self.facts.assign("rfs.rei_copy_count_metric", &files.to_string());
            self.facts.assign("rfs.rei_copy_time_metric", &(ms / 1000).to_string());
        }
    }

    /// One file of a resynchronisation (`reidetail`).
    pub(super) fn file_is_copied(&mut self, value: &Value) {
        let (path, bytes) = (value["path"].as_str().unwrap_or("?"), value["bytes"].as_u64().unwrap_or(0));
        if let Some(more) = value["more"].as_u64().filter(|more| *more > 0) {
            self.facts.say('I', "reintegre", &format!("Copied {more} more files"));
        }
        self.facts.say('I', "reintegre", &format!("Copied {path} ({bytes} bytes)"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_are_averages_of_three_seconds_and_end_at_once() {
        let mut all = Bandwidths::default();
        assert_eq!(all.add([0; 4]), None, "nothing was shown, nothing ends");
        assert_eq!(all.add([3072, 1, 0, 0]), None);
        assert_eq!(all.add([3072, 1, 0, 6144]), None);
        assert_eq!(all.add([3072, 1, 0, 0]), Some([3, 0, 0, 2]));
        assert_eq!(all.add([9000, 0, 0, 0]), None);
        assert_eq!(all.add([0; 4]), Some([0; 4]));
        assert_eq!(all.add([0; 4]), None, "a module without traffic shows nothing");
        assert_eq!(all.add([9000, 0, 0, 0]), None, "what was before the silence does not count");
        assert_eq!(all.add([u64::MAX; 4]), None);
        assert_eq!(all.add([u64::MAX; 4]), Some([u64::MAX / 3 / 1024; 4]));
    }

    #[test]
    fn copied_megabytes_are_named_at_sensible_steps() {
        let mut copied = Copied::default();
        let mut lines = Vec::new();
        for mb in 0..=250 {
            lines.extend(copied.line(mb * MB + 17));
            assert_eq!(copied.line(mb * MB + 18), None, "twice");
        }
        let wanted = (1..=9).chain((10..=90).step_by(10)).chain([100, 200]);
        assert_eq!(lines, wanted.map(|mb| format!("{mb}MB copied")).collect::<Vec<_>>());
        assert_eq!(copied.line(u64::MAX), Some("10000000000000MB copied".to_owned()));
        assert_eq!(copied.line(0), None);
    }
}
