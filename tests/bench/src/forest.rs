//! Trees: of small files and a large one, and small changes of it; of files that are full of bytes like no others.

use anyhow::Result;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// Files in one directory.
const TOGETHER: u32 = 1000;

pub fn small(dir: &Path, n: u32) -> PathBuf {
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

/// Makes `files` files of `size` bytes. No two blocks are alike and none can be made smaller; the same arguments make the same tree. Durable.
pub fn fill(dir: &Path, files: u32, size: u64) -> Result<()> {
    let (mut number, mut buffer) = (0x9e37_79b9_7f4a_7c15_u64, vec![0; MIB as usize]);
    for n in 0..files {
        let path = small(dir, n);
        if n.is_multiple_of(TOGETHER)
            && let Some(parent) = path.parent()
        {
            std::fs::create_dir_all(parent)?;
        }
        let file = File::create(path)?;
        let mut at = 0;
        while at < size {
            let part = buffer.get_mut(..(size - at).min(MIB) as usize).unwrap_or_default();
            for word in part.chunks_mut(8) {
                // xorshift64
                number ^= number << 13;
                number ^= number >> 7;
                number ^= number << 17;
                word.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
            }
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
    }
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_full_tree_is_the_same_each_time_and_no_block_is_twice_in_it() {
        let base = std::env::temp_dir().join(format!("sk-bench-fill-{}", std::process::id()));
        let (one, two) = (base.join("one"), base.join("two"));
        let size = MIB + 3 * BLOCK as u64;
        for dir in [&one, &two] {
            fill(dir, 3, size).unwrap();
        }
        let mut blocks = HashSet::new();
        for n in 0..3 {
            let content = std::fs::read(small(&one, n)).unwrap();
            assert_eq!(content.len() as u64, size);
            assert!(content == std::fs::read(small(&two, n)).unwrap(), "file {n} differs");
            blocks.extend(content.chunks(BLOCK).map(<[u8]>::to_vec));
        }
        assert_eq!(blocks.len() as u64, 3 * size / BLOCK as u64);
        std::fs::remove_dir_all(base).unwrap();
    }
}
