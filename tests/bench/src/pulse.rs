//! How long do small durable writes take, and the longest of them?

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const BLOCK: usize = 4096;
/// Blocks of the file that is written.
const BLOCKS: u64 = 256;

/// What was seen between the first and the last write.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Pulse {
    pub writes: u64,
    pub median_us: f64,
    pub longest_ms: f64,
}

/// Writes 4 KiB and makes them durable, one after the other, until the file `stop` exists.
pub fn write(file: &Path, stop: &Path) -> Result<Pulse> {
    let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).open(file)?;
    file.set_len(BLOCKS * BLOCK as u64)?;
    let mut took = Vec::new();
    while !stop.exists() {
        let n = took.len() as u64;
        let begun = Instant::now();
        file.write_all_at(&[n as u8; BLOCK], n * 7 % BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let (writes, longest) = (took.len() as u64, took.iter().copied().fold(0.0, f64::max));
    Ok(Pulse { writes, median_us: crate::table::median(&mut took), longest_ms: longest / 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_it_is_told_to() {
        let home = tempfile::tempdir().unwrap();
        let (file, stop) = (home.path().join("file"), home.path().join("stop"));
        std::thread::scope(|scope| {
            let pulse = scope.spawn(|| write(&file, &stop).unwrap());
            while std::fs::metadata(&file).map_or(0, |m| m.len()) == 0 {
                std::thread::yield_now();
            }
            std::fs::write(&stop, b"").unwrap();
            let seen = pulse.join().unwrap();
            assert!(seen.longest_ms >= seen.median_us / 1e3, "{seen:?}");
        });
    }
}
