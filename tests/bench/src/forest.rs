//! A tree of small files and a large one, and small changes of it.

use anyhow::Result;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// Files in one directory.
const TOGETHER: u32 = 1000;

fn small(dir: &Path, n: u32) -> PathBuf {
    dir.join(format!("d{}", n / TOGETHER)).join(format!("f{n}"))
}

/// Makes `files` files of 100 bytes, and one of `big_mib` MiB of which every 256th block holds data.
pub fn make(dir: &Path, files: u32, big_mib: u64) -> Result<()> {
    for n in 0..files {
        let path = small(dir, n);
        if n.is_multiple_of(TOGETHER)
            && let Some(parent) = path.parent()
        {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, format!("{n:099}\n"))?;
    }
    let big = File::create(dir.join("big"))?;
    big.set_len(big_mib * MIB)?;
    for n in 0..big_mib {
        big.write_all_at(&[(n % 251) as u8 + 1; BLOCK], n * MIB)?;
    }
    Ok(big.sync_all()?)
}

/// Changes `changed` of the files, and one block of the large one, in place; durable only when the system finds time.
pub fn change(dir: &Path, files: u32, changed: u32, big_mib: u64, seed: u64) -> Result<()> {
    let step = (files / changed.max(1)).max(1);
    for n in 0..changed.min(files) {
        let path = small(dir, (n * step + seed as u32) % files);
        OpenOptions::new().write(true).open(path)?.write_all_at(format!("{seed:050}").as_bytes(), 0)?;
    }
    let block = [seed as u8; BLOCK];
    let big = OpenOptions::new().write(true).open(dir.join("big"))?;
    Ok(big.write_all_at(&block, (seed * 977 % big_mib.max(1)) * MIB)?)
}
