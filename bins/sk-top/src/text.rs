//! How does one frame look as plain text, for pipes and terminals that can do no more? Pure.

use crate::app::App;
use crate::snapshot::{Snapshot, bytes};

/// A table, a line each for what needs more room, no colours.
pub fn frame(app: &App) -> Vec<String> {
    if app.modules.is_empty() {
        return vec!["no modules on this node".to_owned()];
    }
    let (here, there) = app.nodes();
    let mut rows = vec![["MODULE".into(), here, there, "DATA".into(), "HEARTBEATS".into(), "VIP".into()]];
    let mut notes = Vec::new();
    for (name, module) in &app.modules {
        let s = &module.snapshot;
        rows.push([name.clone(), local(s), remote(s), data(s), heartbeats(s), vips(s)]);
        if let Some(resync) = s.resync() {
            notes.push(format!("{name}: resynchronisation: {}", resync.words()));
        }
        if let Some(trouble) = &module.trouble {
            notes.push(format!("{name}: {trouble}"));
        }
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let aligned = rows.iter().map(|row| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    });
    aligned.chain(notes).collect()
}

/// Level of a line of the module's log, and the line without what an 80 column terminal has no room for: the date,
/// microseconds, columns.
pub fn log_line(line: &str) -> (&str, String) {
    let mut parts = line.splitn(4, " | ");
    let (Some(when), Some(from), Some(level), Some(words)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return ("", line.to_owned());
    };
    let time: String = when.split(' ').next_back().unwrap_or(when).chars().take(12).collect();
    (level, format!("{time} {from:<9} {words}"))
}

pub fn local(s: &Snapshot) -> String {
    if s.state.is_empty() { "?".to_owned() } else { format!("{} {}", s.state, s.readiness) }
}

/// The peer's state as the runner knows it.
pub fn remote(s: &Snapshot) -> String {
    if s.peer.is_empty() {
        return "-".to_owned();
    }
    match s.remote.as_ref().and_then(|r| Some((r.state.as_ref()?, r.readiness.as_deref().unwrap_or("")))) {
        Some((state, readiness)) => format!("{state} {readiness}").trim_end().to_owned(),
        None => "UNKNOWN".to_owned(),
    }
}

pub fn data(s: &Snapshot) -> String {
    s.data.clone().filter(|d| d != "none").unwrap_or_else(|| "-".to_owned())
}

/// `2/2`: links up of all.
pub fn heartbeats(s: &Snapshot) -> String {
    if s.heartbeats.is_empty() {
        return "-".to_owned();
    }
    format!("{}/{}", s.heartbeats.iter().filter(|h| h.value == "up").count(), s.heartbeats.len())
}

/// Addresses held here; those elsewhere in brackets.
pub fn vips(s: &Snapshot) -> String {
    if s.vip.is_empty() {
        return "-".to_owned();
    }
    let words: Vec<String> =
        s.vip.iter().map(|v| if v.value == "up" { v.address.clone() } else { format!("({})", v.address) }).collect();
    words.join(" ")
}

/// `in_sync · out 1.0 MiB/s · in 0 B/s · lag 0 B`
pub fn replication(s: &Snapshot) -> String {
    let Some(replica) = &s.replica else { return "-".to_owned() };
    let mut parts = vec![replica.peer.clone().unwrap_or_else(|| "?".to_owned())];
    if replica.frozen == Some(true) {
        parts.push("FROZEN".to_owned());
    }
    for (name, value) in [("out", replica.out_bytes_s), ("in", replica.in_bytes_s)] {
        parts.push(format!("{name} {}/s", bytes(value.unwrap_or(0.0))));
    }
    parts.push(format!("lag {}", bytes(replica.lag_bytes.unwrap_or(0.0))));
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_fit_a_narrow_terminal() {
        let (level, words) = log_line("2026-11-20 10:00:00.123456 | heart | E | Local state a | b");
        assert_eq!((level, words.as_str()), ("E", "10:00:00.123 heart     Local state a | b"));
        assert_eq!(log_line("torn"), ("", "torn".to_owned()));
    }
}
