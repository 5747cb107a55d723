//! How does one frame look as plain text, for pipes and terminals that can do no more? Pure.

use crate::app::App;
use crate::snapshot::{Group, Snapshot, brief, bytes};

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
        for group in s.farm.iter().flat_map(|f| &f.groups) {
            notes.push(format!("{name}: {}: {}", group.group, group.words()));
            for (node, _, words) in group.by_node() {
                notes.push(format!("{name}: {}: {node}: {words}", group.group));
            }
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
    // What a file says cannot command the terminal.
    aligned.chain(notes).map(|line| line.replace(char::is_control, " ")).collect()
}

/// A name in this many columns: what is too long loses its middle, since names of one kind differ at their ends.
pub fn short(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width || width < 3 {
        return name.chars().take(width).collect();
    }
    let tail = (width - 1) / 2;
    let head: String = name.chars().take(width - 1 - tail).collect();
    let end: String = name.chars().skip(count - tail).collect();
    format!("{head}…{end}")
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    Critical,
    /// Somebody gave a command.
    User,
    Event,
    Script,
    Warning,
    /// I, D, and whatever is no line of a log.
    #[default]
    Other,
}

impl Level {
    fn of(letter: &str) -> Self {
        match letter {
            "C" => Self::Critical,
            "U" => Self::User,
            "E" => Self::Event,
            "S" => Self::Script,
            "W" => Self::Warning,
            _ => Self::Other,
        }
    }
}

/// Whether a line `date | origin | level | message` is part of the default view.
pub fn is_shown(line: &str) -> bool {
    line.split(" | ").nth(2).is_none_or(|level| matches!(level, "U" | "E" | "C" | "S"))
}

/// Level of a line of the module's log, and the line without what an 80 column terminal has no room for: the date,
/// microseconds, columns.
pub fn log_line(line: &str) -> (Level, String) {
    let mut parts = line.splitn(4, " | ");
    let (Some(when), Some(from), Some(level), Some(words)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return (Level::Other, line.to_owned());
    };
    let time: String = when.split(' ').next_back().unwrap_or(when).chars().take(12).collect();
    (Level::of(level), format!("{time} {from:<9} {words}"))
}

/// `10:00:21` here, of a time in UTC; the date as well when it was not today (`now_s`: seconds since 1970).
pub fn moment(t: &str, now_s: i64, zone: &jiff::tz::TimeZone) -> String {
    let Ok(then) = t.parse::<jiff::Timestamp>() else { return t.chars().take(19).collect() };
    let then = then.to_zoned(zone.clone());
    let today = jiff::Timestamp::from_second(now_s).is_ok_and(|n| n.to_zoned(zone.clone()).date() == then.date());
    then.strftime(if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

/// Seconds since a time in UTC.
pub fn age(t: &str, now_s: i64) -> Option<f64> {
    let then = t.parse::<jiff::Timestamp>().ok()?;
    (now_s > 0).then(|| (now_s - then.as_second()).max(0) as f64)
}

pub fn local(s: &Snapshot) -> String {
    if s.state.is_empty() { "?".to_owned() } else { format!("{} {}", s.state, s.readiness) }
}

/// The peer's state as the runner knows it; of a farm, how many of the nodes heard take clients.
pub fn remote(s: &Snapshot) -> String {
    if let Some(farm) = &s.farm {
        return if farm.members.is_empty() {
            "-".to_owned()
        } else {
            format!("{} of {} open", farm.open.len(), farm.members.len())
        };
    }
    if s.peer.is_none() {
        return "-".to_owned();
    }
    match s.remote.as_ref().and_then(|r| Some((r.state.as_ref()?, r.readiness.as_deref().unwrap_or("")))) {
        Some((state, readiness)) => format!("{state} {readiness}").trim_end().to_owned(),
        None => "UNKNOWN".to_owned(),
    }
}

/// State of the replicas; of a farm, this node's shares.
pub fn data(s: &Snapshot) -> String {
    if let Some(farm) = &s.farm {
        let shares: Vec<String> =
            farm.groups.iter().filter_map(Group::share).map(|share| format!("{:.0}%", share * 100.0)).collect();
        return if shares.is_empty() { "-".to_owned() } else { shares.join(" ") };
    }
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
    parts.extend(replica.ack_us.map(|us| format!("ack {}", brief(us))));
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_fit_a_narrow_terminal() {
        let (level, words) = log_line("2026-11-20 10:00:00.123456 | heart | E | Local state a | b");
        assert_eq!((level, words.as_str()), (Level::Event, "10:00:00.123 heart     Local state a | b"));
        assert_eq!(log_line("torn"), (Level::Other, "torn".to_owned()));
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!((short("module", 6).as_str(), short("module-12", 6).as_str()), ("module", "mod…12"));
        assert_eq!((short("é-long-name", 4).as_str(), short("name", 2).as_str()), ("é-…e", "na"));
    }

    #[test]
    fn moments_are_those_of_the_clock_on_the_wall() {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        let now = "2026-11-20T12:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!(moment("2026-11-20T10:00:21.5Z", now, &zone), "12:00:21");
        assert_eq!(moment("2026-11-19T10:00:21Z", now, &zone), "2026-11-19 12:00:21");
        assert_eq!(moment("yesterday, when all was well", now, &zone), "yesterday, when all");
        assert_eq!((age("2026-11-20T11:59:00Z", now), age("2026-11-20T11:59:00Z", 0)), (Some(60.0), None));
        assert_eq!((age("2026-11-20T12:59:00Z", now), age("x", now)), (Some(0.0), None), "clocks may be wrong");
    }
}
