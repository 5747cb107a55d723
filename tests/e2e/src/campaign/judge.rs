//! Is everything there that the application was told is durable?

use crate::campaign::compare::{directories_named, files_named};
use crate::campaign::load::{BLOCK, RECORD, named, record, version_of};
use crate::campaign::notes::{Kind, Life, Note};
use crate::campaign::postgres;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// When the nodes could not see each other, and who gave way afterwards: the documented compromise without an arbiter. What the
/// losers were told is done in that time may be in a salvage instead of the tree.
#[derive(Clone, Debug, Default)]
pub struct Split {
    /// From and to, nanoseconds of the machine's clock.
    pub isolated: Vec<(u64, u64)>,
    /// Nodes that gave way.
    pub losers: BTreeSet<String>,
}

impl Split {
    /// Start of the first isolation that this life, as a loser, saw.
    fn excuse(&self, life: &Life) -> Option<u64> {
        let last = life.notes.last()?.at;
        let windows = self.isolated.iter().filter(|_| self.losers.contains(&life.node));
        windows.filter(|(from, to)| *from <= last && life.notes.first().is_some_and(|n| n.at <= *to)).map(|w| w.0).min()
    }
}

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The replicated directory of a node.
    pub tree: PathBuf,
    /// Salvage directories of both nodes.
    pub salvages: Vec<PathBuf>,
    /// A directory for copies.
    pub work: PathBuf,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Things acknowledged, and whether they were looked at.
    pub acknowledged: u64,
    /// Each thing that is missing, in words.
    pub lost: Vec<String>,
    /// Things found in a salvage only.
    pub salvaged: u64,
}

/// Compares the notes of all lives with a tree.
pub fn judge(lives: &[Life], split: &Split, evidence: &Evidence) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    blocks(lives, split, evidence, &mut verdict)?;
    for life in lives {
        let mut keys: BTreeMap<&str, Vec<&Note>> = BTreeMap::new();
        for note in &life.notes {
            keys.entry(&note.key).or_default().push(note);
        }
        let excuse = split.excuse(life);
        for (key, notes) in keys {
            match key.split_once('/') {
                Some(("r", name)) => counted(key, &notes, excuse, &mut verdict, evidence, name, &records_of)?,
                Some(("n", path)) => named_file(key, path, &notes, excuse, evidence, &mut verdict),
                _ => {}
            }
        }
    }
    rows(lives, split, evidence, &mut verdict)?;
    commits(lives, split, evidence, &mut verdict)?;
    Ok(verdict)
}

fn last_done<'a>(notes: &[&'a Note], before: u64) -> Option<&'a Note> {
    notes.iter().rev().find(|note| note.kind == Kind::Done && note.at <= before).copied()
}

/// Values a key may have when what was done up to `before` must be there.
fn allowed(notes: &[&Note], before: u64) -> BTreeSet<u64> {
    let done = last_done(notes, before);
    let since = done.and_then(|done| {
        notes.iter().rposition(|note| note.kind == Kind::Intent && note.at <= done.at && note.value == done.value)
    });
    let mut values: BTreeSet<u64> = [done.map_or(0, |done| done.value)].into();
    values.extend(notes.iter().skip(since.unwrap_or(0)).map(|note| note.value));
    values
}

fn blocks(lives: &[Life], split: &Split, evidence: &Evidence, verdict: &mut Verdict) -> Result<()> {
    // By key: the newest acknowledged version, and those of lives with an excuse.
    let mut wanted: BTreeMap<&str, (u64, Vec<u64>)> = BTreeMap::new();
    for life in lives {
        let excuse = split.excuse(life);
        let mut excused: BTreeMap<&str, u64> = BTreeMap::new();
        for note in life.notes.iter().filter(|note| note.kind == Kind::Done && note.key.starts_with("b/")) {
            verdict.acknowledged += 1;
            if excuse.is_some_and(|from| note.at >= from) {
                excused.insert(&note.key, note.value);
            } else {
                let newest = &mut wanted.entry(&note.key).or_default().0;
                *newest = note.value.max(*newest);
            }
        }
        for (key, value) in excused {
            wanted.entry(key).or_default().1.push(value);
        }
    }
    let mut contents: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut version = |path: &Path, file: &str, index: u64| -> Option<u64> {
        let content = contents.entry(path.to_owned()).or_insert_with(|| std::fs::read(path).unwrap_or_default());
        let at = usize::try_from(index).ok()?.checked_mul(BLOCK)?;
        match content.get(at..at + BLOCK) {
            Some(block) => version_of(file, index, block),
            None => Some(0),
        }
    };
    let mut salvaged: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (key, (must, excused)) in wanted {
        let (file, index) = key[2..].split_once('/').context("key of a block")?;
        let index = index.parse().context("number of a block")?;
        let found = version(&evidence.tree.join("blocks").join(file), file, index);
        match found {
            Some(found) if found >= must => {}
            found => verdict.lost.push(format!("{key}: acknowledged {must}, found {found:?}")),
        }
        for value in excused {
            let copies = salvaged
                .entry(file.to_owned())
                .or_insert_with(|| evidence.salvages.iter().flat_map(|salvage| files_named(salvage, file)).collect());
            // Written again by whoever served later: whether it had been shared by then, and so was not put aside, cannot be told.
            if found.is_some_and(|found| found >= value) {
            } else if copies.iter().any(|copy| version(copy, file, index).is_some_and(|kept| kept >= value)) {
                verdict.salvaged += 1;
            } else {
                verdict
                    .lost
                    .push(format!("{key}: the loser's {value} is neither in the tree ({found:?}) nor salvaged"));
            }
        }
    }
    Ok(())
}

/// Number of records in order, and bytes after them.
fn records_of(path: &Path) -> (u64, usize) {
    let content = std::fs::read(path).unwrap_or_default();
    let mut count = 0_u64;
    for chunk in content.chunks_exact(RECORD) {
        if chunk != record(count + 1).as_bytes() {
            break;
        }
        count += 1;
    }
    (count, content.len() - usize::try_from(count).unwrap_or(0) * RECORD)
}

fn counted(
    key: &str,
    notes: &[&Note],
    excuse: Option<u64>,
    verdict: &mut Verdict,
    evidence: &Evidence,
    name: &str,
    count: &dyn Fn(&Path) -> (u64, usize),
) -> Result<()> {
    let Some(done) = last_done(notes, u64::MAX) else { return Ok(()) };
    verdict.acknowledged += done.value;
    let (found, after) = count(&evidence.tree.join("records").join(name));
    let at_least = excuse.map_or(done.value, |from| last_done(notes, from).map_or(0, |note| note.value));
    if found < at_least {
        verdict.lost.push(format!("{key}: {at_least} acknowledged, {found} found, {after} bytes after them"));
    } else if after > RECORD || (after == RECORD && !in_flight(notes, found)) {
        verdict.lost.push(format!("{key}: {after} bytes of something else after {found} records"));
    } else if found < done.value {
        let kept = evidence.salvages.iter().flat_map(|salvage| files_named(salvage, name));
        if kept.map(|path| count(&path).0).max().unwrap_or(0) >= done.value {
            verdict.salvaged += done.value - found;
        } else {
            verdict.lost.push(format!("{key}: {} acknowledged, {found} in the tree, not salvaged", done.value));
        }
    }
    Ok(())
}

/// Whether the record after these was begun and never acknowledged. Where its node lost its power and serves again, the file may have its length
/// without its content, as on any local disk.
fn in_flight(notes: &[&Note], found: u64) -> bool {
    let next = |kind: Kind| notes.iter().any(|note| note.kind == kind && note.value == found + 1);
    next(Kind::Intent) && !next(Kind::Done)
}

fn named_file(key: &str, path: &str, notes: &[&Note], excuse: Option<u64>, evidence: &Evidence, verdict: &mut Verdict) {
    let value = |path: &Path| -> Option<u64> {
        let Ok(content) = std::fs::read(path) else { return Some(0) };
        let head = content.split(|byte| *byte == b'\n').next()?;
        let version = std::str::from_utf8(head).ok()?.parse().ok()?;
        (named(version) == content).then_some(version)
    };
    verdict.acknowledged += notes.iter().filter(|note| note.kind == Kind::Done).count() as u64;
    let found = value(&evidence.tree.join("names").join(path));
    if found.is_some_and(|found| allowed(notes, u64::MAX).contains(&found)) {
        return;
    }
    let done = last_done(notes, u64::MAX).map_or(0, |note| note.value);
    let lawful = excuse.is_some_and(|from| found.is_some_and(|found| allowed(notes, from).contains(&found)));
    let name = path.rsplit('/').next().unwrap_or(path);
    // The last change may have happened without its acknowledgement: what was put aside is then newer, or nothing.
    let last = allowed(notes, u64::MAX);
    let copies = || evidence.salvages.iter().flat_map(|salvage| files_named(salvage, name));
    let kept = || copies().any(|copy| value(&copy).is_some_and(|kept| kept != 0 && last.contains(&kept)));
    if lawful && (last.contains(&0) || kept()) {
        verdict.salvaged += u64::from(done != 0);
    } else {
        verdict.lost.push(format!("{key}: acknowledged {done}, found {found:?}, excused: {lawful}"));
    }
}

fn rows(lives: &[Life], split: &Split, evidence: &Evidence, verdict: &mut Verdict) -> Result<()> {
    for name in ["journal", "wal"] {
        let mut present: Option<BTreeMap<String, u64>> = None;
        for life in lives {
            let key = format!("s/{name}/{}", life.name);
            let notes: Vec<&Note> = life.notes.iter().filter(|note| note.key == key).collect();
            let Some(done) = last_done(&notes, u64::MAX) else { continue };
            verdict.acknowledged += done.value;
            let present = match &mut present {
                Some(present) => present,
                none => match database(&evidence.tree.join("db"), name, &evidence.work) {
                    Ok(seen) => none.insert(seen),
                    Err(error) => {
                        verdict.lost.push(format!("database {name}: {error:#}"));
                        break;
                    }
                },
            };
            let found = present.get(&life.name).copied().unwrap_or(0);
            let excuse = split.excuse(life);
            let at_least = excuse.map_or(done.value, |from| last_done(&notes, from).map_or(0, |note| note.value));
            let kept = || evidence.salvages.iter().any(|salvage| !files_named(salvage, name).is_empty());
            if found < at_least || (found < done.value && !kept()) {
                verdict.lost.push(format!("{key}: {} rows acknowledged, {found} found", done.value));
            } else if found < done.value {
                verdict.salvaged += done.value - found;
            }
        }
    }
    Ok(())
}

fn commits(lives: &[Life], split: &Split, evidence: &Evidence, verdict: &mut Verdict) -> Result<()> {
    let noted = |life: &Life| life.notes.iter().any(|note| note.key.starts_with("p/"));
    if !lives.iter().any(noted) {
        return Ok(());
    }
    let seen = match postgres::examine(&evidence.tree.join(postgres::DIRECTORY), &evidence.work) {
        Ok(seen) => seen,
        Err(error) => {
            verdict.lost.push(format!("postgres: {error:#}"));
            return Ok(());
        }
    };
    verdict.lost.extend(seen.damage.into_iter().map(|damage| format!("postgres: {damage}")));
    // A commit of the loser is in the log that was put aside; which one it was could only a server on its whole tree tell.
    let aside = |salvage: &PathBuf| !directories_named(salvage, "pg_wal").is_empty();
    let kept = evidence.salvages.iter().any(aside);
    for life in lives {
        let excuse = split.excuse(life);
        let done = life.notes.iter().filter(|note| note.kind == Kind::Done);
        for note in done {
            let Some(commit) = note.key.strip_prefix("p/") else { continue };
            verdict.acknowledged += 1;
            if seen.commits.contains(&(commit.to_owned(), note.value)) {
                continue;
            }
            if kept && excuse.is_some_and(|from| note.at >= from) {
                verdict.salvaged += 1;
            } else {
                verdict.lost.push(format!("{}: commit {} was acknowledged and is not there", note.key, note.value));
            }
        }
    }
    Ok(())
}

/// Rows of each life in a copy of a database, recovered as its next user would; an error when it is damaged.
fn database(directory: &Path, name: &str, work: &Path) -> Result<BTreeMap<String, u64>> {
    let copy = work.join("db");
    let _ = std::fs::remove_dir_all(&copy);
    std::fs::create_dir_all(&copy)?;
    for suffix in ["", "-journal", "-wal"] {
        let file = format!("{name}{suffix}");
        if directory.join(&file).exists() {
            std::fs::copy(directory.join(&file), copy.join(&file)).with_context(|| format!("copy {file}"))?;
        }
    }
    let output = Command::new("sqlite3")
        .args(["-batch", "-noheader", "-separator", " "])
        .arg(copy.join(name))
        .arg("PRAGMA integrity_check; SELECT life, count(*), max(n) FROM t GROUP BY life;")
        .output()
        .context("run sqlite3")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    let mut lines = text.lines();
    ensure!(lines.next() == Some("ok"), "integrity check: {}", text.lines().next().unwrap_or("nothing"));
    let mut present = BTreeMap::new();
    for line in lines {
        let mut parts = line.split(' ');
        let (life, count, newest) = (parts.next(), parts.next(), parts.next());
        ensure!(count == newest, "rows are missing in the middle: {line}");
        if let (Some(life), Some(Ok(count))) = (life, count.map(str::parse)) {
            present.insert(life.to_owned(), count);
        }
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: Kind, value: u64) -> Note {
        Note { kind, at: value, key: "r/a".into(), value, words: String::new() }
    }

    #[test]
    fn what_follows_the_records_may_be_the_one_that_was_never_acknowledged() {
        let all = [note(Kind::Intent, 1), note(Kind::Done, 1), note(Kind::Intent, 2)];
        let notes: Vec<&Note> = all.iter().collect();
        assert!(in_flight(&notes, 1));
        assert!(!in_flight(&notes, 0), "it was acknowledged");
        assert!(!in_flight(&notes, 2), "it was never begun");
    }
}
