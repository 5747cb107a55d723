//! Which lines of the logs are shown: module, level, words, place?

use super::App;
use crate::text::{self, Level};

/// What the user chose on the page of the log.
#[derive(Clone, Debug, Default)]
pub struct LogView {
    /// Only lines with these words, whatever their case.
    pub filter: String,
    /// Keys go into the filter.
    pub editing: bool,
    /// Also the levels I, W and D.
    pub all_levels: bool,
    /// The lines of all modules, by time.
    pub all_modules: bool,
    /// Lines between the last one shown and the newest; 0 follows.
    pub back: usize,
}

/// A line of a log, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub module: String,
    pub level: Level,
    pub words: String,
}

impl App {
    /// What the page of the log shows, oldest first; at most `height` lines.
    pub fn log_lines(&self, height: usize) -> Vec<LogLine> {
        let needle = self.log.filter.to_lowercase();
        let chosen = |line: &str| {
            let shown = self.log.all_levels || text::is_shown(line);
            shown && (needle.is_empty() || line.to_lowercase().contains(&needle))
        };
        let mut lines: Vec<(&str, &str)> = Vec::new();
        for (name, module) in &self.modules {
            if self.log.all_modules || Some(name) == self.selected.as_ref() {
                lines
                    .extend(module.lines.iter().filter(|line| chosen(line)).map(|line| (name.as_str(), line.as_str())));
            }
        }
        if self.log.all_modules {
            // Lines begin with date and time. Stable: lines of one moment keep their order.
            lines.sort_by(|(_, a), (_, b)| a.get(..26).cmp(&b.get(..26)));
        }
        let end = lines.len().saturating_sub(self.log.back).max(height.min(lines.len()));
        let begin = end.saturating_sub(height);
        lines
            .get(begin..end)
            .unwrap_or_default()
            .iter()
            .map(|(module, line)| {
                let (level, words) = text::log_line(line);
                LogLine { module: (*module).to_owned(), level, words }
            })
            .collect()
    }
}
