//! Are two trees the same? Looked at beneath every mount, sharing no code with the product.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, FileType};
use std::hash::Hasher;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What one entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    device: u64,
    size: u64,
    links: u64,
    modified: (i64, i64),
    target: Option<PathBuf>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    content: u64,
}

/// Entries by path relative to the root, the root itself as an empty path.
pub fn walk(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        let path = root.join(&relative);
        let seen = entry(&path).with_context(|| format!("look at {}", path.display()))?;
        if seen.kind == "directory" {
            let list = std::fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
            for child in list {
                left.push(relative.join(child?.file_name()));
            }
        }
        entries.insert(relative, seen);
    }
    Ok(entries)
}

fn entry(path: &Path) -> Result<Entry> {
    let meta = path.symlink_metadata()?;
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_char_device() => "character device",
        () => "block device",
    };
    let directory = kind == "directory";
    Ok(Entry {
        kind,
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        device: meta.rdev(),
        // Of a directory both depend on how the file system stores it.
        size: if directory { 0 } else { meta.size() },
        links: if directory { 0 } else { meta.nlink() },
        modified: (meta.mtime(), meta.mtime_nsec()),
        target: if kind == "symlink" { Some(std::fs::read_link(path)?) } else { None },
        attributes: attributes(path)?,
        content: if kind == "file" { hash(path)? } else { 0 },
    })
}

fn attributes(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0_u8; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut all = BTreeMap::new();
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

fn hash(path: &Path) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut hasher = std::hash::DefaultHasher::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        // Chunks of equal files may end at different places: byte by byte the hash does not depend on them.
        hasher.write(buffer.get(..length).unwrap_or_default());
    }
}

/// Differences in words, at most `limit`.
pub fn differences(one: &BTreeMap<PathBuf, Entry>, two: &BTreeMap<PathBuf, Entry>, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (path, here) in one {
        match two.get(path) {
            None => found.push(format!("{}: only on node1: {here:?}", path.display())),
            Some(there) if here != there => found.push(format!("{}: {here:?} is not {there:?}", path.display())),
            Some(_) => {}
        }
    }
    for (path, there) in two {
        if !one.contains_key(path) {
            found.push(format!("{}: only on node2: {there:?}", path.display()));
        }
    }
    found.truncate(limit);
    found
}

/// All regular files beneath a directory with a file name, for looking things up in a salvage. A number may follow after a dot.
pub fn files_named(root: &Path, name: &str) -> Vec<PathBuf> {
    named(root, name, FileType::is_file)
}

/// The same of directories.
pub fn directories_named(root: &Path, name: &str) -> Vec<PathBuf> {
    named(root, name, FileType::is_dir)
}

fn named(root: &Path, name: &str, wanted: impl Fn(&FileType) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(list) = std::fs::read_dir(&path) else { continue };
        for child in list.flatten() {
            let Ok(kind) = child.file_type() else { continue };
            if kind.is_dir() {
                left.push(child.path());
            }
            if wanted(&kind) && is_called(&child.file_name(), name) {
                found.push(child.path());
            }
        }
    }
    found
}

fn is_called(seen: &OsString, name: &str) -> bool {
    let Some(rest) = seen.to_str().and_then(|seen| seen.strip_prefix(name)) else { return false };
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|n| n.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_kind_of_difference_is_seen() -> Result<()> {
        let base = std::env::temp_dir().join(format!("compare-{}", std::process::id()));
        for side in ["a", "b"] {
            std::fs::create_dir_all(base.join(side).join("d"))?;
            std::fs::write(base.join(side).join("d/f"), "content")?;
        }
        let times = std::time::SystemTime::UNIX_EPOCH;
        let level = |path: &str| -> Result<()> {
            for side in ["a", "b"] {
                File::open(base.join(side).join(path))?.set_modified(times)?;
            }
            Ok(())
        };
        let count =
            || -> Result<usize> { Ok(differences(&walk(&base.join("a"))?, &walk(&base.join("b"))?, 100).len()) };
        level("d/f")?;
        level("d")?;
        level("")?;
        assert_eq!(count()?, 0);
        std::fs::write(base.join("b/d/f"), "Content")?;
        level("d/f")?;
        assert_eq!(count()?, 1, "content");
        std::fs::write(base.join("b/d/f"), "content")?;
        assert_eq!(count()?, 1, "time");
        level("d/f")?;
        std::fs::set_permissions(base.join("b/d/f"), Permissions::from_mode(0o600))?;
        std::fs::set_permissions(base.join("a/d/f"), Permissions::from_mode(0o640))?;
        assert_eq!(count()?, 1, "mode");
        std::fs::remove_file(base.join("a/d/f"))?;
        level("d")?;
        assert_eq!(count()?, 1, "presence");
        std::fs::remove_dir_all(&base)?;
        Ok(())
    }
    use std::fs::Permissions;
}
