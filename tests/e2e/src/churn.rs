//! A storm of names that remembers: makes, renames, links and removes files, and knows at the end what must be there.

use crate::campaign::random::Random;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Names that are used again and again.
const NAMES: u64 = 300;
/// Steps from one `fsync` of the directory to the next.
const SYNC: u64 = 64;

/// What a storm did. No step failed, and nothing was missing or left over at its end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Churned {
    /// Steps.
    pub steps: u64,
    /// Files at the end.
    pub files: usize,
}

/// Works in a new directory until `stop`. Every error of the file system ends it.
pub fn churn(directory: &Path, seed: u64, stop: &AtomicBool) -> Result<Churned> {
    std::fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut random = Random::new(seed);
    let mut present: BTreeMap<u64, u64> = BTreeMap::new();
    let mut steps = 0;
    while !stop.load(Ordering::Relaxed) {
        steps += 1;
        let (one, two) = (random.below(NAMES), random.below(NAMES));
        let (path, other) = (directory.join(one.to_string()), directory.join(two.to_string()));
        match (random.below(8), present.get(&one).copied()) {
            (0..=2, _) => {
                let mut file = File::create(&path).with_context(|| format!("step {steps}: create {one}"))?;
                write!(file, "{steps}").with_context(|| format!("step {steps}: write {one}"))?;
                present.insert(one, steps);
            }
            (3..=5, Some(content)) if one != two => {
                std::fs::rename(&path, &other).with_context(|| format!("step {steps}: rename {one} to {two}"))?;
                present.remove(&one);
                present.insert(two, content);
            }
            (6, Some(content)) if !present.contains_key(&two) => {
                std::fs::hard_link(&path, &other).with_context(|| format!("step {steps}: link {one} as {two}"))?;
                // Two names of one file: a later write through one would show in the other.
                std::fs::remove_file(&path).with_context(|| format!("step {steps}: unlink {one}, now {two}"))?;
                present.remove(&one);
                present.insert(two, content);
            }
            (_, Some(_)) => {
                std::fs::remove_file(&path).with_context(|| format!("step {steps}: unlink {one}"))?;
                present.remove(&one);
            }
            _ => {}
        }
        if steps.is_multiple_of(SYNC) {
            File::open(directory).and_then(|d| d.sync_all()).with_context(|| format!("step {steps}: fsync"))?;
        }
    }
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).context("list the directory")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
        let name = name.with_context(|| format!("{}: a name of nobody", path.display()))?;
        let content = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        found.insert(name, content.parse::<u64>().with_context(|| format!("{}: {content:?}", path.display()))?);
    }
    ensure!(found == present, "after {steps} steps there are {found:?} instead of {present:?}");
    Ok(Churned { steps, files: found.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_directory_passes_and_a_foreign_file_does_not() -> Result<()> {
        let place = tempfile::tempdir()?;
        let work = |name: &str, foreign: Option<&str>| {
            let (stop, directory) = (AtomicBool::new(false), place.path().join(name));
            std::thread::scope(|scope| -> Result<Churned> {
                let storm = scope.spawn(|| churn(&directory, 7, &stop));
                crate::wait::until("files", std::time::Duration::from_secs(20), || {
                    let count = std::fs::read_dir(&directory).map_or(0, Iterator::count);
                    if count > 20 { Ok(()) } else { Err(format!("{count} files")) }
                })?;
                if let Some(foreign) = foreign {
                    std::fs::write(directory.join(foreign), "1")?;
                }
                stop.store(true, Ordering::Relaxed);
                storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))?
            })
        };
        let seen = work("good", None)?;
        assert!(seen.steps > 20 && seen.files > 0, "{seen:?}");
        assert!(work("bad", Some("999")).is_err());
        Ok(())
    }
}
