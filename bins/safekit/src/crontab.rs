//! Which jobs of cron run where the application runs? `gencron [del|add] USER [all|COMMAND] -c COMMENT` takes lines of a user's
//! crontab out by making them comments, and puts them back.

use crate::cli::Failure;
use std::process::Command;
use std::time::Duration;

const USAGE: &str = "usage: safekit -r gencron add|del USER all|COMMAND -c COMMENT";
/// How long crontab(1) may take, and how much it may print.
const PATIENCE: Duration = Duration::from_secs(10);
const LIMIT: u64 = 1024 * 1024;

/// Changes the crontab; one that is as wanted already is left alone.
pub fn run(arguments: &[String]) -> Result<u8, Failure> {
    let [action, user, command, option, comment] = arguments else { return Err(Failure::usage(USAGE)) };
    if option != "-c" || comment.trim().is_empty() || comment.contains('\n') {
        return Err(Failure::usage(format!("gencron: -c needs a comment of one line; {USAGE}")));
    }
    let edit = match action.as_str() {
        "add" => put_back,
        "del" => take_out,
        other => return Err(Failure::usage(format!("gencron has no action {other:?}; {USAGE}"))),
    };
    let failed = |what: &str, e| Failure::sys(format!("gencron: cannot {what} the crontab of {user}"), e);
    let mut list = Command::new("crontab");
    let read = sys::bounded::run(list.args(["-l", "-u", user]), PATIENCE, LIMIT).map_err(|e| failed("read", e))?;
    if !read.status.is_some_and(|s| s.success()) {
        // It has said why: no crontab, no such user.
        return Err(Failure::new(
            1,
            format!("gencron: the crontab of {user} cannot be read; see: crontab -l -u {user}"),
        ));
    }
    if read.output.len() as u64 >= LIMIT {
        return Err(Failure::new(1, format!("gencron: the crontab of {user} has more than {LIMIT} bytes")));
    }
    let before = String::from_utf8(read.output)
        .map_err(|_| Failure::new(1, format!("gencron: the crontab of {user} is not UTF-8")))?;
    let after: String = before
        .lines()
        .map(|line| edit(line, command, comment.trim()).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect();
    if after == before {
        return Ok(0);
    }
    let mut write = Command::new("crontab");
    let written = sys::bounded::run_with(write.args(["-u", user, "-"]), after.into_bytes(), PATIENCE, LIMIT)
        .map_err(|e| failed("write", e))?;
    if written.status.is_some_and(|s| s.success()) {
        return Ok(0);
    }
    Err(Failure::new(1, format!("gencron: crontab refused the new crontab of {user}; the former one stays")))
}

fn mark(comment: &str) -> String {
    format!("#{comment}# ")
}

/// A job as a comment; `None`: the line stays.
fn take_out(line: &str, command: &str, comment: &str) -> Option<String> {
    let job = !line.trim_start().starts_with('#') && !line.trim().is_empty() && !is_variable(line);
    (job && (command == "all" || line.contains(command))).then(|| mark(comment) + line)
}

/// A job that was taken out with the same comment.
fn put_back(line: &str, command: &str, comment: &str) -> Option<String> {
    let job = line.strip_prefix(&mark(comment))?;
    (command == "all" || job.contains(command)).then(|| job.to_owned())
}

/// `NAME = value`: a setting for the jobs after it, as crontab(5) says.
fn is_variable(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| {
        let name = name.trim().trim_matches(['"', '\'']);
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_taken_out_and_come_back_as_they_were() {
        let table = "# my jobs\nMAILTO=root\n\n0 1 * * * backup --all\n*/5 * * * * poll a=b\n";
        let edit = |text: &str, f: fn(&str, &str, &str) -> Option<String>, command: &str| -> String {
            text.lines().map(|l| f(l, command, "mirror").unwrap_or_else(|| l.to_owned()) + "\n").collect()
        };
        let out = edit(table, take_out, "all");
        assert_eq!(out, "# my jobs\nMAILTO=root\n\n#mirror# 0 1 * * * backup --all\n#mirror# */5 * * * * poll a=b\n");
        assert_eq!(edit(&out, take_out, "all"), out, "twice is once");
        assert_eq!(edit(&out, put_back, "all"), table);
        let one = edit(table, take_out, "backup");
        assert!(one.contains("#mirror# 0 1 * * * backup") && one.contains("\n*/5 * * * * poll"));
        assert_eq!(edit(&out, put_back, "poll"), one);
        assert_eq!(put_back("#other# 1 2 3 4 5 x", "all", "mirror"), None);
    }
}
